//! One BGP session: RFC 4271's state machine, without sockets and clocks.
//!
//! The speaker hands in what happened and what is wanted ([`Input`]) with the time, and does what
//! comes out ([`Output`]). Both connections that a peer may have for a moment are in one
//! [`Session`], so that a collision is decided here.
//!
//! Must not: do IO or read a clock; `now` is an argument.

mod contract;
mod report;

pub use contract::{Cease, Close, Decision, Input, Output, SessionEvent, SessionSettings, Side};
pub use report::{
    Addresses, BfdReport, Cause, Counters, DecisionTimes, LastError, Negotiated, PeerReport,
    ReceivedRoute, State,
};
