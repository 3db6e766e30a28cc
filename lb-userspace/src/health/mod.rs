//! Health: which backends are up, as the probes found it.
//!
//! `rise_fall` turns the observations of one backend into a verdict, `machine` says which backend
//! to probe when and keeps all verdicts: both pure, `now` is an argument. `probe` makes one TCP
//! connection, `prober` runs the machine on a thread of its own, `tunnel` sends a probe the way of
//! a client's packet. Drain is no business of this room: a draining backend is probed like every
//! other, since it still carries flows.
//!
//! Must not: know pools' tables or the plan, or change the data plane.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub mod machine;
pub mod probe;
pub mod prober;
pub mod rise_fall;
pub mod tunnel;

pub use machine::{Machine, Probe, Ticket};
pub use prober::{Prober, ProberError, ProberOptions};
pub use rise_fall::{RiseFall, Thresholds};
pub use tunnel::{Tunnel, TunnelError};

/// Shortest interval the machine keeps to; a shorter one in a [`Target`] counts as this.
pub const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Longest interval the machine keeps to; a longer one counts as this.
pub const INTERVAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Names one backend of one pool; health is kept per pair, since pools probe differently.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendKey {
    /// The pool's name.
    pub pool: String,
    /// The backend's name within its pool.
    pub backend: String,
}

impl BackendKey {
    /// The key of `backend` in `pool`.
    #[must_use]
    pub fn new(pool: &str, backend: &str) -> Self {
        Self { pool: pool.to_owned(), backend: backend.to_owned() }
    }
}

impl fmt::Display for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool, self.backend)
    }
}

/// What to probe, how often and how strictly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The backend's own address. Another one is another machine: its verdict starts over.
    pub backend: IpAddr,
    /// Where the probe connects to: the backend itself, or the VIP when it goes through the tunnel.
    pub address: SocketAddr,
    /// The socket's mark (SO_MARK), which leads its packets through the tunnel; none is direct.
    pub mark: Option<u32>,
    /// The socket's own address; none lets the kernel's routes choose.
    pub source: Option<IpAddr>,
    /// From the start of one probe to the start of the next; at least [`INTERVAL_MIN`].
    pub interval: Duration,
    /// A probe without an answer after this long has failed.
    pub timeout: Duration,
    /// When the verdict changes.
    pub thresholds: Thresholds,
}

/// What the probes say of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Too few probes yet. Counts as not up: a backend proves itself before it gets flows.
    Unknown,
    /// `rise` probes in a row passed, and fewer than `fall` in a row failed since.
    Up,
    /// It failed, and fewer than `rise` probes in a row passed since.
    Down,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// Why a probe failed: something the backend, or the way to it, is answerable for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The SYN was answered by RST: the machine lives, nothing listens.
    #[error("connection refused")]
    Refused,
    /// No answer within the probe's timeout.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// A router, or the neighbour resolution on the last link, says it cannot be reached.
    #[error("unreachable")]
    Unreachable,
    /// The tunnel has no next hop for the backend: its neighbour or route is not resolved.
    #[error("no next hop to the backend")]
    NextHop,
    /// Any other error of the connection.
    #[error("connection failed: error {0}")]
    Other(i32),
}

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The connection was established.
    Passed,
    /// The probe failed, and that counts against the backend.
    Failed(Failure),
    /// This machine could not make the probe (no descriptors, no ports, no permission, no
    /// tunnel): it says nothing about the backend and counts neither way.
    Uncounted(String),
}

/// A verdict has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthEvent {
    /// Whose verdict.
    pub backend: BackendKey,
    /// The new verdict; never "unknown".
    pub up: bool,
    /// For people: where the probe went, what it found, how many in a row.
    pub reason: String,
    /// When the last probe of the row ended, since boot.
    pub at: Duration,
}

/// The state of one backend's health, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendHealth {
    /// The verdict in force.
    pub verdict: Verdict,
    /// Since when (since boot); for [`Verdict::Unknown`] when probing began.
    pub since: Duration,
    /// Where the probes go.
    pub address: SocketAddr,
    /// True when they take the tunnel.
    pub tunnelled: bool,
    /// The last failed probe's reason and when it ended; kept after the backend recovers.
    pub last_error: Option<(String, Duration)>,
    /// Probes in a row that speak against the verdict.
    pub streak: u32,
    /// Verdicts so far that turned an earlier one over: a backend that flaps.
    pub changes: u64,
    /// Probes in a row that this machine could not make, and why the last one was not.
    pub uncounted: Option<(u32, String)>,
    /// How long the last counted probe took; none before the first.
    pub took: Option<Duration>,
}

/// Everything the prober knows, for `lbctl` and the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthReport {
    /// One entry per probed backend.
    pub backends: std::collections::BTreeMap<BackendKey, BackendHealth>,
    /// Probes made since the start.
    pub probes: u64,
    /// Of these, the ones that began more than one interval late: the machine is overloaded.
    pub late: u64,
    /// Probes under way.
    pub in_flight: usize,
}
