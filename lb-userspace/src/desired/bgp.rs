//! What BGP is asked to do: the speaker, its peers, the prefixes and the guards.
//!
//! A part of `desired`. Secrets are not here: a peer's password is in `config`'s `Loaded`, so that
//! this can be logged, compared and sent as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::text::duration_text;
use super::words::{LastAnnouncer, OnShutdown};
use crate::bgp::community::{Community, ExtendedCommunity, LargeCommunity};

#[cfg(test)]
pub(crate) mod sample;

/// Limits of BGP's part of the configuration.
pub mod limits {
    use std::time::Duration;

    /// Peers of one load balancer.
    pub const MAX_PEERS: usize = 64;
    /// Prefixes that are announced.
    pub const MAX_PREFIXES: usize = 4_096;
    /// Addresses that peers may connect to.
    pub const MAX_LISTEN: usize = 16;
    /// Levels of shedding.
    pub const MAX_SHEDDING_LEVELS: usize = 8;
    /// ASNs that may be poisoned towards one peer.
    pub const MAX_POISON_ALLOWED: usize = 64;
    /// Communities of one kind on one route: all kinds and the longest path fit one UPDATE.
    pub const MAX_COMMUNITIES: usize = 64;
    /// Shortest hold time that is not 0 (RFC 4271 section 4.2).
    pub const MIN_HOLD_TIME: Duration = Duration::from_secs(3);
    /// Longest hold time: 16 bits of seconds.
    pub const MAX_HOLD_TIME: Duration = Duration::from_secs(65_535);
    /// Own AS numbers in front of the first, at most.
    pub const MAX_PREPEND: u8 = 15;
    /// ASNs on a path that lbd sends, at most; filters of exchanges drop longer ones.
    pub const MAX_AS_PATH: usize = 16;
    /// Longest restart time of graceful restart: 12 bits of seconds (RFC 4724 section 3).
    pub const MAX_RESTART_TIME: Duration = Duration::from_secs(4_095);
}

/// The speaker as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bgp {
    /// Our AS number, 1 to 4,294,967,294.
    pub local_as: u32,
    /// The BGP identifier (RFC 6286: not 0, unique within the AS).
    pub router_id: Ipv4Addr,
    /// Where peers may connect to; empty: we only connect.
    pub listen: Vec<SocketAddr>,
    /// Decide and show everything, connect to nobody.
    pub dry_run: bool,
    /// How long peers keep our routes while lbd is away (RFC 4724); `None`: no graceful restart.
    #[serde(with = "super::text::optional_duration_text")]
    pub graceful_restart: Option<Duration>,
    /// What SIGTERM does to the routes.
    pub on_shutdown: OnShutdown,
    /// How peers learn that we are about to go, before the routes go.
    pub lower: Lower,
    /// After a withdrawal, forward at most this long for packets that still come.
    #[serde(with = "duration_text")]
    pub linger: Duration,
    /// Attributes of every route to every peer.
    pub attributes: AttributeSettings,
    /// What the levels of shedding add to every route, level 1 first.
    pub shedding: Vec<AttributeSettings>,
    /// What keeps announcements from being lost, or flapping, all at once.
    pub guards: Guards,
    /// Validated ROA payloads, JSON as Routinator and rpki-client write it.
    pub vrp_file: Option<PathBuf>,
    /// The peers by name.
    pub peers: BTreeMap<String, Peer>,
    /// Prefixes that are announced as a whole; VIPs in none of them are announced as host routes.
    pub prefixes: BTreeMap<IpNet, PrefixSettings>,
    /// What holds for host routes (`/32`, `/128`) of VIPs that are in no prefix of the list.
    pub host_routes: PrefixSettings,
}

/// Lowered preference: what is added to every route before it is withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lower {
    /// How long routes stay with lowered preference before they are withdrawn.
    #[serde(with = "duration_text")]
    pub time: Duration,
    /// Send GRACEFUL_SHUTDOWN, 65535:0 (RFC 8326).
    pub graceful_shutdown: bool,
    /// The operator's own communities.
    pub communities: BTreeSet<Community>,
    /// Own AS numbers in front, in addition.
    pub prepend: u8,
}

/// Attributes that a layer adds to a route: `[bgp]`, then the prefix, then the peer.
///
/// Communities and prepending add up over the layers; of the other values the last layer's holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeSettings {
    /// Communities (RFC 1997).
    pub communities: BTreeSet<Community>,
    /// Large communities (RFC 8092).
    pub large_communities: BTreeSet<LargeCommunity>,
    /// Extended communities (RFC 4360).
    pub extended_communities: BTreeSet<ExtendedCommunity>,
    /// Own AS numbers in front of the one that is always there.
    pub prepend: u8,
    /// MULTI_EXIT_DISC, to eBGP and iBGP.
    pub med: Option<u32>,
    /// LOCAL_PREF, to iBGP only.
    pub local_preference: Option<u32>,
    /// The next hop of IPv4 prefixes; else the session's own address.
    pub next_hop4: Option<IpAddr>,
    /// The next hop of IPv6 prefixes; else the session's own address.
    pub next_hop6: Option<IpAddr>,
}

/// What holds for a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixSettings {
    /// What its last announcer does when its VIPs lose their backends.
    pub last_announcer: LastAnnouncer,
    /// Its attributes.
    pub attributes: AttributeSettings,
    /// Attributes for single peers, by the peer's name, in addition.
    pub peers: BTreeMap<String, AttributeSettings>,
}

/// The guards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guards {
    /// Prefixes that health may withdraw within `breaker_window`; more wait, with an alarm.
    pub breaker_max: u32,
    /// See `breaker_max`.
    #[serde(with = "duration_text")]
    pub breaker_window: Duration,
    /// Changes of a route's attributes are at least this far apart.
    #[serde(with = "duration_text")]
    pub interval: Duration,
    /// After a withdrawal because of health, the prefix comes back no sooner; doubles with each
    /// further one.
    #[serde(with = "duration_text")]
    pub backoff: Duration,
    /// The longest back-off. A prefix that stays announced as long is as good as new.
    #[serde(with = "duration_text")]
    pub backoff_max: Duration,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name, the key it has in [`Bgp::peers`].
    pub name: String,
    /// Its address; link-local ones are refused.
    pub address: IpAddr,
    /// The TCP port that we connect to.
    pub port: u16,
    /// Its AS number.
    pub remote_as: u32,
    /// Our end of the session; else what the route to the peer chooses.
    pub local_address: Option<IpAddr>,
    /// Wait for it to connect.
    pub passive: bool,
    /// Hops to it: 1 for a neighbour on the link; more is multihop.
    pub hops: u8,
    /// Accept only packets whose TTL proves at most `hops` hops (GTSM, RFC 5082).
    pub ttl_security: bool,
    /// The session has a TCP MD5 key (RFC 2385), out of a file.
    pub has_password: bool,
    /// Proposed hold time; 3 s or more.
    #[serde(with = "duration_text")]
    pub hold_time: Duration,
    /// Announce IPv4 prefixes to it.
    pub ipv4: bool,
    /// Announce IPv6 prefixes to it.
    pub ipv6: bool,
    /// Announce IPv4 prefixes with an IPv6 next hop over an IPv6 session (RFC 8950).
    pub extended_next_hop: bool,
    /// Bidirectional forwarding detection; `None`: off.
    pub bfd: Option<Bfd>,
    /// Its attributes.
    pub attributes: AttributeSettings,
    /// Keep what it sends of our own prefixes, as evidence that others announce them too.
    pub monitor: bool,
    /// More prefixes than this from it, besides our own, end the session (RFC 4486 subcode 1).
    pub max_prefixes: u32,
    /// ASNs that a poisoned path to it may carry; empty: no poisoning.
    pub poison_allowed: BTreeSet<u32>,
}

impl Peer {
    /// Whether it is in our own AS.
    #[must_use]
    pub const fn is_internal(&self, local_as: u32) -> bool {
        self.remote_as == local_as
    }
}

/// Bidirectional forwarding detection with one peer (RFC 5880, RFC 5881).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bfd {
    /// Shortest interval in which we send and receive.
    #[serde(with = "duration_text")]
    pub interval: Duration,
    /// As many intervals without a packet are the loss of the path.
    pub multiplier: u8,
}
