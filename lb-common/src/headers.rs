//! Wire headers as byte arrays: alignment 1, any bit pattern valid, network byte order.

/// A type that may lie anywhere in a packet.
///
/// # Safety
/// Implementors have alignment 1, no padding, and accept every bit pattern.
pub unsafe trait Wire: Copy {}

macro_rules! wire {
    ($($(#[$doc:meta])* $name:ident $size:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            #[repr(C)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
            const _: () = assert!(size_of::<$name>() == $size && align_of::<$name>() == 1);
            // SAFETY: byte arrays and bytes only (asserted above).
            unsafe impl Wire for $name {}
        )*
    };
}

// SAFETY: a byte array has alignment 1 and no invalid patterns.
unsafe impl<const N: usize> Wire for [u8; N] {}
// SAFETY: as above, grouped into words.
unsafe impl<const N: usize> Wire for [[u8; 4]; N] {}

wire! {
    /// IEEE 802.3.
    Ethernet 14 {
        /// Destination MAC.
        destination: [u8; 6],
        /// Source MAC.
        source: [u8; 6],
        /// EtherType.
        kind: [u8; 2],
    }
    /// IEEE 802.1Q tag, from behind the EtherType that announced it.
    Vlan 4 {
        /// Priority and VLAN id.
        control: [u8; 2],
        /// EtherType of what follows.
        kind: [u8; 2],
    }
    /// RFC 791.
    Ipv4 20 {
        /// Version and header length in 4-byte units.
        version_ihl: u8,
        /// DSCP and ECN (RFC 2474, RFC 3168).
        tos: u8,
        /// Header and payload, bytes.
        total_length: [u8; 2],
        /// Identification.
        id: [u8; 2],
        /// Flags and fragment offset.
        fragment: [u8; 2],
        /// Time to live.
        ttl: u8,
        /// Protocol number.
        protocol: u8,
        /// Header checksum.
        checksum: [u8; 2],
        /// Source address.
        source: [u8; 4],
        /// Destination address.
        destination: [u8; 4],
    }
    /// RFC 8200.
    Ipv6 40 {
        /// Version, traffic class, flow label.
        first: [u8; 4],
        /// Bytes behind this header.
        payload_length: [u8; 2],
        /// What follows.
        next_header: u8,
        /// Hop limit.
        hop_limit: u8,
        /// Source address.
        source: [u8; 16],
        /// Destination address.
        destination: [u8; 16],
    }
    /// The first bytes of an IPv6 extension header (RFC 8200 section 4).
    Extension 8 {
        /// What follows.
        next_header: u8,
        /// Length in 8-byte units, the first not counted; reserved in a fragment header.
        length: u8,
        /// A fragment header's offset and M flag.
        fragment: [u8; 2],
        /// The rest.
        rest: [u8; 4],
    }
    /// RFC 9293, up to the flags.
    Tcp 20 {
        /// Source and destination port.
        ports: [u8; 4],
        /// Sequence number.
        sequence: [u8; 4],
        /// Acknowledgement number.
        acknowledgement: [u8; 4],
        /// Data offset in 4-byte units, upper four bits.
        offset: u8,
        /// Flags: FIN 1, SYN 2, RST 4, PSH 8, ACK 16.
        flags: u8,
        /// Window.
        window: [u8; 2],
        /// Checksum.
        checksum: [u8; 2],
        /// Urgent pointer.
        urgent: [u8; 2],
    }
    /// RFC 768.
    Udp 8 {
        /// Source and destination port.
        ports: [u8; 4],
        /// Header and payload, bytes.
        length: [u8; 2],
        /// Checksum; 0 = none.
        checksum: [u8; 2],
    }
    /// RFC 792 and RFC 4443.
    Icmp 8 {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Checksum.
        checksum: [u8; 2],
        /// Identifier and sequence, or unused and MTU.
        rest: [u8; 4],
    }
    /// Generic UDP Encapsulation, variant 0 (draft-ietf-intarea-gue-09 section 3.1).
    Gue 4 {
        /// Variant, control bit, length of what follows this header in 4-byte units.
        length: u8,
        /// IP protocol of the payload: 4 or 41.
        protocol: u8,
        /// Optional fields present: none, so all that follows is private data.
        flags: [u8; 2],
    }
}

/// EtherType IPv4, as it lies in the frame.
pub const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
/// EtherType IPv6, as it lies in the frame.
pub const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// EtherType of a customer VLAN tag.
pub const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
/// EtherType of a service VLAN tag.
pub const ETHERTYPE_SERVICE_VLAN: [u8; 2] = [0x88, 0xa8];

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
