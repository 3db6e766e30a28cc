//! Checks what BGP's settings must be to each other; a part of `config::validate`, see there.
//!
//! Here what concerns the speaker and every layer of attributes; peers and prefixes have parts of
//! their own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::super::diagnostic::{At, Finding, Id};
use super::super::fields::Item;
use super::super::raw::Raw;
use super::super::validate::{OwnAddresses, check_usable};
use super::raw::{Attributes, Bgp};
use super::{peers, routes};
use crate::desired::bgp::limits;
use crate::desired::{OnShutdown, format_duration};

/// Adds every finding about `[bgp]` that needs no file.
pub(in crate::config) fn validate(raw: &Raw, own: &OwnAddresses, findings: &mut Vec<Finding>) {
    let Some(bgp) = &raw.bgp else { return };
    check_router_id(raw, bgp, findings);
    check_listen(&bgp.listen, findings);
    check_shutdown(bgp, findings);
    check_backoff(bgp, findings);
    check_counts(bgp, findings);
    for (layer, what) in layers(bgp) {
        check_layer(layer, &what, findings);
    }
    check_local_preference(bgp, findings);
    peers::check_peers(bgp, own, findings);
    routes::check_routes(raw, bgp, findings);
}

/// What a peer is called in a finding.
pub(super) fn peer_name(peer: &super::raw::Peer) -> &str {
    peer.name.as_ref().map_or("?", |name| name.value.as_str())
}

/// What a prefix is called in a finding.
pub(super) fn prefix_name(prefix: &super::raw::Prefix) -> String {
    prefix.prefix.as_ref().map_or("this prefix".to_owned(), |it| format!("prefix {}", it.value))
}

/// Every layer of attributes, and what it is called.
fn layers(bgp: &Bgp) -> Vec<(&Attributes, String)> {
    let mut layers = vec![(&bgp.attributes, "`[bgp]`".to_owned())];
    layers.push((&bgp.host_routes.attributes, "`[bgp.host_routes]`".to_owned()));
    let levels = bgp.shedding.iter().zip(1..);
    layers.extend(levels.map(|(it, level)| (it, format!("level {level} of shedding"))));
    for peer in &bgp.peers {
        layers.push((&peer.attributes, format!("peer `{}`", peer_name(peer))));
    }
    for prefix in &bgp.prefixes {
        let name = prefix_name(prefix);
        layers.push((&prefix.attributes, name.clone()));
        for (peer, layer) in &prefix.peers {
            layers.push((layer, format!("peer `{}` of {name}", peer.value)));
        }
    }
    layers
}

fn check_layer(layer: &Attributes, what: &str, findings: &mut Vec<Finding>) {
    let next_hop6 = layer.next_hop6.iter().map(|it| (IpAddr::V6(it.value), it.at));
    let next_hops = layer.next_hop4.iter().map(|it| (it.value, it.at)).chain(next_hop6);
    for (address, at) in next_hops {
        check_usable(address, at, &format!("a next hop of {what}"), findings);
    }
    let lists = [
        ("communities", layer.communities.len()),
        ("large_communities", layer.large_communities.len()),
        ("extended_communities", layer.extended_communities.len()),
    ];
    for (key, count) in lists {
        too_many(count, &format!("`{key}` of {what}"), layer.at, findings);
    }
}

/// Reports more communities of a kind than a route may carry.
pub(super) fn too_many(count: usize, what: &str, at: At, findings: &mut Vec<Finding>) {
    if count > limits::MAX_COMMUNITIES {
        let title = format!("there are too many {what}");
        let label = format!("{count} together");
        let finding = Finding::new(Id::TooManyCommunities, title, at, label);
        findings.push(finding.help(format!("at most {} of a kind", limits::MAX_COMMUNITIES)));
    }
}

fn check_router_id(raw: &Raw, bgp: &Bgp, findings: &mut Vec<Finding>) {
    match &bgp.router_id {
        Some(id) if id.value.is_unspecified() => {
            let title = "`router_id` of `[bgp]` must not be 0.0.0.0";
            findings.push(Finding::new(Id::UnusableAddress, title, id.at, "RFC 6286"));
        }
        Some(_) => {}
        None => {
            let Some(node) = &raw.node else { return };
            let has_address = node.families.contains(&crate::desired::Family::V4);
            if !has_address && !node.families.is_empty() {
                let title = "BGP needs a `router_id`, because the node has no IPv4 address";
                let finding = Finding::new(Id::NoRouterId, title, bgp.at, "");
                let help = "set `router_id` in `[bgp]` to four bytes that no other router of the \
                            AS has, such as \"192.0.2.11\"";
                findings.push(finding.help(help));
            }
        }
    }
}

fn check_listen(listen: &[Item<SocketAddr>], findings: &mut Vec<Finding>) {
    let mut seen: BTreeMap<SocketAddr, At> = BTreeMap::new();
    for item in listen {
        let address = item.value.ip();
        if item.value.port() == 0 {
            let title = "`listen` of `[bgp]` needs ports from 1 to 65,535";
            findings.push(Finding::new(Id::BadPort, title, item.at, ""));
        }
        // Any address of the machine, and loopback ones, can be listened at.
        if !address.is_unspecified() && !address.is_loopback() {
            check_usable(address, item.at, "`listen` of `[bgp]`", findings);
        }
        if let Some(first) = seen.insert(item.value, item.at) {
            let title = format!("BGP listens at {} twice", item.value);
            let finding = Finding::new(Id::DuplicateListen, title, item.at, "");
            findings.push(finding.beside(first, "first here"));
        }
    }
}

fn check_shutdown(bgp: &Bgp, findings: &mut Vec<Finding>) {
    let (Some(on_shutdown), Some(restart)) = (&bgp.on_shutdown, &bgp.graceful_restart) else {
        return;
    };
    if on_shutdown.value == OnShutdown::Keep && restart.value.is_none() {
        let title = "`on_shutdown` of `[bgp]` keeps routes that peers would drop";
        let finding = Finding::new(Id::KeepWithoutRestart, title, on_shutdown.at, "");
        let finding = match restart.given {
            true => finding.beside(restart.at, "off"),
            false => finding,
        };
        findings
            .push(finding.help("set `graceful_restart`, such as \"2m\", here and at the peers"));
    }
}

fn check_backoff(bgp: &Bgp, findings: &mut Vec<Finding>) {
    let (Some(backoff), Some(max)) = (&bgp.guards.backoff, &bgp.guards.backoff_max) else {
        return;
    };
    if backoff.value > max.value {
        let title = "`backoff` of `[bgp.guards]` is longer than `backoff_max`";
        let (place, other) = if backoff.given { (backoff, max) } else { (max, backoff) };
        let label = |item: &Item<_>| match std::ptr::eq(item, max) {
            true => format!("`backoff_max` is {}", format_duration(item.value)),
            false => format!("`backoff` is {}", format_duration(item.value)),
        };
        let finding = Finding::new(Id::BackoffOrder, title, place.at, label(place));
        findings.push(match other.given {
            true => finding.beside(other.at, label(other)),
            false => finding.help(format!("by default {}", label(other))),
        });
    }
}

fn check_counts(bgp: &Bgp, findings: &mut Vec<Finding>) {
    let ats = |items: Vec<At>, max: usize| items.get(max).copied();
    let counts = [
        ("peers", limits::MAX_PEERS, bgp.peers.iter().map(|it| it.at).collect()),
        ("prefixes", limits::MAX_PREFIXES, bgp.prefixes.iter().map(|it| it.at).collect()),
        ("addresses to listen at", limits::MAX_LISTEN, bgp.listen.iter().map(|it| it.at).collect()),
        (
            "levels of shedding",
            limits::MAX_SHEDDING_LEVELS,
            bgp.shedding.iter().map(|it| it.at).collect(),
        ),
    ];
    for (things, max, places) in counts {
        if let Some(beyond) = ats(places, max) {
            let title = format!("BGP has more {things} than there is room for");
            let label = format!("number {}", max + 1);
            let finding = Finding::new(Id::OverLimit, title, beyond, label);
            findings.push(finding.help(format!("at most {max}")));
        }
    }
    if bgp.peers.is_empty() {
        let finding = Finding::new(Id::NoPeers, "BGP has no peers", bgp.at, "");
        findings.push(finding.help("add a `[[bgp.peer]]`, or leave `[bgp]` out"));
    }
}

/// Warns of a LOCAL_PREF that no peer will see.
fn check_local_preference(bgp: &Bgp, findings: &mut Vec<Finding>) {
    let Some(local_as) = bgp.local_as.as_ref().map(|it| it.value) else { return };
    // A peer without an AS number has its own finding.
    let external =
        |peer: &super::raw::Peer| peer.remote_as.as_ref().is_some_and(|it| it.value != local_as);
    let names: BTreeSet<&str> = bgp.peers.iter().filter(|it| external(it)).map(peer_name).collect();
    let all = !bgp.peers.is_empty() && bgp.peers.iter().all(external);
    let mut unsent: Vec<(&Item<u32>, String)> = Vec::new();
    for peer in bgp.peers.iter().filter(|peer| external(peer)) {
        let label = format!("peer `{}` is in another AS", peer_name(peer));
        unsent.extend(peer.attributes.local_preference.iter().map(|it| (it, label.clone())));
    }
    for prefix in &bgp.prefixes {
        for (name, layer) in prefix.peers.iter().filter(|it| names.contains(it.0.value.as_str())) {
            let label = format!("peer `{}` is in another AS", name.value);
            unsent.extend(layer.local_preference.iter().map(|it| (it, label.clone())));
        }
    }
    if all {
        let layers = [&bgp.attributes, &bgp.host_routes.attributes].into_iter();
        let layers = layers.chain(&bgp.shedding).chain(bgp.prefixes.iter().map(|p| &p.attributes));
        let label = "every peer is in another AS".to_owned();
        let given = layers.filter_map(|layer| layer.local_preference.as_ref());
        unsent.extend(given.map(|it| (it, label.clone())));
    }
    for (item, label) in unsent {
        let title = "`local_preference` is not told to peers in other ASes";
        let finding = Finding::new(Id::LocalPreferenceUnsent, title, item.at, label);
        findings.push(finding.help("use `med`, `prepend` or a community that they know"));
    }
}
