//! Tokens of a real OpenID provider: found by its discovery document, verified by the keys it publishes,
//! followed when it changes them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, with a message"
)]

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use stategate_auth::{
    Authenticator, EventClaims, KeySettings, KeySource, Refused, TokenRules,
    authentication::AuthenticatorSettings,
};
use stategate_servers::{Missing, Oidc};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

const API: &str = "https://stategate.example";
const OTHER_API: &str = "https://elsewhere.example";
const PATIENCE: Duration = Duration::from_secs(60);

fn provider() -> Result<Oidc, Missing> {
    Oidc::start(&[
        ("billing", json!({ "tenant": "acme" })),
        ("audit", json!({ "tenant": "acme", "roles": ["reader"] })),
    ])
}

/// An authenticator with its refresher, which ends with it.
struct Verifier {
    authenticator: Arc<Authenticator>,
    refresher: JoinHandle<()>,
}

impl Verifier {
    async fn start(keys: KeySettings, issuer: String) -> Self {
        let settings = AuthenticatorSettings {
            keys,
            rules: TokenRules {
                issuers: vec![issuer],
                audiences: vec![API.to_owned()],
                ..TokenRules::default()
            },
            event_claims: EventClaims::All,
        };
        let (authenticator, refresher) = Authenticator::new(settings).unwrap();
        let refresher = tokio::spawn(refresher.run());
        authenticator.until_ready().await;
        Self {
            authenticator: Arc::new(authenticator),
            refresher,
        }
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.refresher.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_provider_are_verified_and_its_keys_followed() {
    let provider = match provider() {
        Ok(provider) => provider,
        Err(missing) => return missing.report("tokens of an OpenID provider"),
    };
    let keys = KeySettings {
        refresh: Duration::from_millis(200),
        // So that what is seen without a wait is seen for the sake of an unknown key.
        demand_interval: Duration::ZERO,
        ..KeySettings::new(KeySource::issuer(&provider.issuer()).unwrap())
    };
    let patient = KeySettings {
        refresh: Duration::from_secs(3_600),
        ..keys.clone()
    };
    let verifier = Verifier::start(patient, provider.issuer()).await;
    let verify = async |token: &str| verifier.authenticator.verify(token).await;

    let first = provider.token("billing", API).await;
    let identity = verify(&first).await.unwrap();
    assert_eq!(identity.name().0, provider.issuer());
    assert_eq!(identity.name().1, "billing");
    let claims: Value = serde_json::from_str(&identity.claims().to_json()).unwrap();
    assert_eq!(claims["tenant"], "acme");
    assert_eq!(claims["aud"], API);

    let elsewhere = provider.token("billing", OTHER_API).await;
    let refused = verify(&elsewhere).await.unwrap_err();
    assert_eq!(refused, Refused::AudienceWrong);

    // The next key signs, and the one before is still published.
    provider.rotate(&["two", "one"]);
    let second = provider.token("audit", API).await;
    assert_eq!(verify(&second).await.unwrap().name().1, "audit");
    assert!(verify(&first).await.is_ok());

    // The one before is withdrawn. Nobody asks for it, so it takes a refresh.
    let following = Verifier::start(keys, provider.issuer()).await;
    assert!(following.authenticator.verify(&first).await.is_ok());
    provider.rotate(&["two"]);
    let begun = Instant::now();
    loop {
        match following.authenticator.verify(&first).await {
            Err(Refused::KeyUnknown) => break,
            verified => assert!(begun.elapsed() < PATIENCE, "{verified:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!(following.authenticator.verify(&second).await.is_ok());

    // An outage does not matter to whoever has keys.
    provider.kill();
    assert!(following.authenticator.verify(&second).await.is_ok());
    assert!(verify(&second).await.is_ok());
    provider.rotate(&["three"]);
    let third = provider.token("billing", API).await;
    assert!(verify(&third).await.is_ok());

    let other = provider_of_another_name(&third).await;
    assert_eq!(other, Refused::KeyUnknown);
}

/// What a gateway of another provider says of a token of this one.
async fn provider_of_another_name(token: &str) -> Refused {
    let other = provider().ok().expect("it is installed");
    let keys = KeySettings::new(KeySource::issuer(&other.issuer()).unwrap());
    let verifier = Verifier::start(keys, other.issuer()).await;
    verifier.authenticator.verify(token).await.unwrap_err()
}
