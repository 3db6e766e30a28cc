//! The UDP sockets of BFD (RFC 5881 section 4, RFC 5883 section 5).
//!
//! A part of `bfd`.
//!
//! Must not: know sessions.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::host::sockets::{self, Datagram};

/// The TTL of what we send; what comes over no router still has it.
const MAX_TTL: u8 = 255;

/// The first port that packets may come from (RFC 5881 section 4), up to 65,535.
const SOURCE_PORTS: u16 = 49_152;
/// Tries to find a source port that is free.
const SOURCE_TRIES: u16 = 64;
/// DSCP CS6, internetwork control, as routers mark it.
const CS6: u32 = 0xc0;
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
    sockets::show_ttl(&socket, v6)?;
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
/// What the socket reports; `InvalidData`: a packet without a TTL.
pub(super) fn receive<const N: usize>(
    socket: &UdpSocket,
    buffer: &mut [u8; N],
) -> io::Result<Option<Datagram>> {
    match socket.try_io(Interest::READABLE, || sockets::receive(socket, buffer)) {
        Ok(origin) => Ok(Some(origin)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
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
                assert_eq!(origin, Some(Datagram { source: address, ttl: 255, length: 3 }));
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
}
