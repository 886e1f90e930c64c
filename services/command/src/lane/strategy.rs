//! How a lane works on its storage, chosen once at the start from how far away the storage is.

use stategate_storage::Info;

/// Batches that are written in a row before the writer reads the head, so that a writer of another
/// process gets its turn however busy this one is.
const BATCHES_IN_A_ROW: u32 = 16;
/// How often a writer of a remote storage yields to the scheduler before it takes a small batch.
const YIELDS: u32 = 4;

/// What a lane's writer does to save round trips or turns, and what it omits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strategy {
    /// Callers of a durable batch are answered before the next batch is taken, not while it is appended: they
    /// may have written again by then, and larger batches are cheaper.
    pub(super) answers_first: bool,
    /// What the next batch needs is read while an append is on its way.
    pub(super) prefetches: bool,
    /// How often it yields to the scheduler before it takes a small batch, so that callers who have just been
    /// answered can join it.
    pub(super) yields: u32,
    /// Batches in a row before the head is read, for the sake of other writers; `None` if none is kept waiting.
    pub(super) batches_in_a_row: Option<u32>,
}

impl Strategy {
    /// For a storage whose calls cost no round trip: nothing is gained by reading ahead, and other writers take
    /// their turns inside the storage.
    const LOCAL: Self = Self {
        answers_first: true,
        prefetches: false,
        yields: 0,
        batches_in_a_row: None,
    };
    /// For a storage that answers after a round trip, and that this process has for itself.
    const REMOTE: Self = Self {
        answers_first: false,
        prefetches: true,
        yields: YIELDS,
        batches_in_a_row: None,
    };
    /// For one that other processes write to as well.
    const SHARED: Self = Self {
        batches_in_a_row: Some(BATCHES_IN_A_ROW),
        ..Self::REMOTE
    };

    /// The one for a storage.
    pub(super) fn of(storage: &Info) -> Self {
        match (storage.is_local, storage.capabilities.shared) {
            (true, _) => Self::LOCAL,
            (false, true) => Self::SHARED,
            (false, false) => Self::REMOTE,
        }
    }
}
