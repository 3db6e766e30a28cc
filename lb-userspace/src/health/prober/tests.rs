//! The prober's thread with real sockets on the loopback, and with stand-ins for them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::health::{Failure, Thresholds, Verdict, probe};

/// Longer than any test takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

fn boot_time() -> Duration {
    // Read without a clock call of our own: seconds since boot, in hundredths.
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    Duration::from_secs_f64(uptime.split(' ').next().unwrap().parse().unwrap())
}

fn options(connect: Connect) -> ProberOptions {
    ProberOptions { seed: 1, remembered: BTreeMap::new(), clock: boot_time, connect }
}

fn sockets() -> Connect {
    Box::new(|request| Box::pin(probe::connect(request)))
}

fn target(address: SocketAddr) -> Target {
    Target {
        backend: address.ip(),
        address,
        mark: None,
        source: None,
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(5),
        thresholds: Thresholds { rise: 2, fall: 2 },
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(DEADLINE, future).await.expect("in time") })
}

#[test]
fn verdicts_follow_a_real_listener() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let key = BackendKey::new("web", "web1");
    let (prober, mut events) = Prober::spawn(options(sockets())).unwrap();
    block_on(async {
        prober.set_targets([(key.clone(), target(address))].into()).await.unwrap();
        let event = events.recv().await.unwrap();
        assert_eq!((&event.backend, event.up), (&key, true), "{}", event.reason);
        drop(listener);
        let event = events.recv().await.unwrap();
        assert_eq!((&event.backend, event.up), (&key, false));
        assert_eq!(event.reason, format!("tcp {address}: connection refused, 2 in a row"));
        let report = prober.report().await.unwrap();
        let health = &report.backends[&key];
        assert_eq!((health.verdict, health.since), (Verdict::Down, event.at));
        assert!(report.probes >= 4 && health.took.is_some());
        let _listener = TcpListener::bind(address).unwrap();
        assert!(events.recv().await.unwrap().up);
    });
}

#[test]
fn the_probes_end_with_the_handle() {
    let (prober, mut events) = Prober::spawn(options(sockets())).unwrap();
    drop(prober);
    assert_eq!(block_on(events.recv()), None);
}

/// As many backends as the events' channel does not hold, all turning at once, twice.
#[test]
fn a_reader_that_lags_gets_the_newest_event_of_each_backend() {
    const BACKENDS: usize = EVENTS_MAX + 500;
    let up = Arc::new(AtomicBool::new(true));
    let connect: Connect = {
        let up = Arc::clone(&up);
        Box::new(move |_| {
            let passed = up.load(Ordering::SeqCst);
            let observation =
                if passed { Observation::Passed } else { Observation::Failed(Failure::Refused) };
            Box::pin(std::future::ready(observation))
        })
    };
    let (prober, mut events) = Prober::spawn(options(connect)).unwrap();
    let slow = Target { interval: Duration::from_millis(200), ..target(([10, 0, 0, 1], 1).into()) };
    let key = |i: usize| BackendKey::new("web", &i.to_string());
    block_on(async {
        prober.set_targets((0..BACKENDS).map(|i| (key(i), slow.clone())).collect()).await.unwrap();
        for expected in [Verdict::Up, Verdict::Down] {
            up.store(expected == Verdict::Up, Ordering::SeqCst);
            while !prober.report().await.unwrap().backends.values().all(|b| b.verdict == expected) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let mut last = BTreeMap::new();
        while last.len() < BACKENDS || last.values().any(|up| *up) {
            let event = events.recv().await.unwrap();
            last.insert(event.backend, event.up);
        }
    });
}

#[test]
fn probes_under_way_are_limited_and_nobody_starves() {
    const BACKENDS: usize = 3 * IN_FLIGHT_MIN;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let connect: Connect = {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        Box::new(move |_| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(30)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Observation::Passed
            })
        })
    };
    let (commands, command_receiver) = mpsc::channel(COMMANDS_MAX);
    let (events, mut event_receiver) = mpsc::channel(EVENTS_MAX);
    let worker = Worker {
        machine: Machine::start(1, BTreeMap::new()),
        clock: boot_time,
        connect,
        commands: command_receiver,
        events,
        pending: BTreeMap::new(),
        flights: FuturesUnordered::new(),
        in_flight_max: IN_FLIGHT_MIN,
    };
    block_on(async {
        let key = |i: usize| BackendKey::new("web", &i.to_string());
        let targets = (0..BACKENDS).map(|i| (key(i), target(([10, 0, 0, 1], 1).into())));
        commands.send(Command::SetTargets(targets.collect())).await.unwrap();
        let checks = async {
            for _ in 0..BACKENDS {
                assert!(event_receiver.recv().await.unwrap().up);
            }
            drop(commands);
        };
        tokio::join!(worker.run(), checks);
    });
    assert_eq!(most.load(Ordering::SeqCst), IN_FLIGHT_MIN);
}

#[test]
fn limits_of_open_files() {
    let header = "Limit                     Soft Limit           Hard Limit           Units\n";
    for (line, expected) in [
        ("Max open files            1024                 524288               files", Some(1024)),
        (
            "Max open files            unlimited            unlimited            files",
            Some(usize::MAX),
        ),
        ("Max processes             7                    7                    processes", None),
        ("", None),
    ] {
        assert_eq!(open_files_max(&format!("{header}{line}\n")), expected);
    }
    assert!((IN_FLIGHT_MIN..=IN_FLIGHT_MAX).contains(&in_flight_max()));
}
