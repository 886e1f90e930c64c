//! The Rust client of stategate.
//!
//! A [`Client`] makes typed calls. Writes carry an idempotency key of their own, so that a retry after
//! a lost connection cannot write twice; reads see what the same client wrote before, wherever they
//! are answered; streams reconnect and go on after the last event they delivered.
//! When the log behind the address is replaced, one call says so ([`ErrorKind::LogChanged`]), and the client
//! goes on with the log there is. A write that fails says what is known of it ([`Error::outcome`]).
//! A token may expire while a call or a stream goes on: a [`TokenFile`] that is kept current, or a
//! [`TokenSource`] of the application, has the next one.
//!
//! The whole of it in one program, which the tests run against a gateway:
//!
//! ```no_run
#![doc = include_str!("../examples/quickstart.rs")]
//! ```

mod bearer;
mod client;
mod error;
mod handshake;
mod known;
mod reads;
mod retry;
mod subscription;
mod transaction;
mod turns;
mod writes;

pub use async_trait::async_trait;
pub use serde_json::{Value, json};
pub use stategate_model::{
    At, EntityRef, Event, EventId, Invalid, KindRef, Lane, Method, Position, Timestamp, Token,
    Version,
};

pub use self::{
    bearer::{BearerToken, TokenError, TokenFile, TokenSource},
    client::{Builder, Client, Tls, sends_in_clear},
    error::{Error, ErrorKind, Outcome, was_never_sent},
    reads::{Entity, Page, Search, SearchEvents},
    retry::Retry,
    subscription::{Start, Step, Subscription, Watch},
    transaction::{Transacted, Transaction},
    writes::{Changed, Condition, Payload, Terms, Written},
};
