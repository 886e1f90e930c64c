//! `stategate`: the whole gateway in one process, and the commands of its clients.

// Their macros panic when whoever reads the stream has left.
#![cfg_attr(not(test), warn(clippy::print_stderr, clippy::print_stdout))]

mod cli;
mod dev;
mod dev_auth;
mod prompt;

use std::process::ExitCode;

/// Many small values are made and dropped on the way of every call.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
