//! Places where a test plants a panic. Everything that depends on this does so by its feature `faults`,
//! which no release has.

use std::{
    collections::HashMap,
    env,
    sync::{Mutex, PoisonError},
};

/// Panics if `STATEGATE_TEST_PLANT=panic:<place>[:<n>]` names this place, when it is passed for the
/// n-th time in this process (the first, without a number).
#[allow(clippy::panic, reason = "what it is for")]
pub fn pass(place: &str) {
    static PASSED: Mutex<Option<HashMap<String, u64>>> = Mutex::new(None);
    let Ok(plant) = env::var("STATEGATE_TEST_PLANT") else {
        return;
    };
    let mut parts = plant.split(':');
    if parts.next() != Some("panic") || parts.next() != Some(place) {
        return;
    }
    let due = parts.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    let count = passed
        .get_or_insert_default()
        .entry(place.to_owned())
        .or_default();
    *count += 1;
    let is_due = *count == due;
    drop(passed);
    if is_due {
        panic!("planted: {place}");
    }
}
