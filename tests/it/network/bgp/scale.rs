//! Scale: two thousand prefixes to three peers, out and back.

use std::fmt::Write as _;
use std::fs;

use lb_tests::lab::bgp::{self, Routers};
use lb_tests::lab::config::Pool;
use lb_tests::lab::{Lab, Plan};

use super::super::small;
use super::{LISTEN, World, until_peers};

/// VIPs of each family, besides the pool's own.
const VIPS: u32 = 1_000;

/// `[[vip]]` blocks for the pool `web`, in the networks for benchmarks and documentation.
fn vips() -> String {
    let mut text = String::new();
    for number in 0..VIPS {
        let (high, low) = (number / 250, number % 250 + 1);
        for (family, address) in
            [(4, format!("198.19.{high}.{low}")), (6, format!("2001:db8:54::{number:x}:1"))]
        {
            // Writing to a string cannot fail.
            let _infallible = write!(
                text,
                "\n[[vip]]\nname = \"many{family}-{number}\"\naddress = \"{address}\"\n\
                 protocol = \"tcp\"\nports = [80]\npool = \"web\"\n"
            );
        }
    }
    text
}

/// Waits until every router has so many routes of each of its two sessions.
fn until_received(world: &World, count: u64) {
    for router in world.all() {
        let what = format!("{count} prefixes");
        until_peers(&world.lab, router, &what, |peers| {
            peers.len() == 2 && peers.values().all(|it| it.established && it.received == count)
        });
    }
}

#[test]
fn two_thousand_prefixes_reach_three_peers_and_leave_again() {
    let text = bgp::speaker(&format!("{LISTEN}[bgp.lower]\ntime = \"0s\"\n"));
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
    until_received(&world, u64::from(VIPS) + 1);
    lab.balancers[&1].lbctl(&["node", "drain"]).unwrap();
    until_received(&world, 0);
    lab.balancers[&1].lbctl(&["node", "undrain"]).unwrap();
    until_received(&world, u64::from(VIPS) + 1);
}
