//! TCP sockets for BGP: their addresses, keys (RFC 2385), TTLs (RFC 5082) and timeouts.
//!
//! Must not: know sessions or messages.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::gtsm::{self, MAX_TTL, min_ttl};
use crate::host::sockets;
pub use crate::host::sockets::MAX_KEY;

/// Peers whose connections wait to be accepted.
const BACKLOG: i32 = 64;
/// DSCP CS6, internetwork control, as routers mark BGP.
const CS6: u32 = 0xc0;

/// What a connection with a peer needs.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// The peer.
    pub remote: SocketAddr,
    /// Our address; else what the route chooses.
    pub local: Option<IpAddr>,
    /// Hops to it: 1 on the link.
    pub hops: u8,
    /// Packets that came over more hops are dropped by the kernel (GTSM).
    pub ttl_security: bool,
    /// Unacknowledged for so long, data ends the connection (TCP_USER_TIMEOUT).
    pub timeout: Duration,
    /// The MD5 key; 1 to [`MAX_KEY`] bytes.
    pub key: Option<&'a [u8]>,
}

/// Connects to a peer. Dropping the future gives up.
///
/// # Errors
/// What the kernel says, in words that name the step; in the end `TimedOut` of TCP itself.
pub async fn connect(link: &Link<'_>) -> io::Result<TcpStream> {
    let socket = open(link.remote.ip())?;
    if let Some(key) = link.key {
        sockets::set_md5_key(&socket, link.remote.ip(), key)
            .map_err(|error| said("TCP MD5", &error))?;
    }
    set_options(&socket, link).map_err(|error| said("socket options", &error))?;
    if let Some(local) = link.local {
        let address = SocketAddr::new(local, 0).into();
        socket.bind(&address).map_err(|error| said(&format!("address {local}"), &error))?;
    }
    TcpSocket::from_std_stream(StdStream::from(socket)).connect(link.remote).await
}

/// Makes an accepted connection what [`connect`] makes of its own.
///
/// # Errors
/// What the kernel says.
pub fn adopt(stream: &TcpStream, link: &Link<'_>) -> io::Result<()> {
    set_options(&SockRef::from(stream), link).map_err(|error| said("socket options", &error))
}

/// Listens on `address`; an IPv6 one hears no IPv4. From the peers in `min_ttls` nothing is heard,
/// not even a SYN, that arrives with a smaller TTL, now or on a connection from there.
///
/// # Errors
/// The address is in use or not ours, or the port needs a privilege.
pub fn listen(address: SocketAddr, min_ttls: &BTreeMap<IpAddr, u8>) -> io::Result<TcpListener> {
    let socket = open(address.ip())?;
    if let Some(filter) = gtsm::filter(address.is_ipv6(), min_ttls) {
        socket.attach_filter(&filter).map_err(|error| said("TTL security", &error))?;
    }
    socket.set_reuse_address(true)?;
    set_traffic_class(&socket, address.ip())?;
    // The SYN-ACK goes out before the peer is known: one with GTSM would drop a smaller TTL.
    set_ttl(&socket, address.ip(), MAX_TTL)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(StdListener::from(socket))
}

/// Sets the MD5 key of a peer on a listener, or its absence: without a key, signed connections are
/// dropped, with one, all others are. A peer of another family than the listener's is ignored.
///
/// # Errors
/// The key is too long, or the kernel has no MD5 signatures.
pub fn set_listener_key(
    listener: &TcpListener,
    peer: IpAddr,
    key: Option<&[u8]>,
) -> io::Result<()> {
    if listener.local_addr()?.is_ipv4() != peer.is_ipv4() {
        return Ok(());
    }
    match sockets::set_md5_key(listener, peer, key.unwrap_or_default()) {
        // There was none to be removed.
        Err(error) if key.is_none() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

fn open(address: IpAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let domain = Domain::for_address(SocketAddr::new(address, 0));
    let socket = Socket::new(domain, kind, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // One socket for both would not take the MD5 keys of both.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn set_options(socket: &Socket, link: &Link<'_>) -> io::Result<()> {
    let peer = link.remote.ip();
    set_traffic_class(socket, peer)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(link.timeout))?;
    if link.ttl_security {
        set_ttl(socket, peer, MAX_TTL)?;
        sockets::set_min_ttl(socket, peer.is_ipv6(), min_ttl(link.hops))
    } else {
        set_ttl(socket, peer, link.hops.max(1))
    }
}

fn set_traffic_class(socket: &Socket, peer: IpAddr) -> io::Result<()> {
    if peer.is_ipv4() { socket.set_tos_v4(CS6) } else { socket.set_tclass_v6(CS6) }
}

fn set_ttl(socket: &Socket, peer: IpAddr, ttl: u8) -> io::Result<()> {
    let ttl = u32::from(ttl);
    if peer.is_ipv4() { socket.set_ttl_v4(ttl) } else { socket.set_unicast_hops_v6(ttl) }
}

fn said(step: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{step}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// How long anything may take before a test gives up.
    const PATIENCE: Duration = Duration::from_secs(20);
    /// How long something is tried that must not come about.
    const DENIED: Duration = Duration::from_millis(400);

    const ADDRESSES: [&str; 2] = ["127.0.0.1", "::1"];

    fn listener(address: &str) -> (TcpListener, SocketAddr) {
        listener_with(address, &BTreeMap::new())
    }

    fn listener_with(address: &str, min_ttls: &BTreeMap<IpAddr, u8>) -> (TcpListener, SocketAddr) {
        let address = SocketAddr::new(address.parse().unwrap(), 0);
        let listener = listen(address, min_ttls).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn link(remote: SocketAddr) -> Link<'static> {
        Link { remote, local: None, hops: 1, ttl_security: false, timeout: PATIENCE, key: None }
    }

    async fn both(listener: &TcpListener, link: &Link<'_>) -> [TcpStream; 2] {
        let both = async { tokio::join!(connect(link), listener.accept()) };
        let (here, there) = tokio::time::timeout(PATIENCE, both).await.unwrap();
        let there = there.unwrap().0;
        adopt(&there, link).unwrap();
        [here.unwrap(), there]
    }

    async fn denied(link: &Link<'_>) {
        assert!(tokio::time::timeout(DENIED, connect(link)).await.is_err());
    }

    #[tokio::test]
    async fn sockets_are_made_for_bgp() {
        for address in ADDRESSES {
            let (listener, remote) = listener(address);
            let plain = link(remote);
            let secure = Link { ttl_security: true, hops: 3, ..plain };
            let far = Link { hops: 5, local: Some(remote.ip()), ..plain };
            for (link, ttl) in [(plain, 1), (secure, 255), (far, 5)] {
                for stream in both(&listener, &link).await {
                    let socket = SockRef::from(&stream);
                    assert!(socket.tcp_nodelay().unwrap());
                    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(PATIENCE));
                    let (now, class) = match remote {
                        SocketAddr::V4(_) => (socket.ttl_v4(), socket.tos_v4()),
                        SocketAddr::V6(_) => (socket.unicast_hops_v6(), socket.tclass_v6()),
                    };
                    assert_eq!((now.unwrap(), class.unwrap()), (ttl, CS6), "{address}");
                }
            }
        }
    }

    #[tokio::test]
    async fn with_ttl_security_packets_from_far_away_are_dropped() {
        for address in ADDRESSES {
            let (listener, remote) = listener(address);
            let secure = Link { ttl_security: true, ..link(remote) };
            let [here, there] = both(&listener, &secure).await;
            set_ttl(&SockRef::from(&there), remote.ip(), 254).unwrap();
            there.try_write(b"far").unwrap();
            let mut byte = [0];
            assert!(tokio::time::timeout(DENIED, here.peek(&mut byte)).await.is_err());
            set_ttl(&SockRef::from(&there), remote.ip(), 255).unwrap();
            let seen = tokio::time::timeout(PATIENCE, here.peek(&mut byte)).await;
            assert_eq!(seen.unwrap().unwrap(), 1);
        }
    }

    #[tokio::test]
    async fn a_listener_does_not_hear_from_afar_whom_it_expects_nearby() {
        for address in ADDRESSES {
            let remote: IpAddr = address.parse().unwrap();
            // Others around it need no TTL, and its place among them is no matter.
            let others = ["127.0.0.0", "192.0.2.1", "::", "2001:db8::1"];
            let others = others.map(|it| (it.parse().unwrap(), MAX_TTL));
            let near: BTreeMap<IpAddr, u8> = others.into_iter().chain([(remote, 253)]).collect();
            let (listener, at) = listener_with(address, &near);
            let far = |ttl| Link { hops: ttl, ..link(at) };
            denied(&far(252)).await;
            let [here, there] = both(&listener, &far(253)).await;
            // The connection has it from the listener: what is sent before `adopt` is safe, too.
            let nearer = far(254);
            let (client, accepted) = tokio::join!(connect(&nearer), listener.accept());
            let (client, accepted) = (client.unwrap(), accepted.unwrap().0);
            set_ttl(&SockRef::from(&client), remote, 252).unwrap();
            client.try_write(b"far").unwrap();
            let mut byte = [0];
            assert!(tokio::time::timeout(DENIED, accepted.peek(&mut byte)).await.is_err());
            drop((here, there));
        }
    }

    #[tokio::test]
    async fn ttl_security_of_one_peer_is_not_asked_of_another() {
        let near = [("127.0.0.1".parse().unwrap(), MAX_TTL)].into();
        let (listener, at) = listener_with("127.0.0.1", &near);
        let from = |host: u8, hops| {
            let local = Some(IpAddr::from([127, 0, 0, host]));
            Link { local, hops, ..link(at) }
        };
        denied(&from(1, 1)).await;
        both(&listener, &from(2, 1)).await;
        both(&listener, &Link { ttl_security: true, ..from(1, 1) }).await;
    }

    #[tokio::test]
    async fn only_the_right_key_opens() {
        for address in ADDRESSES {
            let (listener, remote) = listener(address);
            set_listener_key(&listener, remote.ip(), Some(b"right")).unwrap();
            let plain = link(remote);
            both(&listener, &Link { key: Some(b"right"), ..plain }).await;
            denied(&Link { key: Some(b"wrong"), ..plain }).await;
            denied(&plain).await;
            set_listener_key(&listener, remote.ip(), Some(b"new")).unwrap();
            both(&listener, &Link { key: Some(b"new"), ..plain }).await;
            set_listener_key(&listener, remote.ip(), None).unwrap();
            set_listener_key(&listener, remote.ip(), None).unwrap();
            both(&listener, &plain).await;
            let long = [b'x'; MAX_KEY + 1];
            assert!(set_listener_key(&listener, remote.ip(), Some(&long)).is_err());
        }
    }

    #[tokio::test]
    async fn both_families_have_a_listener_on_one_port() {
        let none = BTreeMap::new();
        let v6 = listen(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0), &none).unwrap();
        let port = v6.local_addr().unwrap().port();
        let v4 = listen(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), &none).unwrap();
        let peer = "192.0.2.1".parse().unwrap();
        set_listener_key(&v6, peer, Some(b"not for this one")).unwrap();
        set_listener_key(&v4, peer, Some(b"for this one")).unwrap();
    }

    #[tokio::test]
    async fn errors_name_the_step() {
        let (_listener, remote) = listener("127.0.0.1");
        let foreign = Link { local: Some("192.0.2.1".parse().unwrap()), ..link(remote) };
        let error = connect(&foreign).await.unwrap_err().to_string();
        assert!(error.starts_with("address 192.0.2.1: "), "{error}");
        let keyed = Link { key: Some(&[b'x'; MAX_KEY + 1]), ..link(remote) };
        let error = connect(&keyed).await.unwrap_err().to_string();
        assert!(error.starts_with("TCP MD5: "), "{error}");
    }
}
