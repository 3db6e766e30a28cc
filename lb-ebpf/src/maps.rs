//! The balancer's maps, reached through [`lb_common::tables::Tables`].
//!
//! Sizes here are the smallest ones; user space sets the real ones when it loads the object.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_jiffies64};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, RingBuf};
use aya_ebpf::programs::XdpContext;
use lb_common::backend::{Backend, BackendId};
use lb_common::control::Control;
use lb_common::decide::{Path, Question, tracked};
use lb_common::flow::{Bucket, Entry, WAYS, bucket_of, tick};
use lb_common::record::{Element, MAX_CPUS, Record, WAITING, Waiting};
use lb_common::table::{HistoryRow, SlotRow};
use lb_common::tables::Tables;
use lb_common::verdict::{Counter, FlowCounters, FlowEvent, VipCounters};

#[map]
static LB_CONTROL: Array<Control> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static LB_SLOTS: Array<SlotRow> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static LB_HISTORY: Array<HistoryRow> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static LB_BACKENDS: Array<Backend> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static LB_FLOWS: Array<[u64; WAYS]> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static LB_VIP_COUNTERS: PerCpuArray<VipCounters> = PerCpuArray::with_max_entries(1, 0);
#[map]
static LB_FLOW_COUNTERS: PerCpuArray<FlowCounters> = PerCpuArray::with_max_entries(1, 0);
#[map]
static LB_BACKEND_COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(1, 0);
#[map]
static LB_JOURNAL: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static LB_RECORDS: Array<Element> = Array::with_max_entries(MAX_CPUS, BPF_F_MMAPABLE);
#[map]
static LB_BUDGETS: PerCpuArray<Budget> = PerCpuArray::with_max_entries(3, 0);
#[map]
pub(crate) static LB_DROPS: RingBuf = RingBuf::with_byte_size(1 << 18, 0);

/// What one CPU may still do in the current tick.
#[repr(C)]
struct Budget {
    tick: u32,
    used: u32,
}

/// Index of the ICMP errors' budget.
const BUDGET_ICMP: u32 = 0;
/// Index of the drop samples' budget.
const BUDGET_SAMPLES: u32 = 1;
/// Index of the budget for second looks of new flows.
const BUDGET_SECOND_LOOKS: u32 = 2;
/// Second looks of one CPU in one tick. A table filled as it may be sends four new flows in a
/// thousand for one, so this is reached at a quarter of a million new flows a second and CPU.
const SECOND_LOOKS_PER_TICK: u16 = 1_000;

fn budget(index: u32, limit: u16, tick: u16) -> bool {
    let Some(budget) = LB_BUDGETS.get_ptr_mut(index) else { return false };
    // SAFETY: this CPU's value; nothing else runs on it until the program returns.
    let budget = unsafe { &mut *budget };
    if budget.tick != tick as u32 {
        budget.tick = tick as u32;
        budget.used = 0;
    }
    budget.used += 1;
    budget.used <= limit as u32
}

/// May one more ICMP error be sent in this tick?
pub(crate) fn icmp_allowed() -> bool {
    let Some(control) = LB_CONTROL.get(0) else { return false };
    let settings = &control.settings;
    // SAFETY: no arguments, no effects.
    let jiffies = unsafe { bpf_jiffies64() };
    budget(BUDGET_ICMP, settings.icmp_per_tick, tick(jiffies, settings.tick_shift))
}

/// May one more drop be sampled in this tick?
pub(crate) fn sample_allowed() -> bool {
    let Some(control) = LB_CONTROL.get(0) else { return false };
    let settings = &control.settings;
    // SAFETY: no arguments, no effects.
    let jiffies = unsafe { bpf_jiffies64() };
    budget(BUDGET_SAMPLES, settings.samples_per_tick, tick(jiffies, settings.tick_shift))
}

/// The tick now.
pub(crate) fn now() -> u16 {
    let Some(control) = LB_CONTROL.get(0) else { return 0 };
    // SAFETY: no arguments, no effects.
    tick(unsafe { bpf_jiffies64() }, control.settings.tick_shift)
}

/// User space only; a map that no program names would not be made.
pub(crate) fn journal_exists() -> bool {
    LB_JOURNAL.get(0).is_some()
}

/// The maps, for one packet.
pub(crate) struct Maps {
    pub(crate) ingress: u32,
}

impl Maps {
    pub(crate) fn new(context: &XdpContext) -> Self {
        let context = context.as_ptr().cast::<aya_ebpf::bindings::xdp_md>();
        // SAFETY: the kernel gives a valid xdp_md.
        Self { ingress: unsafe { (*context).ingress_ifindex } }
    }
}

/// A bucket in the flow map.
pub(crate) struct FlowBucket(*mut [u64; WAYS]);

impl Bucket for FlowBucket {
    #[inline(always)]
    fn load(&self, way: usize) -> Entry {
        let entry = self.0.cast::<u64>().wrapping_add(way & (WAYS - 1));
        // SAFETY: inside the bucket's 64 bytes; an aligned 8-byte load is one instruction.
        Entry(unsafe { core::ptr::read_volatile(entry) })
    }

    #[inline(always)]
    fn exchange(&self, way: usize, old: Entry, new: Entry) -> bool {
        let entry = self.0.cast::<u64>().wrapping_add(way & (WAYS - 1));
        // SAFETY: inside the bucket, aligned; the v3 instruction set has this instruction.
        let (_, done) = unsafe {
            core::intrinsics::atomic_cxchg::<
                u64,
                { core::intrinsics::AtomicOrdering::SeqCst },
                { core::intrinsics::AtomicOrdering::SeqCst },
            >(entry, old.0, new.0)
        };
        done
    }
}

/// The records of the CPU this runs on.
struct OwnRecords(*mut u64);

impl Waiting for OwnRecords {
    #[inline(always)]
    fn load(&self, index: usize) -> u64 {
        // SAFETY: below WORDS, inside the element; an aligned 8-byte load is one instruction.
        unsafe { core::ptr::read_volatile(self.0.wrapping_add(index)) }
    }

    #[inline(always)]
    fn store(&self, index: usize, word: u64) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(self.0.wrapping_add(index), word) }
    }
}

impl Tables for Maps {
    type Bucket<'a> = FlowBucket;

    #[inline(always)]
    fn control(&self) -> Option<&Control> {
        LB_CONTROL.get(0)
    }

    #[inline(always)]
    fn slots(&self, row: u32) -> Option<&SlotRow> {
        LB_SLOTS.get(row)
    }

    #[inline(always)]
    fn history(&self, row: u32) -> Option<&HistoryRow> {
        LB_HISTORY.get(row)
    }

    #[inline(always)]
    fn backend(&self, id: BackendId) -> Option<&Backend> {
        LB_BACKENDS.get(id.0 as u32)
    }

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<FlowBucket> {
        LB_FLOWS.get_ptr_mut(index).map(FlowBucket)
    }

    #[inline(always)]
    fn jiffies(&self) -> u64 {
        // SAFETY: no arguments, no effects.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn may_look_again(&self, tick: u16) -> bool {
        budget(BUDGET_SECOND_LOOKS, SECOND_LOOKS_PER_TICK, tick)
    }

    #[inline(always)]
    fn count(&self, event: FlowEvent) {
        let Some(counters) = LB_FLOW_COUNTERS.get_ptr_mut(0) else { return };
        // SAFETY: this CPU's value.
        let counters = unsafe { &mut *counters };
        counters.events[event as usize & 7] += 1;
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.ingress
    }

    #[inline(always)]
    fn record(&self, record: Record) {
        let (hash, word) = record.words();
        lb_record(hash, word);
    }

    #[inline(always)]
    fn tracked(&self, ask: Question) -> (BackendId, Path) {
        let answer = lb_tracked(ask.hash, ask.pack());
        (BackendId(answer as u16), Path::unpack(answer >> 16))
    }
}

/// `lb_common::decide::tracked`, verified once for all packets.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn lb_tracked(hash: u64, ask: u64) -> u32 {
    let ask = Question::unpack(hash, ask);
    let Some(control) = LB_CONTROL.get(0) else { return 0 };
    // The ingress interface plays no part in tracking.
    let (owner, path) = tracked(&Maps { ingress: 0 }, control, ask);
    owner.0 as u32 | (path as u32) << 16
}

/// Leaves a record, and enters all that wait on this CPU once they fill their places; verified once
/// for all packets.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn lb_record(hash: u64, word: u64) -> u32 {
    let Some(control) = LB_CONTROL.get(0) else { return 0 };
    let maps = Maps { ingress: 0 };
    let record = Record::from_words(hash, word);
    // SAFETY: no arguments.
    let Some(waiting) = LB_RECORDS.get_ptr_mut(unsafe { bpf_get_smp_processor_id() }) else {
        maps.enter(record);
        return 0;
    };
    let waiting = OwnRecords(waiting.cast());
    if !waiting.push(record) {
        return 0;
    }
    // All cache lines are asked for before the first one is needed, so they come at the same time.
    for place in 0..WAITING {
        let index = bucket_of(waiting.record(place).hash, control.settings.bucket_mask);
        if let Some(bucket) = maps.bucket(index) {
            let _line = bucket.load(0);
        }
    }
    for place in 0..WAITING {
        maps.enter(waiting.record(place));
    }
    0
}

/// Counts a packet under its VIP and outcome.
#[inline(always)]
pub(crate) fn count(vip: u16, outcome: u32, bytes: u64) {
    let Some(counters) = LB_VIP_COUNTERS.get_ptr_mut(vip as u32) else { return };
    // SAFETY: this CPU's value.
    let counters = unsafe { &mut *counters };
    let counter = &mut counters.outcomes[(outcome & 15) as usize];
    counter.packets += 1;
    counter.bytes += bytes;
}

/// Counts a packet sent to a backend.
#[inline(always)]
pub(crate) fn count_backend(id: BackendId, bytes: u64) {
    let Some(counter) = LB_BACKEND_COUNTERS.get_ptr_mut(id.0 as u32) else { return };
    // SAFETY: this CPU's value.
    let counter = unsafe { &mut *counter };
    counter.packets += 1;
    counter.bytes += bytes;
}
