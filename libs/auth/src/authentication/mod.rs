//! Bearer tokens: JSON Web Tokens, verified by published keys (contract §7).
//!
//! A token is decoded strictly, its signature is verified with a key that pins the algorithm, and only
//! then its claims are looked at. A verified token is kept until it expires or its key is withdrawn, so
//! that it costs one signature check.

mod bearer;
mod cache;
mod claims;
mod compact;
mod event_claims;
mod refused;

use std::{sync::Arc, time::SystemTime};

pub use self::{
    bearer::bearer,
    claims::{LEEWAY, TokenRules},
    compact::TOKEN_BYTES,
    event_claims::{EventClaims, UnknownClaim},
    refused::Refused,
};
use self::{
    cache::{Cache, Digest, Verified},
    compact::Compact,
};
use stategate_api::Caller;

use crate::keys::{Held, KeyRefresher, KeySettings, Keyring, Missing, Renewal, SettingsError};

/// What tokens are verified by, and what becomes of their claims.
#[derive(Debug, Clone)]
pub struct AuthenticatorSettings {
    /// Where the keys come from.
    pub keys: KeySettings,
    /// What the claims must say.
    pub rules: TokenRules,
    /// Which claims are kept with events.
    pub event_claims: EventClaims,
}

/// Verifies bearer tokens. Shared by all calls; no lock is held across cores but for the moment in
/// which a token is looked up.
#[derive(Debug)]
pub struct Authenticator {
    keyring: Keyring,
    rules: TokenRules,
    event_claims: EventClaims,
    cache: Cache,
}

impl Authenticator {
    /// An authenticator, and the task that fetches its keys, which the caller has to run. Until the
    /// first fetch succeeds every token is refused with [`Refused::KeysUnavailable`].
    pub fn new(settings: AuthenticatorSettings) -> Result<(Self, KeyRefresher), SettingsError> {
        let (keyring, refresher) = Keyring::new(settings.keys)?;
        let authenticator = Self {
            keyring,
            rules: settings.rules,
            event_claims: settings.event_claims,
            cache: Cache::new(),
        };
        Ok((authenticator, refresher))
    }

    /// Whether there are keys to verify with: part of readiness.
    pub fn is_ready(&self) -> bool {
        self.keyring.current().is_some()
    }

    /// Waits until there are keys, or until the refresher is gone.
    pub async fn until_ready(&self) {
        self.keyring.until_ready().await;
    }

    /// Who the bearer of a token is, if the token was verified lately: at the cost of one digest.
    pub fn known(&self, token: &str) -> Option<Result<Arc<Caller>, Refused>> {
        let keys = self.keyring.current()?;
        self.known_at(&keys, &Cache::digest(token), SystemTime::now())
    }

    fn known_at(
        &self,
        keys: &Held,
        digest: &Digest,
        now: SystemTime,
    ) -> Option<Result<Arc<Caller>, Refused>> {
        let verified = self.cache.get(digest)?;
        if !keys.set().holds(&verified.key) {
            self.cache.remove(digest);
            return None;
        }
        let valid = self.rules.check_times(&verified.times, now);
        if valid == Err(Refused::Expired) {
            self.cache.remove(digest);
        }
        Some(valid.map(|()| verified.caller))
    }

    /// Who the bearer of a token is.
    ///
    /// Waits only where the token names a key that is not known and the keys may be asked for again: for
    /// as long as that fetch may take.
    pub async fn verify(&self, token: &str) -> Result<Arc<Caller>, Refused> {
        self.verify_at(token, SystemTime::now()).await
    }

    /// As [`Authenticator::verify`], at another time than now.
    pub async fn verify_at(&self, token: &str, now: SystemTime) -> Result<Arc<Caller>, Refused> {
        if token.len() > TOKEN_BYTES {
            return Err(Refused::TooLong);
        }
        let keys = self.keyring.current().ok_or(Refused::KeysUnavailable)?;
        let digest = Cache::digest(token);
        if let Some(known) = self.known_at(&keys, &digest, now) {
            return known;
        }
        let compact = Compact::parse(token)?;
        let key = match verify_signature(&keys, &compact) {
            Ok(key) => key,
            Err(Unverified { refused, stale }) => {
                if !stale {
                    return Err(refused);
                }
                match self.keyring.renewed().await {
                    Renewal::Fetched => {
                        let keys = self.keyring.current().ok_or(Refused::KeysUnavailable)?;
                        verify_signature(&keys, &compact).map_err(|failed| failed.refused)?
                    }
                    Renewal::TooSoon => return Err(refused),
                    Renewal::Failed => return Err(Refused::KeysUnavailable),
                }
            }
        };
        let claims = compact.claims()?;
        let times = self.rules.check(&claims, now)?;
        let expires = self.rules.expires(&times);
        let caller = event_claims::caller(claims, &self.event_claims, expires)?;
        let caller = Arc::new(caller);
        self.cache.insert(
            digest,
            Verified {
                caller: Arc::clone(&caller),
                key,
                times,
            },
        );
        Ok(caller)
    }
}

/// A signature that no key verified.
struct Unverified {
    refused: Refused,
    /// The issuer may have published a key since the keys were fetched that would verify it.
    stale: bool,
}

/// The fingerprint of the key that verifies the token.
fn verify_signature(keys: &Held, token: &Compact<'_>) -> Result<[u8; 32], Unverified> {
    let unverified = |refused, stale| Unverified { refused, stale };
    let candidates = keys
        .set()
        .candidates(token.key_id(), token.algorithm())
        .map_err(|missing| match missing {
            Missing::Key => unverified(Refused::KeyUnknown, true),
            Missing::Algorithm => unverified(Refused::AlgorithmNotOfKey, false),
            Missing::Choice => unverified(Refused::KeyAmbiguous, false),
        })?;
    candidates
        .iter()
        .find(|key| key.verifies(token.signed(), token.signature(), token.algorithm()))
        .map(|key| *key.fingerprint())
        // A key without a name that was replaced is told from a forged signature only by another fetch.
        .ok_or_else(|| unverified(Refused::SignatureInvalid, token.key_id().is_none()))
}
