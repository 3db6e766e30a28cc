//! One peer: its session, its connections, and what both need from the world.
//!
//! A part of `speaker`. The session decides everything; this carries bytes, time and wishes to it
//! and does what it says.

use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::board::{Board, REPORT_INTERVAL};
use super::connection::{Connection, READ_MAX};
use super::wishes::{Settings, Wish};
use crate::bgp::bfd;
use crate::bgp::session::{
    BfdReport, Cease, Close, Input, Output, Session, SessionEvent, SessionSettings, Side,
};
use crate::bgp::socket;

/// Connections that are being closed at once, at most; of more, the newest are dropped.
const CLOSING_MAX: usize = 4;
/// The shortest sleep, should a session ask for a time that has passed already.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// A connection that is being made.
type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

/// What a task is started with.
pub(super) struct Start {
    pub(super) name: String,
    pub(super) wishes: watch::Receiver<Wish>,
    pub(super) accepted: mpsc::Receiver<TcpStream>,
    pub(super) paths: watch::Receiver<Arc<bfd::Reports>>,
    pub(super) board: Rc<Board>,
    pub(super) clock: fn() -> Duration,
    /// The flags of graceful restart: restarted, forwarding kept.
    pub(super) restart: (bool, bool),
}

/// The task.
struct Task {
    name: String,
    board: Rc<Board>,
    clock: fn() -> Duration,
    settings: Arc<Settings>,
    session: Session,
    connections: BTreeMap<Side, Connection>,
    connecting: Option<Connecting>,
    closing: JoinSet<()>,
    path: Option<BfdReport>,
    /// There may be something new to report, or there is.
    dirty: bool,
    urgent: bool,
    reported: Duration,
}

/// What happened.
enum Event {
    Wish,
    Gone,
    Accepted(TcpStream),
    Connected(io::Result<TcpStream>),
    Ready(Side, io::Result<()>),
    Path,
    Time,
}

/// Runs until its wish is to end, or until nobody wishes anything any more.
pub(super) async fn run(start: Start) {
    let Start { name, mut wishes, mut accepted, mut paths, board, clock, restart } = start;
    let first = wishes.borrow_and_update().clone();
    let Wish::Run { settings, .. } = &first else { return };
    let (restarted, forwarding_kept) = restart;
    let session = SessionSettings { restarted, forwarding_kept, ..settings.session.clone() };
    let now = clock();
    let mut task = Task {
        name,
        board,
        clock,
        settings: Arc::clone(settings),
        session: Session::new(session, now),
        connections: BTreeMap::new(),
        connecting: None,
        closing: JoinSet::new(),
        path: None,
        dirty: true,
        urgent: true,
        reported: now,
    };
    task.start();
    task.wish(first);
    task.look(&paths.borrow_and_update());
    loop {
        task.write();
        task.report();
        let event = task.event(&mut wishes, &mut accepted, &mut paths).await;
        // Bytes first, timers then: after a pause of this process, what has come in the meantime
        // counts, whatever it was that woke us.
        for side in [Side::Active, Side::Passive] {
            task.read(side);
        }
        match event {
            Event::Wish => {
                let wish = wishes.borrow_and_update().clone();
                if !task.wish(wish) {
                    break;
                }
            }
            Event::Gone => break,
            Event::Accepted(stream) => task.accepted(stream),
            Event::Connected(result) => task.connected(result),
            // A peer that has always something to say must not keep the others waiting.
            Event::Ready(_, Ok(())) => tokio::task::yield_now().await,
            Event::Ready(side, Err(error)) if task.connections.contains_key(&side) => {
                task.ended(side, &error);
            }
            Event::Ready(_, Err(_)) => {}
            Event::Path => {
                let reports = Arc::clone(&paths.borrow_and_update());
                task.look(&reports);
            }
            Event::Time => {}
        }
        if task.session.deadline().is_some_and(|at| at <= (task.clock)()) {
            task.handle(Input::Tick);
        }
    }
    task.connecting = None;
    while task.closing.join_next().await.is_some() {}
}

impl Task {
    async fn event(
        &mut self,
        wishes: &mut watch::Receiver<Wish>,
        accepted: &mut mpsc::Receiver<TcpStream>,
        paths: &mut watch::Receiver<Arc<bfd::Reports>>,
    ) -> Event {
        let now = (self.clock)();
        let report = self.dirty.then(|| self.reported.saturating_add(REPORT_INTERVAL));
        let deadline = self.session.deadline().into_iter().chain(report).min();
        let pause = deadline.map(|at| at.saturating_sub(now).max(PAUSE_MIN));
        let time = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => pending().await,
            }
        };
        let connecting = async {
            match &mut self.connecting {
                Some(connecting) => connecting.await,
                None => pending().await,
            }
        };
        let connections = &self.connections;
        tokio::select! {
            wish = wishes.changed() => if wish.is_ok() { Event::Wish } else { Event::Gone },
            Some(stream) = accepted.recv() => Event::Accepted(stream),
            result = connecting => Event::Connected(result),
            (side, result) = ready(connections) => Event::Ready(side, result),
            // Without BFD there is nothing to see any more.
            Ok(()) = paths.changed() => Event::Path,
            () = time => Event::Time,
        }
    }

    fn start(&mut self) {
        match self.settings.idle() {
            Some(why) => tracing::warn!(peer = self.name, "BGP: no session: {why}"),
            None => self.handle(Input::Start),
        }
    }

    /// Does as wished; whether to go on.
    fn wish(&mut self, wish: Wish) -> bool {
        match wish {
            Wish::Run { settings, rib, own, ready, decision } => {
                if settings != self.settings {
                    self.reset(settings);
                }
                self.handle(Input::Own { prefixes: own });
                self.handle(Input::Routes { rib, ready, decision });
                true
            }
            Wish::End(close) => {
                if let Some(close) = close {
                    self.handle(Input::Stop(&close));
                }
                false
            }
        }
    }

    /// Ends the session and starts another one.
    fn reset(&mut self, settings: Arc<Settings>) {
        let cease = Cease::OtherConfigurationChange;
        let close = Close { cease, text: "configuration changed".to_owned() };
        self.handle(Input::Stop(&close));
        self.connecting = None;
        self.connections.clear();
        self.session = Session::new(settings.session.clone(), (self.clock)());
        self.settings = settings;
        self.start();
        if self.path_is_up() {
            self.handle(Input::Bfd(true));
        }
    }

    /// Looks at what BFD says. A path that was never up says nothing about the peer, and neither
    /// does one that its operator took down (RFC 5882 section 3.2): only a loss is one.
    fn look(&mut self, reports: &bfd::Reports) {
        let path = reports.get(&self.name);
        if path == self.path.as_ref() {
            return;
        }
        let losses = |path: Option<&BfdReport>| path.map_or(0, |path| path.losses);
        let lost = losses(path) > losses(self.path.as_ref());
        self.path = path.cloned();
        self.urgent = true;
        if lost {
            self.handle(Input::Bfd(false));
        }
        if self.path_is_up() {
            self.handle(Input::Bfd(true));
        }
    }

    fn path_is_up(&self) -> bool {
        self.path.as_ref().is_some_and(|path| path.state == bfd::UP)
    }

    fn accepted(&mut self, stream: TcpStream) {
        if self.settings.idle().is_some()
            || !self.session.may_replace(Side::Passive, (self.clock)())
        {
            return;
        }
        match socket::adopt(&stream, &self.settings.link()) {
            Ok(()) => self.connection(Side::Passive, stream),
            Err(error) => tracing::warn!(peer = self.name, "BGP: cannot use a connection: {error}"),
        }
    }

    fn connected(&mut self, result: io::Result<TcpStream>) {
        self.connecting = None;
        match result {
            Ok(stream) => self.connection(Side::Active, stream),
            Err(error) => self.handle(Input::ConnectFailed { reason: &error.to_string() }),
        }
    }

    fn connection(&mut self, side: Side, stream: TcpStream) {
        match (stream.local_addr(), stream.peer_addr()) {
            (Ok(local), Ok(remote)) => {
                // The session takes one that was here for gone.
                self.connections.insert(side, Connection::new(stream));
                let (local, remote) = (local.ip(), remote.ip());
                self.handle(Input::Connected { side, local, remote });
            }
            // It is closed already.
            (Err(error), _) | (_, Err(error)) => {
                if side == Side::Active {
                    self.handle(Input::ConnectFailed { reason: &error.to_string() });
                }
            }
        }
    }

    fn read(&mut self, side: Side) {
        let mut buffer = [0; READ_MAX];
        let Some(connection) = self.connections.get(&side) else { return };
        match connection.read(&mut buffer) {
            Ok(Some(length)) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                self.handle(Input::Received { side, bytes });
                // Routes of a monitor are evidence that others wait for.
                self.urgent |= self.settings.session.peer.monitor;
            }
            Ok(None) => {}
            Err(error) => self.ended(side, &error),
        }
    }

    fn ended(&mut self, side: Side, error: &io::Error) {
        self.connections.remove(&side);
        self.handle(Input::Ended { side, reason: &error.to_string() });
    }

    /// Sends what waits, and what the session has to say then. It stops where the kernel does, or
    /// at the limit of one turn; the rest goes out when there is room, after the other peers.
    fn write(&mut self) {
        for side in [Side::Active, Side::Passive] {
            let Some(connection) = self.connections.get_mut(&side) else { continue };
            match connection.write() {
                Ok(0) => {}
                Ok(bytes) => self.handle(Input::Sent { side, bytes }),
                // Whatever the peer said before it went is still there to be read.
                Err(error) => {
                    self.read(side);
                    if self.connections.contains_key(&side) {
                        self.ended(side, &error);
                    }
                }
            }
        }
    }

    fn handle(&mut self, input: Input<'_>) {
        let mut outputs = Vec::new();
        self.session.handle(input, (self.clock)(), &mut outputs);
        self.dirty = true;
        let mut full = Vec::new();
        for output in outputs {
            match output {
                Output::Connect => {
                    let settings = Arc::clone(&self.settings);
                    let connect = async move { socket::connect(&settings.link()).await };
                    self.connecting = Some(Box::pin(connect));
                }
                Output::Send { side, bytes } => {
                    let connection = self.connections.get_mut(&side);
                    if let Some(Err(error)) = connection.map(|it| it.push(&bytes)) {
                        full.push((side, error));
                    }
                }
                Output::Close { side } => self.close(side),
                Output::Event(event) => self.log(&event),
            }
        }
        for (side, error) in full {
            self.ended(side, &error);
        }
    }

    fn close(&mut self, side: Side) {
        if side == Side::Active {
            self.connecting = None;
        }
        while self.closing.try_join_next().is_some() {}
        if let Some(connection) = self.connections.remove(&side)
            && self.closing.len() < CLOSING_MAX
        {
            self.closing.spawn_local(connection.close());
        }
    }

    fn log(&mut self, event: &SessionEvent) {
        self.urgent = true;
        if event.is_warning() {
            tracing::warn!(peer = self.name, "BGP: {event}");
        } else {
            tracing::info!(peer = self.name, "BGP: {event}");
        }
    }

    fn report(&mut self) {
        let now = (self.clock)();
        let due = self.dirty && now >= self.reported.saturating_add(REPORT_INTERVAL);
        if self.urgent || due {
            let mut report = self.session.report();
            report.bfd.clone_from(&self.path);
            self.board.put(&self.name, report, self.urgent);
            (self.dirty, self.urgent, self.reported) = (false, false, now);
        }
    }
}

/// Waits until something can be done on one of the connections.
async fn ready(connections: &BTreeMap<Side, Connection>) -> (Side, io::Result<()>) {
    let mut waits: Vec<_> =
        connections.iter().map(|(side, it)| (*side, Box::pin(it.ready()))).collect();
    poll_fn(|context| {
        for (side, wait) in &mut waits {
            if let Poll::Ready(result) = wait.as_mut().poll(context) {
                return Poll::Ready((*side, result));
            }
        }
        Poll::Pending
    })
    .await
}
