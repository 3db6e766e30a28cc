//! Waiting until no program that began before still runs, so that what it may have read can be
//! written over.

use std::io;

use super::Error;

/// `MEMBARRIER_CMD_GLOBAL` of membarrier(2): returns after an RCU grace period, and XDP programs
/// run inside RCU read sections.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// Waits; a few to some tens of milliseconds.
///
/// # Errors
/// The kernel was built without membarrier.
pub(super) fn wait() -> Result<(), Error> {
    // SAFETY: no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result == 0 { Ok(()) } else { Err(Error::Grace(io::Error::last_os_error())) }
}
