//! What is recorded: of each guest, and of each change on a bridge what is needed to undo it.

use serde::{Deserialize, Serialize};
use surrogate_wire::Mac;

use crate::engine::Knowledge;
use crate::guest::lifecycle::Intent;
use crate::hypervisor::Depth;
use crate::io::netlink::{FdbKind, GroupEntry};

/// What we must know of a guest after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRecord {
    /// Its name.
    pub name: String,
    /// The hypervisor it is of.
    pub hypervisor: String,
    /// Its transition counter.
    pub epoch: u64,
    /// Whether it sleeps because we put it to sleep.
    pub slept_by_us: bool,
    /// How deep, if it sleeps.
    pub depth: Option<Depth>,
    /// What was last asked for.
    pub intent: Intent,
    /// Since when, in milliseconds since 1970.
    pub since_unix_ms: u64,
}

/// What was known of a guest's NIC when it fell asleep, or lately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The guest.
    pub guest: String,
    /// When it was taken, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// What.
    pub knowledge: Knowledge,
}

/// Something of ours on a bridge, for one guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The guest it is for.
    pub guest: String,
    /// The bridge it is on.
    pub bridge: String,
    /// The guest's address.
    #[serde(with = "mac_text")]
    pub mac: Mac,
    /// The VLAN of its addresses.
    pub vlan: Option<u16>,
    /// What was changed.
    pub what: ChangeKind,
}

impl Change {
    /// What tells changes apart: one of each kind per bridge, address and VLAN.
    #[must_use]
    pub fn key(&self) -> String {
        change_key(&self.bridge, self.mac, self.vlan, self.what.kind())
    }
}

/// The key of the change of this kind, for the guest with this address on this bridge.
#[must_use]
pub fn change_key(bridge: &str, mac: Mac, vlan: Option<u16>, kind: Kind) -> String {
    let kind = match kind {
        Kind::Steered => "steered",
        Kind::FloodsTaken => "floods-taken",
        Kind::GroupsKept => "groups-kept",
        Kind::PortDisabled => "port-disabled",
    };
    format!("{bridge}/{mac}/{}/{kind}", vlan.unwrap_or_default())
}

/// The kinds of [`ChangeKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// See [`ChangeKind::Steered`].
    Steered,
    /// See [`ChangeKind::FloodsTaken`].
    FloodsTaken,
    /// See [`ChangeKind::GroupsKept`].
    GroupsKept,
    /// See [`ChangeKind::PortDisabled`].
    PortDisabled,
}

/// A kind of change, with what is needed to undo it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum ChangeKind {
    /// The bridge sends the guest's frames to us.
    Steered {
        /// Where they went and shall go again, if the guest had a port.
        guest_port: Option<PortId>,
        /// The entry it had there; `None`: it had none and is given one as if learned.
        was: Option<FdbKind>,
    },
    /// Flooded frames and group traffic no longer reach the guest's port.
    FloodsTaken {
        /// The guest's port.
        port: PortId,
        /// Its flags before.
        flags: FloodFlags,
        /// Its group entries before.
        entries: Vec<GroupEntry>,
    },
    /// Our port receives these groups for the guest.
    GroupsKept {
        /// Our port.
        port: PortId,
        /// The groups.
        groups: Vec<core::net::IpAddr>,
    },
    /// The guest's port is disabled.
    PortDisabled {
        /// The guest's port.
        port: PortId,
        /// Its state before.
        state: u8,
    },
}

impl ChangeKind {
    /// Which kind it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Steered { .. } => Kind::Steered,
            Self::FloodsTaken { .. } => Kind::FloodsTaken,
            Self::GroupsKept { .. } => Kind::GroupsKept,
            Self::PortDisabled { .. } => Kind::PortDisabled,
        }
    }
}

/// Which device a port was: names and numbers alone are given again, to others too after a reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortId {
    /// Its number.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its own address.
    #[serde(with = "mac_text")]
    pub mac: Mac,
}

/// The settings of a port that decide what is flooded to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloodFlags {
    /// Unicast to unknown stations.
    pub flood: bool,
    /// Multicast.
    pub mcast_flood: bool,
    /// Broadcast.
    pub bcast_flood: bool,
    /// All multicast, to a multicast router: 0 never, 1 while it is heard to be one, 2 always.
    pub mcast_router: u8,
}

/// An Ethernet address as people write it.
mod mac_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use surrogate_wire::Mac;

    pub(super) fn serialize<S: Serializer>(mac: &Mac, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mac, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
