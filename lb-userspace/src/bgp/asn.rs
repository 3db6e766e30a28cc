//! AS numbers with a meaning of their own: those nobody can have, private ones, the largest
//! networks.
//!
//! Pure data and questions about it, for the configuration and for what may be poisoned.
//!
//! Must not: know our own AS number or those of our peers.

/// AS_TRANS: stands for four-octet AS numbers towards old speakers (RFC 6793 section 9).
pub const AS_TRANS: u32 = 23_456;

/// Networks that buy transit from nobody, and a few that most filters treat alike, ascending.
///
/// Most networks drop a route whose path has one of them where a customer or a peer sends it
/// (peer locking, the "big networks" list of filter guides), so a path poisoned with one of them
/// vanishes nearly everywhere.
pub const TIER_1: [u32; 21] = [
    174, 209, 286, 701, 1_239, 1_299, 2_828, 2_914, 3_257, 3_320, 3_356, 3_491, 3_549, 4_134,
    5_511, 6_453, 6_461, 6_762, 6_830, 7_018, 12_956,
];

/// Whether nobody can have this number: 0 (RFC 7607), [`AS_TRANS`], 65,535 and 4,294,967,295
/// (RFC 7300).
#[must_use]
pub const fn is_reserved(asn: u32) -> bool {
    matches!(asn, 0 | AS_TRANS | 65_535 | u32::MAX)
}

/// Whether it is for private use (RFC 6996): 64,512 to 65,534 and 4,200,000,000 to 4,294,967,294.
#[must_use]
pub const fn is_private(asn: u32) -> bool {
    matches!(asn, 64_512..=65_534 | 4_200_000_000..=4_294_967_294)
}

/// Whether it is one of [`TIER_1`].
#[must_use]
pub fn is_tier_1(asn: u32) -> bool {
    TIER_1.binary_search(&asn).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_where_the_registries_say() {
        for asn in [0, 23_456, 65_535, 4_294_967_295] {
            assert!(is_reserved(asn) && !is_private(asn), "{asn}");
        }
        for asn in [64_512, 65_534, 4_200_000_000, 4_294_967_294] {
            assert!(is_private(asn) && !is_reserved(asn), "{asn}");
        }
        for asn in [1, 23_455, 64_496, 64_511, 65_536, 4_199_999_999] {
            assert!(!is_private(asn) && !is_reserved(asn), "{asn}");
        }
    }

    #[test]
    fn the_largest_networks_are_found() {
        assert!(TIER_1.is_sorted());
        assert!(is_tier_1(174) && is_tier_1(3_356) && is_tier_1(12_956));
        assert!(!is_tier_1(64_496));
    }
}
