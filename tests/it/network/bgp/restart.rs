//! lbd goes away: killed, frozen or stopped, with graceful restart and without.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use lb_tests::lab::addresses::{Family, balancer};
use lb_tests::lab::router::{Bird, Route, Router as _};
use lb_tests::lab::wait;

use super::{VIPS, World, until_peer, until_peers, until_routes};

/// Between two looks at BIRD's table.
const GLANCE: Duration = Duration::from_millis(2);

/// How often BIRD had no route to the first VIP while `work` was done.
fn gaps(bird: &Bird, work: impl FnOnce()) -> u32 {
    let (done, gaps) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if bird.routes(VIPS[0]).is_ok_and(|routes| routes.is_empty()) {
                    gaps.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::park_timeout(GLANCE);
            }
        });
        // Also when the work fails the other thread is to end.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    gaps.into_inner()
}

#[test]
fn graceful_restart_leaves_no_gap() {
    let mut world = World::new("graceful_restart = \"60s\"\non_shutdown = \"keep\"\n", "");
    world.until_announced();
    let World { lab, routers } = &mut world;
    for how in ["kill -9", "SIGTERM"] {
        let gaps = gaps(&routers.bird, || {
            let balancer = lab.balancers.get_mut(&1).unwrap();
            if how == "SIGTERM" { balancer.stop_lbd() } else { balancer.kill_lbd() }.unwrap();
            until_kept(&routers.bird);
            // FRR keeps them as well.
            assert_eq!(routers.frr.routes(VIPS[0]).unwrap().len(), 1, "{how}");
            lab.balancers.get_mut(&1).unwrap().start().unwrap();
            for prefix in VIPS {
                for router in [&routers.bird as &dyn super::Router, &routers.frr] {
                    until_routes(
                        lab,
                        router,
                        prefix,
                        "taken up again",
                        |it| matches!(it, [route] if !route.stale),
                    );
                }
            }
            until_peer(lab, "bird4", "all is said", |it| it["settled"] == true);
        });
        assert_eq!(gaps, 0, "{how}");
    }
}

/// Waits until BIRD has no session, and the route; without a word to lbd, which is gone.
fn until_kept(bird: &Bird) {
    let lb1 = balancer(Family::V4, 1);
    wait::until("BIRD keeps the routes of one who is away", super::DEADLINE, || {
        Ok(!bird.peers()?[&lb1].established && bird.routes(VIPS[0])?.len() == 1)
    })
    .unwrap();
}

#[test]
fn without_it_routes_go_with_lbd_and_in_order_when_it_is_told_to_end() {
    let lines = "linger = \"1s\"\n[bgp.lower]\ntime = \"1s\"\ncommunities = [\"65010:99\"]\n";
    let mut world = World::new(lines, "hold_time = \"3s\"\n");
    world.until_announced();
    // It is there, and silent.
    world.lab.balancers[&1].freeze_lbd().unwrap();
    for router in world.all() {
        wait::until("the routes go within the hold time", Duration::from_secs(8), || {
            Ok(router.routes(VIPS[0])?.is_empty())
        })
        .unwrap();
    }
    world.lab.balancers[&1].resume_lbd().unwrap();
    world.until_announced();

    let World { lab, routers } = &mut world;
    let bird = &routers.bird;
    let first = lab.balancers.get_mut(&1).unwrap();
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| first.stop_lbd());
        wait::until("lowered first", super::DEADLINE, || {
            let lowered = |route: &Route| {
                route.communities.contains("65535:0") && route.communities.contains("65010:99")
            };
            Ok(bird.routes(VIPS[0])?.iter().any(lowered))
        })
        .unwrap();
        let lb1 = balancer(Family::V4, 1);
        let mut session = true;
        wait::until("then withdrawn", super::DEADLINE, || {
            let gone = bird.routes(VIPS[0])?.is_empty();
            session = bird.peers()?[&lb1].established;
            Ok(gone)
        })
        .unwrap();
        assert!(session, "the session ends after the routes, not with them");
        stopping.join().unwrap().unwrap();
    });
    let log = routers.bird.log().unwrap();
    assert!(log.contains("Administrative shutdown: \""), "no word of why: {log}");
}
