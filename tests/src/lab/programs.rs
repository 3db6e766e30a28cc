//! Where the programs under test are, and where the lab may write.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// The directory of the programs of this build: that of our own, without `deps` for a test.
///
/// # Errors
/// We do not know where we are.
pub fn directory() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find our own program")?;
    let parent = own.parent().context("our program has no directory")?;
    let parent = if parent.ends_with("deps") { parent.parent() } else { Some(parent) };
    Ok(parent.context("our program has no directory")?.to_owned())
}

/// A program of this build, `lbd` for example.
///
/// # Errors
/// It is not built.
pub fn find(name: &str) -> Result<PathBuf> {
    let path = directory()?.join(name);
    ensure!(path.exists(), "{} is missing: build lb-userspace first", path.display());
    Ok(path)
}

/// The directory `target`.
///
/// # Errors
/// We do not know where we are.
pub fn target() -> Result<PathBuf> {
    Ok(directory()?.parent().context("our program has no target directory")?.to_owned())
}
