//! Reads BGP's tables into typed fields; a part of `config::raw`, see there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::super::diagnostic::At;
use super::super::fields::{Field, Fields, Item, empty};
use super::super::schema::Section;
use super::super::values::{self, Wrong};
use super::schema;
use super::values::{asn, boolean, family, seconds, seconds_or_off};
use crate::bgp::community::{Community, ExtendedCommunity, LargeCommunity};
use crate::desired::{Family, LastAnnouncer, OnShutdown};

#[derive(Debug)]
pub(in crate::config) struct Bgp {
    pub(super) at: At,
    pub(super) local_as: Field<u32>,
    pub(super) router_id: Field<Ipv4Addr>,
    pub(super) listen: Vec<Item<SocketAddr>>,
    pub(super) dry_run: Field<bool>,
    pub(super) graceful_restart: Field<Option<Duration>>,
    pub(super) on_shutdown: Field<OnShutdown>,
    pub(super) linger: Field<Duration>,
    pub(super) vrp_file: Field<PathBuf>,
    pub(super) attributes: Attributes,
    pub(super) peers: Vec<Peer>,
    pub(super) prefixes: Vec<Prefix>,
    pub(super) host_routes: HostRoutes,
    pub(super) shedding: Vec<Attributes>,
    pub(super) lower: Lower,
    pub(super) guards: Guards,
}

/// What one layer adds to a route.
#[derive(Debug)]
pub(super) struct Attributes {
    pub(super) at: At,
    pub(super) communities: Vec<Item<Community>>,
    pub(super) large_communities: Vec<Item<LargeCommunity>>,
    pub(super) extended_communities: Vec<Item<ExtendedCommunity>>,
    pub(super) prepend: Field<u8>,
    pub(super) med: Field<u32>,
    pub(super) local_preference: Field<u32>,
    pub(super) next_hop4: Field<IpAddr>,
    pub(super) next_hop6: Field<Ipv6Addr>,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) at: At,
    pub(super) name: Field<String>,
    pub(super) address: Field<IpAddr>,
    pub(super) port: Field<u16>,
    pub(super) remote_as: Field<u32>,
    pub(super) local_address: Field<IpAddr>,
    pub(super) passive: Field<bool>,
    pub(super) hops: Field<u8>,
    pub(super) ttl_security: Field<bool>,
    pub(super) password_file: Field<PathBuf>,
    pub(super) hold_time: Field<Duration>,
    /// `None`: not written.
    pub(super) families: Option<Vec<Item<Family>>>,
    pub(super) extended_next_hop: Field<bool>,
    pub(super) bfd: Option<Bfd>,
    pub(super) monitor: Field<bool>,
    pub(super) max_prefixes: Field<u32>,
    pub(super) poison_allowed: Vec<Item<u32>>,
    pub(super) attributes: Attributes,
}

#[derive(Debug)]
pub(super) struct Bfd {
    pub(super) at: At,
    pub(super) interval: Field<Duration>,
    pub(super) multiplier: Field<u8>,
}

#[derive(Debug)]
pub(super) struct Prefix {
    pub(super) at: At,
    pub(super) prefix: Field<IpNet>,
    pub(super) last_announcer: Field<LastAnnouncer>,
    /// Attributes for the peer of that name.
    pub(super) peers: Vec<(Item<String>, Attributes)>,
    pub(super) attributes: Attributes,
}

#[derive(Debug)]
pub(super) struct HostRoutes {
    pub(super) last_announcer: Field<LastAnnouncer>,
    pub(super) attributes: Attributes,
}

#[derive(Debug)]
pub(super) struct Lower {
    pub(super) time: Field<Duration>,
    pub(super) graceful_shutdown: Field<bool>,
    pub(super) communities: Vec<Item<Community>>,
    pub(super) prepend: Field<u8>,
}

#[derive(Debug)]
pub(super) struct Guards {
    pub(super) breaker_max: Field<u32>,
    pub(super) breaker_window: Field<Duration>,
    pub(super) interval: Field<Duration>,
    pub(super) backoff: Field<Duration>,
    pub(super) backoff_max: Field<Duration>,
}

pub(in crate::config) fn bgp(mut fields: Fields<'_, '_>) -> Bgp {
    let mut peers = Vec::new();
    fields.tables("peer", &schema::PEER, |fields| peers.push(peer(fields)));
    let mut prefixes = Vec::new();
    fields.tables("prefix", &schema::PREFIX, |fields| prefixes.push(prefix(fields)));
    let mut shedding = Vec::new();
    fields.tables("shedding", &schema::SHEDDING, |mut it| shedding.push(attributes(&mut it)));
    Bgp {
        at: fields.at,
        local_as: fields.get("local_as", asn),
        router_id: fields.get("router_id", values::parsed),
        listen: fields.list("listen", values::parsed).unwrap_or_default(),
        dry_run: fields.get("dry_run", boolean),
        graceful_restart: fields.get("graceful_restart", seconds_or_off),
        on_shutdown: fields.get("on_shutdown", values::word),
        linger: fields.get("linger", values::duration),
        vrp_file: fields.get("vrp_file", values::path),
        attributes: attributes(&mut fields),
        host_routes: host_routes(inner(&mut fields, "host_routes", &schema::HOST_ROUTES)),
        lower: lower(inner(&mut fields, "lower", &schema::LOWER)),
        guards: guards(inner(&mut fields, "guards", &schema::GUARDS)),
        peers,
        prefixes,
        shedding,
    }
}

/// A reader for a table of `[bgp]`; one that is not there has every default.
fn inner<'f, 't>(
    fields: &'f mut Fields<'_, 't>,
    name: &'static str,
    section: &'static Section,
) -> Fields<'f, 't> {
    let (table, at) = fields.table(name).unwrap_or((empty(), fields.at));
    fields.child(section, table, at, format!("`[bgp.{name}]`"))
}

fn attributes(fields: &mut Fields<'_, '_>) -> Attributes {
    Attributes {
        at: fields.at,
        communities: fields.list("communities", values::parsed).unwrap_or_default(),
        large_communities: fields.list("large_communities", values::parsed).unwrap_or_default(),
        extended_communities: (fields.list("extended_communities", values::parsed))
            .unwrap_or_default(),
        prepend: fields.get("prepend", values::integer),
        med: fields.get("med", values::integer),
        local_preference: fields.get("local_preference", values::integer),
        next_hop4: fields.get("next_hop4", values::parsed),
        next_hop6: fields.get("next_hop6", values::parsed),
    }
}

fn peer(mut fields: Fields<'_, '_>) -> Peer {
    Peer {
        at: fields.at,
        name: fields.get("name", values::name),
        address: fields.get("address", values::parsed),
        port: fields.get("port", values::integer),
        remote_as: fields.get("remote_as", asn),
        local_address: fields.get("local_address", values::parsed),
        passive: fields.get("passive", boolean),
        hops: fields.get("hops", values::integer),
        ttl_security: fields.get("ttl_security", boolean),
        password_file: fields.get("password_file", values::path),
        hold_time: fields.get("hold_time", seconds),
        families: fields.list("families", family),
        extended_next_hop: fields.get("extended_next_hop", boolean),
        bfd: bfd(&mut fields),
        monitor: fields.get("monitor", boolean),
        max_prefixes: fields.get("max_prefixes", values::integer),
        poison_allowed: fields.list("poison_allowed", asn).unwrap_or_default(),
        attributes: attributes(&mut fields),
    }
}

fn bfd(fields: &mut Fields<'_, '_>) -> Option<Bfd> {
    let what = format!("`bfd` of {}", fields.what);
    let (table, at) = fields.table("bfd")?;
    let mut fields = fields.child(&schema::BFD, table, at, what);
    Some(Bfd {
        at,
        interval: fields.get("interval", values::duration),
        multiplier: fields.get("multiplier", values::integer),
    })
}

fn prefix(mut fields: Fields<'_, '_>) -> Prefix {
    Prefix {
        at: fields.at,
        prefix: fields.get("prefix", values::parsed),
        last_announcer: fields.get("last_announcer", values::word),
        peers: prefix_peers(&mut fields),
        attributes: attributes(&mut fields),
    }
}

fn prefix_peers(fields: &mut Fields<'_, '_>) -> Vec<(Item<String>, Attributes)> {
    let mut peers = Vec::new();
    let Some((table, _)) = fields.table("peers") else { return peers };
    for (key, value) in table {
        let name = key.get_ref().to_string();
        let at = fields.at(key.span());
        let what = format!("peer `{name}` of {}", fields.what);
        let Some(table) = value.get_ref().as_table() else {
            let at = fields.at(value.span());
            fields.wrong_about(&what, at, Wrong::wrong_type("a table", value.get_ref()));
            continue;
        };
        let name = Item { value: name, at, given: true };
        let mut fields = fields.child(&schema::PREFIX_PEER, table, at, what);
        peers.push((name, attributes(&mut fields)));
    }
    peers
}

fn host_routes(mut fields: Fields<'_, '_>) -> HostRoutes {
    HostRoutes {
        last_announcer: fields.get("last_announcer", values::word),
        attributes: attributes(&mut fields),
    }
}

fn lower(mut fields: Fields<'_, '_>) -> Lower {
    Lower {
        time: fields.get("time", values::duration),
        graceful_shutdown: fields.get("graceful_shutdown", boolean),
        communities: fields.list("communities", values::parsed).unwrap_or_default(),
        prepend: fields.get("prepend", values::integer),
    }
}

fn guards(mut fields: Fields<'_, '_>) -> Guards {
    Guards {
        breaker_max: fields.get("breaker_max", values::integer),
        breaker_window: fields.get("breaker_window", values::duration),
        interval: fields.get("interval", values::duration),
        backoff: fields.get("backoff", values::duration),
        backoff_max: fields.get("backoff_max", values::duration),
    }
}
