//! Two sessions talk to each other over a net that loses connections, delays and collides.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::world::{Chance, SECOND, attributes, settings};
use crate::bgp::community::Community;
use crate::bgp::route::Rib;
use crate::bgp::session::{Decision, Input, Output, Session, SessionSettings, Side, State};

/// A message in the net arrives after at most so many milliseconds.
const DELAY_MS: usize = 40;
/// After the last trouble, both have what they want within.
const SETTLE: Duration = Duration::from_secs(120);

/// A TCP connection; `ends[0]` opened it.
struct Wire {
    /// Which speaker opened it.
    opener: usize,
    /// Bytes on the way to each speaker, with the time of their arrival.
    towards: [VecDeque<(Duration, Vec<u8>)>; 2],
    /// Closed by a speaker: the other one hears of it after what is still on the way.
    closed_by: [bool; 2],
    /// Nothing arrives any more, not even that.
    dead: bool,
}

struct Net {
    speakers: [Session; 2],
    settings: [SessionSettings; 2],
    wanted: [Rib; 2],
    wires: Vec<Wire>,
    /// Connection attempts: who, and when they arrive.
    attempts: Vec<(usize, Duration)>,
    now: Duration,
    decision: u64,
    chance: Chance,
}

impl Net {
    fn new(settings: [SessionSettings; 2], seed: u64) -> Self {
        let now = 5_000 * SECOND;
        let speakers = settings.clone().map(|it| Session::new(it, now));
        let mut net = Self {
            speakers,
            settings,
            wanted: [Rib::new(), Rib::new()],
            wires: Vec::new(),
            attempts: Vec::new(),
            now,
            decision: 0,
            chance: Chance(seed),
        };
        for who in [0, 1] {
            net.configure(who);
        }
        net
    }

    /// Gives a new speaker what it needs.
    fn configure(&mut self, who: usize) {
        let own = Arc::new(self.wanted[1 - who].keys().copied().collect::<BTreeSet<_>>());
        self.input(who, Input::Own { prefixes: own });
        self.input(who, Input::Start);
        self.tell(who);
    }

    fn tell(&mut self, who: usize) {
        self.decision += 1;
        let decision = Decision { id: self.decision, at: self.now };
        let rib = Arc::new(self.wanted[who].clone());
        self.input(who, Input::Routes { rib, ready: true, decision });
    }

    fn side(&self, wire: &Wire, who: usize) -> Side {
        if wire.opener == who { Side::Active } else { Side::Passive }
    }

    fn input(&mut self, who: usize, input: Input<'_>) {
        let mut out = Vec::new();
        self.speakers[who].handle(input, self.now, &mut out);
        for it in out {
            match it {
                Output::Connect => {
                    self.attempts.retain(|(it, _)| *it != who);
                    let delay = self.delay();
                    self.attempts.push((who, self.now + delay));
                }
                Output::Send { side, bytes } => self.send(who, side, bytes),
                Output::Close { side } => self.close(who, side),
                Output::Event(_) => {}
            }
        }
    }

    fn delay(&mut self) -> Duration {
        Duration::from_millis(u64::try_from(self.chance.below(DELAY_MS)).unwrap())
    }

    fn wire(&mut self, who: usize, side: Side) -> Option<&mut Wire> {
        let opener = if side == Side::Active { who } else { 1 - who };
        self.wires.iter_mut().find(|it| it.opener == opener && !it.closed_by[who])
    }

    fn send(&mut self, who: usize, side: Side, bytes: Vec<u8>) {
        assert!(bytes.len() <= 70_000, "{} bytes at once", bytes.len());
        let (now, delay) = (self.now, self.delay());
        let Some(wire) = self.wire(who, side) else {
            panic!("bytes for a connection that is not there");
        };
        let queue = &mut wire.towards[1 - who];
        let at = queue.back().map_or(now, |(at, _)| *at).max(now + delay);
        let length = bytes.len();
        if !wire.dead {
            queue.push_back((at, bytes));
        }
        self.input(who, Input::Sent { side, bytes: length });
    }

    fn close(&mut self, who: usize, side: Side) {
        if side == Side::Active {
            self.attempts.retain(|(it, _)| *it != who);
        }
        if let Some(wire) = self.wire(who, side) {
            wire.closed_by[who] = true;
        }
    }

    /// One thing that is due; whether there was one.
    fn step(&mut self) -> bool {
        self.wires.retain(|it| it.closed_by != [true, true]);
        if let Some(at) = self.attempts.iter().position(|(_, at)| *at <= self.now) {
            let (who, _) = self.attempts.remove(at);
            self.accept(who);
            return true;
        }
        for at in 0..self.wires.len() {
            for who in [0, 1] {
                let wire = &mut self.wires[at];
                if wire.closed_by[who] {
                    wire.towards[who].clear();
                    continue;
                }
                let arrived = wire.towards[who].front().is_some_and(|(at, _)| *at <= self.now);
                let bytes = if arrived { wire.towards[who].pop_front() } else { None };
                let over = wire.closed_by[1 - who] && wire.towards[who].is_empty() && !wire.dead;
                let side = self.side(&self.wires[at], who);
                if let Some((_, bytes)) = bytes {
                    self.input(who, Input::Received { side, bytes: &bytes });
                    return true;
                }
                if over {
                    self.wires[at].closed_by[who] = true;
                    self.input(who, Input::Ended { side, reason: "closed by the peer" });
                    return true;
                }
            }
        }
        false
    }

    fn accept(&mut self, who: usize) {
        let other = 1 - who;
        let busy = self.wire(other, Side::Passive).is_some();
        if busy && !self.speakers[other].may_replace(Side::Passive, self.now) {
            self.input(who, Input::ConnectFailed { reason: "refused" });
            return;
        }
        if let Some(wire) = self.wire(other, Side::Passive) {
            wire.closed_by[other] = true;
        }
        if let Some(wire) = self.wire(who, Side::Active) {
            wire.closed_by[who] = true;
        }
        self.wires.push(Wire {
            opener: who,
            towards: [VecDeque::new(), VecDeque::new()],
            closed_by: [false, false],
            dead: false,
        });
        let addresses = ["192.0.2.1", "192.0.2.2"].map(|it| it.parse().unwrap());
        let [local, remote] = [addresses[who], addresses[other]];
        self.input(who, Input::Connected { side: Side::Active, local, remote });
        self.input(other, Input::Connected { side: Side::Passive, local: remote, remote: local });
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let mut steps = 0;
            while self.step() {
                steps += 1;
                assert!(steps < 100_000, "it does not come to rest");
            }
            let wires = self.wires.iter().flat_map(|it| it.towards.iter());
            let wires = wires.filter_map(|it| it.front().map(|(at, _)| *at));
            let attempts = self.attempts.iter().map(|(_, at)| *at);
            let deadlines = self.speakers.iter().filter_map(Session::deadline);
            let next = wires.chain(attempts).chain(deadlines).min();
            let Some(next) = next.filter(|at| *at <= until) else {
                break;
            };
            self.now = self.now.max(next);
            for who in [0, 1] {
                self.input(who, Input::Tick);
            }
        }
        self.now = until;
    }

    /// Every connection breaks; if `silently`, a speaker may not be told.
    fn lose(&mut self, silently: bool) {
        for wire in &mut self.wires {
            wire.towards = [VecDeque::new(), VecDeque::new()];
            wire.dead = true;
        }
        for at in 0..self.wires.len() {
            for who in [0, 1] {
                let told = !silently || self.chance.one_in(2);
                if told && !std::mem::replace(&mut self.wires[at].closed_by[who], true) {
                    let side = self.side(&self.wires[at], who);
                    self.input(who, Input::Ended { side, reason: "reset" });
                }
            }
        }
    }

    fn restart(&mut self, who: usize) {
        let settings = SessionSettings { restarted: true, ..self.settings[who].clone() };
        self.attempts.retain(|(it, _)| *it != who);
        for at in 0..self.wires.len() {
            self.wires[at].closed_by[who] = true;
        }
        self.speakers[who] = Session::new(settings, self.now);
        self.configure(who);
    }

    fn change(&mut self, who: usize, own_as: u32) {
        let prefixes = self.chance.below(200);
        let mut rib = Rib::new();
        for _ in 0..prefixes {
            let (a, b) = (self.chance.below(4), self.chance.below(200));
            let prefix = if self.chance.one_in(2) {
                format!("10.{a}.{b}.0/24")
            } else {
                format!("2001:db8:{a:x}:{b:x}::/64")
            };
            let mut attributes = attributes(&vec![own_as; 1 + self.chance.below(3)]);
            attributes.next_hop = prefix.contains(':').then(|| "2001:db8::1".parse().unwrap());
            if self.chance.one_in(3) {
                attributes.communities.insert(Community(u32::try_from(a).unwrap()));
            }
            rib.insert(prefix.parse().unwrap(), Arc::new(attributes));
        }
        self.wanted[who] = rib;
        self.tell(who);
        let own = Arc::new(self.wanted[who].keys().copied().collect::<BTreeSet<_>>());
        self.input(1 - who, Input::Own { prefixes: own });
    }

    /// Both have what the other one wants them to have.
    fn assert_settled(&self) {
        for who in [0, 1] {
            let (here, there) = (self.speakers[who].report(), self.speakers[1 - who].report());
            assert_eq!(here.state, State::Established, "{:?}", here.last_error);
            assert!(here.settled && here.sent == self.wanted[who], "{:?}", here.unsendable);
            let sent: Vec<_> = here.sent.iter().map(|(it, a)| (it, &a.as_path)).collect();
            let got: Vec<_> = there.received.iter().map(|(it, a)| (it, &a.as_path)).collect();
            assert_eq!(sent, got);
            let communities = here.sent.values().map(|it| &it.communities);
            assert!(communities.eq(there.received.values().map(|it| &it.communities)));
        }
    }
}

fn pair(seed: u64) -> Net {
    let mut chance = Chance(seed);
    let mut both = [settings(65_001, 1, 65_002), settings(65_002, 2, 65_001)];
    let restart = chance.one_in(2);
    let passive = chance.below(3);
    for (who, it) in both.iter_mut().enumerate() {
        it.peer.monitor = true;
        it.peer.passive = passive == who;
        it.graceful_restart = restart.then_some(60 * SECOND);
        it.seed = seed;
    }
    if chance.one_in(4) {
        both[0].router_id = both[1].router_id;
    }
    Net::new(both, seed)
}

#[test]
fn two_sessions_converge_whatever_happens_to_them() {
    for seed in 0..60 {
        let run = std::panic::catch_unwind(|| {
            let mut net = pair(seed);
            net.run(5 * SECOND);
            for _ in 0..12 {
                match net.chance.below(6) {
                    0 => net.lose(false),
                    1 => net.lose(true),
                    2 => {
                        let who = net.chance.below(2);
                        net.restart(who);
                    }
                    _ => {
                        let who = net.chance.below(2);
                        net.change(who, [65_001, 65_002][who]);
                    }
                }
                let time = Duration::from_millis(u64::try_from(net.chance.below(4_000)).unwrap());
                net.run(time);
            }
            net.run(SETTLE);
            net.assert_settled();
        });
        assert!(run.is_ok(), "seed {seed}");
    }
}

#[test]
fn a_session_that_nothing_happens_to_stays_up() {
    for seed in 0..8 {
        let mut net = pair(seed);
        net.run(3_600 * SECOND);
        net.assert_settled();
        for speaker in &net.speakers {
            let report = speaker.report();
            assert_eq!(report.counters.established, 1, "{:?}", report.last_error);
        }
    }
}
