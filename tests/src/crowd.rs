//! Several processes of each service over one log and one channel, and everything that loads them at
//! once: writers, and subscribers whose selections overlap.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Mutex as Locked,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use serde_json::Value;
use stategate_protocol::pb;
use tokio::{sync::Mutex, time::sleep};

use crate::{
    Clients, Form, Gateway, Log, Mix, Options, Outcome, PATIENCE, Process, Role, Selection, Store,
    Subscriber, Write, Writers, check, subscriber::Cut, workload::Recent,
};

/// Command services.
pub const COMMANDS: usize = 3;
/// Query services.
pub const QUERIES: usize = 2;
/// Stream services.
pub const STREAMS: usize = 2;
/// Writers at full speed.
pub const WRITERS: usize = 16;
/// Subscribers that come and go.
pub const SUBSCRIBERS: usize = 50;
const LANES: u8 = 4;
/// Refusals that a mixed load runs into.
const USUAL: [&str; 3] = ["VERSION_MISMATCH", "ENTITY_NOT_FOUND", "EVENT_NOT_FOUND"];
/// Between two looks at what cannot be waited for.
const LOOK: Duration = Duration::from_millis(5);

/// The services, several of each.
pub struct Crowd {
    gateway: Gateway,
    commands: Vec<Process>,
    queries: Vec<Process>,
    streams: Vec<Process>,
    doors: Arc<Doors>,
}

/// Where the processes are, one after the other.
struct Doors {
    addresses: Locked<[Vec<SocketAddr>; 3]>,
    turn: AtomicUsize,
}

impl Doors {
    /// Clients of other processes each time.
    fn clients(&self) -> Clients {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let addresses = self.addresses.lock().unwrap();
        let [command, query, stream] = [0, 1, 2].map(|n| addresses[n][turn % addresses[n].len()]);
        Clients::new(command, query, stream)
    }
}

impl Crowd {
    /// Starts all of them on a fresh log.
    pub async fn start(store: Store, channel: &Value, env: &[(&str, &str)]) -> Self {
        let mut options = Options::new(Form::Three)
            .lanes(LANES)
            .store(store)
            .env("STATEGATE_CHANNEL_PROVIDER", channel.to_string())
            .env("STATEGATE_CHANNEL_KEY", "a key that all of them have");
        for (name, value) in env {
            options = options.env(name, *value);
        }
        let gateway = Gateway::start(options).await;
        // Those that the gateway has already are among them.
        let more =
            async |role, count: usize| join_all((1..count).map(|_| gateway.spawn(role, &[]))).await;
        let mut crowd = Self {
            commands: more(Role::Command, COMMANDS).await,
            queries: more(Role::Query, QUERIES).await,
            streams: more(Role::Stream, STREAMS).await,
            gateway,
            doors: Arc::new(Doors {
                addresses: Locked::default(),
                turn: AtomicUsize::new(0),
            }),
        };
        crowd.find_doors();
        crowd
    }

    fn find_doors(&mut self) {
        let doors = [Role::Command, Role::Query, Role::Stream]
            .map(|role| self.processes(role).iter().map(|p| p.grpc()).collect());
        *self.doors.addresses.lock().unwrap() = doors;
    }

    /// All processes of a service.
    pub fn processes(&mut self, role: Role) -> Vec<&Process> {
        let others = match role {
            Role::Command => &self.commands,
            Role::Query => &self.queries,
            Role::Stream | Role::Everything => &self.streams,
        };
        let own = self.gateway.process(role);
        std::iter::once(&*own).chain(others).collect()
    }

    /// Makes clients of other processes each time, wherever those are by then.
    pub fn connect(&self) -> impl Fn() -> Clients + Clone + Send + 'static {
        let doors = Arc::clone(&self.doors);
        move || doors.clients()
    }

    /// Clients of each stream service.
    pub fn clients_by_stream(&self) -> Vec<Clients> {
        let addresses = self.doors.addresses.lock().unwrap();
        let [command, query, stream] = &*addresses;
        let each = stream.iter();
        each.map(|stream| Clients::new(command[0], query[0], *stream))
            .collect()
    }

    /// Kills a stream service, and starts another in its place.
    pub async fn kill_stream(&mut self, number: usize) {
        match number.checked_sub(1) {
            None => {
                self.gateway.process(Role::Stream).kill().await;
                self.gateway.restart(Role::Stream, &[]).await;
            }
            Some(at) => {
                self.streams[at].kill().await;
                self.streams[at] = self.gateway.spawn(Role::Stream, &[]).await;
            }
        }
        self.find_doors();
    }

    /// What the stream services have done so far.
    pub async fn told(&mut self) -> Told {
        let streams = self.processes(Role::Stream);
        let sum = async |metric: &'static str| -> f64 {
            let each = join_all(streams.iter().map(|process| process.metric(metric))).await;
            each.into_iter().sum()
        };
        Told {
            believed: sum("stategate_channel_events_total").await,
            read: sum("stategate_tail_events_read_total").await,
            holes: sum("stategate_channel_holes_total").await,
            strays: sum("stategate_channel_strays_total").await,
        }
    }

    /// What the processes of a service say of themselves; nothing while they are not ready.
    pub async fn readiness(&mut self, role: Role) -> Vec<Option<String>> {
        let processes = self.processes(role);
        join_all(processes.iter().map(|process| process.http("/readyz"))).await
    }

    /// Waits until every stream service says this of itself.
    pub async fn streams_say(&mut self, body: &str) {
        let begun = Instant::now();
        loop {
            let said = self.readiness(Role::Stream).await;
            if said.iter().all(|said| said.as_deref() == Some(body)) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{said:?} is not {body:?}");
            sleep(LOOK).await;
        }
    }

    /// Fails unless commands and queries are as ready as ever.
    pub async fn assert_others_ready(&mut self) {
        for role in [Role::Command, Role::Query] {
            let said = self.readiness(role).await;
            let ready = said.iter().all(|said| said.as_deref() == Some("ready\n"));
            assert!(ready, "{role:?}: {said:?}");
        }
    }

    /// Fails if a process wrote down an error.
    pub fn assert_no_errors(&mut self) {
        for role in [Role::Command, Role::Query, Role::Stream] {
            for process in self.processes(role) {
                let errors = process.errors();
                assert!(errors.is_empty(), "{role:?}: {errors:#?}");
            }
        }
    }
}

/// What stream services did: events they took from the channel and read from the log, holes among the
/// former, and messages that they did not believe.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// Events taken from the channel.
    pub believed: f64,
    /// Events read from the log.
    pub read: f64,
    /// Holes among the former.
    pub holes: f64,
    /// Messages that were not believed.
    pub strays: f64,
}

impl Told {
    /// Since an earlier look.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            believed: self.believed - before.believed,
            read: self.read - before.read,
            holes: self.holes - before.holes,
            strays: self.strays - before.strays,
        }
    }

    /// Which share of the events came through the channel.
    pub fn share(self) -> f64 {
        self.believed / (self.believed + self.read)
    }
}

/// What a load came to.
pub struct Loaded {
    /// The log after it.
    pub log: Log,
    /// Events delivered, to all subscribers together.
    pub delivered: usize,
    /// How often subscribers came back.
    pub reconnects: usize,
    /// How often one did because its connection was cut.
    pub cuts: usize,
    /// How long it took.
    pub took: Duration,
}

/// Loads a crowd until `enough`, and compares what everybody got with the log; `writes` has what was
/// written before, and then all. Subscribers stay for a while, leave and come back.
pub async fn load(
    crowd: &Mutex<Crowd>,
    writes: &mut Vec<Write>,
    stay: Range<Duration>,
    cut: Cut,
    enough: impl AsyncFnOnce(&Writers),
) -> Loaded {
    let begun = Instant::now();
    let connect = crowd.lock().await.connect();
    let written = writes.len();
    let mut subscribers = Vec::new();
    for (seed, selection) in (0..SUBSCRIBERS as u64).zip(selections().into_iter().cycle()) {
        let subscriber = Subscriber::start(connect.clone(), selection, stay.clone(), cut, seed);
        subscribers.push(subscriber.await);
    }
    let recent = Arc::<Recent>::default();
    let writers = Writers::start(&connect, WRITERS, &Mix::small(), &recent, written as u64);
    enough(&writers).await;
    writes.extend(writers.finish().await);
    assert_none_failed(writes);
    let log = Log::read(&connect()).await;
    let mut findings = check::history(writes, &log);
    let mut delivered = 0;
    let reconnects = subscribers.iter().map(Subscriber::reconnects).sum();
    let cuts = subscribers.iter().map(Subscriber::cuts).sum();
    let finished = subscribers
        .into_iter()
        .map(|subscriber| subscriber.finish(&log));
    for (count, found) in join_all(finished).await {
        delivered += count;
        findings.extend(found);
    }
    check::assert_none(&findings);
    Loaded {
        log,
        delivered,
        reconnects,
        cuts,
        took: begun.elapsed(),
    }
}

/// Fails if a write's end is not known, or it was refused for what is not its fault.
fn assert_none_failed(writes: &[Write]) {
    let failed = writes.iter().find(|write| match &write.outcome {
        Outcome::Acknowledged { .. } => false,
        Outcome::Refused(reason) => !USUAL.contains(&&**reason),
        Outcome::Unknown(_) => true,
    });
    assert!(failed.is_none(), "{failed:?}");
}

/// Subscriptions that overlap in many ways, each with what it means.
fn selections() -> Vec<Selection> {
    let opts = |domain: &str, kind: &str, key: &str| pb::StreamOpts {
        domain: domain.to_owned(),
        r#type: kind.to_owned(),
        key: key.to_owned(),
        ..pb::StreamOpts::default()
    };
    let mut selections = vec![
        Selection::new(opts("*", "*", ""), |_| true),
        Selection::new(opts("domain-?", "th*", "*"), |_| true),
        Selection::new(opts("domain-[02]", "thing", ""), |event| {
            ["domain-0", "domain-2"].contains(&event.entity.domain())
        }),
        Selection::new(opts("*", "th?ng", "shared-{1,4}"), |event| {
            ["shared-1", "shared-4"].contains(&event.entity.key())
        }),
    ];
    for n in 0..6 {
        let domain = format!("domain-{n}");
        selections.push(Selection::new(opts(&domain, "*", ""), move |event| {
            event.entity.domain() == domain
        }));
    }
    selections
}
