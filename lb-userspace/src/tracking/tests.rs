//! Each rule by a small case, then all of them by random histories.

use proptest::prelude::*;

use super::*;
use crate::maglev::identity_key;

const SLOTS: u32 = 251;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn member(id: u16, weight: u32) -> Member {
    Member { key: identity_key(&format!("192.0.2.{id}")), id, weight }
}

fn pool(ids: impl IntoIterator<Item = u16>) -> Vec<Member> {
    ids.into_iter().map(|id| member(id, 100)).collect()
}

fn tracker(count: u16, settings: Settings) -> PoolTracker {
    PoolTracker::new(SLOTS, &pool(1..=count), &[], settings)
}

fn release() -> Settings {
    Settings { on_down: OnDown::Release, ..Settings::default() }
}

/// Proposes and lets the preparation pass; returns the time of activation.
fn change(tracker: &mut PoolTracker, members: &[Member], at: Duration) -> Duration {
    tracker.propose(members, at);
    let now = at + tracker.settings().prepare;
    tracker.tick(now, None);
    assert_eq!(tracker.current().members(), Roster::new(members, &[]).members());
    now
}

fn empty_scan(tracker: &PoolTracker) -> Scan {
    tracker.begin_scan()
}

fn is_contested(rendered: &Rendered, slot: u32) -> bool {
    rendered.slots[slot as usize] & CONTESTED != 0
}

fn slots_of(tracker: &PoolTracker, owner: u16) -> Vec<u32> {
    (0..SLOTS).filter(|&slot| tracker.owner(slot) == owner).collect()
}

#[test]
fn a_new_pool_is_stateless() {
    let tracker = tracker(4, Settings::default());
    let rendered = tracker.render();
    assert!(rendered.slots.iter().all(|&slot| slot & CONTESTED == 0 && slot != NO_BACKEND));
    assert!(!rendered.has_history);
    assert_eq!(tracker.phase(secs(0)), Phase::Steady);
    assert_eq!(tracker.next_deadline(), None);
    assert!(!tracker.needs_scan());
}

#[test]
fn a_planned_change_from_prepare_to_stateless() {
    let mut tracker = tracker(4, Settings::default());
    let before = tracker.render().slots;
    let moved = tracker.moved_slots(&pool(1..=5));
    let changes = tracker.propose(&pool(1..=5), secs(10));
    assert_eq!(changes, [Change::new(ChangeKind::Prepared, moved.slots)]);
    assert_eq!(tracker.phase(secs(10)), Phase::Preparing);
    assert_eq!(tracker.contested_slots(), moved.slots);
    assert_eq!(tracker.next_deadline(), Some(secs(13)));
    assert_eq!(tracker.tick(Duration::from_millis(12_999), None), []);

    let changes = tracker.tick(secs(13), None);
    assert_eq!(changes, [Change::new(ChangeKind::Activated, moved.slots)]);
    assert_eq!((tracker.generation(), tracker.phase(secs(13))), (2, Phase::Window));
    let rendered = tracker.render();
    for slot in 0..SLOTS {
        let (old, new) = (before[slot as usize], rendered.slots[slot as usize] & !CONTESTED);
        let row = if old == new { [0; 4] } else { [old, old, 0, 0] };
        assert_eq!(rendered.history[slot as usize], row);
        assert_eq!(is_contested(&rendered, slot), old != new);
    }

    // Closed after window and grace; stateless by a scan under the new table only.
    let too_early = empty_scan(&tracker);
    assert_eq!(tracker.next_deadline(), Some(secs(13 + 120 + 5)));
    assert!(!tracker.needs_scan());
    let changes = tracker.tick(secs(138), Some(&too_early));
    assert_eq!(changes, [Change::new(ChangeKind::WindowsClosed, moved.slots)]);
    assert_eq!(tracker.contested_slots(), moved.slots);
    assert!(tracker.render().history.iter().all(|row| row[0] == NO_BACKEND));
    assert!(tracker.needs_scan());
    assert_eq!(tracker.tick(secs(139), Some(&too_early)), []);

    let mut scan = tracker.begin_scan();
    let held = slots_of(&tracker, 5)[0];
    scan.note(held, before[held as usize], true);
    scan.note(held, 5, true);
    assert_eq!(scan.exception_slots(), 1);
    let changes = tracker.tick(secs(140), Some(&scan));
    assert_eq!(changes, [Change::new(ChangeKind::Released, moved.slots - 1)]);
    assert_eq!(tracker.contested_slots(), 1);
    assert!(is_contested(&tracker.render(), held));

    // An entry of one packet holds its slot for one window more.
    let mut scan = tracker.begin_scan();
    scan.note(held, before[held as usize], false);
    assert_eq!(tracker.tick(Duration::from_millis(262_999), Some(&scan)), []);
    assert_eq!(tracker.contested_slots(), 1);
    tracker.tick(secs(138 + 120 + 5), Some(&scan));
    assert_eq!(tracker.contested_slots(), 0);

    // The past is kept for the agents, and then it goes.
    assert!(tracker.render().has_history);
    assert_eq!(tracker.next_deadline(), Some(secs(13 + 120 + 600)));
    tracker.tick(secs(733), None);
    assert!(!tracker.render().has_history);
    assert_eq!(tracker.next_deadline(), None);
}

#[test]
fn a_second_change_keeps_the_base_and_the_end() {
    let mut tracker = tracker(4, Settings::default());
    let first = change(&mut tracker, &pool(1..=5), secs(0));
    let slot = slots_of(&tracker, 5)[0];
    let base = tracker.render().history[slot as usize][0];
    // The new one goes again: the old owner is the base and the owner.
    change(&mut tracker, &pool(1..=4), secs(60));
    assert_eq!(tracker.owner(slot), base);
    assert_eq!(tracker.render().history[slot as usize], [base, 5, 0, 0]);
    tracker.tick(first + secs(125), None);
    assert_eq!(tracker.render().history[slot as usize], [0, 5, 0, 0]);
}

#[test]
fn proposals_queue_and_the_last_one_wins() {
    let mut tracker = tracker(4, Settings::default());
    tracker.propose(&pool(1..=5), secs(0));
    assert_eq!(tracker.propose(&pool(1..=6), secs(1)), []);
    assert_eq!(tracker.propose(&pool(1..=7), secs(2)), []);
    let kinds: Vec<ChangeKind> = tracker.tick(secs(3), None).iter().map(|c| c.kind).collect();
    assert_eq!(kinds, [ChangeKind::Activated, ChangeKind::Prepared]);
    tracker.tick(secs(6), None);
    assert_eq!(tracker.current().members(), pool(1..=7));
    assert_eq!(tracker.generation(), 3);
}

#[test]
fn going_back_cancels_the_preparation() {
    let mut tracker = tracker(4, Settings::default());
    tracker.propose(&pool(1..=5), secs(0));
    let changes = tracker.propose(&pool(1..=4), secs(1));
    assert_eq!(changes, [Change::new(ChangeKind::Cancelled, 0)]);
    assert_eq!(tracker.contested_slots(), 0);
    assert_eq!(tracker.propose(&pool((1..=4).rev()), secs(1)), []);
}

#[test]
fn a_fourth_former_owner_waits_or_is_forced() {
    // One backend at a time: every slot changes every time.
    let begin = |forced: bool| {
        let mut tracker = PoolTracker::new(SLOTS, &pool([1]), &[], Settings::default());
        for id in 2..=4 {
            change(&mut tracker, &pool([id]), secs(u64::from(id) * 5));
        }
        assert_eq!(tracker.render().history[0], [1, 3, 2, 1]);
        assert_eq!(tracker.moved_slots(&pool([5])).blocked, SLOTS);
        tracker.propose(&pool([5]), secs(30));
        if forced {
            tracker.force();
        }
        tracker
    };
    let mut tracker = begin(false);
    assert_eq!(tracker.tick(secs(33), None), []);
    assert_eq!(tracker.phase(secs(33)), Phase::Waiting);
    // The first change was activated at 13 s.
    assert_eq!(tracker.next_deadline(), Some(secs(138)));
    tracker.tick(secs(138), None);
    assert_eq!(tracker.owner(0), 5);
    assert_eq!(tracker.render().history[0], [4, 4, 3, 2]);
    assert_eq!(tracker.forced_slots(), 0);

    let mut tracker = begin(true);
    let changes = tracker.tick(secs(33), None);
    assert_eq!(changes[0].forced, SLOTS);
    // The oldest goes that is not the base.
    assert_eq!(tracker.render().history[0], [1, 4, 3, 1]);
    assert_eq!(tracker.forced_slots(), u64::from(SLOTS));
    // Back to a former owner needs no room.
    assert_eq!(tracker.moved_slots(&pool([3])).blocked, 0);
}

#[test]
fn a_death_that_keeps_its_flows() {
    let mut tracker = tracker(4, Settings::default());
    let dead = slots_of(&tracker, 2);
    let before = tracker.render().slots;
    let Down { changes, purge } = tracker.backend_down(2, secs(10));
    assert_eq!(changes, [Change::new(ChangeKind::Down, u32::try_from(dead.len()).unwrap())]);
    assert_eq!(tracker.backend_down(2, secs(11)).changes, []);
    let rendered = tracker.render();
    for slot in 0..SLOTS {
        if dead.contains(&slot) {
            assert_ne!(tracker.owner(slot), 2);
            assert_eq!(rendered.history[slot as usize], [2, 2, 0, 0]);
            assert!(is_contested(&rendered, slot));
        } else {
            assert_eq!(rendered.slots[slot as usize], before[slot as usize]);
        }
    }
    assert_eq!(tracker.generation(), 1);
    assert!(purge.takes(dead[0], 2, false) && !purge.takes(dead[0], 2, true));
    assert!(!purge.takes(dead[0], 1, false));
    assert!(!tracker.is_released(2));

    // The return is prepared, and finds the window still open: the dead one is the oldest.
    let kinds: Vec<ChangeKind> = tracker.backend_up(2, secs(20)).iter().map(|c| c.kind).collect();
    assert_eq!(kinds, [ChangeKind::Prepared]);
    assert_ne!(tracker.owner(dead[0]), 2);
    tracker.tick(secs(23), None);
    assert_eq!(tracker.owner(dead[0]), 2);
    assert_eq!(tracker.render().history[dead[0] as usize][0], 2);
    assert_eq!(tracker.generation(), 1);
}

#[test]
fn a_death_of_a_base_spares_its_first_packets() {
    let mut tracker = tracker(4, Settings::default());
    // Slots of 1 go to 5 and come back: 1 is their owner and their base.
    change(&mut tracker, &pool(1..=5), secs(0));
    change(&mut tracker, &pool(1..=4), secs(10));
    let rendered = tracker.render();
    let is_base = |slot: &u32| rendered.history[*slot as usize][0] == 1;
    let slot = slots_of(&tracker, 1).into_iter().find(is_base).unwrap();
    let purge = tracker.backend_down(1, secs(20)).purge;
    assert!(!purge.takes(slot, 1, false));
}

#[test]
fn a_death_that_releases_its_flows() {
    let mut tracker = tracker(4, release());
    let dead = slots_of(&tracker, 2);
    let purge = tracker.backend_down(2, secs(10)).purge;
    let rendered = tracker.render();
    // Nothing is left to track: its flows are over.
    assert!(rendered.slots.iter().all(|&slot| slot & CONTESTED == 0 && slot != 2));
    assert!(rendered.history.iter().all(|row| *row == [0; 4]));
    assert!(purge.takes(dead[0], 2, true) && !purge.takes(dead[0], 1, true));
    assert!(tracker.is_released(2) && !tracker.is_released(1));
    // Its return is a change like any other.
    let second = tracker.owner(dead[0]);
    tracker.backend_up(2, secs(200));
    tracker.tick(secs(203), None);
    assert_eq!(tracker.render().history[dead[0] as usize], [second, second, 0, 0]);
}

#[test]
fn a_released_base_closes_its_window() {
    let mut tracker = tracker(4, release());
    change(&mut tracker, &pool(1..=5), secs(0));
    let slot = slots_of(&tracker, 5)[0];
    let base = tracker.render().history[slot as usize][0];
    tracker.backend_down(base, secs(10));
    assert_eq!(tracker.render().history[slot as usize], [0; 4]);
    assert!(is_contested(&tracker.render(), slot));
    let scan = empty_scan(&tracker);
    tracker.tick(secs(11), Some(&scan));
    assert!(!is_contested(&tracker.render(), slot));
}

#[test]
fn a_removed_backend_may_die_too() {
    let mut tracker = tracker(3, release());
    change(&mut tracker, &pool(1..=2), secs(0));
    assert!(tracker.render().history.iter().any(|row| row[0] == 3));
    let changes = tracker.backend_down(3, secs(5)).changes;
    assert_eq!(changes.iter().map(|c| c.kind).collect::<Vec<_>>(), [ChangeKind::Forgotten]);
    assert!(tracker.render().history.iter().all(|row| !row.contains(&3)));
}

#[test]
fn all_down_uses_all() {
    for settings in [Settings::default(), release()] {
        let mut tracker = tracker(2, settings);
        let planned = tracker.render().slots;
        tracker.backend_down(1, secs(0));
        assert!((0..SLOTS).all(|slot| tracker.owner(slot) == 2));
        assert!(!tracker.render().all_down);
        tracker.backend_down(2, secs(50));
        let rendered = tracker.render();
        assert!(rendered.all_down);
        assert!(planned.iter().zip(&rendered.slots).all(|(p, r)| *p == r & !CONTESTED));
        assert!(!tracker.is_released(1) && !tracker.is_released(2));
        // The first to return takes everything, at once.
        tracker.backend_up(1, secs(60));
        assert!((0..SLOTS).all(|slot| tracker.owner(slot) == 1));
        assert!(!tracker.render().all_down);
        assert_eq!(tracker.is_released(2), settings.on_down == OnDown::Release);
    }
}

#[test]
fn a_dead_member_stays_dead_through_a_change() {
    let mut tracker = tracker(4, Settings::default());
    tracker.backend_down(2, secs(0));
    change(&mut tracker, &pool(1..=5), secs(200));
    assert!(slots_of(&tracker, 2).is_empty());
    // Dies while the next change is prepared: its time begins again.
    tracker.propose(&pool(1..=6), secs(400));
    tracker.backend_down(6, secs(402));
    tracker.tick(secs(403), None);
    assert_eq!(tracker.current().members().len(), 5);
    tracker.tick(secs(405), None);
    assert_eq!(tracker.current().members().len(), 6);
    assert!(slots_of(&tracker, 6).is_empty());
}

#[test]
fn a_return_taken_back_is_cancelled() {
    let mut tracker = tracker(4, Settings::default());
    tracker.backend_down(2, secs(0));
    tracker.backend_up(2, secs(1));
    let kinds: Vec<ChangeKind> =
        tracker.backend_down(2, secs(2)).changes.iter().map(|c| c.kind).collect();
    assert_eq!(kinds, [ChangeKind::Cancelled]);
    tracker.tick(secs(60), None);
    assert!(slots_of(&tracker, 2).is_empty());
}

#[test]
fn no_backend_and_back() {
    let mut tracker = tracker(2, Settings::default());
    let before = tracker.render().slots;
    change(&mut tracker, &[], secs(0));
    let rendered = tracker.render();
    assert!(rendered.slots.iter().all(|&slot| slot == CONTESTED | NO_BACKEND));
    assert!(before.iter().zip(&rendered.history).all(|(old, row)| *row == [*old, *old, 0, 0]));
    assert!(!rendered.all_down);
    change(&mut tracker, &pool(1..=2), secs(300));
    assert_eq!(tracker.owner(0), before[0]);

    let mut empty = PoolTracker::new(SLOTS, &[], &[], Settings::default());
    change(&mut empty, &pool(1..=2), secs(0));
    assert_eq!(empty.contested_slots(), 0);
}

#[test]
fn an_always_tracked_pool_asks_until_it_knows_what_an_earlier_one_left() {
    let settings = Settings { always: secs(600), ..Settings::default() };
    let mut tracker = tracker(4, settings);
    assert_eq!(tracker.contested_slots(), SLOTS);
    assert!(tracker.needs_scan());
    assert_eq!(PoolTracker::restore(&tracker.state()).unwrap(), tracker);
    // A flow of slot 7 is another backend's.
    let stranger = tracker.owner(7) % 4 + 1;
    let mut scan = empty_scan(&tracker);
    scan.note(7, stranger, false);
    scan.note(8, tracker.owner(8), true);
    let changes = tracker.tick(secs(2), Some(&scan));
    assert_eq!(changes.first().map(|change| change.kind), Some(ChangeKind::Released));
    assert_eq!(tracker.contested_slots(), 1);
    assert_ne!(tracker.render().slots[7] & CONTESTED, 0);
    // Of one packet, but it may live for as long as its idle timeout.
    let mut scan = empty_scan(&tracker);
    scan.note(7, stranger, false);
    assert!(tracker.tick(secs(500), Some(&scan)).is_empty());
    let scan = empty_scan(&tracker);
    assert!(!tracker.tick(secs(602), Some(&scan)).is_empty());
    assert_eq!(tracker.contested_slots(), 0);
    assert!(!tracker.needs_scan());
    assert!(tracker.reconfigure(Settings::default()).is_some());
    assert_eq!(tracker.reconfigure(Settings::default()), None);
}

#[test]
fn a_lost_flow_table_extends_open_windows() {
    let mut tracker = tracker(4, Settings::default());
    let at = change(&mut tracker, &pool(1..=5), secs(0));
    tracker.flow_table_lost(at + secs(100));
    assert_eq!(tracker.next_deadline(), Some(at + secs(100 + 120 + 5)));
}

#[test]
fn ids_stay_taken_while_anything_has_them() {
    let mut tracker = tracker(3, Settings::default());
    change(&mut tracker, &pool(1..=2), secs(0));
    assert!(tracker.owners_in_use(&empty_scan(&tracker)).contains(&3));
    tracker.tick(secs(200), None);
    let scan = empty_scan(&tracker);
    tracker.tick(secs(200), Some(&scan));
    tracker.tick(secs(900), None);
    assert!(!tracker.owners_in_use(&empty_scan(&tracker)).contains(&3));
    let mut scan = empty_scan(&tracker);
    scan.note(0, 3, true);
    assert_eq!(scan.entries(3), 1);
    assert_eq!(tracker.owners_in_use(&scan), BTreeSet::from([1, 2, 3]));
}

#[test]
fn a_damaged_journal_is_refused() {
    let mut tracker = tracker(4, Settings::default());
    change(&mut tracker, &pool(1..=5), secs(0));
    let good = serde_json::to_value(tracker.state()).unwrap();
    let bad = |rows: &str| {
        let mut value = good.clone();
        value["rows"] = rows.into();
        PoolTracker::restore(&serde_json::from_value(value).unwrap()).err()
    };
    assert_eq!(bad(""), None);
    assert_eq!(bad("AA*"), Some(RestoreError::Rows(2)));
    assert_eq!(bad("AAA"), Some(RestoreError::Rows(3)));
    assert_eq!(bad("________"), Some(RestoreError::Rows(7)));
    assert_eq!(bad("ABAA"), Some(RestoreError::Range(0)));
    assert_eq!(bad("AAIA"), Some(RestoreError::Range(0)));
    assert_eq!(bad("7HAAA"), Some(RestoreError::Range(251)));
}

#[test]
fn a_large_pool_has_a_small_journal() {
    let members = pool(1..=100);
    let mut tracker = PoolTracker::new(65_537, &members, &[], Settings::default());
    for gone in 1..=8u16 {
        let rest: Vec<Member> = members.iter().copied().filter(|m| m.id != gone).collect();
        change(&mut tracker, &rest, secs(u64::from(gone) * 30));
    }
    let contested = tracker.contested_slots() as usize;
    let json = serde_json::to_string(&tracker.state()).unwrap();
    assert!(contested > 5_000);
    assert!(json.len() < 10_000 + 12 * contested, "{} bytes, {contested} slots", json.len());
}

#[derive(Clone, Debug)]
enum Input {
    Propose(Vec<u32>),
    Down(u16),
    Up(u16),
    Pass(u64),
    Scan(Vec<(u32, u16)>),
    Force,
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        proptest::collection::vec(prop_oneof![Just(0u32), Just(50), Just(100)], 1..9)
            .prop_map(Input::Propose),
        (1u16..9).prop_map(Input::Down),
        (1u16..9).prop_map(Input::Up),
        (1u64..60_000).prop_map(Input::Pass),
        proptest::collection::vec((0..SLOTS, 1u16..9), 0..20).prop_map(Input::Scan),
        Just(Input::Force),
    ]
}

fn feed(tracker: &mut PoolTracker, input: &Input, now: &mut Duration) -> Vec<Change> {
    match input {
        Input::Propose(weights) => {
            let members: Vec<Member> =
                (1u16..).zip(weights).map(|(id, &weight)| member(id, weight)).collect();
            tracker.propose(&members, *now)
        }
        Input::Down(id) => tracker.backend_down(*id, *now).changes,
        Input::Up(id) => tracker.backend_up(*id, *now),
        Input::Pass(ms) => {
            *now += Duration::from_millis(*ms);
            tracker.tick(*now, None)
        }
        Input::Scan(entries) => {
            let mut scan = tracker.begin_scan();
            entries.iter().for_each(|&(slot, owner)| scan.note(slot, owner, true));
            tracker.tick(*now, Some(&scan))
        }
        Input::Force => {
            tracker.force();
            Vec::new()
        }
    }
}

fn check_rendered(tracker: &PoolTracker, rendered: &Rendered) -> Result<(), TestCaseError> {
    let roster = tracker.current();
    for (slot, row) in (0u32..).zip(&rendered.history) {
        let owner = rendered.slots[slot as usize] & !CONTESTED;
        prop_assert_eq!(owner, tracker.owner(slot));
        // The dead get nothing, unless all are dead.
        prop_assert!(!roster.is_dead(owner) || roster.all_down());
        // An open window is contested; its base is not forgotten.
        if row[0] != NO_BACKEND {
            prop_assert!(is_contested(rendered, slot));
            prop_assert!(row[0] == owner || row[1..].contains(&row[0]));
        }
        // Former owners: distinct, none of them the owner, no gaps.
        let last: Vec<u16> = row[1..].iter().copied().take_while(|&id| id != 0).collect();
        prop_assert!(row[1 + last.len()..].iter().all(|&id| id == 0));
        prop_assert_eq!(last.iter().collect::<BTreeSet<_>>().len(), last.len());
        prop_assert!(!last.contains(&owner));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_history_keeps_the_invariants(
        inputs in proptest::collection::vec(any_input(), 1..40),
        releases in any::<bool>(),
    ) {
        let settings = if releases { release() } else { Settings::default() };
        let mut tracker = tracker(6, settings);
        let mut now = secs(1);
        let mut rendered = tracker.render();
        for input in &inputs {
            let changes = feed(&mut tracker, input, &mut now);
            let next = tracker.render();
            // What is not announced does not change; what changes has a number of its own.
            prop_assert_eq!(changes.is_empty(), next.revision == rendered.revision);
            prop_assert!(next.revision >= rendered.revision);
            if changes.is_empty() {
                prop_assert_eq!(&next, &rendered);
            }
            check_rendered(&tracker, &next)?;
            rendered = next;
            let json = serde_json::to_string(&tracker.state()).unwrap();
            let state: State = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&PoolTracker::restore(&state).unwrap(), &tracker);
        }
        // Left alone, with no flows, every pool comes to rest on what was last wanted.
        for _ in 0..20 {
            now = tracker.next_deadline().map_or(now, |deadline| deadline.max(now));
            let scan = tracker.begin_scan();
            tracker.tick(now, Some(&scan));
        }
        prop_assert_eq!(tracker.phase(now), Phase::Steady);
        prop_assert_eq!(tracker.contested_slots(), 0);
        prop_assert_eq!(tracker.next_deadline(), None);
        prop_assert!(!tracker.needs_scan());
    }
}
