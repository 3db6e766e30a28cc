//! GTSM (RFC 5082) on a listener: a filter that drops what comes from too far, for each peer.
//!
//! The kernel's own option, IP_MINTTL, holds for a whole socket, and peers that need it share a
//! listener with peers that do not. Only bytes that arrive after it is set on an accepted
//! connection are safe. A socket filter knows the peer by its address, lets no SYN from afar in,
//! and is inherited by each connection, so that it holds for every byte.
//!
//! Must not: know sessions or messages.

use std::collections::BTreeMap;
use std::net::IpAddr;

use socket2::SockFilter;

/// Every TTL starts here when GTSM wants to see how many routers took one off.
pub const MAX_TTL: u8 = 255;

/// `ret` of a filter: the whole packet.
const PASS: u32 = u32::MAX;
/// `ret` of a filter: nothing of the packet.
const DROP: u32 = 0;

/// The smallest TTL with which a packet arrives over at most so many hops; one on the link.
#[must_use]
pub const fn min_ttl(hops: u8) -> u8 {
    MAX_TTL - hops.saturating_sub(1)
}

/// Classic BPF for a socket of one family: packets from these addresses arrive with this TTL
/// (IPv6: hop limit) or more, or are dropped; all others pass. `None`: nothing is to be dropped.
#[must_use]
pub fn filter(v6: bool, min_ttls: &BTreeMap<IpAddr, u8>) -> Option<Vec<SockFilter>> {
    let mut program = Vec::new();
    for (peer, min_ttl) in min_ttls.iter().filter(|(peer, _)| peer.is_ipv6() == v6) {
        program.extend(block(*peer, *min_ttl));
    }
    (!program.is_empty()).then(|| {
        program.push(ret(PASS));
        program
    })
}

/// The instructions for one peer; another's packet falls through.
fn block(peer: IpAddr, min_ttl: u8) -> Vec<SockFilter> {
    /// Instructions for each word of the address, and after the last one.
    const PER_WORD: u8 = 2;
    const LAST: u8 = 4;
    // Offsets of the source address and the TTL (RFC 791 section 3.1, RFC 8200 section 3).
    let (source, ttl, address) = match peer {
        IpAddr::V4(address) => (12, 8, address.octets().to_vec()),
        IpAddr::V6(address) => (8, 7, address.octets().to_vec()),
    };
    let (words, _) = address.as_chunks::<4>();
    let mut program = Vec::new();
    let mut offset = source;
    // How far it is to the next peer's instructions.
    let mut left = LAST + PER_WORD * if peer.is_ipv4() { 1 } else { 4 };
    for word in words {
        left -= PER_WORD;
        program.push(load(libc::BPF_W, offset));
        program.push(jump(libc::BPF_JEQ, u32::from_be_bytes(*word), 0, left));
        offset += 4;
    }
    program.push(load(libc::BPF_B, ttl));
    program.push(jump(libc::BPF_JGE, u32::from(min_ttl), 0, 1));
    program.extend([ret(PASS), ret(DROP)]);
    program
}

/// Loads from the IP header.
fn load(size: u32, offset: u32) -> SockFilter {
    let header = libc::SKF_NET_OFF.cast_unsigned();
    SockFilter::new(code(libc::BPF_LD | size | libc::BPF_ABS), 0, 0, header.wrapping_add(offset))
}

/// Compares what was loaded; jumps over so many instructions.
fn jump(comparison: u32, value: u32, if_so: u8, if_not: u8) -> SockFilter {
    let code = code(libc::BPF_JMP | comparison | libc::BPF_K);
    SockFilter::new(code, if_so, if_not, value)
}

fn ret(bytes: u32) -> SockFilter {
    SockFilter::new(code(libc::BPF_RET | libc::BPF_K), 0, 0, bytes)
}

/// Codes of instructions are smaller than 256.
const fn code(code: u32) -> u16 {
    (code & 0xff) as u16
}
