//! Which VIP is a packet for? Two small open-addressed tables, addresses and then ports.
//!
//! User space builds a whole index beside the live one and swaps one word (see
//! [`VipRoot`]); it chooses a multiplier with which every key lies within [`PROBES`] places of
//! its hash, so a lookup is bounded and nearly always one cache line.

use crate::headers::protocol;

/// Places of the address table (at most a quarter is used).
pub const ADDRESS_PLACES: usize = 16_384;
/// Places of the port table, all addresses together.
pub const PORT_PLACES: usize = 16_384;
/// How far from its hash a key may lie.
pub const PROBES: usize = 4;

/// A VIP address; 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(32))]
pub struct AddressEntry {
    /// The address, as [`Address::words`](crate::addr::Address::words); all zero = an empty place.
    pub address: [u64; 2],
    /// Where this address's ports begin in the port table.
    pub first_port: u32,
    /// Its number of places there minus one: a power of two minus one.
    pub port_mask: u16,
    /// Place of its any-port TCP VIP, 0 = none.
    pub any_tcp: u16,
    /// Place of its any-port UDP VIP, 0 = none.
    pub any_udp: u16,
    /// Zero.
    pub pad: [u16; 3],
}

/// A VIP; 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(16))]
pub struct VipEntry {
    /// See [`port_key`]; 0 = an empty place.
    pub key: u32,
    /// Its number for the counters, 1..[`crate::MAX_VIPS`].
    pub vip: u16,
    /// Its pool.
    pub pool: u16,
    /// [`VipEntry::STATELESS`], [`VipEntry::ALWAYS`], [`VipEntry::ASKS`].
    pub flags: u16,
    /// Idle timeout of its UDP flows, ticks.
    pub udp_idle: u16,
    /// Zero.
    pub pad: u32,
}
const _: () = assert!(size_of::<AddressEntry>() == 32 && size_of::<VipEntry>() == 16);

impl VipEntry {
    /// Never asks the flow table.
    pub const STATELESS: u16 = 1;
    /// Enters all its flows into the flow table.
    pub const ALWAYS: u16 = 2;
    /// Asks the flow table in slots that are not contested, too.
    pub const ASKS: u16 = 4;
}

/// One of the two indexes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct VipIndex {
    /// By [`address_place`].
    pub addresses: [AddressEntry; ADDRESS_PLACES],
    /// By [`port_place`]; place 0 is never used.
    pub ports: [VipEntry; PORT_PLACES],
}

/// Which index is live, and its multiplier, in the one word that a change swaps: bit 0 is the
/// index, the word with bit 0 set is the multiplier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct VipRoot(pub u64);

impl VipRoot {
    /// The live index, 0 or 1.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        (self.0 & 1) as usize
    }

    /// The multiplier, odd.
    #[inline(always)]
    #[must_use]
    pub const fn multiplier(self) -> u64 {
        self.0 | 1
    }
}

/// The place where an address's probe sequence begins.
#[inline(always)]
#[must_use]
pub const fn address_place(words: [u64; 2], multiplier: u64) -> usize {
    let mixed = words[0].wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ words[1];
    (mixed.wrapping_mul(multiplier) >> 50) as usize
}
const _: () = assert!(ADDRESS_PLACES == 1 << (64 - 50));

/// A VIP's key: destination port as it lies in the packet read little-endian, protocol, and a bit
/// that is always set.
#[inline(always)]
#[must_use]
pub const fn port_key(port: u16, protocol: u8) -> u32 {
    port as u32 | (protocol as u32) << 16 | 1 << 31
}

/// The place, relative to the address's first one, where a key's probe sequence begins.
#[inline(always)]
#[must_use]
pub const fn port_place(key: u32, multiplier: u64, mask: u16) -> usize {
    ((key as u64).wrapping_mul(multiplier) >> 48) as usize & mask as usize
}

impl VipIndex {
    /// The entry of a VIP address.
    #[inline(always)]
    #[must_use]
    pub fn address(&self, words: [u64; 2], multiplier: u64) -> Option<&AddressEntry> {
        let first = address_place(words, multiplier);
        let mut probe = 0;
        while probe < PROBES {
            let entry = &self.addresses[(first + probe) & (ADDRESS_PLACES - 1)];
            let found = entry.address;
            if found[0] == words[0] && found[1] == words[1] {
                return Some(entry);
            }
            if found[1] == 0 && found[0] == 0 {
                return None;
            }
            probe += 1;
        }
        None
    }

    /// The VIP of a port of that address: exact before any-port.
    #[inline(always)]
    #[must_use]
    pub fn vip(&self, address: &AddressEntry, key: u32, multiplier: u64) -> Option<&VipEntry> {
        let first = port_place(key, multiplier, address.port_mask);
        let mut probe = 0;
        while probe < PROBES {
            let place = (first + probe) & address.port_mask as usize;
            let entry = &self.ports[(address.first_port as usize + place) & (PORT_PLACES - 1)];
            if entry.key == key {
                return Some(entry);
            }
            probe += 1;
        }
        // The protocol that an ICMP error quotes may be any other one.
        let any = match (key >> 16) as u8 {
            protocol::TCP => address.any_tcp,
            protocol::UDP => address.any_udp,
            _ => 0,
        };
        if any == 0 {
            return None;
        }
        Some(&self.ports[any as usize & (PORT_PLACES - 1)])
    }
}
