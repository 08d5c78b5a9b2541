//! Whether a frame is damaged, by a parser that is not ours and the rules of the RFCs.

use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetProtocol, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv4Packet,
    Ipv6Packet, NdiscRepr, UdpPacket,
};
use surrogate_wire::Offload;

use crate::said::split;

/// What is wrong with a frame that claims to be ARP, ICMP, neighbour discovery or UDP; `None` if it
/// is well-formed as far as this parser knows.
pub fn of(bytes: &[u8], offload: Offload) -> Option<&'static str> {
    let Some((envelope, kind, payload)) = split(bytes) else { return Some("shorter than its header") };
    if !envelope.src.is_unicast() {
        return Some("its source MAC is no station's");
    }
    match kind {
        EthernetProtocol::Arp => {
            let Ok(packet) = ArpPacket::new_checked(payload) else { return Some("ARP shorter than it says") };
            ArpRepr::parse(&packet).err().map(|_| "no ARP for Ethernet and IPv4")
        }
        EthernetProtocol::Ipv4 => ipv4(payload, offload),
        EthernetProtocol::Ipv6 => ipv6(payload, offload),
        _ => None,
    }
}

fn ipv4(payload: &[u8], offload: Offload) -> Option<&'static str> {
    let Ok(ip) = Ipv4Packet::new_checked(payload) else { return Some("IPv4 shorter than it says") };
    if ip.version() != 4 || ip.header_len() < 20 {
        return Some("no IPv4 header");
    }
    if !ip.verify_checksum() {
        return Some("wrong IPv4 header checksum");
    }
    if ip.more_frags() || ip.frag_offset() != 0 || offload != Offload::None {
        return None;
    }
    match ip.next_header() {
        IpProtocol::Icmp => match Icmpv4Packet::new_checked(ip.payload()) {
            Ok(icmp) if icmp.verify_checksum() => None,
            _ => Some("wrong or short ICMP"),
        },
        IpProtocol::Udp => match UdpPacket::new_checked(ip.payload()) {
            Ok(udp) if udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()) => None,
            _ => Some("wrong or short UDP"),
        },
        _ => None,
    }
}

fn ipv6(payload: &[u8], offload: Offload) -> Option<&'static str> {
    let Ok(ip) = Ipv6Packet::new_checked(payload) else { return Some("IPv6 shorter than it says") };
    if ip.version() != 6 {
        return Some("no IPv6 header");
    }
    if ip.next_header() != IpProtocol::Icmpv6 {
        return None;
    }
    let Ok(icmp) = Icmpv6Packet::new_checked(ip.payload()) else { return Some("short ICMPv6") };
    if offload == Offload::None && !icmp.verify_checksum(&ip.src_addr(), &ip.dst_addr()) {
        return Some("wrong ICMPv6 checksum");
    }
    if !matches!(icmp.msg_type(), Icmpv6Message::NeighborSolicit | Icmpv6Message::NeighborAdvert) {
        return None;
    }
    if ip.hop_limit() != 255 {
        return Some("neighbour discovery from off the link");
    }
    if icmp.msg_code() != 0 {
        return Some("neighbour discovery with a code");
    }
    if !options_are_whole(ip.payload().get(24..)?) {
        return Some("neighbour discovery with a broken option");
    }
    NdiscRepr::parse(&icmp).err().map(|_| "no neighbour discovery message")
}

/// Every option longer than zero and inside the packet (RFC 4861 7.1.1).
fn options_are_whole(mut options: &[u8]) -> bool {
    while !options.is_empty() {
        let Some(length) = options.get(1).map(|&units| usize::from(units) * 8) else { return false };
        if length == 0 || length > options.len() {
            return false;
        }
        options = &options[length..];
    }
    true
}
