//! Orders: what they do, that they end, and which are refused.

use super::*;
use crate::bgp::community::Community;

const P: &str = "198.51.100.0/24";
const COVER: &str = "198.51.0.0/16";
/// May be poisoned.
const FAR: u32 = 64_510;
const FARTHER: u32 = 64_509;
const THIRD: u32 = 64_508;

/// Every guard of poisoning is satisfied to edge1.
fn poisonable() -> Bench {
    let mut desired = desired(&[COVER, P], &["198.51.100.1"]);
    let bgp = desired.bgp.as_mut().unwrap();
    let edge1 = bgp.peers.get_mut("edge1").unwrap();
    edge1.poison_allowed = [FAR, FARTHER, THIRD, OWN, 64_497, 0, 64_512, 23_456, 3_356].into();
    edge1.attributes.prepend = 3;
    Bench::new(desired)
}

fn poison(asns: &[u32]) -> Steer {
    Steer { poison: asns.iter().copied().collect(), peers: ["edge1".to_owned()].into(), ..steer(P) }
}

#[test]
fn an_order_holds_for_its_peers_and_its_time() {
    let mut bench = Bench::new(desired(&[P], &["198.51.100.1"]));
    let order = Steer { prepend: 2, peers: ["edge2".to_owned()].into(), ..steer("vip1") };
    let done = bench.steer(order).unwrap();
    assert_eq!(done.text, "198.51.100.0/24 to edge2 for 30m: prepend 2");
    assert_eq!(done.undo.as_deref(), Some("lbctl bgp unsteer 1"));
    assert_eq!(bench.path("edge1", P).unwrap(), [OWN]);
    assert_eq!(bench.path("edge2", P).unwrap(), [OWN; 3]);
    assert!(bench.show().contains("prepend 2 (steer 1)"), "{}", bench.show());
    bench.restart();
    bench.pass(1_799_999);
    assert_eq!(bench.path("edge2", P).unwrap(), [OWN; 3]);
    assert_eq!(bench.announcer.orders().len(), 1);
    bench.pass(1);
    assert_eq!(bench.path("edge2", P).unwrap(), [OWN]);
    assert!(bench.announcer.orders().is_empty());
    assert!(bench.order(Order::Unsteer { id: 1 }).is_err());
}

#[test]
fn a_peer_can_be_left_out() {
    let mut bench = Bench::new(desired(&[P], &["198.51.100.1"]));
    let order = Steer { withdraw: true, peers: ["edge2".to_owned()].into(), ..steer(P) };
    bench.steer(order).unwrap();
    assert_eq!((bench.to("edge1").len(), bench.to("edge2").len()), (1, 0));
    assert!(
        bench.show().contains("withdrawn, steer 1: not announced to edge2"),
        "{}",
        bench.show()
    );
    bench.pass(1_800_000);
    assert_eq!(bench.to("edge2"), [P]);
}

#[test]
fn more_specifics_come_and_go_with_their_prefix() {
    let mut bench = Bench::new(desired(&["198.51.100.0/22"], &["198.51.100.1"]));
    let order = Steer { more_specifics: [net("198.51.100.0/23")].into(), ..steer("vip1") };
    bench.steer(order).unwrap();
    assert_eq!(bench.to("edge1"), ["198.51.100.0/22", "198.51.100.0/23"]);
    assert!(bench.show().contains("steer 1: more specific than 198.51.100.0/22"));
    bench.facts.node_drained = true;
    bench.settle();
    bench.pass(2_000);
    assert!(bench.to("edge1").is_empty());
    bench.facts.node_drained = false;
    bench.settle();
    assert_eq!(bench.to("edge1").len(), 2);
    bench.order(Order::Unsteer { id: 1 }).unwrap();
    assert_eq!(bench.to("edge1"), ["198.51.100.0/22"]);
}

#[test]
fn graceful_shutdown_can_be_ordered() {
    let mut desired = desired(&[P], &["198.51.100.1"]);
    let bgp = desired.bgp.as_mut().unwrap();
    bgp.peers.insert("core".to_owned(), peer("core", OWN));
    let mut bench = Bench::new(desired);
    bench.steer(Steer { graceful_shutdown: true, ..steer(P) }).unwrap();
    let routes = &bench.last.as_ref().unwrap().routes;
    let community = Community::GRACEFUL_SHUTDOWN;
    for (peer, rib) in routes {
        let route = rib.get(&net(P)).unwrap();
        assert!(route.communities.contains(&community), "{peer}");
        assert_eq!(route.local_preference, (peer == "core").then_some(0), "{peer}");
    }
}

#[test]
fn shedding_has_one_level_at_a_time() {
    let mut desired = desired(&[P], &["198.51.100.1"]);
    let shed = |prepend| AttributeSettings { prepend, ..AttributeSettings::default() };
    desired.bgp.as_mut().unwrap().shedding = vec![shed(1), shed(2)];
    let mut bench = Bench::new(desired);
    let shed = |level, lasts| Order::Shed { level, lasts: ms(lasts) };
    bench.order(shed(1, 60_000)).unwrap();
    let done = bench.order(shed(2, 60_000)).unwrap();
    assert_eq!(bench.path("edge1", P).unwrap().len(), 3);
    assert!(bench.order(shed(3, 60_000)).unwrap_err().contains("no level 3"));
    bench.order(Order::Unsteer { id: done.id.unwrap() }).unwrap();
    assert_eq!(bench.path("edge1", P).unwrap().len(), 1);
    bench.order(shed(1, 60_000)).unwrap();
    bench.pass(60_000);
    assert_eq!(bench.path("edge1", P).unwrap().len(), 1);
    bench.order(shed(1, 60_000)).unwrap();
    bench.order(shed(0, 0)).unwrap();
    assert_eq!(bench.path("edge1", P).unwrap().len(), 1);
}

#[test]
fn refusals_say_why() {
    let mut desired = desired(&[P, "203.0.113.128/25"], &["198.51.100.1", "203.0.113.129"]);
    desired.bgp.as_mut().unwrap().attributes.prepend = 5;
    let mut bench = Bench::new(desired);
    let inside = |text: &str| Steer { more_specifics: [net(text)].into(), ..steer(P) };
    let peers = ["edge9".to_owned()].into();
    let cases = [
        (steer(P), "nothing is to be done"),
        (Steer { prepend: 1, ..steer("203.0.113.0/24") }, "no prefix that this load balancer"),
        (Steer { prepend: 1, ..steer("mail") }, "neither a prefix nor a VIP"),
        (Steer { prepend: 1, peers, ..steer(P) }, "no peer `edge9`"),
        (Steer { prepend: 1, lasts: ms(999), ..steer(P) }, "1s to 24h"),
        (Steer { prepend: 1, lasts: ms(86_400_001), ..steer(P) }, "1s to 24h"),
        (Steer { prepend: 11, ..steer(P) }, "17 ASNs long, and at most 16"),
        (Steer { withdraw: true, prepend: 1, ..steer(P) }, "goes with nothing"),
        (Steer { local_preference: Some(1), ..steer(P) }, "iBGP peers only"),
        (inside("198.51.101.0/25"), "not inside"),
        (inside(P), "not inside"),
        (inside("198.51.100.0/25"), "longer than /24"),
        (inside("198.51.100.1/25"), "bits beyond its length"),
    ];
    for (order, why) in cases {
        let before = bench.announcer.saved();
        let refusal = bench.steer(order.clone()).unwrap_err();
        assert!(refusal.contains(why), "{order:?}: {refusal}");
        assert_eq!(bench.announcer.saved(), before, "{refusal}");
    }
    // A prefix that is longer than others accept has its own reasons.
    let order =
        Steer { more_specifics: [net("203.0.113.128/26")].into(), ..steer("203.0.113.128/25") };
    bench.steer(order).unwrap();
    for _ in 1..limits::MAX_STEERS {
        bench.steer(Steer { med: Some(1), ..steer(P) }).unwrap();
    }
    let refusal = bench.steer(Steer { med: Some(1), ..steer(P) }).unwrap_err();
    assert!(refusal.contains("orders hold already"), "{refusal}");
}

#[test]
fn rpki_forbids_more_specifics() {
    let mut bench = Bench::new(desired(&["198.51.100.0/22"], &["198.51.100.1"]));
    bench.announcer.set_roas(Some(std::sync::Arc::new(|prefix, _| match prefix.prefix_len() {
        24 => super::super::Validity::Invalid,
        23 => super::super::Validity::NotFound,
        _ => super::super::Validity::Valid,
    })));
    let inside = |text: &str| Steer { more_specifics: [net(text)].into(), ..steer("vip1") };
    assert!(bench.steer(inside("198.51.100.0/24")).unwrap_err().contains("RPKI: Invalid"));
    let done = bench.steer(inside("198.51.100.0/23")).unwrap();
    assert_eq!(done.warnings, ["no ROA covers 198.51.100.0/23"]);
}

#[test]
fn poisoning_keeps_length_first_as_and_origin() {
    let mut bench = poisonable();
    bench.steer(poison(&[FAR])).unwrap();
    assert_eq!(bench.path("edge1", P).unwrap(), [OWN, OWN, FAR, OWN]);
    assert_eq!(bench.path("edge2", P).unwrap(), [OWN]);
    assert_eq!(bench.path("edge1", COVER).unwrap(), [OWN; 4]);
    assert!(bench.show().contains("poison 64510 (steer 1)"), "{}", bench.show());
    bench.steer(poison(&[FARTHER])).unwrap();
    assert_eq!(bench.path("edge1", P).unwrap(), [OWN, FARTHER, FAR, OWN]);
    let refusal = bench.steer(poison(&[THIRD])).unwrap_err();
    assert!(refusal.contains("at most 2 ASNs"), "{refusal}");
    bench.pass(1_800_000);
    assert_eq!(bench.path("edge1", P).unwrap(), [OWN; 4]);
}

#[test]
fn poisoning_has_its_guards() {
    type Case = (&'static str, fn(&mut Bench), Steer);
    let cases: [Case; 13] = [
        ("the local AS", |_| {}, poison(&[OWN])),
        ("peer edge2 is in it", |_| {}, poison(&[64_497])),
        ("it is reserved", |_| {}, poison(&[0])),
        ("it is reserved", |_| {}, poison(&[23_456])),
        ("private use", |_| {}, poison(&[64_512])),
        ("transit-free", |_| {}, poison(&[3_356])),
        ("at most 2", |_| {}, poison(&[FAR, FARTHER, THIRD])),
        ("does not list it", |_| {}, poison(&[64_507])),
        ("does not list it", |_| {}, Steer { peers: BTreeSet::new(), ..poison(&[FAR]) }),
        (
            "already be 3 own ASNs",
            |bench| {
                let bgp = bench.desired.bgp.as_mut().unwrap();
                bgp.peers.get_mut("edge1").unwrap().attributes.prepend = 1;
                bench.configure();
            },
            // Prepending by order does not make up for it: everybody else would move.
            Steer { prepend: 5, ..poison(&[FAR]) },
        ),
        (
            "without any route",
            |bench| {
                bench.desired.bgp.as_mut().unwrap().prefixes.remove(&net(COVER));
                bench.configure();
            },
            poison(&[FAR]),
        ),
        (
            "without any route",
            |bench| {
                bench.steer(Steer { withdraw: true, ..steer(COVER) }).unwrap();
            },
            poison(&[FAR]),
        ),
        (
            "without any route",
            // Nobody behind the peer gets it.
            |bench| {
                let communities = [Community::NO_EXPORT].into();
                bench.steer(Steer { communities, ..steer(COVER) }).unwrap();
            },
            poison(&[FAR]),
        ),
    ];
    for (why, prepare, order) in cases {
        let mut bench = poisonable();
        prepare(&mut bench);
        let before = bench.path("edge1", P);
        let refusal = bench.steer(order.clone()).unwrap_err();
        assert!(refusal.contains(why), "{order:?}: {refusal}");
        assert_eq!(bench.path("edge1", P), before);
    }
}

#[test]
fn poisoning_needs_a_covering_prefix_or_others() {
    // A covering prefix that is poisoned itself is none.
    let mut bench = poisonable();
    bench.see(COVER, others());
    bench.settle();
    let cover = Steer { target: COVER.to_owned(), ..poison(&[FARTHER]) };
    bench.steer(cover).unwrap();
    assert!(bench.steer(poison(&[FAR])).unwrap_err().contains("no covering prefix"));
    // Others that announce it are as good as a covering prefix.
    let mut bench = poisonable();
    bench.desired.bgp.as_mut().unwrap().prefixes.remove(&net(COVER));
    bench.configure();
    bench.see(P, others());
    bench.settle();
    bench.steer(poison(&[FAR])).unwrap();
    assert!(bench.path("edge1", P).unwrap().contains(&FAR));
    bench.desired.bgp.as_mut().unwrap().guards.interval = Duration::from_secs(3_600);
    bench.configure();
    bench.see(P, Seen::Nobody);
    bench.settle();
    assert!(!bench.path("edge1", P).unwrap().contains(&FAR));
    assert!(bench.show().contains("no poison 64510 (steer 1): no covering"), "{}", bench.show());
}

#[test]
fn what_takes_a_guard_away_stops_the_poison() {
    let undo: [fn(&mut Bench); 4] = [
        |bench| {
            let done = bench.steer(Steer { withdraw: true, ..steer(COVER) }).unwrap();
            assert!(done.warnings[0].contains("is not poisoned to edge1"), "{:?}", done.warnings);
        },
        |bench| {
            let bgp = bench.desired.bgp.as_mut().unwrap();
            bgp.peers.get_mut("edge1").unwrap().poison_allowed.clear();
            bench.configure();
        },
        |bench| {
            let bgp = bench.desired.bgp.as_mut().unwrap();
            bgp.peers.get_mut("edge1").unwrap().attributes.prepend = 1;
            bench.configure();
        },
        |bench| {
            bench.desired.bgp.as_mut().unwrap().peers.get_mut("edge2").unwrap().remote_as = FAR;
            bench.configure();
        },
    ];
    for undo in undo {
        let mut bench = poisonable();
        bench.steer(poison(&[FAR])).unwrap();
        assert!(bench.path("edge1", P).unwrap().contains(&FAR));
        undo(&mut bench);
        bench.pass(1_000);
        assert!(!bench.path("edge1", P).unwrap().contains(&FAR), "{}", bench.show());
        assert!(!bench.to("edge1").is_empty());
    }
}
