//! Who may come in: before a call's message is read, its token is verified and its caller's rate is kept.
//!
//! A token that was verified lately costs a digest. Any other costs a signature check, of which one address may cause
//! only so many in a second: forged tokens must not keep the processors busy.

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::{HeaderMap, header};
use stategate_api::{Access, Caller, Problem, audit};
use stategate_auth::{Authenticator, Refused, authentication::bearer};
use stategate_policy::Policies;

use crate::{config::RateSettings, peer::Peer};

/// How often what is known of callers and peers that were quiet is forgotten.
const FORGET: Duration = Duration::from_secs(10);

/// Whether callers are verified, and what they may do.
#[derive(Debug, Clone)]
pub struct AccessControl(Option<Arc<Control>>);

#[derive(Debug)]
struct Control {
    authenticator: Arc<Authenticator>,
    policies: Policies,
    rates: Rates,
}

#[derive(Debug)]
struct Rates {
    callers: Option<DefaultKeyedRateLimiter<Arc<str>>>,
    peers: Option<DefaultKeyedRateLimiter<IpAddr>>,
}

/// What is known of a call's caller once its headers are there.
pub(crate) enum Authenticated {
    /// Authentication is off.
    Open,
    /// This, at once.
    Known(Arc<Caller>),
    /// It is refused.
    Refused(Problem),
    /// The token has to be verified.
    Verifying(BoxFuture<'static, Result<Arc<Caller>, Problem>>),
}

impl AccessControl {
    /// Everybody may do and see everything: authentication is off.
    pub fn open() -> Self {
        Self(None)
    }

    /// Verified callers may do and see what the policies say, so and so often.
    pub fn on(authenticator: Arc<Authenticator>, policies: Policies, rates: RateSettings) -> Self {
        Self(Some(Arc::new(Control {
            authenticator,
            policies,
            rates: Rates {
                callers: rates
                    .caller
                    .map(|rate| RateLimiter::keyed(Quota::per_second(rate))),
                peers: rates
                    .peer
                    .map(|rate| RateLimiter::keyed(Quota::per_second(rate))),
            },
        })))
    }

    /// Whether everybody may do everything.
    pub fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// Whether tokens can be verified: part of readiness.
    pub fn is_ready(&self) -> bool {
        let control = self.0.as_ref();
        control.is_none_or(|control| control.authenticator.is_ready())
    }

    /// What decided calls go through.
    pub fn access(&self) -> Access {
        match &self.0 {
            None => Access::open(),
            Some(control) => Access::governed(control.policies.clone()),
        }
    }

    /// Forgets callers and peers that were quiet, again and again.
    pub async fn tidy(self) {
        loop {
            tokio::time::sleep(FORGET).await;
            let Some(control) = &self.0 else {
                return std::future::pending().await;
            };
            if let Some(callers) = &control.rates.callers {
                callers.retain_recent();
                callers.shrink_to_fit();
            }
            if let Some(peers) = &control.rates.peers {
                peers.retain_recent();
                peers.shrink_to_fit();
            }
        }
    }

    /// Who makes a call, by its headers.
    pub(crate) fn authenticate(
        &self,
        method: &'static str,
        headers: &HeaderMap,
        peer: Option<&Peer>,
    ) -> Authenticated {
        let Some(control) = &self.0 else {
            return Authenticated::Open;
        };
        let peer = peer.map(|peer| peer.address.ip());
        let values = headers.get_all(header::AUTHORIZATION).iter();
        let token = match bearer(values.map(|value| value.as_bytes())) {
            Ok(token) => token,
            Err(refused) => return Authenticated::Refused(problem(peer, method, refused)),
        };
        match control.authenticator.known(token) {
            Some(Ok(caller)) => {
                return match control.at_its_rate(caller) {
                    Ok(caller) => Authenticated::Known(caller),
                    Err(problem) => Authenticated::Refused(problem),
                };
            }
            Some(Err(refused)) => return Authenticated::Refused(problem(peer, method, refused)),
            None => {}
        }
        if let Some(problem) = control.rates.refusal_of_peer(peer) {
            return Authenticated::Refused(problem);
        }
        let (control, token) = (Arc::clone(control), token.to_owned());
        let verifying = async move {
            let verified = control.authenticator.verify(&token).await;
            let caller = verified.map_err(|refused| problem(peer, method, refused))?;
            control.at_its_rate(caller)
        };
        Authenticated::Verifying(verifying.boxed())
    }
}

impl Control {
    /// The caller, unless it calls too often.
    fn at_its_rate(&self, caller: Arc<Caller>) -> Result<Arc<Caller>, Problem> {
        match self.rates.refusal_of_caller(&caller) {
            Some(problem) => Err(problem),
            None => Ok(caller),
        }
    }
}

impl Rates {
    fn refusal_of_caller(&self, caller: &Caller) -> Option<Problem> {
        let callers = self.callers.as_ref()?;
        callers.check_key(caller.key()).err()?;
        stategate_metrics::CALLS_OVER_RATE
            .with(["caller"])
            .increment(1);
        Some(Problem::Busy {
            what: "the caller makes more calls in a second than it may",
        })
    }

    /// The rate of an address; one of IPv6 stands for its network, of which a host has all addresses.
    fn refusal_of_peer(&self, peer: Option<IpAddr>) -> Option<Problem> {
        let peers = self.peers.as_ref()?;
        let of = match peer? {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        };
        peers.check_key(&of).err()?;
        stategate_metrics::CALLS_OVER_RATE
            .with(["peer"])
            .increment(1);
        Some(Problem::Busy {
            what: "too many calls with new tokens come from this address",
        })
    }
}

/// What a caller without an accepted token is told.
fn problem(peer: Option<IpAddr>, method: &'static str, refused: Refused) -> Problem {
    audit::refused(peer, method, refused.name(), &refused.to_string());
    match refused.is_temporary() {
        true => Problem::KeysUnavailable,
        false => Problem::unauthenticated(refused.to_string()),
    }
}
