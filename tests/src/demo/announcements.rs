//! The acts about announcements: what the router learns by BGP when load balancers and VIPs go.
//!
//! BFD and graceful restart want opposite things of a dead lbd: the one takes its routes at once,
//! the other keeps them. So lb1 has BFD until it is killed, and graceful restart afterwards.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::Instant;

use super::{CHANGE_DEADLINE, Outcome, World};
use crate::lab::addresses::{self, Family};
use crate::lab::bgp;
use crate::lab::config::{Backend, Pool};
use crate::lab::router::Router as _;
use crate::lab::{Lab, Plan, wait};

/// The only backend of VIP `side`.
pub(super) const SIDE_WEB: &str = "web5";
const SIDE_WEB_NUMBER: u8 = 5;
const SIDE_VIP: u8 = 1;
/// BIRD's half of BFD.
const BFD: &str = "protocol bfd { interface \"br0\" { interval 50 ms; multiplier 3; }; }\n";
/// What BIRD says of a session that BFD took down.
const LOST_BY_BFD: &str = "BFD session down";
/// After that long without a word a session is dead without BFD.
const HOLD_TIME: Duration = Duration::from_secs(9);
/// What is withdrawn because of health comes back soon. Of VIP `side` the IPv6 address goes with
/// its backends, the IPv4 address stays, as nobody else is known to announce it.
const SETTINGS: &str = r#"
[bgp.guards]
backoff = "1s"

[[bgp.prefix]]
prefix = "2001:db8:53::11/128"
last_announcer = "withdraw"
"#;

/// A pool with one backend, and with it VIP `side`.
pub(super) fn side_pool() -> Pool {
    let web5 = Backend { web: SIDE_WEB_NUMBER, family: Family::V4, weight: 100, drained: false };
    Pool { name: "side".to_owned(), vip: SIDE_VIP, backends: vec![web5], ..Pool::web(1) }
}

/// The load balancers' part about BGP: a dead one is missed after 150 ms.
pub(super) fn with_bfd() -> String {
    let sessions = bgp::uplink_sessions("bfd = { interval = \"50ms\", multiplier = 3 }\n");
    bgp::speaker("") + &sessions + SETTINGS
}

/// The same with graceful restart instead of BFD: while lbd is away its routes stay.
fn with_graceful_restart() -> String {
    bgp::speaker("graceful_restart = \"2m\"\n") + &bgp::uplink_sessions("") + SETTINGS
}

/// The lab, its router's routes learned by BGP.
pub(super) fn start(plan: Plan) -> Result<Lab> {
    let mut lab = Lab::new(plan)?;
    lab.learn_routes(BFD, "bfd on;")?;
    lab.start()?;
    lab.until_routed(&lab.vips(), &[1, 2], CHANGE_DEADLINE)?;
    Ok(lab)
}

pub(super) fn drain_node(world: &mut World<'_>) -> Result<Outcome> {
    world.no_slot_contested()?;
    let start = Instant::now();
    world.lab.balancer(1)?.lbctl(&["node", "drain"])?;
    world.until_routed(&[2])?;
    let gone = start.elapsed().as_secs_f32();
    world.note_halfway()?;
    world.lab.balancer(1)?.lbctl(&["node", "undrain"])?;
    world.until_routed(&[1, 2])?;
    Ok(Outcome::new(format!("lowered, withdrawn after {gone:.1} s, announced again")))
}

/// Without a word: lbd and the program are gone, and its link stays up.
pub(super) fn kill_balancer(world: &mut World<'_>) -> Result<Outcome> {
    world.no_slot_contested()?;
    world.bfd_is_up()?;
    let start = Instant::now();
    world.lab.balancer(1)?.fall_silent()?;
    world.until_routed(&[2])?;
    let gone = start.elapsed();
    world.bfd_noticed(gone)?;
    world.note_halfway()?;
    world.lab.remove_balancer(1)?;
    world.add_first_balancer(with_graceful_restart())?;
    let gone = gone.as_millis();
    Ok(Outcome::new(format!("BFD noticed, its routes were gone after {gone} ms; back")))
}

/// The last backend of a VIP dies: the setting says whether its route does.
pub(super) fn kill_side(world: &mut World<'_>) -> Result<Outcome> {
    let [kept, withdrawn] = Family::BOTH.map(|family| addresses::vip(family, SIDE_VIP));
    let start = Instant::now();
    world.lab.web(SIDE_WEB_NUMBER)?.kill()?;
    let others = others(&world.lab, withdrawn);
    let lab = &world.lab;
    lab.until_routed(&[withdrawn], &[], CHANGE_DEADLINE)?;
    let gone = start.elapsed().as_secs_f32();
    lab.until_routed(&others, &[1, 2], CHANGE_DEADLINE)?;
    let flows = &world.flows;
    wait::until("the flows of web5 have ended", CHANGE_DEADLINE, || {
        Ok(!flows.ledger().alive().any(|(_, flow)| flow.backend == SIDE_WEB))
    })?;
    world.lab.revive_web(SIDE_WEB_NUMBER)?;
    world.until_routed(&[1, 2])?;
    world.new_flow_on(SIDE_WEB)?;
    Ok(Outcome {
        dead: [SIDE_WEB.to_owned()].into(),
        comment: format!("{withdrawn} withdrawn after {gone:.1} s, {kept} kept; back"),
    })
}

/// All VIPs but one.
fn others(lab: &Lab, but: IpAddr) -> Vec<IpAddr> {
    lab.vips().into_iter().filter(|vip| *vip != but).collect()
}

impl World<'_> {
    /// Waits until the router sends all VIPs to exactly these load balancers.
    pub(super) fn until_routed(&self, numbers: &[u8]) -> Result<()> {
        self.lab.until_routed(&self.lab.vips(), numbers, CHANGE_DEADLINE)
    }

    /// Starts lb1 on a new host, with this part about BGP.
    pub(super) fn add_first_balancer(&mut self, bgp: String) -> Result<()> {
        self.lab.add_balancer(1)?;
        let balancer = self.lab.balancer(1)?;
        balancer.bgp = bgp;
        balancer.configure(&self.pools)?;
        balancer.start()?;
        self.no_slot_contested()?;
        self.until_routed(&[1, 2])
    }

    /// Fails if BIRD lost lb1, after this time, in another way than by BFD.
    fn bfd_noticed(&self, gone: Duration) -> Result<()> {
        let bird = self.lab.uplink.as_ref().context("the router has no BIRD")?;
        let peers = bird.peers()?;
        for family in Family::BOTH {
            let lb1 = addresses::balancer(family, 1);
            let peer =
                peers.get(&lb1).with_context(|| format!("BIRD has no session with {lb1}"))?;
            ensure!(
                peer.info.contains(LOST_BY_BFD),
                "it was not BFD that noticed lb1's death: BIRD says `{}` of {lb1}",
                peer.info
            );
        }
        ensure!(
            gone < HOLD_TIME / 3,
            "BFD noticed lb1's death, and its routes were gone after {} ms only",
            gone.as_millis()
        );
        Ok(())
    }

    /// A session is noticed to be dead by BFD only if that was up.
    fn bfd_is_up(&self) -> Result<()> {
        let Some(bird) = &self.lab.uplink else { return Ok(()) };
        wait::until("BFD is up with both load balancers", Duration::from_secs(20), || {
            let lines = bird.ask("show bfd sessions")?;
            Ok(lines.iter().filter(|line| line.contains(" Up ")).count() == 4)
        })
    }
}
