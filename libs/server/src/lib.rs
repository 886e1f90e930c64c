//! What every service needs around its logic: configuration, telemetry, limits, health, serving and
//! draining.
//!
//! A service implements one of the traits in [`api`] and hands it over; everything between the
//! socket and that trait is here, once, so that the three services and the gateway cannot differ.
//! A main reads as a list:
//!
//! ```no_run
//! # use stategate_server::{Config, Drain, Env, Services, Telemetry};
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::read(&Env::of_process(), &[])?;
//! let telemetry = Telemetry::install(config.debug)?;
//! let drain = Drain::new();
//! // let storage = stategate_storage::open(&config.storage.parse()?).await?;
//! // drain.on_close("storage", async move { storage.close().await });
//! let services = Services::default();
//! stategate_server::run(&config, services, &telemetry, &drain).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The crate knows no storage and no channel: it hands their settings on as they are
//! ([`config::Provider`]), and only services join the three.

mod accept;
pub mod api;
mod calls;
pub mod config;
mod deadline;
pub mod drain;
pub mod env;
pub mod events;
pub mod freshness;
mod in_flight;
mod methods;
mod panics;
pub mod pem;
pub mod positions;
mod readiness;
mod seldom;
pub mod serve;
mod signals;
pub mod tasks;
pub mod telemetry;
pub mod variables;

pub use self::{
    api::{CommandApi, QueryApi, Services, StreamApi, Unfit},
    config::Config,
    deadline::deadline,
    drain::Drain,
    env::Env,
    events::{EventPart, EventStream},
    freshness::Freshness,
    panics::caught,
    positions::Positions,
    seldom::Seldom,
    serve::{Addresses, Running, Server, run, start},
    tasks::Tasks,
    telemetry::Telemetry,
};
