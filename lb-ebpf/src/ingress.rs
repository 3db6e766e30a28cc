//! What the program does with a frame: `lb_common::process` over the kernel's packet and maps.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::programs::XdpContext;
use lb_common::icmp;
use lb_common::packet::Packet as _;
use lb_common::process::{Answer, Verdict, process};
use lb_common::verdict::{Action, Outcome};

use crate::maps::{self, Maps};
use crate::samples;
use crate::xdp_packet::XdpPacket;

/// Handles one frame; the XDP action.
#[inline(always)]
pub(crate) fn run(context: &XdpContext) -> u32 {
    let mut packet = XdpPacket::new(context.as_ptr().cast());
    let bytes = packet.length() as u64;
    let maps = Maps::new(context);
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
        Action::Drop => drop(context, &verdict, bytes as u16),
    }
}

#[inline(always)]
fn drop(context: &XdpContext, verdict: &Verdict, length: u16) -> u32 {
    samples::lb_sample(
        context.as_ptr().cast(),
        verdict.outcome as u64 | (verdict.vip as u64) << 16 | (length as u64) << 32,
    );
    if verdict.answer == Answer::NONE {
        return xdp_action::XDP_DROP;
    }
    lb_too_big(context.as_ptr().cast(), verdict.answer.0)
}

/// Tells a sender that its packet is too big, within the budget; verified once for all packets.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn lb_too_big(context: *mut xdp_md, answer: u64) -> u32 {
    let mut packet = XdpPacket::new(context);
    let (inner, mtu) = Answer(answer).parts();
    if maps::icmp_allowed() && icmp::too_big(&mut packet, &inner, mtu) {
        xdp_action::XDP_TX
    } else {
        xdp_action::XDP_DROP
    }
}
