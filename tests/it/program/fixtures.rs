//! Runs the table of [`super::cases`] through the kernel's program and the host's decision.

use std::collections::BTreeSet;

use lb_common::icmp;
use lb_common::packet::Buffer;
use lb_common::process::{Answer, Verdict};
use lb_common::verdict::{Action, Outcome};
use lb_tests::packet::{check, hex, pcap};
use lb_userspace::dataplane::Dataplane;

use super::cases::{Case, Wanted, all};
use super::counters::Counted;
use super::world::{LOOPBACK, host, kernel, stay_on_one_cpu};

/// Room for a frame of any test, and headroom.
pub(super) type Frame = Box<Buffer<4096>>;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// What the kernel's program did.
pub(super) fn in_kernel(dataplane: &Dataplane, frame: &[u8]) -> Wanted {
    let mut out = vec![0; 4096];
    let (code, length) = dataplane.test_run(frame, &mut out, 1).unwrap();
    out.truncate(length);
    match code {
        XDP_DROP => Wanted::Drop,
        XDP_PASS if out == frame => Wanted::Pass,
        XDP_TX => Wanted::Tx(out),
        XDP_REDIRECT => Wanted::Redirect(out),
        code => panic!("XDP action {code}, frame out {}", hex(&out)),
    }
}

/// What the host's decision is, and what it does.
pub(super) fn on_host(dataplane: &Dataplane, frame: &[u8]) -> (Verdict, Wanted) {
    let mut packet: Frame = Box::new(Buffer::new(frame).unwrap());
    let verdict = dataplane.process(&mut *packet, LOOPBACK);
    let (inner, mtu) = verdict.answer.parts();
    let answered = verdict.answer != Answer::NONE && icmp::too_big(&mut *packet, &inner, mtu);
    let bytes = packet.frame().to_vec();
    let wanted = match verdict.outcome.action() {
        Action::Drop if answered => Wanted::Tx(bytes),
        Action::Drop => Wanted::Drop,
        Action::Pass => {
            assert_eq!(hex(&bytes), hex(frame), "a frame that passes was changed");
            Wanted::Pass
        }
        Action::Tx => Wanted::Tx(bytes),
        Action::Redirect => Wanted::Redirect(bytes),
    };
    (verdict, wanted)
}

/// Says all about a case that failed, and leaves its frames in a file.
fn complain(case: &Case, what: &str, found: &Wanted) -> String {
    let bytes = |wanted: &Wanted| match wanted {
        Wanted::Tx(bytes) | Wanted::Redirect(bytes) => bytes.clone(),
        Wanted::Pass | Wanted::Drop => Vec::new(),
    };
    let (found_bytes, wanted_bytes) = (bytes(found), bytes(&case.wanted));
    let file = pcap::write(&case.name, &[&case.frame, &found_bytes, &wanted_bytes]);
    format!(
        "{}: {what}\n  in     {}\n  out    {found:?}\n  {}\n  wanted {:?}\n  {}\n  \
         {file:?} has in, out, wanted\n",
        case.name,
        hex(&case.frame),
        hex(&found_bytes),
        case.wanted,
        hex(&wanted_bytes),
    )
}

/// Frames that leave are whole: every length and checksum.
fn unsound(wanted: &Wanted) -> Option<String> {
    match wanted {
        Wanted::Tx(bytes) | Wanted::Redirect(bytes) => check::frame(bytes).err(),
        Wanted::Pass | Wanted::Drop => None,
    }
}

#[test]
fn every_frame_of_the_table() {
    let Some(kernel) = kernel() else { return };
    stay_on_one_cpu();
    let cases = all();
    let mut complaints = Vec::new();
    let mut before = Counted::read(&kernel);
    for case in &cases {
        let found = in_kernel(&kernel, &case.frame);
        let after = Counted::read(&kernel);
        if found != case.wanted {
            complaints.push(complain(case, "in the kernel", &found));
        }
        if let Some(fault) = unsound(&found) {
            complaints.push(complain(case, &format!("unsound in the kernel: {fault}"), &found));
        }
        let wanted = before.plus(case.vip, case.outcome, case.backend, case.frame.len());
        if after != wanted {
            let what = format!("counted {}, not {:?}", after.since(&before), case.outcome);
            complaints.push(complain(case, &what, &found));
        }
        before = after;
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.concat());
}

#[test]
fn every_frame_of_the_table_on_the_host() {
    let host = host();
    let mut complaints = Vec::new();
    for case in all() {
        let (Verdict { outcome, .. }, found) = on_host(&host, &case.frame);
        if found != case.wanted || outcome != case.outcome {
            complaints.push(complain(&case, &format!("on the host: {outcome:?}"), &found));
        }
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.concat());
}

#[test]
fn the_table_has_every_outcome_and_no_name_twice() {
    let cases = all();
    let mut outcomes: BTreeSet<_> = cases.iter().map(|case| case.outcome).collect();
    // A driver without room is in `counters`: it takes more than a frame.
    outcomes.insert(Outcome::NoHeadroom);
    assert_eq!(outcomes.len(), Outcome::ALL.len(), "{outcomes:?}");
    println!("{} frames", cases.len());
}

/// Instructions the verifier may look at before somebody asks why.
const BUDGET: u32 = 400_000;

#[test]
fn the_verifier_has_little_to_do() {
    let Some(kernel) = kernel() else { return };
    let instructions = kernel.verified_instructions().unwrap();
    println!("lb_ingress: {instructions} verified instructions (budget {BUDGET})");
    assert!(instructions <= BUDGET, "{instructions}");
}
