//! BGP: from a decision to the route in BIRD's table.
//!
//! ```text
//! command   start of `lbctl bgp steer`           -> the new MED in BIRD
//! verdict   a backend is down, by lbd's own log  -> the route is not in BIRD any more
//!           a backend is up, by lbd's own log    -> the route is in BIRD again
//! ```
//!
//! Each of them for every prefix that it is about, as many verdicts as commands. A load balancer
//! with many VIPs; half of them have one backend, that dies and comes back, the others another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lb_tests::lab::bgp;
use lb_tests::lab::config::Pool;
use lb_tests::lab::router::{Bird, Router as _};
use lb_tests::lab::{Lab, Plan, wait};
use lb_userspace::host::clock;
use serde_json::{Value, json};
use tokio::time::Instant;

/// Commands that are timed: one for each of two prefixes of a pool. As many verdicts are.
const COMMANDS: u8 = 100;
/// Between two looks at BIRD's table.
const STEP: Duration = Duration::from_millis(1);
/// So long a prefix stays away that health withdrew, whatever the verdict: not to be measured.
const BACKOFF: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The one backend of every second pool.
const MORTAL: u8 = 1;

/// Health may withdraw all, one after the other and at once.
const GUARDS: &str = r#"
[bgp.host_routes]
last_announcer = "withdraw"

[bgp.guards]
interval = "0s"
backoff = "1s"
breaker_max = 1_000
"#;

/// Median and 99th percentile, ms, of all decisions and of each kind, as they are in the report.
pub(crate) fn measure() -> Result<Value> {
    let bgp = bgp::speaker("") + &bgp::uplink_sessions("") + GUARDS;
    let pools: Vec<Pool> = (0..COMMANDS / 2).map(pool).collect();
    let mut lab = Lab::new(Plan { webs: 2, balancers: 1, pools, bgp, ..Plan::default() })?;
    lab.learn_routes("", "")?;
    lab.start()?;
    lab.until_routed(&lab.vips(), &[1], DEADLINE)?;
    let bird = lab.uplink.take().context("the lab has no BIRD")?;
    let commands = commands(&lab, &bird)?;
    let mut verdicts = verdicts(&mut lab, &bird, false)?;
    wait::observe(2 * BACKOFF, || Ok(()))?;
    verdicts.extend(self::verdicts(&mut lab, &bird, true)?);
    let all = percentiles([&commands[..], &verdicts].concat())?;
    let (command, verdict) = (percentiles(commands)?, percentiles(verdicts)?);
    for (kind, [p50, p99]) in [("command", command), ("verdict", verdict), ("either", all)] {
        println!("BGP: {kind} to the route in BIRD: p50 {p50:.1} ms, p99 {p99:.1} ms");
    }
    let figures = |[p50, p99]: [f64; 2]| json!({ "p50": p50, "p99": p99 });
    let mut report = figures(all);
    report["command"] = figures(command);
    report["verdict"] = figures(verdict);
    Ok(report)
}

/// A pool for each two addresses: every command is the first one for its prefix.
fn pool(number: u8) -> Pool {
    let mut pool = Pool { name: format!("web{number}"), vip: number, ..Pool::web(1) };
    for backend in &mut pool.backends {
        backend.web = if is_mortal(number) { MORTAL } else { MORTAL + 1 };
    }
    pool
}

const fn is_mortal(pool: u8) -> bool {
    pool.is_multiple_of(2)
}

/// 50th and 99th.
fn percentiles(mut times: Vec<f64>) -> Result<[f64; 2]> {
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times.get((times.len().max(1) - 1) * percent / 100).copied();
    let both = at(50).zip(at(99)).context("nothing was measured")?;
    Ok(both.into())
}

/// Each prefix is steered once; ms until BIRD has its new MED.
fn commands(lab: &Lab, bird: &Bird) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for prefix in lab.plan.pools.iter().flat_map(prefixes) {
        let start = Instant::now();
        lab.balancers[&1].lbctl(&["bgp", "steer", &prefix, "--med", "7", "--for", "10m"])?;
        while !bird.routes(&prefix)?.iter().any(|route| route.med == Some(7)) {
            ensure!(start.elapsed() < DEADLINE, "BIRD never has the new MED of {prefix}");
            std::thread::park_timeout(STEP);
        }
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// The host routes of a pool.
fn prefixes(pool: &Pool) -> [String; 2] {
    pool.vips().map(|vip| format!("{vip}/{}", if vip.is_ipv4() { 32 } else { 128 }))
}

/// The backend dies, or comes back; ms from the verdict on it, which every pool has its own of at
/// its own time, to each route that goes, or comes.
fn verdicts(lab: &mut Lab, bird: &Bird, up: bool) -> Result<Vec<f64>> {
    let mortal = (0..COMMANDS / 2).filter(|number| is_mortal(*number)).map(pool);
    let pools: BTreeMap<String, [String; 2]> =
        mortal.map(|pool| (pool.name.clone(), prefixes(&pool))).collect();
    let log = lab.balancers[&1].log();
    let before = fs::read_to_string(&log)?.len();
    let changed = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(bird, pools.values().flatten().collect(), up));
        if up { lab.revive_web(MORTAL) } else { lab.web(MORTAL)?.kill() }?;
        watcher.join().map_err(|_panic| anyhow::anyhow!("the watcher panicked"))?
    })?;
    let text = fs::read_to_string(&log)?;
    let judged = judged(text.get(before..).unwrap_or_default(), up)?;
    let mut times = Vec::new();
    for (pool, prefixes) in &pools {
        let verdict = *judged.get(pool).with_context(|| format!("no verdict for {pool}"))?;
        for prefix in prefixes {
            let seen = *changed.get(prefix).with_context(|| format!("{prefix} is not watched"))?;
            let took = seen.checked_sub(verdict).unwrap_or_else(|| seen + DAY - verdict);
            times.push(took.as_secs_f64() * 1e3);
        }
    }
    Ok(times)
}

/// Looks at BIRD's table until all of these prefixes are there, or none is; when each was first
/// seen so, since midnight UTC.
fn watch(
    bird: &Bird,
    mut wanted: BTreeSet<&String>,
    there: bool,
) -> Result<BTreeMap<String, Duration>> {
    let start = Instant::now();
    let mut changed = BTreeMap::new();
    while !wanted.is_empty() {
        ensure!(start.elapsed() < DEADLINE, "unchanged in BIRD: {wanted:?}");
        let lines = bird.ask("show route")?;
        let now = clock::since_epoch();
        let now = now - DAY * u32::try_from(now.as_secs() / DAY.as_secs())?;
        let table: BTreeSet<&str> =
            lines.iter().filter_map(|line| line.split_whitespace().next()).collect();
        let is_so = |prefix: &&String| table.contains(prefix.as_str()) == there;
        changed.extend(wanted.iter().filter(|it| is_so(it)).map(|it| ((*it).clone(), now)));
        wanted.retain(|prefix| !is_so(prefix));
        std::thread::park_timeout(STEP);
    }
    Ok(changed)
}

/// When the log says that the backend of each pool came up or went down, since midnight UTC.
fn judged(log: &str, up: bool) -> Result<BTreeMap<String, Duration>> {
    let message = if up { "backend is up" } else { "backend is down" };
    let mut judged = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains(message)) {
        let line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let pool = line["fields"]["pool"].as_str().context("a verdict without its pool")?;
        let time = line["timestamp"].as_str().and_then(time_of_day);
        judged.insert(pool.to_owned(), time.context("a verdict without its time")?);
    }
    Ok(judged)
}

/// Since midnight, of `2026-01-31T23:59:59.123456Z`.
fn time_of_day(timestamp: &str) -> Option<Duration> {
    let (_, time) = timestamp.strip_suffix('Z')?.split_once('T')?;
    let mut parts = time.split(':');
    let minutes: [u64; 2] = [parts.next()?.parse().ok()?, parts.next()?.parse().ok()?];
    let seconds: f64 = parts.next()?.parse().ok()?;
    let [hours, minutes] = minutes;
    Some(
        Duration::from_secs((hours * 60 + minutes) * 60)
            + Duration::try_from_secs_f64(seconds).ok()?,
    )
}
