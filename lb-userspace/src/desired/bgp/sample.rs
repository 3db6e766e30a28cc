//! A peer, a prefix and a speaker for the tests of every room that needs some.
//!
//! Must not: hold anything that a test asserts; such values stand in the test.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{AttributeSettings, Bgp, Guards, Lower, Peer, PrefixSettings};
use crate::desired::{LastAnnouncer, OnShutdown};

/// `edge1` at 192.0.2.1 in AS 64496.
pub(crate) fn peer() -> Peer {
    Peer {
        name: "edge1".to_owned(),
        address: "192.0.2.1".parse().unwrap(),
        port: 179,
        remote_as: 64_496,
        local_address: None,
        passive: false,
        hops: 1,
        ttl_security: false,
        has_password: false,
        hold_time: Duration::from_secs(9),
        ipv4: true,
        ipv6: true,
        extended_next_hop: false,
        bfd: None,
        attributes: AttributeSettings::default(),
        monitor: false,
        max_prefixes: 1_000,
        poison_allowed: BTreeSet::new(),
    }
}

/// A prefix, or all host routes.
pub(crate) fn prefix(last_announcer: LastAnnouncer) -> PrefixSettings {
    PrefixSettings {
        last_announcer,
        attributes: AttributeSettings::default(),
        peers: BTreeMap::new(),
    }
}

/// AS 64500, without peers and prefixes.
pub(crate) fn bgp() -> Bgp {
    Bgp {
        local_as: 64_500,
        router_id: "192.0.2.10".parse().unwrap(),
        listen: Vec::new(),
        dry_run: false,
        graceful_restart: None,
        on_shutdown: OnShutdown::Withdraw,
        lower: Lower {
            time: Duration::from_secs(2),
            graceful_shutdown: true,
            communities: BTreeSet::new(),
            prepend: 0,
        },
        linger: Duration::from_secs(30),
        attributes: AttributeSettings::default(),
        shedding: Vec::new(),
        guards: Guards {
            breaker_max: 16,
            breaker_window: Duration::from_secs(60),
            interval: Duration::from_secs(1),
            backoff: Duration::from_secs(30),
            backoff_max: Duration::from_secs(900),
        },
        vrp_file: None,
        peers: BTreeMap::new(),
        prefixes: BTreeMap::new(),
        host_routes: prefix(LastAnnouncer::Keep),
    }
}
