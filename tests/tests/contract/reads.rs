//! Get, of the present and of the past, and reads that wait for a position (contract §§1, 3, 5).

use std::time::{Duration, Instant};

use stategate_model::{Lane, Lanes, LogId, Position, Token};
use stategate_protocol::pb::{self, entity_ref::At};
use stategate_tests::{
    Ask,
    ask::{etag, invalid, refused, token, values},
};
use tonic::Code;

use crate::in_every_form;

#[tokio::test]
async fn get_answers_the_entity_as_it_was_at_a_version() {
    in_every_form(async |ask| {
        let name = "d/t/k";
        ask.set(name, r#"{"n":1}"#).await.unwrap();
        ask.edit(name, r#"{"m":2}"#).await.unwrap();
        ask.del(name).await.unwrap();
        ask.set(name, r#"{"n":4}"#).await.unwrap();
        for (version, expected) in [
            (1, Some(r#"{"n":1}"#)),
            (2, Some(r#"{"m":2,"n":1}"#)),
            (3, None),
            (4, Some(r#"{"n":4}"#)),
            // To come: the newest version does not answer for it.
            (5, None),
            (i64::MAX, None),
        ] {
            let answer = ask.get_at(name, At::AtVersion(version)).await;
            match expected {
                Some(expected) => {
                    let answer = answer.unwrap();
                    assert_eq!(values(answer.get_ref()), expected);
                    assert_eq!(answer.get_ref().version, version);
                    assert_eq!(etag(&answer), u64::try_from(version).ok());
                }
                None => {
                    refused(answer, Code::NotFound, "ENTITY_NOT_FOUND");
                }
            }
        }
        for version in [0, -1, i64::MIN] {
            invalid(ask.get_at(name, At::AtVersion(version)).await, "at_version");
        }
    })
    .await;
}

#[tokio::test]
async fn get_answers_the_entity_as_it_was_at_a_time() {
    in_every_form(async |ask| {
        let name = "d/t/k";
        ask.set(name, r#"{"n":1}"#).await.unwrap();
        ask.set(name, r#"{"n":2}"#).await.unwrap();
        ask.del(name).await.unwrap();
        ask.set(name, r#"{"n":4}"#).await.unwrap();
        let times: Vec<i64> = ask.history_of(name).await.iter().map(|e| e.time).collect();
        for (time, expected) in [
            (1, None),
            (times[0] - 1, None),
            (times[0], Some((1, r#"{"n":1}"#))),
            (times[1] - 1, Some((1, r#"{"n":1}"#))),
            (times[1], Some((2, r#"{"n":2}"#))),
            (times[2] - 1, Some((2, r#"{"n":2}"#))),
            (times[2], None),
            (times[3] - 1, None),
            (times[3], Some((4, r#"{"n":4}"#))),
            // A time to come is the present state.
            (i64::MAX, Some((4, r#"{"n":4}"#))),
        ] {
            let answer = ask.get_at(name, At::AtTime(time)).await;
            match expected {
                Some((version, expected)) => {
                    let answer = answer.unwrap();
                    assert_eq!(values(answer.get_ref()), expected, "at {time}");
                    assert_eq!(answer.get_ref().version, version);
                }
                None => {
                    refused(answer, Code::NotFound, "ENTITY_NOT_FOUND");
                }
            }
        }
        for time in [0, -1, i64::MIN] {
            invalid(ask.get_at(name, At::AtTime(time)).await, "at_time");
        }
        // A write changes the present alone.
        let past = pb::EntityRef {
            at: Some(At::AtVersion(1)),
            ..stategate_tests::ask::entity_ref(name)
        };
        invalid(ask.entities().del(ask.request(past)).await, "at");
        assert!(ask.get(name).await.is_ok());
    })
    .await;
}

/// Some domains that fill several lanes.
fn domains() -> Vec<String> {
    (0..20).map(|n| format!("domain-{n}")).collect()
}

#[tokio::test]
async fn answers_say_where_they_were_read() {
    in_every_form(async |ask| {
        let mut merged: Option<Token> = None;
        for domain in domains() {
            let name = format!("{domain}/t/k");
            let written = token(&ask.set(&name, "{}").await.unwrap());
            let got = token(&ask.get(&name).await.unwrap());
            assert_eq!(got, written, "the lane of its domain, at the last event");
            let opts = pb::SearchEntityOpts {
                domain: domain.clone(),
                r#type: "t".into(),
                ..pb::SearchEntityOpts::default()
            };
            assert_eq!(token(&ask.search(opts).await.unwrap()), written);
            let opts = pb::SearchEventOpts {
                domain,
                r#type: "t".into(),
                ..pb::SearchEventOpts::default()
            };
            assert_eq!(token(&ask.history(opts).await.unwrap()), written);
            match &mut merged {
                Some(merged) => merged.merge(&written),
                None => merged = Some(written),
            }
        }
        // Merged lane by lane they are good for every domain, and for a stream of all.
        let merged = merged.unwrap();
        let positions: u64 = merged.iter().map(|(_, position)| position.get()).sum();
        assert_eq!(positions, 20);
        let fresh = ask.with("stategate-min-position", merged.to_string());
        for domain in domains() {
            fresh.get(&format!("{domain}/t/k")).await.unwrap();
        }
    })
    .await;
}

/// How many lanes the log has: those of a stream's start.
async fn lanes(ask: &Ask) -> (LogId, Lanes) {
    let opts = stategate_tests::clients::everything(None);
    let start = ask.stream(opts).await.unwrap().start;
    let count = u8::try_from(start.iter().count()).unwrap();
    (start.log_id, Lanes::new(count).unwrap())
}

#[tokio::test]
async fn reads_wait_for_a_position() {
    in_every_form(async |ask| {
        ask.set("d/t/k", r#"{"n":1}"#).await.unwrap();
        let (log_id, lanes) = lanes(&ask).await;
        let lane = lanes.of("d");
        let next = Token::of_lane(log_id, lane, Position::new(2)).to_string();

        let of_kind = || pb::SearchEntityOpts {
            domain: "d".into(),
            r#type: "t".into(),
            ..pb::SearchEntityOpts::default()
        };
        let events = || pb::SearchEventOpts {
            domain: "d".into(),
            r#type: "t".into(),
            ..pb::SearchEventOpts::default()
        };
        let id = ask.history_of("d/t/k").await[0].id.clone();

        // Nothing comes: after 10 s the gateway says so, whatever time the caller has.
        let begun = Instant::now();
        let lonely = ask.with("stategate-min-position", &next).without_deadline();
        let patient = lonely.with("grpc-timeout", "8760H");
        let of_past = At::AtVersion(1);
        let (got, past, found, history, event) = tokio::join!(
            lonely.get("d/t/k"),
            patient.get_at("d/t/k", of_past),
            patient.search(of_kind()),
            patient.history(events()),
            patient.event("d/t/k", &id),
        );
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(9), "{took:?}");
        refused(got, Code::OutOfRange, "POSITION_AHEAD");
        refused(past, Code::OutOfRange, "POSITION_AHEAD");
        refused(found, Code::OutOfRange, "POSITION_AHEAD");
        refused(history, Code::OutOfRange, "POSITION_AHEAD");
        refused(event, Code::OutOfRange, "POSITION_AHEAD");

        // It comes.
        let patient = ask.with("stategate-min-position", &next);
        let waiting = async {
            tokio::join!(
                patient.get("d/t/k"),
                patient.search(of_kind()),
                patient.history(events()),
                patient.event("d/t/k", &id),
            )
        };
        let ((got, found, events, event), written) =
            tokio::join!(waiting, ask.set("d/t/k", r#"{"n":2}"#));
        written.unwrap();
        assert_eq!(values(got.unwrap().get_ref()), r#"{"n":2}"#);
        assert_eq!(found.unwrap().get_ref().entities[0].version, 2);
        assert_eq!(events.unwrap().get_ref().events.len(), 2);
        event.unwrap();

        // A token without the domain's lane asks for nothing here.
        if let Some(other) = lanes.iter().find(|other| *other != lane) {
            let elsewhere = Token::of_lane(log_id, other, Position::new(1_000_000)).to_string();
            ask.with("stategate-min-position", elsewhere)
                .get("d/t/k")
                .await
                .unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_position_of_another_log_or_of_none_is_refused() {
    in_every_form(async |ask| {
        ask.set("d/t/k", "{}").await.unwrap();
        let (log_id, lanes) = lanes(&ask).await;
        let header = "stategate-min-position";
        let foreign = Token::of_lane(LogId::random(), Lane(0), Position::new(1)).to_string();
        let foreign = ask.with(header, foreign);
        let opts = pb::SearchEntityOpts {
            domain: "d".into(),
            r#type: "t".into(),
            ..pb::SearchEntityOpts::default()
        };
        refused(foreign.get("d/t/k").await, Code::OutOfRange, "LOG_CHANGED");
        refused(foreign.search(opts).await, Code::OutOfRange, "LOG_CHANGED");

        let unknown = format!("{log_id}/{}:1", lanes.get());
        let status = invalid(ask.with(header, unknown).get("d/t/k").await, header);
        assert!(
            status.message().contains(&format!("lane {}", lanes.get())),
            "{status}"
        );
        for bad in [
            "",
            "x",
            "0:1",
            &format!("{log_id}/"),
            &format!("{log_id}/0:-1"),
            "é",
        ] {
            invalid(ask.with(header, bad).get("d/t/k").await, header);
        }
        let good = format!("{log_id}/0:0");
        let twice = ask.with(header, &good).with(header, &good);
        invalid(twice.get("d/t/k").await, header);
        ask.with(header, &good).get("d/t/k").await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn acknowledged_writes_are_seen_by_every_later_read() {
    in_every_form(async |ask| {
        for n in 0..100 {
            let set = ask.set("d/t/k", &format!(r#"{{"n":{n}}}"#)).await.unwrap();
            let got = ask.get("d/t/k").await.unwrap();
            assert_eq!(etag(&got), etag(&set), "in another process too");
            let opts = pb::SearchEntityOpts {
                domain: "d".into(),
                r#type: "t".into(),
                query_string: format!(r#"{{"n":{n}}}"#),
                ..pb::SearchEntityOpts::default()
            };
            assert_eq!(ask.search(opts).await.unwrap().get_ref().entities.len(), 1);
        }
    })
    .await;
}
