//! Forwarding entries: which port a bridge sends a station's frames to.
//!
//! Entries are *replaced*, never deleted and added: a replacement is atomic, while a missing entry makes
//! the bridge flood. Ours is static and *sticky*: one that is only static moves to whatever port the
//! address is next seen on.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};
use serde::{Deserialize, Serialize};
use surrogate_wire::Mac;

use super::{Exchange, Netlink, NetlinkError, RequestError};

/// How an entry behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FdbKind {
    /// Stays at its port for ever.
    StaticSticky,
    /// Never ages, moves where the address is seen.
    Static,
    /// As if learned.
    Dynamic,
    /// An address of the bridge itself; never made by us.
    Local,
}

/// A forwarding entry of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The station.
    pub mac: Mac,
    /// On a VLAN-aware bridge, the VLAN it counts for.
    pub vlan: Option<u16>,
    /// The port.
    pub ifindex: u32,
    /// How it behaves.
    pub kind: FdbKind,
}

impl Exchange {
    /// Points frames for `mac` at the bridge port `ifindex`, wherever they went before.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if the link is no bridge port, `EINVAL` if it is not in `vlan`.
    pub fn fdb_replace(
        &mut self,
        mac: Mac,
        vlan: Option<u16>,
        ifindex: u32,
        kind: FdbKind,
    ) -> Result<(), RequestError> {
        let mut message = entry(mac, vlan);
        message.header.ifindex = ifindex;
        (message.header.state, message.header.flags) = match kind {
            FdbKind::StaticSticky => {
                (NeighbourState::Noarp, NeighbourFlags::Controller | NeighbourFlags::Sticky)
            }
            FdbKind::Static => (NeighbourState::Noarp, NeighbourFlags::Controller),
            FdbKind::Dynamic => (NeighbourState::Reachable, NeighbourFlags::Controller),
            FdbKind::Local => (NeighbourState::Permanent, NeighbourFlags::Controller),
        };
        self.route(&RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE).map(drop)
    }

    /// Removes the entry for `mac` at the bridge port `ifindex`; `false` if there is none.
    ///
    /// # Errors
    /// All of [`RequestError`] but "no such entry" and "no such link".
    pub fn fdb_delete(&mut self, mac: Mac, vlan: Option<u16>, ifindex: u32) -> Result<bool, RequestError> {
        let mut message = entry(mac, vlan);
        message.header.ifindex = ifindex;
        message.header.flags = NeighbourFlags::Controller;
        match self.route(&RouteNetlinkMessage::DelNeighbour(message), 0) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Where the bridge with number `bridge` sends frames for `mac`; `None` if it floods them.
    ///
    /// # Errors
    /// All of [`RequestError`] but "no such entry" and "no such bridge".
    pub fn fdb_entry(
        &mut self,
        bridge: u32,
        mac: Mac,
        vlan: Option<u16>,
    ) -> Result<Option<FdbEntry>, RequestError> {
        let mut message = entry(mac, vlan);
        message.attributes.push(NeighbourAttribute::Controller(bridge));
        match self.route(&RouteNetlinkMessage::GetNeighbour(message), 0) {
            Ok(replies) => Ok(replies.iter().find_map(FdbEntry::read)),
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Netlink {
    /// As [`Exchange::fdb_replace`].
    ///
    /// # Errors
    /// As [`Exchange::fdb_replace`].
    pub async fn fdb_replace(
        &self,
        mac: Mac,
        vlan: Option<u16>,
        ifindex: u32,
        kind: FdbKind,
    ) -> Result<(), NetlinkError> {
        self.ask(
            || format!("forward {mac} to port {ifindex}"),
            move |exchange| exchange.fdb_replace(mac, vlan, ifindex, kind),
        )
        .await
    }

    /// As [`Exchange::fdb_delete`].
    ///
    /// # Errors
    /// As [`Exchange::fdb_delete`].
    pub async fn fdb_delete(&self, mac: Mac, vlan: Option<u16>, ifindex: u32) -> Result<bool, NetlinkError> {
        self.ask(
            || format!("delete the entry of {mac} at port {ifindex}"),
            move |exchange| exchange.fdb_delete(mac, vlan, ifindex),
        )
        .await
    }

    /// As [`Exchange::fdb_entry`].
    ///
    /// # Errors
    /// As [`Exchange::fdb_entry`].
    pub async fn fdb_entry(
        &self,
        bridge: u32,
        mac: Mac,
        vlan: Option<u16>,
    ) -> Result<Option<FdbEntry>, NetlinkError> {
        self.ask(|| format!("look up {mac}"), move |exchange| exchange.fdb_entry(bridge, mac, vlan)).await
    }
}

fn entry(mac: Mac, vlan: Option<u16>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message.attributes.extend(vlan.map(NeighbourAttribute::Vlan));
    message
}

impl FdbEntry {
    /// The entry that an answer tells of; `None` for anything but `RTM_NEWNEIGH` with a MAC.
    #[must_use]
    pub fn read(message: &RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
        let (mut mac, mut vlan) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = bytes.as_slice().try_into().ok().map(Mac);
                }
                NeighbourAttribute::Vlan(vid) => vlan = Some(*vid),
                _ => {}
            }
        }
        let kind = match message.header.state {
            NeighbourState::Permanent => FdbKind::Local,
            NeighbourState::Noarp if message.header.flags.contains(NeighbourFlags::Sticky) => {
                FdbKind::StaticSticky
            }
            NeighbourState::Noarp => FdbKind::Static,
            _ => FdbKind::Dynamic,
        };
        Some(Self { mac: mac?, vlan, ifindex: message.header.ifindex, kind })
    }
}
