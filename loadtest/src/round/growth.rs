//! The scenario `grow`: the same measurements on a small log and on a large one.

use std::time::Duration;

use crate::{
    quantity::{GrowthQuantity, Quantity},
    scenario::{CALLERS, PRODUCT_COUNT, TRANSACT_CALLERS},
    statistics::quantile_ms,
};

use super::active::ActiveRound;

/// Measures on a log with only the products, and when the log has as many events as the user asked for.
pub(super) fn grow(round: &mut ActiveRound<'_>) -> anyhow::Result<()> {
    round.write_products()?;
    for events in [u64::from(PRODUCT_COUNT), round.setup.events] {
        while round.written < events {
            round.measure_transactions(TRANSACT_CALLERS, Duration::from_secs(1))?;
        }
        (round.setup.progress)(&format!("{} events", round.written));
        // Each is run twice, and the first one only fills the caches: the writes have displaced what they held.
        let _ = round.measure_gets(&round.connections.readers)?;
        let get = round.measure_gets(&round.connections.readers)?;
        let _ = round.measure_searches(&round.connections.readers)?;
        let search = round.measure_searches(&round.connections.readers)?;
        let one = round.measure_sets(1, &round.connections.writers)?;
        let set = round.measure_sets(CALLERS, &round.connections.writers)?;
        round.written += one.done + set.done;
        let mut record = |quantity, value| round.record(Quantity::Grown(events, quantity), value);
        record(GrowthQuantity::Set, set.per_second);
        record(GrowthQuantity::SetOneP50, quantile_ms(&one.latency, 0.5));
        record(GrowthQuantity::Get, get.per_second);
        record(GrowthQuantity::Search, search.per_second);
    }
    Ok(())
}
