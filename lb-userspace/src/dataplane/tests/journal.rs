//! The journal: what a write that is cut off leaves.

use super::super::journal::{read, write};
use super::super::memory::Region;
use super::Random;

const WORDS: usize = 64;

fn words(journal: &Region<u64>) -> Vec<u64> {
    (0..WORDS).map(|at| *journal.get(at).unwrap()).collect()
}

fn holding(words: &[u64]) -> Region<u64> {
    let mut journal = Region::zeroed(WORDS);
    for (at, word) in words.iter().enumerate() {
        assert!(journal.set(at, *word));
    }
    journal
}

fn text(random: &mut Random, length: usize) -> Vec<u8> {
    (0..length).map(|_| random.next().to_le_bytes()[0]).collect()
}

#[test]
fn what_was_written_last_is_read() {
    let mut journal = Region::zeroed(WORDS);
    assert_eq!(read(&journal), None);
    let mut random = Random(1);
    for round in 0..200 {
        let text = text(&mut random, round % 233);
        assert!(write(&mut journal, &text), "{round}");
        assert_eq!(read(&journal), Some(text));
    }
}

#[test]
fn what_does_not_fit_leaves_what_was() {
    let mut journal = Region::zeroed(WORDS);
    // Half the words, less the header's three.
    assert!(write(&mut journal, &[7; 8 * 29]));
    assert!(!write(&mut journal, &[8; 8 * 29 + 1]));
    assert_eq!(read(&journal), Some(vec![7; 8 * 29]));
}

/// The words in the order in which a write stores them: the copy becomes invalid, its bytes, its
/// length and checksum, and only then its number.
fn stores(before: &[u64], after: &[u64]) -> Vec<(usize, u64)> {
    let changed = |half: usize| {
        let range = half * WORDS / 2..(half + 1) * WORDS / 2;
        before[range.clone()] != after[range]
    };
    let half = usize::from(changed(1));
    assert!(changed(half) && !changed(1 - half), "only one copy is written");
    let first = half * WORDS / 2;
    let body = (first + 3..first + WORDS / 2).chain([first + 1, first + 2, first]);
    let body = body.filter(|at| before[*at] != after[*at]).map(|at| (at, after[at]));
    [(first, 0)].into_iter().chain(body).collect()
}

#[test]
fn a_write_cut_off_anywhere_leaves_the_older_or_the_newer_copy() {
    let mut random = Random(2);
    let mut journal = Region::zeroed(WORDS);
    let mut older = None;
    for round in 0..40 {
        let before = words(&journal);
        let newer = text(&mut random, (round * 37) % 233);
        assert!(write(&mut journal, &newer));
        let stores = stores(&before, &words(&journal));
        let mut torn = before.clone();
        for (count, (at, word)) in stores.iter().enumerate() {
            assert_eq!(read(&holding(&torn)), older, "round {round}, {count} stores");
            torn[*at] = *word;
        }
        assert_eq!(read(&holding(&torn)), Some(newer.clone()));
        // The next lbd goes on from a torn copy.
        torn[stores[0].0] = 0;
        let mut next = holding(&torn);
        assert!(write(&mut next, b"next"));
        assert_eq!(read(&next), Some(b"next".to_vec()));
        older = Some(newer);
    }
}

#[test]
fn a_turned_bit_makes_a_copy_worthless() {
    let mut journal = Region::zeroed(WORDS);
    assert!(write(&mut journal, b"the older copy"));
    assert!(write(&mut journal, b"the newer copy, which is longer"));
    let whole = words(&journal);
    for at in WORDS / 2..WORDS / 2 + 3 + 4 {
        for bit in [0, 7, 31, 63] {
            let mut bent = whole.clone();
            bent[at] ^= 1 << bit;
            let found = read(&holding(&bent)).unwrap();
            let older = found == b"the older copy";
            // The last word is not full: the rest of it is nobody's.
            let unused = at == WORDS / 2 + 6 && bit == 63;
            assert!(older || (unused && found.len() == 31), "word {at}, bit {bit}");
        }
    }
}
