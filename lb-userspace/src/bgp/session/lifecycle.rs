//! Connections begin, collide, and end.
//!
//! A part of `session`.

use std::net::IpAddr;
use std::time::Duration;

use super::connection::Connection;
use super::contract::{Cease, Close, Output, SessionEvent, Side};
use super::inbound::Inbound;
use super::machine::millis;
use super::outbound::Outbound;
use super::report::{Addresses, Cause, LastError, State};
use super::{Session, negotiation};
use crate::bgp::wire::{Flaw, Notification, Open, code};

/// How long we wait for our TCP connection.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// A session that is younger may still have a connection from before it in the way, whose OPEN is
/// no sign that the peer lost this one.
const REPLACE_AFTER: Duration = Duration::from_secs(5);
/// Ceases that graceful restart must not survive (RFC 8538 section 5.1), nor when the path is gone.
const HARD: [Cease; 4] = [
    Cease::MaximumPrefixes,
    Cease::AdministrativeShutdown,
    Cease::PeerDeConfigured,
    Cease::BfdDown,
];

/// How a connection ends.
pub(super) struct End {
    /// What the peer is told; `None`: nothing.
    notification: Option<Notification>,
    cause: Cause,
    /// For the report and the log; `None`: it is no trouble.
    text: Option<String>,
    /// The connection is gone already.
    gone: bool,
}

impl End {
    /// The connection is gone.
    pub(super) const fn lost(text: String) -> Self {
        Self { notification: None, cause: Cause::Connection, text: Some(text), gone: true }
    }

    /// The peer closed the session.
    pub(super) const fn closed(text: String) -> Self {
        Self { notification: None, cause: Cause::Notification, text: Some(text), gone: false }
    }

    /// The peer sent something wrong.
    pub(super) fn flaw(flaw: Flaw) -> Self {
        let text = format!("sent NOTIFICATION {}: {}", flaw.notification, flaw.text);
        Self {
            notification: Some(flaw.notification),
            cause: Cause::Protocol,
            text: Some(text),
            gone: false,
        }
    }

    /// We close it.
    pub(super) const fn cease(notification: Notification, cause: Cause, text: String) -> Self {
        Self { notification: Some(notification), cause, text: Some(text), gone: false }
    }

    /// The other one of two connections stays.
    fn collision() -> Self {
        let cease = Cease::ConnectionCollisionResolution as u8;
        let notification = Some(Notification::cease(cease, ""));
        Self { notification, cause: Cause::Replaced, text: None, gone: false }
    }

    /// The peer has a new connection, and does not know this one any more.
    fn replaced() -> Self {
        let text = Some("the peer came with a new connection".to_owned());
        Self { notification: None, cause: Cause::Replaced, text, gone: false }
    }

    /// The peer was silent.
    pub(super) fn hold_timer(state: State) -> Self {
        let text = format!("sent NOTIFICATION Hold Timer Expired: the peer is silent in {state}");
        let notification = Notification::new(code::HOLD_TIMER_EXPIRED, &[]);
        Self::cease(notification, Cause::HoldTimer, text)
    }

    /// The peer reads nothing.
    pub(super) fn send_hold_timer() -> Self {
        let text = "sent NOTIFICATION Send Hold Timer Expired: the peer reads nothing".to_owned();
        let notification = Notification::new(code::SEND_HOLD_TIMER_EXPIRED, &[]);
        Self::cease(notification, Cause::SendHoldTimer, text)
    }
}

impl Session {
    /// Whether a new connection of the peer may take the place of the one that it has on `side`:
    /// not if that is a session in use, unless graceful restart makes it likely that the peer lost
    /// it (RFC 4724 section 4.2). If not, close the new one and do not report it.
    #[must_use]
    pub fn may_replace(&self, side: Side, now: Duration) -> bool {
        self.connections
            .get(&side)
            .is_none_or(|it| it.state != State::Established || (has_restart(it) && is_old(it, now)))
    }

    /// The side of the established connection.
    pub(super) fn side_up(&self) -> Option<Side> {
        let up = self.connections.iter().find(|(_, it)| it.state == State::Established);
        up.map(|(side, _)| *side)
    }

    pub(super) fn start(&mut self, now: Duration) {
        if !self.started {
            self.started = true;
            self.retry = (!self.settings.peer.passive).then_some(now);
        }
    }

    pub(super) fn stop(&mut self, close: &Close, now: Duration, out: &mut Vec<Output>) {
        self.started = false;
        self.retry = None;
        if self.connecting.take().is_some() {
            out.push(Output::Close { side: Side::Active });
        }
        for side in [Side::Active, Side::Passive] {
            let notification = Notification::cease(close.cease as u8, &close.text);
            let text = format!("closed by us: {notification}");
            let end = End::cease(notification, Cause::Administrative, text);
            self.end(side, end, now, out);
        }
    }

    /// Connects, if that is still of use.
    pub(super) fn connect(&mut self, now: Duration, out: &mut Vec<Output>) {
        self.retry = None;
        if self.wants_connection() {
            self.connecting = Some(now + CONNECT_WAIT);
            out.push(Output::Connect);
        }
    }

    /// Whether we have none of our own, nor the peer one on which it said who it is: until then it
    /// may as well be nobody, and must not keep us from connecting.
    fn wants_connection(&self) -> bool {
        let ours = self.connecting.is_some() || self.connections.contains_key(&Side::Active);
        let unknown = self.connections.values().all(|it| it.state == State::OpenSent);
        self.started && !self.settings.peer.passive && !ours && unknown
    }

    pub(super) fn connect_failed(&mut self, reason: &str, now: Duration, out: &mut Vec<Output>) {
        if self.connecting.take().is_some() {
            self.trouble(format!("cannot connect: {reason}"), now, out);
            self.connect_later(now);
        }
    }

    fn connect_later(&mut self, now: Duration) {
        if self.retry.is_none() && self.wants_connection() {
            self.retry = Some(now + self.timers.pause());
        }
    }

    pub(super) fn connected(
        &mut self,
        side: Side,
        local: IpAddr,
        remote: IpAddr,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        if side == Side::Active {
            self.connecting = None;
        }
        self.end(side, End { gone: true, ..End::replaced() }, now, out);
        if !self.started {
            out.push(Output::Close { side });
            return;
        }
        self.retry = None;
        let addresses = Addresses { local: local.to_canonical(), remote: remote.to_canonical() };
        let mut connection = Connection::new(side, addresses, now);
        let open = negotiation::open(&self.settings).bytes();
        connection.write(open, 1, &mut self.counters, now, out);
        self.connections.insert(side, connection);
        self.connect_later(now);
    }

    /// The peer's OPEN came.
    pub(super) fn opened(&mut self, side: Side, open: Open, now: Duration, out: &mut Vec<Output>) {
        if let Err(flaw) = negotiation::check(&self.settings, &open) {
            self.end(side, End::flaw(flaw), now, out);
            return;
        }
        if let Some((loser, end)) = self.collision(side, &open, now) {
            self.end(loser, end, now, out);
        }
        let Some(connection) = self.connections.get_mut(&side) else {
            return;
        };
        let (negotiated, dialect) = negotiation::negotiate(&self.settings, &open);
        connection.opened(open, negotiated, dialect);
        connection.heard(now);
        let pause = self.timers.jitter(connection.keepalive_time());
        connection.keepalive(pause, &mut self.counters, now, out);
    }

    /// Which of two connections goes, if one must now (RFC 4271 section 6.8, RFC 6286 section 2.3).
    fn collision(&self, side: Side, open: &Open, now: Duration) -> Option<(Side, End)> {
        let other = self.other(side);
        let connection = self.connections.get(&other)?;
        match connection.state {
            State::Established => {
                let restarted = open.graceful_restart.as_ref().is_some_and(|it| it.restarted);
                let lost = has_restart(connection) && (restarted || is_old(connection, now));
                Some(if lost { (other, End::replaced()) } else { (side, End::collision()) })
            }
            State::OpenConfirm => {
                let ours = (self.settings.router_id, self.settings.local_as);
                let theirs = (open.router_id, open.asn);
                let loser = if ours < theirs { Side::Active } else { Side::Passive };
                Some((loser, End::collision()))
            }
            // Until its OPEN comes nobody knows whether it is of the same peer.
            State::Idle | State::Connect | State::Active | State::OpenSent => None,
        }
    }

    const fn other(&self, side: Side) -> Side {
        match side {
            Side::Active => Side::Passive,
            Side::Passive => Side::Active,
        }
    }

    pub(super) fn established(&mut self, side: Side, now: Duration, out: &mut Vec<Output>) {
        self.end(self.other(side), End::collision(), now, out);
        if self.connecting.take().is_some() {
            out.push(Output::Close { side: Side::Active });
        }
        if let Some(connection) = self.connections.get_mut(&side) {
            connection.state = State::Established;
            connection.since = now;
        }
        self.retry = None;
        self.counters.established += 1;
        self.forget_routes();
    }

    /// Of a connection that is gone, nothing holds.
    fn forget_routes(&mut self) {
        (self.outbound, self.inbound) = (Outbound::default(), Inbound::default());
        self.underway.clear();
        self.decision = None;
        self.dirty = true;
    }

    /// Ends a connection, if there is one.
    pub(super) fn end(&mut self, side: Side, end: End, now: Duration, out: &mut Vec<Output>) {
        let Some(mut connection) = self.connections.remove(&side) else {
            return;
        };
        if let Some(notification) = end.notification {
            let hard = connection.negotiated.graceful_notification && is_hard(&notification);
            let notification = if hard { notification.hard() } else { notification };
            connection.write(notification.bytes(), 1, &mut self.counters, now, out);
        }
        if !end.gone {
            out.push(Output::Close { side });
        }
        if connection.state == State::Established {
            self.timers.was_up(now.saturating_sub(connection.since));
            *self.counters.flaps.entry(end.cause).or_default() += 1;
            self.forget_routes();
        }
        if let Some(text) = end.text {
            self.trouble(text, now, out);
        }
        self.connect_later(now);
    }

    fn trouble(&mut self, text: String, now: Duration, out: &mut Vec<Output>) {
        self.last_error = Some(LastError { at_ms: millis(now), text: text.clone() });
        out.push(Output::Event(SessionEvent::Trouble { text }));
    }

    /// Notes the state, and when it began.
    pub(super) fn note_state(&mut self, now: Duration, out: &mut Vec<Output>) {
        let best = self.connections.values().map(|it| it.state).max();
        let state = match (best, self.connecting) {
            (Some(state), _) => state,
            (None, Some(_)) => State::Connect,
            (None, None) if self.started => State::Active,
            (None, None) => State::Idle,
        };
        if state != self.state {
            out.push(Output::Event(SessionEvent::State { from: self.state, to: state }));
            (self.state, self.since) = (state, now);
        }
    }
}

fn is_hard(notification: &Notification) -> bool {
    notification.code == 6 && HARD.iter().any(|cease| *cease as u8 == notification.subcode)
}

/// The peer said that it can restart gracefully, for at least one family.
fn has_restart(connection: &Connection) -> bool {
    let restart = connection.open.as_ref().and_then(|open| open.graceful_restart.as_ref());
    restart.is_some_and(|it| !it.families.is_empty())
}

fn is_old(connection: &Connection, now: Duration) -> bool {
    now.saturating_sub(connection.since) >= REPLACE_AFTER
}
