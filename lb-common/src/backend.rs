//! A backend as the data plane sees it, ready to be written in front of a packet.

/// A backend's id: one (pool, backend) pair of this LB, 1..=32,767; 0 is "none".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct BackendId(pub u16);

/// The outer headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Outer {
    /// IPv4, protocol 4 or 41 (RFC 2003, RFC 4213).
    IpipV4 = 0,
    /// IPv6, next header 4 or 41 (RFC 2473).
    IpipV6 = 1,
    /// IPv4, UDP, GUE.
    GueV4 = 2,
    /// IPv6, UDP, GUE.
    GueV6 = 3,
}

impl Outer {
    /// Bytes in front of the inner IP header, without Ethernet.
    #[inline(always)]
    #[must_use]
    pub const fn overhead(self) -> u16 {
        match self {
            Self::IpipV4 => 20,
            Self::IpipV6 => 40,
            Self::GueV4 => 56,
            Self::GueV6 => 124,
        }
    }
}

/// The link-layer header towards a backend's next hop; 16 bytes. A next hop that changes only its
/// MAC is one 8-byte store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(8))]
pub struct Link {
    /// As [`Ethernet::addresses_low`](crate::headers::Ethernet::addresses_low).
    pub addresses_low: u64,
    /// As [`Ethernet::addresses_high`](crate::headers::Ethernet::addresses_high).
    pub addresses_high: u32,
    /// Our interface's index, native order.
    pub interface: u32,
}

impl Link {
    /// From the next hop's MAC, our own, and our interface.
    #[must_use]
    pub const fn new(destination: [u8; 6], source: [u8; 6], interface: u32) -> Self {
        let [a, b, c, d, e, f] = destination;
        let [g, h, i, j, k, l] = source;
        Self {
            addresses_low: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            addresses_high: u32::from_ne_bytes([i, j, k, l]),
            interface,
        }
    }
}

/// One backend; 64 bytes, one cache line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(64))]
pub struct Backend {
    /// Outer destination, as [`Address::words`](crate::addr::Address::words).
    pub destination: [u64; 2],
    /// Two copies: one is live (see [`State`]), the other may be rewritten.
    pub links: [Link; 2],
    /// See [`State`]; one 4-byte store makes all of a change visible.
    pub state: u32,
    /// One's complement sum of the constant part of the outer IPv4 header, not folded.
    pub checksum: u32,
    /// Zero.
    pub pad: u64,
}
const _: () = assert!(size_of::<Backend>() == 64 && size_of::<Link>() == 16);

/// What [`Backend::state`] packs: bits 0..16 the largest inner packet in bytes (0: next hop not
/// resolved), bits 16..18 [`Outer`], bit 31 the live link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    /// Largest inner IP packet that fits the path once encapsulated, bytes; 0 = unresolved.
    pub inner_mtu: u16,
    /// The outer headers.
    pub outer: Outer,
    /// Which of the two links is live.
    pub link: u8,
}

impl State {
    /// Into its word.
    #[must_use]
    pub const fn pack(self) -> u32 {
        self.inner_mtu as u32 | (self.outer as u32) << 16 | ((self.link & 1) as u32) << 31
    }

    /// Out of its word.
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u32) -> Self {
        let outer = match (word >> 16) & 3 {
            0 => Outer::IpipV4,
            1 => Outer::IpipV6,
            2 => Outer::GueV4,
            _ => Outer::GueV6,
        };
        Self { inner_mtu: word as u16, outer, link: (word >> 31) as u8 }
    }
}
