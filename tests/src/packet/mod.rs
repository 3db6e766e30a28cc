//! Frames for the program's tests: built, checked and written by definitions of their own, so
//! that they can disagree with the code under test. Nothing here may come from `lb_common`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub mod check;
pub mod pcap;

/// IANA protocol numbers.
pub const ICMP: u8 = 1;
/// IPv4 in IP.
pub const IPV4: u8 = 4;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// IPv6 in IP.
pub const IPV6: u8 = 41;
/// ICMPv6.
pub const ICMPV6: u8 = 58;

/// TCP flags.
pub const FIN: u8 = 0x01;
/// Open.
pub const SYN: u8 = 0x02;
/// Reset.
pub const RST: u8 = 0x04;
/// Acknowledgement.
pub const ACK: u8 = 0x10;

/// Where frames come from.
pub const ROUTER_MAC: [u8; 6] = [0x02, 0xaa, 0, 0, 0, 0x01];
/// Whom they are for.
pub const BALANCER_MAC: [u8; 6] = [0x02, 0xbb, 0, 0, 0, 0x02];

/// The complement of the one's complement sum of 16-bit words (RFC 1071), odd ends padded.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// A length as its header field has it; a frame is never that long that it would be cut.
fn length_field(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// The pseudo header of TCP, UDP and ICMPv6 (RFC 9293 section 3.1, RFC 8200 section 8.1).
fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let [high, low] = length_field(length);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            [&source.octets()[..], &destination.octets(), &[0, protocol, high, low]].concat()
        }
        (source, destination) => {
            let [source, destination] = [source, destination].map(|address| match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            });
            [&source[..], &destination, &[0, 0, high, low, 0, 0, 0, protocol]].concat()
        }
    }
}

/// An IP header to be; what goes behind it makes it a packet.
#[derive(Clone, Debug)]
pub struct Ip {
    source: IpAddr,
    destination: IpAddr,
    tos: u8,
    ttl: u8,
    id: u16,
    label: u32,
    fragment: u16,
    options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
}

impl Ip {
    /// ToS 0, TTL 63, DF set, id 0, no options.
    #[must_use]
    pub fn new(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Self {
        Self {
            source: source.into(),
            destination: destination.into(),
            tos: 0,
            ttl: 63,
            id: 0,
            label: 0,
            fragment: 0x4000,
            options: Vec::new(),
            extensions: Vec::new(),
        }
    }

    /// The same the other way.
    #[must_use]
    pub fn back(&self) -> Self {
        let (source, destination) = (self.destination, self.source);
        Self { source, destination, ..self.clone() }
    }

    /// DSCP and ECN.
    #[must_use]
    pub const fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }

    /// TTL or hop limit.
    #[must_use]
    pub const fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// IPv4's identification.
    #[must_use]
    pub const fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    /// IPv6's flow label.
    #[must_use]
    pub const fn label(mut self, label: u32) -> Self {
        self.label = label;
        self
    }

    /// IPv4's flags and fragment offset, all 16 bits.
    #[must_use]
    pub const fn fragment(mut self, fragment: u16) -> Self {
        self.fragment = fragment;
        self
    }

    /// IPv4's options, a multiple of four bytes, at most 40.
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// One more IPv6 extension header: its own number, and its bytes from the third on, so that
    /// with two bytes in front of them they are a multiple of eight.
    #[must_use]
    pub fn extension(mut self, kind: u8, body: &[u8]) -> Self {
        self.extensions.push((kind, body.to_vec()));
        self
    }

    /// An IPv6 fragment header: offset in bytes, and whether more follow.
    #[must_use]
    pub fn fragment_v6(self, offset: u16, more: bool) -> Self {
        let [high, low] = (offset & 0xfff8 | u16::from(more)).to_be_bytes();
        self.extension(44, &[high, low, 0, 0, 0, 9])
    }

    /// Around anything.
    #[must_use]
    pub fn raw(&self, protocol: u8, payload: &[u8]) -> Packet {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.v4(source, destination, protocol, payload)
            }
            (source, destination) => {
                let [source, destination] = [source, destination].map(|address| match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                });
                self.v6(source, destination, protocol, payload)
            }
        }
    }

    fn v4(&self, source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, body: &[u8]) -> Packet {
        let words = 5 + u8::try_from(self.options.len() / 4).unwrap_or(0);
        let mut bytes = vec![0x40 | words, self.tos];
        bytes.extend(length_field(20 + self.options.len() + body.len()));
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([self.ttl, protocol, 0, 0]);
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        bytes.extend(&self.options);
        let sum = checksum(&[&bytes]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend(body);
        Packet(bytes)
    }

    fn v6(&self, source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, body: &[u8]) -> Packet {
        let mut next: Vec<u8> = self.extensions.iter().map(|extension| extension.0).collect();
        next.push(protocol);
        let mut chain = Vec::new();
        for ((kind, rest), next) in self.extensions.iter().zip(next.iter().skip(1)) {
            // A fragment header's second byte is reserved, not a length.
            let units = if *kind == 44 { 0 } else { (rest.len() + 2) / 8 - 1 };
            chain.extend([*next, u8::try_from(units).unwrap_or(0)]);
            chain.extend(rest);
        }
        let first = 6 << 28 | u32::from(self.tos) << 20 | self.label & 0xf_ffff;
        let mut bytes = first.to_be_bytes().to_vec();
        bytes.extend(length_field(chain.len() + body.len()));
        bytes.extend([next[0], self.ttl]);
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        bytes.extend(chain);
        bytes.extend(body);
        Packet(bytes)
    }

    /// `message` with its checksum, at `at`, set.
    fn summed(&self, protocol: u8, mut message: Vec<u8>, at: usize, pseudo: bool) -> Packet {
        let header = pseudo_header(self.source, self.destination, protocol, message.len());
        let sum = checksum(&[if pseudo { &header } else { &[] }, &message]);
        message[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        self.raw(protocol, &message)
    }

    /// A TCP segment.
    #[must_use]
    pub fn tcp(&self, source: u16, destination: u16, flags: u8, payload: &[u8]) -> Packet {
        let mut segment = [source.to_be_bytes(), destination.to_be_bytes()].concat();
        segment.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
        segment.extend(payload);
        self.summed(TCP, segment, 16, true)
    }

    /// A UDP datagram.
    #[must_use]
    pub fn udp(&self, source: u16, destination: u16, payload: &[u8]) -> Packet {
        let mut datagram = [source.to_be_bytes(), destination.to_be_bytes()].concat();
        datagram.extend(length_field(8 + payload.len()));
        datagram.extend([0, 0]);
        datagram.extend(payload);
        self.summed(UDP, datagram, 6, true)
    }

    /// An ICMP message, or an ICMPv6 one, as the addresses are.
    #[must_use]
    pub fn icmp(&self, kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Packet {
        let mut message = vec![kind, code, 0, 0];
        message.extend(rest);
        message.extend(payload);
        match self.source {
            IpAddr::V4(_) => self.summed(ICMP, message, 2, false),
            IpAddr::V6(_) => self.summed(ICMPV6, message, 2, true),
        }
    }

    /// An ICMP error that quotes a packet, or what is left of it.
    #[must_use]
    pub fn error(&self, kind: u8, code: u8, quote: &[u8]) -> Packet {
        self.icmp(kind, code, [0; 4], quote)
    }
}

/// An IP packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet(pub Vec<u8>);

impl Packet {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The EtherType of what it is.
    #[must_use]
    pub fn kind(&self) -> u16 {
        if self.0[0] >> 4 == 6 { 0x86dd } else { 0x0800 }
    }

    /// In Ethernet, from the router to the load balancer.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        self.frame_between(ROUTER_MAC, BALANCER_MAC)
    }

    /// In Ethernet.
    #[must_use]
    pub fn frame_between(&self, source: [u8; 6], destination: [u8; 6]) -> Vec<u8> {
        ethernet(source, destination, self.kind(), &self.0)
    }

    /// In Ethernet with VLAN tags (EtherType, priority and number), the outermost first.
    #[must_use]
    pub fn tagged(&self, tags: &[(u16, u16)]) -> Vec<u8> {
        let mut kind = self.kind();
        let mut payload = self.0.clone();
        for (tag, control) in tags.iter().rev() {
            let head = [control.to_be_bytes(), kind.to_be_bytes()].concat();
            payload.splice(0..0, head);
            kind = *tag;
        }
        ethernet(ROUTER_MAC, BALANCER_MAC, kind, &payload)
    }
}

/// An Ethernet frame, without padding and FCS.
#[must_use]
pub fn ethernet(source: [u8; 6], destination: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&destination[..], &source, &kind.to_be_bytes(), payload].concat()
}

/// A UDP datagram without a checksum, as a tunnel may send it (RFC 6935).
#[must_use]
pub fn udp_without_checksum(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    datagram.extend(length_field(8 + payload.len()));
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// Hexadecimal, for messages.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
