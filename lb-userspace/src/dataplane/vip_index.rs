//! Builds the VIP index: finds a multiplier with which every key lies where a lookup looks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lb_common::addr::Address;
use lb_common::headers::protocol;
use lb_common::vip::{
    ADDRESS_PLACES, AddressEntry, PORT_PLACES, PROBES, VipEntry, VipIndex, VipRoot, address_place,
    port_key, port_place,
};

/// How often another multiplier is tried. At the largest number of VIPs more than half of all
/// multipliers do.
const MAX_MULTIPLIERS: u64 = 256;

/// Which packets of a VIP go through the flow table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VipTracking {
    /// Those in contested slots.
    Slot,
    /// All; in slots that are not contested they are only recorded.
    Always,
    /// None.
    Stateless,
}

/// A VIP for the data plane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VipSpec {
    /// Its number, from 1, for the counters.
    pub number: u16,
    /// Its address.
    pub address: IpAddr,
    /// [`protocol::TCP`] or [`protocol::UDP`].
    pub protocol: u8,
    /// Its port; `None` = any port that has no VIP of its own.
    pub port: Option<u16>,
    /// Its pool's number.
    pub pool: u16,
    /// Which packets go through the flow table.
    pub tracking: VipTracking,
    /// Some of its flows may have owners of which its pool's tracker knows nothing: where it is
    /// always tracked, packets ask as if each slot were contested.
    pub asks: bool,
    /// Idle timeout of its UDP flows.
    pub udp_idle: Duration,
}

fn entry(spec: &VipSpec, udp_idle: u16) -> VipEntry {
    let flags = match spec.tracking {
        VipTracking::Slot => 0,
        VipTracking::Always if spec.asks => VipEntry::ALWAYS | VipEntry::ASKS,
        VipTracking::Always => VipEntry::ALWAYS,
        VipTracking::Stateless => VipEntry::STATELESS,
    };
    let port = spec.port.unwrap_or_default().to_be();
    let key = port_key(port, spec.protocol);
    VipEntry { key, vip: spec.number, pool: spec.pool, flags, udp_idle, pad: 0 }
}

/// Fills an index that no program reads; the root word that makes it live, with `half` as its
/// number. `None` when there are too many VIPs.
pub(super) fn build(
    index: &mut VipIndex,
    half: u64,
    vips: &[VipSpec],
    udp_ticks: impl Fn(Duration) -> u16,
) -> Option<VipRoot> {
    let mut by_address: BTreeMap<IpAddr, Vec<(&VipSpec, VipEntry)>> = BTreeMap::new();
    for vip in vips {
        let entry = entry(vip, udp_ticks(vip.udp_idle));
        by_address.entry(vip.address).or_default().push((vip, entry));
    }
    // An odd constant with well-mixed bits (splitmix64), stepped for each try.
    (1..=MAX_MULTIPLIERS).find_map(|step| {
        let word = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(2 * step + 1);
        let word = (word ^ (word >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let root = VipRoot(word & !1 | half & 1);
        fill(index, root.multiplier(), &by_address).then_some(root)
    })
}

fn fill(
    index: &mut VipIndex,
    multiplier: u64,
    by_address: &BTreeMap<IpAddr, Vec<(&VipSpec, VipEntry)>>,
) -> bool {
    index.addresses.fill(AddressEntry::default());
    index.ports.fill(VipEntry::default());
    // Place 0 means "none".
    let mut free = 1;
    for (address, vips) in by_address {
        let Some(mut entry) = place_ports(index, multiplier, vips, &mut free) else { return false };
        entry.address = Address::from(*address).words();
        let first = address_place(entry.address, multiplier);
        let place = (0..PROBES)
            .map(|probe| (first + probe) & (ADDRESS_PLACES - 1))
            .find(|place| index.addresses.get(*place) == Some(&AddressEntry::default()));
        match place.and_then(|place| index.addresses.get_mut(place)) {
            Some(place) => *place = entry,
            None => return false,
        }
    }
    true
}

/// Places one address's ports; its entry but for the address.
fn place_ports(
    index: &mut VipIndex,
    multiplier: u64,
    vips: &[(&VipSpec, VipEntry)],
    free: &mut usize,
) -> Option<AddressEntry> {
    let exact = || vips.iter().filter(|vip| vip.0.port.is_some());
    let mut places = exact().count().next_power_of_two();
    // Twice and four times the room, when the keys do not fall well.
    let placed = loop {
        let mask = u16::try_from(places - 1).ok()?;
        if *free + places > PORT_PLACES {
            return None;
        }
        if place_exact(index.ports.get_mut(*free..*free + places)?, multiplier, mask, exact()) {
            break mask;
        }
        places *= 2;
        if places > 4 * exact().count().next_power_of_two() {
            return None;
        }
    };
    let mut address = AddressEntry {
        first_port: u32::try_from(*free).ok()?,
        port_mask: placed,
        ..AddressEntry::default()
    };
    *free += places;
    for (spec, entry) in vips.iter().filter(|vip| vip.0.port.is_none()) {
        *index.ports.get_mut(*free)? = *entry;
        let place = u16::try_from(*free).ok()?;
        if spec.protocol == protocol::TCP {
            address.any_tcp = place;
        } else {
            address.any_udp = place;
        }
        *free += 1;
    }
    Some(address)
}

fn place_exact<'a>(
    ports: &mut [VipEntry],
    multiplier: u64,
    mask: u16,
    vips: impl Iterator<Item = &'a (&'a VipSpec, VipEntry)>,
) -> bool {
    ports.fill(VipEntry::default());
    for (_, entry) in vips {
        let first = port_place(entry.key, multiplier, mask);
        let place = (0..PROBES)
            .map(|probe| (first + probe) & usize::from(mask))
            .find(|place| ports.get(*place).is_some_and(|place| place.key == 0));
        match place.and_then(|place| ports.get_mut(place)) {
            Some(place) => *place = *entry,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(number: u16, address: &str, protocol: u8, port: Option<u16>) -> VipSpec {
        let address = address.parse().unwrap();
        let tracking = VipTracking::Slot;
        let udp_idle = Duration::ZERO;
        VipSpec { number, address, protocol, port, pool: 0, tracking, asks: false, udp_idle }
    }

    fn find(index: &VipIndex, root: VipRoot, vip: &VipSpec, port: u16) -> Option<u16> {
        let words = Address::from(vip.address).words();
        let address = index.address(words, root.multiplier())?;
        let key = port_key(port.to_be(), vip.protocol);
        Some(index.vip(address, key, root.multiplier())?.vip)
    }

    fn built(vips: &[VipSpec]) -> (Box<VipIndex>, VipRoot) {
        // SAFETY: integers only; zero is a valid value.
        let mut index = unsafe { Box::<VipIndex>::new_zeroed().assume_init() };
        let root = build(&mut index, 1, vips, |_| 1).unwrap();
        (index, root)
    }

    #[test]
    fn exact_wins_over_any_and_others_are_not_found() {
        let vips = [
            spec(1, "203.0.113.1", protocol::TCP, Some(80)),
            spec(2, "203.0.113.1", protocol::TCP, None),
            spec(3, "203.0.113.1", protocol::UDP, Some(53)),
            spec(4, "2001:db8::1", protocol::UDP, None),
        ];
        let (index, root) = built(&vips);
        assert_eq!(root.index(), 1);
        assert_eq!(find(&index, root, &vips[0], 80), Some(1));
        assert_eq!(find(&index, root, &vips[0], 81), Some(2));
        assert_eq!(find(&index, root, &vips[2], 53), Some(3));
        assert_eq!(find(&index, root, &vips[2], 54), None);
        assert_eq!(find(&index, root, &vips[3], 9), Some(4));
        let stranger = spec(0, "203.0.113.2", protocol::TCP, None);
        assert_eq!(find(&index, root, &stranger, 80), None);
    }

    #[test]
    fn the_largest_number_of_vips_fits_in_every_shape() {
        let max = u16::try_from(lb_common::MAX_VIPS - 1).unwrap();
        let one_address: Vec<_> =
            (1..=max).map(|n| spec(n, "203.0.113.1", protocol::TCP, Some(n))).collect();
        let many: Vec<_> = (1..=max)
            .map(|n| spec(n, &format!("2001:db8::{n:x}"), protocol::TCP, Some(443)))
            .collect();
        for vips in [one_address, many] {
            let (index, root) = built(&vips);
            for vip in &vips {
                assert_eq!(find(&index, root, vip, vip.port.unwrap()), Some(vip.number));
            }
        }
    }
}
