//! A transaction of many Reverts reads what they go back to at once, and no more than it may hold.

use std::sync::{Arc, atomic::Ordering};

use stategate_api::Access;
use stategate_channel::{Channel, InMemory, InMemoryConfig};
use stategate_command::{CommandService, Settings};
use stategate_model::{Limits, json};
use stategate_protocol::{
    Struct, pb, pb::operation::Operation as Wire, server::entity_service_server::EntityService as _,
};
use stategate_server::{Drain, Grpc, Services, Tasks};
use stategate_storage::Storage;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::{faulty::Faulty, log};

struct Bench {
    storage: Arc<Faulty>,
    command: Arc<CommandService>,
    service: Grpc,
}

impl Bench {
    fn new() -> Self {
        let storage = Faulty::new(&[]);
        let channel: Arc<dyn Channel> = Arc::new(InMemory::new(&InMemoryConfig::default()));
        let shared: Arc<dyn Storage> = Arc::clone(&storage) as _;
        let service = CommandService::start(
            shared,
            &channel,
            &Settings::default(),
            &Tasks::of(&Drain::new()),
        );
        let command = Arc::new(service);
        let services = Services {
            command: Some(Arc::clone(&command) as _),
            ..Services::default()
        };
        let service = Grpc::new(services, Access::open(), Limits::default());
        Self {
            storage,
            command,
            service,
        }
    }

    /// Sets an entity; answers a Revert to what it holds now.
    async fn set(&self, key: &str, values: &str) -> Wire {
        let entity = pb::Entity {
            domain: "d".into(),
            r#type: "t".into(),
            key: key.into(),
            values: Some(Struct::from_object(&json::parse_object(values).unwrap())),
            version: 0,
        };
        self.service.set(Request::new(entity)).await.unwrap();
        let id = log(&self.storage).await.last().unwrap().id;
        Wire::Revert(pb::EventRef {
            domain: String::new(),
            r#type: "t".into(),
            key: key.into(),
            id: id.to_string(),
        })
    }

    async fn transact(&self, operations: Vec<Wire>) -> Result<usize, Status> {
        let operations = operations.into_iter().map(|operation| pb::Operation {
            operation: Some(operation),
            ..pb::Operation::default()
        });
        let request = pb::TransactRequest {
            domain: "d".into(),
            operations: operations.collect(),
        };
        let answer = self.service.transact(Request::new(request)).await?;
        Ok(answer.get_ref().events.len())
    }

    fn lookups(&self) -> usize {
        self.storage.lookups.load(Ordering::SeqCst)
    }
}

/// The reason of a refusal, and the operation it names.
fn refusal(status: &Status) -> (Code, String, String) {
    let info = status.get_details_error_info().unwrap();
    let operation = info.metadata.get("operation").cloned();
    (status.code(), info.reason, operation.unwrap_or_default())
}

#[tokio::test]
async fn a_thousand_reverts_are_one_read() {
    let bench = Bench::new();
    let mut reverts = Vec::new();
    for n in 0..100 {
        let key = format!("k{}", n % 10);
        reverts.push(bench.set(&key, &format!(r#"{{"n":{n}}}"#)).await);
    }
    let operations: Vec<_> = reverts.iter().cycle().take(1_000).cloned().collect();
    let before = bench.lookups();
    assert_eq!(bench.transact(operations).await.unwrap(), 1_000);
    assert_eq!(bench.lookups() - before, 1);
    let log = log(&bench.storage).await;
    for (n, event) in log[100..].iter().enumerate() {
        assert_eq!(event.values.json(), format!(r#"{{"n":{}}}"#, n % 100));
    }
    // One without Reverts reads nothing.
    let del = Wire::Del(pb::EntityRef {
        domain: String::new(),
        r#type: "t".into(),
        key: "k0".into(),
        at: None,
    });
    assert_eq!(bench.transact(vec![del]).await.unwrap(), 1);
    assert_eq!(bench.lookups() - before, 1);
    bench.command.finish().await;
}

#[tokio::test]
async fn what_a_transaction_cannot_hold_is_not_read_to_the_end() {
    let bench = Bench::new();
    let small = bench.set("small", "{}").await;
    let text = "x".repeat(900 << 10);
    let large = bench.set("large", &format!(r#"{{"text":"{text}"}}"#)).await;
    let written = log(&bench.storage).await.len();
    let mut operations = vec![small];
    operations.extend(std::iter::repeat_n(large, 999));
    let before = bench.lookups();
    let status = bench.transact(operations).await.unwrap_err();
    let expected = (
        Code::InvalidArgument,
        "TRANSACTION_TOO_LARGE".to_owned(),
        "4".to_owned(),
    );
    assert_eq!(refusal(&status), expected, "{status:?}");
    assert!(bench.lookups() - before <= 2);
    assert_eq!(log(&bench.storage).await.len(), written);
    bench.command.finish().await;
}

#[tokio::test]
async fn a_revert_to_what_is_not_there_is_named() {
    let bench = Bench::new();
    let good = bench.set("a", "{}").await;
    let other = bench.set("b", "{}").await;
    let Wire::Revert(event) = &other else {
        unreachable!("a Revert");
    };
    let foreign = Wire::Revert(pb::EventRef {
        key: "a".into(),
        ..event.clone()
    });
    let operations = vec![good.clone(), other, good, foreign];
    let status = bench.transact(operations).await.unwrap_err();
    let expected = (Code::NotFound, "EVENT_NOT_FOUND".to_owned(), "3".to_owned());
    assert_eq!(refusal(&status), expected, "{status:?}");
    bench.command.finish().await;
}
