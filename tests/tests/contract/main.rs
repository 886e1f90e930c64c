//! The contract, line by line, over real gRPC, in one process and in three.
//!
//! Each test names the section it holds the gateway to. In three processes an ingress sends each call
//! to the process of its method; there the log has eight lanes, so that nothing rests on one. Whatever
//! the log is kept in, the answers are the same.

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

use stategate_tests::{Ask, Form, Gateway, Options, Store, postgres};

/// Runs a test on a fresh gateway of each form, and on each storage that services share.
async fn in_every_form(test: impl AsyncFn(Ask)) {
    let mut forms = vec![
        (Form::One, Store::Sqlite, 1),
        (Form::Three, Store::Sqlite, 8),
    ];
    if let Some(store) = postgres("the contract on PostgreSQL") {
        forms.push((Form::Three, store, 8));
    }
    for (form, store, lanes) in forms {
        println!("in {form}, with {lanes} lanes, on {store}");
        let options = Options::new(form).lanes(lanes).store(store);
        let mut gateway = Gateway::start(options).await;
        test(Ask::new(&mut gateway)).await;
        gateway.assert_no_errors();
    }
}
