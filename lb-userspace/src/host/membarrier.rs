//! Waits until no packet program that is running now can still be running.
//!
//! The controller calls it after it swapped a table descriptor and before it writes into the
//! memory of the old table. It must not be called from a thread that serves anything urgent: it
//! blocks for a grace period, some milliseconds to tens of milliseconds.

use std::io;

/// From the kernel's include/uapi/linux/membarrier.h; libc exports no names for the commands.
const MEMBARRIER_CMD_QUERY: libc::c_long = 0;
const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;

/// Why there was no grace period.
#[derive(Debug, thiserror::Error)]
pub enum GracePeriodError {
    /// The kernel has no membarrier system call or does not offer the global command.
    #[error(
        "this kernel offers no global membarrier (CONFIG_MEMBARRIER, and no nohz_full= on its \
         command line), so a replaced table cannot be reused safely"
    )]
    Unsupported,
    /// The kernel offers it and yet refused.
    #[error("membarrier failed: {0}")]
    Refused(#[source] io::Error),
}

/// True if [`wait_for_grace_period`] works on this kernel; cheap, does not wait.
#[must_use]
pub fn is_supported() -> bool {
    matches!(membarrier(MEMBARRIER_CMD_QUERY), Ok(offered) if offered & MEMBARRIER_CMD_GLOBAL != 0)
}

/// Returns when every XDP or tc program that had started before the call has ended.
///
/// MEMBARRIER_CMD_GLOBAL is the kernel's `synchronize_rcu()`, and packet programs run inside an
/// RCU read-side section. Blocks the calling thread: milliseconds when idle, tens of them on a
/// busy machine.
///
/// A kernel with full dynticks (`nohz_full=`) refuses the command. What is left there: update an
/// array of maps by system call, after which the kernel itself waits for the same grace period.
///
/// # Errors
///
/// [`GracePeriodError`]; the caller must then not reuse what the old descriptor points to.
pub fn wait_for_grace_period() -> Result<(), GracePeriodError> {
    match membarrier(MEMBARRIER_CMD_GLOBAL) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {
            Err(GracePeriodError::Unsupported)
        }
        Err(error) => Err(GracePeriodError::Refused(error)),
    }
}

fn membarrier(command: libc::c_long) -> io::Result<libc::c_long> {
    let flags: libc::c_long = 0;
    let processor: libc::c_long = 0;
    // SAFETY: membarrier takes three integers and touches no memory of the caller.
    let code = unsafe { libc::syscall(libc::SYS_membarrier, command, flags, processor) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_period_ends_or_says_why_it_cannot() {
        match wait_for_grace_period() {
            Ok(()) => assert!(is_supported()),
            Err(GracePeriodError::Unsupported) => assert!(!is_supported()),
            Err(error @ GracePeriodError::Refused(_)) => panic!("{error}"),
        }
    }
}
