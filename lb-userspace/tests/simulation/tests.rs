//! The promise, its controls, and its limits in figures.

use std::ops::Range;

use lb_userspace::tracking::{OnDown, Tracking};

use crate::scenario::{Attack, CALM, Fault, Outcome, Scenario};
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

/// What attacks and other things outside the promise do, in figures.
#[test]
fn figures() {
    let calm = Scenario { change_every_ms: 15_000, ..CALM };
    let attack = Attack::default();
    let cases = [
        ("calm", calm),
        ("512 buckets", Scenario { buckets: 512, ..calm }),
        ("256 buckets", Scenario { buckets: 256, ..calm }),
        ("syns 1000", Scenario { attack: Attack { syns: 1_000, ..attack }, buckets: 1024, ..calm }),
        ("syns 4000", Scenario { attack: Attack { syns: 4_000, ..attack }, buckets: 1024, ..calm }),
        (
            "syns 16000",
            Scenario { attack: Attack { syns: 16_000, ..attack }, buckets: 1024, ..calm },
        ),
        ("acks 200", Scenario { attack: Attack { acks: 200, ..attack }, buckets: 1024, ..calm }),
        ("acks 1000", Scenario { attack: Attack { acks: 1_000, ..attack }, buckets: 1024, ..calm }),
        ("acks 4000", Scenario { attack: Attack { acks: 4_000, ..attack }, buckets: 1024, ..calm }),
        (
            "acks 16000",
            Scenario { attack: Attack { acks: 16_000, ..attack }, buckets: 1024, ..calm },
        ),
        (
            "acks twice 100",
            Scenario {
                attack: Attack { acks: 100, second_acks: true, ..attack },
                buckets: 1024,
                ..calm
            },
        ),
        (
            "acks twice 400",
            Scenario {
                attack: Attack { acks: 400, second_acks: true, ..attack },
                buckets: 1024,
                ..calm
            },
        ),
        ("fins 1000", Scenario { attack: Attack { fins: 1_000, ..attack }, buckets: 1024, ..calm }),
        ("fins 4000", Scenario { attack: Attack { fins: 4_000, ..attack }, buckets: 1024, ..calm }),
        ("live syns 10", Scenario { attack: Attack { live_syns: 10, ..attack }, ..calm }),
        ("live fin syns 1", Scenario { attack: Attack { live_fin_syns: 1, ..attack }, ..calm }),
        ("silence 80 s", Scenario { silence_ms: 80_000, ..calm }),
        ("half-closed 60 s", Scenario { half_closed_silence_ms: 60_000, ..calm }),
        ("round trip 15 s", Scenario { round_trip_ms: 15_000, ..calm }),
        ("udp silence 40 s", Scenario { udp_silence_ms: 40_000, ..calm }),
        ("tags 20 bits", Scenario { tag_bits: 20, ..calm }),
        ("tags 12 bits", Scenario { tag_bits: 12, buckets: 256, ..calm }),
    ];
    for (name, scenario) in cases {
        let outcomes = run(scenario, 0..1);
        let flows: u32 = outcomes.iter().map(|o| o.flows).sum();
        let live: u32 = outcomes.iter().map(Outcome::live_broken).sum();
        let attacks: u32 = outcomes.iter().map(|o| o.attacks).sum();
        let broken: Vec<_> = outcomes.iter().map(|o| &o.broken).collect();
        let slots = outcomes.iter().map(|o| o.contested_slots.0 / o.contested_slots.1).max();
        println!(
            "F {name}: {flows} flows, {live} live broken, {broken:?}, {attacks} strikes {slots:?}"
        );
    }
}
