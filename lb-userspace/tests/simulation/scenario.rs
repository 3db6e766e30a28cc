//! What may happen in a run, and what came of it.

use std::collections::BTreeMap;

use lb_userspace::tracking::OnDown;

/// What is done wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    None,
    /// Changes are in force at once.
    NoPrepare,
    /// The window is shorter than a flow's silence.
    ShortWindow,
    /// Entries live shorter than a flow's silence.
    ShortIdle,
    /// The base is the owner before the last change, not the one before the window.
    NewestBase,
    /// A slot turns stateless when its window closes, whatever entries it has.
    NoExceptions,
    /// The scan sees only half of the flow table.
    HalfScan,
    /// The scan sees only flows of which two packets were seen.
    ConfirmedOnly,
    /// SYNs in contested slots are not entered.
    SynNotEntered,
    /// A SYN goes to the slot's owner though there is an entry.
    SynReowns,
    /// A miss is answered but not entered.
    MissNotEntered,
    /// A restart forgets the slots' past.
    RestartForgets,
    /// Bases are not published.
    NoBase,
}

/// Who disturbs; packets a second, by random flows that do not exist.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attack {
    pub(crate) syns: u64,
    /// Packets in mid-flow.
    pub(crate) acks: u64,
    /// The same flows' second packets.
    pub(crate) second_acks: bool,
    /// FINs of flows that do not exist.
    pub(crate) fins: u64,
    /// SYNs of live flows, whose addresses the attacker knows.
    pub(crate) live_syns: u64,
    /// Live flows of which the attacker spoofs a FIN and then a SYN.
    pub(crate) live_fin_syns: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) backends: u16,
    pub(crate) change_every_ms: u64,
    pub(crate) death_every_ms: u64,
    pub(crate) restart_every_ms: u64,
    pub(crate) on_down: OnDown,
    /// All flows are always tracked; UDP ones are in any case.
    pub(crate) always: bool,
    pub(crate) force: bool,
    pub(crate) fault: Fault,
    pub(crate) window_ms: u64,
    /// Idle timeouts of the flow table.
    pub(crate) established_ms: u64,
    pub(crate) closing_ms: u64,
    pub(crate) half_open_ms: u64,
    pub(crate) udp_ms: u64,
    /// The longest silence of a TCP flow, of a half-closed one, and of a UDP flow.
    pub(crate) silence_ms: u64,
    pub(crate) half_closed_silence_ms: u64,
    pub(crate) udp_silence_ms: u64,
    /// From the first packet of a flow to the second.
    pub(crate) round_trip_ms: u64,
    /// One of so many flows is UDP to a VIP that is always tracked; 0: none.
    pub(crate) udp_part: u64,
    /// Buckets of the flow table.
    pub(crate) buckets: u32,
    /// How many bits of a tag differ from flow to flow, upper ones; 32 in nature.
    pub(crate) tag_bits: u32,
    pub(crate) attack: Attack,
}

pub(crate) const CALM: Scenario = Scenario {
    backends: 20,
    change_every_ms: 30_000,
    death_every_ms: 70_000,
    restart_every_ms: 25_000,
    on_down: OnDown::Keep,
    always: false,
    force: false,
    fault: Fault::None,
    window_ms: 60_000,
    established_ms: 90_000,
    closing_ms: 30_000,
    half_open_ms: 10_000,
    udp_ms: 30_000,
    silence_ms: 60_000,
    half_closed_silence_ms: 30_000,
    udp_silence_ms: 30_000,
    round_trip_ms: 200,
    udp_part: 8,
    buckets: 2_048,
    tag_bits: 32,
    attack: Attack {
        syns: 0,
        acks: 0,
        second_acks: false,
        fins: 0,
        live_syns: 0,
        live_fin_syns: 0,
    },
};

/// What kind of flow broke.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Class {
    /// Its second packet went elsewhere than its first.
    Handshake,
    /// A later one did.
    Established,
    /// One after its FIN did.
    HalfClosed,
    /// One of a UDP flow did.
    Datagram,
}

#[derive(Default, Debug)]
pub(crate) struct Outcome {
    pub(crate) flows: u32,
    pub(crate) packets: u32,
    pub(crate) broken: BTreeMap<Class, u32>,
    /// New flows with the addresses and ports of an old one.
    pub(crate) reused: u32,
    pub(crate) half_closed: u32,
    pub(crate) ended_with_backend: u32,
    /// New flows that no living backend got.
    pub(crate) unserved: u32,
    pub(crate) activations: u32,
    pub(crate) releases: u32,
    pub(crate) all_down: u32,
    pub(crate) crashes: u32,
    pub(crate) forced: u64,
    /// Confirmed entries with another owner in slots that had turned stateless.
    pub(crate) untracked: u32,
    pub(crate) contested_packets: u32,
    /// Packets of attackers that met a contested slot.
    pub(crate) attacks: u32,
    /// The sum over all scans of contested slots, and the number of scans.
    pub(crate) contested_slots: (u64, u64),
}

impl Outcome {
    pub(crate) fn all_broken(&self) -> u32 {
        self.broken.values().sum()
    }

    /// Flows that broke with more than one packet behind them.
    pub(crate) fn live_broken(&self) -> u32 {
        self.all_broken() - self.broken.get(&Class::Handshake).copied().unwrap_or(0)
    }
}

pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// SplitMix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn backend(&mut self, count: u16) -> u16 {
        u16::try_from(self.below(u64::from(count))).unwrap() + 1
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
