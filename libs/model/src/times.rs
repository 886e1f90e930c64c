//! Times that have to be in an order, and that order: whoever waits for somebody who waits for somebody
//! else has to wait longer. What breaks the order does not compile; times that an operator sets are held
//! against these where they are read.

use std::time::Duration;

use crate::limits;

/// How long a statement waits for a lane that another one holds. It is sent so often ([`LOCK_TRIES`]) before
/// the storage gives it up.
pub const LOCK: Duration = Duration::from_millis(1_500);
/// How often an append that finds its lane held is sent.
pub const LOCK_TRIES: u32 = 4;
/// How long a write waits for a connection to its storage.
pub const CONNECTION: Duration = Duration::from_secs(4);
/// How long an append goes unanswered before it is in doubt, and is repeated.
pub const SILENCE: Duration = Duration::from_secs(3);
/// Pause before a storage is asked again after an append whose outcome is not known.
pub const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How long a write tries to reach its storage before its caller is told.
pub const WRITE: Duration = Duration::from_millis(7_500);
/// How much later than that a caller is told by itself, when the writer of its lane does not come to it.
pub const WRITE_MARGIN: Duration = Duration::from_millis(250);
/// How long a read of a few rows tries to reach its storage before its caller is told.
pub const READ: Duration = Duration::from_millis(7_500);
/// How long a statement that searches, or reads the log, may run, if an operator does not say otherwise.
pub const STATEMENT: Duration = Duration::from_secs(10);
/// How long after its own limit such a statement may go unanswered before its connection counts as lost.
pub const STATEMENT_SILENCE: Duration = Duration::from_secs(2);
/// How long such a statement waits for a connection to its storage.
pub const STATEMENT_CONNECTION: Duration = Duration::from_secs(5);
/// How long a client waits for an answer, if it is not told otherwise.
pub const CALL: Duration = Duration::from_secs(30);
/// How long a process has to end, if it is not told otherwise.
pub const GRACE: Duration = Duration::from_secs(10);

/// How much of the time that a process has to end is for calls that are under way; the rest is for closing
/// what they stand on.
pub const fn for_calls(grace: Duration) -> Duration {
    match grace.saturating_mul(4).checked_div(5) {
        Some(share) => share,
        None => grace,
    }
}

// The server's word about a held lane comes before it counts as silent.
const _: () = assert!(LOCK.as_millis() < SILENCE.as_millis());
// A held lane is given up, surely unwritten, before the write is, whose outcome would be unknown.
const _: () = assert!(LOCK.as_millis() * (LOCK_TRIES as u128) < WRITE.as_millis());
// What was not sent for want of a connection is surely not written, so it is told before the write ends.
const _: () = assert!(CONNECTION.as_millis() + SILENCE.as_millis() < WRITE.as_millis());
// An append met by silence is repeated, and the repetition may be met by silence too.
const _: () = assert!(2 * (SILENCE.as_millis() + ASK_AGAIN.as_millis()) < WRITE.as_millis());
// A caller hears what became of its write before it goes, and before a process that ends cuts it off.
const _: () = assert!(WRITE.as_millis() + WRITE_MARGIN.as_millis() < CALL.as_millis());
const _: () = assert!(WRITE.as_millis() + WRITE_MARGIN.as_millis() < for_calls(GRACE).as_millis());
// A read that got a connection has time left to be answered.
const _: () = assert!(CONNECTION.as_millis() + SILENCE.as_millis() < READ.as_millis());
const _: () = assert!(READ.as_millis() < for_calls(GRACE).as_millis());
// Whoever waits for a position hears that the log is behind it, or what became of the read after the wait,
// before it goes.
const _: () = assert!(limits::POSITION_WAIT.as_millis() + READ.as_millis() < CALL.as_millis());
const _: () = assert!(
    limits::POSITION_WAIT.as_millis()
        + STATEMENT_CONNECTION.as_millis()
        + STATEMENT.as_millis()
        + STATEMENT_SILENCE.as_millis()
        < CALL.as_millis()
);
// The server ends a statement at its limit, and says so, before its connection counts as lost.
const _: () = assert!(STATEMENT_SILENCE.as_millis() > 0);
// A client may be told to wait for longer, but for no longer than a server works on a call.
const _: () = assert!(CALL.as_millis() < limits::CALL_TIME.as_millis());
