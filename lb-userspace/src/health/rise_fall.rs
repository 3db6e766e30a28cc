//! The verdict about one backend from the observations of its probes.
//!
//! Pure. A backend is not up until it proves it: it starts as unknown, `rise` passed probes in a
//! row make it up, and one failed probe makes it down (it gets no flows either way, but the
//! operator sees the reason at once). After that `fall` failures in a row take an up backend down
//! and `rise` passes in a row bring it back. A verdict remembered from an earlier run is the start
//! instead, so that a restart moves no flow.

use std::time::Duration;

use super::{Failure, Observation, Verdict};

/// How many observations in a row turn a verdict; a zero counts as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Passed probes in a row that bring a backend up.
    pub rise: u32,
    /// Failed probes in a row that take it down.
    pub fall: u32,
}

/// One backend's verdict and how far the probes speak against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RiseFall {
    verdict: Verdict,
    since: Duration,
    streak: u32,
    changes: u64,
    last_failure: Option<(Failure, Duration)>,
    uncounted: Option<(u32, String)>,
}

/// A verdict that has just changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// True for up.
    pub up: bool,
    /// Observations in a row that decided it.
    pub row: u32,
    /// The last failure of the row, when it went down.
    pub failure: Option<Failure>,
}

impl RiseFall {
    /// Starts at `now` (since boot) with the verdict remembered from an earlier run, if any.
    #[must_use]
    pub fn start(remembered: Option<bool>, now: Duration) -> Self {
        let verdict = match remembered {
            None => Verdict::Unknown,
            Some(true) => Verdict::Up,
            Some(false) => Verdict::Down,
        };
        Self { verdict, since: now, streak: 0, changes: 0, last_failure: None, uncounted: None }
    }

    /// Takes in what a probe found that ended at `now`; says whether that changes the verdict.
    pub fn observe(
        &mut self,
        observation: Observation,
        thresholds: Thresholds,
        now: Duration,
    ) -> Option<Change> {
        let passed = match observation {
            Observation::Passed => true,
            Observation::Failed(failure) => {
                self.last_failure = Some((failure, now));
                false
            }
            Observation::Uncounted(reason) => {
                let row = self.uncounted.as_ref().map_or(0, |(row, _)| *row);
                self.uncounted = Some((row.saturating_add(1), reason));
                return None;
            }
        };
        self.uncounted = None;
        let needed = match (self.verdict, passed) {
            (Verdict::Up, true) | (Verdict::Down, false) => {
                self.streak = 0;
                return None;
            }
            (Verdict::Unknown | Verdict::Down, true) => thresholds.rise,
            (Verdict::Up, false) => thresholds.fall,
            (Verdict::Unknown, false) => 1,
        };
        self.streak = self.streak.saturating_add(1);
        (self.streak >= needed).then(|| self.turn(passed, now))
    }

    /// The row of observations is broken: the way they were made has changed.
    pub fn forget_streak(&mut self) {
        self.streak = 0;
    }

    /// The verdict in force.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Since when it is in force, since boot.
    #[must_use]
    pub fn since(&self) -> Duration {
        self.since
    }

    /// Observations in a row that speak against it (for unknown: that passed).
    #[must_use]
    pub fn streak(&self) -> u32 {
        self.streak
    }

    /// How often an earlier verdict was turned over.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The last failure and when it was seen, since boot; a later pass does not erase it.
    #[must_use]
    pub fn last_failure(&self) -> Option<(Failure, Duration)> {
        self.last_failure
    }

    /// Probes in a row that could not be made here, and why the last one could not.
    #[must_use]
    pub fn uncounted(&self) -> Option<&(u32, String)> {
        self.uncounted.as_ref()
    }

    fn turn(&mut self, up: bool, now: Duration) -> Change {
        let row = self.streak;
        if self.verdict != Verdict::Unknown {
            self.changes = self.changes.saturating_add(1);
        }
        self.verdict = if up { Verdict::Up } else { Verdict::Down };
        self.since = now;
        self.streak = 0;
        let failure = if up { None } else { self.last_failure.map(|(failure, _)| failure) };
        Change { up, row, failure }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STRICT: Thresholds = Thresholds { rise: 2, fall: 3 };

    /// One letter per probe: `p` passed, `f` failed, `l` could not be made here.
    fn observation(letter: char) -> Observation {
        match letter {
            'p' => Observation::Passed,
            'f' => Observation::Failed(Failure::Refused),
            'l' => Observation::Uncounted("no descriptors".to_owned()),
            other => panic!("no such observation: {other}"),
        }
    }

    /// The verdict after each probe, one letter each: `?`, `U`, `D`.
    fn run(remembered: Option<bool>, thresholds: Thresholds, letters: &str) -> String {
        let mut state = RiseFall::start(remembered, Duration::ZERO);
        let mut seen = String::new();
        for (second, letter) in letters.chars().enumerate() {
            let now = Duration::from_secs(second as u64 + 1);
            let before = state.verdict();
            let change = state.observe(observation(letter), thresholds, now);
            assert_eq!(change.is_some(), before != state.verdict());
            if let Some(change) = change {
                assert_eq!(state.since(), now);
                assert_eq!(change.failure.is_some(), !change.up);
            }
            seen.push(match state.verdict() {
                Verdict::Unknown => '?',
                Verdict::Up => 'U',
                Verdict::Down => 'D',
            });
        }
        seen
    }

    #[test]
    fn verdicts_follow_the_table() {
        let zero = Thresholds { rise: 0, fall: 0 };
        for (remembered, thresholds, probes, expected) in [
            (None, STRICT, "pp", "?U"),
            (None, STRICT, "f", "D"),
            (None, STRICT, "pf", "?D"),
            (None, STRICT, "fpp", "DDU"),
            (None, STRICT, "lllpp", "????U"),
            (None, STRICT, "pplfffpp", "?UUUUDDU"),
            (Some(true), STRICT, "ffpff", "UUUUU"),
            (Some(true), STRICT, "fff", "UUD"),
            (Some(true), STRICT, "fflf", "UUUD"),
            (Some(false), STRICT, "pfpp", "DDDU"),
            (Some(false), STRICT, "plp", "DDU"),
            (None, zero, "pfp", "UDU"),
        ] {
            assert_eq!(run(remembered, thresholds, probes), expected, "{probes}");
        }
    }

    #[test]
    fn a_start_is_no_change_and_a_flap_is_two() {
        let mut state = RiseFall::start(None, Duration::ZERO);
        for letter in "ppfffpp".chars() {
            state.observe(observation(letter), STRICT, Duration::from_secs(1));
        }
        assert_eq!((state.verdict(), state.changes()), (Verdict::Up, 2));
        assert_eq!(state.last_failure(), Some((Failure::Refused, Duration::from_secs(1))));
    }

    #[test]
    fn faults_of_this_machine_are_counted_apart() {
        let mut state = RiseFall::start(Some(true), Duration::ZERO);
        for _ in 0..5 {
            assert_eq!(state.observe(observation('l'), STRICT, Duration::ZERO), None);
        }
        assert_eq!(state.uncounted(), Some(&(5, "no descriptors".to_owned())));
        state.observe(observation('f'), STRICT, Duration::ZERO);
        assert_eq!((state.uncounted(), state.streak()), (None, 1));
    }

    /// The verdict by the definition: look back for the last decisive row.
    fn reference(remembered: Option<bool>, thresholds: Thresholds, letters: &[char]) -> Verdict {
        let mut verdict = RiseFall::start(remembered, Duration::ZERO).verdict();
        let mut counted: Vec<char> = Vec::new();
        for &letter in letters.iter().filter(|letter| **letter != 'l') {
            counted.push(letter);
            let row = counted.iter().rev().take_while(|seen| **seen == letter).count();
            let rise = thresholds.rise.max(1) as usize;
            let fall = thresholds.fall.max(1) as usize;
            verdict = match (verdict, letter) {
                (_, 'p') if row >= rise => Verdict::Up,
                (Verdict::Unknown, 'f') => Verdict::Down,
                (_, 'f') if row >= fall => Verdict::Down,
                (kept, _) => kept,
            };
        }
        verdict
    }

    proptest! {
        #[test]
        fn the_machine_keeps_to_the_definition(
            letters in prop::collection::vec(prop::sample::select(vec!['p', 'f', 'l']), 0..40),
            rise in 0_u32..5,
            fall in 0_u32..5,
            remembered in prop::option::of(any::<bool>()),
        ) {
            let thresholds = Thresholds { rise, fall };
            let mut state = RiseFall::start(remembered, Duration::ZERO);
            for letter in &letters {
                state.observe(observation(*letter), thresholds, Duration::ZERO);
            }
            prop_assert_eq!(state.verdict(), reference(remembered, thresholds, &letters));
        }
    }
}
