//! Which routes each peer is to have: the gate, the guards, steering and the policy.
//!
//! Pure and level driven: the same facts at the same time lead to the same routes, however often
//! they are told. Times are `Duration`s since boot.
//!
//! ```text
//! facts -> gate: can this prefix be served? -> guard: may it go? -> track: where it stands
//!                            orders -> steer, poison -> policy: attributes, each with its reason
//! ```
//!
//! Whatever keeps a prefix from being served is health: a VIP short of backends, and also a program
//! that is not attached, a missing table, a probe that fails. All of it passes the guards. An LB
//! that is the last known announcer stays even then, with an alarm (`last_announcer = "keep"`):
//! what it believes of itself may be wrong, and a prefix without any announcer surely serves
//! nobody. With others seen, it goes. Force is only the operator's: drains, orders and shutting
//! down.
//!
//! Must not: read a clock or a file, or know sessions.

use std::sync::Arc;

use ipnet::IpNet;

pub use self::announcer::{Announcer, STARTING, Saved};
pub use self::facts::{Facts, Seen, VipFacts};
pub use self::order::{Done, Order, OrderReport, Steer};
pub use self::report::{Announcement, AttributeReport, Phase, RouteReport, RouteState};
pub use super::roa::Validity;

mod announcer;
mod check;
mod describe;
mod facts;
mod gate;
mod guard;
pub mod order;
mod outbox;
mod poison;
mod policy;
mod report;
mod scope;
mod steer;
mod track;

/// Looks up a prefix and its origin AS.
pub type Roas = Arc<dyn Fn(&IpNet, u32) -> Validity + Send + Sync>;

#[cfg(test)]
mod tests;
