//! `idempotency-key` (contract §3).

use futures::future::join_all;
use stategate_protocol::pb;
use stategate_tests::{
    Ask,
    ask::{entity, etag, invalid, refused, token, values},
};
use tonic::{Code, Response};

use crate::in_every_form;

fn keyed(ask: &Ask, key: &str) -> Ask {
    ask.with("idempotency-key", key)
}

fn is_replayed<T>(answer: &Response<T>) -> bool {
    let replayed = answer.metadata().get("stategate-replayed");
    replayed.is_some_and(|value| value == "true")
}

#[tokio::test]
async fn a_copy_gets_the_first_answer_and_appends_nothing() {
    in_every_form(async |ask| {
        let name = "d/t/k";
        let set = keyed(&ask, "set").set(name, r#"{"a":1}"#).await.unwrap();
        assert!(!is_replayed(&set));
        let id = ask.history_of(name).await[0].id.clone();
        let edit = keyed(&ask, "edit").edit(name, r#"{"b":2}"#).await.unwrap();
        let del = keyed(&ask, "del").del(name).await.unwrap();
        let revert = keyed(&ask, "revert").revert(name, &id).await.unwrap();
        let operation = pb::Operation {
            operation: Some(pb::operation::Operation::Set(entity(name, r#"{"c":3}"#))),
            ..pb::Operation::default()
        };
        let operations = vec![operation.clone(), operation];
        let transacting = keyed(&ask, "transact");
        let transact = transacting.transact("d", operations.clone()).await.unwrap();
        ask.set(name, r#"{"later":true}"#).await.unwrap();

        // Whatever happened since.
        for _ in 0..2 {
            let again = keyed(&ask, "set").set(name, r#"{"a":1}"#).await.unwrap();
            assert!(is_replayed(&again));
            assert_eq!((etag(&again), token(&again)), (etag(&set), token(&set)));
            let again = keyed(&ask, "edit").edit(name, r#"{"b":2}"#).await.unwrap();
            assert!(is_replayed(&again));
            assert_eq!(values(again.get_ref()), r#"{"a":1,"b":2}"#);
            assert_eq!(again.get_ref(), edit.get_ref());
            assert_eq!((etag(&again), token(&again)), (etag(&edit), token(&edit)));
            let again = keyed(&ask, "del").del(name).await.unwrap();
            assert!(is_replayed(&again));
            assert_eq!((etag(&again), token(&again)), (etag(&del), token(&del)));
            let again = keyed(&ask, "revert").revert(name, &id).await.unwrap();
            assert!(is_replayed(&again));
            assert_eq!(again.get_ref(), revert.get_ref());
            assert_eq!(
                (etag(&again), token(&again)),
                (etag(&revert), token(&revert))
            );
            let again = transacting.transact("d", operations.clone()).await.unwrap();
            assert!(is_replayed(&again));
            assert_eq!(again.get_ref(), transact.get_ref(), "the same events");
            assert_eq!(token(&again), token(&transact));
        }
        let got = ask.get(name).await.unwrap();
        assert_eq!(
            (etag(&got), &*values(got.get_ref())),
            (Some(7), r#"{"later":true}"#)
        );
        assert_eq!(ask.history_of(name).await.len(), 7);
    })
    .await;
}

#[tokio::test]
async fn copies_at_the_same_instant_are_one_write() {
    in_every_form(async |ask| {
        for round in 0..10 {
            let name = format!("d/t/k{round}");
            let key = keyed(&ask, &format!("key-{round}"));
            let answers = join_all((0..32).map(|_| key.set(&name, r#"{"n":1}"#))).await;
            let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
            let first: Vec<_> = answers
                .iter()
                .filter(|answer| !is_replayed(answer))
                .collect();
            assert_eq!(first.len(), 1, "one of them wrote");
            for answer in &answers {
                assert_eq!((etag(answer), token(answer)), (Some(1), token(first[0])));
            }
            assert_eq!(ask.history_of(&name).await.len(), 1);

            // Different requests under one key: one wins, the others are told.
            let key = keyed(&ask, &format!("contended-{round}"));
            let requests: Vec<String> = (0..8).map(|n| format!(r#"{{"n":{n}}}"#)).collect();
            let answers = join_all(requests.iter().map(|values| key.set(&name, values))).await;
            let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
            assert_eq!((won.len(), lost.len()), (1, 7));
            for answer in lost {
                refused(answer, Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED");
            }
            assert_eq!(ask.history_of(&name).await.len(), 2);
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_stands_for_one_request() {
    in_every_form(async |ask| {
        let name = "d/t/k";
        let key = keyed(&ask, "one");
        key.set(name, r#"{"a":[1,2]}"#).await.unwrap();
        let reused = |answer: Result<(), tonic::Status>| {
            refused(answer, Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED");
        };
        reused(key.set(name, r#"{"a":[2,1]}"#).await.map(drop));
        reused(key.set("d/t/other", r#"{"a":[1,2]}"#).await.map(drop));
        reused(key.set("d/u/k", r#"{"a":[1,2]}"#).await.map(drop));
        reused(key.edit(name, r#"{"a":[1,2]}"#).await.map(drop));
        reused(key.del(name).await.map(drop));
        let id = ask.history_of(name).await[0].id.clone();
        reused(key.revert(name, &id).await.map(drop));
        let operation = |values| pb::Operation {
            operation: Some(pb::operation::Operation::Set(entity(name, values))),
            ..pb::Operation::default()
        };
        reused(
            key.transact("d", vec![operation(r#"{"a":[1,2]}"#)])
                .await
                .map(drop),
        );
        // Preconditions are a part of the request, and are looked at after the key.
        reused(
            key.with("if-match", "\"1\"")
                .set(name, r#"{"a":[1,2]}"#)
                .await
                .map(drop),
        );
        let conditional = keyed(&ask, "two").with("if-match", "\"1\"");
        conditional.set(name, "{}").await.unwrap();
        assert!(is_replayed(&conditional.set(name, "{}").await.unwrap()));
        reused(keyed(&ask, "two").set(name, "{}").await.map(drop));

        // The order of keys is none of the request.
        keyed(&ask, "three")
            .set(name, r#"{"x":1,"y":2}"#)
            .await
            .unwrap();
        let again = keyed(&ask, "three")
            .set(name, r#"{"y":2.0,"x":1}"#)
            .await
            .unwrap();
        assert!(is_replayed(&again));
        // Another domain has keys of its own.
        assert!(!is_replayed(
            &key.set("e/t/k", r#"{"a":[1,2]}"#).await.unwrap()
        ));
        assert_eq!(ask.history_of(name).await.len(), 3);
    })
    .await;
}

#[tokio::test]
async fn a_failed_call_consumes_no_key() {
    in_every_form(async |ask| {
        let name = "d/t/k";
        let key = keyed(&ask, "one");
        refused(
            key.edit(name, r#"{"a":1}"#).await,
            Code::NotFound,
            "ENTITY_NOT_FOUND",
        );
        refused(key.del(name).await, Code::NotFound, "ENTITY_NOT_FOUND");
        let picky = key.with("if-match", "\"9\"");
        refused(
            picky.set(name, "{}").await,
            Code::Aborted,
            "VERSION_MISMATCH",
        );
        let bad = pb::Entity {
            values: None,
            ..entity(name, "{}")
        };
        invalid(key.entities().set(key.request(bad)).await, "values");
        let set = key.set(name, r#"{"a":1}"#).await.unwrap();
        assert!(!is_replayed(&set));
        // And a call that would fail now is answered as it was then.
        let del = keyed(&ask, "del");
        del.del(name).await.unwrap();
        assert!(is_replayed(&del.del(name).await.unwrap()));
        assert!(is_replayed(&key.set(name, r#"{"a":1}"#).await.unwrap()));
        refused(ask.get(name).await, Code::NotFound, "ENTITY_NOT_FOUND");
    })
    .await;
}

#[tokio::test]
async fn malformed_keys_are_refused() {
    in_every_form(async |ask| {
        let longest = "x".repeat(128);
        for good in ["!", "~", "a,b;c=\"d\"", &longest] {
            keyed(&ask, good).set("d/t/good", "{}").await.unwrap();
        }
        let long = "x".repeat(129);
        for bad in ["", "a b", "a\tb", "é", &long] {
            let bad = keyed(&ask, bad);
            invalid(bad.set("d/t/k", "{}").await, "idempotency-key");
            invalid(bad.transact("d", Vec::new()).await, "idempotency-key");
        }
        let twice = keyed(&ask, "a").with("idempotency-key", "a");
        invalid(twice.set("d/t/k", "{}").await, "idempotency-key");
        assert!(ask.history_of("d/t/k").await.is_empty());
    })
    .await;
}
