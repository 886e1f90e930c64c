//! The Rust client of stategate.
//!
//! A [`Client`] makes typed calls. Writes carry an idempotency key of their own, so that a retry after
//! a lost connection cannot write twice; reads see what the same client wrote before, wherever they
//! are answered; streams reconnect and go on after the last event they delivered.
//!
//! ```no_run
//! use stategate_client::{Client, EntityRef, json};
//!
//! # async fn run() -> Result<(), stategate_client::Error> {
//! let client = Client::connect("http://127.0.0.1:8080")?;
//! let ada = EntityRef::new("acme", "user", "ada")?;
//!
//! client.set(&ada, json!({ "name": "Ada", "logins": 1 })).await?;
//! client.update(&ada, |values| {
//!     let logins = values["logins"].as_i64().unwrap_or(0);
//!     values["logins"] = json!(logins + 1);
//! }).await?;
//! assert_eq!(client.get(&ada).await?.values["logins"], 2);
//! # Ok(())
//! # }
//! ```

mod client;
mod error;
mod reads;
mod retry;
mod subscription;
mod transaction;
mod turns;
mod writes;

pub use serde_json::{Value, json};
pub use stategate_model::{
    At, EntityRef, Event, EventId, Invalid, Method, Position, Timestamp, Token, Version,
};

pub use self::{
    client::{Builder, Client},
    error::{Error, Kind},
    reads::{Entity, Page, Search, SearchEvents},
    retry::Retry,
    subscription::{Start, Subscription, Watch},
    transaction::{Transacted, Transaction},
    writes::{Condition, Written},
};
