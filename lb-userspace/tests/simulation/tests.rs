//! The promise, its controls, and its limits in figures.

use std::ops::Range;

use lb_userspace::tracking::OnDown;

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
    let outcomes = check(CALM, 0..2);
    assert!(outcomes.iter().all(|o| o.activations > 5 && o.releases > 3));
    assert!(outcomes.iter().all(|o| o.ended_with_backend > 0 && o.crashes > 10));
    assert!(outcomes.iter().all(|o| o.reused > 0 && o.half_closed > 0));
    // Just enough: most packets find a stateless slot.
    assert!(outcomes.iter().all(|o| o.contested_packets < o.packets));
}

#[test]
fn no_flow_moves_when_the_dead_are_released() {
    check(Scenario { on_down: OnDown::Release, ..CALM }, 0..2);
}

#[test]
fn no_flow_moves_in_a_pool_that_is_always_tracked() {
    let outcomes = check(Scenario { always: true, ..CALM }, 0..2);
    // In slots that are not contested they are recorded, and nobody asks.
    assert!(outcomes.iter().all(|o| o.contested_packets < o.packets && o.releases > 3));
}

#[test]
fn no_flow_moves_in_a_storm_of_changes() {
    let storm =
        Scenario { change_every_ms: 4_000, death_every_ms: 9_000, round_trip_ms: 2_900, ..CALM };
    check(storm, 0..1);
    let outcomes = check(Scenario { force: true, ..storm }, 1..2);
    assert!(outcomes.iter().all(|o| o.forced > 0));
}

#[test]
fn no_flow_moves_when_all_are_down_at_times() {
    let few = Scenario { backends: 3, death_every_ms: 20_000, ..CALM };
    for on_down in [OnDown::Keep, OnDown::Release] {
        let outcomes = check(Scenario { on_down, ..few }, 0..1);
        assert!(outcomes.iter().map(|o| o.all_down).sum::<u32>() > 0);
    }
}

#[test]
fn no_flow_moves_when_the_idle_timeout_is_the_shorter_limit() {
    let short = Scenario { window_ms: 120_000, established_ms: 40_000, silence_ms: 40_000, ..CALM };
    check(short, 0..1);
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
        let calm = Scenario { fault, change_every_ms: 12_000, ..CALM };
        let scenario = if fault == Fault::NoPrepare {
            Scenario { change_every_ms: 4_000, round_trip_ms: 2_900, ..calm }
        } else {
            calm
        };
        let broken: u32 = run(scenario, 0..1).iter().map(Outcome::all_broken).sum();
        println!("{fault:?}: {broken} broken");
        assert!(broken > 0, "{fault:?} breaks nothing, so the simulation sees nothing");
    }
}

/// A table with room for about 2,500 flows.
const SMALL: Scenario = Scenario { buckets: 1_024, change_every_ms: 15_000, ..CALM };

fn under(attack: Attack) -> Scenario {
    Scenario { attack, ..SMALL }
}

fn handshakes(outcomes: &[Outcome]) -> u32 {
    outcomes.iter().map(|o| o.broken.get(&Class::Handshake).copied().unwrap_or(0)).sum()
}

fn live(outcomes: &[Outcome]) -> u32 {
    outcomes.iter().map(Outcome::live_broken).sum()
}

#[test]
fn no_flow_moves_under_a_flood_of_syns() {
    let attack = Attack { syns: 1_000, ..Attack::default() };
    let outcomes = check(Scenario { buckets: 2_048, ..under(attack) }, 0..1);
    assert!(outcomes.iter().all(|o| o.attacks > 100_000));
}

#[test]
fn a_flood_pushes_out_its_own_kind() {
    let quiet = Attack::default();
    // A flood that turns every bucket over within seconds.
    let syns = run(under(Attack { syns: 4_000, ..quiet }), 0..1);
    assert!(live(&syns) < 30 && handshakes(&syns) < 30, "{syns:?}");
    let acks = run(under(Attack { acks: 1_000, ..quiet }), 0..1);
    assert!(live(&acks) > 0 && handshakes(&acks) < 5, "{acks:?}");
    let fins = run(under(Attack { fins: 4_000, ..quiet }), 0..1);
    assert!(live(&fins) < 15 && handshakes(&fins) < 5, "{fins:?}");
}

/// Nothing is promised beyond these limits; each breaks what it is said to break.
#[test]
fn the_limits_are_where_they_are_said_to_be() {
    use Class::{Datagram, Established, HalfClosed, Handshake};
    let quiet = Attack::default();
    let base = Scenario { change_every_ms: 15_000, ..CALM };
    let longer = Scenario { silence_ms: 80_000, ..base };
    let half_closed = Scenario { half_closed_silence_ms: 60_000, ..base };
    let far = Scenario { round_trip_ms: 15_000, ..base };
    let udp = Scenario { udp_silence_ms: 40_000, ..base };
    let spoofed_syns = Scenario { attack: Attack { live_syns: 10, ..quiet }, ..base };
    let spoofed_fins = Scenario { attack: Attack { live_fin_syns: 1, ..quiet }, ..base };
    let full = under(Attack { acks: 400, second_acks: true, ..quiet });
    let all = [Datagram, Established, HalfClosed, Handshake].as_slice();
    let limits: [(&str, Scenario, &[Class]); 7] = [
        ("silent for longer than a window", longer, &[Established]),
        ("half-closed and silent for longer", half_closed, &[HalfClosed]),
        ("a second packet after the timeout", far, &[Handshake]),
        ("UDP silent for longer", udp, &[Datagram]),
        ("spoofed SYNs of live flows", spoofed_syns, &[Established, HalfClosed]),
        ("spoofed FINs and SYNs of live flows", spoofed_fins, &[Established, HalfClosed]),
        ("a flow table full of confirmed flows", full, all),
    ];
    for (name, scenario, classes) in limits {
        let outcomes = run(scenario, 0..1);
        let broken: Vec<_> = outcomes.iter().flat_map(|o| o.broken.clone()).collect();
        println!("{name}: {broken:?}");
        assert!(!broken.is_empty(), "{name}: no limit");
        assert!(broken.iter().all(|(class, _)| classes.contains(class)), "{name}: {broken:?}");
    }
}

/// Of a flow the table keeps 32 bits and the bucket: here 18 together, in nature 45 to 55.
#[test]
fn flows_that_look_alike_are_rare() {
    let alike = Scenario { tag_bits: 7, ..CALM };
    let broken: u32 = run(alike, 0..1).iter().map(Outcome::all_broken).sum();
    println!("{broken} broken");
    assert!(broken > 0 && broken < 60, "{broken} broken");
}
