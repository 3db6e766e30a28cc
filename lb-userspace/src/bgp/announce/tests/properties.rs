//! What holds whatever happens, in whatever order.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::bgp::asn;

const PREFIXES: [&str; 4] =
    ["198.51.0.0/16", "198.51.100.0/24", "198.51.101.0/24", "203.0.113.0/24"];
const VIPS: [&str; 5] =
    ["198.51.100.1", "198.51.101.1", "203.0.113.1", "192.0.2.200", "192.0.2.201"];
/// May be poisoned, to some peers at least; the last three never.
const ASNS: [u32; 6] = [64_510, 64_509, 64_508, OWN, 64_497, 3_356];

fn world() -> Desired {
    let mut desired = desired(&PREFIXES, &VIPS);
    let bgp = desired.bgp.as_mut().unwrap();
    bgp.guards.breaker_max = 2;
    bgp.shedding = vec![AttributeSettings { prepend: 1, ..AttributeSettings::default() }];
    let edge1 = bgp.peers.get_mut("edge1").unwrap();
    edge1.poison_allowed = ASNS.into();
    edge1.attributes.prepend = 3;
    bgp.peers.get_mut("edge2").unwrap().poison_allowed = [64_510].into();
    bgp.peers.insert("core".to_owned(), peer("core", OWN));
    desired
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    Up(Index, u32),
    Probe(Index, bool),
    Attached(bool),
    Verdicts(bool),
    Drain(Index, bool),
    DrainNode(bool),
    See(Index, u8),
    Steer(Box<Steer>),
    Unsteer(u64),
    Shed(u32),
    Resume,
    Prepend(u8),
    Pass(u64),
}

fn steers() -> impl Strategy<Value = Steer> {
    let target = select(PREFIXES.iter().chain(&["vip1", "vip2", "vip4"]).collect::<Vec<_>>());
    let peers = prop::collection::btree_set(select(vec!["edge1", "edge2", "core"]), 0..2);
    let inside = select(vec!["198.51.100.0/23", "198.51.128.0/17", "198.51.100.0/24"]);
    let poison = prop::collection::btree_set(select(ASNS.to_vec()), 0..4);
    let rest = (0..4_u8, prop::option::of(0..9_u32), any::<[bool; 3]>(), 1..100_u64);
    (target, peers, inside, poison, rest).prop_map(|(target, peers, inside, poison, rest)| {
        let (prepend, med, [withdraw, more, graceful_shutdown], seconds) = rest;
        Steer {
            target: (*target).to_owned(),
            peers: peers.into_iter().map(str::to_owned).collect(),
            lasts: ms(seconds * 1_000),
            prepend: if withdraw { 0 } else { prepend },
            med: med.filter(|_| !withdraw),
            withdraw,
            more_specifics: (more && !withdraw).then(|| net(inside)).into_iter().collect(),
            graceful_shutdown: graceful_shutdown && !withdraw,
            poison: if withdraw { BTreeSet::new() } else { poison },
            ..Steer::default()
        }
    })
}

/// Orders of steering, half of them such that poisoning may be allowed.
fn orders() -> impl Strategy<Value = Steer> {
    let target = select(PREFIXES.to_vec());
    let asns = prop::collection::btree_set(select(vec![64_510, 64_509, 64_508]), 1..3);
    let poison = (target, asns, 1..100_u64).prop_map(|(target, poison, seconds)| Steer {
        poison,
        peers: ["edge1".to_owned()].into(),
        lasts: ms(seconds * 1_000),
        ..steer(target)
    });
    prop_oneof![poison, steers()]
}

/// What health and the clock do.
fn health() -> BoxedStrategy<Event> {
    prop_oneof![
        4 => (any::<Index>(), 0..5_u32).prop_map(|(vip, up)| Event::Up(vip, up)),
        2 => (any::<Index>(), any::<bool>()).prop_map(|(vip, ok)| Event::Probe(vip, ok)),
        1 => any::<bool>().prop_map(Event::Attached),
        3 => (any::<Index>(), 0..3_u8).prop_map(|(prefix, seen)| Event::See(prefix, seen)),
        4 => (0..40_000_u64).prop_map(Event::Pass),
        1 => Just(Event::Resume),
    ]
    .boxed()
}

fn events() -> BoxedStrategy<Event> {
    prop_oneof![
        6 => health(),
        1 => any::<bool>().prop_map(Event::Verdicts),
        1 => (any::<Index>(), any::<bool>()).prop_map(|(vip, is)| Event::Drain(vip, is)),
        1 => any::<bool>().prop_map(Event::DrainNode),
        5 => orders().prop_map(|steer| Event::Steer(Box::new(steer))),
        1 => (1..9_u64).prop_map(Event::Unsteer),
        1 => (0..2_u32).prop_map(Event::Shed),
        1 => (0..5_u8).prop_map(Event::Prepend),
    ]
    .boxed()
}

fn happen(bench: &mut Bench, event: &Event) {
    let when = |ok: bool| if ok { Ok(()) } else { Err("broken".to_owned()) };
    match event.clone() {
        Event::Up(vip, up) => vip.get_mut(&mut bench.facts.vips).up = up,
        Event::Probe(vip, ok) => vip.get_mut(&mut bench.facts.vips).probe = Some(when(ok)),
        Event::Attached(ok) => bench.facts.attached = when(ok),
        Event::Verdicts(ok) => bench.facts.verdicts = when(ok),
        Event::Drain(vip, is) => vip.get_mut(&mut bench.facts.vips).drained = is,
        Event::DrainNode(is) => bench.facts.node_drained = is,
        Event::See(prefix, seen) => {
            let seen = [others(), Seen::Nobody, Seen::Unknown].into_iter().nth(seen.into());
            bench.see(prefix.get::<&str>(&PREFIXES), seen.unwrap());
        }
        // Orders may be refused.
        Event::Steer(steer) => drop(bench.steer(*steer)),
        Event::Unsteer(id) => drop(bench.order(Order::Unsteer { id })),
        Event::Shed(level) => drop(bench.order(Order::Shed { level, lasts: ms(60_000) })),
        Event::Resume => drop(bench.order(Order::ResumeBreaker)),
        Event::Prepend(prepend) => {
            let bgp = bench.desired.bgp.as_mut().unwrap();
            bgp.peers.get_mut("edge1").unwrap().attributes.prepend = prepend;
            bench.configure();
        }
        Event::Pass(millis) => bench.pass(millis),
    }
    bench.settle();
}

/// What every peer is to have.
fn out(bench: &Bench) -> BTreeMap<String, std::sync::Arc<crate::bgp::route::Rib>> {
    bench.last.as_ref().unwrap().routes.clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is ordered and configured, a path that goes out breaks no rule of poisoning.
    #[test]
    fn no_orders_together_get_around_the_guards_of_poisoning(
        events in prop::collection::vec(events(), 1..40),
    ) {
        let mut bench = Bench::new(world());
        for event in &events {
            happen(&mut bench, event);
            // A change of the configuration may wait for the interval.
            bench.pass(1_000);
            let bgp = bench.desired.bgp.as_ref().unwrap();
            for (name, rib) in out(&bench) {
                let peer = &bgp.peers[&name];
                let baseline = 1 + usize::from(peer.attributes.prepend);
                for (prefix, route) in rib.iter() {
                    let path = &route.as_path;
                    prop_assert!(path.len() <= 16);
                    if name == "core" {
                        prop_assert!(path.is_empty());
                        continue;
                    }
                    prop_assert_eq!((path.first(), path.last()), (Some(&OWN), Some(&OWN)));
                    let strange: Vec<u32> =
                        path.iter().copied().filter(|it| *it != OWN).collect();
                    if strange.is_empty() {
                        continue;
                    }
                    prop_assert!(strange.len() <= 2 && strange.len() + 2 <= baseline);
                    prop_assert!(strange.iter().all(|it| peer.poison_allowed.contains(it)));
                    prop_assert!(strange.iter().all(|it| !asn::is_tier_1(*it) && *it != 64_497));
                    let covered = rib.iter().any(|(other, route)| {
                        let is_clean = route.as_path.iter().all(|it| *it == OWN);
                        other != prefix && other.contains(prefix) && is_clean
                    });
                    let parent = PREFIXES.iter().map(|it| net(it)).filter(|it| it.contains(prefix));
                    let seen = parent.filter_map(|it| bench.facts.seen.get(&it));
                    let shared = seen.filter(|it| matches!(it, Seen::Others { .. })).count() > 0;
                    prop_assert!(covered || shared, "{} {:?}", prefix, path);
                }
            }
        }
    }

    /// However prefixes were steered: when the orders are over, nothing of them is left.
    #[test]
    fn every_order_undoes_itself_exactly(
        events in prop::collection::vec(events(), 1..30),
        orders in prop::collection::vec(orders(), 1..10),
    ) {
        let mut bench = Bench::new(world());
        for event in events.iter().filter(|it| !matches!(it, Event::Steer(_) | Event::Shed(_))) {
            happen(&mut bench, event);
        }
        // Long enough for everything to come to rest.
        bench.pass(2_000_000);
        let before = out(&bench);
        for order in &orders {
            happen(&mut bench, &Event::Steer(Box::new(order.clone())));
        }
        happen(&mut bench, &Event::Shed(1));
        bench.pass(100_000);
        prop_assert_eq!(out(&bench), before);
        prop_assert!(bench.announcer.orders().is_empty());
    }

    /// The guards only ever keep announcements: with back-off out of the way, whatever is
    /// announced without them is announced with them.
    #[test]
    fn guards_never_lose_a_prefix(events in prop::collection::vec(health(), 1..60)) {
        let mut with = world();
        with.bgp.as_mut().unwrap().guards.backoff = Duration::ZERO;
        let mut without = with.clone();
        let bgp = without.bgp.as_mut().unwrap();
        bgp.guards.breaker_max = u32::MAX;
        bgp.host_routes.last_announcer = LastAnnouncer::Withdraw;
        for prefix in bgp.prefixes.values_mut() {
            prefix.last_announcer = LastAnnouncer::Withdraw;
        }
        let [mut with, mut without] = [with, without].map(Bench::new);
        for event in &events {
            happen(&mut with, event);
            happen(&mut without, event);
            for prefix in without.to("edge1") {
                prop_assert!(with.to("edge1").contains(&prefix), "{} {}", prefix, with.show());
            }
        }
    }

    /// A restart in the middle changes nothing, neither at once nor later.
    #[test]
    fn a_restart_goes_on_identically(
        before in prop::collection::vec(events(), 1..30),
        after in prop::collection::vec(events(), 1..15),
    ) {
        let mut bench = Bench::new(world());
        // What is not known holds up a start, and only that.
        let known = |it: &&Event| {
            !matches!(it, Event::Verdicts(_) | Event::Attached(_) | Event::Probe(..))
        };
        for event in before.iter().filter(known) {
            happen(&mut bench, event);
        }
        // Changes that wait for the interval do not wait for a new start.
        bench.pass(1_000);
        let mut other = Bench::new(bench.desired.clone());
        let saved = serde_json::to_value(bench.announcer.saved()).unwrap();
        let saved = serde_json::from_value(saved).unwrap();
        (other.facts, other.now) = (bench.facts.clone(), bench.now);
        other.announcer = Announcer::new(&bench.desired, Some(saved), ms(bench.now));
        other.settle();
        prop_assert!(other.last.as_ref().unwrap().ready);
        prop_assert_eq!(out(&other), out(&bench));
        for event in after.iter().filter(known) {
            happen(&mut bench, event);
            happen(&mut other, event);
            bench.pass(1_000);
            other.pass(1_000);
            prop_assert_eq!(out(&other), out(&bench));
            prop_assert_eq!(other.announcer.alarms(), bench.announcer.alarms());
        }
    }

    /// Two that see each other, however late, and lose a prefix at about the same time: in the end
    /// one of them has it, always the same one.
    #[test]
    fn of_two_that_see_each_other_one_stays(
        names in prop::array::uniform2("[a-z]{1,8}"),
        late in prop::array::uniform2(1..400_u64),
        after in 0..1_000_u64,
    ) {
        prop_assume!(names[0] != names[1]);
        let mut benches = names.map(|name| {
            let mut desired = desired(&PREFIXES[3..], &VIPS[2..3]);
            desired.node.name = name;
            Bench::new(desired)
        });
        let start = benches[0].now;
        // What happens to whom, by time: the loss, or another sight of the other one.
        let mut coming = BTreeMap::from([((start, 0, 0), None), ((start + after, 1, 0), None)]);
        benches.iter_mut().for_each(|it| it.see(PREFIXES[3], others()));
        let (mut out, mut since) = ([true; 2], start);
        loop {
            let due = benches.iter().filter_map(|it| it.announcer.deadline());
            let due = due.map(|due| due.as_millis().try_into().unwrap());
            let next = coming.keys().map(|(time, ..)| *time).chain(due).min();
            let Some(now) = next.filter(|next| *next < start + 600_000) else { break };
            while let Some(entry) = coming.first_entry().filter(|it| it.key().0 <= now) {
                let (_, who, _) = *entry.key();
                match entry.remove() {
                    None => benches[who].set_up("vip1", 0),
                    Some(true) => benches[who].see(PREFIXES[3], others()),
                    Some(false) => benches[who].see(PREFIXES[3], Seen::Nobody),
                }
            }
            for (who, bench) in benches.iter_mut().enumerate() {
                bench.now = now;
                bench.settle();
                let is_out = !bench.to("edge1").is_empty();
                if is_out != out[who] {
                    (out[who], since) = (is_out, now);
                    coming.insert((now + late[who], 1 - who, now), Some(is_out));
                }
            }
        }
        prop_assert_eq!(out.iter().filter(|is| **is).count(), 1, "{:?}", out);
        prop_assert!(since < start + 60_000, "at rest only after {} ms", since - start);
    }
}
