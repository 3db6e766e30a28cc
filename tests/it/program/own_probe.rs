//! The probe through the own program: it comes out wrapped for a backend, it fails where packets
//! would be dropped, and the flow table never learns of it.

use std::net::IpAddr;

use lb_userspace::desired::{Port, Protocol, VipKey};

use super::world::{
    ALWAYS, ANY, EMPTY, GUE4, GUE6, HISTORY4, HISTORY6, IPIP4, IPIP6, NO_TABLE, REDIRECT,
    UNRESOLVED, destination, host, kernel, vip_v4, vip_v6,
};

fn key(address: impl Into<IpAddr>, protocol: Protocol, port: Port) -> VipKey {
    VipKey { address: address.into(), protocol, port }
}

fn tcp(address: impl Into<IpAddr>) -> VipKey {
    key(address, Protocol::Tcp, Port::Exact(80))
}

#[test]
fn a_vip_that_is_served_answers_with_a_backend() {
    let Some(dataplane) = kernel() else { return };
    for pool in [IPIP4, IPIP6, GUE4, GUE6, REDIRECT] {
        for vip in [
            tcp(vip_v4(pool)),
            tcp(vip_v6(pool)),
            key(vip_v4(pool), Protocol::Udp, Port::Exact(53)),
            key(vip_v6(pool), Protocol::Udp, Port::Exact(53)),
        ] {
            let backend = dataplane.probe_vip(&vip, 7).unwrap();
            assert_eq!(backend, Some(destination(pool)), "{vip}");
        }
    }
    for vip in [key(ANY, Protocol::Tcp, Port::Any), key(ANY, Protocol::Udp, Port::Any)] {
        assert!(dataplane.probe_vip(&vip, 7).unwrap().is_some(), "{vip}");
    }
}

#[test]
fn a_vip_that_drops_does_not() {
    let Some(dataplane) = kernel() else { return };
    for vip in [
        tcp(vip_v4(EMPTY)),
        tcp(vip_v6(NO_TABLE)),
        tcp(vip_v4(UNRESOLVED)),
        key(vip_v4(GUE4), Protocol::Tcp, Port::Exact(81)),
        tcp([192, 0, 2, 99]),
    ] {
        let error = dataplane.probe_vip(&vip, 7).unwrap_err().to_string();
        assert!(error.contains(&vip.to_string()), "{error}");
    }
}

#[test]
fn probes_leave_no_trace_in_the_flow_table() {
    let Some(dataplane) = kernel() else { return };
    for vip in [tcp(ALWAYS), tcp(vip_v4(HISTORY4)), tcp(vip_v6(HISTORY6))] {
        for turn in 0..500 {
            dataplane.probe_vip(&vip, turn).unwrap();
        }
    }
    assert_eq!(dataplane.flows().count(), 0);
}

#[test]
fn without_a_program_there_is_nothing_to_ask() {
    assert_eq!(host().probe_vip(&tcp(vip_v4(EMPTY)), 7).unwrap(), None);
}
