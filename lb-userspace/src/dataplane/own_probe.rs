//! The probe through our own program: a frame for a VIP goes through the very program and the very
//! maps that packets go through, and what comes back must be on its way to a backend.
//!
//! The frame is an ICMP error that quotes the VIP's answer to a client, which reaches the flow's
//! owner (RFC 792, RFC 4443) and leaves no trace in the flow table. It is run, not sent: nothing
//! reaches a wire. It is counted like any packet of the VIP.
//!
//! Must not: judge; who asks knows which backends there are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Dataplane, Error};
use crate::desired::{Port, Protocol, VipKey};

/// Whom the quoted packet went to: a dummy address (RFC 7600), and one to be discarded (RFC 6666).
const CLIENT4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x0100, 0, 0, 0, 0, 0, 0, 1);
/// Bytes before the IP header.
const ETHERNET: usize = 14;
/// Room for the frame with the largest outer headers.
const FRAME_MAX: usize = 512;
/// XDP actions (linux/bpf.h).
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

impl Dataplane {
    /// Sends one frame for the VIP through the program; the backend's address that it was wrapped
    /// for. `turn` chooses the client's port, and so the slot. Over plain memory, where there is
    /// no program, `None`.
    ///
    /// # Errors
    /// [`Error::Probe`]: the kernel does not run it, or it is not on its way to a backend.
    pub fn probe_vip(&self, vip: &VipKey, turn: u16) -> Result<Option<IpAddr>, Error> {
        if self.kernel.is_none() {
            return Ok(None);
        }
        let failed = |reason: String| Error::Probe { vip: vip.to_string(), reason };
        let frame = frame(vip, turn);
        let mut out = [0; FRAME_MAX];
        let (action, length) =
            self.test_run(&frame, &mut out, 1).map_err(|error| failed(error.to_string()))?;
        if action != XDP_TX && action != XDP_REDIRECT {
            return Err(failed(format!("the program answers with action {action}, not with tx")));
        }
        let wrapped = out.get(..length).filter(|out| out.len() > frame.len());
        match wrapped.and_then(outer_destination) {
            Some(destination) => Ok(Some(destination)),
            None => Err(failed("the packet was not wrapped".to_owned())),
        }
    }
}

/// The frame: an ICMP error about the VIP's answer.
fn frame(vip: &VipKey, turn: u16) -> Vec<u8> {
    let port = match vip.port {
        Port::Any => 1,
        Port::Exact(port) => port,
    };
    let protocol = match vip.protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    // Source port, destination port, and four bytes that mean nothing here.
    let mut quoted = Vec::from(port.to_be_bytes());
    quoted.extend(turn.max(1).to_be_bytes());
    quoted.extend([0; 4]);
    let mut frame = vec![0; 12];
    match vip.address {
        IpAddr::V4(address) => {
            let quoted = ipv4(protocol, address, CLIENT4, &quoted);
            frame.extend([0x08, 0x00]);
            // Time exceeded (RFC 792).
            frame.extend(ipv4(1, CLIENT4, address, &icmp(11, &quoted)));
        }
        IpAddr::V6(address) => {
            let quoted = ipv6(protocol, address, CLIENT6, &quoted);
            frame.extend([0x86, 0xdd]);
            // Time exceeded (RFC 4443).
            frame.extend(ipv6(58, CLIENT6, address, &icmp(3, &quoted)));
        }
    }
    frame
}

fn icmp(kind: u8, quoted: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    packet.extend(quoted);
    packet
}

fn ipv4(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(length(20 + payload.len()));
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

fn ipv6(next: u8, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length(payload.len()));
    packet.extend([next, 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// A length field; these packets are some dozen bytes long.
fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

/// Where a wrapped frame goes.
fn outer_destination(frame: &[u8]) -> Option<IpAddr> {
    let ip = frame.get(ETHERNET..)?;
    match ip.first()? >> 4 {
        4 => ip.get(16..20)?.try_into().ok().map(|it: [u8; 4]| IpAddr::from(it)),
        6 => ip.get(24..40)?.try_into().ok().map(|it: [u8; 16]| IpAddr::from(it)),
        _ => None,
    }
}
