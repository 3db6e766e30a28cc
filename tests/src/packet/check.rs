//! Reads an outgoing frame from the outside in and verifies every length and every checksum.

use std::net::IpAddr;

use super::{ICMP, ICMPV6, IPV4, IPV6, TCP, UDP, checksum, pseudo_header};

/// The port at which a UDP datagram is GUE.
const GUE_PORT: u16 = 6080;

/// What a sound frame is made of, from the outside in: `eth`, `vlan`, `ipv4`, `gue`, `tcp`, ...
pub type Layers = Vec<&'static str>;

/// Checks a frame.
///
/// # Errors
/// What is wrong, and in which layer.
pub fn frame(bytes: &[u8]) -> Result<Layers, String> {
    let mut layers = vec!["eth"];
    let mut at = 12;
    let mut kind = word(bytes, at)?;
    while kind == 0x8100 || kind == 0x88a8 {
        layers.push("vlan");
        at += 4;
        kind = word(bytes, at)?;
    }
    let packet = bytes.get(at + 2..).ok_or("ends inside Ethernet")?;
    match kind {
        0x0800 => v4(packet, &mut layers, true)?,
        0x86dd => v6(packet, &mut layers, true)?,
        _ => return Err(format!("EtherType {kind:#06x}")),
    }
    Ok(layers)
}

fn word(bytes: &[u8], at: usize) -> Result<u16, String> {
    let pair = bytes.get(at..at + 2).ok_or(format!("ends at {}, needs {at}", bytes.len()))?;
    Ok(u16::from_be_bytes([pair[0], pair[1]]))
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// `outermost`: bytes behind the packet are Ethernet's padding.
fn v4(packet: &[u8], layers: &mut Layers, outermost: bool) -> Result<(), String> {
    layers.push("ipv4");
    ensure(packet.len() >= 20, || "IPv4 header is cut".to_owned())?;
    let header = usize::from(packet[0] & 15) * 4;
    let total = usize::from(word(packet, 2)?);
    ensure(packet[0] >> 4 == 4 && header >= 20, || format!("IPv4 begins {:#x}", packet[0]))?;
    let fits = if outermost { total <= packet.len() } else { total == packet.len() };
    ensure(fits && total >= header, || format!("IPv4 says {total}, has {}", packet.len()))?;
    let sum = checksum(&[&packet[..header]]);
    ensure(sum == 0, || format!("IPv4 header checksum is off by {sum:#x}"))?;
    if word(packet, 6)? & 0x3fff != 0 {
        layers.push("fragment");
        return Ok(());
    }
    let addresses: [[u8; 4]; 2] = [copy(packet, 12)?, copy(packet, 16)?];
    let [source, destination] = addresses.map(IpAddr::from);
    transport(&packet[header..total], packet[9], source, destination, layers)
}

fn copy<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], String> {
    let part = bytes.get(at..at + N).ok_or("too short")?;
    part.try_into().map_err(|error| format!("too short: {error}"))
}

fn v6(packet: &[u8], layers: &mut Layers, outermost: bool) -> Result<(), String> {
    layers.push("ipv6");
    ensure(packet.len() >= 40, || "IPv6 header is cut".to_owned())?;
    ensure(packet[0] >> 4 == 6, || format!("IPv6 begins {:#x}", packet[0]))?;
    let total = 40 + usize::from(word(packet, 4)?);
    let fits = if outermost { total <= packet.len() } else { total == packet.len() };
    ensure(fits, || format!("IPv6 says {total}, has {}", packet.len()))?;
    let addresses: [[u8; 16]; 2] = [copy(packet, 8)?, copy(packet, 24)?];
    let [source, destination] = addresses.map(IpAddr::from);
    let (mut next, mut at) = (packet[6], 40);
    while matches!(next, 0 | 43 | 44 | 60) {
        let head: [u8; 4] = copy(&packet[..total], at)?;
        layers.push("extension");
        if next == 44 && u16::from_be_bytes([head[2], head[3]]) & 0xfff9 != 0 {
            layers.push("fragment");
            return Ok(());
        }
        at += if next == 44 { 8 } else { 8 + usize::from(head[1]) * 8 };
        next = head[0];
    }
    let payload = packet.get(at..total).ok_or("extension headers beyond the packet")?;
    transport(payload, next, source, destination, layers)
}

fn transport(
    payload: &[u8],
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
    layers: &mut Layers,
) -> Result<(), String> {
    let pseudo = pseudo_header(source, destination, protocol, payload.len());
    let whole = |name: &str, parts: &[&[u8]]| {
        let sum = checksum(parts);
        // All zero is a sum of zero, which no checksum makes valid (RFC 1071 section 2).
        let zero = parts.iter().all(|part| part.iter().all(|byte| *byte == 0));
        ensure(sum == 0 && !zero, || format!("{name} checksum is off by {sum:#x}"))
    };
    match protocol {
        IPV4 => v4(payload, layers, false),
        IPV6 => v6(payload, layers, false),
        TCP => {
            layers.push("tcp");
            ensure(payload.len() >= 20, || "TCP header is cut".to_owned())?;
            whole("TCP", &[&pseudo, payload])
        }
        UDP => udp(payload, &pseudo, source, layers),
        ICMP => {
            layers.push("icmp");
            ensure(payload.len() >= 8, || "ICMP header is cut".to_owned())?;
            whole("ICMP", &[payload])
        }
        ICMPV6 => {
            layers.push("icmpv6");
            ensure(payload.len() >= 8, || "ICMPv6 header is cut".to_owned())?;
            whole("ICMPv6", &[&pseudo, payload])
        }
        _ => {
            layers.push("other");
            Ok(())
        }
    }
}

fn udp(payload: &[u8], pseudo: &[u8], source: IpAddr, layers: &mut Layers) -> Result<(), String> {
    let length = usize::from(word(payload, 4)?);
    ensure(length == payload.len(), || format!("UDP says {length}, has {}", payload.len()))?;
    let tunnel = word(payload, 2)? == GUE_PORT;
    match word(payload, 6)? {
        // Without a checksum: over IPv6 only a tunnel may do so (RFC 6935).
        0 if tunnel || source.is_ipv4() => {}
        _ => {
            let sum = checksum(&[pseudo, payload]);
            ensure(sum == 0, || format!("UDP checksum is off by {sum:#x}"))?;
        }
    }
    if !tunnel {
        layers.push("udp");
        return Ok(());
    }
    layers.push("gue");
    let head: [u8; 4] = copy(payload, 8)?;
    ensure(head[0] & 0xe0 == 0, || format!("GUE variant or control bit: {:#x}", head[0]))?;
    ensure(head[2] == 0 && head[3] == 0, || "GUE flags without fields".to_owned())?;
    let inner = payload.get(12 + usize::from(head[0]) * 4..).ok_or("GUE header is cut")?;
    match head[1] {
        IPV4 => v4(inner, layers, false),
        IPV6 => v6(inner, layers, false),
        other => Err(format!("GUE carries protocol {other}")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::super::{ACK, Ip, Packet, UDP, udp_without_checksum};
    use super::frame;

    const V4: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(203, 0, 113, 1)];
    const V6: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7),
        Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1),
    ];

    fn packets() -> Vec<(Packet, Vec<&'static str>)> {
        let (v4, v6) = (Ip::new(V4[0], V4[1]), Ip::new(V6[0], V6[1]));
        let inner = v4.tcp(1, 2, ACK, b"odd");
        let gue = [&[0, 4, 0, 0][..], inner.bytes()].concat();
        vec![
            (v4.tcp(40_000, 80, ACK, b"odd"), vec!["eth", "ipv4", "tcp"]),
            (v4.clone().options(&[1, 1, 1, 0]).udp(1, 2, b""), vec!["eth", "ipv4", "udp"]),
            (v4.icmp(8, 0, [0; 4], b"x"), vec!["eth", "ipv4", "icmp"]),
            (v6.icmp(128, 0, [0; 4], b"x"), vec!["eth", "ipv6", "icmpv6"]),
            (
                v6.clone().extension(60, &[0; 6]).tcp(1, 2, 0, b""),
                vec!["eth", "ipv6", "extension", "tcp"],
            ),
            (v6.raw(4, inner.bytes()), vec!["eth", "ipv6", "ipv4", "tcp"]),
            (
                v4.raw(UDP, &udp_without_checksum(1, 6080, &gue)),
                vec!["eth", "ipv4", "gue", "ipv4", "tcp"],
            ),
        ]
    }

    #[test]
    fn what_is_built_is_sound() {
        for (packet, layers) in packets() {
            assert_eq!(frame(&packet.frame()), Ok(layers));
        }
        let (packet, _) = packets().remove(0);
        let tagged = packet.tagged(&[(0x88a8, 5), (0x8100, 6)]);
        assert_eq!(frame(&tagged), Ok(vec!["eth", "vlan", "vlan", "ipv4", "tcp"]));
    }

    #[test]
    fn one_changed_bit_is_seen() {
        // Those without a tunnel: an outer IPv6 header has no sum over it.
        for (packet, _) in packets().into_iter().take(5) {
            let bytes = packet.frame();
            for at in 14..bytes.len() {
                // Nor has the class, label and hop limit of any, nor an extension header.
                let v6 = packet.kind() == 0x86dd;
                let unsummed = v6 && matches!(at - 14, 0..4 | 6..8 | 40..48);
                let mut changed = bytes.clone();
                changed[at] ^= 0x10;
                assert!(unsummed || frame(&changed).is_err(), "byte {at} of {packet:?}");
            }
        }
    }

    #[test]
    fn an_echo_reply_of_zeros_with_a_sum_of_zero_is_refused() {
        let reply = Ip::new(V4[0], V4[1]).icmp(0, 0, [0; 4], b"");
        assert!(frame(&reply.frame()).is_ok());
        let zeros = Ip::new(V4[0], V4[1]).raw(1, &[0; 8]);
        assert!(frame(&zeros.frame()).is_err());
    }
}
