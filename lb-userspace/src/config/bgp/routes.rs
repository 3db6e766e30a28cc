//! Checks what BGP announces: prefixes, host routes, next hops and what attributes add up to.
//!
//! A part of `config::validate`, see there; `resolve` asks the same questions again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::super::diagnostic::{At, Finding, Id};
use super::super::fields::Item;
use super::super::raw::Raw;
use super::super::validate::{check_known, unusable};
use super::checks::{peer_name, prefix_name};
use super::raw::{Attributes, Bgp, Peer, Prefix};
use super::sums::check_sums;
use crate::desired::Family;

pub(super) fn check_routes(raw: &Raw, bgp: &Bgp, findings: &mut Vec<Finding>) {
    let names = bgp.peers.iter().rev().filter_map(|peer| peer.name.as_ref());
    let known: BTreeMap<&str, At> = names.map(|name| (name.value.as_str(), name.at)).collect();
    let vips: BTreeSet<IpAddr> = vip_addresses(raw).map(|(address, ..)| address).collect();
    // A VIP whose address is wrong may be the one that a prefix is for.
    let unclear = raw.vips.iter().any(|vip| vip.address.is_none());
    let serves = |prefix: IpNet| {
        unclear || vips.range(prefix.network()..=prefix.broadcast()).next().is_some()
    };
    let mut seen: BTreeMap<IpNet, At> = BTreeMap::new();
    for prefix in &bgp.prefixes {
        for (name, _) in &prefix.peers {
            let title = format!("{} names a peer that does not exist", prefix_name(prefix));
            check_known(Id::UnknownPeer, title, "peer", name, &known, findings);
        }
        if let Some(item) = &prefix.prefix {
            check_prefix(item, serves, &mut seen, findings);
        }
    }
    check_next_hops(bgp, findings);
    let hosts: BTreeSet<Family> = host_routes(raw, bgp).into_keys().map(Family::of).collect();
    for peer in &bgp.peers {
        check_cross_family(&hosts, bgp, peer, findings);
    }
    check_sums(bgp, findings);
}

fn check_prefix(
    item: &Item<IpNet>,
    serves: impl Fn(IpNet) -> bool,
    seen: &mut BTreeMap<IpNet, At>,
    findings: &mut Vec<Finding>,
) {
    let prefix = item.value;
    if prefix != prefix.trunc() {
        let title = format!("prefix {prefix} has bits behind its length");
        let finding = Finding::new(Id::BadPrefix, title, item.at, "");
        return findings.push(finding.help(format!("write \"{}\"", prefix.trunc())));
    }
    if let Some(why) = unusable(prefix.addr()) {
        let title = format!("prefix {prefix} holds addresses that nobody can reach");
        let label = format!("it begins with {why}");
        return findings.push(Finding::new(Id::BadPrefix, title, item.at, label));
    }
    if let Some(first) = seen.get(&prefix) {
        let title = format!("prefix {prefix} is announced twice");
        let finding = Finding::new(Id::DuplicatePrefix, title, item.at, "");
        return findings.push(finding.beside(*first, "first here"));
    }
    seen.insert(prefix, item.at);
    if !serves(prefix) {
        let title = format!("prefix {prefix} holds no VIP");
        let finding = Finding::new(Id::PrefixWithoutVip, title, item.at, "");
        let help = "it would bring packets that nobody answers: announce it where its addresses \
                    are, or leave it out";
        findings.push(finding.help(help));
    }
}

/// The VIPs' addresses, with the name and place of each.
fn vip_addresses(raw: &Raw) -> impl Iterator<Item = (IpAddr, &str, At)> {
    raw.vips.iter().filter_map(|vip| {
        let name = vip.name.as_ref().map_or("?", |name| name.value.as_str());
        vip.address.as_ref().map(|address| (address.value, name, address.at))
    })
}

/// The VIP addresses that are in no prefix, each with the name and place of its first VIP.
pub(super) fn host_routes<'r>(raw: &'r Raw, bgp: &Bgp) -> BTreeMap<IpAddr, (&'r str, At)> {
    let prefixes = bgp.prefixes.iter().filter_map(|it| it.prefix.as_ref());
    let prefixes: BTreeSet<IpNet> = prefixes.map(|item| item.value.trunc()).collect();
    let covered = |address: IpAddr| {
        let mut around = (0..=IpNet::from(address).prefix_len())
            .filter_map(|length| IpNet::new(address, length).ok());
        around.any(|net| prefixes.contains(&net.trunc()))
    };
    let mut routes = BTreeMap::new();
    for (address, name, at) in vip_addresses(raw) {
        if !covered(address) {
            routes.entry(address).or_insert((name, at));
        }
    }
    routes
}

/// Whether IPv4 prefixes can have this next hop at a peer.
fn takes(peer: &Peer, next_hop4: &Item<IpAddr>) -> bool {
    next_hop4.value.is_ipv4() || peer.extended_next_hop.as_ref().is_some_and(|it| it.value)
}

/// The families announced to a peer: as written, else its own and, where a next hop for it is
/// set for all prefixes, the other one.
pub(super) fn families(bgp: &Bgp, peer: &Peer) -> Vec<Family> {
    if let Some(written) = &peer.families {
        return written.iter().map(|item| item.value).collect();
    }
    let Some(address) = &peer.address else { return Vec::new() };
    let own = Family::of(address.value);
    [Family::V4, Family::V6]
        .into_iter()
        .filter(|family| *family == own || has_next_hop(peer, *family, &[&bgp.attributes]))
        .collect()
}

/// Whether prefixes of the family that is not the session's have a next hop by the peer's settings
/// or by one of `layers`.
fn has_next_hop(peer: &Peer, family: Family, layers: &[&Attributes]) -> bool {
    let mut layers = layers.iter().copied().chain([&peer.attributes]);
    match family {
        Family::V4 => {
            let extended = peer.extended_next_hop.as_ref().is_some_and(|it| it.value);
            extended || layers.any(|it| it.next_hop4.as_ref().is_some_and(|it| takes(peer, it)))
        }
        Family::V6 => layers.any(|layer| layer.next_hop6.is_some()),
    }
}

fn family_of(prefix: &Prefix) -> Option<Family> {
    prefix.prefix.as_ref().map(|item| Family::of(item.value.addr()))
}

fn layer_for<'p>(prefix: &'p Prefix, peer: &Peer) -> Option<&'p Attributes> {
    let name = peer.name.as_ref()?;
    prefix.peers.iter().find(|(it, _)| it.value == name.value).map(|(_, layer)| layer)
}

/// Reports a family that is listed for a session of the other one, and has no next hop there.
/// `hosts` are the families of host routes.
fn check_cross_family(
    hosts: &BTreeSet<Family>,
    bgp: &Bgp,
    peer: &Peer,
    findings: &mut Vec<Finding>,
) {
    let (Some(address), Some(written)) = (&peer.address, &peer.families) else { return };
    for family in written.iter().filter(|it| it.value != Family::of(address.value)) {
        if has_next_hop(peer, family.value, &[&bgp.attributes]) {
            continue;
        }
        let has_own = |prefix: &Prefix| {
            let layers = [Some(&prefix.attributes), layer_for(prefix, peer)];
            let layers: Vec<&Attributes> = layers.into_iter().flatten().collect();
            has_next_hop(peer, family.value, &layers)
        };
        let host = has_next_hop(peer, family.value, &[&bgp.host_routes.attributes]);
        let mut prefixes = bgp.prefixes.iter().filter(|it| family_of(it) == Some(family.value));
        if prefixes.all(has_own) && (host || !hosts.contains(&family.value)) {
            continue;
        }
        let session = Family::of(address.value);
        let title = format!(
            "peer `{}` gets {} prefixes over an {session} session, and nothing says their next hop",
            peer_name(peer),
            family.value
        );
        let finding = Finding::new(Id::NoNextHop, title, family.at, "");
        findings.push(finding.help(match family.value {
            Family::V4 => {
                "set `next_hop4`, or `extended_next_hop = true` if the peer knows RFC 8950"
            }
            Family::V6 => "set `next_hop6` to our IPv6 address towards the peer",
        }));
    }
}

/// Reports IPv6 next hops of IPv4 prefixes that a peer does not take, unless a later layer has
/// another one.
fn check_next_hops(bgp: &Bgp, findings: &mut Vec<Finding>) {
    let v4 = |peer: &&Peer| families(bgp, peer).contains(&Family::V4);
    let with_v4: Vec<&Peer> = bgp.peers.iter().filter(v4).collect();
    let common: Vec<&Peer> =
        with_v4.iter().copied().filter(|it| it.attributes.next_hop4.is_none()).collect();
    report_next_hop(&bgp.attributes, &common, findings);
    report_next_hop(&bgp.host_routes.attributes, &common, findings);
    for level in &bgp.shedding {
        report_next_hop(level, &with_v4, findings);
    }
    for peer in &with_v4 {
        report_next_hop(&peer.attributes, &[peer], findings);
    }
    for prefix in &bgp.prefixes {
        let other =
            |peer: &&Peer| layer_for(prefix, peer).is_none_or(|layer| layer.next_hop4.is_none());
        let common: Vec<&Peer> = common.iter().copied().filter(other).collect();
        report_next_hop(&prefix.attributes, &common, findings);
        for (name, layer) in &prefix.peers {
            let named = |it: &&Peer| it.name.as_ref().is_some_and(|own| own.value == name.value);
            let peers: Vec<&Peer> = with_v4.iter().copied().filter(named).collect();
            report_next_hop(layer, &peers, findings);
        }
    }
}

fn report_next_hop(layer: &Attributes, peers: &[&Peer], findings: &mut Vec<Finding>) {
    let Some(next_hop) = &layer.next_hop4 else { return };
    let Some(peer) = peers.iter().find(|peer| !takes(peer, next_hop)) else { return };
    let name = peer_name(peer);
    let title = format!("peer `{name}` takes no IPv6 next hop for IPv4 prefixes");
    let finding = Finding::new(Id::NextHopFamily, title, next_hop.at, "an IPv6 address");
    let example = Ipv4Addr::new(192, 0, 2, 11);
    findings.push(finding.help(format!(
        "write an IPv4 address such as \"{example}\", or set `extended_next_hop = true` at the \
         peer if it knows RFC 8950"
    )));
}
