//! From BGP's checked fields to the desired state; a part of `config::resolve`, see there.

use std::collections::{BTreeMap, BTreeSet};

use super::super::fields::Item;
use super::super::raw::Raw;
use super::super::resolve::value;
use super::raw;
use super::routes::families;
use crate::desired::Family;
use crate::desired::bgp::{AttributeSettings, Bfd, Bgp, Guards, Lower, Peer, PrefixSettings};

/// What BGP is asked to do; `None` only if a finding says why.
pub(in crate::config) fn resolve(bgp: &raw::Bgp, raw: &Raw) -> Option<Bgp> {
    let mut peers = BTreeMap::new();
    for peer in &bgp.peers {
        let peer = resolve_peer(bgp, peer)?;
        peers.insert(peer.name.clone(), peer);
    }
    let mut prefixes = BTreeMap::new();
    for prefix in &bgp.prefixes {
        let mut peers = BTreeMap::new();
        for (name, layer) in &prefix.peers {
            peers.insert(name.value.clone(), attributes(layer)?);
        }
        let settings = PrefixSettings {
            last_announcer: value(&prefix.last_announcer)?,
            attributes: attributes(&prefix.attributes)?,
            peers,
        };
        prefixes.insert(value(&prefix.prefix)?, settings);
    }
    let node = raw.node.as_ref()?;
    Some(Bgp {
        local_as: value(&bgp.local_as)?,
        router_id: value(&bgp.router_id).or(value(&node.address))?,
        listen: bgp.listen.iter().map(|item| item.value).collect(),
        dry_run: value(&bgp.dry_run)?,
        graceful_restart: value(&bgp.graceful_restart)?,
        on_shutdown: value(&bgp.on_shutdown)?,
        lower: Lower {
            time: value(&bgp.lower.time)?,
            graceful_shutdown: value(&bgp.lower.graceful_shutdown)?,
            communities: set(&bgp.lower.communities),
            prepend: value(&bgp.lower.prepend)?,
        },
        linger: value(&bgp.linger)?,
        attributes: attributes(&bgp.attributes)?,
        shedding: bgp.shedding.iter().map(attributes).collect::<Option<_>>()?,
        guards: Guards {
            breaker_max: value(&bgp.guards.breaker_max)?,
            breaker_window: value(&bgp.guards.breaker_window)?,
            interval: value(&bgp.guards.interval)?,
            backoff: value(&bgp.guards.backoff)?,
            backoff_max: value(&bgp.guards.backoff_max)?,
        },
        vrp_file: value(&bgp.vrp_file),
        peers,
        prefixes,
        host_routes: PrefixSettings {
            last_announcer: value(&bgp.host_routes.last_announcer)?,
            attributes: attributes(&bgp.host_routes.attributes)?,
            peers: BTreeMap::new(),
        },
    })
}

fn set<T: Ord + Clone>(items: &[Item<T>]) -> BTreeSet<T> {
    items.iter().map(|item| item.value.clone()).collect()
}

fn attributes(layer: &raw::Attributes) -> Option<AttributeSettings> {
    Some(AttributeSettings {
        communities: set(&layer.communities),
        large_communities: set(&layer.large_communities),
        extended_communities: set(&layer.extended_communities),
        prepend: value(&layer.prepend)?,
        med: value(&layer.med),
        local_preference: value(&layer.local_preference),
        next_hop4: value(&layer.next_hop4),
        next_hop6: value(&layer.next_hop6).map(Into::into),
    })
}

fn resolve_peer(bgp: &raw::Bgp, peer: &raw::Peer) -> Option<Peer> {
    let families = families(bgp, peer);
    Some(Peer {
        name: value(&peer.name)?,
        address: value(&peer.address)?,
        port: value(&peer.port)?,
        remote_as: value(&peer.remote_as)?,
        local_address: value(&peer.local_address),
        passive: value(&peer.passive)?,
        hops: value(&peer.hops)?,
        ttl_security: value(&peer.ttl_security)?,
        has_password: peer.password_file.is_some(),
        hold_time: value(&peer.hold_time)?,
        ipv4: families.contains(&Family::V4),
        ipv6: families.contains(&Family::V6),
        extended_next_hop: value(&peer.extended_next_hop)?,
        bfd: match &peer.bfd {
            Some(bfd) => {
                Some(Bfd { interval: value(&bfd.interval)?, multiplier: value(&bfd.multiplier)? })
            }
            None => None,
        },
        attributes: attributes(&peer.attributes)?,
        monitor: value(&peer.monitor)?,
        max_prefixes: value(&peer.max_prefixes)?,
        poison_allowed: set(&peer.poison_allowed),
    })
}
