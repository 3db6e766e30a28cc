//! The XDP program of a load balancer: `lb_common::process` over the kernel's packet and maps.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "compare-and-exchange: core::sync::atomic lacks it on bpfel")]
#![allow(clippy::cast_possible_truncation, reason = "bpf is 64-bit")]

mod maps;
mod panic;
mod xdp_packet;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use lb_common::packet::Packet as _;
use lb_common::process::process;
use lb_common::verdict::{Action, Outcome};
use maps::Maps;
use xdp_packet::XdpPacket;

/// Entry: every frame of an interface.
#[xdp]
pub fn lb_ingress(context: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(&context);
    let bytes = packet.length() as u64;
    let maps = Maps::new(&context);
    let verdict = process(&mut packet, &maps);
    maps::count(verdict.vip, verdict.outcome as u32, bytes);
    match verdict.outcome.action() {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Tx => {
            if verdict.outcome as u32 == Outcome::Tx as u32 {
                maps::count_backend(verdict.backend, bytes);
            }
            xdp_action::XDP_TX
        }
        Action::Redirect => {
            maps::count_backend(verdict.backend, bytes);
            // SAFETY: no pointers.
            unsafe { bpf_redirect(verdict.interface, 0) as u32 }
        }
        Action::Drop if verdict.answered => xdp_action::XDP_TX,
        Action::Drop => xdp_action::XDP_DROP,
    }
}
