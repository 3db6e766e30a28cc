//! Keeps one task per peer, the listeners and BFD as the orders want them, and the report.
//!
//! A part of `speaker`.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::board::{Board, REPORT_INTERVAL};
use super::listener::{Accepted, Listeners};
use super::wishes::{Settings, Wish, guards, watched, wishes};
use super::{Options, Orders, STOP_TIME, SpeakerReport, Stop, peer};
use crate::bgp::bfd::{self, Bfd};
use crate::bgp::session::{Cease, Close, PeerReport, State};

/// Accepted connections that wait for their peer's task, at most; more are closed.
const ACCEPTED_MAX: usize = 2;

/// A peer's task.
struct Peer {
    settings: Arc<Settings>,
    wishes: watch::Sender<Wish>,
    accepted: mpsc::Sender<TcpStream>,
}

pub(super) struct Keeper {
    options: Options,
    paths: Bfd,
    path_reports: watch::Receiver<Arc<bfd::Reports>>,
    reports: watch::Sender<Arc<SpeakerReport>>,
    board: Rc<Board>,
    peers: BTreeMap<String, Peer>,
    tasks: JoinSet<()>,
    listeners: Listeners,
    refused: u64,
    /// The flags of graceful restart of sessions to come: restarted, forwarding kept.
    restart: (bool, bool),
    /// When the report was last sent, and whether there is something new since.
    published: Duration,
    dirty: bool,
}

impl Keeper {
    pub(super) fn new(
        options: Options,
        paths: Bfd,
        path_reports: watch::Receiver<Arc<bfd::Reports>>,
        reports: watch::Sender<Arc<SpeakerReport>>,
    ) -> Self {
        Self {
            options,
            paths,
            path_reports,
            reports,
            board: Rc::default(),
            peers: BTreeMap::new(),
            tasks: JoinSet::new(),
            listeners: Listeners::default(),
            refused: 0,
            restart: (options.restarted, options.forwarding_kept),
            published: Duration::ZERO,
            dirty: false,
        }
    }

    /// Runs until it is to stop, or the handle is gone.
    pub(super) async fn run(
        mut self,
        mut wanted: watch::Receiver<Option<Arc<Orders>>>,
        mut stop: oneshot::Receiver<Stop>,
    ) {
        let board = Rc::clone(&self.board);
        let stopped = loop {
            let now = (self.options.clock)();
            self.listeners.retry(now);
            let clock = self.options.clock;
            let report = self.dirty.then(|| self.published.saturating_add(REPORT_INTERVAL));
            let deadline = self.listeners.deadline().into_iter().chain(report).min();
            let pause = deadline.map(|at| at.saturating_sub(now));
            let time = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                stopped = &mut stop => break stopped.ok(),
                Ok(()) = wanted.changed() => {
                    let orders = wanted.borrow_and_update().clone();
                    if let Some(orders) = orders {
                        self.follow(&orders);
                    }
                    self.publish();
                }
                accepted = self.listeners.accept(clock) => self.accepted(accepted),
                urgent = board.changed() => {
                    self.dirty = true;
                    if urgent {
                        self.publish();
                    }
                }
                Some(ended) = self.tasks.join_next() => if let Err(error) = ended {
                    tracing::error!("BGP: a peer's task ended: {error}");
                },
                () = time => {
                    self.dirty |= self.reports.borrow().listeners != self.listeners.report();
                    if self.dirty {
                        self.publish();
                    }
                }
            }
        };
        self.stop(stopped).await;
    }

    /// Makes things as they are wanted, touching only what is not.
    fn follow(&mut self, orders: &Orders) {
        let now = (self.options.clock)();
        let wishes = wishes(orders, &self.options);
        let gone: BTreeSet<String> =
            self.peers.keys().filter(|name| !wishes.contains_key(*name)).cloned().collect();
        for name in gone {
            let close = Close {
                cease: Cease::PeerDeConfigured,
                text: "no longer in the configuration".to_owned(),
            };
            self.end(&name, Some(close));
        }
        let listen = if orders.bgp.dry_run { &[][..] } else { &orders.bgp.listen };
        self.listeners.set(listen, guards(orders), now);
        self.paths.set(Arc::new(watched(orders, &self.options)));
        for (name, wish) in wishes {
            self.wish(name, wish);
        }
        self.restart = (false, true);
    }

    fn wish(&mut self, name: String, wish: Wish) {
        let Wish::Run { settings, .. } = &wish else { return };
        if let Some(peer) = self.peers.get_mut(&name) {
            peer.settings = Arc::clone(settings);
            peer.wishes.send_replace(wish);
            return;
        }
        let settings = Arc::clone(settings);
        let (wishes, wish) = watch::channel(wish);
        let (accepted, connections) = mpsc::channel(ACCEPTED_MAX);
        self.tasks.spawn_local(peer::run(peer::Start {
            name: name.clone(),
            wishes: wish,
            accepted: connections,
            paths: self.path_reports.clone(),
            board: Rc::clone(&self.board),
            clock: self.options.clock,
            restart: self.restart,
        }));
        self.peers.insert(name, Peer { settings, wishes, accepted });
    }

    fn end(&mut self, name: &str, close: Option<Close>) {
        if let Some(peer) = self.peers.remove(name) {
            peer.wishes.send_replace(Wish::End(close));
        }
    }

    /// Gives a connection to the peer whose it is; a stranger's is closed at once, and so is one
    /// at an address or with a key that the peer has not.
    fn accepted(&mut self, accepted: Accepted) {
        let remote = accepted.remote.to_canonical();
        let local = accepted.stream.local_addr().map(|local| local.ip());
        let peer = self.peers.values().find(|peer| {
            let it = &peer.settings.session.peer;
            it.address == remote
                && it.local_address.is_none_or(|ours| local.as_ref().is_ok_and(|it| *it == ours))
                && peer.settings.password == accepted.key
        });
        if peer.is_none_or(|peer| peer.accepted.try_send(accepted.stream).is_err()) {
            tracing::debug!("BGP: closed a connection from {remote}");
            self.refused += 1;
            self.dirty = true;
        }
    }

    /// A peer that is to connect to us cannot if we do not listen; its session does not know.
    fn explain(&self, name: &str, report: &mut Arc<PeerReport>) {
        let peer = self.peers.get(name).map(|peer| &peer.settings.session.peer);
        let Some(peer) = peer.filter(|it| it.passive) else { return };
        let trouble = self.listeners.trouble(peer.address);
        let Some(trouble) = trouble.filter(|_| report.state != State::Established) else { return };
        if report.last_error.as_ref().is_none_or(|error| error.at_ms <= trouble.at_ms) {
            Arc::make_mut(report).last_error = Some(trouble.clone());
        }
    }

    fn publish(&mut self) {
        let mut peers = self.board.reports(|name| self.peers.contains_key(name));
        for (name, report) in &mut peers {
            self.explain(name, report);
        }
        let report =
            SpeakerReport { peers, listeners: self.listeners.report(), refused: self.refused };
        self.reports.send_if_modified(|published| {
            let changed = **published != report;
            *published = Arc::new(report);
            changed
        });
        (self.published, self.dirty) = ((self.options.clock)(), false);
    }

    async fn stop(mut self, stop: Option<Stop>) {
        let (text, done) = match stop {
            Some(Stop { text, done }) => (text, Some(done)),
            None => (None, None),
        };
        let close = text.map(|text| Close { cease: Cease::AdministrativeShutdown, text });
        let names: Vec<String> = self.peers.keys().cloned().collect();
        for name in names {
            self.end(&name, close.clone());
        }
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIME, ended).await.is_err() {
            tracing::warn!("BGP: gave up waiting for the last bytes to the peers");
        }
        self.paths.stop();
        if done.is_some_and(|done| done.send(()).is_err()) {
            tracing::debug!("BGP: nobody waits for the end any more");
        }
    }
}
