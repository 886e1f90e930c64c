//! What a person reads who started something wrongly: one sentence, once, that names what was set, what is
//! wrong with it and what to do, in words that are not a library's.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

use std::{
    fs,
    io::Read as _,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use stategate_servers::{Postgres, free_port};
use stategate_tests::{PATIENCE, binaries};

/// Words of libraries and of the system, which say nothing to whoever reads them.
const FOREIGN: [&str; 14] = [
    "os error",
    "transport error",
    "OtherError",
    "InvalidContentType",
    "KeyMismatch",
    "no RSA or PKCS8",
    "peer sent no certificates",
    "Error code",
    "malformed",
    "unknown variant",
    "missing field",
    "invalid digit",
    "panicked",
    "Error {",
];

/// What a person did, and what must be read.
struct Mistake {
    binary: &'static str,
    arguments: Vec<String>,
    env: Vec<(&'static str, String)>,
    says: Vec<&'static str>,
}

impl Mistake {
    fn of(binary: &'static str, says: &[&'static str]) -> Self {
        Self {
            binary,
            arguments: Vec::new(),
            env: Vec::new(),
            says: says.to_vec(),
        }
    }

    fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Runs it to its end. Answers what is wrong with what it said.
    fn make(&self, folder: &Path) -> Option<String> {
        let mut command = Command::new(binaries::find(self.binary));
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("STATEGATE_") {
                command.env_remove(variable);
            }
        }
        let mut child = command
            .args(&self.arguments)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if begun.elapsed() > PATIENCE => {
                    child.kill().unwrap();
                    break child.wait().unwrap();
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let mut said = String::new();
        child.stderr.unwrap().read_to_string(&mut said).unwrap();
        let what = format!(
            "{} {} {:?} ended with {status} and said:\n{said}",
            self.binary,
            self.arguments.join(" "),
            self.env
        );
        // What is logged before comes as JSON.
        let lines: Vec<&str> = said
            .lines()
            .filter(|line| !line.starts_with('{') && !line.is_empty())
            .filter(|line| !line.starts_with("For more information"))
            .collect();
        if status.code().is_none_or(|code| code == 0) {
            return Some(format!("it did not refuse: {what}"));
        }
        let [line] = lines[..] else {
            return Some(format!("it is not one line: {what}"));
        };
        let lacking = self.says.iter().find(|part| !line.contains(**part));
        if let Some(part) = lacking {
            return Some(format!("it does not say {part:?}: {what}"));
        }
        if let Some(foreign) = FOREIGN.iter().find(|word| line.contains(**word)) {
            return Some(format!("it says {foreign:?}: {what}"));
        }
        let mut parts: Vec<&str> = line.split(": ").collect();
        let count = parts.len();
        parts.sort_unstable();
        parts.dedup();
        (parts.len() < count).then(|| format!("it says something twice: {what}"))
    }
}

/// Makes all of them; fails with everything that is wrong.
fn make(mistakes: &[Mistake], folder: &Path) {
    let wrong: Vec<String> = mistakes
        .iter()
        .filter_map(|mistake| mistake.make(folder))
        .collect();
    println!("{} mistakes were made", mistakes.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Certificates, keys, and what is taken for them.
fn files(folder: &Path) {
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    for n in ["", "2"] {
        let key = rcgen::KeyPair::generate().unwrap();
        let about = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = about.self_signed(&key).unwrap();
        write(&format!("cert{n}.pem"), certificate.pem().as_bytes());
        write(&format!("key{n}.pem"), key.serialize_pem().as_bytes());
        write(&format!("cert{n}.der"), certificate.der());
        write(&format!("key{n}.der"), key.serialized_der());
        write(&format!("public{n}.pem"), key.public_key_pem().as_bytes());
        let pem = certificate.pem();
        write(&format!("cut{n}.pem"), &pem.as_bytes()[..pem.len() / 2]);
    }
    write(
        "encrypted.pem",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    write("empty", b"");
    write("text", b"hello\n");
    write("binary", &[0xff, 0xfe, 0, 1, 2, 0x80]);
    fs::create_dir(folder.join("directory")).unwrap();
}

fn dev(says: &[&'static str]) -> Mistake {
    Mistake::of("stategate", says)
        .with(&["dev", "--memory"])
        .env("STATEGATE_PORT", "0")
}

fn service(binary: &'static str, says: &[&'static str]) -> Mistake {
    Mistake::of(binary, says)
        .env("STATEGATE_AUTH_DISABLED", "true")
        .env("STATEGATE_PORT", "0")
}

#[test]
fn ports_and_variables() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let port_before = (port - 1).to_string();
    let port = port.to_string();
    let mut mistakes = vec![
        Mistake::of("stategate", &["--port", "in use", "set another"])
            .with(&["dev", "--memory", "--port", &port]),
        Mistake::of("stategate", &["STATEGATE_PORT", "in use", "set another"])
            .with(&["dev", "--memory"])
            .env("STATEGATE_PORT", port.clone()),
        Mistake::of("stategate", &["--port", "from 0 to 65534"])
            .with(&["dev", "--memory", "--port", "x"]),
        Mistake::of("stategate", &["--port", "from 0 to 65534"])
            .with(&["dev", "--memory", "--port", "65535"]),
        dev(&["STATEGATE_HOST", "IP address", "127.0.0.1"]).env("STATEGATE_HOST", "localhost"),
        dev(&["STATEGATE_HOST", "this machine alone"]).env("STATEGATE_HOST", "0.0.0.0"),
        dev(&["STATEGATE_CATCHUP_BYTES", "an integer from"]).env("STATEGATE_CATCHUP_BYTES", "64MB"),
        dev(&["STATEGATE_PROT", "did you mean STATEGATE_PORT"]).env("STATEGATE_PROT", "1"),
        dev(&["STATEGATE_TLS_KEY_FILE", "set both"]).env("STATEGATE_TLS_CERT_FILE", "cert.pem"),
    ];
    for binary in ["stategate-command", "stategate-query", "stategate-stream"] {
        mistakes.push(
            service(binary, &["STATEGATE_HOST", "this machine does not have"])
                .env("STATEGATE_HOST", "192.0.2.1")
                .env("STATEGATE_STORAGE_PROVIDER", r#"{"name":"memory"}"#),
        );
        mistakes.push(
            Mistake::of(
                binary,
                &["STATEGATE_JWKS_URI", "STATEGATE_AUTH_DISABLED=true"],
            )
            .env("STATEGATE_PORT", "0"),
        );
    }
    make(&mistakes, folder.path());
    // The port of metrics is the next one, and named as what it is. It may be that the one before is taken.
    if let Ok(free) = TcpListener::bind(format!("127.0.0.1:{port_before}")) {
        drop(free);
        let beside = Mistake::of(
            "stategate",
            &["STATEGATE_PORT", "metrics and health", "in use"],
        )
        .with(&["dev", "--memory"])
        .env("STATEGATE_PORT", port_before);
        make(&[beside], folder.path());
    }
    drop(taken);
}

#[test]
fn certificates_and_keys() {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path());
    // The files, which of them is to blame, and what it is.
    let pairs = [
        ("cert.pem", "key2.pem", "key2.pem", "belong together"),
        ("key.pem", "cert.pem", "key.pem", "swapped"),
        ("cert.pem", "cert.pem", "KEY", "swapped"),
        ("key.pem", "key.pem", "CERT", "swapped"),
        ("cert.pem", "encrypted.pem", "encrypted.pem", "is encrypted"),
        ("cert.pem", "public.pem", "public.pem", "public key"),
        ("cert.der", "key.pem", "cert.der", "looks like DER"),
        ("cert.pem", "key.der", "key.der", "looks like DER"),
        ("empty", "key.pem", "empty", "is empty"),
        ("cert.pem", "empty", "empty", "is empty"),
        ("text", "key.pem", "text", "not in PEM"),
        ("cert.pem", "text", "text", "not in PEM"),
        ("binary", "key.pem", "binary", "not in PEM"),
        ("cut.pem", "key.pem", "cut.pem", "is damaged"),
        ("directory", "key.pem", "directory", "is a directory"),
        ("cert.pem", "directory", "directory", "is a directory"),
        ("nowhere.pem", "key.pem", "nowhere.pem", "does not exist"),
        ("cert.pem", "nowhere.pem", "nowhere.pem", "does not exist"),
        ("text/x", "key.pem", "text/x", "no directory"),
    ];
    let mut mistakes = Vec::new();
    for (certificate, key, blamed, why) in pairs {
        let of_key = match blamed {
            "KEY" => true,
            "CERT" => false,
            blamed => key == blamed,
        };
        let name = match blamed {
            "KEY" | "CERT" => certificate,
            blamed => blamed,
        };
        let (variable, option) = match of_key {
            true => ("STATEGATE_TLS_KEY_FILE", "--tls-key"),
            false => ("STATEGATE_TLS_CERT_FILE", "--tls-cert"),
        };
        for mistake in [
            dev(&[variable, name, why]),
            service("stategate-stream", &[variable, name, why])
                .env("STATEGATE_STORAGE_PROVIDER", r#"{"name":"memory"}"#),
        ] {
            mistakes.push(
                mistake
                    .env("STATEGATE_TLS_CERT_FILE", certificate)
                    .env("STATEGATE_TLS_KEY_FILE", key),
            );
        }
        let arguments = ["--tls-cert", certificate, "--tls-key", key];
        mistakes.push(client(&arguments, &[option, name, why]));
        if !of_key {
            let authority = client(&["--tls-ca", certificate], &["--tls-ca", name, why]);
            mistakes.push(authority);
        }
    }
    mistakes.push(client(
        &["--tls-name", "a b"],
        &["--tls-name", "no name of a host"],
    ));
    for option in [
        &["--tls-ca", "cert.pem"][..],
        &["--tls-name", "gateway.example"],
        &["--tls-cert", "cert.pem", "--tls-key", "key.pem"],
    ] {
        let says = ["has no effect", "https://"];
        let mistake = Mistake::of("stategate", &says).with(&["get", "d", "t", "k"]);
        mistakes.push(mistake.with(&["--addr", "http://127.0.0.1:1"]).with(option));
    }
    make(&mistakes, folder.path());
}

/// A call that goes nowhere: what is wrong is found before.
fn client(arguments: &[&str], says: &[&'static str]) -> Mistake {
    Mistake::of("stategate", says)
        .with(&["get", "d", "t", "k", "--timeout", "1s"])
        .with(&["--addr", "https://127.0.0.1:1"])
        .with(arguments)
}

#[test]
fn tokens() {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path());
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("blank", " \n\n");
    write("two", "abc\ndef\n");
    write("bearer", "Bearer abc\n");
    let mut mistakes = vec![
        client(&["--token", ""], &["--token is empty"]),
        client(&["--token", "a b"], &["--token", "white space"]),
        client(&[], &["STATEGATE_TOKEN", "white space"]).env("STATEGATE_TOKEN", "a\nb"),
    ];
    for (file, why) in [
        ("empty", "is empty"),
        ("blank", "is empty"),
        ("two", "white space"),
        ("bearer", "the token alone"),
        ("binary", "is not text"),
        ("directory", "is a directory"),
        ("nowhere", "does not exist"),
    ] {
        mistakes.push(client(
            &["--token-file", file],
            &["--token-file", file, why],
        ));
        let variable = client(&[], &["STATEGATE_TOKEN_FILE", file, why]);
        mistakes.push(variable.env("STATEGATE_TOKEN_FILE", file));
    }
    make(&mistakes, folder.path());
}

#[test]
fn addresses() {
    let folder = tempfile::tempdir().unwrap();
    let mut mistakes = Vec::new();
    for (address, why) in [
        ("", "it is empty"),
        ("http://", "there is no host"),
        ("a b", "white space"),
        ("host:port", "`port` is not a port"),
        ("localhost:", "the port after the colon is missing"),
        ("localhost:0", "from 1 to 65535"),
        ("localhost:99999", "from 1 to 65535"),
        ("::1", "brackets"),
        ("fe80::1:8080", "brackets"),
        ("[::1", "brackets"),
        ("[zz]:1", "is no name or address of a host"),
        ("127.0.0.1.5:80", "is no name or address of a host"),
        ("%zz:1", "is no name or address of a host"),
        ("http:/localhost", "two slashes"),
        ("htp://localhost", "`htp` is not a scheme"),
        ("grpc://localhost", "`grpc` is not a scheme"),
        ("unix:/tmp/x.sock", "listens on a port"),
        ("/tmp/x.sock", "listens on a port"),
        ("user@host:1", "no user name"),
        ("localhost:8080/api", "nothing follows the port"),
        ("one:1,two:1", "a list is not taken"),
    ] {
        let mistake = |from| Mistake::of("stategate", &[from, why]).with(&["get", "d", "t", "k"]);
        mistakes.push(mistake("--addr").with(&["--addr", address]));
        // A variable that is set to nothing is unset.
        if !address.is_empty() {
            mistakes.push(mistake("STATEGATE_ADDR").env("STATEGATE_ADDR", address));
        }
    }
    make(&mistakes, folder.path());
}

#[test]
fn data_files() {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path());
    // A file of ours, cut off; its log of changes belongs to it.
    let made = Command::new(binaries::find("stategate"))
        .args(["dev", "--data", "ours.db", "--port", "x"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(!made.status.success());
    let random: Vec<u8> = (0..9_000u32).map(|n| (n * 7_919 % 251) as u8).collect();
    fs::write(folder.path().join("random.db"), &random).unwrap();
    // The head of an SQLite file with nothing behind it.
    let mut cut = b"SQLite format 3\0\x10\0\x01\x01\0\x40\x20\x20".to_vec();
    cut.extend(&random[..900]);
    fs::write(folder.path().join("cut.db"), &cut).unwrap();
    let mut mistakes = Vec::new();
    for (file, why) in [
        ("random.db", "is not an SQLite file"),
        ("text", "is not an SQLite file"),
        ("directory", "is the directory"),
        ("nowhere/x.db", "there is no directory nowhere"),
        ("text/x.db", "there is no directory text"),
    ] {
        let data = Mistake::of("stategate", &["--data", file, why]);
        mistakes.push(data.with(&["dev", "--port", "0", "--data", file]));
        for binary in ["stategate-command", "stategate-query", "stategate-stream"] {
            let provider = format!(r#"{{"name":"sqlite","path":"{file}"}}"#);
            let says = ["STATEGATE_STORAGE_PROVIDER", file, why];
            mistakes.push(service(binary, &says).env("STATEGATE_STORAGE_PROVIDER", provider));
        }
    }
    let says = [
        "--reset",
        "directory",
        "cannot be deleted",
        "is a directory",
    ];
    let reset = ["dev", "--data", "directory", "--reset", "--yes"];
    mistakes.push(Mistake::of("stategate", &says).with(&reset));
    // Either is true of it.
    let data = Mistake::of("stategate", &["--data", "cut.db", "in its place"]);
    mistakes.push(data.with(&["dev", "--port", "0", "--data", "cut.db"]));
    make(&mistakes, folder.path());
}

#[test]
fn providers() {
    let folder = tempfile::tempdir().unwrap();
    let mut mistakes = Vec::new();
    for (provider, why) in [
        ("sqlite", "is not JSON"),
        ("{", "is not JSON"),
        ("{}", "no \"name\""),
        (r#"{"name":"sqlit","path":"x"}"#, "unknown name `sqlit`"),
        (r#"{"name":"sqlite"}"#, "lacks the field `path`"),
        (r#"{"name":"sqlite","pth":"x"}"#, "unknown field `pth`"),
        (
            r#"{"name":"sqlite","path":"x","lanes":"8"}"#,
            "field `lanes`",
        ),
        (r#"{"name":"sqlite","path":"x","lanes":0}"#, "1 to 64"),
        (r#"{"name":"sqlite","path":""}"#, "must name a file"),
        (r#"{"name":"memory","lanes":65}"#, "1 to 64"),
        (r#"{"name":"postgres"}"#, "lacks the field `addr`"),
    ] {
        let says = ["STATEGATE_STORAGE_PROVIDER", why];
        let mistake = service("stategate-query", &says);
        mistakes.push(mistake.env("STATEGATE_STORAGE_PROVIDER", provider));
    }
    for (provider, why) in [
        ("nats", "is not JSON"),
        (r#"{"name":"nat","addr":"x"}"#, "unknown name `nat`"),
        (
            r#"{"name":"storage","interval_ms":0}"#,
            "field `interval_ms`",
        ),
        (r#"{"name":"storage","every":5}"#, "unknown field `every`"),
        (r#"{"name":"inmem"}"#, "within one process"),
    ] {
        let says = ["STATEGATE_CHANNEL_PROVIDER", why];
        let mistake = service("stategate-stream", &says);
        mistakes.push(mistake.env("STATEGATE_CHANNEL_PROVIDER", provider));
    }
    make(&mistakes, folder.path());
}

#[test]
fn databases_that_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let server = match Postgres::shared() {
        Ok(server) => server,
        Err(missing) => return missing.report("starts on PostgreSQL"),
    };
    let good = server.url();
    let (before, database) = good.rsplit_once('/').unwrap();
    assert!(!database.is_empty());
    let mut mistakes = Vec::new();
    for address in [
        format!("postgres://127.0.0.1:{}/x", free_port()),
        format!("{before}/no_such_database"),
    ] {
        let provider = serde_json::json!({"name": "postgres", "addr": address}).to_string();
        let says = ["STATEGATE_STORAGE_PROVIDER"];
        let mistake = service("stategate-query", &says);
        mistakes.push(mistake.env("STATEGATE_STORAGE_PROVIDER", provider));
    }
    // What the server or the system says is told, once.
    let wrong: Vec<String> = mistakes
        .iter()
        .filter_map(|mistake| mistake.make(folder.path()))
        .filter(|wrong| !wrong.starts_with("it says \"os error\""))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
