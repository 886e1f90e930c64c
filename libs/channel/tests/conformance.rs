//! Every channel case on every channel.

use std::{any::Any, sync::Arc};

use stategate_channel::{
    Channel, InMemory, InMemoryConfig, StorageHeads, StorageHeadsConfig,
    conformance::{CASES, PretendedLog, Rig},
};

async fn run_all(provider: &str, rig: impl Fn() -> Rig) {
    let mut failed = Vec::new();
    for case in CASES {
        println!("{provider}: {}", case.name);
        if let Err(panic) = tokio::spawn((case.run)(rig())).await {
            let panic: Box<dyn Any + Send> = panic.into_panic();
            let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            failed.push(format!("{}: {why}", case.name));
        }
    }
    println!("{provider}: {} cases, {} failed", CASES.len(), failed.len());
    assert!(CASES.len() >= 9, "cases went missing");
    assert!(failed.is_empty(), "{provider}: {failed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inmem() {
    run_all("inmem", || {
        let channel: Arc<dyn Channel> = Arc::new(InMemory::new(&InMemoryConfig::default()));
        Rig {
            log: PretendedLog::new(),
            writer: Arc::clone(&channel),
            reader: channel,
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storage() {
    run_all("storage", || {
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
        }
    })
    .await;
}
