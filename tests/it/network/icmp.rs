//! ICMP: echo to a VIP, and errors about its flows.

use lb_tests::lab::config::Pool;
use lb_tests::lab::{Lab, probe};

use super::small;

#[test]
fn a_vip_answers_pings_also_without_lbd() {
    let mut lab = Lab::running(small(Pool::web(1))).unwrap();
    let payloads = [&b""[..], b"x", &[0x5a; 56], &[0xa5; 1_000]];
    for vip in lab.vips() {
        for payload in payloads {
            assert!(probe::ping(&lab.client, vip, payload).unwrap(), "{vip}");
        }
    }
    lab.balancer(1).unwrap().kill_lbd().unwrap();
    for vip in lab.vips() {
        assert!(probe::ping(&lab.client, vip, b"still").unwrap(), "{vip}");
    }
}

#[test]
fn packet_too_big_from_the_clients_side_reaches_the_flows_owner() {
    let lab = Lab::running(small(Pool::web(4))).unwrap();
    // The client still offers segments for 1,500, so the backends send packets that do not fit;
    // only the router's ICMP, sent to the VIP, tells them.
    lab.router.ip("link set dev client mtu 1300").unwrap();
    for vip in lab.vips() {
        for _ in 0..8 {
            assert_eq!(probe::get(&lab.client, vip, "/big").unwrap().body_bytes, 1_000_000);
        }
    }
}
