//! The promise, its controls, and its limits in figures.

use std::ops::Range;

use lb_userspace::tracking::{OnDown, Tracking};

use crate::scenario::{Attack, CALM, Class, Fault, Outcome, Scenario};
use crate::world::World;

/// How many times the seeds are run.
fn times() -> u64 {
    std::env::var("LB_SIMULATION_SEEDS").map_or(1, |times| times.parse().unwrap())
}

/// Runs some seeds.
fn run(scenario: Scenario, seeds: Range<u64>) -> Vec<Outcome> {
    let seeds = seeds.start..seeds.start + (seeds.end - seeds.start) * times();
    let run = |seed| {
        let outcome = World::new(scenario, seed).run();
        println!("{seed}: {outcome:?}");
        outcome
    };
    seeds.map(run).collect()
}

/// Runs some seeds, in which no flow may move.
fn check(scenario: Scenario, seeds: Range<u64>) -> Vec<Outcome> {
    let first = seeds.start;
    let outcomes = run(scenario, seeds);
    for (seed, outcome) in (first..).zip(&outcomes) {
        assert_eq!(outcome.all_broken(), 0, "{scenario:?}, seed {seed}: {outcome:?}");
        assert!(outcome.flows > 5_000 && outcome.packets > 10_000, "{outcome:?}");
    }
    outcomes
}

#[test]
fn no_flow_moves_while_its_backend_lives() {
    let outcomes = check(CALM, 0..3);
    assert!(outcomes.iter().all(|o| o.activations > 10 && o.releases > 3));
    assert!(outcomes.iter().all(|o| o.ended_with_backend > 0 && o.crashes > 10));
    assert!(outcomes.iter().all(|o| o.reused > 0 && o.half_closed > 0));
    // Just enough: most packets find a stateless slot.
    assert!(outcomes.iter().all(|o| o.contested_packets < o.packets));
}

#[test]
fn no_flow_moves_when_the_dead_are_released() {
    check(Scenario { on_down: OnDown::Release, ..CALM }, 0..3);
}

#[test]
fn no_flow_moves_in_a_pool_that_is_always_tracked() {
    check(Scenario { tracking: Tracking::Always, ..CALM }, 0..2);
}

#[test]
fn no_flow_moves_in_a_storm_of_changes() {
    let storm = Scenario { change_every_ms: 4_000, death_every_ms: 9_000, ..CALM };
    check(storm, 0..1);
    let outcomes = check(Scenario { force: true, ..storm }, 1..2);
    assert!(outcomes.iter().all(|o| o.forced > 0));
}

#[test]
fn no_flow_moves_when_all_are_down_at_times() {
    let few = Scenario { backends: 3, death_every_ms: 20_000, ..CALM };
    for on_down in [OnDown::Keep, OnDown::Release] {
        let outcomes = check(Scenario { on_down, ..few }, 0..2);
        assert!(outcomes.iter().map(|o| o.all_down).sum::<u32>() > 0);
    }
}

#[test]
fn no_flow_moves_when_the_idle_timeout_is_the_shorter_limit() {
    let short = Scenario { window_ms: 120_000, established_ms: 40_000, silence_ms: 40_000, ..CALM };
    check(short, 0..2);
}

#[test]
fn every_fault_breaks_flows() {
    for fault in [
        Fault::NoPrepare,
        Fault::ShortWindow,
        Fault::ShortIdle,
        Fault::NewestBase,
        Fault::NoBase,
        Fault::NoExceptions,
        Fault::HalfScan,
        Fault::ConfirmedOnly,
        Fault::SynNotEntered,
        Fault::SynReowns,
        Fault::MissNotEntered,
        Fault::RestartForgets,
    ] {
        let change_every_ms = if fault == Fault::NoPrepare { 4_000 } else { 12_000 };
        let scenario = Scenario { fault, change_every_ms, ..CALM };
        let broken: u32 = run(scenario, 0..1).iter().map(Outcome::all_broken).sum();
        println!("{fault:?}: {broken} broken");
        assert!(broken > 0, "{fault:?} breaks nothing, so the simulation sees nothing");
    }
}
