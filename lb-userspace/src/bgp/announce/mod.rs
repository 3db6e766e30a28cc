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
//! Must not: read a clock or a file, or know sessions.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::facts::{Facts, Seen, VipFacts};
pub use self::order::{Done, Order, OrderReport, Steer};
pub use self::report::{Announcement, AttributeReport, Phase, RouteReport, RouteState};
use crate::desired::Desired;

mod facts;
pub mod order;
mod report;

/// What RPKI says of a route: whether the AS may originate the prefix (RFC 6811).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// A ROA allows it.
    Valid,
    /// ROAs cover the prefix, and none allows it.
    Invalid,
    /// No ROA covers it.
    NotFound,
}

/// Looks up a prefix and its origin AS.
pub type Roas = Arc<dyn Fn(&IpNet, u32) -> Validity + Send + Sync>;

/// What a restart must not forget. Only good until the next boot: its times are since boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {}

/// Decides which routes each peer is to have.
pub struct Announcer {}

impl Announcer {
    /// Starts with `desired`, and with what a predecessor [`saved`](Self::saved) since this boot.
    /// Nothing is ready before the first [`settle`](Self::settle).
    #[must_use]
    pub fn new(desired: &Desired, saved: Option<Saved>, now: Duration) -> Self {
        let _ = (desired, saved, now);
        Self {}
    }

    /// The ROAs that routes are checked against; `None`: no check. Routes that are out stay.
    pub fn set_roas(&mut self, roas: Option<Roas>) {
        drop(roas);
    }

    /// Takes another configuration. One that takes away all prefixes that are announced, or more
    /// than the breaker lets go, takes none away until [`Order::ResumeBreaker`]; see
    /// [`alarms`](Self::alarms).
    pub fn configure(&mut self, desired: &Desired, now: Duration) {
        let _ = (desired, now);
    }

    /// Carries out an order.
    ///
    /// # Errors
    /// It is refused; one sentence says why, and nothing has changed.
    pub fn order(&mut self, order: Order, now: Duration) -> Result<Done, String> {
        let _ = (order, now);
        Err(String::new())
    }

    /// Decides anew; `None` if every peer is to have what the last decision said.
    ///
    /// Call it when facts change, after [`order`](Self::order), [`configure`](Self::configure) and
    /// [`shut_down`](Self::shut_down), and at [`deadline`](Self::deadline).
    pub fn settle(&mut self, facts: &Facts, now: Duration) -> Option<Announcement> {
        let _ = (facts, now);
        None
    }

    /// When the next decision is due without any new fact, since boot.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        None
    }

    /// Every prefix to every peer, with the reason for each attribute, as of the last decision.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteReport> {
        Vec::new()
    }

    /// The orders that hold.
    #[must_use]
    pub fn orders(&self) -> Vec<OrderReport> {
        Vec::new()
    }

    /// What the operator must look at, one sentence each.
    #[must_use]
    pub fn alarms(&self) -> Vec<String> {
        Vec::new()
    }

    /// What a successor needs to go on from here. Changes only when something is decided.
    #[must_use]
    pub fn saved(&self) -> Saved {
        Saved {}
    }

    /// Leaves: routes are lowered, then withdrawn; or all stay, as `on_shutdown` says.
    pub fn shut_down(&mut self, now: Duration) {
        let _ = now;
    }

    /// How far [`shut_down`](Self::shut_down) is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        Phase::Running
    }
}
