//! What we change on a bridge to stand in for a guest, and how it is put back.
//!
//! | operation | changes | undone by |
//! |---|---|---|
//! | [`steer`](Steering::steer) | forwarding entry: the guest's frames come to our port | [`release`](Steering::release) |
//! | [`take_floods`](Steering::take_floods) | nothing is flooded to the guest's port; its groups come to ours | [`return_floods`](Steering::return_floods) |
//! | `steer`, in a VLAN | our port joins it | [`leave_vlan`](Steering::leave_vlan) |
//! | [`disable_port`](Steering::disable_port) | nothing passes the guest's port at all | [`enable_port`](Steering::enable_port) |
//!
//! Each operation is written to the journal, with the old values, *before* anything is changed, and may
//! be repeated. Those of a sleep are foreseen and written together before the guest's frames are held
//! ([`foresee`](Steering::foresee)), so that a guest that runs waits for no disk. That it was put back is written soon *after*, and nobody waits for it: once more changes
//! nothing. So whatever becomes of the daemon, [`Steering::reconcile`] of its successor or
//! [`release_all`] without one finds what there is to put back. Our own port takes its entries with it
//! when the daemon dies; only the guest's port keeps traces. Ports are known by name: a restored guest
//! has a new device under its old name, whose settings are its own and are left alone.
//!
//! Nothing here decides when: that is `guest::lifecycle` and the daemon.

mod check;
mod foresight;
mod undo;

use core::net::IpAddr;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

pub use check::PortRefused;
use foresight::{Floods, snoops};
use surrogate_wire::Mac;
pub use undo::{ReleaseReport, Released, release_all};

use crate::io::journal::{Change, ChangeKind, FloodFlags, Journal, JournalError, Kind, PortId, change_key};
use crate::io::netlink::{FdbKind, GroupEntry, Link, Netlink, NetlinkError, PortChange, PortVlan};

/// Recorded changes on bridges.
#[derive(Debug)]
pub struct Steering {
    netlink: Netlink,
    journal: Arc<Journal>,
    /// Held from reading what is recorded of ports, groups and VLANs to changing them, as guests share all three.
    order: tokio::sync::Mutex<()>,
    /// Keys of changes that are recorded, and were neither made yet nor before.
    foreseen: Mutex<BTreeSet<String>>,
}

/// Where we stand in for a guest: one of its NICs, on one VLAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The guest's name.
    pub guest: String,
    /// The NIC's address.
    pub mac: Mac,
    /// The VLAN its addresses live in; `None`: untagged.
    pub vlan: Option<u16>,
    /// The bridge.
    pub bridge: String,
    /// The number of our port on that bridge.
    pub surrogate_port: u32,
    /// The NIC's addresses.
    pub addresses: Vec<IpAddr>,
    /// Groups that it is in, whether the bridge knows of them or not.
    pub groups: Vec<IpAddr>,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// It could not be recorded; nothing was changed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// There is no such bridge.
    #[error("there is no Linux bridge {0}")]
    NoBridge(String),
    /// The guest has no such port on its bridge.
    #[error("there is no bridge port {0}")]
    NoPort(String),
}

impl Steering {
    /// Works through `netlink` and records in `journal`.
    #[must_use]
    pub fn new(netlink: Netlink, journal: Arc<Journal>) -> Self {
        Self { netlink, journal, order: tokio::sync::Mutex::default(), foreseen: Mutex::default() }
    }

    /// Sends the guest's unicast frames to our port, in one atomic step.
    ///
    /// `guest_port` is where they went until now, and where they go back to if we are not there to say.
    ///
    /// # Errors
    /// All kinds but [`SteeringError::NoPort`].
    pub async fn steer(&self, place: &Place, guest_port: Option<&str>) -> Result<(), SteeringError> {
        let _order = if place.vlan.is_some() { Some(self.order.lock().await) } else { None };
        let bridge = self.bridge(&place.bridge).await?;
        let vlan = place.vlan_on(&bridge);
        let steered = self.to_steer(place, &bridge, guest_port).await?;
        self.record(place, vec![steered]).await?;

        // Untagged frames come to our port as to any other.
        if let (Some(vlan), Some(_)) = (vlan, place.vlan) {
            self.netlink.join_vlan(place.surrogate_port, vlan).await?;
        }
        self.netlink.fdb_replace(place.mac, vlan, place.surrogate_port, FdbKind::StaticSticky).await?;
        Ok(())
    }

    /// Keeps flooded frames and group traffic from the guest's port and has the groups come to ours: those
    /// the port had joined, which are returned, those of `place`, and the solicited-node groups of the guest's
    /// addresses.
    ///
    /// # Errors
    /// All kinds.
    pub async fn take_floods(&self, place: &Place, guest_port: &str) -> Result<Vec<IpAddr>, SteeringError> {
        let _order = self.order.lock().await;
        let bridge = self.bridge(&place.bridge).await?;
        let vlan = place.vlan_on(&bridge);
        let Floods { port, entries, groups, kept, changes } =
            self.floods_to_take(place, &bridge, guest_port).await?;
        self.record(place, changes).await?;

        // First to us, then no more to the guest: no group is without a listener in between. A bridge
        // that does not snoop floods groups to our port anyway, and takes no entries.
        if snoops(&bridge) {
            for group in kept {
                let entry = GroupEntry::permanent(place.surrogate_port, group, vlan);
                self.netlink.mdb_replace(bridge.ifindex, entry).await?;
            }
        }
        self.netlink.set_port_flags(port, FloodFlags::OFF.into()).await?;
        for entry in entries {
            self.netlink.mdb_delete(bridge.ifindex, entry).await?;
        }
        Ok(groups.into_iter().collect())
    }

    /// Puts back what [`take_floods`](Self::take_floods) took and lets our port leave the guest's groups.
    ///
    /// If `guest_port` is another device than before, its own flags stand, and it gets the groups. If it
    /// is not there at all, nothing is left to put back. A port that we disabled is enabled first: a
    /// disabled one takes no group that ages.
    ///
    /// # Errors
    /// All kinds but [`SteeringError::NoPort`].
    pub async fn return_floods(&self, place: &Place, guest_port: Option<&str>) -> Result<(), SteeringError> {
        let _order = self.order.lock().await;
        self.enable(place, guest_port).await?;
        if let Some(change) = self.journal.change(&place.key(Kind::FloodsTaken)) {
            undo::floods(&self.netlink, &self.journal, &change, guest_port).await?;
        }
        if let Some(change) = self.journal.change(&place.key(Kind::GroupsKept)) {
            undo::groups(&self.netlink, &self.journal, &change).await?;
        }
        self.undone(place, &[Kind::FloodsTaken, Kind::GroupsKept]);
        Ok(())
    }

    /// Disables the guest's port: for a guest whose network stack stays awake while it sleeps.
    ///
    /// The bridge enables it again upon any change of the link (its alias, its carrier): do this again
    /// when the link is heard to have changed and its state is not 0.
    ///
    /// # Errors
    /// All kinds.
    pub async fn disable_port(&self, place: &Place, guest_port: &str) -> Result<(), SteeringError> {
        let _order = self.order.lock().await;
        let link = self.port(guest_port).await?;
        self.record(place, vec![self.port_to_disable(&link)]).await?;
        self.netlink.set_port_state(link.ifindex, DISABLED).await?;
        Ok(())
    }

    /// Puts back the state that the guest's port had before [`disable_port`](Self::disable_port).
    ///
    /// # Errors
    /// All kinds but [`SteeringError::NoPort`].
    pub async fn enable_port(&self, place: &Place, guest_port: &str) -> Result<(), SteeringError> {
        let _order = self.order.lock().await;
        self.enable(place, Some(guest_port)).await
    }

    /// Sends the guest's frames to its own port again, in one atomic step.
    ///
    /// # Errors
    /// All kinds. After [`SteeringError::NoPort`] they still come to us.
    pub async fn release(&self, place: &Place, guest_port: &str) -> Result<(), SteeringError> {
        let bridge = self.bridge(&place.bridge).await?;
        let link = self.port_on(&bridge, guest_port).await?;
        let was = match self.recorded(place, Kind::Steered) {
            Some(ChangeKind::Steered { was, .. }) => was,
            _ => None,
        };
        let vlan = place.vlan_on(&bridge);
        self.netlink.fdb_replace(place.mac, vlan, link.ifindex, undo::entry_kind(was)).await?;
        self.undone(place, &[Kind::Steered]);
        Ok(())
    }

    /// The guest's own port for deliveries: its number, and the VLAN whose tag the bridge takes off there and so
    /// must we. `None`: there is no such link now.
    ///
    /// # Errors
    /// [`SteeringError::Netlink`], [`SteeringError::NoBridge`].
    pub async fn delivery_port(
        &self,
        bridge: &str,
        vlan: Option<u16>,
        guest_port: &str,
    ) -> Result<Option<(u32, Option<u16>)>, SteeringError> {
        let Some(link) = self.netlink.link(guest_port).await? else { return Ok(None) };
        let Some(vlan) = vlan else { return Ok(Some((link.ifindex, None))) };
        let aware = self.bridge(bridge).await?.bridge.is_some_and(|facts| facts.vlan_filtering);
        let untagged = |of: &PortVlan| of.vlan == vlan && of.untagged;
        let untag = aware && self.netlink.port_vlans(link.ifindex).await?.iter().any(untagged);
        Ok(Some((link.ifindex, untag.then_some(vlan))))
    }

    /// Has our port leave the VLAN that [`steer`](Self::steer) joined for `place`, and the bridge forget our own
    /// service address there, unless another guest of that VLAN is steered to us. When all that was on its way to
    /// our port has come.
    ///
    /// # Errors
    /// [`SteeringError::Netlink`], [`SteeringError::NoBridge`].
    pub async fn leave_vlan(&self, place: &Place, service_mac: Mac) -> Result<(), SteeringError> {
        let _order = self.order.lock().await;
        let Some(vlan) = place.vlan else { return Ok(()) };
        let bridge = self.bridge(&place.bridge).await?;
        let needed = self.journal.changes().into_iter().any(|change| {
            let there = change.bridge == place.bridge && change.vlan == place.vlan;
            there && change.what.kind() == Kind::Steered
        });
        // The default one is every port's.
        if needed || place.vlan_on(&bridge).is_none() || vlan_on(&bridge, None) == Some(vlan) {
            return Ok(());
        }
        let vlans = self.netlink.port_vlans(place.surrogate_port).await?;
        if !vlans.iter().any(|of| of.vlan == vlan) {
            return Ok(());
        }
        self.netlink.fdb_delete(service_mac, Some(vlan), place.surrogate_port).await?;
        Ok(self.netlink.leave_vlan(place.surrogate_port, vlan).await?)
    }

    /// Has the bridge send frames for our own service address, in `vlan`, to our port. It vanishes with the port.
    ///
    /// # Errors
    /// All kinds but [`SteeringError::NoPort`] and [`SteeringError::Journal`].
    pub async fn own_mac(
        &self,
        bridge: &str,
        vlan: Option<u16>,
        surrogate_port: u32,
        service_mac: Mac,
    ) -> Result<(), SteeringError> {
        let vlan = vlan_on(&self.bridge(bridge).await?, vlan);
        self.netlink.fdb_replace(service_mac, vlan, surrogate_port, FdbKind::StaticSticky).await?;
        Ok(())
    }

    /// Why our own port gets nothing from its bridge, if so: somebody took it off, or set it down.
    ///
    /// # Errors
    /// [`SteeringError::Netlink`].
    pub async fn why_cut_off(&self, surrogate_port: u32) -> Result<Option<&'static str>, SteeringError> {
        Ok(match self.netlink.link_by_index(surrogate_port).await? {
            None => Some("it is gone"),
            Some(link) if link.master.is_none() => Some("somebody took it off its bridge"),
            Some(link) if !link.up => Some("somebody set it down"),
            Some(_) => None,
        })
    }

    /// Puts back whatever is recorded for guests that are not `wanted`.
    ///
    /// At the daemon's start: what is recorded for the others is taken up by the next operation on them.
    pub async fn reconcile(&self, wanted: impl Fn(&str) -> bool) -> ReleaseReport {
        let _order = self.order.lock().await;
        undo::put_back(&self.netlink, &self.journal, |guest| !wanted(guest)).await
    }

    async fn enable(&self, place: &Place, guest_port: Option<&str>) -> Result<(), SteeringError> {
        if let Some(change) = self.journal.change(&place.key(Kind::PortDisabled)) {
            undo::port_state(&self.netlink, &self.journal, &change, guest_port).await?;
            self.undone(place, &[Kind::PortDisabled]);
        }
        Ok(())
    }

    async fn bridge(&self, name: &str) -> Result<Link, SteeringError> {
        let link = self.netlink.link(name).await?.filter(|link| link.bridge.is_some());
        link.ok_or_else(|| SteeringError::NoBridge(name.to_owned()))
    }

    async fn port(&self, name: &str) -> Result<Link, SteeringError> {
        let link = self.netlink.link(name).await?.filter(|link| link.port.is_some());
        link.ok_or_else(|| SteeringError::NoPort(name.to_owned()))
    }

    /// A port of another bridge is not the guest's, whatever its name or address: a copy of the guest can be
    /// there.
    async fn port_on(&self, bridge: &Link, name: &str) -> Result<Link, SteeringError> {
        let link = self.port(name).await?;
        if link.master == Some(bridge.ifindex) {
            Ok(link)
        } else {
            Err(SteeringError::NoPort(name.to_owned()))
        }
    }

    fn recorded(&self, place: &Place, kind: Kind) -> Option<ChangeKind> {
        self.journal.change(&place.key(kind)).map(|change| change.what)
    }

    /// Writes changes down; they are on the disk when this returns. Those that were foreseen are there.
    async fn record(&self, place: &Place, changes: Vec<ChangeKind>) -> Result<(), JournalError> {
        let mut changes: Vec<Change> = changes.into_iter().map(|what| place.change(what)).collect();
        // From here on it may be made.
        self.foreseen().retain(|key| !changes.iter().any(|change| change.key() == *key));
        changes.retain(|change| self.journal.change(&change.key()).as_ref() != Some(change));
        if changes.is_empty() {
            return Ok(());
        }
        undo::blocking(&self.journal, move |journal| journal.put_changes(&changes)).await
    }

    /// Notes that changes are put back.
    fn undone(&self, place: &Place, kinds: &[Kind]) {
        kinds.iter().for_each(|kind| self.journal.note_undone(&place.key(*kind)));
        self.journal.flush_soon();
    }
}

impl Place {
    fn change(&self, what: ChangeKind) -> Change {
        let Self { guest, bridge, mac, vlan, .. } = self;
        Change { guest: guest.clone(), bridge: bridge.clone(), mac: *mac, vlan: *vlan, what }
    }

    fn key(&self, kind: Kind) -> String {
        change_key(&self.bridge, self.mac, self.vlan, kind)
    }

    fn vlan_on(&self, bridge: &Link) -> Option<u16> {
        vlan_on(bridge, self.vlan)
    }
}

/// The VLAN that entries of `bridge` need: none unless it is VLAN-aware, the default one for untagged frames.
fn vlan_on(bridge: &Link, vlan: Option<u16>) -> Option<u16> {
    let facts = bridge.bridge.filter(|facts| facts.vlan_filtering)?;
    vlan.or((facts.default_pvid != 0).then_some(facts.default_pvid))
}

impl PortId {
    fn of(link: &Link) -> Self {
        Self { ifindex: link.ifindex, name: link.name.clone(), mac: link.mac.unwrap_or(Mac::ZERO) }
    }
}

impl FloodFlags {
    const OFF: Self = Self { flood: false, mcast_flood: false, bcast_flood: false, mcast_router: 0 };

    fn of(link: &Link) -> Self {
        let on = Self { flood: true, mcast_flood: true, bcast_flood: true, mcast_router: 1 };
        link.port.map_or(on, |port| Self {
            flood: port.flood,
            mcast_flood: port.mcast_flood,
            bcast_flood: port.bcast_flood,
            mcast_router: port.mcast_router,
        })
    }
}

impl From<FloodFlags> for PortChange {
    fn from(flags: FloodFlags) -> Self {
        Self {
            flood: Some(flags.flood),
            mcast_flood: Some(flags.mcast_flood),
            bcast_flood: Some(flags.bcast_flood),
            mcast_router: Some(flags.mcast_router),
            ..Self::default()
        }
    }
}

const DISABLED: u8 = 0;
const FORWARDING: u8 = 3;
