//! Packets get from the client to a backend and back: every family, every encap, every size.

use std::time::Duration;

use lb_tests::flows::{Flows, Mix};
use lb_tests::lab::addresses::{Family, HTTP_PORT};
use lb_tests::lab::config::{Backend, Encap, Pool};
use lb_tests::lab::web::AgentPlan;
use lb_tests::lab::{Lab, Plan, probe, wait};

use super::{assert_all_live, small};

/// Four pools: GUE and IPIP, each with backends over IPv4 and over IPv6. Each has VIPs of both
/// families, so that all eight mixes of inner and outer are there.
fn every_encap() -> Vec<Pool> {
    let kinds = [
        (Encap::Gue, Family::V4),
        (Encap::Gue, Family::V6),
        (Encap::Ipip, Family::V4),
        (Encap::Ipip, Family::V6),
    ];
    let pool = |(vip, (encap, family)): (u8, (Encap, Family))| {
        let backend = |web| Backend { web, family, weight: 100, drained: false };
        let name = format!("{encap:?}-{family:?}").to_lowercase();
        Pool { name, vip, encap, backends: [1, 2].map(backend).to_vec(), min_up: None }
    };
    (0..).zip(kinds).map(pool).collect()
}

fn check_every_encap(agent_mode: &'static str) {
    let plan = Plan { webs: 2, balancers: 1, pools: every_encap(), agent_mode, ..Plan::default() };
    let lab = Lab::running(plan).unwrap();
    for vip in lab.vips() {
        let name = format!("{vip}, agents in mode {agent_mode}");
        assert_eq!(probe::get(&lab.client, vip, "/big").unwrap().body_bytes, 1_000_000, "{name}");
        // Full segments towards the backend too.
        probe::upload(&lab.client, vip, 300_000).unwrap();
        for text in ["x", &"long ".repeat(200)] {
            probe::echo(&lab.client, vip, text).unwrap();
        }
    }
    let flows = Flows::start(&lab, Mix { tcp: 64, short_per_second: 8, udp: 32 }).unwrap();
    assert_all_live(&flows);
    for vip in lab.vips() {
        for web in ["web1", "web2"] {
            let ledger = flows.ledger();
            let mut of_vip = ledger.flows().filter(|flow| flow.key.vip.ip() == vip);
            assert!(of_vip.any(|flow| flow.backend == web), "no flow of {vip} is on {web}");
        }
    }
}

#[test]
fn every_mix_of_inner_and_outer_with_agents_in_xdp() {
    check_every_encap("xdp");
}

#[test]
fn every_mix_of_inner_and_outer_with_agents_in_generic_xdp() {
    check_every_encap("xdp-generic");
}

#[test]
fn every_mix_of_inner_and_outer_with_agents_in_tc() {
    check_every_encap("tc");
}

#[test]
fn a_port_that_is_no_vip_is_swallowed_and_hosts_stay_reachable() {
    let lab = Lab::running(small(Pool::web(1))).unwrap();
    for vip in lab.vips() {
        let before = lab.balancers[&1].outcome("no_port").unwrap();
        assert!(probe::is_swallowed(&lab.client, vip, HTTP_PORT + 1).unwrap(), "{vip}");
        assert!(lab.balancers[&1].outcome("no_port").unwrap() > before, "{vip}");
    }
    // What is not for a VIP passes: the load balancer's own addresses answer.
    for family in Family::BOTH {
        let own = lb_tests::lab::addresses::balancer(family, 1);
        assert!(probe::ping(&lab.client, own, b"hello").unwrap(), "{own}");
    }
}

/// All links with 1,500: a full packet of the client does not fit once it is wrapped. Returns how
/// many packets did not.
fn check_small_mtu(tunnel_mtu: Option<u16>) -> u64 {
    let plan = Plan { lan_mtu: 1_500, tunnel_mtu, ..small(Pool::web(2)) };
    let lab = Lab::running(plan).unwrap();
    for vip in lab.vips() {
        // Several, to reach both backends: one is wrapped in IPv4, the other in IPv6.
        for _ in 0..6 {
            probe::upload(&lab.client, vip, 300_000).unwrap();
            assert_eq!(probe::get(&lab.client, vip, "/big").unwrap().body_bytes, 1_000_000);
        }
    }
    lab.balancers[&1].outcome("too_big").unwrap()
}

#[test]
fn uploads_fit_mtu_1500_because_the_agent_clamps_the_mss() {
    assert_eq!(check_small_mtu(None), 0);
}

#[test]
fn uploads_fit_mtu_1500_because_too_big_is_answered() {
    // The agents think the tunnel is wide, and clamp nothing.
    assert!(check_small_mtu(Some(1_700)) > 0);
}

/// A link of its own between lb1 and web1, and lb1's routes to web1 over it.
fn link_first_web_directly(lab: &Lab) {
    let (lb, web) = (lab.balancers[&1].namespace(), lab.webs[&1].namespace());
    lb.ip(&format!(
        "link add dev eth1 mtu 1700 type veth peer name eth1 mtu 1700 netns {}\n\
         link set eth1 up\n\
         address add 198.19.1.1/30 dev eth1\n\
         address add 2001:db8:9::1/64 dev eth1 nodad\n",
        web.name(),
    ))
    .unwrap();
    web.ip("link set eth1 up\n\
         address add 198.19.1.2/30 dev eth1\n\
         address add 2001:db8:9::2/64 dev eth1 nodad\n")
        .unwrap();
    lb.ip("route add 192.0.2.21/32 via 198.19.1.2\nroute add 2001:db8:1::21 via 2001:db8:9::2")
        .unwrap();
}

#[test]
fn a_backend_behind_another_interface_is_reached_too() {
    let mut lab = Lab::new(small(Pool::web(2))).unwrap();
    link_first_web_directly(&lab);
    let agent = lab.agent().unwrap();
    lab.web(1).unwrap().start(Some(AgentPlan { interface: "eth1", ..agent.clone() })).unwrap();
    lab.web(2).unwrap().start(Some(agent)).unwrap();
    let pools = lab.plan.pools.clone();
    lab.balancer(1).unwrap().configure(&pools).unwrap();
    lab.balancer(1).unwrap().start().unwrap();
    lab.route_to_balancers(&[1]).unwrap();
    let before = lab.webs[&1].namespace().received("eth1").unwrap();
    let flows = Flows::start(&lab, Mix::SMALL).unwrap();
    assert_all_live(&flows);
    let answered = |web| flows.ledger().flows().any(|flow| flow.backend == web);
    assert!(answered("web1") && answered("web2"));
    // Probes alone would be fewer.
    assert!(lab.webs[&1].namespace().received("eth1").unwrap() > before + 20);
    for way in ["tx", "redirect"] {
        assert!(lab.balancers[&1].outcome(way).unwrap() > 20, "{way}");
    }
}

/// Packets that lb1 has received, and the sum of its outcomes, at a moment without packets.
fn received_and_counted(lab: &Lab) -> (u64, u64) {
    let balancer = &lab.balancers[&1];
    let mut pair = (0, 0);
    wait::until("no packet for a moment", Duration::from_secs(10), || {
        let received = balancer.namespace().received("eth0")?;
        pair = (received, balancer.outcomes()?.values().sum());
        Ok(balancer.namespace().received("eth0")? == received)
    })
    .unwrap();
    pair
}

#[test]
fn every_packet_has_one_outcome() {
    let lab = Lab::running(small(Pool::web(2))).unwrap();
    let (received_before, counted_before) = received_and_counted(&lab);
    let flows = Flows::start(&lab, Mix::SMALL).unwrap();
    for vip in lab.vips() {
        assert!(probe::ping(&lab.client, vip, b"hello").unwrap());
        assert!(probe::is_swallowed(&lab.client, vip, HTTP_PORT + 1).unwrap());
    }
    drop(flows);
    let (received, counted) = received_and_counted(&lab);
    assert_eq!(received - received_before, counted - counted_before);
    let outcomes = lab.balancers[&1].outcomes().unwrap();
    for outcome in ["tx", "echo", "no_port", "not_vip"] {
        assert!(outcomes[outcome] > 0, "{outcomes:?}");
    }
}
