//! AS numbers that stand for nobody, or for the networks in the middle of the Internet.
//!
//! Pure. Source: IANA's registries of AS numbers and of special-purpose AS numbers.

/// AS_TRANS (RFC 6793): stands for a number that an old speaker cannot carry.
pub const AS_TRANS: u32 = 23_456;

/// Networks without transit, sorted. Their numbers in a path learned from somebody's customer are
/// taken for a leak, and the route is dropped, at many networks and exchanges.
pub const TIER_1: [u32; 18] = [
    174, 701, 1239, 1299, 2828, 2914, 3257, 3320, 3356, 3491, 3549, 5511, 6453, 6461, 6762, 6830,
    7018, 12956,
];

/// For private use (RFC 6996).
#[must_use]
pub const fn is_private(number: u32) -> bool {
    matches!(number, 64_512..=65_534 | 4_200_000_000..=4_294_967_294)
}

/// Never anybody's: AS 0 (RFC 7607), AS_TRANS, documentation (RFC 5398), last ones (RFC 7300), and
/// what IANA keeps back between the 16 bit numbers and the first of 32 bits.
#[must_use]
pub const fn is_reserved(number: u32) -> bool {
    matches!(number, 0 | AS_TRANS | 64_496..=64_511 | 65_535..=131_071 | u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_where_the_registries_say() {
        for number in [0, 23_456, 64_496, 64_511, 65_535, 65_536, 65_551, 131_071, u32::MAX] {
            assert!(is_reserved(number) && !is_private(number), "{number}");
        }
        for number in [64_512, 65_534, 4_200_000_000, 4_294_967_294] {
            assert!(is_private(number) && !is_reserved(number), "{number}");
        }
        for number in [1, 23_455, 23_457, 64_495, 131_072, 4_199_999_999] {
            assert!(!is_private(number) && !is_reserved(number), "{number}");
        }
        assert!(TIER_1.is_sorted());
    }
}
