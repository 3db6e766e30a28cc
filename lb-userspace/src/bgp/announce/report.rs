//! What comes out of the announcer: routes for the speaker, and reasons for the operator.
//!
//! Plain data; the reports are also the form in the API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::bgp::route::Rib;

/// What every peer is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Counts decisions, from 1.
    pub id: u64,
    /// When it was decided, since boot.
    pub at: Duration,
    /// The routes of each configured peer, by name; one without routes has an empty table.
    pub routes: BTreeMap<String, Arc<Rib>>,
    /// Every prefix has a decision: routes and the End-of-RIB marker may be sent. Stays true.
    pub ready: bool,
}

/// How far shutting down is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not ordered.
    Running,
    /// Routes are out with lowered preference, and withdrawn at this time since boot.
    Lowering(Duration),
    /// All are withdrawn since this time since boot; forward what still comes.
    Withdrawn(Duration),
    /// They stay, for graceful restart.
    Kept,
}

/// Where a route stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteState {
    /// Announced.
    Announced,
    /// Announced, though health would withdraw it.
    Kept,
    /// Announced with lowered preference, about to be withdrawn.
    Lowered,
    /// Not announced yet.
    Withheld,
    /// Not announced any more.
    Withdrawn,
}

/// A route of a peer, with its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteReport {
    /// The prefix.
    pub prefix: IpNet,
    /// The peer's name.
    pub peer: String,
    /// Where it stands.
    pub state: RouteState,
    /// Why, in words.
    pub why: String,
    /// Since when, since boot; `None` before the first decision.
    pub since: Option<Duration>,
    /// Its attributes; empty if it is not announced.
    pub attributes: Vec<AttributeReport>,
}

/// One attribute, or one community, and what asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeReport {
    /// The RFC's name, such as `AS_PATH`.
    pub name: String,
    /// Its value as routers write it.
    pub value: String,
    /// The layers that made it, such as `[bgp]`, `peer edge1` or `steer 3`.
    pub why: String,
}
