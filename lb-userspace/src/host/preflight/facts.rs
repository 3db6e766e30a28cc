//! Reads what [`super::findings`] judges. Reading fails softly: what could not be read is a fact.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use super::{Wants, layout_of};
use crate::host::membarrier;
use crate::host::netlink::{self, Link};

/// BPF_FS_MAGIC of magic.h.
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
/// Most entries read from the pin directory.
const MAX_ENTRIES: usize = 1_024;

/// Commands, types and flags of bpf.h that libc does not name.
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_F_MMAPABLE: u32 = 1 << 10;
/// `r0 = XDP_PASS; exit`, the least program there is.
const PASS: [u64; 2] = [0x2_0000_00b7, 0x95];

/// Whether the kernel lets us load programs and make maps, tried with the least ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BpfProbe {
    /// Both can be done.
    Works,
    /// A program was refused with this errno.
    Program(i32),
    /// A map was refused with this errno.
    Map(i32),
}

/// What the pin path is on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PinFileSystem {
    /// A BPF file system.
    Bpf,
    /// Another one.
    Other,
    /// It could not be looked at.
    Unknown(String),
}

/// What is known of the machine.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// `CapEff` of this process: a bit per capability.
    pub capabilities: Option<u64>,
    /// The kernel describes its types.
    pub btf: bool,
    /// Whether BPF can be used.
    pub bpf: BpfProbe,
    /// Whether programs are compiled; `None` if the kernel does not tell.
    pub jit: Option<bool>,
    /// Whether replaced tables can be reused.
    pub grace_period: bool,
    /// What the pin path is on.
    pub pin_file_system: PinFileSystem,
    /// The layout versions with pins below the pin path.
    pub layouts: BTreeSet<u32>,
    /// The network interfaces by name, or why they could not be listed.
    pub links: Result<BTreeMap<Arc<str>, Link>, String>,
}

/// Reads the machine. Takes some milliseconds.
pub async fn gather(wants: &Wants<'_>) -> Facts {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    Facts {
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        capabilities: effective_capabilities(&read("/proc/self/status")),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        bpf: probe_bpf(),
        jit: jit(&read("/proc/sys/net/core/bpf_jit_enable")),
        grace_period: membarrier::is_supported(),
        pin_file_system: pin_file_system(wants.pin_path),
        layouts: layouts(wants.pin_path),
        links: netlink::links().await.map_err(|error| error.to_string()),
    }
}

/// The `CapEff:` line of /proc/self/status, 16 hexadecimal digits.
pub(super) fn effective_capabilities(status: &str) -> Option<u64> {
    let digits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(digits.trim(), 16).ok()
}

fn jit(setting: &str) -> Option<bool> {
    setting.trim().parse::<u32>().ok().map(|value| value > 0)
}

/// The layout versions below a pin path; none if it does not exist yet.
fn layouts(pin_path: &Path) -> BTreeSet<u32> {
    let Ok(entries) = std::fs::read_dir(pin_path) else { return BTreeSet::new() };
    let names = entries.take(MAX_ENTRIES).flatten().map(|entry| entry.file_name());
    names.filter_map(|name| layout_of(&name.to_string_lossy())).collect()
}

fn pin_file_system(pin_path: &Path) -> PinFileSystem {
    // lbd makes the missing directories, so what counts is the one they will be made in.
    let existing = pin_path.ancestors().find(|path| path.is_dir());
    let Some(existing) = existing.filter(|_| pin_path.is_absolute()) else {
        return PinFileSystem::Unknown("not an absolute path".into());
    };
    match file_system_magic(existing) {
        Ok(BPF_FS_MAGIC) => PinFileSystem::Bpf,
        Ok(_) => PinFileSystem::Other,
        Err(error) => PinFileSystem::Unknown(error.to_string()),
    }
}

fn file_system_magic(path: &Path) -> io::Result<u32> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut answer = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path is a C string and the answer has room for a statfs; both live until the
    // call returns.
    let code = unsafe { libc::statfs(path.as_ptr(), answer.as_mut_ptr()) };
    if code != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, and then it has filled all of the answer.
    let answer = unsafe { answer.assume_init() };
    // Magic numbers have 32 bits; the field is wider, and signed, on some architectures.
    Ok(u32::try_from(answer.f_type & 0xffff_ffff).unwrap_or(0))
}

/// The head of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// The head of `union bpf_attr` for BPF_MAP_CREATE.
#[repr(C)]
struct MapAttributes {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    max_entries: u32,
    flags: u32,
}

fn probe_bpf() -> BpfProbe {
    let license = c"GPL";
    let address = |pointer: *const u8| u64::try_from(pointer.addr()).unwrap_or(0);
    let program = LoadAttributes {
        kind: BPF_PROG_TYPE_XDP,
        instruction_count: 2,
        instructions: address(PASS.as_ptr().cast()),
        license: address(license.as_ptr().cast()),
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    let map = MapAttributes {
        kind: BPF_MAP_TYPE_ARRAY,
        key_bytes: 4,
        value_bytes: 8,
        max_entries: 1,
        flags: BPF_F_MMAPABLE,
    };
    if let Err(errno) = bpf(BPF_PROG_LOAD, &program) {
        return BpfProbe::Program(errno);
    }
    match bpf(BPF_MAP_CREATE, &map) {
        Ok(_closed_at_once) => BpfProbe::Works,
        Err(errno) => BpfProbe::Map(errno),
    }
}

/// Calls bpf(2) for an object, which ends with the returned descriptor; or returns the errno.
fn bpf<T>(command: libc::c_long, attributes: &T) -> Result<OwnedFd, i32> {
    let attributes: *const T = attributes;
    // SAFETY: the attributes and all they point to outlive the call, which only reads them, and
    // only as many bytes as it is told.
    let code = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    let failed = || io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    let descriptor = i32::try_from(code).ok().filter(|descriptor| *descriptor >= 0);
    let descriptor = descriptor.ok_or_else(failed)?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
