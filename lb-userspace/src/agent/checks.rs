//! What the agent finds amiss around it: it changes none of it, it says so in one line each. Pure
//! but for [`Paths::read`].

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

/// How answers leave, for IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Paths {
    /// rp_filter: the larger one of `all` and the interface's.
    pub rp_filter: u32,
    /// A default route leaves by the interface.
    pub here: bool,
    /// A default route leaves by another one.
    pub elsewhere: bool,
}

impl Paths {
    /// Reads them for an interface of this namespace; nothing where they cannot be read.
    #[must_use]
    pub fn read(interface: &str) -> Self {
        let mode = |name: &str| {
            let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
            let text = fs::read_to_string(path).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        let routes = fs::read_to_string("/proc/self/net/route").unwrap_or_default();
        let (here, elsewhere) = default_routes(&routes, interface);
        Self { rp_filter: mode("all").max(mode(interface)), here, elsewhere }
    }
}

/// Does a default route leave by the interface, does one leave by another? `text` is
/// /proc/net/route.
fn default_routes(text: &str, interface: &str) -> (bool, bool) {
    let mut found = (false, false);
    for line in text.lines().skip(1) {
        let mut fields = line.split_whitespace();
        let (name, destination) = (fields.next(), fields.next());
        if destination == Some("00000000") {
            found.0 |= name == Some(interface);
            found.1 |= name != Some(interface);
        }
    }
    found
}

/// One line for each thing amiss.
#[must_use]
pub fn warnings(
    options: &RunOptions,
    plan: &Plan,
    interface: &Interface,
    host: &Host,
    paths: Paths,
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
    if has_v4 && paths.rp_filter == STRICT && !paths.here {
        lines.push(format!(
            "rp_filter is strict and no default route leaves by {0}, so packets of clients will \
             be dropped: sysctl net.ipv4.conf.{0}.rp_filter=2 (the larger one of it and `all` \
             counts)",
            interface.name,
        ));
    }
    if has_v4 && !paths.here && paths.elsewhere {
        lines.push(format!(
            "the default route does not leave by {}, so the MSS of answers that take it is not \
             clamped: set `advmss` on that route, or run with the interface it leaves by",
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
    fn routes_of_the_kernel() {
        let text = "Iface\tDestination\tGateway\tFlags\n\
                    eth0\t00000000\t0100000A\t0003\neth1\t0000000A\t00000000\t0001\n";
        assert_eq!(default_routes(text, "eth0"), (true, false));
        assert_eq!(default_routes(text, "eth1"), (false, true));
        assert_eq!(default_routes("", "eth0"), (false, false));
    }
}
