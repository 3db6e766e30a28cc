//! The maps' memory: mapped from the kernel, or plain memory of the same layout for tests, trace
//! and simulation. Nothing else in user space knows where an element lies.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::AtomicU64;

use lb_common::backend::Backend;
use lb_common::control::Control;
use lb_common::flow::WAYS;
use lb_common::record::{MAX_CPUS, WORDS};
use lb_common::table::{HistoryRow, SlotRow};
use memmap2::{MmapOptions, MmapRaw};

use super::object::Sizes;

/// Who frees the memory.
enum Owner {
    Mapping(#[expect(dead_code, reason = "held for its Drop")] MmapRaw),
    Heap(*mut u8, Layout),
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Self::Heap(base, layout) = self {
            // SAFETY: allocated with this layout by `Region::zeroed`, freed once.
            unsafe { dealloc(*base, *layout) }
        }
    }
}

/// The elements of one array map. The kernel's programs read them at any time, and write those of
/// the flow table; so elements are reached by pointer, and shared words changed by atomics only.
pub(super) struct Region<T> {
    base: *mut T,
    count: usize,
    _owner: Owner,
}

// SAFETY: the memory is owned, and its shared words are only changed atomically.
unsafe impl<T> Send for Region<T> {}

impl<T> Region<T> {
    pub(super) fn zeroed(count: usize) -> Self {
        let layout = Layout::array::<T>(count.max(1)).unwrap_or(Layout::new::<T>());
        // SAFETY: T is not zero-sized and count is at least 1.
        let base = unsafe { alloc_zeroed(layout) };
        if base.is_null() {
            handle_alloc_error(layout);
        }
        Self { base: base.cast(), count, _owner: Owner::Heap(base, layout) }
    }

    fn mapped(map: BorrowedFd<'_>, count: usize) -> io::Result<Self> {
        // The kernel rounds the map up to pages; the mapping may be as long as its elements.
        let mapping = MmapOptions::new().len(count * size_of::<T>()).map_raw(map.as_raw_fd())?;
        Ok(Self { base: mapping.as_mut_ptr().cast(), count, _owner: Owner::Mapping(mapping) })
    }

    /// How many elements there are.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// The place of an element; `None` beyond the end.
    pub(super) fn place(&self, index: usize) -> Option<*mut T> {
        if index < self.count { Some(self.base.wrapping_add(index)) } else { None }
    }

    /// An element that only we write.
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        // SAFETY: inside the memory; T is plain integers, and only the caller's thread writes
        // what it reads here.
        self.place(index).map(|place| unsafe { &*place })
    }

    /// Replaces an element that no program reads yet.
    pub(super) fn set(&mut self, index: usize, value: T) -> bool {
        let Some(place) = self.place(index) else { return false };
        // SAFETY: inside the memory, aligned, T is Copy-like plain data.
        unsafe { place.write(value) };
        true
    }
}

/// The mapped maps.
pub(super) struct Memory {
    pub(super) control: Region<Control>,
    pub(super) slots: Region<SlotRow>,
    pub(super) history: Region<HistoryRow>,
    pub(super) backends: Region<Backend>,
    pub(super) flows: Region<[AtomicU64; WAYS]>,
    pub(super) records: Region<[AtomicU64; WORDS]>,
    pub(super) journal: Region<u64>,
}

/// How to find each map's descriptor by name.
pub(super) trait Descriptors {
    /// The map of that name.
    fn map(&self, name: &str) -> io::Result<BorrowedFd<'_>>;
}

impl Memory {
    pub(super) fn zeroed(sizes: &Sizes) -> Self {
        Self {
            control: Region::zeroed(1),
            slots: Region::zeroed(sizes.slot_rows as usize),
            history: Region::zeroed(sizes.slot_rows as usize * 4),
            backends: Region::zeroed(sizes.backends as usize),
            flows: Region::zeroed(sizes.flow_buckets as usize),
            records: Region::zeroed(1),
            journal: Region::zeroed(sizes.journal_words as usize),
        }
    }

    pub(super) fn mapped(maps: &impl Descriptors, sizes: &Sizes) -> io::Result<Self> {
        use lb_common::map_name as name;
        let rows = sizes.slot_rows as usize;
        Ok(Self {
            control: Region::mapped(maps.map(name::CONTROL)?, 1)?,
            slots: Region::mapped(maps.map(name::SLOTS)?, rows)?,
            history: Region::mapped(maps.map(name::HISTORY)?, rows * 4)?,
            backends: Region::mapped(maps.map(name::BACKENDS)?, sizes.backends as usize)?,
            flows: Region::mapped(maps.map(name::FLOWS)?, sizes.flow_buckets as usize)?,
            records: Region::mapped(maps.map(name::RECORDS)?, MAX_CPUS as usize)?,
            journal: Region::mapped(maps.map(name::JOURNAL)?, sizes.journal_words as usize)?,
        })
    }
}
