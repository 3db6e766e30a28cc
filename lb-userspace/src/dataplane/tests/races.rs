//! The flow table under races: several CPUs, a flood and the ager over the same memory.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lb_common::backend::{Backend, BackendId};
use lb_common::control::Control;
use lb_common::decide::{Path, Question};
use lb_common::parse::Segment;
use lb_common::table::{HistoryRow, SlotRow};
use lb_common::tables::Tables;

use super::super::flows::{self, HostBucket};
use super::super::memory::Memory;
use super::{Random, ask, control, with_flows};

/// The flow table as the programs of all CPUs share it.
struct Shared<'a> {
    memory: &'a Memory,
    jiffies: &'a AtomicU64,
}

// SAFETY: the flow table's words are atomics, and nothing else is written while threads run.
unsafe impl Sync for Shared<'_> {}

impl Tables for Shared<'_> {
    type Bucket<'b>
        = HostBucket<'b>
    where
        Self: 'b;

    fn control(&self) -> Option<&Control> {
        self.memory.control.get(0)
    }

    fn slots(&self, _row: u32) -> Option<&SlotRow> {
        None
    }

    fn history(&self, _row: u32) -> Option<&HistoryRow> {
        None
    }

    fn backend(&self, _id: BackendId) -> Option<&Backend> {
        None
    }

    fn bucket(&self, index: u32) -> Option<HostBucket<'_>> {
        self.memory.flows.get(index as usize).map(HostBucket)
    }

    fn jiffies(&self) -> u64 {
        self.jiffies.load(Ordering::Relaxed)
    }

    fn may_look_again(&self, _tick: u16) -> bool {
        true
    }

    fn ingress(&self) -> u32 {
        0
    }
}

impl Shared<'_> {
    fn go(&self, ask: Question) -> (u16, Path) {
        let (owner, path) = self.tracked(ask);
        (owner.0, path)
    }

    fn tick(&self) -> u16 {
        let shift = self.control().unwrap().settings.tick_shift;
        lb_common::flow::tick(self.jiffies(), shift)
    }
}

/// Flows of one CPU; no other handles them, as a NIC's queues see to.
const FLOWS: usize = 100;
/// CPUs that handle flows.
const CPUS: usize = 3;
/// Packets of one CPU.
const PACKETS: usize = 400_000;
/// Answers from an entry after which a flow is confirmed: the first may lose its store to the
/// bucket's mark.
const SURE: u32 = 3;

/// A flow, and what its packets were answered.
struct Flow {
    hash: u64,
    owner: u16,
    answers: u32,
}

/// Sends packets of its flows; a confirmed one never loses its owner. How many were confirmed.
fn cpu(shared: &Shared<'_>, seed: u64) -> usize {
    let mut random = Random(seed);
    let mut flows: Vec<_> =
        (0..FLOWS).map(|_| Flow { hash: random.next(), owner: 0, answers: 0 }).collect();
    for _ in 0..PACKETS {
        let at = usize::try_from(random.below(FLOWS as u64)).unwrap();
        let flow = &mut flows[at];
        let now = u16::try_from(1 + random.below(1_000)).unwrap();
        let segment = if flow.answers == 0 { Segment::Open } else { Segment::Later };
        let (owner, path) = shared.go(ask(flow.hash, segment, now, 2_000));
        if path == Path::Entry && owner == flow.owner {
            flow.answers += 1;
            continue;
        }
        assert!(
            flow.answers <= SURE,
            "{:x} of {} went to {owner}: {path:?}",
            flow.hash,
            flow.owner
        );
        *flow = Flow { hash: flow.hash, owner, answers: u32::from(path != Path::Base) };
    }
    flows.iter().filter(|flow| flow.answers > SURE).count()
}

/// New flows all the time, of one packet each: buckets fill and overflow.
fn flood(shared: &Shared<'_>, stop: &AtomicBool) {
    let mut random = Random(99);
    while !stop.load(Ordering::Relaxed) {
        shared.go(ask(random.next(), Segment::Open, 3_000, 0));
    }
}

/// Time passes, and lbd forgets what is past.
fn ager(shared: &Shared<'_>, stop: &AtomicBool) -> u64 {
    let mut passes = 0;
    while !stop.load(Ordering::Relaxed) {
        passes += 1;
        // Up to half of an established flow's timeout, so that none is idle for that long.
        if passes % 64 == 0 {
            shared.jiffies.fetch_add(u64::from(super::HERTZ), Ordering::Relaxed);
        }
        flows::age(&shared.memory.flows, shared.tick());
    }
    passes
}

#[test]
fn no_confirmed_flow_loses_its_owner() {
    let dataplane = with_flows(512);
    let jiffies = AtomicU64::new(0);
    let shared = Shared { memory: &dataplane.memory, jiffies: &jiffies };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let cpus: Vec<_> = (0..CPUS as u64)
            .map(|seed| {
                scope.spawn({
                    let shared = &shared;
                    move || cpu(shared, seed)
                })
            })
            .collect();
        let flood = scope.spawn(|| flood(&shared, &stop));
        let ager = scope.spawn(|| ager(&shared, &stop));
        let confirmed: Vec<_> = cpus.into_iter().map(|cpu| cpu.join()).collect();
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap();
        let passes = ager.join().unwrap();
        let confirmed: usize = confirmed.into_iter().map(Result::unwrap).sum();
        println!("{confirmed} flows confirmed, {passes} passes of the ager");
        assert!(confirmed > CPUS * FLOWS / 2, "{confirmed}");
    });
}

#[test]
fn no_insertion_is_lost_while_there_is_room() {
    let dataplane = with_flows(4_000);
    let jiffies = AtomicU64::new(0);
    let shared = Shared { memory: &dataplane.memory, jiffies: &jiffies };
    let stop = AtomicBool::new(false);
    let hashes = |seed: u64| {
        let mut random = Random(seed << 40);
        (0..1_000).map(move |_| random.next())
    };
    std::thread::scope(|scope| {
        let ager = scope.spawn(|| ager(&shared, &stop));
        let cpus: Vec<_> = (1..=4)
            .map(|seed| {
                let shared = &shared;
                scope.spawn(move || {
                    for hash in hashes(seed) {
                        let owner = u16::try_from(seed).unwrap();
                        assert_eq!(shared.go(ask(hash, Segment::Later, 9, owner)).1, Path::Base);
                        assert_eq!(
                            shared.go(ask(hash, Segment::Later, 8, 7)),
                            (owner, Path::Entry)
                        );
                    }
                })
            })
            .collect();
        let ended: Vec<_> = cpus.into_iter().map(|cpu| cpu.join()).collect();
        stop.store(true, Ordering::Relaxed);
        ager.join().unwrap();
        ended.into_iter().for_each(|end| end.unwrap());
    });
    for seed in 1..=4 {
        for hash in hashes(seed) {
            let owner = u16::try_from(seed).unwrap();
            assert_eq!(shared.go(ask(hash, Segment::Quoted, 8, 7)), (owner, Path::Entry));
        }
    }
}

#[test]
fn two_cpus_with_the_same_new_flow_agree() {
    let dataplane = with_flows(4_000);
    let jiffies = AtomicU64::new(0);
    let shared = Shared { memory: &dataplane.memory, jiffies: &jiffies };
    let barrier = Barrier::new(2);
    let rounds = 3_000;
    // The table changes in between: each CPU would choose another backend.
    let cpu = |now: u16| {
        let mut random = Random(5);
        let mut owners = Vec::new();
        for _ in 0..rounds {
            let hash = random.next();
            barrier.wait();
            shared.go(ask(hash, Segment::Open, now, 0));
            barrier.wait();
            let (first, path) = shared.go(ask(hash, Segment::Later, now, 0));
            assert_eq!(path, Path::Entry);
            owners.push(first);
            assert_eq!(shared.go(ask(hash, Segment::Later, now, 0)), (first, Path::Entry));
        }
        owners
    };
    std::thread::scope(|scope| {
        let (one, two) = (scope.spawn(|| cpu(1)), scope.spawn(|| cpu(2)));
        let (one, two) = (one.join().unwrap(), two.join().unwrap());
        assert_eq!(one, two);
        // Both had their turn.
        assert!(one.contains(&1) && one.contains(&2));
    });
    assert_eq!(control(&dataplane).settings.bucket_mask.count_ones(), 11);
}
