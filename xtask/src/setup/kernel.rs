//! Whether this kernel can run the programs; what it lacks is named by its configuration symbol.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::setup::row;

/// The oldest kernel the programs are meant for (Debian 12).
const FLOOR: (u32, u32) = (6, 1);

/// A symbol that must be on (or a module), and what for.
struct Symbol {
    name: &'static str,
    why: &'static str,
    /// Exists exactly when the symbol is on, for a kernel that does not show its configuration.
    sign: Option<&'static str>,
    lab: bool,
}

const fn always(name: &'static str, why: &'static str, sign: &'static str) -> Symbol {
    Symbol { name, why, sign: Some(sign), lab: false }
}

const fn lab(name: &'static str, why: &'static str, sign: Option<&'static str>) -> Symbol {
    Symbol { name, why, sign, lab: true }
}

const SYMBOLS: [Symbol; 10] = [
    always("CONFIG_BPF_SYSCALL", "eBPF", "/proc/sys/kernel/unprivileged_bpf_disabled"),
    always("CONFIG_BPF_JIT", "the BPF JIT", "/proc/sys/net/core/bpf_jit_enable"),
    always("CONFIG_DEBUG_INFO_BTF", "BTF", "/sys/kernel/btf/vmlinux"),
    always("CONFIG_IPV6", "IPv6", "/proc/net/if_inet6"),
    lab("CONFIG_NET_NS", "network namespaces", Some("/proc/self/ns/net")),
    lab("CONFIG_VETH", "the lab's links", None),
    lab("CONFIG_IP_ROUTE_MULTIPATH", "ECMP", Some("/proc/sys/net/ipv4/fib_multipath_hash_policy")),
    lab("CONFIG_NET_CLS_ACT", "the agent in tc", None),
    lab("CONFIG_NET_CLS_BPF", "the agent in tc", None),
    lab("CONFIG_NET_SCH_INGRESS", "the agent in tc", None),
];

/// An error that names everything this kernel lacks.
pub(crate) fn check(with_lab: bool) -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("no kernel release")?;
    let release = release.trim();
    let config = configuration(release);
    let lacks = lacks(release, config.as_deref(), with_lab, |sign| Path::new(sign).exists());
    if !lacks.is_empty() {
        bail!("the kernel {release} {}", lacks.join(", "));
    }
    row("kernel", &format!("{release}: eBPF, JIT, BTF and what else is needed"));
    Ok(())
}

/// What is missing, in words that continue "the kernel".
fn lacks(
    release: &str,
    config: Option<&str>,
    with_lab: bool,
    exists: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut lacks = Vec::new();
    if version(release).is_some_and(|version| version < FLOOR) {
        lacks.push(format!("is older than {}.{}", FLOOR.0, FLOOR.1));
    }
    for symbol in SYMBOLS.iter().filter(|symbol| with_lab || !symbol.lab) {
        let is_on = match (config, symbol.sign) {
            (Some(config), _) => is_on(config, symbol.name),
            (None, Some(sign)) => exists(sign),
            // Nothing tells; what needs it will.
            (None, None) => true,
        };
        if !is_on {
            lacks.push(format!("has no {} ({} is off)", symbol.why, symbol.name));
        }
    }
    lacks
}

/// The kernel's configuration, if it can be read.
fn configuration(release: &str) -> Option<String> {
    let packed = Path::new("/proc/config.gz");
    if packed.exists() {
        return process::capture(Command::new("gzip").arg("-dc").arg(packed)).ok();
    }
    fs::read_to_string(format!("/boot/config-{release}")).ok()
}

fn is_on(config: &str, symbol: &str) -> bool {
    config
        .lines()
        .any(|line| line.strip_prefix(symbol).is_some_and(|rest| matches!(rest, "=y" | "=m")))
}

/// Major and minor of a release such as `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        let cases = [("6.1.0-18-amd64", (6, 1)), ("6.18.44", (6, 18)), ("5.10-rc1", (5, 10))];
        for (release, expected) in cases {
            assert_eq!(version(release), Some(expected), "{release}");
        }
        assert!(version("6.18.44").unwrap() > FLOOR && version("5.10").unwrap() < FLOOR);
        assert_eq!(version("rolling"), None);
    }

    #[test]
    fn what_is_missing_is_named_by_its_symbol() {
        let all: String = SYMBOLS.iter().map(|symbol| format!("{}=y\n", symbol.name)).collect();
        assert!(lacks("6.1.0", Some(&all), true, |_| false).is_empty());
        let some = all.replace("CONFIG_DEBUG_INFO_BTF=y", "# CONFIG_DEBUG_INFO_BTF is not set");
        let found = lacks("5.10.0-8", Some(&some), true, |_| true);
        assert_eq!(found, ["is older than 6.1", "has no BTF (CONFIG_DEBUG_INFO_BTF is off)"]);
        let veth = all.replace("CONFIG_VETH=y\n", "");
        assert_eq!(lacks("6.1", Some(&veth), true, |_| true).len(), 1);
        assert!(lacks("6.1", Some(&veth), false, |_| true).is_empty(), "only the lab needs it");
        let unseen = lacks("6.1", None, false, |sign| sign != "/sys/kernel/btf/vmlinux");
        assert_eq!(unseen, ["has no BTF (CONFIG_DEBUG_INFO_BTF is off)"]);
    }

    #[test]
    fn a_symbol_is_on_built_in_or_as_a_module() {
        let config = "CONFIG_VETH=m\nCONFIG_BPF_JIT=y\n# CONFIG_NET_CLS_ACT is not set\n\
                      CONFIG_BPF_JIT_ALWAYS_ON=y\nCONFIG_BPF=n\n";
        assert!(is_on(config, "CONFIG_VETH") && is_on(config, "CONFIG_BPF_JIT"));
        assert!(!is_on(config, "CONFIG_NET_CLS_ACT") && !is_on(config, "CONFIG_BPF"));
        assert!(!is_on(config, "CONFIG_BPF_JIT_ALWAYS"), "a prefix is another symbol");
    }
}
