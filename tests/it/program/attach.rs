//! Attached to a real interface: programs swapped under traffic, other programs, interfaces that
//! come and go.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lb_common::verdict::Outcome;
use lb_tests::lab::kernel::attach_xdp_pass;
use lb_tests::lab::namespace::{Namespace, remove};
use lb_tests::lab::wait;
use lb_tests::packet::UDP;
use lb_userspace::dataplane::{Dataplane, Error};
use lb_userspace::desired::XdpMode;

use super::pins::Pins;
use super::world::{IPIP4, number, vip_v4};

/// Longest wait for packets on their way.
const DEADLINE: Duration = Duration::from_secs(20);
/// Datagrams under which programs are swapped.
const DATAGRAMS: u64 = 20_000;
/// Looks at a counter before a wait.
const YIELDS: usize = 100;
/// At most so many on their way: fewer than an interface's queue holds.
const ON_THE_WAY: u64 = 64;

/// A load balancer's host and a client's, with one cable between them.
struct Cable {
    balancer: Namespace,
    client: Namespace,
}

impl Cable {
    fn new(test: &str) -> Self {
        let name = |end: &str| format!("lbtest-prog{}-{test}-{end}", std::process::id());
        let balancer = Namespace::create(&name("lb")).unwrap();
        let client = Namespace::create(&name("client")).unwrap();
        let cable = Self { balancer, client };
        cable.plug().unwrap();
        cable
    }

    /// Makes the cable, and the client know the way to all VIPs.
    fn plug(&self) -> Result<()> {
        self.balancer.ip(&format!(
            "link add lb0 address 02:bb:00:00:00:02 type veth peer name client0 netns {}\n\
             link set lb0 up",
            self.client.name()
        ))?;
        self.client.ip(&format!(
            "link set client0 up\n\
             addr add 198.51.100.7/24 dev client0\n\
             route add 203.0.113.0/24 dev client0\n\
             neigh replace {} lladdr 02:bb:00:00:00:02 dev client0 nud permanent",
            vip_v4(IPIP4)
        ))?;
        Ok(())
    }

    fn unplug(&self) -> Result<()> {
        self.balancer.ip("link del lb0").map(drop)
    }

    fn has_xdp(&self) -> bool {
        self.balancer.ip("link show dev lb0").unwrap().contains("xdp")
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for namespace in [&self.balancer, &self.client] {
            drop(remove(namespace.name()));
        }
    }
}

/// Datagrams of the VIP that were counted, whatever became of them.
fn counted(dataplane: &Dataplane) -> Result<u64> {
    let counters = dataplane.vip_counters()?;
    let vip = counters.get(usize::from(number(IPIP4, false, UDP))).context("no such VIP")?;
    Ok(vip.outcomes.iter().map(|counter| counter.packets).sum())
}

/// Sends datagrams to the VIP, never too many at once.
fn send(arrived: &AtomicU64, count: u64) -> Result<()> {
    let socket = UdpSocket::bind("198.51.100.7:0")?;
    for sent in 0..count {
        if arrived.load(Ordering::Relaxed) + ON_THE_WAY <= sent {
            wait::until("datagrams are counted", DEADLINE, || {
                // Most are counted at once; a wait takes many times longer.
                for _ in 0..YIELDS {
                    if arrived.load(Ordering::Relaxed) + ON_THE_WAY > sent {
                        return Ok(true);
                    }
                    std::thread::yield_now();
                }
                Ok(false)
            })?;
        }
        socket.send_to(b"datagram", (vip_v4(IPIP4), 53))?;
    }
    Ok(())
}

fn attach(dataplane: &mut Dataplane, mode: XdpMode) -> Result<bool> {
    let attached = dataplane.attach("lb0", mode)?;
    assert_eq!(attached.interface, "lb0");
    Ok(attached.native)
}

#[test]
fn a_second_lbd_takes_over_and_no_packet_is_lost() {
    let Some(pins) = Pins::new() else { return };
    let cable = Cable::new("over");
    let arrived = AtomicU64::new(0);
    let begin = || attach(&mut pins.create(), XdpMode::Auto);
    assert!(cable.balancer.inside(begin).unwrap(), "not native");
    // Looks at the counters all the time, so that the sender goes on during a swap.
    let watcher = pins.reopen();
    let watch = || -> Result<()> {
        wait::until("all datagrams are counted", 3 * DEADLINE, || {
            for _ in 0..YIELDS {
                arrived.store(counted(&watcher)?, Ordering::Relaxed);
            }
            Ok(arrived.load(Ordering::Relaxed) >= DATAGRAMS)
        })
    };
    let swap = || -> Result<u32> {
        let mut dataplane = pins.reopen();
        let mut swaps = 0;
        wait::until("all datagrams are counted", 3 * DEADLINE, || {
            // The old lbd is gone before the new one comes, or still there.
            if swaps % 2 == 0 {
                let mut next = pins.reopen();
                attach(&mut next, XdpMode::Auto)?;
                dataplane = next;
            } else {
                drop(std::mem::replace(&mut dataplane, pins.reopen()));
                attach(&mut dataplane, XdpMode::Native)?;
            }
            swaps += 1;
            Ok(arrived.load(Ordering::Relaxed) >= DATAGRAMS)
        })?;
        Ok(swaps)
    };
    let swaps = std::thread::scope(|scope| {
        let sender = scope.spawn(|| cable.client.inside(|| send(&arrived, DATAGRAMS)));
        let swaps = scope.spawn(|| cable.balancer.inside(swap));
        watch().unwrap();
        sender.join().unwrap().unwrap();
        swaps.join().unwrap().unwrap()
    });
    println!("{swaps} programs swapped under {DATAGRAMS} datagrams");
    assert!(swaps > 3, "{swaps}");
    // None is lost, none is counted twice.
    assert_eq!(counted(&watcher).unwrap(), DATAGRAMS);
    let vip = watcher.vip_counters().unwrap()[usize::from(number(IPIP4, false, UDP))];
    assert_eq!(vip.outcomes[Outcome::Redirect as usize].packets, DATAGRAMS);
    drop(watcher);
    // Without any lbd the program goes on.
    assert!(cable.has_xdp());
    cable.client.inside(|| send(&AtomicU64::new(u64::MAX / 2), 10)).unwrap();
    let more = || -> Result<()> {
        let dataplane = pins.reopen();
        wait::until("all are counted", DEADLINE, || Ok(counted(&dataplane)? == DATAGRAMS + 10))
    };
    cable.balancer.inside(more).unwrap();
    let names = pins.names();
    assert!(names.contains("link-native-lb0"), "{names:?}");
    assert_eq!(Dataplane::unload(pins.path()).unwrap().len(), names.len());
    assert!(!cable.has_xdp());
}

#[test]
fn modes_other_programs_and_interfaces_that_are_gone() {
    let Some(pins) = Pins::new() else { return };
    let cable = Cable::new("modes");
    let work = || -> Result<()> {
        let mut dataplane = pins.create();
        let error = dataplane.attach("lb1", XdpMode::Auto).unwrap_err();
        assert!(matches!(&error, Error::Attach { interface, .. } if interface == "lb1"), "{error}");
        let others = attach_xdp_pass("lb0")?;
        let error = dataplane.attach("lb0", XdpMode::Auto).unwrap_err();
        assert!(error.to_string().contains("another XDP program"), "{error}");
        drop(others);
        // A link whose last descriptor is closed detaches a moment later.
        wait::until("the other program is gone", DEADLINE, || Ok(!cable.has_xdp()))?;
        assert!(!attach(&mut dataplane, XdpMode::Generic)?);
        assert!(cable.has_xdp());
        // Automatic keeps what there is, native asks for the other one.
        assert!(!attach(&mut pins.reopen(), XdpMode::Auto)?);
        assert!(attach(&mut pins.reopen(), XdpMode::Native)?);
        assert!(attach(&mut pins.reopen(), XdpMode::Auto)?);
        // The interface goes, and one of its name comes.
        cable.unplug()?;
        cable.plug()?;
        assert!(!cable.has_xdp());
        assert!(attach(&mut dataplane, XdpMode::Auto)?);
        assert!(cable.has_xdp());
        assert_eq!(dataplane.detach_others(&["lb0".to_owned()])?, Vec::<String>::new());
        assert!(cable.has_xdp());
        assert_eq!(dataplane.detach_others(&[])?, ["lb0".to_owned()]);
        assert!(!cable.has_xdp());
        Ok(())
    };
    cable.balancer.inside(work).unwrap();
}

#[test]
fn maps_that_are_not_pinned_attach_nowhere() {
    let Some(mut dataplane) = super::world::kernel() else { return };
    let error = dataplane.attach("lo", XdpMode::Auto).unwrap_err();
    assert!(matches!(error, Error::Attach { .. }), "{error}");
}
