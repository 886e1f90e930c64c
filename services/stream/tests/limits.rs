//! How many streams one caller may have, as its verified claims name it.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, with a message"
)]

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::stream::BoxStream;
use stategate_api::{Access, Caller, Context, Delivery, Problem, Stream as _};
use stategate_channel::{InMemory, InMemoryConfig};
use stategate_model::{Claims, json};
use stategate_protocol::{documents, pb, requests, status};
use stategate_runtime::{Drain, Tasks};
use stategate_storage::{Memory, MemoryConfig};
use stategate_stream::{Settings, StreamService, SubscriptionLimits};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

type Deliveries = BoxStream<'static, Result<Delivery, Problem>>;

async fn stream(service: &StreamService, claims: Option<&str>) -> Result<Deliveries, Status> {
    let opts = pb::StreamOpts {
        domain: "*".to_owned(),
        r#type: "*".to_owned(),
        ..pb::StreamOpts::default()
    };
    let mut context = Context::anonymous();
    if let Some(claims) = claims {
        let claims = json::parse_object(claims).unwrap();
        let claims = Claims::new(claims).unwrap();
        let expires = SystemTime::now() + Duration::from_secs(3_600);
        let caller = Caller::new(claims.values(), claims.clone(), expires).unwrap();
        context.caller = Some(Arc::new(caller));
    }
    let request = requests::subscribe(&opts).unwrap();
    let rules = Access::open().rules();
    let message = rules.subscription(|| documents::subscribe(&opts));
    let call = rules.call(request, message, context, |call| service.stream(call));
    let subscription = call.await.map_err(status)?.encode(Ok);
    Ok(subscription.unwrap().deliveries)
}

#[tokio::test]
async fn streams_of_one_caller_are_bounded() {
    let settings = Settings {
        subscriptions: SubscriptionLimits {
            total: 100,
            per_caller: 2,
        },
        ..Settings::default()
    };
    let service = StreamService::start(
        Arc::new(Memory::new(&MemoryConfig::default()).unwrap()),
        Arc::new(InMemory::new(&InMemoryConfig::default())),
        &settings,
        &Tasks::of(&Drain::new()),
    );
    let mut open = Vec::new();
    // A renewed token is the same caller's; another issuer's subject is another caller.
    for claims in [
        r#"{"iss":"i","sub":"one"}"#,
        r#"{"iss":"i","sub":"one","exp":2}"#,
        r#"{"iss":"i","sub":"two"}"#,
        r#"{"iss":"j","sub":"one"}"#,
        r#"{"sub":"one"}"#,
    ] {
        open.push(stream(&service, Some(claims)).await.unwrap());
    }
    let Err(status) = stream(&service, Some(r#"{"iss":"i","sub":"one","exp":3}"#)).await else {
        unreachable!("a third stream of one caller");
    };
    assert_eq!(status.code(), Code::ResourceExhausted);
    let details = status.get_error_details();
    let reason = details.error_info().unwrap().reason.as_str();
    assert_eq!(reason, "RESOURCE_EXHAUSTED");
    assert!(details.retry_info().is_some());

    // Tokens without a subject are all of one caller of their issuer.
    for claims in ["{}", r#"{"iss":"i"}"#] {
        open.push(stream(&service, Some(claims)).await.unwrap());
        open.push(stream(&service, Some(claims)).await.unwrap());
        assert!(stream(&service, Some(claims)).await.is_err());
    }
    // While nobody is verified, nobody is told from anybody.
    for _ in 0..5 {
        open.push(stream(&service, None).await.unwrap());
    }
    // A stream that ended leaves its place.
    drop(open.remove(0));
    let again = stream(&service, Some(r#"{"iss":"i","sub":"one"}"#));
    open.push(again.await.unwrap());
    service.finish().await;
}
