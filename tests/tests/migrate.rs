//! `stategate migrate`, the command: killed and begun again; and a gateway on the copy, which is to its
//! clients the gateway they knew.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::json;
use stategate_protocol::pb::{self, stream_opts::Start};
use stategate_storage::{Sqlite, SqliteConfig, Storage as _};
use stategate_tests::{
    Ask, Cli, Form, Gateway, Options, Role, Store,
    ask::{entity, etag, refused, token, values},
    binaries,
    clients::everything,
    postgres, scale,
};
use tokio::process::Command;
use tonic::Code;
use uuid::Uuid;

const STORAGE: &str = "STATEGATE_STORAGE_PROVIDER";

fn provider(path: &Path) -> String {
    json!({ "name": "sqlite", "path": path }).to_string()
}

fn migrate(from: &str, to: &str, more: &[&str]) -> Command {
    let mut command = Command::new(binaries::find("stategate"));
    command
        .args(["migrate", "--from", from, "--to", to])
        .args(more)
        .stdin(Stdio::null());
    command
}

async fn done(mut command: Command) -> serde_json::Value {
    let run = command.output().await.unwrap();
    assert!(run.status.success(), "{}", told(&run));
    serde_json::from_slice(&run.stdout).unwrap()
}

struct Logs(tempfile::TempDir);

impl Logs {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn migrate(&self, from: &str, to: &str, more: &[&str]) -> Command {
        let [from, to] = [from, to].map(|name| provider(&self.path(name)));
        migrate(&from, &to, more)
    }

    async fn migrated(&self, from: &str, to: &str, more: &[&str]) -> serde_json::Value {
        done(self.migrate(from, to, more)).await
    }

    async fn head(&self, name: &str) -> u64 {
        let path = self.path(name);
        if !path.exists() {
            return 0;
        }
        let storage = Sqlite::open(&SqliteConfig { path, lanes: None })
            .await
            .unwrap();
        let heads = storage.heads().await.unwrap();
        storage.close().await;
        heads.iter().map(|(_, position)| position.get()).sum()
    }
}

fn told(run: &Output) -> String {
    String::from_utf8_lossy(&run.stderr).into_owned()
}

#[tokio::test]
async fn a_copy_is_the_same_gateway_to_its_clients() {
    for (lanes, dealt) in [(1, None), (8, None), (8, Some("1"))] {
        let logs = Logs(tempfile::tempdir().unwrap());
        let source = json!({ "name": "sqlite", "path": logs.path("source.db"), "lanes": lanes });
        let options = Options::new(Form::One).env(STORAGE, source.to_string());
        let mut gateway = Gateway::start(options).await;
        let ask = Ask::new(&mut gateway);
        for n in 0..200 {
            let name = format!("domain-{}/t/k{}", n % 9, n % 20);
            ask.set(&name, &format!(r#"{{"n":{n}}}"#)).await.unwrap();
        }
        let keyed = |ask: &Ask| ask.with("idempotency-key", "once");
        let first = keyed(&ask).set("a/t/k", r#"{"n":1}"#).await.unwrap();
        let there = ask.stream(everything(None)).await.unwrap().start;
        let last = ask.set("a/t/k", r#"{"n":2}"#).await.unwrap();
        gateway.writer().kill().await;

        let more: Vec<&str> = dealt
            .into_iter()
            .flat_map(|lanes| ["--lanes", lanes])
            .collect();
        let report = logs.migrated("source.db", "copy.db", &more).await;
        assert_eq!(
            (&report["events"], &report["written"]),
            (&json!(202), &json!(202))
        );
        assert_eq!(report["idempotency_keys"], 1);
        let again = logs.migrated("source.db", "copy.db", &more).await;
        assert_eq!(
            (&again["written"], &again["sha256"]),
            (&json!(0), &report["sha256"])
        );

        let copy = provider(&logs.path("copy.db"));
        gateway.restart(Role::Everything, &[(STORAGE, copy)]).await;
        let ask = Ask::new(&mut gateway);
        // A retry is still one.
        let retry = keyed(&ask).set("a/t/k", r#"{"n":1}"#).await.unwrap();
        assert!(retry.metadata().contains_key("stategate-replayed"));
        assert_eq!(etag(&retry), etag(&first));
        let got = ask.get("a/t/k").await.unwrap();
        assert_eq!(
            (etag(&got), &*values(got.get_ref())),
            (Some(2), r#"{"n":2}"#)
        );
        let after = everything(Some(Start::After(there.to_string())));
        if dealt.is_some() {
            refused(ask.stream(after).await, Code::OutOfRange, "LOG_CHANGED");
            assert_ne!(token(&retry).log_id, token(&first).log_id);
            continue;
        }
        // Tokens are still good, and positions go on.
        assert_eq!(token(&retry), token(&first));
        let mut stream = ask.stream(after).await.unwrap();
        let event = stream.next().await;
        assert_eq!(
            (event.version, event.entity.unwrap().key),
            (2, "k".to_owned())
        );
        let (lane, position) = token(&last).iter().next().unwrap();
        let next = ask.set("a/t/k", r#"{"n":3}"#).await.unwrap();
        assert_eq!(token(&next).get(lane), Some(position.next()));
        assert_eq!(stream.next().await.position, position.next().as_i64());
        gateway.writer().kill().await;
        // The copy went on, so it is no part of a copy any more.
        let run = logs
            .migrate("source.db", "copy.db", &[])
            .output()
            .await
            .unwrap();
        assert_eq!(run.status.code(), Some(4), "{}", told(&run));
        assert!(told(&run).contains("the target holds"), "{}", told(&run));
    }
}

fn set(name: &str, values: &str) -> pb::Operation {
    pb::Operation {
        operation: Some(pb::operation::Operation::Set(entity(name, values))),
        ..pb::Operation::default()
    }
}

/// Every kind of write, over several domains.
async fn live(ask: &Ask) {
    for n in 0..60 {
        let name = format!("domain-{}/t/k{n}", n % 5);
        let values = format!(r#"{{"n":{n},"odd":{{"":null,"é":[1.5,-0.1,1e300]}}}}"#);
        ask.set(&name, &values).await.unwrap();
        ask.edit(&name, r#"{"edited":true}"#).await.unwrap();
        if n % 2 == 0 {
            ask.del(&name).await.unwrap();
        }
        if n % 3 == 0 {
            let first = ask.history_of(&name).await.remove(0);
            ask.revert(&name, &first.id).await.unwrap();
        }
    }
    let operation = |n: usize| set(&format!("domain-1/t/k{n}"), r#"{"at":"once"}"#);
    let operations = (0..20).map(operation).collect();
    ask.transact("domain-1", operations).await.unwrap();
}

/// What a client holds on to is good wherever the log is: tokens, positions, versions, idempotency keys.
#[tokio::test]
async fn a_log_moves_to_postgresql_and_back() {
    let Some(Store::Postgres(address)) = postgres("a log that moves to PostgreSQL and back") else {
        return;
    };
    let logs = Logs(tempfile::tempdir().unwrap());
    let sqlite = |name: &str| provider(&logs.path(name));
    let schema = format!("m_{}", Uuid::new_v4().simple());
    let database = json!({ "name": "postgres", "addr": address, "schema": schema }).to_string();
    let source = json!({ "name": "sqlite", "path": logs.path("source.db"), "lanes": 4 });
    let options = Options::new(Form::One).env(STORAGE, source.to_string());
    let mut gateway = Gateway::start(options).await;
    let exported = |gateway: &mut Gateway, name: &str| {
        let path = logs.path(name);
        let out = path.to_str().unwrap();
        Cli::new(gateway).line(&["export", "--history", "--out", out]);
        fs::read_to_string(&path).unwrap()
    };

    let mut ask = Ask::new(&mut gateway);
    live(&ask).await;
    let keyed = |ask: &Ask| ask.with("idempotency-key", "once");
    let first = keyed(&ask).set("a/t/k", r#"{"n":1}"#).await.unwrap();
    let there = ask.stream(everything(None)).await.unwrap().start;
    let mut last = ask.set("a/t/k", r#"{"n":2}"#).await.unwrap();
    let moves = [
        (sqlite("source.db"), database.clone()),
        (database, sqlite("back.db")),
    ];
    for (moved, (from, to)) in moves.into_iter().enumerate() {
        let whole = exported(&mut gateway, &format!("{moved}-before.ndjson"));
        gateway.writer().kill().await;
        let report = done(migrate(&from, &to, &[])).await;
        assert_eq!(report["events"], json!(whole.lines().count() - 2));
        assert_eq!(report["written"], report["events"]);
        assert_eq!(report["idempotency_keys"], 1);

        gateway.restart(Role::Everything, &[(STORAGE, to)]).await;
        let copied = exported(&mut gateway, &format!("{moved}-after.ndjson"));
        assert!(copied == whole, "byte for byte");
        ask = Ask::new(&mut gateway);
        let retry = keyed(&ask).set("a/t/k", r#"{"n":1}"#).await.unwrap();
        assert!(retry.metadata().contains_key("stategate-replayed"));
        assert_eq!(etag(&retry), etag(&first));
        assert_eq!(
            token(&retry),
            token(&first),
            "the log's id and the position"
        );

        let after = everything(Some(Start::After(there.to_string())));
        let mut stream = ask.stream(after).await.unwrap();
        for version in 2..=etag(&last).unwrap() {
            assert_eq!(stream.next().await.version, i64::try_from(version).unwrap());
        }
        let (lane, position) = token(&last).iter().next().unwrap();
        let next = ask.set("a/t/k", r#"{"n":3}"#).await.unwrap();
        assert_eq!(etag(&next), etag(&last).map(|version| version + 1));
        assert_eq!(token(&next).get(lane), Some(position.next()));
        assert_eq!(stream.next().await.position, position.next().as_i64());
        last = next;
    }
    gateway.assert_no_errors();
}

#[tokio::test]
async fn a_copy_that_is_killed_goes_on() {
    let logs = Logs(tempfile::tempdir().unwrap());
    let mut gateway =
        Gateway::start(Options::new(Form::One).env(STORAGE, provider(&logs.path("source.db"))))
            .await;
    let ask = Ask::new(&mut gateway);
    let operation = |n: usize| set(&format!("d/t/k{n}"), r#"{"some":"values"}"#);
    for _ in 0..scale(30, 300) {
        let operations = (0..1_000).map(operation).collect();
        ask.transact("d", operations).await.unwrap();
    }
    gateway.writer().kill().await;
    let events = scale(30_000, 300_000);
    let mut kills = 0;
    let report = loop {
        let before = logs.head("copy.db").await;
        let mut command = logs.migrate("source.db", "copy.db", &[]);
        let mut running = command
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // Killed once it has written something more.
        let grown = async {
            let wal = logs.path("copy.db-wal");
            let size = || fs::metadata(&wal).map_or(0, |about| about.len());
            let begun = size();
            while size() < begun + (1 << 20) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            ended = running.wait() => assert!(ended.unwrap().success()),
            () = grown => {
                running.kill().await.unwrap();
                kills += 1;
                let head = logs.head("copy.db").await;
                assert!(head >= before, "it lost something");
                if kills < 5 && head < events {
                    continue;
                }
            }
        }
        break logs.migrated("source.db", "copy.db", &[]).await;
    };
    println!(
        "{kills} kills; the last run wrote {} of {events} events",
        report["written"]
    );
    assert_eq!(report["events"], events);
    assert!(kills >= 2 && report["written"].as_u64().unwrap() < events);
}

#[tokio::test]
async fn what_cannot_be_copied_is_refused() {
    let logs = Logs(tempfile::tempdir().unwrap());
    let run = logs
        .migrate("nothing.db", "copy.db", &[])
        .output()
        .await
        .unwrap();
    assert_eq!(run.status.code(), Some(1));
    assert!(told(&run).contains("there is no file"), "{}", told(&run));
    assert!(!logs.path("nothing.db").exists() && !logs.path("copy.db").exists());
    for (name, lanes) in [("source.db", 1), ("other.db", 8)] {
        let path = logs.path(name);
        let config = SqliteConfig {
            path,
            lanes: Some(lanes),
        };
        Sqlite::open(&config).await.unwrap().close().await;
    }
    for (to, more, code, why) in [
        ("source.db", vec![], 2, "are the same storage"),
        (
            "other.db",
            vec![],
            4,
            "has 8 lanes, and the copy would have 1",
        ),
        ("copy.db", vec!["--lanes", "65"], 2, "must be 1 to 64"),
    ] {
        let run = logs.migrate("source.db", to, &more).output().await.unwrap();
        assert_eq!(run.status.code(), Some(code), "{}", told(&run));
        assert!(told(&run).contains(why), "{why}: {}", told(&run));
    }
}
