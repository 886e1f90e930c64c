//! What a caller may do and see: policies in Rego that answer `data.stategate.authz.allow` (contract §7).
//!
//! A policy is compiled once. What it decides on is a [`Document`](crate::Document) that the caller
//! builds, and only if the policy looks at it. Everything but exactly `true` denies: no policy, no
//! result, another result, an error, a limit.

mod files;
mod patterns;
mod policies;
mod program;
mod reads;
mod recursion;
mod screen;
mod tokens;

pub use self::{
    files::{PolicyReloader, PolicySettings, PolicySource, SourceError},
    policies::{Policies, PolicySet},
    program::{Decision, Denied, Limits, Module, Policy, PolicyError},
    reads::{Members, Reads, SharingKey},
};
