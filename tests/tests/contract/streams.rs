//! Subscriptions: where they start, what they deliver (contract §6).

use std::time::{Duration, Instant};

use stategate_model::{Lane, Lanes, LogId, Position, Token};
use stategate_protocol::pb::{self, stream_opts::Start};
use stategate_tests::{
    Ask,
    ask::{invalid, refused, token},
    clients::everything,
};
use tonic::Code;

use crate::in_every_form;

/// Domains of every lane, of the lanes there are.
const DOMAINS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

fn of(domain: &str, start: Option<Start>) -> pb::StreamOpts {
    pb::StreamOpts {
        domain: domain.into(),
        start,
        ..everything(None)
    }
}

fn beginning() -> Option<Start> {
    Some(Start::FromBeginning(true))
}

fn after(token: &Token) -> Option<Start> {
    Some(Start::After(token.to_string()))
}

fn key(event: &pb::Event) -> String {
    let entity = event.entity.as_ref().unwrap();
    format!("{}/{}/{}", entity.domain, entity.r#type, entity.key)
}

async fn set(ask: &Ask, names: &[&str]) {
    for name in names {
        ask.set(name, "{}").await.unwrap();
    }
}

async fn fill(ask: &Ask) {
    for n in 0..3 {
        for domain in DOMAINS {
            set(ask, &[&format!("{domain}/t/k{n}")]).await;
        }
    }
}

fn lanes(token: &Token) -> Lanes {
    Lanes::new(u8::try_from(token.iter().count()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_live_stream_delivers_what_happens_from_now_on() {
    in_every_form(async |ask| {
        fill(&ask).await;
        let mut all = ask.stream(everything(None)).await.unwrap();
        let mut one = ask.stream(of("a", None)).await.unwrap();
        // The answer's headers are sent once the subscription is in force: nothing after is missed.
        set(&ask, &["b/t/new", "a/t/new"]).await;
        ask.edit("a/t/new", r#"{"x":1}"#).await.unwrap();
        ask.del("a/t/new").await.unwrap();
        let events = one.take(3).await;
        assert!(events.iter().all(|event| key(event) == "a/t/new"));
        let versions: Vec<i64> = events.iter().map(|event| event.version).collect();
        assert_eq!(versions, [1, 2, 3]);
        let mut names: Vec<String> = all.take(4).await.iter().map(key).collect();
        names.sort();
        assert_eq!(names, ["a/t/new", "a/t/new", "a/t/new", "b/t/new"]);
        // Every lane, whatever it is about.
        let count = one.start.iter().count();
        assert!(count == 1 || count == 8, "{}", one.start);
        assert_eq!(all.start.iter().count(), count);
        assert_eq!(all.start, one.start, "nothing happened between the two");
    })
    .await;
}

#[tokio::test]
async fn replay_and_live_are_one_stream() {
    in_every_form(async |ask| {
        fill(&ask).await;
        let mut stream = ask.stream(everything(beginning())).await.unwrap();
        assert!(
            stream
                .start
                .iter()
                .all(|(_, position)| position == Position::ZERO)
        );
        let writing = async {
            for n in 3..10 {
                for domain in DOMAINS {
                    set(&ask, &[&format!("{domain}/t/k{n}")]).await;
                }
            }
        };
        let (events, ()) = tokio::join!(stream.take(10 * DOMAINS.len()), writing);
        let mut next = std::collections::HashMap::<i32, i64>::new();
        for event in &events {
            let next = next.entry(event.lane).or_default();
            *next += 1;
            assert_eq!(event.position, *next, "in order, no gap, no repeat");
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_goes_on_after_a_token() {
    in_every_form(async |ask| {
        fill(&ask).await;
        let all = ask
            .stream(everything(beginning()))
            .await
            .unwrap()
            .take(36)
            .await;
        let head = ask.stream(everything(None)).await.unwrap().start;
        // After the token of a stream's start, moved on event by event.
        let mut at = Token::of_heads(
            head.log_id,
            &stategate_model::Heads::beginning(lanes(&head)),
        );
        for (n, event) in all.iter().enumerate() {
            let lane = Lane(u8::try_from(event.lane).unwrap());
            at.advance(lane, Position::from_i64(event.position).unwrap());
            if n % 7 == 0 {
                let mut stream = ask.stream(everything(after(&at))).await.unwrap();
                assert_eq!(stream.start, at);
                let rest = stream.take(all.len() - n - 1).await;
                let seen: std::collections::HashSet<_> =
                    all[..=n].iter().map(|event| &event.id).collect();
                assert!(rest.iter().all(|event| !seen.contains(&event.id)));
            }
        }
        assert_eq!(at, head);
        // After a write's token: a subscriber of that domain needs its lane alone.
        let written = token(&ask.set("a/t/x", "{}").await.unwrap());
        set(&ask, &["a/t/y"]).await;
        let mut stream = ask.stream(of("a", after(&written))).await.unwrap();
        assert_eq!(key(&stream.next().await), "a/t/y");
        // Position 0 is a lane's beginning.
        let (lane, _) = written.iter().next().unwrap();
        let zero = Token::of_lane(written.log_id, lane, Position::ZERO);
        let mut stream = ask.stream(of("a", after(&zero))).await.unwrap();
        assert_eq!(key(&stream.next().await), "a/t/k0");
    })
    .await;
}

#[tokio::test]
async fn a_stream_starts_at_a_time() {
    in_every_form(async |ask| {
        fill(&ask).await;
        let all = ask
            .stream(of("a", beginning()))
            .await
            .unwrap()
            .take(3)
            .await;
        for (time, first) in [
            (all[1].time, 1),
            (all[1].time + 1, 2),
            (all[0].time - 1, 0),
            (0, 0),
            (-1, 0),
            (i64::MIN, 0),
        ] {
            let mut stream = ask.stream(of("a", Some(Start::Since(time)))).await.unwrap();
            let rest = stream.take(3 - first).await;
            assert_eq!(rest, all[first..], "inclusive");
            // Then it is live.
            set(&ask, &["a/u/new"]).await;
            let mut filtered = stream.next().await;
            while key(&filtered) != "a/u/new" {
                filtered = stream.next().await;
            }
            ask.del("a/u/new").await.unwrap();
        }
        let mut stream = ask
            .stream(everything(Some(Start::Since(all[2].time))))
            .await
            .unwrap();
        let rest = stream.take(2).await;
        assert!(rest.iter().all(|event| event.time >= all[2].time));
    })
    .await;
}

#[tokio::test]
async fn a_stream_starts_at_a_time_to_come() {
    in_every_form(async |ask| {
        let mut live = ask.stream(of("a", None)).await.unwrap();
        set(&ask, &["a/t/now"]).await;
        let since = live.next().await.time + 200_000_000;
        let mut stream = ask
            .stream(of("a", Some(Start::Since(since))))
            .await
            .unwrap();
        let first = loop {
            set(&ask, &["a/t/now"]).await;
            let event = live.next().await;
            if event.time >= since {
                break event;
            }
        };
        assert_eq!(stream.next().await, first, "none before it");
    })
    .await;
}

#[tokio::test]
async fn tokens_that_lead_nowhere_are_refused() {
    in_every_form(async |ask| {
        fill(&ask).await;
        let head = ask.stream(everything(None)).await.unwrap().start;
        let lanes = lanes(&head);
        let ahead = |lane: Lane| {
            let mut ahead = head.clone();
            ahead.advance(lane, head.get(lane).unwrap().next());
            after(&ahead)
        };
        for lane in lanes.iter() {
            let answer = ask.stream(everything(ahead(lane))).await;
            refused(answer, Code::OutOfRange, "POSITION_AHEAD");
        }
        let answer = ask.stream(of("a", ahead(lanes.of("a")))).await;
        refused(answer, Code::OutOfRange, "POSITION_AHEAD");
        let text = head.to_string();
        let foreign = text.replace(&head.log_id.to_string(), &LogId::random().to_string());
        for opts in [
            everything(Some(Start::After(foreign.clone()))),
            of("a", Some(Start::After(foreign))),
        ] {
            refused(ask.stream(opts).await, Code::OutOfRange, "LOG_CHANGED");
        }

        // A lane that is not there is named, and so is one that is needed and missing.
        let unknown = format!("{text},{}:0", lanes.get());
        for opts in [
            everything(Some(Start::After(unknown.clone()))),
            of("a", Some(Start::After(unknown))),
        ] {
            let status = invalid(ask.stream(opts).await, "after");
            assert!(
                status.message().contains(&format!("lane {}", lanes.get())),
                "{status}"
            );
        }
        let missing = lanes.iter().map(|lane| {
            let others = head.iter().filter(|(other, _)| *other != lane);
            let others = others.map(|(lane, position)| format!("{lane}:{position}"));
            let others: Vec<_> = others.collect();
            (lane, format!("{}/{}", head.log_id, others.join(",")))
        });
        for (lane, token) in missing.filter(|_| lanes.get() > 1) {
            let start = Some(Start::After(token));
            let status = invalid(ask.stream(everything(start.clone())).await, "after");
            assert!(
                status.message().contains(&format!("lane {lane}")),
                "{status}"
            );
            // Of a name without wildcards just the lane of that name is needed.
            let exact = ask.stream(of("a", start)).await;
            assert_eq!(exact.is_err(), lane == lanes.of("a"));
            if exact.is_err() {
                invalid(exact, "after");
            }
        }
        for bad in [
            "",
            "x",
            "0:1",
            &format!("{}/", head.log_id),
            &format!("{text},0:1"),
            &format!("{text} "),
        ] {
            let start = Some(Start::After(bad.to_owned()));
            invalid(ask.stream(everything(start)).await, "after");
        }
        let start = Some(Start::FromBeginning(false));
        invalid(ask.stream(everything(start)).await, "from_beginning");
    })
    .await;
}

/// `stategate-min-position` (contract §5).
#[tokio::test]
async fn a_stream_waits_for_a_position() {
    in_every_form(async |ask| {
        fill(&ask).await;
        let header = "stategate-min-position";
        let mut head = ask.stream(everything(None)).await.unwrap().start;
        let lane = lanes(&head).of("a");
        let next = |head: &Token| {
            let mut next = head.clone();
            next.advance(lane, head.get(lane).unwrap().next());
            next
        };

        // It comes: the start is there, so that a live stream begins after it.
        for round in 0..10 {
            let patient = ask.with(header, next(&head).to_string());
            let name = format!("a/t/round-{round}");
            let (one, all, written) = tokio::join!(
                patient.stream(of("a", None)),
                patient.stream(everything(None)),
                ask.set(&name, "{}"),
            );
            let (mut one, all, written) = (one.unwrap(), all.unwrap(), token(&written.unwrap()));
            head.merge(&written);
            assert_eq!((&one.start, &all.start), (&head, &head));
            // A stream from elsewhere waits too, and starts where it was asked to.
            let name = format!("a/t/again-{round}");
            let patient = ask.with(header, next(&head).to_string());
            let (stream, written) =
                tokio::join!(patient.stream(of("a", after(&head))), ask.set(&name, "{}"),);
            let mut stream = stream.unwrap();
            assert_eq!(stream.start, head);
            head.merge(&token(&written.unwrap()));
            assert_eq!(key(&stream.next().await), name);
            assert_eq!(key(&one.next().await), name, "what it waited for is past");
        }
        // What is there is not waited for.
        let there = ask.with(header, head.to_string());
        assert_eq!(there.stream(everything(None)).await.unwrap().start, head);

        // Nothing comes: after 10 s the gateway says so.
        let begun = Instant::now();
        let lonely = ask.with(header, next(&head).to_string());
        let answer = lonely
            .stream(of("b", None))
            .await
            .map(|stream| stream.start);
        refused(answer, Code::OutOfRange, "POSITION_AHEAD");
        assert!(begun.elapsed() >= Duration::from_secs(9));

        let foreign = Token::of_lane(LogId::random(), Lane(0), Position::new(1)).to_string();
        let answer = ask.with(header, foreign).stream(everything(None)).await;
        refused(answer, Code::OutOfRange, "LOG_CHANGED");
        let unknown = format!("{}/{}:1", head.log_id, lanes(&head).get());
        for bad in ["", "x", &unknown] {
            invalid(ask.with(header, bad).stream(everything(None)).await, header);
        }
    })
    .await;
}

#[tokio::test]
async fn globs_select_domains_types_and_keys() {
    in_every_form(async |ask| {
        let names = [
            "acme/user/ada",
            "acme/user/alan",
            "acme/user/béa",
            "acme/group/ada",
            "acme-eu/user/ada",
            "acme-us/user/a*a",
            "acme-us/user/a,b",
            "Acme/user/ada",
        ];
        set(&ask, &names).await;
        for (domain, kind, keys, expected) in [
            ("acme", "user", "", vec![0, 1, 2]),
            ("acme", "user", "*", vec![0, 1, 2]),
            ("acme", "user", "a*", vec![0, 1]),
            ("acme", "user", "ada", vec![0]),
            ("acme", "*", "ada", vec![0, 3]),
            ("acme*", "user", "ada", vec![0, 4]),
            ("acme**", "**", "a?a", vec![0, 3, 4, 5]),
            ("?cme", "user", "ada", vec![0, 7]),
            ("[aA]cme", "user", "ada", vec![0, 7]),
            ("[!a]cme", "user", "", vec![7]),
            ("[^a]cme", "user", "", vec![7]),
            ("acme-{eu,us}", "user", "", vec![4, 5, 6]),
            ("*", "user", r"a\*a", vec![5]),
            ("*", "user", r"a{\,b,da}", vec![0, 4, 6, 7]),
            // Characters, not bytes.
            ("acme", "user", "b?a", vec![2]),
            ("acme", "user", "b??a", vec![]),
            // Names that no entity can have match nothing, and are no mistake.
            ("acme", "user", "x y", vec![]),
        ] {
            let opts = pb::StreamOpts {
                domain: domain.into(),
                r#type: kind.into(),
                key: keys.into(),
                start: beginning(),
                ..pb::StreamOpts::default()
            };
            let mut stream = ask.stream(opts).await.unwrap();
            let mut got: Vec<String> = stream.take(expected.len()).await.iter().map(key).collect();
            got.sort();
            let mut expected: Vec<&str> = expected.into_iter().map(|n| names[n]).collect();
            expected.sort_unstable();
            assert_eq!(got, expected, "{domain}/{kind}/{keys}");
        }
        let opts = |domain: &str, kind: &str, key: &str| pb::StreamOpts {
            domain: domain.into(),
            r#type: kind.into(),
            key: key.into(),
            ..pb::StreamOpts::default()
        };
        let wild = "*a".repeat(17);
        let long = "a".repeat(257);
        for bad in ["", "[", "[]", "[z-a]", "{a", "a\\", &wild, &long] {
            invalid(ask.stream(opts(bad, "*", "")).await, "domain");
            invalid(ask.stream(opts("*", bad, "")).await, "type");
            if !bad.is_empty() {
                invalid(ask.stream(opts("*", "*", bad)).await, "key");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn filters_and_methods_select_events() {
    in_every_form(async |ask| {
        ask.set("d/t/k", r#"{"n":1}"#).await.unwrap();
        ask.edit("d/t/k", r#"{"n":2}"#).await.unwrap();
        ask.del("d/t/k").await.unwrap();
        ask.set("d/t/k", r#"{"n":4}"#).await.unwrap();
        ask.set("d/t/j", r#"{"n":5}"#).await.unwrap();
        let all = ask
            .stream(everything(beginning()))
            .await
            .unwrap()
            .take(5)
            .await;
        let full = |name: &str| format!("/stategate.EntityService/{name}");
        let time = all[2].time;
        let at = format!(r#"{{"time":{time}}}"#);
        let beside = format!(r#"{{"time":{{"$in":["{}","{}"]}}}}"#, time - 1, time + 1);
        for (filter, methods, expected) in [
            ("", vec![], vec![1, 2, 3, 4, 5]),
            ("{}", vec!["Set"], vec![1, 4, 5]),
            ("", vec!["Edit", "Del"], vec![2, 3]),
            ("", vec!["Revert"], vec![]),
            (
                r#"{"entity.values.n":{"$gte":2}}"#,
                vec![],
                vec![2, 3, 4, 5],
            ),
            (r#"{"entity.values.n":{"$gte":2}}"#, vec!["Set"], vec![4, 5]),
            (r#"{"version":{"$gt":1}}"#, vec![], vec![2, 3, 4]),
            (r#"{"version":"4"}"#, vec![], vec![4]),
            (r#"{"position":{"$lte":2}}"#, vec![], vec![1, 2]),
            (&at, vec![], vec![3]),
            // Not through a double.
            (&beside, vec![], vec![]),
            (r#"{"entity.key":{"$in":[]}}"#, vec![], vec![]),
            (r#"{"version":{"$nin":[]}}"#, vec![], vec![1, 2, 3, 4, 5]),
            (
                r#"{"method":{"$ne":"/stategate.EntityService/Set"}}"#,
                vec![],
                vec![2, 3],
            ),
        ] {
            let opts = |start| pb::StreamOpts {
                query_string: filter.into(),
                methods: methods.iter().map(|name| full(name)).collect(),
                ..everything(start)
            };
            let mut stream = ask.stream(opts(beginning())).await.unwrap();
            let got = stream.take(expected.len()).await;
            let got: Vec<i64> = got.iter().map(|event| event.position).collect();
            assert_eq!(got, expected, "{filter} {methods:?}");
        }
        // Live too: of two changes just one is wanted, so it comes first.
        let opts = pb::StreamOpts {
            query_string: r#"{"entity.values.n":7}"#.into(),
            methods: vec![full("Edit")],
            ..everything(None)
        };
        let mut stream = ask.stream(opts).await.unwrap();
        ask.set("d/t/k", r#"{"n":7}"#).await.unwrap();
        ask.edit("d/t/k", r#"{"n":6}"#).await.unwrap();
        ask.edit("d/t/k", r#"{"n":7}"#).await.unwrap();
        assert_eq!(stream.next().await.position, 8);

        let opts = |filter: &str, methods: &[&str]| pb::StreamOpts {
            query_string: filter.into(),
            methods: methods.iter().map(|name| (*name).to_owned()).collect(),
            ..everything(None)
        };
        let set = full("Set");
        for bad in [
            "",
            "Set",
            "/stategate.EntityService/Get",
            "stategate.EntityService/Set",
        ] {
            invalid(ask.stream(opts("", &[&set, bad])).await, "methods[1]");
        }
        invalid(ask.stream(opts("", &[&*set; 17])).await, "methods");
        invalid(ask.stream(opts("x", &[])).await, "query_string");
        invalid(
            ask.stream(opts(r#"{"version":1.5}"#, &[])).await,
            "query_string",
        );
        invalid(
            ask.stream(opts(r#"{"nothing":1}"#, &[])).await,
            "query_string",
        );
    })
    .await;
}

#[tokio::test]
async fn durable_consumers_are_refused_by_name() {
    in_every_form(async |ask| {
        let opts = pb::StreamOpts {
            consumer_group: "workers".into(),
            ..everything(None)
        };
        let (status, _) = refused(ask.stream(opts).await, Code::Unimplemented, "UNSUPPORTED");
        assert!(status.message().contains("consumer_group"), "{status}");
    })
    .await;
}

#[tokio::test]
async fn a_subscriber_that_matches_little_still_advances() {
    in_every_form(async |ask| {
        let opts = pb::StreamOpts {
            key: "nothing".into(),
            progress: true,
            ..of("a", None)
        };
        let mut quiet = ask.stream(opts.clone()).await.unwrap();
        let silent = pb::StreamOpts {
            progress: false,
            ..opts
        };
        let mut silent = ask.stream(silent).await.unwrap();
        let mut written = None;
        for n in 0..5 {
            written = Some(token(&ask.set(&format!("a/t/k{n}"), "{}").await.unwrap()));
        }
        let (lane, head) = written.unwrap().iter().next().unwrap();
        let begun = Instant::now();
        loop {
            let event = quiet.next().await;
            assert_eq!((&*event.id, &*event.method), ("", "stategate.Progress"));
            assert!(event.entity.is_none());
            assert!(
                begun.elapsed() < Duration::from_secs(15),
                "at least every 10 s"
            );
            if event.lane == i32::from(lane.0) && event.position == head.as_i64() {
                break;
            }
        }
        // Who did not ask is not told, and gets what is next.
        set(&ask, &["a/t/nothing"]).await;
        assert_eq!(key(&silent.next().await), "a/t/nothing");
    })
    .await;
}
