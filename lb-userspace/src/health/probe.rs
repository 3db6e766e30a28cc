//! One TCP probe: connect, note what came of it, and leave without a trace.
//!
//! A probe passes when the kernel of whoever answers has completed the handshake; no byte is sent.
//! It closes with RST, so neither side keeps a TIME_WAIT socket. Every error is sorted into what
//! counts against the backend and what is a fault of this machine.
//!
//! Must not: keep state between probes or judge a backend.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream as StdTcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::{Failure, Observation, Probe};

/// Makes `probe`; ends within its timeout. Needs a tokio runtime with IO and time, and
/// CAP_NET_ADMIN when the probe has a mark.
pub async fn connect(probe: Probe) -> Observation {
    let socket = match prepare(&probe) {
        Ok(socket) => socket,
        Err(error) => return Observation::Uncounted(format!("cannot open a socket: {error}")),
    };
    let tunnelled = probe.mark.is_some();
    match tokio::time::timeout(probe.timeout, socket.connect(probe.address)).await {
        Ok(Ok(stream)) if tunnelled => check_peer_is_remote(&stream, probe.address.ip()),
        Ok(Ok(_stream)) => Observation::Passed,
        Ok(Err(error)) => classify(&error, tunnelled, probe.timeout),
        Err(_elapsed) => Observation::Failed(Failure::Timeout(probe.timeout)),
    }
}

/// A socket with its mark and source address, that will close with RST.
fn prepare(probe: &Probe) -> io::Result<TcpSocket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(probe.address), kind, Some(Protocol::TCP))?;
    socket.set_linger(Some(Duration::ZERO))?;
    if let Some(mark) = probe.mark {
        socket.set_mark(mark)?;
    }
    if let Some(source) = probe.source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(TcpSocket::from_std_stream(StdTcpStream::from(socket)))
}

/// A VIP that is an address of this machine would be answered by itself, not by the backend.
fn check_peer_is_remote(stream: &TcpStream, vip: IpAddr) -> Observation {
    match stream.local_addr() {
        Ok(local) if local.ip() == vip => {
            Observation::Uncounted(format!("{vip} is an address of this machine"))
        }
        Ok(_) => Observation::Passed,
        Err(error) => Observation::Uncounted(format!("cannot read the socket's address: {error}")),
    }
}

/// What a failed connect means. Through the tunnel the socket's own route ends at this machine's
/// gateway, so that "unreachable" speaks of that and not of the backend.
fn classify(error: &io::Error, tunnelled: bool, timeout: Duration) -> Observation {
    let Some(code) = error.raw_os_error() else {
        return Observation::Uncounted(error.to_string());
    };
    match code {
        libc::ECONNREFUSED => Observation::Failed(Failure::Refused),
        libc::ETIMEDOUT => Observation::Failed(Failure::Timeout(timeout)),
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EHOSTDOWN | libc::ENONET if tunnelled => {
            Observation::Uncounted(format!("no way from this machine to the VIP: {error}"))
        }
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EHOSTDOWN | libc::ENONET => {
            Observation::Failed(Failure::Unreachable)
        }
        libc::ECONNRESET | libc::ECONNABORTED | libc::EPROTO | libc::EPIPE => {
            Observation::Failed(Failure::Other(code))
        }
        // Descriptors, ports, memory, permission, a firewall here, an interface that is down.
        _ => Observation::Uncounted(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
