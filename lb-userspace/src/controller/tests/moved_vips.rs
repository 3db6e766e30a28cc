//! Always tracked flows keep their backends when their VIP goes to another pool, in whatever way.

use super::*;

fn pool(name: &str, tracking: &str, [a, b]: [u8; 2]) -> String {
    format!(
        r#"[[pool]]
name = "{name}"
window = "10s"
tracking = "{tracking}"
backends = [
  {{ name = "b{a}", address = "10.0.0.{a}" }},
  {{ name = "b{b}", address = "10.0.0.{b}" }},
]
"#
    )
}

fn vip(name: &str, last: u8, ports: &str, pool: &str) -> String {
    format!(
        r#"[[vip]]
name = "{name}"
address = "203.0.113.{last}"
protocol = "tcp"
ports = {ports}
pool = "{pool}"
"#
    )
}

/// Two pools, each with a VIP that stays, and what else there is.
fn two_pools(tracking: &str, more: &[String]) -> String {
    let pools = pool("web", "always", [1, 2]) + &pool("shop", tracking, [3, 4]);
    let others = vip("other", 11, "[80]", "shop") + &vip("another", 12, "[80]", "web");
    HEAD.to_owned() + &pools + &others + &more.concat()
}

/// With `flows` flows of the VIP .10, `seconds` after they began.
fn begun(more: &[String], flows: u16, seconds: u64) -> World {
    let mut world = World::new(&two_pools("always", more));
    world.settle();
    world.idle(5);
    world.open(0..flows);
    if seconds > 0 {
        world.pass(seconds);
    }
    world
}

fn none_has_moved(world: &World) {
    for (client, backend) in &world.flows {
        assert_eq!(&world.send(*client, ACK), backend, "client {client}");
    }
}

#[test]
fn a_port_gets_a_vip_of_its_own() {
    let any = vip("www", 10, "\"any\"", "web");
    let mut world = begun(std::slice::from_ref(&any), 50, 3);
    world.reload(&two_pools("always", &[any.clone(), vip("www80", 10, "[80]", "shop")]));
    none_has_moved(&world);
    // And falls back to the VIP of all ports.
    world.reload(&two_pools("always", &[any]));
    none_has_moved(&world);
}

#[test]
fn it_moves_at_once() {
    // Fewer packets than records that wait.
    let mut world = begun(&[vip("www", 10, "[80]", "web")], 7, 0);
    world.reload(&two_pools("always", &[vip("www", 10, "[80]", "shop")]));
    none_has_moved(&world);
}

#[test]
fn it_moves_and_its_tracking_changes_for_a_while() {
    let mut world = begun(&[vip("www", 10, "[80]", "web")], 50, 3);
    let moved = [vip("www", 10, "[80]", "shop")];
    world.reload(&two_pools("always", &moved));
    world.pass(3);
    world.reload(&two_pools("contested", &moved));
    world.idle(3);
    world.reload(&two_pools("always", &moved));
    none_has_moved(&world);
}

#[test]
fn it_is_removed_and_added_elsewhere() {
    let mut world = begun(&[vip("www", 10, "[80]", "web")], 50, 3);
    world.reload(&two_pools("always", &[]));
    world.idle(2);
    world.reload(&two_pools("always", &[vip("www", 10, "[80]", "shop")]));
    none_has_moved(&world);
}
