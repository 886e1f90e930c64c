//! What the gateway does, in the model's types and without a transport.
//!
//! A transport adapter (gRPC today) decodes a message into a [request](request) and a [`Context`],
//! has [`Access`] decide, calls the service and encodes what comes back. A service implements one of
//! the traits in [`service`] and knows requests, answers and [`Problem`]s, but no gRPC and no HTTP.
//!
//! A handler takes a [`Permitted`] request, which only [`Access`] makes, and an adapter encodes a
//! [`Released`] answer, which only [`Access`] makes too. So a call that was not decided does not
//! compile.

pub mod access;
pub mod answer;
pub mod context;
pub mod documents;
pub mod page_token;
pub mod policy;
pub mod problem;
pub mod request;
pub mod service;

pub use self::{
    access::{Access, Permitted, Released},
    answer::{Answer, Delivery, Entity, EntityPage, EventPage, Subscription},
    context::Context,
    policy::{Operation, Policy},
    problem::Problem,
    request::{
        Action, Del, Edit, Get, GetEvent, Revert, Search, SearchEvents, Set, Start, Step,
        Subscribe, Transact,
    },
    service::{Command, Query, Stream},
};
