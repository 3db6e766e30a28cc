//! The MSS clamp: which SYN of a VIP promises the client more than the tunnel carries.
//!
//! The MSS that a VIP announces bounds what the client sends, and that is the direction that
//! crosses the tunnel. It only decides; the program writes, because a checksum may be left to the
//! device.

use super::{AgentTables, Outcome, address_flag, link};
use crate::addr::{Address, v4_words};
use crate::headers::{Ipv4, Ipv6, Tcp, protocol, tcp_flag};
use crate::packet::Packet;

/// TCP options walked. A SYN of any known stack has at most eight, padding included, and its MSS
/// first; an MSS behind more is left as it is.
pub const MAX_OPTIONS: usize = 10;

const OPTION_END: u8 = 0;
const OPTION_PADDING: u8 = 1;
const OPTION_MSS: u8 = 2;

/// An MSS to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clamp {
    /// Offset of the two bytes of the MSS in the frame.
    pub at: u16,
    /// Offset of the TCP checksum in the frame.
    pub checksum_at: u16,
    /// The MSS announced, network order.
    pub old: [u8; 2],
    /// The MSS to announce, network order.
    pub new: [u8; 2],
    /// It lies across two of the checksum's words.
    pub odd: bool,
}

impl Clamp {
    /// Old and new, as the checksum sees them: an odd place swaps the bytes (RFC 1071 section 2 B).
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> ([u8; 2], [u8; 2]) {
        if self.odd {
            ([self.old[1], self.old[0]], [self.new[1], self.new[0]])
        } else {
            (self.old, self.new)
        }
    }
}

/// What a leaving frame is to the clamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mss {
    /// No SYN of a VIP.
    Other,
    /// A SYN whose MSS is small enough, absent, or out of reach.
    Kept,
    /// A SYN whose MSS must be lowered.
    Lower(Clamp),
}

impl Mss {
    /// What it is counted under; `None` = not at all.
    #[inline(always)]
    #[must_use]
    pub const fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Other => None,
            Self::Kept => Some(Outcome::MssKept),
            Self::Lower(_) => Some(Outcome::MssClamped),
        }
    }
}

/// Offset of the TCP header, source address, IPv6.
#[inline(always)]
fn tcp_of<P: Packet>(packet: &P) -> Option<(usize, Address, bool)> {
    let link = link(packet)?;
    if link.v6 {
        let ip = packet.get::<Ipv6>(link.at)?;
        if ip.next_header != protocol::TCP {
            return None;
        }
        Some((link.at + size_of::<Ipv6>(), Address::from_words(ip.source), true))
    } else {
        let ip = packet.get::<Ipv4>(link.at)?;
        let first = ip.fragment.get() & 0x1fff == 0;
        if ip.protocol != protocol::TCP || !first {
            return None;
        }
        let header = (ip.version_ihl & 0xf) as usize * 4;
        Some((link.at + header, Address::from_words(v4_words(ip.source)), false))
    }
}

/// Looks at a leaving frame.
#[inline(always)]
pub fn clamp<P: Packet, T: AgentTables>(packet: &P, tables: &T) -> Mss {
    let Some(settings) = tables.settings() else { return Mss::Other };
    let Some((at, source, v6)) = tcp_of(packet) else { return Mss::Other };
    let Some(tcp) = packet.get::<Tcp>(at) else { return Mss::Other };
    if tcp.flags & tcp_flag::SYN == 0 {
        return Mss::Other;
    }
    if tables.flags(&source) & address_flag::VIP == 0 {
        return Mss::Other;
    }
    let limit = if v6 { settings.mss_v6 } else { settings.mss_v4 };
    let length = (tcp.offset >> 4) as usize * 4;
    match find(packet, at + size_of::<Tcp>(), at + length) {
        Some((place, old)) if limit != 0 && u16::from_be_bytes(old) > limit => Mss::Lower(Clamp {
            at: place as u16,
            checksum_at: (at + 16) as u16,
            old,
            new: limit.to_be_bytes(),
            odd: (place - at) & 1 != 0,
        }),
        _ => Mss::Kept,
    }
}

/// Offset and bytes of the MSS among the options in `at..end` (RFC 9293 section 3.2).
#[inline(always)]
fn find<P: Packet>(packet: &P, at: usize, end: usize) -> Option<(usize, [u8; 2])> {
    let mut at = at;
    let mut walked = 0;
    while walked < MAX_OPTIONS {
        // An MSS takes four bytes: behind `end - 4` there is none.
        if at + 4 > end {
            return None;
        }
        let [kind, length, high, low] = *packet.get::<[u8; 4]>(at)?;
        match kind {
            OPTION_END => return None,
            OPTION_MSS if length == 4 => return Some((at + 2, [high, low])),
            OPTION_PADDING => at += 1,
            // Too short to be an option, or an MSS of a wrong length.
            _ if length < 2 || kind == OPTION_MSS => return None,
            _ => at += length as usize,
        }
        walked += 1;
    }
    None
}
