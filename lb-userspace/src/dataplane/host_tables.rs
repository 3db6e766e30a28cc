//! The same decision on the host: for `lbctl trace`, tests and simulation.

use std::net::{IpAddr, SocketAddr};

use lb_common::addr::Address;
use lb_common::backend::{Backend, BackendId};
use lb_common::control::Control;
use lb_common::decide::{Path, decide};
use lb_common::flow::{Bucket, Entry};
use lb_common::hash;
use lb_common::packet::Packet;
use lb_common::parse::{Flow, Inner, Segment};
use lb_common::process::{Verdict, process};
use lb_common::record::Record;
use lb_common::table::{HistoryRow, SlotRow};
use lb_common::tables::Tables;
use lb_common::verdict::FlowEvent;
use lb_common::vip::port_key;

use super::flows::HostBucket;
use super::{Dataplane, tick_shift};

/// The data plane's memory as [`Tables`].
pub struct HostTables<'a> {
    dataplane: &'a Dataplane,
    jiffies: u64,
    ingress: u32,
    read_only: bool,
}

/// A bucket that may refuse changes.
pub struct TraceBucket<'a> {
    bucket: HostBucket<'a>,
    read_only: bool,
}

impl Bucket for TraceBucket<'_> {
    fn load(&self, way: usize) -> Entry {
        self.bucket.load(way)
    }

    fn exchange(&self, way: usize, old: Entry, new: Entry) -> bool {
        // "Done" without doing: a trace must not try again.
        self.read_only || self.bucket.exchange(way, old, new)
    }
}

impl Tables for HostTables<'_> {
    type Bucket<'b>
        = TraceBucket<'b>
    where
        Self: 'b;

    fn control(&self) -> Option<&Control> {
        self.dataplane.memory.control.get(0)
    }

    fn slots(&self, row: u32) -> Option<&SlotRow> {
        self.dataplane.memory.slots.get(row as usize)
    }

    fn history(&self, row: u32) -> Option<&HistoryRow> {
        self.dataplane.memory.history.get(row as usize)
    }

    fn backend(&self, id: BackendId) -> Option<&Backend> {
        self.dataplane.memory.backends.get(usize::from(id.0))
    }

    fn bucket(&self, index: u32) -> Option<TraceBucket<'_>> {
        let bucket = HostBucket(self.dataplane.memory.flows.get(index as usize)?);
        Some(TraceBucket { bucket, read_only: self.read_only })
    }

    fn jiffies(&self) -> u64 {
        self.jiffies
    }

    fn may_look_again(&self, _tick: u16) -> bool {
        true
    }

    fn record(&self, record: Record) {
        if !self.read_only {
            self.dataplane.record(self, record);
        }
    }

    fn count(&self, event: FlowEvent) {
        if !self.read_only {
            self.dataplane.count_event(event);
        }
    }

    fn ingress(&self) -> u32 {
        self.ingress
    }
}

/// Where a flow goes, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trace {
    /// The VIP's number.
    pub vip: u16,
    /// The flow hash.
    pub hash: u64,
    /// The slot.
    pub slot: u32,
    /// Slots of the table.
    pub slots: u32,
    /// The owner; id 0 = none.
    pub owner: BackendId,
    /// How it was found.
    pub path: Path,
    /// The table's generation.
    pub generation: u32,
}

impl Dataplane {
    /// The memory as the programs see it, for packets that come in by `ingress`.
    #[must_use]
    pub fn tables(&self, ingress: u32) -> HostTables<'_> {
        let jiffies = u64::from(self.tick()) << tick_shift(self.hertz);
        HostTables { dataplane: self, jiffies, ingress, read_only: false }
    }

    /// Handles a packet on the host, as the program would.
    pub fn process<P: Packet>(&self, packet: &mut P, ingress: u32) -> Verdict {
        process(packet, &self.tables(ingress))
    }

    /// Where a later packet of this flow would go now. `None`: not a VIP.
    #[must_use]
    pub fn trace(&self, source: SocketAddr, vip: SocketAddr, protocol: u8) -> Option<Trace> {
        let tables = HostTables { read_only: true, ..self.tables(0) };
        let control = tables.control()?;
        let root = control.vip_root;
        let index = control.vips.get(root.index())?;
        let address = index.address(Address::from(vip.ip()).words(), root.multiplier())?;
        let key = port_key(vip.port().to_be(), protocol);
        let entry = *index.vip(address, key, root.multiplier())?;
        let hash = flow_hash(control, source, vip, protocol)?;
        let segment = Segment::Quoted;
        let inner = Inner { offset: 14, v6: vip.is_ipv6(), tos: 0, length: 40 };
        let flow = Flow { inner, vip: entry, hash, segment };
        let decision = decide(&tables, control, &flow)?;
        let pool = control.pools.get(usize::from(entry.pool))?;
        let table = pool.tables.get((pool.live & 1) as usize)?;
        Some(Trace {
            vip: entry.vip,
            hash,
            slot: decision.slot,
            slots: table.slots,
            owner: decision.owner,
            path: decision.path,
            generation: decision.generation,
        })
    }
}

/// The flow hash of a 5-tuple. `None` when the families differ.
fn flow_hash(control: &Control, source: SocketAddr, vip: SocketAddr, proto: u8) -> Option<u64> {
    let key = &control.settings.key;
    let ports = u32::from(source.port().to_be()) | u32::from(vip.port().to_be()) << 16;
    match (source.ip(), vip.ip()) {
        (IpAddr::V4(source), IpAddr::V4(vip)) => {
            let [source, vip] = [source, vip].map(|address| u32::from_ne_bytes(address.octets()));
            Some(hash::flow_v4(key, source, vip, ports, proto))
        }
        (IpAddr::V6(source), IpAddr::V6(vip)) => {
            let [source, vip] = [source, vip].map(|address| Address(address.octets()).words());
            Some(hash::flow_v6(key, source, vip, ports, proto))
        }
        _ => None,
    }
}
