//! lbd dies and starts again; nothing moves.

use super::*;
use crate::tracking::PoolTracker;

const THREE: [(&str, u16); 3] = [("b1", 100), ("b2", 100), ("b3", 100)];

fn tracker(world: &World) -> PoolTracker {
    world.controller.pools["web"].tracker.clone().unwrap()
}

/// The backend of many flows, as the data plane sees them.
fn picture(world: &World) -> Vec<(u16, u32)> {
    let to = "203.0.113.10:80".parse().unwrap();
    let clients = (0..500_u16).map(|port| {
        let from = format!("198.51.100.7:{}", 1000 + port).parse().unwrap();
        let trace = world.controller.dataplane.trace(from, to, 6).unwrap();
        (trace.owner.0, trace.slot)
    });
    clients.collect()
}

#[test]
fn tables_ids_and_overrides_are_the_same_in_the_middle_of_a_change() {
    let mut world = World::started(&THREE);
    world.open(0..300);
    world.change("b2", BackendAction::Drain).unwrap();
    world.pass(5);
    world.verdict("b3", false);
    world.settle();
    for preparing in [false, true] {
        if preparing {
            world.change("b1", BackendAction::Weight(7)).unwrap();
        }
        let (before, seen) = (tracker(&world), picture(&world));
        let (numbers, overrides) =
            (world.controller.numbers.clone(), world.controller.overrides.clone());
        let mut again = world.restarted(&text(&THREE)).unwrap();
        assert!(again.controller.is_started(), "nobody is waited for");
        assert_eq!(tracker(&again), before);
        assert_eq!(picture(&again), seen);
        assert_eq!(again.controller.numbers, numbers);
        assert_eq!(again.controller.overrides, overrides);
        assert_eq!(again.pool().backends[2].state, "down");
        again.check_flows();
        world = again;
    }
    world.pass(60);
    assert_eq!(world.pool().state, "steady");
}

#[test]
fn an_intent_that_was_not_carried_out_is() {
    let mut world = World::started(&THREE);
    world.open(0..100);
    let before = picture(&world);
    // The verdict is in the journal, and lbd dies before the table is out.
    world.verdict("b1", false);
    world.controller.keep_journal();
    assert_eq!(picture(&world), before);
    let world = world.restarted(&text(&THREE)).unwrap();
    assert!(!world.newcomers().contains_key("b1"));
    world.check_flows();
}

#[test]
fn next_hops_of_an_earlier_lbd_hold_until_there_are_new_ones() {
    let world = World::started(&THREE);
    let dataplane = world.controller.dataplane;
    let mut controller = World::controller(dataplane, load(&text(&THREE)), world.now).unwrap();
    controller.settle(world.now);
    controller.stop_waiting_for_next_hops();
    controller.settle(world.now);
    let world = World { controller, ..world };
    assert!(!world.newcomers().contains_key("unresolved"));
}

#[test]
fn what_changed_meanwhile_is_a_change_like_any_other() {
    let mut world = World::started(&THREE);
    world.open(0..300);
    let mut world = world_without_b3(&mut world);
    assert_eq!(world.status().generation, 2);
    assert_eq!(world.pool().state, "preparing");
    world.pass(50);
    assert!(!world.newcomers().contains_key("b3"));
}

fn world_without_b3(world: &mut World) -> World {
    let empty = World::started(&THREE);
    std::mem::replace(world, empty).restarted(&text(&THREE[..2])).unwrap()
}

#[test]
fn a_vip_that_changed_its_pool_meanwhile_is_served_all_the_time() {
    let mut world = World::started(&THREE);
    world.open(0..50);
    let second = text(&THREE).replace("name = \"web\"", "name = \"shop\"");
    let second = second.replace("pool = \"web\"", "pool = \"shop\"");
    let mut world = world.restarted(&second).unwrap();
    assert!(!world.controller.is_started(), "nothing is known of the new pool's backends");
    world.check_flows();
    // Nobody answers the probes: all are used, and the old pool goes.
    world.idle(6);
    assert!(world.controller.is_started());
    assert!(!world.controller.pools.contains_key("web"));
    assert_eq!(world.newcomers().len(), 3);
}

#[test]
fn another_secret_or_a_damaged_journal_is_refused() {
    let world = World::started(&THREE);
    let mut loaded = load(&text(&THREE));
    loaded.secret = secret(9);
    let refused = World::controller(world.controller.dataplane, loaded, world.now);
    let text_of = |refused: Result<Controller, ControllerError>| match refused {
        Ok(_) => panic!("it must be refused"),
        Err(error) => error.to_string(),
    };
    let message = text_of(refused);
    assert!(message.starts_with("the cluster secret is not the one"), "{message}");
    let mut world = World::started(&THREE);
    world.controller.dataplane.set_journal(b"{\"version\":1,").unwrap();
    let refused = World::controller(world.controller.dataplane, load(&text(&THREE)), world.now);
    let message = text_of(refused);
    assert!(message.contains("lbctl unload --pin-path /sys/fs/bpf/lb"), "{message}");
}
