//! Links and bridge ports: what they are, and the few port settings that we change.
//!
//! Queries use `RTM_GETLINK` of no particular family, which tells a link's kind, master, queueing
//! discipline, counters and bridge port settings in one message.

use netlink_packet_core::{DefaultNla, NLM_F_DUMP, Nla as _};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoBridgePort, InfoData, InfoKind,
        InfoPortData, InfoTun, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
        LinkProtoInfoBridge, VlanProtocol,
    },
};
use surrogate_wire::Mac;

use super::{Exchange, Netlink, NetlinkError, RequestError};

/// A network interface as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number; a re-created link gets another one.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its own address, where that has six bytes.
    pub mac: Option<Mac>,
    /// Set up by its administrator.
    pub up: bool,
    /// Something is connected (for a tap: its file is open).
    pub carrier: bool,
    /// Bytes after the Ethernet header.
    pub mtu: u32,
    /// The bridge or bond it belongs to.
    pub master: Option<u32>,
    /// What it is.
    pub kind: LinkKind,
    /// Its root queueing discipline, as `noqueue`; `noop` drops everything with success.
    pub qdisc: Option<String>,
    /// Its settings as a port of a Linux bridge, if it is one.
    pub port: Option<PortFlags>,
    /// Its settings as a Linux bridge, if it is one.
    pub bridge: Option<BridgeFacts>,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets dropped before they were sent.
    pub tx_dropped: u64,
}

/// What kind of link it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A tap, usually of a virtual machine.
    Tap,
    /// One end of a veth pair.
    Veth,
    /// A Linux bridge.
    Bridge,
    /// Anything else, by the kernel's word for it (`vlan`, `openvswitch`, `tun`); empty for hardware.
    Other(String),
}

/// Settings of a Linux bridge that decide how we work on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgeFacts {
    /// Multicast goes only where it was asked for.
    pub mcast_snooping: bool,
    /// Ports belong to VLANs.
    pub vlan_filtering: bool,
    /// Their tags are service tags (802.1ad), and others are what the frames carry.
    pub service_vlans: bool,
    /// The VLAN of untagged frames at a port that was given none; 0: such frames are dropped.
    pub default_pvid: u16,
}

/// Settings of a port of a Linux bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortFlags {
    /// Unicast frames to unknown stations go out here.
    pub flood: bool,
    /// Multicast frames that nobody asked for go out here.
    pub mcast_flood: bool,
    /// Broadcast frames go out here.
    pub bcast_flood: bool,
    /// Stations are learned from what comes in.
    pub learning: bool,
    /// Speaks only with ports that are not isolated.
    pub isolated: bool,
    /// The bridge answers ARP and neighbour solicitations for it.
    pub neigh_suppress: bool,
    /// What comes in may go out here again.
    pub hairpin: bool,
    /// Only known stations may speak here.
    pub locked: bool,
    /// 0 never, 1 learned, 2 always a multicast router, 3 one for now.
    pub mcast_router: u8,
    /// 0 disabled, 1 listening, 2 learning, 3 forwarding, 4 blocking.
    pub state: u8,
}

/// A VLAN of a port of a VLAN-aware bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortVlan {
    /// Its identifier.
    pub vlan: u16,
    /// Untagged frames that come in are of this VLAN.
    pub pvid: bool,
    /// Its frames go out here without their tag.
    pub untagged: bool,
}

/// What to change of a port; `None` leaves a setting alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortChange {
    /// See [`PortFlags::flood`].
    pub flood: Option<bool>,
    /// See [`PortFlags::mcast_flood`].
    pub mcast_flood: Option<bool>,
    /// See [`PortFlags::bcast_flood`].
    pub bcast_flood: Option<bool>,
    /// See [`PortFlags::learning`].
    pub learning: Option<bool>,
    /// See [`PortFlags::mcast_router`].
    pub mcast_router: Option<u8>,
    /// See [`PortFlags::state`]. With spanning tree off, 4 has no effect and 3 needs a carrier.
    pub state: Option<u8>,
}

impl Exchange {
    /// The link of this name.
    ///
    /// # Errors
    /// All of [`RequestError`] but "no such link", which is `None`.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, RequestError> {
        // The kernel takes a name it could never give for malformed.
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Ok(None);
        }
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(message)
    }

    /// The link with this number.
    ///
    /// # Errors
    /// As [`link`](Self::link).
    pub fn link_by_index(&mut self, ifindex: u32) -> Result<Option<Link>, RequestError> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        self.one_link(message)
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// All of [`RequestError`].
    pub fn links(&mut self) -> Result<Vec<Link>, RequestError> {
        let replies = self.route(&RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(replies.into_iter().filter_map(Link::read).collect())
    }

    /// The ports of the bridge (or whatever master) with this number.
    ///
    /// # Errors
    /// All of [`RequestError`].
    pub fn ports(&mut self, bridge: u32) -> Result<Vec<Link>, RequestError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Controller(bridge));
        let replies = self.route(&RouteNetlinkMessage::GetLink(message), NLM_F_DUMP)?;
        Ok(replies.into_iter().filter_map(Link::read).filter(|link| link.master == Some(bridge)).collect())
    }

    /// Changes settings of a bridge port.
    ///
    /// # Errors
    /// `EOPNOTSUPP` or `EINVAL` if it is no bridge port; `EBUSY` for a state under spanning tree.
    pub fn set_port(&mut self, ifindex: u32, change: PortChange) -> Result<(), RequestError> {
        let settings = change.attributes();
        if settings.is_empty() {
            return Ok(());
        }
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        message.header.index = ifindex;
        message.attributes.push(LinkAttribute::ProtoInfoBridge(settings));
        self.route(&RouteNetlinkMessage::SetLink(message), 0).map(drop)
    }

    /// Makes a port of a VLAN-aware bridge a tagged member of `vlan`.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the kernel has no VLAN-aware bridges.
    pub fn join_vlan(&mut self, ifindex: u32, vlan: u16) -> Result<(), RequestError> {
        self.route(&RouteNetlinkMessage::SetLink(membership(ifindex, vlan)), 0).map(drop)
    }

    /// Takes a port of a VLAN-aware bridge out of `vlan`, if it is in it.
    ///
    /// # Errors
    /// All of [`RequestError`] but "no such VLAN" and "no such link".
    pub fn leave_vlan(&mut self, ifindex: u32, vlan: u16) -> Result<(), RequestError> {
        match self.route(&RouteNetlinkMessage::DelLink(membership(ifindex, vlan)), 0) {
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
            left => left.map(drop),
        }
    }

    /// The VLANs that a port of a VLAN-aware bridge is a member of.
    ///
    /// # Errors
    /// All of [`RequestError`].
    pub fn port_vlans(&mut self, ifindex: u32) -> Result<Vec<PortVlan>, RequestError> {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::Brvlan]));
        let replies = self.route(&RouteNetlinkMessage::GetLink(message), NLM_F_DUMP)?;
        let of_port = replies.iter().find(|reply| match reply {
            RouteNetlinkMessage::NewLink(link) => link.header.index == ifindex,
            _ => false,
        });
        Ok(of_port.into_iter().flat_map(PortVlan::all_of).collect())
    }

    fn one_link(&mut self, message: LinkMessage) -> Result<Option<Link>, RequestError> {
        match self.route(&RouteNetlinkMessage::GetLink(message), 0) {
            Ok(replies) => Ok(replies.into_iter().find_map(Link::read)),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Netlink {
    /// The link of this name, if there is one.
    ///
    /// # Errors
    /// The kernel's, with what was asked.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let wanted = name.to_owned();
        self.ask(|| format!("look up {name}"), move |exchange| exchange.link(&wanted)).await
    }

    /// The link with this number, if there is one.
    ///
    /// # Errors
    /// The kernel's, with what was asked.
    pub async fn link_by_index(&self, ifindex: u32) -> Result<Option<Link>, NetlinkError> {
        self.ask(|| format!("look up link {ifindex}"), move |exchange| exchange.link_by_index(ifindex)).await
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// The kernel's, with what was asked.
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        self.ask(|| "list the links".to_owned(), Exchange::links).await
    }

    /// All ports of `bridge`; none if there is no such bridge.
    ///
    /// # Errors
    /// The kernel's, with what was asked.
    pub async fn bridge_ports(&self, bridge: &str) -> Result<Vec<Link>, NetlinkError> {
        let name = bridge.to_owned();
        let ask = move |exchange: &mut Exchange| match exchange.link(&name)? {
            Some(bridge) => exchange.ports(bridge.ifindex),
            None => Ok(Vec::new()),
        };
        self.ask(|| format!("list the ports of {bridge}"), ask).await
    }

    /// Changes settings of a bridge port.
    ///
    /// # Errors
    /// As [`Exchange::set_port`].
    pub async fn set_port_flags(&self, ifindex: u32, change: PortChange) -> Result<(), NetlinkError> {
        self.ask(|| format!("set port {ifindex}"), move |exchange| exchange.set_port(ifindex, change)).await
    }

    /// Sets a bridge port's state: 0 disabled, 3 forwarding.
    ///
    /// # Errors
    /// As [`Exchange::set_port`]; `ENETDOWN` for 3 without a carrier.
    pub async fn set_port_state(&self, ifindex: u32, state: u8) -> Result<(), NetlinkError> {
        let change = PortChange { state: Some(state), ..PortChange::default() };
        self.ask(
            || format!("set port {ifindex} to state {state}"),
            move |exchange| exchange.set_port(ifindex, change),
        )
        .await
    }

    /// As [`Exchange::port_vlans`].
    ///
    /// # Errors
    /// As [`Exchange::port_vlans`].
    pub async fn port_vlans(&self, ifindex: u32) -> Result<Vec<PortVlan>, NetlinkError> {
        self.ask(
            || format!("look up the VLANs of port {ifindex}"),
            move |exchange| exchange.port_vlans(ifindex),
        )
        .await
    }

    /// As [`Exchange::join_vlan`].
    ///
    /// # Errors
    /// As [`Exchange::join_vlan`].
    pub async fn join_vlan(&self, ifindex: u32, vlan: u16) -> Result<(), NetlinkError> {
        self.ask(
            || format!("add VLAN {vlan} to port {ifindex}"),
            move |exchange| exchange.join_vlan(ifindex, vlan),
        )
        .await
    }

    /// As [`Exchange::leave_vlan`].
    ///
    /// # Errors
    /// As [`Exchange::leave_vlan`].
    pub async fn leave_vlan(&self, ifindex: u32, vlan: u16) -> Result<(), NetlinkError> {
        self.ask(
            || format!("take port {ifindex} out of VLAN {vlan}"),
            move |exchange| exchange.leave_vlan(ifindex, vlan),
        )
        .await
    }
}

/// A port's tagged membership in `vlan`.
fn membership(ifindex: u32, vlan: u16) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = ifindex;
    message.attributes.push(LinkAttribute::AfSpecBridge(vec![AfSpecBridge::VlanInfo(BridgeVlanInfo {
        flags: BridgeVlanInfoFlags::empty(),
        vid: vlan,
    })]));
    message
}

impl PortChange {
    /// As `IFLA_PROTINFO` of the bridge's own family. The other way, as the settings of a slave link,
    /// ends in a notice of change to the bridge, upon which that enables a port that we just disabled.
    fn attributes(self) -> Vec<LinkProtoInfoBridge> {
        [
            (IFLA_BRPORT_UNICAST_FLOOD, self.flood.map(u8::from)),
            (IFLA_BRPORT_MCAST_FLOOD, self.mcast_flood.map(u8::from)),
            (IFLA_BRPORT_BCAST_FLOOD, self.bcast_flood.map(u8::from)),
            (IFLA_BRPORT_LEARNING, self.learning.map(u8::from)),
            (IFLA_BRPORT_MULTICAST_ROUTER, self.mcast_router),
            (IFLA_BRPORT_STATE, self.state),
        ]
        .into_iter()
        .filter_map(|(kind, value)| Some(LinkProtoInfoBridge::Other(DefaultNla::new(kind, vec![value?]))))
        .collect()
    }
}

impl PortVlan {
    /// All of the port that an answer tells of; none in anything but `RTM_NEWLINK`.
    pub fn all_of(message: &RouteNetlinkMessage) -> impl Iterator<Item = Self> {
        let attributes: &[LinkAttribute] = match message {
            RouteNetlinkMessage::NewLink(link) => &link.attributes,
            _ => &[],
        };
        let facts = attributes.iter().filter_map(|attribute| match attribute {
            LinkAttribute::AfSpecBridge(facts) => Some(facts),
            _ => None,
        });
        facts.flatten().filter_map(|fact| match fact {
            AfSpecBridge::VlanInfo(info) => Some(Self {
                vlan: info.vid,
                pvid: info.flags.contains(BridgeVlanInfoFlags::Pvid),
                untagged: info.flags.contains(BridgeVlanInfoFlags::Untagged),
            }),
            _ => None,
        })
    }
}

impl Link {
    /// The link that an answer or notice tells of; `None` for anything but `RTM_NEWLINK`.
    #[must_use]
    pub fn read(message: RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewLink(message) = message else { return None };
        Some(read(message))
    }
}

fn read(message: LinkMessage) -> Link {
    let mut link = Link {
        ifindex: message.header.index,
        name: String::new(),
        mac: None,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        mtu: 0,
        master: None,
        kind: LinkKind::Other(String::new()),
        qdisc: None,
        port: None,
        bridge: None,
        rx_packets: 0,
        tx_packets: 0,
        tx_dropped: 0,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(address) => link.mac = address.try_into().ok().map(Mac),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(master) => link.master = Some(master),
            LinkAttribute::Qdisc(qdisc) => link.qdisc = Some(qdisc),
            LinkAttribute::Stats64(stats) => {
                link.rx_packets = stats.rx_packets;
                link.tx_packets = stats.tx_packets;
                link.tx_dropped = stats.tx_dropped;
            }
            LinkAttribute::LinkInfo(infos) => read_info(&mut link, infos),
            _ => {}
        }
    }
    link
}

fn read_info(link: &mut Link, infos: Vec<LinkInfo>) {
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Veth) => link.kind = LinkKind::Veth,
            LinkInfo::Kind(InfoKind::Bridge) => link.kind = LinkKind::Bridge,
            LinkInfo::Kind(other) => link.kind = LinkKind::Other(other.to_string()),
            LinkInfo::Data(InfoData::Tun(settings)) if is_tap(&settings) => link.kind = LinkKind::Tap,
            LinkInfo::Data(InfoData::Bridge(settings)) => link.bridge = Some(bridge_facts(&settings)),
            LinkInfo::PortData(InfoPortData::BridgePort(settings)) => {
                link.port = Some(port_flags(&settings));
            }
            _ => {}
        }
    }
}

fn is_tap(settings: &[InfoTun]) -> bool {
    settings.iter().any(|setting| {
        let InfoTun::Other(attribute) = setting else { return false };
        let mut value = vec![0; attribute.value_len()];
        attribute.emit_value(&mut value);
        attribute.kind() == IFLA_TUN_TYPE && value == [IFF_TAP]
    })
}

fn bridge_facts(settings: &[InfoBridge]) -> BridgeFacts {
    let mut facts = BridgeFacts::default();
    for setting in settings {
        match *setting {
            InfoBridge::MulticastSnooping(on) => facts.mcast_snooping = on,
            InfoBridge::VlanFiltering(on) => facts.vlan_filtering = on,
            InfoBridge::VlanDefaultPvid(vlan) => facts.default_pvid = vlan,
            InfoBridge::VlanProtocol(protocol) => facts.service_vlans = protocol == VlanProtocol::Ieee8021Ad,
            _ => {}
        }
    }
    facts
}

/// What a kernel does not tell of, it does not have: flooding is then on, the rest off.
fn port_flags(settings: &[InfoBridgePort]) -> PortFlags {
    let mut flags = PortFlags {
        flood: true,
        mcast_flood: true,
        bcast_flood: true,
        learning: true,
        isolated: false,
        neigh_suppress: false,
        hairpin: false,
        locked: false,
        mcast_router: 1,
        state: 3,
    };
    for setting in settings {
        match setting {
            InfoBridgePort::UnicastFlood(on) => flags.flood = *on,
            InfoBridgePort::MulticastFlood(on) => flags.mcast_flood = *on,
            InfoBridgePort::BroadcastFlood(on) => flags.bcast_flood = *on,
            InfoBridgePort::Learning(on) => flags.learning = *on,
            InfoBridgePort::Isolated(on) => flags.isolated = *on,
            InfoBridgePort::NeighSupress(on) => flags.neigh_suppress = *on,
            InfoBridgePort::HairpinMode(on) => flags.hairpin = *on,
            InfoBridgePort::Locked(on) => flags.locked = *on,
            InfoBridgePort::MulticastRouter(router) => flags.mcast_router = (*router).into(),
            InfoBridgePort::State(state) => flags.state = u8::from(*state),
            _ => {}
        }
    }
    flags
}

const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_UNICAST_FLOOD: u16 = 9;
const IFLA_BRPORT_MULTICAST_ROUTER: u16 = 25;
const IFLA_BRPORT_MCAST_FLOOD: u16 = 27;
const IFLA_BRPORT_BCAST_FLOOD: u16 = 30;
const IFLA_TUN_TYPE: u16 = 3;
const IFF_TAP: u8 = 2;
