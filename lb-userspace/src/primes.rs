//! The sizes a lookup table may have.
//!
//! Maglev wants a prime, so that every backend's walk over the table visits every slot. Any prime
//! would do; a short list keeps tables of equal size comparable between load balancers and lets a
//! diagnostic name the next one. Pure data: `config` checks against it, `maglev` tries it.

/// The size of a table where nothing else is asked for.
pub const DEFAULT: u32 = 65_537;

/// Every allowed size, rising, none more than about twice the one before it.
pub const PRIMES: [u32; 19] = [
    251, 509, 1_021, 2_039, 4_093, 8_191, 16_381, 32_749, DEFAULT, 131_071, 262_139, 524_287,
    655_373, 1_048_573, 1_572_869, 2_097_143, 3_145_739, 4_194_301, 5_000_011,
];

/// The largest allowed size.
pub const LARGEST: u32 = PRIMES[PRIMES.len() - 1];

/// True if a table may have `slots` slots.
#[must_use]
pub fn is_allowed(slots: u32) -> bool {
    PRIMES.binary_search(&slots).is_ok()
}

/// The allowed size closest to `slots`; of two equally close the larger.
#[must_use]
pub fn nearest(slots: u64) -> u32 {
    let distance = |prime: u32| u64::from(prime).abs_diff(slots);
    PRIMES.into_iter().rev().min_by_key(|prime| distance(*prime)).unwrap_or(DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_prime(number: u32) -> bool {
        number > 1 && (2..).take_while(|d| d * d <= number).all(|d| !number.is_multiple_of(d))
    }

    #[test]
    fn the_list_is_of_rising_primes() {
        for prime in PRIMES {
            assert!(is_prime(prime), "{prime} is not a prime");
        }
        assert!(PRIMES.is_sorted_by(|a, b| a < b));
        assert_eq!((PRIMES[0], LARGEST), (251, 5_000_011));
        assert!(is_allowed(DEFAULT));
    }

    #[test]
    fn the_nearest_size_is_found() {
        let cases = [(0, 251), (65_536, 65_537), (98_304, 131_071), (u64::MAX, LARGEST)];
        for (slots, expected) in cases {
            assert_eq!(nearest(slots), expected, "nearest to {slots}");
        }
    }
}
