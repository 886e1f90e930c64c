//! Stream services under attack, three command, two query and two stream services over PostgreSQL and
//! NATS: behind a channel that keeps its contract as badly as it may, and killed one after the other.
//! Every event once and in order for everybody all the same (invariants I5 and I6).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test is made of may fail it too"
)]

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
    time::Duration,
};

use futures::future::join_all;
use serde_json::{Value, json};
use stategate_model::Lane;
use stategate_servers::{Broker as _, Nats};
use stategate_tests::{
    Crowd, Cut, Process, Role, Witness, alone,
    crowd::{STREAMS, SUBSCRIBERS, load},
    postgres, scale,
    witness::{Delays, paced, percentile},
};
use tokio::sync::Mutex;

/// How long a subscriber stays before it leaves and comes back, commonly to another process.
const STAY: Range<Duration> = Duration::from_millis(300)..Duration::from_millis(900);
/// As long as a subscriber stays where hardly anything but a kill is to move it.
const LONG_STAY: Range<Duration> = Duration::from_secs(4)..Duration::from_secs(8);

fn nats(what: &str) -> Option<(Nats, Value)> {
    match Nats::start() {
        Ok(server) => {
            let channel = json!({"name": "nats", "addr": server.url()});
            Some((server, channel))
        }
        Err(missing) => {
            missing.report(what);
            None
        }
    }
}

/// What a process was troubled with: how often by kind, and the events that it was never told of.
fn troubles(process: &Process) -> (BTreeMap<String, usize>, HashSet<(Lane, u64)>) {
    let (mut kinds, mut lost) = (BTreeMap::<String, usize>::new(), HashSet::new());
    for line in process.said("trouble ") {
        let parts: Vec<&str> = line.split(' ').collect();
        let [kind, lane, first, last] = parts[..] else {
            panic!("{line:?}");
        };
        *kinds.entry(kind.to_owned()).or_default() += 1;
        if kind == "lost" {
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            lost.extend((first..=last).map(|at| (Lane(lane.parse().unwrap()), at)));
        }
    }
    (kinds, lost)
}

/// The delays of events that a stream service was not told of, and of the others.
fn split(delays: &Delays, lost: &HashSet<(Lane, u64)>) -> [Vec<Duration>; 2] {
    let of = |is_lost: bool| {
        let delays = delays.iter();
        let of = delays.filter(|(place, _)| lost.contains(place) == is_lost);
        of.map(|(_, delay)| *delay).collect()
    };
    [of(true), of(false)]
}

fn print(how: &str, [lost, told]: &[Vec<Duration>; 2]) {
    let [l50, l99] = [50, 99].map(|percent| percentile(lost.iter().copied(), percent));
    let [t50, t99] = [50, 99].map(|percent| percentile(told.iter().copied(), percent));
    println!(
        "{how}: decided to delivered {l50:.1?} p50, {l99:.1?} p99 for {} events whose message was lost, \
         {t50:.1?} and {t99:.1?} for {} others",
        lost.len(),
        told.len(),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lossy_channel_costs_time_alone() {
    let _alone = alone().await;
    let what = "a lossy channel";
    let (Some((_nats, channel)), Some(store)) = (nats(what), postgres(what)) else {
        return;
    };
    let lossy = [("STATEGATE_TEST_CHANNEL", "lossy")];
    let mut crowd = Crowd::start(store, &channel, &lossy).await;
    let mut writes = Vec::new();
    // The first stream service alone is asked here.
    let clients = crowd.clients_by_stream();
    let slow = paced(&clients[0], &mut writes, scale(16, 300)).await;
    let slow = split(&slow, &troubles(crowd.processes(Role::Stream)[0]).1);
    print("one write at a time", &slow);

    let witnesses = join_all(clients.iter().map(Witness::start)).await;
    let (before, told) = (writes.len(), crowd.told().await);
    let crowd = Mutex::new(crowd);
    let loaded = load(&crowd, &mut writes, STAY, Cut::Fails, async |writers| {
        writers.reach(scale(3_000, 60_000)).await;
    })
    .await;
    let mut crowd = crowd.into_inner();
    let told = crowd.told().await.since(told);
    println!(
        "{} writes, {} events delivered to {SUBSCRIBERS} subscribers that came back {} times, {:.1?}; {STREAMS} stream services \
         took {} events from the channel and {} from the log, {} holes, {} strays",
        writes.len() - before,
        loaded.delivered,
        loaded.reconnects,
        loaded.took,
        told.believed,
        told.read,
        told.holes,
        told.strays,
    );
    for (process, witness) in crowd.processes(Role::Stream).iter().zip(witnesses) {
        let delays = witness.finish(&loaded.log, before).await;
        let (kinds, lost) = troubles(process);
        let delays = split(&delays, &lost);
        println!("troubles: {kinds:?}");
        print("all at once", &delays);
        let kinds_at_least = |least: usize| kinds.values().all(|count| *count >= least);
        assert!(
            kinds.len() == 7 && kinds_at_least(scale(20, 400)),
            "too little trouble; were the services built with faults?"
        );
        assert!(delays[0].len() >= scale(500, 10_000), "hardly any was lost");
    }
    assert!(told.believed > 0.0 && told.strays > 0.0, "{told:?}");
    assert!(loaded.reconnects >= SUBSCRIBERS, "hardly anybody came back");
    crowd.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_cut_off_goes_on_at_another_service() {
    let _alone = alone().await;
    let what = "stream services killed";
    let (Some((_nats, channel)), Some(store)) = (nats(what), postgres(what)) else {
        return;
    };
    let crowd = Mutex::new(Crowd::start(store, &channel, &[]).await);
    let kills = scale(6, 60);
    let mut writes = Vec::new();
    let loaded = load(
        &crowd,
        &mut writes,
        LONG_STAY,
        Cut::ComesBack,
        async |writers| {
            for kill in 0..kills {
                writers.reach(writers.acknowledged() + 300).await;
                crowd.lock().await.kill_stream(kill % STREAMS).await;
            }
            writers.reach(writers.acknowledged() + 300).await;
        },
    )
    .await;
    println!(
        "{kills} kills of stream services: {} writes, {} events delivered to {SUBSCRIBERS} subscribers that were cut off {} times, \
         {:.1?}",
        writes.len(),
        loaded.delivered,
        loaded.cuts,
        loaded.took,
    );
    // Half of them sit on each, more or less.
    assert!(
        loaded.cuts >= kills * SUBSCRIBERS / 8,
        "hardly anybody was cut off"
    );
    crowd.lock().await.assert_no_errors();
}
