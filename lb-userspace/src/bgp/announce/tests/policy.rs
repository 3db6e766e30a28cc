//! The policy, as the operator is shown it.

use std::fmt::Write as _;

use super::*;

const P: &str = "198.51.100.0/24";

/// A configuration in which every layer says something.
fn layered() -> Desired {
    let mut desired = desired(&[P], &["198.51.100.1", "2001:db8::1"]);
    let bgp = desired.bgp.as_mut().unwrap();
    bgp.attributes.communities = ["64500:1".parse().unwrap()].into();
    bgp.attributes.large_communities = ["64500:1:1".parse().unwrap()].into();
    bgp.attributes.prepend = 1;
    bgp.attributes.med = Some(10);
    bgp.attributes.next_hop6 = Some("2001:db8::53".parse().unwrap());
    let prefix = bgp.prefixes.get_mut(&net(P)).unwrap();
    prefix.attributes.communities = ["64500:1".parse().unwrap(), "64500:2".parse().unwrap()].into();
    prefix.attributes.local_preference = Some(200);
    let edge1 = AttributeSettings { med: Some(50), prepend: 2, ..AttributeSettings::default() };
    prefix.peers.insert("edge1".to_owned(), edge1);
    let edge1 = bgp.peers.get_mut("edge1").unwrap();
    edge1.attributes.med = Some(40);
    edge1.attributes.next_hop4 = Some("192.0.2.53".parse().unwrap());
    edge1.attributes.extended_communities = ["rt:64500:9".parse().unwrap()].into();
    bgp.peers.remove("edge2");
    let mut core = peer("core", OWN);
    core.ipv6 = false;
    bgp.peers.insert("core".to_owned(), core);
    let shed = |prepend| AttributeSettings { prepend, ..AttributeSettings::default() };
    bgp.shedding = vec![shed(1), shed(3)];
    bgp.lower.communities = ["64500:666".parse().unwrap()].into();
    bgp.lower.prepend = 1;
    desired
}

#[test]
fn every_attribute_has_its_reason() {
    let bench = Bench::new(layered());
    assert_eq!(
        bench.show(),
        "\
198.51.100.0/24 to core: announced, it can be served
  AS_PATH  - iBGP, whose paths start empty: no prepend 1 ([bgp])
  NEXT_HOP own address - default
  MULTI_EXIT_DISC 10 - [bgp]
  LOCAL_PREF 200 - prefix
  COMMUNITIES 64500:1 - [bgp], prefix
  COMMUNITIES 64500:2 - prefix
  LARGE_COMMUNITIES 64500:1:1 - [bgp]
198.51.100.0/24 to edge1: announced, it can be served
  AS_PATH 64500 64500 64500 64500 - local AS, prepend 1 ([bgp]), prepend 2 (prefix's peer edge1)
  NEXT_HOP 192.0.2.53 - peer edge1
  MULTI_EXIT_DISC 50 - prefix's peer edge1
  COMMUNITIES 64500:1 - [bgp], prefix
  COMMUNITIES 64500:2 - prefix
  LARGE_COMMUNITIES 64500:1:1 - [bgp]
  EXTENDED COMMUNITIES rt:64500:9 - peer edge1
2001:db8::1/128 to edge1: announced, it can be served
  AS_PATH 64500 64500 - local AS, prepend 1 ([bgp])
  NEXT_HOP 2001:db8::53 - [bgp]
  MULTI_EXIT_DISC 40 - peer edge1
  COMMUNITIES 64500:1 - [bgp]
  LARGE_COMMUNITIES 64500:1:1 - [bgp]
  EXTENDED COMMUNITIES rt:64500:9 - peer edge1
"
    );
}

/// What a few facts and orders make of the route to each peer: path, MED, LOCAL_PREF, communities.
fn table(bench: &Bench) -> String {
    let mut text = String::new();
    for (peer, rib) in &bench.last.as_ref().unwrap().routes {
        for (prefix, it) in rib.iter().filter(|(prefix, _)| matches!(prefix, IpNet::V4(_))) {
            let path: Vec<String> = it.as_path.iter().map(ToString::to_string).collect();
            let all: Vec<String> = it.communities.iter().map(ToString::to_string).collect();
            let local = it.local_preference.map_or_else(|| "-".to_owned(), |it| it.to_string());
            let med = it.med.map_or_else(|| "-".to_owned(), |it| it.to_string());
            let (path, all) = (path.join(" "), all.join(" "));
            writeln!(text, "{peer} {prefix} | {path} | {med} | {local} | {all}").unwrap();
        }
    }
    text
}

#[test]
fn shedding_steering_and_lowering_add_up_in_this_order() {
    let mut bench = Bench::new(layered());
    bench.order(Order::Shed { level: 2, lasts: ms(600_000) }).unwrap();
    assert_eq!(
        table(&bench),
        "\
core 198.51.100.0/24 |  | 10 | 200 | 64500:1 64500:2
edge1 198.51.100.0/24 | 64500 64500 64500 64500 64500 64500 64500 | 50 | - | 64500:1 64500:2
"
    );
    let order = Steer {
        med: Some(0),
        local_preference: Some(300),
        communities: ["64496:70".parse().unwrap()].into(),
        ..steer(P)
    };
    bench.steer(order).unwrap();
    bench.facts.node_drained = true;
    bench.settle();
    assert_eq!(
        table(&bench),
        "\
core 198.51.100.0/24 |  | 0 | 0 | 64496:70 64500:1 64500:2 64500:666 graceful-shutdown
edge1 198.51.100.0/24 | 64500 64500 64500 64500 64500 64500 64500 64500 | 0 | - | \
         64496:70 64500:1 64500:2 64500:666 graceful-shutdown
"
    );
    assert!(bench.show().contains("LOCAL_PREF 0 - lower"), "{}", bench.show());
}

#[test]
fn paths_are_cut_to_what_others_accept() {
    let mut desired = desired(&[P], &["198.51.100.1"]);
    let bgp = desired.bgp.as_mut().unwrap();
    (bgp.attributes.prepend, bgp.lower.prepend) = (15, 15);
    let mut bench = Bench::new(desired);
    bench.facts.node_drained = true;
    bench.settle();
    assert_eq!(bench.path("edge1", P).unwrap().len(), 16);
    assert!(bench.show().contains("prepend 15 (lower), cut to 16"), "{}", bench.show());
}

#[test]
fn each_peer_has_a_table_even_an_empty_one() {
    let mut desired = desired(&[P], &["198.51.100.1"]);
    let bgp = desired.bgp.as_mut().unwrap();
    bgp.peers.get_mut("edge2").unwrap().ipv4 = false;
    let mut bench = Bench::new(desired);
    assert_eq!((bench.to("edge1").len(), bench.to("edge2").len()), (1, 0));
    let bgp = bench.desired.bgp.as_mut().unwrap();
    bgp.peers.remove("edge1");
    bgp.peers.insert("edge3".to_owned(), peer("edge3", 64_498));
    bench.configure();
    let peers: Vec<&String> = bench.last.as_ref().unwrap().routes.keys().collect();
    assert_eq!(peers, ["edge2", "edge3"]);
    assert_eq!(bench.to("edge3"), [P]);
}

#[test]
fn orders_and_reports_are_json() {
    let order = r#"{"steer": {"target": "vip1", "for": "30m", "prepend": 2, "peers": ["edge1"],
        "communities": ["64496:70"], "more_specifics": ["198.51.100.0/25"]}}"#;
    let Order::Steer(steer) = serde_json::from_str(order).unwrap() else { unreachable!() };
    assert_eq!((steer.lasts, steer.prepend), (ms(1_800_000), 2));
    let typo = r#"{"steer": {"target": "vip1", "for": "30m", "prepends": 2}}"#;
    assert!(serde_json::from_str::<Order>(typo).is_err());
    let bench = Bench::new(layered());
    for report in bench.announcer.routes() {
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<super::super::RouteReport>(&text).unwrap(), report);
    }
}
