//! SIGSTOP of a command process in the middle of a batch: another goes on writing, and what the
//! stopped one was about ends well when it goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test is made of may fail it too"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use stategate_tests::{
    Clients, Form, Gateway, Log, Mix, Options, Outcome, Process, Role, Store, Tail, Write, Writers,
    alone,
    check::{self, Due},
    postgres, scale,
    workload::Recent,
};

/// Within this the other process must write.
const GOES_ON: Duration = Duration::from_secs(3);
const WRITERS: usize = 16;

/// What became of the writes that were under way when their process was stopped.
#[derive(Default)]
struct Held {
    acknowledged: usize,
    refused: usize,
}

async fn stopped_at(step: &str, stops: usize, store: Store) {
    let begun = Instant::now();
    let shown = store.to_string();
    let gateway = Gateway::start(Options::new(Form::Three).store(store)).await;
    let recent = Arc::<Recent>::default();
    let tail = Tail::start(&gateway.clients(), &recent).await;
    // The stop falls within the pause: long enough to send a signal in, at least.
    let pause = format!("{step}:25:1500");
    let stopping = gateway
        .spawn(Role::Command, &[("STATEGATE_TEST_PAUSE", pause)])
        .await;

    let mix = Mix::one_domain();
    let mut writes: Vec<Write> = Vec::new();
    let mut held = Held::default();
    let (mut slowest, mut meanwhile, mut moved) = (Duration::ZERO, 0, 0.0);
    for stop in 0..stops {
        let seed = 2 * stop as u64;
        let through_stopping = || Clients {
            commands: clients_of(&stopping).commands,
            ..gateway.clients()
        };
        let from = stopping.written();
        let theirs = Writers::start(through_stopping, WRITERS / 2, &mix, &recent, seed);
        stopping
            .line(from, "paused", |line| line.starts_with("pause "))
            .await;
        stopping.stop();
        let since = Instant::now();

        // The writers of the other process begin now; the same entities are theirs too.
        let ours = Writers::start(|| gateway.clients(), WRITERS, &mix, &recent, seed + 1);
        ours.reach(1).await;
        let waited = since.elapsed();
        slowest = slowest.max(waited);
        assert!(waited < GOES_ON, "the other process wrote after {waited:?}");
        ours.reach(200).await;
        meanwhile += ours.acknowledged();
        let going_on = Instant::now();
        stopping.go_on();

        // The head has moved: what was decided is decided again, on what is there by now.
        let theirs = theirs.finish().await;
        let refused = held.refused;
        for write in &theirs {
            if write.begun > going_on || write.ended < going_on {
                continue;
            }
            match &write.outcome {
                Outcome::Acknowledged { .. } => held.acknowledged += 1,
                Outcome::Refused(reason) => {
                    let expected = ["VERSION_MISMATCH", "ENTITY_NOT_FOUND"];
                    assert!(expected.contains(&reason.as_str()), "{write:?}");
                    held.refused += 1;
                }
                Outcome::Unknown(_) => panic!("{write:?}"),
            }
        }
        writes.extend(theirs);
        writes.extend(ours.finish().await);
        let before = moved;
        moved = stopping.metric("stategate_appends_head_moved_total").await;
        // A batch of refusals alone appends nothing that could fail: it is decided again all the same.
        assert!(
            moved > before || held.refused > refused,
            "what was stopped was not decided again"
        );
    }

    let clients = gateway.clients();
    let log = Log::read(&clients).await;
    let mut findings = check::everything(&clients, &writes, &log).await;
    findings.extend(tail.finish(&log).await.check(&log, Due::All));
    check::assert_none(&findings);
    gateway.assert_no_errors();
    println!(
        "{stops} stops at {step}, on {shown}: the other process wrote {meanwhile} times meanwhile, first after {slowest:.1?} at \
         most; of the writes that were held, {} were acknowledged and {} refused; the head had moved {moved} times; {} events in the log, {:.1?}",
        held.acknowledged,
        held.refused,
        log.len(),
        begun.elapsed()
    );
    assert!(
        held.acknowledged + held.refused >= stops,
        "hardly anything was held"
    );
    assert!(moved > 0.0, "no head had moved");
    assert!(held.acknowledged > 0, "nothing that was held was written");
    assert!(
        meanwhile >= 200 * stops,
        "{meanwhile} writes prove too little"
    );
}

fn clients_of(process: &Process) -> Clients {
    Clients::new(process.grpc(), process.grpc(), process.grpc())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_goes_on_while_one_is_stopped_after_it_decided() {
    let _alone = alone().await;
    stopped_at("decided", scale(5, 50), Store::Sqlite).await;
    if let Some(store) = postgres("stopped processes on PostgreSQL") {
        stopped_at("decided", scale(5, 50), store).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_goes_on_while_one_is_stopped_after_it_loaded() {
    let _alone = alone().await;
    stopped_at("loaded", scale(3, 50), Store::Sqlite).await;
    if let Some(store) = postgres("stopped processes on PostgreSQL") {
        stopped_at("loaded", scale(3, 50), store).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_write_at_once() {
    let _alone = alone().await;
    let gateway = Gateway::start(Options::new(Form::Three).lanes(2)).await;
    let other = gateway.spawn(Role::Command, &[]).await;
    let recent = Arc::<Recent>::default();
    let tail = Tail::start(&gateway.clients(), &recent).await;
    let through_other = || Clients {
        commands: clients_of(&other).commands,
        ..gateway.clients()
    };
    let mix = Mix::small();
    let one = Writers::start(|| gateway.clients(), WRITERS, &mix, &recent, 1);
    let two = Writers::start(through_other, WRITERS, &mix, &recent, 2);
    let enough = scale(2_000, 50_000);
    one.reach(enough).await;
    two.reach(enough).await;
    let each = [one.acknowledged(), two.acknowledged()];
    let mut writes = one.finish().await;
    writes.extend(two.finish().await);
    for write in &writes {
        let is_fair = match &write.outcome {
            Outcome::Acknowledged { .. } => true,
            Outcome::Refused(reason) => reason != "STORAGE_UNAVAILABLE",
            Outcome::Unknown(_) => false,
        };
        assert!(is_fair, "{write:?}");
    }
    let clients = gateway.clients();
    let log = Log::read(&clients).await;
    let mut findings = check::everything(&clients, &writes, &log).await;
    findings.extend(tail.finish(&log).await.check(&log, Due::All));
    check::assert_none(&findings);
    gateway.assert_no_errors();
    let slowest = writes.iter().map(|write| write.ended - write.begun).max();
    println!(
        "two processes at once: {each:?} writes acknowledged, the slowest after {slowest:.1?}"
    );
}
