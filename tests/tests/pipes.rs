//! Readers who leave and users who interrupt: no command or service ends badly by the one, and none
//! goes on after the other.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use stategate_tests::{
    Cli, Form, Gateway, Options, PATIENCE,
    cli::{DONE, FAILED, ROWS_FAILED},
};

/// How long an interrupted command may take on a machine that does much else; it gives itself 0.9 s, and
/// without an interrupt it would try for a minute.
const AT_ONCE: Duration = Duration::from_secs(3);

/// A pipe that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn wait(child: &mut Child, most: Duration) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > most {
            child.kill().unwrap();
            panic!("it did not end within {most:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

#[tokio::test]
async fn commands_end_quietly_when_nobody_reads_them() {
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let cli = Cli::new(&mut gateway);
    for n in 0..100 {
        let values = format!("{{\"n\": {n}, \"text\": \"{}\"}}", "x".repeat(900));
        cli.run(&["set", "d", "t", &format!("k{n}"), &values])
            .ends(DONE);
        // More history than a pipe holds unread.
        cli.run(&["set", "d", "t", "k", &values]).ends(DONE);
    }
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.csv");
    fs::write(&bad, "id,n\n1,2\n,3\n").unwrap();
    let good = folder.path().join("good.csv");
    fs::write(&good, "id,n\n1,2\n4,3\n").unwrap();
    let fifo = folder.path().join("out.ndjson");
    let import = |file: &std::path::Path| -> Vec<String> {
        let file = file.to_str().unwrap();
        [
            "import", file, "--domain", "d", "--type", "i", "--key", "id",
        ]
        .map(str::to_owned)
        .to_vec()
    };
    let commands: &[(&[&str], i32)] = &[
        (&["--help"], DONE),
        (&["help", "import"], DONE),
        (&["--version"], DONE),
        (&["completions", "bash"], DONE),
        (&["man"], DONE),
        (&["get", "d", "t", "k"], DONE),
        (&["set", "d", "t", "new", "{}"], DONE),
        (&["history", "d", "t", "k"], DONE),
        (&["history", "d", "t", "k", "--json"], DONE),
        (&["diff", "d", "t", "k", "1", "2"], DONE),
        (&["search", "d", "t", "--limit", "0"], DONE),
        (&["events", "d", "t", "--limit", "0"], DONE),
        (&["stats"], DONE),
        (&["watch", "--from", "beginning", "--limit", "100"], DONE),
        (&["export", "d", "t"], DONE),
        (&["export", "d", "t", "--format", "csv"], DONE),
        (&["export", "d", "t", "--format", "tsv"], DONE),
        (&["export", "d", "t", "--format", "json"], DONE),
        (&["export", "--history"], DONE),
        (&["del", "d", "t", "--filter", "{}", "--dry-run"], DONE),
        (&["get", "d", "t", "absent"], 3),
        (&["nonsense"], 2),
    ];
    let good: Vec<String> = import(&good);
    let bad: Vec<String> = import(&bad);
    let good: Vec<&str> = good.iter().map(String::as_str).collect();
    let bad: Vec<&str> = bad.iter().map(String::as_str).collect();
    let imports: &[(&[&str], i32)] = &[(&good, DONE), (&bad, ROWS_FAILED)];
    for (arguments, code) in commands.iter().chain(imports) {
        for closes_stderr in [false, true] {
            let mut command = cli.command(arguments);
            command.stdout(closed()).stderr(Stdio::piped());
            if closes_stderr {
                command.stderr(closed());
            }
            let ran = command.output().unwrap();
            let said = String::from_utf8(ran.stderr).unwrap();
            assert_eq!(ran.status.code(), Some(*code), "{arguments:?}: {said}");
            for word in ["panicked", "roken pipe", "os error"] {
                assert!(!said.contains(word), "{arguments:?}: {said}");
            }
        }
    }
    // Where the reader is named as a file.
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let mut export = cli
        .command(&[
            "export",
            "d",
            "t",
            "--overwrite",
            "--out",
            fifo.to_str().unwrap(),
        ])
        .spawn()
        .unwrap();
    let mut text = String::new();
    fs::File::open(&fifo)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(wait(&mut export, PATIENCE).code(), Some(DONE));
    assert!(text.lines().count() > 100);
    gateway.assert_no_errors();
}

/// Starts a program that serves, reads one line of what it says, and leaves.
fn serves_on(mut command: Command, port: u16) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    command.stdin(Stdio::null());
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut one = [0];
    reader.read_exact(&mut one).unwrap();
    drop(reader);
    // What it says from here on, nobody reads; it serves all the same.
    let began = Instant::now();
    let ready = loop {
        if let Some(status) = child.try_wait().unwrap() {
            panic!("it ended: {status}");
        }
        let answer =
            std::net::TcpStream::connect(("127.0.0.1", port + 1)).and_then(|mut stream| {
                stream
                    .write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                Ok(answer)
            });
        match answer {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") => break true,
            _ if began.elapsed() > PATIENCE => break false,
            _ => thread::sleep(Duration::from_millis(20)),
        }
    };
    assert!(ready, "it serves");
    signal(&child, Signal::SIGTERM);
    let status = wait(&mut child, PATIENCE);
    assert_eq!((status.code(), status.signal()), (Some(0), None));
}

/// Two ports next to one another that are free now.
fn free_port() -> u16 {
    loop {
        let one = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = one.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

#[tokio::test]
async fn services_run_on_when_nobody_reads_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let storage = format!(
        r#"{{"name":"sqlite","path":"{}"}}"#,
        folder.path().join("log.db").display()
    );
    let program = |name: &str, port: u16| {
        let mut command = Command::new(stategate_tests::binaries::find(name));
        command
            .env("STATEGATE_PORT", port.to_string())
            .env("STATEGATE_DEBUG", "true")
            .env("STATEGATE_STORAGE_PROVIDER", &storage);
        command
    };
    let port = free_port();
    let mut dev = program("stategate", port);
    dev.arg("dev");
    serves_on(dev, port);
    for name in ["stategate-command", "stategate-query", "stategate-stream"] {
        let port = free_port();
        let mut service = program(name, port);
        service
            .env("STATEGATE_AUTH_DISABLED", "true")
            .env("STATEGATE_HOST", "127.0.0.1")
            .env("STATEGATE_CHANNEL_PROVIDER", r#"{"name":"storage"}"#);
        serves_on(service, port);
        // One that cannot start says so to nobody, and ends as it would have.
        let mut service = program(name, free_port());
        service.env("STATEGATE_NO_SUCH", "1").stderr(closed());
        assert_eq!(service.status().unwrap().code(), Some(FAILED), "{name}");
    }
}

/// Something that takes connections and never says a word.
fn silence() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[tokio::test]
async fn one_interrupt_ends_a_command_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.csv");
    let rows: String = (0..20_000).map(|n| format!("k{n},{n}\n")).collect();
    fs::write(&file, format!("id,n\n{rows}")).unwrap();
    let file = file.to_str().unwrap();
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let cli = Cli::new(&mut gateway);
    let silent = silence();
    let silent = silent.local_addr().unwrap().to_string();
    let import = [
        "import", file, "--domain", "d", "--type", "t", "--key", "id",
    ];
    for (how, signal_) in [
        ("well", Signal::SIGINT),
        ("well", Signal::SIGTERM),
        ("silent", Signal::SIGINT),
        ("silent", Signal::SIGTERM),
        ("stopped", Signal::SIGINT),
        ("stopped", Signal::SIGTERM),
    ] {
        let mut arguments = import.to_vec();
        if how == "silent" {
            arguments.extend(["--addr", &silent]);
        }
        let mut child = cli
            .command(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The first thing it says, and not to a terminal.
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut first = String::new();
        said.read_line(&mut first).unwrap();
        let id = first
            .split_whitespace()
            .nth(1)
            .unwrap()
            .trim_end_matches(';');
        assert!(first.contains(&format!("--resume {id}")), "{first}");
        if how != "silent" {
            cli.run(&[
                "watch",
                "--domain",
                "d",
                "--from",
                "beginning",
                "--limit",
                "1",
            ])
            .ends(DONE);
        }
        if how == "stopped" {
            gateway.process(stategate_tests::Role::Everything).stop();
        }
        signal(&child, signal_);
        let status = wait(&mut child, AT_ONCE);
        assert_eq!(status.code(), Some(FAILED), "{how}");
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("interrupted"), "{how}: {rest}");
        if how == "stopped" {
            gateway.process(stategate_tests::Role::Everything).go_on();
        }
        assert!(
            rest.contains(&format!("--resume {id} goes on")),
            "{how}: {rest}"
        );
    }
    // What waits for a file or a gateway that says nothing. (An interrupt may come before a command
    // has taken it over, and then ends it as it ends any program.)
    let fifo = folder.path().join("fifo.csv");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let fifo = fifo.to_str().unwrap();
    let to = format!(r#"{{"name":"sqlite","path":"{fifo}.db"}}"#);
    let mut of_fifo = import;
    of_fifo[1] = fifo;
    let restore = ["restore", fifo, "--to", &to];
    let watch = ["watch", "--addr", &silent];
    let export = ["export", "--history", "--addr", &silent];
    for arguments in [&of_fifo[..], &restore, &watch, &export] {
        // Open to be written, and never written to.
        let kept = arguments.contains(&fifo).then(|| {
            let options = fs::OpenOptions::new().read(true).write(true).open(fifo);
            options.unwrap()
        });
        let mut child = cli
            .command(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(300));
        assert!(child.try_wait().unwrap().is_none(), "{arguments:?} waits");
        signal(&child, Signal::SIGINT);
        let status = wait(&mut child, AT_ONCE);
        let ended = matches!(status.code(), Some(DONE | FAILED)) || status.signal() == Some(2);
        assert!(ended, "{arguments:?}: {status}");
        drop(kept);
    }
    gateway.assert_no_errors();
}
