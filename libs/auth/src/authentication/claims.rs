//! What the claims of a token must say (RFC 7519, contract §7). Pure: the time is handed in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stategate_model::{Object, Value};

use super::Refused;

/// How far apart the clocks of issuer and gateway may be.
pub const LEEWAY: Duration = Duration::from_secs(30);
/// Longest `iss` and `sub`: both are part of what idempotency keys are stored under.
const NAME_BYTES: usize = 512;
/// The year 9999: an expiry later than that is as good as none.
const FURTHEST: Duration = Duration::from_secs(253_402_300_799);

/// What is required of a token's claims beside its times.
#[derive(Debug, Clone)]
pub struct TokenRules {
    /// The issuers whose tokens are accepted; empty for any that signs with the keys.
    pub issuers: Vec<String>,
    /// The audiences of which a token must name one; empty for any.
    pub audiences: Vec<String>,
    /// How far apart the clocks may be: [`LEEWAY`].
    pub leeway: Duration,
}

impl Default for TokenRules {
    fn default() -> Self {
        Self {
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway: LEEWAY,
        }
    }
}

/// The times in a token, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    expires: f64,
    not_before: Option<f64>,
    issued: Option<f64>,
}

impl TokenRules {
    /// Whether the claims of a token whose signature is verified make it valid now.
    pub(super) fn check(&self, claims: &Object, now: SystemTime) -> Result<Times, Refused> {
        let times = Times {
            expires: number(claims, "exp", Refused::ExpiryMalformed)?
                .ok_or(Refused::ExpiryMissing)?,
            not_before: number(claims, "nbf", Refused::NotBeforeMalformed)?,
            issued: number(claims, "iat", Refused::IssuedAtMalformed)?,
        };
        self.check_times(&times, now)?;
        self.check_issuer(claims)?;
        self.check_audience(claims)?;
        name(claims, "sub", Refused::SubjectMalformed)?;
        Ok(times)
    }

    /// Whether a token of these times is valid now.
    pub(super) fn check_times(&self, times: &Times, now: SystemTime) -> Result<(), Refused> {
        let now = now
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
        let leeway = self.leeway.as_secs_f64();
        if now >= times.expires + leeway {
            return Err(Refused::Expired);
        }
        if times.not_before.is_some_and(|from| from > now + leeway) {
            return Err(Refused::NotYetValid);
        }
        if times.issued.is_some_and(|at| at > now + leeway) {
            return Err(Refused::IssuedInFuture);
        }
        Ok(())
    }

    /// When a token of these times stops being accepted.
    pub(super) fn expires(&self, times: &Times) -> SystemTime {
        let since = Duration::try_from_secs_f64(times.expires.max(0.0)).unwrap_or(FURTHEST);
        UNIX_EPOCH + since.min(FURTHEST) + self.leeway.min(FURTHEST)
    }

    fn check_issuer(&self, claims: &Object) -> Result<(), Refused> {
        let issuer = name(claims, "iss", Refused::IssuerMalformed)?;
        if self.issuers.is_empty() {
            return Ok(());
        }
        let issuer = issuer.ok_or(Refused::IssuerMissing)?;
        match self.issuers.iter().any(|accepted| accepted == issuer) {
            true => Ok(()),
            false => Err(Refused::IssuerWrong),
        }
    }

    fn check_audience(&self, claims: &Object) -> Result<(), Refused> {
        let named: Vec<&str> = match claims.get("aud") {
            None => Vec::new(),
            Some(Value::String(audience)) => vec![audience],
            Some(Value::Array(audiences)) => audiences
                .iter()
                .map(|audience| match audience {
                    Value::String(audience) => Ok(audience.as_str()),
                    _ => Err(Refused::AudienceMalformed),
                })
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(Refused::AudienceMalformed),
        };
        if self.audiences.is_empty() {
            return Ok(());
        }
        if named.is_empty() {
            return Err(Refused::AudienceMissing);
        }
        let accepted = |named: &&str| self.audiences.iter().any(|audience| audience == named);
        match named.iter().any(accepted) {
            true => Ok(()),
            false => Err(Refused::AudienceWrong),
        }
    }
}

fn number(claims: &Object, name: &str, malformed: Refused) -> Result<Option<f64>, Refused> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) if number.is_finite() => Ok(Some(*number)),
        Some(_) => Err(malformed),
    }
}

fn name<'c>(
    claims: &'c Object,
    name: &str,
    malformed: Refused,
) -> Result<Option<&'c str>, Refused> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if (1..=NAME_BYTES).contains(&text.len()) => Ok(Some(text)),
        Some(_) => Err(malformed),
    }
}
