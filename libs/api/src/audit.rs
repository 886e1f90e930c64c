//! Refusals in the log: who was refused, what, by which policy and why. Never a token, a claim or a value.
//!
//! Lines are limited, for a caller can be refused as often as it asks; the metrics count every refusal.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use parking_lot::Mutex;
use stategate_policy::Denied;

use crate::{LogThrottle, context::Context};

/// Lines of one kind in a second, at most.
const LINES: u32 = 20;

/// A method, and the reason of a refusal.
type Kind = (&'static str, &'static str);
type Throttles = HashMap<Kind, Arc<LogThrottle>>;

/// Whether a line of a kind is due, and how many were left out: one kind does not hide another. There are as many kinds
/// as methods and reasons.
fn is_due(kind: Kind) -> Option<u64> {
    static THROTTLES: LazyLock<Mutex<Throttles>> = LazyLock::new(Mutex::default);
    let throttle = Arc::clone(
        THROTTLES
            .lock()
            .entry(kind)
            .or_insert_with(|| Arc::new(LogThrottle::of(LINES, Duration::from_secs(1)))),
    );
    throttle.is_due()
}

/// A policy denied a call or withheld its answer.
pub(crate) fn denied(
    context: &Context,
    method: &'static str,
    policy: &'static str,
    why: &Denied,
    about: impl FnOnce() -> String,
) {
    stategate_metrics::POLICY_DENIALS
        .with([policy, why.name()])
        .increment(1);
    if let Some(left_out) = is_due((method, why.name())) {
        let (issuer, subject) = context.name().unwrap_or_default();
        tracing::warn!(
            target: "stategate::audit",
            issuer,
            subject,
            method,
            about = about(),
            policy,
            reason = %why,
            left_out,
            "denied"
        );
    }
}

/// A call was refused before it had a caller.
pub fn refused(peer: Option<IpAddr>, method: &'static str, reason: &'static str, why: &str) {
    stategate_metrics::AUTHENTICATION_REFUSALS
        .with([reason])
        .increment(1);
    if let Some(left_out) = is_due((method, reason)) {
        let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
        tracing::warn!(target: "stategate::audit", peer, method, reason = why, left_out, "not authenticated");
    }
}
