//! Multicast group entries: to which ports a snooping bridge sends a group's frames.
//!
//! The messages (`RTM_NEWMDB`, `RTM_DELMDB`, `RTM_GETMDB`, linux/if_bridge.h) are built here, as the
//! library has none. An entry for all sources may carry a filter mode and a list of sources (IGMPv3,
//! MLDv2); the bridge derives entries per source from it by itself, and takes them away with it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{
    NLA_HEADER_SIZE, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NlasIterator,
};
use serde::{Deserialize, Serialize};

use super::{Exchange, Netlink, NetlinkError, Reply, RequestError};

/// Membership of one bridge port in one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEntry {
    /// The port's number.
    pub port: u32,
    /// The group, an IP multicast address.
    pub group: IpAddr,
    /// The one source it is for; `None`: any.
    pub source: Option<IpAddr>,
    /// On a VLAN-aware bridge, the VLAN it counts for.
    pub vlan: Option<u16>,
    /// Whether it ages.
    pub lifetime: Lifetime,
    /// Whether the listed sources are the only ones wanted; else all but these.
    pub include: bool,
    /// Listed sources.
    pub sources: Vec<IpAddr>,
}

/// Whether a group entry ages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lifetime {
    /// Gone a membership interval after the last report.
    Temporary,
    /// Stays as long as its port.
    Permanent,
}

impl GroupEntry {
    /// A permanent entry for all sources.
    #[must_use]
    pub const fn permanent(port: u32, group: IpAddr, vlan: Option<u16>) -> Self {
        Self {
            port,
            group,
            source: None,
            vlan,
            lifetime: Lifetime::Permanent,
            include: false,
            sources: Vec::new(),
        }
    }

    /// All of the bridge with number `bridge` that a message of the kernel tells of.
    pub fn all_in(reply: &Reply, bridge: u32) -> impl Iterator<Item = Self> {
        // In a dump the kernel marks its answers as questions.
        let tells = matches!(reply.kind, RTM_NEWMDB | RTM_GETMDB);
        let payload = if tells { reply.payload.split_at_checked(PORT_HEADER_BYTES) } else { None };
        payload
            .into_iter()
            .filter(move |(header, _)| header.get(4..8) == Some(&bridge.to_ne_bytes()))
            .flat_map(|(_, attributes)| inside(attributes, MDBA_MDB))
            .flat_map(|mdb| inside(mdb, MDBA_MDB_ENTRY))
            .flat_map(|entry| inside(entry, MDBA_MDB_ENTRY_INFO))
            .filter_map(read)
    }

    /// Whether both are for the same port, group, source and VLAN: a bridge has only one of them.
    #[must_use]
    pub fn same_membership(&self, other: &Self) -> bool {
        (self.port, self.group, self.source, self.vlan) == (other.port, other.group, other.source, other.vlan)
    }

    /// Whether the bridge itself made this entry out of `any`, one for all sources that lists this one.
    #[must_use]
    pub fn is_derived_from(&self, any: &Self) -> bool {
        self.source.is_some_and(|source| any.sources.contains(&source))
            && any.source.is_none()
            && (any.port, any.group, any.vlan) == (self.port, self.group, self.vlan)
    }
}

/// Whether a bridge keeps entries for `group`: those that it always floods it refuses.
#[must_use]
pub fn is_snooped(group: IpAddr) -> bool {
    match group {
        // 224.0.0.0/24 is link-local and flooded always (RFC 4541 §2.1.2).
        IpAddr::V4(group) => group.is_multicast() && !matches!(group.octets(), [224, 0, 0, _]),
        IpAddr::V6(group) => group.is_multicast() && group != ALL_NODES,
    }
}

impl Exchange {
    /// All group entries of the ports of the bridge with number `bridge`.
    ///
    /// # Errors
    /// All of [`RequestError`].
    pub fn groups(&mut self, bridge: u32) -> Result<Vec<GroupEntry>, RequestError> {
        let replies = self.request(RTM_GETMDB, NLM_F_DUMP, &port_header(0))?;
        Ok(replies.iter().flat_map(|reply| GroupEntry::all_in(reply, bridge)).collect())
    }

    /// Adds an entry; `false`, and nothing changed, if the port is in the group already.
    ///
    /// # Errors
    /// `EINVAL` if the bridge does not snoop, the port is not in the VLAN, or the group is always flooded.
    pub fn group_add(&mut self, bridge: u32, entry: &GroupEntry) -> Result<bool, RequestError> {
        let add = NLM_F_CREATE | NLM_F_EXCL;
        match self.request(RTM_NEWMDB, add, &set_entry(bridge, entry, true)) {
            Ok(_) => Ok(true),
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(false),
            // Kernels before 6.3 take no list of sources: the next report of the station brings that back.
            Err(error) if error.errno() == Some(libc::EINVAL) && !entry.sources.is_empty() => {
                self.request(RTM_NEWMDB, add, &set_entry(bridge, entry, false)).map(|_| true)
            }
            Err(error) => Err(error),
        }
    }

    /// Adds an entry, or makes the one that is there like it.
    ///
    /// # Errors
    /// As [`group_add`](Self::group_add).
    pub fn group_replace(&mut self, bridge: u32, entry: &GroupEntry) -> Result<(), RequestError> {
        if self.group_add(bridge, entry)? {
            return Ok(());
        }
        let payload = set_entry(bridge, entry, true);
        match self.request(RTM_NEWMDB, NLM_F_CREATE | NLM_F_REPLACE, &payload) {
            // Kernels before 6.3 cannot replace.
            Err(error) if error.errno() == Some(libc::EEXIST) => {
                self.group_delete(bridge, entry)?;
                self.group_add(bridge, entry).map(drop)
            }
            done => done.map(drop),
        }
    }

    /// Removes an entry; `false` if there is none.
    ///
    /// # Errors
    /// All of [`RequestError`] but "no such entry".
    pub fn group_delete(&mut self, bridge: u32, entry: &GroupEntry) -> Result<bool, RequestError> {
        match self.request(RTM_DELMDB, 0, &set_entry(bridge, entry, false)) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(false),
            // A kernel answers so for a port that is gone or elsewhere, and for a bridge that is down.
            Err(error) if error.errno() == Some(libc::EINVAL) && !self.has_group(bridge, entry)? => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn has_group(&mut self, bridge: u32, wanted: &GroupEntry) -> Result<bool, RequestError> {
        Ok(self.groups(bridge)?.iter().any(|entry| entry.same_membership(wanted)))
    }
}

impl Netlink {
    /// As [`Exchange::groups`].
    ///
    /// # Errors
    /// As [`Exchange::groups`].
    pub async fn mdb_list(&self, bridge: u32) -> Result<Vec<GroupEntry>, NetlinkError> {
        self.ask(
            || format!("list the multicast groups of bridge {bridge}"),
            move |exchange| exchange.groups(bridge),
        )
        .await
    }

    /// As [`Exchange::group_add`].
    ///
    /// # Errors
    /// As [`Exchange::group_add`].
    pub async fn mdb_add(&self, bridge: u32, entry: GroupEntry) -> Result<bool, NetlinkError> {
        let doing = format!("send group {} to port {}", entry.group, entry.port);
        self.ask(|| doing, move |exchange| exchange.group_add(bridge, &entry)).await
    }

    /// As [`Exchange::group_replace`].
    ///
    /// # Errors
    /// As [`Exchange::group_add`].
    pub async fn mdb_replace(&self, bridge: u32, entry: GroupEntry) -> Result<(), NetlinkError> {
        let doing = format!("send group {} to port {}", entry.group, entry.port);
        self.ask(|| doing, move |exchange| exchange.group_replace(bridge, &entry)).await
    }

    /// As [`Exchange::group_delete`].
    ///
    /// # Errors
    /// As [`Exchange::group_delete`].
    pub async fn mdb_delete(&self, bridge: u32, entry: GroupEntry) -> Result<bool, NetlinkError> {
        let doing = format!("send group {} no more to port {}", entry.group, entry.port);
        self.ask(|| doing, move |exchange| exchange.group_delete(bridge, &entry)).await
    }
}

/// `struct br_port_msg` of this bridge.
fn port_header(ifindex: u32) -> Vec<u8> {
    let mut bytes = vec![libc::AF_BRIDGE as u8, 0, 0, 0];
    bytes.extend(ifindex.to_ne_bytes());
    bytes
}

/// A request to set or delete `entry`; with its filter mode and sources if `whole`.
fn set_entry(bridge: u32, entry: &GroupEntry, whole: bool) -> Vec<u8> {
    // struct br_mdb_entry
    let mut value = entry.port.to_ne_bytes().to_vec();
    value.push(u8::from(entry.lifetime == Lifetime::Permanent));
    value.push(0);
    value.extend(entry.vlan.unwrap_or_default().to_ne_bytes());
    let mut address = octets(entry.group);
    address.resize(16, 0);
    value.extend(address);
    let protocol = if entry.group.is_ipv4() { libc::ETH_P_IP } else { libc::ETH_P_IPV6 };
    value.extend((protocol as u16).to_be_bytes());
    value.extend([0; 2]);

    let mut more = Vec::new();
    if let Some(source) = entry.source {
        more.extend(attribute(MDBE_ATTR_SOURCE, &octets(source)));
    } else if whole && !entry.sources.is_empty() {
        let list: Vec<u8> = entry
            .sources
            .iter()
            .flat_map(|source| {
                let address = attribute(MDBE_SRCATTR_ADDRESS, &octets(*source));
                attribute(MDBE_SRC_LIST_ENTRY | NESTED, &address)
            })
            .collect();
        more.extend(attribute(MDBE_ATTR_SRC_LIST | NESTED, &list));
        let mode = if entry.include { MCAST_INCLUDE } else { MCAST_EXCLUDE };
        more.extend(attribute(MDBE_ATTR_GROUP_MODE, &[mode]));
    }

    let mut message = port_header(bridge);
    message.extend(attribute(MDBA_SET_ENTRY, &value));
    if !more.is_empty() {
        message.extend(attribute(MDBA_SET_ENTRY_ATTRS | NESTED, &more));
    }
    message
}

/// Reads `struct br_mdb_entry` and the attributes behind it; `None` for an entry that is not of IP.
fn read(info: &[u8]) -> Option<GroupEntry> {
    let (entry, attributes) = info.split_at_checked(ENTRY_BYTES)?;
    let address: [u8; 16] = entry.get(8..24)?.try_into().ok()?;
    let group = match i32::from(u16::from_be_bytes(entry.get(24..26)?.try_into().ok()?)) {
        libc::ETH_P_IP => ip(address.get(..4)?)?,
        libc::ETH_P_IPV6 => ip(&address)?,
        _ => return None,
    };
    let vlan = u16::from_ne_bytes(entry.get(6..8)?.try_into().ok()?);
    let mut read = GroupEntry {
        port: u32::from_ne_bytes(entry.get(..4)?.try_into().ok()?),
        group,
        source: None,
        vlan: (vlan != 0).then_some(vlan),
        lifetime: if entry.get(4) == Some(&0) { Lifetime::Temporary } else { Lifetime::Permanent },
        include: false,
        sources: Vec::new(),
    };
    for attribute in NlasIterator::new(attributes).filter_map(Result::ok) {
        match attribute.kind() {
            MDBA_MDB_EATTR_SOURCE => read.source = ip(attribute.value()),
            MDBA_MDB_EATTR_GROUP_MODE => read.include = attribute.value() == [MCAST_INCLUDE],
            MDBA_MDB_EATTR_SRC_LIST => {
                read.sources = inside(attribute.value(), MDBA_MDB_SRCLIST_ENTRY)
                    .flat_map(|source| inside(source, MDBA_MDB_SRCATTR_ADDRESS))
                    .filter_map(ip)
                    .collect();
            }
            _ => {}
        }
    }
    Some(read)
}

/// The values of the attributes of this kind in `bytes`, up to the first that is cut short.
fn inside(bytes: &[u8], kind: u16) -> impl Iterator<Item = &[u8]> {
    NlasIterator::new(bytes).map_while(Result::ok).filter(move |attribute| attribute.kind() == kind).map(
        |attribute| {
            let value = NLA_HEADER_SIZE..usize::from(attribute.length());
            attribute.into_inner().get(value).unwrap_or_default()
        },
    )
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = value.len().saturating_add(4);
    let mut bytes = u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into())
}

/// `ff02::1`, to which every node belongs.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const RTM_NEWMDB: u16 = 84;
const RTM_DELMDB: u16 = 85;
const RTM_GETMDB: u16 = 86;

const PORT_HEADER_BYTES: usize = 8;
const ENTRY_BYTES: usize = 28;
const NESTED: u16 = netlink_packet_core::NLA_F_NESTED;

const MDBA_MDB: u16 = 1;
const MDBA_MDB_ENTRY: u16 = 1;
const MDBA_MDB_ENTRY_INFO: u16 = 1;
const MDBA_MDB_EATTR_SRC_LIST: u16 = 2;
const MDBA_MDB_EATTR_GROUP_MODE: u16 = 3;
const MDBA_MDB_EATTR_SOURCE: u16 = 4;
const MDBA_MDB_SRCLIST_ENTRY: u16 = 1;
const MDBA_MDB_SRCATTR_ADDRESS: u16 = 1;

const MDBA_SET_ENTRY: u16 = 1;
const MDBA_SET_ENTRY_ATTRS: u16 = 2;
const MDBE_ATTR_SOURCE: u16 = 1;
const MDBE_ATTR_SRC_LIST: u16 = 2;
const MDBE_ATTR_GROUP_MODE: u16 = 3;
const MDBE_SRC_LIST_ENTRY: u16 = 1;
const MDBE_SRCATTR_ADDRESS: u16 = 1;

const MCAST_EXCLUDE: u8 = 0;
const MCAST_INCLUDE: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_the_kernel_is_read_back_as_it_was_set() {
        let entry = GroupEntry {
            port: 7,
            group: "ff02::1:ff00:11".parse().unwrap(),
            source: None,
            vlan: Some(10),
            lifetime: Lifetime::Permanent,
            include: false,
            sources: Vec::new(),
        };
        let message = set_entry(3, &entry, true);
        let set = inside(&message[PORT_HEADER_BYTES..], MDBA_SET_ENTRY).next().unwrap();
        assert_eq!(read(set), Some(entry));
    }

    #[test]
    fn groups_that_a_bridge_floods_always_are_told_apart() {
        for (group, snooped) in [
            ("224.0.0.251", false),
            ("239.1.2.3", true),
            ("192.0.2.1", false),
            ("ff02::1", false),
            ("ff02::fb", true),
            ("ff02::1:ff00:11", true),
        ] {
            assert_eq!(is_snooped(group.parse().unwrap()), snooped, "{group}");
        }
    }

    #[test]
    fn an_entry_cut_short_is_none() {
        let entry = GroupEntry::permanent(7, "239.1.2.3".parse().unwrap(), None);
        let message = set_entry(3, &entry, true);
        let set = inside(&message[PORT_HEADER_BYTES..], MDBA_SET_ENTRY).next().unwrap();
        for length in 0..ENTRY_BYTES {
            assert_eq!(read(&set[..length]), None);
        }
    }
}
