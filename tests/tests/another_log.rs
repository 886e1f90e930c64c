//! The log behind an address is replaced under its clients: a gateway that keeps it in memory starts
//! again, a storage is restored as it once was. It is said once, and everybody goes on.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails, with a message"
)]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::Stdio,
    time::Duration,
};

use futures::future::join_all;
use serde_json::Value;
use stategate_client::{
    Client, Condition, EntityRef, Error, ErrorKind, KindRef, Outcome, Search, SearchEvents, Start,
    Subscription, Terms, Token, Transaction, json,
};
use stategate_tests::{
    Answers, Cli, Form, Gateway, Options, Process, Proxy, Role, alone, binaries,
    cli::{DONE, REFUSED},
};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

fn entity(key: &str) -> EntityRef {
    EntityRef::new("acme", "thing", key).unwrap()
}

/// A gateway that keeps its log in memory, behind an address that stays.
struct Memory {
    process: Process,
    proxy: Proxy,
    folder: TempDir,
}

impl Memory {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = Self::process(&folder).await;
        let proxy = Proxy::start(process.grpc()).await;
        Self {
            process,
            proxy,
            folder,
        }
    }

    async fn process(folder: &TempDir) -> Process {
        let env = [("STATEGATE_PORT".to_owned(), "0".to_owned())];
        let binary = binaries::find("stategate");
        Process::start(
            "stategate",
            &binary,
            &["dev", "--memory"],
            &env,
            folder.path(),
        )
        .await
    }

    /// Killed, and started again.
    async fn start_again(&mut self) {
        self.process.kill().await;
        self.process = Self::process(&self.folder).await;
        self.proxy.point_at(self.process.grpc());
        self.proxy.cut();
    }

    fn client(&self) -> Client {
        let builder = Client::builder(self.proxy.url());
        builder.deadline(Duration::from_secs(20)).build().unwrap()
    }
}

fn is_changed(error: &Error) -> bool {
    *error.kind() == ErrorKind::LogChanged
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_said_once_and_the_client_goes_on() {
    let _turn = alone().await;
    let mut gateway = Memory::start().await;
    let client = gateway.client();
    let a = entity("a");
    let mut watch = client.subscribe(Subscription::new("*", "*")).await.unwrap();
    for round in 1..=3 {
        client.set(&a, json!({ "round": round })).await.unwrap();
        let old = client.position().unwrap();
        gateway.start_again().await;

        // Of many calls at once, of every kind and of any clone, one says so.
        let of = KindRef::new("acme", "thing").unwrap();
        let calls = (0..32).map(|n| {
            let (client, a, of) = (client.clone(), a.clone(), of.clone());
            tokio::spawn(async move {
                match n % 4 {
                    0 => client.get(&a).await.map(drop),
                    1 => client.search(&Search::new(&of)).await.map(drop),
                    2 => client
                        .search_events(&SearchEvents::new(&of))
                        .await
                        .map(drop),
                    _ => {
                        let all = Subscription::new("*", "*").from(Start::Beginning);
                        client.subscribe(all).await.map(drop)
                    }
                }
            })
        });
        let answers = join_all(calls.collect::<Vec<_>>()).await;
        let errors: Vec<Error> = answers
            .into_iter()
            .filter_map(|answer| answer.unwrap().err())
            .collect();
        let (told, other): (Vec<&Error>, Vec<&Error>) =
            errors.iter().partition(|error| is_changed(error));
        assert_eq!(told.len(), 1, "{errors:#?}");
        assert!(
            told[0].to_string().contains("another one now"),
            "{}",
            told[0]
        );
        assert!(other.iter().all(|error| error.is_not_found()), "{other:#?}");

        // The new log is as good as the old one was.
        assert!(client.get(&a).await.unwrap_err().is_not_found());
        let written = client.set(&a, json!({})).await.unwrap();
        assert_eq!(client.get(&a).await.unwrap().version, written.version);
        assert_eq!(client.position(), Some(written.token.clone()));
        assert_ne!(written.token.log_id, old.log_id);

        // A subscription goes on nowhere by itself, whatever the client knows.
        if round == 1 {
            while watch.next().await.is_ok() {}
            for _ in 0..2 {
                assert!(is_changed(&watch.next().await.unwrap_err()));
            }
        }
        // What the caller names is the caller's.
        let after = || Subscription::new("*", "*").from(Start::After(old.clone()));
        for _ in 0..2 {
            assert!(is_changed(&client.subscribe(after()).await.unwrap_err()));
            client.get(&a).await.unwrap();
        }
        client.observe(&old);
        assert!(is_changed(&client.get(&a).await.unwrap_err()));
        client.get(&a).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_write_finds_out_the_next_read_says() {
    let _turn = alone().await;
    let mut gateway = Memory::start().await;
    let client = gateway.client();
    let a = entity("a");
    client.set(&a, json!({ "n": 1 })).await.unwrap();

    gateway.start_again().await;
    let written = client.set(&a, json!({ "n": 2 })).await.unwrap();
    assert!(
        !written.replayed && written.version.get() == 1,
        "{written:?}"
    );
    assert!(is_changed(&client.get(&a).await.unwrap_err()));
    assert_eq!(client.get(&a).await.unwrap().values, json!({ "n": 2 }));

    gateway.start_again().await;
    let transaction = Transaction::new("acme").set(&a, json!({ "n": 3 })).unwrap();
    assert!(!client.transact(transaction).await.unwrap().replayed);
    let refused = client.subscribe(Subscription::new("*", "*")).await;
    assert!(is_changed(&refused.unwrap_err()));
    client.subscribe(Subscription::new("*", "*")).await.unwrap();

    // What reads and writes says so before it writes.
    gateway.start_again().await;
    let refused = client.update(&a, |values| values["n"] = json!(4)).await;
    let refused = refused.unwrap_err();
    assert!(is_changed(&refused) && refused.outcome() == Outcome::NotWritten);
    assert!(client.get(&a).await.unwrap_err().is_not_found());
    client
        .update(&a, |values| values["n"] = json!(5))
        .await
        .unwrap();
    assert_eq!(client.get(&a).await.unwrap().values, json!({ "n": 5 }));
}

/// Its answer was lost with the log that it went to: the retry writes it to the log there is, and does not
/// say that it was there.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_in_a_new_log_is_no_replay() {
    let _turn = alone().await;
    let mut gateway = Memory::start().await;
    let client = gateway.client();
    let a = entity("a");
    client.set(&a, json!({ "n": 1 })).await.unwrap();
    gateway.proxy.lose_answers(Answers::Lost);
    let writing = tokio::spawn({
        let (client, a) = (client.clone(), a.clone());
        async move {
            let terms = Terms::new().condition(Condition::Always).key("one");
            client.set_if(terms, &a, json!({ "n": 2 })).await
        }
    });
    let direct = Client::connect(format!("http://{}", gateway.process.grpc())).unwrap();
    while direct.get(&a).await.unwrap().version.get() < 2 {
        tokio::task::yield_now().await;
    }
    // Nothing is there until the new log is: neither the answer nor the old gateway is come upon once more.
    gateway.proxy.point_at(([127, 0, 0, 1], 1).into());
    gateway.proxy.cut();
    gateway.proxy.lose_answers(Answers::Passed);
    gateway.start_again().await;
    let written = writing.await.unwrap().unwrap();
    assert!(
        !written.replayed && written.version.get() == 1,
        "{written:?}"
    );
    assert!(is_changed(&client.get(&a).await.unwrap_err()));
    assert_eq!(client.get(&a).await.unwrap().values, json!({ "n": 2 }));
}

/// The same log, as it once was.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_restored_to_an_earlier_state_went_back() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let cli = Cli::new(&mut gateway);
    let proxy = Proxy::start(gateway.process(Role::Everything).grpc()).await;
    let client = || {
        let builder = Client::builder(proxy.url());
        builder.deadline(Duration::from_secs(3)).build().unwrap()
    };
    let (reader, writer) = (client(), client());
    let a = entity("a");
    for n in 1..=3 {
        reader.set(&a, json!({ "n": n })).await.unwrap();
    }
    cli.run(&["export", "--history", "--out", &path("history.ndjson")])
        .ends(DONE);
    for n in 4..=9 {
        reader.set(&a, json!({ "n": n })).await.unwrap();
    }
    writer.get(&a).await.unwrap();
    let mut watch = reader.subscribe(Subscription::new("*", "*")).await.unwrap();
    let before = reader.position().unwrap();
    let storage = json!({"name": "sqlite", "path": path("restored.db")}).to_string();
    cli.run(&["restore", &path("history.ndjson"), "--to", &storage])
        .ends(DONE);
    let restored = Options::new(Form::One).env("STATEGATE_STORAGE_PROVIDER", &storage);
    let mut restored = Gateway::start(restored).await;
    proxy.point_at(restored.process(Role::Everything).grpc());
    proxy.cut();
    drop(gateway);

    // A place that is not there yet is waited for; the second read knows that it never comes.
    let mut told = Vec::new();
    for _ in 0..4 {
        match reader.get(&a).await {
            Ok(found) => assert_eq!(found.values, json!({ "n": 3 })),
            Err(error) => told.push(error),
        }
    }
    assert!(told.len() <= 2, "{told:#?}");
    let went_back = |error: &&Error| {
        matches!(
            error.kind(),
            ErrorKind::LogRewound | ErrorKind::PositionAhead
        )
    };
    assert_eq!(told.iter().filter(went_back).count(), 1, "{told:#?}");
    let now: Token = reader.position().unwrap();
    assert_eq!(now.log_id, before.log_id);

    // A write knows at once.
    writer.set(&a, json!({ "n": 10 })).await.unwrap();
    let error = writer.get(&a).await.unwrap_err();
    assert!(went_back(&&error), "{error:?}");
    assert_eq!(writer.get(&a).await.unwrap().values, json!({ "n": 10 }));

    let error = loop {
        if let Err(error) = watch.next().await {
            break error;
        }
    };
    assert!(went_back(&&error), "{error:?}");
}

/// Commands that take their time are of one log.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_does_not_count_what_went_with_the_old_log() {
    let _turn = alone().await;
    let mut gateway = Memory::start().await;
    let cli = Cli::at(gateway.proxy.address());
    let mut import = cli
        .command(&[
            "import", "-", "--format", "ndjson", "--domain", "acme", "--type", "thing", "--key",
            "k", "--resume", "x",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = import.stdin.take().unwrap();
    let rows = |from: usize, to: usize| -> String {
        (from..to)
            .map(|n| format!("{{\"k\":\"k{n}\"}}\n"))
            .collect()
    };
    input.write_all(rows(0, 200).as_bytes()).unwrap();
    let direct = Client::connect(format!("http://{}", gateway.process.grpc())).unwrap();
    let count = || async {
        let of = KindRef::new("acme", "thing").unwrap();
        let all = Search::new(&of).limit(1_000);
        direct.search(&all).await.unwrap().items.len()
    };
    while count().await < 200 {
        tokio::task::yield_now().await;
    }
    let mut watch = cli
        .command(&["watch", "--domain", "acme", "--from", "beginning"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut events = BufReader::new(watch.stdout.take().unwrap());
    events.read_line(&mut String::new()).unwrap();
    gateway.process.kill().await;
    gateway.process = Memory::process(&gateway.folder).await;
    gateway.proxy.point_at(gateway.process.grpc());
    gateway.proxy.cut();
    // It ends before it has read all of this.
    let _ = input.write_all(rows(200, 4_000).as_bytes());
    drop(input);
    let imported = spawn_blocking(move || import.wait_with_output()).await;
    let imported = imported.unwrap().unwrap();
    let said = String::from_utf8(imported.stderr).unwrap();
    assert_eq!(imported.status.code(), Some(REFUSED), "{said}");
    assert!(
        said.contains("log") && said.contains("--resume x"),
        "{said}"
    );
    let told: Value = serde_json::from_slice(&imported.stdout).unwrap();
    let direct = Client::connect(format!("http://{}", gateway.process.grpc())).unwrap();
    let of = KindRef::new("acme", "thing").unwrap();
    let there = direct
        .search(&Search::new(&of).limit(10_000))
        .await
        .unwrap();
    assert_eq!(told["written"], json!(there.items.len()), "{told}");
    assert_eq!(told["lost"], json!(200), "{told}");
    println!("{told}\n{said}");

    // Nor does a watch go on as if nothing had been.
    assert_eq!(watch.wait().unwrap().code(), Some(REFUSED));
}
