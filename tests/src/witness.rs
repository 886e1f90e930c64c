//! How long events are on their way to a subscriber, one by one.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use stategate_model::{EntityRef, Lane, Object};
use stategate_protocol::pb;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use uuid::Uuid;

use crate::{Clients, Log, PATIENCE, What, Write, clients::everything, workload::send};

/// From the decision on each event to its delivery, by its place.
pub type Delays = HashMap<(Lane, u64), Duration>;

/// A subscriber to everything that stays, and looks at the clock.
pub struct Witness {
    goal: watch::Sender<usize>,
    task: JoinHandle<Delays>,
}

impl Witness {
    /// Subscribes from now on.
    pub async fn start(clients: &Clients) -> Self {
        let (_, mut stream) = clients.stream(everything(None)).await.expect("subscribe");
        let goal = watch::Sender::new(usize::MAX);
        let mut goals = goal.subscribe();
        let task = tokio::spawn(async move {
            let mut delays = Delays::new();
            while delays.len() < *goals.borrow_and_update() {
                tokio::select! {
                    next = stream.message() => {
                        let (place, delay) = delay(&next.expect("a stream").expect("an event"));
                        delays.insert(place, delay);
                    }
                    _ = goals.changed() => {}
                }
            }
            delays
        });
        Self { goal, task }
    }

    /// Waits until everything in the log but the first `before` events was delivered.
    pub async fn finish(self, log: &Log, before: usize) -> Delays {
        self.goal.send_replace(log.len() - before);
        let all = timeout(PATIENCE, self.task).await;
        all.expect("everything is delivered").expect("a witness")
    }
}

fn delay(event: &pb::Event) -> ((Lane, u64), Duration) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let then = Duration::from_nanos(u64::try_from(event.time).expect("a time"));
    let lane = Lane(u8::try_from(event.lane).expect("a lane"));
    let position = u64::try_from(event.position).expect("a position");
    ((lane, position), now.saturating_sub(then))
}

/// Writes one at a time, each after the delivery of the one before it.
pub async fn paced(clients: &Clients, writes: &mut Vec<Write>, count: usize) -> Delays {
    let (_, mut stream) = clients.stream(everything(None)).await.expect("subscribe");
    let mut delays = Delays::new();
    for n in 0..count {
        let entity = EntityRef::new("domain-0", "paced", &format!("key-{}", n % 8)).unwrap();
        let what = What::Set(Object::from([("n".to_owned(), 1.0.into())]));
        let (id, begun) = (Uuid::new_v4(), Instant::now());
        let sent = send(clients, &entity, &what, id, None);
        let (outcome, event) = tokio::join!(sent, timeout(PATIENCE, stream.message()));
        writes.push(Write {
            id,
            entity,
            what,
            if_version: None,
            begun,
            ended: Instant::now(),
            outcome,
        });
        let event = event.expect("delivered").expect("a stream");
        let (place, delay) = delay(&event.expect("an event"));
        delays.insert(place, delay);
    }
    delays
}

/// A percentile of durations, for figures.
pub fn percentile(all: impl IntoIterator<Item = Duration>, percent: usize) -> Duration {
    let mut all: Vec<Duration> = all.into_iter().collect();
    all.sort();
    let at = (all.len() * percent / 100).min(all.len().saturating_sub(1));
    all.get(at).copied().unwrap_or_default()
}
