//! Which ports we can stand in at.

use super::Steering;
use crate::io::netlink::{Link, LinkKind, NetlinkError};

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
    /// It could not be looked up.
    #[error(transparent)]
    Unknown(#[from] NetlinkError),
}

impl Steering {
    /// The guest's port, if we can stand in for it there.
    ///
    /// # Errors
    /// The reason why not.
    pub async fn check_port(&self, bridge: &str, port: &str) -> Result<Link, PortRefused> {
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
            None => Err(not_on_bridge()),
            Some(flags) if flags.isolated => Err(PortRefused::Isolated(port.to_owned())),
            Some(flags) if flags.locked => Err(PortRefused::Locked(port.to_owned())),
            Some(_) => Ok(link),
        }
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
