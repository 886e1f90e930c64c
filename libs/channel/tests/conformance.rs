//! Every channel case on every channel.

use std::{any::Any, sync::Arc};

use stategate_channel::{
    Channel, InMemory, InMemoryConfig, StorageHeads, StorageHeadsConfig,
    conformance::{CASES, PretendedLog, Rig},
};

#[cfg(feature = "link")]
mod brokers;

async fn run_all(provider: &str, rig: impl AsyncFn() -> Rig) {
    let mut failed = Vec::new();
    for case in CASES {
        println!("{provider}: {}", case.name);
        if let Err(panic) = tokio::spawn((case.run)(rig().await)).await {
            let panic: Box<dyn Any + Send> = panic.into_panic();
            let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
            let why = panic.downcast_ref::<String>().cloned().or(said);
            failed.push(format!("{}: {}", case.name, why.unwrap_or_default()));
        }
    }
    println!("{provider}: {} cases, {} failed", CASES.len(), failed.len());
    assert!(CASES.len() >= 19, "cases went missing");
    assert!(failed.is_empty(), "{provider}: {failed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inmem() {
    run_all("inmem", async || {
        let channel: Arc<dyn Channel> = Arc::new(InMemory::new(&InMemoryConfig::default()));
        Rig {
            log: PretendedLog::new(),
            writer: Arc::clone(&channel),
            reader: channel,
            broker: None,
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storage() {
    run_all("storage", async || {
        let log = PretendedLog::new();
        // Two handles, as a command and a stream process have.
        let open = || {
            Arc::new(StorageHeads::new(
                &StorageHeadsConfig::default(),
                log.described(),
            )) as Arc<dyn Channel>
        };
        Rig {
            writer: open(),
            reader: open(),
            log,
            broker: None,
        }
    })
    .await;
}
