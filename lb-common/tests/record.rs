//! Records: what goes in comes out, and a torn one is void.

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use lb_common::backend::BackendId;
    use lb_common::parse::Segment;
    use lb_common::record::{EVENTS, EVENTS_MAX, Record, WAITING, WORDS, Waiting};
    use proptest::prelude::*;

    struct Words(RefCell<[u64; WORDS]>);

    impl Waiting for Words {
        fn load(&self, index: usize) -> u64 {
            self.0.borrow()[index]
        }

        fn store(&self, index: usize, word: u64) {
            self.0.borrow_mut()[index] = word;
        }
    }

    fn record(hash: u64) -> Record {
        Record::new(hash, BackendId(7), 3, 30, Segment::Later)
    }

    proptest! {
        #[test]
        fn halves_of_two_records_are_void(a: u64, b: u64, owner in 1..0x8000_u16) {
            let check = |hash: u64| (hash ^ hash >> 24 ^ hash >> 48) & 0xff_ffff;
            prop_assume!(check(a) != check(b));
            let whole = Record::new(a, BackendId(owner), 255, 0x3fff, Segment::Datagram);
            prop_assert!(!whole.is_void());
            prop_assert!(Record::from_words(b, whole.words().1).is_void());
            prop_assert!(Record::from_words(a, 0).is_void());
        }

        #[test]
        fn each_record_is_the_callers_once(hashes in prop::collection::vec(any::<u64>(), 0..100)) {
            let words = Words(RefCell::new([0; WORDS]));
            let mut entered = Vec::new();
            for hash in &hashes {
                if words.push(record(*hash)) {
                    entered.extend((0..WAITING).map(|place| words.record(place)));
                }
            }
            entered.extend((0..words.count()).map(|place| words.record(place)));
            let all: Vec<Record> = hashes.into_iter().map(record).collect();
            prop_assert_eq!(entered, all);
            let counted = &words.0.borrow()[EVENTS..EVENTS + EVENTS_MAX];
            prop_assert!(counted.iter().all(|word| *word == 0));
        }
    }
}
