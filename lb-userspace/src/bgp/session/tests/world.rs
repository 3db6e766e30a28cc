//! A peer's settings, a table, and bytes in both directions.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::bgp::route::{Attributes, Rib};
use crate::bgp::session::{Decision, Input, Output, Session, SessionEvent, SessionSettings, Side};
use crate::bgp::wire::{Dialect, Framer, Message, decode};
use crate::desired::bgp::{Peer, sample};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// Chance that can be repeated.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `below`.
    pub(super) fn below(&mut self, below: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(below.max(1)).unwrap()).unwrap()
    }

    pub(super) fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

pub(super) fn settings(local_as: u32, id: u8, remote_as: u32) -> SessionSettings {
    let address = "192.0.2.2".parse().unwrap();
    let peer = Peer { address, remote_as, ..sample::peer() };
    SessionSettings {
        local_as,
        router_id: [192, 0, 2, id].into(),
        peer,
        graceful_restart: None,
        restarted: false,
        forwarding_kept: false,
        seed: u64::from(id),
    }
}

pub(super) fn attributes(path: &[u32]) -> Attributes {
    Attributes { as_path: path.to_vec(), ..Attributes::default() }
}

pub(super) fn rib(path: &[u32], prefixes: &[&str]) -> Rib {
    let attributes = Arc::new(attributes(path));
    prefixes.iter().map(|it| (it.parse().unwrap(), Arc::clone(&attributes))).collect()
}

/// A session, the time, and what it did.
pub(super) struct Desk {
    pub(super) session: Session,
    pub(super) now: Duration,
    pub(super) out: Vec<Output>,
}

impl Desk {
    pub(super) fn new(settings: SessionSettings) -> Self {
        let now = 1_000 * SECOND;
        Self { session: Session::new(settings, now), now, out: Vec::new() }
    }

    pub(super) fn input(&mut self, input: Input<'_>) {
        self.session.handle(input, self.now, &mut self.out);
    }

    /// Lets time pass, with every deadline in it.
    pub(super) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(next) = self.session.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(next);
            self.input(Input::Tick);
        }
        self.now = until;
    }

    pub(super) fn connect(&mut self, side: Side) {
        let [local, remote] = ["192.0.2.1", "192.0.2.2"].map(|it| it.parse::<IpAddr>().unwrap());
        self.input(Input::Connected { side, local, remote });
    }

    pub(super) fn receive(&mut self, side: Side, bytes: &[u8]) {
        self.input(Input::Received { side, bytes });
    }

    pub(super) fn want(&mut self, rib: Rib, ready: bool, id: u64) {
        let decision = Decision { id, at: self.now };
        self.input(Input::Routes { rib: Arc::new(rib), ready, decision });
    }

    /// What it sent on a side since the last time, as if all of it left at once.
    pub(super) fn sent(&mut self, side: Side, dialect: Dialect) -> Vec<Message> {
        let out = std::mem::take(&mut self.out);
        let bytes: Vec<u8> = out
            .iter()
            .filter_map(|it| match it {
                Output::Send { side: on, bytes } if *on == side => Some(bytes.clone()),
                Output::Connect | Output::Send { .. } | Output::Close { .. } | Output::Event(_) => {
                    None
                }
            })
            .flatten()
            .collect();
        self.out = out.into_iter().filter(|it| !matches!(it, Output::Send { .. })).collect();
        self.input(Input::Sent { side, bytes: bytes.len() });
        messages(&bytes, dialect)
    }

    /// Whether it closed a side since the last time.
    pub(super) fn closed(&mut self, side: Side) -> bool {
        let before = self.out.len();
        self.out.retain(|it| *it != Output::Close { side });
        before != self.out.len()
    }

    /// The events since the last time.
    pub(super) fn events(&mut self) -> Vec<SessionEvent> {
        let (events, rest) = std::mem::take(&mut self.out)
            .into_iter()
            .partition(|it| matches!(it, Output::Event(_)));
        self.out = rest;
        let events: Vec<Output> = events;
        let event = |it| match it {
            Output::Event(event) => Some(event),
            Output::Connect | Output::Send { .. } | Output::Close { .. } => None,
        };
        events.into_iter().filter_map(event).collect()
    }
}

pub(super) fn messages(bytes: &[u8], dialect: Dialect) -> Vec<Message> {
    let mut framer = Framer::default();
    let mut rest = bytes;
    let mut messages = Vec::new();
    while let Some(frame) = framer.take(&mut rest).expect("we send what can be framed") {
        messages.push(decode(&frame, dialect).expect("we send what can be read"));
    }
    messages
}
