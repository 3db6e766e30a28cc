//! What the router does to packets on their way besides routing them: programs on its interfaces.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::namespace::Namespace;
use super::owner::BPF_FILESYSTEM;
use super::{Lab, command, kernel};

impl Lab {
    /// From now on TCP connections over IPv4 with a host still come about, and nothing that is said
    /// on them arrives, in either direction, until [`unmute`](Self::unmute).
    ///
    /// # Errors
    /// There is no such host, or it is muted already.
    pub fn mute(&self, host: &str) -> Result<()> {
        attach(&self.router, host, &["ingress", "egress"], kernel::pin_drop_tcp_data)
    }

    /// What was not acknowledged is sent again, and arrives.
    ///
    /// # Errors
    /// The host is not muted.
    pub fn unmute(&self, host: &str) -> Result<()> {
        let mut tc = self.router.command("tc");
        command::run(tc.args(["qdisc", "del", "dev", host, "clsact"]))?;
        Ok(())
    }
}

/// Has the router hash what it sees, as it would behind a wire, not what the client's kernel
/// remembers of the socket.
pub(super) fn forget_hashes(router: &Namespace, interface: &str) -> Result<()> {
    attach(router, interface, &["ingress"], kernel::pin_forget_hash)
}

/// Has packets of an interface go through a program, in these directions.
fn attach(
    router: &Namespace,
    interface: &str,
    directions: &[&str],
    pin_program: fn(&Path) -> Result<()>,
) -> Result<()> {
    let pins = Path::new(BPF_FILESYSTEM).join(router.name());
    fs::create_dir(&pins).with_context(|| format!("cannot make {}", pins.display()))?;
    let pin = pins.join("filter");
    pin_program(&pin)?;
    // Not `tc -netns`, which would hide the pin behind mounts of its own.
    let tc = |arguments: &[&str]| command::run(router.command("tc").args(arguments));
    tc(&["qdisc", "add", "dev", interface, "clsact"])?;
    for direction in directions {
        let filter = ["filter", "add", "dev", interface, direction, "bpf", "direct-action"];
        tc(&[&filter[..], &["object-pinned", &pin.to_string_lossy()]].concat())?;
    }
    // The filter holds the program from here.
    fs::remove_dir_all(&pins).with_context(|| format!("cannot remove {}", pins.display()))
}
