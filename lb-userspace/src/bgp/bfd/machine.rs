//! One BFD session in asynchronous mode (RFC 5880 section 6), without sockets and clocks.
//!
//! A part of `bfd`. The thread hands in packets that belong to the session and asks at
//! [`Machine::deadline`] what is due. It must hand in what has arrived before it asks: after a
//! pause of our own process, the packets of the meantime wait in the socket, and the path is fine.
//!
//! Must not: do IO or read a clock; `now` is an argument.

use std::time::Duration;

use super::packet::{Diagnostic, Packet, State};
use crate::bgp::session::BfdReport;
use crate::desired::bgp::Bfd;

/// Not up, nobody sends more often than this (RFC 5880 section 6.8.3).
pub const SLOW_INTERVAL: Duration = Duration::from_secs(1);

/// bfd.RemoteMinRxInterval before it is known (RFC 5880 section 6.8.1).
const UNKNOWN_REQUIRED_RX: Duration = Duration::from_micros(1);

/// Packets are sent after this part of the interval, per mille (RFC 5880 section 6.8.7); at most
/// the second if the multiplier is 1, else a late one would be a loss.
const JITTER_MIN: u64 = 750;
const JITTER_MAX_ALONE: u64 = 900;
const JITTER_MAX: u64 = 1_000;

/// What the other one's last packet said.
#[derive(Clone, Copy, Debug)]
struct Remote {
    state: State,
    discriminator: u32,
    multiplier: u8,
    desired_tx: Duration,
    required_rx: Duration,
    demand: bool,
}

const NOBODY: Remote = Remote {
    state: State::Down,
    discriminator: 0,
    multiplier: 1,
    desired_tx: Duration::ZERO,
    required_rx: UNKNOWN_REQUIRED_RX,
    demand: false,
};

/// A session.
#[derive(Debug)]
pub struct Machine {
    settings: Bfd,
    state: State,
    since: Duration,
    diagnostic: Diagnostic,
    discriminator: u32,
    remote: Remote,
    /// Intervals that hold until a poll sequence has told the other one of new ones.
    tx_in_use: Duration,
    rx_in_use: Duration,
    poll: bool,
    /// Our packets say something new: the next one is due now.
    news: bool,
    last_sent: Option<Duration>,
    last_received: Option<Duration>,
    losses: u64,
    jitter: u64,
    random: u64,
}

impl Machine {
    /// A session that is down. `discriminator` must be unique on this machine and not 0.
    #[must_use]
    pub fn new(settings: Bfd, discriminator: u32, seed: u64, now: Duration) -> Self {
        let mut machine = Self {
            settings,
            state: State::Down,
            since: now,
            diagnostic: Diagnostic::NONE,
            discriminator,
            remote: NOBODY,
            tx_in_use: settings.interval.max(SLOW_INTERVAL),
            rx_in_use: settings.interval,
            poll: false,
            news: true,
            last_sent: None,
            last_received: None,
            losses: 0,
            jitter: JITTER_MAX,
            random: seed,
        };
        machine.draw_jitter();
        machine
    }

    /// Takes other settings without losing the session, by a poll sequence if it is up.
    pub fn configure(&mut self, settings: Bfd) {
        if settings == self.settings {
            return;
        }
        self.settings = settings;
        self.news = true;
        if self.state == State::Up {
            // RFC 5880 section 6.8.3: nothing gets slower before the other one has agreed.
            self.tx_in_use = self.tx_in_use.min(settings.interval);
            self.rx_in_use = self.rx_in_use.max(settings.interval);
            self.poll = true;
        } else {
            self.agree();
        }
    }

    /// Takes a packet of this session; returns the answer to a poll, to be sent at once.
    pub fn receive(&mut self, packet: &Packet, now: Duration) -> Option<Packet> {
        if packet.yours != 0 && packet.yours != self.discriminator {
            return None;
        }
        self.remote = Remote {
            state: packet.state,
            discriminator: packet.mine,
            multiplier: packet.multiplier,
            desired_tx: packet.desired_tx,
            required_rx: packet.required_rx,
            demand: packet.demand,
        };
        if packet.last && self.poll {
            self.poll = false;
            self.agree();
        }
        if self.state == State::AdminDown {
            return None;
        }
        self.last_received = Some(now);
        match (self.state, packet.state) {
            (State::Init | State::Up, State::AdminDown) => {
                self.enter(State::Down, Diagnostic::SIGNALED, now);
            }
            (State::Down, State::Down) => self.enter(State::Init, self.diagnostic, now),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.enter(State::Up, Diagnostic::NONE, now);
            }
            (State::Up, State::Down) => {
                self.losses += 1;
                self.enter(State::Down, Diagnostic::SIGNALED, now);
            }
            (State::Down, State::AdminDown | State::Up)
            | (State::Init, State::Down)
            | (State::Up, State::Init | State::Up)
            | (State::AdminDown, _) => {}
        }
        packet.poll.then(|| Packet { poll: false, last: true, ..self.packet() })
    }

    /// What is due at `now`: the session falls if nothing was heard for the detection time, and a
    /// packet may have to be sent.
    pub fn tick(&mut self, now: Duration) -> Option<Packet> {
        if self.expires().is_some_and(|expires| expires <= now) {
            self.last_received = None;
            self.remote = NOBODY;
            if matches!(self.state, State::Init | State::Up) {
                self.losses += u64::from(self.state == State::Up);
                self.enter(State::Down, Diagnostic::EXPIRED, now);
            }
        }
        self.sends().filter(|due| *due <= now)?;
        self.news = false;
        self.last_sent = Some(now);
        self.draw_jitter();
        Some(self.packet())
    }

    /// When [`Machine::tick`] has something to do; `None`: not before a packet comes.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.expires().into_iter().chain(self.sends()).min()
    }

    /// Ends the session without telling the other one that the path is bad (RFC 5880 section
    /// 6.8.16); returns the packet that says so.
    pub fn shut_down(&mut self, now: Duration) -> Packet {
        self.enter(State::AdminDown, Diagnostic::ADMIN_DOWN, now);
        self.packet()
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// How often the path was lost: up, and then down, but not by the other one's operator.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.losses
    }

    /// What changes when the report does, but cheap to compare.
    #[must_use]
    pub fn signs(&self) -> (State, Diagnostic, u64, Duration) {
        (self.state, self.diagnostic, self.losses, self.detection_time())
    }

    /// What an operator sees.
    #[must_use]
    pub fn report(&self) -> BfdReport {
        let detection = self.detection_time().as_micros();
        BfdReport {
            state: self.state.as_str().to_owned(),
            since_ms: u64::try_from(self.since.as_millis()).unwrap_or(u64::MAX),
            detection_time_us: u64::try_from(detection).unwrap_or(u64::MAX),
            diagnostic: self.diagnostic.as_str().to_owned(),
            losses: self.losses,
        }
    }

    fn enter(&mut self, state: State, diagnostic: Diagnostic, now: Duration) {
        (self.state, self.diagnostic, self.since) = (state, diagnostic, now);
        self.news = true;
        // Our interval changes when the session comes up; only then is there somebody to agree.
        self.poll = state == State::Up;
        self.agree();
    }

    fn agree(&mut self) {
        self.tx_in_use = self.desired_tx();
        self.rx_in_use = self.settings.interval;
    }

    fn desired_tx(&self) -> Duration {
        let least = if self.state == State::Up { Duration::ZERO } else { SLOW_INTERVAL };
        self.settings.interval.max(least)
    }

    /// RFC 5880 section 6.8.4.
    fn detection_time(&self) -> Duration {
        let interval = self.rx_in_use.max(self.remote.desired_tx);
        interval.saturating_mul(self.remote.multiplier.into())
    }

    fn expires(&self) -> Option<Duration> {
        self.last_received.map(|last| last.saturating_add(self.detection_time()))
    }

    /// When the next packet goes out (RFC 5880 section 6.8.7).
    fn sends(&self) -> Option<Duration> {
        let last = self.last_sent.filter(|_| !self.news);
        let Some(last) = last else { return Some(Duration::ZERO) };
        let both_up = self.state == State::Up && self.remote.state == State::Up;
        let on_demand = self.remote.demand && both_up && !self.poll;
        if self.remote.required_rx.is_zero() || on_demand {
            return None;
        }
        let micros = self.tx_in_use.max(self.remote.required_rx).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        let pause = Duration::from_micros(micros.saturating_mul(self.jitter) / JITTER_MAX);
        Some(last.saturating_add(pause))
    }

    fn packet(&self) -> Packet {
        Packet {
            state: self.state,
            diagnostic: self.diagnostic,
            poll: self.poll,
            last: false,
            demand: false,
            multiplier: self.settings.multiplier.max(1),
            mine: self.discriminator,
            yours: self.remote.discriminator,
            desired_tx: self.desired_tx(),
            required_rx: self.settings.interval,
        }
    }

    fn draw_jitter(&mut self) {
        // The step of SplitMix64: any seed will do.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let max = if self.settings.multiplier <= 1 { JITTER_MAX_ALONE } else { JITTER_MAX };
        self.jitter = JITTER_MIN + (mixed ^ mixed >> 31) % (max - JITTER_MIN + 1);
    }
}

#[cfg(test)]
mod tests;
