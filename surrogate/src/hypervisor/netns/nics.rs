//! The NICs of a network namespace: veths whose other end is a port on one of our bridges.
//!
//! A link counts as a NIC if its other end is in another namespace, or if it is a device of its own;
//! what a guest makes for itself inside (loopback, dummies, tunnels, VLANs) does not.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;

use super::NetnsGuest;
use super::namespace::Namespace;
use crate::guest::identity::InterfaceAddress;
use crate::hypervisor::NicReport;
use crate::hypervisor::links::{self, Link, Links};

/// Packets to and from the guest, over all its NICs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Packets {
    pub(super) to_guest: u64,
    pub(super) from_guest: u64,
}

/// The NICs of `guest`, with why some of them cannot be stood in for.
///
/// # Errors
/// What entering the namespace or reading the kernel's tables says.
pub(super) fn reports(guest: &NetnsGuest, namespace: &Namespace) -> io::Result<Vec<NicReport>> {
    let our_namespace = File::open("/proc/thread-self/ns/net")?;
    let inside = namespace.inside(|| {
        let links = Links::here()?;
        Ok(Inside {
            links,
            addresses: links::addresses_here()?,
            groups: groups_here()?,
            our_number: links::number_of(our_namespace.as_fd())?,
        })
    })?;
    let outside = Links::here()?;

    let mut reports: Vec<_> = inside
        .links
        .0
        .iter()
        .filter(|link| is_nic(link))
        .map(|link| report(link, &inside, &outside))
        .collect();
    let has_port = |port| reports.iter().any(|nic| nic.port.as_ref() == Some(port));
    let has_mac = |mac| reports.iter().any(|nic| nic.mac == Some(mac));
    let why = match guest {
        NetnsGuest { port: Some(port), .. } if !has_port(port) => {
            format!("port {port} is not the other end of a veth of namespace {}", guest.netns)
        }
        NetnsGuest { mac: Some(mac), .. } if !has_mac(*mac) => {
            format!("no NIC of namespace {} has the MAC address {mac}", guest.netns)
        }
        _ => return Ok(reports),
    };
    reports.push(NicReport {
        mac: guest.mac,
        bridge: None,
        port: guest.port.clone(),
        addresses: Vec::new(),
        groups: Vec::new(),
        refused: Some(why),
    });
    Ok(reports)
}

/// What went through all NICs, as the guest counts it.
///
/// Read at the guest's ends of its veths: they count the same packets as the ports on the bridge, and
/// there "received" already means "to the guest".
///
/// # Errors
/// As [`reports`].
pub(super) fn packets(namespace: &Namespace) -> io::Result<Packets> {
    let links = namespace.inside(Links::here)?;
    Ok(links.0.iter().filter(|link| is_nic(link)).fold(Packets::default(), |sum, link| Packets {
        to_guest: sum.to_guest.saturating_add(link.rx_packets),
        from_guest: sum.from_guest.saturating_add(link.tx_packets),
    }))
}

/// What is read inside the namespace.
struct Inside {
    links: Links,
    addresses: Vec<(u32, InterfaceAddress)>,
    groups: Vec<(u32, IpAddr)>,
    /// The number under which the guest's namespace knows ours.
    our_number: Option<i32>,
}

fn is_nic(link: &Link) -> bool {
    !link.loopback && (link.peer_namespace.is_some() || link.kind.is_none())
}

fn report(link: &Link, inside: &Inside, outside: &Links) -> NicReport {
    let mut nic = NicReport {
        mac: link.mac,
        bridge: None,
        port: None,
        addresses: of_link(&inside.addresses, link.index),
        groups: of_link(&inside.groups, link.index),
        refused: None,
    };
    if link.kind.as_deref() != Some("veth") {
        nic.refused =
            Some(format!("{} is a {}, not a veth", link.name, link.kind.as_deref().unwrap_or("device")));
        return nic;
    }
    let here = link.peer_namespace == inside.our_number;
    match link.peer.filter(|_| here).and_then(|index| outside.by_index(index)) {
        None => nic.refused = Some(format!("the other end of {} is in another namespace", link.name)),
        Some(port) => {
            nic.port = Some(port.name.clone());
            match outside.bridge_of(port) {
                Ok(bridge) => nic.bridge = Some(bridge.to_owned()),
                Err(why) => nic.refused = Some(why),
            }
        }
    }
    nic
}

fn of_link<T: Clone>(all: &[(u32, T)], index: u32) -> Vec<T> {
    all.iter().filter(|(of, _)| *of == index).map(|(_, value)| value.clone()).collect()
}

/// The multicast groups joined in the calling thread's namespace, each with its link's index. Left out
/// are those that say nothing: all hosts, which everyone is in, and solicited-node groups, which follow
/// from the addresses.
fn groups_here() -> io::Result<Vec<(u32, IpAddr)>> {
    let v4 = fs::read_to_string("/proc/thread-self/net/igmp")?;
    let v6 = match fs::read_to_string("/proc/thread-self/net/igmp6") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(), // a kernel without IPv6
        result => result?,
    };
    let groups = parse_igmp(&v4).into_iter().map(|(index, group)| (index, IpAddr::V4(group)));
    let groups = groups.chain(parse_igmp6(&v6).into_iter().map(|(index, group)| (index, IpAddr::V6(group))));
    Ok(groups.filter(|(_, group)| tells_something(*group)).collect::<BTreeSet<_>>().into_iter().collect())
}

fn tells_something(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group != Ipv4Addr::new(224, 0, 0, 1),
        IpAddr::V6(group) => {
            let [scope, .., last] = group.segments();
            let solicited_node = group.octets().starts_with(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]);
            let all_nodes = scope == 0xff02 && u128::from(group) & (u128::MAX >> 16) == 1 && last == 1;
            let interface_local = scope & 0xf == 1;
            !solicited_node && !all_nodes && !interface_local
        }
    }
}

/// `/proc/net/igmp`: a line that begins with the interface's index, then one indented line for each of
/// its groups, whose address is printed as the number that its bytes make in memory.
fn parse_igmp(text: &str) -> Vec<(u32, Ipv4Addr)> {
    let mut index = None;
    let mut groups = Vec::new();
    for line in text.lines() {
        let first = line.split_ascii_whitespace().next();
        if !line.starts_with(char::is_whitespace) {
            index = first.and_then(|word| word.parse().ok());
        } else if let (Some(index), Some(word)) = (index, first)
            && let Ok(number) = u32::from_str_radix(word, 16)
        {
            groups.push((index, Ipv4Addr::from(number.to_ne_bytes())));
        }
    }
    groups
}

/// `/proc/net/igmp6`: index, interface, address as 32 hexadecimal digits, users, flags, timer.
fn parse_igmp6(text: &str) -> Vec<(u32, Ipv6Addr)> {
    let group = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let index = words.next()?.parse().ok()?;
        let address = u128::from_str_radix(words.nth(1)?, 16).ok()?;
        Some((index, Ipv6Addr::from(address)))
    };
    text.lines().filter_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_from_the_kernels_tables() {
        let igmp = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
            1\tlo        :     1      V3\n\
            \t\t\t\t010000E0     1 0:00000000\t\t0\n\
            7\teth0      :     2      V3\n\
            \t\t\t\tFB0000E0     1 0:00000000\t\t0\n\
            \t\t\t\t010000E0     1 0:00000000\t\t0\n";
        let all_hosts = Ipv4Addr::new(224, 0, 0, 1);
        if cfg!(target_endian = "little") {
            let expected = [(1, all_hosts), (7, Ipv4Addr::new(224, 0, 0, 251)), (7, all_hosts)];
            assert_eq!(parse_igmp(igmp), expected);
        }
        let igmp6 = "1    lo              ff020000000000000000000000000001     1 0000000C 0\n\
            7    eth0            ff0200000000000000000001ff000011     1 00000004 0\n\
            7    eth0            ff0200000000000000000000000000fb     1 00000004 0\n";
        let groups: Vec<_> =
            parse_igmp6(igmp6).into_iter().filter(|(_, g)| tells_something((*g).into())).collect();
        assert_eq!(groups, [(7, "ff02::fb".parse().unwrap())]);
    }

    #[test]
    fn groups_that_every_host_is_in_say_nothing() {
        for group in ["224.0.0.1", "ff02::1", "ff01::1", "ff01::fb", "ff02::1:ff00:11"] {
            assert!(!tells_something(group.parse().unwrap()), "{group}");
        }
        for group in ["224.0.0.251", "239.1.2.3", "ff02::2", "ff02::1:3", "ff05::1", "ff02::1:fe00:11"] {
            assert!(tells_something(group.parse().unwrap()), "{group}");
        }
    }
}
