//! Pins of a BPF file system, opened, and links detached, by bpf(2) itself: aya does neither.
//!
//! A link that merely loses its pin goes on for a moment, until the kernel has cleaned up. Whoever
//! says that an interface is free must detach first.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// BPF_OBJ_GET of linux/bpf.h.
const BPF_OBJ_GET: libc::c_long = 7;
/// BPF_LINK_DETACH of linux/bpf.h.
const BPF_LINK_DETACH: libc::c_long = 34;

/// The start of `union bpf_attr` for BPF_OBJ_GET.
#[repr(C)]
struct ObjectAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

/// The start of `union bpf_attr` for BPF_LINK_DETACH.
#[repr(C)]
struct DetachAttributes {
    link: u32,
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    let at: *const T = attributes;
    // SAFETY: the attributes live until the call returns; the kernel reads no more than their
    // size, and these commands write nothing back.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, at, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Opens whatever is pinned at `path`.
///
/// # Errors
/// Nothing is, or the kernel refuses.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let attributes = ObjectAttributes { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    let fd = i32::try_from(bpf(BPF_OBJ_GET, &attributes)?).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave it to us, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Detaches a link at once. One whose interface is gone is detached already.
///
/// # Errors
/// It is no link, or of a kind that cannot be detached.
pub fn detach(link: &OwnedFd) -> io::Result<()> {
    let link = u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?;
    match bpf(BPF_LINK_DETACH, &DetachAttributes { link }) {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Detaches a pinned link at once, then removes its pin.
///
/// # Errors
/// The kernel refuses one of the two.
pub fn remove_link(path: &Path) -> io::Result<()> {
    open(path).and_then(|link| detach(&link))?;
    std::fs::remove_file(path)
}
