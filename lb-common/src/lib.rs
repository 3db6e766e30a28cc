//! What the XDP programs and user space must agree on, and the one decision both make.
//!
//! No allocation, no IO, no clock: the same code runs in the kernel, in `lbd`, in `lbctl trace`,
//! in tests and in the simulator. The way of a packet:
//!
//! ```text
//! packet -> headers -> parse -> vip -> hash -> table -> flow -> decide -> encap | icmp
//! ```
#![no_std]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "words are packed and cut: a cast is how a field is taken out"
)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod addr;
pub mod agent;
pub mod backend;
pub mod checksum;
pub mod control;
pub mod decide;
pub mod encap;
pub mod flow;
pub mod hash;
pub mod headers;
pub mod icmp;
pub mod packet;
pub mod parse;
pub mod probe;
pub mod process;
pub mod record;
pub mod table;
pub mod tables;
pub mod verdict;
pub mod vip;

/// The layout of every map and pin; pins of another version are never reused.
pub const ABI_VERSION: u32 = 2;

/// Room for VIPs (address, protocol, port); index 0 counts the packets of no VIP.
pub const MAX_VIPS: usize = 4096;
/// Room for pools.
pub const MAX_POOLS: usize = 256;
/// The largest backend id: 15 bits of a slot, and 0 means "none".
pub const MAX_BACKEND_ID: u16 = 0x7fff;
/// Slots in one row of the slot map (64 bytes).
pub const SLOTS_PER_ROW: u32 = 32;
/// The largest lookup table, slots.
pub const MAX_SLOTS: u32 = 5_000_011;

/// Names of the maps, as in the object file and below the pin path.
pub mod map_name {
    /// One [`Control`](crate::control::Control).
    pub const CONTROL: &str = "LB_CONTROL";
    /// Rows of 32 slots.
    pub const SLOTS: &str = "LB_SLOTS";
    /// Rows of 8 histories, in step with `LB_SLOTS` (4 history rows for each row of slots).
    pub const HISTORY: &str = "LB_HISTORY";
    /// [`Backend`](crate::backend::Backend) by id.
    pub const BACKENDS: &str = "LB_BACKENDS";
    /// Buckets of the flow table.
    pub const FLOWS: &str = "LB_FLOWS";
    /// Per-CPU outcomes by VIP.
    pub const VIP_COUNTERS: &str = "LB_VIP_COUNTERS";
    /// Per-CPU events of the flow table.
    pub const FLOW_COUNTERS: &str = "LB_FLOW_COUNTERS";
    /// Per-CPU packets and bytes by backend id.
    pub const BACKEND_COUNTERS: &str = "LB_BACKEND_COUNTERS";
    /// Ring buffer of sampled drops.
    pub const DROPS: &str = "LB_DROPS";
    /// Records that wait for the flow table ([`Element`](crate::record::Element)), by CPU.
    pub const RECORDS: &str = "LB_RECORDS";
    /// What a CPU may still do in a tick; the program's own.
    pub const BUDGETS: &str = "LB_BUDGETS";
    /// lbd's own state, for its restart.
    pub const JOURNAL: &str = "LB_JOURNAL";
}

/// Map values that user space reads and writes through aya or the mapping.
#[cfg(feature = "user")]
mod pod {
    use crate::{
        agent,
        backend::Backend,
        verdict::{Counter, DropSample, FlowCounters, VipCounters},
    };

    // SAFETY: repr(C), integers and byte arrays only, no padding (asserted beside the type).
    unsafe impl aya::Pod for Backend {}
    // SAFETY: repr(C), an array of u64.
    unsafe impl aya::Pod for FlowCounters {}
    // SAFETY: repr(C), two u64.
    unsafe impl aya::Pod for Counter {}
    // SAFETY: repr(C), an array of Counter.
    unsafe impl aya::Pod for VipCounters {}
    // SAFETY: repr(C), integers and byte arrays only, no padding (asserted beside the type).
    unsafe impl aya::Pod for DropSample {}
    // SAFETY: repr(C), integers and byte arrays only, no padding (asserted beside the type).
    unsafe impl aya::Pod for agent::Settings {}
}
