//! BGP: which prefixes this load balancer announces, to whom, how, and the sessions that say so.
//!
//! ```text
//! controller: what can be served, drains, orders
//!   announce (pure): gate -> guard -> steer -> policy -> the routes of each peer
//!     speaker (a thread): orders in, reports out, around socket
//!       session (pure): RFC 4271 states and timers; the difference to what the peer has -> wire
//!       bfd (a thread): liveness of a peer's path, faster than the hold timer
//! ```
//!
//! Must not: touch the data plane; the controller says what it can serve.

pub mod announce;
pub mod asn;
pub mod bfd;
pub mod community;
pub mod gtsm;
pub mod roa;
pub mod roa_file;
pub mod route;
pub mod session;
pub mod socket;
pub mod speaker;
pub mod wire;
