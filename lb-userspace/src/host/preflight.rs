//! What must be true of the machine before `lbd` touches the data plane, all findings at once.
//!
//! [`gather`] reads the machine (`facts`), [`findings`] is a pure function from what was read to
//! what the operator is told, and [`check`] does both. Nothing is changed: the probes load no
//! program that stays and make no map that stays.
//!
//! This is the one place that says which kernel is needed: [`MIN_KERNEL`].

mod facts;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

pub use facts::{BpfProbe, Facts, PinFileSystem, gather};

/// The oldest kernel that is supported, major and minor: Debian 12's.
pub const MIN_KERNEL: (u32, u32) = (6, 1);
/// Most names listed in one sentence.
const MAX_NAMES: usize = 8;
/// Where BPF file systems are mounted.
const BPF_FILE_SYSTEM: &str = "/sys/fs/bpf";
/// What the directory of a layout version is called: this and the number.
const VERSION_PREFIX: &str = "v";

/// Capabilities and their bits in `CapEff` (capability.h).
const CAP_NET_ADMIN: (&str, u32) = ("CAP_NET_ADMIN", 12);
const CAP_SYS_ADMIN: (&str, u32) = ("CAP_SYS_ADMIN", 21);
const CAP_PERFMON: (&str, u32) = ("CAP_PERFMON", 38);
const CAP_BPF: (&str, u32) = ("CAP_BPF", 39);

/// What `lbd` is about to do.
#[derive(Clone, Copy, Debug)]
pub struct Wants<'a> {
    /// `dataplane.pin_path` of the configuration.
    pub pin_path: &'a Path,
    /// `dataplane.interfaces` of the configuration.
    pub interfaces: &'a [String],
    /// The layout version of the maps this program knows.
    pub layout: u32,
}

/// Whether a finding stops the start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// It works, but not as it should.
    Warning,
    /// It cannot work.
    Error,
}

/// One thing that is wrong with the machine, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// A stable word, e.g. `interface-missing`.
    pub id: &'static str,
    /// Whether it stops the start.
    pub severity: Severity,
    /// What is wrong: one sentence.
    pub message: String,
    /// What to do: one sentence, or a command.
    pub help: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{word}[{}]: {}; help: {}", self.id, self.message, self.help)
    }
}

fn error(id: &'static str, message: String, help: impl Into<String>) -> Finding {
    Finding { id, severity: Severity::Error, message, help: help.into() }
}

fn warning(id: &'static str, message: String, help: impl Into<String>) -> Finding {
    Finding { id, severity: Severity::Warning, message, help: help.into() }
}

/// Where the pins of one layout version live: `<pin_path>/v<layout>`.
#[must_use]
pub fn pin_directory(pin_path: &Path, layout: u32) -> PathBuf {
    pin_path.join(format!("{VERSION_PREFIX}{layout}"))
}

/// The layout version a directory below the pin path is named after.
fn layout_of(name: &str) -> Option<u32> {
    name.strip_prefix(VERSION_PREFIX)?.parse().ok()
}

/// Reads the machine and returns everything that is wrong, errors first; empty if all is well.
pub async fn check(wants: &Wants<'_>) -> Vec<Finding> {
    findings(wants, &gather(wants).await)
}

/// What is wrong, errors first.
#[must_use]
pub fn findings(wants: &Wants<'_>, facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> = [
        kernel(facts),
        capabilities(facts),
        btf(facts),
        bpf(facts),
        jit(facts),
        grace_period(facts),
        pin_file_system(wants, facts),
        other_layouts(wants, facts),
    ]
    .into_iter()
    .flatten()
    .collect();
    found.extend(wants.interfaces.iter().filter_map(|name| interface(name, facts)));
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

fn kernel(facts: &Facts) -> Option<Finding> {
    let (major, minor) = MIN_KERNEL;
    let help = format!("run Linux {major}.{minor} or newer, for instance Debian 12's");
    match parse_release(&facts.kernel) {
        Some(version) if version >= MIN_KERNEL => None,
        Some(_) => {
            let message = format!("kernel {} is older than {major}.{minor}", facts.kernel);
            Some(error("kernel-too-old", message, help))
        }
        None => {
            let message = format!("cannot tell the kernel's version from `{}`", facts.kernel);
            Some(warning("kernel-unknown", message, help))
        }
    }
}

/// Major and minor of a release like `6.1.0-13-amd64`.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn capabilities(facts: &Facts) -> Option<Finding> {
    let Some(effective) = facts.capabilities else {
        let message = "cannot read the process's capabilities from /proc/self/status".into();
        return Some(warning("capability-unknown", message, "mount proc on /proc"));
    };
    let has = |(_, bit): (&str, u32)| effective & (1 << bit) != 0;
    // CAP_SYS_ADMIN is the older name for both BPF capabilities, and for nothing of networking.
    let missing: Vec<&str> = [CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON]
        .into_iter()
        .filter(|wanted| !has(*wanted) && (*wanted == CAP_NET_ADMIN || !has(CAP_SYS_ADMIN)))
        .map(|(name, _)| name)
        .collect();
    if missing.is_empty() {
        return None;
    }
    let message = format!("the process lacks {}", missing.join(", "));
    let help = format!("run as root, or with AmbientCapabilities={}", missing.join(" "));
    Some(error("capability-missing", message, help))
}

fn btf(facts: &Facts) -> Option<Finding> {
    (!facts.btf).then(|| {
        let message = "the kernel has no type information in /sys/kernel/btf/vmlinux".into();
        let help = "run a kernel with CONFIG_DEBUG_INFO_BTF=y, and mount sysfs on /sys";
        error("no-btf", message, help)
    })
}

fn bpf(facts: &Facts) -> Option<Finding> {
    let (what, config, errno) = match facts.bpf {
        BpfProbe::Works => return None,
        BpfProbe::Program(errno) => ("load an XDP program", "CONFIG_BPF_SYSCALL=y", errno),
        BpfProbe::Map(errno) => ("make a memory-mapped BPF array", "CONFIG_BPF_SYSCALL=y", errno),
    };
    // Without the capabilities the refusal has its own finding already.
    if errno == libc::EPERM {
        return capabilities(facts).is_none().then(|| {
            let message =
                format!("the kernel forbids to {what} although the capabilities are there");
            let help = "run outside user namespaces and containers that filter bpf(2), and with \
                        kernel lockdown below `confidentiality`";
            error("bpf-forbidden", message, help)
        });
    }
    let reason = std::io::Error::from_raw_os_error(errno);
    let message = format!("the kernel cannot {what}: {reason}");
    Some(error("bpf-missing", message, format!("run a kernel with {config}")))
}

fn jit(facts: &Facts) -> Option<Finding> {
    (facts.jit == Some(false)).then(|| {
        let message = "BPF programs are interpreted, which costs most of the throughput".into();
        warning("no-jit", message, "sysctl net.core.bpf_jit_enable=1 (CONFIG_BPF_JIT=y)")
    })
}

fn grace_period(facts: &Facts) -> Option<Finding> {
    (!facts.grace_period).then(|| {
        let message = "the kernel offers no global membarrier, so tables cannot be replaced".into();
        let help =
            "run a kernel with CONFIG_MEMBARRIER=y and without nohz_full= on its command line";
        error("no-membarrier", message, help)
    })
}

fn pin_file_system(wants: &Wants<'_>, facts: &Facts) -> Option<Finding> {
    let pin_path = wants.pin_path.display();
    match &facts.pin_file_system {
        PinFileSystem::Bpf => None,
        PinFileSystem::Other => {
            let message = format!("pin_path {pin_path} is not on a BPF file system");
            let help = if wants.pin_path.starts_with(BPF_FILE_SYSTEM) {
                format!("mount -t bpf bpf {BPF_FILE_SYSTEM}")
            } else {
                format!(
                    "choose a pin_path below {BPF_FILE_SYSTEM}, or mount one there: \
                         mkdir -p {pin_path}; mount -t bpf bpf {pin_path}"
                )
            };
            Some(error("no-bpffs", message, help))
        }
        PinFileSystem::Unknown(reason) => {
            let message = format!("cannot look at pin_path {pin_path}: {reason}");
            Some(error("pin-path", message, "give an absolute path that this process may read"))
        }
    }
}

fn other_layouts(wants: &Wants<'_>, facts: &Facts) -> Option<Finding> {
    let others: Vec<String> = facts
        .layouts
        .iter()
        .filter(|layout| **layout != wants.layout)
        .map(|layout| format!("{VERSION_PREFIX}{layout}"))
        .collect();
    if others.is_empty() {
        return None;
    }
    let path = wants.pin_path.display();
    let message = format!(
        "{path} holds pins of another layout ({}); this lbd uses {VERSION_PREFIX}{} and never \
         reuses others",
        list(&others),
        wants.layout
    );
    // Both would be attached to the same interfaces, and the older one would go on forwarding.
    let help = format!("lbctl unload --pin-path {path}, then start again");
    Some(error("other-layout", message, help))
}

fn interface(name: &str, facts: &Facts) -> Option<Finding> {
    let links = match &facts.links {
        Ok(links) => links,
        Err(reason) => {
            let message = format!("cannot look for interface {name}: {reason}");
            let help = "let lbd open netlink sockets (RestrictAddressFamilies=AF_NETLINK)";
            return Some(error("interface-unknown", message, help));
        }
    };
    let Some(link) = links.get(name) else {
        let names: Vec<String> =
            links.values().filter(|link| link.mac.is_some()).map(|l| l.name.to_string()).collect();
        let help = if names.is_empty() {
            "this network namespace has no Ethernet interface; start lbd in another one".into()
        } else {
            format!("set dataplane.interfaces; here are: {}", list(&names))
        };
        return Some(error("interface-missing", format!("there is no interface {name}"), help));
    };
    if link.mac.is_none() {
        let message = format!("interface {name} is not an Ethernet interface");
        let help = "set dataplane.interfaces to the interfaces that packets for VIPs arrive on";
        return Some(error("interface-not-ethernet", message, help));
    }
    (!link.up).then(|| {
        let message = format!("interface {name} is down or has no carrier");
        warning("interface-down", message, format!("ip link set {name} up, and look at its cable"))
    })
}

/// At most [`MAX_NAMES`] of the names, and how many more there are.
fn list(names: &[String]) -> String {
    let mut text = names.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>().join(", ");
    if let Some(more) = names.len().checked_sub(MAX_NAMES).filter(|more| *more > 0) {
        // Writing to a String cannot fail.
        write!(text, " and {more} more").unwrap_or_default();
    }
    text
}
