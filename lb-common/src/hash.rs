//! The flow hash: SipHash-1-3 (Aumasson, Bernstein 2012) of the 5-tuple under the cluster secret.
//!
//! Keyed, so that nobody outside can aim flows at one slot or bucket; the same on every LB of a
//! cluster. Written out over 64-bit words because eBPF has no rotate and wants no byte loops; the
//! `siphasher` crate is the reference in the tests. The message is, in network byte order, source
//! address, destination address, source port, destination port, protocol: 13 bytes for IPv4 and
//! 37 for IPv6.

/// The cluster secret as SipHash's initial state.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct HashKey {
    state: [u64; 4],
}

impl HashKey {
    /// From the 16 secret bytes.
    #[must_use]
    pub const fn new(secret: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = secret;
        let k0 = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let k1 = u64::from_le_bytes([i, j, k, l, m, n, o, p]);
        Self {
            state: [
                k0 ^ 0x736f_6d65_7073_6575,
                k1 ^ 0x646f_7261_6e64_6f6d,
                k0 ^ 0x6c79_6765_6e65_7261,
                k1 ^ 0x7465_6462_7974_6573,
            ],
        }
    }
}

#[inline(always)]
const fn round(v: [u64; 4]) -> [u64; 4] {
    let [mut a, mut b, mut c, mut d] = v;
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

#[inline(always)]
const fn absorb(v: [u64; 4], word: u64) -> [u64; 4] {
    let [a, b, c, d] = v;
    let [a, b, c, d] = round([a, b, c, d ^ word]);
    [a ^ word, b, c, d]
}

#[inline(always)]
const fn finish(v: [u64; 4]) -> u64 {
    let [a, b, c, d] = v;
    let [a, b, c, d] = round(round(round([a, b, c ^ 0xff, d])));
    a ^ b ^ c ^ d
}

/// The last word of the message: ports and protocol, and the message length modulo 256.
#[inline(always)]
const fn tail(ports: u32, protocol: u8, length: u64) -> u64 {
    (ports as u64) | (protocol as u64) << 32 | length << 56
}

/// IPv4 flow hash. Addresses and ports are the words as they lie in the packet, read little-endian
/// (`ports`: source port in the low half).
#[inline(always)]
#[must_use]
pub const fn flow_v4(
    key: &HashKey,
    source: u32,
    destination: u32,
    ports: u32,
    protocol: u8,
) -> u64 {
    let v = absorb(key.state, source as u64 | (destination as u64) << 32);
    finish(absorb(v, tail(ports, protocol, 13)))
}

/// IPv6 flow hash; words as in [`flow_v4`].
#[inline(always)]
#[must_use]
pub const fn flow_v6(
    key: &HashKey,
    source: [u64; 2],
    destination: [u64; 2],
    ports: u32,
    protocol: u8,
) -> u64 {
    let v = absorb(absorb(key.state, source[0]), source[1]);
    let v = absorb(absorb(v, destination[0]), destination[1]);
    finish(absorb(v, tail(ports, protocol, 37)))
}
