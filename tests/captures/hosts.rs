//! Who could sleep: the hosts of a capture, with their MAC, VLAN and addresses.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use smoltcp::wire::{ArpPacket, EthernetProtocol, Ipv4Packet, Ipv6Packet};
use surrogate::io::capture::Captured;
use surrogate::policy::traffic::Listen;
use surrogate_wire::Mac;

use crate::mac_at;
use crate::said::{About, Port, What, said, served, split};

/// A host of a capture.
#[derive(Clone, Debug, Default)]
pub struct Host {
    pub mac: Mac,
    pub vlan: Option<u16>,
    pub addresses: BTreeSet<IpAddr>,
    pub router: bool,
    /// The ports it serves, for one that was seen to refuse what came to another.
    pub listen: Option<Listen>,
}

impl Host {
    /// Whether it sent this frame.
    pub fn sent(&self, bytes: &[u8]) -> bool {
        mac_at(bytes, 6) == Some(self.mac)
    }
}

/// Those that answered ARP, neighbour solicitations or echo, or refused a SYN or a datagram, with the
/// addresses they did it for. For a router that is every host behind it that answered: on this link it has
/// their addresses.
pub fn answering(frames: &[Captured]) -> Vec<Host> {
    let mut hosts: BTreeMap<Mac, Host> = BTreeMap::new();
    let mut ports: BTreeMap<Mac, Ports> = BTreeMap::new();
    for frame in frames {
        if let (Some(mac), Some(port)) = (mac_at(&frame.bytes, 6), served(&frame.bytes)) {
            ports.entry(mac).or_default().served.insert(port);
        }
        let Some(answer) = said(&frame.bytes) else { continue };
        let mac = answer.envelope.src;
        let address = match (&answer.about, &answer.what) {
            // An answer for somebody else (a proxy), or damaged.
            (_, What::Arp { sha, .. }) if *sha != mac => continue,
            (About::Arp { address, .. }, _) => *address,
            (About::Neighbour { target, .. }, _) => *target,
            (About::Echo { host, .. }, _) => *host,
            (About::Syn { host, .. } | About::Datagram { host, .. }, _) => host.0,
        };
        if !mac.is_unicast() || address.is_multicast() || address.is_unspecified() {
            continue;
        }
        let host = hosts.entry(mac).or_default();
        host.mac = mac;
        host.vlan = vlan(&answer.envelope.tags);
        host.router |= matches!(answer.what, What::Advertisement { router: true, .. });
        host.addresses.insert(address);
        let ports = ports.entry(mac).or_default();
        match (&answer.about, &answer.what) {
            (About::Syn { host, .. }, _) => _ = ports.refused.insert(Port::Tcp(host.1)),
            (About::Datagram { host, .. }, What::PortUnreachable { .. }) => {
                ports.refused.insert(Port::Udp(host.1));
            }
            (About::Datagram { .. }, _) => ports.echoes = true,
            _ => {}
        }
    }
    for (mac, host) in &mut hosts {
        host.listen = ports.get(mac).and_then(Ports::listen);
    }
    hosts.into_values().collect()
}

/// What was seen of a host's ports.
#[derive(Default)]
struct Ports {
    served: BTreeSet<Port>,
    refused: BTreeSet<Port>,
    /// It runs UDP echo.
    echoes: bool,
}

impl Ports {
    /// To be declared of a host of which nothing could be compared otherwise.
    fn listen(&self) -> Option<Listen> {
        let mut listen = Listen::default();
        for port in self.served.difference(&self.refused) {
            match port {
                Port::Tcp(port) => listen.tcp.push(*port),
                Port::Udp(port) => listen.udp.push(*port),
            }
        }
        (self.echoes || !self.refused.is_empty()).then_some(listen)
    }
}

/// The `most` stations that were sent most, with the addresses they had most. A router has those of the
/// hosts behind it.
pub fn busiest(frames: &[Captured], most: usize) -> Vec<Host> {
    let mut stations: BTreeMap<Mac, Station> = BTreeMap::new();
    for frame in frames {
        let Some((envelope, kind, payload)) = split(&frame.bytes) else { continue };
        let (from, to) = match kind {
            EthernetProtocol::Arp => (ArpPacket::new_checked(payload).ok().and_then(sender), None),
            EthernetProtocol::Ipv4 => Ipv4Packet::new_checked(payload)
                .map_or((None, None), |ip| (Some(ip.src_addr().into()), Some(ip.dst_addr().into()))),
            EthernetProtocol::Ipv6 => Ipv6Packet::new_checked(payload)
                .map_or((None, None), |ip| (Some(ip.src_addr().into()), Some(ip.dst_addr().into()))),
            _ => (None, None),
        };
        for (mac, address, sent) in [(envelope.src, from, 0), (envelope.dst, to, 1)] {
            if !mac.is_unicast() {
                continue;
            }
            let station = stations.entry(mac).or_default();
            station.frames += sent;
            station.vlan = vlan(&envelope.tags);
            if let Some(address) = address.filter(|address| is_host(*address)) {
                *station.addresses.entry(address).or_default() += 1;
            }
        }
    }
    let mut stations: Vec<(Mac, Station)> =
        stations.into_iter().filter(|(_, station)| !station.addresses.is_empty()).collect();
    stations.sort_by_key(|(mac, station)| (Reverse(station.frames), *mac));
    let host = |(mac, station): (Mac, Station)| {
        let mut addresses: Vec<(IpAddr, usize)> = station.addresses.into_iter().collect();
        addresses.sort_by_key(|&(address, count)| (Reverse(count), address));
        let addresses = addresses.into_iter().take(ADDRESSES).map(|(address, _)| address).collect();
        Host { mac, vlan: station.vlan, addresses, router: false, listen: None }
    };
    stations.into_iter().take(most).map(host).collect()
}

/// As many as one NIC may well have.
const ADDRESSES: usize = 32;

#[derive(Default)]
struct Station {
    frames: usize,
    vlan: Option<u16>,
    addresses: BTreeMap<IpAddr, usize>,
}

fn sender(packet: ArpPacket<&[u8]>) -> Option<IpAddr> {
    let address: [u8; 4] = packet.source_protocol_addr().try_into().ok()?;
    Some(address.into())
}

fn is_host(address: IpAddr) -> bool {
    !address.is_multicast() && !address.is_unspecified() && !address.is_loopback()
}

fn vlan(tags: &[u8]) -> Option<u16> {
    let tci = u16::from_be_bytes(tags.get(2..4)?.try_into().unwrap());
    Some(tci & 0x0fff).filter(|&vid| vid != 0)
}
