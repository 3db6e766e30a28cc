//! The answers of lbd. Each document carries its version; fields are added, never reused.
//!
//! Times are RFC 3339 or milliseconds, sizes bytes; counters only grow while the data plane stays
//! pinned. `lbctl -o json` prints these documents as they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use super::bgp::{BgpOrder, BgpPeer, BgpPeers, BgpRoute, BgpRoutes};

/// Declares the answers, and how they are told apart when they are written.
macro_rules! responses {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Any answer.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(untagged)]
        #[expect(clippy::large_enum_variant, reason = "there is one at a time")]
        pub enum Response {
            $($(#[$doc])* $name($name),)+
        }

        $(impl From<$name> for Response {
            fn from(answer: $name) -> Self {
                Self::$name(answer)
            }
        })+
    };
}

responses! {
    /// To `status`.
    Status,
    /// To `vip`.
    Vips,
    /// To `stats`.
    Stats,
    /// To `trace`.
    Trace,
    /// To `drops`.
    Drops,
    /// To the scrape of the metrics.
    Snapshot,
    /// To `bgp`.
    BgpPeers,
    /// To `bgp routes`.
    BgpRoutes,
    /// To `diff` and to what changes something.
    Outcome,
}

/// How well it goes, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Nothing to look at.
    Ok,
    /// It forwards, and somebody should look.
    Degraded,
    /// It does not forward.
    Down,
}

impl Health {
    /// The word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// The state of the whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`super::API_VERSION`].
    pub version: u32,
    /// In one word.
    pub health: Health,
    /// What keeps it from being ok, one sentence each.
    pub reasons: Vec<String>,
    /// This load balancer's name.
    pub node: String,
    /// Counts the configurations taken since the data plane was made.
    pub generation: u64,
    /// When this configuration was taken, RFC 3339.
    pub applied: String,
    /// Since lbd started.
    pub uptime_ms: u64,
    /// The first interface.
    pub xdp: Attachment,
    /// The other interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xdp_more: Vec<Attachment>,
    /// By name.
    pub pools: Vec<PoolStatus>,
    /// By address, protocol and port.
    pub vips: Vec<VipStatus>,
    /// The flow table.
    pub flows: FlowStatus,
}

/// An interface with the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its name.
    pub interface: String,
    /// `native` or `generic`.
    pub mode: String,
    /// `up`, `down` or `gone`.
    pub state: String,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// Counts the planned changes of its members.
    pub generation: u32,
    /// `starting`, `steady`, `preparing`, `waiting` (for windows to close) or `window`.
    pub state: String,
    /// `ok` or `degraded`.
    pub health: Health,
    /// Slots of its table.
    pub slots: u32,
    /// Slots that look into the flow table.
    pub contested_slots: u32,
    /// Backends that are up and not drained.
    pub up: u32,
    /// All backends are down, so all are used.
    pub all_down: bool,
    /// By name.
    pub backends: Vec<BackendStatus>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// `up`, `down` or `drain`; a drained one that is down is `down`.
    pub state: String,
    /// Its weight in force.
    pub weight: u16,
    /// Slots it owns.
    pub slots: u32,
    /// Its share of the table, 0 to 1.
    pub share: f64,
    /// Flows of it in the flow table: all of them only where every flow is tracked.
    pub flows: u32,
    /// Packets sent to it.
    pub packets: u64,
    /// Bytes sent to it, as they arrived.
    pub bytes: u64,
    /// Packets a second, over the last seconds.
    pub packets_per_second: f64,
    /// Bits a second, over the last seconds.
    pub bits_per_second: f64,
    /// Why it is not up, or what an operator should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What the operator changed apart from the file, such as `drain` or `weight 50`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#override: Option<String>,
}

/// A VIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VipStatus {
    /// The name of its block.
    pub name: String,
    /// Its key, such as `203.0.113.10:443/tcp`.
    pub vip: String,
    /// Its pool.
    pub pool: String,
    /// `up`, `degraded` or `starting`.
    pub state: String,
    /// Packets sent on.
    pub packets: u64,
    /// Bytes sent on, as they arrived.
    pub bytes: u64,
    /// Packets dropped.
    pub drops: u64,
    /// Packets a second, over the last seconds.
    pub packets_per_second: f64,
    /// Bits a second, over the last seconds.
    pub bits_per_second: f64,
}

/// The flow table in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// Flows there is room for.
    pub capacity: u64,
    /// Entries of which one packet was seen.
    pub unconfirmed: u64,
    /// Entries of which more were seen.
    pub confirmed: u64,
    /// Entries after FIN or RST.
    pub closing: u64,
}

/// The VIPs and, for each pool, its backends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vips {
    /// [`super::API_VERSION`].
    pub version: u32,
    /// By address, protocol and port.
    pub vips: Vec<VipStatus>,
    /// The pools they lead to, by name.
    pub pools: Vec<PoolStatus>,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes, as they arrived.
    pub bytes: u64,
}

/// All counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// [`super::API_VERSION`].
    pub version: u32,
    /// What became of packets, by outcome; all VIPs, and packets of none.
    pub outcomes: BTreeMap<String, Count>,
    /// The same by VIP.
    pub vips: BTreeMap<String, BTreeMap<String, Count>>,
    /// The flow table.
    pub flows: FlowStatus,
    /// What the flow table answered to packets of contested slots and tracked VIPs (hit, new, base,
    /// miss), and what entering flows cost (evicted, refused).
    pub flow_events: BTreeMap<String, u64>,
    /// Packets that the program gave to an interface's driver and that it did not send, by
    /// interface; those whose driver does not count them are missing.
    pub transmit_errors: BTreeMap<String, u64>,
    /// What lbd itself did since it started.
    pub daemon: DaemonStats,
}

/// What lbd itself did since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStats {
    /// Lookup tables put in force.
    pub tables_published: u64,
    /// Slots that got another owner.
    pub slots_moved: u64,
    /// Slots that lost a former owner inside its window.
    pub slots_forced: u64,
    /// Walks over the flow table.
    pub flow_scans: u64,
    /// Entries removed because their time was over.
    pub flows_aged: u64,
    /// Health probes made.
    pub probes: u64,
    /// Probes that began more than one interval late.
    pub probes_late: u64,
    /// Changes that the data plane refused.
    pub failures: u64,
    /// Drop samples that were pushed out before anyone asked.
    pub samples_lost: u64,
}

/// Where a flow goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// [`super::API_VERSION`].
    pub version: u32,
    /// The client, `ADDRESS:PORT`.
    pub source: String,
    /// One answer for each VIP that was meant.
    pub flows: Vec<TracedFlow>,
}

/// Where a flow goes, for one VIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TracedFlow {
    /// The VIP's name.
    pub name: String,
    /// The VIP's key.
    pub vip: String,
    /// The destination, `ADDRESS:PORT`.
    pub destination: String,
    /// The pool.
    pub pool: String,
    /// The flow hash, 16 hex digits.
    pub hash: String,
    /// The slot.
    pub slot: u32,
    /// Slots of the table.
    pub slots: u32,
    /// The table's generation.
    pub generation: u32,
    /// Whether the slot looks into the flow table.
    pub contested: bool,
    /// How the owner was found: `stateless`, `entry`, `new`, `base`, `miss`.
    pub path: String,
    /// The same in a sentence.
    pub why: String,
    /// The backend; none if the pool has none.
    pub backend: Option<String>,
    /// The backend's address.
    pub address: Option<String>,
    /// `gue` or `ipip`.
    pub encap: Option<String>,
    /// Largest packet the path to it carries, bytes; none while there is no next hop.
    pub path_mtu: Option<u16>,
    /// Where its frames go, or why there is no way.
    pub next_hop: String,
    /// `tx`, or the reason of the drop.
    pub verdict: String,
}

/// Dropped packets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drops {
    /// [`super::API_VERSION`].
    pub version: u32,
    /// By reason; zero ones too.
    pub reasons: Vec<DropReason>,
    /// The newest ones, oldest first.
    pub samples: Vec<DroppedPacket>,
    /// The number of the newest sample, for the next question.
    pub last: u64,
}

/// A reason of drops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropReason {
    /// Its name.
    pub reason: String,
    /// Packets.
    pub packets: u64,
    /// What it means.
    pub help: String,
}

/// A packet that was dropped; the data plane samples them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedPacket {
    /// Counts the samples.
    pub number: u64,
    /// When lbd read it, RFC 3339.
    pub time: String,
    /// The reason.
    pub reason: String,
    /// The VIP's key, if one matched.
    pub vip: Option<String>,
    /// `ADDRESS:PORT`, or the address alone when the ports were not read.
    pub source: String,
    /// The same for the destination.
    pub destination: String,
    /// IP protocol number.
    pub protocol: u8,
    /// Frame length, bytes.
    pub length: u16,
}

/// What a scrape shows: the state and the counters of one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The state.
    pub status: Status,
    /// The counters.
    pub stats: Stats,
    /// How long the last probe of each backend took, by pool and backend, seconds.
    pub probe_seconds: Vec<(String, String, f64)>,
    /// The BGP peers; none without BGP.
    pub bgp: Option<BgpPeers>,
    /// The routes of each peer; none without BGP.
    pub bgp_routes: Option<BgpRoutes>,
}

/// What a change did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// [`super::API_VERSION`].
    pub version: u32,
    /// Whether it was done; false for a plan that was only shown.
    pub applied: bool,
    /// One line for each thing that changes; empty when nothing does.
    pub changes: Vec<PlanLine>,
    /// What the operator should know besides.
    pub notes: Vec<String>,
    /// Findings of the configuration that do not keep it from being used, as text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub warnings: String,
    /// The command that takes it back, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<String>,
}

impl Outcome {
    /// Something was done that changed nothing, so far.
    #[must_use]
    pub const fn applied() -> Self {
        Self {
            version: super::API_VERSION,
            applied: true,
            changes: Vec::new(),
            notes: Vec::new(),
            warnings: String::new(),
            undo: None,
        }
    }
}

/// One thing that changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlanLine {
    /// `+` comes, `-` goes, `~` changes.
    pub sign: char,
    /// What it is, such as `pool web`.
    pub subject: String,
    /// What happens to it.
    pub text: String,
}

impl PlanLine {
    /// A line.
    #[must_use]
    pub fn new(sign: char, subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { sign, subject: subject.into(), text: text.into() }
    }
}

/// What went wrong, as lbd answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// [`super::API_VERSION`].
    pub version: u32,
    /// Stable; see the constructors.
    pub code: String,
    /// What went wrong and what to do, for a person.
    pub message: String,
}

impl Failure {
    fn new(code: &str, message: impl Into<String>) -> Self {
        Self { version: super::API_VERSION, code: code.to_owned(), message: message.into() }
    }

    /// `unknown`: there is no such thing.
    #[must_use]
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new("unknown", message)
    }

    /// `invalid`: the question makes no sense, or the configuration has errors.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new("invalid", message)
    }

    /// `refused`: it is understood, and cannot be done now.
    #[must_use]
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new("refused", message)
    }

    /// `busy`: try again.
    #[must_use]
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new("busy", message)
    }

    /// `internal`: the data plane or the kernel failed.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new("internal", message)
    }
}
