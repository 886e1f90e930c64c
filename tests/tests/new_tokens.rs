//! Tokens that expire while calls and streams go on, and are replaced by newer ones: no call fails for it
//! and no event is left out or delivered twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, with a message"
)]

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use stategate_client::{Client, EntityRef, ErrorKind, Start, Step, Subscription, json};
use stategate_tests::{
    Cli, Form, Gateway, Issuer, Options, PATIENCE, Role, alone,
    cli::{REFUSED, Watch},
    issuer::now,
    scale,
};
use tempfile::TempDir;
use tokio::time::timeout;

/// A gateway lets a token go on for so many seconds after it expired.
const LEEWAY: u64 = 30;

/// A token that is accepted for some seconds from now on.
fn token(issuer: &Issuer, seconds: u64) -> String {
    issuer.token(&json!({ "sub": "ada", "exp": now() + seconds - LEEWAY }))
}

/// The file is a whole one at any time.
fn replace(path: &Path, token: &str) {
    let next = path.with_extension("next");
    fs::write(&next, token).unwrap();
    fs::rename(&next, path).unwrap();
}

async fn gateway(issuer: &Issuer, form: Form) -> Gateway {
    let allow = "allow := true";
    Gateway::start(Options::new(form).protected(issuer, allow, allow)).await
}

async fn calls_and_streams(form: Form) {
    let _turn = alone().await;
    let issuer = Issuer::new();
    let mut gateway = gateway(&issuer, form).await;
    let [command, query, stream] = [Role::Command, Role::Query, Role::Stream]
        .map(|role| format!("http://{}", gateway.process(role).grpc()));
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, token(&issuer, 3)).unwrap();
    let client = Client::builder(command.clone())
        .services(command, query, stream)
        .deadline(PATIENCE)
        .token_file(&path)
        .build()
        .unwrap();
    let counter = EntityRef::new("acme", "thing", "counter").unwrap();
    let subscription = Subscription::new("acme", "*").from(Start::Beginning);
    let mut watch = client.subscribe(subscription).await.unwrap();

    let is_over = Arc::new(AtomicBool::new(false));
    let writes = tokio::spawn({
        let (client, counter, is_over) = (client.clone(), counter.clone(), Arc::clone(&is_over));
        async move {
            let mut written = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                client.set(&counter, json!({ "n": written })).await.unwrap();
                client.get(&counter).await.unwrap();
                written += 1;
            }
            written
        }
    });
    let renewals = scale(3, 20);
    let (mut seen, mut renewed) = (0, 0);
    while renewed < renewals {
        match timeout(PATIENCE, watch.step()).await.unwrap().unwrap() {
            Step::Event(event) => {
                seen += 1;
                assert_eq!(
                    event.position.get(),
                    seen,
                    "an event is left out or repeated"
                );
            }
            Step::Lost(error) => {
                assert_eq!(*error.kind(), ErrorKind::Unauthenticated, "{error}");
                renewed += 1;
            }
            // In force with the token there is now, of which the next one takes the place.
            Step::Resumed => replace(&path, &token(&issuer, 3)),
            _ => {}
        }
        if seen == 1 && renewed == 0 {
            replace(&path, &token(&issuer, 4));
        }
    }
    replace(&path, &token(&issuer, 3_600));
    is_over.store(true, Ordering::Relaxed);
    let written = writes.await.unwrap();
    while seen < written {
        let event = timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
        seen += 1;
        assert_eq!(
            event.position.get(),
            seen,
            "an event is left out or repeated"
        );
    }
    println!("{form}: {written} writes and as many events over {renewed} tokens that expired");
    assert!(
        written > 20 * renewed,
        "too little was written to prove anything"
    );
    gateway.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_streams_go_on_in_one_process() {
    calls_and_streams(Form::One).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_streams_go_on_in_three_processes() {
    calls_and_streams(Form::Three).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_the_command_line_goes_on_with_the_newer_token() {
    let _turn = alone().await;
    let issuer = Issuer::new();
    let mut gateway = gateway(&issuer, Form::One).await;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, token(&issuer, 4)).unwrap();
    let file = path.to_str().unwrap();
    let of_file = Cli::new(&mut gateway).with("STATEGATE_TOKEN_FILE", file);
    let long = Cli::new(&mut gateway).with("STATEGATE_TOKEN", &token(&issuer, 3_600));
    let watch = Watch::start(&of_file, &["watch", "--from", "beginning", "--ndjson"]);
    long.run(&["set", "acme", "thing", "1", "{}"]).ends(0);
    assert_eq!(watch.next()["position"], "1");
    replace(&path, &token(&issuer, 3_600));
    // Written before, while and after the first token expires.
    let begun = std::time::Instant::now();
    let mut written = 1;
    while begun.elapsed() < Duration::from_secs(6) {
        written += 1;
        let key = written.to_string();
        long.run(&["set", "acme", "thing", &key, "{}"]).ends(0);
        assert_eq!(watch.next()["position"], key);
    }
    let (more, said) = watch.interrupt();
    assert!(more.is_empty(), "{more:?}");
    assert!(said.contains("going on with the newer token"), "{said}");

    // Without a newer one it ends, and says so.
    replace(&path, &token(&issuer, 2));
    let ended = of_file.run(&["watch"]).ends(REFUSED);
    assert!(ended.stderr.contains("expired"), "{}", ended.stderr);
    assert!(ended.stderr.contains("--token-file"), "{}", ended.stderr);
    gateway.assert_no_errors();
}
