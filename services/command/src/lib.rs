//! The command service: authorises, decides and persists writes, and tells the channel.
//!
//! [`CommandService`] is the edge: it parses calls, resolves what a Revert refers to and prints the
//! answers. [`lane`] is the heart: one writer a lane, many writes an append.

mod faults;
pub mod lane;
mod plan;
mod service;
mod states;

pub use self::{
    plan::{Operation, Refused},
    service::{CommandService, Settings},
};
