//! One round: a new gateway on an empty database, and each scenario in turn with its floors.
//!
//! `active` starts what a round needs, keeps what it measured and checks at the end what the gateway
//! stored. The other modules are the scenarios.

mod active;
mod delivery;
mod growth;
mod idle;
mod outage;
mod requests;

use std::time::Instant;

use anyhow::Context as _;

use crate::{
    quantity::Measurements,
    scenario::{SUBSCRIBER_COUNTS, Scenario},
};

use self::active::ActiveRound;
pub(crate) use self::active::Setup;

/// Runs the round with this number.
pub(crate) fn run(setup: &Setup<'_>, number: usize) -> anyhow::Result<Measurements> {
    let directory = setup.directory.join(format!("round-{number}"));
    std::fs::create_dir(&directory)?;
    let mut round = ActiveRound::start(setup, number, &directory)?;
    for scenario in setup.scenarios {
        let begun = Instant::now();
        run_scenario(&mut round, *scenario)
            .with_context(|| format!("round {number}, scenario {scenario:?}"))?;
        (setup.progress)(&format!(
            "round {number}: {scenario:?} took {:.1?}",
            begun.elapsed()
        ));
    }
    let measured = round.finish()?;
    std::fs::remove_dir_all(directory)?;
    Ok(measured)
}

fn run_scenario(round: &mut ActiveRound<'_>, scenario: Scenario) -> anyhow::Result<()> {
    match scenario {
        Scenario::Set => requests::set(round),
        Scenario::SetOne => requests::set_one(round),
        Scenario::Transact => requests::transact(round),
        Scenario::Get => requests::get(round),
        Scenario::Search => requests::search(round),
        Scenario::Delay => delivery::delay(round),
        Scenario::Deliver => SUBSCRIBER_COUNTS
            .into_iter()
            .try_for_each(|count| delivery::deliver(round, count)),
        Scenario::Replay => delivery::replay(round),
        Scenario::Idle => idle::idle(round),
        Scenario::Grow => growth::grow(round),
        Scenario::Away => outage::run(round, outage::KILL_AND_STOP),
        Scenario::Stay => outage::run(round, outage::NO_OUTAGE),
    }
}
