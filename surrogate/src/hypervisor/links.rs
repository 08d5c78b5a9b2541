//! The links of a network namespace, asked of the kernel once (rtnetlink dumps, RFC 3549).
//!
//! Answers what a hypervisor does not know: which veth is whose other end, which bridge a port is on,
//! and whether it is isolated there. Reads the namespace of the calling thread, keeps nothing, and
//! changes nothing: that is `io::netlink`'s.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoKind, InfoPortData, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};

use crate::guest::identity::{InterfaceAddress, Mac};
use crate::io::netlink::Exchange;

/// One link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// "veth", "tun", "bridge"; `None` for a device that is no virtual one, and for loopback.
    pub(super) kind: Option<String>,
    pub(super) loopback: bool,
    pub(super) mac: Option<Mac>,
    /// Index of the link that this one is the other end of, or sits upon.
    pub(super) peer: Option<u32>,
    /// The number that this namespace gives to the peer's; `None` if it is the same one.
    pub(super) peer_namespace: Option<i32>,
    pub(super) master: Option<u32>,
    /// Set by `bridge link set dev PORT isolated on`.
    pub(super) isolated: bool,
    pub(super) rx_packets: u64,
    pub(super) tx_packets: u64,
}

/// All links of one namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Links(pub(super) Vec<Link>);

impl Links {
    /// Those of the calling thread's namespace.
    ///
    /// # Errors
    /// What the socket or the kernel says.
    pub(super) fn here() -> io::Result<Self> {
        let answers = dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let links = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(link(&message)),
            _ => None,
        });
        Ok(Self(links.collect()))
    }

    pub(super) fn by_index(&self, index: u32) -> Option<&Link> {
        self.0.iter().find(|link| link.index == index)
    }

    #[cfg(any(test, feature = "libvirt"))]
    pub(super) fn by_name(&self, name: &str) -> Option<&Link> {
        self.0.iter().find(|link| link.name == name)
    }

    /// The Linux bridge that `port` is on, or why a stand-in cannot use that port. One line.
    pub(super) fn bridge_of(&self, port: &Link) -> Result<&str, String> {
        let Some(master) = port.master.and_then(|index| self.by_index(index)) else {
            return Err(format!("port {} is on no bridge", port.name));
        };
        if master.kind.as_deref() != Some("bridge") {
            let kind = master.kind.as_deref().unwrap_or("device");
            return Err(format!(
                "port {} is in the {kind} {}, not on a Linux bridge",
                port.name, master.name
            ));
        }
        if port.isolated {
            return Err(format!("port {} is isolated on bridge {}", port.name, master.name));
        }
        match port.kind.as_deref() {
            Some("tun" | "veth") => Ok(&master.name),
            other => Err(format!("port {} is a {}, not a tap or veth", port.name, other.unwrap_or("device"))),
        }
    }
}

/// The addresses in use in the calling thread's namespace, each with its link's index.
///
/// Those that duplicate address detection has not passed yet, or has failed, are left out.
///
/// # Errors
/// As [`Links::here`].
pub(super) fn addresses_here() -> io::Result<Vec<(u32, InterfaceAddress)>> {
    let answers = dump(&RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let addresses = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewAddress(message) => Some((message.header.index, address(&message)?)),
        _ => None,
    });
    Ok(addresses.collect())
}

/// The number by which the calling thread's namespace knows `namespace`, if it knows it.
///
/// The kernel numbers a namespace when a link of this one first leads there, so ask after a dump.
///
/// # Errors
/// As [`Links::here`].
pub(super) fn number_of(namespace: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let mut request = NsidMessage::default();
    let descriptor = u32::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?;
    request.attributes.push(NsidAttribute::Fd(descriptor));
    let answers = ask(&RouteNetlinkMessage::GetNsId(request), 0)?;
    let number = answers.iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewNsId(message) => message.attributes.iter().find_map(|a| match a {
            NsidAttribute::Id(number) if *number >= 0 => Some(*number),
            _ => None,
        }),
        _ => None,
    });
    Ok(number)
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::LinkNetNsId(number) => link.peer_namespace = Some(*number),
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::Stats64(stats) => {
                link.rx_packets = stats.rx_packets;
                link.tx_packets = stats.tx_packets;
            }
            LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| match info {
                LinkInfo::Kind(InfoKind::Other(kind)) => link.kind = Some(kind.clone()),
                LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
                LinkInfo::PortData(InfoPortData::BridgePort(options)) => {
                    link.isolated = options.contains(&InfoBridgePort::Isolated(true));
                }
                _ => {}
            }),
            _ => {}
        }
    }
    link
}

fn address(message: &AddressMessage) -> Option<InterfaceAddress> {
    let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed;
    let (mut local, mut prefix) = (None::<IpAddr>, None::<IpAddr>);
    // The header has room for eight of the flags only; both that matter here are among them.
    let mut flags =
        AddressFlags::from_bits_retain(u32::from(AddressHeaderFlags::bits(&message.header.flags)));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => prefix = Some(*address),
            AddressAttribute::Flags(all) => flags |= *all,
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the peer's; IFA_LOCAL, where there is one, is ours.
    let address = local.or(prefix)?;
    (!flags.intersects(unusable))
        .then_some(InterfaceAddress { address, prefix_len: message.header.prefix_len })
}

fn dump(request: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    ask(request, NLM_F_DUMP)
}

fn ask(request: &RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    Ok(Exchange::open()?.route(request, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_with_its_address() {
        let links = Links::here().unwrap();
        let lo = links.by_name("lo").unwrap();
        assert!(lo.loopback && lo.kind.is_none());
        assert_eq!(links.by_index(lo.index), Some(lo));
        let v4 = InterfaceAddress { address: "127.0.0.1".parse().unwrap(), prefix_len: 8 };
        assert!(addresses_here().unwrap().contains(&(lo.index, v4)));
    }

    #[test]
    fn a_port_is_refused_unless_it_is_a_tap_or_veth_on_a_bridge_and_not_isolated() {
        let device = |index, name: &str, kind: &str| Link {
            index,
            name: name.to_owned(),
            kind: Some(kind.to_owned()),
            ..Link::default()
        };
        let links = Links(vec![device(1, "br0", "bridge"), device(2, "bond0", "bond")]);
        let port = |kind, master, isolated| Link { master, isolated, ..device(3, "p", kind) };
        assert_eq!(links.bridge_of(&port("veth", Some(1), false)), Ok("br0"));
        assert_eq!(links.bridge_of(&port("tun", Some(1), false)), Ok("br0"));
        let refusals = [
            (port("tun", Some(1), true), "port p is isolated on bridge br0"),
            (port("tun", None, false), "port p is on no bridge"),
            (port("tun", Some(2), false), "port p is in the bond bond0, not on a Linux bridge"),
            (port("macvtap", Some(1), false), "port p is a macvtap, not a tap or veth"),
        ];
        for (port, why) in refusals {
            assert_eq!(links.bridge_of(&port), Err(why.to_owned()));
        }
    }
}
