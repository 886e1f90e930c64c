//! The contract, line by line, over real gRPC, in one process and in three.
//!
//! Each test names the section it holds the gateway to. In three processes an ingress sends each call
//! to the process of its method; there the log has eight lanes, so that nothing rests on one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

mod history;
mod paging;
mod preconditions;
mod reads;
mod retries;
mod searches;
mod streams;
mod transactions;
mod wire;
mod writes;

use stategate_tests::{Ask, Form, Gateway, Options};

/// Runs a test on a fresh gateway of each form.
async fn in_every_form(test: impl AsyncFn(Ask)) {
    for (form, lanes) in [(Form::One, 1), (Form::Three, 8)] {
        println!("in {form}, with {lanes} lanes");
        let mut gateway = Gateway::start(Options::new(form).lanes(lanes)).await;
        test(Ask::new(&mut gateway)).await;
        gateway.assert_no_errors();
    }
}
