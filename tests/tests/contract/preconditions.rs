//! `if-match` and `if-none-match` (contract §3).

use stategate_tests::{
    Ask,
    ask::{etag, invalid, refused, values},
};
use tonic::Code;

use crate::in_every_form;

/// Fails unless a write was refused because the entity is at `current` (0: absent).
#[track_caller]
fn mismatch<T: std::fmt::Debug>(answer: Result<T, tonic::Status>, current: u64) {
    let (_, info) = refused(answer, Code::Aborted, "VERSION_MISMATCH");
    assert_eq!(info.metadata["current_version"], current.to_string());
}

fn if_match(ask: &Ask, tags: &str) -> Ask {
    ask.with("if-match", tags)
}

#[tokio::test]
async fn if_match_asks_for_versions() {
    in_every_form(async |ask| {
        let name = "d/t/k";
        ask.set(name, r#"{"n":1}"#).await.unwrap();
        let first = ask.history_of(name).await[0].id.clone();

        let set = if_match(&ask, "\"1\"")
            .set(name, r#"{"n":2}"#)
            .await
            .unwrap();
        assert_eq!(etag(&set), Some(2));
        // What a Get's etag says is what a write may ask for.
        let got = ask.get(name).await.unwrap();
        let tag = got.metadata().get("etag").unwrap().to_str().unwrap();
        let edited = if_match(&ask, tag).edit(name, r#"{"m":1}"#).await.unwrap();
        assert_eq!(etag(&edited), Some(3));

        for stale in [
            "\"1\"",
            "\"2\"",
            "\"4\"",
            "\"1\", \"2\"",
            "\"9223372036854775807\"",
        ] {
            let stale = if_match(&ask, stale);
            mismatch(stale.set(name, "{}").await, 3);
            mismatch(stale.edit(name, "{}").await, 3);
            mismatch(stale.revert(name, &first).await, 3);
            mismatch(stale.del(name).await, 3);
        }
        assert_eq!(ask.history_of(name).await.len(), 3, "nothing was written");

        // A list: one of them is enough. It may be sent over several lines.
        if_match(&ask, "\"1\" , \"3\"")
            .revert(name, &first)
            .await
            .unwrap();
        let lines = if_match(&ask, "\"7\"").with("if-match", "\"4\"");
        lines.set(name, "{}").await.unwrap();
        if_match(&ask, "*").edit(name, r#"{"n":6}"#).await.unwrap();
        if_match(&ask, "\"6\"").del(name).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn preconditions_are_judged_before_absence() {
    in_every_form(async |ask| {
        let some = "1b4e28ba-2fa1-4d2b-883f-0016d3cca427";
        for (name, deleted) in [("d/t/never", false), ("d/t/deleted", true)] {
            if deleted {
                ask.set(name, "{}").await.unwrap();
                ask.del(name).await.unwrap();
            }
            // A deleted entity matches nothing, its last version included.
            for tags in ["*", "\"1\"", "\"2\""] {
                let asking = if_match(&ask, tags);
                mismatch(asking.set(name, "{}").await, 0);
                mismatch(asking.edit(name, "{}").await, 0);
                mismatch(asking.del(name).await, 0);
                mismatch(asking.revert(name, some).await, 0);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn if_none_match_asks_for_absence() {
    in_every_form(async |ask| {
        let name = "d/t/k";
        let new = ask.with("if-none-match", "*");
        new.set(name, r#"{"n":1}"#).await.unwrap();
        mismatch(new.set(name, r#"{"n":2}"#).await, 1);
        mismatch(new.edit(name, "{}").await, 1);
        mismatch(new.del(name).await, 1);
        let got = ask.get(name).await.unwrap();
        assert_eq!(values(got.get_ref()), r#"{"n":1}"#);
        ask.del(name).await.unwrap();
        let again = new.set(name, r#"{"n":3}"#).await.unwrap();
        assert_eq!(etag(&again), Some(3));
        // It holds, and then the entity is absent.
        ask.del(name).await.unwrap();
        refused(
            new.edit(name, "{}").await,
            Code::NotFound,
            "ENTITY_NOT_FOUND",
        );
    })
    .await;
}

#[tokio::test]
async fn one_of_many_wins() {
    in_every_form(async |ask| {
        let mut won = 0;
        for version in 0..20 {
            let racing = (0..8).map(|_| {
                let ask = match version {
                    0 => ask.with("if-none-match", "*"),
                    _ => if_match(&ask, &format!("\"{version}\"")),
                };
                tokio::spawn(async move { ask.set("d/t/k", "{}").await })
            });
            for racer in racing.collect::<Vec<_>>() {
                match racer.await.unwrap() {
                    Ok(set) => {
                        won += 1;
                        assert_eq!(etag(&set), Some(version + 1));
                    }
                    Err(status) => mismatch(Err::<(), _>(status), version + 1),
                }
            }
        }
        assert_eq!(won, 20, "each version was written once");
        assert_eq!(ask.history_of("d/t/k").await.len(), 20);
    })
    .await;
}

#[tokio::test]
async fn malformed_preconditions_are_refused_on_every_write() {
    in_every_form(async |ask| {
        let name = "d/t/k";
        ask.set(name, "{}").await.unwrap();
        let id = ask.history_of(name).await[0].id.clone();
        let mut refusals = 0;
        for (header, value) in [
            ("if-match", ""),
            ("if-match", "1"),
            ("if-match", "\"\""),
            ("if-match", "\"01\""),
            ("if-match", "\"0\""),
            ("if-match", "\"-1\""),
            ("if-match", "\"1.0\""),
            ("if-match", "W/\"1\""),
            ("if-match", "\"1\","),
            ("if-match", ",\"1\""),
            ("if-match", "\"1\" \"2\""),
            ("if-match", "*, \"1\""),
            ("if-match", "\"9223372036854775808\""),
            ("if-match", "é"),
            ("if-none-match", ""),
            ("if-none-match", "\"1\""),
            ("if-none-match", "**"),
            ("if-none-match", "é"),
        ] {
            let bad = ask.with(header, value);
            invalid(bad.set(name, "{}").await, header);
            invalid(bad.edit(name, "{}").await, header);
            invalid(bad.del(name).await, header);
            invalid(bad.revert(name, &id).await, header);
            refusals += 4;
        }
        let both = ask.with("if-none-match", "*").with("if-match", "*");
        invalid(both.set(name, "{}").await, "if-none-match");
        let many = vec!["\"1\""; 101].join(",");
        invalid(ask.with("if-match", many).set(name, "{}").await, "if-match");
        // Transact's operations carry their own.
        for header in ["if-match", "if-none-match"] {
            let bad = ask.with(header, "*");
            invalid(bad.transact("d", Vec::new()).await, header);
        }
        assert_eq!(ask.history_of(name).await.len(), 1);
        println!("{refusals} malformed preconditions");
    })
    .await;
}
