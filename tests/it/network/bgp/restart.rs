//! lbd goes away: killed, frozen or stopped, with graceful restart and without.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lb_tests::lab::addresses::{Family, balancer};
use lb_tests::lab::bgp::Routers;
use lb_tests::lab::router::{Route, Router};
use lb_tests::lab::wait;

use super::{DEADLINE, VIPS, World, until_peers, until_routes};

/// Between two looks at a router's table.
const GLANCE: Duration = Duration::from_millis(2);
/// A watch with fewer looks than this at a table has watched nothing.
const FEWEST_LOOKS: usize = 20;
/// The shutdown communication (RFC 9003) that all three log.
const GOODBYE: &str = "lbd is stopping";

/// How often a table was looked at, and how often there was no route, or no answer.
#[derive(Debug, Default)]
struct Watch {
    looks: usize,
    gaps: usize,
}

/// Looks at the routes to the VIPs in a router's table until it is done.
fn watch(router: &dyn Router, done: &AtomicBool) -> [Watch; 2] {
    let mut watches = [Watch::default(), Watch::default()];
    while !done.load(Ordering::Relaxed) {
        for (prefix, watch) in VIPS.into_iter().zip(&mut watches) {
            watch.looks += 1;
            watch.gaps += usize::from(!router.routes(prefix).is_ok_and(|it| it.len() == 1));
        }
        std::thread::park_timeout(GLANCE);
    }
    watches
}

/// No router is without a route to a VIP, of either family, at any moment while `work` is done.
fn assert_no_gap(routers: &Routers, what: &str, work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    let watches = std::thread::scope(|scope| {
        let watches = routers.all().map(|router| {
            let done = &done;
            scope.spawn(move || (router.name(), watch(router, done)))
        });
        // Also when the work fails the other threads are to end.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
        watches.map(|it| it.join().unwrap())
    });
    for (name, watches) in watches {
        let whole = watches.iter().all(|it| it.gaps == 0 && it.looks >= FEWEST_LOOKS);
        assert!(whole, "{what}: {name}: {watches:?}");
    }
}

#[test]
fn graceful_restart_leaves_no_gap() {
    let mut world = World::new("graceful_restart = \"60s\"\non_shutdown = \"keep\"\n", "");
    world.until_announced();
    let World { lab, routers } = &mut world;
    for how in ["kill -9", "SIGTERM"] {
        assert_no_gap(routers, how, || {
            let balancer = lab.balancers.get_mut(&1).unwrap();
            if how == "SIGTERM" { balancer.stop_lbd() } else { balancer.kill_lbd() }.unwrap();
            routers.all().into_iter().for_each(|router| until_kept(router));
            balancer.start().unwrap();
            for router in routers.all() {
                let what = "they are taken up again";
                until_peers(lab, router, what, |it| it.values().all(|it| it.established));
                for prefix in VIPS {
                    let again = |it: &[Route]| matches!(it, [route] if !route.stale);
                    until_routes(lab, router, prefix, what, again);
                }
            }
            super::until_each(lab, "all is said", |it| it["settled"] == true);
        });
    }
}

/// Waits until a router has no session, and keeps the routes; without a word to lbd, which is gone.
#[track_caller]
fn until_kept(router: &dyn Router) {
    let what = format!("{} keeps the routes of one who is away", router.name());
    let is_bird = router.name().contains("bird");
    wait::until(&what, DEADLINE, || {
        let away = router.peers()?.values().all(|peer| !peer.established);
        let mut kept = true;
        for prefix in VIPS {
            kept &= matches!(&router.routes(prefix)?[..], [route] if route.stale || is_bird);
        }
        Ok(away && kept)
    })
    .unwrap();
}

/// Waits until a router has none of the routes; without a word to lbd.
#[track_caller]
fn until_gone(router: &dyn Router, what: &str, deadline: Duration) {
    for prefix in VIPS {
        let what = format!("{}: {prefix}: {what}", router.name());
        wait::until(&what, deadline, || Ok(router.routes(prefix)?.is_empty())).unwrap();
    }
}

#[test]
fn without_it_routes_go_with_lbd_and_in_order_when_it_is_told_to_end() {
    let lines = "linger = \"2s\"\n[bgp.lower]\ntime = \"2s\"\ncommunities = [\"65010:99\"]\n";
    let mut world = World::new(lines, "hold_time = \"3s\"\n");
    world.until_announced();
    // It is there, and silent.
    world.lab.balancers[&1].freeze_lbd().unwrap();
    for router in world.all() {
        until_gone(router, "the routes go within the hold time", Duration::from_secs(8));
    }
    world.lab.balancers[&1].resume_lbd().unwrap();
    world.until_announced();

    // It is not there.
    world.lab.balancers.get_mut(&1).unwrap().kill_lbd().unwrap();
    for router in world.all() {
        until_gone(router, "the routes go with their connection", Duration::from_secs(2));
    }
    world.lab.balancers.get_mut(&1).unwrap().start().unwrap();
    world.until_announced();

    // It is told to end.
    let World { lab, routers } = &mut world;
    let first = lab.balancers.get_mut(&1).unwrap();
    std::thread::scope(|scope| {
        let orders = routers.all().map(|router| {
            Family::BOTH.map(|family| scope.spawn(move || goes_in_order(router, family)))
        });
        first.stop_lbd().unwrap();
        orders.into_iter().flatten().for_each(|it| it.join().unwrap());
    });
    for router in routers.all() {
        let log = router.log().unwrap();
        assert!(log.contains(GOODBYE), "{}: no word of why: {log}", router.name());
    }
}

/// The route is lowered, then withdrawn, and then the session ends.
fn goes_in_order(router: &dyn Router, family: Family) {
    let prefix = VIPS[usize::from(family == Family::V6)];
    let name = router.name();
    let mut last = Vec::new();
    wait::until("lowered first", DEADLINE, || {
        last = router.routes(prefix)?;
        let lowered = |route: &Route| {
            route.communities.contains("65535:0") && route.communities.contains("65010:99")
        };
        Ok(last.iter().any(lowered))
    })
    .unwrap_or_else(|error| panic!("{name}: {prefix}: {error}: {last:?}"));
    until_gone(router, "then withdrawn", DEADLINE);
    let established = router.peers().unwrap()[&balancer(family, 1)].established;
    assert!(established, "{name}: {prefix}: the session ends after the routes, not with them");
}
