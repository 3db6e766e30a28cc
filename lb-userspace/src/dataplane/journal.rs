//! lbd's own state in a pinned map: two copies, each with its length, a number and a checksum, so
//! that a write cut off in the middle leaves the older copy.

use std::hash::Hasher as _;
use std::sync::atomic::{Ordering, fence};

use siphasher::sip::SipHasher13;

use super::memory::Region;

/// Words in front of a copy: number, bytes, checksum.
const HEADER: usize = 3;

fn checksum(number: u64, bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(number, 0x6c62_2d6a_6f75_726e);
    hasher.write(bytes);
    hasher.finish()
}

fn copy(journal: &Region<u64>, half: usize) -> Option<(u64, Vec<u8>)> {
    let words = journal.count() / 2;
    let word = |at: usize| journal.get(half * words + at).copied();
    let (number, length) = (word(0)?, usize::try_from(word(1)?).ok()?);
    if number == 0 || length > (words - HEADER) * 8 {
        return None;
    }
    let mut bytes = Vec::with_capacity(length.next_multiple_of(8));
    for at in 0..length.div_ceil(8) {
        bytes.extend(word(HEADER + at)?.to_le_bytes());
    }
    bytes.truncate(length);
    (checksum(number, &bytes) == word(2)?).then_some((number, bytes))
}

/// The latest whole copy.
pub(super) fn read(journal: &Region<u64>) -> Option<Vec<u8>> {
    [copy(journal, 0), copy(journal, 1)]
        .into_iter()
        .flatten()
        .max_by_key(|copy| copy.0)
        .map(|c| c.1)
}

/// Writes over the older copy; false when it does not fit.
pub(super) fn write(journal: &mut Region<u64>, bytes: &[u8]) -> bool {
    let words = journal.count() / 2;
    if HEADER + bytes.len().div_ceil(8) > words {
        return false;
    }
    let numbers = [0, 1].map(|half| copy(journal, half).map_or(0, |copy| copy.0));
    let half = usize::from(numbers[0] > numbers[1]);
    let number = numbers[0].max(numbers[1]) + 1;
    let mut put = |at: usize, word: u64| journal.set(half * words + at, word);
    // Not whole until the number is back.
    put(0, 0);
    fence(Ordering::SeqCst);
    for (at, chunk) in bytes.chunks(8).enumerate() {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        put(HEADER + at, u64::from_le_bytes(word));
    }
    put(1, bytes.len() as u64);
    put(2, checksum(number, bytes));
    fence(Ordering::SeqCst);
    put(0, number);
    true
}
