//! Which room may name which: the data flows one way, and the pure rooms stay pure.
//!
//! A rule is data: the table below is what ARCHITECTURE.md describes.

use super::source::{code, paths, without_tests};
use super::{File, Finding};

/// A rule for the files at or below `room` (a module of `lb-userspace`, or another crate).
struct Rule {
    /// Prefix of the file's path.
    room: &'static str,
    /// Parts of it that have a rule of their own.
    except: &'static [&'static str],
    /// Paths that none of its files may name, nor anything below them.
    never: &'static [&'static str],
    why: &'static str,
}

/// What makes a function impure: IO, clocks, chance, and talk.
const IMPURE: &[&str] = &[
    "tokio",
    "aya",
    "axum",
    "hyper",
    "rtnetlink",
    "memmap2",
    "libc",
    "tracing",
    "rand",
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::os::unix::net",
    "crate::dataplane",
    "crate::health::probe",
    "crate::api",
    "crate::host",
    "crate::cli",
    "crate::metrics",
    "crate::controller",
];

const PURE: &str = "a pure room does no IO, reads no clock, and knows no room that does";
const APART: &str = "IO rooms do not know each other; the controller joins them";
const CLIENT: &str = "the operator's tool talks to the daemon through its socket only";

const RULES: [Rule; 16] = [
    Rule {
        room: "lb-common/src/",
        except: &[],
        never: &["std", "alloc", "aya_ebpf", "tokio"],
        why: "it runs in the kernel, too: no allocation, no IO",
    },
    pure("lb-userspace/src/config", &["lb-userspace/src/config/files"]),
    pure("lb-userspace/src/desired", &[]),
    pure(
        "lb-userspace/src/health",
        &["lb-userspace/src/health/probe", "lb-userspace/src/health/tunnel"],
    ),
    pure("lb-userspace/src/maglev", &[]),
    pure("lb-userspace/src/tracking", &[]),
    pure("lb-userspace/src/plan", &[]),
    pure("lb-userspace/src/bgp/announce", &[]),
    pure("lb-userspace/src/bgp/session", &[]),
    pure("lb-userspace/src/bgp/wire", &[]),
    pure("lb-userspace/src/bgp/bfd/machine", &[]),
    Rule {
        room: "lb-userspace/src/dataplane",
        except: &[],
        never: &[
            "crate::health::probe",
            "crate::api",
            "crate::cli",
            "crate::plan",
            "crate::controller",
        ],
        why: APART,
    },
    Rule {
        room: "lb-userspace/src/health/probe",
        except: &[],
        never: &[
            "crate::dataplane",
            "crate::api",
            "crate::host",
            "crate::cli",
            "crate::plan",
            "crate::controller",
        ],
        why: APART,
    },
    Rule {
        room: "lb-userspace/src/api",
        except: &[],
        never: &[
            "crate::dataplane::ebpf",
            "crate::health::probe",
            "crate::host",
            "crate::cli",
            "crate::plan",
            "crate::controller",
        ],
        why: APART,
    },
    Rule {
        room: "lb-userspace/src/host",
        except: &[],
        never: &[
            "crate::dataplane",
            "crate::health",
            "crate::api",
            "crate::cli",
            "crate::plan",
            "crate::controller",
        ],
        why: APART,
    },
    Rule {
        room: "lb-userspace/src/cli",
        except: &[],
        never: &["aya", "crate::dataplane", "crate::controller", "crate::health"],
        why: CLIENT,
    },
];

const fn pure(room: &'static str, except: &'static [&'static str]) -> Rule {
    Rule { room, except, never: IMPURE, why: PURE }
}

pub(super) fn check(file: &File) -> Vec<Finding> {
    if !file.is_rust() || file.is_test {
        return Vec::new();
    }
    let is_inside = |room: &&str| file.path.starts_with(*room);
    let rules = RULES.iter().filter(|it| is_inside(&it.room) && !it.except.iter().any(is_inside));
    let code = code(&file.text);
    let named = paths(without_tests(&code));
    let mut findings = Vec::new();
    for rule in rules {
        for path in &named {
            let full = resolve(&file.path, &path.segments).join("::");
            let below = |never: &&&str| {
                full.strip_prefix(**never)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            };
            if let Some(never) = rule.never.iter().find(below) {
                let message = format!("names `{never}`: {}", rule.why);
                findings.push(Finding::error(file, path.line, message));
            }
        }
    }
    findings
}

/// The path from the crate's root, for one that begins with `self` or `super`.
fn resolve(file: &str, segments: &[String]) -> Vec<String> {
    let ups = segments.iter().take_while(|it| *it == "super").count();
    let here = segments.first().is_some_and(|it| it == "self");
    if ups == 0 && !here {
        return segments.to_vec();
    }
    let mut module = module(file);
    module.truncate(module.len().saturating_sub(ups).max(1));
    let rest = segments.iter().skip(ups + usize::from(here));
    module.extend(rest.cloned());
    module
}

/// `lb-userspace/src/health/probe.rs` is `crate::health::probe`.
fn module(file: &str) -> Vec<String> {
    let inside = file.split_once("src/").map_or(file, |(_, inside)| inside);
    let inside = inside.trim_end_matches(".rs");
    let words = inside.split('/').filter(|word| !matches!(*word, "mod" | "lib" | "main"));
    std::iter::once("crate").chain(words).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, body: &str) -> Vec<String> {
        check(&File::new(path, format!("//! A room.\n{body}\n")))
            .iter()
            .map(Finding::to_string)
            .collect()
    }

    #[test]
    fn pure_rooms_stay_pure() {
        let bodies = [
            "use tokio::time;",
            "use std::fs;",
            "fn a() { std::fs::read(b) }",
            "use std::{collections::BTreeMap, time::Instant};",
            "use crate::dataplane::Dataplane;",
            "use crate::{desired::Desired, health::probe::Probe};",
            "fn a() { tracing::info!(b) }",
        ];
        for room in ["plan.rs", "desired.rs", "maglev.rs", "tracking.rs", "health/mod.rs"] {
            let path = format!("lb-userspace/src/{room}");
            for body in bodies {
                assert_eq!(findings(&path, body).len(), 1, "{room}: {body}");
            }
            let good =
                "use std::net::IpAddr; use std::time::Duration; use crate::desired::Desired;";
            assert!(findings(&path, good).is_empty(), "{room}");
        }
    }

    #[test]
    fn paths_relative_to_the_room_count() {
        let path = "lb-userspace/src/health/mod.rs";
        let found = findings(path, "use self::probe::Probe;");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("health/mod.rs:2: error: names `crate::health::probe`"));
        let path = "lb-userspace/src/health/rise.rs";
        assert_eq!(findings(path, "use super::probe::Probe;").len(), 1);
        assert_eq!(findings(path, "use super::super::controller;").len(), 1);
        assert!(findings(path, "use super::fall::Fall;").is_empty());
    }

    #[test]
    fn io_rooms_do_io_but_do_not_know_each_other() {
        let probe = "lb-userspace/src/health/probe.rs";
        assert!(
            findings(probe, "use tokio::net::TcpStream; use crate::health::Verdict;").is_empty()
        );
        assert_eq!(findings(probe, "use crate::dataplane::ebpf;").len(), 1);
        assert_eq!(findings("lb-userspace/src/host/clock.rs", "use crate::plan::Plan;").len(), 1);
        assert!(
            findings("lb-userspace/src/controller.rs", "use crate::{plan, host, dataplane};")
                .is_empty()
        );
    }

    #[test]
    fn unit_tests_of_a_pure_room_may_do_more() {
        let body = "fn a() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}";
        assert!(findings("lb-userspace/src/plan.rs", body).is_empty());
    }

    #[test]
    fn the_shared_crate_has_no_std() {
        assert_eq!(findings("lb-common/src/addr.rs", "use std::net::IpAddr;").len(), 1);
        assert!(findings("lb-common/src/addr.rs", "use core::net::IpAddr;").is_empty());
    }

    #[test]
    fn a_similar_name_is_another_room() {
        assert!(
            findings("lb-userspace/src/plan.rs", "use crate::apiary; use tokio_like::a;")
                .is_empty()
        );
        assert_eq!(module("lb-userspace/src/health/mod.rs"), ["crate", "health"]);
        assert_eq!(module("lb-userspace/src/lib.rs"), ["crate"]);
    }
}
