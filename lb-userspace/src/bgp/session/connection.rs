//! One TCP connection with the peer, from our OPEN on.
//!
//! A part of `session`.

use std::time::Duration;

use super::contract::{Output, Side};
use super::report::{Addresses, Counters, Negotiated, State};
use crate::bgp::wire::{Dialect, Framer, Open, keepalive};

/// Unsent bytes above which we write no routes and no keepalives; a message may go beyond.
pub(super) const UNSENT_MAX: usize = 64 * 1_024;
/// How long we wait for the peer's OPEN.
const OPEN_WAIT: Duration = Duration::from_secs(60);
/// Send hold time when there is no hold time (RFC 9687 section 4.3).
const SEND_HOLD_DEFAULT: Duration = Duration::from_secs(8 * 60);
/// Hold times in the send hold time.
const SEND_HOLD_TIMES: u32 = 2;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    side: Side,
    pub(super) addresses: Addresses,
    /// `OpenSent`, `OpenConfirm` or `Established`.
    pub(super) state: State,
    /// When it got into `Established`; before that, when it was made.
    pub(super) since: Duration,
    pub(super) framer: Framer,
    /// The peer's OPEN.
    pub(super) open: Option<Open>,
    pub(super) negotiated: Negotiated,
    pub(super) dialect: Dialect,
    /// Without a message until then, it is over.
    hold: Option<Duration>,
    /// The next KEEPALIVE.
    keepalive: Option<Duration>,
    /// Without progress in sending until then, it is over.
    send_hold: Option<Duration>,
    unsent: usize,
    /// Bytes written, and bytes of them that left us.
    pub(super) written: u64,
    pub(super) sent: u64,
}

/// A timer of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    Hold,
    SendHold,
}

impl Connection {
    pub(super) fn new(side: Side, addresses: Addresses, now: Duration) -> Self {
        Self {
            side,
            addresses,
            state: State::OpenSent,
            since: now,
            framer: Framer::default(),
            open: None,
            negotiated: Negotiated::default(),
            dialect: Dialect::default(),
            hold: Some(now + OPEN_WAIT),
            keepalive: None,
            send_hold: None,
            unsent: 0,
            written: 0,
            sent: 0,
        }
    }

    /// Writes messages, `messages` of them.
    pub(super) fn write(
        &mut self,
        bytes: Vec<u8>,
        messages: u64,
        counters: &mut Counters,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        if bytes.is_empty() {
            return;
        }
        if self.unsent == 0 {
            self.send_hold = Some(now + self.send_hold_time());
        }
        self.unsent += bytes.len();
        self.written += u64::try_from(bytes.len()).unwrap_or(0);
        counters.messages_out += messages;
        out.push(Output::Send { side: self.side, bytes });
    }

    /// Bytes left us.
    pub(super) fn sent(&mut self, bytes: usize, now: Duration) {
        let bytes = bytes.min(self.unsent);
        self.unsent -= bytes;
        self.sent += u64::try_from(bytes).unwrap_or(0);
        self.send_hold = (self.unsent > 0).then(|| now + self.send_hold_time());
    }

    /// How many bytes of routes may be written now.
    pub(super) const fn room(&self) -> usize {
        UNSENT_MAX.saturating_sub(self.unsent)
    }

    /// A message came.
    pub(super) fn heard(&mut self, now: Duration) {
        if self.state > State::OpenSent {
            self.hold = self.hold_time().map(|time| now + time);
        }
    }

    /// The peer's OPEN came, and is good.
    pub(super) fn opened(&mut self, open: Open, negotiated: Negotiated, dialect: Dialect) {
        self.state = State::OpenConfirm;
        (self.open, self.negotiated, self.dialect) = (Some(open), negotiated, dialect);
    }

    /// Writes a KEEPALIVE; the next one is due after `pause`.
    pub(super) fn keepalive(
        &mut self,
        pause: Duration,
        counters: &mut Counters,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        self.keepalive = (!pause.is_zero()).then(|| now + pause);
        if self.room() > 0 {
            self.write(keepalive(), 1, counters, now, out);
        }
    }

    /// The time between two KEEPALIVEs, without jitter; 0: there are none.
    pub(super) const fn keepalive_time(&self) -> Duration {
        Duration::from_millis(self.negotiated.keepalive_ms)
    }

    pub(super) fn keepalive_due(&self, now: Duration) -> bool {
        self.keepalive.is_some_and(|at| at <= now)
    }

    /// The timer that ends it now.
    pub(super) fn expired(&self, now: Duration) -> Option<Expired> {
        let due = |timer: Option<Duration>| timer.is_some_and(|at| at <= now);
        match (due(self.hold), due(self.send_hold)) {
            (true, _) => Some(Expired::Hold),
            (false, true) => Some(Expired::SendHold),
            (false, false) => None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        [self.hold, self.keepalive, self.send_hold].into_iter().flatten().min()
    }

    /// Everything written has left us.
    pub(super) const fn is_flushed(&self) -> bool {
        self.unsent == 0
    }

    fn hold_time(&self) -> Option<Duration> {
        let seconds = self.negotiated.hold_time_s;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }

    fn send_hold_time(&self) -> Duration {
        self.hold_time().map_or(SEND_HOLD_DEFAULT, |time| time * SEND_HOLD_TIMES)
    }
}
