//! Wire headers: alignment 1, any bit pattern valid, every field in network byte order.
//!
//! Fields are integers, not byte arrays, because each then is one load or store; [`Be16`] and
//! [`Be32`] keep the byte order in the type, and addresses are opaque words.

/// A type that may lie anywhere in a packet.
///
/// # Safety
/// Implementors have alignment 1, no padding, and accept every bit pattern.
pub unsafe trait Wire: Copy {}

/// 16 bits in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Be16(pub u16);

impl Be16 {
    /// From a host value.
    #[inline(always)]
    #[must_use]
    pub const fn new(value: u16) -> Self {
        Self(value.to_be())
    }

    /// As a host value.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// 32 bits in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Be32(pub u32);

impl Be32 {
    /// From a host value.
    #[inline(always)]
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(value.to_be())
    }

    /// As a host value.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u32 {
        u32::from_be(self.0)
    }
}

macro_rules! wire {
    ($(
        $(#[$doc:meta])*
        $name:ident $size:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            #[repr(C, packed)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
            const _: () = assert!(size_of::<$name>() == $size && align_of::<$name>() == 1);
            // SAFETY: packed integers only (size asserted above).
            unsafe impl $crate::headers::Wire for $name {}
        )*
    };
}
pub(crate) use wire;

// SAFETY: bytes only.
unsafe impl<const N: usize> Wire for [u8; N] {}

/// `N` 32-bit words, to be summed.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Words<const N: usize>(pub [[u8; 4]; N]);
// SAFETY: bytes only.
unsafe impl<const N: usize> Wire for Words<N> {}

wire! {
    /// IEEE 802.3.
    Ethernet 14 {
        /// Destination MAC and the first two bytes of the source MAC, as they lie in the frame.
        addresses_low: u64,
        /// The other four bytes of the source MAC.
        addresses_high: u32,
        /// EtherType.
        kind: Be16,
    }
    /// IEEE 802.1Q tag, from behind the EtherType that announced it.
    Vlan 4 {
        /// Priority and VLAN id.
        control: Be16,
        /// EtherType of what follows.
        kind: Be16,
    }
    /// RFC 791.
    Ipv4 20 {
        /// Version and header length in 4-byte units.
        version_ihl: u8,
        /// DSCP and ECN (RFC 2474, RFC 3168).
        tos: u8,
        /// Header and payload, bytes.
        total_length: Be16,
        /// Identification.
        id: Be16,
        /// Flags and fragment offset.
        fragment: Be16,
        /// Time to live.
        ttl: u8,
        /// Protocol number.
        protocol: u8,
        /// Header checksum.
        checksum: u16,
        /// Source address.
        source: u32,
        /// Destination address.
        destination: u32,
    }
    /// RFC 8200.
    Ipv6 40 {
        /// Version, traffic class, flow label.
        first: Be32,
        /// Bytes behind this header.
        payload_length: Be16,
        /// What follows.
        next_header: u8,
        /// Hop limit.
        hop_limit: u8,
        /// Source address.
        source: [u64; 2],
        /// Destination address.
        destination: [u64; 2],
    }
    /// The first bytes of an IPv6 extension header (RFC 8200 section 4).
    Extension 8 {
        /// What follows.
        next_header: u8,
        /// Length in 8-byte units, the first not counted; reserved in a fragment header.
        length: u8,
        /// A fragment header's offset and M flag.
        fragment: Be16,
        /// The rest.
        rest: Be32,
    }
    /// RFC 9293, up to the flags.
    Tcp 20 {
        /// Source port in the lower half, destination port in the upper half, each as it lies.
        ports: u32,
        /// Sequence number.
        sequence: Be32,
        /// Acknowledgement number.
        acknowledgement: Be32,
        /// Data offset in 4-byte units, upper four bits.
        offset: u8,
        /// Flags: FIN 1, SYN 2, RST 4, PSH 8, ACK 16.
        flags: u8,
        /// Window.
        window: Be16,
        /// Checksum.
        checksum: u16,
        /// Urgent pointer.
        urgent: Be16,
    }
    /// RFC 768.
    Udp 8 {
        /// Source port in the lower half, destination port in the upper half, each as it lies.
        ports: u32,
        /// Header and payload, bytes.
        length: Be16,
        /// Checksum; 0 = none.
        checksum: u16,
    }
    /// RFC 792 and RFC 4443.
    Icmp 8 {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Checksum.
        checksum: u16,
        /// Identifier and sequence, or unused and MTU.
        rest: Be32,
    }
    /// Generic UDP Encapsulation, variant 0 (draft-ietf-intarea-gue-09 section 3.1).
    Gue 4 {
        /// Variant, control bit, length of what follows this header in 4-byte units.
        length: u8,
        /// IP protocol of the payload: 4 or 41.
        protocol: u8,
        /// Optional fields present: none, so all that follows is private data.
        flags: Be16,
    }
}

/// EtherType IPv4.
pub const ETHERTYPE_IPV4: Be16 = Be16::new(0x0800);
/// EtherType IPv6.
pub const ETHERTYPE_IPV6: Be16 = Be16::new(0x86dd);
/// EtherType of a customer VLAN tag.
pub const ETHERTYPE_VLAN: Be16 = Be16::new(0x8100);
/// EtherType of a service VLAN tag.
pub const ETHERTYPE_SERVICE_VLAN: Be16 = Be16::new(0x88a8);

impl Ethernet {
    /// The same frame the other way.
    #[inline(always)]
    #[must_use]
    pub const fn swapped(self, kind: Be16) -> Self {
        let (low, high) = (self.addresses_low, self.addresses_high);
        Self {
            addresses_low: low >> 48 | (high as u64) << 16 | low << 48,
            addresses_high: (low >> 16) as u32,
            kind,
        }
    }
}

/// IP protocol numbers (IANA).
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// TCP flags (RFC 9293 section 3.1).
pub mod tcp_flag {
    /// No more data.
    pub const FIN: u8 = 1;
    /// Open.
    pub const SYN: u8 = 2;
    /// Reset.
    pub const RST: u8 = 4;
    /// Acknowledgement.
    pub const ACK: u8 = 16;
}
