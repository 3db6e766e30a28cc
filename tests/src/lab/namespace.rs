//! One network namespace: a host of the lab.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, anyhow};

use super::{command, kernel};

/// Where `ip netns` keeps its names.
pub const NAMESPACES: &str = "/run/netns";

/// A network namespace made by `ip netns add`. The lab removes it by name, so that the same code
/// serves a lab that ends and what a killed one left behind.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace, with `lo` up and the settings that every host of the lab has.
    ///
    /// # Errors
    /// The name is taken, or we are not root.
    pub fn create(name: &str) -> Result<Self> {
        command::run(Command::new("ip").args(["netns", "add", name]))?;
        let namespace = Self { name: name.to_owned() };
        namespace.set(&[
            // Replies take another way than requests (the backend answers the client itself).
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            // An address on `lo` is nobody's business on the wire.
            ("ipv4/conf/all/arp_ignore", "1"),
            ("ipv4/conf/all/arp_announce", "2"),
            // Neighbours are told of a new address of the link layer.
            ("ipv4/conf/default/arp_notify", "1"),
            ("ipv6/conf/default/ndisc_notify", "1"),
            // No second of waiting for duplicates before an IPv6 address can be used.
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
        ])?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(NAMESPACES).join(&self.name)
    }

    /// Runs lines of `ip` inside (`link set eth0 up`, one a line).
    ///
    /// # Errors
    /// One of them fails; the lines before it hold.
    pub fn ip(&self, lines: &str) -> Result<String> {
        let mut ip = Command::new("ip");
        ip.args(["-oneline", "-netns", &self.name, "-batch", "-"]);
        command::run_with_input(&mut ip, lines).with_context(|| format!("in:\n{lines}"))
    }

    /// Sets sysctls below `/proc/sys/net` inside.
    ///
    /// # Errors
    /// The kernel does not know one, or refuses the value.
    pub fn set(&self, sysctls: &[(&str, &str)]) -> Result<()> {
        self.inside(|| {
            for (name, value) in sysctls {
                let path = format!("/proc/sys/net/{name}");
                fs::write(&path, value).with_context(|| format!("cannot set {path} to {value}"))?;
            }
            Ok(())
        })
    }

    /// A counter of its kernel (`TcpExtTCPMD5Failure`), since it was made.
    ///
    /// # Errors
    /// `nstat` does not say.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let mut nstat = self.command("nstat");
        // Absolute, no file with the last values, zeros too.
        let answer = command::run(nstat.args(["-a", "-s", "-z", "-j", name]))?;
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        answer["kernel"][name].as_u64().with_context(|| format!("no {name} in {answer}"))
    }

    /// How many packets an interface has received.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn received(&self, interface: &str) -> Result<u64> {
        let mut ip = Command::new("ip");
        ip.args(["-json", "-stats", "-netns", &self.name, "link", "show", "dev", interface]);
        let answer: serde_json::Value = serde_json::from_str(&command::run(&mut ip)?)?;
        let packets = &answer[0]["stats64"]["rx"]["packets"];
        packets.as_u64().with_context(|| format!("ip shows no packets of {interface}"))
    }

    /// A command that will run inside. Other than `ip netns exec` it leaves the mounts alone, so
    /// that `/sys/fs/bpf` is the same for all.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs `work` in a thread inside and returns what it returns.
    ///
    /// # Errors
    /// The namespace cannot be entered, or `work` fails.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.path();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                kernel::enter_network_namespace(&path)?;
                work()
            });
            thread.join().map_err(|_panic| anyhow!("a thread in {} panicked", self.name))?
        })
    }
}

/// Kills whatever still runs in the namespace and removes it.
///
/// # Errors
/// There is no such namespace.
pub fn remove(name: &str) -> Result<()> {
    let pids = command::run(Command::new("ip").args(["netns", "pids", name]))?;
    for pid in pids.lines().filter_map(|line| line.trim().parse::<u32>().ok()) {
        if pid != std::process::id() {
            // It may have ended meanwhile.
            drop(kernel::kill(pid));
        }
    }
    command::run(Command::new("ip").args(["netns", "del", name]))?;
    Ok(())
}
