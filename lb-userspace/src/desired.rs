//! The desired state: the configuration after every default, name and unit is resolved.
//!
//! Stands between `config`, which makes it out of the file and vouches for it, and the planner and
//! controller, which read it. Plain data: it opens no file and knows no clock, and the cluster
//! secret is not part of it (see [`Secret`]), so it can be logged, compared and sent as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lb_common::backend::Outer;
use serde::{Deserialize, Serialize};

pub(crate) use self::text::duration_text;
pub use self::text::{ParseError, Prefix4, Prefix6, format_duration, parse_duration};
pub use self::words::{
    BackendState, Encap, HealthKind, LastAnnouncer, LogFormat, LogLevel, OnDown, OnShutdown,
    Protocol, Tracking, ViaWord, XdpMode,
};

pub mod bgp;
mod text;
mod words;

/// Limits that the maps' layout sets; a configuration may ask for less, never for more.
pub mod limits {
    use std::time::Duration;

    /// VIPs (address, protocol, port), and what `max_vips` may be at most. The data plane counts
    /// packets of no VIP as number 0.
    #[expect(clippy::cast_possible_truncation, reason = "a few thousand")]
    pub const MAX_VIPS: u32 = lb_common::MAX_VIPS as u32 - 1;
    /// Pools, and what `max_pools` may be at most.
    #[expect(clippy::cast_possible_truncation, reason = "a few hundred")]
    pub const MAX_POOLS: u32 = lb_common::MAX_POOLS as u32;
    /// Backends over all pools: a slot keeps the id in 15 bits and 0 means none.
    pub const MAX_BACKENDS: u32 = lb_common::MAX_BACKEND_ID as u32;
    /// Flows the flow table may be given room for: its buckets take 1 GiB then.
    pub const MAX_FLOWS: u32 = 33_554_432;
    /// Fewest flows worth a table.
    pub const MIN_FLOWS: u32 = 1_024;
    /// Slots of all pools together; each takes 10 bytes with its history (1.25 GiB here).
    pub const MAX_SLOTS: u32 = 134_217_728;
    /// Slots there is room for when `max_slots` is not set and the pools need no more: 16 pools
    /// of the default size, each twice.
    pub const DEFAULT_SLOTS: u32 = 2 * 16 * 65_537;
    /// Tables a pool needs room for: the one in use and the one that will replace it.
    pub const TABLES_PER_POOL: u32 = 2;
    /// The longest idle timeout: what a deadline in the flow table can tell apart.
    pub const MAX_IDLE: Duration = Duration::from_secs(2 * 60 * 60);
    // A tick is about a second; one tick is lost to rounding.
    const _: () = assert!(MAX_IDLE.as_secs() < lb_common::control::Idle::MAX as u64);
    /// Bytes of an interface's name (IFNAMSIZ without its final zero).
    pub const MAX_INTERFACE_NAME: usize = 15;
    /// Bytes of the name of a node, pool, backend, VIP or health check.
    pub const MAX_NAME: usize = 63;
}

/// Everything lbd is asked to be: one whole, checked configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// Who this load balancer is.
    pub node: Node,
    /// What is fixed when the programs and maps are created, and the defaults of the pools.
    pub dataplane: Dataplane,
    /// Idle timeouts: of TCP for every VIP, of UDP where a VIP has none of its own.
    pub flow_timeouts: FlowTimeouts,
    /// The pools by name.
    pub pools: BTreeMap<String, Pool>,
    /// One VIP per address, protocol and port.
    pub vips: BTreeMap<VipKey, Vip>,
    /// BGP; `None`: routes are somebody else's.
    pub bgp: Option<bgp::Bgp>,
    /// The socket lbctl talks to.
    pub api: Api,
    /// Where metrics are served; `None`: nowhere.
    pub metrics: Option<Metrics>,
    /// What is logged, and how.
    pub log: Log,
}

impl Desired {
    /// The slots the pools' tables need room for, in use and in the making.
    #[must_use]
    pub fn slots_needed(&self) -> u64 {
        let slots: u64 = self.pools.values().map(|pool| u64::from(pool.maglev_size)).sum();
        slots * u64::from(limits::TABLES_PER_POOL)
    }

    /// The number of backends over all pools; one that is in two pools counts twice.
    #[must_use]
    pub fn backend_count(&self) -> usize {
        self.pools.values().map(|pool| pool.backends.len()).sum()
    }
}

/// Who this load balancer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name, unique in the PoP.
    pub name: String,
    /// The PoP it stands in.
    pub pop: String,
    /// Outer source of tunnels to IPv4 backends. One of the two addresses is always set.
    pub address: Option<Ipv4Addr>,
    /// Outer source of tunnels to IPv6 backends.
    pub address6: Option<Ipv6Addr>,
    /// The file that holds the cluster secret.
    pub secret_file: PathBuf,
}

impl Node {
    /// The address that a tunnel to a backend, or a probe to a VIP, starts from: the node's own of
    /// the family of `destination`; `None` if it has none.
    #[must_use]
    pub fn outer_source(&self, destination: IpAddr) -> Option<IpAddr> {
        match Family::of(destination) {
            Family::V4 => self.address.map(IpAddr::V4),
            Family::V6 => self.address6.map(IpAddr::V6),
        }
    }
}

/// The cluster secret that keys the flow hash: the same on every load balancer, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 16]);

impl Secret {
    /// Wraps the 16 bytes, in the order the file has them.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes, for the one place that hands them to the data plane.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What the data plane is created with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataplane {
    /// The interfaces the program is attached to; at least one, no name twice.
    pub interfaces: Vec<String>,
    /// How it is attached.
    pub xdp_mode: XdpMode,
    /// The encap of pools that name none.
    pub encap: Encap,
    /// UDP destination port of GUE.
    pub gue_port: u16,
    /// IPIP over IPv4 takes its outer source out of this prefix, by flow hash.
    pub ipip_source: Prefix4,
    /// IPIP over IPv6 takes its outer source out of this prefix, by flow hash.
    pub ipip_source6: Prefix6,
    /// Flows the flow table has room for.
    pub flow_table_size: u32,
    /// Slots of pools that name no size; a prime of [`crate::primes`].
    pub maglev_size: u32,
    /// VIPs there is room for.
    pub max_vips: u32,
    /// Pools there is room for.
    pub max_pools: u32,
    /// Backends over all pools there is room for.
    pub max_backends: u32,
    /// Slots of all pools there is room for; a pool takes twice its size.
    pub max_slots: u32,
    /// The directory on a BPF filesystem that keeps programs, links and maps while lbd restarts.
    pub pin_path: PathBuf,
}

/// How long a flow without a packet is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTimeouts {
    /// TCP, before the handshake is complete.
    #[serde(with = "duration_text")]
    pub tcp_half_open: Duration,
    /// TCP, established.
    #[serde(with = "duration_text")]
    pub tcp_established: Duration,
    /// TCP, after a FIN or RST.
    #[serde(with = "duration_text")]
    pub tcp_closing: Duration,
    /// UDP.
    #[serde(with = "duration_text")]
    pub udp: Duration,
}

/// The idle timeouts that a VIP can have of its own; TCP's are the same for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipTimeouts {
    /// UDP.
    #[serde(with = "duration_text")]
    pub udp: Duration,
}

/// A named set of backends with one lookup table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name, the key it has in [`Desired::pools`].
    pub name: String,
    /// How its backends are checked; `None`: they count as up.
    pub health: Option<Health>,
    /// How packets travel to its backends.
    pub encap: Encap,
    /// Slots of its lookup table; a prime of [`crate::primes`].
    pub maglev_size: u32,
    /// With fewer backends up than this the pool counts as degraded, and its VIPs are withdrawn;
    /// at least 1.
    pub min_up: u32,
    /// With as many backends up they are announced again; at least `min_up`.
    pub min_up_return: u32,
    /// Where the flows of a dead backend go.
    pub on_down: OnDown,
    /// Which of its TCP flows are remembered: `Contested` or `Always`.
    pub tracking: Tracking,
    /// How long a slot stays contested after a change.
    #[serde(with = "duration_text")]
    pub window: Duration,
    /// How long before a change its slots are marked; at least 3 s.
    #[serde(with = "duration_text")]
    pub prepare: Duration,
    /// The backends by name.
    pub backends: BTreeMap<String, Backend>,
}

/// One backend of one pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Its name, the key it has in [`Pool::backends`].
    pub name: String,
    /// Where the tunnel to it ends.
    pub address: IpAddr,
    /// Its share of the pool's slots, relative to the other weights; 0 gets none.
    pub weight: u16,
    /// What the operator wants of it.
    pub state: BackendState,
}

impl Backend {
    /// The weight its share of the table follows: 0 while it drains.
    #[must_use]
    pub const fn effective_weight(&self) -> u16 {
        match self.state {
            BackendState::Up => self.weight,
            BackendState::Drain => 0,
        }
    }
}

/// A health check as one pool uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The name it has in the file.
    pub name: String,
    /// What a probe does.
    pub kind: HealthKind,
    /// The port probed: its own, else the lowest port of the pool's VIPs (TCP before UDP).
    pub port: u16,
    /// Which way it is probed.
    pub via: Via,
    /// From one probe's start to the next.
    #[serde(with = "duration_text")]
    pub interval: Duration,
    /// When a probe without an answer has failed; at most `interval`.
    #[serde(with = "duration_text")]
    pub timeout: Duration,
    /// Probes in a row that must succeed to bring a backend up; at least 1.
    pub rise: u32,
    /// Probes in a row that must fail to take it down; at least 1.
    pub fall: u32,
}

/// Which way a probe goes. In JSON `{"tunnel": "203.0.113.10"}` or `"direct"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// The way a client's packet goes, to this VIP address of the pool: proves encapsulation, next
    /// hop, path, agent, the VIP on the backend, the listener, and the way back. The probe starts
    /// from the node's address of this family, which the node has.
    Tunnel(IpAddr),
    /// To the backend's own address: proves that something listens there, and nothing of the
    /// tunnel.
    Direct,
}

impl Via {
    /// The VIP that probes connect to; `None` if they go to the backends themselves.
    #[must_use]
    pub const fn vip(self) -> Option<IpAddr> {
        match self {
            Self::Tunnel(vip) => Some(vip),
            Self::Direct => None,
        }
    }
}

/// An address, protocol and port that clients reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vip {
    /// The name of its `[[vip]]` block; the VIPs of one block share it.
    pub name: String,
    /// Address, protocol and port: the key it has in [`Desired::vips`].
    pub key: VipKey,
    /// The pool that serves it, a key of [`Desired::pools`].
    pub pool: String,
    /// Which of its flows are remembered: TCP as its pool says, UDP `Always` or `Stateless`.
    pub tracking: Tracking,
    /// Its idle timeouts: its own, else the defaults.
    pub flow_timeouts: VipTimeouts,
}

/// What tells VIPs apart. As text `203.0.113.10:443/tcp`, `[2001:db8::1]:any/udp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VipKey {
    /// The address.
    pub address: IpAddr,
    /// The protocol above IP.
    pub protocol: Protocol,
    /// The destination port. Beside `Any`, a VIP with the exact port wins.
    pub port: Port,
}

impl fmt::Display for VipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:{}/{}", self.port, self.protocol),
            IpAddr::V6(address) => write!(f, "[{address}]:{}/{}", self.port, self.protocol),
        }
    }
}

impl FromStr for VipKey {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::new("ADDRESS:PORT/PROTOCOL", text);
        let (rest, protocol) = text.rsplit_once('/').ok_or_else(wrong)?;
        let (address, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let address = match address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner.parse().map(IpAddr::V6),
            None => address.parse().map(IpAddr::V4),
        };
        let Ok(address) = address else { return Err(wrong()) };
        Ok(Self { address, protocol: protocol.parse()?, port: port.parse()? })
    }
}

impl From<VipKey> for String {
    fn from(key: VipKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for VipKey {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

/// The destination port of a VIP. As text a number or `any`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// Every port that has no VIP of its own.
    Any,
    /// This port, 1 to 65,535.
    Exact(u16),
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Exact(port) => port.fmt(f),
        }
    }
}

impl FromStr for Port {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text.parse() {
            Ok(port) if port != 0 => Ok(Self::Exact(port)),
            Ok(_) | Err(_) if text != "any" => Err(ParseError::new("a port or `any`", text)),
            Ok(_) | Err(_) => Ok(Self::Any),
        }
    }
}

/// The socket lbctl talks to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Api {
    /// Its path.
    pub socket: PathBuf,
    /// The group whose members may use it; `None`: only the user of lbd.
    pub group: Option<String>,
}

/// Where metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// Address and TCP port.
    pub listen: SocketAddr,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The least important level that is written.
    pub level: LogLevel,
    /// How an event is written.
    pub format: LogFormat,
}

/// The family of an IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `address`.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Bytes an encap puts in front of the inner packet, outer IP header included.
///
/// What the path to a backend must carry is the inner packet plus this.
#[must_use]
pub const fn encap_overhead_bytes(encap: Encap, outer: Family) -> u16 {
    let outer = match (encap, outer) {
        (Encap::Ipip, Family::V4) => Outer::IpipV4,
        (Encap::Ipip, Family::V6) => Outer::IpipV6,
        (Encap::Gue, Family::V4) => Outer::GueV4,
        (Encap::Gue, Family::V6) => Outer::GueV6,
    };
    outer.overhead()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vip_keys_read_as_they_are_written() {
        for text in ["203.0.113.10:443/tcp", "[2001:db8::1]:any/udp", "192.0.2.1:65535/udp"] {
            assert_eq!(text.parse::<VipKey>().map(|key| key.to_string()).as_deref(), Ok(text));
        }
        for wrong in ["203.0.113.10:0/tcp", "203.0.113.10:80", "2001:db8::1:80/tcp", "x:1/tcp", ""]
        {
            assert!(wrong.parse::<VipKey>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new([7; 16])), "Secret(..)");
    }
}
