//! What the gateway does, in the model's types and without a transport.
//!
//! A transport adapter (gRPC today) decodes a message into a [request](request) and a [`Context`],
//! has the [`Rules`] of [`Access`] decide, calls the service and encodes what comes back. A service implements one of
//! the traits in [`service`] and knows requests, answers and [`Problem`]s, but no gRPC and no HTTP.
//!
//! A handler takes a [`Permitted`] request, which only [`Rules`] make, and an adapter encodes a
//! [`Released`] answer, which only they make too. So a call that was not decided does not
//! compile.

pub mod access;
pub mod answer;
pub mod audit;
mod caller;
pub mod context;
pub mod documents;
pub mod gate;
mod input;
mod log_throttle;
pub mod operation;
pub mod page_token;
pub mod problem;
pub mod request;
pub mod service;

pub use self::{
    access::{Access, Message, Permitted, Released, Rules},
    answer::{Answer, Delivery, Entity, EntityPage, EventPage, Subscription},
    caller::Caller,
    context::{Context, Seen},
    gate::{Gate, GateWatch, Undelivered, Verdicts},
    log_throttle::LogThrottle,
    operation::Operation,
    problem::Problem,
    request::{
        Action, Del, Edit, Get, GetEvent, Revert, Search, SearchEvents, Set, Start, Step,
        Subscribe, Transact,
    },
    service::{Command, Query, Stream},
};
