//! What operators order, and what they are refused.

use std::collections::BTreeSet;

use super::*;
use crate::api::requests::TraceQuestion;

const TWO: [(&str, u16); 2] = [("b1", 100), ("b2", 100)];

fn message(answer: Result<impl std::fmt::Debug, Failure>) -> String {
    answer.expect_err("it is refused").message
}

#[test]
fn names_that_do_not_exist_are_met_with_those_that_do() {
    let mut world = World::started(&TWO);
    assert_eq!(
        message(world.change("b3", BackendAction::Drain)),
        "there is no backend of pool web called `b3`; did you mean `b1`?"
    );
    let (pool, backend) = ("dns".to_owned(), "b1".to_owned());
    let change = BackendChange { pool, backend, action: BackendAction::Drain };
    let answer = world.ask(Request::Backend(change));
    assert_eq!(message(answer), "there is no pool `dns`; known: web");
}

#[test]
fn the_last_backend_is_not_drained() {
    let mut world = World::started(&TWO);
    world.change("b1", BackendAction::Drain).unwrap();
    for action in [BackendAction::Drain, BackendAction::Weight(0)] {
        let text = message(world.change("b2", action));
        assert!(text.starts_with("`b2` is the last backend of pool `web`"), "{text}");
    }
    world.change("b1", BackendAction::Undrain).unwrap();
    world.change("b2", BackendAction::Drain).unwrap();
}

#[test]
fn the_same_order_twice_changes_nothing() {
    let mut world = World::started(&TWO);
    assert_eq!(world.change("b1", BackendAction::Drain).unwrap().changes.len(), 2);
    let again = world.change("b1", BackendAction::Drain).unwrap();
    assert_eq!((again.changes.len(), again.undo), (0, None));
    let before = world.status().generation;
    world.reload(&text(&TWO));
    assert_eq!(world.status().generation, before);
}

#[test]
fn a_configuration_is_refused_whole_with_all_its_reasons() {
    let mut world = World::started(&TWO);
    let other = text(&[("b1", 1), ("b2", 1)])
        .replace("flow_table_size = 4_096", "flow_table_size = 8_192")
        .replace("interfaces = [\"eth0\"]", "interfaces = [\"eth1\"]")
        .replace("name = \"web\"", "name = \"web\"\nmaglev_size = 2_039");
    let loaded = load(&other);
    let refusals = crate::plan::refusals(&world.controller.desired, &loaded.desired);
    assert_eq!(refusals.len(), 3, "{refusals:?}");
    world.reload(&other);
    assert_eq!(world.status().generation, 1);
    assert_eq!(world.pool().backends[0].weight, 100);
    // And by the socket, with carets.
    let text = message(world.ask(Request::Apply(files("version = 1\nnode = 3\n"))));
    assert!(text.contains("--> /lb.toml:2:"), "{text}");
}

#[test]
fn a_vip_is_served_while_it_changes_its_pool() {
    let mut world = World::started(&TWO);
    world.open(0..50);
    let second = text(&TWO).replace("name = \"web\"", "name = \"shop\"");
    let second = second.replace("pool = \"web\"", "pool = \"shop\"");
    world.reload(&second);
    assert_eq!(world.newcomers().keys().collect::<Vec<_>>(), ["b1", "b2"]);
    assert!(world.controller.pools.contains_key("web"), "its VIP still leads there");
    for name in ["b1", "b2"] {
        let backend = BackendKey::new("shop", name);
        let at = world.now.boot;
        let event = HealthEvent { backend, up: true, reason: String::new(), at };
        world.controller.handle(Event::Health(event), world.now);
    }
    world.idle(1);
    assert!(!world.controller.pools.contains_key("web"));
    assert!(!world.controller.numbers.pools.contains_key("web"));
    assert_eq!(world.newcomers().keys().collect::<Vec<_>>(), ["b1", "b2"]);
}

#[test]
fn a_pool_that_comes_back_while_it_leaves_goes_on_serving() {
    let mut world = World::started(&TWO);
    world.open(0..50);
    let second = text(&TWO).replace("name = \"web\"", "name = \"shop\"");
    world.reload(&second.replace("pool = \"web\"", "pool = \"shop\""));
    world.reload(&text(&TWO));
    world.pass(20);
    assert_eq!(world.newcomers().keys().collect::<Vec<_>>(), ["b1", "b2"]);
    assert!(!world.controller.pools.contains_key("shop"));
    world.verdict("b1", true);
    world.verdict("b2", true);
    world.pass(5);
    assert_eq!((world.pool().up, world.pool().generation), (2, 1));
}

#[test]
fn more_than_there_is_room_for_is_refused() {
    let mut world = World::started(&TWO);
    let many: Vec<String> = (1..=8).map(|number| format!("b{number}")).collect();
    let all: Vec<(&str, u16)> = many.iter().map(|name| (name.as_str(), 100)).collect();
    // Eight fit, but not eight others while the first two may have flows.
    let others: Vec<(&str, u16)> = all.iter().copied().skip(2).collect();
    world.reload(&text(&others));
    assert_eq!(world.status().generation, 2);
    let answer = world
        .controller
        .numbers
        .clone()
        .assign(&load(&text(&[("b9", 1), ("b3", 1)])).desired, world.controller.room);
    assert!(answer.is_err());
}

#[test]
fn probes_through_the_tunnel_connect_to_the_vip() {
    let direct = text(&TWO).replace("kind = \"tcp\"", "kind = \"tcp\"\nvia = \"direct\"");
    let mut world = World::new(&text(&TWO));
    let wanted = world.controller.take_wanted();
    assert_eq!(wanted.tunnelled, Some([IpAddr::V4(VIP)].into()));
    let targets = wanted.targets.unwrap();
    for (key, target) in &targets {
        let id = world.controller.numbers.of_pool("web")[&key.backend];
        assert_eq!(target.address, (VIP, 80).into());
        assert_eq!(target.source, Some([192, 0, 2, 1].into()));
        assert_eq!(target.mark, Some(0x1b00_0000 | u32::from(id)));
    }
    assert_eq!(targets.len(), 2);
    let mut world = World::new(&direct);
    let wanted = world.controller.take_wanted();
    assert_eq!(wanted.tunnelled, Some(BTreeSet::new()));
    for (key, target) in wanted.targets.unwrap() {
        assert_eq!(target.address.ip(), target.backend, "{key}");
        assert_eq!(target.mark, None);
    }
}

#[test]
fn traces_tell_the_backend_and_why() {
    let mut world = World::started(&TWO);
    let source = "198.51.100.7:4000".parse().unwrap();
    let ask = |world: &mut World, target: &str| {
        let target = target.to_owned();
        match world.ask(Request::Trace(TraceQuestion { source, target })) {
            Ok(Response::Trace(trace)) => Ok(trace.flows),
            Ok(other) => panic!("{other:?}"),
            Err(failure) => Err(failure.message),
        }
    };
    let flows = ask(&mut world, "www").unwrap();
    let flow = &flows[0];
    assert_eq!((flows.len(), flow.path.as_str(), flow.verdict.as_str()), (1, "stateless", "tx"));
    assert_eq!(flow.next_hop, "04:04:04:04:04:04 by eth0");
    for same in ["web", "www:80", "web:80", "203.0.113.10:80/tcp"] {
        assert_eq!(ask(&mut world, same).as_ref(), Ok(&flows), "{same}");
    }
    for (target, want) in [
        ("wwv", "there is no VIP or pool with VIPs `wwv`; did you mean `www`?"),
        ("www:81", "`www` has no VIP on port 81"),
        ("203.0.113.10:80/udp", "there is no VIP 203.0.113.10:80/udp"),
    ] {
        assert_eq!(ask(&mut world, target).unwrap_err(), want);
    }
    let source = "[2001:db8::7]:4000".parse().unwrap();
    let target = "www".to_owned();
    let answer = world.ask(Request::Trace(TraceQuestion { source, target }));
    assert!(message(answer).contains("has only IPv4 VIPs"));
}
