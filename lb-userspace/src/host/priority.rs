//! The calling thread's turn on the CPU: threads that other machines watch must not wait in line.
//!
//! Must not: change any other thread.

use std::io;

/// Lets the calling thread run before those with a higher number; -20 (first) to 19.
///
/// # Errors
/// Below what RLIMIT_NICE allows without CAP_SYS_NICE.
pub fn set_nice(nice: i32) -> io::Result<()> {
    // On Linux "process 0" is the calling thread, and its niceness is its own (setpriority(2)).
    // SAFETY: takes no pointer.
    let code = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets the calling thread run before every thread that is not real-time (SCHED_RR), at the lowest
/// of the real-time priorities. It must sleep most of the time, and its children do not inherit it.
///
/// # Errors
/// No CAP_SYS_NICE, or the control group has no real-time budget.
pub fn set_real_time() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the pointer is to a live value of ours; thread 0 is the calling one.
    let code = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> i32 {
        // SAFETY: takes no pointer.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    }

    /// Everybody may be nicer, so this needs no privilege.
    #[test]
    fn only_this_thread_changes() {
        let before = nice();
        let worker = std::thread::spawn(move || {
            set_nice(before + 1).unwrap();
            nice()
        });
        assert_eq!(worker.join().unwrap(), before + 1);
        assert_eq!(nice(), before);
    }
}
