//! The BGP speaker: the sessions with all peers, on a thread of their own.
//!
//! ```text
//! controller -> [`Orders`] -> keeper: peers, listeners, BFD -> one task per peer:
//!                                 session (pure) <-> its connections
//! controller <- [`SpeakerReport`] <- keeper <- reports of the tasks
//! ```
//!
//! The thread goes before others where that is allowed, so that keepalives are on time while the
//! machine is flooded. Orders say what is wanted as a whole; what has not changed is not touched.
//!
//! Must not: decide which routes a peer gets, or imports any.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use super::bfd;
use super::route::Rib;
use super::session::{Decision, PeerReport};
use crate::config::Password;
use crate::desired;
use crate::host::priority;

mod board;
mod connection;
mod keeper;
mod listener;
mod peer;
mod wishes;

/// How long [`Speaker::stop`] waits for the last bytes to the peers.
pub const STOP_TIME: Duration = Duration::from_secs(2);

/// Niceness of the thread: before everything ordinary.
const NICE: i32 = -10;

/// What the speaker needs to start.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Peers may still have our routes from before (RFC 4724: the R bit); of the peers of the
    /// first orders.
    pub restarted: bool,
    /// Meanwhile forwarding went on (the F bit); of the peers of the first orders. Later it always
    /// has.
    pub forwarding_kept: bool,
    /// Differs between LBs, so that their timers are not in step.
    pub seed: u64,
    /// Where we listen for BFD; [`bfd::Ports::STANDARD`], but for tests.
    pub bfd_ports: bfd::Ports,
    /// Where peers do; [`bfd::Ports::STANDARD`], but for tests.
    pub bfd_peer_ports: bfd::Ports,
    /// The time since boot.
    pub clock: fn() -> Duration,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Orders {
    /// The peers and where to listen.
    pub bgp: desired::bgp::Bgp,
    /// MD5 keys by the peer's name.
    pub passwords: BTreeMap<String, Password>,
    /// What each peer is to have, by its name; a peer that is not here gets nothing.
    pub routes: BTreeMap<String, Arc<Rib>>,
    /// The prefixes that are ours, announced or not: what a monitor's routes are kept of.
    pub own: Arc<BTreeSet<IpNet>>,
    /// The routes may go out, and End-of-RIB after them.
    pub ready: bool,
    /// What made them.
    pub decision: Decision,
}

/// What the speaker shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpeakerReport {
    /// The peers by name.
    pub peers: BTreeMap<String, Arc<PeerReport>>,
    /// Where we listen, and why we do not.
    pub listeners: BTreeMap<SocketAddr, Option<String>>,
    /// Connections that were closed because they are no peer's.
    pub refused: u64,
}

/// Why there is no speaker.
#[derive(Debug, thiserror::Error)]
pub enum SpeakerError {
    /// Its thread or runtime could not be started.
    #[error("cannot start the BGP speaker: {0}")]
    Start(#[from] io::Error),
}

/// How the sessions end.
#[derive(Debug)]
struct Stop {
    /// The NOTIFICATION's text; `None`: no NOTIFICATION, so that peers with graceful restart keep
    /// the routes.
    text: Option<String>,
    done: oneshot::Sender<()>,
}

/// The handle. Dropping it is like [`Speaker::stop`] without a NOTIFICATION and without waiting.
#[derive(Debug)]
pub struct Speaker {
    orders: watch::Sender<Option<Arc<Orders>>>,
    stop: oneshot::Sender<Stop>,
    thread: JoinHandle<()>,
}

impl Speaker {
    /// Starts without peers, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`SpeakerError::Start`] when there is no thread or no runtime to be had.
    pub fn spawn(
        options: Options,
    ) -> Result<(Self, watch::Receiver<Arc<SpeakerReport>>), SpeakerError> {
        let (orders, wanted) = watch::channel(None);
        let (stop, stopped) = oneshot::channel();
        let (reports, receiver) = watch::channel(Arc::default());
        let (paths, path_reports) = bfd::Bfd::spawn(bfd::Options {
            ports: options.bfd_ports,
            seed: options.seed,
            clock: options.clock,
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("bgp".to_owned()).spawn(move || {
            if let Err(error) = priority::set_nice(NICE) {
                tracing::warn!(
                    "BGP has no priority ({error}): on a busy machine keepalives may be late; \
                     it needs CAP_SYS_NICE"
                );
            }
            let keeper = keeper::Keeper::new(options, paths, path_reports, reports);
            tokio::task::LocalSet::new().block_on(&runtime, keeper.run(wanted, stopped));
        })?;
        Ok((Self { orders, stop, thread }, receiver))
    }

    /// Replaces what is wanted. A peer whose settings have changed is reset, the others only get
    /// what is new to them.
    pub fn set(&self, orders: Arc<Orders>) {
        self.orders.send_replace(Some(orders));
    }

    /// Ends all sessions, with `text` for the peers' operators (Administrative Shutdown, RFC 9003)
    /// if `notify`, else without a word. Waits for at most [`STOP_TIME`] and a little.
    pub async fn stop(self, text: &str, notify: bool) {
        let (done, waiting) = oneshot::channel();
        let text = notify.then(|| text.to_owned());
        if self.stop.send(Stop { text, done }).is_ok() && waiting.await.is_ok() {
            // It has nothing left to do.
            if self.thread.join().is_err() {
                tracing::error!("the BGP thread has panicked");
            }
        } else {
            tracing::error!("the BGP thread had ended before it was asked to");
        }
    }
}

#[cfg(test)]
mod tests;
