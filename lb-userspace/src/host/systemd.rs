//! What the service manager is told (sd_notify(3)); all of it does nothing without one.
//!
//! Failing to tell it never stops the load balancer: callers log the error and go on.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;

use super::clock;

/// Status lines are cut here; `systemctl status` shows one line.
pub const MAX_STATUS_BYTES: usize = 200;

/// Start-up is complete: attached, tables loaded, API up. Also ends a reload.
///
/// # Errors
///
/// The notification socket is named but cannot be written to.
pub fn ready(status: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(one_line(status))])
}

/// A reload has begun; [`ready`] ends it. The time is what `Type=notify-reload` requires.
///
/// # Errors
///
/// The notification socket is named but cannot be written to.
pub fn reloading() -> io::Result<()> {
    let now_us = i128::try_from(clock::monotonic().as_micros()).unwrap_or(i128::MAX);
    sd_notify::notify(&[NotifyState::Reloading, NotifyState::MonotonicUsec(now_us)])
}

/// The daemon is about to end; the data plane goes on without it.
///
/// # Errors
///
/// The notification socket is named but cannot be written to.
pub fn stopping(status: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status(one_line(status))])
}

/// Stopping takes so long from now; without it the service manager would cut it short.
///
/// # Errors
///
/// The notification socket is named but cannot be written to.
pub fn extend_timeout(time: Duration) -> io::Result<()> {
    let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(micros)])
}

/// The one line that `systemctl status` shows.
///
/// # Errors
///
/// The notification socket is named but cannot be written to.
pub fn status(status: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Status(one_line(status))])
}

/// A sign of life; to be sent by the controller's loop itself every [`watchdog_period`].
///
/// # Errors
///
/// The notification socket is named but cannot be written to.
pub fn watchdog() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Watchdog])
}

/// How often [`watchdog`] must be called: half of WatchdogSec=, as sd_watchdog_enabled(3) advises;
/// `None` when the unit asks for no watchdog.
#[must_use]
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// A newline would end the assignment and begin another one.
fn one_line(status: &str) -> &str {
    let line = status.split(['\n', '\r']).next().unwrap_or_default();
    line.get(..line.floor_char_boundary(MAX_STATUS_BYTES)).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_bounded_line() {
        let long = "ä".repeat(MAX_STATUS_BYTES);
        for (status, want) in [
            ("4 of 4 backends up", "4 of 4 backends up"),
            ("a\nREADY=1", "a"),
            ("", ""),
            (long.as_str(), &long[..MAX_STATUS_BYTES]),
        ] {
            assert_eq!(one_line(status), want);
        }
    }

    #[test]
    fn nothing_happens_without_a_service_manager() {
        assert!(std::env::var_os("NOTIFY_SOCKET").is_none());
        ready("up").expect("no socket, no error");
        reloading().expect("no socket, no error");
        status("up").expect("no socket, no error");
        watchdog().expect("no socket, no error");
        stopping("bye").expect("no socket, no error");
        assert_eq!(watchdog_period(), None);
    }
}
