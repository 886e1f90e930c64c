//! How keys are fetched, replaced, withdrawn, and kept through an outage: against a server of keys.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use stategate_auth::{Authenticator, EventClaims, KeySettings, KeySource, Refused};
use support::{
    Running, Signer, authenticator, authenticator_of, claims, claims_with, jwks, keys, rules,
    server::{Answer, KeyServer},
    until,
};

fn publish(keys: &[Value]) -> Answer {
    Answer::Body(jwks(keys))
}

fn quick(server: &KeyServer) -> KeySettings {
    KeySettings {
        refresh: Duration::from_millis(100),
        ..server.settings()
    }
}

async fn ready(settings: KeySettings) -> (Arc<Authenticator>, Running) {
    let (authenticator, refresher) = authenticator(settings);
    let running = Running::start(refresher);
    authenticator.until_ready().await;
    (Arc::new(authenticator), running)
}

fn unknown(n: usize) -> String {
    let header = json!({"alg": "EdDSA", "kid": format!("unknown-{n}")});
    keys().ed.token_of(header.to_string(), claims().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_unknown_keys_cause_a_handful_of_fetches() {
    let server = KeyServer::start(publish(&[keys().ed.jwk()])).await;
    let (authenticator, _running) = ready(server.settings()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..20 {
        let authenticator = Arc::clone(&authenticator);
        tasks.spawn(async move {
            for n in 0..500 {
                let refused = authenticator.verify(&unknown(task * 500 + n)).await.err();
                assert_eq!(refused, Some(Refused::KeyUnknown));
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    println!("10000 unknown keys, {} fetches", server.requests());
    assert!(server.requests() <= 4, "{} fetches", server.requests());
    assert!(
        authenticator
            .verify(&keys().ed.token(&claims()))
            .await
            .is_ok()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_under_load_without_a_wrong_refusal() {
    let old = Signer::ed("old");
    let server = KeyServer::start(publish(&[old.jwk()])).await;
    // The timer plays no part: whatever is fetched later is fetched because a token needs it.
    let (authenticator, _running) = ready(KeySettings {
        demand_interval: Duration::ZERO,
        ..server.settings()
    })
    .await;
    let current = Arc::new(std::sync::Mutex::new(Arc::new(old)));
    let verified = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let (authenticator, current) = (Arc::clone(&authenticator), Arc::clone(&current));
        let (verified, done) = (Arc::clone(&verified), Arc::clone(&done));
        tasks.spawn(async move {
            let mut n = 0;
            while !done.load(Ordering::SeqCst) {
                n += 1;
                let signer = Arc::clone(&current.lock().unwrap());
                let sub = format!("{task}-{n}");
                let token = signer.token(&claims_with(&json!({"sub": sub})));
                let identity = authenticator.verify(&token).await;
                // The key may have been withdrawn between signing and verifying.
                let withdrawn = !Arc::ptr_eq(&signer, &current.lock().unwrap());
                match identity {
                    Ok(identity) => assert_eq!(identity.name().1, sub),
                    Err(refused) => {
                        assert!(withdrawn && refused == Refused::KeyUnknown, "{refused:?}");
                    }
                }
                verified.fetch_add(1, Ordering::SeqCst);
                // Verifying by a known key waits for nothing: others have to get their turn.
                tokio::task::yield_now().await;
            }
        });
    }
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    for name in names {
        let new = Arc::new(Signer::ed(name));
        // Published, and used from the next token on: the issuer does not wait for the timer.
        {
            let mut current = current.lock().unwrap();
            server.answer(publish(&[new.jwk()]));
            *current = new;
        }
        let before = verified.load(Ordering::SeqCst);
        until("more are verified", async || {
            verified.load(Ordering::SeqCst) > before + 200
        })
        .await;
    }
    done.store(true, Ordering::SeqCst);
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let total = verified.load(Ordering::SeqCst);
    println!(
        "{} rotations, {total} tokens, {} fetches",
        names.len(),
        server.requests()
    );
    assert!(total >= 2_000);
}

#[tokio::test]
async fn a_withdrawn_key_takes_its_tokens_with_it() {
    let server = KeyServer::start(publish(&[keys().ed.jwk(), keys().p256.jwk()])).await;
    let (authenticator, _running) = ready(quick(&server)).await;
    let token = keys().ed.token(&claims());
    assert!(authenticator.verify(&token).await.is_ok());
    assert!(authenticator.verify(&token).await.is_ok());
    server.answer(publish(&[keys().p256.jwk()]));
    let began = Instant::now();
    until("the cached token is refused", async || {
        authenticator.verify(&token).await.err() == Some(Refused::KeyUnknown)
    })
    .await;
    println!("refused {:?} after its key was withdrawn", began.elapsed());
    assert!(
        authenticator
            .verify(&keys().p256.token(&claims()))
            .await
            .is_ok()
    );
    // Another key of the same name is another key.
    let impostor = Signer::ed("ed");
    server.answer(publish(&[impostor.jwk()]));
    until("the other key is in force", async || {
        authenticator
            .verify(&impostor.token(&claims()))
            .await
            .is_ok()
    })
    .await;
    assert_eq!(
        authenticator.verify(&token).await.err(),
        Some(Refused::SignatureInvalid)
    );
}

#[tokio::test]
async fn a_key_that_is_pinned_later_takes_its_other_tokens_with_it() {
    let server = KeyServer::start(publish(&[keys().rsa.jwk()])).await;
    let (authenticator, _running) = ready(quick(&server)).await;
    let token = keys().rsa.token_with(&json!({"alg": "PS256"}), &claims());
    assert!(authenticator.verify(&token).await.is_ok());
    server.answer(publish(&[keys().rsa.jwk_with(&json!({"alg": "RS256"}))]));
    until("the token of the other algorithm is refused", async || {
        authenticator.verify(&token).await.err() == Some(Refused::AlgorithmNotOfKey)
    })
    .await;
}

#[tokio::test]
async fn a_key_without_a_name_that_is_replaced_is_found() {
    let nameless = |signer: &Signer| signer.jwk_with(&json!({"kid": null}));
    let server = KeyServer::start(publish(&[nameless(&keys().ed)])).await;
    let (authenticator, _running) = ready(server.settings()).await;
    let by = |signer: &Signer| signer.token_with(&json!({"kid": null}), &claims());
    assert!(authenticator.verify(&by(&keys().ed)).await.is_ok());
    server.answer(publish(&[nameless(&keys().other_ed)]));
    assert!(authenticator.verify(&by(&keys().other_ed)).await.is_ok());
    assert_eq!(
        authenticator.verify(&by(&keys().ed)).await.err(),
        Some(Refused::SignatureInvalid)
    );
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn the_last_keys_survive_an_outage_up_to_the_limit() {
    let server = KeyServer::start(publish(&[keys().ed.jwk()])).await;
    let (authenticator, _running) = ready(KeySettings {
        longest_outage: Duration::from_secs(8),
        ..quick(&server)
    })
    .await;
    let token = keys().ed.token(&claims());
    assert!(authenticator.verify(&token).await.is_ok());
    let before = server.requests();
    server.answer(Answer::Status(500, jwks(&[])));
    until("fetches fail", async || server.requests() > before + 3).await;
    assert!(authenticator.verify(&token).await.is_ok(), "cached");
    let fresh = keys().ed.token(&claims_with(&json!({"sub": "bob"})));
    assert!(authenticator.verify(&fresh).await.is_ok(), "not cached");
    // Whether the key exists cannot be told: that is not the caller's fault.
    assert_eq!(
        authenticator.verify(&unknown(1)).await.err(),
        Some(Refused::KeysUnavailable)
    );
    until("the limit is reached", async || {
        authenticator.verify(&token).await.err() == Some(Refused::KeysUnavailable)
    })
    .await;
    assert!(!authenticator.is_ready() && Refused::KeysUnavailable.is_temporary());
    server.answer(publish(&[keys().ed.jwk()]));
    until("the keys are back", async || {
        authenticator.verify(&token).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn before_the_first_keys_there_is_nothing_to_verify_with() {
    let server = KeyServer::start(Answer::Close).await;
    let (authenticator, refresher) = authenticator(quick(&server));
    let token = keys().ed.token(&claims());
    assert_eq!(
        authenticator.verify(&token).await.err(),
        Some(Refused::KeysUnavailable)
    );
    let _running = Running::start(refresher);
    until("fetches fail", async || server.requests() > 2).await;
    assert!(!authenticator.is_ready());
    assert_eq!(
        authenticator.verify(&token).await.err(),
        Some(Refused::KeysUnavailable)
    );
    server.answer(publish(&[keys().ed.jwk()]));
    authenticator.until_ready().await;
    assert!(authenticator.verify(&token).await.is_ok());
}

#[tokio::test]
async fn without_its_refresher_nothing_waits_for_ever() {
    let server = KeyServer::start(publish(&[keys().ed.jwk()])).await;
    let (authenticator, refresher) = authenticator(server.settings());
    drop(refresher);
    authenticator.until_ready().await;
    assert!(!authenticator.is_ready());
    let (authenticator, running) = ready(server.settings()).await;
    drop(running);
    assert_eq!(
        authenticator.verify(&unknown(1)).await.err(),
        Some(Refused::KeysUnavailable)
    );
}

#[tokio::test]
async fn answers_that_are_no_keys_change_nothing() {
    let elsewhere = KeyServer::start(publish(&[keys().other_ed.jwk()])).await;
    let server = KeyServer::start(publish(&[keys().ed.jwk()])).await;
    let (authenticator, _running) = ready(KeySettings {
        fetch_time: Duration::from_millis(500),
        ..quick(&server)
    })
    .await;
    let many: Vec<_> = (0..101)
        .map(|n| keys().ed.jwk_with(&json!({"kid": format!("k{n}")})))
        .collect();
    let other = jwks(&[keys().other_ed.jwk()]);
    let large = format!("{other}{}", " ".repeat(300 << 10));
    let answers = [
        ("500 with keys", Answer::Status(500, other.clone())),
        ("404 with keys", Answer::Status(404, other.clone())),
        ("206 with keys", Answer::Status(206, other.clone())),
        (
            "a redirect to keys",
            Answer::Redirect(elsewhere.url("/keys")),
        ),
        ("nothing", Answer::Silence),
        ("a closed connection", Answer::Close),
        ("too much", Answer::Body(large)),
        ("no end", Answer::Endless),
        ("a byte now and then", Answer::Drip(other)),
        ("too many keys", publish(&many)),
        ("not JSON", Answer::Body("<html>".to_owned())),
        ("not a set", Answer::Body("[]".to_owned())),
        ("no keys member", Answer::Body("{}".to_owned())),
        (
            "keys that are no list",
            Answer::Body("{\"keys\":{}}".to_owned()),
        ),
        (
            "keys twice",
            Answer::Body("{\"keys\":[],\"keys\":[]}".to_owned()),
        ),
        ("not UTF-8", Answer::Bytes(vec![0xff; 10])),
        ("nothing at all", Answer::Body(String::new())),
    ];
    let count = answers.len();
    for (name, answer) in answers {
        let before = server.requests();
        server.answer(answer);
        until(name, async || server.requests() >= before + 2).await;
        assert!(
            authenticator
                .verify(&keys().ed.token(&claims()))
                .await
                .is_ok(),
            "{name}"
        );
        let other = keys().other_ed.token(&claims());
        assert!(authenticator.verify(&other).await.is_err(), "{name}");
    }
    println!(
        "{count} answers, {} bytes of the one without end",
        server.sent()
    );
    assert_eq!(elsewhere.requests(), 0, "a redirect was followed");
    assert!(server.sent() > 0 && server.sent() < 16 << 20);
    // Buffers of the system on the way are what is sent beyond the limit.
    server.answer(publish(&[keys().other_ed.jwk()]));
    until("good keys are taken again", async || {
        authenticator
            .verify(&keys().other_ed.token(&claims()))
            .await
            .is_ok()
    })
    .await;
}

#[tokio::test]
async fn an_empty_set_is_believed() {
    let server = KeyServer::start(publish(&[keys().ed.jwk()])).await;
    let (authenticator, _running) = ready(quick(&server)).await;
    let token = keys().ed.token(&claims());
    assert!(authenticator.verify(&token).await.is_ok());
    server.answer(publish(&[]));
    until("all keys are withdrawn", async || {
        authenticator.verify(&token).await.err() == Some(Refused::KeyUnknown)
    })
    .await;
}

#[tokio::test]
async fn a_slow_issuer_holds_up_no_token_of_a_known_key() {
    let server = KeyServer::start(publish(&[keys().ed.jwk()])).await;
    let (authenticator, _running) = ready(KeySettings {
        fetch_time: Duration::from_secs(2),
        ..server.settings()
    })
    .await;
    server.answer(Answer::Silence);
    let waiting = {
        let authenticator = Arc::clone(&authenticator);
        tokio::spawn(async move { authenticator.verify(&unknown(1)).await.err() })
    };
    until("the fetch is under way", async || server.requests() == 2).await;
    for n in 0..100 {
        let token = keys()
            .ed
            .token(&claims_with(&json!({"sub": format!("u{n}")})));
        assert!(authenticator.verify(&token).await.is_ok());
    }
    assert!(!waiting.is_finished(), "the tokens came after the fetch");
    assert_eq!(waiting.await.unwrap(), Some(Refused::KeysUnavailable));
}

#[tokio::test]
async fn an_issuer_is_discovered_and_must_be_itself() {
    let server = KeyServer::start(publish(&[keys().ed.jwk()])).await;
    let issuer = server.url("/tenant");
    let discovery = "/tenant/.well-known/openid-configuration";
    let document = |issuer: &str, jwks_uri: &str| {
        Answer::Body(json!({"issuer": issuer, "jwks_uri": jwks_uri, "x": [1]}).to_string())
    };
    server.answer_at(discovery, document(&issuer, &server.url("/keys")));
    let settings = KeySettings {
        refresh: Duration::from_millis(100),
        ..KeySettings::new(KeySource::issuer(&issuer).unwrap())
    };
    let mut rules = rules();
    rules.issuers = vec![issuer.clone()];
    let (authenticator, refresher) = authenticator_of(settings, rules, EventClaims::All);
    let _running = Running::start(refresher);
    authenticator.until_ready().await;
    let of = |signer: &Signer| signer.token(&claims_with(&json!({ "iss": issuer })));
    assert!(authenticator.verify(&of(&keys().ed)).await.is_ok());
    // Another address for the keys is followed.
    server.answer_at("/moved", publish(&[keys().p256.jwk()]));
    server.answer_at(discovery, document(&issuer, &server.url("/moved")));
    until("the keys at the new address are in force", async || {
        authenticator.verify(&of(&keys().p256)).await.is_ok()
    })
    .await;
    let evil = publish(&[keys().other_ed.jwk()]);
    server.answer_at("/evil", evil);
    let away = "http://192.0.2.1/keys";
    let documents = [
        document("https://issuer.example", &server.url("/evil")),
        document(&format!("{issuer}/"), &server.url("/evil")),
        document(&issuer, away),
        document(&issuer, "file:/etc/passwd"),
        document(&issuer, "evil"),
        Answer::Body(json!({"issuer": issuer}).to_string()),
        Answer::Body("{}".to_owned()),
        Answer::Redirect(server.url("/keys")),
    ];
    for document in documents {
        let name = format!("{document:?}");
        let before = server.requests();
        server.answer_at(discovery, document);
        until(&name, async || server.requests() >= before + 2).await;
        assert!(
            authenticator.verify(&of(&keys().other_ed)).await.is_err(),
            "{name}"
        );
        assert!(
            authenticator.verify(&of(&keys().p256)).await.is_ok(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_file_of_keys_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, jwks(&[keys().ed.jwk()])).unwrap();
    let source = KeySource::parse(&format!("file:{}", path.display())).unwrap();
    let settings = KeySettings {
        refresh: Duration::from_millis(50),
        ..KeySettings::new(source)
    };
    let (authenticator, _running) = ready(settings).await;
    assert!(
        authenticator
            .verify(&keys().ed.token(&claims()))
            .await
            .is_ok()
    );
    let whole = jwks(&[keys().p256.jwk()]);
    std::fs::write(&path, &whole[..whole.len() - 2]).unwrap();
    assert!(
        authenticator
            .verify(&keys().ed.token(&claims()))
            .await
            .is_ok()
    );
    std::fs::write(&path, &whole).unwrap();
    until("the new keys are in force", async || {
        authenticator
            .verify(&keys().p256.token(&claims()))
            .await
            .is_ok()
    })
    .await;
    assert!(
        authenticator
            .verify(&keys().ed.token(&claims()))
            .await
            .is_err()
    );
    std::fs::remove_file(&path).unwrap();
    tokio::task::yield_now().await;
    assert!(
        authenticator
            .verify(&keys().p256.token(&claims()))
            .await
            .is_ok()
    );
}

#[test]
fn keys_have_to_be_believed_for_longer_than_fetches_are_apart() {
    let source = KeySource::parse("https://issuer.example/keys").unwrap();
    let settings = KeySettings {
        longest_outage: Duration::from_secs(300),
        ..KeySettings::new(source)
    };
    let settings = stategate_auth::authentication::AuthenticatorSettings {
        keys: settings,
        rules: rules(),
        event_claims: EventClaims::All,
    };
    assert!(Authenticator::new(settings).is_err());
}
