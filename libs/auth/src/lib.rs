//! Who calls, and what they may do (contract §7).
//!
//! [`authentication`] turns a bearer token into a verified [`Identity`], by keys that an issuer
//! publishes. [`authorization`] has policies in Rego decide, on a [`Document`] that a transport builds.
//! The crate knows requests, answers and transports no more than the model does: what is judged is a
//! document, and how a refusal is answered is the caller's.

pub mod authentication;
pub mod authorization;
pub mod document;
pub mod keys;

pub use authentication::{Authenticator, EventClaims, Identity, Refused, TokenRules};
pub use authorization::{Decision, Policies, Policy};
pub use document::Document;
pub use keys::{KeyRefresher, KeySettings, KeySource};
