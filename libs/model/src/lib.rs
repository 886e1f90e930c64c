//! The domain of stategate, as plain data and pure functions.
//!
//! Everything a client may rely on that needs no storage, network or clock is decided here: what a
//! legal name, value, filter or glob is, what a write does to an entity, how results are ordered.
//! The crate knows no async runtime, no wire format and no database, so that every backend and every
//! transport gives the same answer: there is one answer.

pub mod command;
pub mod event;
pub mod filter;
pub mod glob;
pub mod invalid;
pub mod json;
pub mod limits;
pub mod name;
pub mod order;
pub mod position;
pub mod query;
pub mod times;
mod tree;
pub mod value;
pub mod window;

pub use command::{Change, Command, Expect, Refusal, State, decide};
pub use event::{Claims, Digest, Event, EventId, IdempotencyKey, Method, TraceParent};
pub use filter::{Filter, Path};
pub use glob::Glob;
pub use invalid::{Invalid, Reason};
pub use limits::Limits;
pub use name::{Domain, EntityRef, Kind, KindRef};
pub use order::{Cursor, Direction, Sort, SortKey, SortPart, Tie};
pub use position::{Heads, Lane, Lanes, LogId, Position, Timestamp, Token, Version};
pub use query::{At, EntityQuery, EventQuery, PageRequest};
pub use tree::{Object, Value};
pub use value::Values;
pub use window::{Page, Scan, Window};
