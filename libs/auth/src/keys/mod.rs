//! The public keys that tokens are verified with (RFC 7517), and how they are kept fresh.
//!
//! A set is fetched from where the issuer publishes it, on a timer and when a token names a key that is
//! not known. It replaces the last one whole, so that a key that is withdrawn is gone; while the issuer
//! does not answer, the last set stays in force up to a limit.

mod fetch;
mod key;
mod keyring;
mod set;
mod source;

pub(crate) use self::{
    keyring::{Held, Keyring, Renewal},
    set::Missing,
};
pub use self::{
    keyring::{KeyRefresher, KeySettings, SettingsError},
    source::{KeySource, SourceError},
};
