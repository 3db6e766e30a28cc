//! The flow hash is SipHash-1-3 of the documented message, and spreads realistic clients evenly.

#[cfg(test)]
mod tests {
    use lb_common::hash::{HashKey, flow_v4, flow_v6};
    use lb_common::table::slot_of;
    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    fn reference(secret: [u8; 16], parts: &[&[u8]]) -> (usize, u64) {
        let message = parts.concat();
        (message.len(), SipHasher13::new_with_key(&secret).hash(&message))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn v4_is_siphash_of_13_bytes(
            secret: [u8; 16],
            source: [u8; 4],
            destination: [u8; 4],
            ports: [u8; 4],
            protocol: u8,
        ) {
            let wanted = reference(secret, &[&source, &destination, &ports, &[protocol]]);
            let word = u32::from_le_bytes;
            let key = HashKey::new(secret);
            let hash = flow_v4(&key, word(source), word(destination), word(ports), protocol);
            prop_assert_eq!((13, hash), wanted);
        }

        #[test]
        fn v6_is_siphash_of_37_bytes(
            secret: [u8; 16],
            source: [u64; 2],
            destination: [u64; 2],
            ports: [u8; 4],
            protocol: u8,
        ) {
            let bytes = |words: [u64; 2]| words.map(u64::to_le_bytes).concat();
            let (from, to) = (bytes(source), bytes(destination));
            let wanted = reference(secret, &[&from, &to, &ports, &[protocol]]);
            let key = HashKey::new(secret);
            let hash = flow_v6(&key, source, destination, u32::from_le_bytes(ports), protocol);
            prop_assert_eq!((37, hash), wanted);
        }
    }

    /// How far the counts are from even, in standard deviations of the chi-square statistic.
    fn deviation(counts: &[u32]) -> f64 {
        let total: u32 = counts.iter().sum();
        let places = counts.len() as f64;
        let expected = f64::from(total) / places;
        let chi_square: f64 =
            counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
        (chi_square - (places - 1.0)) / (2.0 * (places - 1.0)).sqrt()
    }

    /// Counts of slots, and of buckets by the hash's lower half.
    fn spread(hashes: impl Iterator<Item = u64>) -> [f64; 2] {
        const SLOTS: u32 = 4_099;
        const BUCKETS: usize = 4_096;
        let (mut slots, mut buckets) = (vec![0; SLOTS as usize], vec![0; BUCKETS]);
        for hash in hashes {
            let tag = u32::try_from(hash >> 32).unwrap();
            slots[slot_of(tag, SLOTS) as usize] += 1;
            buckets[usize::try_from(hash & 0xffff_ffff).unwrap() & (BUCKETS - 1)] += 1;
        }
        [deviation(&slots), deviation(&buckets)]
    }

    #[test]
    fn clients_fall_evenly_on_slots_and_buckets() {
        let key = HashKey::new(*b"a cluster secret");
        let vip = u32::from_ne_bytes([203, 0, 113, 1]);
        let port = u32::from(80_u16.to_be()) << 16;
        let v4 = |client: [u8; 4], source: u16| {
            let ports = u32::from(source.to_be()) | port;
            flow_v4(&key, u32::from_ne_bytes(client), vip, ports, 6)
        };
        // Neighbours of one prefix, each with a few even ports, as Linux chooses them.
        let neighbours = (0..=255).flat_map(|low| (0..1024).map(move |at| (low, at)));
        let neighbours = neighbours.map(|(low, at)| v4([198, 51, 100, low], 32_768 + 2 * at));
        // One client behind address translation, all its ports, to a few addresses.
        let one = (0..4).flat_map(|low| (0..=u16::MAX).map(move |at| (low, at)));
        let one = one.map(|(low, at)| v4([192, 0, 2, low], at));
        // Clients of IPv6: the prefix counts up, the interface part is the same.
        let words = |prefix: u64| [u64::from_le(0xb80d_0120) | prefix << 32, 0x0100_0000_0000_0000];
        let v6 = (0..1 << 18).map(|client| flow_v6(&key, words(client), words(7), port | 9, 17));
        for (name, found) in
            [("neighbours", spread(neighbours)), ("one", spread(one)), ("v6", spread(v6))]
        {
            // Normally distributed: five standard deviations are one chance in 3.5 million.
            assert!(found.iter().all(|found| found.abs() < 5.0), "{name}: {found:?}");
        }
    }

    #[test]
    fn another_secret_moves_nearly_every_flow() {
        let keys = [HashKey::new([1; 16]), HashKey::new([2; 16])];
        let slot = |key, ports| slot_of((flow_v4(key, 1, 2, ports, 6) >> 32) as u32, 65_537);
        let stayed = (0..10_000).filter(|at| slot(&keys[0], *at) == slot(&keys[1], *at)).count();
        assert!(stayed < 10, "{stayed}");
    }
}
