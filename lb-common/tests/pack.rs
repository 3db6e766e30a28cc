//! What is packed into words comes out of them as it went in.

#[cfg(test)]
mod tests {
    use lb_common::addr::{Address, is_v4, v4_of, v4_words};
    use lb_common::backend::{BackendId, Outer, State};
    use lb_common::decide::{Path, Question};
    use lb_common::headers::Ethernet;
    use lb_common::parse::{Inner, Segment};
    use lb_common::process::Answer;
    use lb_common::table::{Slot, slot_of};
    use lb_common::verdict::Outcome;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    const SEGMENTS: [Segment; 5] =
        [Segment::Open, Segment::Later, Segment::End, Segment::Datagram, Segment::Quoted];
    const OUTERS: [Outer; 4] = [Outer::IpipV4, Outer::IpipV6, Outer::GueV4, Outer::GueV6];

    proptest! {
        #[test]
        fn a_state_comes_back(inner_mtu: u16, outer in 0..4_usize, link in 0..2_u8) {
            let state = State { inner_mtu, outer: OUTERS[outer], link };
            prop_assert_eq!(State::unpack(state.pack()), state);
        }

        #[test]
        fn a_question_comes_back(
            hash: u64, slot: u16, base in 0..0x8000_u16, udp_idle: u16, segment in 0..5_usize,
        ) {
            let base = BackendId(base);
            let segment = SEGMENTS[segment];
            let question = Question { hash, slot: Slot(slot), base, udp_idle, segment };
            prop_assert_eq!(Question::unpack(hash, question.pack()), question);
        }

        #[test]
        fn an_answer_comes_back(offset in 14..=22_u16, v6: bool, length: u16, mtu: u16) {
            let inner = Inner { offset, v6, tos: 0, length };
            let answer = Answer::new(&inner, mtu);
            prop_assert_ne!(answer, Answer::NONE);
            prop_assert_eq!(answer.parts(), (inner, mtu));
        }

        #[test]
        fn a_slot_comes_back(id in 0..0x8000_u16, contested: bool) {
            let slot = Slot::new(BackendId(id), contested);
            prop_assert_eq!((slot.backend(), slot.contested()), (BackendId(id), contested));
        }

        #[test]
        fn an_address_comes_back(v4: u32, v6: u128) {
            let v4 = Ipv4Addr::from(v4);
            let address = Address::from(IpAddr::V4(v4));
            prop_assert_eq!(IpAddr::from(address), IpAddr::V4(v4));
            let word = u32::from_ne_bytes(v4.octets());
            prop_assert_eq!(address.words(), v4_words(word));
            prop_assert!(is_v4(v4_words(word)));
            prop_assert_eq!(v4_of(v4_words(word)), word);
            let v6 = Ipv6Addr::from(v6);
            let address = Address::from(IpAddr::V6(v6));
            prop_assert_eq!(Address::from_words(address.words()), address);
            prop_assert_eq!(address.is_v4(), v6.to_ipv4_mapped().is_some());
        }

        #[test]
        fn a_frame_turned_twice_is_the_same(bytes: [u8; 12]) {
            let (low, high) = bytes.split_at(8);
            let ethernet = Ethernet {
                addresses_low: u64::from_ne_bytes(low.try_into().unwrap()),
                addresses_high: u32::from_ne_bytes(high.try_into().unwrap()),
                kind: lb_common::headers::ETHERTYPE_IPV4,
            };
            let turned = ethernet.swapped(ethernet.kind);
            let (low, high) = (turned.addresses_low, turned.addresses_high);
            let turned = [low.to_ne_bytes().as_slice(), &high.to_ne_bytes()].concat();
            prop_assert_eq!(turned, [&bytes[6..], &bytes[..6]].concat());
        }

        #[test]
        fn a_slot_is_in_its_table(tag: u32, slots in 1..=lb_common::MAX_SLOTS) {
            prop_assert!(slot_of(tag, slots) < slots);
        }
    }

    #[test]
    fn slots_take_equal_shares_of_the_tags() {
        // The first tag of each slot: shares differ by one tag at most.
        let slots = 65_537_u64;
        let first = |slot: u64| u32::try_from((slot << 32).div_ceil(slots)).unwrap();
        for slot in [0, 1, 32_768, 65_535, 65_536] {
            assert_eq!(u64::from(slot_of(first(slot), 65_537)), slot);
            if slot > 0 {
                assert_eq!(u64::from(slot_of(first(slot) - 1, 65_537)), slot - 1);
            }
        }
        assert_eq!(slot_of(u32::MAX, 65_537), 65_536);
    }

    #[test]
    fn a_path_comes_back() {
        for path in [Path::Stateless, Path::Entry, Path::New, Path::Base, Path::Miss] {
            assert_eq!(Path::unpack(path as u32), path);
        }
    }

    #[test]
    fn outcomes_have_names_of_their_own_and_their_places() {
        let names: BTreeSet<_> = Outcome::ALL.iter().map(|outcome| outcome.name()).collect();
        assert_eq!(names.len(), Outcome::ALL.len());
        for (place, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, place);
            assert!(!outcome.help().is_empty());
        }
    }
}
