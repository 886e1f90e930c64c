//! How far the log has come, for those who wait until it has come far enough: one reader of the lane
//! heads for all of a process, which works only while somebody waits.
//!
//! There is no task for it. Whoever waits takes the lead if nobody has it, reads the heads for all, and
//! leaves the lead to the next with the end of its own wait, however that comes.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use stategate_api::Problem;
use stategate_model::{Heads, Lane, Lanes, Position};
use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit, oneshot, watch},
    time::{Instant, sleep_until},
};

/// Shortest and longest pause between two looks at the heads: the longer nothing moves, the longer.
const PAUSE: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(100)];
/// How old a look at the heads may be that a token is called ahead of.
const RECENT: Duration = Duration::from_secs(2);
/// Reads at once of which it is not known whether the log has come far enough. As a rule it has, and
/// such a read is the shortest way to find out; more than these first have the heads looked at.
const DOUBTFUL: usize = 16;

/// Reads the head of every lane; `None` while they cannot be read.
pub type ReadHeads = dyn Fn() -> BoxFuture<'static, Option<Heads>> + Send + Sync;

/// How far each lane has come, as far as anybody in the process has seen, and who waits for more.
pub struct Positions {
    read: Arc<ReadHeads>,
    /// The furthest that was ever seen of each lane.
    seen: Vec<AtomicU64>,
    waiting: Mutex<BTreeMap<Key, oneshot::Sender<News>>>,
    /// How many wait; looked at without the lock.
    count: AtomicUsize,
    next: AtomicU64,
    doubtful: AtomicUsize,
    /// Taken by those who are known to be ahead of the log.
    slots: Semaphore,
    /// When the heads were last looked at; `None` before the first time.
    looked: watch::Sender<Option<Instant>>,
    lead: tokio::sync::Mutex<Pace>,
    /// Notified when a wait begins before the heads were read for it, so that they are read at once.
    hurry: Notify,
}

/// Who waits, in the order of what for; the number tells those apart who wait for the same.
type Key = (Lane, Position, u64);

#[derive(Debug, Clone, Copy)]
enum News {
    Reached,
    Failed,
}

/// When the heads are looked at next.
struct Pace {
    next: Instant,
    pause: Duration,
}

/// How long somebody waits, and what it is told then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) until: Instant,
    /// Its own time is up then, whether the log got there or not.
    pub(crate) is_deadline: bool,
}

impl Positions {
    /// Nothing is known yet of a log with these lanes. Of `most_calls` that there may be at once, a
    /// quarter may wait for what the log has not reached, so that the others are served.
    pub fn new(lanes: Lanes, most_calls: usize, read: Arc<ReadHeads>) -> Self {
        let pace = Pace {
            next: Instant::now(),
            pause: PAUSE[0],
        };
        let most = (most_calls / 4).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            read,
            seen: lanes.iter().map(|_| AtomicU64::new(0)).collect(),
            waiting: Mutex::default(),
            count: AtomicUsize::new(0),
            next: AtomicU64::new(0),
            doubtful: AtomicUsize::new(0),
            slots: Semaphore::new(most),
            looked: watch::Sender::new(None),
            lead: tokio::sync::Mutex::new(pace),
            hurry: Notify::new(),
        }
    }

    /// Takes note that a lane has come this far, and tells those who waited for it.
    pub fn observe(&self, lane: Lane, position: Position) {
        if let Some(seen) = self.seen.get(lane.index()) {
            seen.fetch_max(position.get(), Relaxed);
        }
        if self.count.load(Relaxed) > 0 {
            self.tell(lane, position);
        }
    }

    /// Reads what reflects all of `needs`: at once, as a rule, for a storage reflects what was
    /// acknowledged. What the log has not reached is waited for, and then read. `reflects` tells how far
    /// an answer reflects a lane.
    pub(crate) async fn read<A, F>(
        &self,
        needs: &[(Lane, Position)],
        patience: Patience,
        look: impl Fn() -> F,
        reflects: impl Fn(&A, Lane) -> Position,
    ) -> Result<A, Problem>
    where
        F: Future<Output = Result<A, Problem>>,
    {
        loop {
            let mut doubt = None;
            for (lane, position) in needs.iter().copied() {
                if self.has_seen(lane, position) || doubt.is_some() {
                    continue;
                }
                doubt = Doubt::of(self, lane, position);
                if doubt.is_none() {
                    self.wait(lane, position, None, patience).await?;
                }
            }
            let answer = look().await?;
            drop(doubt);
            for (lane, _) in needs {
                self.observe(*lane, reflects(&answer, *lane));
            }
            let mut needs = needs.iter().copied();
            let behind = needs.find(|(lane, position)| reflects(&answer, *lane) < *position);
            let Some((lane, position)) = behind else {
                return Ok(answer);
            };
            let slot = self.slot()?;
            self.wait(lane, position, Some(slot), patience).await?;
        }
    }

    fn has_seen(&self, lane: Lane, position: Position) -> bool {
        let seen = self.seen.get(lane.index());
        seen.is_some_and(|seen| seen.load(Relaxed) >= position.get())
    }

    /// Whether somebody waits for what comes no later.
    fn is_waited_for(&self, lane: Lane, position: Position) -> bool {
        let up_to = (lane, Position::ZERO, 0)..=(lane, position, u64::MAX);
        self.count.load(Relaxed) > 0 && self.waiting.lock().range(up_to).next().is_some()
    }

    /// Waits until a lane has come to a position. Who knows that it is not there has a slot; who does
    /// not takes one as soon as that is found out.
    async fn wait(
        &self,
        lane: Lane,
        position: Position,
        mut slot: Option<SemaphorePermit<'_>>,
        patience: Patience,
    ) -> Result<(), Problem> {
        let mut waiter = Waiter::new(self, (lane, position));
        let mut looked = self.looked.subscribe();
        if slot.is_none() {
            self.hurry.notify_one();
        }
        let mut lead = pin!(self.lead());
        let mut expired = pin!(sleep_until(patience.until));
        loop {
            tokio::select! {
                biased;
                news = &mut waiter.told => return match news {
                    Ok(News::Reached) => Ok(()),
                    Ok(News::Failed) | Err(_) => Err(Problem::StorageUnavailable),
                },
                () = &mut expired => return Err(self.expired(patience)),
                // The heads were looked at, and the lane is not there.
                Ok(()) = looked.changed(), if slot.is_none() => slot = Some(self.slot()?),
                never = &mut lead => match never {},
            }
        }
    }

    fn slot(&self) -> Result<SemaphorePermit<'_>, Problem> {
        let slot = self.slots.try_acquire();
        slot.map_err(|_| Problem::Busy {
            what: "too many calls are waiting for positions that the log has not reached",
        })
    }

    /// What a caller whose wait has ended is told. `PositionAhead` only if the heads were read a short time ago:
    /// otherwise nobody knows how far the log is.
    fn expired(&self, patience: Patience) -> Problem {
        match *self.looked.borrow() {
            _ if patience.is_deadline => Problem::DeadlineExceeded,
            Some(looked) if looked.elapsed() < RECENT => Problem::PositionAhead,
            _ => Problem::StorageUnavailable,
        }
    }

    /// Looks at the heads again and again, alone: whoever else leads waits for its turn. May be dropped
    /// at any point.
    async fn lead(&self) -> Infallible {
        let mut pace = self.lead.lock().await;
        if pace.next.elapsed() > PAUSE[1] {
            // Nobody has waited for some time.
            pace.pause = PAUSE[0];
        }
        loop {
            tokio::select! {
                () = sleep_until(pace.next) => {}
                () = self.hurry.notified() => pace.pause = PAUSE[0],
            }
            // Whoever leads next does not look at once, should this one be gone before the answer is here.
            pace.next = Instant::now() + pace.pause;
            let heads = (self.read)().await;
            let has_moved = self.looked_at(heads);
            pace.pause = match has_moved {
                true => PAUSE[0],
                false => (pace.pause * 2).min(PAUSE[1]),
            };
            pace.next = Instant::now() + pace.pause;
        }
    }

    /// Takes in a look at the heads; answers whether they have moved.
    fn looked_at(&self, heads: Option<Heads>) -> bool {
        let Some(heads) = heads else {
            let waiting = std::mem::take(&mut *self.waiting.lock());
            for told in waiting.into_values() {
                let _ = told.send(News::Failed);
            }
            return false;
        };
        let has_moved = heads.iter().any(|(lane, head)| !self.has_seen(lane, head));
        for (lane, head) in heads.iter() {
            self.observe(lane, head);
        }
        self.looked.send_replace(Some(Instant::now()));
        has_moved
    }

    fn tell(&self, lane: Lane, position: Position) {
        let mut reached = Vec::new();
        let mut waiting = self.waiting.lock();
        while let Some((&key, _)) = waiting.range((lane, Position::ZERO, 0)..).next()
            && key.0 == lane
            && key.1 <= position
        {
            reached.extend(waiting.remove(&key));
        }
        drop(waiting);
        for told in reached {
            // It may have gone meanwhile.
            let _ = told.send(News::Reached);
        }
    }
}

impl fmt::Debug for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Positions").finish_non_exhaustive()
    }
}

/// One who waits; gone when it is dropped.
struct Waiter<'a> {
    positions: &'a Positions,
    key: Key,
    told: oneshot::Receiver<News>,
}

impl<'a> Waiter<'a> {
    fn new(positions: &'a Positions, (lane, position): (Lane, Position)) -> Self {
        let (tell, told) = oneshot::channel();
        let key = (lane, position, positions.next.fetch_add(1, Relaxed));
        positions.count.fetch_add(1, Relaxed);
        positions.waiting.lock().insert(key, tell);
        Self {
            positions,
            key,
            told,
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.positions.waiting.lock().remove(&self.key);
        self.positions.count.fetch_sub(1, Relaxed);
    }
}

/// A read of which it is not known whether it reflects enough.
struct Doubt<'a>(&'a AtomicUsize);

impl<'a> Doubt<'a> {
    /// `None` if there are enough of them, or somebody found out already that the log is not there.
    fn of(positions: &'a Positions, lane: Lane, position: Position) -> Option<Self> {
        if positions.is_waited_for(lane, position) {
            return None;
        }
        let doubt = Self(&positions.doubtful);
        (doubt.0.fetch_add(1, Relaxed) < DOUBTFUL).then_some(doubt)
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, future::join_all};

    use super::*;

    /// A log of one lane, and how often it was asked for what.
    #[derive(Default)]
    struct Log {
        head: AtomicU64,
        heads: AtomicUsize,
        reads: AtomicUsize,
        is_away: AtomicUsize,
    }

    const LANE: Lane = Lane(0);
    const WAIT: Duration = Duration::from_secs(10);
    /// What a read, and a look at the heads, takes.
    const WAY: Duration = Duration::from_millis(1);

    fn positions(log: &Arc<Log>, most_calls: usize) -> Arc<Positions> {
        let log = Arc::clone(log);
        let read = move || -> BoxFuture<'static, Option<Heads>> {
            let log = Arc::clone(&log);
            Box::pin(async move {
                log.heads.fetch_add(1, Relaxed);
                tokio::time::sleep(WAY).await;
                let head = Position::new(log.head.load(Relaxed));
                (log.is_away.load(Relaxed) == 0).then(|| Heads::new(vec![head]))
            })
        };
        Arc::new(Positions::new(Lanes::ONE, most_calls, Arc::new(read)))
    }

    async fn read(log: &Log, positions: &Positions, min: u64) -> Result<u64, Problem> {
        let look = || async {
            log.reads.fetch_add(1, Relaxed);
            tokio::time::sleep(WAY).await;
            Ok(log.head.load(Relaxed))
        };
        let patience = Patience {
            until: Instant::now() + WAIT,
            is_deadline: false,
        };
        let needs = [(LANE, Position::new(min))];
        positions
            .read(&needs, patience, look, |at, _| Position::new(*at))
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_who_wait_cost_few_reads() {
        let log = Arc::new(Log::default());
        let positions = positions(&log, 8_192);
        let begun = Instant::now();
        let all = join_all((0..1_000).map(|_| read(&log, &positions, 7)));
        let answers = all.await;
        assert!(
            answers
                .iter()
                .all(|answer| *answer == Err(Problem::PositionAhead))
        );
        assert_eq!(begun.elapsed(), WAIT);
        let (reads, heads) = (log.reads.load(Relaxed), log.heads.load(Relaxed));
        println!("1,000 waited 10 s: {reads} reads, {heads} looks at the heads");
        assert!(reads <= DOUBTFUL, "{reads}");
        assert!((50..=150).contains(&heads), "{heads}");

        // Nobody waits, nobody looks.
        tokio::time::sleep(WAIT).await;
        assert_eq!(log.heads.load(Relaxed), heads);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_waited_for_is_read_once_when_it_is_there() {
        let log = Arc::new(Log::default());
        let positions = positions(&log, 8_192);
        let all = join_all((0..1_000).map(|n| read(&log, &positions, 1 + n % 10)));
        let come = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            log.head.store(10, Relaxed);
        };
        let (answers, ()) = tokio::join!(all, come);
        assert!(
            answers.iter().all(|answer| *answer == Ok(10)),
            "{answers:?}"
        );
        let reads = log.reads.load(Relaxed);
        assert!(reads <= 1_000 + DOUBTFUL, "{reads}");

        // What is there takes one read and no look at the heads; so does what somebody told of.
        let heads = log.heads.load(Relaxed);
        read(&log, &positions, 10).await.unwrap();
        log.head.store(11, Relaxed);
        read(&log, &positions, 11).await.unwrap();
        assert_eq!(log.reads.load(Relaxed), reads + 2);
        assert_eq!(log.heads.load(Relaxed), heads);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_told_does_not_ask() {
        let log = Arc::new(Log::default());
        let positions = positions(&log, 100);
        let mut waits = Box::pin(read(&log, &positions, 1));
        tokio::select! {
            _ = &mut waits => panic!("it is not there"),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        log.head.store(1, Relaxed);
        positions.observe(LANE, Position::new(1));
        let begun = Instant::now();
        assert_eq!(waits.await, Ok(1));
        assert_eq!(begun.elapsed(), WAY, "the read alone");
    }

    #[tokio::test(start_paused = true)]
    async fn the_lead_is_passed_on() {
        let log = Arc::new(Log::default());
        let positions = positions(&log, 100);
        let mut first = Box::pin(read(&log, &positions, 1));
        let mut second = Box::pin(read(&log, &positions, 1));
        tokio::select! {
            biased;
            _ = &mut first => panic!("it is not there"),
            _ = &mut second => panic!("it is not there"),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        // Whoever led is gone, in the middle of a look or between two.
        drop(first);
        log.head.store(1, Relaxed);
        let begun = Instant::now();
        assert_eq!(second.await, Ok(1));
        assert!(
            begun.elapsed() <= PAUSE[1] + 3 * WAY,
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(positions.count.load(Relaxed), 0);
        assert!(positions.waiting.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_quarter_of_the_calls_may_wait() {
        let log = Arc::new(Log::default());
        let positions = positions(&log, 40);
        let all = join_all((0..40).map(|_| read(&log, &positions, 7)));
        let answers = all.await;
        let busy = |answer: &&Result<u64, Problem>| matches!(answer, Err(Problem::Busy { .. }));
        assert_eq!(answers.iter().filter(busy).count(), 30);

        // Who asks for what is there is served while they wait.
        log.head.store(3, Relaxed);
        let waiting = join_all((0..10).map(|_| read(&log, &positions, 7)));
        let served = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let begun = Instant::now();
            for min in [0, 1, 3] {
                assert_eq!(read(&log, &positions, min).await, Ok(3));
            }
            assert_eq!(begun.elapsed(), 3 * WAY);
        };
        tokio::join!(waiting, served);
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_cannot_be_read_is_not_called_short() {
        let log = Arc::new(Log::default());
        let positions = positions(&log, 100);
        log.is_away.store(1, Relaxed);
        let begun = Instant::now();
        assert_eq!(
            read(&log, &positions, 1).await,
            Err(Problem::StorageUnavailable)
        );
        assert!(begun.elapsed() < Duration::from_secs(1));

        // One that does not answer at all.
        let hung = Positions::new(
            Lanes::ONE,
            100,
            Arc::new(|| futures::future::pending().boxed()),
        );
        assert_eq!(read(&log, &hung, 1).await, Err(Problem::StorageUnavailable));
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_went_back_is_not_asked_without_a_pause() {
        let log = Arc::new(Log::default());
        let positions = positions(&log, 100);
        log.head.store(9, Relaxed);
        read(&log, &positions, 9).await.unwrap();
        log.head.store(3, Relaxed);
        let before = log.reads.load(Relaxed);
        assert_eq!(read(&log, &positions, 9).await, Err(Problem::PositionAhead));
        assert_eq!(log.reads.load(Relaxed) - before, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_is_called_by_its_name() {
        let log = Arc::new(Log::default());
        let positions = positions(&log, 100);
        let patience = Patience {
            until: Instant::now() + Duration::from_secs(1),
            is_deadline: true,
        };
        let needs = [(LANE, Position::new(1))];
        let look = || async { Ok(Position::ZERO) };
        let answer = positions.read(&needs, patience, look, |at, _| *at).await;
        assert_eq!(answer, Err(Problem::DeadlineExceeded));
    }
}
