//! Addresses as the data plane keeps them.
//!
//! Every value here is in network byte order; nothing else in the workspace keeps a bare integer
//! for an address.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 address in 16 bytes, network byte order; IPv4 is v4-mapped
/// (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(C, align(8))]
pub struct Address(pub [u8; 16]);

impl Address {
    /// The unspecified address `::`, meaning "not set".
    pub const UNSET: Self = Self([0; 16]);

    /// The v4-mapped form of four bytes in network order.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(bytes: [u8; 4]) -> Self {
        let [a, b, c, d] = bytes;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// True for a v4-mapped address.
    #[inline(always)]
    #[must_use]
    pub fn is_v4(&self) -> bool {
        is_v4(self.words())
    }

    /// The last four bytes: the IPv4 address of a v4-mapped one.
    #[inline(always)]
    #[must_use]
    pub const fn v4(&self) -> [u8; 4] {
        let [.., a, b, c, d] = self.0;
        [a, b, c, d]
    }

    /// The inverse of [`Address::words`].
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u64; 2]) -> Self {
        let [a, b, c, d, e, f, g, h] = words[0].to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = words[1].to_ne_bytes();
        Self([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    /// The two halves as they lie in memory (native loads of network-order bytes).
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u64; 2] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.0;
        [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
    }
}

/// [`Address::words`] of an IPv4 address read from a packet as one word.
#[inline(always)]
#[must_use]
pub const fn v4_words(address: u32) -> [u64; 2] {
    [0, u64::from_le(0xffff_0000) | (address as u64) << 32]
}

/// Are these the words of a v4-mapped address?
#[inline(always)]
#[must_use]
pub const fn is_v4(words: [u64; 2]) -> bool {
    words[0] == 0 && words[1].to_le() as u32 == 0xffff_0000
}

/// The inverse of [`v4_words`].
#[inline(always)]
#[must_use]
pub const fn v4_of(words: [u64; 2]) -> u32 {
    (words[1] >> 32) as u32
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        if address.is_v4() {
            Self::V4(Ipv4Addr::from(address.v4()))
        } else {
            Self::V6(Ipv6Addr::from(address.0))
        }
    }
}

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}
