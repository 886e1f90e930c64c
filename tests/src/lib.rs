//! What the end-to-end tests stand on: real processes over real files, real gRPC clients, workloads
//! that record what they were told, and a checker that compares it with the log.
//!
//! Nothing here is built on demand. `cargo build --workspace --all-features`
//! puts the binaries where the tests look for them. `STATEGATE_TEST_LONG=1` raises the counts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness that cannot go on fails its test, with a message"
)]

pub mod ask;
pub mod binaries;
pub mod carrier;
pub mod check;
pub mod cli;
pub mod clients;
pub mod crowd;
pub mod gateway;
pub mod history;
pub mod process;
pub mod subscriber;
pub mod witness;
pub mod workload;

use std::{env, time::Duration};

use tokio::sync::{Mutex, MutexGuard};

pub use self::{
    ask::Ask,
    carrier::Carrier,
    check::{Finding, Kind},
    cli::Cli,
    clients::Clients,
    crowd::Crowd,
    gateway::{Form, Gateway, Options, Role, Store},
    history::{Event, Log, Outcome, What, Write},
    process::Process,
    subscriber::{Cut, Selection, Subscriber},
    witness::Witness,
    workload::{Mix, Tail, Writers},
};
pub use stategate_servers::{Absence, Answers, Issuer, Proxy, issuer};

/// Longest wait for a condition that holds within milliseconds when all is well.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Whether to do as much as a long run does.
pub fn is_long() -> bool {
    env::var_os("STATEGATE_TEST_LONG").is_some_and(|value| value != "0" && !value.is_empty())
}

/// How much to do: `normal`, or `long` in a long run.
pub fn scale<T>(normal: T, long: T) -> T {
    if is_long() { long } else { normal }
}

/// A database in the PostgreSQL that all tests of this executable share; `None`, said loudly, where there
/// is no PostgreSQL.
pub fn postgres(what: &str) -> Option<Store> {
    match stategate_servers::Postgres::shared() {
        Ok(server) => Some(Store::Postgres(server.url())),
        Err(missing) => {
            missing.report(what);
            None
        }
    }
}

/// Waits until no other test of this executable runs: they load the machine, and some measure it.
pub async fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}
