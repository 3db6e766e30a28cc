//! The few system calls for which the standard library has no name: all unsafe code of the lab.

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::addresses::Family;

/// `BPF_PROG_LOAD` of linux/bpf.h.
const PROG_LOAD: libc::c_int = 5;
/// `BPF_OBJ_PIN`.
const OBJ_PIN: libc::c_int = 6;
/// `BPF_LINK_CREATE`.
const LINK_CREATE: libc::c_int = 28;
/// `BPF_PROG_TYPE_SCHED_CLS`.
const TYPE_SCHED_CLS: u32 = 3;
/// `BPF_PROG_TYPE_XDP`.
const TYPE_XDP: u32 = 6;
/// `BPF_XDP`, the attach type.
const ATTACH_XDP: u32 = 37;

/// `return XDP_PASS`: move 2 to r0, exit (each instruction is eight bytes).
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

/// `bpf_set_hash_invalid(packet); return TC_ACT_OK`: call helper 41, move 0 to r0, exit.
const FORGET_HASH: [u64; 3] = [0x0000_0029_0000_0085, 0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];

/// Drops what is TCP in IPv4 and has PSH set: move the packet from r1 to r6, where loads take it;
/// byte 23, the protocol, is 6? Byte 47, the flags, has bit 3? Then 2 (`TC_ACT_SHOT`) to r0, exit;
/// else 0 (`TC_ACT_OK`) to r0, exit.
const DROP_TCP_DATA: [u64; 10] = [
    0x0000_0000_0000_16bf,
    0x0000_0017_0000_0030,
    0x0000_0006_0005_0055,
    0x0000_002f_0000_0030,
    0x0000_0008_0000_0057,
    0x0000_0000_0002_0015,
    0x0000_0002_0000_00b7,
    0x0000_0000_0000_0095,
    0x0000_0000_0000_00b7,
    0x0000_0000_0000_0095,
];

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes what follows as zero.
#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

/// The head of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkAttr {
    prog_fd: RawFd,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The head of `union bpf_attr` for `BPF_OBJ_PIN`.
#[repr(C)]
struct PinAttr {
    pathname: u64,
    bpf_fd: RawFd,
    file_flags: u32,
}

/// Moves the calling thread into a network namespace. Sockets it makes from now on, and threads
/// and programs it starts, live there.
///
/// # Errors
/// The file is missing, is not a network namespace, or we are not root.
pub fn enter_network_namespace(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    // SAFETY: setns takes a descriptor, open for the call, and a constant; it touches no memory.
    let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    ensure!(result == 0, "cannot enter {}: {}", path.display(), io::Error::last_os_error());
    Ok(())
}

/// Sends SIGTERM to one process.
///
/// # Errors
/// There is no such process.
pub fn terminate(pid: u32) -> Result<()> {
    signal(pid, libc::SIGTERM)
}

/// Sends SIGHUP to one process.
///
/// # Errors
/// There is no such process.
pub fn hang_up(pid: u32) -> Result<()> {
    signal(pid, libc::SIGHUP)
}

/// Sends SIGSTOP to one process: it stands still until [`resume`].
///
/// # Errors
/// There is no such process.
pub fn freeze(pid: u32) -> Result<()> {
    signal(pid, libc::SIGSTOP)
}

/// Sends SIGCONT to one process.
///
/// # Errors
/// There is no such process.
pub fn resume(pid: u32) -> Result<()> {
    signal(pid, libc::SIGCONT)
}

/// Sends SIGKILL to one process.
///
/// # Errors
/// There is no such process.
pub fn kill(pid: u32) -> Result<()> {
    signal(pid, libc::SIGKILL)
}

fn signal(pid: u32, signal: libc::c_int) -> Result<()> {
    let pid = libc::pid_t::try_from(pid).context("not a process id")?;
    // 0 and negative numbers would mean whole groups.
    ensure!(pid > 1, "not a process id: {pid}");
    // SAFETY: kill takes two integers and touches no memory.
    let result = unsafe { libc::kill(pid, signal) };
    ensure!(result == 0, "cannot signal {pid}: {}", io::Error::last_os_error());
    Ok(())
}

/// Whether we are root.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: geteuid has no arguments and cannot fail.
    let euid = unsafe { libc::geteuid() };
    euid == 0
}

/// A socket for echo requests: what is sent is the ICMP message, what comes is the answer to it.
///
/// # Errors
/// The kernel refuses (`ping_group_range` of the namespace).
pub fn ping_socket(family: Family) -> Result<UdpSocket> {
    let (domain, protocol) = match family {
        Family::V4 => (libc::AF_INET, libc::IPPROTO_ICMP),
        Family::V6 => (libc::AF_INET6, libc::IPPROTO_ICMPV6),
    };
    // SAFETY: socket takes three integers and touches no memory.
    let result = unsafe { libc::socket(domain, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol) };
    ensure!(result >= 0, "cannot make a socket for pings: {}", io::Error::last_os_error());
    Ok(descriptor(result.into())?.into())
}

/// Attaches a program that passes every packet to an interface of the calling thread's namespace,
/// for as long as the returned descriptor lives.
///
/// What a program at the other end of a veth sends with `XDP_TX` is received only if this end has
/// an XDP program too.
///
/// # Errors
/// There is no such interface, it has an XDP program already, or we are not root.
pub fn attach_xdp_pass(interface: &str) -> Result<OwnedFd> {
    let program = load(TYPE_XDP, &PASS)?;
    let index = interface_index(interface)?;
    let link = LinkAttr {
        prog_fd: program.as_raw_fd(),
        target_ifindex: index,
        attach_type: ATTACH_XDP,
        flags: 0,
    };
    let result =
        bpf(LINK_CREATE, &link).with_context(|| format!("cannot attach XDP to {interface}"))?;
    descriptor(result)
}

/// Pins a program for tc, below `/sys/fs/bpf`, that makes the kernel forget the hash of a packet.
///
/// Across a veth a packet keeps the hash that its sender's socket drew at random, and the kernel's
/// multipath routing takes that one if there is one, ports or not; it is even drawn anew when a
/// packet is sent again. A packet from a wire has none, and neither has one after this program.
///
/// # Errors
/// The path is taken, not on a BPF file system, or we are not root.
pub fn pin_forget_hash(path: &Path) -> Result<()> {
    pin_classifier(path, &FORGET_HASH)
}

/// Pins a program for tc, below `/sys/fs/bpf`, that drops what is said over TCP in IPv4: segments
/// with PSH, as the last one of every write has. Connections come about, and stay silent.
///
/// # Errors
/// As [`pin_forget_hash`].
pub fn pin_drop_tcp_data(path: &Path) -> Result<()> {
    pin_classifier(path, &DROP_TCP_DATA)
}

fn pin_classifier(path: &Path, instructions: &[u64]) -> Result<()> {
    let program = load(TYPE_SCHED_CLS, instructions)?;
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    let pin = PinAttr {
        pathname: name.as_ptr().addr() as u64,
        bpf_fd: program.as_raw_fd(),
        file_flags: 0,
    };
    bpf(OBJ_PIN, &pin).with_context(|| format!("cannot pin {}", path.display()))?;
    Ok(())
}

fn load(prog_type: u32, instructions: &[u64]) -> Result<OwnedFd> {
    let license = c"GPL";
    let load = LoadAttr {
        prog_type,
        insn_cnt: u32::try_from(instructions.len())?,
        insns: instructions.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
    };
    let result = bpf(PROG_LOAD, &load).context("cannot load a BPF program")?;
    descriptor(result)
}

/// The index of an interface of the calling thread's namespace.
fn interface_index(name: &str) -> Result<u32> {
    let text = std::ffi::CString::new(name)?;
    // SAFETY: the pointer is to a NUL-terminated string that outlives the call.
    let index = unsafe { libc::if_nametoindex(text.as_ptr()) };
    ensure!(index != 0, "no interface {name}: {}", io::Error::last_os_error());
    Ok(index)
}

fn bpf<T>(command: libc::c_int, attr: &T) -> Result<libc::c_long> {
    // SAFETY: `attr` is a C structure that outlives the call, and its size is what we say; the
    // commands in use read it, and what it points to, and write nothing.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    ensure!(result >= 0, io::Error::last_os_error());
    Ok(result)
}

/// The descriptor that a system call has just returned.
fn descriptor(result: libc::c_long) -> Result<OwnedFd> {
    let fd = RawFd::try_from(result).context("not a descriptor")?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
