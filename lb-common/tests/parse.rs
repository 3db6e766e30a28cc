//! The whole way of a packet over any bytes: no panic, and never a claim that the bytes do not
//! bear out.

#[cfg(test)]
mod tests {
    use lb_common::MAX_BACKEND_ID;
    use lb_common::addr::Address;
    use lb_common::backend::{Backend, BackendId, Link, Outer, State};
    use lb_common::control::Control;
    use lb_common::encap::checksum_base;
    use lb_common::flow::{Bucket, Entry};
    use lb_common::icmp;
    use lb_common::packet::{Buffer, Packet as _};
    use lb_common::parse::{Parsed, parse};
    use lb_common::process::{Answer, process};
    use lb_common::table::{HistoryRow, Slot, SlotRow, Table};
    use lb_common::tables::Tables;
    use lb_common::verdict::{Action, Outcome};
    use lb_common::vip::{AddressEntry, VipEntry, address_place, port_key};
    use proptest::prelude::*;

    const VIP: [u8; 4] = [203, 0, 113, 1];
    const VIP_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0x53, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    /// One VIP of each family, any TCP and UDP port; every slot is contested and has the backend
    /// that the slot's number names.
    struct World {
        control: Box<Control>,
        backends: Vec<Backend>,
    }

    impl World {
        fn new() -> Self {
            // SAFETY: integers only; zero is a valid value.
            let mut control = unsafe { Box::<Control>::new_zeroed().assume_init() };
            let index = &mut control.vips[0];
            for (place, address) in [Address::from_v4(VIP), Address(VIP_V6)].iter().enumerate() {
                let first = 1 + 3 * place;
                for (at, protocol) in [(first + 1, 6), (first + 2, 17)] {
                    let vip = u16::try_from(at).unwrap();
                    let key = port_key(0, protocol);
                    index.ports[at] =
                        VipEntry { key, vip, pool: 1, udp_idle: 30, ..VipEntry::default() };
                }
                let any = |at: usize| u16::try_from(at).unwrap();
                index.addresses[address_place(address.words(), 1)] = AddressEntry {
                    address: address.words(),
                    first_port: u32::try_from(first).unwrap(),
                    any_tcp: any(first + 1),
                    any_udp: any(first + 2),
                    ..AddressEntry::default()
                };
            }
            control.pools[1].tables[0] = Table { slots: 32, has_history: 1, ..Table::default() };
            let backends = (0..4_u32).map(|id| {
                let outer = [Outer::IpipV4, Outer::IpipV6, Outer::GueV4, Outer::GueV6][id as usize];
                let destination = Address::from_v4([10, 0, 0, 1]);
                let state = State { inner_mtu: 1400, outer, link: 0 };
                Backend {
                    destination: destination.words(),
                    links: [Link::new([2; 6], [4; 6], 1); 2],
                    state: state.pack(),
                    checksum: checksum_base(destination, 0),
                    pad: 0,
                }
            });
            Self { control, backends: backends.collect() }
        }
    }

    struct Full;

    impl Bucket for Full {
        fn load(&self, _way: usize) -> Entry {
            Entry(0)
        }

        fn exchange(&self, _way: usize, _old: Entry, _new: Entry) -> bool {
            false
        }
    }

    const SLOTS: SlotRow = {
        let mut row = [Slot(0x8000); 32];
        let mut at = 0;
        while at < 32 {
            row[at + 1] = Slot(0x8001);
            row[at + 2] = Slot(0x8002);
            row[at + 3] = Slot(0x8003);
            at += 4;
        }
        row
    };

    impl Tables for World {
        type Bucket<'a> = Full;

        fn control(&self) -> Option<&Control> {
            Some(&self.control)
        }

        fn slots(&self, row: u32) -> Option<&SlotRow> {
            const { assert!(MAX_BACKEND_ID > 3) };
            (row == 0).then_some(&SLOTS)
        }

        fn history(&self, _row: u32) -> Option<&HistoryRow> {
            const ROW: HistoryRow = {
                let history = lb_common::table::History {
                    base: BackendId(2),
                    last: [BackendId(3), BackendId(1), BackendId(4)],
                };
                [history; 8]
            };
            Some(&ROW)
        }

        fn backend(&self, id: BackendId) -> Option<&Backend> {
            self.backends.get(usize::from(id.0))
        }

        fn bucket(&self, _index: u32) -> Option<Full> {
            Some(Full)
        }

        fn jiffies(&self) -> u64 {
            77
        }

        fn may_look_again(&self, _tick: u16) -> bool {
            true
        }

        fn ingress(&self) -> u32 {
            1
        }
    }

    /// Bytes that look like a frame for a VIP as far as they go: `bytes` are what the headers
    /// hold.
    fn frame(bytes: &[u8], v6: bool, tags: usize) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for _ in 0..tags {
            frame.extend([0x81, 0, 0, 1]);
        }
        frame.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
        let at = frame.len();
        frame.extend(bytes);
        let mut put = |offset: usize, bytes: &[u8]| {
            if let Some(place) = frame.get_mut(at + offset..at + offset + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        if v6 {
            put(24, &VIP_V6);
        } else {
            put(16, &VIP);
        }
        frame
    }

    /// What must hold for any frame.
    fn check(world: &World, frame: &[u8]) {
        let Some(mut packet) = Buffer::<4096>::new(frame) else { return };
        if let Parsed::Flow(flow) = parse(&packet, &world.control) {
            let (offset, length) = (usize::from(flow.inner.offset), usize::from(flow.inner.length));
            assert!(offset + length <= frame.len());
            assert!((1..=6).contains(&flow.vip.vip));
        }
        let verdict = process(&mut packet, world);
        match verdict.outcome.action() {
            Action::Pass => assert_eq!(packet.frame(), frame),
            Action::Drop => {
                let (inner, mtu) = verdict.answer.parts();
                if verdict.answer != Answer::NONE {
                    assert_eq!((verdict.outcome, mtu), (Outcome::TooBig, 1400));
                    // False is fine, a panic is not.
                    let _told = icmp::too_big(&mut packet, &inner, mtu);
                }
            }
            Action::Tx | Action::Redirect if verdict.outcome == Outcome::Echo => {
                assert_eq!(packet.length(), frame.len());
            }
            Action::Tx | Action::Redirect => assert!(packet.length() > frame.len()),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            check(&World::new(), &bytes);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Sound enough that all of the parser is reached, cut at every length.
        #[test]
        fn any_headers_cut_anywhere(
            bytes in prop::collection::vec(any::<u8>(), 20..160),
            protocol in prop::sample::select(&[0_u8, 1, 6, 17, 43, 44, 58, 60][..]),
            kind in prop::sample::select(&[0_u8, 1, 2, 3, 4, 8, 11, 128, 129, 135][..]),
            words in 4..=15_u8,
            v6: bool,
            tags in 0..=3_usize,
            honest: bool,
        ) {
            let world = World::new();
            let mut bytes = bytes;
            let length = u16::try_from(bytes.len()).unwrap();
            if v6 {
                bytes[0] = 0x60;
                bytes[6] = protocol;
                if honest {
                    bytes[4..6].copy_from_slice(&length.saturating_sub(40).to_be_bytes());
                }
            } else {
                bytes[0] = 0x40 | words;
                bytes[9] = protocol;
                bytes[6] &= 0x40;
                bytes[7] = 0;
                if honest {
                    bytes[2..4].copy_from_slice(&length.to_be_bytes());
                }
                let at = usize::from(words) * 4;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = kind;
                }
            }
            let whole = frame(&bytes, v6, tags);
            for length in 0..=whole.len() {
                check(&world, &whole[..length]);
            }
        }
    }
}
