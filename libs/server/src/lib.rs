//! What every service needs around its logic: configuration, telemetry, limits, health, serving and
//! draining.
//!
//! A service implements one of the traits in [`api`] and hands it over; everything between the
//! socket and that trait is here, once, so that the three services and the gateway cannot differ.

pub mod api;
pub mod config;
pub mod drain;
pub mod env;
pub mod variables;

pub use self::{
    api::{CommandApi, EventStream, QueryApi, Services, StreamApi},
    config::Config,
    drain::Drain,
    env::Env,
};
