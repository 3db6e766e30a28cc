//! How a pool's backends are probed: at which port, and by way of which VIP.
//!
//! The part of `validate` that joins health checks, pools and VIPs; `resolve` asks the same
//! questions again. Pure: whether a probe gets there is found out by the health room.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::diagnostic::{Finding, Id};
use super::fields::Item;
use super::raw::{Health, Pool, Raw};
use super::validate::{Names, check_known};
use crate::desired::{Family, Port, Protocol, ViaWord};

/// What the VIPs say about the probes of their pools.
pub(super) struct Probes<'r> {
    /// The lowest port of a pool's VIPs, TCP before UDP.
    lowest: BTreeMap<&'r str, (Protocol, u16)>,
    /// The addresses of a pool's TCP VIPs, IPv4 first.
    addresses: BTreeMap<&'r str, BTreeSet<IpAddr>>,
    /// The pool behind each TCP VIP.
    pools: BTreeMap<(IpAddr, Port), &'r str>,
}

impl<'r> Probes<'r> {
    pub(super) fn new(raw: &'r Raw) -> Self {
        let mut probes =
            Self { lowest: BTreeMap::new(), addresses: BTreeMap::new(), pools: BTreeMap::new() };
        for vip in &raw.vips {
            let (Some(pool), Some(protocol)) = (&vip.pool, &vip.protocol) else { continue };
            let pool = pool.value.as_str();
            for port in vip.ports.iter().map(|port| port.value) {
                if let Port::Exact(port) = port {
                    let port = (protocol.value, port);
                    let lowest = probes.lowest.entry(pool).or_insert(port);
                    *lowest = port.min(*lowest);
                }
                let address = vip.address.as_ref().filter(|_| protocol.value == Protocol::Tcp);
                if let Some(address) = address.map(|address| address.value) {
                    probes.addresses.entry(pool).or_default().insert(address);
                    probes.pools.insert((address, port), pool);
                }
            }
        }
        probes
    }

    /// The port that a pool's backends are probed at if its check names none.
    pub(super) fn port(&self, pool: &str) -> Option<u16> {
        self.lowest.get(pool).map(|(_, port)| *port)
    }

    /// The addresses at which TCP to `port` reaches the pool, IPv4 first. A port that has a VIP of
    /// its own, for another pool, is not reached by the pool's VIP for any port.
    pub(super) fn vips(&self, pool: &str, port: u16) -> impl Iterator<Item = IpAddr> {
        let behind = move |address: IpAddr| {
            let exact = self.pools.get(&(address, Port::Exact(port)));
            exact.or_else(|| self.pools.get(&(address, Port::Any)))
        };
        let addresses = self.addresses.get(pool).into_iter().flatten().copied();
        addresses.filter(move |address| behind(*address).is_some_and(|behind| *behind == pool))
    }
}

/// Whether the probes of one pool have a port, and what they need on their way.
pub(super) fn check_probe(
    raw: &Raw,
    pool: &Pool,
    name: &str,
    known: &Names<'_>,
    probes: &Probes<'_>,
    findings: &mut Vec<Finding>,
) {
    let Some(health) = &pool.health else { return };
    let title = format!("pool `{name}` names a health check that does not exist");
    check_known(Id::UnknownHealth, title, "health check", health, &known.healths, findings);
    let Some(check) = raw.healths.iter().find(|check| check.name.value == health.value) else {
        return;
    };
    // What a VIP with a mistake was meant to be is not known.
    if !raw.vips.iter().all(|vip| known.is_whole(vip)) {
        return;
    }
    let port = check.port.as_ref().map(|port| port.value).or(probes.port(name));
    let Some(port) = port else {
        let title = format!("nothing says at which port to probe the backends of pool `{name}`");
        let finding = Finding::new(Id::HealthWithoutPort, title, health.at, "")
            .help(format!("set `port` in `[health.{}]`", health.value))
            .help("without it the lowest port of the pool's VIPs is probed, and it has none");
        return findings.push(finding);
    };
    let vips: Vec<IpAddr> = probes.vips(name, port).collect();
    findings.extend(tunnel_finding(raw, (name, health), check, port, &vips));
}

/// What a check that asks for the tunnel lacks in a pool.
fn tunnel_finding(
    raw: &Raw,
    (pool, health): (&str, &Item<String>),
    check: &Health,
    port: u16,
    vips: &[IpAddr],
) -> Option<Finding> {
    let via = check.via.as_ref().filter(|via| via.value == ViaWord::Tunnel)?;
    let Some(vip) = vips.first() else {
        let title = format!("pool `{pool}` has no TCP VIP with port {port} to probe");
        let finding = Finding::new(Id::TunnelWithoutVip, title, health.at, "")
            .beside(via.at, "through the tunnel means to a VIP")
            .help(format!("give the pool such a VIP, or set `port` in `[health.{}]`", health.value))
            .help("without `via`, a pool that has no such VIP is probed directly");
        return Some(finding);
    };
    // A node without any address has its own finding.
    let families = &raw.node.as_ref()?.families;
    if families.is_empty() || vips.iter().any(|vip| families.contains(&Family::of(*vip))) {
        return None;
    }
    let family = Family::of(*vip);
    let key = match family {
        Family::V4 => "address",
        Family::V6 => "address6",
    };
    let title = format!("the node has no {family} address to probe the VIP of pool `{pool}` from");
    let finding =
        Finding::new(Id::TunnelWithoutSource, title, health.at, format!("its VIP is {vip}"))
            .beside(via.at, "through the tunnel means to a VIP")
            .help(format!("set `{key}` in `[node]`"))
            .help("without `via`, a pool that has no such VIP is probed directly");
    Some(finding)
}
