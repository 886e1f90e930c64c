//! How often a caller may call.

use stategate_tests::{Ask, Form, Gateway, Issuer, Options};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{ALL, of};

#[tokio::test]
async fn one_callers_rate_is_no_other_callers() {
    let issuer = Issuer::new();
    let options = Options::new(Form::One).protected(&issuer, ALL, ALL);
    let mut gateway = Gateway::start(options.env("STATEGATE_MAX_CALLER_RATE", "10")).await;
    let ask = Ask::new(&mut gateway);
    let (ada, bob) = (of(&issuer, "acme", "ada"), of(&issuer, "acme", "bob"));
    let calls = (0..100)
        .map(|_| ask.bearing(&ada))
        .map(|ask| async move { ask.get("d/t/k").await });
    let answers = futures::future::join_all(calls).await;
    let refused: Vec<_> = answers
        .into_iter()
        .filter_map(Result::err)
        .filter(|status| status.code() == Code::ResourceExhausted)
        .collect();
    assert!(refused.len() >= 50, "only {} of 100 at once", refused.len());
    assert!(refused[0].get_details_retry_info().is_some());
    let other = ask.bearing(&bob).get("d/t/k").await.unwrap_err();
    assert_eq!(other.code(), Code::NotFound);
}

#[tokio::test]
async fn forged_tokens_of_one_address_are_not_verified_without_end() {
    let issuer = Issuer::new();
    let options = Options::new(Form::One).protected(&issuer, ALL, ALL);
    let mut gateway = Gateway::start(options.env("STATEGATE_MAX_PEER_RATE", "10")).await;
    let ask = Ask::new(&mut gateway);
    let good = ask.bearing(&of(&issuer, "acme", "ada"));
    assert_eq!(good.get("d/t/k").await.unwrap_err().code(), Code::NotFound);
    let forger = Issuer::new();
    let mut codes = Vec::new();
    for n in 0..100 {
        let forged = ask.bearing(&of(&forger, "acme", &n.to_string()));
        codes.push(forged.get("d/t/k").await.unwrap_err().code());
    }
    let busy = codes
        .iter()
        .filter(|code| **code == Code::ResourceExhausted)
        .count();
    assert!(busy >= 50, "{codes:?}");
    // Whoever was verified before is known.
    assert_eq!(good.get("d/t/k").await.unwrap_err().code(), Code::NotFound);
}
