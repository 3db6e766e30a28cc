//! The kernel's packet as [`lb_common::packet::Packet`]: every access checked against its end, as
//! the verifier wants it.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use lb_common::headers::Wire;
use lb_common::packet::{MAX_OFFSET, Packet, settled};

/// A frame between `data` and `data_end`.
pub(crate) struct XdpPacket(*mut xdp_md);

impl XdpPacket {
    /// Of a program's or function's context.
    pub(crate) fn new(context: *mut xdp_md) -> Self {
        Self(context)
    }

    #[inline(always)]
    fn start(&self) -> usize {
        // SAFETY: a valid xdp_md.
        unsafe { (*self.0).data as usize }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: a valid xdp_md.
        unsafe { (*self.0).data_end as usize }
    }

    #[inline(always)]
    fn at<T: Wire>(&self, offset: usize) -> Option<*mut T> {
        if offset > MAX_OFFSET {
            return None;
        }
        let place = self.start() + offset;
        if place + size_of::<T>() > self.end() {
            return None;
        }
        Some(place as *mut T)
    }
}

impl Packet for XdpPacket {
    #[inline(always)]
    fn get<T: Wire>(&self, offset: usize) -> Option<&T> {
        let place = self.at::<T>(offset)?;
        // SAFETY: inside the packet (checked by `at`), alignment 1, any pattern valid.
        Some(unsafe { &*place })
    }

    #[inline(always)]
    fn get_mut<T: Wire>(&mut self, offset: usize) -> Option<&mut T> {
        let place = self.at::<T>(offset)?;
        // SAFETY: as in `get`; `&mut self` makes it the only reference.
        Some(unsafe { &mut *place })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.end() - self.start()
    }

    #[inline(always)]
    fn grow_front(&mut self, bytes: i32) -> bool {
        // SAFETY: a valid xdp_md; `&mut self` means no reference into the packet is left.
        unsafe { bpf_xdp_adjust_head(self.0, -bytes) == 0 }
    }

    #[inline(always)]
    fn truncate(&mut self, length: usize) -> bool {
        let surplus = settled(self.length()) as i32 - length as i32;
        // SAFETY: a valid xdp_md; `&mut self` means no reference into the packet is left.
        surplus >= 0 && unsafe { bpf_xdp_adjust_tail(self.0, -surplus) == 0 }
    }
}
