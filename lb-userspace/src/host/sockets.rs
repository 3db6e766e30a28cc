//! What the kernel does for sockets and no crate offers: TCP MD5 keys (RFC 2385), the smallest TTL
//! that is let in (RFC 5082), and the TTL that a datagram arrived with.
//!
//! Must not: know protocols above TCP and UDP.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _};

use socket2::{MaybeUninitSlice, MsgHdrMut, SockAddr, SockAddrStorage, SockRef};

/// Bytes of a TCP MD5 key, at most (TCP_MD5SIG_MAXKEYLEN of linux/tcp.h).
pub const MAX_KEY: usize = 80;

/// Room for more control messages than [`show_ttl`] asks for.
const CONTROL: usize = 64;
/// The size of `struct cmsghdr`: a length, a level and a type.
const CONTROL_HEADER: usize = size_of::<libc::cmsghdr>();

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct Md5Signature {
    peer: SockAddrStorage,
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: libc::c_int,
    key: [u8; MAX_KEY],
}

/// Where a datagram came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub source: IpAddr,
    /// The TTL or hop limit it arrived with.
    pub ttl: u8,
    /// Bytes of it in the buffer.
    pub length: usize,
}

/// Sets the MD5 key of segments with `peer`, on a TCP socket of its family; an empty one removes
/// it. On a listener it holds for connections to come.
///
/// # Errors
/// `InvalidInput`: the key is longer than [`MAX_KEY`]; ENOENT: there was none to be removed; or the
/// kernel has no MD5 signatures.
pub fn set_md5_key<S: AsFd>(socket: &S, peer: IpAddr, key: &[u8]) -> io::Result<()> {
    let mut bytes = [0; MAX_KEY];
    let room = bytes.get_mut(..key.len()).ok_or(io::ErrorKind::InvalidInput)?;
    room.copy_from_slice(key);
    let signature = Md5Signature {
        peer: SockAddr::from(SocketAddr::new(peer, 0)).as_storage(),
        flags: 0,
        prefix_length: 0,
        key_length: u16::try_from(key.len()).map_err(io::Error::other)?,
        interface: 0,
        key: bytes,
    };
    set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &signature)
}

/// Lets a TCP socket drop what arrives with a smaller TTL (IPv6: hop limit) than `ttl`.
///
/// # Errors
/// The socket is of the other family.
pub fn set_min_ttl<S: AsFd>(socket: &S, v6: bool, ttl: u8) -> io::Result<()> {
    let ttl = libc::c_int::from(ttl);
    if v6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &ttl)
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &ttl)
    }
}

/// Makes a UDP socket tell TTLs, for [`receive`].
///
/// # Errors
/// The socket is of the other family.
pub fn show_ttl<S: AsFd>(socket: &S, v6: bool) -> io::Result<()> {
    let on: libc::c_int = 1;
    if v6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, &on)
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_RECVTTL, &on)
    }
}

/// Takes one datagram, as far as it fits into `buffer`.
///
/// # Errors
/// What the socket reports, `WouldBlock` too; `InvalidData`: the TTL is not told.
pub fn receive<S: AsFd, const N: usize>(socket: &S, buffer: &mut [u8; N]) -> io::Result<Datagram> {
    let mut data = [MaybeUninit::new(0_u8); N];
    let mut control = [MaybeUninit::new(0_u8); CONTROL];
    let mut source: SockAddr = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0).into();
    let mut slices = [MaybeUninitSlice::new(&mut data)];
    let mut message = MsgHdrMut::new()
        .with_addr(&mut source)
        .with_buffers(&mut slices)
        .with_control(&mut control);
    let length = SockRef::from(socket).recvmsg(&mut message, 0)?;
    let control_length = message.control_len();
    // SAFETY: every byte was initialised when the array was made.
    *buffer = data.map(|byte| unsafe { byte.assume_init() });
    // SAFETY: as above.
    let control = control.map(|byte| unsafe { byte.assume_init() });
    let source = source.as_socket().ok_or(io::ErrorKind::InvalidData)?.ip();
    let ttl = ttl(control.get(..control_length).unwrap_or_default());
    let ttl = ttl.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Datagram { source, ttl, length: length.min(N) })
}

/// Hands one of the values above to the kernel.
fn set<S: AsFd, T>(socket: &S, level: i32, option: i32, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let fd = socket.as_fd().as_raw_fd();
    let value: *const T = value;
    // SAFETY: the pointer is to a live value of `length` bytes; the kernel only reads it.
    let code = unsafe { libc::setsockopt(fd, level, option, value.cast(), length) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The TTL or hop limit in the control messages of a packet (cmsg(3)).
fn ttl(control: &[u8]) -> Option<u8> {
    let mut rest = control;
    while let Some((head, _)) = rest.split_first_chunk::<CONTROL_HEADER>() {
        let (length, kind) = head.split_first_chunk::<{ size_of::<usize>() }>()?;
        let length = usize::from_ne_bytes(*length);
        let (level, kind) = kind.split_first_chunk()?;
        let (level, kind) = (i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind.first_chunk()?));
        let data = rest.get(CONTROL_HEADER..length)?;
        let wanted = [(libc::IPPROTO_IP, libc::IP_TTL), (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT)];
        if wanted.contains(&(level, kind)) {
            return u8::try_from(i32::from_ne_bytes(*data.first_chunk()?)).ok();
        }
        rest = rest.get(length.next_multiple_of(size_of::<usize>())..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_control_messages_have_no_ttl() {
        let mut good = Vec::new();
        good.extend(20_usize.to_ne_bytes());
        good.extend(libc::IPPROTO_IP.to_ne_bytes());
        good.extend(libc::IP_TTL.to_ne_bytes());
        good.extend(255_i32.to_ne_bytes());
        assert_eq!(ttl(&good), Some(255));
        for length in 0..good.len() {
            assert_eq!(ttl(&good[..length]), None, "{length}");
        }
        for length in [0, 1, 15, 16, 19, 21, usize::MAX] {
            good[..8].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(ttl(&good), None, "{length}");
        }
    }
}
