//! What BGP reads beside the configuration: passwords and validated ROA payloads.
//!
//! The files are read by the readers that the caller gives; here what they hold is judged.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::super::Readers;
use super::super::diagnostic::{At, Finding, Id};
use super::super::files::PasswordError;
use super::super::password::Password;
use super::super::raw::Raw;
use super::raw::Bgp;
use super::routes::host_routes;
use crate::bgp::roa::{Validity, VrpError, Vrps};

/// Payloads that are named as the reason of a finding, at most.
const NAMED_MAX: usize = 3;

/// What was read.
#[derive(Default)]
pub(in crate::config) struct External {
    /// Passwords by the peer's name.
    pub(in crate::config) passwords: BTreeMap<String, Password>,
    /// The payloads, if a file is named.
    pub(in crate::config) vrps: Option<Arc<Vrps>>,
}

/// Reads the files that `[bgp]` names and adds what is wrong with them, and with what is announced
/// in their light.
pub(in crate::config) fn read_external(
    raw: &Raw,
    readers: &Readers<'_>,
    findings: &mut Vec<Finding>,
) -> External {
    let mut external = External::default();
    let Some(bgp) = &raw.bgp else { return external };
    for peer in &bgp.peers {
        let (Some(name), Some(path)) = (&peer.name, &peer.password_file) else { continue };
        match (readers.password)(&path.value) {
            Ok(password) => {
                external.passwords.insert(name.value.clone(), password);
            }
            Err(error) => findings.push(about_password(&error, &name.value, path.at)),
        }
    }
    if let Some(path) = &bgp.vrp_file {
        match (readers.vrps)(&path.value) {
            Ok(vrps) => {
                check_origins(raw, bgp, &vrps, findings);
                external.vrps = Some(Arc::new(vrps));
            }
            Err(error) => {
                let id = match error {
                    VrpError::Unreadable(_) => Id::VrpUnreadable,
                    VrpError::TooLarge
                    | VrpError::TooMany(_)
                    | VrpError::Format(_)
                    | VrpError::Meaningless(_) => Id::VrpFormat,
                };
                let title = "the validated ROA payloads cannot be used";
                let finding = Finding::new(id, title, path.at, error.to_string());
                let help = "Routinator writes them with `routinator vrps --format json`, \
                            rpki-client with `-j`; without `vrp_file` nothing is validated";
                findings.push(finding.help(help));
            }
        }
    }
    external
}

fn about_password(error: &PasswordError, peer: &str, at: At) -> Finding {
    let (id, title, help) = match error {
        PasswordError::Unreadable(_) => (
            Id::PasswordUnreadable,
            format!("the password of peer `{peer}` cannot be read"),
            "lbd must be able to read it",
        ),
        PasswordError::Permissions(_) => (
            Id::PasswordPermissions,
            format!("others than its owner can read the password of peer `{peer}`"),
            "let only its owner read it: chmod 0400",
        ),
        PasswordError::Format(_) => (
            Id::PasswordFormat,
            format!("the password file of peer `{peer}` does not hold a password"),
            "it is one line; a line end behind it is not part of it",
        ),
    };
    Finding::new(id, title, at, error.to_string()).help(help)
}

/// Reports prefixes that others would drop as Invalid, and those nobody has vouched for.
fn check_origins(raw: &Raw, bgp: &Bgp, vrps: &Vrps, findings: &mut Vec<Finding>) {
    let Some(local_as) = &bgp.local_as else { return };
    let listed = bgp.prefixes.iter().filter_map(|it| it.prefix.as_ref());
    for prefix in listed.filter(|prefix| prefix.value == prefix.value.trunc()) {
        let what = format!("prefix {}", prefix.value);
        check_origin(&what, prefix.value, prefix.at, local_as.value, vrps, findings);
    }
    for (address, (name, at)) in host_routes(raw, bgp) {
        let what = format!("the host route of VIP `{name}`");
        check_origin(&what, IpNet::from(address), at, local_as.value, vrps, findings);
    }
}

fn check_origin(
    what: &str,
    prefix: IpNet,
    at: At,
    origin: u32,
    vrps: &Vrps,
    findings: &mut Vec<Finding>,
) {
    let found = vrps.validate(prefix, origin);
    match found.validity {
        Validity::Valid => {}
        Validity::NotFound => {
            let title = format!("no ROA covers {what}");
            let finding = Finding::new(Id::RoaNotFound, title, at, "not found");
            findings.push(finding.help(format!("make one for AS {origin}; some networks want it")));
        }
        Validity::Invalid => {
            let title = format!("{what} is Invalid with origin AS {origin}");
            let mut named: Vec<String> =
                found.covering.iter().take(NAMED_MAX).map(ToString::to_string).collect();
            if found.covering.len() > NAMED_MAX {
                named.push(format!("and {} more", found.covering.len() - NAMED_MAX));
            }
            let label = "networks that validate origins drop it";
            let finding = Finding::new(Id::RoaInvalid, title, at, label);
            findings.push(finding.help(format!("its ROAs allow: {}", named.join(", "))));
        }
    }
}
