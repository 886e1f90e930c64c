//! The query service as a process.
fn main() {}
