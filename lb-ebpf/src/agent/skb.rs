//! The linear part of a socket buffer as [`lb_common::packet::Packet`].
//!
//! Its front cannot be moved through that trait: a socket buffer is cut behind its link-layer
//! header, by a helper of its own.

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6,
    BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
};
use aya_ebpf::helpers::{bpf_csum_update, bpf_skb_adjust_room, bpf_skb_pull_data};
use aya_ebpf::programs::TcContext;
use lb_common::agent::{HEADERS, Tunnel, remark};
use lb_common::backend::Outer;
use lb_common::headers::{Ethernet, Wire};
use lb_common::packet::{MAX_OFFSET, Packet};

/// A frame in a socket buffer.
pub(crate) struct Skb(*mut __sk_buff);

impl Skb {
    pub(crate) fn new(context: &TcContext) -> Self {
        Self(context.skb.skb)
    }

    #[inline(always)]
    fn start(&self) -> usize {
        // SAFETY: a valid __sk_buff.
        unsafe { (*self.0).data as usize }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: a valid __sk_buff.
        unsafe { (*self.0).data_end as usize }
    }

    /// Length of the frame, the parts that are not linear included.
    #[inline(always)]
    pub(crate) fn frame_length(&self) -> u32 {
        // SAFETY: a valid __sk_buff.
        unsafe { (*self.0).len }
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

    /// Brings the headers into the linear part; what cannot be brought is not seen.
    #[inline(always)]
    pub(crate) fn pull_headers(&mut self) {
        let length = self.frame_length();
        let wanted = if length < HEADERS { length } else { HEADERS };
        if self.length() < wanted as usize {
            // SAFETY: a valid __sk_buff; `&mut self` means no reference into it is left.
            unsafe { bpf_skb_pull_data(self.0, wanted) };
        }
    }

    /// Cuts the outer headers; false when the kernel refuses.
    #[inline(always)]
    pub(crate) fn unwrap(&mut self, tunnel: &Tunnel) -> bool {
        if !remark(self, tunnel) {
            return false;
        }
        if tunnel.remarked() && tunnel.inner_v6 {
            self.patch_sum(tunnel);
        }
        let outer_v6 = matches!(tunnel.outer, Outer::IpipV6 | Outer::GueV6);
        // The size of segments inside does not change with the headers outside.
        let mut flags = BPF_F_ADJ_ROOM_FIXED_GSO;
        if outer_v6 != tunnel.inner_v6 {
            // Only where the family changes: kernels before 6.3 do not know these flags.
            flags |= if tunnel.inner_v6 {
                BPF_F_ADJ_ROOM_DECAP_L3_IPV6
            } else {
                BPF_F_ADJ_ROOM_DECAP_L3_IPV4
            };
        }
        let cut = tunnel.cut() as i32;
        // SAFETY: a valid __sk_buff; `&mut self` means no reference into it is left.
        let done = unsafe { bpf_skb_adjust_room(self.0, -cut, BPF_ADJ_ROOM_MAC, flags as u64) };
        if done != 0 {
            return false;
        }
        let Some(ethernet) = self.get_mut::<Ethernet>(0) else { return false };
        ethernet.kind = tunnel.kind();
        true
    }

    /// An IPv6 header has no checksum that makes up for its changed traffic class, so the sum
    /// over the frame, where the device gave one, must be told.
    #[inline(always)]
    fn patch_sum(&mut self, tunnel: &Tunnel) {
        let Some(&[high, low, ..]) = self.get::<[u8; 4]>(tunnel.at as usize) else { return };
        let old = [high, low & 0xcf | tunnel.inner_ecn << 4];
        let change = !u16::from_ne_bytes(old) as u32 + u16::from_ne_bytes([high, low]) as u32;
        // SAFETY: a valid __sk_buff. Without such a sum it does nothing.
        unsafe { bpf_csum_update(self.0, change) };
    }
}

impl Packet for Skb {
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
    fn grow_front(&mut self, _bytes: i32) -> bool {
        false
    }

    #[inline(always)]
    fn truncate(&mut self, _length: usize) -> bool {
        false
    }
}
