//! The eBPF objects that the build step made, and loading them with the sizes of a configuration.

use aya::{Ebpf, EbpfLoader};
use lb_common::map_name;

/// The balancer's object file.
pub static BALANCER: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/balancer"));
/// The agent's object file.
pub static AGENT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agent"));

/// How many elements each map has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Sizes {
    /// Rows of 32 slots.
    pub slot_rows: u32,
    /// Backends, the unused id 0 included.
    pub backends: u32,
    /// VIPs, number 0 (no VIP) included.
    pub vips: u32,
    /// Buckets of the flow table, a power of two.
    pub flow_buckets: u32,
}

impl Sizes {
    /// Buckets for `flows` flows: at least two entries for each, so that a bucket and its
    /// alternate overflow for fewer than one flow in a million.
    #[must_use]
    pub fn buckets_for(flows: u32) -> u32 {
        (flows.max(8) / 4).next_power_of_two()
    }
}

/// Loads the balancer with maps of these sizes; nothing is attached or pinned.
///
/// # Errors
/// The kernel refuses a map or the object is not what this build made.
pub fn load_balancer(sizes: &Sizes) -> Result<Ebpf, aya::EbpfError> {
    EbpfLoader::new()
        .map_max_entries(map_name::SLOTS, sizes.slot_rows)
        .map_max_entries(map_name::HISTORY, sizes.slot_rows * 4)
        .map_max_entries(map_name::BACKENDS, sizes.backends)
        .map_max_entries(map_name::BACKEND_COUNTERS, sizes.backends)
        .map_max_entries(map_name::VIP_COUNTERS, sizes.vips)
        .map_max_entries(map_name::FLOWS, sizes.flow_buckets)
        .load(BALANCER)
}
