//! The checksum functions against the definition of RFC 1071, word by word.

#[cfg(test)]
mod tests {
    use lb_common::checksum::{finish, fold, halves, update};
    use proptest::prelude::*;

    /// RFC 1071 section 4.1, over bytes in network order.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0_u64;
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u64::from(u16::from_be_bytes([pair[0], low]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    fn words(bytes: &[u8]) -> Vec<u16> {
        bytes.chunks(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect()
    }

    proptest! {
        #[test]
        fn a_sum_of_words_as_they_lie_is_the_checksum(
            half in prop::collection::vec(any::<[u8; 2]>(), 1..700),
        ) {
            let bytes = half.concat();
            let sum = words(&bytes).iter().map(|word| u32::from(*word)).sum();
            prop_assert_eq!(finish(sum).to_ne_bytes(), reference(&bytes).to_be_bytes());
        }

        #[test]
        fn halves_add_the_words_of_four_bytes(bytes: [u8; 4]) {
            let sum = halves(u32::from_ne_bytes(bytes));
            prop_assert_eq!(finish(sum).to_ne_bytes(), reference(&bytes).to_be_bytes());
        }

        #[test]
        fn folding_keeps_the_value_modulo_ffff(sum: u32) {
            let folded = fold(sum);
            prop_assert_eq!(u32::from(folded) % 0xffff, sum % 0xffff);
            prop_assert_eq!(folded == 0, sum == 0);
        }
    }

    /// A header in which one word becomes `new`.
    fn updated(header: &[u8; 20], at: usize, new: u16) {
        let old = u16::from_ne_bytes([header[at], header[at + 1]]);
        let before = u16::from_ne_bytes(reference(header).to_be_bytes());
        let mut changed = *header;
        changed[at..at + 2].copy_from_slice(&new.to_ne_bytes());
        let wanted = reference(&changed).to_be_bytes();
        assert_eq!(update(before, old, new).to_ne_bytes(), wanted, "{old:#x} -> {new:#x}");
    }

    #[test]
    fn an_update_is_a_recomputation_for_every_value_of_a_word() {
        let header: [u8; 20] =
            [0x45, 0, 0, 50, 0, 0, 0x40, 0, 63, 6, 0, 0, 198, 51, 100, 7, 203, 0, 113, 1];
        for new in 0..=u16::MAX {
            updated(&header, 8, new);
            // Every old value, too.
            let mut other = header;
            other[8..10].copy_from_slice(&new.to_ne_bytes());
            updated(&other, 8, 0x0640);
        }
    }
}
