//! The one value that holds everything small: settings, pools, VIPs. One map lookup reaches all.

use crate::MAX_POOLS;
use crate::hash::HashKey;
use crate::table::Pool;
use crate::vip::{VipIndex, VipRoot};

/// Idle timeouts in ticks (see [`Settings::tick_shift`]), each at most [`Idle::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Idle {
    /// A flow of which only the first packet was seen.
    pub half_open: u16,
    /// An established TCP flow.
    pub established: u16,
    /// A TCP flow after FIN or RST.
    pub closing: u16,
    /// Zero.
    pub pad: u16,
}

impl Idle {
    /// Half of what a deadline can tell apart: more than two hours.
    pub const MAX: u16 = crate::flow::DEADLINE / 2;
}

/// What holds for every packet; each field may change alone.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, align(64))]
pub struct Settings {
    /// The cluster secret.
    pub key: HashKey,
    /// The LB's own IPv6 address as it lies in a packet, source of GUE over IPv6.
    pub source_v6: [u64; 2],
    /// The first 64 bits of the source of IPIP over IPv6, as they lie in a packet.
    pub ipip_prefix_v6: u64,
    /// The LB's own IPv4 address as it lies in a packet, source of GUE over IPv4.
    pub source_v4: u32,
    /// The first 16 bits of the source of IPIP over IPv4 and two zero bytes, as they lie.
    pub ipip_prefix_v4: u32,
    /// Buckets of the flow table minus one (a power of two minus one).
    pub bucket_mask: u32,
    /// A tick is `2^tick_shift` jiffies: about a second.
    pub tick_shift: u32,
    /// Idle timeouts.
    pub idle: Idle,
    /// UDP port of GUE, as it lies in a packet.
    pub gue_port: u16,
    /// ICMP errors that one CPU may send in one tick.
    pub icmp_per_tick: u16,
    /// Drop samples that one CPU may write in one tick.
    pub samples_per_tick: u16,
    /// Zero.
    pub pad: u16,
}

/// See the module; about 1.6 MB, of which a packet touches a few lines.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Control {
    /// What holds for every packet.
    pub settings: Settings,
    /// Which VIP index is live.
    pub vip_root: VipRoot,
    /// Zero.
    pub pad: [u64; 7],
    /// By pool number.
    pub pools: [Pool; MAX_POOLS],
    /// Two: one live, one being built.
    pub vips: [VipIndex; 2],
}
