//! The answers about BGP: peers and routes.
//!
//! A part of `types`.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::bgp::announce::{AttributeReport, RouteState};
use crate::bgp::session::PeerReport;

/// The speaker and its peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BgpPeers {
    /// [`super::API_VERSION`].
    pub version: u32,
    /// Our AS number.
    pub local_as: u32,
    /// Everything is decided and shown, and nobody is told.
    pub dry_run: bool,
    /// Time since boot, for the times of the peers.
    pub now_ms: u64,
    /// What the operator must look at, one sentence each.
    pub alarms: Vec<String>,
    /// Connections that were closed because they are no peer's.
    pub refused: u64,
    /// By name.
    pub peers: Vec<BgpPeer>,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BgpPeer {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its AS number.
    pub remote_as: u32,
    /// Routes that it is to have.
    pub wanted: usize,
    /// The session.
    pub session: Arc<PeerReport>,
}

/// The routes of each peer, and what steers them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BgpRoutes {
    /// [`super::API_VERSION`].
    pub version: u32,
    /// What the operator must look at, one sentence each.
    pub alarms: Vec<String>,
    /// The orders that hold.
    pub orders: Vec<BgpOrder>,
    /// By prefix and peer.
    pub routes: Vec<BgpRoute>,
}

/// An order that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpOrder {
    /// Its number.
    pub id: u64,
    /// What it does.
    pub text: String,
    /// It ends by itself in so long.
    pub remaining_ms: u64,
}

/// A route of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpRoute {
    /// The prefix.
    pub prefix: IpNet,
    /// The peer's name.
    pub peer: String,
    /// Where it stands.
    pub state: RouteState,
    /// Why.
    pub why: String,
    /// So long it has stood there; none before the first decision.
    pub for_ms: Option<u64>,
    /// The peer has it from us, as it is wanted.
    pub sent: bool,
    /// Its attributes, each with its reason.
    pub attributes: Vec<AttributeReport>,
}
