//! Scale: two thousand prefixes to three peers, out and back.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;

use lb_tests::lab::bgp::{self, Routers};
use lb_tests::lab::config::Pool;
use lb_tests::lab::router::Peer;
use lb_tests::lab::{Lab, Plan};

use super::super::small;
use super::{LISTEN, World, until_peers};

/// VIPs besides the pool's own, IPv4 and IPv6. The network for documentation has no room for more
/// IPv4 addresses.
const VIPS: [u32; 2] = [230, 1_770];

/// `[[vip]]` blocks for the pool `web`.
fn vips() -> String {
    let four = (0..VIPS[0]).map(|number| format!("203.0.113.{}", 20 + number));
    let six = (0..VIPS[1]).map(|number| format!("2001:db8:54::{number:x}"));
    let mut text = String::new();
    for (number, address) in four.chain(six).enumerate() {
        // Writing to a string cannot fail.
        let _infallible = write!(
            text,
            "\n[[vip]]\nname = \"many{number}\"\naddress = \"{address}\"\n\
             protocol = \"tcp\"\nports = [80]\npool = \"web\"\n"
        );
    }
    text
}

/// Waits until every router has all routes of each of its two sessions, or none.
fn until_received(world: &World, all: bool) {
    let [four, six] = VIPS.map(|count| if all { u64::from(count) + 1 } else { 0 });
    for router in world.all() {
        let what = if all { "all prefixes" } else { "no prefix" };
        until_peers(&world.lab, router, what, |peers| {
            let count = |address: &IpAddr| if address.is_ipv4() { four } else { six };
            let has = |(address, it): (&_, &Peer)| it.established && it.received == count(address);
            peers.len() == 2 && peers.iter().all(has)
        });
    }
}

#[test]
fn two_thousand_prefixes_reach_three_peers_and_leave_again() {
    let text = bgp::speaker(&format!("{LISTEN}[bgp.lower]\ntime = \"0s\"\n"));
    // FRR sends everything back, which is not too much of it.
    let plan = Plan { bgp: text + &bgp::all_sessions(""), ..small(Pool::web(1)) };
    let mut lab = Lab::new(plan).unwrap();
    let (bird, frr) = (bgp::bird(&[1], "", ""), bgp::frr(&[1], &[]));
    let routers = Routers::start(&mut lab, &bird, &frr, &bgp::gobgp(&[1])).unwrap();
    lab.start().unwrap();
    let world = World { routers, lab };
    let lab = &world.lab;
    world.until_announced();
    // One configuration more: they come at once, on sessions that are there.
    let file = lab.balancers[&1].configuration();
    let few = fs::read_to_string(&file).unwrap();
    fs::write(&file, few + &vips()).unwrap();
    lab.balancers[&1].lbctl(&["apply", &file.to_string_lossy()]).unwrap();
    until_received(&world, true);
    lab.balancers[&1].lbctl(&["node", "drain"]).unwrap();
    until_received(&world, false);
    lab.balancers[&1].lbctl(&["node", "undrain"]).unwrap();
    until_received(&world, true);
}
