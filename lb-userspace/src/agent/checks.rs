//! What the agent finds amiss around it: it changes none of it, it says so in one line each. Pure
//! but for [`RpFilter::read`].

use std::fs;
use std::net::IpAddr;

use lb_common::addr::Address;
use lb_common::agent::address_flag;

use super::netlink::{Host, Interface};
use super::options::RunOptions;
use super::plan::Plan;

/// IPv6 wants this of every link (RFC 8200 section 5), bytes.
const IPV6_LEAST_MTU: u32 = 1280;
/// rp_filter: only from the interface that the answer would leave by (RFC 3704 section 2.2).
const STRICT: u32 = 1;

/// Reverse path filtering of IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RpFilter {
    /// The larger one of `all` and the interface's.
    pub mode: u32,
    /// Answers to clients leave by the interface: its default route.
    pub answers_leave_here: bool,
}

impl RpFilter {
    /// Reads it for an interface of this namespace; off where it cannot be read.
    #[must_use]
    pub fn read(interface: &str) -> Self {
        let mode = |name: &str| {
            let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
            let text = fs::read_to_string(path).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        let routes = fs::read_to_string("/proc/self/net/route").unwrap_or_default();
        Self {
            mode: mode("all").max(mode(interface)),
            answers_leave_here: default_route(&routes, interface),
        }
    }
}

/// Does a default route leave by the interface? `text` is /proc/net/route.
fn default_route(text: &str, interface: &str) -> bool {
    text.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace();
        fields.next() == Some(interface) && fields.next() == Some("00000000")
    })
}

/// One line for each thing amiss.
#[must_use]
pub fn warnings(
    options: &RunOptions,
    plan: &Plan,
    interface: &Interface,
    host: &Host,
    rp_filter: RpFilter,
) -> Vec<String> {
    let mut lines = Vec::new();
    for vip in &options.vips {
        if !host.addresses.iter().any(|(_, address)| address == vip) {
            lines.push(format!(
                "VIP {vip} is no address of this namespace, so its packets will not be taken: \
                 ip address add {vip}/{} dev lo",
                if vip.is_ipv4() { 32 } else { 128 },
            ));
        }
    }
    let has_v4 = options.vips.iter().any(IpAddr::is_ipv4);
    if has_v4 && rp_filter.mode == STRICT && !rp_filter.answers_leave_here {
        lines.push(format!(
            "rp_filter is strict and no default route leaves by {0}, so packets of clients will \
             be dropped: sysctl net.ipv4.conf.{0}.rp_filter=2 (the larger one of it and `all` \
             counts)",
            interface.name,
        ));
    }
    if plan.tunnel_mtu > interface.mtu {
        lines.push(format!(
            "the MTU of {} is {}, so tunnel packets of {} bytes may not arrive: raise it, or \
             lower --tunnel-mtu",
            interface.name, interface.mtu, plan.tunnel_mtu,
        ));
    }
    let inside = plan.tunnel_mtu.saturating_sub(u32::from(plan.overhead));
    if options.vips.iter().any(IpAddr::is_ipv6) && inside < IPV6_LEAST_MTU {
        lines.push(format!(
            "a tunnel MTU of {} leaves {inside} bytes for packets inside, IPv6 wants \
             {IPV6_LEAST_MTU}: raise the MTU",
            plan.tunnel_mtu,
        ));
    }
    if !plan.addresses.values().any(|flags| flags & address_flag::LOCAL != 0) {
        lines.push("this namespace has no address that a tunnel can be sent to".to_owned());
    }
    lines.extend(double_vips(options, interface, host));
    lines
}

/// A VIP on the interface itself answers for it on the link: the load balancer's neighbour would
/// send clients' packets past it.
fn double_vips(options: &RunOptions, interface: &Interface, host: &Host) -> Vec<String> {
    let on_interface = |vip: &&IpAddr| {
        let vip = Address::from(**vip);
        host.addresses
            .iter()
            .any(|(index, address)| *index == interface.index && Address::from(*address) == vip)
    };
    options
        .vips
        .iter()
        .filter(on_interface)
        .map(|vip| {
            format!(
                "VIP {vip} is an address of {}, which answers for it on the link: put it on lo",
                interface.name
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes() {
        let text = "Iface\tDestination\tGateway\tFlags\n\
                    eth0\t00000000\t0100000A\t0003\neth1\t0000000A\t00000000\t0001\n";
        assert!(default_route(text, "eth0"));
        assert!(!default_route(text, "eth1"));
        assert!(!default_route("", "eth0"));
    }
}
