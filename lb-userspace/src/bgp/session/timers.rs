//! How long to wait: jitter and back-off.
//!
//! A part of `session`.

use std::time::Duration;

/// First pause before we connect again.
const RETRY_MIN: Duration = Duration::from_secs(2);
/// Longest pause before we connect again.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A session that was up for so long was a good one: the pauses begin anew.
const GOOD: Duration = Duration::from_secs(30);

/// Pauses that double, and the chance in them.
#[derive(Debug)]
pub(super) struct Timers {
    chance: u64,
    retry: Duration,
}

impl Timers {
    pub(super) const fn new(seed: u64) -> Self {
        Self { chance: seed, retry: RETRY_MIN }
    }

    /// 0.75 to 1 of a time (RFC 4271 section 10).
    pub(super) fn jitter(&mut self, time: Duration) -> Duration {
        // splitmix64
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let thousandth = u32::try_from((mixed ^ (mixed >> 31)) % 251).unwrap_or(0);
        time / 1_000 * (750 + thousandth)
    }

    /// The next pause.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.retry;
        self.retry = (pause * 2).min(RETRY_MAX);
        self.jitter(pause)
    }

    /// A session ended that was up for `time`.
    pub(super) fn was_up(&mut self, time: Duration) {
        if time >= GOOD {
            self.retry = RETRY_MIN;
        }
    }
}
