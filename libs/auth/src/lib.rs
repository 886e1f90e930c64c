//! Who calls (contract §7).
//!
//! [`authentication`] turns a bearer token into a verified
//! [`Caller`](stategate_api::Caller), by keys that an issuer
//! publishes ([`keys`]). The crate knows requests, answers and transports no more than the model does: how a
//! refusal is answered is the caller's.

pub mod authentication;
pub mod keys;

pub use authentication::{Authenticator, EventClaims, Refused, TokenRules};
pub use keys::{KeyRefresher, KeySettings, KeySource};
