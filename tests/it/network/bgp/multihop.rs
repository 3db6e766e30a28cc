//! eBGP multihop: a router that is one hop behind another one, which has a session itself.

use lb_tests::lab::addresses::{Family, balancer};
use lb_tests::lab::bgp::{self, OWN_AS, PEER_AS};
use lb_tests::lab::config::Pool;
use lb_tests::lab::router::{Bird, Route, Router as _};
use lb_tests::lab::{Lab, Plan, wait};

use super::super::small;
use super::{DEADLINE, VIPS, peer, told, until_peer, until_routes};

/// The far router, on the client's host, and the near one's address on its side.
const FAR: [&str; 2] = ["192.0.2.130", "2001:db8:2::2"];
const NEAR: [&str; 2] = ["192.0.2.129", "2001:db8:2::1"];
/// What a packet counts as that came over more hops than it may.
const TOO_FAR: &str = "TcpExtTCPMinTTLDrop";

/// The load balancer's part: both routers. To the far one TTLs are secured over IPv6.
fn configuration(hops: u8) -> String {
    let mut text = bgp::speaker("") + &bgp::uplink_sessions("");
    for (digit, address, more) in [(4, FAR[0], ""), (6, FAR[1], "ttl_security = true\n")] {
        let lines = format!("hops = {hops}\nfamilies = [\"ipv{digit}\"]\n{more}");
        let address = address.parse().unwrap();
        text.push_str(&bgp::peer(&format!("far{digit}"), address, PEER_AS[0], &lines));
    }
    text
}

/// BIRD on the far router: the load balancer is two hops away, by way of the near one.
fn far() -> String {
    let mut text = bgp::bird_head(FAR[0].parse().unwrap());
    let networks = ["192.0.2.0/25", "2001:db8:1::/64"];
    for (index, (family, digit)) in Family::BOTH.into_iter().zip([4, 6]).enumerate() {
        let (network, near) = (networks[index], NEAR[index]);
        text.push_str(&format!(
            "protocol static static{digit} {{ ipv{digit}; route {network} via {near}; }}\n"
        ));
        let secure = if family == Family::V6 { "ttl security on;" } else { "" };
        let session = format!("multihop 2; {secure}");
        let lb1 = (balancer(family, 1), OWN_AS);
        text.push_str(&bgp::bird_session(&format!("far{digit}"), PEER_AS[0], lb1, &session, ""));
    }
    text
}

#[test]
fn a_router_behind_another_is_reached_with_two_hops_and_not_with_one() {
    let mut lab = Lab::new(Plan { bgp: configuration(2), ..small(Pool::web(1)) }).unwrap();
    lab.learn_routes("", "").unwrap();
    let bird = Bird::start(lab.directory(), &lab.client, &far()).unwrap();
    lab.start().unwrap();
    let lab = &mut lab;
    until_announced(lab, &bird);
    // Also the near one, as ever; packets for the VIP go there.
    lab.until_routed(&lab.vips(), &[1], DEADLINE).unwrap();
    for (prefix, near) in VIPS.into_iter().zip(NEAR) {
        let lines = bird.ask(&format!("show route {prefix} all")).unwrap();
        let via = format!("via {near} on eth0");
        assert!(lines.iter().any(|line| line.contains(&via)), "not {via}: {lines:#?}");
    }

    // One hop is not enough: packets die on the way, or count as too far.
    let dropped = |lab: &Lab| lab.balancers[&1].namespace().counter(TOO_FAR).unwrap();
    let (before, pools) = (dropped(lab), lab.plan.pools.clone());
    let first = lab.balancer(1).unwrap();
    first.bgp = configuration(1);
    first.apply(&pools).unwrap();
    until_peer(lab, "far4", "the near router drops it", |it| {
        it["state"] != "Established" && it["last_error"]["text"].to_string().contains("connect")
    });
    wait::until("what comes is from too far", DEADLINE, || Ok(dropped(lab) > before))
        .unwrap_or_else(|error| panic!("{error:#}: {}", told(lab)));
    for prefix in VIPS {
        until_routes(lab, &bird, prefix, "no session, no route", <[_]>::is_empty);
    }
    assert!(bird.peers().unwrap().values().all(|peer| !peer.established));
    for name in ["uplink4", "uplink6"] {
        assert_eq!(peer(lab, 1, name)["counters"]["established"], 1, "{name}");
    }
    let first = lab.balancer(1).unwrap();
    first.bgp = configuration(2);
    first.apply(&pools).unwrap();
    until_announced(lab, &bird);
}

/// Waits until the far router has both routes, with the load balancer itself as the next hop.
#[track_caller]
fn until_announced(lab: &Lab, bird: &Bird) {
    for (family, prefix) in Family::BOTH.into_iter().zip(VIPS) {
        let wanted = Route {
            from: if family == Family::V4 { "far4" } else { "far6" }.to_owned(),
            best: true,
            as_path: vec![OWN_AS],
            next_hop: Some(balancer(family, 1)),
            local_preference: Some(100),
            ..Route::default()
        };
        until_routes(lab, bird, prefix, "the far router has it", |it| {
            it == std::slice::from_ref(&wanted)
        });
    }
}
