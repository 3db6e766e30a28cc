//! Is the process privileged enough? Asked first, because the kernel's own answers do not say what
//! is missing.

use std::fs;

use super::error::AgentError;

/// Bits of linux/capability.h.
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// What is missing of CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON (pointers in programs); the last two
/// are also part of CAP_SYS_ADMIN.
fn missing(effective: u64) -> Vec<&'static str> {
    let has = |bit: u32| effective >> bit & 1 != 0;
    let needed = [(NET_ADMIN, "CAP_NET_ADMIN"), (BPF, "CAP_BPF"), (PERFMON, "CAP_PERFMON")];
    needed
        .into_iter()
        .filter(|&(bit, _)| !has(bit) && (bit == NET_ADMIN || !has(SYS_ADMIN)))
        .map(|(_, name)| name)
        .collect()
}

/// The effective set, as /proc/PID/status has it.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Checks.
///
/// # Errors
/// [`AgentError::Capabilities`] names what is missing.
pub(super) fn require() -> Result<(), AgentError> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    // Where it cannot be read, the kernel's answers must do.
    let missing = effective(&status).map(missing).unwrap_or_default();
    if missing.is_empty() { Ok(()) } else { Err(AgentError::Capabilities(missing.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing() {
        let status = "Name:\tlb-agent\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n";
        assert_eq!(effective(status).map(missing), Some(vec![]));
        assert_eq!(missing(0), ["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(missing(1 << SYS_ADMIN), ["CAP_NET_ADMIN"]);
        assert_eq!(missing(1 << NET_ADMIN | 1 << BPF), ["CAP_PERFMON"]);
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
