//! The XDP program of a load balancer: `lb_common::process` over the kernel's packet and maps.
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

use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

/// Entry: every frame of an interface.
#[xdp]
fn lb_ingress(context: XdpContext) -> u32 {
    ingress::run(&context)
}

/// Tells user space the tick; run by BPF_PROG_TEST_RUN, never attached.
#[xdp]
fn lb_clock(_context: XdpContext) -> u32 {
    if maps::journal_exists() { maps::now() as u32 } else { 0 }
}
