//! Routes as they are wanted, sent and received: a prefix and its path attributes.
//!
//! Pure; the form that the policy makes, the session compares and the wire encodes. A prefix is an
//! [`IpNet`] without host bits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::community::{Community, ExtendedCommunity, LargeCommunity};

/// The path attributes of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attributes {
    /// AS_PATH, one AS_SEQUENCE: what stands first was added last. To iBGP it may be empty.
    pub as_path: Vec<u32>,
    /// NEXT_HOP, or the next hop in MP_REACH_NLRI; `None`: the session's own address of the
    /// prefix's family (or, with RFC 8950, of the other one).
    pub next_hop: Option<IpAddr>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF; sent to iBGP only, where it is mandatory.
    pub local_preference: Option<u32>,
    /// COMMUNITIES.
    pub communities: BTreeSet<Community>,
    /// LARGE_COMMUNITIES.
    pub large_communities: BTreeSet<LargeCommunity>,
    /// EXTENDED COMMUNITIES.
    pub extended_communities: BTreeSet<ExtendedCommunity>,
}

/// Routes by prefix: what a peer is to have, or has.
pub type Rib = BTreeMap<IpNet, Arc<Attributes>>;
