//! The server over real sockets: what it lets in, what it answers, how it ends.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

mod connections;
mod draining;
mod guarding;
mod health;
mod support;
mod tls;
