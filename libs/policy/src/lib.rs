//! What a caller may do and see: policies in Rego that answer `data.stategate.authz.allow` (contract §7).
//!
//! A policy is compiled once. What it decides on is a [`Document`] that the caller builds, and only if the policy
//! looks at it. Everything but exactly `true` denies: no policy, no result, another result, an error, a limit.
//! The crate knows requests, answers and transports no more than the model does.
//!
//! A decision is the one that OPA makes, or the policy is refused when it is loaded: for functions whose cost
//! a caller could choose, and for what the engine has not got (`with`, `walk`, partial objects of constant
//! keys, a minus before anything but a number) or has otherwise (patterns of objects). Two differences
//! remain: sets are ordered before objects, and `count` of a text counts a character beyond U+FFFF twice.

mod document;
mod files;
pub mod kit;
mod message;
mod patterns;
mod policies;
mod program;
mod reads;
mod recursion;
mod screen;
mod tokens;

pub use self::{
    document::Document,
    files::{PolicyReloader, PolicySettings, PolicySource, SourceError, policies_in},
    message::{Message, Name, int64},
    policies::{Policies, PolicySet},
    program::{Decision, Denied, Limits, Module, Policy, PolicyError},
    reads::{Class, Members, Reads},
};
