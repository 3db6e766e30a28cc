//! The demo: a small network with real traffic, taken apart act by act, and every flow counted.
//!
//! ```text
//! world (lab + flows) -> act: begin, disturb, settle, count -> table row, report.json
//! ```

mod acts;
mod announcements;
mod report;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::flows::ledger::Tally;
use crate::flows::{Flows, Mix, paths};
use crate::lab::balancer::Status;
use crate::lab::config::Pool;
use crate::lab::{Lab, Plan, programs, wait};
use report::{Act, Report};

/// After what an act does, new flows come for so long before it is counted.
const AFTERMATH: Duration = Duration::from_secs(3);
/// Longest wait for a planned change to be over: prepare, window, and the idle timeout of the lab.
const CHANGE_DEADLINE: Duration = Duration::from_secs(60);

/// The lab, its traffic, and what has been counted so far.
struct World<'a> {
    lab: Lab,
    flows: Flows,
    pools: Vec<Pool>,
    /// Where flows went in the middle of the act.
    halfway: Vec<paths::Paths>,
    report: Report,
    out: &'a mut dyn Write,
}

/// What an act says when it is over.
struct Outcome {
    /// The backends that died in it.
    dead: BTreeSet<String>,
    /// What was seen, in a few words.
    comment: String,
}

impl Outcome {
    fn new(comment: impl Into<String>) -> Self {
        Self { dead: BTreeSet::new(), comment: comment.into() }
    }
}

/// Plays all acts, writes the table to `out` and the report below `target/demo/latest`. True if no
/// flow broke while its backend lived. With `hold` the world stays until a signal ends the process.
///
/// # Errors
/// The world cannot be made, or an act does not come about; the report then has the acts before.
pub fn run(out: &mut dyn Write, hold: bool) -> Result<bool> {
    let path = report_path()?;
    // One that is there afterwards is of this run.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut world = World::open(out)?;
    let played = world.play_all();
    world.report.write(&path)?;
    played?;
    world.close(&path)?;
    let kept = world.report.broken_total == 0;
    if hold {
        world.hold()?;
    }
    Ok(kept)
}

fn report_path() -> Result<PathBuf> {
    let directory = programs::target()?.join("demo/latest");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory.join("report.json"))
}

impl<'a> World<'a> {
    /// Starts everything; returns when every flow has been answered.
    fn open(out: &'a mut dyn Write) -> Result<Self> {
        // web4 is there, but in no pool before its act.
        let pools = vec![Pool::web(3), announcements::side_pool()];
        writeln!(out, "world")?;
        let bgp = announcements::with_bfd();
        let plan = Plan { prefix: "lbdemo", webs: 5, pools: pools.clone(), bgp, ..Plan::default() };
        let lab = announcements::start(plan).context("cannot start the world")?;
        writeln!(
            out,
            "  namespaces       {0}-client, -router, -lb1, -lb2, -web1 to -web5",
            lab.name()
        )?;
        let vips: Vec<String> = lab.vips().iter().map(ToString::to_string).collect();
        writeln!(out, "  load balancers   2, announced by BGP with BFD")?;
        writeln!(out, "  router           BIRD, ECMP on addresses and ports")?;
        writeln!(out, "  VIPs             {}: TCP 80 (nginx), UDP 7 (echo)", vips.join(", "))?;
        writeln!(out, "  logs             {}", lab.directory().display())?;
        let mix = Mix::DEMO;
        let flows = Flows::start(&lab, mix).context("the VIPs do not answer")?;
        writeln!(
            out,
            "  flows            {} TCP and {} UDP open and answering, {} new per second",
            mix.tcp, mix.udp, mix.short_per_second
        )?;
        Ok(Self { lab, flows, pools, halfway: Vec::new(), report: Report::default(), out })
    }

    fn play_all(&mut self) -> Result<()> {
        writeln!(self.out, "\n{}", report::heading())?;
        // Losing a load balancer comes before the planned changes: as long as the balancers do not
        // tell each other of their flows, it is safe only while no slot is contested, and after a
        // change that lasts as long as the flows do.
        self.play("calm", acts::calm)?;
        self.play("take lb1 away", acts::take_balancer)?;
        self.play("bring lb1 back", acts::return_balancer)?;
        self.play("drain node lb1, undrain it", announcements::drain_node)?;
        self.play("kill lb1, let it return", announcements::kill_balancer)?;
        self.play("kill all of VIP side, revive", announcements::kill_side)?;
        self.play("drain web3", acts::drain)?;
        self.play("add web4", acts::add)?;
        self.play("weight of web1 100 -> 300", acts::weigh)?;
        self.play("kill -9 lbd on lb1, restart it", acts::kill_lbd)?;
        self.play("kill web2, let it return", acts::kill_web)
    }

    /// One act: count from zero, do it, let every flow answer or end, count.
    fn play(&mut self, name: &str, work: fn(&mut Self) -> Result<Outcome>) -> Result<()> {
        self.flows.ledger().begin();
        let before = paths::of_flows(&self.lab, &self.flows)?;
        let outcome = work(self).with_context(|| format!("act `{name}`"))?;
        self.observe(AFTERMATH)?;
        self.flows.settle()?;
        let mut later = std::mem::take(&mut self.halfway);
        later.push(paths::of_flows(&self.lab, &self.flows)?);
        let tally = self.flows.ledger().tally(&outcome.dead);
        let act = Act {
            name: name.to_owned(),
            flows: tally.flows,
            moved: paths::moved(&before, &later),
            ended_with_backend: tally.ended_with_backend,
            broken: tally.broken,
        };
        let number = self.report.acts.len() + 1;
        writeln!(self.out, "{}", report::row(number, &act, &comment(outcome.comment, &tally)))?;
        for reason in &tally.reasons {
            writeln!(self.out, "      broken: {reason}")?;
        }
        self.report.push(act);
        Ok(())
    }

    fn close(&mut self, path: &std::path::Path) -> Result<()> {
        writeln!(self.out, "{}", report::total(&self.report))?;
        if self.report.broken_total == 0 {
            writeln!(self.out, "\npromise kept: no flow broke while its backend lived.")?;
        } else {
            writeln!(
                self.out,
                "\npromise broken: the flows above failed though their backend lived."
            )?;
        }
        writeln!(self.out, "report: {}", path.display())?;
        Ok(())
    }

    /// Keeps the world until a signal ends the process, which removes it.
    fn hold(&mut self) -> Result<()> {
        let name = self.lab.name();
        writeln!(self.out, "\nthe world stays until Ctrl-C. Look around:")?;
        let lbctl = programs::find("lbctl")?;
        for balancer in self.lab.balancers.values() {
            let socket = balancer.socket();
            writeln!(self.out, "  {} --socket {} status", lbctl.display(), socket.display())?;
        }
        let vip = self.lab.vips().first().map(ToString::to_string).unwrap_or_default();
        writeln!(self.out, "  ip netns exec {name}-client curl -i http://{vip}/")?;
        writeln!(self.out, "  ip -n {name}-router route show {vip}")?;
        let bird = self.lab.directory().join("bird-router/ctl");
        writeln!(self.out, "  birdc -s {} show route {vip}/32 all", bird.display())?;
        writeln!(self.out, "  ip -n {name}-lb1 -s link show eth0")?;
        self.out.flush()?;
        loop {
            std::thread::park();
        }
    }

    /// Notes where flows go in the middle of an act that ends where it began.
    fn note_halfway(&mut self) -> Result<()> {
        self.flows.settle()?;
        self.halfway.push(paths::of_flows(&self.lab, &self.flows)?);
        Ok(())
    }

    /// Lets time pass; fails as soon as an lbd has ended by itself.
    fn observe(&mut self, duration: Duration) -> Result<()> {
        let balancers = &mut self.lab.balancers;
        wait::observe(duration, || {
            balancers.values_mut().try_for_each(super::lab::balancer::Balancer::check_alive)
        })
    }

    /// Waits until what every load balancer says of itself meets a condition.
    fn until(&mut self, what: &str, met: impl Fn(&Status) -> bool) -> Result<()> {
        let balancers = &mut self.lab.balancers;
        let mut last = Vec::new();
        let result = wait::until(what, CHANGE_DEADLINE, || {
            last.clear();
            for balancer in balancers.values_mut() {
                balancer.check_alive()?;
                last.push(balancer.status()?);
            }
            Ok(last.iter().all(&met))
        });
        result.with_context(|| format!("lbd says: {last:?}"))
    }
}

fn comment(comment: String, tally: &Tally) -> String {
    match tally.unanswered {
        0 => comment,
        // No flows yet, so no column has them; but nobody should miss them.
        unanswered => format!("{comment}; {unanswered} new ones unanswered"),
    }
}
