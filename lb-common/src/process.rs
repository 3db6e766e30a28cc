//! The whole way of a packet, in one function for kernel and host: parse, decide, wrap, verdict.

use crate::backend::{BackendId, State};
use crate::control::Control;
use crate::decide::{Decision, decide};
use crate::packet::Packet;
use crate::parse::{Flow, Inner, Parsed, Segment, parse};
use crate::tables::Tables;
use crate::verdict::Outcome;
use crate::{encap, icmp};

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The outcome it is counted under.
    pub outcome: Outcome,
    /// Its VIP's number; 0 when it is for none.
    pub vip: u16,
    /// The backend it went to, or would have.
    pub backend: BackendId,
    /// The interface it leaves by, for tx and redirect.
    pub interface: u32,
    /// A drop whose sender should be told, for [`icmp::too_big`].
    pub answer: Answer,
}

/// The packet that a "too big" answers, and the MTU it tells, in one word: an `Option` of parts
/// would leave them unset on the way of every other packet, which the verifier refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Answer(pub u64);

impl Answer {
    /// Nobody is told.
    pub const NONE: Self = Self(0);

    /// The sender of `inner` is told the largest packet that fits.
    #[inline(always)]
    #[must_use]
    pub const fn new(inner: &Inner, mtu: u16) -> Self {
        let v6 = (inner.v6 as u64) << 48;
        Self(inner.offset as u64 | (mtu as u64) << 16 | (inner.length as u64) << 32 | v6)
    }

    /// The inverse of [`Answer::new`]; the ToS is not kept.
    #[inline(always)]
    #[must_use]
    pub const fn parts(self) -> (Inner, u16) {
        let inner = Inner {
            offset: self.0 as u16,
            v6: self.0 >> 48 != 0,
            tos: 0,
            length: (self.0 >> 32) as u16,
        };
        (inner, (self.0 >> 16) as u16)
    }
}

impl Verdict {
    #[inline(always)]
    const fn new(outcome: Outcome, vip: u16, backend: BackendId) -> Self {
        Self { outcome, vip, backend, interface: 0, answer: Answer::NONE }
    }
}

/// Handles one frame; what it changed in the frame is what leaves.
#[inline(always)]
pub fn process<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let none = BackendId(0);
    let Some(control) = tables.control() else { return Verdict::new(Outcome::NotVip, 0, none) };
    match parse(packet, control) {
        Parsed::Done(outcome) => Verdict::new(outcome, 0, none),
        Parsed::Echo(inner, at) => {
            let done = icmp::echo(packet, &inner, at as usize);
            let outcome = if done { Outcome::Echo } else { Outcome::Malformed };
            Verdict { interface: tables.ingress(), ..Verdict::new(outcome, 0, none) }
        }
        Parsed::Flow(flow) => match decide(tables, control, &flow) {
            Some(decision) => forward(packet, tables, control, &flow, &decision),
            None => Verdict::new(Outcome::NoBackend, flow.vip.vip, none),
        },
    }
}

#[inline(always)]
fn forward<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    control: &Control,
    flow: &Flow,
    decision: &Decision,
) -> Verdict {
    let vip = flow.vip.vip;
    let owner = decision.owner;
    let backend = match tables.backend(owner) {
        Some(backend) if owner.0 != 0 => backend,
        _ => return Verdict::new(Outcome::NoBackend, vip, owner),
    };
    let state = State::unpack(backend.state);
    if state.inner_mtu == 0 {
        return Verdict::new(Outcome::Unresolved, vip, owner);
    }
    if flow.inner.length > state.inner_mtu {
        // RFC 4443 section 2.4 (e): no error about an error.
        let answer = match flow.segment {
            Segment::Quoted => Answer::NONE,
            Segment::Open | Segment::Later | Segment::End | Segment::Datagram => {
                Answer::new(&flow.inner, state.inner_mtu)
            }
        };
        return Verdict { answer, ..Verdict::new(Outcome::TooBig, vip, owner) };
    }
    let link = backend.links[(state.link & 1) as usize];
    let settings = &control.settings;
    let outer = (state.outer, link);
    if !encap::encapsulate(packet, tables, settings, flow, decision, backend, outer) {
        return Verdict::new(Outcome::NoHeadroom, vip, owner);
    }
    let ingress = link.interface == tables.ingress();
    let outcome = if ingress { Outcome::Tx } else { Outcome::Redirect };
    Verdict { interface: link.interface, ..Verdict::new(outcome, vip, owner) }
}
