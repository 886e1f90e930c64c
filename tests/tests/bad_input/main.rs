//! Bad input at every field, in every header, in every frame: a named error and nothing else, from a
//! process that goes on (contract §§1, 4, 5, 6, 8).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

mod arbitrary;
mod call;
mod frames;
mod table;
