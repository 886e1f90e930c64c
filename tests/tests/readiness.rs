//! Readiness follows what the service can do: a storage that is away, full, read-only, removed or damaged
//! is named by `/readyz`, by gRPC health, to callers and in the log, and is no longer once it works again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test is made of may fail it too"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use stategate_servers::{Answers, Postgres, Proxy};
use stategate_tests::{
    Ask, Form, Gateway, Log, Options, Process, Role, Store, alone, clients::reason,
};
use tokio::task::spawn_blocking;
use tonic::{Code, Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// How soon what is wrong must be said. (Half a second more than is promised, for a machine that does
/// other things too.)
const SOON: Duration = Duration::from_millis(2_500);
const ALL: [Role; 3] = [Role::Command, Role::Query, Role::Stream];

async fn health(process: &Process) -> ServingStatus {
    let address = format!("http://{}", process.grpc());
    let channel = Channel::from_shared(address).unwrap().connect().await;
    let mut client = HealthClient::new(channel.unwrap());
    let asked = client.check(HealthCheckRequest::default()).await.unwrap();
    asked.into_inner().status()
}

/// Waits until a process says that it is not ready, and why.
async fn not_ready(gateway: &mut Gateway, role: Role, why: &str) {
    let process = gateway.process(role);
    let waited = process
        .readiness(false, |said| {
            said.contains(&format!("not ready\nstorage: {why}"))
        })
        .await;
    assert!(waited < SOON, "{role:?} said so after {waited:?}");
    assert_eq!(health(process).await, ServingStatus::NotServing);
}

async fn ready(gateway: &mut Gateway, role: Role) {
    let process = gateway.process(role);
    process.readiness(true, |said| said == "ready\n").await;
    assert_eq!(health(process).await, ServingStatus::Serving);
}

/// What a write is refused with: surely not written, and why.
fn assert_unavailable(refused: &Status, why: &str) {
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let told = reason(refused);
    assert_eq!(told.as_deref(), Some("STORAGE_UNAVAILABLE"), "{refused}");
    assert!(refused.message().contains(why), "{refused}");
}

/// How many lines a process has written that say this.
fn lines(process: &Process, what: &str) -> usize {
    process
        .said("")
        .iter()
        .filter(|line| line.contains(what))
        .count()
}

fn server(what: &str) -> Option<Arc<Postgres>> {
    match Postgres::start(&[]) {
        Ok(server) => Some(Arc::new(server)),
        Err(missing) => {
            missing.report(what);
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_stopped_or_silent_is_away_and_comes_back() {
    let _alone = alone().await;
    let Some(server) = server("readiness on PostgreSQL") else {
        return;
    };
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).await;
    let address = format!(
        "postgres://postgres@{}/postgres?sslmode=disable",
        proxy.address()
    );
    for form in [Form::Three, Form::One] {
        let store = Store::Postgres(address.clone());
        let mut gateway = Gateway::start(Options::new(form).store(store)).await;
        let ask = Ask::new(&mut gateway);
        ask.set("d/t/k", "{}").await.unwrap();
        let roles: &[Role] = if form == Form::Three {
            &ALL
        } else {
            &[Role::Everything]
        };
        // Stopped.
        let database = Arc::clone(&server);
        spawn_blocking(move || database.stop()).await.unwrap();
        for role in roles {
            not_ready(&mut gateway, *role, "cannot be reached").await;
        }
        for _ in 0..200 {
            assert_unavailable(&ask.set("d/t/k", "{}").await.unwrap_err(), "");
        }
        let told = lines(gateway.writer(), "storage unavailable")
            + lines(gateway.writer(), "append in doubt");
        assert!((1..=20).contains(&told), "{told} lines");
        let database = Arc::clone(&server);
        spawn_blocking(move || database.restart()).await.unwrap();
        for role in roles {
            ready(&mut gateway, *role).await;
        }
        ask.set("d/t/k", "{}").await.unwrap();
        // There, but without a word.
        proxy.lose_answers(Answers::Lost);
        for role in roles {
            let process = gateway.process(*role);
            let waited = process.readiness(false, |_| true).await;
            // Two questions are asked and not answered.
            assert!(waited < 2 * SOON, "{role:?}: {waited:?}");
        }
        proxy.lose_answers(Answers::Passed);
        proxy.cut();
        for role in roles {
            ready(&mut gateway, *role).await;
        }
    }
}

/// What a server may answer instead of doing its work.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_refuses_is_named_for_what_it_says() {
    let _alone = alone().await;
    let Some(server) = server("readiness on PostgreSQL") else {
        return;
    };
    server.sql("CREATE ROLE service LOGIN SUPERUSER");
    server.sql("CREATE DATABASE ours");
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).await;
    let address = format!(
        "postgres://service@{}/ours?sslmode=disable",
        proxy.address()
    );
    let store = Store::Postgres(address);
    let mut gateway = Gateway::start(Options::new(Form::Three).store(store)).await;
    let ask = Ask::new(&mut gateway);
    ask.set("d/t/k", "{}").await.unwrap();
    let schema = gateway.schema().to_owned();

    // By sessions that there are; new ones are not made.
    server.sql("ALTER SYSTEM SET default_transaction_read_only = on");
    server.sql("SELECT pg_reload_conf()");
    not_ready(&mut gateway, Role::Command, "is read-only").await;
    assert_unavailable(&ask.set("d/t/k", "{}").await.unwrap_err(), "is read-only");
    proxy.cut();
    for role in ALL {
        not_ready(&mut gateway, role, "is read-only").await;
    }
    server.sql("ALTER SYSTEM RESET default_transaction_read_only");
    server.sql("SELECT pg_reload_conf()");
    for role in ALL {
        ready(&mut gateway, role).await;
    }
    ask.set("d/t/k", "{}").await.unwrap();

    for (wrong, right, why) in [
        (
            "ALTER ROLE service NOLOGIN".to_owned(),
            "ALTER ROLE service LOGIN".to_owned(),
            "does not let the service in",
        ),
        (
            "ALTER ROLE service NOSUPERUSER CONNECTION LIMIT 0".to_owned(),
            "ALTER ROLE service SUPERUSER CONNECTION LIMIT -1".to_owned(),
            "takes no more connections",
        ),
        (
            "ALTER DATABASE ours RENAME TO theirs".to_owned(),
            "ALTER DATABASE theirs RENAME TO ours".to_owned(),
            "is not where it was",
        ),
    ] {
        // A database in use is not renamed, and the services come back twice a second.
        proxy.point_at(([127, 0, 0, 1], stategate_servers::free_port()).into());
        proxy.cut();
        while let Err(error) = try_sql(&server, &wrong) {
            assert!(error.contains("being accessed"), "{error}");
        }
        proxy.point_at(([127, 0, 0, 1], server.port()).into());
        for role in ALL {
            not_ready(&mut gateway, role, why).await;
        }
        assert_unavailable(&ask.set("d/t/k", "{}").await.unwrap_err(), why);
        assert_unavailable(&ask.get("d/t/k").await.unwrap_err(), why);
        server.sql(&right);
        for role in ALL {
            ready(&mut gateway, role).await;
        }
        ask.set("d/t/k", "{}").await.unwrap();
    }

    let ours = |statements: &str| in_database(&server, "ours", statements).unwrap();
    ours(&format!("ALTER SCHEMA {schema} RENAME TO elsewhere"));
    for role in ALL {
        not_ready(&mut gateway, role, "is not where it was").await;
    }
    assert_unavailable(
        &ask.set("d/t/k", "{}").await.unwrap_err(),
        "is not where it was",
    );
    assert_unavailable(&ask.get("d/t/k").await.unwrap_err(), "is not where it was");
    ours(&format!("ALTER SCHEMA elsewhere RENAME TO {schema}"));
    for role in ALL {
        ready(&mut gateway, role).await;
    }
    ask.set("d/t/k", "{}").await.unwrap();
}

fn try_sql(server: &Postgres, statements: &str) -> Result<String, String> {
    in_database(server, "postgres", statements)
}

fn in_database(server: &Postgres, database: &str, statements: &str) -> Result<String, String> {
    let url = server.url().replace("/postgres?", &format!("/{database}?"));
    let out = Command::new(server.program("psql"))
        .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
        .args(["--set=ON_ERROR_STOP=1", "--command", statements])
        .arg(url)
        .output()
        .expect("run psql");
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned()),
        false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

/// The files of a gateway's log.
fn file(gateway: &Gateway, ending: &str) -> PathBuf {
    let path = gateway.folder().join("stategate.db");
    PathBuf::from(format!("{}{ending}", path.display()))
}

/// SQLite goes on with files that are not there any more; what it acknowledged then would be gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_removed_or_replaced_takes_no_writes() {
    let _alone = alone().await;
    for form in [Form::One, Form::Three] {
        let mut gateway = Gateway::start(Options::new(form)).await;
        let ask = Ask::new(&mut gateway);
        ask.set("d/t/k", "{}").await.unwrap();
        let roles: &[Role] = if form == Form::Three {
            &ALL
        } else {
            &[Role::Everything]
        };
        let aside = gateway.folder().join("aside");
        for ending in ["", "-wal", "-shm"] {
            let path = file(&gateway, ending);
            for replaced in [false, true] {
                fs::rename(&path, &aside).unwrap();
                if replaced {
                    fs::copy(&aside, &path).unwrap();
                }
                // At once, whether anybody has asked for readiness or not.
                let refused = ask.set("d/t/k", "{}").await.unwrap_err();
                assert_unavailable(&refused, "removed, moved or replaced");
                for role in roles {
                    not_ready(&mut gateway, *role, "is not where it was").await;
                }
                for _ in 0..200 {
                    ask.set("d/t/k", "{}").await.unwrap_err();
                }
                fs::rename(&aside, &path).unwrap();
                for role in roles {
                    ready(&mut gateway, *role).await;
                }
                ask.set("d/t/k", "{}").await.unwrap();
            }
        }
        let told = lines(gateway.writer(), "storage unavailable");
        assert!((1..=30).contains(&told), "{told} lines");
        let log = Log::read(&gateway.clients()).await;
        assert_eq!(log.len(), 7, "what was refused was not written");
    }
}

/// A small file system of its own, for as long as this is held.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, said loudly, where this user may not make one.
    fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at)
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(at.to_owned()));
        }
        eprintln!("\n!!!! NOT COVERED: a full disk: only root can mount a small one\n");
        None
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let done = Command::new("mount")
            .args(["-o", &options])
            .arg(&self.0)
            .status();
        assert!(done.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_nothing_of_what_is_refused_is_written() {
    let _alone = alone().await;
    for form in [Form::One, Form::Three] {
        let folder = tempfile::tempdir().unwrap();
        let Some(disk) = SmallDisk::mount(folder.path(), "8m") else {
            return;
        };
        let storage = json!({"name": "sqlite", "path": folder.path().join("log.db")});
        let options = Options::new(form).env("STATEGATE_STORAGE_PROVIDER", storage.to_string());
        let mut gateway = Gateway::start(options).await;
        let ask = Ask::new(&mut gateway);
        let large = json!({ "text": "x".repeat(200_000) }).to_string();
        let mut written = 0;
        let refused = loop {
            match ask.set(&format!("d/t/k{written}"), &large).await {
                Ok(_) => written += 1,
                Err(refused) => break refused,
            }
        };
        assert!(written > 10, "{written}");
        assert_unavailable(&refused, "has no room left");
        not_ready(&mut gateway, Role::Command, "has no room left").await;
        for _ in 0..100 {
            assert_unavailable(
                &ask.set("d/t/more", &large).await.unwrap_err(),
                "has no room left",
            );
        }
        let told = lines(gateway.writer(), "storage unavailable")
            + lines(gateway.writer(), "append in doubt")
            + lines(gateway.writer(), "write-ahead");
        assert!((1..=20).contains(&told), "{told} lines");
        // What can be read is read.
        if form == Form::Three {
            ready(&mut gateway, Role::Query).await;
        }
        ask.get("d/t/k0").await.unwrap();

        disk.remount("size=64m");
        ready(&mut gateway, Role::Command).await;
        ask.set("d/t/after", &large).await.unwrap();
        let log = Log::read(&gateway.clients()).await;
        assert_eq!(log.len(), written + 1);
    }
}
