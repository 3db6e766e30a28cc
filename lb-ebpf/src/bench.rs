//! The balancer wrapped for BPF_PROG_TEST_RUN, which does not restore a frame between runs: each
//! program here first gives the frame the source of the next flow, and afterwards takes the outer
//! headers off again. The floors do the same around as little as possible.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "compare-and-exchange: core::sync::atomic lacks it on bpfel")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "bpf is 64-bit; helpers take and give signed words"
)]

mod ingress;
mod maps;
mod panic;
mod samples;
mod xdp_packet;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::XdpContext;
use lb_common::checksum;
use lb_common::encap::IpipV4;
use lb_common::headers::{
    Be16, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Ipv4, Ipv6, Tcp, protocol,
};
use lb_common::packet::Packet;
use xdp_packet::XdpPacket;

/// What a case is: next flow's number, number of flows minus one, bytes to take off afterwards,
/// 1 for IPv6 frames.
#[map]
static LB_BENCH: Array<[u64; 4]> = Array::with_max_entries(1, 0);

/// A frame with IPv4 and TCP headers.
const V4: usize = size_of::<Ethernet>() + size_of::<Ipv4>();
/// A frame with IPv6 and TCP headers.
const V6: usize = size_of::<Ethernet>() + size_of::<Ipv6>();

#[inline(always)]
fn wrapped(context: &XdpContext, inside: impl Fn(&XdpContext) -> u32) -> u32 {
    let Some(case) = LB_BENCH.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: a bench runs on one CPU.
    let case = unsafe { &mut *case };
    let [next, mask, undo, v6] = *case;
    case[0] = next + 1;
    // Scattered: an odd multiplier visits every flow once.
    let flow = (next.wrapping_mul(0x9e37_79b1) & mask) as u32;
    let mut packet = XdpPacket::new(context.as_ptr().cast());
    if v6 == 0 {
        let Some(ip) = packet.get_mut::<Ipv4>(size_of::<Ethernet>()) else { return 0 };
        // 198.18.0.0/16 by the lower half of the number.
        ip.source = 0x12c6 | flow << 16;
        let Some(tcp) = packet.get_mut::<Tcp>(V4) else { return 0 };
        tcp.ports = tcp.ports & 0xffff_0000 | flow >> 16 | 0x400;
    } else {
        let Some(ip) = packet.get_mut::<Ipv6>(size_of::<Ethernet>()) else { return 0 };
        let high = { ip.source }[0];
        ip.source = [high, (flow as u64) << 32];
        let Some(tcp) = packet.get_mut::<Tcp>(V6) else { return 0 };
        tcp.ports = tcp.ports & 0xffff_0000 | flow >> 16 | 0x400;
    }
    let action = inside(context);
    if action == xdp_action::XDP_TX && undo != 0 {
        if !packet.grow_front(-(undo as i32)) {
            return xdp_action::XDP_ABORTED;
        }
        let Some(ethernet) = packet.get_mut::<Ethernet>(0) else { return 0 };
        ethernet.kind = if v6 == 0 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    }
    action
}

/// The floor of every case: the wrapper around nothing.
#[xdp]
fn floor_pass(context: XdpContext) -> u32 {
    wrapped(&context, |_| xdp_action::XDP_PASS)
}

/// The unit of every ratio: an outer IPv4 header with its checksum, MACs, TX; all of it but the
/// length constant.
#[xdp]
fn floor_encap(context: XdpContext) -> u32 {
    wrapped(&context, |context| {
        let mut packet = XdpPacket::new(context.as_ptr().cast());
        let Some(&Ipv4 { tos, total_length, .. }) = packet.get::<Ipv4>(size_of::<Ethernet>())
        else {
            return xdp_action::XDP_DROP;
        };
        if !packet.grow_front(size_of::<Ipv4>() as i32) {
            return xdp_action::XDP_DROP;
        }
        let Some(frame) = packet.get_mut::<IpipV4>(0) else { return xdp_action::XDP_DROP };
        // 02:00:00:00:00:02 from 02:00:00:00:00:01, 198.18.0.0 to 192.0.2.1.
        let (source, destination) = (0x12c6, 0x0102_00c0);
        frame.ethernet = Ethernet {
            addresses_low: 0x0002_0200_0000_0002,
            addresses_high: 0x0100_0000,
            kind: ETHERTYPE_IPV4,
        };
        let total_length = Be16::new(total_length.get().wrapping_add(20));
        let fixed = 0x45
            + 0x40
            + u16::from_ne_bytes([64, protocol::IPV4]) as u32
            + checksum::halves(source)
            + checksum::halves(destination);
        frame.ip = Ipv4 {
            version_ihl: 0x45,
            tos,
            total_length,
            id: Be16(0),
            fragment: Be16::new(0x4000),
            ttl: 64,
            protocol: protocol::IPV4,
            checksum: checksum::finish(fixed + total_length.0 as u32 + ((tos as u32) << 8)),
            source,
            destination,
        };
        xdp_action::XDP_TX
    })
}

/// The balancer.
#[xdp]
fn lb_wrapped(context: XdpContext) -> u32 {
    wrapped(&context, ingress::run)
}

/// The balancer, as it is attached.
#[xdp]
fn lb_ingress(context: XdpContext) -> u32 {
    ingress::run(&context)
}

/// As the balancer's.
#[xdp]
fn lb_clock(_context: XdpContext) -> u32 {
    if maps::journal_exists() { maps::now() as u32 } else { 0 }
}
