//! The query service: answers reads of the current state and of the history from the storage.

mod freshness;
mod page_token;
mod service;

pub use self::service::QueryService;
