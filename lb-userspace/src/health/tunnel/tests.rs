//! The program against the encapsulation of the host's own data plane, byte for byte, through
//! BPF_PROG_TEST_RUN; and what a probe is worth by the program's counters.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd as _;

use aya::programs::{TestRun as _, TestRunOptions};
use lb_common::addr::Address;
use lb_common::backend::{Backend, BackendId, Link, Outer, State};
use lb_common::control::{Control, Settings};
use lb_common::encap;
use lb_common::flow::{Bucket, Entry};
use lb_common::hash::HashKey;
use lb_common::packet::Buffer;
use lb_common::probe::mark_of;
use lb_common::process::process;
use lb_common::table::{HistoryRow, Pool, Slot, SlotRow, Table};
use lb_common::tables::Tables;
use lb_common::vip::{AddressEntry, VipEntry, address_place, port_key};
use memmap2::{MmapMut, MmapOptions};

use super::*;

/// Verdicts of a tc program (pkt_cls.h).
const TC_ACT_UNSPEC: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_REDIRECT: u32 = 7;
/// The interface that BPF_PROG_TEST_RUN pretends: the loopback.
const TEST_INTERFACE: u32 = 1;
/// Offset of `mark` in `__sk_buff`, and its size up to where the kernel accepts input.
const SKB_MARK: usize = 8;
const SKB_SIZE: usize = 192;

const VIP_V4: [u8; 4] = [192, 0, 2, 80];
const PORT: u16 = 443;

fn vip_v6() -> [u8; 16] {
    "2001:db8:80::1".parse::<Ipv6Addr>().unwrap().octets()
}

/// Backends 1 to 4, one with each outer, and 5 without a next hop; 4 leaves by interface 9.
fn backends() -> Vec<Backend> {
    let settings = settings();
    let outers = [Outer::IpipV4, Outer::IpipV6, Outer::GueV4, Outer::GueV6, Outer::GueV4];
    let mut backends = vec![Backend::default()];
    for (number, outer) in (1_u8..).zip(outers) {
        let v4 = matches!(outer, Outer::IpipV4 | Outer::GueV4);
        let address: IpAddr = match v4 {
            true => [10, 1, 0, number].into(),
            false => format!("2001:db8:1::{number}").parse().unwrap(),
        };
        let source =
            if outer == Outer::IpipV4 { settings.ipip_prefix_v4 } else { settings.source_v4 };
        let interface = if number == 4 { 9 } else { TEST_INTERFACE };
        let link = Link::new([2, 0, 0, 0, 1, number], [2, 0, 0, 0, 0, 9], interface);
        let inner_mtu = if number == 5 { 0 } else { 1400 };
        let destination = Address::from(address);
        backends.push(Backend {
            destination: destination.words(),
            links: [link, Link::default()],
            state: State { inner_mtu, outer, link: 0 }.pack(),
            checksum: if v4 { encap::checksum_base(destination, source) } else { 0 },
            pad: 0,
        });
    }
    backends
}

fn settings() -> Settings {
    Settings {
        key: HashKey::new(*b"a cluster secret"),
        source_v6: Address(vip_v6().map(|byte| byte ^ 1)).words(),
        ipip_prefix_v6: u64::from_ne_bytes([0x20, 1, 0xd, 0xb8, 0, 9, 0, 9]),
        source_v4: u32::from_ne_bytes([192, 0, 2, 11]),
        ipip_prefix_v4: u32::from_ne_bytes([198, 18, 0, 0]),
        gue_port: 6080_u16.to_be(),
        ..Settings::default()
    }
}

/// One VIP (both families, TCP 443) of pool 3, whose table has generation 0x1234.
fn fill(control: &mut Control) {
    control.settings = settings();
    let table = Table { generation: 0x1234, slots: 1, ..Table::default() };
    control.pools[3] = Pool { tables: [Table::default(), table], live: 1, ..Pool::default() };
    let multiplier = control.vip_root.multiplier();
    let index = &mut control.vips[control.vip_root.index()];
    for (first_port, address) in [(16, Address::from_v4(VIP_V4)), (17, Address(vip_v6()))] {
        index.addresses[address_place(address.words(), multiplier)] =
            AddressEntry { address: address.words(), first_port, ..AddressEntry::default() };
        let key = port_key(u16::from_ne_bytes(PORT.to_be_bytes()), 6);
        index.ports[first_port as usize] = VipEntry { key, vip: 1, pool: 3, ..VipEntry::default() };
    }
}

/// The whole of a map of one element, or of a few, as memory.
fn mapping(pin: &Path, bytes: usize) -> MmapMut {
    let data = MapData::from_pin(pin).unwrap();
    // SAFETY: the map lives as long as its mapping, and nothing else in this test writes to it.
    unsafe { MmapOptions::new().len(bytes).map_mut(&data.fd().as_fd()) }.unwrap()
}

/// A loaded tunnel over maps filled as above, and the host's own view of them; `None` without
/// the program (LB_SKIP_EBPF) or the privilege to load it.
struct Setup {
    tunnel: Tunnel,
    control: MmapMut,
}

impl Setup {
    fn new(name: &str) -> Option<Self> {
        if OBJECT.is_empty() {
            eprintln!("SKIP: built without the eBPF programs (LB_SKIP_EBPF)");
            return None;
        }
        let pins = PathBuf::from(format!("/sys/fs/bpf/lbtest-{name}-{}", std::process::id()));
        if std::fs::create_dir(&pins).is_err() {
            eprintln!("SKIP: needs root and a bpf file system at /sys/fs/bpf");
            return None;
        }
        let setup = Self::pinned(&pins);
        std::fs::remove_dir_all(&pins).unwrap();
        Some(setup)
    }

    fn pinned(pins: &Path) -> Self {
        let (control, backend) = (pins.join(map_name::CONTROL), pins.join(map_name::BACKENDS));
        let missing = Tunnel::load(pins).unwrap_err();
        assert!(matches!(&missing, TunnelError::NoDataplane(pin) if *pin == control), "{missing}");
        // What the balancer's loader does: maps of the configured size, pinned.
        let filled = backends();
        let count = u32::try_from(filled.len()).unwrap();
        let maps = EbpfLoader::new()
            .map_max_entries(map_name::BACKENDS, count)
            .map_pin_path(map_name::CONTROL, &control)
            .map_pin_path(map_name::BACKENDS, &backend)
            .load(OBJECT)
            .unwrap();
        drop(maps);
        let mut backends = mapping(&backend, size_of::<Backend>() * filled.len());
        // SAFETY: the mapping is page-aligned and holds this many entries, all bytes valid.
        let places = unsafe {
            std::slice::from_raw_parts_mut(backends.as_mut_ptr().cast::<Backend>(), filled.len())
        };
        places.copy_from_slice(&filled);
        let mut control = mapping(&control, size_of::<Control>());
        // SAFETY: page-aligned, large enough, and a Control is valid whatever its bytes.
        fill(unsafe { &mut *control.as_mut_ptr().cast::<Control>() });
        Self { tunnel: Tunnel::load(pins).unwrap(), control }
    }

    fn control(&self) -> &Control {
        // SAFETY: as where it was filled.
        unsafe { &*self.control.as_ptr().cast::<Control>() }
    }

    /// Verdict, frame and mark after the program has seen `frame` with `mark`.
    fn run(&mut self, frame: &[u8], mark: u32) -> (u32, Vec<u8>, u32) {
        let mut context = [0; SKB_SIZE];
        context[SKB_MARK..SKB_MARK + 4].copy_from_slice(&mark.to_ne_bytes());
        let (mut out, mut context_out) = (vec![0; 512], [0; SKB_SIZE]);
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ctx_out: Some(&mut context_out),
            ..TestRunOptions::new()
        };
        let result = self.tunnel.program().unwrap().test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        let mark = context_out[SKB_MARK..SKB_MARK + 4].try_into().unwrap();
        (result.return_value, out, u32::from_ne_bytes(mark))
    }

    fn counts(&self, id: u16) -> Sent {
        self.tunnel.counts.get(&u32::from(id), 0).unwrap()
    }

    /// `frame` as the data plane on the host sends it to that backend, when it is the owner of
    /// every flow.
    fn expected(&self, frame: &[u8], id: u16) -> Vec<u8> {
        let mut packet = Buffer::<1024>::new(frame).unwrap();
        let row = [Slot::new(BackendId(id), false); 32];
        let tables = OneOwner { control: self.control(), row, backends: backends() };
        let verdict = process(&mut packet, &tables);
        assert_eq!(verdict.backend, BackendId(id));
        packet.frame().to_vec()
    }
}

/// The data plane's tables with one backend in all slots.
struct OneOwner<'a> {
    control: &'a Control,
    row: SlotRow,
    backends: Vec<Backend>,
}

/// No slot is contested, so no bucket is asked for.
enum NoBucket {}

impl Bucket for NoBucket {
    fn load(&self, _way: usize) -> Entry {
        match *self {}
    }

    fn exchange(&self, _way: usize, _old: Entry, _new: Entry) -> bool {
        match *self {}
    }
}

impl Tables for OneOwner<'_> {
    type Bucket<'a>
        = NoBucket
    where
        Self: 'a;

    fn control(&self) -> Option<&Control> {
        Some(self.control)
    }

    fn slots(&self, _row: u32) -> Option<&SlotRow> {
        Some(&self.row)
    }

    fn history(&self, _row: u32) -> Option<&HistoryRow> {
        None
    }

    fn backend(&self, id: BackendId) -> Option<&Backend> {
        self.backends.get(usize::from(id.0))
    }

    fn bucket(&self, _index: u32) -> Option<NoBucket> {
        None
    }

    fn jiffies(&self) -> u64 {
        0
    }

    fn may_look_again(&self, _tick: u16) -> bool {
        false
    }

    fn ingress(&self) -> u32 {
        TEST_INTERFACE
    }
}

/// A SYN to the VIP from this machine, as it leaves its stack: 20 bytes of header, 20 of options.
fn syn(v6: bool, port: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9];
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, 6, 64]);
        frame.extend("2001:db8::11".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend(vip_v6());
    } else {
        frame.extend([8, 0, 0x45, 0, 0, 60, 0x1c, 0x46, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 11]);
        frame.extend(VIP_V4);
    }
    frame.extend(41_234_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0xa0, 2, 0xfa, 0xf0, 0xab, 0xcd, 0, 0]);
    frame.extend([1; 20]);
    frame
}

#[test]
fn a_marked_packet_is_wrapped_as_the_data_plane_does() {
    let Some(mut setup) = Setup::new("wrap") else { return };
    for id in 1..=4_u16 {
        for v6 in [false, true] {
            let frame = syn(v6, PORT);
            let before = setup.counts(id);
            let (verdict, out, mark) = setup.run(&frame, mark_of(BackendId(id)));
            assert_eq!(out, setup.expected(&frame, id), "backend {id}, v6 inside: {v6}");
            let expected = if id == 4 { TC_ACT_REDIRECT } else { TC_ACT_UNSPEC };
            assert_eq!((verdict, mark), (expected, 0), "backend {id}");
            assert_eq!(setup.counts(id), [before[SENT] + 1, before[UNRESOLVED]]);
        }
    }
}

#[test]
fn every_other_packet_passes_and_a_marked_one_never_leaves_bare() {
    let Some(mut setup) = Setup::new("pass") else { return };
    let frame = syn(false, PORT);
    for mark in [0, 3, 0x1b00_0000, 0x1b00_8003, 0x2b00_0003] {
        assert_eq!(setup.run(&frame, mark), (TC_ACT_UNSPEC, frame.clone(), mark));
    }
    let no_vip = syn(false, 81);
    // A port that is no VIP's, a backend that is none, one beyond the map: each is dropped.
    for (frame, id) in [(&no_vip, 1), (&frame, 6), (&frame, 0x7fff)] {
        let before = setup.counts(id);
        assert_eq!(setup.run(frame, mark_of(BackendId(id))).0, TC_ACT_SHOT, "{id}");
        assert_eq!(setup.counts(id), before);
    }
    assert_eq!(setup.run(&frame, mark_of(BackendId(5))).0, TC_ACT_SHOT);
    assert_eq!(setup.counts(5), [0, 1], "no next hop");
}

#[test]
fn a_probe_is_worth_what_the_program_has_seen() {
    let refused = Observation::Failed(Failure::Refused);
    let local = Observation::Uncounted("no ports".to_owned());
    for (found, after, expected) in [
        (&Observation::Passed, [8, 3], Some(&Observation::Passed)),
        (&refused, [8, 3], Some(&refused)),
        (&refused, [8, 4], Some(&refused)),
        (&refused, [7, 4], Some(&Observation::Failed(Failure::NextHop))),
        (&local, [7, 3], Some(&local)),
        (&local, [8, 3], Some(&local)),
        (&Observation::Passed, [7, 3], None),
        (&refused, [7, 3], None),
    ] {
        let judged = judge(found.clone(), [7, 3], after);
        match expected {
            Some(expected) => assert_eq!(judged, *expected, "{found:?} {after:?}"),
            None => {
                let Observation::Uncounted(why) = judged else { panic!("counted") };
                assert!(why.starts_with("its packets did not pass the tunnel"), "{why}");
            }
        }
    }
}
