//! A pool's tracker as it is kept over a restart.
//!
//! Tables are functions of their members, so only the rosters are kept, and of the slots only those
//! with a past. Their rows are one string of base-64 digits, each with five bits of a number, least
//! significant first, and a sixth that says that more follow: about nine characters a slot. Windows
//! of one change end together, so a row names its end by its place in a list.

use std::collections::BTreeMap;

use super::pending::Pending;
use super::roster::{Roster, Table};
use super::row::Row;
use super::{PoolTracker, Settings};

/// RFC 4648 section 5: digits that need no escape in JSON.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// More digits than this make no number that is written here.
const NUMBER_DIGITS_MAX: u32 = 7;

/// A tracker's state, for the journal.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct State {
    slots: u32,
    settings: Settings,
    generation: u32,
    revision: u64,
    forced_slots: u64,
    current: Roster,
    /// `None`: the current one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    wanted: Option<Roster>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pending: Option<PendingState>,
    /// The distinct ends of windows, in milliseconds of the tracker's clock.
    until_ms: Vec<u64>,
    rows: String,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    unscanned: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
struct PendingState {
    roster: Roster,
    since_ms: u64,
    force: bool,
}

/// Why a state cannot be restored. The journal is damaged; the pool has to begin without a past.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RestoreError {
    /// The string of rows has a character that is no digit, or ends inside a number.
    #[error("the rows of slots are damaged at byte {0}")]
    Rows(usize),
    /// A row names a slot beyond the table, or an end that is not in the list.
    #[error("the row of slot {0} does not fit the table")]
    Range(u64),
}

impl PoolTracker {
    /// The state to keep.
    #[must_use]
    pub fn state(&self) -> State {
        let mut until_ms: Vec<u64> = self.rows.values().map(|row| row.until_ms).collect();
        until_ms.sort_unstable();
        until_ms.dedup();
        let pending = self.pending.as_ref().map(|p| PendingState {
            roster: p.roster.clone(),
            since_ms: p.since_ms,
            force: p.force,
        });
        State {
            slots: self.slots,
            settings: self.settings,
            generation: self.generation,
            revision: self.revision,
            forced_slots: self.forced_slots,
            current: self.current.clone(),
            wanted: (self.wanted != self.current).then(|| self.wanted.clone()),
            pending,
            rows: encode(&self.rows, &until_ms),
            until_ms,
            unscanned: self.unscanned,
        }
    }

    /// The tracker that had this state.
    ///
    /// # Errors
    /// If the rows do not belong to such a table.
    pub fn restore(state: &State) -> Result<Self, RestoreError> {
        let table = Table::new(&state.current, state.slots);
        let pending = state.pending.as_ref().map(|kept| Pending {
            force: kept.force,
            ..Pending::new(kept.roster.clone(), state.slots, kept.since_ms)
        });
        Ok(Self {
            slots: state.slots,
            settings: state.settings,
            owners: table.owners(&state.current),
            table,
            current: state.current.clone(),
            wanted: state.wanted.as_ref().unwrap_or(&state.current).clone(),
            pending,
            rows: decode(state)?,
            generation: state.generation,
            revision: state.revision,
            forced_slots: state.forced_slots,
            unscanned: state.unscanned,
        })
    }
}

fn encode(rows: &BTreeMap<u32, Row>, until_ms: &[u64]) -> String {
    let mut text = String::new();
    let mut next_slot = 0;
    for (&slot, row) in rows {
        put(&mut text, u64::from(slot - next_slot));
        next_slot = slot + 1;
        put(&mut text, until_ms.partition_point(|&end| end < row.until_ms) as u64);
        let count = row.last.iter().filter(|&&id| id != 0).count();
        put(&mut text, (count as u64) << 1 | u64::from(row.held));
        put(&mut text, u64::from(row.base));
        row.last.iter().take(count).for_each(|&id| put(&mut text, u64::from(id)));
    }
    text
}

fn put(text: &mut String, mut number: u64) {
    loop {
        let more = if number >= 32 { 32 } else { 0 };
        text.push(char::from(DIGITS[usize::try_from(number & 31 | more).unwrap_or(0)]));
        number >>= 5;
        if more == 0 {
            return;
        }
    }
}

fn decode(state: &State) -> Result<BTreeMap<u32, Row>, RestoreError> {
    let mut reader = Reader { text: state.rows.as_bytes(), at: 0 };
    let mut rows = BTreeMap::new();
    let mut next_slot = 0;
    while reader.at < reader.text.len() {
        let slot = next_slot + reader.number()?;
        next_slot = slot + 1;
        let out_of_range = RestoreError::Range(slot);
        let end = usize::try_from(reader.number()?).unwrap_or(usize::MAX);
        let flags = reader.number()?;
        let mut row = Row {
            until_ms: *state.until_ms.get(end).ok_or(out_of_range)?,
            held: flags & 1 == 1,
            base: reader.id(out_of_range)?,
            ..Row::default()
        };
        let count = usize::try_from(flags >> 1).unwrap_or(usize::MAX);
        for place in row.last.get_mut(..count).ok_or(out_of_range)? {
            *place = reader.id(out_of_range)?;
        }
        let slot = u32::try_from(slot).ok().filter(|&slot| slot < state.slots);
        rows.insert(slot.ok_or(out_of_range)?, row);
    }
    Ok(rows)
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn number(&mut self) -> Result<u64, RestoreError> {
        let mut number = 0;
        for place in 0..NUMBER_DIGITS_MAX {
            let byte = self.text.get(self.at).ok_or(RestoreError::Rows(self.at))?;
            let digit = DIGITS.iter().position(|digit| digit == byte);
            let digit = digit.ok_or(RestoreError::Rows(self.at))? as u64;
            self.at += 1;
            number |= (digit & 31) << (5 * place);
            if digit & 32 == 0 {
                return Ok(number);
            }
        }
        Err(RestoreError::Rows(self.at))
    }

    /// A backend id, 0 for none.
    fn id(&mut self, out_of_range: RestoreError) -> Result<u16, RestoreError> {
        u16::try_from(self.number()?).ok().filter(|&id| id < super::CONTESTED).ok_or(out_of_range)
    }
}
