//! Sampled drops for `lbctl drops`: who sent what, within a budget for each CPU and tick.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use lb_common::addr::{Address, v4_words};
use lb_common::headers::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN, Ethernet, Ipv4, Ipv6,
    Udp, Vlan,
};
use lb_common::packet::Packet;
use lb_common::verdict::DropSample;

use crate::maps::{LB_DROPS, sample_allowed};
use crate::xdp_packet::XdpPacket;

/// Writes a sample of a frame that will be dropped: outcome in bits 0..16, VIP in 16..32, length
/// from bit 32. Verified once for all packets.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn lb_sample(context: *mut xdp_md, packed: u64) -> u32 {
    if !sample_allowed() {
        return 0;
    }
    let Some(mut entry) = LB_DROPS.reserve::<DropSample>(0) else { return 0 };
    let sample = DropSample {
        outcome: packed as u32 & 0xffff,
        vip: (packed >> 16) as u32 & 0xffff,
        length: (packed >> 32) as u16,
        ..DropSample::default()
    };
    let sample = entry.write(sample);
    fill(&XdpPacket::new(context), sample);
    let (vip, length) = (sample.vip, sample.length);
    entry.submit(0);
    // Removed by the verifier unless lbd logs at level debug.
    debug!(XdpContext::new(context), "drop outcome {} vip {} bytes {}", packed as u16, vip, length);
    1
}

#[inline(always)]
fn fill(packet: &XdpPacket, sample: &mut DropSample) {
    let Some(ethernet) = packet.get::<Ethernet>(0) else { return };
    let mut kind = ethernet.kind;
    let mut at = size_of::<Ethernet>();
    let mut tags = 0;
    while tags < 2 && (kind == ETHERTYPE_VLAN || kind == ETHERTYPE_SERVICE_VLAN) {
        let Some(vlan) = packet.get::<Vlan>(at) else { return };
        kind = vlan.kind;
        at += size_of::<Vlan>();
        tags += 1;
    }
    let ports = if kind == ETHERTYPE_IPV4 {
        let Some(ip) = packet.get::<Ipv4>(at) else { return };
        sample.source = Address::from_words(v4_words(ip.source)).0;
        sample.destination = Address::from_words(v4_words(ip.destination)).0;
        sample.protocol = ip.protocol;
        at + (ip.version_ihl & 0xf) as usize * 4
    } else if kind == ETHERTYPE_IPV6 {
        let Some(ip) = packet.get::<Ipv6>(at) else { return };
        sample.source = Address::from_words(ip.source).0;
        sample.destination = Address::from_words(ip.destination).0;
        sample.protocol = ip.next_header;
        at + size_of::<Ipv6>()
    } else {
        return;
    };
    if sample.protocol == 6 || sample.protocol == 17 {
        let Some(udp) = packet.get::<Udp>(ports) else { return };
        let [a, b, c, d] = udp.ports.to_ne_bytes();
        sample.source_port = [a, b];
        sample.destination_port = [c, d];
    }
}
