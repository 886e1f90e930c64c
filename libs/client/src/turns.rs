//! Turns: who may update an entity next, and how soon.
//!
//! Of updates that read one version just one can write the next, so the others' work is in vain. Those
//! of one client go one after the other. Those of different clients know nothing of each other but
//! how often they lost. A few that try at once do no harm: who lost tries again at once, as soon as the
//! winner can, and so none waits for long. But of a crowd each round costs all of them a try. So an
//! update that lost more often than a few would have made it lose has its client come later next
//! time, by some rounds for each try too many, and one that won at once has it come sooner. What was
//! learnt is kept from one update to the next, and forgotten with time.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use lru::LruCache;
use parking_lot::Mutex;
use stategate_model::EntityRef;
use tokio::time::Instant;

/// Entities whose turns are remembered. One that is forgotten costs collisions, nothing else.
const ENTITIES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1_023);
/// How many may try at once: enough that somebody always does.
const FEW: u32 = 3;
/// Tries after which an update steps aside: it met a crowd.
const MANY: u32 = 8;
/// The shortest time worth waiting.
const SHORTEST: Duration = Duration::from_millis(1);
/// The time that entries are spread over once a crowd is met.
const FIRST: Duration = Duration::from_millis(16);
/// The longest time that entries are spread over, so that none waits longer than that.
const LONGEST: Duration = Duration::from_secs(2);
/// Entries are spread over the time of so many rounds more for each try too many.
const GAIN: u32 = 8;
/// How much longer than the quickest one a round is believed to take: a crowd makes its own rounds
/// slow.
const SLOWER: f64 = 1.05;

/// The turns of a client's updates, by entity.
#[derive(Debug)]
pub(crate) struct Turns(Mutex<LruCache<EntityRef, Turn>>);

/// The queue of one entity's updates: first come, first served.
pub(crate) type Turn = Arc<tokio::sync::Mutex<Pace>>;

impl Default for Turns {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(ENTITIES)))
    }
}

impl Turns {
    /// The queue of an entity.
    pub(crate) fn of(&self, entity: &EntityRef) -> Turn {
        let mut turns = self.0.lock();
        Arc::clone(turns.get_or_insert_ref(entity, Turn::default))
    }
}

/// How soon an update of an entity enters the contest.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The time that entries are spread over; zero while there is no crowd.
    spread: Duration,
    /// When that was learnt.
    since: Instant,
    /// What a round takes without a crowd: one try of everybody in the contest.
    round: Option<Duration>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            spread: Duration::ZERO,
            since: Instant::now(),
            round: None,
        }
    }
}

impl Pace {
    /// How long to wait before entering: some time within the spread, which halves each time that it
    /// has passed without an update.
    pub(crate) fn wait(&mut self) -> Duration {
        let now = Instant::now();
        while !self.spread.is_zero() && self.since + self.spread < now {
            let since = self.since + self.spread;
            self.set(self.spread / 2);
            self.since = since;
        }
        self.spread.mul_f64(fastrand::f64())
    }

    /// An update's last try of so many took so long and came too late. Whether it tries again at once;
    /// if not, it enters anew.
    pub(crate) fn lost(&mut self, tries: u32, took: Duration) -> bool {
        self.round(took);
        let stays = !tries.is_multiple_of(MANY);
        if !stays {
            self.set((self.spread * 2).max(FIRST));
        }
        stays
    }

    /// An update went through with the last of that many tries, which took so long.
    pub(crate) fn won(&mut self, tries: u32, took: Duration) {
        let round = self.round(took);
        self.set(match tries {
            // Nobody was there, or few: the crowd may be gone, or be kept away for too long.
            1 => self.spread - self.spread / 4,
            2..FEW => self.spread,
            _ => self.spread + (round * GAIN * (tries - FEW)).min(self.spread.max(FIRST)),
        });
    }

    fn round(&mut self, took: Duration) -> Duration {
        let round = match self.round {
            Some(round) => took.min(round.mul_f64(SLOWER)),
            None => took,
        };
        *self.round.insert(round)
    }

    fn set(&mut self, spread: Duration) {
        self.spread = match spread {
            spread if spread < SHORTEST => Duration::ZERO,
            spread => spread.min(LONGEST),
        };
        self.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_millis(3);

    #[tokio::test(start_paused = true)]
    async fn a_few_never_wait() {
        let mut pace = Pace::default();
        for tries in [1, 2, 1, FEW, 1, 3] {
            for lost in 1..tries {
                assert!(pace.lost(lost, ROUND));
            }
            pace.won(tries, ROUND);
            assert_eq!(pace.wait(), Duration::ZERO, "after {tries} tries");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_makes_room_for_itself() {
        let mut pace = Pace::default();
        let mut spread = Duration::ZERO;
        for tries in 1..=7 * MANY {
            let stays = pace.lost(tries, ROUND);
            assert_eq!(stays, tries % MANY != 0);
            assert_eq!(pace.spread > spread, !stays, "at try {tries}");
            spread = pace.spread;
            assert!(spread <= LONGEST && pace.wait() <= spread);
        }
        // Nobody is there any more: so the client comes sooner.
        pace.won(1, ROUND);
        assert!(pace.spread < spread);
        // And after a while as if there had never been anybody.
        tokio::time::advance(LONGEST * 3).await;
        assert_eq!(pace.wait(), Duration::ZERO);
    }

    #[test]
    fn an_entity_has_one_queue() {
        let turns = Turns::default();
        let entity = |key: &str| EntityRef::new("d", "t", key).unwrap();
        assert!(Arc::ptr_eq(
            &turns.of(&entity("a")),
            &turns.of(&entity("a"))
        ));
        assert!(!Arc::ptr_eq(
            &turns.of(&entity("a")),
            &turns.of(&entity("b"))
        ));
    }
}
