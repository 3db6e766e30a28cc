//! The programs of a backend: decapsulation in XDP or at tc ingress, the MSS clamp at tc egress.
//!
//! `lb_common::agent` decides; these programs show it the kernel's packet and maps, and do what
//! only the kernel can do. A frame that they do not take is left to the next program and to the
//! host's stack, untouched.
#![no_std]
#![no_main]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "bpf is 64-bit; helpers take and give signed words"
)]

#[path = "agent/maps.rs"]
mod maps;
mod panic;
#[path = "agent/skb.rs"]
mod skb;
mod xdp_packet;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::helpers::{bpf_l4_csum_replace, bpf_skb_store_bytes, bpf_xdp_get_buff_len};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use lb_common::agent::{Clamp, Mss, Outcome, clamp, decapsulate, decide};
use lb_common::verdict::Action;
use maps::Maps;
use skb::Skb;
use xdp_packet::XdpPacket;

/// Every frame that arrives, where XDP is possible.
#[xdp(frags)]
fn lb_agent_xdp(context: XdpContext) -> u32 {
    // SAFETY: a valid xdp_md.
    let length = unsafe { bpf_xdp_get_buff_len(context.as_ptr().cast()) };
    let mut packet = XdpPacket::new(context.as_ptr().cast());
    let outcome = decapsulate(&mut packet, length as usize, &Maps);
    maps::count(outcome, length);
    match outcome.action() {
        Action::Drop => xdp_action::XDP_DROP,
        Action::Pass | Action::Tx | Action::Redirect => xdp_action::XDP_PASS,
    }
}

/// Every frame that arrives, where XDP is not possible.
#[classifier]
fn lb_agent_tc(context: TcContext) -> i32 {
    let mut packet = Skb::new(&context);
    packet.pull_headers();
    let length = packet.frame_length();
    let outcome = match decide(&packet, length as usize, &Maps) {
        // A tag in the data belongs to a VLAN device, which will see the packet without it.
        Ok(tunnel) if tunnel.tags > 0 => Outcome::Passed,
        Ok(tunnel) if packet.unwrap(&tunnel) => Outcome::decapsulated(tunnel.outer),
        Ok(_) => Outcome::Refused,
        Err(outcome) => outcome,
    };
    maps::count(outcome, length as u64);
    match outcome.action() {
        Action::Drop => TC_ACT_SHOT,
        // "Unspecified" lets the next program have it too; "OK" would be the last word.
        Action::Pass | Action::Tx | Action::Redirect => TC_ACT_UNSPEC,
    }
}

/// Every frame that leaves. The headers of a SYN that TCP made are always in the linear part.
#[classifier]
fn lb_agent_mss(context: TcContext) -> i32 {
    let packet = Skb::new(&context);
    let length = packet.frame_length();
    let found = clamp(&packet, &Maps);
    let Some(mut outcome) = found.outcome() else { return TC_ACT_UNSPEC };
    if let Mss::Lower(clamp) = found
        && !lower(&context, &clamp)
    {
        outcome = Outcome::MssKept;
    }
    maps::count(outcome, length as u64);
    TC_ACT_UNSPEC
}

/// Writes an MSS. The helper knows whether the checksum is still to be made by the device.
#[inline(always)]
fn lower(context: &TcContext, clamp: &Clamp) -> bool {
    let (old, new) = clamp.words();
    let (from, to) = (u16::from_ne_bytes(old) as u64, u16::from_ne_bytes(new) as u64);
    let buffer = context.skb.skb;
    let at = clamp.checksum_at as u32;
    // SAFETY: a valid __sk_buff; 2 is the size of what changed.
    if unsafe { bpf_l4_csum_replace(buffer, at, from, to, 2) } != 0 {
        return false;
    }
    let bytes = (&raw const clamp.new).cast();
    // SAFETY: a valid __sk_buff, two bytes that live as long as the call.
    unsafe { bpf_skb_store_bytes(buffer, clamp.at as u32, bytes, 2, 0) == 0 }
}
