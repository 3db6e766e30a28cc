//! Flows as their clients see them, and those who pretend to be clients.

use lb_common::decide::Path;
use lb_common::parse::Segment;

use crate::scenario::{Class, Fault, Random};
use crate::world::{Event, World};

/// A repeated SYN comes at most this much after the first: less than the preparation.
const REPEAT_MAX_MS: u64 = 2_900;
/// How long a flow lives at most before it ends, and half-closed.
const LIFE_MAX_MS: u64 = 300_000;
const HALF_CLOSED_MAX_MS: u64 = 100_000;
/// Within this time the ports of a flow that ended are used again.
const REUSE_MAX_MS: u64 = 100_000;
/// An attacker sends in volleys.
pub(crate) const VOLLEY_MS: u64 = 100;

/// How far a flow is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Opening,
    Open,
    HalfClosed,
}

/// How a TCP flow ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// Without a word.
    Silence,
    Reset,
    Fin,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) hash: u64,
    pub(crate) backend: u16,
    /// How often the backend had died when the flow began.
    life: u32,
    udp: bool,
    pub(crate) phase: Phase,
    ends_ms: u64,
    silence_ms: u64,
    ending: Ending,
    /// A repeated SYN is on its way.
    pub(crate) repeats: bool,
}

impl World {
    /// The hash of a flow that does not exist.
    fn stranger(&mut self) -> u64 {
        let unused = 32 - self.scenario.tag_bits;
        self.random.next() >> 32 >> unused << unused << 32 | self.random.next() >> 32
    }

    pub(crate) fn born(&mut self) {
        let delay_ms = self.random.below(200);
        self.after(delay_ms, Event::Born);
        let hash = self.stranger();
        self.opens(hash);
    }

    /// A client opens a flow.
    pub(crate) fn opens(&mut self, hash: u64) {
        let scenario = self.scenario;
        let udp = scenario.udp_part > 0 && hash.is_multiple_of(scenario.udp_part);
        self.outcome.flows += 1;
        let id = self.outcome.flows;
        let first = if udp { Segment::Datagram } else { Segment::Open };
        let (backend, _) = self.plane.forward(hash, first);
        let life = self.lives(backend);
        if backend == 0 || life % 2 == 1 {
            self.outcome.unserved += 1;
            return;
        }
        let longest_ms = if udp { scenario.udp_silence_ms } else { scenario.silence_ms };
        let talkative = self.random.chance(50);
        // Rare in nature; a control needs them often.
        let repeats = if scenario.fault == Fault::None { 20 } else { 80 };
        let flow = Flow {
            hash,
            backend,
            life,
            udp,
            phase: Phase::Opening,
            ends_ms: self.now_ms + self.random.below(LIFE_MAX_MS),
            silence_ms: if talkative { 5_000 } else { longest_ms },
            ending: match self.random.below(4) {
                0 => Ending::Silence,
                1 => Ending::Reset,
                _ => Ending::Fin,
            },
            repeats: !udp && self.random.chance(repeats),
        };
        self.flows.insert(id, flow);
        if flow.repeats {
            let delay_ms = self.random.below(REPEAT_MAX_MS);
            self.after(delay_ms, Event::RepeatedSyn(id));
        }
        let delay_ms = 1 + self.random.below(scenario.round_trip_ms);
        self.after(delay_ms, Event::Packet(id));
    }

    pub(crate) fn repeats(&mut self, id: u32) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.repeats = false;
        // A SYN that the network holds back until after its flow's FIN opens a new flow.
        if flow.phase != Phase::HalfClosed {
            self.plane.forward(flow.hash, Segment::Open);
        }
    }

    pub(crate) fn packet(&mut self, id: u32) {
        let Some(mut flow) = self.flows.get(&id).copied() else { return };
        if self.lives(flow.backend) != flow.life {
            self.outcome.ended_with_backend += 1;
            self.flows.remove(&id);
            return;
        }
        self.outcome.packets += 1;
        let ends = self.now_ms >= flow.ends_ms && flow.phase != Phase::Opening;
        let segment = match (flow.udp, flow.phase, flow.ending) {
            (true, ..) => Segment::Datagram,
            (_, Phase::Open, Ending::Fin | Ending::Reset) if ends => Segment::End,
            _ => Segment::Later,
        };
        let (backend, path) = self.plane.forward(flow.hash, segment);
        self.outcome.contested_packets += u32::from(path != Path::Stateless);
        if backend != flow.backend {
            let class = match (flow.udp, flow.phase) {
                (true, _) => Class::Datagram,
                (_, Phase::Opening) => Class::Handshake,
                (_, Phase::Open) => Class::Established,
                (_, Phase::HalfClosed) => Class::HalfClosed,
            };
            self.broke(id, flow, class, path);
            return;
        }
        if ends {
            self.ends(id, flow);
            return;
        }
        if flow.phase == Phase::Opening {
            flow.phase = Phase::Open;
        }
        self.flows.insert(id, flow);
        // Half of the silences are as long as they may be.
        let whole = self.random.chance(50);
        let silence_ms =
            if whole { flow.silence_ms } else { 1 + self.random.below(flow.silence_ms) };
        self.after(silence_ms, Event::Packet(id));
    }

    fn broke(&mut self, id: u32, flow: Flow, class: Class, path: Path) {
        self.flows.remove(&id);
        *self.outcome.broken.entry(class).or_default() += 1;
        if self.verbose {
            println!("{} ms: {class:?} {flow:?} by {path:?}", self.now_ms);
        }
    }

    /// A flow has sent its last packet, or its FIN.
    fn ends(&mut self, id: u32, flow: Flow) {
        if flow.ending == Ending::Fin && !flow.udp && flow.phase == Phase::Open {
            self.outcome.half_closed += 1;
            let silence_ms = self.scenario.half_closed_silence_ms;
            let ends_ms = self.now_ms + self.random.below(HALF_CLOSED_MAX_MS);
            let phase = Phase::HalfClosed;
            self.flows.insert(id, Flow { phase, silence_ms, ends_ms, ..flow });
            let delay_ms = 1 + self.random.below(silence_ms);
            self.after(delay_ms, Event::Packet(id));
            return;
        }
        self.flows.remove(&id);
        if self.random.chance(30) {
            let soon = self.random.chance(50);
            let delay_ms = self.random.below(if soon { 2_000 } else { REUSE_MAX_MS });
            self.after(delay_ms, Event::Reuse(flow.hash));
        }
    }

    /// The port of an old flow is used again.
    pub(crate) fn reuse(&mut self, hash: u64) {
        self.outcome.reused += 1;
        self.opens(hash);
    }

    /// A tenth of a second of an attack.
    pub(crate) fn volley(&mut self) {
        self.after(VOLLEY_MS, Event::Volley);
        let attack = self.scenario.attack;
        for _ in 0..per_volley(&mut self.random, attack.syns) {
            let hash = self.stranger();
            self.strike(hash, Segment::Open);
        }
        for _ in 0..per_volley(&mut self.random, attack.acks) {
            let hash = self.stranger();
            self.strike(hash, Segment::Later);
            if attack.second_acks {
                self.strike(hash, Segment::Later);
            }
        }
        for _ in 0..per_volley(&mut self.random, attack.fins) {
            let hash = self.stranger();
            self.strike(hash, Segment::End);
        }
        for _ in 0..per_volley(&mut self.random, attack.live_syns) {
            if let Some(hash) = self.victim() {
                self.strike(hash, Segment::Open);
            }
        }
        for _ in 0..per_volley(&mut self.random, attack.live_fin_syns) {
            if let Some(hash) = self.victim() {
                self.strike(hash, Segment::End);
                self.strike(hash, Segment::Open);
            }
        }
    }

    fn strike(&mut self, hash: u64, segment: Segment) {
        let (_, path) = self.plane.forward(hash, segment);
        self.outcome.attacks += u32::from(path != Path::Stateless);
    }

    /// The hash of a live TCP flow.
    fn victim(&mut self) -> Option<u64> {
        let count = u32::try_from(self.random.below(u64::from(self.outcome.flows) + 1)).unwrap();
        let (_, flow) = self.flows.range(count..).next()?;
        (!flow.udp).then_some(flow.hash)
    }
}

/// Packets of a volley at so many a second.
fn per_volley(random: &mut Random, per_second: u64) -> u64 {
    let tenths = per_second * VOLLEY_MS;
    tenths / 1_000 + u64::from(random.below(1_000) < tenths % 1_000)
}
