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
use stategate_client::{
    BearerToken, Client, EntityRef, ErrorKind, KindRef, SearchEvents, TokenError, TokenSource,
    async_trait,
};
use stategate_servers::{Missing, Oidc};
use stategate_tests::{Form, Gateway, Options, Role, alone, cli::examples};
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
    assert_eq!(identity.name(), (provider.issuer().as_str(), "billing"));
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
    let other = provider().unwrap();
    let keys = KeySettings::new(KeySource::issuer(&other.issuer()).unwrap());
    let verifier = Verifier::start(keys, other.issuer()).await;
    verifier.authenticator.verify(token).await.unwrap_err()
}

/// An application that has its tokens from the provider.
struct Application {
    provider: Arc<Oidc>,
    api: &'static str,
    held: tokio::sync::Mutex<Option<BearerToken>>,
}

impl Application {
    fn new(provider: &Arc<Oidc>, api: &'static str) -> Self {
        Self {
            provider: Arc::clone(provider),
            api,
            held: tokio::sync::Mutex::default(),
        }
    }
}

#[async_trait]
impl TokenSource for Application {
    async fn token(&self, refused: Option<&BearerToken>) -> Result<BearerToken, TokenError> {
        let mut held = self.held.lock().await;
        match &*held {
            Some(token) if refused != Some(token) => Ok(token.clone()),
            _ => {
                let token = self.provider.token("billing", self.api).await;
                let token = BearerToken::new(&token).unwrap();
                Ok(held.insert(token).clone())
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_serves_callers_of_a_provider() {
    let provider = match provider() {
        Ok(provider) => Arc::new(provider),
        Err(missing) => return missing.report("a gateway with an OpenID provider"),
    };
    let _turn = alone().await;
    let policy = |name: &str| {
        let path = examples().join("policies/tenant-isolation").join(name);
        path.to_str().unwrap().to_owned()
    };
    let options = Options::new(Form::One)
        .env("STATEGATE_AUTH_DISABLED", "false")
        .env("STATEGATE_OIDC_ISSUER", provider.issuer())
        .env("STATEGATE_JWT_AUDIENCE", API)
        .env("STATEGATE_REQUEST_POLICY_FILE", policy("policy.rego"))
        .env("STATEGATE_RESPONSE_POLICY_FILE", policy("response.rego"));
    let mut gateway = Gateway::start(options).await;
    let address = format!("http://{}", gateway.process(Role::Everything).grpc());
    let connect = |api| {
        let application = Application::new(&provider, api);
        let builder = Client::builder(address.clone()).token_source(application);
        builder.build().unwrap()
    };
    let client = connect(API);
    let own = EntityRef::new("acme", "bill", "1").unwrap();
    client.set(&own, json!({ "total": 3 })).await.unwrap();
    let bills = KindRef::new("acme", "bill").unwrap();
    let found = client
        .search_events(&SearchEvents::new(&bills))
        .await
        .unwrap();
    let claims: Value = serde_json::from_str(found.items[0].claims.values().json()).unwrap();
    assert_eq!(claims["sub"], "billing");
    assert_eq!(claims["iss"], provider.issuer());

    let of_another = EntityRef::new("globex", "bill", "1").unwrap();
    let refused = client.get(&of_another).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Denied);
    // Every token of this one is for another API, however often it asks.
    let refused = connect(OTHER_API).get(&own).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Unauthenticated);

    // The provider signs with another key, which the gateway fetches for the sake of its first token.
    provider.rotate(&["two", "one"]);
    let newcomer = connect(API);
    assert_eq!(newcomer.get(&own).await.unwrap().values["total"], 3.0);
    assert_eq!(client.get(&own).await.unwrap().values["total"], 3.0);
    gateway.assert_no_errors();
}
