//! Who a server of PostgreSQL lets in, and what it has room for: certificates of clients, files with passwords,
//! passwords that are changed while a gateway works, a disk that is full.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it did"
)]

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use stategate_model::{
    Claims, EntityRef, Event, EventId, Lane, Method, Position, Timestamp, Values, Version,
};
use stategate_servers::{Missing, Postgres as Server};
use stategate_storage::{
    Appended, Batch, Error, ErrorKind, Postgres, PostgresConfig, Result, Storage, Trouble, Work,
};
use tempfile::TempDir;
use uuid::Uuid;

/// How long to wait for what happens soon.
const PATIENCE: Duration = Duration::from_secs(30);

/// The result of getting a server, or the end of the test, said loudly.
macro_rules! server {
    ($server:expr) => {
        match $server {
            Ok(server) => server,
            Err(missing) => return Missing::report(&missing, module_path!()),
        }
    };
}

/// A folder whose files a server can read as whoever it runs as.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn add(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A file that its owner and the server alone can read.
    fn add_private(&self, name: &str, text: &str) -> PathBuf {
        let path = self.add(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        if let Some(group) = stategate_servers::postgres_group() {
            chown(&path, None, Some(group)).unwrap();
        }
        path
    }

    /// A file that its owner alone can read.
    fn add_secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.add(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

/// A setting of the server that names a file.
fn of_file(setting: &str, path: &Path) -> String {
    format!("{setting}={}", path.display())
}

/// A log of its own.
fn config(address: impl Into<String>) -> PostgresConfig {
    let mut config = PostgresConfig::new(address);
    config.schema = format!("t_{}", Uuid::new_v4().simple());
    config
}

/// Appends one event behind the last one, to an entity of its own.
async fn append(store: &Postgres, text: &str) -> Result<Appended> {
    let head = store.load(Lane(0), &[], &[], 0).await?.head;
    let position = head.position.next();
    let event = Event {
        id: EventId::fresh(Timestamp(0)),
        entity: EntityRef::new("d", "t", &position.to_string()).unwrap(),
        values: Values::from_canonical(format!(r#"{{"text":"{text}"}}"#)),
        version: Version::new(1),
        lane: Lane(0),
        position,
        time: Timestamp(position.as_i64()),
        method: Method::Set,
        claims: Claims::none(),
        trace_parent: None,
    };
    let batch = Arc::new(Batch {
        events: vec![event],
        keys: Vec::new(),
    });
    store.append(Lane(0), head.position, batch).await
}

async fn problem(config: &PostgresConfig) -> Error {
    Postgres::open(config).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_lets_its_user_in() {
    let files = Files::new();
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut about = rcgen::CertificateParams::default();
    about.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = about.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(about, authority_key);
    let made = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut about = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        about
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let certificate = about.signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let trusted = files.add("ca.pem", &authority.pem());
    let (certificate, key) = made("server");
    let hba = files.add(
        "hba.conf",
        "host all postgres 127.0.0.1/32 trust\nhostssl all app 127.0.0.1/32 cert\n",
    );
    let settings = [
        "ssl=on".to_owned(),
        of_file("ssl_cert_file", &files.add("server.pem", &certificate)),
        of_file("ssl_key_file", &files.add_private("server.key", &key)),
        of_file("ssl_ca_file", &trusted),
        of_file("hba_file", &hba),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let server = server!(Server::start(&settings));
    server.sql("CREATE ROLE app LOGIN; GRANT CREATE ON DATABASE postgres TO app");

    let file = |name: &str, (certificate, key): (String, String)| {
        let certificate = files.add(&format!("{name}.pem"), &certificate);
        let key = files.add_secret(&format!("{name}.key"), &key);
        (certificate, key)
    };
    let app = file("app", made("app"));
    let other = file("other", made("other"));
    let with = |more: &str| {
        config(format!(
            "postgres://app@localhost:{}/postgres?sslmode=verify-full&sslrootcert={}{more}",
            server.port(),
            trusted.display()
        ))
    };
    let identity = |certificate: &Path, key: &Path| {
        let (certificate, key) = (certificate.display(), key.display());
        with(&format!("&sslcert={certificate}&sslkey={key}"))
    };
    let store = Postgres::open(&identity(&app.0, &app.1)).await.unwrap();
    assert_eq!(append(&store, "in").await.unwrap(), Appended::Done);
    let known = "SELECT count(*) > 0 FROM pg_stat_ssl WHERE client_dn LIKE '%CN=app%'";
    assert_eq!(server.sql(known), "t");
    store.close().await;

    // Another's, and none.
    for refused in [identity(&other.0, &other.1), with("")] {
        let error = problem(&refused).await;
        assert_eq!(error.trouble(), Some(Trouble::Refused), "{error}");
    }
    // What cannot be used is said before the server is asked.
    for (certificate, key, name) in [
        (&app.0, &other.1, "`sslcert` and `sslkey`"),
        (&app.0, &app.0, "`sslkey`"),
        (&app.1, &app.1, "`sslcert`"),
        (&files.0.path().join("none"), &app.1, "`sslcert`"),
    ] {
        let error = problem(&identity(certificate, key)).await;
        assert_eq!(*error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

/// A server that asks everybody but its administrator for a password.
fn with_passwords(files: &Files) -> std::result::Result<Server, Missing> {
    let hba = files.add(
        "hba.conf",
        "host all postgres 127.0.0.1/32 trust\nhost all app 127.0.0.1/32 scram-sha-256\n",
    );
    let server = Server::start(&[&of_file("hba_file", &hba)])?;
    server.sql("CREATE ROLE app LOGIN PASSWORD 'first'; GRANT CREATE ON DATABASE postgres TO app");
    Ok(server)
}

/// Changes the password and ends every connection that the old one made.
fn change_password(server: &Server, password: &str) {
    server.sql(&format!("ALTER ROLE app PASSWORD '{password}'"));
    let end = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE usename = 'app'";
    assert_ne!(server.sql(end), "0");
}

/// Waits until the storage can be written to.
async fn until_ready(store: &Postgres) {
    let begun = Instant::now();
    while let Err(error) = store.check(Work::Write).await {
        assert!(begun.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the storage says why it cannot be written to.
async fn until_refused(store: &Postgres) {
    let begun = Instant::now();
    loop {
        let checked = store.check(Work::Write).await;
        if let Err(error) = &checked {
            assert!(!error.to_string().contains("first"), "{error}");
        }
        match checked {
            Err(error) if error.trouble() == Some(Trouble::Refused) => return,
            other => assert!(begun.elapsed() < PATIENCE, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_passwords_is_read_for_each_connection() {
    let files = Files::new();
    let server = server!(with_passwords(&files));
    let lines = |password: &str| {
        format!(
            "# comment\n127.0.0.1:1:postgres:app:wrong\n127.0.0.1:{}:*:app:{password}\n",
            server.port()
        )
    };
    let passfile = files.add_secret("passfile", &lines("first"));
    let config = config(format!(
        "postgres://app@127.0.0.1:{}/postgres?sslmode=disable&passfile={}",
        server.port(),
        passfile.display()
    ));
    let store = Postgres::open(&config).await.unwrap();
    assert_eq!(append(&store, "a").await.unwrap(), Appended::Done);

    change_password(&server, "second");
    until_refused(&store).await;
    let error = append(&store, "b").await.unwrap_err();
    assert_eq!(error.trouble(), Some(Trouble::Refused), "{error}");
    // While it is being changed it may be there in part, or not at all.
    fs::write(&passfile, "").unwrap();
    until_refused(&store).await;
    fs::write(&passfile, lines("second")).unwrap();
    until_ready(&store).await;
    assert_eq!(append(&store, "b").await.unwrap(), Appended::Done);
    store.close().await;

    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o644)).unwrap();
    let error = problem(&config).await;
    assert!(error.to_string().contains("`passfile`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_changed_is_named_and_changed_back() {
    let files = Files::new();
    let server = server!(with_passwords(&files));
    let address = |password: &str| {
        format!(
            "postgres://app:{password}@127.0.0.1:{}/postgres?sslmode=disable",
            server.port()
        )
    };
    let store = Postgres::open(&config(address("first"))).await.unwrap();
    // What is connected already stays so.
    server.sql("ALTER ROLE app PASSWORD 'second'");
    assert_eq!(append(&store, "a").await.unwrap(), Appended::Done);
    change_password(&server, "second");
    until_refused(&store).await;
    let error = append(&store, "b").await.unwrap_err();
    let refused = (error.kind().clone(), error.trouble());
    assert_eq!(refused, (ErrorKind::Unavailable, Some(Trouble::Refused)));
    let error = problem(&config(address("first"))).await;
    assert_eq!(error.trouble(), Some(Trouble::Refused), "{error}");

    server.sql("ALTER ROLE app PASSWORD 'first'");
    until_ready(&store).await;
    assert_eq!(append(&store, "b").await.unwrap(), Appended::Done);
    store.close().await;
}

/// A small file system of its own, for as long as this is held.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None`, said loudly, where this user may not make one.
    fn mount(size: &str) -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=755");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(at));
        }
        eprintln!("\n!!!! NOT COVERED: a full disk: only root can mount a small one\n");
        None
    }

    fn remount(&self, options: &str) {
        let done = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(self.0.path())
            .status();
        assert!(done.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        let _ = unmount.arg("--lazy").arg(self.0.path()).status();
    }
}

/// Text that no compression makes smaller.
fn random_text(bytes: usize) -> String {
    let words = (0..bytes / 32).map(|_| Uuid::new_v4().simple().to_string());
    words.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_until_there_is_room_again() {
    let Some(disk) = SmallDisk::mount("48m") else {
        return;
    };
    let server = server!(Server::start(&[]));
    let place = disk.0.path().join("tablespace");
    fs::create_dir(&place).unwrap();
    // The server wants to own it.
    let of_server = fs::metadata(server.sql("SHOW data_directory")).unwrap();
    chown(&place, Some(of_server.uid()), Some(of_server.gid())).unwrap();
    server.sql(&format!(
        "CREATE TABLESPACE small LOCATION '{}'",
        place.display()
    ));
    server.sql("CREATE DATABASE small TABLESPACE small");
    let address = server.url().replace("/postgres?", "/small?");
    let store = Postgres::open(&config(address)).await.unwrap();

    let (mut written, large) = (0_u64, random_text(200_000));
    let error = loop {
        match append(&store, &large).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1_000, "it never gets full");
    };
    let told = (error.kind().clone(), error.trouble());
    assert_eq!(
        told,
        (ErrorKind::Unavailable, Some(Trouble::Full)),
        "{error}"
    );
    assert!(written > 10, "{written}");
    // Small statements may still find room. That does not make it one that takes writes.
    for _ in 0..20 {
        let error = store.check(Work::Write).await.unwrap_err();
        assert_eq!(error.trouble(), Some(Trouble::Full), "{error}");
        store.check(Work::Read).await.unwrap();
    }
    let error = append(&store, &large).await.unwrap_err();
    assert_eq!(error.trouble(), Some(Trouble::Full), "{error}");
    assert_eq!(
        store.heads().await.unwrap().get(Lane(0)),
        Position::new(written)
    );

    disk.remount("size=160m");
    until_ready(&store).await;
    assert_eq!(append(&store, &large).await.unwrap(), Appended::Done);
    let heads = store.heads().await.unwrap();
    assert_eq!(heads.get(Lane(0)), Position::new(written + 1));
    let all = store.read_keys(Lane(0), Position::ZERO, 10).await.unwrap();
    assert!(all.is_empty(), "what was tried is not there");
    store.close().await;
}
