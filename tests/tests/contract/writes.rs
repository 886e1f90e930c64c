//! Set, Edit, Revert and Del (contract §§1, 3, 4).

use stategate_protocol::{Struct, pb};
use stategate_tests::ask::{entity, etag, invalid_for, refused, token, values, values_of};
use tonic::Code;

use crate::in_every_form;

#[tokio::test]
async fn set_replaces_and_creates() {
    in_every_form(async |ask| {
        let first = ask.set("faa/airport/JFK", r#"{"alt":13,"name":"x"}"#).await;
        assert_eq!(etag(&first.unwrap()), Some(1));
        let second = ask.set("faa/airport/JFK", r#"{"tz":-5}"#).await.unwrap();
        assert_eq!(etag(&second), Some(2));
        let got = ask.get("faa/airport/JFK").await.unwrap();
        assert_eq!(
            values(got.get_ref()),
            r#"{"tz":-5}"#,
            "replaced, not merged"
        );
        // The empty object is a value; only no values at all are refused.
        ask.set("faa/airport/JFK", "{}").await.unwrap();
        let got = ask.get("faa/airport/JFK").await.unwrap();
        assert_eq!(values(got.get_ref()), "{}");
    })
    .await;
}

#[tokio::test]
async fn edit_overwrites_just_the_top_level_keys_given() {
    in_every_form(async |ask| {
        let name = "d/t/k";
        ask.set(name, r#"{"a":1,"b":{"x":1,"y":2},"c":[1]}"#)
            .await
            .unwrap();
        let edited = ask
            .edit(name, r#"{"b":{"z":3},"c":null,"d":"new"}"#)
            .await
            .unwrap();
        assert_eq!(etag(&edited), Some(2));
        let expected = r#"{"a":1,"b":{"z":3},"c":null,"d":"new"}"#;
        let answer = edited.get_ref();
        assert_eq!(
            values(answer),
            expected,
            "the whole entity, nothing merged below the top"
        );
        assert_eq!(answer.version, 0, "set by Get and Search only");
        assert_eq!(
            (&*answer.domain, &*answer.r#type, &*answer.key),
            ("d", "t", "k")
        );
        let got = ask.get(name).await.unwrap();
        assert_eq!(values(got.get_ref()), expected);
        // An edit of nothing is a change too.
        let edited = ask.edit(name, "{}").await.unwrap();
        assert_eq!(
            (etag(&edited), &*values(edited.get_ref())),
            (Some(3), expected)
        );
        assert_eq!(ask.history_of(name).await.len(), 3);
    })
    .await;
}

#[tokio::test]
async fn absent_entities_are_not_found_and_nothing_is_written() {
    in_every_form(async |ask| {
        let name = "d/t/absent";
        refused(
            ask.edit(name, "{}").await,
            Code::NotFound,
            "ENTITY_NOT_FOUND",
        );
        refused(ask.del(name).await, Code::NotFound, "ENTITY_NOT_FOUND");
        refused(ask.get(name).await, Code::NotFound, "ENTITY_NOT_FOUND");
        let id = "1b4e28ba-2fa1-4d2b-883f-0016d3cca427";
        refused(
            ask.revert(name, id).await,
            Code::NotFound,
            "EVENT_NOT_FOUND",
        );
        refused(ask.event(name, id).await, Code::NotFound, "EVENT_NOT_FOUND");
        assert!(ask.history_of(name).await.is_empty());

        ask.set(name, "{}").await.unwrap();
        ask.del(name).await.unwrap();
        refused(
            ask.edit(name, "{}").await,
            Code::NotFound,
            "ENTITY_NOT_FOUND",
        );
        refused(ask.del(name).await, Code::NotFound, "ENTITY_NOT_FOUND");
        let (status, _) = refused(ask.get(name).await, Code::NotFound, "ENTITY_NOT_FOUND");
        assert!(status.message().contains(name), "{status}");
        assert_eq!(ask.history_of(name).await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn del_keeps_the_history_and_revert_brings_back() {
    in_every_form(async |ask| {
        let name = "d/t/k";
        ask.set(name, r#"{"a":1}"#).await.unwrap();
        ask.edit(name, r#"{"b":2}"#).await.unwrap();
        let deleted = ask.del(name).await.unwrap();
        assert_eq!(etag(&deleted), Some(3));
        let events = ask.history_of(name).await;
        assert_eq!(
            events.iter().map(values_of).collect::<Vec<_>>(),
            [r#"{"a":1}"#, r#"{"a":1,"b":2}"#, r#"{"a":1,"b":2}"#],
            "a Del's event holds the values as they were"
        );

        let back = ask.revert(name, &events[0].id).await.unwrap();
        assert_eq!((etag(&back), back.get_ref().version), (Some(4), 0));
        assert_eq!(values(back.get_ref()), r#"{"a":1}"#);
        // The event of the Del has values too, and is one of this entity.
        let again = ask.revert(name, &events[2].id).await.unwrap();
        assert_eq!(values(again.get_ref()), r#"{"a":1,"b":2}"#);
        let got = ask.get(name).await.unwrap();
        assert_eq!((etag(&got), got.get_ref().version), (Some(5), 5));

        // Versions survive a Del and the re-creation after it.
        ask.del(name).await.unwrap();
        let created = ask.set(name, "{}").await.unwrap();
        assert_eq!(etag(&created), Some(7));
        let versions = ask.history_of(name).await;
        let versions: Vec<i64> = versions.iter().map(|event| event.version).collect();
        assert_eq!(versions, [1, 2, 3, 4, 5, 6, 7]);
    })
    .await;
}

#[tokio::test]
async fn revert_knows_its_own_events_only() {
    in_every_form(async |ask| {
        for name in ["d/t/mine", "d/t/other", "d/u/mine", "e/t/mine"] {
            ask.set(name, &format!(r#"{{"of":"{name}"}}"#))
                .await
                .unwrap();
        }
        for stranger in ["d/t/other", "d/u/mine", "e/t/mine"] {
            let id = &ask.history_of(stranger).await[0].id;
            let answer = ask.revert("d/t/mine", id).await;
            let (status, _) = refused(answer, Code::NotFound, "EVENT_NOT_FOUND");
            assert!(!status.message().contains(stranger), "{status}");
            refused(
                ask.event("d/t/mine", id).await,
                Code::NotFound,
                "EVENT_NOT_FOUND",
            );
        }
        assert_eq!(ask.history_of("d/t/mine").await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn names_are_compared_byte_for_byte() {
    in_every_form(async |ask| {
        let long = "é".repeat(127) + "x";
        // Each pair would be one entity to a backend that folds, normalises, trims or escapes.
        let keys = [
            "a", "A", "ä", "a\u{308}", "ß", "ss", "k/x", "k%2Fx", "%", "_", "$x", "x.y", "x", "'",
            "''", "\"", "\\", "--", "*", "?", "[a]", "{a,b}", "...", "\u{feff}", "\u{200b}", "😀",
            "İ", "i", "ı", &long,
        ];
        for (n, key) in keys.iter().enumerate() {
            ask.set(&format!("d/t/{key}"), &format!(r#"{{"n":{n}}}"#))
                .await
                .unwrap();
        }
        for (n, key) in keys.iter().enumerate() {
            let got = ask.get(&format!("d/t/{key}")).await.unwrap();
            assert_eq!(values(got.get_ref()), format!(r#"{{"n":{n}}}"#), "{key:?}");
            assert_eq!(got.get_ref().key, *key);
            assert_eq!(etag(&got), Some(1), "{key:?} is an entity of its own");
        }
        let opts = pb::SearchEntityOpts {
            domain: "d".into(),
            r#type: "t".into(),
            ..pb::SearchEntityOpts::default()
        };
        let found = ask.search(opts).await.unwrap().into_inner().entities;
        let found: Vec<&str> = found.iter().map(|entity| &*entity.key).collect();
        let mut sorted = keys;
        sorted.sort_unstable();
        assert_eq!(found, sorted, "in the order of their bytes");
        // The same name elsewhere is another entity.
        ask.set("D/t/a", "{}").await.unwrap();
        ask.set("d/T/a", "{}").await.unwrap();
        assert_eq!(etag(&ask.get("d/t/a").await.unwrap()), Some(1));
    })
    .await;
}

#[tokio::test]
async fn values_survive_the_round_trip() {
    in_every_form(async |ask| {
        let long = "k".repeat(100_000);
        let deep = format!("{}null{}", r#"{"a":"#.repeat(24), "}".repeat(24));
        let texts = [
            r#"{"":"","a.b":1,"$set":{"$x":1},"%s":"%","_id":1,"__proto__":{"constructor":null}}"#,
            r#"{"quotes\"'`":"\"'`\\","nul":"\\u0000","line":"\n\r\t\b\f\u001f\u007f\u0085\u2028"}"#,
            r#"{"é":"e\u0301","\ud83d\ude00":"\ud83d\ude00","\uffff":"\ufffe","ﷺ":"\u202e"}"#,
            r#"{"numbers":[0,1,-1,0.1,1e308,-1.7976931348623157e+308,5e-324,2.2250738585072014e-308,9007199254740991,9007199254740992,4503599627370496.5,1.2345678901234568e20]}"#,
            r#"{"empty":[{},[],"",null,[[]],{"":{}}],"bools":[true,false]}"#,
            &format!(r#"{{"{long}":"{long}"}}"#),
            &deep,
        ];
        for (n, text) in texts.iter().enumerate() {
            let name = format!("d/t/{n}");
            let sent = entity(&name, text);
            let expected = values(&sent);
            ask.set(&name, text).await.unwrap();
            let got = ask.get(&name).await.unwrap().into_inner();
            assert_eq!(values(&got), expected);
            assert_eq!(got.values, sent.values, "number by number");
            let event = &ask.history_of(&name).await[0];
            assert_eq!(values_of(event), expected);
        }
        // -0 is 0.
        let zero = [("z".to_owned(), (-0.0).into())].into();
        let message = pb::Entity {
            values: Some(Struct::from_object(&zero)),
            ..entity("d/t/zero", "{}")
        };
        ask.entities().set(ask.request(message)).await.unwrap();
        let got = ask.get("d/t/zero").await.unwrap().into_inner();
        assert_eq!(values(&got), r#"{"z":0}"#);
    })
    .await;
}

#[tokio::test]
async fn the_version_of_an_input_is_ignored() {
    in_every_form(async |ask| {
        let message = |version| pb::Entity {
            version,
            ..entity("d/t/k", r#"{"a":1}"#)
        };
        let set = ask.entities().set(ask.request(message(99))).await.unwrap();
        assert_eq!(etag(&set), Some(1));
        let edited = ask.entities().edit(ask.request(message(-7))).await.unwrap();
        assert_eq!((etag(&edited), edited.get_ref().version), (Some(2), 0));
        // It is dropped before the digest: the same request with another version is the same.
        let keyed = ask.with("idempotency-key", "one");
        let first = keyed
            .entities()
            .set(keyed.request(message(1)))
            .await
            .unwrap();
        let again = keyed
            .entities()
            .set(keyed.request(message(2)))
            .await
            .unwrap();
        assert_eq!(token(&first), token(&again));
        assert!(again.metadata().get("stategate-replayed").is_some());
        // What a Get answers can be sent back as it is.
        let got = ask.get("d/t/k").await.unwrap().into_inner();
        assert_eq!(got.version, 3);
        ask.entities().set(ask.request(got)).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn values_have_a_size_after_any_write() {
    in_every_form(async |ask| {
        let text = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8));
        let limit = 1 << 20;
        ask.set("d/t/k", &text(limit)).await.unwrap();
        let over = ask.set("d/t/k", &text(limit + 1)).await;
        invalid_for(over, "REQUEST_TOO_LARGE", "values");
        // An edit that is small, on what is not.
        let over = ask.edit("d/t/k", r#"{"b":1}"#).await;
        invalid_for(over, "REQUEST_TOO_LARGE", "values");
        let got = ask.get("d/t/k").await.unwrap();
        assert_eq!((etag(&got), values(got.get_ref()).len()), (Some(1), limit));
        // As canonical JSON: each of these is six bytes there, and one on the wire.
        let escapes = format!(r#"{{"a":"{}"}}"#, "\\u0001".repeat(limit / 6));
        invalid_for(
            ask.set("d/t/e", &escapes).await,
            "REQUEST_TOO_LARGE",
            "values",
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_written_can_be_answered_in_one_message() {
    in_every_form(async |ask| {
        // Two bytes a number as JSON, eleven on the wire; the client takes 4 MiB, as clients do.
        let numbers = |field: &str, count: usize| {
            let numbers = "1,".repeat(count - 1);
            format!(r#"{{"{field}":[{numbers}1]}}"#)
        };
        let name = "d/t/k";
        let over = ask.set(name, &numbers("a", 378_000)).await;
        invalid_for(over, "REQUEST_TOO_LARGE", "values");
        ask.set(name, &numbers("a", 350_000)).await.unwrap();
        // Neither is large as JSON, nor is the edit; together they would not fit.
        let over = ask.edit(name, &numbers("b", 100_000)).await;
        invalid_for(over, "REQUEST_TOO_LARGE", "values");
        let got = ask.get(name).await.unwrap();
        assert_eq!(etag(&got), Some(1));
        ask.del(name).await.unwrap();
        let start = pb::stream_opts::Start::FromBeginning(true);
        let all = stategate_tests::clients::everything(Some(start));
        let events = ask.stream(all).await.unwrap().take(2).await;
        assert_eq!(values_of(&events[1]), values(got.get_ref()));
    })
    .await;
}

#[tokio::test]
async fn a_write_says_where_it_is() {
    in_every_form(async |ask| {
        let mut last = None;
        for n in 1..=5 {
            let answer = ask.set("d/t/k", &format!(r#"{{"n":{n}}}"#)).await.unwrap();
            let token = token(&answer);
            assert_eq!(token.iter().count(), 1, "the lane of its domain alone");
            let (lane, position) = token.iter().next().unwrap();
            if let Some((log_id, before, at)) = last {
                assert_eq!((token.log_id, lane), (log_id, before));
                assert_eq!(position.get(), at + 1, "without a hole");
            }
            last = Some((token.log_id, lane, position.get()));
            let event = ask.history_of("d/t/k").await.pop().unwrap();
            assert_eq!(
                (event.lane, event.position),
                (i32::from(lane.0), position.as_i64())
            );
            assert!(answer.metadata().get("stategate-replayed").is_none());
        }
    })
    .await;
}
