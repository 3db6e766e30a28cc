//! Backends come, go, die and return; flows stay where they are.

use super::*;
use crate::api::types::Health;

const THREE: [(&str, u16); 3] = [("b1", 100), ("b2", 100), ("b3", 100)];

#[test]
fn forwarding_begins_when_the_first_verdicts_are_in() {
    let mut world = World::new(&text(&THREE));
    world.settle();
    assert!(!world.controller.is_started());
    assert_eq!(world.pool().state, "starting");
    assert_eq!(world.send(1, SYN), "no_backend", "its pool has no table yet");
    world.verdict("b1", true);
    world.verdict("b2", true);
    world.settle();
    assert!(!world.controller.is_started());
    world.verdict("b3", false);
    world.settle();
    assert!(world.controller.is_started());
    let pool = world.pool();
    assert_eq!((pool.state.as_str(), pool.up, pool.contested_slots), ("steady", 2, 0));
    let newcomers = world.newcomers();
    assert_eq!(newcomers.keys().collect::<Vec<_>>(), ["b1", "b2"], "{newcomers:?}");
}

#[test]
fn silent_backends_are_not_waited_for_for_ever() {
    let mut world = World::new(&text(&THREE));
    world.verdict("b1", true);
    world.idle(3);
    assert!(!world.controller.is_started());
    // Three probes of a second each, and the timeout of the last one.
    world.idle(2);
    assert!(world.controller.is_started());
    assert_eq!(world.newcomers().keys().collect::<Vec<_>>(), ["b1"]);
    assert_eq!(world.status().health, Health::Degraded, "nothing is known of two backends");
    world.verdict("b2", true);
    world.verdict("b3", true);
    // One return after the other, each with its preparation.
    world.idle(8);
    assert_eq!(world.newcomers().len(), 3);
    assert_eq!(world.status().health, Health::Ok);
}

#[test]
fn a_drain_breaks_no_flow_and_ends_stateless() {
    let mut world = World::started(&THREE);
    world.open(0..300);
    assert!(world.flows_of("b2") > 50);
    let outcome = world.change("b2", BackendAction::Drain).unwrap();
    assert_eq!(outcome.undo.as_deref(), Some("lbctl backend undrain web/b2"));
    assert_eq!(world.pool().state, "preparing");
    world.pass(4);
    let pool = world.pool();
    assert_eq!(pool.state, "window");
    assert_eq!(pool.backends[1].state, "drain");
    assert_eq!(pool.backends[1].r#override.as_deref(), Some("drain"));
    assert!(!world.newcomers().contains_key("b2"));
    // Long after the window the flows still go where they went, by their entries.
    world.pass(40);
    let pool = world.pool();
    assert_eq!(pool.state, "steady");
    let left = u32::try_from(world.flows_of("b2")).unwrap();
    assert_eq!(pool.backends[1].flows, left);
    assert!(pool.contested_slots > 0 && pool.contested_slots <= left);
    world.flows.retain(|_, backend| backend != "b2");
    world.pass(40);
    let pool = world.pool();
    assert_eq!((pool.contested_slots, pool.backends[1].flows), (0, 0));
}

#[test]
fn a_new_backend_joins_when_it_is_up() {
    let mut world = World::started(&THREE);
    world.open(0..300);
    world.reload(&text(&[("b1", 100), ("b2", 100), ("b3", 100), ("b4", 100)]));
    world.pass(8);
    let pool = world.pool();
    assert_eq!((pool.generation, pool.state.as_str()), (1, "steady"));
    assert_eq!(pool.backends[3].note.as_deref(), Some("joins the table once it is up"));
    world.verdict("b4", true);
    world.pass(4);
    let pool = world.pool();
    assert_eq!((pool.generation, pool.state.as_str()), (2, "window"));
    assert!(world.newcomers()["b4"] > 50);
    world.pass(40);
    assert_eq!(world.flows_of("b4"), 0);
}

#[test]
fn a_change_waits_for_its_new_backends_and_is_one() {
    let mut world = World::started(&THREE);
    world.open(0..100);
    world.reload(&text(&[("b1", 100), ("b4", 100), ("b5", 100)]));
    world.verdict("b4", true);
    world.pass(1);
    assert_eq!(world.pool().state, "steady", "b5 may come yet");
    world.verdict("b5", true);
    world.pass(4);
    let pool = world.pool();
    assert_eq!((pool.generation, pool.state.as_str()), (2, "window"));
    let newcomers = world.newcomers();
    assert_eq!(newcomers.keys().collect::<Vec<_>>(), ["b1", "b4", "b5"]);
    world.pass(20);
}

#[test]
fn unproven_backends_do_not_replace_all_that_serve() {
    let mut world = World::started(&THREE);
    world.open(0..100);
    world.reload(&text(&[("b4", 100), ("b5", 100)]));
    world.pass(20);
    assert_eq!(world.newcomers().keys().collect::<Vec<_>>(), ["b1", "b2", "b3"]);
    assert_eq!(world.status().health, Health::Degraded);
    world.verdict("b5", true);
    world.pass(4);
    assert_eq!(world.newcomers().keys().collect::<Vec<_>>(), ["b5"]);
    world.pass(40);
}

#[test]
fn other_weights_move_new_flows_only() {
    let mut world = World::started(&THREE);
    world.open(0..300);
    let outcome = world.change("b1", BackendAction::Weight(0)).unwrap();
    assert_eq!(outcome.undo.as_deref(), Some("lbctl backend weight web/b1 100"));
    world.pass(4);
    assert!(!world.newcomers().contains_key("b1"));
    world.change("b1", BackendAction::Weight(100)).unwrap();
    world.pass(40);
    let pool = world.pool();
    assert_eq!(pool.backends[0].r#override, None, "what the file says needs no override");
    assert!(world.newcomers()["b1"] > 50);
}

#[test]
fn a_death_moves_only_the_slots_of_the_dead_one() {
    let mut world = World::started(&THREE);
    world.open(0..300);
    world.verdict("b3", false);
    world.settle();
    // Its own flows stay with it: the verdict may be wrong.
    world.check_flows();
    assert!(!world.newcomers().contains_key("b3"));
    let pool = world.pool();
    assert_eq!((pool.backends[2].state.as_str(), pool.up), ("down", 2));
    world.pass(5);
    world.verdict("b3", true);
    world.pass(5);
    assert!(world.newcomers()["b3"] > 50);
    world.pass(40);
}

#[test]
fn when_all_are_down_all_are_used() {
    let mut world = World::started(&THREE);
    world.open(0..100);
    for name in ["b1", "b2", "b3"] {
        world.verdict(name, false);
        world.settle();
    }
    world.pass(3);
    assert_eq!(world.newcomers().len(), 3);
    let status = world.status();
    assert_eq!(status.health, Health::Degraded);
    assert!(status.pools[0].all_down);
    assert_eq!(status.reasons, ["pool web: all backends are down, so all are used"]);
    world.verdict("b2", true);
    world.settle();
    assert!(!world.pool().all_down);
    assert_eq!(world.newcomers().keys().collect::<Vec<_>>(), ["b2"]);
}

#[test]
fn ids_are_not_given_again_while_a_flow_has_them() {
    let mut world = World::started(&THREE);
    world.open(0..300);
    world.reload(&text(&THREE[..2]));
    world.pass(60);
    assert!(world.flows_of("b3") > 50);
    assert!(world.controller.numbers.backends.values().any(|record| record.name == "b3"));
    world.flows.retain(|_, backend| backend != "b3");
    // The last flow is forgotten after 30 s, the slots' past as long after the window.
    world.pass(120);
    let names = world.controller.numbers.backends.values().map(|record| record.name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["b1", "b2"]);
}

#[test]
fn an_interface_that_comes_back_is_attached_again() {
    let mut world = World::started(&THREE);
    world.controller.handle(Event::Host(HostEvent::LinkGone("eth0".into())), world.now);
    let status = world.status();
    assert_eq!((status.health, status.xdp.state.as_str()), (Health::Down, "gone"));
    let link = Link { index: 9, name: "eth0".into(), up: true, mtu: 1500, mac: Some([2; 6]) };
    world.controller.handle(Event::Host(HostEvent::LinkUp(link)), world.now);
    assert_eq!(world.status().health, Health::Ok);
    assert_eq!(world.controller.ports[0].index, Some(9));
}
