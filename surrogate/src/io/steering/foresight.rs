//! What each step of standing in is going to change, as it must be recorded before.
//!
//! The same is foreseen before a cycle begins and found again by the step itself, so that while the guest's
//! frames are held, and it still runs, no step has to wait for the disk: only what changed meanwhile is
//! written then.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{MutexGuard, PoisonError};

use super::{FORWARDING, Place, Steering, SteeringError};
use crate::io::journal::{Change, ChangeKind, FloodFlags, Kind, PortId};
use crate::io::netlink::{GroupEntry, Link, mdb};

/// The floods of a guest's port that are to be taken.
pub(super) struct Floods {
    /// The port.
    pub(super) port: u32,
    /// Its group entries, which go.
    pub(super) entries: Vec<GroupEntry>,
    /// The groups it had joined.
    pub(super) groups: BTreeSet<IpAddr>,
    /// The groups that come to our port from now on.
    pub(super) kept: Vec<IpAddr>,
    /// What to record.
    pub(super) changes: Vec<ChangeKind>,
}

impl Steering {
    /// The changes that standing in at `place` will make, to be recorded; with `disables`, the guest's port is to
    /// be disabled too. What cannot be foreseen now is left to the step itself, and to its error.
    pub async fn foresee(&self, place: &Place, guest_port: Option<&str>, disables: bool) -> Vec<Change> {
        let Ok(bridge) = self.bridge(&place.bridge).await else { return Vec::new() };
        let mut changes = Vec::new();
        changes.extend(self.to_steer(place, &bridge, guest_port).await);
        if let Some(guest_port) = guest_port {
            if let Ok(floods) = self.floods_to_take(place, &bridge, guest_port).await {
                changes.extend(floods.changes);
            }
            if disables && let Ok(link) = self.port_on(&bridge, guest_port).await {
                changes.push(self.port_to_disable(&link));
            }
        }
        let changes: Vec<Change> = changes.into_iter().map(|what| place.change(what)).collect();
        let new = changes.iter().map(Change::key).filter(|key| self.journal.change(key).is_none());
        self.foreseen().extend(new);
        changes
    }

    /// Notes that what was foreseen at `place` and not made by now will not be; to be flushed.
    pub fn came_to_nothing(&self, place: &Place) {
        for kind in [Kind::Steered, Kind::FloodsTaken, Kind::GroupsKept, Kind::PortDisabled] {
            let key = place.key(kind);
            if self.foreseen().remove(&key) {
                self.journal.note_undone(&key);
            }
        }
    }

    pub(super) fn foreseen(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.foreseen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn to_steer(
        &self,
        place: &Place,
        bridge: &Link,
        guest_port: Option<&str>,
    ) -> Result<ChangeKind, SteeringError> {
        let (mut port, mut was) = match self.recorded(place, Kind::Steered) {
            Some(ChangeKind::Steered { guest_port, was }) => (guest_port, was),
            _ => (None, None),
        };
        let link = match guest_port {
            Some(name) => self.netlink.link(name).await?,
            None => None,
        };
        if let Some(link) = link {
            let entry = self.netlink.fdb_entry(bridge.ifindex, place.mac, place.vlan_on(bridge)).await?;
            if let Some(entry) = entry.filter(|entry| entry.ifindex == link.ifindex) {
                was = Some(entry.kind);
            }
            port = Some(PortId::of(&link));
        }
        Ok(ChangeKind::Steered { guest_port: port, was })
    }

    pub(super) async fn floods_to_take(
        &self,
        place: &Place,
        bridge: &Link,
        guest_port: &str,
    ) -> Result<Floods, SteeringError> {
        let vlan = place.vlan_on(bridge);
        let link = self.port_on(bridge, guest_port).await?;
        let port = PortId::of(&link);
        let ours = self.netlink.link_by_index(place.surrogate_port).await?;
        let ours = PortId::of(&ours.ok_or_else(|| SteeringError::NoPort("of our own".to_owned()))?);

        let mut entries = match self.recorded(place, Kind::FloodsTaken) {
            Some(ChangeKind::FloodsTaken { entries, .. }) => entries,
            _ => Vec::new(),
        };
        // A guest that was restored has its groups at a new device.
        entries.iter_mut().for_each(|entry| entry.port = link.ifindex);
        if snoops(bridge) {
            let mut there = self.netlink.mdb_list(bridge.ifindex).await?;
            there.retain(|entry| entry.port == link.ifindex && entry.vlan == vlan);
            let joined: Vec<GroupEntry> = there
                .iter()
                .filter(|entry| !there.iter().any(|any| entry.is_derived_from(any)))
                .cloned()
                .collect();
            entries.retain(|old| !joined.iter().any(|new| new.same_membership(old)));
            entries.extend(joined);
        }
        let flags = self.recorded_flags(&port).unwrap_or_else(|| FloodFlags::of(&link));
        let groups: BTreeSet<IpAddr> = entries.iter().map(|entry| entry.group).collect();
        // What was recorded may have been done: it stays, to be undone.
        let recorded = match self.recorded(place, Kind::GroupsKept) {
            Some(ChangeKind::GroupsKept { groups, .. }) => groups,
            _ => Vec::new(),
        };
        let kept: Vec<IpAddr> = groups
            .iter()
            .chain(&place.groups)
            .chain(&recorded)
            .copied()
            .chain(place.addresses.iter().filter_map(|address| solicited_node_group(*address)))
            .filter(|group| mdb::is_snooped(*group))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let taken = ChangeKind::FloodsTaken { port, flags, entries: entries.clone() };
        let changes = vec![taken, ChangeKind::GroupsKept { port: ours, groups: kept.clone() }];
        Ok(Floods { port: link.ifindex, entries, groups, kept, changes })
    }

    pub(super) fn port_to_disable(&self, link: &Link) -> ChangeKind {
        let port = PortId::of(link);
        let state = match self.recorded_state(&port) {
            Some(state) => state,
            // The bridge itself disables a port without carrier, and enables it with one.
            None if !link.carrier => FORWARDING,
            None => link.port.map_or(FORWARDING, |flags| flags.state),
        };
        ChangeKind::PortDisabled { port, state }
    }

    /// The flags a port had before we took the first VLAN's floods from it.
    fn recorded_flags(&self, wanted: &PortId) -> Option<FloodFlags> {
        self.journal.changes().into_iter().find_map(|change| match change.what {
            ChangeKind::FloodsTaken { port, flags, .. } => (port == *wanted).then_some(flags),
            _ => None,
        })
    }

    fn recorded_state(&self, wanted: &PortId) -> Option<u8> {
        self.journal.changes().into_iter().find_map(|change| match change.what {
            ChangeKind::PortDisabled { port, state } => (port == *wanted).then_some(state),
            _ => None,
        })
    }
}

/// Whether the bridge sends groups only to the ports that joined them.
pub(super) fn snoops(bridge: &Link) -> bool {
    bridge.bridge.is_some_and(|facts| facts.mcast_snooping)
}

/// The group in which neighbour solicitations for `address` arrive (RFC 4291 §2.7.1); none for IPv4.
fn solicited_node_group(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(address) = address else { return None };
    let [.., a, b, c] = address.octets();
    let low = u16::from_be_bytes([b, c]);
    Some(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_solicited_node_group_ends_in_the_addresss_last_three_bytes() {
        let group = solicited_node_group("2001:db8::12:3456".parse().unwrap());
        assert_eq!(group, Some("ff02::1:ff12:3456".parse().unwrap()));
        assert_eq!(solicited_node_group("192.0.2.1".parse().unwrap()), None);
    }
}
