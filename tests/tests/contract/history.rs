//! Events: what each holds, and that every way to one shows the same (contract §§1, 2, 3, 6).

use std::time::{SystemTime, UNIX_EPOCH};

use stategate_protocol::pb::{self, stream_opts::Start};
use stategate_tests::{
    Ask,
    ask::{entity_ref, etag, token, values_of},
    clients::everything,
};
use uuid::Uuid;

use crate::in_every_form;

const METHODS: [&str; 5] = [
    "/stategate.EntityService/Set",
    "/stategate.EntityService/Edit",
    "/stategate.EntityService/Del",
    "/stategate.EntityService/Revert",
    "/stategate.EntityService/Set",
];

/// One write of each kind, then another of the first.
async fn write(ask: &Ask, name: &str) {
    ask.set(name, r#"{"a":1}"#).await.unwrap();
    ask.edit(name, r#"{"b":[true,null]}"#).await.unwrap();
    ask.del(name).await.unwrap();
    let first = ask.history_of(name).await.remove(0);
    ask.revert(name, &first.id).await.unwrap();
    ask.set(name, "{}").await.unwrap();
}

#[tokio::test]
async fn an_event_holds_everything() {
    in_every_form(async |ask| {
        let before = now();
        write(&ask, "d/t/k").await;
        let events = ask.history_of("d/t/k").await;
        assert_eq!(events.len(), METHODS.len(), "exactly one for each write");
        let mut time = before - 1;
        for ((event, version), method) in events.iter().zip(1..).zip(METHODS) {
            assert_eq!(Uuid::parse_str(&event.id).unwrap().get_version_num(), 4);
            assert_eq!(event.method, method, "the full gRPC method");
            assert_eq!(event.version, version);
            assert_eq!(event.position, version, "the log holds nothing else");
            assert!(
                event.time > time,
                "times go up: {} after {time}",
                event.time
            );
            time = event.time;
            let claims = event.claims.clone().expect("claims are always set");
            assert!(claims.into_object().is_empty(), "there are none");
            let entity = event.entity.as_ref().unwrap();
            assert_eq!(entity.version, 0, "the entity in an event has no version");
            let name = (&*entity.domain, &*entity.r#type, &*entity.key);
            assert_eq!(name, ("d", "t", "k"));
            assert_eq!(event.trace_parent, "");
        }
        assert!(time <= now(), "in ns since 1970");
        let ids: std::collections::HashSet<_> = events.iter().map(|event| &event.id).collect();
        assert_eq!(ids.len(), events.len());
    })
    .await;
}

#[tokio::test]
async fn every_way_to_an_event_shows_the_same() {
    in_every_form(async |ask| {
        write(&ask, "d/t/k").await;
        let searched = ask.history_of("d/t/k").await;
        let mut stream = ask
            .stream(everything(Some(Start::FromBeginning(true))))
            .await
            .unwrap();
        let mut live = ask.stream(everything(None)).await.unwrap();
        for event in &searched {
            assert_eq!(stream.next().await, *event);
            let got = ask.event("d/t/k", &event.id).await.unwrap();
            assert_eq!(got.get_ref(), event);
            assert_eq!(etag(&got), None, "an event has no version to compare with");
            assert_eq!(token(&got).log_id, stream.start.log_id);
        }
        // And the way of a transaction, whose events its answer holds.
        let operation = pb::operation::Operation::Del(entity_ref("d/t/k"));
        let operation = pb::Operation {
            operation: Some(operation),
            ..pb::Operation::default()
        };
        let done = ask.transact("d", vec![operation]).await.unwrap();
        let event = &done.get_ref().events[0];
        assert_eq!(event.method, "/stategate.EntityService/Del");
        assert_eq!(stream.next().await, *event);
        assert_eq!(live.next().await, *event);
        assert_eq!(ask.history_of("d/t/k").await.last(), Some(event));
        assert_eq!(values_of(event), "{}");
        assert!(event.claims.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_trace_goes_with_its_event() {
    in_every_form(async |ask| {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        ask.with("traceparent", trace)
            .set("d/t/k", "{}")
            .await
            .unwrap();
        // A broken trace header is no reason to fail a write.
        ask.with("traceparent", "broken")
            .set("d/t/k", "{}")
            .await
            .unwrap();
        let events = ask.history_of("d/t/k").await;
        assert_eq!(events[0].trace_parent, trace);
        assert_eq!(events[1].trace_parent, "");
    })
    .await;
}

#[tokio::test]
async fn positions_have_no_hole_and_times_go_up_in_a_lane() {
    in_every_form(async |ask| {
        // Many writers over several domains at once, refused writes among them.
        let writers = (0..8).map(|writer| {
            let ask = ask.clone();
            tokio::spawn(async move {
                for n in 0..25 {
                    let name = format!("domain-{}/t/k{writer}", n % 5);
                    ask.set(&name, &format!(r#"{{"n":{n}}}"#)).await.unwrap();
                    ask.del("domain-0/t/absent").await.unwrap_err();
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        let mut stream = ask
            .stream(everything(Some(Start::FromBeginning(true))))
            .await
            .unwrap();
        let events = stream.take(8 * 25).await;
        let mut lanes = std::collections::HashMap::<i32, (i64, i64)>::new();
        for event in &events {
            let (position, time) = lanes.entry(event.lane).or_default();
            assert_eq!(event.position, *position + 1);
            assert!(event.time > *time);
            (*position, *time) = (event.position, event.time);
        }
        let total: i64 = lanes.values().map(|(position, _)| position).sum();
        assert_eq!(total, 8 * 25, "a refused write leaves no trace");
    })
    .await;
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_nanos()).unwrap()
}
