//! The data plane from user space: everything lbd tells the programs, and reads back.
//!
//! Every change that spans more than one word is built where no program looks, made visible by
//! one store, and its old place is reused only after a grace period. [`Dataplane`] is one type
//! for the kernel's maps and for plain memory of the same layout, so that tests and the simulator
//! run what production runs.

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use lb_common::addr::Address;
use lb_common::backend::{Backend, BackendId, Link, Outer, State};
use lb_common::control::{Control, Idle, Settings};
use lb_common::encap::checksum_base;
use lb_common::flow;
use lb_common::hash::HashKey;
use lb_common::table::{History, HistoryRow, Pool, SLOTS_PER_HISTORY_ROW, Slot, SlotRow, Table};
use lb_common::vip::VipIndex;
use lb_common::{MAX_POOLS, SLOTS_PER_ROW};

pub use self::error::Error;
pub use self::flows::FlowRecord;
pub use self::host_tables::{HostTables, Trace};
pub use self::kernel::Attached;
use self::kernel::Kernel;
use self::memory::Memory;
pub use self::object::Sizes;
use self::rows::FreeRows;
pub use self::vip_index::{VipSpec, VipTracking};
use crate::desired::Encap;
use crate::host::membarrier::wait_for_grace_period;

mod debug_lines;
mod error;
mod flows;
mod host_tables;
mod journal;
mod kernel;
mod memory;
pub mod object;
mod own_probe;
mod records;
mod rows;
#[cfg(test)]
mod tests;
mod vip_index;

/// ICMP errors that one CPU sends in one tick (about a second) at most; RFC 1812 section 4.3.2.8
/// asks for a limit.
const ICMP_PER_TICK: u16 = 1_000;
/// Drop samples that one CPU writes in one tick at most.
const SAMPLES_PER_TICK: u16 = 100;

/// A record may wait so long before it keeps its flow alive, so a flow lives as much longer:
/// [`Dataplane::enter_records`] is called each second.
pub const RECORDS_LAG: Duration = Duration::from_secs(2);

/// A backend for the data plane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackendSpec {
    /// Where its packets go.
    pub destination: IpAddr,
    /// How.
    pub encap: Encap,
    /// The link-layer header; `None` = its next hop is not resolved.
    pub link: Option<Link>,
    /// Largest IP packet on the path to it, bytes.
    pub path_mtu: u16,
}

impl BackendSpec {
    /// The outer headers of its packets.
    #[must_use]
    pub const fn outer(&self) -> Outer {
        match (self.encap, self.destination) {
            (Encap::Ipip, IpAddr::V4(_)) => Outer::IpipV4,
            (Encap::Ipip, IpAddr::V6(_)) => Outer::IpipV6,
            (Encap::Gue, IpAddr::V4(_)) => Outer::GueV4,
            (Encap::Gue, IpAddr::V6(_)) => Outer::GueV6,
        }
    }
}

/// What holds for every packet.
#[derive(Clone, Copy)]
pub struct SettingsSpec {
    /// The cluster secret.
    pub secret: [u8; 16],
    /// Source of GUE over IPv4.
    pub source_v4: Option<Ipv4Addr>,
    /// Source of GUE over IPv6.
    pub source_v6: Option<Ipv6Addr>,
    /// The last 16 bits are replaced by entropy.
    pub ipip_source_v4: Ipv4Addr,
    /// The last 64 bits are replaced by entropy.
    pub ipip_source_v6: Ipv6Addr,
    /// UDP port of GUE.
    pub gue_port: u16,
    /// Idle timeout of a flow of which one packet was seen.
    pub half_open: Duration,
    /// Idle timeout of an established TCP flow.
    pub established: Duration,
    /// Idle timeout of a TCP flow after FIN or RST.
    pub closing: Duration,
    /// The kernel's jiffies in a second.
    pub hertz: u32,
}

/// The data plane.
pub struct Dataplane {
    memory: Memory,
    kernel: Option<Kernel>,
    sizes: Sizes,
    rows: FreeRows,
    hertz: u32,
    /// Plain memory has no kernel to ask for the time.
    jiffies: u64,
}

impl Dataplane {
    /// Plain memory, for tests and simulation.
    #[must_use]
    pub fn in_memory(sizes: &Sizes) -> Self {
        Self::over(Memory::zeroed(sizes), None, *sizes)
    }

    fn over(memory: Memory, kernel: Option<Kernel>, sizes: Sizes) -> Self {
        let used = (0..MAX_POOLS).filter_map(|pool| {
            let pool = memory.control.get(0)?.pools.get(pool)?;
            let table = pool.tables.get((pool.live & 1) as usize)?;
            Some((table.first_row, table.slots.div_ceil(SLOTS_PER_ROW)))
        });
        // The first row stays zero: it is what a pool without a table has for one.
        let rows = FreeRows::new(sizes.slot_rows, used.chain([(0, 1)]));
        let mut dataplane = Self { memory, kernel, sizes, rows, hertz: 250, jiffies: 0 };
        dataplane.memory_settings(|settings| settings.bucket_mask = sizes.flow_buckets - 1);
        dataplane
    }

    /// How large the maps are.
    #[must_use]
    pub const fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn memory_settings(&mut self, change: impl FnOnce(&mut Settings)) {
        let Some(mut settings) = self.memory.control.get(0).map(|control| control.settings) else {
            return;
        };
        change(&mut settings);
        let Some(control) = self.memory.control.place(0) else { return };
        // SAFETY: inside the mapping; fields are independent of each other, and programs read
        // each with one load.
        unsafe {
            field::<_, Settings>(control, offset_of!(Control, settings)).write_volatile(settings)
        }
    }

    /// Ticks of a duration, rounded up; at most [`Idle::MAX`] less one.
    fn ticks(hertz: u32, duration: Duration) -> u16 {
        let jiffies = duration.as_millis() * u128::from(hertz);
        let ticks = jiffies.div_ceil(1000 << tick_shift(hertz));
        u16::try_from(ticks).unwrap_or(u16::MAX).min(Idle::MAX - 1)
    }

    /// Sets what holds for every packet.
    pub fn set_settings(&mut self, spec: &SettingsSpec) {
        self.hertz = spec.hertz.max(1);
        let ticks = |duration| Self::ticks(self.hertz, duration);
        let idle = Idle {
            half_open: ticks(spec.half_open),
            established: ticks(spec.established + RECORDS_LAG),
            closing: ticks(spec.closing),
            pad: 0,
        };
        let bucket_mask = self.sizes.flow_buckets - 1;
        let [a, b, ..] = spec.ipip_source_v4.octets();
        let [high, _] = Address(spec.ipip_source_v6.octets()).words();
        let settings = Settings {
            key: HashKey::new(spec.secret),
            source_v6: spec.source_v6.map_or([0; 2], |source| Address(source.octets()).words()),
            ipip_prefix_v6: high,
            source_v4: spec.source_v4.map_or(0, |source| u32::from_ne_bytes(source.octets())),
            ipip_prefix_v4: u32::from_ne_bytes([a, b, 0, 0]),
            bucket_mask,
            tick_shift: tick_shift(self.hertz),
            idle,
            gue_port: spec.gue_port.to_be(),
            icmp_per_tick: ICMP_PER_TICK,
            samples_per_tick: SAMPLES_PER_TICK,
            pad: 0,
        };
        self.memory_settings(|old| *old = settings);
    }

    /// Sets the backends named, and no others; visible each at once, then a grace period.
    ///
    /// # Errors
    /// The kernel has no grace periods to wait for.
    pub fn set_backends(
        &mut self,
        backends: &BTreeMap<BackendId, BackendSpec>,
    ) -> Result<(), Error> {
        let Some(settings) = self.memory.control.get(0).map(|control| control.settings) else {
            return Ok(());
        };
        for (id, spec) in backends {
            self.set_backend(&settings, *id, spec);
        }
        self.grace()
    }

    fn set_backend(&mut self, settings: &Settings, id: BackendId, spec: &BackendSpec) {
        let Some(old) = self.memory.backends.get(usize::from(id.0)).copied() else { return };
        let outer = spec.outer();
        let source = match outer {
            Outer::IpipV4 => settings.ipip_prefix_v4,
            Outer::GueV4 | Outer::IpipV6 | Outer::GueV6 => settings.source_v4,
        };
        let address = Address::from(spec.destination);
        let checksum = checksum_base(address, source);
        let destination = address.words();
        let link = State::unpack(old.state).link ^ 1;
        let inner_mtu = match spec.link {
            Some(_) => spec.path_mtu.saturating_sub(outer.overhead()),
            None => 0,
        };
        let Some(place) = self.memory.backends.place(usize::from(id.0)) else { return };
        if old.destination != destination {
            // The id is new here: no table names it yet.
            let backend = Backend { destination, checksum, ..Backend::default() };
            // SAFETY: inside the mapping, aligned.
            unsafe { place.write_volatile(backend) }
        } else if old.checksum != checksum {
            // The LB's own address changed.
            let sum = field::<_, u32>(place, offset_of!(Backend, checksum));
            // SAFETY: inside the element, aligned, only accessed as a 32-bit word.
            unsafe { AtomicU32::from_ptr(sum) }.store(checksum, Ordering::Release);
        }
        let links = field::<_, Link>(place, offset_of!(Backend, links));
        let spare = links.wrapping_add(usize::from(link));
        // SAFETY: inside the element; programs use the other copy until `state` changes.
        unsafe { spare.write_volatile(spec.link.unwrap_or_default()) }
        let state = field::<_, u32>(place, offset_of!(Backend, state));
        // SAFETY: inside the element, aligned, only accessed as a 32-bit word.
        let state = unsafe { AtomicU32::from_ptr(state) };
        state.store(State { inner_mtu, outer, link }.pack(), Ordering::Release);
    }

    /// Makes a whole new table of a pool live with one store, after what was recorded under the
    /// old one has been entered.
    ///
    /// # Errors
    /// No such pool, no room for a second table of this size, or the lengths differ.
    pub fn publish_table(
        &mut self,
        pool: u16,
        slots: &[u16],
        history: &[[u16; 4]],
        generation: u32,
    ) -> Result<(), Error> {
        let no_room = Error::NoRoom { slots: slots.len() };
        let Ok(count) = u32::try_from(slots.len()) else { return Err(no_room) };
        if usize::from(pool) >= MAX_POOLS || history.len() != slots.len() {
            return Err(Error::NoPool { pool });
        }
        let rows = count.div_ceil(SLOTS_PER_ROW);
        let first_row = self.rows.take(rows).ok_or(Error::NoRoom { slots: slots.len() })?;
        self.write_rows(first_row, slots, history);
        let has_history = u32::from(history.iter().any(|row| row != &[0; 4]));
        self.enter_records();
        self.swap_table(pool, Table { first_row, slots: count, generation, has_history })?;
        // What packets on their way recorded under the old one.
        self.enter_records();
        Ok(())
    }

    fn write_rows(&mut self, first_row: u32, slots: &[u16], history: &[[u16; 4]]) {
        for (index, chunk) in slots.chunks(SLOTS_PER_ROW as usize).enumerate() {
            let mut row: SlotRow = [Slot::default(); SLOTS_PER_ROW as usize];
            row.iter_mut().zip(chunk).for_each(|(slot, word)| *slot = Slot(*word));
            self.memory.slots.set(first_row as usize + index, row);
        }
        let first_row = first_row as usize * (SLOTS_PER_ROW / SLOTS_PER_HISTORY_ROW) as usize;
        for (index, chunk) in history.chunks(SLOTS_PER_HISTORY_ROW as usize).enumerate() {
            let mut row: HistoryRow = [History::default(); SLOTS_PER_HISTORY_ROW as usize];
            row.iter_mut().zip(chunk).for_each(|(place, [base, a, b, c])| {
                let last = [BackendId(*a), BackendId(*b), BackendId(*c)];
                *place = History { base: BackendId(*base), last };
            });
            self.memory.history.set(first_row + index, row);
        }
    }

    /// The one pointer swap; then the old table's rows are free.
    fn swap_table(&mut self, pool: u16, table: Table) -> Result<(), Error> {
        let Some(old) = self.pool(pool) else { return Err(Error::NoPool { pool }) };
        let Some(control) = self.memory.control.place(0) else { return Ok(()) };
        let pools = field::<_, Pool>(control, offset_of!(Control, pools));
        let place = pools.wrapping_add(usize::from(pool));
        let spare = (old.live & 1) ^ 1;
        let tables = place.cast::<Table>().wrapping_add(spare as usize);
        // SAFETY: inside the pool; programs use the other table until `live` changes.
        unsafe { tables.write_volatile(table) }
        let live = field::<_, u32>(place, offset_of!(Pool, live));
        // SAFETY: inside the pool, aligned, only accessed as a 32-bit word.
        let live = unsafe { AtomicU32::from_ptr(live) };
        live.store(spare, Ordering::Release);
        self.grace()?;
        if let Some(before) = old.tables.get((old.live & 1) as usize) {
            self.rows.give(before.first_row, before.slots.div_ceil(SLOTS_PER_ROW));
        }
        Ok(())
    }

    fn pool(&self, pool: u16) -> Option<Pool> {
        self.memory.control.get(0)?.pools.get(usize::from(pool)).copied()
    }

    /// Takes a pool's table away; its VIPs must be gone.
    ///
    /// # Errors
    /// As [`Dataplane::publish_table`].
    pub fn remove_pool(&mut self, pool: u16) -> Result<(), Error> {
        self.enter_records();
        self.swap_table(pool, Table::default())
    }

    /// Makes a whole new set of VIPs live with one store.
    ///
    /// # Errors
    /// More VIPs than there is room for.
    pub fn publish_vips(&mut self, vips: &[VipSpec]) -> Result<(), Error> {
        let Some(root) = self.memory.control.get(0).map(|control| control.vip_root) else {
            return Ok(());
        };
        let spare = root.index() ^ 1;
        let Some(control) = self.memory.control.place(0) else { return Ok(()) };
        let indexes = field::<_, VipIndex>(control, offset_of!(Control, vips));
        // SAFETY: one of the two indexes, inside the mapping; no program reads the spare one.
        let index = unsafe { &mut *indexes.wrapping_add(spare) };
        let hertz = self.hertz;
        let root = vip_index::build(index, spare as u64, vips, |idle| {
            Self::ticks(hertz, idle + RECORDS_LAG)
        })
        .ok_or(Error::TooManyVips { vips: vips.len() })?;
        self.enter_records();
        let place = field::<_, u64>(control, offset_of!(Control, vip_root));
        // SAFETY: inside the mapping, aligned, only accessed as a 64-bit word.
        let place = unsafe { AtomicU64::from_ptr(place) };
        place.store(root.0, Ordering::Release);
        self.grace()
    }

    fn grace(&self) -> Result<(), Error> {
        if self.kernel.is_none() {
            return Ok(());
        }
        wait_for_grace_period().map_err(Error::Grace)
    }

    /// The kernel's tick.
    fn tick(&self) -> u16 {
        match &self.kernel {
            Some(kernel) => kernel.tick(),
            None => flow::tick(self.jiffies, tick_shift(self.hertz)),
        }
    }

    /// Sets the time of plain memory.
    pub const fn set_jiffies(&mut self, jiffies: u64) {
        self.jiffies = jiffies;
    }

    /// All live flows.
    pub fn flows(&self) -> impl Iterator<Item = FlowRecord> + '_ {
        flows::scan(&self.memory.flows, self.tick())
    }

    /// Empties entries past their deadline; how many.
    pub fn age(&self) -> usize {
        flows::age(&self.memory.flows, self.tick())
    }

    /// Forgets the flows of a backend; how many.
    pub fn remove_owner(&self, owner: BackendId) -> usize {
        self.remove_flows(|flow| flow.owner == owner)
    }

    /// Forgets the live flows that `goes` names; how many.
    pub fn remove_flows(&self, goes: impl Fn(&FlowRecord) -> bool) -> usize {
        flows::remove(&self.memory.flows, self.tick(), goes)
    }

    /// Flows the table has entries for.
    #[must_use]
    pub const fn flow_entries(&self) -> usize {
        self.memory.flows.count() * flow::WAYS
    }

    /// Keeps `bytes` for the next lbd; the copy before this one survives a crash in between.
    ///
    /// # Errors
    /// Larger than the journal.
    pub fn set_journal(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if journal::write(&mut self.memory.journal, bytes) {
            Ok(())
        } else {
            Err(Error::JournalFull { bytes: bytes.len() })
        }
    }

    /// What was kept last.
    #[must_use]
    pub fn journal(&self) -> Option<Vec<u8>> {
        journal::read(&self.memory.journal)
    }
}

/// A field of an element, as a pointer: no reference to memory that programs read meanwhile.
const fn field<T, F>(element: *mut T, offset: usize) -> *mut F {
    element.wrapping_byte_add(offset).cast()
}

/// A tick is `2^shift` jiffies: the power of two nearest to a second.
const fn tick_shift(hertz: u32) -> u32 {
    let shift = hertz.ilog2();
    if hertz - (1 << shift) > (1 << shift) / 2 { shift + 1 } else { shift }
}
