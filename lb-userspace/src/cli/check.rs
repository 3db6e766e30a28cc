//! `lbctl config check`: the findings of a file, and whether the paths to its backends are wide
//! enough for the encapsulation. Needs no lbd.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use serde::Serialize;

use super::args::Format;
use super::{CliError, EXIT_FAILED, EXIT_OK, Streams, json, report_text};
use crate::api::API_VERSION;
use crate::config;
use crate::config::diagnostic::View;
use crate::desired::{Desired, Family, encap_overhead_bytes};
use crate::host::mtu::{ETHERNET_MTU, largest_inner};
use crate::host::netlink::{Path as BackendPath, Unresolved, path_mtus};

/// Backends named in one warning; the rest is counted.
const NAMED_MAX: usize = 3;

/// The answer as JSON.
#[derive(Serialize)]
struct Checked<'a> {
    version: u32,
    ok: bool,
    findings: Vec<View<'a>>,
    paths: Vec<String>,
}

/// Prints all findings; exit code 0 when the configuration would be taken.
pub(super) async fn check(
    file: &Path,
    format: Format,
    streams: &mut Streams<'_>,
) -> Result<u8, CliError> {
    let loaded = config::load(file);
    let (report, desired) = match &loaded {
        Ok(loaded) => (&loaded.warnings, Some(&loaded.desired)),
        Err(report) => (report, None),
    };
    let paths = match desired {
        Some(desired) => path_warnings(desired).await?,
        None => Vec::new(),
    };
    let ok = desired.is_some();
    if format == Format::Json {
        let findings = report.views();
        let checked = Checked { version: API_VERSION, ok, findings, paths };
        streams.out.write_all(json(&checked)?.as_bytes())?;
    } else {
        if !report.is_empty() {
            writeln!(streams.err, "{}", report_text(report, streams.color))?;
        }
        for warning in &paths {
            writeln!(streams.err, "warning: {warning}")?;
        }
        if let Some(desired) = desired {
            writeln!(streams.out, "{}: {}", file.display(), summary(desired))?;
        }
    }
    Ok(if ok { EXIT_OK } else { EXIT_FAILED })
}

fn summary(desired: &Desired) -> String {
    let mut counts = vec![
        (desired.vips.len(), "VIP"),
        (desired.pools.len(), "pool"),
        (desired.backend_count(), "backend"),
    ];
    counts.extend(desired.bgp.iter().map(|bgp| (bgp.peers.len(), "BGP peer")));
    let counts: Vec<String> = counts
        .into_iter()
        .map(|(count, what)| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        })
        .collect();
    format!("ok: {}", counts.join(", "))
}

/// Compares the path to each backend with what its pool's encapsulation adds.
async fn path_warnings(desired: &Desired) -> Result<Vec<String>, CliError> {
    let backends = desired.pools.values().flat_map(|pool| pool.backends.values());
    let destinations: BTreeSet<IpAddr> = backends.map(|backend| backend.address).collect();
    let paths = path_mtus(&destinations).await?;
    Ok(warnings(desired, &paths))
}

fn warnings(
    desired: &Desired,
    paths: &BTreeMap<IpAddr, Result<BackendPath, Unresolved>>,
) -> Vec<String> {
    // One warning for all backends that share it.
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pool in desired.pools.values() {
        for backend in pool.backends.values() {
            let overhead = encap_overhead_bytes(pool.encap, Family::of(backend.address));
            let needed = ETHERNET_MTU + overhead;
            let text = match paths.get(&backend.address) {
                Some(Ok(path)) if path.mtu < needed => format!(
                    "the path by {} carries {} bytes, and {} over {} needs {needed} for full \
                     packets: raise its MTU, or let the backends clamp the MSS to packets of {}",
                    path.interface,
                    path.mtu,
                    pool.encap,
                    Family::of(backend.address),
                    largest_inner(path.mtu, overhead)
                ),
                Some(Err(error)) => format!("there is no way from here: {error}"),
                Some(Ok(_)) | None => continue,
            };
            found.entry(text).or_default().push(format!("{}/{}", pool.name, backend.name));
        }
    }
    found.iter().map(|(text, names)| format!("{}: {text}", named(names))).collect()
}

fn named(names: &[String]) -> String {
    let shown = names.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<&str>>().join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
