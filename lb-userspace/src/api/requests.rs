//! What may be asked of lbd.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::bgp::announce::Order;

/// A question or an order, as the controller takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Is everything well?
    Status,
    /// The VIPs with their backends and rates.
    Vips,
    /// All counters.
    Stats,
    /// Where would this flow go?
    Trace(TraceQuestion),
    /// Dropped packets: counters, and the samples after this number.
    Drops {
        /// Only samples with a higher number are wanted.
        after: u64,
    },
    /// Everything the metrics show.
    Metrics,
    /// What would this configuration change?
    Plan(ConfigText),
    /// Make this the configuration.
    Apply(ConfigText),
    /// Drain, undrain or weigh a backend.
    Backend(BackendChange),
    /// Withdraw all routes, or those of a VIP, or take that back.
    Drain(DrainChange),
    /// The BGP peers.
    BgpPeers,
    /// The routes of each peer, and why they are as they are.
    BgpRoutes(RoutesQuestion),
    /// Change announcements for a time.
    Bgp(Box<Order>),
}

/// The flow of a `trace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceQuestion {
    /// The client's address and port.
    pub source: SocketAddr,
    /// A VIP's name or key, or a pool's name; `NAME:PORT` chooses a port.
    pub target: String,
}

/// A configuration as its files were read by the one who applies it: lbd opens none of them, so
/// that nobody reads files through it that are not theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigText {
    /// The files, the main one first.
    pub files: Vec<ConfigFile>,
}

/// One file of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// Its path, for messages.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// A change that the operator makes apart from the file; it stays until it is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendChange {
    /// The pool's name.
    pub pool: String,
    /// The backend's name.
    pub backend: String,
    /// What to do.
    pub action: BackendAction,
}

/// What to do with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendAction {
    /// No new flows; those it has stay.
    Drain,
    /// Takes new flows again.
    Undrain,
    /// Another share of the slots.
    Weight(u16),
}

/// Which routes `bgp routes` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesQuestion {
    /// Only this prefix.
    #[serde(default)]
    pub prefix: Option<IpNet>,
    /// Only this peer's.
    #[serde(default)]
    pub peer: Option<String>,
}

/// A drain by the operator: routes go, lower preference first, and traffic with them. It stays
/// until it is taken back, also over restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainChange {
    /// The VIP's name; none for the whole load balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    /// True drains, false takes it back.
    pub drain: bool,
}
