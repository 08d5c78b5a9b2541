//! Who a guest is on the network: names, numbers and addresses, per NIC.

use core::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
pub use surrogate_wire::Mac;

use crate::policy::traffic::TrafficPolicy;

/// A guest, by its place in the daemon's table. Never reused while the daemon lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GuestId(pub u32);

/// One network interface of a guest; unique across guests, never reused while the daemon lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NicId(pub u32);

/// Our port on one bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortId(pub u32);

/// A guest's transition counter. A message that carries an older one is ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// An address with the length of its on-link prefix in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceAddress {
    /// The address itself; unicast, neither network nor broadcast address of its prefix.
    pub address: IpAddr,
    /// 0 to 32, or 0 to 128.
    pub prefix_len: u8,
}

/// What the engine must know of one NIC of a guest to stand in for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicIdentity {
    /// The guest it belongs to.
    pub guest: GuestId,
    /// The NIC itself.
    pub nic: NicId,
    /// The surrogate port on the NIC's bridge.
    pub port: PortId,
    /// The guest's own MAC address, unicast.
    pub mac: Mac,
    /// The 802.1Q VLAN its addresses live in as frames cross the bridge; `None`: untagged (or VID 0).
    pub vlan: Option<u16>,
    /// Every address we may answer for.
    pub addresses: Vec<InterfaceAddress>,
    /// IP multicast groups it is known to have joined, solicited-node groups left out (they follow
    /// from `addresses`).
    pub groups: Vec<IpAddr>,
    /// Whether it announced itself as an IPv6 router (the Router flag of its advertisements).
    pub router: bool,
    /// What may be answered, held and waken for.
    pub traffic: TrafficPolicy,
}

impl NicIdentity {
    /// Whether `address` is one that we may answer for.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|held| held.address == address)
    }

    /// Whether `address` is on the NIC's link: in one of its prefixes, or link-local (RFC 3927 2.7, RFC 4291
    /// 2.5.6).
    #[must_use]
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        let local = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        local || self.addresses.iter().any(|held| held.covers(address))
    }

    /// Whether `address` reaches every host of the link: 255.255.255.255, or the broadcast or network
    /// address of one of the NIC's prefixes (RFC 1122 3.2.1.3, the latter as BSD once did).
    #[must_use]
    pub fn is_broadcast(&self, address: Ipv4Addr) -> bool {
        address.is_broadcast() || self.addresses.iter().any(|held| held.broadcasts(address))
    }
}

impl InterfaceAddress {
    /// Whether `address` is in this prefix.
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        let length = u32::from(self.prefix_len);
        match (self.address, address) {
            (IpAddr::V4(held), IpAddr::V4(other)) => {
                let host = u32::MAX.checked_shr(length).unwrap_or(0);
                (held.to_bits() ^ other.to_bits()) & !host == 0
            }
            (IpAddr::V6(held), IpAddr::V6(other)) => {
                let host = u128::MAX.checked_shr(length).unwrap_or(0);
                (held.to_bits() ^ other.to_bits()) & !host == 0
            }
            _ => false,
        }
    }

    /// Whether `address` is the broadcast or network address of this prefix. A prefix of 31 or 32 bits
    /// has none (RFC 3021).
    fn broadcasts(&self, address: Ipv4Addr) -> bool {
        let IpAddr::V4(held) = self.address else { return false };
        if self.prefix_len > 30 {
            return false;
        }
        let host = u32::MAX.checked_shr(u32::from(self.prefix_len)).unwrap_or(0);
        let same_prefix = (held.to_bits() ^ address.to_bits()) & !host == 0;
        same_prefix && matches!(address.to_bits() & host, bits if bits == host || bits == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(text: &str, prefix_len: u8) -> InterfaceAddress {
        InterfaceAddress { address: text.parse().unwrap(), prefix_len }
    }

    #[test]
    fn broadcast_and_network_address_of_a_prefix_are_no_hosts() {
        let held = held("192.0.2.65", 26);
        for (address, expected) in [
            ("192.0.2.127", true),
            ("192.0.2.64", true),
            ("192.0.2.65", false),
            ("192.0.2.255", false),
            ("198.51.100.127", false),
        ] {
            assert_eq!(held.broadcasts(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn a_prefix_covers_its_own_family_to_the_bit() {
        for (prefix, len, address, expected) in [
            ("192.0.2.65", 26, "192.0.2.126", true),
            ("192.0.2.65", 26, "192.0.2.128", false),
            ("192.0.2.65", 32, "192.0.2.65", true),
            ("192.0.2.65", 32, "192.0.2.64", false),
            ("2001:db8::1", 64, "2001:db8::ffff:1", true),
            ("2001:db8::1", 64, "2001:db8:0:1::1", false),
            ("2001:db8::1", 128, "2001:db8::1", true),
            ("192.0.2.65", 1, "2001:db8::1", false),
        ] {
            assert_eq!(
                held(prefix, len).covers(address.parse().unwrap()),
                expected,
                "{prefix}/{len} {address}"
            );
        }
    }

    #[test]
    fn a_point_to_point_prefix_has_no_broadcast_address() {
        assert!(!held("192.0.2.1", 31).broadcasts(Ipv4Addr::new(192, 0, 2, 1)));
        assert!(!held("192.0.2.1", 32).broadcasts(Ipv4Addr::new(192, 0, 2, 1)));
        assert!(!held("2001:db8::1", 8).broadcasts(Ipv4Addr::new(32, 255, 255, 255)));
    }
}
