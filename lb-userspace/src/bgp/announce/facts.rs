//! What the controller tells the announcer: what can be served, and what others announce.
//!
//! Plain data, whole each time: the same facts lead to the same routes.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::desired::VipKey;

/// What is known now. An `Err` says in words what is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The program is attached to every interface.
    pub attached: Result<(), String>,
    /// The tables of every pool are in the data plane.
    pub tables: Result<(), String>,
    /// Every backend has its first verdict.
    pub verdicts: Result<(), String>,
    /// The VIPs. One that is configured and not here is not judged yet.
    pub vips: Vec<VipFacts>,
    /// The operator drains this load balancer.
    pub node_drained: bool,
    /// What the monitoring peers see; a prefix that is not here is [`Seen::Unknown`].
    pub seen: BTreeMap<IpNet, Seen>,
}

/// What is known of a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipFacts {
    /// The name of its block, which drains as a whole.
    pub name: String,
    /// Which VIP it is.
    pub key: VipKey,
    /// The name of the pool that serves it.
    pub pool: String,
    /// Backends that are up and take new flows.
    pub up: u32,
    /// With fewer the VIP is withdrawn.
    pub min_up: u32,
    /// With as many it comes back; at least `min_up`.
    pub min_up_return: u32,
    /// The last probe through our own program; `None`: there was none yet.
    pub probe: Option<Result<(), String>>,
    /// The operator drains it.
    pub drained: bool,
}

/// Who else announces a prefix, as the monitoring peers see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// A monitoring peer has the prefix from somebody else.
    Others {
        /// The peer that says so.
        peer: String,
    },
    /// Every monitoring peer answers, and none has it from somebody else.
    Nobody,
    /// There is no monitoring peer, or not all of them answer.
    #[default]
    Unknown,
}
