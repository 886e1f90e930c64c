//! Refusals in the log: who was refused, what, by which policy and why. Never a token, a claim or a value.
//!
//! Lines are limited, for a caller can be refused as often as it asks; the metrics count every refusal.

use std::{net::IpAddr, time::Duration};

use stategate_policy::Denied;

use crate::{LogThrottle, context::Context};

/// Lines of one kind in a second, at most.
const LINES: u32 = 20;

/// A policy denied a call or withheld its answer.
pub(crate) fn denied(
    context: &Context,
    method: &'static str,
    policy: &'static str,
    why: &Denied,
    about: impl FnOnce() -> String,
) {
    static THROTTLE: LogThrottle = LogThrottle::of(LINES, Duration::from_secs(1));
    stategate_metrics::POLICY_DENIALS
        .with([policy, why.name()])
        .increment(1);
    if let Some(left_out) = THROTTLE.is_due() {
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
    static THROTTLE: LogThrottle = LogThrottle::of(LINES, Duration::from_secs(1));
    stategate_metrics::AUTHENTICATION_REFUSALS
        .with([reason])
        .increment(1);
    if let Some(left_out) = THROTTLE.is_due() {
        let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
        tracing::warn!(target: "stategate::audit", peer, method, reason = why, left_out, "not authenticated");
    }
}
