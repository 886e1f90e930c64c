//! The command service: decides and persists writes that the policy permitted, and publishes them to the channel.
//!
//! [`CommandService`] implements the API: it reads the event that a Revert names, queues each write in its lane and
//! makes the answer. [`lane`] does the writing: one writer for each lane, many writes in one append.

mod faults;
pub mod lane;
mod plan;
mod service;
mod states;

pub use self::{
    plan::{Operation, Refused},
    service::{CommandService, Settings},
};
