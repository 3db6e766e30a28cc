//! The table through the decision on the host, the XDP program and the tc program.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use lb_common::addr::Address;
use lb_common::agent::{
    AgentTables, LAYOUT_VERSION, MAX_OPTIONS, Mss, Outcome, Settings, address_flag, clamp,
    decapsulate, map_name,
};
use lb_common::packet::Buffer;
use lb_common::verdict::{Action, Counter};
use lb_userspace::dataplane::object::AGENT;

use super::build::*;
use super::cases::{Case, all};

/// Room for a test frame and its headroom.
type Frame = Buffer<2048>;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_SHOT: u32 = 2;
/// TC_ACT_UNSPEC.
const TC_NEXT: u32 = u32::MAX;
const MSS_V4: u16 = 1404;
const MSS_V6: u16 = 1316;

/// The maps, on the host.
struct Tables {
    settings: Settings,
    flags: BTreeMap<Address, u32>,
    /// Sources that are allowed, when they are restricted.
    source: Address,
}

impl Tables {
    fn new(restrict: bool) -> Self {
        let settings = Settings {
            version: LAYOUT_VERSION,
            gue_port: GUE_PORT.to_be_bytes(),
            restrict_sources: u16::from(restrict),
            mss_v4: MSS_V4,
            mss_v6: MSS_V6,
            ..Settings::default()
        };
        let address = |ip: IpAddr| Address::from(ip);
        let flags = BTreeMap::from([
            (address(VIP4.into()), address_flag::VIP),
            (address(VIP6.into()), address_flag::VIP),
            (address(HOST4.into()), address_flag::LOCAL),
            (address(HOST6.into()), address_flag::LOCAL),
        ]);
        Self { settings, flags, source: address(BALANCER4.into()) }
    }
}

impl AgentTables for Tables {
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn flags(&self, address: &Address) -> u32 {
        self.flags.get(address).copied().unwrap_or(0)
    }

    fn source_listed(&self, address: &Address) -> bool {
        *address == self.source
    }
}

/// The object with the same content in its maps; `None`, said aloud, when that is not permitted.
fn load(tables: &Tables) -> Option<Ebpf> {
    if AGENT.is_empty() {
        return skip("built with LB_SKIP_EBPF");
    }
    let mut ebpf = match Ebpf::load(AGENT) {
        Ok(ebpf) => ebpf,
        Err(error) => return skip(&error.to_string()),
    };
    let map = ebpf.map_mut(map_name::SETTINGS).unwrap();
    Array::<_, Settings>::try_from(map).unwrap().set(0, tables.settings, 0).unwrap();
    let map = ebpf.map_mut(map_name::ADDRESSES).unwrap();
    let mut addresses: HashMap<_, [u8; 16], u32> = HashMap::try_from(map).unwrap();
    for (address, flags) in &tables.flags {
        addresses.insert(address.0, flags, 0).unwrap();
    }
    let map = ebpf.map_mut(map_name::SOURCES).unwrap();
    let mut sources: LpmTrie<_, [u8; 16], u32> = LpmTrie::try_from(map).unwrap();
    sources.insert(&Key::new(128, tables.source.0), 1, 0).unwrap();
    Some(ebpf)
}

fn skip(reason: &str) -> Option<Ebpf> {
    assert!(std::env::var_os("CI").is_none(), "must not be skipped here: {reason}");
    println!("SKIP: {reason}");
    None
}

/// Packets counted so far, by outcome.
fn counted(ebpf: &Ebpf) -> Vec<u64> {
    let map = ebpf.map(map_name::COUNTERS).unwrap();
    let counters: PerCpuArray<_, Counter> = PerCpuArray::try_from(map).unwrap();
    let sum = |outcome: &Outcome| {
        counters.get(&(*outcome as u32), 0).unwrap().iter().map(|value| value.packets).sum()
    };
    Outcome::ALL.iter().map(sum).collect()
}

/// The one outcome that was counted between two readings.
fn difference(before: &[u64], after: &[u64]) -> Vec<Outcome> {
    let changed = before.iter().zip(after).zip(Outcome::ALL);
    changed.filter(|((before, after), _)| before != after).map(|(_, outcome)| *outcome).collect()
}

fn options<'a>(frame: &'a [u8], out: &'a mut [u8]) -> TestRunOptions<'a> {
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.data_out = Some(out);
    options
}

fn on_host(case: &Case, tables: &Tables) {
    let mut frame = Frame::new(&case.frame).unwrap();
    let outcome = decapsulate(&mut frame, case.frame.len(), tables);
    assert_eq!(outcome, case.outcome, "{}", case.name);
    assert_eq!(outcome.action() == Action::Drop, case.left.is_none(), "{}", case.name);
    if let Some(left) = &case.left {
        assert_eq!(frame.frame(), left, "{}", case.name);
    }
}

#[test]
fn host_decides_every_frame() {
    let tables = Tables::new(false);
    for case in all() {
        on_host(&case, &tables);
    }
}

#[test]
fn host_never_reads_beyond_a_cut_frame() {
    let tables = Tables::new(false);
    for case in all() {
        for length in 0..case.frame.len() {
            let cut = case.frame.get(..length).unwrap();
            let mut frame = Frame::new(cut).unwrap();
            let outcome = decapsulate(&mut frame, length, &tables);
            let whole = matches!(
                outcome,
                Outcome::IpipV4 | Outcome::IpipV6 | Outcome::GueV4 | Outcome::GueV6
            );
            // Only padding may be missing.
            assert!(!whole || case.name == "padded", "{} cut to {length}", case.name);
        }
    }
}

#[test]
fn sources_can_be_restricted() {
    let tables = Tables::new(true);
    for (v6, outcome) in [(false, Outcome::IpipV4), (true, Outcome::Source)] {
        let inner = request(false, 0);
        let packet = frame(&[], &outer(v6, 4, 0, &inner));
        let left = (outcome != Outcome::Source).then(|| frame(&[], &inner));
        let case = Case { name: format!("v6:{v6}"), frame: packet, outcome, left };
        on_host(&case, &tables);
        let Some(mut ebpf) = load(&tables) else { return };
        in_xdp(&case, &mut ebpf);
    }
}

fn in_xdp(case: &Case, ebpf: &mut Ebpf) {
    let before = counted(ebpf);
    let program: &mut Xdp = ebpf.program_mut("lb_agent_xdp").unwrap().try_into().unwrap();
    if program.fd().is_err() {
        program.load().unwrap();
    }
    let mut out = [0; 2048];
    let result = program.test_run(options(&case.frame, &mut out)).unwrap();
    let after = counted(ebpf);
    assert_eq!(difference(&before, &after), [case.outcome], "{}", case.name);
    match &case.left {
        None => assert_eq!(result.return_value, XDP_DROP, "{}", case.name),
        Some(left) => {
            assert_eq!(result.return_value, XDP_PASS, "{}", case.name);
            let length = result.data_size_out as usize;
            assert_eq!(out.get(..length).unwrap(), left, "{}", case.name);
        }
    }
}

#[test]
fn xdp_program_equals_the_table() {
    let Some(mut ebpf) = load(&Tables::new(false)) else { return };
    for case in all() {
        in_xdp(&case, &mut ebpf);
    }
}

#[test]
fn tc_program_equals_the_table() {
    let Some(mut ebpf) = load(&Tables::new(false)) else { return };
    for case in all() {
        let before = counted(&ebpf);
        let program: &mut SchedClassifier =
            ebpf.program_mut("lb_agent_tc").unwrap().try_into().unwrap();
        if program.fd().is_err() {
            program.load().unwrap();
        }
        let mut out = [0; 2048];
        let result = program.test_run(options(&case.frame, &mut out)).unwrap();
        let after = counted(&ebpf);
        // Tags in the data are left to the VLAN device.
        let tagged = case.frame.get(12..14) != Some(&[0x08, 0x00])
            && case.frame.get(12..14) != Some(&[0x86, 0xdd]);
        let expected = if tagged { Outcome::Passed } else { case.outcome };
        assert_eq!(difference(&before, &after), [expected], "{}", case.name);
        let left = if tagged { Some(&case.frame) } else { case.left.as_ref() };
        match left {
            None => assert_eq!(result.return_value, TC_SHOT, "{}", case.name),
            Some(left) => {
                assert_eq!(result.return_value, TC_NEXT, "{}", case.name);
                let length = result.data_size_out as usize;
                assert_eq!(out.get(..length).unwrap(), left, "{}", case.name);
            }
        }
    }
}

/// Frames made from the table by changing bytes and cutting ends.
const MUTANTS: u32 = 4_000;

/// A fixed sequence (xorshift), so that a failure comes back.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

fn mutate(cases: &[Case], sequence: &mut Sequence) -> Vec<u8> {
    let mut frame = cases.get(sequence.below(cases.len())).unwrap().frame.clone();
    for _ in 0..=sequence.below(3) {
        let place = sequence.below(frame.len().min(180));
        let bit = 1 << sequence.below(8);
        *frame.get_mut(place).unwrap() ^= bit;
    }
    if sequence.below(4) == 0 {
        // The kernel takes no test frame shorter than an Ethernet header.
        frame.truncate(14 + sequence.below(frame.len() - 13));
    }
    frame
}

#[test]
fn programs_equal_the_host_on_mutants() {
    let cases = all();
    let mut sequence = Sequence(0x5eed_1b1b);
    let mut seen = vec![0_u32; Outcome::ALL.len()];
    for restrict in [false, true] {
        let tables = Tables::new(restrict);
        let Some(mut ebpf) = load(&tables) else { return };
        for number in 0..MUTANTS / 2 {
            let sent = mutate(&cases, &mut sequence);
            let mut frame = Frame::new(&sent).unwrap();
            let outcome = decapsulate(&mut frame, sent.len(), &tables);
            let left = (outcome.action() != Action::Drop).then(|| frame.frame().to_vec());
            *seen.get_mut(outcome as usize).unwrap() += 1;
            let name = format!("mutant {number} {sent:02x?}");
            in_xdp(&Case { name, frame: sent, outcome, left }, &mut ebpf);
        }
    }
    // Every outcome but the kernel's refusal and the clamp's was among them.
    let unseen = seen.iter().zip(Outcome::ALL).filter(|(count, _)| **count == 0);
    let unseen: Vec<_> = unseen.map(|(_, outcome)| *outcome).collect();
    assert_eq!(unseen, [Outcome::Refused, Outcome::MssClamped, Outcome::MssKept]);
}

/// What the verifier may have to look at, instructions: a tenth of the kernel's limit, because
/// older kernels look at more of them.
const VERIFIER_BUDGET: u32 = 100_000;

#[test]
fn programs_stay_within_the_verifier_budget() {
    let Some(mut ebpf) = load(&Tables::new(false)) else { return };
    let program: &mut Xdp = ebpf.program_mut("lb_agent_xdp").unwrap().try_into().unwrap();
    program.load().unwrap();
    let mut counts = vec![program.info().unwrap().verified_instruction_count().unwrap()];
    for name in ["lb_agent_tc", "lb_agent_mss"] {
        let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
        counts.push(program.info().unwrap().verified_instruction_count().unwrap());
    }
    println!("verified instructions (xdp, tc, mss): {counts:?}");
    assert!(counts.iter().all(|count| *count < VERIFIER_BUDGET), "{counts:?}");
}

/// A SYN-ACK of a VIP with these options, the MSS it should leave with, and its outcome.
struct Syn {
    name: &'static str,
    from_vip: bool,
    v6: bool,
    flags: u8,
    options: Vec<u8>,
    expected: Option<Outcome>,
    left: Vec<u8>,
}

fn syn(name: &'static str, v6: bool, options: &[u8], expected: Outcome, left: &[u8]) -> Syn {
    let (options, left) = (options.to_vec(), left.to_vec());
    Syn { name, from_vip: true, v6, flags: 0x12, options, expected: Some(expected), left }
}

fn syns() -> Vec<Syn> {
    let high = [2, 4, 0x05, 0xb4];
    let clamped = Outcome::MssClamped;
    let kept = Outcome::MssKept;
    let [v4, v4_low] = MSS_V4.to_be_bytes();
    let [v6, v6_low] = MSS_V6.to_be_bytes();
    let many = [1; MAX_OPTIONS - 1];
    let options = |parts: &[&[u8]]| parts.concat();
    let odd = options(&[&[1], &high, &[1, 1, 1]]);
    let odd_left = options(&[&[1], &[2, 4, v4, v4_low], &[1, 1, 1]]);
    let behind = options(&[&[4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0], &high]);
    let behind_left = options(&[&[4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0], &[2, 4, v6, v6_low]]);
    let last = options(&[&many, &high, &[0, 0, 0]]);
    let last_left = options(&[&many, &[2, 4, v4, v4_low], &[0, 0, 0]]);
    let too_far = options(&[&many, &[1], &high, &[0, 0]]);
    vec![
        syn("first option", false, &high, clamped, &[2, 4, v4, v4_low]),
        syn("first option, v6", true, &high, clamped, &[2, 4, v6, v6_low]),
        syn("at an odd place", false, &odd, clamped, &odd_left),
        syn("behind others", true, &behind, clamped, &behind_left),
        syn("the last one walked", false, &last, clamped, &last_left),
        syn("behind too many", false, &too_far, kept, &too_far),
        syn("low enough", false, &[2, 4, 0x02, 0x18], kept, &[2, 4, 0x02, 0x18]),
        syn("equal", false, &[2, 4, v4, v4_low], kept, &[2, 4, v4, v4_low]),
        syn("absent", false, &[], kept, &[]),
        syn("behind the end", false, &[0, 1, 1, 1, 2, 4, 9, 9], kept, &[0, 1, 1, 1, 2, 4, 9, 9]),
        syn("wrong length", false, &[2, 3, 9, 9], kept, &[2, 3, 9, 9]),
        syn("length zero", false, &[8, 0, 2, 4, 9, 9, 0, 0], kept, &[8, 0, 2, 4, 9, 9, 0, 0]),
        syn("longer than the header", false, &[1, 1, 2, 4], kept, &[1, 1, 2, 4]),
        Syn { flags: 0x02, ..syn("SYN", false, &high, clamped, &[2, 4, v4, v4_low]) },
        Syn { flags: 0x10, expected: None, ..syn("no SYN", false, &high, kept, &high) },
        Syn { from_vip: false, expected: None, ..syn("no VIP", false, &high, kept, &high) },
    ]
}

impl Syn {
    fn frame(&self, options: &[u8]) -> Vec<u8> {
        let (vip, client): (IpAddr, IpAddr) =
            if self.v6 { (VIP6.into(), CLIENT6.into()) } else { (VIP4.into(), CLIENT4.into()) };
        let source = if self.from_vip { vip } else { HOST4.into() };
        let segment = tcp((source, 443), (client, 40_001), self.flags, options);
        frame(&[], &ip(source, client, 6, 0, &segment))
    }
}

#[test]
fn host_finds_the_mss() {
    let tables = Tables::new(false);
    for case in syns() {
        let found = clamp(&Frame::new(&case.frame(&case.options)).unwrap(), &tables);
        assert_eq!(found.outcome(), case.expected, "{}", case.name);
        if let Mss::Lower(found) = found {
            let limit = if case.v6 { MSS_V6 } else { MSS_V4 };
            assert_eq!(found.new, limit.to_be_bytes(), "{}", case.name);
        }
    }
}

#[test]
fn mss_program_equals_the_table() {
    let Some(mut ebpf) = load(&Tables::new(false)) else { return };
    for case in syns() {
        let before = counted(&ebpf);
        let program: &mut SchedClassifier =
            ebpf.program_mut("lb_agent_mss").unwrap().try_into().unwrap();
        if program.fd().is_err() {
            program.load().unwrap();
        }
        let mut out = [0; 2048];
        let sent = case.frame(&case.options);
        let result = program.test_run(options(&sent, &mut out)).unwrap();
        let after = counted(&ebpf);
        let expected: Vec<_> = case.expected.into_iter().collect();
        assert_eq!(difference(&before, &after), expected, "{}", case.name);
        assert_eq!(result.return_value, TC_NEXT, "{}", case.name);
        let left = out.get(..result.data_size_out as usize).unwrap();
        // The checksum is that of a segment built with the new MSS.
        assert_eq!(left, case.frame(&case.left), "{}", case.name);
        assert!(transport_sum_holds(left.get(14..).unwrap()), "{}", case.name);
    }
}
