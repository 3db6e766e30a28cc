//! GTSM (RFC 5082) from the first packet on: who does not prove that it is near has no connection,
//! also when it is the one that connects.

use lb_tests::lab::bgp;
use lb_tests::lab::config::Pool;
use lb_tests::lab::router::Bird;
use lb_tests::lab::{Lab, Plan, wait};

use super::super::small;
use super::{DEADLINE, LISTEN, VIPS, peer, until_peer, until_routes};

/// Connections that are not answered before they count as refused; both families try.
const ATTEMPTS: u64 = 4;
/// A neighbour that secures its TTL sends 255; without, what is directly connected sends 1.
const SECURE: &str = "ttl security on;";

#[test]
fn a_passive_peer_proves_its_distance_with_its_first_packet() {
    let secured = bgp::both_sessions(1, "passive = true\nttl_security = true\n");
    let text = bgp::speaker(LISTEN) + &secured;
    let mut lab = Lab::new(Plan { bgp: text, ..small(Pool::web(1)) }).unwrap();
    let host = lab.add_router(1).unwrap();
    let bird = Bird::start(lab.directory(), &host, &bgp::bird(&[1], SECURE, "")).unwrap();
    lab.start().unwrap();
    let until_announced = || {
        for prefix in VIPS {
            until_routes(&lab, &bird, prefix, "it is announced", |it| it.len() == 1);
        }
    };
    until_announced();

    bird.reconfigure(&bgp::bird(&[1], "", "")).unwrap();
    for name in ["bird4", "bird6"] {
        until_peer(&lab, name, "its session is over", |it| it["state"] != "Established");
    }
    let of_us = lab.balancers[&1].namespace();
    let accepted = || of_us.counter("TcpPassiveOpens").unwrap();
    let established = |name: &str| peer(&lab, 1, name)["counters"]["established"].clone();
    let tried = || host.counter("TcpActiveOpens");
    let before = (tried().unwrap(), accepted(), ["bird4", "bird6"].map(established));
    wait::until("BIRD has tried, often", DEADLINE, || Ok(tried()? >= before.0 + ATTEMPTS)).unwrap();
    assert_eq!(accepted(), before.1, "the kernel has let nobody in");
    assert_eq!(["bird4", "bird6"].map(established), before.2);

    bird.reconfigure(&bgp::bird(&[1], SECURE, "")).unwrap();
    until_announced();
}
