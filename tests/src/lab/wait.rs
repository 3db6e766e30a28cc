//! Waiting for a condition, always with a deadline.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// How often a condition is looked at. Short, as tests are made of these waits; long enough that
/// looking (often a child process) does not become the load.
const POLL: Duration = Duration::from_millis(50);

/// Waits until `condition` is true.
///
/// # Errors
/// The condition itself fails, or is not true within `deadline`; the error names `what`.
pub fn until(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > deadline {
            bail!("not within {deadline:?}: {what}");
        }
        std::thread::park_timeout(POLL);
    }
    Ok(())
}

/// Lets `duration` of the lab's life pass, to observe it; fails as soon as `healthy` does.
///
/// # Errors
/// What `healthy` says.
pub fn observe(duration: Duration, mut healthy: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < duration {
        healthy()?;
        std::thread::park_timeout(POLL);
    }
    Ok(())
}
