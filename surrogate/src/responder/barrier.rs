//! The barrier: a question to a guest that still runs, whose answer shows that all frames queued at its
//! port before the question have reached it.
//!
//! It comes from a service MAC that no guest has, unicast to the guest: an ARP request in the form of a
//! probe (sender address 0.0.0.0, RFC 5227 2.1.1), which claims no address and fills no cache; for a
//! NIC without IPv4 address a neighbour solicitation from the service MAC's link-local address, marked
//! with a nonce, so that it is known as ours wherever it turns up.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use surrogate_wire::emit::Ethernet;
use surrogate_wire::icmpv6::{NEIGHBOUR_SOLICITATION, OPTION_NONCE, OPTION_SOURCE_LINK_LAYER};
use surrogate_wire::{Arp, Frame, FrameBuf, Icmpv6Body, Mac, Packet, Tags, Transport, arp};

use super::{arp as arp_responder, ndisc};
use crate::guest::identity::NicIdentity;

/// The nonce of our own solicitations (RFC 7527).
pub const NONCE: [u8; 6] = *b"surgat";

/// Writes the question; `None` if the NIC has no address to ask for.
pub fn question(identity: &NicIdentity, service: Mac, out: &mut FrameBuf<'_>) -> Option<()> {
    let to = Ethernet { dst: identity.mac, src: service, tags: Tags::for_vid(identity.vlan) };
    let held = || identity.addresses.iter().map(|held| held.address);
    let v4 = held().find_map(|address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    if let Some(tpa) = v4 {
        let probe = Arp { op: arp::REQUEST, sha: service, spa: Ipv4Addr::UNSPECIFIED, tha: Mac::ZERO, tpa };
        return arp_responder::send(&to, &probe, out);
    }
    let target = held().find_map(|address| match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(address),
    })?;
    let [n0, n1, n2, n3, n4, n5] = NONCE;
    let [o0, o1, o2, o3, o4, o5, o6, o7] = ndisc::link_layer_option(OPTION_SOURCE_LINK_LAYER, service);
    let options = [o0, o1, o2, o3, o4, o5, o6, o7, OPTION_NONCE, 1, n0, n1, n2, n3, n4, n5];
    let src = link_local(service);
    ndisc::send_message(&to, src, target, [NEIGHBOUR_SOLICITATION, 0], target, &options, out)
}

/// Whether `packet` is the guest's answer to [`question`].
#[must_use]
pub fn is_answer(identity: &NicIdentity, service: Mac, frame: &Frame<'_>, packet: &Packet<'_>) -> bool {
    if frame.dst != service || frame.src != identity.mac {
        return false;
    }
    match packet {
        Packet::Arp(reply) => {
            reply.op == arp::REPLY && reply.sha == identity.mac && identity.holds(IpAddr::V4(reply.spa))
        }
        Packet::Ipv6(_, Transport::Icmpv6(icmp)) => match icmp.body {
            Icmpv6Body::Advertisement(answer) => {
                answer.solicited && identity.holds(IpAddr::V6(answer.target))
            }
            _ => false,
        },
        _ => false,
    }
}

/// The link-local address that goes with `mac` (RFC 4291 appendix A).
fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;
    use surrogate_wire::icmpv6::Advertisement;

    use crate::guest::identity::InterfaceAddress;
    use crate::responder::testing::{GUEST, GUEST_V4, GUEST_V6, PEER, build, guest, read};
    use crate::responder::{ndisc, reply_for};

    const SERVICE: Mac = Mac([0xfe, 0, 0, 0, 0, 0xaa]);

    fn v6_only() -> NicIdentity {
        let address = InterfaceAddress { address: GUEST_V6.into(), prefix_len: 64 };
        NicIdentity { addresses: vec![address], ..guest() }
    }

    fn asked(identity: &NicIdentity) -> Vec<u8> {
        build(|out| question(identity, SERVICE, out).unwrap())
    }

    fn answers(identity: &NicIdentity, bytes: &[u8]) -> bool {
        let (frame, packet) = read(bytes);
        is_answer(identity, SERVICE, &frame, &packet)
    }

    #[test]
    fn the_question_is_a_probe_to_the_guest_alone() {
        let bytes = asked(&NicIdentity { vlan: Some(10), ..guest() });
        let (frame, packet) = read(&bytes);
        assert_eq!((frame.dst, frame.src, frame.tags.vid()), (GUEST, SERVICE, Some(10)));
        let expected =
            Arp { op: arp::REQUEST, sha: SERVICE, spa: Ipv4Addr::UNSPECIFIED, tha: Mac::ZERO, tpa: GUEST_V4 };
        assert_eq!(packet, Packet::Arp(expected));
    }

    #[test]
    fn what_a_guest_answers_to_the_probe_is_known_as_the_answer() {
        // The guest's own stack answers a probe as we would (RFC 5227 2.1.1).
        let bytes = asked(&guest());
        let (frame, packet) = read(&bytes);
        let reply = build(|out| _ = reply_for(&guest(), &frame, &packet, out).unwrap());
        assert!(answers(&guest(), &reply));
        assert!(!answers(&guest(), &bytes), "the question is no answer");
    }

    #[test]
    fn a_nic_without_ipv4_is_solicited_from_a_link_local_address() {
        let bytes = asked(&v6_only());
        let (frame, packet) = read(&bytes);
        assert_eq!((frame.dst, frame.src), (GUEST, SERVICE));
        let Packet::Ipv6(ip, Transport::Icmpv6(icmp)) = packet else { panic!("{packet:?}") };
        assert_eq!(ip.src, "fe80::fc00:ff:fe00:aa".parse::<Ipv6Addr>().unwrap());
        assert_eq!(ip.dst, GUEST_V6);
        let Icmpv6Body::Solicitation(solicitation) = icmp.body else { panic!("{icmp:?}") };
        assert_eq!((solicitation.target, solicitation.source_link_layer), (GUEST_V6, Some(SERVICE)));
        assert_eq!(solicitation.nonce, Some(NONCE));
        assert_eq!(ndisc::reply_for(&v6_only(), &frame, &packet, &mut FrameBuf::new(&mut [0; 128])), None);
    }

    #[test]
    fn a_solicited_advertisement_of_the_guest_is_the_answer() {
        let advertised = |src: Mac, solicited: bool| {
            let to = Ethernet { dst: SERVICE, src, tags: Tags::NONE };
            let advertisement = Advertisement {
                target: GUEST_V6,
                router: false,
                solicited,
                overriding: true,
                target_link_layer: Some(src),
            };
            build(|out| ndisc::send(&to, link_local(SERVICE), &advertisement, out).unwrap())
        };
        assert!(answers(&v6_only(), &advertised(GUEST, true)));
        assert!(!answers(&v6_only(), &advertised(GUEST, false)), "unsolicited");
        assert!(!answers(&v6_only(), &advertised(PEER, true)), "another station");
    }

    #[test]
    fn a_nic_without_addresses_cannot_be_asked() {
        let none = NicIdentity { addresses: Vec::new(), ..guest() };
        let mut memory = [0; 128];
        assert_eq!(question(&none, SERVICE, &mut FrameBuf::new(&mut memory)), None);
    }
}
