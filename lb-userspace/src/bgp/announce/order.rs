//! What the operator orders, apart from the configuration, and what comes of it.
//!
//! Plain data, also the form in the API. Every order that changes routes ends by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::bgp::community::{Community, LargeCommunity};

/// Limits of orders.
pub mod limits {
    use std::time::Duration;

    /// Shortest time an order holds.
    pub const MIN_FOR: Duration = Duration::from_secs(1);
    /// Longest time an order holds.
    pub const MAX_FOR: Duration = Duration::from_secs(24 * 60 * 60);
    /// Orders that hold at once.
    pub const MAX_STEERS: usize = 256;
    /// More-specifics of one order.
    pub const MAX_MORE_SPECIFICS: usize = 64;
    /// ASNs in one path that are not ours.
    pub const MAX_POISON: usize = 2;
    /// Longest IPv4 more-specific that is accepted between networks.
    pub const LONGEST_V4: u8 = 24;
    /// Longest IPv6 more-specific that is accepted between networks.
    pub const LONGEST_V6: u8 = 48;
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Announce some prefixes otherwise, for a time.
    Steer(Steer),
    /// End an order before its time: one of steering or of shedding.
    Unsteer {
        /// The number it got.
        id: u64,
    },
    /// Go to a level of shedding, for a time; 0 ends shedding.
    Shed {
        /// 1 is the first `[[bgp.shedding]]`.
        level: u32,
        /// How long.
        #[serde(rename = "for", with = "crate::desired::duration_text")]
        lasts: Duration,
    },
    /// Let go what the breaker, or a configuration without the prefixes, would have withdrawn.
    ResumeBreaker,
}

/// How prefixes are announced otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Steer {
    /// A prefix, or the name of a VIP: then the prefixes that its addresses are in.
    pub target: String,
    /// The peers by name; empty: all.
    #[serde(default)]
    pub peers: BTreeSet<String>,
    /// How long; 1 s to 24 h.
    #[serde(rename = "for", with = "crate::desired::duration_text")]
    pub lasts: Duration,
    /// Own AS numbers in front, in addition.
    #[serde(default)]
    pub prepend: u8,
    /// MULTI_EXIT_DISC.
    #[serde(default)]
    pub med: Option<u32>,
    /// LOCAL_PREF, to iBGP only.
    #[serde(default)]
    pub local_preference: Option<u32>,
    /// Communities, in addition.
    #[serde(default)]
    pub communities: BTreeSet<Community>,
    /// Large communities, in addition.
    #[serde(default)]
    pub large_communities: BTreeSet<LargeCommunity>,
    /// Do not announce; goes with nothing else.
    #[serde(default)]
    pub withdraw: bool,
    /// Announce these too, with the attributes of the prefix that they are in.
    #[serde(default)]
    pub more_specifics: BTreeSet<IpNet>,
    /// GRACEFUL_SHUTDOWN (RFC 8326), and LOCAL_PREF 0 to iBGP.
    #[serde(default)]
    pub graceful_shutdown: bool,
    /// ASNs that are to drop the route because they find themselves in its path.
    #[serde(default)]
    pub poison: BTreeSet<u32>,
}

/// An order that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Its number; `None` if nothing holds on.
    pub id: Option<u64>,
    /// What holds now, in one sentence.
    pub text: String,
    /// The command that undoes it.
    pub undo: Option<String>,
    /// What the operator should know, a sentence each.
    pub warnings: Vec<String>,
}

/// An order that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderReport {
    /// Its number.
    pub id: u64,
    /// What it does.
    pub text: String,
    /// When it ends by itself, since boot.
    pub until: Duration,
}
