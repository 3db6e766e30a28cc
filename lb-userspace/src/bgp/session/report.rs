//! What a session shows: state, what was negotiated, counters, routes.
//!
//! A part of `session`; also a part of the API's answers. Times are milliseconds since boot where
//! nothing else is said.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::bgp::route::Rib;

/// A peer as the session sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// The state; of two connections, the one that is further.
    pub state: State,
    /// When this state began.
    pub since_ms: u64,
    /// Our address and the peer's, while there is a connection.
    pub addresses: Option<Addresses>,
    /// The peer's BGP identifier, from OpenConfirm on.
    pub router_id: Option<Ipv4Addr>,
    /// What both can, from OpenConfirm on.
    pub negotiated: Option<Negotiated>,
    /// Why the last connection ended, or was not made.
    pub last_error: Option<LastError>,
    /// What happened since the session was configured.
    pub counters: Counters,
    /// The routes that the peer has from us: all that was written, also what is not on the wire
    /// yet.
    pub sent: Rib,
    /// Wanted routes that cannot be told to this peer, and why.
    pub unsendable: BTreeMap<IpNet, String>,
    /// Nothing is left to be said: `sent` is what is wanted, and it has left our queue.
    pub settled: bool,
    /// Of a monitor: what it announced of our own prefixes.
    pub received: Rib,
    /// Prefixes that the peer announces, kept or not.
    pub prefixes_received: u64,
    /// From a decision to the last byte of it.
    pub decisions: DecisionTimes,
    /// What BFD says; the speaker fills it in.
    pub bfd: Option<BfdReport>,
}

/// The states of RFC 4271 section 8.2.2.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum State {
    /// Stopped.
    #[default]
    Idle,
    /// Waiting for our TCP connection.
    Connect,
    /// Waiting: for the peer's TCP connection, or for the time of our next attempt.
    Active,
    /// OPEN sent, none received.
    OpenSent,
    /// OPEN received, waiting for KEEPALIVE.
    OpenConfirm,
    /// Up.
    Established,
}

impl State {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::Idle,
        Self::Connect,
        Self::Active,
        Self::OpenSent,
        Self::OpenConfirm,
        Self::Established,
    ];

    /// The RFC's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Connect => "Connect",
            Self::Active => "Active",
            Self::OpenSent => "OpenSent",
            Self::OpenConfirm => "OpenConfirm",
            Self::Established => "Established",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Ours.
    pub local: IpAddr,
    /// The peer's.
    pub remote: IpAddr,
}

/// What the OPENs of both agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negotiated {
    /// Without a message for so long the session ends, seconds; 0: never.
    pub hold_time_s: u16,
    /// We send a message at least that often, milliseconds; 0: never.
    pub keepalive_ms: u64,
    /// Announces IPv4 unicast.
    pub ipv4: bool,
    /// Announces IPv6 unicast.
    pub ipv6: bool,
    /// AS numbers have 32 bits (RFC 6793).
    pub four_octet_as: bool,
    /// IPv4 prefixes may have an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// Route refresh (RFC 2918).
    pub route_refresh: bool,
    /// Enhanced route refresh (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// The peer helps us with graceful restart (RFC 4724).
    pub graceful_restart: bool,
    /// The restart time that the peer asks for itself, seconds.
    pub peer_restart_time_s: u16,
    /// NOTIFICATIONs are survived as well (RFC 8538).
    pub graceful_notification: bool,
}

/// An error, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// When.
    pub at_ms: u64,
    /// What, for a human.
    pub text: String,
}

/// Counters; they only grow while the session is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// How often it came up.
    pub established: u64,
    /// How often it fell after it was up, by cause.
    pub flaps: BTreeMap<Cause, u64>,
    /// Messages from the peer, of every type.
    pub messages_in: u64,
    /// Messages to the peer, of every type.
    pub messages_out: u64,
    /// UPDATEs from the peer.
    pub updates_in: u64,
    /// UPDATEs to the peer.
    pub updates_out: u64,
    /// Prefixes announced to the peer, each time one is.
    pub announced: u64,
    /// Prefixes withdrawn from the peer, each time one is.
    pub withdrawn: u64,
    /// UPDATEs whose errors were tolerated (RFC 7606).
    pub tolerated: u64,
    /// Route refreshes that the peer asked for.
    pub refreshes: u64,
}

/// Why an established session fell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// We closed it on the operator's order.
    Administrative,
    /// The peer closed it with a NOTIFICATION.
    Notification,
    /// The peer was silent for the hold time.
    HoldTimer,
    /// The peer read nothing for the send hold time (RFC 9687).
    SendHoldTimer,
    /// TCP ended.
    Connection,
    /// The peer broke the protocol.
    Protocol,
    /// The peer announced too many prefixes.
    MaximumPrefixes,
    /// BFD lost the path.
    Bfd,
    /// The peer came with a new connection.
    Replaced,
}

impl Cause {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::Administrative,
        Self::Notification,
        Self::HoldTimer,
        Self::SendHoldTimer,
        Self::Connection,
        Self::Protocol,
        Self::MaximumPrefixes,
        Self::Bfd,
        Self::Replaced,
    ];

    /// As metrics name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Administrative => "administrative",
            Self::Notification => "notification",
            Self::HoldTimer => "hold_timer",
            Self::SendHoldTimer => "send_hold_timer",
            Self::Connection => "connection",
            Self::Protocol => "protocol",
            Self::MaximumPrefixes => "maximum_prefixes",
            Self::Bfd => "bfd",
            Self::Replaced => "replaced",
        }
    }
}

/// A histogram of the time from a decision to the last byte of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionTimes {
    /// How many took at most the bound of the same place in [`DecisionTimes::BOUNDS_MS`], and
    /// longer than the one before; the last: longer than all bounds.
    pub buckets: [u64; 13],
    /// How many.
    pub count: u64,
    /// All together, microseconds.
    pub sum_us: u64,
    /// The number of the last one.
    pub last_id: u64,
    /// How long the last one took, microseconds.
    pub last_us: u64,
}

impl DecisionTimes {
    /// Upper bounds of the buckets but the last, milliseconds.
    pub const BOUNDS_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000];

    /// Counts one.
    pub(super) fn count(&mut self, id: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = Self::BOUNDS_MS.iter().take_while(|bound| micros > **bound * 1_000).count();
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(micros);
        (self.last_id, self.last_us) = (id, micros);
    }
}

/// BFD with the peer, as the speaker reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdReport {
    /// The state's name in RFC 5880: `AdminDown`, `Down`, `Init`, `Up`.
    pub state: String,
    /// When this state began.
    pub since_ms: u64,
    /// How long without a packet is the loss of the path, microseconds.
    pub detection_time_us: u64,
    /// The last diagnostic, as RFC 5880 names it.
    pub diagnostic: String,
    /// How often it went from up to down.
    pub losses: u64,
}
