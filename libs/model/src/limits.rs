//! Every bound on an input, in one place (contract §§1, 3, 4, 5, 6).

use std::time::Duration;

/// Longest domain, type or key, in bytes.
pub const NAME_BYTES: usize = 255;
/// Deepest nesting of values; `values` itself is level 1.
pub const VALUE_DEPTH: usize = 24;
/// Largest message on any transport, in bytes.
pub const MESSAGE_BYTES: usize = 4 << 20;
/// Most bytes of an answer's page before it ends with a page token.
pub const PAGE_BYTES: usize = 3 << 20;
/// Most bytes of one transaction's events.
pub const TRANSACTION_BYTES: usize = 3 << 20;
/// Most operations in one transaction.
pub const TRANSACTION_OPERATIONS: usize = 1_000;
/// Largest claims kept with an event, as canonical JSON.
pub const CLAIMS_BYTES: usize = 16 << 10;
/// Longest filter text, in bytes.
pub const FILTER_BYTES: usize = 16 << 10;
/// Most nodes (members and array elements) of a filter.
pub const FILTER_NODES: usize = 64;
/// Deepest nesting of a filter.
pub const FILTER_DEPTH: usize = 8;
/// Longest glob, in bytes.
pub const GLOB_BYTES: usize = 256;
/// Most wildcards of a glob.
pub const GLOB_WILDCARDS: usize = 16;
/// Results of a search that names no limit.
pub const SEARCH_LIMIT_DEFAULT: u32 = 100;
/// Most results of one search.
pub const SEARCH_LIMIT_MAX: u32 = 10_000;
/// Most results a sorted search holds at once: `offset + limit` may not exceed it.
pub const SORT_WINDOW: u64 = 100_000;
/// Bytes of a string that count in a sort.
pub const SORT_STRING_BYTES: usize = 1_024;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES: usize = 128;
/// Most events in one append.
pub const BATCH_EVENTS: usize = 1_000;
/// Most bytes in one append.
pub const BATCH_BYTES: usize = 8 << 20;
/// Most lanes of a log.
pub const LANES: u8 = 64;

/// Longest that a call with one answer may take: a later deadline counts as this.
pub const CALL_TIME: Duration = Duration::from_secs(600);
/// Longest that a read waits for a position that the log has not reached.
pub const POSITION_WAIT: Duration = Duration::from_secs(10);

/// Default of [`Limits::value_bytes`].
pub const VALUE_BYTES_DEFAULT: usize = 1 << 20;
/// Highest that [`Limits::value_bytes`] may be set to.
pub const VALUE_BYTES_MAX: usize = 3 << 20;

/// The bounds that an operator may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of an entity's values as canonical JSON after any write.
    pub value_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            value_bytes: VALUE_BYTES_DEFAULT,
        }
    }
}
