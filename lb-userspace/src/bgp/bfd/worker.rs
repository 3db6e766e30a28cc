//! The thread: moves packets between sockets and machines, at the times the machines ask for.
//!
//! A part of `bfd`.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::machine::Machine;
use super::packet::{Diagnostic, LENGTH, Packet, State};
use super::{Options, Peer, Peers, Reports, socket};
use crate::bgp::session::BfdReport;
use crate::host::priority;

/// Packets taken from one socket before the timers get their turn: more than its default buffer
/// holds, so that after a pause nobody is lost whose packets wait there.
const RECEIVE_MAX: usize = 512;

/// After an error a socket is opened again no sooner than this.
const REOPEN: Duration = Duration::from_secs(1);

/// Niceness where real time is not allowed.
const NICE: i32 = -20;

/// Copies of the packet that ends a session on purpose: one may be lost, and a peer that has heard
/// none takes the end for a loss.
const GOODBYES: usize = 2;

struct Session {
    name: String,
    peer: Peer,
    machine: Machine,
    sender: Option<UdpSocket>,
    /// When the sender may be opened again.
    retry: Duration,
    /// Why nothing can be sent.
    trouble: Option<String>,
    /// The signs and the trouble that were reported last.
    shown: Option<Shown>,
}

type Shown = (State, Diagnostic, u64, Duration, Option<String>);

/// An open socket to receive on, or when to try again, and why it failed.
enum Receiver {
    Open(UdpSocket),
    Failed(Duration, String),
}

pub(super) struct Worker {
    options: Options,
    wanted: watch::Receiver<Arc<Peers>>,
    reports: watch::Sender<Arc<Reports>>,
    /// By family (v6) and port.
    receivers: BTreeMap<(bool, u16), Receiver>,
    sessions: BTreeMap<IpAddr, Session>,
    discriminator: u32,
}

impl Worker {
    pub(super) fn new(
        options: Options,
        wanted: watch::Receiver<Arc<Peers>>,
        reports: watch::Sender<Arc<Reports>>,
    ) -> Self {
        let [a, b, c, d, ..] = options.seed.to_le_bytes();
        Self {
            options,
            wanted,
            reports,
            receivers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            discriminator: u32::from_le_bytes([a, b, c, d]),
        }
    }

    /// Runs until the handle is dropped.
    pub(super) async fn run(mut self) {
        self.hurry();
        loop {
            let now = (self.options.clock)();
            self.open_receivers(now);
            self.receive(now);
            for session in self.sessions.values_mut() {
                let before = session.machine.state();
                if let Some(packet) = session.machine.tick(now) {
                    session.send(&packet, now, self.options.seed);
                }
                session.log(before);
            }
            self.publish();
            let pause = self.deadline().map(|deadline| deadline.saturating_sub(now));
            let timer = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            let receivers = &self.receivers;
            tokio::select! {
                biased;
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.set((self.options.clock)()),
                    Err(_dropped) => break,
                },
                () = readable(receivers) => {}
                () = timer => {}
            }
        }
        let now = (self.options.clock)();
        for session in self.sessions.values_mut() {
            session.end(now, self.options.seed);
        }
    }

    /// Moves this thread to the front, as far as that is allowed.
    fn hurry(&self) {
        let Err(error) = priority::set_real_time() else { return };
        match priority::set_nice(NICE) {
            Ok(()) => tracing::info!("BFD runs with nice {NICE}, not in real time: {error}"),
            Err(_) => tracing::warn!(
                "BFD has no priority ({error}): on a busy machine paths may seem lost; \
                 it needs CAP_SYS_NICE"
            ),
        }
    }

    fn set(&mut self, now: Duration) {
        let wanted = Arc::clone(&self.wanted.borrow_and_update());
        let by_address: BTreeMap<IpAddr, (&String, &Peer)> =
            wanted.iter().map(|(name, peer)| (peer.address, (name, peer))).collect();
        let seed = self.options.seed;
        self.sessions.retain(|address, session| {
            let keep = by_address.get(address).is_some_and(|(name, peer)| {
                **name == session.name
                    && Peer { settings: session.peer.settings, ..**peer } == session.peer
            });
            if !keep {
                session.end(now, seed);
            }
            keep
        });
        for (address, (name, peer)) in by_address {
            if let Some(session) = self.sessions.get_mut(&address) {
                session.peer = *peer;
                session.machine.configure(peer.settings);
            } else {
                let discriminator = self.next_discriminator();
                let seed = seed ^ u64::from(discriminator) << 32;
                let session = Session {
                    name: name.clone(),
                    peer: *peer,
                    machine: Machine::new(peer.settings, discriminator, seed, now),
                    sender: None,
                    retry: Duration::ZERO,
                    trouble: None,
                    shown: None,
                };
                self.sessions.insert(address, session);
            }
        }
    }

    /// One that no session has had for the last four billion ones.
    fn next_discriminator(&mut self) -> u32 {
        self.discriminator = self.discriminator.wrapping_add(1).max(1);
        self.discriminator
    }

    /// Opens the sockets that the sessions need, closes the others.
    fn open_receivers(&mut self, now: Duration) {
        let needed: BTreeSet<(bool, u16)> =
            self.sessions.values().map(|session| self.options.key(&session.peer)).collect();
        self.receivers.retain(|key, _| needed.contains(key));
        for (v6, port) in needed {
            match self.receivers.get(&(v6, port)) {
                Some(Receiver::Open(_)) => continue,
                Some(Receiver::Failed(retry, _)) if *retry > now => continue,
                Some(Receiver::Failed(..)) | None => {}
            }
            let receiver = match socket::receiver(v6, port) {
                Ok(socket) => Receiver::Open(socket),
                Err(error) => {
                    let family = if v6 { "IPv6" } else { "IPv4" };
                    let text = format!("cannot listen on UDP port {port} ({family}): {error}");
                    if !self.receivers.contains_key(&(v6, port)) {
                        tracing::warn!("BFD: {text}");
                    }
                    Receiver::Failed(now.saturating_add(REOPEN), text)
                }
            };
            self.receivers.insert((v6, port), receiver);
        }
    }

    fn receive(&mut self, now: Duration) {
        let mut failed = Vec::new();
        for (key, receiver) in &self.receivers {
            let Receiver::Open(socket) = receiver else { continue };
            for _ in 0..RECEIVE_MAX {
                let mut buffer = [0; LENGTH];
                match socket::receive(socket, &mut buffer) {
                    Ok(Some(origin)) => {
                        let session = self.sessions.get_mut(&origin.source);
                        let bytes = buffer.get(..origin.length).unwrap_or_default();
                        if let Some(session) = session
                            && origin.ttl >= session.peer.min_ttl
                            && session.peer.multihop == (key.1 == self.options.ports.multihop)
                            && let Ok(packet) = Packet::decode(bytes)
                        {
                            session.receive(&packet, now, self.options.seed);
                        }
                    }
                    Ok(None) => break,
                    // A packet without a TTL; there is none.
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                    Err(error) => {
                        failed.push((*key, error.to_string()));
                        break;
                    }
                }
            }
        }
        for (key, text) in failed {
            self.receivers.insert(key, Receiver::Failed(now.saturating_add(REOPEN), text));
        }
    }

    /// When there is something to do without a packet.
    fn deadline(&self) -> Option<Duration> {
        let machines = self.sessions.values().filter_map(|session| session.machine.deadline());
        let retries = self.receivers.values().filter_map(|receiver| match receiver {
            Receiver::Failed(retry, _) => Some(*retry),
            Receiver::Open(_) => None,
        });
        machines.chain(retries).min()
    }

    /// Tells what has changed. This runs at every packet, so it compares before it writes.
    fn publish(&mut self) {
        let mut changed = self.reports.borrow().len() != self.sessions.len();
        let receivers = &self.receivers;
        for session in self.sessions.values_mut() {
            let port = self.options.key(&session.peer);
            let deaf = match receivers.get(&port) {
                Some(Receiver::Failed(_, text)) => Some(text),
                Some(Receiver::Open(_)) | None => None,
            };
            changed |= session.show(deaf.or(session.trouble.as_ref()).cloned());
        }
        if changed {
            let reports = self.sessions.values().map(|it| (it.name.clone(), it.report()));
            self.reports.send_replace(Arc::new(reports.collect()));
        }
    }
}

impl Options {
    /// The family (v6) and port of the socket that a peer's packets come to.
    fn key(&self, peer: &Peer) -> (bool, u16) {
        (peer.address.is_ipv6(), self.ports.of(peer.multihop))
    }
}

impl Session {
    fn receive(&mut self, packet: &Packet, now: Duration, seed: u64) {
        let before = self.machine.state();
        if let Some(answer) = self.machine.receive(packet, now) {
            self.send(&answer, now, seed);
        }
        self.log(before);
    }

    /// Sends, or notes why not; the next packet is soon.
    fn send(&mut self, packet: &Packet, now: Duration, seed: u64) {
        if self.sender.is_none() && self.retry <= now {
            // Sources that start at the same port would look for a free one for long.
            let [first, second, ..] = (seed ^ u64::from(packet.mine)).to_le_bytes();
            let first = u16::from_le_bytes([first, second]);
            match socket::sender(self.peer.local, self.peer.address, first) {
                Ok(sender) => self.sender = Some(sender),
                Err(error) => self.fail(&error, now),
            }
        }
        let Some(sender) = &self.sender else { return };
        let to = SocketAddr::new(self.peer.address, self.peer.port);
        match sender.try_send_to(&packet.encode(), to) {
            Ok(_) => self.trouble = None,
            // The queue is full: as good as lost on the way.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.fail(&error, now),
        }
    }

    fn fail(&mut self, error: &io::Error, now: Duration) {
        let text = format!("cannot send: {error}");
        if self.trouble.as_ref() != Some(&text) {
            tracing::warn!(peer = self.name, "BFD: {text}");
        }
        self.trouble = Some(text);
        self.sender = None;
        self.retry = now.saturating_add(REOPEN);
    }

    fn end(&mut self, now: Duration, seed: u64) {
        let goodbye = self.machine.shut_down(now);
        for _ in 0..GOODBYES {
            self.send(&goodbye, now, seed);
        }
    }

    /// Notes what is to be reported; whether that is news.
    fn show(&mut self, trouble: Option<String>) -> bool {
        let (state, diagnostic, losses, detection_time) = self.machine.signs();
        let now = Some((state, diagnostic, losses, detection_time, trouble));
        let news = self.shown != now;
        self.shown = now;
        news
    }

    fn report(&self) -> BfdReport {
        let mut report = self.machine.report();
        if let Some((.., Some(trouble))) = &self.shown {
            report.diagnostic.clone_from(trouble);
        }
        report
    }

    fn log(&self, before: State) {
        let state = self.machine.state();
        if before != state {
            let diagnostic = self.machine.report().diagnostic;
            let (from, to) = (before.as_str(), state.as_str());
            tracing::info!(peer = self.name, diagnostic, "BFD: {from} -> {to}");
        }
    }
}

/// Waits until one of the sockets has a packet.
async fn readable(receivers: &BTreeMap<(bool, u16), Receiver>) {
    poll_fn(|context| {
        let mut ready = Poll::Pending;
        for receiver in receivers.values() {
            if let Receiver::Open(socket) = receiver
                && socket.poll_recv_ready(context).is_ready()
            {
                ready = Poll::Ready(());
            }
        }
        ready
    })
    .await;
}
