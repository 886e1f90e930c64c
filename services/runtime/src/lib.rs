//! What the three services and the gateway have in common: opening the storage and the channel, serving, and
//! ending in order; and what each service needs of the log beside the storage itself.
//!
//! A main reads as a list of what is its own:
//!
//! ```no_run
//! # use stategate_runtime::{Process, Services, Config, Env};
//! # async fn run() -> anyhow::Result<()> {
//! let process = Process::open(Config::read(&Env::of_process(), &[])?).await?;
//! // let query = QueryService::new(process.storage(), process.positions());
//! process.serve(Services::default()).await
//! # }
//! ```

mod foundation;
pub mod freshness;
pub mod positions;
mod problem;
mod process;

pub use stategate_server::{Config, Drain, Env, LogThrottle, Services, Tasks, caught};

pub use self::{
    freshness::Freshness,
    positions::Positions,
    problem::of_read,
    process::{Process, Scope, Source, main},
};
