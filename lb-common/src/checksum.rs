//! The Internet checksum (RFC 1071), incremental updates (RFC 1624).
//!
//! Sums are taken over 16-bit words as they lie in memory: the result is right in that order too
//! (RFC 1071 section 2 B), so nothing is swapped.

/// Folds a sum of 16-bit words to 16 bits, carries added back.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The two 16-bit words of a 32-bit one, added.
#[inline(always)]
#[must_use]
pub const fn halves(word: u32) -> u32 {
    (word & 0xffff) + (word >> 16)
}

/// The checksum field for a sum that had zero in its place.
#[inline(always)]
#[must_use]
pub const fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// RFC 1624 equation 3: the checksum after one 16-bit word changed.
#[inline(always)]
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    finish((!checksum) as u32 + (!old) as u32 + new as u32)
}
