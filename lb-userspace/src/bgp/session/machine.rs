//! What happens on each input.
//!
//! A part of `session`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Session;
use super::connection::{Connection, Expired};
use super::contract::{Cease, Decision, Input, Output, SessionEvent, SessionSettings, Side};
use super::inbound::Inbound;
use super::lifecycle::End;
use super::outbound::{Channel, Outbound};
use super::report::{Cause, Counters, DecisionTimes, PeerReport, State};
use super::timers::Timers;
use crate::bgp::route::Rib;
use crate::bgp::wire::{
    Dialect, Family, Flaw, Frame, Kind, Message, Notification, RefreshKind, RouteRefresh, Update,
    code, decode,
};

/// Decisions whose bytes are on their way; of more, the oldest are not measured.
const UNDERWAY_MAX: usize = 64;
/// Routes that cannot be told and are named in the log, each time; the report has all.
const UNSENDABLE_LOGGED: usize = 8;

impl Session {
    /// A session that is down.
    #[must_use]
    pub fn new(settings: SessionSettings, now: Duration) -> Self {
        Self {
            timers: Timers::new(settings.seed),
            settings,
            started: false,
            connecting: None,
            retry: None,
            connections: BTreeMap::new(),
            outbound: Outbound::default(),
            inbound: Inbound::default(),
            wanted: Arc::default(),
            ready: false,
            dirty: true,
            own: Arc::default(),
            bfd_up: false,
            decision: None,
            underway: VecDeque::new(),
            counters: Counters::default(),
            decisions: DecisionTimes::default(),
            last_error: None,
            state: State::Idle,
            since: now,
        }
    }

    /// Takes what happened at `now`, and appends what is to be done.
    pub fn handle(&mut self, input: Input<'_>, now: Duration, out: &mut Vec<Output>) {
        match input {
            Input::Start => self.start(now),
            Input::Stop(close) => self.stop(close, now, out),
            Input::Connected { side, local, remote } => {
                self.connected(side, local, remote, now, out);
            }
            Input::ConnectFailed { reason } => self.connect_failed(reason, now, out),
            Input::Received { side, bytes } => self.received(side, bytes, now, out),
            Input::Ended { side, reason } => {
                let text = format!("the connection ended: {reason}");
                self.end(side, End::lost(text), now, out);
            }
            Input::Sent { side, bytes } => self.sent(side, bytes, now),
            Input::Routes { rib, ready, decision } => self.routes(rib, ready, decision),
            Input::Own { prefixes } => self.own(prefixes, now, out),
            Input::Bfd(up) => self.bfd(up, now, out),
            Input::Tick => {}
        }
        self.expire(now, out);
        self.write_routes(now, out);
        self.note_state(now, out);
    }

    /// When the next [`Input::Tick`] is due, at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let connections = self.connections.values().filter_map(Connection::deadline);
        connections.chain(self.connecting).chain(self.retry).min()
    }

    /// What there is to show.
    #[must_use]
    pub fn report(&self) -> PeerReport {
        let best = self.connections.values().max_by_key(|it| it.state);
        let opened = best.filter(|it| it.state >= State::OpenConfirm);
        let flushed = best.is_some_and(|it| it.is_flushed());
        PeerReport {
            state: self.state,
            since_ms: millis(self.since),
            addresses: best.map(|it| it.addresses),
            router_id: opened.and_then(|it| it.open.as_ref()).map(|open| open.router_id),
            negotiated: opened.map(|it| it.negotiated.clone()),
            last_error: self.last_error.clone(),
            counters: self.counters.clone(),
            sent: self.outbound.sent.clone(),
            unsendable: self
                .outbound
                .unsendable
                .iter()
                .map(|(prefix, reason)| (*prefix, reason.to_string()))
                .collect(),
            settled: self.outbound.complete && !self.dirty && flushed,
            received: self.inbound.kept.clone(),
            prefixes_received: u64::try_from(self.inbound.len()).unwrap_or(u64::MAX),
            decisions: self.decisions.clone(),
            bfd: None,
        }
    }

    fn received(&mut self, side: Side, bytes: &[u8], now: Duration, out: &mut Vec<Output>) {
        let mut rest = bytes;
        while let Some(connection) = self.connections.get_mut(&side) {
            let dialect = connection.dialect;
            let taken = connection.framer.take(&mut rest);
            let message = match taken {
                Ok(None) => return,
                Ok(Some(frame)) => {
                    self.counters.messages_in += 1;
                    connection.heard(now);
                    decode_in(connection.state, &frame, dialect)
                }
                Err(flaw) => Err(flaw),
            };
            match message {
                Ok(message) => self.message(side, message, now, out),
                Err(flaw) => self.end(side, End::flaw(flaw), now, out),
            }
        }
    }

    fn message(&mut self, side: Side, message: Message, now: Duration, out: &mut Vec<Output>) {
        match message {
            Message::Open(open) => self.opened(side, open, now, out),
            Message::Keepalive => {
                let state = self.connections.get(&side).map(|it| it.state);
                if state == Some(State::OpenConfirm) {
                    self.established(side, now, out);
                }
            }
            Message::Notification(notification) => {
                let text = format!("received NOTIFICATION {notification}");
                self.end(side, End::closed(text), now, out);
            }
            Message::Update(update) => self.update(side, update, now, out),
            Message::RouteRefresh(Some(refresh)) => self.refresh(side, refresh, out),
            Message::RouteRefresh(None) => {}
        }
    }

    fn update(&mut self, side: Side, mut update: Update, now: Duration, out: &mut Vec<Output>) {
        self.counters.updates_in += 1;
        if !update.tolerated.is_empty() {
            self.counters.tolerated += 1;
            let wrong = std::mem::take(&mut update.tolerated).join(", ");
            let text = format!("an UPDATE with errors, tolerated: {wrong}");
            out.push(Output::Event(SessionEvent::Tolerated { text }));
        }
        let max = self.settings.peer.max_prefixes;
        let monitor = self.settings.peer.monitor;
        let limit = usize::try_from(max).unwrap_or(usize::MAX);
        if let Err(family) = self.inbound.take(update, &self.own, monitor, limit) {
            let [a, b] = family.afi().to_be_bytes();
            let [c, d, e, f] = max.to_be_bytes();
            let mut notification = Notification::cease(Cease::MaximumPrefixes as u8, "");
            // RFC 4486 section 4: AFI, SAFI, the bound.
            notification.data = vec![a, b, 1, c, d, e, f];
            let text = format!("the peer announces more than {max} prefixes");
            let end = End::cease(notification, Cause::MaximumPrefixes, text);
            self.end(side, end, now, out);
        }
    }

    fn refresh(&mut self, side: Side, refresh: RouteRefresh, out: &mut Vec<Output>) {
        let dialect = self.connections.get(&side).map(|it| it.dialect);
        if !dialect.is_some_and(|it| it.has(refresh.family)) {
            return;
        }
        match refresh.kind {
            RefreshKind::Request => {
                self.counters.refreshes += 1;
                self.outbound.refresh(refresh.family);
                self.dirty = true;
                out.push(Output::Event(SessionEvent::Refresh));
            }
            RefreshKind::Begin => self.inbound.refresh_begins(refresh.family),
            RefreshKind::End => self.inbound.refresh_ends(refresh.family, &self.own),
        }
    }

    fn sent(&mut self, side: Side, bytes: usize, now: Duration) {
        let Some(connection) = self.connections.get_mut(&side) else {
            return;
        };
        connection.sent(bytes, now);
        if connection.state != State::Established {
            return;
        }
        while let Some((end, decision)) = self.underway.front().copied() {
            if connection.sent < end {
                return;
            }
            self.underway.pop_front();
            self.decisions.count(decision.id, now.saturating_sub(decision.at));
        }
    }

    fn routes(&mut self, rib: Arc<Rib>, ready: bool, decision: Decision) {
        // What waits for a session, or for the gate, would measure that and not us.
        let measured = ready && self.ready && self.side_up().is_some();
        let changed = rib != self.wanted;
        self.decision = (measured && changed).then_some(decision).or(self.decision);
        self.wanted = rib;
        self.ready = ready;
        self.dirty = true;
    }

    fn own(&mut self, prefixes: Arc<BTreeSet<ipnet::IpNet>>, now: Duration, out: &mut Vec<Output>) {
        let new: BTreeSet<_> = prefixes.difference(&self.own).map(Family::of).collect();
        self.inbound.keep_only(&prefixes);
        self.own = prefixes;
        let up = self.side_up().filter(|_| self.settings.peer.monitor);
        let Some(connection) = up.and_then(|side| self.connections.get_mut(&side)) else {
            return;
        };
        // What the peer said of them before was not kept.
        if connection.negotiated.route_refresh {
            let (counters, dialect) = (&mut self.counters, connection.dialect);
            for family in new.into_iter().filter(|family| dialect.has(*family)) {
                let bytes = RouteRefresh { family, kind: RefreshKind::Request }.bytes();
                connection.write(bytes, 1, counters, now, out);
            }
        }
    }

    fn bfd(&mut self, up: bool, now: Duration, out: &mut Vec<Output>) {
        let lost = self.bfd_up && !up;
        self.bfd_up = up;
        if let Some(side) = self.side_up().filter(|_| lost) {
            let notification = Notification::cease(Cease::BfdDown as u8, "");
            let text = "BFD lost the path to the peer".to_owned();
            self.end(side, End::cease(notification, Cause::Bfd, text), now, out);
        }
    }

    /// Ends what has waited for too long, and does what was to be done at this time.
    fn expire(&mut self, now: Duration, out: &mut Vec<Output>) {
        let due = |timer: Option<Duration>| timer.is_some_and(|at| at <= now);
        for side in [Side::Active, Side::Passive] {
            let Some(connection) = self.connections.get_mut(&side) else {
                continue;
            };
            let end = match connection.expired(now) {
                Some(Expired::Hold) => End::hold_timer(connection.state),
                Some(Expired::SendHold) => End::send_hold_timer(),
                None => {
                    if connection.keepalive_due(now) {
                        let pause = self.timers.jitter(connection.keepalive_time());
                        connection.keepalive(pause, &mut self.counters, now, out);
                    }
                    continue;
                }
            };
            self.end(side, end, now, out);
        }
        if due(self.connecting) {
            out.push(Output::Close { side: Side::Active });
            self.connect_failed("no answer", now, out);
        }
        if due(self.retry) {
            self.connect(now, out);
        }
    }

    /// Writes routes as far as there is room.
    fn write_routes(&mut self, now: Duration, out: &mut Vec<Output>) {
        let Some(connection) = self.side_up().and_then(|side| self.connections.get_mut(&side))
        else {
            return;
        };
        while self.ready && self.dirty && connection.room() > 0 {
            let channel = Channel {
                local_as: self.settings.local_as,
                local: connection.addresses.local,
                dialect: connection.dialect,
                enhanced: connection.negotiated.enhanced_route_refresh,
                end_of_rib: connection
                    .open
                    .as_ref()
                    .is_some_and(|it| it.graceful_restart.is_some()),
            };
            let known: BTreeSet<_> = self.outbound.unsendable.keys().copied().collect();
            let was_complete = self.outbound.complete;
            let room = connection.room();
            let batch = self.outbound.write(&self.wanted, &channel, room, &mut self.counters);
            self.dirty = !batch.done;
            let before = connection.written;
            connection.write(batch.bytes, batch.messages, &mut self.counters, now, out);
            let unsendable = self.outbound.unsendable.iter();
            let new = unsendable.filter(|(prefix, _)| !known.contains(prefix));
            out.extend(new.take(UNSENDABLE_LOGGED).map(|(prefix, reason)| {
                Output::Event(SessionEvent::Unsendable { prefix: *prefix, reason: *reason })
            }));
            if self.outbound.complete && !was_complete {
                self.settings.restarted = false;
                let routes = self.outbound.sent.len();
                out.push(Output::Event(SessionEvent::Complete { routes }));
            }
            // A decision that changed nothing for this peer has no last byte.
            let decision = self.decision.take_if(|_| batch.done);
            if let Some(decision) = decision.filter(|_| connection.written > before) {
                if self.underway.len() >= UNDERWAY_MAX {
                    self.underway.pop_front();
                }
                self.underway.push_back((connection.written, decision));
            }
        }
    }
}

/// Reads a message, if it is one that the state allows (RFC 6608).
fn decode_in(state: State, frame: &Frame, dialect: Dialect) -> Result<Message, Flaw> {
    let code = match (state, frame.kind) {
        (_, Kind::Notification)
        | (State::OpenSent, Kind::Open)
        | (State::OpenConfirm, Kind::Keepalive)
        | (State::Established, Kind::Keepalive | Kind::Update | Kind::RouteRefresh) => {
            return decode(frame, dialect);
        }
        (State::OpenConfirm, _) => code::UNEXPECTED_IN_OPEN_CONFIRM,
        (State::Established, _) => code::UNEXPECTED_IN_ESTABLISHED,
        (State::Idle | State::Connect | State::Active | State::OpenSent, _) => {
            code::UNEXPECTED_IN_OPEN_SENT
        }
    };
    let text = format!("an unexpected message of type {:?} in {state}", frame.kind);
    let notification = Notification::new(code, &[frame.kind as u8]);
    Err(Flaw { notification, text })
}

/// Milliseconds since boot.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
