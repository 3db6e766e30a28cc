//! Each finding by a machine that differs in one thing from one where all is well.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::facts::effective_capabilities;
use super::*;
use crate::host::netlink::Link;

fn link(name: &str, up: bool, ethernet: bool) -> (Arc<str>, Link) {
    let mac = ethernet.then_some([2, 0, 0, 0, 0, 1]);
    (name.into(), Link { index: 2, name: name.into(), up, mtu: 1_500, mac })
}

fn good() -> Facts {
    Facts {
        kernel: "6.1.0-13-amd64".into(),
        capabilities: Some(u64::MAX),
        btf: true,
        bpf: BpfProbe::Works,
        jit: Some(true),
        grace_period: true,
        pin_file_system: PinFileSystem::Bpf,
        layouts: BTreeSet::from([1]),
        links: Ok(BTreeMap::from([
            link("eth0", true, true),
            link("eth1", false, true),
            link("lo", true, false),
        ])),
    }
}

fn found(interfaces: &[&str], change: impl FnOnce(&mut Facts)) -> Vec<String> {
    let interfaces: Vec<String> = interfaces.iter().map(|name| (*name).to_owned()).collect();
    let pin_path = Path::new("/sys/fs/bpf/lb");
    let wants = Wants { pin_path, interfaces: &interfaces, layout: 1 };
    let mut facts = good();
    change(&mut facts);
    findings(&wants, &facts).iter().map(ToString::to_string).collect()
}

type Case = (&'static [&'static str], fn(&mut Facts), &'static [&'static str]);

const NET_ADMIN_ONLY: u64 = 1 << 12;
const SYS_ADMIN_ONLY: u64 = 1 << 21;
const CASES: &[Case] = &[
    (&["eth0"], |_| {}, &[]),
    (&[], |f| f.layouts.clear(), &[]),
    (&[], |f| f.kernel = "6.12.5".into(), &[]),
    (
        &[],
        |f| f.kernel = "5.15.0-91-generic".into(),
        &["error[kernel-too-old]: kernel 5.15.0-91-generic is older than 6.1; \
             help: run Linux 6.1 or newer, for instance Debian 12's"],
    ),
    (
        &[],
        |f| f.kernel = "strange".into(),
        &["warning[kernel-unknown]: cannot tell the kernel's version from `strange`; \
             help: run Linux 6.1 or newer, for instance Debian 12's"],
    ),
    (
        &[],
        |f| f.capabilities = Some(NET_ADMIN_ONLY),
        &["error[capability-missing]: the process lacks CAP_BPF, CAP_PERFMON; \
             help: run as root, or with AmbientCapabilities=CAP_BPF CAP_PERFMON"],
    ),
    (
        &[],
        |f| f.capabilities = Some(SYS_ADMIN_ONLY),
        &["error[capability-missing]: the process lacks CAP_NET_ADMIN; \
             help: run as root, or with AmbientCapabilities=CAP_NET_ADMIN"],
    ),
    (
        &[],
        |f| f.capabilities = None,
        &["warning[capability-unknown]: cannot read the process's capabilities from \
             /proc/self/status; help: mount proc on /proc"],
    ),
    (
        &[],
        |f| f.btf = false,
        &["error[no-btf]: the kernel has no type information in /sys/kernel/btf/vmlinux; \
             help: run a kernel with CONFIG_DEBUG_INFO_BTF=y, and mount sysfs on /sys"],
    ),
    (
        &[],
        |f| f.bpf = BpfProbe::Program(libc::ENOSYS),
        &["error[bpf-missing]: the kernel cannot load an XDP program: Function not implemented \
             (os error 38); help: run a kernel with CONFIG_BPF_SYSCALL=y"],
    ),
    (
        &[],
        |f| f.bpf = BpfProbe::Map(libc::EPERM),
        &["error[bpf-forbidden]: the kernel forbids to make a memory-mapped BPF array although \
             the capabilities are there; help: run outside user namespaces and containers that \
             filter bpf(2), and with kernel lockdown below `confidentiality`"],
    ),
    (
        &[],
        |f| f.jit = Some(false),
        &["warning[no-jit]: BPF programs are interpreted, which costs most of the throughput; \
             help: sysctl net.core.bpf_jit_enable=1 (CONFIG_BPF_JIT=y)"],
    ),
    (
        &[],
        |f| f.grace_period = false,
        &["error[no-membarrier]: the kernel offers no global membarrier, so tables cannot be \
             replaced; help: run a kernel with CONFIG_MEMBARRIER=y and without nohz_full= on its \
             command line"],
    ),
    (
        &[],
        |f| f.pin_file_system = PinFileSystem::Other,
        &["error[no-bpffs]: pin_path /sys/fs/bpf/lb is not on a BPF file system; \
             help: mount -t bpf bpf /sys/fs/bpf"],
    ),
    (
        &[],
        |f| f.pin_file_system = PinFileSystem::Unknown("Permission denied".into()),
        &["error[pin-path]: cannot look at pin_path /sys/fs/bpf/lb: Permission denied; \
             help: give an absolute path that this process may read"],
    ),
    (
        &[],
        |f| f.layouts = BTreeSet::from([1, 2, 7]),
        &["error[other-layout]: /sys/fs/bpf/lb holds pins of another layout (v2, v7); this lbd \
             uses v1 and never reuses others; \
             help: lbctl unload --pin-path /sys/fs/bpf/lb, then start again"],
    ),
    (
        &["eth7"],
        |_| {},
        &["error[interface-missing]: there is no interface eth7; \
             help: set dataplane.interfaces; here are: eth0, eth1"],
    ),
    (
        &["eth7"],
        |f| f.links = Ok(BTreeMap::new()),
        &["error[interface-missing]: there is no interface eth7; \
             help: this network namespace has no Ethernet interface; start lbd in another one"],
    ),
    (
        &["eth1"],
        |_| {},
        &["warning[interface-down]: interface eth1 is down or has no carrier; \
             help: ip link set eth1 up, and look at its cable"],
    ),
    (
        &["lo"],
        |_| {},
        &["error[interface-not-ethernet]: interface lo is not an Ethernet interface; help: set \
             dataplane.interfaces to the interfaces that packets for VIPs arrive on"],
    ),
    (
        &["eth0"],
        |f| f.links = Err("netlink: open: denied".into()),
        &["error[interface-unknown]: cannot look for interface eth0: netlink: open: denied; \
             help: let \
             lbd open netlink sockets (RestrictAddressFamilies=AF_NETLINK)"],
    ),
];
#[test]
fn one_sentence_for_each_lack() {
    for (interfaces, change, want) in CASES {
        assert_eq!(found(interfaces, change), *want);
    }
}

#[test]
fn all_findings_come_at_once_and_errors_first() {
    let ids = |findings: Vec<String>| -> Vec<String> {
        let id = |text: &String| text.split([':']).next().unwrap_or_default().to_owned();
        findings.iter().map(id).collect()
    };
    let got = found(&["eth1", "eth7"], |facts| {
        facts.jit = Some(false);
        facts.btf = false;
        // The refusal that follows from the missing capability is not told twice.
        facts.capabilities = Some(0);
        facts.bpf = BpfProbe::Program(libc::EPERM);
    });
    assert_eq!(
        ids(got),
        [
            "error[capability-missing]",
            "error[no-btf]",
            "error[interface-missing]",
            "warning[no-jit]",
            "warning[interface-down]",
        ]
    );
}

#[test]
fn many_names_are_cut() {
    let names: Vec<String> = (0..10).map(|n| format!("eth{n}")).collect();
    assert_eq!(list(&names[..1]), "eth0");
    assert!(list(&names[..8]).ends_with("eth6, eth7"));
    assert!(list(&names).ends_with("eth6, eth7 and 2 more"));
}

#[test]
fn capabilities_of_a_process() {
    for (status, want) in [
        ("Name:\tlbd\nCapEff:\t000001ffffffffff\nSeccomp:\t0\n", Some(0x1ff_ffff_ffff)),
        ("CapEff:\t0000000000000000\n", Some(0)),
        ("CapEff:\tzz\n", None),
        ("", None),
    ] {
        assert_eq!(effective_capabilities(status), want, "{status}");
    }
}

#[test]
fn directories_of_layouts() {
    assert_eq!(pin_directory(Path::new("/sys/fs/bpf/lb"), 3), Path::new("/sys/fs/bpf/lb/v3"));
    for (name, want) in [("v3", Some(3)), ("v", None), ("3", None), ("vx", None), ("v-1", None)] {
        assert_eq!(layout_of(name), want, "{name}");
    }
}

/// What this machine says of itself must be readable, whatever it is.
#[test]
fn the_machine_under_the_test() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let wants = Wants { pin_path: Path::new("/proc/self"), interfaces: &[], layout: 1 };
    let facts = runtime.expect("a runtime").block_on(gather(&wants));
    assert!(parse_release(&facts.kernel).is_some(), "{}", facts.kernel);
    assert!(facts.links.as_ref().expect("links").contains_key("lo"));
    assert!(matches!(facts.pin_file_system, PinFileSystem::Other));
    let root = facts.capabilities.expect("capabilities") & (1 << 39) != 0;
    if root {
        assert_eq!(facts.bpf, BpfProbe::Works);
    } else {
        println!("SKIP the BPF probe needs CAP_BPF");
    }
}
