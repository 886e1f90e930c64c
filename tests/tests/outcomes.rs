//! What is said of a write is what is known of it: written, surely not written, or perhaps.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails, with a message"
)]

use std::{collections::BTreeSet, io::Write as _, process::Stdio};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use stategate_servers::Postgres;
use stategate_tests::{Cli, Form, Gateway, Options, Store, alone};
use tokio::task::spawn_blocking;

/// The database stops while an import runs, which is interrupted, and goes on later.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_interrupted_while_the_storage_hangs_claims_what_is_known() {
    let _turn = alone().await;
    let server = match Postgres::start(&[]) {
        Ok(server) => server,
        Err(missing) => return missing.report("an import whose storage hangs"),
    };
    let options = Options::new(Form::One).store(Store::Postgres(server.url()));
    let mut gateway = Gateway::start(options).await;
    let cli = Cli::new(&mut gateway);
    let mut file = tempfile::Builder::new().suffix(".csv").tempfile().unwrap();
    let rows: String = (0..200_000).map(|n| format!("k{n},{n}\n")).collect();
    write!(file, "id,n\n{rows}").unwrap();
    let import = cli
        .command(&[
            "import",
            file.path().to_str().unwrap(),
            "--domain",
            "acme",
            "--type",
            "thing",
            "--key",
            "id",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let schema = gateway.schema().to_owned();
    let count = || -> u64 {
        let events = format!("select count(*) from {schema}.events");
        server.sql(&events).parse().unwrap()
    };
    while count() < 500 {
        tokio::task::yield_now().await;
    }
    server.freeze();
    let id = Pid::from_raw(i32::try_from(import.id()).unwrap());
    kill(id, Signal::SIGINT).unwrap();
    let imported = spawn_blocking(move || import.wait_with_output()).await;
    let imported = imported.unwrap().unwrap();
    server.thaw();
    let said = String::from_utf8(imported.stderr).unwrap();
    assert!(!imported.status.success(), "{said}");
    let told: Value = serde_json::from_slice(&imported.stdout).unwrap();

    // What was on its way is written, or is not, by the time that a later write is answered.
    cli.line(&["set", "acme", "other", "last", "{}"]);
    let there: BTreeSet<String> = cli.all("acme", "thing").into_keys().collect();
    let number = |field: &str| told[field].as_u64().unwrap_or(0);
    let (written, open) = (number("written"), number("unknown"));
    println!("{told}; {} are there", there.len());
    let range = written..=written + open;
    assert!(
        range.contains(&(there.len() as u64)),
        "{told}: {}\n{said}",
        there.len()
    );
    assert!(open > 0, "{told}\n{said}");
    for line in said.lines().filter(|line| line.contains(": not written")) {
        let key = line
            .split_once("(key ")
            .unwrap()
            .1
            .split_once(')')
            .unwrap()
            .0;
        assert!(!there.contains(key), "{line}");
    }
}
