//! The egress program of a load balancer for its own health probes (tc): a packet of a marked
//! socket to a VIP is wrapped for the backend its mark names, byte for byte as the XDP program
//! would wrap a client's, and leaves by that backend's next hop. Every other packet passes
//! untouched; a marked one that cannot be wrapped is dropped, never sent bare.
//!
//! Reads the balancer's maps, whose pins user space lends it when it loads this object.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "atomic add: core::sync::atomic lacks it on bpfel")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "bpf is 64-bit; helpers take and give signed words"
)]

mod panic;

use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
    BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_MMAPABLE, TC_ACT_SHOT, TC_ACT_UNSPEC,
};
use aya_ebpf::helpers::{bpf_redirect, bpf_skb_adjust_room};
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::TcContext;
use lb_common::MAX_BACKEND_ID;
use lb_common::backend::{Backend, BackendId, Outer, State};
use lb_common::control::Control;
use lb_common::headers::Wire;
use lb_common::packet::{MAX_OFFSET, Packet};
use lb_common::probe::{SENT, Sent, UNRESOLVED, Wrapped, backend_of, wrap};

#[map]
static LB_CONTROL: Array<Control> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static LB_BACKENDS: Array<Backend> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static LB_PROBES: Array<Sent> = Array::with_max_entries(MAX_BACKEND_ID as u32 + 1, 0);

/// Entry: every packet that leaves by an interface.
#[classifier]
fn lb_probe(context: TcContext) -> i32 {
    let skb = context.skb.skb;
    // SAFETY: the kernel gives a valid __sk_buff.
    let mark = unsafe { (*skb).mark };
    let Some(id) = backend_of(mark) else { return TC_ACT_UNSPEC };
    let Some(interface) = send(skb, id) else { return TC_ACT_SHOT };
    // Sent on as any other packet; on another interface this program must not see it again.
    context.set_mark(0);
    // SAFETY: as above.
    if interface == unsafe { (*skb).ifindex } {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: no pointers.
    unsafe { bpf_redirect(interface, 0) as i32 }
}

/// Wraps the packet for its backend; the interface it leaves by, `None` when it must not leave.
#[inline(always)]
fn send(skb: *mut __sk_buff, id: BackendId) -> Option<u32> {
    let control = LB_CONTROL.get(0)?;
    let backend = LB_BACKENDS.get(id.0 as u32)?;
    let mut packet = SkbPacket { skb, outer: State::unpack(backend.state).outer };
    match wrap(&mut packet, control, backend, id) {
        Wrapped::For(interface) => {
            count(id, SENT);
            Some(interface)
        }
        Wrapped::Unresolved => {
            count(id, UNRESOLVED);
            None
        }
        Wrapped::Refused => None,
    }
}

#[inline(always)]
fn count(id: BackendId, what: usize) {
    let Some(counts) = LB_PROBES.get_ptr_mut(id.0 as u32) else { return };
    let count = counts.cast::<u64>().wrapping_add(what & 1);
    // SAFETY: inside the map's value, aligned.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::SeqCst }>(
            count, 1,
        );
    }
}

/// A packet on its way out.
struct SkbPacket {
    skb: *mut __sk_buff,
    /// What will be put in front of it: the kernel wants to know, for checksum offload.
    outer: Outer,
}

impl SkbPacket {
    #[inline(always)]
    fn at<T: Wire>(&self, offset: usize) -> Option<*mut T> {
        if offset > MAX_OFFSET {
            return None;
        }
        // SAFETY: a valid __sk_buff.
        let start = unsafe { (*self.skb).data as usize };
        // SAFETY: as above.
        let end = unsafe { (*self.skb).data_end as usize };
        let place = start + offset;
        if place + size_of::<T>() > end {
            return None;
        }
        Some(place as *mut T)
    }
}

impl Packet for SkbPacket {
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
        // SAFETY: a valid __sk_buff.
        unsafe { (*self.skb).len as usize }
    }

    /// Makes room between the Ethernet header and the packet, which for a frame without VLAN
    /// tags (those are not in the data on this side) is the same as in front.
    #[inline(always)]
    fn grow_front(&mut self, bytes: i32) -> bool {
        let flags = match self.outer {
            Outer::IpipV4 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
            Outer::IpipV6 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
            Outer::GueV4 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
            Outer::GueV6 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        };
        // SAFETY: a valid __sk_buff; `&mut self` means no reference into the packet is left.
        unsafe { bpf_skb_adjust_room(self.skb, bytes, BPF_ADJ_ROOM_MAC, flags as u64) == 0 }
    }

    #[inline(always)]
    fn truncate(&mut self, _length: usize) -> bool {
        false
    }
}
