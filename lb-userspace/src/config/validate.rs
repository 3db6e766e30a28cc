//! Checks what the parts of a configuration must be to each other.
//!
//! Stands behind `raw`, which judged each value alone, and before `resolve`. Pure: it adds
//! findings, changes nothing and looks at nothing but the text that was read; whether an interface
//! exists or a path carries the packets is the host's part.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::bgp;
use super::diagnostic::{At, Finding, Id, closest};
use super::fields::{Field, Item};
use super::pools;
use super::raw::{Api, Dataplane, Health, Node, Raw, Vip};
use super::schema::{self, Kind, Section};
use super::values::{grouped, literal};
use crate::desired::{Prefix4, Prefix6, Protocol, VipKey, format_duration, limits};
use crate::primes;

/// Adds every finding about `raw`.
pub(super) fn validate(raw: &Raw, findings: &mut Vec<Finding>) {
    if let Some(node) = &raw.node {
        check_node(node, findings);
    }
    if let Some(dataplane) = &raw.dataplane {
        check_dataplane(dataplane, findings);
    }
    check_exposure(raw, findings);
    if let Some(api) = &raw.api {
        check_api(api, findings);
    }
    let names = Names::new(raw);
    for health in &raw.healths {
        check_health(health, &names, findings);
    }
    let own = own_addresses(raw);
    check_vips(raw, &names, &own, findings);
    pools::check_pools(raw, &names, &own, findings);
    bgp::validate(raw, &own, findings);
    check_limits(raw, findings);
}

/// The addresses that lead back to this load balancer, and where they are written.
#[derive(Default)]
pub(super) struct OwnAddresses {
    pub(super) node: BTreeMap<IpAddr, At>,
    pub(super) vips: BTreeMap<IpAddr, At>,
}

fn own_addresses(raw: &Raw) -> OwnAddresses {
    let mut own = OwnAddresses::default();
    if let Some(node) = &raw.node {
        own.node.extend(node.address.iter().map(|item| (IpAddr::V4(item.value), item.at)));
        own.node.extend(node.address6.iter().map(|item| (IpAddr::V6(item.value), item.at)));
    }
    for address in raw.vips.iter().filter_map(|vip| vip.address.as_ref()) {
        own.vips.entry(address.value).or_insert(address.at);
    }
    own
}

/// Who is there by what name, and who names whom.
pub(super) struct Names<'r> {
    pub(super) pools: BTreeMap<&'r str, At>,
    pub(super) healths: BTreeMap<&'r str, At>,
    pools_used: BTreeSet<&'r str>,
    healths_used: BTreeSet<&'r str>,
}

impl<'r> Names<'r> {
    fn new(raw: &'r Raw) -> Self {
        let text = |field: &'r Field<String>| field.as_ref().map(|item| item.value.as_str());
        let pools = raw.pools.iter().filter_map(|pool| pool.name.as_ref());
        let healths = raw.healths.iter().map(|health| &health.name);
        let at = |name: &'r Item<String>| (name.value.as_str(), name.at);
        Self {
            pools: pools.rev().map(at).collect(),
            healths: healths.map(at).collect(),
            pools_used: raw.vips.iter().filter_map(|vip| text(&vip.pool)).collect(),
            healths_used: raw.pools.iter().filter_map(|pool| text(&pool.health)).collect(),
        }
    }

    /// True if no VIP names the pool - unless one names a pool that does not exist, for then it
    /// probably means this one.
    pub(super) fn pool_is_unused(&self, name: &str) -> bool {
        !self.pools_used.contains(name)
            && self.pools_used.iter().all(|u| self.pools.contains_key(u))
    }

    /// True if nothing is wrong with what a VIP leads to.
    pub(super) fn is_whole(&self, vip: &Vip) -> bool {
        let pool = vip.pool.as_ref().is_some_and(|p| self.pools.contains_key(p.value.as_str()));
        pool && vip.address.is_some() && vip.protocol.is_some() && !vip.ports.is_empty()
    }

    /// True if no pool names the health check, unless one names one that does not exist.
    fn health_is_unused(&self, name: &str) -> bool {
        let known = |used: &&str| self.healths.contains_key(used);
        !self.healths_used.contains(name) && self.healths_used.iter().all(known)
    }
}

/// Why no packet can be sent to an address; `None` if one can.
pub(super) fn unusable(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let reasons = [
        (address.is_unspecified(), "the unspecified address"),
        (address.is_loopback(), "a loopback address"),
        (address.is_multicast(), "a multicast address"),
        (broadcast, "the broadcast address"),
        (link_local, "a link-local address"),
        (mapped, "an IPv4 address in IPv6 form"),
    ];
    reasons.into_iter().find_map(|(holds, reason)| holds.then_some(reason))
}

pub(super) fn check_usable(address: IpAddr, at: At, whose: &str, findings: &mut Vec<Finding>) {
    if let Some(why) = unusable(address) {
        let title = format!("{whose} has an address that cannot be used");
        findings.push(Finding::new(Id::UnusableAddress, title, at, why));
    }
}

fn check_node(node: &Node, findings: &mut Vec<Finding>) {
    if let Some(item) = &node.address {
        check_usable(IpAddr::V4(item.value), item.at, "the node", findings);
    }
    if let Some(item) = &node.address6 {
        check_usable(IpAddr::V6(item.value), item.at, "the node", findings);
    }
    if node.families.is_empty() {
        let title = "the node has no address for its tunnels to start from";
        let finding = Finding::new(Id::NoNodeAddress, title, node.at, "");
        findings
            .push(finding.help("set `address` for IPv4 backends, `address6` for IPv6, or both"));
    }
}

fn check_dataplane(dataplane: &Dataplane, findings: &mut Vec<Finding>) {
    if let Some(size) = &dataplane.maglev_size {
        check_size(size, "of `[dataplane]`", findings);
    }
    if let Some(prefix) = &dataplane.ipip_source {
        let Prefix4 { address, length } = prefix.value;
        let masked = prefix.value.masked().to_string();
        check_prefix("ipip_source", prefix, (address.into(), length), &masked, findings);
    }
    if let Some(prefix) = &dataplane.ipip_source6 {
        let Prefix6 { address, length } = prefix.value;
        let masked = prefix.value.masked().to_string();
        check_prefix("ipip_source6", prefix, (address.into(), length), &masked, findings);
    }
    let mut seen: BTreeMap<&str, At> = BTreeMap::new();
    for interface in dataplane.interfaces.iter().flat_map(|list| &list.value) {
        if let Some(first) = seen.insert(&interface.value, interface.at) {
            let title = format!("interface `{}` is named twice", interface.value);
            let finding = Finding::new(Id::DuplicateInterface, title, interface.at, "");
            findings.push(finding.beside(first, "first here"));
        }
    }
}

fn check_prefix<T: ToString>(
    name: &str,
    prefix: &Item<T>,
    (address, length): (IpAddr, u8),
    masked: &str,
    findings: &mut Vec<Finding>,
) {
    let kind = schema::DATAPLANE.key(name).map(|key| key.kind);
    let (Some(Kind::Prefix4 { min, max }) | Some(Kind::Prefix6 { min, max })) = kind else {
        return;
    };
    if !(min..=max).contains(&length) {
        let title = format!("`{name}` must have a length from {min} to {max}");
        let label = format!("this has {length}");
        let finding = Finding::new(Id::BadPrefix, title, prefix.at, label);
        findings.push(finding.help("the bits behind it tell flows apart, so it must not be long"));
    } else if prefix.value.to_string() != masked {
        let title = format!("`{name}` has bits behind its length");
        let finding = Finding::new(Id::BadPrefix, title, prefix.at, "");
        findings.push(finding.help(format!("write \"{masked}\"")));
    } else if let Some(why) = unusable(address) {
        let title = format!("`{name}` holds addresses that no packet can come from");
        findings.push(Finding::new(
            Id::BadPrefix,
            title,
            prefix.at,
            format!("it begins with {why}"),
        ));
    }
}

/// A table's size must be one of the primes.
pub(super) fn check_size(size: &Item<u32>, whose: &str, findings: &mut Vec<Finding>) {
    if primes::is_allowed(size.value) {
        return;
    }
    let title = format!("`maglev_size` {whose} is not on the list of primes");
    let nearest = literal(primes::nearest(u64::from(size.value)));
    let finding = Finding::new(Id::BadSize, title, size.at, "");
    let list = primes::PRIMES.map(grouped).join(" ");
    findings
        .push(finding.help(format!("the nearest is {nearest}")).help(format!("the list: {list}")));
}

fn check_exposure(raw: &Raw, findings: &mut Vec<Finding>) {
    let Some(Some(listen)) = &raw.metrics else { return };
    if !listen.value.ip().is_loopback() {
        let title = "metrics are served beyond this machine, without a password";
        let finding = Finding::new(Id::MetricsExposed, title, listen.at, "not a loopback address");
        findings.push(finding.help("use 127.0.0.1 or [::1] unless a firewall stands before it"));
    }
    if listen.value.port() == 0 {
        let title = "`listen` of `[metrics]` needs a port from 1 to 65,535";
        findings.push(Finding::new(Id::BadPort, title, listen.at, ""));
    }
}

/// A path that `bind` takes: `sun_path` of unix(7) has 108 bytes, the last of them zero.
fn check_api(api: &Api, findings: &mut Vec<Finding>) {
    const MAX_SOCKET_PATH: usize = 107;
    let Some(socket) = &api.socket else { return };
    let bytes = socket.value.as_os_str().len();
    if bytes > MAX_SOCKET_PATH {
        let title = format!("`socket` of `[api]` must have at most {MAX_SOCKET_PATH} bytes");
        let label = format!("this has {bytes}");
        findings.push(Finding::new(Id::BadPath, title, socket.at, label));
    }
}

fn check_health(health: &Health, names: &Names<'_>, findings: &mut Vec<Finding>) {
    let name = &health.name.value;
    if names.health_is_unused(name) {
        let title = format!("no pool uses health check `{name}`");
        findings.push(Finding::new(Id::UnusedHealth, title, health.name.at, ""));
    }
    let (Some(interval), Some(timeout)) = (&health.interval, &health.timeout) else { return };
    if timeout.value > interval.value {
        let title = format!("a probe of health check `{name}` may outlast its interval");
        // Point at what is written; the other one is the default then.
        let (place, other) = if timeout.given { (timeout, interval) } else { (interval, timeout) };
        let label = |item: &Item<Duration>| {
            let key = if std::ptr::eq(item, timeout) { "timeout" } else { "interval" };
            format!("`{key}` is {}", format_duration(item.value))
        };
        let finding = Finding::new(Id::TimeoutOverInterval, title, place.at, label(place));
        let finding = match other.given {
            true => finding.beside(other.at, label(other)),
            false => finding.help(format!("by default {}", label(other))),
        };
        findings.push(finding.help("`timeout` must be at most `interval`"));
    }
}

fn check_vips(raw: &Raw, known: &Names<'_>, own: &OwnAddresses, findings: &mut Vec<Finding>) {
    let mut names: BTreeMap<&str, At> = BTreeMap::new();
    let mut keys: BTreeMap<VipKey, (At, &str)> = BTreeMap::new();
    for vip in &raw.vips {
        let name = vip.name.as_ref().map_or("this VIP", |name| name.value.as_str());
        if let Some(name) = &vip.name {
            check_unique("two VIPs", name, &mut names, findings);
        }
        check_vip(vip, name, known, own, findings);
        let (Some(address), Some(protocol)) = (&vip.address, &vip.protocol) else { continue };
        for port in &vip.ports {
            let key = VipKey { address: address.value, protocol: protocol.value, port: port.value };
            let Some((first, other)) = keys.get(&key) else {
                keys.insert(key, (port.at, name));
                continue;
            };
            let title = format!("two VIPs are {key}");
            let label = format!("`{other}` has it already");
            let finding = Finding::new(Id::DuplicateVip, title, port.at, "");
            findings.push(finding.beside(*first, label));
        }
    }
}

/// Reports the second of two things with one name.
pub(super) fn check_unique<'n>(
    title: &str,
    name: &'n Item<String>,
    seen: &mut BTreeMap<&'n str, At>,
    findings: &mut Vec<Finding>,
) {
    if let Some(first) = seen.get(name.value.as_str()) {
        let title = format!("{title} are named `{}`", name.value);
        let finding = Finding::new(Id::DuplicateName, title, name.at, "");
        findings.push(finding.beside(*first, "first used here"));
    } else {
        seen.insert(&name.value, name.at);
    }
}

fn check_vip(
    vip: &Vip,
    name: &str,
    known: &Names<'_>,
    own: &OwnAddresses,
    findings: &mut Vec<Finding>,
) {
    let whose = format!("VIP `{name}`");
    if let Some(address) = &vip.address {
        check_usable(address.value, address.at, &whose, findings);
        if let Some(node) = own.node.get(&address.value) {
            let title = format!("{whose} has the node's own address");
            let finding = Finding::new(Id::AddressIsNode, title, address.at, "")
                .beside(*node, "the node's address")
                .help("a VIP needs an address of its own: the node must stay reachable");
            findings.push(finding);
        }
    }
    if let Some(pool) = &vip.pool {
        let title = format!("VIP `{name}` names a pool that does not exist");
        check_known(Id::UnknownPool, title, "pool", pool, &known.pools, findings);
    }
    let Some(protocol) = &vip.protocol else { return };
    let only_udp = [
        ("tracking", vip.tracking.as_ref().map(|item| item.at)),
        ("udp", vip.udp_timeout.as_ref().map(|item| item.at)),
    ];
    for (key, at) in only_udp.into_iter().filter(|_| protocol.value == Protocol::Tcp) {
        let Some(at) = at else { continue };
        let title = format!("`{key}` of VIP `{name}` has no meaning for {}", protocol.value);
        let finding = Finding::new(Id::NotForProtocol, title, at, "");
        let finding = finding.beside(protocol.at, "the protocol");
        findings.push(match key {
            "tracking" => finding.help("TCP flows are tracked as `tracking` of the pool says"),
            _ => finding.help("leave it out; TCP has its timeouts in `[defaults.flow_timeout]`"),
        });
    }
}

/// Reports a name that nothing has, with the one that was probably meant.
pub(super) fn check_known(
    id: Id,
    title: String,
    kind: &str,
    name: &Item<String>,
    known: &BTreeMap<&str, At>,
    findings: &mut Vec<Finding>,
) {
    if known.contains_key(name.value.as_str()) {
        return;
    }
    let finding = Finding::new(id, title, name.at, format!("no {kind} has this name"));
    let similar = closest(&name.value, known.keys().copied());
    findings.push(match similar.and_then(|word| known.get_key_value(word)) {
        Some((word, at)) => finding
            .beside(*at, format!("a {kind} with a similar name is defined here"))
            .help(format!("did you mean `{word}`?")),
        None => finding,
    });
}

fn check_limits(raw: &Raw, findings: &mut Vec<Finding>) {
    let Some(dataplane) = &raw.dataplane else { return };
    let vips: Vec<At> = raw.vips.iter().flat_map(|vip| &vip.ports).map(|port| port.at).collect();
    let pools: Vec<At> = raw.pools.iter().map(|pool| pool.at).collect();
    let backends = raw.pools.iter().flat_map(|pool| &pool.backends).flat_map(|list| &list.value);
    let backends: Vec<At> = backends.map(|backend| backend.at).collect();
    let limits = [
        ("VIPs", "max_vips", &dataplane.max_vips, vips),
        ("pools", "max_pools", &dataplane.max_pools, pools),
        ("backends", "max_backends", &dataplane.max_backends, backends),
    ];
    for (things, key, limit, places) in limits {
        let Some(limit) = limit else { continue };
        let beyond = usize::try_from(limit.value).ok().and_then(|limit| places.get(limit));
        if let Some(beyond) = beyond {
            let title = format!("there are more {things} than there is room for");
            let label = format!("number {}", grouped(u64::from(limit.value) + 1));
            let finding = Finding::new(Id::OverLimit, title, *beyond, label);
            let max = maximum(&schema::DATAPLANE, key);
            let help = match i64::try_from(places.len()).is_ok_and(|needed| needed <= max) {
                true => format!(
                    "set `{key} = {}` in `[dataplane]`; at most {}",
                    literal(places.len()),
                    grouped(max)
                ),
                false => {
                    let (all, most) = (grouped(places.len()), grouped(max));
                    format!("there are {all}, and {most} is the most that lbd can have")
                }
            };
            findings.push(with_limit(finding, key, limit).help(help));
        }
    }
    check_slots(raw, dataplane, findings);
}

fn with_limit(finding: Finding, key: &str, limit: &Item<u32>) -> Finding {
    match limit.given {
        true => finding.beside(limit.at, format!("`{key}`")),
        false => finding.help(format!("`{key}` is {} by default", grouped(limit.value))),
    }
}

fn maximum(section: &Section, key: &str) -> i64 {
    match section.key(key).map(|key| key.kind) {
        Some(Kind::Integer { max, .. }) => max,
        _ => i64::MAX,
    }
}

/// Each pool needs room for its table in use and the one in the making.
fn check_slots(raw: &Raw, dataplane: &Dataplane, findings: &mut Vec<Finding>) {
    let limit = dataplane.max_slots.as_ref();
    let room = limit.map_or(limits::MAX_SLOTS, |limit| limit.value);
    let mut needed: u64 = 0;
    let mut beyond = None;
    for pool in &raw.pools {
        let Some(size) = pool.maglev_size.as_ref().or(dataplane.maglev_size.as_ref()) else {
            continue;
        };
        needed += u64::from(size.value) * u64::from(limits::TABLES_PER_POOL);
        if needed > u64::from(room) {
            beyond = beyond.or(Some(pool.at));
        }
    }
    let Some(at) = beyond else { return };
    let title = "the pools have more slots than there is room for";
    let label = format!("here {} are passed", grouped(room));
    let finding = Finding::new(Id::OverLimit, title, at, label);
    let finding = match limit {
        Some(limit) => finding.beside(limit.at, "`max_slots`"),
        None => finding,
    };
    let help = match needed <= u64::from(limits::MAX_SLOTS) {
        true => format!(
            "all pools need {}, twice their sizes: set `max_slots = {}`",
            grouped(needed),
            literal(needed)
        ),
        false => format!(
            "all pools need {}, twice their sizes, and {} is the most: choose smaller sizes",
            grouped(needed),
            grouped(limits::MAX_SLOTS)
        ),
    };
    findings.push(finding.help(help));
}
