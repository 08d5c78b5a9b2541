//! What a sleeper's addresses are announced and defended with (RFC 5227 2.3 and 2.4, RFC 4861 7.2.6).
//!
//! Both forms come from the guest's own MAC, so that switch tables learn where it is, and claim nothing
//! that neighbours do not know already. How often they may be sent is the engine's to decide.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use surrogate_wire::emit::Ethernet;
use surrogate_wire::icmpv6::{ALL_NODES, Advertisement};
use surrogate_wire::{Arp, FrameBuf, Mac, Tags, arp, ethertype};

use super::{arp as arp_responder, ndisc};
use crate::guest::identity::NicIdentity;

/// The announcement of `address`, in the guest's own VLAN; `None` if it is not the guest's.
pub fn announce(identity: &NicIdentity, address: IpAddr, out: &mut FrameBuf<'_>) -> Option<()> {
    if !identity.holds(address) {
        return None;
    }
    match address {
        IpAddr::V4(address) => gratuitous_arp(identity, address, out),
        IpAddr::V6(address) => unsolicited_advertisement(identity, address, out),
    }
}

/// What QEMU sends after a migration: a reverse request for the guest's own MAC (RFC 903), with no IP address in
/// it, so that it fits a NIC that has none.
pub fn announce_mac(identity: &NicIdentity, out: &mut FrameBuf<'_>) -> Option<()> {
    let to = Ethernet { dst: Mac::BROADCAST, src: identity.mac, tags: Tags::for_vid(identity.vlan) };
    let none = Ipv4Addr::UNSPECIFIED;
    let request =
        Arp { op: arp::REVERSE_REQUEST, sha: identity.mac, spa: none, tha: identity.mac, tpa: none };
    out.ethernet(&to, ethertype::RARP);
    out.push(&request.emit());
    out.finish().map(|_| ())
}

/// An ARP announcement: the request form, sender and target both `address`, target MAC zero, broadcast.
fn gratuitous_arp(identity: &NicIdentity, address: Ipv4Addr, out: &mut FrameBuf<'_>) -> Option<()> {
    let to = Ethernet { dst: Mac::BROADCAST, src: identity.mac, tags: Tags::for_vid(identity.vlan) };
    let announcement =
        Arp { op: arp::REQUEST, sha: identity.mac, spa: address, tha: Mac::ZERO, tpa: address };
    arp_responder::send(&to, &announcement, out)
}

/// An unsolicited advertisement to all nodes: Solicited 0, Override 1.
fn unsolicited_advertisement(
    identity: &NicIdentity,
    address: Ipv6Addr,
    out: &mut FrameBuf<'_>,
) -> Option<()> {
    let to = Ethernet {
        dst: ndisc::multicast_mac(ALL_NODES),
        src: identity.mac,
        tags: Tags::for_vid(identity.vlan),
    };
    let advertisement = Advertisement {
        target: address,
        router: identity.router,
        solicited: false,
        overriding: true,
        target_link_layer: Some(identity.mac),
    };
    ndisc::send(&to, ALL_NODES, &advertisement, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use surrogate_wire::{Icmpv6Body, Packet, Transport};

    use crate::responder::testing::{GUEST, GUEST_V4, GUEST_V6, PEER_V4, build, guest, read};

    #[test]
    fn an_ipv4_address_is_announced_by_a_broadcast_request_for_itself() {
        let frame = build(|out| announce(&guest(), GUEST_V4.into(), out).unwrap());
        let (ethernet, packet) = read(&frame);
        assert_eq!((ethernet.dst, ethernet.src, frame.len()), (Mac::BROADCAST, GUEST, 60));
        let expected = Arp { op: arp::REQUEST, sha: GUEST, spa: GUEST_V4, tha: Mac::ZERO, tpa: GUEST_V4 };
        assert_eq!(packet, Packet::Arp(expected));
    }

    #[test]
    fn an_ipv6_address_is_advertised_to_all_nodes_unsolicited() {
        let router = NicIdentity { router: true, vlan: Some(10), ..guest() };
        let frame = build(|out| announce(&router, GUEST_V6.into(), out).unwrap());
        let (ethernet, packet) = read(&frame);
        assert_eq!((ethernet.dst, ethernet.src), (Mac([0x33, 0x33, 0, 0, 0, 1]), GUEST));
        assert_eq!(ethernet.tags, Tags::for_vid(Some(10)));
        let Packet::Ipv6(ip, Transport::Icmpv6(icmp)) = packet else { panic!("{packet:?}") };
        assert_eq!((ip.src, ip.dst, ip.hop_limit), (GUEST_V6, ALL_NODES, 255));
        let expected = Advertisement {
            target: GUEST_V6,
            router: true,
            solicited: false,
            overriding: true,
            target_link_layer: Some(GUEST),
        };
        assert_eq!(icmp.body, Icmpv6Body::Advertisement(expected));
    }

    #[test]
    fn an_address_of_another_is_not_announced() {
        let mut memory = [0; 128];
        assert_eq!(announce(&guest(), PEER_V4.into(), &mut FrameBuf::new(&mut memory)), None);
    }
}
