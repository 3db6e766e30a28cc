//! The configuration: from files to the desired state, with every finding at once.
//!
//! ```text
//! files -> raw (values alone) -> validate (values together) -> resolve -> Desired
//!             \____________________ findings ____________________/
//! ```
//!
//! A configuration is taken whole or refused whole. The room decides nothing about packets and
//! looks at nothing but its files: what the machine can do is the host's part.

use std::path::Path;

use self::diagnostic::{Finding, Id, Report, Source};
use self::files::{SecretError, read_secret, read_sources};
use self::raw::Raw;
use crate::desired::{Desired, Secret};

pub mod diagnostic;
mod fields;
pub mod files;
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
    /// What may not do what was meant; has no errors.
    pub warnings: Report,
}

/// Reads, checks and resolves the configuration at `path`, the files beside it, and the secret.
///
/// # Errors
/// Everything that is wrong, and the warnings, in one report.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    check(read_sources(path)?, read_secret)
}

/// Checks and resolves files that were read; the first is the main one. `secret` reads the file
/// that the configuration names.
///
/// # Errors
/// Everything that is wrong, and the warnings, in one report.
pub fn check(
    sources: Vec<Source>,
    secret: impl Fn(&Path) -> Result<Secret, SecretError>,
) -> Result<Loaded, Report> {
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
    let secret = check_secret(&raw, secret, &mut findings);
    let report = Report::new(sources, findings);
    if report.has_errors() {
        return Err(report);
    }
    match (resolve::resolve(&raw), secret) {
        (Some(desired), Some(secret)) => Ok(Loaded { desired, secret, warnings: report }),
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
