//! One BGP session: RFC 4271's state machine, without sockets and clocks.
//!
//! The speaker hands in what happened and what is wanted ([`Input`]) with the time, and does what
//! comes out ([`Output`]). Both connections that a peer may have for a moment are in one
//! [`Session`], so that a collision is decided here.
//!
//! `contract` is what goes in and out, `report` what is shown. `negotiation` makes and judges
//! OPENs, `connection` is one connection with its timers, `outbound` the routes the peer has from
//! us, `inbound` those it announces; `machine` joins them, `lifecycle` begins and ends connections.
//!
//! Must not: do IO or read a clock; `now` is an argument.

mod connection;
mod contract;
mod inbound;
mod lifecycle;
mod machine;
mod negotiation;
mod outbound;
mod report;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use self::connection::Connection;
use self::inbound::Inbound;
use self::outbound::Outbound;
use self::timers::Timers;
use super::route::Rib;

pub use self::contract::{
    Cease, Close, Decision, Input, Output, SessionEvent, SessionSettings, Side,
};
pub use self::report::{
    Addresses, BfdReport, Cause, Counters, DecisionTimes, LastError, Negotiated, PeerReport, State,
};

/// A session with one peer, from its configuration to its removal.
#[derive(Debug)]
pub struct Session {
    settings: SessionSettings,
    timers: Timers,
    /// Between `Start` and `Stop`.
    started: bool,
    /// Our attempt to connect is given up then.
    connecting: Option<Duration>,
    /// We connect again then.
    retry: Option<Duration>,
    connections: BTreeMap<Side, Connection>,
    outbound: Outbound,
    inbound: Inbound,
    wanted: Arc<Rib>,
    ready: bool,
    /// The wanted routes may differ from those that were sent.
    dirty: bool,
    own: Arc<BTreeSet<IpNet>>,
    bfd_up: bool,
    /// A decision whose routes are not all written yet.
    decision: Option<Decision>,
    /// Decisions that are on the wire when so many bytes have been sent.
    underway: VecDeque<(u64, Decision)>,
    counters: Counters,
    decisions: DecisionTimes,
    last_error: Option<LastError>,
    state: State,
    since: Duration,
}
