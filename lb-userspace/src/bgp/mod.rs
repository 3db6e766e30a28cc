//! BGP: which prefixes this load balancer announces, to whom, how, and the sessions that say so.
//!
//! ```text
//! controller: capacity, drain, orders -> announce (pure): gate -> guard -> steer -> policy -> routes
//! speaker (its own thread)            <- routes of each peer
//!   session (pure): RFC 4271 states, timers, diff against what the peer has -> wire -> socket
//! bfd (its own thread): liveness of a peer's path, faster than the hold timer
//! ```
//!
//! Must not: touch the data plane; the controller says what it can serve.

pub mod asn;
pub mod bfd;
pub mod community;
pub mod roa;
pub mod route;
pub mod session;
pub mod socket;
pub mod speaker;
pub mod wire;
