//! Which ports we can stand in at.

use super::Steering;
use crate::io::netlink::{Link, LinkKind, NetlinkError, PortVlan};

/// Why we cannot stand in for a guest at its port. One line for its operator.
#[derive(Debug, thiserror::Error)]
pub enum PortRefused {
    /// The bridge is missing.
    #[error("there is no bridge {0}")]
    NoBridge(String),
    /// Something else has the bridge's name, as Open vSwitch.
    #[error("{bridge} is no Linux bridge but {kind}")]
    NotALinuxBridge {
        /// Its name.
        bridge: String,
        /// The kernel's word for it.
        kind: String,
    },
    /// The port is missing.
    #[error("there is no link {0}")]
    NoPort(String),
    /// The link is not on that bridge.
    #[error("{port} is no port of {bridge}")]
    NotOnBridge {
        /// The link.
        port: String,
        /// The bridge.
        bridge: String,
    },
    /// Frames to it do not reach a guest in the way that we deliver.
    #[error("{port} is neither tap nor veth but {kind}")]
    NotTapOrVeth {
        /// The port.
        port: String,
        /// The kernel's word for it.
        kind: String,
    },
    /// It may not speak with all others: standing in would let it.
    #[error("{0} is an isolated port: standing in for its guest would lift the isolation")]
    Isolated(String),
    /// It admits only stations with a forwarding entry there, which steering moves away.
    #[error("{0} is a locked port: its guest could not speak while its entry points at us")]
    Locked(String),
    /// Its guest's frames are in another VLAN than the bridge's default, and the configuration names none.
    #[error(
        "untagged frames at {port} are of VLAN {pvid} (its PVID), not of the bridge's default VLAN: give `vlan = {pvid}`"
    )]
    OtherPvid {
        /// The port.
        port: String,
        /// The VLAN.
        pvid: u16,
    },
    /// Untagged frames go nowhere from there, and the configuration names no VLAN.
    #[error("{0} has no PVID, so that its guest's untagged frames are dropped: give the guest's `vlan`")]
    NoPvid(String),
    /// It is not in the VLAN that the configuration names.
    #[error("{port} is no member of VLAN {vlan}, which is configured for it")]
    NotInVlan {
        /// The port.
        port: String,
        /// The VLAN.
        vlan: u16,
    },
    /// What is said of a guest's own accord has the tag of 802.1Q, which is none on its bridge.
    #[error(
        "the VLANs of {bridge} are 802.1ad (its vlan_protocol), and `vlan` can only be one of 802.1Q there"
    )]
    ServiceVlan {
        /// Its name.
        bridge: String,
    },
    /// It could not be looked up.
    #[error(transparent)]
    Unknown(#[from] NetlinkError),
}

impl Steering {
    /// The guest's port, if we can stand in for it there; `vlan` is what is configured.
    ///
    /// # Errors
    /// The reason why not.
    pub async fn check_port(&self, bridge: &str, port: &str, vlan: Option<u16>) -> Result<Link, PortRefused> {
        let Some(bridge_link) = self.netlink.link(bridge).await? else {
            return Err(PortRefused::NoBridge(bridge.to_owned()));
        };
        if bridge_link.kind != LinkKind::Bridge {
            return Err(PortRefused::NotALinuxBridge {
                bridge: bridge.to_owned(),
                kind: described(&bridge_link.kind),
            });
        }
        let Some(link) = self.netlink.link(port).await? else {
            return Err(PortRefused::NoPort(port.to_owned()));
        };
        let not_on_bridge = || PortRefused::NotOnBridge { port: port.to_owned(), bridge: bridge.to_owned() };
        if link.master != Some(bridge_link.ifindex) {
            return Err(not_on_bridge());
        }
        if !matches!(link.kind, LinkKind::Tap | LinkKind::Veth) {
            let kind = described(&link.kind);
            return Err(PortRefused::NotTapOrVeth { port: port.to_owned(), kind });
        }
        match link.port {
            None => return Err(not_on_bridge()),
            Some(flags) if flags.isolated => return Err(PortRefused::Isolated(port.to_owned())),
            Some(flags) if flags.locked => return Err(PortRefused::Locked(port.to_owned())),
            Some(_) => {}
        }
        if let Some(facts) = bridge_link.bridge.filter(|facts| facts.vlan_filtering) {
            if facts.service_vlans && vlan.is_some() {
                return Err(PortRefused::ServiceVlan { bridge: bridge.to_owned() });
            }
            let vlans = self.netlink.port_vlans(link.ifindex).await?;
            check_vlan(port, vlan, facts.default_pvid, &vlans)?;
        }
        Ok(link)
    }
}

/// On a VLAN-aware bridge an entry is of one VLAN, and must be of the one that the guest's frames are in.
fn check_vlan(port: &str, wanted: Option<u16>, default: u16, of: &[PortVlan]) -> Result<(), PortRefused> {
    let port = port.to_owned();
    match (wanted, of.iter().find(|vlan| vlan.pvid)) {
        (Some(vlan), _) if of.iter().any(|member| member.vlan == vlan) => Ok(()),
        (Some(vlan), _) => Err(PortRefused::NotInVlan { port, vlan }),
        (None, None) => Err(PortRefused::NoPvid(port)),
        (None, Some(pvid)) if pvid.vlan == default => Ok(()),
        (None, Some(pvid)) => Err(PortRefused::OtherPvid { port, pvid: pvid.vlan }),
    }
}

fn described(kind: &LinkKind) -> String {
    match kind {
        LinkKind::Tap => "a tap".to_owned(),
        LinkKind::Veth => "a veth".to_owned(),
        LinkKind::Bridge => "a bridge".to_owned(),
        LinkKind::Other(kind) if kind.is_empty() => "a hardware interface".to_owned(),
        LinkKind::Other(kind) => format!("of kind {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vlan_that_is_steered_must_be_the_one_the_guests_frames_are_in() {
        let member = |vlan, pvid| PortVlan { vlan, pvid, untagged: pvid };
        let check = |wanted, of: &[PortVlan]| check_vlan("g1", wanted, 1, of);
        assert!(check(None, &[member(1, true), member(7, false)]).is_ok());
        assert!(matches!(
            check(None, &[member(1, false), member(7, true)]),
            Err(PortRefused::OtherPvid { pvid: 7, .. })
        ));
        assert!(matches!(check(None, &[member(7, false)]), Err(PortRefused::NoPvid(_))));
        assert!(check(Some(7), &[member(1, true), member(7, false)]).is_ok());
        assert!(matches!(check(Some(8), &[member(7, true)]), Err(PortRefused::NotInVlan { vlan: 8, .. })));
    }
}
