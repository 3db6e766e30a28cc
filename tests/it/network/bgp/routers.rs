//! The lab's routers prove themselves: without a load balancer, what one is told to announce is
//! what the others print.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_tests::lab::addresses::Family;
use lb_tests::lab::bgp::{PEER_AS, Routers, bird_head, bird_session, peer_address};
use lb_tests::lab::router::{Route, Router};
use lb_tests::lab::{Lab, Plan};

use super::{until_peers, until_routes};

/// What BIRD announces; `RTS_STATIC` are its own routes.
const ROUTES: &str = "
protocol static routes4 { ipv4; route 203.0.113.0/24 blackhole {
  bgp_path.prepend(4200000001); bgp_med = 7;
  bgp_community.add((65010, 100)); bgp_community.add((65535, 0));
  bgp_large_community.add((65010, 1, 2)); bgp_ext_community.add((rt, 65010, 100));
}; }
protocol static routes6 { ipv6; route 2001:db8:f00::/48 blackhole; }
";

fn bird_configuration() -> String {
    let mut text = bird_head(peer_address(Family::V4, 1)) + ROUTES;
    for (number, remote_as) in [(2, PEER_AS[1]), (3, PEER_AS[2])] {
        for (family, digit) in Family::BOTH.into_iter().zip([4, 6]) {
            let neighbor = (peer_address(family, number), remote_as);
            let export = "export where source = RTS_STATIC;";
            let name = format!("peer{number}v{digit}");
            text.push_str(&bird_session(&name, PEER_AS[0], neighbor, "", export));
        }
    }
    text
}

fn frr_configuration() -> String {
    let [v4, v6] = Family::BOTH.map(|family| peer_address(family, 1));
    let remote_as = PEER_AS[0];
    format!(
        "router bgp {}\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
         neighbor {v4} remote-as {remote_as}\n neighbor {v6} remote-as {remote_as}\n \
         neighbor {v4} timers connect 1\n neighbor {v6} timers connect 1\n \
         no neighbor {v6} activate\n address-family ipv4 unicast\n  network 198.18.7.0/24\n \
         exit-address-family\n address-family ipv6 unicast\n  neighbor {v6} activate\n \
         exit-address-family\n",
        PEER_AS[1]
    )
}

fn gobgp_configuration() -> String {
    let mut text = format!("[global.config]\nas = {}\nrouter-id = \"192.0.2.33\"\n", PEER_AS[2]);
    for family in Family::BOTH {
        let (address, remote_as) = (peer_address(family, 1), PEER_AS[0]);
        text.push_str(&format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\n\
             peer-as = {remote_as}\n[neighbors.timers.config]\nconnect-retry = 1\n"
        ));
    }
    text
}

fn addresses_of(peers: &BTreeMap<IpAddr, impl Sized>) -> Vec<IpAddr> {
    peers.keys().copied().collect()
}

#[test]
fn what_one_announces_is_what_the_others_print() {
    let mut lab = Lab::new(Plan { webs: 0, balancers: 0, ..Plan::default() }).unwrap();
    let (bird, frr, gobgp) = (bird_configuration(), frr_configuration(), gobgp_configuration());
    let routers = Routers::start(&mut lab, &bird, &frr, &gobgp).unwrap();
    let others: [&dyn Router; 2] = [&routers.frr, &routers.gobgp];
    let first = Family::BOTH.map(|family| peer_address(family, 1));
    for router in others {
        until_peers(&lab, router, "both sessions are there", |peers| {
            peers.values().all(|peer| peer.established && peer.received == 1)
        });
        assert_eq!(addresses_of(&router.peers().unwrap()), first);
        let local_preference = match router.name().contains("FRR") {
            // By itself, because of 65535:0.
            true => Some(0),
            false => None,
        };
        let expected = Route {
            from: first[0].to_string(),
            best: true,
            stale: false,
            as_path: vec![PEER_AS[0], 4_200_000_001],
            next_hop: Some(first[0]),
            med: None,
            local_preference,
            communities: ["65010:100", "65535:0"].map(str::to_owned).into(),
            large_communities: ["65010:1:2".to_owned()].into(),
            extended_communities: ["rt:65010:100".to_owned()].into(),
        };
        let expected = [expected];
        until_routes(&lab, router, "203.0.113.0/24", "it is exact", |it| it == expected);
        until_routes(&lab, router, "2001:db8:f00::/48", "over IPv6, too", |it| {
            matches!(it, [route] if route.best
                && (&route.as_path[..], route.next_hop) == (&PEER_AS[..1], Some(first[1])))
        });
        assert!(router.routes("198.51.100.9/32").unwrap().is_empty());
    }
    until_routes(&lab, &routers.bird, "198.18.7.0/24", "FRR's route is in BIRD", |routes| {
        matches!(routes, [route] if route.best && route.from == "peer2v4"
            && route.as_path == [PEER_AS[1]] && route.med == Some(0)
            && route.next_hop == Some(peer_address(Family::V4, 2)))
    });
    // A frozen router is missed after the hold time; one that goes on is not.
    routers.frr.freeze().unwrap();
    let frr4 = peer_address(Family::V4, 2);
    until_peers(&lab, &routers.bird, "FRR is missed", |peers| !peers[&frr4].established);
    routers.frr.resume().unwrap();
    until_peers(&lab, &routers.bird, "FRR is back", |peers| peers[&frr4].established);
    // Another configuration leaves the sessions alone that are the same in it.
    let since = routers.bird.peers().unwrap()[&frr4].since.clone();
    routers.bird.reconfigure(&bird.replace("bgp_med = 7", "bgp_med = 8")).unwrap();
    assert_eq!(routers.bird.peers().unwrap()[&frr4].since, since);
}
