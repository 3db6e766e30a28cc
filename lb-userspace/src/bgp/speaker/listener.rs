//! The listening sockets, the peers' keys on them, and who connects.
//!
//! A part of `speaker`.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::bgp::session::LastError;
use crate::bgp::socket;
use crate::config::Password;

/// What fails is tried again after this, then after twice as long, and so on.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest pause between two tries.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// One address to listen on.
#[derive(Debug, Default)]
struct Listener {
    socket: Option<TcpListener>,
    /// The keys that are set.
    keys: BTreeMap<IpAddr, Password>,
    /// The TTLs that it was opened with.
    min_ttls: BTreeMap<IpAddr, u8>,
    /// Why it does not listen, or lacks a key.
    error: Option<LastError>,
    retry: Option<Duration>,
    pause: Duration,
}

/// A connection that was accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) remote: IpAddr,
    /// The key it is signed with.
    pub(super) key: Option<Password>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    listeners: BTreeMap<SocketAddr, Listener>,
    guards: Guards,
}

/// What is asked of who connects, by the peer's address.
#[derive(Debug, Default)]
pub(super) struct Guards {
    /// MD5 keys.
    pub(super) keys: BTreeMap<IpAddr, Password>,
    /// The smallest TTLs, of peers with GTSM.
    pub(super) min_ttls: BTreeMap<IpAddr, u8>,
}

impl Listeners {
    /// Listens where it is wanted and nowhere else, guarded so.
    pub(super) fn set(&mut self, addresses: &[SocketAddr], guards: Guards, now: Duration) {
        self.guards = guards;
        self.listeners.retain(|address, _| addresses.contains(address));
        for address in addresses {
            self.listeners.entry(*address).or_default().retry = Some(now);
        }
        self.retry(now);
    }

    /// Tries again what is due.
    pub(super) fn retry(&mut self, now: Duration) {
        for (address, listener) in &mut self.listeners {
            if listener.retry.is_some_and(|at| at <= now) {
                listener.open(*address, &self.guards, now);
            }
        }
    }

    /// When [`Listeners::retry`] has something to do.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.listeners.values().filter_map(|listener| listener.retry).min()
    }

    /// Why we do not listen, by address.
    pub(super) fn report(&self) -> BTreeMap<SocketAddr, Option<String>> {
        self.listeners.iter().map(|(address, it)| (*address, it.text())).collect()
    }

    /// Why a peer may not be able to connect: one of the listeners of its family has failed.
    pub(super) fn trouble(&self, peer: IpAddr) -> Option<&LastError> {
        let family = self.listeners.iter().filter(|(it, _)| it.is_ipv4() == peer.is_ipv4());
        family.filter_map(|(_, listener)| listener.error.as_ref()).next()
    }

    /// Waits for a connection. A socket that fails is opened anew, later.
    pub(super) async fn accept(&mut self, clock: fn() -> Duration) -> Accepted {
        poll_fn(|context| {
            for (address, listener) in &mut self.listeners {
                if let Poll::Ready(accepted) = listener.accept(*address, clock, context) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Listener {
    /// Opens it if it is not open, and brings its guards up to date.
    fn open(&mut self, address: SocketAddr, guards: &Guards, now: Duration) {
        match self.try_open(address, guards) {
            Ok(()) => (self.error, self.retry, self.pause) = (None, None, RETRY_MIN),
            Err(error) => self.fail(address, &error, now),
        }
    }

    fn text(&self) -> Option<String> {
        self.error.as_ref().map(|error| error.text.clone())
    }

    fn fail(&mut self, address: SocketAddr, error: &io::Error, now: Duration) {
        let text = format!("cannot listen on {address}: {error}");
        if self.text().as_ref() != Some(&text) {
            tracing::warn!("BGP: {text}");
        }
        let at_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.error = Some(LastError { at_ms, text });
        self.pause = self.pause.clamp(RETRY_MIN, RETRY_MAX);
        self.retry = Some(now.saturating_add(self.pause));
        self.pause = self.pause.saturating_mul(2);
    }

    fn try_open(&mut self, address: SocketAddr, guards: &Guards) -> io::Result<()> {
        let Guards { keys, min_ttls } = guards;
        // Nor may those be heard that wait to be accepted, and came in before.
        let open = self.socket.take().filter(|_| self.min_ttls == *min_ttls);
        let socket = match open {
            Some(socket) => self.socket.insert(socket),
            None => {
                self.keys.clear();
                self.min_ttls.clone_from(min_ttls);
                self.socket.insert(socket::listen(address, min_ttls)?)
            }
        };
        let old: Vec<IpAddr> =
            self.keys.keys().filter(|it| !keys.contains_key(it)).copied().collect();
        for peer in old {
            socket::set_listener_key(socket, peer, None)?;
            self.keys.remove(&peer);
        }
        for (peer, key) in keys.iter().filter(|(peer, _)| peer.is_ipv4() == address.is_ipv4()) {
            if self.keys.get(peer) != Some(key) {
                socket::set_listener_key(socket, *peer, Some(key.bytes()))
                    .map_err(|error| io::Error::other(format!("TCP MD5 key of {peer}: {error}")))?;
                self.keys.insert(*peer, key.clone());
            }
        }
        Ok(())
    }

    fn accept(
        &mut self,
        address: SocketAddr,
        clock: fn() -> Duration,
        context: &mut Context<'_>,
    ) -> Poll<Accepted> {
        let Some(socket) = &self.socket else { return Poll::Pending };
        match socket.poll_accept(context) {
            Poll::Ready(Ok((stream, remote))) => {
                let remote = remote.ip();
                let key = self.keys.get(&remote).cloned();
                Poll::Ready(Accepted { stream, remote, key })
            }
            // The peer changed its mind; there may be others.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            // Out of descriptors or memory: not again at once, that would be a busy loop.
            Poll::Ready(Err(error)) => {
                self.socket = None;
                self.fail(address, &error, clock());
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
