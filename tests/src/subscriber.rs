//! A subscriber that leaves and comes back all the time, from the last token it has.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use stategate_model::{Lane, Position, Token};
use stategate_protocol::{
    event::PROGRESS,
    pb::{self, stream_opts::Start},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tonic::Status;

use crate::{
    Clients, Event, Finding, Log, PATIENCE, check, check::Delivered, check::Due, clients::reason,
};

/// A subscription, and in other words what it selects.
#[derive(Clone)]
pub struct Selection {
    /// What the gateway is asked for.
    pub opts: pb::StreamOpts,
    /// The same, of which the gateway knows nothing.
    pub matches: Arc<dyn Fn(&Event) -> bool + Send + Sync>,
}

impl Selection {
    /// What `opts` asks for is what `matches`.
    pub fn new(
        opts: pb::StreamOpts,
        matches: impl Fn(&Event) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            opts,
            matches: Arc::new(matches),
        }
    }

    /// For messages.
    pub fn name(&self) -> String {
        let opts = &self.opts;
        let parts = [&opts.domain, &opts.r#type, &opts.key, &opts.query_string];
        let parts = parts.map(String::as_str).join(" ");
        match opts.methods.is_empty() {
            true => parts,
            false => format!("{parts} {:?}", opts.methods),
        }
    }
}

/// What a subscriber makes of a connection that is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It fails: nobody is to be killed.
    Fails,
    /// It comes back, to whoever takes it.
    ComesBack,
}

/// A subscriber at work.
pub struct Subscriber {
    selection: Selection,
    start: Token,
    /// How many events there will be in all, once that is known.
    goal: watch::Sender<Option<usize>>,
    counts: Arc<Counts>,
    task: JoinHandle<Vec<Delivered>>,
}

#[derive(Debug, Default)]
struct Counts {
    reconnects: AtomicUsize,
    cuts: AtomicUsize,
}

impl Subscriber {
    /// Subscribes from now on. Every few hundred milliseconds it leaves, wherever it stands, and
    /// comes back; every other time over a new connection.
    pub async fn start(
        clients: impl Fn() -> Clients + Send + 'static,
        selection: Selection,
        stay: std::ops::Range<Duration>,
        cut: Cut,
        seed: u64,
    ) -> Self {
        let mut connection = clients();
        let live = connection.stream(selection.opts.clone()).await;
        let (start, mut stream) = live.expect("subscribe");
        let goal = watch::Sender::new(None);
        let counts = Arc::<Counts>::default();
        let task = tokio::spawn({
            let mut goal = goal.subscribe();
            let counts = Arc::clone(&counts);
            let (mut token, opts) = (start.clone(), selection.opts.clone());
            let name = selection.name();
            async move {
                let mut rng = StdRng::seed_from_u64(seed);
                let mut delivered: Vec<Delivered> = Vec::new();
                let mut moved = Instant::now();
                let survives = |status: &Status| cut == Cut::ComesBack && reason(status).is_none();
                loop {
                    let leave = Instant::now() + rng.random_range(stay.clone());
                    while let Ok(next) = timeout_at(leave, stream.message()).await {
                        let message = match next {
                            Ok(message) => message.expect("a stream goes on"),
                            Err(status) if survives(&status) => {
                                counts.cuts.fetch_add(1, Ordering::Relaxed);
                                connection = clients();
                                break;
                            }
                            Err(status) => panic!("{name}: {status}"),
                        };
                        if message.method != PROGRESS {
                            moved = Instant::now();
                        }
                        take(message, &mut token, &mut delivered);
                    }
                    if let Some(goal) = *goal.borrow_and_update() {
                        if delivered.len() >= goal {
                            return delivered;
                        }
                        // The comparison with the log says what is missing.
                        if moved.elapsed() > PATIENCE {
                            return delivered;
                        }
                    }
                    if rng.random() {
                        connection = clients();
                    }
                    let opts = pb::StreamOpts {
                        start: Some(Start::After(token.to_string())),
                        ..opts.clone()
                    };
                    let left = Instant::now();
                    let (from, again) = loop {
                        match connection.stream(opts.clone()).await {
                            Ok(again) => break again,
                            Err(status) if survives(&status) && left.elapsed() < PATIENCE => {
                                connection = clients();
                            }
                            Err(status) => panic!("{name} after {token}: {status}"),
                        }
                    };
                    for (lane, position) in from.iter() {
                        let at = token.get(lane).expect("every lane");
                        // Lanes that the subscription has no part in are answered at their heads.
                        assert!(position >= at, "{name} after {token} starts at {from}");
                    }
                    stream = again;
                    counts.reconnects.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self {
            selection,
            start,
            goal,
            counts,
            task,
        }
    }

    /// How often it came back so far.
    pub fn reconnects(&self) -> usize {
        self.counts.reconnects.load(Ordering::Relaxed)
    }

    /// How often its connection was cut so far.
    pub fn cuts(&self) -> usize {
        self.counts.cuts.load(Ordering::Relaxed)
    }

    /// Lets it read what is left of the log, and compares. Answers how many events it got.
    pub async fn finish(self, log: &Log) -> (usize, Vec<Finding>) {
        let matches = &*self.selection.matches;
        self.goal
            .send_replace(Some(check::due(&self.start, log, matches)));
        let ended = timeout(2 * PATIENCE, self.task).await;
        let delivered = ended.expect("a subscriber ends").expect("a subscriber");
        let name = self.selection.name();
        let findings = check::delivery(&name, &delivered, &self.start, log, matches, Due::All);
        (delivered.len(), findings)
    }
}

/// Moves a token on by an event or a progress event, and remembers the event.
pub fn take(message: pb::Event, token: &mut Token, delivered: &mut Vec<Delivered>) {
    if message.method == PROGRESS {
        let lane = Lane(u8::try_from(message.lane).expect("a lane"));
        let position = Position::from_i64(message.position).expect("a position");
        token.advance(lane, position);
        return;
    }
    let event = Event::of(message);
    token.advance(event.lane, Position::new(event.position));
    delivered.push(Delivered::from(&event));
}
