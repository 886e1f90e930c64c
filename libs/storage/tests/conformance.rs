//! Every case of the contract, on every storage, with one lane and with eight.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use stategate_model::Lanes;
use stategate_servers::Postgres as Server;
use stategate_storage::{
    Identity, Memory, MemoryConfig, Postgres, PostgresConfig, Sqlite, SqliteConfig, Storage,
    conformance::{self, CASES, Factory},
};
use uuid::Uuid;

/// Cases there must at least be, so that none gets lost unnoticed.
const LEAST_CASES: usize = 66;
/// Longest that a case may take before it counts as hanging.
const CASE_TIMEOUT: Duration = Duration::from_secs(120);

struct MemoryFactory;

#[async_trait]
impl Factory for MemoryFactory {
    async fn open(&self, lanes: Lanes) -> Arc<dyn Storage> {
        let config = MemoryConfig { lanes: lanes.get() };
        Arc::new(Memory::new(&config).unwrap())
    }

    async fn reopen(&self) -> Option<Arc<dyn Storage>> {
        None
    }

    async fn create_as(&self, identity: Identity) -> Arc<dyn Storage> {
        Arc::new(Memory::create_as(&MemoryConfig::default(), identity))
    }
}

struct SqliteFactory {
    directory: tempfile::TempDir,
}

impl SqliteFactory {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("log.db")
    }

    async fn store(&self, lanes: Option<u8>) -> Arc<dyn Storage> {
        let path = self.path();
        Arc::new(Sqlite::open(&SqliteConfig { path, lanes }).await.unwrap())
    }
}

#[async_trait]
impl Factory for SqliteFactory {
    async fn open(&self, lanes: Lanes) -> Arc<dyn Storage> {
        self.store(Some(lanes.get())).await
    }

    async fn reopen(&self) -> Option<Arc<dyn Storage>> {
        Some(self.store(None).await)
    }

    async fn create_as(&self, identity: Identity) -> Arc<dyn Storage> {
        let config = SqliteConfig {
            path: self.directory.path().join("other.db"),
            lanes: None,
        };
        Arc::new(Sqlite::create_as(&config, identity).await.unwrap())
    }
}

/// A schema of its own in the server of this process.
struct PostgresFactory {
    config: PostgresConfig,
}

impl PostgresFactory {
    fn new(server: &Server) -> Self {
        let mut config = PostgresConfig::new(server.url());
        config.schema = format!("t_{}", Uuid::new_v4().simple());
        Self { config }
    }
}

#[async_trait]
impl Factory for PostgresFactory {
    async fn open(&self, lanes: Lanes) -> Arc<dyn Storage> {
        let mut config = self.config.clone();
        config.lanes = Some(lanes.get());
        Arc::new(Postgres::open(&config).await.unwrap())
    }

    async fn reopen(&self) -> Option<Arc<dyn Storage>> {
        Some(Arc::new(Postgres::open(&self.config).await.unwrap()))
    }

    async fn create_as(&self, identity: Identity) -> Arc<dyn Storage> {
        let mut config = self.config.clone();
        config.schema = format!("{}_other", config.schema);
        Arc::new(Postgres::create_as(&config, identity).await.unwrap())
    }
}

async fn run_all<F: Factory>(provider: &str, lanes: u8, factory: impl Fn() -> F) {
    let lanes = Lanes::new(lanes).unwrap();
    let mut failed = Vec::new();
    for case in CASES {
        let factory: Arc<dyn Factory> = Arc::new(factory());
        let begun = Instant::now();
        let run = tokio::spawn(conformance::run(case, factory, lanes));
        let problem = match tokio::time::timeout(CASE_TIMEOUT, run).await {
            Ok(Ok(())) => None,
            Ok(Err(panic)) => Some(panic.to_string()),
            Err(_) => Some(format!("did not end within {CASE_TIMEOUT:?}")),
        };
        let took = begun.elapsed();
        let lanes = lanes.get();
        match problem {
            None => println!("{provider}, {lanes} lanes: {} ok ({took:.2?})", case.name),
            Some(problem) => {
                println!("{provider}, {lanes} lanes: {} FAILED: {problem}", case.name);
                failed.push(case.name);
            }
        }
    }
    let ran = CASES.len();
    println!(
        "{provider}, {} lanes: {ran} cases ran, {} failed",
        lanes.get(),
        failed.len()
    );
    assert!(
        ran >= LEAST_CASES,
        "{ran} cases ran, {LEAST_CASES} expected"
    );
    assert!(
        failed.is_empty(),
        "{provider} with {} lanes failed: {failed:#?}",
        lanes.get()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_with_one_lane() {
    run_all("memory", 1, || MemoryFactory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_with_eight_lanes() {
    run_all("memory", 8, || MemoryFactory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_with_one_lane() {
    run_all("sqlite", 1, SqliteFactory::new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_with_eight_lanes() {
    run_all("sqlite", 8, SqliteFactory::new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_with_one_lane() {
    match Server::shared() {
        Ok(server) => run_all("postgres", 1, || PostgresFactory::new(server)).await,
        Err(missing) => missing.report("the storage suite on postgres"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_with_eight_lanes() {
    match Server::shared() {
        Ok(server) => run_all("postgres", 8, || PostgresFactory::new(server)).await,
        Err(missing) => missing.report("the storage suite on postgres"),
    }
}
