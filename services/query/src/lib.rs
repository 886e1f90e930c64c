//! The query service: answers reads of the current state and of the history from the storage, and of the
//! current state from a [`View`] where there is one beside it.

mod service;
mod view;

pub use self::{service::QueryService, view::View};
