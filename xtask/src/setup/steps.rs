//! The things set-up makes present: how to see that they are there, why they are needed, and how
//! to get them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

use crate::cargo::cargo;
use crate::process;
use crate::report::say;
use crate::setup::Needs;
use crate::tree::Tree;

/// Links against rustc's LLVM; the version that goes with LLVM 22.
const BPF_LINKER: &str = "0.13.0";
const CARGO_DENY: &str = "0.20.2";

/// Where Debian keeps LLVM 22.
pub(crate) const LLVM: &str = "/usr/lib/llvm-22";

const BPFFS: &str = "/sys/fs/bpf";

/// A Debian package.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    /// The file, or the program in the path, that only this package brings.
    probe: &'static str,
    why: &'static str,
    /// Only the lab's namespaces need it, building does not.
    lab: bool,
}

const PACKAGES: [Package; 7] = [
    Package {
        name: "llvm-22-dev",
        probe: "/usr/lib/llvm-22/include/llvm-c/Core.h",
        why: "the LLVM that bpf-linker links against, and llvm-objdump",
        lab: false,
    },
    Package {
        name: "iproute2",
        probe: "ip",
        why: "namespaces, links, addresses and routes of the lab",
        lab: true,
    },
    Package {
        name: "ethtool",
        probe: "ethtool",
        why: "offloads that XDP cannot carry are turned off on the lab's links",
        lab: true,
    },
    Package {
        name: "nginx",
        probe: "nginx",
        why: "the real backends; installed, not started",
        lab: true,
    },
    Package {
        name: "bird2",
        probe: "bird",
        why: "the lab's router, and a BGP peer; installed, not started",
        lab: true,
    },
    Package {
        name: "frr",
        probe: "/usr/lib/frr/bgpd",
        why: "a BGP peer of the lab; installed, not started",
        lab: true,
    },
    Package {
        name: "gobgpd",
        probe: "gobgpd",
        why: "a BGP peer of the lab; installed, not started",
        lab: true,
    },
];

/// A part of the Rust toolchain that a minimal one lacks.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Component {
    name: &'static str,
    /// Below the toolchain's directory.
    probe: &'static str,
    why: &'static str,
    /// Only the tests need it.
    lint: bool,
}

const COMPONENTS: [Component; 3] = [
    Component {
        name: "rust-src",
        probe: "lib/rustlib/src/rust/library/core/src/lib.rs",
        why: "the eBPF programs compile `core` for their target",
        lint: false,
    },
    Component { name: "rustfmt", probe: "bin/rustfmt", why: "checks the formatting", lint: true },
    Component { name: "clippy", probe: "bin/cargo-clippy", why: "the lints", lint: true },
];

/// One thing that must be present.
#[derive(Debug)]
pub(crate) enum Step {
    Package(&'static Package),
    Component(&'static Component),
    BpfLinker,
    CargoDeny,
    Bpffs,
}

/// What the needs come to, in the order in which one depends on the other.
pub(crate) fn all(needs: Needs) -> Vec<Step> {
    let packages = PACKAGES.iter().filter(|package| needs.lab || !package.lab);
    let mut steps: Vec<Step> = packages.map(Step::Package).collect();
    let components = COMPONENTS.iter().filter(|component| needs.lint || !component.lint);
    steps.extend(components.map(Step::Component));
    steps.push(Step::BpfLinker);
    if needs.lint {
        steps.push(Step::CargoDeny);
    }
    steps.push(Step::Bpffs);
    steps
}

impl Step {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Package(package) => package.name,
            Self::Component(component) => component.name,
            Self::BpfLinker => "bpf-linker",
            Self::CargoDeny => "cargo-deny",
            Self::Bpffs => "bpffs",
        }
    }

    pub(crate) fn why(&self) -> &'static str {
        match self {
            Self::Package(package) => package.why,
            Self::Component(component) => component.why,
            Self::BpfLinker => "links the eBPF programs",
            Self::CargoDeny => "checks licences, sources and duplicates of the dependencies",
            Self::Bpffs => "programs, links and maps are pinned there",
        }
    }

    /// The package's name, for a step that is one.
    pub(crate) fn package(&self) -> Option<&'static str> {
        match self {
            Self::Package(package) => Some(package.name),
            Self::Component(_) | Self::BpfLinker | Self::CargoDeny | Self::Bpffs => None,
        }
    }

    pub(crate) fn is_present(&self, tree: &Tree) -> Result<bool> {
        match self {
            Self::Package(package) => Ok(is_there(package.probe)),
            Self::Component(component) => Ok(toolchain()?.join(component.probe).is_file()),
            Self::BpfLinker => Ok(has_version(&tree.tool("bpf-linker"), BPF_LINKER)),
            Self::CargoDeny => Ok(has_version(&tree.tool("cargo-deny"), CARGO_DENY)),
            Self::Bpffs => {
                let mounts = fs::read_to_string("/proc/mounts").context("cannot read mounts")?;
                Ok(has_bpffs(&mounts))
            }
        }
    }

    /// Installs what is not a package; those go together, through `apt`.
    pub(crate) fn install(&self, tree: &Tree) -> Result<()> {
        let mut command = self.command(tree);
        say!("  $ {}", self.shown(tree));
        if matches!(self, Self::Component(_)) && !is_there("rustup") {
            bail!("there is no rustup; add this part to the Rust toolchain by hand");
        }
        process::run(&mut command)
    }

    /// The command as one would type it in the checkout.
    pub(crate) fn shown(&self, tree: &Tree) -> String {
        let command = self.command(tree);
        let mut words = Vec::new();
        for (name, value) in command.get_envs() {
            if let (Some(name @ ("LLVM_PREFIX" | "PATH")), Some(value)) = (name.to_str(), value) {
                let value = value.to_string_lossy();
                // The rest of the path is the caller's own.
                let value = if name == "PATH" { format!("{LLVM}/bin:$PATH") } else { value.into() };
                words.push(format!("{name}={value}"));
            }
        }
        let program = Path::new(command.get_program());
        words.push(program.file_name().unwrap_or_default().to_string_lossy().into_owned());
        words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
        words.join(" ")
    }

    fn command(&self, tree: &Tree) -> Command {
        match self {
            Self::Package(package) => {
                let mut command = Command::new("apt-get");
                command.args(["install", package.name]);
                command
            }
            Self::Component(component) => {
                let mut command = Command::new("rustup");
                command.args(["component", "add", component.name]);
                command
            }
            Self::BpfLinker => {
                let mut command = cargo_install(tree, "bpf-linker", BPF_LINKER);
                command.args(["--no-default-features", "--features", "llvm-22"]);
                let path = env::var("PATH").unwrap_or_default();
                command.env("LLVM_PREFIX", LLVM).env("PATH", format!("{LLVM}/bin:{path}"));
                command
            }
            Self::CargoDeny => {
                let mut command = cargo_install(tree, "cargo-deny", CARGO_DENY);
                // It runs for two seconds; optimising it would take minutes.
                command.arg("--debug");
                command
            }
            Self::Bpffs => {
                let mut command = Command::new("mount");
                command.args(["-t", "bpf", "bpf", BPFFS]);
                command
            }
        }
    }
}

fn cargo_install(tree: &Tree, name: &str, version: &str) -> Command {
    let mut command = cargo(tree);
    command.args(["install", name, "--version", version, "--locked", "--force", "--root"]);
    command.arg(tree.tools());
    command
}

/// A path is looked for where it says, a bare name in the path and where root's programs are.
pub(crate) fn is_there(probe: &str) -> bool {
    if probe.starts_with('/') {
        return Path::new(probe).exists();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(Into::into);
    env::split_paths(&path).chain(system).any(|directory| directory.join(probe).is_file())
}

/// Where the toolchain is that compiles this checkout.
fn toolchain() -> Result<PathBuf> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let root = process::capture(Command::new(rustc).args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(root.trim()))
}

/// A tool that does not start (its LLVM was removed) is as good as missing.
fn has_version(tool: &Path, version: &str) -> bool {
    let said = process::capture(Command::new(tool).arg("--version")).unwrap_or_default();
    said.split_whitespace().any(|word| word == version)
}

fn has_bpffs(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        (words.next(), words.next()) == (Some(BPFFS), Some("bpf"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_in_the_kernels_list() {
        let with = "proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw,relatime 0 0\n";
        assert!(has_bpffs(with));
        assert!(!has_bpffs("sysfs /sys sysfs rw 0 0\nbpf /run/bpf bpf rw 0 0\n"));
        assert!(!has_bpffs("tmpfs /sys/fs/bpf tmpfs rw 0 0\n"));
    }

    #[test]
    fn tools_of_another_version_are_missing() {
        let shell = Path::new("/bin/echo");
        assert!(has_version(shell, "--version") || !has_version(shell, BPF_LINKER));
        assert!(!has_version(Path::new("/nonexistent/bpf-linker"), BPF_LINKER));
    }

    #[test]
    fn programs_are_looked_up() {
        assert!(is_there("sh") && is_there("/bin/sh"));
        assert!(!is_there("no-such-program") && !is_there("/no/such/file"));
    }

    #[test]
    fn commands_are_shown_as_one_would_type_them() {
        let tree = Tree { root: "/checkout".into(), target: "/checkout/target".into() };
        let shown = Step::BpfLinker.shown(&tree);
        assert!(shown.contains("LLVM_PREFIX=/usr/lib/llvm-22"), "{shown}");
        assert!(shown.contains("PATH=/usr/lib/llvm-22/bin:$PATH"), "{shown}");
        assert!(shown.contains("cargo install bpf-linker --version 0.13.0 --locked"), "{shown}");
        assert!(shown.contains("--root /checkout/target/tools"), "{shown}");
        assert_eq!(Step::Bpffs.shown(&tree), "mount -t bpf bpf /sys/fs/bpf");
    }
}
