//! What a driver says of the packets an XDP program wanted sent and it could not send: they were
//! tx or redirect for the program, which is why they are not among its drops.
//!
//! Asked by ethtool's ioctl, the only place where drivers count them. Each driver has names of its
//! own for it; `is_failure` knows what they have in common. Drivers without such counters say
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// Commands of linux/ethtool.h, and its number for the set of statistics.
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSTATS: u32 = 0x1d;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETH_SS_STATS: u32 = 1;
/// ETH_GSTRING_LEN: bytes of a name.
const NAME_BYTES: usize = 32;
/// Counters read of one driver; those with hundreds of queues have some ten thousand.
const COUNTERS_MAX: u32 = 65_536;
/// SIOCETHTOOL of linux/sockios.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// Interfaces asked; a load balancer has a handful.
pub const INTERFACES_MAX: usize = 64;

/// `struct ifreq`, as far as ethtool uses it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut u32,
    pad: [u64; 2],
}

/// Packets that were not sent, by interface; those whose driver does not count them are missing.
/// Interfaces are given by name, or by index.
#[must_use]
pub fn transmit_errors(names: &BTreeSet<String>, indices: &BTreeSet<u32>) -> BTreeMap<String, u64> {
    let named = indices.iter().filter_map(|index| name_of(*index));
    let all: BTreeSet<String> = names.iter().cloned().chain(named).collect();
    let each = all.into_iter().take(INTERFACES_MAX);
    each.filter_map(|name| {
        let counters = counters(&name).ok()?;
        Some((name, failures(&counters)?))
    })
    .collect()
}

/// The sum of all counters of failures; `None` if there are none. Some drivers have one for each
/// queue, some a total, some both: then the total is taken.
fn failures(counters: &[(String, u64)]) -> Option<u64> {
    let found: Vec<&(String, u64)> = counters.iter().filter(|(it, _)| is_failure(it)).collect();
    let is_total = |name: &str| !name.contains(|c: char| c.is_ascii_digit());
    let totals = found.iter().any(|(name, _)| is_total(name));
    let counted = found.iter().filter(|(name, _)| !totals || is_total(name));
    (!found.is_empty()).then(|| counted.map(|(_, value)| value).sum())
}

/// `rx_queue_0_xdp_tx_errors` (veth), `rx_xdp_tx_full` (mlx5), `rx0_xdp_tx_drops` (virtio_net).
fn is_failure(name: &str) -> bool {
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    has(&["xdp"]) && has(&["tx", "xmit"]) && has(&["err", "drop", "full"])
}

fn name_of(index: u32) -> Option<String> {
    let mut name = [0_u8; libc::IFNAMSIZ];
    // SAFETY: the buffer has room for IF_NAMESIZE bytes, as the function wants.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    if found.is_null() {
        return None;
    }
    let text = std::ffi::CStr::from_bytes_until_nul(&name).ok()?;
    text.to_str().ok().map(str::to_owned)
}

/// All counters of a driver, by name.
fn counters(interface: &str) -> io::Result<Vec<(String, u64)>> {
    // SAFETY: no pointers are passed.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave it to us, nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // Command, reserved, a mask of sets (64 bits), the length of the first one.
    let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_STATS, 0, 0];
    ask(&socket, interface, &mut info)?;
    let [.., count] = info;
    if count == 0 || count > COUNTERS_MAX {
        return Ok(Vec::new());
    }
    let size = count as usize;
    // Command, set, length, the names.
    let mut names = vec![0; 3 + size * NAME_BYTES / size_of::<u32>()];
    names.splice(..3, [ETHTOOL_GSTRINGS, ETH_SS_STATS, count]);
    ask(&socket, interface, &mut names)?;
    // Command, length, 64-bit values.
    let mut values = vec![0; 2 + size * 2];
    values.splice(..2, [ETHTOOL_GSTATS, count]);
    ask(&socket, interface, &mut values)?;
    let names = names.get(3..).unwrap_or_default().chunks_exact(NAME_BYTES / size_of::<u32>());
    let values = values.get(2..).unwrap_or_default().chunks_exact(2);
    Ok(names.map(text).zip(values.map(word)).collect())
}

/// Sends one command; the kernel answers in its place.
fn ask(socket: &OwnedFd, interface: &str, command: &mut [u32]) -> io::Result<()> {
    let mut request =
        Request { name: [0; libc::IFNAMSIZ], data: command.as_mut_ptr(), pad: [0; 2] };
    if interface.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    request.name.iter_mut().zip(interface.bytes()).for_each(|(place, byte)| *place = byte);
    // SAFETY: the request is an ifreq whose data has room for the answer to its command, whose
    // length the command says itself, and both live until the call returns.
    let code = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

fn word(words: &[u32]) -> u64 {
    match words {
        [first, second] => {
            let [a, b, c, d] = first.to_ne_bytes();
            let [e, f, g, h] = second.to_ne_bytes();
            u64::from_ne_bytes([a, b, c, d, e, f, g, h])
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(counters: &[(&str, u64)]) -> Option<u64> {
        let counters: Vec<_> = counters.iter().map(|(it, n)| ((*it).to_owned(), *n)).collect();
        failures(&counters)
    }

    #[test]
    fn drivers_have_names_of_their_own() {
        let veth = [
            ("peer_ifindex", 4),
            ("rx_queue_0_xdp_packets", 900),
            ("rx_queue_0_xdp_drops", 80),
            ("rx_queue_0_xdp_tx", 500),
            ("rx_queue_0_xdp_tx_errors", 3),
            ("tx_queue_0_xdp_xmit", 70),
            ("tx_queue_0_xdp_xmit_errors", 4),
        ];
        assert_eq!(sum(&veth), Some(7));
        let both = [("rx_xdp_tx_full", 5), ("rx0_xdp_tx_full", 3), ("rx1_xdp_tx_full", 2)];
        assert_eq!(sum(&both), Some(5));
        assert_eq!(sum(&[("rx0_xdp_tx_drops", 2), ("rx0_xdp_drops", 90)]), Some(2));
        assert_eq!(sum(&[("rx_errors", 9), ("tx_dropped", 9)]), None);
    }

    #[test]
    fn interfaces_without_such_counters_are_missing() {
        let names = BTreeSet::from(["lo".to_owned(), "no-such-one".to_owned()]);
        assert!(transmit_errors(&names, &BTreeSet::from([1, u32::MAX])).is_empty());
    }
}
