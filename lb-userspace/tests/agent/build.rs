//! Frames, built byte by byte: nothing here comes from the code under test.
#![expect(clippy::cast_possible_truncation, reason = "frames of a few hundred bytes")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The VIPs of every case.
pub(crate) const VIP4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
pub(crate) const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x53, 0, 0, 0, 0, 0x10);
/// The backend's own addresses.
pub(crate) const HOST4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
pub(crate) const HOST6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2);
/// Where tunnels come from.
pub(crate) const BALANCER4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 77);
pub(crate) const BALANCER6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 0x77);
/// Clients.
pub(crate) const CLIENT4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(crate) const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7);
/// The port of GUE.
pub(crate) const GUE_PORT: u16 = 6080;

pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

pub(crate) fn ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    tos: u8,
    payload: &[u8],
) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let mut header = vec![0x45, tos];
    header.extend(length.to_be_bytes());
    header.extend([0, 0, 0x40, 0, 63, protocol, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(payload);
    header
}

pub(crate) fn ipv6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next: u8,
    tos: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut header = vec![0x60 | tos >> 4, tos << 4, 0x12, 0x34];
    header.extend((payload.len() as u16).to_be_bytes());
    header.extend([next, 63]);
    header.extend(source.octets());
    header.extend(destination.octets());
    header.extend(payload);
    header
}

/// An IP packet of either family.
pub(crate) fn ip(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    tos: u8,
    payload: &[u8],
) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ipv4(source, destination, protocol, tos, payload)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ipv6(source, destination, protocol, tos, payload)
        }
        _ => panic!("mixed families"),
    }
}

/// One's complement sum of addresses, protocol and length, in front of a transport header.
fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// UDP with its checksum.
pub(crate) fn udp(source: (IpAddr, u16), destination: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(source.1.to_be_bytes());
    header.extend(destination.1.to_be_bytes());
    header.extend((8 + payload.len() as u16).to_be_bytes());
    header.extend([0, 0]);
    header.extend(payload);
    let mut all = pseudo(source.0, destination.0, 17, header.len());
    all.extend(&header);
    header[6..8].copy_from_slice(&checksum(&all).to_be_bytes());
    header
}

/// A TCP segment with its checksum; `options` must be a multiple of four bytes.
pub(crate) fn tcp(
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    flags: u8,
    options: &[u8],
) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(source.1.to_be_bytes());
    header.extend(destination.1.to_be_bytes());
    header.extend([0, 0, 0, 1, 0, 0, 0, 2]);
    header.extend([(5 + options.len() as u8 / 4) << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    header.extend(options);
    let mut all = pseudo(source.0, destination.0, 6, header.len());
    all.extend(&header);
    header[16..18].copy_from_slice(&checksum(&all).to_be_bytes());
    header
}

/// Does the transport checksum behind the IP header of `packet` hold?
pub(crate) fn transport_sum_holds(packet: &[u8]) -> bool {
    let (source, destination, protocol, at): (IpAddr, IpAddr, u8, usize) = if packet[0] >> 4 == 4 {
        let address = |at: usize| {
            let octets: [u8; 4] = packet[at..at + 4].try_into().unwrap();
            Ipv4Addr::from(octets).into()
        };
        (address(12), address(16), packet[9], 20)
    } else {
        let address = |at: usize| {
            let octets: [u8; 16] = packet[at..at + 16].try_into().unwrap();
            Ipv6Addr::from(octets).into()
        };
        (address(8), address(24), packet[6], 40)
    };
    let mut all = pseudo(source, destination, protocol, packet.len() - at);
    all.extend(&packet[at..]);
    checksum(&all) == 0
}

/// A client's datagram to a VIP: source port 40,001, destination port 443.
pub(crate) fn request(v6: bool, tos: u8) -> Vec<u8> {
    let (client, vip): (IpAddr, IpAddr) =
        if v6 { (CLIENT6.into(), VIP6.into()) } else { (CLIENT4.into(), VIP4.into()) };
    ip(client, vip, 17, tos, &udp((client, 40_001), (vip, 443), b"hello, backend"))
}

/// IP protocol number of a packet inside another.
pub(crate) fn number(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 { 4 } else { 41 }
}

/// GUE variant 0 around a packet, UDP checksum zero.
pub(crate) fn gue(private: &[u8], inner: &[u8]) -> Vec<u8> {
    let length = (12 + private.len() + inner.len()) as u16;
    let mut bytes = Vec::new();
    bytes.extend(50_000_u16.to_be_bytes());
    bytes.extend(GUE_PORT.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend([private.len() as u8 / 4, number(inner), 0, 0]);
    bytes.extend(private);
    bytes.extend(inner);
    bytes
}

/// An outer packet from a balancer to the host.
pub(crate) fn outer(v6: bool, protocol: u8, tos: u8, payload: &[u8]) -> Vec<u8> {
    if v6 {
        ipv6(BALANCER6, HOST6, protocol, tos, payload)
    } else {
        ipv4(BALANCER4, HOST4, protocol, tos, payload)
    }
}

/// An Ethernet frame with these VLAN tags, outermost first: EtherType and id.
pub(crate) fn frame(tags: &[(u16, u16)], packet: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for (kind, id) in tags {
        bytes.extend(kind.to_be_bytes());
        bytes.extend(id.to_be_bytes());
    }
    bytes.extend(if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] });
    bytes.extend(packet);
    bytes
}
