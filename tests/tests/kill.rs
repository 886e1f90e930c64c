//! SIGKILL under writers: nothing acknowledged is missing, nothing is there twice, versions and
//! positions have no hole, and the present is the fold of the log (invariants I1 to I3).

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use stategate_tests::{
    Finding, Form, Gateway, Kind, Log, Mix, Options, Role, Tail, Write, Writers, alone,
    check::{self, Due},
    scale,
    workload::{Heard, Recent},
};

const WRITERS: usize = 16;

/// What was done to a gateway, and what it told.
struct Killed {
    gateway: Gateway,
    writes: Vec<Write>,
    /// By the step the process was at when it died.
    steps: BTreeMap<String, usize>,
    heard: Vec<Heard>,
    tail: Option<Tail>,
    recent: Arc<Recent>,
    rng: StdRng,
}

impl Killed {
    async fn start(options: Options, seed: u64) -> Self {
        Self {
            gateway: Gateway::start(options.env("STATEGATE_TEST_STEPS", "1")).await,
            writes: Vec::new(),
            steps: BTreeMap::new(),
            heard: Vec::new(),
            tail: None,
            recent: Arc::default(),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Lets writers have about `count` acknowledgements, kills the process that writes under them,
    /// and starts it again. With `pauses`, the process is killed in a pause at a step.
    async fn round(&mut self, count: usize, pauses: bool) {
        if self.tail.is_none() {
            self.tail = Some(Tail::start(&self.gateway.clients(), &self.recent).await);
        }
        let seed = self.rng.random();
        let gateway = &self.gateway;
        let mix = Mix::small();
        let writers = Writers::start(|| gateway.clients(), WRITERS, &mix, &self.recent, seed);
        writers
            .reach(self.rng.random_range(count / 2..=count * 3 / 2))
            .await;
        let process = self.gateway.writer();
        if pauses {
            let from = process.written();
            process
                .line(from, "paused", |line| line.starts_with("pause "))
                .await;
        }
        process.kill().await;
        let step = process.last_step().unwrap_or_else(|| "none".to_owned());
        *self.steps.entry(step).or_default() += 1;
        self.writes.extend(writers.ended().await);
    }

    async fn restart(&mut self, pause: Option<&str>) {
        let pause = pause.map(|step| format!("{step}:20:100"));
        let env: Vec<_> = pause
            .into_iter()
            .map(|p| ("STATEGATE_TEST_PAUSE", p))
            .collect();
        if self.gateway.is_one_process()
            && let Some(tail) = self.tail.take()
        {
            self.heard.push(tail.ended().await.0);
        }
        self.gateway.restart(Role::Command, &env).await;
    }

    fn acknowledged(&self) -> usize {
        self.writes
            .iter()
            .filter(|write| write.is_acknowledged())
            .count()
    }

    fn kills(&self) -> usize {
        self.steps.values().sum()
    }

    /// Kills that surely fell between the load of a batch and its acknowledgement. A batch that was
    /// loaded may have been one of refusals alone, which has no further steps.
    fn proven(&self) -> usize {
        let of = |step: &str| self.steps.get(step).copied().unwrap_or_default();
        of("decided") + of("appended")
    }

    async fn findings(&mut self) -> (Log, Vec<Finding>) {
        let clients = self.gateway.clients();
        let log = Log::read(&clients).await;
        let mut findings = check::everything(&clients, &self.writes, &log).await;
        for heard in &self.heard {
            findings.extend(heard.check(&log, Due::Beginning));
        }
        if let Some(tail) = self.tail.take() {
            findings.extend(tail.finish(&log).await.check(&log, Due::All));
        }
        (log, findings)
    }
}

/// Kills until there were as many kills and acknowledgements as asked for, and checks.
async fn kill(options: Options, kills: usize, acknowledged: usize) -> Killed {
    let begun = Instant::now();
    let (form, lanes) = (options.form, options.lanes);
    let mut killed = Killed::start(options, 0x5eed + u64::from(lanes)).await;
    let mut pause = None;
    for next in [
        None,
        Some("decided"),
        Some("appended"),
        None,
        Some("loaded"),
    ]
    .into_iter()
    .cycle()
    {
        killed
            .round(acknowledged / kills + 1, pause.is_some())
            .await;
        pause = next;
        killed.restart(pause).await;
        if killed.kills() >= kills && killed.acknowledged() >= acknowledged {
            break;
        }
    }
    let (log, findings) = killed.findings().await;
    check::assert_none(&findings);
    println!(
        "{form}, {lanes} lanes: {} writes, {} acknowledged, {} kills, {} of them proven between load and \
         acknowledgement, last steps {:?}, {} events in the log, {:.1?}",
        killed.writes.len(),
        killed.acknowledged(),
        killed.kills(),
        killed.proven(),
        killed.steps,
        log.len(),
        begun.elapsed()
    );
    killed
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost() {
    let _alone = alone().await;
    let runs = [
        (
            Options::new(Form::One).lanes(1),
            scale(8, 120),
            scale(8_000, 120_000),
        ),
        (
            Options::new(Form::One).lanes(8),
            scale(8, 120),
            scale(8_000, 120_000),
        ),
        (
            Options::new(Form::Three).lanes(8),
            scale(6, 60),
            scale(6_000, 60_000),
        ),
    ];
    let (mut kills, mut acknowledged, mut proven) = (0, 0, 0);
    for (options, least_kills, least_acknowledged) in runs {
        let killed = kill(options, least_kills, least_acknowledged).await;
        kills += killed.kills();
        acknowledged += killed.acknowledged();
        proven += killed.proven();
    }
    println!("in all: {acknowledged} writes acknowledged, {kills} kills, {proven} of them proven");
    assert!(kills >= scale(20, 300), "{kills} kills prove too little");
    assert!(
        acknowledged >= scale(20_000, 300_000),
        "{acknowledged} writes prove too little"
    );
    assert!(
        proven >= scale(5, 60),
        "{proven} proven kills prove too little"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_before_the_append_is_found_out() {
    let _alone = alone().await;
    // The planted process lingers between each acknowledgement and its append, so that a kill falls
    // there on a fast disk too.
    let options = Options::new(Form::One)
        .env("STATEGATE_TEST_PLANT", "ack-before-append")
        .env("STATEGATE_TEST_PAUSE", "acknowledgedtooearly:1:50");
    let mut killed = Killed::start(options, 0xbad).await;
    let mut lost = 0;
    while lost == 0 && killed.kills() < 20 {
        killed.round(200, false).await;
        killed.restart(None).await;
        let log = Log::read(&killed.gateway.clients()).await;
        let findings = check::history(&killed.writes, &log);
        lost = findings
            .iter()
            .filter(|finding| finding.kind == Kind::Lost)
            .count();
    }
    println!(
        "planted: {lost} of {} acknowledged writes found lost after {} kills",
        killed.acknowledged(),
        killed.kills()
    );
    assert!(lost > 0, "the checker finds nothing, so it proves nothing");
}
