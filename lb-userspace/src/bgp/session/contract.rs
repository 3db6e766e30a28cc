//! What goes into a session and what comes out.
//!
//! A part of `session`. Times are durations since boot.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::report::State;
use crate::bgp::route::Rib;
use crate::bgp::wire::Unsendable;
use crate::desired::bgp::Peer;

/// What a session is made of; any change of it needs a new session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// Our AS number.
    pub local_as: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// The peer.
    pub peer: Peer,
    /// How long the peer is to keep our routes while we are away (RFC 4724), whole seconds, at
    /// most 4,095; `None`: not at all.
    pub graceful_restart: Option<Duration>,
    /// We have just restarted: the R bit, until the first End-of-RIB has been sent.
    pub restarted: bool,
    /// Forwarding went on meanwhile: the F bit of each family.
    pub forwarding_kept: bool,
    /// Where the jitter of the timers comes from.
    pub seed: u64,
}

/// One of the two connections that a session may have for a moment (RFC 4271 section 6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The one we opened.
    Active,
    /// The one the peer opened.
    Passive,
}

/// What happened, or what is wanted.
#[derive(Debug)]
pub enum Input<'a> {
    /// Bring the session up and keep it up.
    Start,
    /// Take it down with a NOTIFICATION; it stays down until `Start`.
    Stop(&'a Close),
    /// A TCP connection is there. A second one of the same side ends the first.
    Connected {
        /// Whose.
        side: Side,
        /// Our address.
        local: IpAddr,
        /// The peer's.
        remote: IpAddr,
    },
    /// The connection that `Output::Connect` asked for failed.
    ConnectFailed {
        /// Why, for the report.
        reason: &'a str,
    },
    /// Bytes came: any part of one message, or of several.
    Received {
        /// On which connection.
        side: Side,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The connection is gone: closed or reset by the peer, or timed out.
    Ended {
        /// Which.
        side: Side,
        /// Why, for the report.
        reason: &'a str,
    },
    /// As many bytes of `Output::Send` have been given to the kernel.
    Sent {
        /// On which connection.
        side: Side,
        /// How many.
        bytes: usize,
    },
    /// The routes that the peer is to have.
    Routes {
        /// All of them.
        rib: Arc<Rib>,
        /// They may go out, and End-of-RIB after them. Until then nothing does but keepalives;
        /// once true for a session, `false` holds back further changes.
        ready: bool,
        /// The decision that they come from.
        decision: Decision,
    },
    /// The prefixes that are ours: of a monitor's routes, these are kept.
    Own {
        /// All of them.
        prefixes: Arc<BTreeSet<IpNet>>,
    },
    /// BFD says that the path to the peer is up, or down.
    Bfd(bool),
    /// Time went on; at the latest at [`super::Session::deadline`].
    Tick,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a TCP connection to the peer; a pending attempt is given up.
    Connect,
    /// Send these bytes.
    Send {
        /// On which connection.
        side: Side,
        /// One or more messages.
        bytes: Vec<u8>,
    },
    /// Close the connection once everything before has been sent, or soon after; nothing is
    /// expected of it any more, neither `Sent` nor `Ended`.
    Close {
        /// Which. For `Active`, a pending attempt is given up, too.
        side: Side,
    },
    /// For the log.
    Event(SessionEvent),
}

/// A change of the wanted routes, to tell how long it took until the peer was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Decision {
    /// Counts up.
    pub id: u64,
    /// When it was made.
    pub at: Duration,
}

/// Why we close a session that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The subcode.
    pub cease: Cease,
    /// What the peer's operator reads (RFC 9003); cut to 255 bytes. Sent with
    /// `AdministrativeShutdown` and `AdministrativeReset` only, which alone may carry it.
    pub text: String,
}

/// Subcodes of the NOTIFICATION Cease (RFC 4486, RFC 8538, RFC 9384).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Cease {
    /// The peer announced more prefixes than it may.
    MaximumPrefixes = 1,
    /// The operator wants it down.
    AdministrativeShutdown = 2,
    /// The peer is no longer in the configuration.
    PeerDeConfigured = 3,
    /// The operator wants it down and up again.
    AdministrativeReset = 4,
    /// The connection is not welcome now.
    ConnectionRejected = 5,
    /// Its configuration has changed.
    OtherConfigurationChange = 6,
    /// Of two connections, this one goes.
    ConnectionCollisionResolution = 7,
    /// We cannot afford it.
    OutOfResources = 8,
    /// Not to be survived by graceful restart; wraps another one.
    HardReset = 9,
    /// BFD says that the path is down.
    BfdDown = 10,
}

/// What is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The session went from one state to another.
    State {
        /// From.
        from: State,
        /// To.
        to: State,
    },
    /// A connection ended, or could not be made, and this is why.
    Trouble {
        /// As in `last_error` of the report.
        text: String,
    },
    /// An UPDATE was wrong, and the session goes on (RFC 7606).
    Tolerated {
        /// What was wrong and what became of it.
        text: String,
    },
    /// Every route that the peer is to have has been sent, and End-of-RIB.
    Complete {
        /// How many routes.
        routes: usize,
    },
    /// A wanted route cannot be told to this peer.
    Unsendable {
        /// Its prefix.
        prefix: IpNet,
        /// Why.
        reason: Unsendable,
    },
    /// The peer asked for all routes once more (RFC 2918).
    Refresh,
}

impl SessionEvent {
    /// Whether somebody should look.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        match self {
            Self::Trouble { .. } | Self::Tolerated { .. } | Self::Unsendable { .. } => true,
            Self::State { .. } | Self::Complete { .. } | Self::Refresh => false,
        }
    }
}

impl fmt::Display for SessionEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State { from, to } => write!(f, "{from} -> {to}"),
            Self::Trouble { text } | Self::Tolerated { text } => f.write_str(text),
            Self::Complete { routes } => write!(f, "all {routes} routes sent"),
            Self::Unsendable { prefix, reason } => write!(f, "{prefix} is not announced: {reason}"),
            Self::Refresh => f.write_str("the peer asked for all routes once more"),
        }
    }
}
