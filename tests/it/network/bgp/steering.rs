//! Steering on two sites: A behind BIRD, B behind FRR, both announce the same prefix.
//!
//! Whose route each of the two routers takes is where its users go. BIRD's AS is one that may be
//! poisoned, which those for private use and for documentation may not; it is of nobody.

use lb_tests::lab::addresses::{Family, balancer};
use lb_tests::lab::bgp::{self, OWN_AS, peer_address};
use lb_tests::lab::config::Pool;
use lb_tests::lab::router::{Bird, Frr, Router};
use lb_tests::lab::{Lab, Plan, wait};

use super::super::small;
use super::{DEADLINE, steer, told, unsteer};

/// The prefix of both sites, what covers it, and what is a part of it.
const PREFIX: &str = "203.0.112.0/23";
const COVERING: &str = "203.0.112.0/22";
const PART: &str = "203.0.113.0/24";
/// BIRD's.
const TARGET_AS: u32 = 1_000_000;
const FRR_AS: u32 = bgp::PEER_AS[1];

/// The two sites. Each tags its routes, so that they are told apart wherever they are seen.
struct Sites {
    bird: Bird,
    frr: Frr,
    lab: Lab,
}

/// Which site a router's users reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Site {
    A,
    B,
    Nowhere,
}
use Site::{A, B, Nowhere};

impl Sites {
    fn start() -> Self {
        let mut lab = Lab::new(Plan { balancers: 2, ..small(Pool::web(1)) }).unwrap();
        for number in [1, 2] {
            lab.balancer(number).unwrap().bgp = site(number, 2);
        }
        let hosts = [lab.add_router(1).unwrap(), lab.add_router(2).unwrap()];
        let bird = Bird::start(lab.directory(), &hosts[0], &bird()).unwrap();
        let frr = Frr::start(&hosts[1], &frr()).unwrap();
        lab.start().unwrap();
        Self { bird, frr, lab }
    }

    /// Which site a router has chosen for a prefix.
    fn of(router: &dyn Router, prefix: &str) -> anyhow::Result<Site> {
        let Some(route) = router.best(prefix)? else { return Ok(Nowhere) };
        let is = |number: u8| route.large_communities.contains(&format!("{OWN_AS}:{number}:0"));
        anyhow::ensure!(is(1) != is(2), "no site: {route:?}");
        Ok(if is(1) { A } else { B })
    }

    /// Waits until users behind BIRD and those behind FRR reach these sites.
    #[track_caller]
    fn expect(&self, prefix: &str, what: &str, behind_bird: Site, behind_frr: Site) {
        let mut last = (Nowhere, Nowhere);
        let result = wait::until(what, DEADLINE, || {
            last = (Self::of(&self.bird, prefix)?, Self::of(&self.frr, prefix)?);
            Ok(last == (behind_bird, behind_frr))
        });
        if let Err(error) = result {
            let routes = (self.bird.routes(prefix), self.frr.routes(prefix));
            panic!("{error:#}: {last:?} {routes:#?}\n{}", told(&self.lab));
        }
    }

    /// Has both sites prepend so often by their configuration.
    fn set_baseline(&mut self, prepend: u8) {
        let pools = self.lab.plan.pools.clone();
        for number in [1, 2] {
            let balancer = self.lab.balancer(number).unwrap();
            balancer.bgp = site(number, prepend);
            balancer.apply(&pools).unwrap();
        }
        let path = vec![OWN_AS; usize::from(prepend) + 1];
        for router in [&self.bird as &dyn Router, &self.frr] {
            super::until_routes(&self.lab, router, PREFIX, "the baseline is there", |routes| {
                routes.iter().any(|route| route.best && route.as_path == path)
            });
        }
        self.expect(PREFIX, "both plain", A, B);
    }

    /// Ends all steering, and waits until it shows.
    #[track_caller]
    fn undo(&self) {
        unsteer(&self.lab);
        self.expect(PREFIX, "as before", A, B);
    }
}

/// What the load balancer of a site has about BGP.
fn site(number: u8, prepend: u8) -> String {
    let (remote_as, poison) = match number {
        1 => (TARGET_AS, String::new()),
        _ => (FRR_AS, format!("poison_allowed = [{TARGET_AS}]\n")),
    };
    let tag = format!("prepend = {prepend}\nlarge_communities = [\"{OWN_AS}:{number}:0\"]\n");
    let peer = bgp::peer("edge", peer_address(Family::V4, number), remote_as, &poison);
    let guards = "[bgp.guards]\ninterval = \"0s\"\n";
    let prefixes = [PREFIX, COVERING].map(|it| format!("[[bgp.prefix]]\nprefix = \"{it}\"\n"));
    bgp::speaker(&tag) + &peer + guards + &prefixes.concat()
}

fn bird() -> String {
    let site = (balancer(Family::V4, 1), OWN_AS);
    let other = (peer_address(Family::V4, 2), FRR_AS);
    let export = "export where source = RTS_BGP;";
    [
        bgp::bird_head(peer_address(Family::V4, 1)),
        bgp::bird_session("site", TARGET_AS, site, "", ""),
        bgp::bird_session("frr", TARGET_AS, other, "", export),
    ]
    .concat()
}

fn frr() -> String {
    let site = balancer(Family::V4, 2);
    let other = peer_address(Family::V4, 1);
    let mut text = format!("router bgp {FRR_AS}\n no bgp ebgp-requires-policy\n timers bgp 3 9\n");
    for (address, remote_as) in [(site, OWN_AS), (other, TARGET_AS)] {
        for line in [&*format!("remote-as {remote_as}"), "timers connect 1"] {
            text.push_str(&format!(" neighbor {address} {line}\n"));
        }
        text.push_str(&format!(" neighbor {address} advertisement-interval 0\n"));
    }
    text
}

#[test]
fn each_action_moves_whom_it_should_and_undoes_itself() {
    let mut sites = Sites::start();
    let lab = &sites.lab;
    sites.expect(PREFIX, "both plain", A, B);

    steer(lab, 1, &[PREFIX, "--prepend", "1"]);
    // A tie for BIRD would be two longer; one is still the shorter way.
    sites.expect(PREFIX, "A prepends 1", A, B);
    unsteer(lab);
    steer(lab, 1, &[PREFIX, "--prepend", "3"]);
    sites.expect(PREFIX, "A prepends 3", B, B);
    sites.undo();

    steer(lab, 1, &[PREFIX, "--graceful-shutdown"]);
    let lowered = |router: &dyn Router| {
        let what = "65535:0 is there";
        super::until_routes(lab, router, PREFIX, what, |routes| {
            routes.iter().any(|route| route.communities.contains("65535:0"))
        });
    };
    lowered(&sites.bird);
    sites.expect(PREFIX, "BIRD without a filter ignores graceful shutdown", A, B);
    unsteer(lab);
    steer(lab, 2, &[PREFIX, "--graceful-shutdown"]);
    sites.expect(PREFIX, "FRR lowers its preference by itself", A, A);
    sites.undo();

    steer(lab, 2, &[PREFIX, "--community", "no-export"]);
    sites.expect(PREFIX, "B is not exported", A, B);
    steer(lab, 1, &[PREFIX, "--withdraw"]);
    sites.expect(PREFIX, "and A withdrawn", Nowhere, B);
    sites.undo();

    steer(lab, 2, &[PREFIX, "--more-specific", PART]);
    sites.expect(PART, "B announces a part", B, B);
    sites.expect(PREFIX, "and the whole as before", A, B);
    unsteer(lab);
    sites.expect(PART, "the part is gone", Nowhere, Nowhere);

    steer(lab, 1, &[PREFIX, "--med", "100"]);
    super::until_routes(lab, &sites.bird, PREFIX, "the MED is there", |routes| {
        routes.iter().any(|route| route.med == Some(100))
    });
    sites.expect(PREFIX, "MED is compared within one neighbouring AS only", A, B);
    sites.undo();

    // By itself.
    lab.balancers[&1].lbctl(&["bgp", "steer", PREFIX, "--withdraw", "--for", "2s"]).unwrap();
    sites.expect(PREFIX, "A withdrawn for two seconds", B, B);
    sites.expect(PREFIX, "it undoes itself", A, B);
    poisoning(&mut sites);
}

/// The rows with a poisoned path: only the target moves, what covers the prefix still leads there,
/// and without prepending by configuration, which would make it move others, there is none.
fn poisoning(sites: &mut Sites) {
    let lab = &sites.lab;
    let plain = sites.frr.best(PREFIX).unwrap().unwrap().as_path;
    steer(lab, 2, &[PREFIX, "--poison", "1000000"]);
    sites.until_poisoned(&plain);
    sites.expect(PREFIX, "B poisons the target, whose users A has anyway", A, B);
    steer(lab, 1, &[PREFIX, "--withdraw"]);
    sites.expect(PREFIX, "and A withdrawn: the target has no route", Nowhere, B);
    sites.expect(COVERING, "but what covers it, of A", A, B);
    steer(lab, 1, &[COVERING, "--withdraw"]);
    sites.expect(COVERING, "or of B", B, B);
    sites.undo();
    // The other way round: who came to B goes away, and nobody else.
    let lab = &sites.lab;
    steer(lab, 1, &[PREFIX, "--prepend", "3"]);
    sites.expect(PREFIX, "BIRD's users come to B", B, B);
    steer(lab, 2, &[PREFIX, "--poison", "1000000"]);
    sites.expect(PREFIX, "only the target moved", A, B);
    sites.undo();

    // A direct peer would drop the route without a word, which is what withdrawing is for.
    sites.refuse_poison(1, "AS 1000000 may not poison a path: peer edge is in it, withdraw");
    sites.set_baseline(0);
    sites.refuse_poison(2, "the path to edge must already be 3 own ASNs long");
    sites.expect(PREFIX, "and nobody moved", A, B);
    // What it is refused for: a path that is two longer moves those who are nobody's target.
    steer(&sites.lab, 2, &[PREFIX, "--prepend", "2"]);
    sites.expect(PREFIX, "as long as B's poisoned path would be", A, A);
    sites.undo();
}

impl Sites {
    /// Waits until the path of B at FRR has the target in it, and is as long as it was.
    #[track_caller]
    fn until_poisoned(&self, plain: &[u32]) {
        let mut path = plain.to_vec();
        path[plain.len() - 2] = TARGET_AS;
        super::until_routes(&self.lab, &self.frr, PREFIX, "poisoned, and as long", |routes| {
            routes.iter().any(|route| route.best && route.as_path == path)
        });
    }

    /// Orders a site to poison the target, which it refuses.
    #[track_caller]
    fn refuse_poison(&self, number: u8, why: &str) {
        let order = ["bgp", "steer", PREFIX, "--for", "1m", "--poison", "1000000"];
        let refused = self.lab.balancers[&number].ask(&order).unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(why), "lb{number}: {said}");
    }
}
