//! Probes against real listeners on the loopback, and in a network namespace without any route.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

use super::*;
use crate::health::{BackendKey, Machine, Target, Thresholds};

/// A probe of `address` with the ticket of a machine that knows nothing else.
fn probe(address: SocketAddr, timeout: Duration) -> Probe {
    let interval = Duration::from_secs(1);
    let thresholds = Thresholds { rise: 1, fall: 1 };
    let (backend, mark, source) = (address.ip(), None, None);
    let target = Target { backend, address, mark, source, interval, timeout, thresholds };
    let mut machine = Machine::start(0, std::collections::BTreeMap::new());
    machine.set_targets([(BackendKey::new("web", "web1"), target)].into(), Duration::ZERO);
    machine.probe_due(interval).unwrap()
}

fn run(probe: Probe) -> Observation {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(connect(probe))
}

fn listen(address: impl Into<IpAddr>) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((address.into(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

const PATIENT: Duration = Duration::from_secs(10);

#[test]
fn a_listener_passes_and_a_closed_port_is_refused() {
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
        let (listener, address) = listen(address);
        assert_eq!(run(probe(address, PATIENT)), Observation::Passed);
        drop(listener);
        let refused = Observation::Failed(Failure::Refused);
        assert_eq!(run(probe(address, PATIENT)), refused);
    }
}

#[test]
fn a_probe_ends_with_a_reset_and_without_a_byte() {
    use std::io::Read as _;
    let (listener, address) = listen(Ipv4Addr::LOCALHOST);
    assert_eq!(run(probe(address, PATIENT)), Observation::Passed);
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.set_read_timeout(Some(PATIENT)).unwrap();
    let error = accepted.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_full_backlog_is_a_timeout() {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    // A backlog of 0 still has room for one connection; the next SYN is dropped.
    let _fills_the_backlog = StdTcpStream::connect(address).unwrap();
    let timeout = Duration::from_millis(150);
    let expected = Observation::Failed(Failure::Timeout(timeout));
    assert_eq!(run(probe(address, timeout)), expected);
}

#[test]
fn a_foreign_source_address_is_no_fault_of_the_backend() {
    let (_listener, address) = listen(Ipv4Addr::LOCALHOST);
    let own = Probe { source: Some(Ipv4Addr::LOCALHOST.into()), ..probe(address, PATIENT) };
    assert_eq!(run(own), Observation::Passed);
    let foreign = Probe { source: Some([192, 0, 2, 1].into()), ..own };
    let Observation::Uncounted(reason) = run(foreign) else { panic!("counted") };
    assert!(reason.starts_with("cannot open a socket: "), "{reason}");
}

#[test]
fn a_vip_of_this_machine_proves_nothing() {
    let (_listener, address) = listen(Ipv4Addr::LOCALHOST);
    let marked = Probe { mark: Some(1), ..probe(address, PATIENT) };
    let Observation::Uncounted(reason) = run(marked) else { panic!("counted") };
    // Without CAP_NET_ADMIN the mark cannot be set, which counts no more.
    let local = reason == "127.0.0.1 is an address of this machine";
    assert!(local || reason.starts_with("cannot open a socket: "), "{reason}");
}

#[test]
fn without_a_route_the_backend_is_unreachable() {
    let answer = std::thread::spawn(|| {
        // SAFETY: no pointers; only this thread, which ends here, moves to a new namespace.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return None;
        }
        let direct = probe(SocketAddr::from(([192, 0, 2, 1], 80)), PATIENT);
        Some((run(direct), run(Probe { mark: Some(1), ..direct })))
    });
    let Some((direct, tunnelled)) = answer.join().unwrap() else {
        eprintln!("SKIP: a network namespace of one's own needs root");
        return;
    };
    assert_eq!(direct, Observation::Failed(Failure::Unreachable));
    let Observation::Uncounted(reason) = tunnelled else { panic!("counted: {tunnelled:?}") };
    assert!(reason.starts_with("no way from this machine to the VIP"), "{reason}");
}

#[test]
fn errors_are_sorted() {
    let refused = Observation::Failed(Failure::Refused);
    let timeout = Observation::Failed(Failure::Timeout(PATIENT));
    let unreachable = Observation::Failed(Failure::Unreachable);
    let reset = Observation::Failed(Failure::Other(libc::ECONNRESET));
    for (code, expected) in [
        (libc::ECONNREFUSED, Some(&refused)),
        (libc::ETIMEDOUT, Some(&timeout)),
        (libc::EHOSTUNREACH, Some(&unreachable)),
        (libc::ENETUNREACH, Some(&unreachable)),
        (libc::ECONNRESET, Some(&reset)),
        (libc::EMFILE, None),
        (libc::ENFILE, None),
        (libc::ENOBUFS, None),
        (libc::ENOMEM, None),
        (libc::EADDRNOTAVAIL, None),
        (libc::EADDRINUSE, None),
        (libc::EACCES, None),
        (libc::EPERM, None),
        (libc::ENETDOWN, None),
    ] {
        let error = io::Error::from_raw_os_error(code);
        let found = classify(&error, false, PATIENT);
        match expected {
            Some(expected) => assert_eq!(found, *expected, "{error}"),
            None => assert!(matches!(found, Observation::Uncounted(_)), "{error}: {found:?}"),
        }
    }
}
