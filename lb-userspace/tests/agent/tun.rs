//! A client's packets to a VIP, taken from a tun device and wrapped in GUE: as little of a load
//! balancer as TCP needs.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::build::number;
use super::lab::{Lab, inside};

/// TUNSETIFF of linux/if_tun.h.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
/// IFF_TUN and IFF_NO_PI: bare IP packets.
const FLAGS: i16 = 0x0001 | 0x1000;

/// `struct ifreq` with flags.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

fn open() -> File {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
    let mut name = [0; 16];
    name[..2].copy_from_slice(b"t0");
    let mut request = Request { name, flags: FLAGS, rest: [0; 22] };
    let fd = file.as_raw_fd();
    // SAFETY: a request of the size that the kernel reads and writes.
    let done = unsafe { libc::ioctl(fd, TUNSETIFF, &raw mut request) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    file
}

/// Wraps what the client sends to the VIPs until the namespace ends; tells the longest packet.
pub(crate) fn wrap(lab: &Lab, backend: &'static str) -> Arc<AtomicUsize> {
    let client = lab.client();
    let (mut device, socket) = inside(&client, || {
        let local = if backend.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        // Not connected: an ICMP error for one packet must not cost another.
        (open(), UdpSocket::bind(local).unwrap())
    });
    lab.ip(&client, "link set t0 up");
    lab.ip(&client, "route add 203.0.113.10/32 dev t0 src 10.9.0.1");
    lab.ip(&client, "-6 route add 2001:db8:53::10/128 dev t0 src fd09::1");
    let longest = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&longest);
    std::thread::spawn(move || {
        let mut packet = [0; 2048];
        while let Ok(length) = device.read(&mut packet) {
            let inner = &packet[..length];
            let private = if backend.starts_with('[') { 72 } else { 24 };
            let mut bytes = vec![private / 4, number(inner), 0, 0];
            bytes.resize(4 + usize::from(private), 0);
            bytes.extend(inner);
            seen.fetch_max(length, Ordering::Relaxed);
            // What does not fit the cable is lost, as it would be on the way.
            drop(socket.send_to(&bytes, backend));
        }
    });
    longest
}
