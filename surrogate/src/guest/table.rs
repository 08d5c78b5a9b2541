//! Who is concerned by a frame: the NICs of an engine by MAC, by address and by multicast group.
//!
//! Keys include the port (the bridge) and the VLAN, so that equal addresses on different bridges never
//! meet. Says only who is meant; what to do about it is the engine's. A miss, which is what nearly all
//! frames of a busy network are, mostly costs one bit of a filter. Looks up without allocating; hashers
//! and filters are seeded by argument.

use core::hash::{Hash, Hasher};
use core::net::IpAddr;
use std::collections::HashMap;

use surrogate_wire::{Mac, icmpv6};

use super::identity::{NicId, NicIdentity, PortId};
use crate::hash::Seeded;

/// A NIC's place in the engine; may be reused after the NIC was forgotten.
pub type Place = u32;

/// One broadcast domain: a bridge and a VLAN on it, 0 for untagged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lan {
    /// Our port on the bridge.
    pub port: PortId,
    /// VLAN identifier, 0 for untagged.
    pub vid: u16,
}

impl Hash for Lan {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.port.0) << 16 | u64::from(self.vid));
    }
}

/// A MAC address on a bridge, whatever the VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Station {
    port: PortId,
    mac: Mac,
}

impl Hash for Station {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Ports are few, so that this loses nothing but on purpose.
        state.write_u64(bits_of_mac(self.mac) ^ u64::from(self.port.0) << 48);
    }
}

impl Lan {
    /// Where the NIC lives.
    #[must_use]
    pub fn of(nic: &NicIdentity) -> Self {
        Self::new(nic.port, nic.vlan)
    }

    /// Of the VLAN on the bridge at `port`.
    #[must_use]
    pub fn new(port: PortId, vlan: Option<u16>) -> Self {
        Self { port, vid: vlan.unwrap_or(0) }
    }
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Table {
    by_nic: HashMap<NicId, Place, Seeded>,
    by_mac: HashMap<Station, Vec<(u16, Place)>, Seeded>,
    by_address: HashMap<(Lan, IpAddr), Place, Seeded>,
    by_group: HashMap<(Lan, IpAddr), Vec<Place>, Seeded>,
    /// Those we stand in for, or are about to, or still do.
    standing: HashMap<Lan, Vec<Place>, Seeded>,
    macs: Filter,
    addresses: Filter,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let seeded = Seeded::new(seed);
        Self {
            by_nic: HashMap::with_hasher(seeded),
            by_mac: HashMap::with_hasher(seeded),
            by_address: HashMap::with_hasher(seeded),
            by_group: HashMap::with_hasher(seeded),
            standing: HashMap::with_hasher(seeded),
            macs: Filter::new(seed),
            addresses: Filter::new(seed),
        }
    }

    /// Enters a NIC at `place`. An address or group it shares with another NIC of its LAN by mistake goes to the
    /// newer one; configuration refuses that earlier.
    pub fn insert(&mut self, identity: &NicIdentity, place: Place) {
        let lan = Lan::of(identity);
        self.by_nic.insert(identity.nic, place);
        self.macs.add(bits_of_mac(identity.mac));
        let station = Station { port: identity.port, mac: identity.mac };
        self.by_mac.entry(station).or_default().push((lan.vid, place));
        for address in &identity.addresses {
            self.addresses.add(bits_of_address(address.address));
            self.by_address.insert((lan, address.address), place);
        }
        self.join_groups(identity, place);
        // Reserved now, so that a change of mode never allocates.
        let here = self.by_mac.len();
        self.standing.entry(lan).or_default().reserve(here);
    }

    /// Takes a NIC out that was entered as `identity` at `place`.
    pub fn remove(&mut self, identity: &NicIdentity, place: Place) {
        let lan = Lan::of(identity);
        self.by_nic.remove(&identity.nic);
        let key = Station { port: identity.port, mac: identity.mac };
        if let Some(at) = self.by_mac.get_mut(&key) {
            at.retain(|(_, p)| *p != place);
            if at.is_empty() {
                self.by_mac.remove(&key);
            }
        }
        for address in &identity.addresses {
            let key = (lan, address.address);
            if self.by_address.get(&key) == Some(&place) {
                self.by_address.remove(&key);
            }
        }
        groups(identity).for_each(|group| self.leave_group(lan, group, place));
        self.stand_down(identity, place);
        self.macs.clear();
        self.by_mac.keys().for_each(|station| self.macs.add(bits_of_mac(station.mac)));
        self.addresses.clear();
        self.by_address.keys().for_each(|(_, address)| self.addresses.add(bits_of_address(*address)));
    }

    /// An address of a NIC at `place` is nobody's until [`give_back`](Self::give_back): who asks for it means
    /// nobody here. Its groups stay, since other addresses may have the same.
    pub fn withdraw(&mut self, identity: &NicIdentity, address: IpAddr, place: Place) {
        let key = (Lan::of(identity), address);
        if self.by_address.get(&key) == Some(&place) {
            self.by_address.remove(&key);
        }
    }

    /// It is this NIC's again.
    pub fn give_back(&mut self, identity: &NicIdentity, address: IpAddr, place: Place) {
        self.addresses.add(bits_of_address(address));
        self.by_address.insert((Lan::of(identity), address), place);
    }

    /// Its groups were `before` and are now those of `identity`.
    pub fn change_groups(&mut self, identity: &NicIdentity, place: Place, before: &[IpAddr]) {
        for group in before {
            if !groups(identity).any(|now| now == *group) {
                self.leave_group(Lan::of(identity), *group, place);
            }
        }
        self.join_groups(identity, place);
    }

    fn join_groups(&mut self, identity: &NicIdentity, place: Place) {
        let lan = Lan::of(identity);
        for group in groups(identity) {
            let members = self.by_group.entry((lan, group)).or_default();
            if !members.contains(&place) {
                members.push(place);
            }
        }
    }

    fn leave_group(&mut self, lan: Lan, group: IpAddr, place: Place) {
        let key = (lan, group);
        if let Some(members) = self.by_group.get_mut(&key) {
            members.retain(|p| *p != place);
            if members.is_empty() {
                self.by_group.remove(&key);
            }
        }
    }

    /// From now on flooded frames of its LAN concern this NIC.
    pub fn stand_in(&mut self, identity: &NicIdentity, place: Place) {
        let standing = self.standing.entry(Lan::of(identity)).or_default();
        if !standing.contains(&place) {
            standing.push(place);
        }
    }

    /// The NIC speaks for itself.
    pub fn stand_down(&mut self, identity: &NicIdentity, place: Place) {
        if let Some(standing) = self.standing.get_mut(&Lan::of(identity)) {
            standing.retain(|p| *p != place);
        }
    }

    /// By number.
    #[must_use]
    pub fn nic(&self, nic: NicId) -> Option<Place> {
        self.by_nic.get(&nic).copied()
    }

    /// By MAC address: the NIC of that VLAN, else the first one of another; `true` for the former.
    #[inline]
    #[must_use]
    pub fn mac(&self, lan: Lan, mac: Mac) -> Option<(Place, bool)> {
        if !self.macs.may_have(bits_of_mac(mac)) {
            return None;
        }
        let at = self.by_mac.get(&Station { port: lan.port, mac })?;
        match at.iter().find(|(vid, _)| *vid == lan.vid) {
            Some((_, place)) => Some((*place, true)),
            None => at.first().map(|(_, place)| (*place, false)),
        }
    }

    /// Whether [`mac`](Self::mac) may find something; `false` is certain, on every LAN.
    #[inline]
    #[must_use]
    pub fn may_know(&self, mac: Mac) -> bool {
        self.macs.may_have(bits_of_mac(mac))
    }

    /// By its own address.
    #[inline]
    #[must_use]
    pub fn address(&self, lan: Lan, address: IpAddr) -> Option<Place> {
        if !self.addresses.may_have(bits_of_address(address)) {
            return None;
        }
        self.by_address.get(&(lan, address)).copied()
    }

    /// The members of a multicast group; solicited-node groups follow from the addresses.
    #[inline]
    #[must_use]
    pub fn group(&self, lan: Lan, group: IpAddr) -> &[Place] {
        self.by_group.get(&(lan, group)).map_or(&[], Vec::as_slice)
    }

    /// All that do not speak for themselves.
    #[inline]
    #[must_use]
    pub fn standing(&self, lan: Lan) -> &[Place] {
        self.standing.get(&lan).map_or(&[], Vec::as_slice)
    }
}

fn groups(identity: &NicIdentity) -> impl Iterator<Item = IpAddr> + '_ {
    let solicited = identity.addresses.iter().filter_map(|a| match a.address {
        IpAddr::V6(address) => Some(IpAddr::V6(icmpv6::solicited_node(address))),
        IpAddr::V4(_) => None,
    });
    identity.groups.iter().copied().chain(solicited)
}

fn bits_of_mac(mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

fn bits_of_address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            (bits as u64) ^ (bits >> 64) as u64
        }
    }
}

/// Says at the cost of one bit that a key is not in a table. Without it a foreign frame would cost
/// two or three look-ups.
#[derive(Clone, Debug)]
struct Filter {
    bits: [u64; WORDS],
    factor: u64,
}

/// 4,096 bits: with a hundred guests one foreign key in forty gets past.
const WORDS: usize = 64;

impl Filter {
    const fn new(seed: u64) -> Self {
        Self { bits: [0; WORDS], factor: crate::rng::Rng::seeded(seed).next_u64() | 1 }
    }

    const fn at(&self, key: u64) -> (usize, u64) {
        let bit = key.wrapping_mul(self.factor) >> 52;
        ((bit >> 6) as usize, 1 << (bit & 63))
    }

    fn add(&mut self, key: u64) {
        let (word, bit) = self.at(key);
        if let Some(word) = self.bits.get_mut(word) {
            *word |= bit;
        }
    }

    #[inline]
    fn may_have(&self, key: u64) -> bool {
        let (word, bit) = self.at(key);
        self.bits.get(word).is_none_or(|word| word & bit != 0)
    }

    const fn clear(&mut self) {
        self.bits = [0; WORDS];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::identity::{GuestId, InterfaceAddress};
    use crate::policy::traffic::TrafficPolicy;

    fn nic(n: u8, vlan: Option<u16>) -> NicIdentity {
        let address =
            |text: &str, prefix_len| InterfaceAddress { address: text.parse().unwrap(), prefix_len };
        NicIdentity {
            guest: GuestId(n.into()),
            nic: NicId(n.into()),
            port: PortId(1),
            mac: Mac([0x52, 0x54, 0, 0, 0, n]),
            vlan,
            addresses: vec![
                address(&format!("192.0.2.{n}"), 24),
                address(&format!("2001:db8::{n:x}"), 64),
                address(&format!("2001:db8:1::{n:x}"), 64),
            ],
            groups: vec!["224.0.0.251".parse().unwrap()],
            router: false,
            traffic: TrafficPolicy::default(),
        }
    }

    fn lan(vid: u16) -> Lan {
        Lan { port: PortId(1), vid }
    }

    #[test]
    fn a_nic_is_found_by_everything_that_is_its_own_and_by_nothing_after_removal() {
        let mut table = Table::new(1);
        let one = nic(0x11, None);
        table.insert(&one, 3);
        table.insert(&nic(0x12, None), 4);
        table.stand_in(&one, 3);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let check = |table: &Table| {
            (
                table.nic(one.nic),
                table.mac(lan(0), one.mac),
                table.address(lan(0), ip("192.0.2.17")),
                table.address(lan(0), ip("2001:db8:1::11")),
                table.group(lan(0), ip("ff02::1:ff00:11")).to_vec(),
                table.group(lan(0), ip("224.0.0.251")).to_vec(),
                table.standing(lan(0)).to_vec(),
            )
        };
        let (a, b) = (Some(3), Some((3, true)));
        assert_eq!(check(&table), (a, b, a, a, vec![3], vec![3, 4], vec![3]));
        table.remove(&one, 3);
        assert_eq!(check(&table), (None, None, None, None, vec![], vec![4], vec![]));
    }

    #[test]
    fn vlan_and_bridge_separate_equal_addresses() {
        let mut table = Table::new(1);
        table.insert(&nic(0x11, None), 0);
        table.insert(&nic(0x11, Some(7)), 1);
        let address = "192.0.2.17".parse().unwrap();
        assert_eq!(table.address(lan(0), address), Some(0));
        assert_eq!(table.address(lan(7), address), Some(1));
        assert_eq!(table.address(lan(8), address), None);
        assert_eq!(table.address(Lan { port: PortId(2), vid: 0 }, address), None);
    }

    #[test]
    fn a_mac_in_another_vlan_is_found_and_said_to_be_elsewhere() {
        let mut table = Table::new(1);
        let seven = nic(0x11, Some(7));
        table.insert(&seven, 1);
        assert_eq!(table.mac(lan(7), seven.mac), Some((1, true)));
        assert_eq!(table.mac(lan(0), seven.mac), Some((1, false)));
        assert_eq!(table.mac(Lan { port: PortId(2), vid: 7 }, seven.mac), None);
    }
}
