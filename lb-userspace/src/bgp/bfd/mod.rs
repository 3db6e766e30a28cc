//! BFD: whether packets still come through from a peer, noticed in a few hundred milliseconds
//! (RFC 5880; RFC 5881 on one hop, RFC 5883 over several).
//!
//! ```text
//! speaker -> [`Bfd::set`] -> thread: UDP sockets -> packet -> machine (pure) -> reports -> speaker
//! ```
//!
//! Asynchronous mode, without echo, demand mode and authentication. The C bit is never set: a
//! session ends with this process, so peers that know RFC 5882 section 4.3 keep the routes of a
//! graceful restart.
//!
//! The thread is its own, and real-time where that is allowed: with 50 ms and a multiplier of 3, a
//! busy machine must let it run every few milliseconds.
//!
//! Must not: decide what a loss means; the speaker does.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use super::session::BfdReport;
use crate::desired;

pub mod machine;
pub mod packet;
mod socket;
mod worker;

/// The state of a report while the path is good.
pub const UP: &str = packet::State::Up.as_str();

/// The UDP ports that BFD packets go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Over one hop.
    pub one_hop: u16,
    /// Over several.
    pub multihop: u16,
}

impl Ports {
    /// Those of RFC 5881 section 4 and RFC 5883 section 5.
    pub const STANDARD: Self = Self { one_hop: 3_784, multihop: 4_784 };

    /// The one for a peer so many hops away.
    #[must_use]
    pub const fn of(self, multihop: bool) -> u16 {
        if multihop { self.multihop } else { self.one_hop }
    }
}

/// What the thread needs to start.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where we listen: [`Ports::STANDARD`], but for tests.
    pub ports: Ports,
    /// Where jitter, discriminators and source ports come from.
    pub seed: u64,
    /// The time since boot.
    pub clock: fn() -> Duration,
}

/// A peer whose path is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address; no two peers have the same.
    pub address: IpAddr,
    /// The port that it listens on.
    pub port: u16,
    /// Our address; else what the route chooses.
    pub local: Option<IpAddr>,
    /// The smallest TTL that its packets may arrive with: 255 on one hop (RFC 5881 section 5).
    pub min_ttl: u8,
    /// Whether it is more than one hop away.
    pub multihop: bool,
    /// Interval and multiplier.
    pub settings: desired::bgp::Bfd,
}

/// The peers by name.
pub type Peers = BTreeMap<String, Peer>;

/// What is known of each, by name.
pub type Reports = BTreeMap<String, BfdReport>;

/// The handle; dropping it ends all sessions as an operator would.
#[derive(Debug)]
pub struct Bfd {
    peers: watch::Sender<Arc<Peers>>,
    thread: JoinHandle<()>,
}

impl Bfd {
    /// Starts without peers. The receiver sees every change of a state; of a loss that is over
    /// before it looks it sees the counter.
    ///
    /// # Errors
    /// There is no thread or no runtime to be had.
    pub fn spawn(options: Options) -> io::Result<(Self, watch::Receiver<Arc<Reports>>)> {
        let (peers, wanted) = watch::channel(Arc::default());
        let (reports, receiver) = watch::channel(Arc::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let worker = worker::Worker::new(options, wanted, reports);
        let thread = std::thread::Builder::new()
            .name("bfd".to_owned())
            .spawn(move || runtime.block_on(worker.run()))?;
        Ok((Self { peers, thread }, receiver))
    }

    /// Replaces the set of peers; sessions of those that stay go on, with their new settings.
    pub fn set(&self, peers: Arc<Peers>) {
        self.peers.send_if_modified(|now| {
            let changed = *now != peers;
            *now = peers;
            changed
        });
    }

    /// Tells all peers that the sessions end on purpose, and waits until they were told: a few
    /// milliseconds.
    pub fn stop(self) {
        drop(self.peers);
        if self.thread.join().is_err() {
            tracing::error!("the BFD thread had panicked");
        }
    }
}

#[cfg(test)]
mod tests;
