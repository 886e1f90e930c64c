//! What every service needs around its logic: configuration, telemetry, limits, health, serving and
//! draining.
//!
//! A service implements one of the traits of [`stategate_api`] and hands it over; everything between the
//! socket and that trait is here, once, so that the three services and the gateway cannot differ.
//! A main reads as a list:
//!
//! ```no_run
//! # use stategate_server::{AccessControl, Config, Drain, Env, Services, Telemetry};
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::read(&Env::of_process(), &[])?;
//! let telemetry = Telemetry::install(config.debug)?;
//! let drain = Drain::new();
//! // let storage = stategate_storage::open(&config.storage.parse()?).await?;
//! // drain.on_close("storage", async move { storage.close().await });
//! let services = Services::default();
//! let running = stategate_server::start(&config, services, AccessControl::open(), &telemetry, &drain).await?;
//! running.ready().await;
//! running.ended().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The crate knows no storage and no channel: it hands their settings on as they are
//! ([`config::Provider`]), and only services join the three.

mod accept;
mod access_control;
mod admission;
mod answers;
pub mod config;
mod connection;
mod deadline;
pub mod drain;
mod end;
pub mod env;
mod failure;
pub mod grpc;
mod in_flight;
pub mod limits;
mod methods;
mod panics;
mod peer;
pub mod pem;
mod readiness;
pub mod serve;
pub mod services;
mod signals;
pub mod tasks;
pub mod telemetry;
mod tls;
pub mod variables;

pub use stategate_api::LogThrottle;

pub use self::{
    access_control::AccessControl,
    config::Config,
    drain::Drain,
    env::Env,
    grpc::Grpc,
    limits::Limits,
    panics::caught,
    serve::{Addresses, Running, Server, start},
    services::{Foundation, Services, Unfit},
    tasks::Tasks,
    telemetry::Telemetry,
};
