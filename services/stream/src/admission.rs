//! How many subscriptions there may be, in all and of one caller.
//!
//! A caller is identified by its verified claims. A subscription without them counts only against the limit of the
//! process.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use stategate_api::Problem;

/// Most subscriptions at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionLimits {
    /// Of everybody.
    pub total: usize,
    /// Of one caller.
    pub per_caller: usize,
}

impl Default for SubscriptionLimits {
    fn default() -> Self {
        Self {
            total: 10_000,
            per_caller: 1_000,
        }
    }
}

/// Counts subscriptions in and out.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: SubscriptionLimits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    /// Those who have any; never more than there are subscriptions.
    callers: HashMap<Arc<str>, usize>,
}

/// Stands for a subscription; dropping it counts it out.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    caller: Option<Arc<str>>,
}

impl Admission {
    pub(crate) fn new(limits: SubscriptionLimits) -> Self {
        Self {
            limits,
            counts: Mutex::default(),
        }
    }

    /// Counts a subscription in, or says which limit it would pass.
    pub(crate) fn admit(self: &Arc<Self>, caller: Option<Arc<str>>) -> Result<Permit, Problem> {
        let mut counts = self.counts.lock();
        if counts.total >= self.limits.total {
            return Err(refused("process", "there are too many subscriptions"));
        }
        if let Some(caller) = &caller {
            let of_caller = counts.callers.get(caller).copied().unwrap_or_default();
            if of_caller >= self.limits.per_caller {
                let what = "the caller has too many subscriptions; end one of them";
                return Err(refused("caller", what));
            }
            counts.callers.insert(Arc::clone(caller), of_caller + 1);
        }
        counts.total += 1;
        drop(counts);
        Ok(Permit {
            admission: Arc::clone(self),
            caller,
        })
    }
}

fn refused(limit: &'static str, what: &'static str) -> Problem {
    stategate_metrics::SUBSCRIPTIONS_REFUSED
        .with([limit])
        .increment(1);
    Problem::Busy { what }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock();
        counts.total -= 1;
        if let Some(caller) = &self.caller
            && let Some(of_caller) = counts.callers.get_mut(caller)
        {
            *of_caller -= 1;
            if *of_caller == 0 {
                counts.callers.remove(caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission() -> Arc<Admission> {
        Arc::new(Admission::new(SubscriptionLimits {
            total: 5,
            per_caller: 2,
        }))
    }

    #[test]
    fn one_caller_does_not_use_up_what_is_for_all() {
        let admission = admission();
        let admit = |caller: &str| admission.admit(Some(caller.into()));
        let (first, _second) = (admit("a").unwrap(), admit("a").unwrap());
        assert!(matches!(admit("a"), Err(Problem::Busy { what }) if what.contains("the caller")));
        let _other = admit("b").unwrap();
        drop(first);
        let _again = admit("a").unwrap();
        assert!(admit("a").is_err());
    }

    #[test]
    fn who_has_no_name_shares_what_is_for_all() {
        let admission = admission();
        let mut permits: Vec<_> = (0..5).map(|_| admission.admit(None).unwrap()).collect();
        for caller in [None, Some("a".into())] {
            let refused = admission.admit(caller);
            assert!(
                matches!(refused, Err(Problem::Busy { what }) if what.starts_with("there are"))
            );
        }
        permits.pop();
        let _named = admission.admit(Some("a".into())).unwrap();
        assert!(admission.admit(None).is_err());
    }

    #[test]
    fn nothing_is_left_of_those_who_went() {
        let admission = admission();
        let permits: Vec<_> = ["a", "b", "a"]
            .map(|caller| admission.admit(Some(caller.into())).unwrap())
            .into();
        assert!(admission.admit(Some("a".into())).is_err());
        drop(permits);
        let counts = admission.counts.lock();
        assert_eq!((counts.total, counts.callers.len()), (0, 0));
    }
}
