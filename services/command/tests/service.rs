//! The edge of the command service, where claims are known: whose an idempotency key is.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, with a message"
)]

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use stategate_api::{Access, Caller};
use stategate_channel::{Channel, InMemory, InMemoryConfig};
use stategate_command::{CommandService, Settings};
use stategate_model::{Claims, Lane, Limits, Position, json};
use stategate_protocol::{Struct, headers, pb, server::entity_service_server::EntityService as _};
use stategate_server::{Drain, Grpc, Services, Tasks};
use stategate_storage::{Memory, MemoryConfig, ReadLimit, Storage};
use tonic::Request;

fn request(domain: &str, claims: &str) -> Request<pb::Entity> {
    let object = |text: &str| json::parse_object(text).unwrap();
    let mut request = Request::new(pb::Entity {
        domain: domain.to_owned(),
        r#type: "t".to_owned(),
        key: "a".to_owned(),
        values: Some(Struct::from_object(&object(r#"{"n":1}"#))),
        version: 0,
    });
    let key = "once".parse().unwrap();
    request.metadata_mut().insert(headers::IDEMPOTENCY_KEY, key);
    let claims = Claims::new(object(claims)).unwrap();
    let expires = SystemTime::now() + Duration::from_secs(3_600);
    let caller = Caller::new(claims.values(), claims.clone(), expires).unwrap();
    request.extensions_mut().insert(Arc::new(caller));
    request
}

#[tokio::test]
async fn a_key_is_its_callers_and_domains() {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new(&MemoryConfig::default()).unwrap());
    let channel: Arc<dyn Channel> = Arc::new(InMemory::new(&InMemoryConfig::default()));
    let service = CommandService::start(
        Arc::clone(&storage),
        &channel,
        &Settings::default(),
        &Tasks::of(&Drain::new()),
    );
    let service = Arc::new(service);
    let services = Services {
        command: Some(Arc::clone(&service) as _),
        ..Services::default()
    };
    let grpc = Grpc::new(services, Access::open(), Limits::default());
    let callers = [
        ("d", r#"{"iss":"issuer","sub":"one"}"#),
        ("d", r#"{"iss":"issuer","sub":"two"}"#),
        ("d", r#"{"iss":"other","sub":"one"}"#),
        ("d", r#"{"sub":"one"}"#),
        ("d", "{}"),
        ("e", r#"{"iss":"issuer","sub":"one"}"#),
    ];
    for is_copy in [false, true] {
        for (domain, claims) in callers {
            let answer = grpc.set(request(domain, claims)).await.unwrap();
            let replayed = answer.metadata().contains_key(headers::REPLAYED);
            assert_eq!(replayed, is_copy, "{domain} {claims}");
        }
    }
    // Other claims do not make another caller: a token is renewed between two tries.
    let renewed = r#"{"exp":2,"iss":"issuer","sub":"one"}"#;
    let answer = grpc.set(request("d", renewed)).await.unwrap();
    assert!(answer.metadata().contains_key(headers::REPLAYED));
    let all = ReadLimit {
        events: 100,
        bytes: usize::MAX,
    };
    let log = storage
        .read_log(Lane(0), Position::ZERO, all)
        .await
        .unwrap();
    let made: Vec<_> = log
        .iter()
        .map(|event| (event.entity.domain(), event.claims.values().json()))
        .collect();
    assert_eq!(made, callers);
    service.finish().await;
}
