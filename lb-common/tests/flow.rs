//! The flow table's bucket: what is found, what may be pushed out, and time around its wrap.

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use lb_common::backend::BackendId;
    use lb_common::control::Idle;
    use lb_common::flow::{
        Bucket, DEADLINE, Entry, SPARE_NONE, State, WAYS, alternate, bucket_of, deadline, find,
        room, tick,
    };
    use proptest::prelude::*;

    const STATES: [State; 4] = [State::Unconfirmed, State::Confirmed, State::Ended, State::Closing];

    struct Plain([Cell<Entry>; WAYS]);

    impl Plain {
        fn new(entries: [Entry; WAYS]) -> Self {
            Self(entries.map(Cell::new))
        }
    }

    impl Bucket for Plain {
        fn load(&self, way: usize) -> Entry {
            self.0[way].get()
        }

        fn exchange(&self, way: usize, old: Entry, new: Entry) -> bool {
            let same = self.0[way].get() == old;
            if same {
                self.0[way].set(new);
            }
            same
        }
    }

    fn entry() -> impl Strategy<Value = Entry> {
        // Few tags and owners, so that they meet.
        let tag = prop_oneof![0..4_u32, any::<u32>()];
        let owner = prop_oneof![Just(0), 0..3_u16, Just(0x7fff)];
        (tag, owner, 0..4_usize, 0..=DEADLINE, any::<bool>()).prop_map(
            |(tag, owner, state, deadline, marked)| {
                // All that empties an entry leaves nothing but the mark.
                let entry = match owner {
                    0 => Entry(0),
                    _ => Entry::new(tag, BackendId(owner), STATES[state], deadline),
                };
                if marked { entry.marked() } else { entry }
            },
        )
    }

    fn live(entry: Entry, now: u16) -> bool {
        !entry.is_empty() && entry.remaining(now) > 0
    }

    /// How gladly an entry is given away; `None` = never.
    fn rank(entry: Entry, tag: u32, now: u16) -> Option<(u8, u16)> {
        match entry {
            entry if entry.is_empty() => Some((1, 0)),
            entry if entry.tag() == tag => Some((0, 0)),
            entry if !live(entry, now) => Some((2, 0)),
            entry if entry.state().is_confirmed() => None,
            _ => Some((3, entry.remaining(now))),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn an_entry_comes_back(
            tag: u32, owner in 0..=0x7fff_u16, state in 0..4_usize, end in 0..=DEADLINE,
        ) {
            let entry = Entry::new(tag, BackendId(owner), STATES[state], end);
            prop_assert_eq!(entry.tag(), tag);
            prop_assert_eq!(entry.owner(), BackendId(owner));
            prop_assert_eq!(entry.state(), STATES[state]);
            prop_assert_eq!(entry.is_empty(), owner == 0);
            prop_assert!(!entry.overflowed());
            prop_assert_eq!(entry.0 & u64::from(DEADLINE), u64::from(end));
        }

        #[test]
        fn the_mark_stays_with_the_bucket(
            old in entry(), new in entry(), state in 0..4_usize, end in 0..=DEADLINE,
        ) {
            prop_assert_eq!(new.replacing(old).overflowed(), old.overflowed());
            prop_assert_eq!(new.replacing(old).marked(), new.marked());
            let touched = old.touched(STATES[state], end);
            let rebuilt = Entry::new(old.tag(), old.owner(), STATES[state], end);
            prop_assert_eq!(touched, rebuilt.replacing(old));
        }

        #[test]
        fn a_deadline_is_never_early_and_at_most_a_tick_late(
            now in 0..=DEADLINE, idle in 0..Idle::MAX, later in 0..Idle::MAX,
        ) {
            let end = deadline(now, idle);
            let entry = Entry::new(1, BackendId(1), State::Confirmed, end);
            let then = (now + later) & DEADLINE;
            let expected = (idle + 1).saturating_sub(later);
            prop_assert_eq!(entry.remaining(then), expected);
        }

        #[test]
        fn ticks_go_up_by_one_and_wrap(jiffies: u64, shift in 0..32_u32) {
            let step = 1_u64 << shift;
            let (now, next) = (tick(jiffies, shift), tick(jiffies.wrapping_add(step), shift));
            // The counter itself wraps in more than the age of the universe.
            prop_assume!(jiffies <= u64::MAX - step);
            prop_assert_eq!(next, (now + 1) & DEADLINE);
        }

        #[test]
        fn the_other_bucket_is_its_own_inverse(hash: u64, bits in 1..=26_u32) {
            let mask = (1 << bits) - 1;
            let tag = u32::try_from(hash >> 32).unwrap();
            let first = bucket_of(hash, mask);
            let other = alternate(first, tag, mask);
            prop_assert!(other <= mask && other != first);
            prop_assert_eq!(alternate(other, tag, mask), first);
        }

        #[test]
        fn what_lives_is_found(
            raw in prop::array::uniform8(entry()), now in 0..=DEADLINE, tag in 0..4_u32,
        ) {
            let bucket = Plain::new(raw);
            let (found, other) = find(&bucket, tag, now);
            let same = |entry: &&Entry| entry.tag() == tag && !entry.is_empty();
            let candidates: Vec<_> = raw.iter().filter(same).collect();
            match found {
                Some(found) => {
                    prop_assert_eq!(bucket.load(found.way), found.entry);
                    prop_assert!(live(found.entry, now) && found.entry.tag() == tag);
                    prop_assert!(!other);
                }
                None => prop_assert_eq!(other, raw[0].overflowed()),
            }
            // A bucket holds a tag once, but for two CPUs that entered it at the same time; and one
            // flow in four billion has the tag of an empty entry and may be taken for absent.
            if let ([only], true) = (&candidates[..], tag != 0) {
                let wanted = live(**only, now).then_some(**only);
                prop_assert_eq!(found.map(|found| found.entry), wanted);
            }
        }

        #[test]
        fn the_least_valuable_entry_gives_way_and_a_live_confirmed_one_never(
            raw in prop::array::uniform8(entry()), now in 0..=DEADLINE, tag in 0..4_u32,
        ) {
            let bucket = Plain::new(raw);
            let ranks: Vec<_> = raw.iter().map(|entry| rank(*entry, tag, now)).collect();
            let best = ranks.iter().flatten().min();
            let place = room(&bucket, tag, now, SPARE_NONE);
            prop_assert_eq!(place.is_taken(), best.is_none());
            prop_assert_eq!(place.is_free(), best.is_some_and(|best| best.0 < 3));
            if let Some(best) = best {
                prop_assert_eq!(bucket.load(place.way()), place.entry);
                prop_assert_eq!(ranks[place.way()].map(|rank| rank.0), Some(best.0));
                if best.0 == 3 {
                    prop_assert_eq!(ranks[place.way()].as_ref(), Some(best));
                }
            }
        }
    }
}
