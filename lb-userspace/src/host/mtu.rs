//! Path MTU against encapsulation: how large a client's packet may be and still fit the tunnel.
//!
//! Pure arithmetic over what [`super::netlink`] learned. The overhead of an encapsulation is the
//! caller's to know. Path MTUs are at most 65,535 and count from the IP header on, as the
//! kernel's do.

use super::netlink::NextHop;

/// The smallest link MTU that IPv6 allows (RFC 8200 section 5), bytes.
pub const MIN_IPV6_MTU: u16 = 1_280;
/// What clients send over Ethernet paths unless something is smaller, bytes.
pub const ETHERNET_MTU: u16 = 1_500;

/// What a tunnel through a path can carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TunnelFit {
    /// Client packets of full Ethernet size fit.
    Full,
    /// Packets up to this many bytes fit; larger ones need the clamped MSS or a too-big answer.
    Clamped(u16),
    /// Not even a packet of 1,280 bytes fits, so IPv6 clients cannot be served through this path
    /// (RFC 8200 section 5); the value is what does fit.
    TooSmall(u16),
}

/// The largest inner packet in bytes that fits a path once `overhead` bytes of outer headers are
/// put before it; 0 if not even the headers fit.
#[must_use]
pub const fn largest_inner(path_mtu: u16, overhead: u16) -> u16 {
    path_mtu.saturating_sub(overhead)
}

/// Compares the path to a next hop with an encapsulation of `overhead` bytes.
#[must_use]
pub const fn fit(next_hop: &NextHop, overhead: u16) -> TunnelFit {
    let inner = largest_inner(next_hop.mtu, overhead);
    if inner >= ETHERNET_MTU {
        TunnelFit::Full
    } else if inner >= MIN_IPV6_MTU {
        TunnelFit::Clamped(inner)
    } else {
        TunnelFit::TooSmall(inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits() {
        for (mtu, overhead, want) in [
            (9_000, 60, TunnelFit::Full),
            (1_520, 20, TunnelFit::Full),
            (1_519, 20, TunnelFit::Clamped(1_499)),
            (1_500, 40, TunnelFit::Clamped(1_460)),
            (1_300, 20, TunnelFit::Clamped(1_280)),
            (1_299, 20, TunnelFit::TooSmall(1_279)),
            (16, 20, TunnelFit::TooSmall(0)),
        ] {
            let hop =
                NextHop { interface_index: 1, source_mac: [2; 6], destination_mac: [4; 6], mtu };
            assert_eq!(fit(&hop, overhead), want, "{mtu} {overhead}");
        }
    }
}
