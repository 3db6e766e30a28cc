//! The words of the tracker: settings in, changes and tables out.

use std::collections::BTreeMap;
use std::time::Duration;

/// What becomes of the flows of a backend whose probes fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDown {
    /// They stay with it: the verdict may be wrong.
    #[default]
    Keep,
    /// They go to the next choice, which resets them.
    Release,
}

/// A pool's tracking settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Settings {
    /// The longest idle timeout of flows that are always tracked; zero if none are.
    pub always: Duration,
    /// What becomes of a dead backend's flows.
    pub on_down: OnDown,
    /// How long a changed slot answers misses with its former owner.
    pub window: Duration,
    /// How long a planned change is prepared; at least 3 s, so that no handshake straddles it.
    pub prepare: Duration,
    /// How long former owners are remembered after their window: the idle timeout of a flow.
    pub history: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            always: Duration::ZERO,
            on_down: OnDown::default(),
            window: Duration::from_secs(120),
            prepare: Duration::from_secs(3),
            history: Duration::from_secs(600),
        }
    }
}

/// What a pool is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Nothing in preparation, no window open (slots may still be contested by old flows).
    Steady,
    /// A planned change is being prepared.
    Preparing,
    /// A prepared change waits for windows to close: some slot would need a fourth former owner.
    Waiting,
    /// A window is open.
    Window,
}

impl Phase {
    /// The name shown to operators.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Preparing => "preparing",
            Self::Waiting => "waiting",
            Self::Window => "window",
        }
    }
}

/// What a step did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    /// A planned change began its preparation; its slots are contested.
    Prepared,
    /// The change in preparation is not wanted any more.
    Cancelled,
    /// The prepared change is in force; its slots have new owners.
    Activated,
    /// Windows closed; their slots answer misses with the owner again.
    WindowsClosed,
    /// Slots without exceptions turned stateless.
    Released,
    /// Former owners were forgotten, their time being up.
    HistoryExpired,
    /// A backend was taken for dead; its slots have new owners.
    Down,
    /// Released dead backends left the slots' past.
    Forgotten,
    /// A backend came back while all were down, and took all slots.
    Up,
    /// The settings changed, or windows were extended.
    Adjusted,
}

/// A step that makes a new table to publish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Slots that it touched.
    pub slots: u32,
    /// Slots that lost a former owner inside its window, having had three already.
    pub forced: u32,
}

impl Change {
    pub(super) const fn new(kind: ChangeKind, slots: u32) -> Self {
        Self { kind, slots, forced: 0 }
    }
}

/// What a death comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Down {
    /// The steps; empty if there is nothing to publish.
    pub changes: Vec<Change>,
    /// The entries that have to go.
    pub purge: Purge,
}

/// The entries that have to go after a death, once the table without the dead backend is live.
///
/// To be carried out once, soon: what a table entered afterwards may be a flow to keep.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Purge {
    owner: u16,
    /// Every entry of the owner.
    pub(super) all: bool,
    /// One bit for each slot whose unconfirmed entries of the owner go.
    marked: Vec<u64>,
}

impl Purge {
    pub(super) fn new(owner: u16, slots: u32) -> Self {
        let words = slots.div_ceil(u64::BITS) as usize;
        Self { owner, all: false, marked: vec![0; words] }
    }

    pub(super) const fn owner(&self) -> u16 {
        self.owner
    }

    pub(super) fn mark(&mut self, slot: u32) {
        self.marked[slot as usize / 64] |= 1 << (slot % 64);
    }

    /// Whether this entry has to go.
    #[must_use]
    pub fn takes(&self, slot: u32, owner: u16, confirmed: bool) -> bool {
        let word = self.marked.get(slot as usize / 64).copied().unwrap_or(0);
        let is_marked = word >> (slot % 64) & 1 == 1;
        owner == self.owner && (self.all || (is_marked && !confirmed))
    }
}

/// A pool's table as the data plane reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rendered {
    /// For each slot the owner's id (0: none), with
    /// [`CONTESTED`](super::CONTESTED).
    pub slots: Vec<u16>,
    /// For each slot `[base, last, last but one, last but two]`, 0 for none. A base means that the
    /// window is open; it is among the others unless it is the owner.
    pub history: Vec<[u16; 4]>,
    /// Whether any slot has a history.
    pub has_history: bool,
    /// The number of the generation; planned changes of the members count it up.
    pub generation: u32,
    /// The number of the table; every change counts it up.
    pub revision: u64,
    /// All backends are down, so all are used.
    pub all_down: bool,
}

/// What a proposed change would move.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Moved {
    /// Slots that would change their owner.
    pub slots: u32,
    /// Of those, slots lost by each backend.
    pub lost: BTreeMap<u16, u32>,
    /// Of those, slots gained by each backend.
    pub gained: BTreeMap<u16, u32>,
    /// Slots that would need a fourth former owner; many make the change wait for their windows.
    pub blocked: u32,
}
