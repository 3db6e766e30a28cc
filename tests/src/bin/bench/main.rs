//! `cargo xtask bench`: what a packet, a table, a flow and a route cost, measured here and now.
//!
//! No test and no bound: it prints a table and writes `target/bench/latest.json`. Packets are
//! ratios to a floor of the same run ([`packets`] says how not to be fooled); tables and flows are
//! user space's ([`tables`]), routes the lab's ([`bgp`]).

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command: stdout is its answer")]
#![expect(clippy::cast_precision_loss, reason = "figures of at most nine digits")]

use std::fs;

use anyhow::Result;

mod bgp;
mod packets;
mod tables;

/// Where the report goes, below the working directory.
const REPORT: &str = "target/bench/latest.json";

fn main() -> Result<()> {
    // First: what the lab starts must not inherit the quiet of one processor.
    let bgp = bgp::measure()?;
    packets::quiet();
    let mut report = packets::measure()?;
    report.insert("maglev".to_owned(), tables::maglev());
    report.insert("flow_table".to_owned(), tables::flow_table());
    report.insert("bgp".to_owned(), bgp);
    fs::create_dir_all("target/bench")?;
    fs::write(REPORT, serde_json::to_string_pretty(&report)?)?;
    println!("report: {REPORT}");
    Ok(())
}

/// The middle of some figures.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// CPU time of this thread.
fn cpu_time() -> std::time::Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    std::time::Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}
