//! The eBPF objects that the build step made, and how large their maps are for a configuration.

use aya::EbpfLoader;
use lb_common::{MAX_SLOTS, SLOTS_PER_ROW, flow, map_name};
use serde::{Deserialize, Serialize};

/// The balancer's object file.
pub static BALANCER: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/balancer"));
/// The agent's object file.
pub static AGENT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agent"));
/// The bench's object file: the balancer's programs, and the same wrapped for repeated runs.
pub static BENCH: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench"));

/// The balancer's XDP program.
pub const PROGRAM: &str = "lb_ingress";
/// The program that tells the kernel's tick.
pub const CLOCK: &str = "lb_clock";

/// How many elements each map has; fixed while the maps live.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sizes {
    /// Rows of 32 slots.
    pub slot_rows: u32,
    /// Backends, the unused id 0 included.
    pub backends: u32,
    /// VIPs, number 0 (no VIP) included.
    pub vips: u32,
    /// Buckets of the flow table, a power of two.
    pub flow_buckets: u32,
    /// 8-byte words of the journal.
    pub journal_words: u32,
}

impl Sizes {
    /// Sizes with room for `slots` slots over all pools (each pool needs its table twice),
    /// `backends` backends, `vips` VIPs and `flows` flows.
    #[must_use]
    pub fn with_room(slots: u64, backends: u32, vips: u32, flows: u32) -> Self {
        // One row for each table is partly empty, and the first row is no table's.
        let rows = slots / u64::from(SLOTS_PER_ROW) + 2 * lb_common::MAX_POOLS as u64 + 1;
        Self {
            slot_rows: u32::try_from(rows).unwrap_or(MAX_SLOTS),
            backends: backends + 1,
            vips: vips + 1,
            flow_buckets: Self::buckets_for(flows),
            // Two copies of at most 256 bytes a backend and VIP, and 64 KiB for the rest.
            journal_words: 2 * (8192 + 32 * backends + 128 * vips),
        }
    }

    /// Buckets for `flows` flows: filled to three tenths at most, at which fewer than one flow in a
    /// million finds both its buckets full.
    #[must_use]
    pub fn buckets_for(flows: u32) -> u32 {
        let entries = u64::from(flows.max(8)) * 10 / 3;
        u32::try_from(entries.div_ceil(flow::WAYS as u64))
            .unwrap_or(u32::MAX >> 1)
            .next_power_of_two()
    }

    /// Tells the loader.
    pub(super) fn apply(&self, loader: &mut EbpfLoader<'_>) {
        loader
            .map_max_entries(map_name::SLOTS, self.slot_rows)
            .map_max_entries(map_name::HISTORY, self.slot_rows * 4)
            .map_max_entries(map_name::BACKENDS, self.backends)
            .map_max_entries(map_name::BACKEND_COUNTERS, self.backends)
            .map_max_entries(map_name::VIP_COUNTERS, self.vips)
            .map_max_entries(map_name::FLOWS, self.flow_buckets)
            .map_max_entries(map_name::JOURNAL, self.journal_words);
    }
}
