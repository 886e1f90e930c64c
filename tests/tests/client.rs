//! The Rust client against real gateways: no increment is lost, no retry writes twice, streams go on
//! where they were.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, with a message"
)]

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use rand::Rng as _;
use stategate_client::{
    At, Client, Condition, EntityRef, ErrorKind, Retry, Start, Subscription, Timestamp,
    Transaction, Value, json,
};
use stategate_protocol::{headers, pb};
use stategate_tests::{Form, Gateway, Log, Options, Proxy, Role, alone, scale};
use tokio::time::sleep;
use tonic::{Code, Request};
use uuid::Uuid;

fn entity(key: &str) -> EntityRef {
    EntityRef::new("acme", "thing", key).unwrap()
}

/// A client of a gateway, whatever its form.
fn client(gateway: &mut Gateway) -> Client {
    let [command, query, stream] = [Role::Command, Role::Query, Role::Stream]
        .map(|role| format!("http://{}", gateway.process(role).grpc()));
    Client::builder(command.clone())
        .services(command, query, stream)
        .deadline(Duration::from_secs(60))
        .build()
        .unwrap()
}

async fn increments(form: Form) {
    let _turn = alone().await;
    let mut gateway = Gateway::start(Options::new(form)).await;
    let (clients, each) = (64, scale(150, 1_000));
    let begun = Instant::now();
    let counters: Vec<Client> = (0..clients).map(|_| client(&mut gateway)).collect();
    let tries = Arc::new(AtomicU64::new(0));
    let working = counters.into_iter().map(|client| {
        let tries = Arc::clone(&tries);
        tokio::spawn(async move {
            let counter = entity("counter");
            let mut longest = Duration::ZERO;
            for _ in 0..each {
                let begun = Instant::now();
                let written = client.update(&counter, |values| {
                    tries.fetch_add(1, Ordering::Relaxed);
                    values["n"] = json!(values["n"].as_i64().unwrap_or(0) + 1);
                });
                written.await.unwrap();
                longest = longest.max(begun.elapsed());
            }
            longest
        })
    });
    let longest = join_all(working.collect::<Vec<_>>()).await;
    let longest = longest.into_iter().map(Result::unwrap).max();
    let took = begun.elapsed();
    let found = client(&mut gateway).get(&entity("counter")).await.unwrap();
    println!(
        "{form}: {clients} clients made {each} increments each in {took:.1?}: {:.2} tries an increment, \
         the longest took {:.1?}",
        tries.load(Ordering::Relaxed) as f64 / (clients * each) as f64,
        longest.unwrap()
    );
    assert_eq!(
        found.values,
        json!({ "n": clients * each }),
        "increments were lost"
    );
    assert_eq!(found.version.get(), clients * each);
    gateway.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_increment_is_lost_in_one_process() {
    increments(Form::One).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_increment_is_lost_in_three_processes() {
    increments(Form::Three).await;
}

/// Every call is sent twice with one key, one copy late; the gateway is killed in between; everything
/// is sent once more until it is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_retries_is_one_event_a_key() {
    let _turn = alone().await;
    let (kills, callers, calls) = (scale(6, 40), 16, scale(30, 60));
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let proxy = Proxy::start(gateway.writer().grpc()).await;
    let answered = Arc::new(AtomicUsize::new(0));
    let lost = Arc::new(AtomicUsize::new(0));
    let mut keys: Vec<(String, u64)> = Vec::new();
    for round in 0..kills {
        let url = proxy.url();
        let work: Vec<_> = (0..callers)
            .map(|caller| {
                let (url, answered, lost) = (url.clone(), Arc::clone(&answered), Arc::clone(&lost));
                tokio::spawn(async move {
                    let channel = tonic::transport::Endpoint::from_shared(url)
                        .unwrap()
                        .connect_lazy();
                    let entities = pb::entity_service_client::EntityServiceClient::new(channel);
                    let mut versions = Vec::new();
                    for call in 0..calls {
                        let key = format!("{round}-{caller}-{call}");
                        let send = |delay| {
                            let (mut entities, key) = (entities.clone(), key.clone());
                            async move {
                                sleep(delay).await;
                                entities.set(request(&key, caller)).await
                            }
                        };
                        let late = Duration::from_micros(rand::rng().random_range(0..5_000));
                        let (one, two) = tokio::join!(send(Duration::ZERO), send(late));
                        let mut version = None;
                        for answer in [one, two] {
                            match answer {
                                Ok(answer) => {
                                    let told = etag(&answer);
                                    assert_eq!(
                                        *version.get_or_insert(told),
                                        told,
                                        "{key}: two answers differ"
                                    );
                                }
                                Err(status) => {
                                    assert!(may_pass(&status), "{key}: {status:?}");
                                    lost.fetch_add(1, Ordering::Relaxed);
                                }
                            }
                        }
                        // Once more, until it is answered.
                        let told = loop {
                            match send(Duration::ZERO).await {
                                Ok(answer) => break etag(&answer),
                                Err(status) => {
                                    assert!(may_pass(&status), "{key}: {status:?}");
                                    sleep(Duration::from_millis(5)).await;
                                }
                            }
                        };
                        assert_eq!(
                            *version.get_or_insert(told),
                            told,
                            "{key}: the retry was told something else"
                        );
                        answered.fetch_add(1, Ordering::Relaxed);
                        versions.push((key, told));
                    }
                    versions
                })
            })
            .collect();
        // In the middle of the round's work.
        let half = (round * callers * calls) + callers * calls / 2;
        while answered.load(Ordering::Relaxed) < half {
            tokio::task::yield_now().await;
        }
        gateway.writer().kill().await;
        gateway.restart(Role::Command, &[]).await;
        proxy.point_at(gateway.writer().grpc());
        for done in join_all(work).await {
            keys.extend(done.unwrap());
        }
    }
    let log = Log::read(&gateway.clients()).await;
    let mut events: HashMap<String, Vec<u64>> = HashMap::new();
    for event in log.events() {
        let stategate_model::Value::String(marker) = &event.values["marker"] else {
            panic!("an event without a marker");
        };
        events
            .entry(marker.clone())
            .or_default()
            .push(event.version);
    }
    println!(
        "{kills} kills; {} keys sent three times and more, {} copies unanswered; {} events",
        keys.len(),
        lost.load(Ordering::Relaxed),
        log.len()
    );
    assert!(
        lost.load(Ordering::Relaxed) >= kills,
        "no copy was lost; the kills missed"
    );
    assert_eq!(keys.len(), kills * callers * calls);
    assert_eq!(
        log.len(),
        keys.len(),
        "a key made no event, or more than one"
    );
    for (key, version) in keys {
        assert_eq!(
            events.get(&key).map(Vec::as_slice),
            Some([version].as_slice()),
            "{key}"
        );
    }
}

fn request(marker: &str, caller: usize) -> Request<pb::Entity> {
    let object =
        stategate_model::json::parse_object(&json!({ "marker": marker }).to_string()).unwrap();
    let mut request = Request::new(pb::Entity {
        domain: "acme".to_owned(),
        r#type: "thing".to_owned(),
        key: format!("shared-{}", caller % 4),
        values: Some(stategate_protocol::Struct::from_object(&object)),
        version: 0,
    });
    request.set_timeout(Duration::from_secs(20));
    request
        .metadata_mut()
        .insert(headers::IDEMPOTENCY_KEY, marker.parse().unwrap());
    request
}

fn etag(answer: &tonic::Response<()>) -> u64 {
    let tag = answer
        .metadata()
        .get(headers::ETAG)
        .unwrap()
        .to_str()
        .unwrap();
    tag.trim_matches('"').parse().unwrap()
}

fn may_pass(status: &tonic::Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_rides_out_a_restart() {
    let _turn = alone().await;
    let mut gateway = Gateway::start(Options::new(Form::One).lanes(8)).await;
    let proxy = Proxy::start(gateway.writer().grpc()).await;
    let retry = Retry {
        longest: Duration::from_millis(200),
        tries: 1_000,
        ..Retry::default()
    };
    let client = Client::builder(proxy.url())
        .deadline(Duration::from_secs(60))
        .retry(retry)
        .build()
        .unwrap();
    let mut changes = client.subscribe(Subscription::new("*", "*")).await.unwrap();

    let (restarts, each) = (scale(4, 20), 50);
    let writes = tokio::spawn({
        let client = client.clone();
        async move {
            for n in 0..restarts * each {
                let entity = EntityRef::new(&format!("domain-{}", n % 5), "thing", "k").unwrap();
                client.set(&entity, json!({ "n": n })).await.unwrap();
            }
        }
    });
    let mut seen = Vec::new();
    let mut restarted = 0;
    while seen.len() < restarts * each {
        seen.push(changes.next().await.unwrap().values.object().unwrap()["n"].clone());
        if seen.len() % each == each / 2 && restarted * each < seen.len() {
            restarted += 1;
            gateway.writer().kill().await;
            gateway.restart(Role::Command, &[]).await;
            proxy.point_at(gateway.writer().grpc());
        } else if seen.len() % each == each - 1 {
            proxy.cut();
        }
    }
    writes.await.unwrap();
    println!(
        "{restarted} restarts: {} writes and {} events",
        restarts * each,
        seen.len()
    );
    let mut numbers: Vec<f64> = seen
        .iter()
        .map(|value| match value {
            stategate_model::Value::Number(n) => *n,
            other => panic!("{other:?}"),
        })
        .collect();
    numbers.sort_by(f64::total_cmp);
    assert_eq!(
        numbers,
        (0..restarts * each).map(|n| n as f64).collect::<Vec<_>>(),
        "each write is one event, seen once"
    );
}

/// Connections are cut while writes are on them, so that answers are lost and the client tries again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_tried_again_is_not_written_twice() {
    let _turn = alone().await;
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let proxy = Proxy::start(gateway.writer().grpc()).await;
    let retry = Retry {
        first: Duration::from_millis(1),
        longest: Duration::from_millis(20),
        tries: 1_000,
    };
    let client = Client::builder(proxy.url())
        .deadline(Duration::from_secs(60))
        .retry(retry)
        .build()
        .unwrap();
    let (writers, least) = (16, scale(20, 500));
    let replayed = Arc::new(AtomicUsize::new(0));
    let written = Arc::new(AtomicUsize::new(0));
    let writing = (0..writers).map(|writer| {
        let (client, replayed) = (client.clone(), Arc::clone(&replayed));
        let written = Arc::clone(&written);
        tokio::spawn(async move {
            // Until enough answers were lost to prove something.
            while replayed.load(Ordering::Relaxed) < least {
                let key = entity(&format!("k{writer}"));
                let done = client.set(&key, json!({})).await.unwrap();
                written.fetch_add(1, Ordering::Relaxed);
                replayed.fetch_add(usize::from(done.replayed), Ordering::Relaxed);
            }
        })
    });
    let writing = writing.collect::<Vec<_>>();
    let mut cuts = 0;
    while replayed.load(Ordering::Relaxed) < least {
        let next = written.load(Ordering::Relaxed) + 2 * writers;
        while written.load(Ordering::Relaxed) < next && replayed.load(Ordering::Relaxed) < least {
            tokio::task::yield_now().await;
        }
        proxy.cut();
        cuts += 1;
        assert!(
            cuts < 1_000,
            "no answer is lost, or no retry is known as one"
        );
    }
    for done in join_all(writing).await {
        done.unwrap();
    }
    let log = Log::read(&gateway.clients()).await;
    let (written, replayed) = (
        written.load(Ordering::Relaxed),
        replayed.load(Ordering::Relaxed),
    );
    println!("{cuts} cuts: {written} writes, {replayed} of them answered a second time");
    assert_eq!(log.len(), written, "a write was made twice, or not at all");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_see_what_was_written_before() {
    let _turn = alone().await;
    let mut gateway = Gateway::start(Options::new(Form::Three)).await;
    let writer = client(&mut gateway);
    let reader = client(&mut gateway);
    for n in 0..200 {
        let written = writer.set(&entity("a"), json!({ "n": n })).await.unwrap();
        reader.observe(&written.token);
        assert_eq!(reader.get(&entity("a")).await.unwrap().values["n"], n);
        assert_eq!(reader.position(), Some(written.token));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_and_time_travel() {
    let _turn = alone().await;
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let client = client(&mut gateway);
    let a = entity("a");
    let mismatch = |error: stategate_client::Error| match error.kind() {
        ErrorKind::VersionMismatch { current } => current.map(|version| version.get()),
        other => panic!("{other:?}"),
    };

    assert_eq!(
        mismatch(
            client
                .set_if(Condition::Exists, &a, json!({}))
                .await
                .unwrap_err()
        ),
        None
    );
    let one = client
        .set_if(Condition::Absent, &a, json!({ "n": 1 }))
        .await
        .unwrap();
    assert_eq!(
        mismatch(
            client
                .set_if(Condition::Absent, &a, json!({}))
                .await
                .unwrap_err()
        ),
        Some(1)
    );
    client
        .edit_if(Condition::Version(one.version), &a, json!({ "m": 2 }))
        .await
        .unwrap();
    assert_eq!(
        mismatch(
            client
                .del_if(Condition::Version(one.version), &a)
                .await
                .unwrap_err()
        ),
        Some(2)
    );
    client.del(&a).await.unwrap();
    let deleted = client
        .event_of_version(&a, stategate_client::Version::new(3))
        .await
        .unwrap();

    // Deleted by then: the refusal says when, whichever way the point was named.
    for at in [
        At::Version(deleted.version),
        At::Time(Timestamp(deleted.time.0 + 1)),
    ] {
        let then = client.get_at(&a, at).await.unwrap_err();
        assert!(then.is_not_found());
        let when = format!("at time {} (version 3)", deleted.time.0);
        assert!(then.to_string().contains(&when), "{then}");
    }
    assert!(
        client
            .get_at(&a, At::Time(Timestamp(1)))
            .await
            .unwrap_err()
            .is_not_found()
    );

    let back = client
        .revert_to(&a, At::Version(one.version))
        .await
        .unwrap();
    assert_eq!((back.values, back.version.get()), (json!({ "n": 1 }), 4));
    let back = client
        .revert_to(&a, At::Time(Timestamp(deleted.time.0 - 1)))
        .await
        .unwrap();
    assert_eq!(
        (back.values, back.version.get()),
        (json!({ "n": 1, "m": 2 }), 5)
    );

    let invalid = client.set(&a, json!([1])).await.unwrap_err();
    assert!(
        matches!(invalid.kind(), ErrorKind::Invalid(fields) if fields[0].0 == "values"),
        "{invalid:?}"
    );
}

/// A thousand operations are one append, and seen whole or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_a_thousand_is_one_append() {
    let _turn = alone().await;
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let client = client(&mut gateway);
    let keys: Vec<EntityRef> = (0..1_000).map(|n| entity(&format!("k{n:03}"))).collect();
    for round in 0..3 {
        let before = appends(gateway.writer()).await;
        let mut transaction = Transaction::new("acme");
        for key in &keys {
            transaction = transaction.set(key, json!({ "round": round })).unwrap();
        }
        let done = client.transact(transaction).await.unwrap();
        assert_eq!(done.events.len(), 1_000);
        let first = done.events[0].position.get();
        assert!(
            done.events
                .iter()
                .zip(first..)
                .all(|(event, position)| event.position.get() == position)
        );
        assert_eq!(appends(gateway.writer()).await - before, 1.0);
    }
    // One bad operation, and nothing of it happens.
    let bad = Transaction::new("acme")
        .set(&keys[0], json!({ "round": "bad" }))
        .and_then(|transaction| transaction.del(&entity("absent")))
        .unwrap();
    let refused = client.transact(bad).await.unwrap_err();
    assert!(
        refused.is_not_found() && refused.to_string().contains("operation 1"),
        "{refused}"
    );
    assert_eq!(
        client.get(&keys[0]).await.unwrap().values,
        json!({ "round": 2 })
    );
}

async fn appends(process: &stategate_tests::Process) -> f64 {
    let metrics = process.http("/metrics").await.expect("metrics");
    let line = metrics
        .lines()
        .find(|line| line.starts_with("stategate_appends_total"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or(0.0)
}

/// A subscription through a proxy that keeps cutting it sees everything once.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cut_goes_on() {
    let _turn = alone().await;
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let proxy = Proxy::start(gateway.writer().grpc()).await;
    let direct = client(&mut gateway);
    let count = scale(2_000, 20_000);
    let mut changes = Client::connect(proxy.url())
        .unwrap()
        .subscribe(
            Subscription::new("acme", "*")
                .key("{a,b}*")
                .from(Start::Beginning),
        )
        .await
        .unwrap();
    let writes = tokio::spawn(async move {
        let pieces = (0..count).map(|n| {
            let direct = direct.clone();
            async move {
                direct
                    .set(&entity(&format!("a{}", n % 7)), json!({ "n": n }))
                    .await
                    .unwrap()
            }
        });
        let mut pieces: Vec<_> = pieces.collect();
        while !pieces.is_empty() {
            let rest = pieces.split_off(pieces.len().min(32));
            join_all(pieces).await;
            pieces = rest;
        }
    });
    let mut cuts = 0;
    for position in 1..=count {
        let event = changes.next().await.unwrap();
        assert_eq!(event.position.get(), position, "a gap or a repeat");
        if position % 97 == 0 {
            proxy.cut();
            cuts += 1;
        }
    }
    writes.await.unwrap();
    println!("{count} events over {} connections", cuts + 1);
    assert!(cuts >= 20);
}

/// A value that the gateway and `serde_json` agree on, whatever it is.
#[tokio::test(flavor = "multi_thread")]
async fn values_survive() {
    let _turn = alone().await;
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let client = client(&mut gateway);
    let values: Value =
        json!({ "": null, "a.b": [1, 2.5, {"$x": "\u{10ffff}"}], "_id": 1e300, "t": true });
    client
        .set(&entity(&Uuid::new_v4().to_string()), values.clone())
        .await
        .unwrap();
    let a = entity("a");
    client.set(&a, values.clone()).await.unwrap();
    let read = client.get(&a).await.unwrap();
    assert_eq!(read.values, values);
    #[derive(serde::Deserialize)]
    struct Typed {
        t: bool,
    }
    assert!(read.parse::<Typed>().unwrap().t);
}

/// The example of the documentation does what it says, and can do it again.
#[tokio::test(flavor = "multi_thread")]
async fn the_documented_example_runs() {
    let _turn = alone().await;
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let address = format!("http://{}", gateway.writer().grpc());
    for _ in 0..2 {
        let run =
            tokio::process::Command::new(stategate_tests::binaries::find("examples/quickstart"))
                .env("STATEGATE_ADDR", &address)
                .output()
                .await
                .unwrap();
        let told = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(
            run.status.success(),
            "{told}{}",
            String::from_utf8_lossy(&run.stderr)
        );
        assert_eq!(told.lines().count(), 8, "{told}");
    }
}
