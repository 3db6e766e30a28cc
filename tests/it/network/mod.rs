//! The load balancer in the lab, with real TCP and UDP.

mod bgp;
mod changes;
mod errors;
mod failures;
mod icmp;
mod lbd;
mod reach;
mod starts;
mod without_balancer;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use lb_tests::flows::Flows;
use lb_tests::flows::ledger::Tally;
use lb_tests::lab::balancer::Status;
use lb_tests::lab::config::Pool;
use lb_tests::lab::{Lab, Plan, wait};

/// Longest wait for a planned change to be over.
const CHANGE_DEADLINE: Duration = Duration::from_secs(60);

/// One load balancer, as many backends as the pool has.
fn small(pool: Pool) -> Plan {
    let webs = pool.backends.iter().map(|backend| backend.web).max().unwrap();
    Plan { webs, balancers: 1, pools: vec![pool], ..Plan::default() }
}

/// Waits until what every load balancer says of itself meets a condition.
fn until(lab: &mut Lab, what: &str, met: impl Fn(&Status) -> bool) {
    let mut last = Vec::new();
    let result = wait::until(what, CHANGE_DEADLINE, || {
        last.clear();
        for balancer in lab.balancers.values_mut() {
            balancer.check_alive()?;
            last.push(balancer.status()?);
        }
        Ok(last.iter().all(&met))
    });
    assert!(result.is_ok(), "{result:?}: {last:?}");
}

fn is_quiet(status: &Status) -> bool {
    status.is_steady() && status.contested_slots() == 0
}

/// Lets every flow answer or end, then counts; `dead` are the backends that died.
fn tally(flows: &Flows, dead: &[&str]) -> Tally {
    flows.settle().unwrap();
    let dead: BTreeSet<String> = dead.iter().map(|name| (*name).to_owned()).collect();
    flows.ledger().tally(&dead)
}

/// No flow broke, none ended with a backend, and there were some.
fn assert_all_live(flows: &Flows) {
    let tally = tally(flows, &[]);
    assert!(tally.flows > 0);
    let counts = (tally.ended_with_backend, tally.broken, tally.unanswered);
    assert_eq!(counts, (0, 0, 0), "{:?}", tally.reasons);
}

/// Replaces text in the configuration file of lb1, where it must occur.
fn edit(lab: &Lab, from: &str, to: &str) {
    let path = lab.balancers[&1].configuration();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "no `{from}` in {text}");
    fs::write(&path, text.replace(from, to)).unwrap();
}

/// Runs lbd or lbctl, which must refuse (exit status 2), and returns what it says.
fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    text
}
