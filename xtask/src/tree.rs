//! Where things are in the checkout.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// The checkout that this xtask was built from.
pub(crate) struct Tree {
    /// The workspace's root.
    pub(crate) root: PathBuf,
    /// Where cargo puts what it builds.
    pub(crate) target: PathBuf,
}

impl Tree {
    /// Cargo says where the package is; a copied binary run by hand would not know.
    pub(crate) fn find() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .context("run this as `cargo xtask`, inside the checkout")?;
        let root = PathBuf::from(manifest);
        let root = root.parent().context("the package has no parent directory")?.to_owned();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(directory) => root.join(directory),
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// Tools that set-up builds for this checkout. `.cargo/config.toml` names the same directory,
    /// so it does not follow `CARGO_TARGET_DIR`.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// One of the tools.
    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        self.tools().join("bin").join(name)
    }

    /// A binary of this workspace, built in release.
    pub(crate) fn release(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }
}
