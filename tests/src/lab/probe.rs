//! Single questions of the client to a VIP, each with its own time limit.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::addresses::{ECHO_PORT, Family, HTTP_PORT};
use super::kernel;
use super::namespace::Namespace;

/// Longest wait for a step: enough for some retransmissions, as packets may be lost on purpose.
const STEP: Duration = Duration::from_secs(5);
/// Longest wait for something that should not come.
const NOTHING: Duration = Duration::from_secs(1);
/// ICMP and ICMPv6 echo: type of the request, type of the reply (RFC 792, RFC 4443 section 4).
const ECHO_TYPES: [(u8, u8); 2] = [(8, 0), (128, 129)];

/// An answer of nginx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Who answered.
    pub backend: String,
    /// Length of the body in bytes.
    pub body_bytes: usize,
}

/// Gets `path` from a VIP on a connection of its own.
///
/// # Errors
/// No whole answer, with not more than 5 s between its parts.
pub fn get(client: &Namespace, vip: IpAddr, path: &str) -> Result<Answer> {
    client
        .inside(|| {
            let mut stream = connect(vip, HTTP_PORT, STEP)?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            answer(&mut stream)
        })
        .with_context(|| format!("GET {path} from {vip}"))
}

/// Sends a body of `bytes` to a VIP, then asks on the same connection: the answer comes only when
/// all of the body has arrived.
///
/// # Errors
/// No whole answer, with not more than 5 s between its parts.
pub fn upload(client: &Namespace, vip: IpAddr, bytes: usize) -> Result<Answer> {
    client
        .inside(|| {
            let mut stream = connect(vip, HTTP_PORT, STEP)?;
            let head = format!("POST / HTTP/1.1\r\nHost: vip\r\nContent-Length: {bytes}\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            stream.write_all(&vec![b'.'; bytes])?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n")?;
            let both = read_all(&mut stream)?;
            ensure!(both.matches("HTTP/1.1 200").count() == 2, "not two answers: {both}");
            let second = both.rfind("HTTP/1.1 200").unwrap_or(0);
            parse(&both[second..])
        })
        .with_context(|| format!("POST of {bytes} bytes to {vip}"))
}

/// Whether a TCP port of a VIP swallows connections: neither opened nor refused within a second.
///
/// # Errors
/// The client's namespace cannot be entered.
pub fn is_swallowed(client: &Namespace, vip: IpAddr, port: u16) -> Result<bool> {
    client.inside(|| match TcpStream::connect_timeout(&(vip, port).into(), NOTHING) {
        Err(error) => Ok(error.kind() == ErrorKind::TimedOut),
        Ok(_) => Ok(false),
    })
}

/// Sends a datagram to the echo of a VIP; returns the backend that answered.
///
/// # Errors
/// No answer within 5 s, or another text.
pub fn echo(client: &Namespace, vip: IpAddr, text: &str) -> Result<String> {
    client
        .inside(|| {
            let socket = UdpSocket::bind(SocketAddr::from((unspecified(vip), 0)))?;
            socket.set_read_timeout(Some(STEP))?;
            socket.connect((vip, ECHO_PORT))?;
            socket.send(text.as_bytes())?;
            let mut buffer = [0; 2_048];
            let length = socket.recv(&mut buffer)?;
            let reply = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let (backend, echoed) = reply.split_once(' ').unwrap_or(("", &reply));
            ensure!(echoed == text, "sent `{text}`, got `{reply}`");
            Ok(backend.to_owned())
        })
        .with_context(|| format!("UDP to {vip}"))
}

/// Pings an address with `payload`; true if the same comes back within 5 s.
///
/// # Errors
/// The socket cannot be made or used.
pub fn ping(client: &Namespace, address: IpAddr, payload: &[u8]) -> Result<bool> {
    client.inside(|| {
        let (family, [v4, v6]) = (family_of(address), ECHO_TYPES);
        let (request, reply) = if family == Family::V4 { v4 } else { v6 };
        let socket = kernel::ping_socket(family)?;
        socket.set_read_timeout(Some(STEP))?;
        // Type, code, and checksum and identifier which the kernel fills in, sequence number.
        let message = [&[request, 0, 0, 0, 0, 0, 0, 1], payload].concat();
        socket.send_to(&message, (address, 0)).with_context(|| format!("ping of {address}"))?;
        let mut buffer = [0; 2_048];
        match socket.recv(&mut buffer) {
            Ok(length) => Ok(buffer[0] == reply && &buffer[8..length] == payload),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
}

fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn connect(vip: IpAddr, port: u16, within: Duration) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&(vip, port).into(), within)
        .with_context(|| format!("cannot connect to {vip} port {port}"))?;
    stream.set_read_timeout(Some(STEP))?;
    stream.set_write_timeout(Some(STEP))?;
    Ok(stream)
}

fn answer(stream: &mut TcpStream) -> Result<Answer> {
    parse(&read_all(stream)?)
}

fn read_all(stream: &mut TcpStream) -> Result<String> {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).context("the answer does not end")?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn parse(answer: &str) -> Result<Answer> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("no head: {answer}") };
    let backend = head.lines().find_map(|line| line.strip_prefix("X-Backend: "));
    let backend = backend.with_context(|| format!("no X-Backend: {head}"))?.to_owned();
    Ok(Answer { backend, body_bytes: body.len() })
}
