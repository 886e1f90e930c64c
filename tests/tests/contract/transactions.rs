//! Transact: several writes in one domain, all or none (contract §3).

use stategate_protocol::{
    Struct,
    pb::{
        Operation,
        operation::{Operation as Wire, Precondition},
    },
};
use stategate_tests::{
    Ask,
    ask::{entity, entity_ref, event_ref, invalid, invalid_for, refused, token, values, values_of},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::in_every_form;

fn operation(operation: Wire) -> Operation {
    Operation {
        operation: Some(operation),
        ..Operation::default()
    }
}

fn set(name: &str, values: &str) -> Operation {
    operation(Wire::Set(entity(name, values)))
}

fn edit(name: &str, values: &str) -> Operation {
    operation(Wire::Edit(entity(name, values)))
}

fn revert(name: &str, id: &str) -> Operation {
    operation(Wire::Revert(event_ref(name, id)))
}

fn del(name: &str) -> Operation {
    operation(Wire::Del(entity_ref(name)))
}

fn expecting(operation: Operation, precondition: Precondition) -> Operation {
    Operation {
        precondition: Some(precondition),
        ..operation
    }
}

/// The index of the operation that a refusal names.
#[track_caller]
fn culprit(status: &Status) -> String {
    let info = status.get_details_error_info().unwrap();
    let index = info.metadata.get("operation");
    let index = index.unwrap_or_else(|| panic!("no operation is named in {status:?}"));
    assert!(
        status.message().contains(&format!("operation {index}")),
        "{status}"
    );
    index.clone()
}

/// How many events there are of a kind.
async fn count(ask: &Ask, domain: &str) -> usize {
    let opts = stategate_protocol::pb::SearchEventOpts {
        domain: domain.to_owned(),
        r#type: "t".into(),
        limit: 10_000,
        ..Default::default()
    };
    ask.history(opts).await.unwrap().get_ref().events.len()
}

#[tokio::test]
async fn operations_see_each_other_in_order() {
    in_every_form(async |ask| {
        ask.set("d/t/old", r#"{"n":0}"#).await.unwrap();
        let id = ask.history_of("d/t/old").await[0].id.clone();
        let done = ask
            .transact(
                "d",
                vec![
                    set("d/t/a", r#"{"x":1}"#),
                    // The domain may be left out.
                    edit("/t/a", r#"{"y":2}"#),
                    del("/t/old"),
                    revert("d/t/old", &id),
                    del("d/t/a"),
                    set("/t/a", r#"{"z":3}"#),
                ],
            )
            .await
            .unwrap();
        let events = &done.get_ref().events;
        let shown: Vec<_> = events
            .iter()
            .map(|event| {
                let method = event.method.rsplit('/').next().unwrap();
                (method, event.version, values_of(event))
            })
            .collect();
        let expected = [
            ("Set", 1, r#"{"x":1}"#),
            ("Edit", 2, r#"{"x":1,"y":2}"#),
            ("Del", 2, r#"{"n":0}"#),
            ("Revert", 3, r#"{"n":0}"#),
            ("Del", 3, r#"{"x":1,"y":2}"#),
            ("Set", 4, r#"{"z":3}"#),
        ];
        let expected =
            expected.map(|(method, version, values)| (method, version, values.to_owned()));
        assert_eq!(shown, expected, "one event for each operation, in order");
        for pair in events.windows(2) {
            assert_eq!(pair[1].position, pair[0].position + 1, "consecutive");
            assert!(pair[1].time > pair[0].time);
        }
        let (_, position) = token(&done).iter().next().unwrap();
        assert_eq!(position.as_i64(), events[5].position, "the last of them");
        assert!(
            done.metadata().get("etag").is_none(),
            "several entities have no one version"
        );
        for event in events {
            let entity = event.entity.as_ref().unwrap();
            assert_eq!((&*entity.domain, entity.version), ("d", 0));
            let name = format!("d/t/{}", entity.key);
            assert_eq!(ask.event(&name, &event.id).await.unwrap().get_ref(), event);
        }
        let got = ask.get("d/t/a").await.unwrap();
        assert_eq!(values(got.get_ref()), r#"{"z":3}"#);
    })
    .await;
}

#[tokio::test]
async fn all_or_none() {
    in_every_form(async |ask| {
        ask.set("d/t/there", r#"{"n":1}"#).await.unwrap();
        let some = "1b4e28ba-2fa1-4d2b-883f-0016d3cca427";
        let cases = [
            (edit("d/t/absent", "{}"), Code::NotFound, "ENTITY_NOT_FOUND"),
            (del("d/t/absent"), Code::NotFound, "ENTITY_NOT_FOUND"),
            (revert("d/t/there", some), Code::NotFound, "EVENT_NOT_FOUND"),
            (
                expecting(set("d/t/there", "{}"), Precondition::IfVersion(7)),
                Code::Aborted,
                "VERSION_MISMATCH",
            ),
            (
                expecting(set("d/t/there", "{}"), Precondition::IfAbsent(true)),
                Code::Aborted,
                "VERSION_MISMATCH",
            ),
            // Written to by an operation before it.
            (
                expecting(edit("d/t/new", "{}"), Precondition::IfAbsent(true)),
                Code::Aborted,
                "VERSION_MISMATCH",
            ),
        ];
        for (bad, code, reason) in cases {
            for (before, after) in [(0, 0), (1, 0), (2, 3)] {
                let mut operations = vec![set("d/t/new", r#"{"x":1}"#); before];
                let is_of_new = matches!(&bad.operation, Some(Wire::Edit(e)) if e.key == "new");
                if before == 0 && is_of_new {
                    continue;
                }
                operations.push(bad.clone());
                operations.extend(vec![set("d/t/more", "{}"); after]);
                let answer = ask.transact("d", operations).await;
                let (status, _) = refused(answer, code, reason);
                assert_eq!(culprit(&status), before.to_string());
            }
        }
        assert_eq!(count(&ask, "d").await, 1, "nothing was written");

        // The version that a mismatch names is what the operations before it left.
        let answer = ask
            .transact(
                "d",
                vec![
                    edit("d/t/there", "{}"),
                    expecting(del("d/t/there"), Precondition::IfVersion(1)),
                ],
            )
            .await;
        let (_, info) = refused(answer, Code::Aborted, "VERSION_MISMATCH");
        assert_eq!(info.metadata["current_version"], "2");
        let done = ask
            .transact(
                "d",
                vec![
                    expecting(edit("d/t/there", "{}"), Precondition::IfVersion(1)),
                    expecting(del("d/t/there"), Precondition::IfVersion(2)),
                    expecting(set("d/t/there", "{}"), Precondition::IfAbsent(true)),
                ],
            )
            .await
            .unwrap();
        assert_eq!(done.get_ref().events[2].version, 4);
    })
    .await;
}

#[tokio::test]
async fn a_transaction_that_is_none_is_refused() {
    in_every_form(async |ask| {
        let good = || set("d/t/k", "{}");
        invalid(ask.transact("d", Vec::new()).await, "operations");
        invalid(ask.transact("d", vec![good(); 1_001]).await, "operations");
        invalid(ask.transact("", vec![good()]).await, "domain");
        let nothing = Operation::default();
        let without_values = operation(Wire::Set(stategate_protocol::pb::Entity {
            values: None,
            ..entity("d/t/k", "{}")
        }));
        let past = operation(Wire::Del(stategate_protocol::pb::EntityRef {
            at: Some(stategate_protocol::pb::entity_ref::At::AtVersion(1)),
            ..entity_ref("d/t/k")
        }));
        let nan = operation(Wire::Edit(stategate_protocol::pb::Entity {
            values: Some(Struct::from_object(
                &[("x".to_owned(), f64::NAN.into())].into(),
            )),
            ..entity("d/t/k", "{}")
        }));
        let cases = [
            (nothing, "operations[1]"),
            (set("e/t/k", "{}"), "operations[1].set.domain"),
            (edit("e/t/k", "{}"), "operations[1].edit.domain"),
            (revert("e/t/k", ""), "operations[1].revert.domain"),
            (del("e/t/k"), "operations[1].del.domain"),
            (set("d//k", "{}"), "operations[1].set.type"),
            (edit("d/t/", "{}"), "operations[1].edit.key"),
            (revert("d/t/k", "x"), "operations[1].revert.id"),
            (del("d/t/a b"), "operations[1].del.key"),
            (past, "operations[1].del.at"),
            (without_values, "operations[1].set.values"),
            (nan, "operations[1].edit.values.x"),
            (
                expecting(good(), Precondition::IfVersion(0)),
                "operations[1].if_version",
            ),
            (
                expecting(good(), Precondition::IfVersion(-1)),
                "operations[1].if_version",
            ),
            (
                expecting(good(), Precondition::IfAbsent(false)),
                "operations[1].if_absent",
            ),
        ];
        for (bad, field) in cases {
            let status = invalid(ask.transact("d", vec![good(), bad.clone()]).await, field);
            assert_eq!(culprit(&status), "1", "{status}");
            let field = field.replace("[1]", "[0]");
            let status = invalid(ask.transact("d", vec![bad]).await, &field);
            assert_eq!(culprit(&status), "0", "{status}");
        }
        assert_eq!(count(&ask, "d").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_thousand_operations_and_three_mebibytes() {
    in_every_form(async |ask| {
        let many = (0..1_000).map(|n| set(&format!("d/t/k{n:03}"), "{}"));
        let done = ask.transact("d", many.collect()).await.unwrap();
        assert_eq!(done.get_ref().events.len(), 1_000);
        assert_eq!(count(&ask, "d").await, 1_000);

        let big = format!(r#"{{"a":"{}"}}"#, "x".repeat(900_000));
        let sets = |n: usize| (0..n).map(|n| set(&format!("b/t/k{n}"), &big)).collect();
        ask.transact("b", sets(3)).await.unwrap();
        let status = invalid_for(
            ask.transact("b", sets(4)).await,
            "TRANSACTION_TOO_LARGE",
            "operations[3]",
        );
        assert_eq!(culprit(&status), "3");
        // Small operations whose events are not: an event holds all of its entity.
        let edits = vec![edit("b/t/k0", "{}"); 4];
        invalid_for(
            ask.transact("b", edits).await,
            "TRANSACTION_TOO_LARGE",
            "operations[3]",
        );
        // One operation that is too large by itself is named as well.
        let half = format!(r#"{{"b":"{}"}}"#, "x".repeat(200_000));
        let edits = vec![edit("b/t/k0", "{}"), edit("b/t/k1", &half)];
        let answer = ask.transact("b", edits).await;
        let status = invalid_for(answer, "REQUEST_TOO_LARGE", "operations[1].values");
        assert_eq!(culprit(&status), "1");
        let dels = (0..3).map(|n| del(&format!("b/t/k{n}"))).collect();
        ask.transact("b", dels).await.unwrap();
        assert_eq!(count_pages(&ask, "b").await, 6);
    })
    .await;
}

/// As [`count`], of what does not fit one page.
async fn count_pages(ask: &Ask, domain: &str) -> usize {
    let mut opts = stategate_protocol::pb::SearchEventOpts {
        domain: domain.to_owned(),
        r#type: "t".into(),
        ..Default::default()
    };
    let mut count = 0;
    loop {
        let page = ask.history(opts.clone()).await.unwrap().into_inner();
        count += page.events.len();
        if page.next_page_token.is_empty() {
            return count;
        }
        opts.page_token = page.next_page_token;
    }
}

/// The answer of a transaction is one message, so its events have to fit one.
#[tokio::test]
async fn the_answer_fits_a_message_whatever_the_values_are() {
    in_every_form(async |ask| {
        // Two bytes a number as JSON, eleven on the wire.
        let numbers = format!(r#"{{"a":[{}1]}}"#, "1,".repeat(200_000));
        ask.set("d/t/k", &numbers).await.unwrap();
        let answer = ask.transact("d", vec![edit("d/t/k", "{}"); 4]).await;
        match answer {
            // A client that takes no more than 4 MiB, as clients do, gets its answer …
            Ok(done) => assert_eq!(done.get_ref().events.len(), 4),
            // … or nothing was written.
            Err(status) => {
                let field = "operations[1]";
                invalid_for(Err::<(), _>(status), "TRANSACTION_TOO_LARGE", field);
                assert_eq!(count_pages(&ask, "d").await, 1);
            }
        }
    })
    .await;
}
