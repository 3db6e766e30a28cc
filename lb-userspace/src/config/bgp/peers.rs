//! Checks BGP's peers; a part of `config::validate`, see there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::diagnostic::{At, Finding, Id};
use super::super::fields::Item;
use super::super::validate::{OwnAddresses, check_unique, check_usable};
use super::checks::peer_name;
use super::raw::{Bgp, Peer};
use crate::bgp::asn::{is_private, is_tier_1};
use crate::desired::Family;
use crate::desired::bgp::limits;

pub(super) fn check_peers(bgp: &Bgp, own: &OwnAddresses, findings: &mut Vec<Finding>) {
    let mut names: BTreeMap<&str, At> = BTreeMap::new();
    let mut addresses: BTreeMap<IpAddr, (At, &str)> = BTreeMap::new();
    for peer in &bgp.peers {
        if let Some(name) = &peer.name {
            check_unique("two peers", name, &mut names, findings);
        }
        check_session(bgp, peer, findings);
        check_bfd(bgp, peer, findings);
        check_poison(bgp, peer, findings);
        let Some(address) = &peer.address else { continue };
        check_address(peer, address, own, findings);
        let Some((first, other)) = addresses.get(&address.value) else {
            addresses.insert(address.value, (address.at, peer_name(peer)));
            continue;
        };
        let title = format!("two peers have the address {}", address.value);
        let finding = Finding::new(Id::DuplicatePeer, title, address.at, "");
        let finding = finding.beside(*first, format!("peer `{other}` has it already"));
        findings.push(finding.help("one session carries both families"));
    }
}

fn check_address(
    peer: &Peer,
    address: &Item<IpAddr>,
    own: &OwnAddresses,
    findings: &mut Vec<Finding>,
) {
    let whose = format!("peer `{}`", peer_name(peer));
    // A loopback address can be a peer: a router on this machine.
    if !address.value.is_loopback() {
        check_usable(address.value, address.at, &whose, findings);
    }
    if let Some(vip) = own.vips.get(&address.value) {
        let title = format!("{whose} has an address that cannot be used");
        let finding = Finding::new(Id::UnusableAddress, title, address.at, "the address of a VIP");
        findings.push(finding.beside(*vip, "the VIP"));
    }
    if let Some(node) = own.node.get(&address.value) {
        let title = format!("{whose} has the node's own address");
        let finding = Finding::new(Id::AddressIsNode, title, address.at, "");
        let finding = finding.beside(*node, "the node's address");
        findings.push(finding.help("a peer is another router; our end is `local_address`"));
    }
    let Some(local) = &peer.local_address else { return };
    if Family::of(local.value) != Family::of(address.value) {
        let title = format!("`local_address` of {whose} is of another family than its `address`");
        let label = format!("is {}", Family::of(local.value));
        let finding = Finding::new(Id::BadAddress, title, local.at, label);
        let label = format!("is {}", Family::of(address.value));
        findings.push(finding.beside(address.at, label));
    } else if !local.value.is_loopback() {
        check_usable(local.value, local.at, &format!("our end of {whose}"), findings);
    }
}

fn is_set(field: &Option<Item<bool>>) -> Option<At> {
    field.as_ref().filter(|item| item.value).map(|item| item.at)
}

fn check_session(bgp: &Bgp, peer: &Peer, findings: &mut Vec<Finding>) {
    let name = peer_name(peer);
    if let Some(at) = is_set(&peer.passive)
        && let Some(address) = &peer.address
        && !can_reach(bgp, peer, address.value)
    {
        let title = format!("peer `{name}` is passive, and BGP does not listen for it");
        let finding = Finding::new(Id::PassiveWithoutListen, title, at, "waits for it");
        let any = match Family::of(address.value) {
            Family::V4 => "0.0.0.0:179",
            Family::V6 => "[::]:179",
        };
        findings.push(finding.help(format!("add \"{any}\" to `listen` of `[bgp]`")));
    }
    let hops = peer.hops.as_ref().filter(|hops| hops.value == u8::MAX);
    if let (Some(at), Some(hops)) = (is_set(&peer.ttl_security), hops) {
        let title = format!("TTL security of peer `{name}` lets every packet pass");
        let finding = Finding::new(Id::TtlSecurity, title, at, "");
        let finding = finding.beside(hops.at, "any TTL proves as few");
        findings.push(finding.help("set `hops` to the number of hops to it"));
    }
    if let (Some(at), Some(address)) = (is_set(&peer.extended_next_hop), &peer.address)
        && Family::of(address.value) == Family::V4
    {
        let title = format!("`extended_next_hop` of peer `{name}` needs an IPv6 session");
        let finding = Finding::new(Id::ExtendedNextHop, title, at, "");
        findings.push(finding.beside(address.at, "an IPv4 session"));
    }
    if let Some(families) = &peer.families {
        check_families(peer, families, findings);
    }
}

fn check_families(peer: &Peer, families: &[Item<Family>], findings: &mut Vec<Finding>) {
    let name = peer_name(peer);
    if families.is_empty() {
        let title = format!("`families` of peer `{name}` must hold \"ipv4\", \"ipv6\" or both");
        findings.push(Finding::new(Id::UnknownWord, title, peer.at, "names none"));
    }
    let mut seen: BTreeMap<Family, At> = BTreeMap::new();
    for family in families {
        if let Some(first) = seen.insert(family.value, family.at) {
            let title = format!("`families` of peer `{name}` names {} twice", family.value);
            let finding = Finding::new(Id::UnknownWord, title, family.at, "");
            findings.push(finding.beside(first, "first here"));
        }
    }
}

/// Whether a passive peer can connect to something that BGP listens at.
fn can_reach(bgp: &Bgp, peer: &Peer, address: IpAddr) -> bool {
    bgp.listen.iter().map(|item| item.value.ip()).any(|at| {
        let ours = peer.local_address.as_ref().is_none_or(|local| local.value == at);
        Family::of(at) == Family::of(address) && (at.is_unspecified() || ours)
    })
}

fn check_bfd(bgp: &Bgp, peer: &Peer, findings: &mut Vec<Finding>) {
    let Some(bfd) = &peer.bfd else { return };
    let name = peer_name(peer);
    if let Some(hops) = peer.hops.as_ref().filter(|hops| hops.value > 1) {
        let title = format!("peer `{name}` is more than one hop away, and has BFD");
        let finding = Finding::new(Id::BfdMultihop, title, bfd.at, "for neighbours on the link");
        findings.push(finding.beside(hops.at, "more than 1").help("leave one of them out"));
    }
    let restart = bgp.graceful_restart.as_ref();
    if let Some(restart) = restart.filter(|restart| restart.value.is_some()) {
        let title = format!("BFD of peer `{name}` ends with lbd, and graceful restart shall not");
        let finding = Finding::new(Id::BfdGracefulRestart, title, bfd.at, "")
            .beside(restart.at, "routes shall stay while lbd is away")
            .help(
                "lbd says that its BFD shares its fate (C bit 0); whether the peer then keeps the \
                 routes (RFC 5882 section 4.3) is up to it: try it with `kill -9`",
            );
        findings.push(finding);
    }
}

/// What must not be poisoned, whoever asks for it.
fn check_poison(bgp: &Bgp, peer: &Peer, findings: &mut Vec<Finding>) {
    let name = peer_name(peer);
    let local_as = bgp.local_as.as_ref().map(|it| it.value);
    let mut refuse = |at, label: &str, help: &str| {
        let title = format!("`poison_allowed` of peer `{name}` holds what must not be poisoned");
        findings.push(Finding::new(Id::PoisonRefused, title, at, label).help(help));
    };
    if let (Some(first), Some(remote_as)) = (peer.poison_allowed.first(), &peer.remote_as)
        && local_as == Some(remote_as.value)
    {
        let help = "a path within the AS has no poison: allow it at peers in other ASes";
        return refuse(first.at, "the peer is in our own AS", help);
    }
    for item in &peer.poison_allowed {
        let of_peer = |other: &&Peer| {
            other.remote_as.as_ref().is_some_and(|remote_as| remote_as.value == item.value)
        };
        if local_as == Some(item.value) {
            refuse(item.at, "our own AS", "our own AS stands in every path");
        } else if let Some(other) = bgp.peers.iter().find(of_peer) {
            let label = format!("the AS of peer `{}`", peer_name(other));
            refuse(item.at, &label, "it would drop the route: withdraw it from that peer instead");
        } else if is_private(item.value) {
            refuse(item.at, "a private AS number", "others remove it or drop the route");
        } else if is_tier_1(item.value) {
            let help = "most networks drop a route with it in its path, so the prefix would be \
                        gone nearly everywhere";
            refuse(item.at, "one of the largest networks", help);
        }
    }
    if let Some(beyond) = peer.poison_allowed.get(limits::MAX_POISON_ALLOWED) {
        let title = format!("`poison_allowed` of peer `{name}` is too long");
        let label = format!("number {}", limits::MAX_POISON_ALLOWED + 1);
        findings.push(Finding::new(Id::OverLimit, title, beyond.at, label));
    }
}
