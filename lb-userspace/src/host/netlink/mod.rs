//! How the kernel would send a packet to each backend: route, neighbour, link-layer header, MTU.
//!
//! The kernel stays the only authority on routing: for every destination it is asked for a route
//! (`codec` and `socket` speak netlink), and asked again when a route, a rule, an address or
//! a link that can matter has changed. `resolution` and `neighbours` are pure state machines that
//! know what was answered and what to ask next; `resolver` is the task that joins both halves
//! and reports to the controller. Nothing here knows pools, backends or plans.
//!
//! Every next hop's neighbour is held resolved in the kernel by an entry of ours (see
//! [`NeighbourMode`]), because packets sent by XDP refresh no neighbour. The entries outlive
//! `lbd`, carry [`NEIGHBOUR_PROTOCOL`] so that a later `lbd` recognises them, and are removed when
//! no destination has needed them for [`RELEASE_DELAY`].

mod codec;
mod neighbours;
mod resolution;
mod resolver;
mod socket;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use resolver::{Counters, Held, Resolver, held, links, path_mtus, release_all_but};

/// Most destinations one resolver follows: one per backend id, and backend ids have 15 bits.
pub const MAX_DESTINATIONS: usize = 32_768;
/// Most links kept; a machine with more has its further ones reported as absent.
pub const MAX_LINKS: usize = 8_192;
/// Most next hops considered for one destination: the kernel's choice and its alternatives.
pub const MAX_HOPS: usize = 16;
/// Most neighbour entries followed: two per destination, so that a table of them can be replaced.
pub const MAX_NEIGHBOURS: usize = 2 * MAX_DESTINATIONS;
/// Most interfaces whose state is reported; an LB has a handful.
pub const MAX_INTERFACES: usize = 64;
/// Marks the neighbour entries that are ours (NDA_PROTOCOL, `ip neigh` shows it as `proto 76`).
/// One of the numbers that no routing protocol of rtnetlink.h has; 76 is the letter L.
pub const NEIGHBOUR_PROTOCOL: u8 = 76;

/// Changes of routes and links come in bursts; lookups wait this long after the first one.
pub const LOOKUP_DEBOUNCE: Duration = Duration::from_millis(50);
/// All destinations are looked up at most this often, however much happens to links and addresses;
/// 30,000 lookups take some tenths of a second.
pub const FULL_PASS_INTERVAL: Duration = Duration::from_secs(1);
/// Everything is asked again this often: the kernel does not announce path MTUs it learns or
/// forgets, nor routes it drops along with an interface.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// A neighbour entry of ours that nobody needs is removed after this long, so that a route that
/// flaps between two gateways finds both resolved.
pub const RELEASE_DELAY: Duration = Duration::from_secs(30);
/// Shortest time between two attempts to hold one neighbour.
pub const HOLD_RETRY: Duration = Duration::from_secs(1);
/// In [`NeighbourMode::Permanent`] each entry is probed anew this often, to notice a new MAC.
pub const PERMANENT_REFRESH: Duration = Duration::from_secs(30);
/// A change is reported when nothing has changed for this long and nothing is being asked.
pub const REPORT_QUIET: Duration = Duration::from_millis(10);
/// A change is reported at the latest after this long, whatever is still being asked.
pub const REPORT_LATEST: Duration = Duration::from_millis(250);

/// What the data plane needs to send a packet to a destination.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NextHop {
    /// Interface the packet leaves by.
    pub interface_index: u32,
    /// That interface's MAC address, in wire order.
    pub source_mac: [u8; 6],
    /// The MAC address of the gateway, or of the destination if it is on the link; wire order.
    pub destination_mac: [u8; 6],
    /// Largest IP packet the path is known to carry, in bytes: the smaller one of the interface's
    /// MTU and the route's (configured, or learned by the kernel from path MTU discovery).
    /// Capped at 65,535.
    pub mtu: u16,
}

/// The way to a destination without its link-layer addresses; see [`path_mtus`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Path {
    /// Name of the interface packets leave by.
    pub interface: Arc<str>,
    /// The gateway; `None` if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Largest IP packet in bytes, as in [`NextHop::mtu`].
    pub mtu: u16,
}

/// Why there is no next hop for a destination.
///
/// A neighbour that was resolved once keeps its MAC address until the kernel has given it up, so
/// none of these comes and goes while a neighbour is merely probed. For a destination that had a
/// next hop before, the controller does best to leave the last one in place: an old header loses
/// no more packets than none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
pub enum Unresolved {
    /// The kernel has not been asked yet.
    #[error("not looked up yet")]
    Pending,
    /// No route matches.
    #[error("no route to this address")]
    NoRoute,
    /// A route matches and says that packets must not be sent (unreachable, blackhole, prohibit).
    #[error("the route to this address is unreachable, blackhole or prohibit")]
    Unreachable,
    /// The address belongs to this machine, or is a broadcast or multicast address.
    #[error("this address is the machine's own, or not a unicast address")]
    NotRemote,
    /// The route leads to an interface that is down, has no carrier or is gone.
    #[error("interface {0} is down or gone")]
    InterfaceDown(Arc<str>),
    /// The route leads to an interface without 6-byte MAC addresses.
    #[error("interface {0} is not an Ethernet interface")]
    NotEthernet(Arc<str>),
    /// The neighbour has not answered yet.
    #[error("waiting for neighbour {0} to answer")]
    Resolving(IpAddr),
    /// The neighbour does not answer ARP or neighbour discovery.
    #[error("neighbour {0} does not answer")]
    NeighbourFailed(IpAddr),
    /// The kernel's neighbour table is full.
    #[error(
        "the kernel's neighbour table is full; raise net.ipv4.neigh.default.gc_thresh3 and \
         net.ipv6.neigh.default.gc_thresh3"
    )]
    NeighbourTableFull,
}

impl Unresolved {
    /// A stable word for metrics and JSON.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::NoRoute => "no_route",
            Self::Unreachable => "unreachable",
            Self::NotRemote => "not_remote",
            Self::InterfaceDown(_) => "interface_down",
            Self::NotEthernet(_) => "not_ethernet",
            Self::Resolving(_) => "resolving",
            Self::NeighbourFailed(_) => "neighbour_failed",
            Self::NeighbourTableFull => "neighbour_table_full",
        }
    }
}

/// The next hops of all destinations.
pub type NextHops = BTreeMap<IpAddr, Result<NextHop, Unresolved>>;

/// How neighbours stay resolved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum NeighbourMode {
    /// The kernel itself probes our entries every few seconds (NTF_EXT_MANAGED, kernel 5.16), also
    /// while `lbd` is dead.
    Managed,
    /// The kernel refused managed entries: `lbd` probes each neighbour and pins what it found as a
    /// permanent entry. While `lbd` is dead a neighbour that changes its MAC is not followed.
    Permanent,
}

/// A network interface.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Link {
    /// The kernel's number for it, never 0. Changes when it is made anew.
    pub index: u32,
    /// Its name, at most 15 bytes.
    pub name: Arc<str>,
    /// Switched on and with a carrier.
    pub up: bool,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Its MAC address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
}

/// What the resolver tells the controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HostEvent {
    /// All destinations and their next hops, sent whenever one of them changed. Changes that the
    /// controller was too slow to take are merged into the next one.
    NextHops(NextHops),
    /// A watched interface came up, or changed while it was up.
    LinkUp(Link),
    /// A watched interface exists and is down or has no carrier.
    LinkDown(Arc<str>),
    /// A watched interface does not exist.
    LinkGone(Arc<str>),
    /// How neighbours are kept; sent once at the start and when it changes.
    NeighbourMode(NeighbourMode),
}

/// Why netlink could not be used.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// A system call on the socket failed.
    #[error("netlink: {what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// The kernel did not answer in time; what was asked may or may not have been done.
    #[error("netlink: the kernel did not answer within {0:?}")]
    Timeout(Duration),
    /// The kernel dropped messages because they were not read fast enough.
    #[error("netlink: messages were lost because the receive buffer was full")]
    Overrun,
    /// The kernel refused a whole dump.
    #[error("netlink: the kernel refused a dump: {0}")]
    Refused(std::io::Error),
    /// The kernel sent what this program cannot read.
    #[error("netlink: unreadable message: {0}")]
    Malformed(String),
    /// More destinations than [`MAX_DESTINATIONS`].
    #[error("{0} destinations are more than the {MAX_DESTINATIONS} that can be followed")]
    TooManyDestinations(usize),
    /// The resolver's task has ended.
    #[error("the resolver has ended")]
    Ended,
}
