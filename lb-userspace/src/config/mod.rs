//! The configuration: from files to the desired state, with every finding at once.
//!
//! ```text
//! files -> raw (values alone) -> validate (values together) -> resolve -> Desired
//!             \____________________ findings ____________________/
//! ```
//!
//! A configuration is taken whole or refused whole. The room decides nothing about packets and
//! looks at nothing but its files: what the machine can do is the host's part.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use self::diagnostic::{Finding, Id, Report, Source};
use self::files::{PasswordError, SecretError, read_password, read_secret, read_sources};
pub use self::password::Password;
use self::raw::Raw;
use crate::bgp::roa::{VrpError, Vrps};
use crate::desired::{Desired, Secret};

mod bgp;
pub mod diagnostic;
mod fields;
pub mod files;
mod ids;
mod kind;
pub mod password;
mod pools;
mod probes;
#[cfg(test)]
mod properties;
mod raw;
pub mod reference;
mod resolve;
mod schema;
#[cfg(test)]
mod tests;
mod validate;
mod values;

/// A configuration that is taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What it asks for.
    pub desired: Desired,
    /// The cluster secret, apart so that it is never shown with the rest.
    pub secret: Secret,
    /// The passwords of BGP peers that have one, by the peer's name.
    pub passwords: BTreeMap<String, Password>,
    /// What origins are validated against, if `vrp_file` is set; it was read with the rest.
    pub vrps: Option<Arc<Vrps>>,
    /// What may not do what was meant; has no errors.
    pub warnings: Report,
}

/// How the files that a configuration names are read.
#[derive(Clone, Copy)]
pub struct Readers<'r> {
    /// The cluster secret.
    pub secret: &'r dyn Fn(&Path) -> Result<Secret, SecretError>,
    /// The password of a peer.
    pub password: &'r dyn Fn(&Path) -> Result<Password, PasswordError>,
    /// Validated ROA payloads.
    pub vrps: &'r dyn Fn(&Path) -> Result<Vrps, VrpError>,
}

impl Readers<'static> {
    /// From disk.
    pub const DISK: Self =
        Self { secret: &read_secret, password: &read_password, vrps: &Vrps::read };
}

/// Reads, checks and resolves the configuration at `path`, the files beside it, and those it
/// names.
///
/// # Errors
/// Everything that is wrong, and the warnings, in one report.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    check(read_sources(path)?, &Readers::DISK)
}

/// Checks and resolves files that were read; the first is the main one. `readers` read the files
/// that the configuration names.
///
/// # Errors
/// Everything that is wrong, and the warnings, in one report.
pub fn check(sources: Vec<Source>, readers: &Readers<'_>) -> Result<Loaded, Report> {
    let mut raw = Raw::default();
    let mut findings = Vec::new();
    let mut syntax = Vec::new();
    for (file, source) in sources.iter().enumerate() {
        syntax.extend(raw::read(file, &source.text, file > 0, &mut raw, &mut findings));
    }
    // What cannot be read cannot be compared: anything more would be noise.
    if !syntax.is_empty() {
        return Err(Report::new(sources, syntax));
    }
    validate::validate(&raw, &mut findings);
    let secret = check_secret(&raw, readers.secret, &mut findings);
    let bgp::External { passwords, vrps } = bgp::read_external(&raw, readers, &mut findings);
    let report = Report::new(sources, findings);
    if report.has_errors() {
        return Err(report);
    }
    match (resolve::resolve(&raw), secret) {
        (Some(desired), Some(secret)) => {
            Ok(Loaded { desired, secret, passwords, vrps, warnings: report })
        }
        _ => Err(report),
    }
}

fn check_secret(
    raw: &Raw,
    secret: impl Fn(&Path) -> Result<Secret, SecretError>,
    findings: &mut Vec<Finding>,
) -> Option<Secret> {
    let path = raw.node.as_ref()?.secret_file.as_ref()?;
    let error = match secret(&path.value) {
        Ok(secret) => {
            if secret.bytes().windows(2).all(|pair| pair[0] == pair[1]) {
                let title = "the cluster secret is one byte over and over";
                let finding = Finding::new(Id::SecretWeak, title, path.at, "");
                findings.push(finding.help("make one with `openssl rand -hex 16`"));
            }
            return Some(secret);
        }
        Err(error) => error,
    };
    let (id, title, help) = match &error {
        SecretError::Unreadable(_) => (
            Id::SecretUnreadable,
            "the cluster secret cannot be read",
            "lbd must be able to read it; `openssl rand -hex 16` makes one, and all load balancers \
             share it",
        ),
        SecretError::Permissions(_) => (
            Id::SecretPermissions,
            "others than its owner can read the cluster secret",
            "let only its owner read it: chmod 0400",
        ),
        SecretError::Format(_) => (
            Id::SecretFormat,
            "the secret file does not hold a secret",
            "`openssl rand -hex 16` makes one, and all load balancers share it",
        ),
    };
    findings.push(Finding::new(id, title, path.at, error.to_string()).help(help));
    None
}
