//! The UDP sockets of BFD (RFC 5881 section 4, RFC 5883 section 5).
//!
//! A part of `bfd`.
//!
//! Must not: know sessions.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket};

use socket2::{Domain, MaybeUninitSlice, MsgHdrMut, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The TTL of what we send; what comes over no router still has it.
const MAX_TTL: u8 = 255;

/// The first port that packets may come from (RFC 5881 section 4), up to 65,535.
const SOURCE_PORTS: u16 = 49_152;
/// Tries to find a source port that is free.
const SOURCE_TRIES: u16 = 64;
/// DSCP CS6, internetwork control, as routers mark it.
const CS6: u32 = 0xc0;
/// Room for one control message with an `int`, and for more of them than we ask for.
const CONTROL: usize = 64;
/// The size of `struct cmsghdr`: a length, a level and a type.
const CONTROL_HEADER: usize = size_of::<libc::cmsghdr>();

/// A packet's origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// Who sent it.
    pub(super) source: IpAddr,
    /// The TTL or hop limit it arrived with.
    pub(super) ttl: u8,
    /// Bytes of it in the buffer.
    pub(super) length: usize,
}

fn open(address: IpAddr) -> io::Result<Socket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let domain = Domain::for_address(SocketAddr::new(address, 0));
    let socket = Socket::new(domain, kind, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// A socket that receives on `port` of every address of a family.
///
/// # Errors
/// The port is in use, or the limit of descriptors is reached.
pub(super) fn receiver(v6: bool, port: u16) -> io::Result<UdpSocket> {
    let any = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = open(any)?;
    if v6 {
        socket.set_recv_hoplimit_v6(true)?;
    } else {
        let on: libc::c_int = 1;
        let length = libc::socklen_t::try_from(size_of_val(&on)).map_err(io::Error::other)?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
        // SAFETY: the pointer is to a live int of ours, and the length is its size.
        let code = unsafe {
            libc::setsockopt(fd, libc::IPPROTO_IP, libc::IP_RECVTTL, (&raw const on).cast(), length)
        };
        if code != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    socket.bind(&SocketAddr::new(any, port).into())?;
    UdpSocket::from_std(StdUdpSocket::from(socket))
}

/// A socket that sends to a peer at `remote`, from `local` or what the route chooses.
///
/// It is not connected: an ICMP error of one packet must not cost the next one. `first` says
/// where to start looking for a free source port.
///
/// # Errors
/// `local` is not an address of this machine, or there is no free port.
pub(super) fn sender(local: Option<IpAddr>, remote: IpAddr, first: u16) -> io::Result<UdpSocket> {
    let socket = open(remote)?;
    match remote {
        IpAddr::V4(_) => {
            socket.set_ttl_v4(MAX_TTL.into())?;
            socket.set_tos_v4(CS6)?;
        }
        IpAddr::V6(_) => {
            socket.set_unicast_hops_v6(MAX_TTL.into())?;
            socket.set_tclass_v6(CS6)?;
        }
    }
    // Nobody reads what comes here.
    socket.set_recv_buffer_size(0)?;
    let any =
        if remote.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let mut refused = io::Error::from(io::ErrorKind::AddrInUse);
    for step in 0..SOURCE_TRIES {
        let port = SOURCE_PORTS | first.wrapping_add(step);
        match socket.bind(&SocketAddr::new(local.unwrap_or(any), port).into()) {
            Ok(()) => return UdpSocket::from_std(StdUdpSocket::from(socket)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => refused = error,
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

/// Takes one packet, as far as it fits into `buffer`; `None` when none is there.
///
/// # Errors
/// What the socket reports.
pub(super) fn receive<const N: usize>(
    socket: &UdpSocket,
    buffer: &mut [u8; N],
) -> io::Result<Option<Origin>> {
    match socket.try_io(Interest::READABLE, || receive_message(socket, buffer)) {
        Ok(origin) => Ok(Some(origin)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn receive_message<const N: usize>(socket: &UdpSocket, buffer: &mut [u8; N]) -> io::Result<Origin> {
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
    // SAFETY: both arrays were initialised when they were made.
    let data: [u8; N] = unsafe { std::mem::transmute_copy(&data) };
    // SAFETY: as above.
    let control: [u8; CONTROL] = unsafe { std::mem::transmute_copy(&control) };
    *buffer = data;
    let source = source.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    let ttl = ttl(control.get(..control_length).unwrap_or_default());
    Ok(Origin {
        source: source.ip(),
        ttl: ttl.ok_or(io::ErrorKind::InvalidData)?,
        length: length.min(N),
    })
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

    #[tokio::test]
    async fn a_packet_comes_with_source_and_ttl() {
        for (v6, address) in [(false, "127.0.0.1"), (true, "::1")] {
            let address: IpAddr = address.parse().unwrap();
            let receiver = receiver(v6, 0).unwrap();
            let to = SocketAddr::new(address, receiver.local_addr().unwrap().port());
            for local in [Some(address), None] {
                let sender = sender(local, address, 4_711).unwrap();
                assert!(sender.local_addr().unwrap().port() >= SOURCE_PORTS);
                sender.send_to(b"abc", to).await.unwrap();
                receiver.readable().await.unwrap();
                let mut buffer = [0; 8];
                let origin = receive(&receiver, &mut buffer).unwrap();
                assert_eq!(origin, Some(Origin { source: address, ttl: 255, length: 3 }));
                assert_eq!(&buffer[..3], b"abc");
                assert_eq!(receive(&receiver, &mut buffer).unwrap(), None);
            }
        }
    }

    #[tokio::test]
    async fn sessions_have_ports_of_their_own() {
        let local = "127.0.0.1".parse().unwrap();
        let first = sender(Some(local), local, 99).unwrap();
        let second = sender(Some(local), local, 99).unwrap();
        assert_ne!(first.local_addr().unwrap(), second.local_addr().unwrap());
        let elsewhere: IpAddr = "192.0.2.1".parse().unwrap();
        assert!(sender(Some(elsewhere), local, 99).is_err());
    }

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
