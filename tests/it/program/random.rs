//! Random frames: mostly sound ones, many of them bent afterwards.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_tests::packet::{ACK, FIN, Ip, Packet, RST, SYN};

use super::world::{ALWAYS, ANY, MIXED, ONLY_UDP, POOLS, STATELESS, vip_v4, vip_v6};

/// SplitMix64: the same numbers from the same seed, everywhere.
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// 0..`end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    /// One chance in `of`.
    pub(super) fn chance(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }

    fn port(&mut self, usual: u16) -> u16 {
        if self.chance(8) { u16::try_from(self.below(1 << 16)).unwrap() } else { usual }
    }
}

/// Client and VIP; few clients, so that flows come again.
fn ends(random: &mut Random, v6: bool) -> (IpAddr, IpAddr) {
    let client = u8::try_from(random.below(12)).unwrap();
    let pool = if random.chance(2) {
        MIXED
    } else {
        1 + u16::try_from(random.below(POOLS.into())).unwrap()
    };
    if v6 {
        let client = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, client.into());
        let stranger = Ipv6Addr::new(0x2001, 0xdb8, 0x54, 0, 0, 0, 0, 1);
        let mapped = vip_v4(pool).to_ipv6_mapped();
        let vip = match random.below(24) {
            0 => stranger,
            1 => mapped,
            _ => vip_v6(pool),
        };
        (client.into(), vip.into())
    } else {
        let vip = match random.below(24) {
            0 => Ipv4Addr::new(203, 0, 114, 1),
            1 => ANY,
            2 => ONLY_UDP,
            3 => ALWAYS,
            4 => STATELESS,
            _ => vip_v4(pool),
        };
        (Ipv4Addr::new(198, 51, 100, client).into(), vip.into())
    }
}

fn header(random: &mut Random, v6: bool) -> Ip {
    let (client, vip) = ends(random, v6);
    let mut ip = Ip::new(client, vip);
    if random.chance(4) {
        let label = u32::try_from(random.below(1 << 20)).unwrap();
        ip = ip.tos(random.byte()).ttl(random.byte()).label(label).id(random.port(0));
    }
    if random.chance(8) {
        for _ in 0..random.below(8) {
            let length = 8 * random.below(4) + 6;
            let body = random.bytes(length);
            ip = ip.extension(random.pick(&[0, 43, 60]), &body);
        }
        let words = random.below(11);
        ip = ip.options(&random.bytes(words * 4));
    }
    if random.chance(16) {
        let fragment = random.pick(&[0x2000, 0x0001, 0x1fff, 0x3000, 0x8000]);
        let (offset, more) = (random.pick(&[0, 8, 0xfff8]), random.chance(2));
        ip = ip.fragment(fragment).fragment_v6(offset, more);
    }
    ip
}

fn payload(random: &mut Random) -> Vec<u8> {
    let length = match random.below(16) {
        0 => 1_280 + random.below(300),
        1 => random.below(1_500),
        _ => random.below(64),
    };
    random.bytes(length)
}

/// A client's segment or datagram.
fn transport(random: &mut Random, ip: &Ip, source: u16) -> Packet {
    let payload = payload(random);
    match random.below(10) {
        0..=5 => {
            let flags = random.pick(&[SYN, SYN, ACK, ACK, ACK, ACK, FIN | ACK, RST, SYN | ACK, 0]);
            ip.tcp(source, random.port(80), flags, &payload)
        }
        6..=8 => ip.udp(source, random.port(53), &payload),
        _ => {
            let protocol = random.byte();
            ip.raw(protocol, &payload)
        }
    }
}

/// An ICMP message, mostly an error that quotes what a VIP sent.
fn icmp(random: &mut Random, v6: bool, source: u16) -> Packet {
    let ip = header(random, v6);
    let rest = random.next().to_le_bytes()[..4].try_into().unwrap();
    if random.chance(3) {
        let (kind, code) = (if v6 { 128 } else { 8 }, u8::from(random.chance(8)));
        let payload = payload(random);
        return ip.icmp(kind, code, rest, &payload);
    }
    let back = if random.chance(4) { header(random, v6).back() } else { ip.back() };
    let payload = payload(random);
    let quoted = match random.below(8) {
        0 => back.icmp(0, 0, rest, &payload),
        1..=3 => back.udp(random.port(53), source, &payload),
        _ => back.tcp(random.port(80), source, ACK, &payload),
    };
    let length = random.below(quoted.bytes().len() + 1);
    let quote = if random.chance(2) { &quoted.bytes()[..length] } else { quoted.bytes() };
    let kinds: &[u8] = if v6 { &[1, 2, 3, 4, 129, 133, 135] } else { &[3, 11, 12, 0, 5] };
    let kind = if random.chance(8) { random.byte() } else { random.pick(kinds) };
    let code = u8::try_from(random.below(5)).unwrap();
    ip.icmp(kind, code, rest, quote)
}

/// A frame.
pub(super) fn frame(random: &mut Random) -> Vec<u8> {
    let v6 = random.chance(2);
    let source = 1_000 + u16::try_from(random.below(8)).unwrap();
    let packet = if random.chance(6) {
        icmp(random, v6, source)
    } else {
        let ip = header(random, v6);
        transport(random, &ip, source)
    };
    let mut frame = match random.below(12) {
        0 => packet.tagged(&[(0x8100, 7)]),
        1 => packet.tagged(&[(0x88a8, 7), (0x8100, 8)]),
        2 => packet.tagged(&[(0x8100, 1), (0x8100, 2), (0x8100, 3)]),
        _ => packet.frame(),
    };
    bend(random, &mut frame);
    frame
}

/// One frame in three: bits turned, cut, or longer.
fn bend(random: &mut Random, frame: &mut Vec<u8>) {
    match random.below(12) {
        0 => {
            for _ in 0..=random.below(3) {
                let at = random.below(frame.len());
                frame[at] ^= 1 << random.below(8);
            }
        }
        1 => {
            // Headers are where it matters.
            let at = 12 + random.below(frame.len().min(80) - 12);
            frame[at] = random.byte();
        }
        // The kernel wants a whole Ethernet header.
        2 => frame.truncate(14 + random.below(frame.len() - 13)),
        3 => {
            let length = random.below(40);
            let more = random.bytes(length);
            frame.extend(more);
        }
        _ => {}
    }
}
