//! SIGTERM under load: calls that are under way finish, streams end so that they can be resumed, the
//! process exits well within the grace time, and nothing acknowledged is lost (invariant I12).

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

use stategate_model::Token;
use stategate_protocol::pb::stream_opts::Start;
use stategate_tests::{
    Clients, Form, Gateway, Log, Mix, Options, Outcome, PATIENCE, Role, Tail, Writers, alone,
    check::{self, Delivered, Due},
    clients::{everything, reason},
    scale,
    subscriber::take,
    workload::Recent,
};
use tokio::{task::JoinHandle, time::timeout};
use tonic::{Code, Status};

const WRITERS: usize = 16;
const SUBSCRIBERS: usize = 8;
const GRACE: Duration = Duration::from_secs(5);

/// A subscriber that remembers how its stream ended, and where it was then.
struct Resuming {
    start: Token,
    task: JoinHandle<(Token, Vec<Delivered>, Option<Status>)>,
}

impl Resuming {
    async fn start(clients: &Clients) -> Self {
        let (start, mut stream) = clients.stream(everything(None)).await.expect("subscribe");
        let mut token = start.clone();
        let task = tokio::spawn(async move {
            let mut delivered = Vec::new();
            loop {
                match stream.message().await {
                    Ok(Some(message)) => take(message, &mut token, &mut delivered),
                    Ok(None) => return (token, delivered, None),
                    Err(status) => return (token, delivered, Some(status)),
                }
            }
        });
        Self { start, task }
    }
}

async fn drained(form: Form, rounds: usize) {
    let begun = Instant::now();
    let options = Options::new(form)
        .lanes(2)
        .env("STATEGATE_GRACE_SECONDS", GRACE.as_secs().to_string())
        // Batches pause before their append, so that calls are surely under way at the signal.
        .env("STATEGATE_TEST_PAUSE", "decided:20:400");
    let mut gateway = Gateway::start(options).await;
    let recent = Arc::<Recent>::default();
    let roles: &[Role] = match form {
        Form::One => &[Role::Everything],
        Form::Three => &[Role::Command, Role::Query, Role::Stream],
    };
    let (mut writes, mut held, mut slowest) = (Vec::new(), 0, Duration::ZERO);
    let mut subscribers = Vec::new();
    let mut tails = Vec::new();
    for round in 0..rounds {
        let clients = gateway.clients();
        let tail = Tail::start(&clients, &recent).await;
        let mut resuming = Vec::new();
        for _ in 0..SUBSCRIBERS {
            resuming.push(Resuming::start(&gateway.clients()).await);
        }
        let seed = round as u64;
        let writers = Writers::start(|| gateway.clients(), WRITERS, &Mix::small(), &recent, seed);
        writers.reach(300).await;
        let writer = gateway.writer();
        let from = writer.written();
        writer
            .line(from, "paused", |line| line.starts_with("pause "))
            .await;

        let told = Instant::now();
        for role in roles {
            gateway.process(*role).terminate();
        }
        for role in roles {
            let status = gateway.process(*role).gone().await;
            assert!(status.success(), "{role:?} ended with {status}");
        }
        let took = told.elapsed();
        slowest = slowest.max(took);
        assert!(took < GRACE, "it took {took:?} to end");
        gateway.assert_no_errors();

        let done = writers.ended().await;
        for write in &done {
            if write.begun < told && write.ended > told {
                held += usize::from(write.is_acknowledged());
                // Whoever was waiting for an answer got one.
                assert!(!matches!(write.outcome, Outcome::Unknown(_)), "{write:?}");
            }
        }
        writes.extend(done);
        let (heard, status) = tail.ended().await;
        assert_resumable(status.as_ref());
        tails.push(heard);
        for subscriber in resuming {
            let ended = timeout(PATIENCE, subscriber.task).await;
            let (token, delivered, status) = ended.expect("a stream ends").expect("a subscriber");
            assert_resumable(status.as_ref());
            subscribers.push((subscriber.start, token, delivered));
        }
        for role in roles {
            gateway.restart(*role, &[]).await;
        }
    }

    let clients = gateway.clients();
    let log = Log::read(&clients).await;
    let mut findings = check::everything(&clients, &writes, &log).await;
    for heard in tails {
        findings.extend(heard.check(&log, Due::Beginning));
    }
    let (mut before, mut after) = (0, 0);
    for (start, token, mut delivered) in subscribers {
        before += delivered.len();
        let resumed = everything(Some(Start::After(token.to_string())));
        let (from, mut stream) = clients.stream(resumed).await.expect("resume");
        assert_eq!(from, token);
        let due = check::due(&token, &log, &|_| true);
        let mut token = token;
        let all = delivered.len() + due;
        while delivered.len() < all {
            let next = timeout(PATIENCE, stream.message()).await.expect("an event");
            take(next.unwrap().unwrap(), &mut token, &mut delivered);
        }
        after += due;
        let matches = &|_: &_| true;
        findings.extend(check::delivery(
            "a resumed one",
            &delivered,
            &start,
            &log,
            matches,
            Due::All,
        ));
    }
    check::assert_none(&findings);
    let acknowledged = writes
        .iter()
        .filter(|write| write.is_acknowledged())
        .count();
    println!(
        "{form}: {rounds} times SIGTERM under {WRITERS} writers, {acknowledged} writes acknowledged, {held} of them under \
         way at the signal; ended after {slowest:.1?} at most; {} streams ended and resumed, {before} events before \
         and {after} after, {:.1?}",
        rounds * SUBSCRIBERS,
        begun.elapsed()
    );
    assert!(held >= rounds, "hardly a call was under way");
    assert!(
        before > 0 && acknowledged >= 300 * rounds,
        "too little was done"
    );
}

fn assert_resumable(status: Option<&Status>) {
    let status = status.expect("a stream that is cut says so");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(reason(status).as_deref(), Some("SHUTTING_DOWN"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_ends_well() {
    let _alone = alone().await;
    drained(Form::One, scale(4, 40)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_end_well() {
    let _alone = alone().await;
    drained(Form::Three, scale(3, 40)).await;
}
