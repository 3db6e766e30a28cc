//! BGP: what the load balancers announce, as real routers print it.

mod routers;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lb_tests::lab::router::{Peer, Route, Router};
use lb_tests::lab::wait;

/// Longest wait for a session or a route: hold time, and a few attempts to connect.
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until a router's paths to a prefix meet a condition.
#[track_caller]
fn until_routes(router: &dyn Router, prefix: &str, what: &str, met: impl Fn(&[Route]) -> bool) {
    let mut last = Vec::new();
    let result = wait::until(what, DEADLINE, || {
        last = router.routes(prefix)?;
        Ok(met(&last))
    });
    assert!(result.is_ok(), "{}: {prefix}: {result:?}: {last:#?}", router.name());
}

/// Waits until a router's sessions meet a condition.
#[track_caller]
fn until_peers(router: &dyn Router, what: &str, met: impl Fn(&BTreeMap<IpAddr, Peer>) -> bool) {
    let mut last = BTreeMap::new();
    let result = wait::until(what, DEADLINE, || {
        last = router.peers()?;
        Ok(met(&last))
    });
    assert!(result.is_ok(), "{}: {result:?}: {last:#?}", router.name());
}
