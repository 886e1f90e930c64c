//! The command service as a process.
fn main() {}
