//! The real `lb-agent` in namespaces: every mode, real TCP, a restart, every error.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::build::{gue, request};
use super::lab::{DEADLINE, Lab, inside};
use super::tun;

/// UDP header that [`gue`] writes and a socket writes itself.
const UDP_HEADER: usize = 8;
const PAYLOAD: &[u8] = b"hello, backend";

/// Sockets of the VIPs in the backend, port 443.
fn served(lab: &Lab) -> [UdpSocket; 2] {
    inside(&lab.backend(), || {
        ["203.0.113.10:443", "[2001:db8:53::10]:443"].map(|address| {
            let socket = UdpSocket::bind(address).unwrap();
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket
        })
    })
}

/// Sockets of the client towards the backend's own addresses, port of GUE.
fn senders(lab: &Lab) -> [UdpSocket; 2] {
    inside(&lab.client(), || {
        [("0.0.0.0:0", "10.9.0.2:6080"), ("[::]:0", "[fd09::2]:6080")].map(|(local, remote)| {
            let socket = UdpSocket::bind(local).unwrap();
            socket.connect(remote).unwrap();
            socket
        })
    })
}

#[test]
fn every_mode_decapsulates_and_leaves_nothing() {
    let Some(lab) = Lab::new("modes", 1500) else { return };
    let (served, senders) = (served(&lab), senders(&lab));
    let modes = [
        ("auto", "native XDP"),
        ("xdp", "native XDP"),
        ("xdp-generic", "generic XDP"),
        ("tc", "tc ingress"),
    ];
    for (mode, place) in modes {
        let mut agent = lab.agent(&format!("--mode {mode}"));
        assert!(agent.rest().contains(place), "{}", agent.rest());
        for sender in &senders {
            for (v6, socket) in [(false, &served[0]), (true, &served[1])] {
                let packet = gue(&[0xa5; 24], &request(v6, 0));
                sender.send(packet.get(UDP_HEADER..).unwrap()).unwrap();
                let mut bytes = [0; 64];
                let length = socket.recv(&mut bytes).unwrap();
                assert_eq!(bytes.get(..length).unwrap(), PAYLOAD, "{mode} v6:{v6}");
            }
        }
        agent.signal(libc::SIGUSR1);
        let line = agent.wait_for("counters:");
        assert!(line.contains("gue_v4=2") && line.contains("gue_v6=2"), "{line}");
        assert_eq!(lab.attached().len(), 2, "{:?}", lab.attached());
        agent.stop();
        assert_eq!(lab.attached(), [""; 0]);
    }
}

/// Bytes that the client sends to the VIP over TCP.
const BULK: usize = 4 << 20;

#[test]
fn tcp_goes_through_and_segments_fit_the_tunnel() {
    for (name, backend) in [("tcp4", "10.9.0.2:6080"), ("tcp6", "[fd09::2]:6080")] {
        for mode in ["xdp", "xdp-generic", "tc"] {
            let Some(lab) = Lab::new(&format!("{name}-{mode}"), 1500) else { return };
            let longest = tun::wrap(&lab, backend);
            let mut agent = lab.agent(&format!("--mode {mode} --tunnel-mtu 1500"));
            for vip in ["203.0.113.10:80", "[2001:db8:53::10]:80"] {
                transfer(&lab, vip.parse().unwrap());
            }
            agent.signal(libc::SIGUSR1);
            let line = agent.wait_for("counters:");
            assert!(line.contains("mss_clamped=2"), "{name} {mode}: {line}");
            // 1500 less the 124 bytes of GUE over IPv6.
            let longest = longest.load(Ordering::Relaxed);
            assert_eq!(longest, 1376, "{name} {mode}: {}", agent.rest());
        }
    }
}

/// Sends [`BULK`] bytes from the client and waits for the backend's answer.
fn transfer(lab: &Lab, vip: SocketAddr) {
    let listener = inside(&lab.backend(), || TcpListener::bind(vip).unwrap());
    let backend = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut received = vec![0; BULK];
        stream.read_exact(&mut received).unwrap();
        stream.write_all(b"done").unwrap();
        received
    });
    let sent: Vec<u8> = (0..BULK).map(|place| place.to_le_bytes()[place % 3]).collect();
    let mut stream = inside(&lab.client(), || TcpStream::connect_timeout(&vip, DEADLINE).unwrap());
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(&sent).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"done");
    assert!(backend.join().unwrap() == sent, "the bytes arrived changed");
}

/// Time between two datagrams of the flow that watches a restart.
const PACE: Duration = Duration::from_micros(500);

/// Sends one datagram each [`PACE`] until told to stop; how many were sent and received.
fn watch(lab: &Lab, stop: &AtomicBool) -> (u64, u64) {
    let [socket, _] = served(lab);
    let [sender, _] = senders(lab);
    let packet = gue(&[], &request(false, 0));
    let (mut sent, mut received, mut bytes) = (0, 0, [0; 64]);
    socket.set_read_timeout(Some(PACE)).unwrap();
    while !stop.load(Ordering::Relaxed) {
        sender.send(packet.get(UDP_HEADER..).unwrap()).unwrap();
        sent += 1;
        received += u64::from(socket.recv(&mut bytes).is_ok());
    }
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    while socket.recv(&mut bytes).is_ok() {
        received += 1;
    }
    (sent, received)
}

#[test]
fn restart_over_pins_loses_nothing() {
    for mode in ["xdp", "xdp-generic", "tc"] {
        let Some(lab) = Lab::new(&format!("restart-{mode}"), 1500) else { return };
        let pins = lab.pin_path();
        let words = format!("--mode {mode} --pin-path {}", pins.display());
        let first = lab.agent(&words);
        let stop = AtomicBool::new(false);
        let (sent, received) = thread::scope(|scope| {
            let flow = scope.spawn(|| watch(&lab, &stop));
            first.stop();
            let mut second = lab.agent(&words);
            assert!(second.rest().contains("taken_over=true"), "{}", second.rest());
            second.signal(libc::SIGKILL);
            second.wait();
            // Another mode is refused, and so is a second agent; neither disturbs the flow.
            let third = lab.agent(&words);
            let (done, said) = lab.try_agent(&format!(
                "--interface e0 --vip 203.0.113.10 --pin-path {}",
                pins.display()
            ));
            assert!(!done && said.contains("another lb-agent is running"), "{said}");
            third.stop();
            let other = if mode == "tc" { "xdp" } else { "tc" };
            let (done, said) = lab.try_agent(&format!(
                "--interface e0 --vip 203.0.113.10 --mode {other} --pin-path {}",
                pins.display()
            ));
            assert!(!done && said.contains("lb-agent unload --pin-path"), "{said}");
            stop.store(true, Ordering::Relaxed);
            flow.join().unwrap()
        });
        assert!(sent > 100, "{sent}");
        assert_eq!(sent, received, "{mode}");
        stats_then_unload(&lab, sent);
    }
}

/// The counters went on over all restarts; unload leaves nothing.
fn stats_then_unload(lab: &Lab, sent: u64) {
    let pins = lab.pin_path();
    let stats = std::process::Command::new(env!("CARGO_BIN_EXE_lb-agent"))
        .args(["stats", "-o", "json", "--pin-path"])
        .arg(&pins)
        .output()
        .unwrap();
    let stats: serde_json::Value = serde_json::from_slice(&stats.stdout).unwrap();
    assert_eq!(stats["gue_v4"]["packets"], sent);
    assert_eq!(lab.attached().len(), 2);
    let unload = format!("unload --pin-path {}", pins.display());
    assert_eq!(lab.try_agent(&unload), (true, String::new()));
    assert_eq!(lab.attached(), [""; 0]);
    assert!(!pins.exists());
    let (done, said) = lab.try_agent(&unload);
    assert!(!done && said.contains("no agent is pinned in"), "{said}");
}

#[test]
fn pins_of_an_interface_that_is_gone_are_replaced() {
    let Some(lab) = Lab::new("stale", 1500) else { return };
    let words = format!("--pin-path {}", lab.pin_path().display());
    lab.agent(&words).stop();
    lab.ip(&lab.backend(), "link del e0");
    lab.ip(
        &lab.client(),
        "link add e0 type veth peer name e0 netns NS".replace("NS", &lab.backend()).as_str(),
    );
    let mut agent = lab.agent(&words);
    assert!(agent.rest().contains("taken_over=false"), "{}", agent.rest());
    assert_eq!(lab.attached().len(), 2);
}

#[test]
fn addresses_are_followed() {
    let Some(lab) = Lab::new("follow", 1500) else { return };
    let [socket, _] = served(&lab);
    let mut agent = lab.agent("");
    lab.ip(&lab.backend(), "address add 10.9.0.3/24 dev e0");
    agent.wait_for("addresses changed");
    let sender = inside(&lab.client(), || UdpSocket::bind("0.0.0.0:0").unwrap());
    let packet = gue(&[], &request(false, 0));
    sender.send_to(packet.get(UDP_HEADER..).unwrap(), "10.9.0.3:6080").unwrap();
    let mut bytes = [0; 64];
    assert_eq!(socket.recv(&mut bytes).unwrap(), PAYLOAD.len());
    lab.ip(&lab.backend(), "address del 10.9.0.3/24 dev e0");
    agent.wait_for("addresses changed");
}

#[test]
fn a_second_agent_is_refused() {
    let Some(lab) = Lab::new("second", 1500) else { return };
    for (mode, place) in [("xdp", "XDP"), ("xdp-generic", "XDP"), ("tc", "tc ingress")] {
        let agent = lab.agent(&format!("--mode {mode}"));
        for other in ["auto", "xdp", "tc"] {
            let words = format!("--interface e0 --vip 203.0.113.10 --mode {other}");
            let (done, said) = lab.try_agent(&words);
            assert!(!done && said.contains("already has another lb-agent"), "{said}");
            assert!(said.contains(place), "{said}");
        }
        assert_eq!(lab.attached().len(), 2, "{:?}", lab.attached());
        agent.stop();
        assert_eq!(lab.attached(), [""; 0]);
    }
}

#[test]
fn errors_are_one_clear_line_and_leave_nothing() {
    let Some(lab) = Lab::new("errors", 1500) else { return };
    let cases = [
        ("--interface e9 --vip 203.0.113.10", "interface `e9` does not exist"),
        ("--interface lo --vip 203.0.113.10", "`lo` is not an Ethernet interface"),
        ("--interface e0 --vip 224.0.0.1", "`224.0.0.1` cannot be a VIP"),
        ("--interface e0 --vip 203.0.113.10 --pin-path /tmp", "/tmp is not on a BPF file system"),
        ("stats --pin-path /sys/fs/bpf/lbtest-none", "no agent is pinned in"),
        ("unload --pin-path /sys/fs/bpf/lbtest-none", "no agent is pinned in"),
    ];
    for (words, message) in cases {
        let (done, said) = lab.try_agent(words);
        assert!(!done, "{words}");
        let errors: Vec<_> = said.lines().filter(|line| line.starts_with("lb-agent: ")).collect();
        assert!(errors.len() == 1 && said.contains(message), "{words}: {said}");
        assert_eq!(lab.attached(), [""; 0], "{words}");
    }
}

#[test]
fn a_missing_capability_is_named() {
    let Some(lab) = Lab::new("caps", 1500) else { return };
    let output = std::process::Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", lab.backend()))
        .args(["setpriv", "--bounding-set", "-bpf,-sys_admin", env!("CARGO_BIN_EXE_lb-agent")])
        .args(["--interface", "e0", "--vip", "203.0.113.10"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("missing capabilities: CAP_BPF;"), "{said}");
}

#[test]
fn an_interface_that_goes_away_ends_the_agent() {
    let Some(lab) = Lab::new("gone", 1500) else { return };
    let mut agent = lab.agent("");
    lab.ip(&lab.client(), "link del e0");
    assert!(!agent.wait().success());
    assert!(agent.rest().contains("interface `e0` is gone"), "{}", agent.rest());
}

#[test]
fn what_is_amiss_is_said_once() {
    let Some(lab) = Lab::new("warn", 1400) else { return };
    lab.ip(&lab.backend(), "address del 203.0.113.10/32 dev lo");
    lab.ip(&lab.backend(), "address add 2001:db8:53::11/128 dev e0 nodad");
    let mut agent = lab.agent("--vip 2001:db8:53::11 --tunnel-mtu 1401");
    let log = agent.rest();
    for line in [
        "VIP 203.0.113.10 is no address of this namespace",
        "VIP 2001:db8:53::11 is an address of e0",
        "the MTU of e0 is 1400, so tunnel packets of 1401 bytes may not arrive",
        "leaves 1277 bytes for packets inside",
    ] {
        assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
    }
    assert!(!log.contains("VIP 2001:db8:53::10"), "{log}");
}
