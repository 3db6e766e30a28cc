//! Attributes: every layer of the configuration, changed in place, and gone when drained.

use lb_tests::lab::Plan;
use lb_tests::lab::addresses::{Family, balancer};
use lb_tests::lab::bgp::{self, OWN_AS};
use lb_tests::lab::config::Pool;
use lb_tests::lab::router::{Route, Router as _};

use super::super::small;
use super::{LISTEN, VIPS, World, plain, until_each, until_routes};

/// The IPv6 VIPs as a whole.
const PREFIX6: &str = "2001:db8:53::/48";

/// The IPv6 VIPs as a whole, with attributes of the prefix and of one peer for it.
const PREFIX: &str = r#"
[[bgp.prefix]]
prefix = "2001:db8:53::/48"
large_communities = ["4200000001:53:0"]
peers = { gobgp6 = { prepend = 1, communities = ["65010:53"] } }

[bgp.host_routes]
communities = ["no-export"]

[bgp.guards]
interval = "0s"
"#;

/// The speaker's and the peers' layers. FRR is in our own AS.
fn layers(med: u32) -> String {
    // The speaker's own layer changes with the MED.
    let speaker = format!(
        "communities = [\"65010:{}\"]\nextended_communities = [\"rt:65010:100\"]\n",
        93 + med
    );
    let bird4 = format!("med = {med}\nprepend = 2\n");
    let frr = "local_preference = 250\n";
    let own = bgp::both_sessions(2, frr).replace("65020", &OWN_AS.to_string());
    // IPv4 prefixes over IPv6, too: RFC 8950.
    let bird = bgp::both_sessions(1, &bird4).replace(
        "families = [\"ipv6\"]",
        "families = [\"ipv4\", \"ipv6\"]\nextended_next_hop = true",
    );
    let speaker = bgp::speaker(&format!("{LISTEN}{speaker}"));
    [&speaker, &bird, &own, &bgp::both_sessions(3, ""), PREFIX].concat()
}

fn set<const N: usize>(texts: [&str; N]) -> std::collections::BTreeSet<String> {
    texts.map(str::to_owned).into()
}

/// What every route of this test has.
fn with_layers(route: Route) -> Route {
    Route { extended_communities: set(["rt:65010:100"]), ..route }
}

#[test]
fn every_layer_is_on_the_wire_and_changes_in_place() {
    let plan = Plan { bgp: layers(7), ..small(Pool::web(1)) };
    let channel = "extended next hop on; import all; }; ipv6 { import all; export none; ";
    let bird = bgp::bird(&[1], "", "")
        .replace("  ipv6 { import all;", &format!("  ipv4 {{ export none; {channel}"));
    let frr = bgp::frr(&[1], &[]).replace("router bgp 65020", &format!("router bgp {OWN_AS}"));
    let world = World::with(plan, &bird, &frr);
    let (lab, routers) = (&world.lab, &world.routers);

    // BIRD: over IPv4 and, with an IPv6 next hop, over IPv6.
    until_routes(lab, &routers.bird, VIPS[0], "over both sessions", |it| it.len() == 2);
    let mut expected = with_layers(Route {
        as_path: vec![OWN_AS; 3],
        med: Some(7),
        communities: set(["65010:100", "65535:65281"]),
        ..plain(&routers.bird, Family::V4)
    });
    let mut found = routers.bird.routes(VIPS[0]).unwrap();
    found.sort_by(|a, b| a.from.cmp(&b.from));
    expected.best = found[0].best;
    assert_eq!(found[0], expected);
    let next_hop = Some(balancer(Family::V6, 1));
    let best = found[1].best;
    let over_six = Route { from: "lb1v6".to_owned(), next_hop, best, ..expected };
    assert_eq!(found[1], over_six);

    // FRR, iBGP: no path of its own, and a local preference.
    let internal = with_layers(Route {
        as_path: Vec::new(),
        local_preference: Some(250),
        communities: set(["65010:100", "65535:65281"]),
        ..plain(&routers.frr, Family::V4)
    });
    until_routes(lab, &routers.frr, VIPS[0], "it is exact", |it| *it == [internal.clone()]);

    // GoBGP: the prefix, with its own attributes and this peer's; no host route in it.
    let whole = with_layers(Route {
        as_path: vec![OWN_AS; 2],
        communities: set(["65010:100", "65010:53"]),
        large_communities: set(["4200000001:53:0"]),
        ..plain(&routers.gobgp, Family::V6)
    });
    until_routes(lab, &routers.gobgp, PREFIX6, "it is exact", |it| *it == [whole.clone()]);
    assert!(routers.gobgp.routes(VIPS[1]).unwrap().is_empty());

    other_families(&world);
    changes(world);
}

/// What each router prints of the family that was not looked at yet.
fn other_families(world: &World) {
    let (lab, routers) = (&world.lab, &world.routers);
    let large_communities = set(["4200000001:53:0"]);
    let whole = with_layers(Route {
        as_path: vec![OWN_AS; 3],
        med: Some(7),
        communities: set(["65010:100"]),
        large_communities: large_communities.clone(),
        ..plain(&routers.bird, Family::V6)
    });
    until_routes(lab, &routers.bird, PREFIX6, "it is exact", |it| *it == [whole.clone()]);
    let internal = with_layers(Route {
        as_path: Vec::new(),
        local_preference: Some(250),
        communities: set(["65010:100"]),
        large_communities,
        ..plain(&routers.frr, Family::V6)
    });
    until_routes(lab, &routers.frr, PREFIX6, "it is exact", |it| *it == [internal.clone()]);
    let host = with_layers(Route {
        communities: set(["65010:100", "65535:65281"]),
        ..plain(&routers.gobgp, Family::V4)
    });
    until_routes(lab, &routers.gobgp, VIPS[0], "it is exact", |it| *it == [host.clone()]);
}

/// Another value goes out at once, on the session that was there; a drain lowers, then withdraws.
fn changes(mut world: World) {
    let lb1 = balancer(Family::V4, 1);
    let since = world.routers.bird.peers().unwrap()[&lb1].since.clone();
    let pools = world.lab.plan.pools.clone();
    let first = world.lab.balancer(1).unwrap();
    first.bgp = layers(8);
    first.apply(&pools).unwrap();
    let (lab, routers) = (&world.lab, &world.routers);
    until_routes(lab, &routers.bird, VIPS[0], "the new MED", |it| {
        it.iter().all(|route| route.med == Some(8))
    });
    for router in world.all() {
        for prefix in [VIPS[0], PREFIX6] {
            until_routes(lab, router, prefix, "the new community", |it| {
                let new = |route: &Route| {
                    let has = |community| route.communities.contains(community);
                    has("65010:101") && !has("65010:100")
                };
                !it.is_empty() && it.iter().all(new)
            });
        }
    }
    assert_eq!(routers.bird.peers().unwrap()[&lb1].since, since, "another session");
    until_each(lab, "one session for all of it", |it| it["counters"]["established"] == 1);

    let said = lab.balancers[&1].lbctl(&["bgp", "routes", "--peer", "bird4"]).unwrap();
    assert!(said.contains(VIPS[0]) && said.contains("peer bird4"), "no reason: {said}");

    lab.balancers[&1].lbctl(&["vip", "drain", "web-tcp4"]).unwrap();
    let frr = &routers.frr;
    until_routes(lab, frr, VIPS[0], "lowered first", |it| {
        it.iter().any(|route| route.communities.contains("65535:0"))
    });
    until_routes(lab, frr, VIPS[0], "then withdrawn", <[Route]>::is_empty);
    // From BIRD also the one with an IPv6 next hop.
    for router in world.all() {
        until_routes(lab, router, VIPS[0], "withdrawn", <[Route]>::is_empty);
    }
    // The others stay.
    assert_eq!(frr.routes(PREFIX6).unwrap().len(), 1);
    lab.balancers[&1].lbctl(&["vip", "undrain", "web-tcp4"]).unwrap();
    until_routes(lab, frr, VIPS[0], "back", |it| {
        it.iter().any(|route| !route.communities.contains("65535:0"))
    });
}
