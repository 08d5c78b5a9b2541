//! ARP in a sleeper's name (RFC 826, RFC 1122 2.3.2, RFC 5227).
//!
//! Answers requests, probes and unicast polls for the guest's addresses; sees when another station
//! claims one of them. Whether and when a conflict is defended is the engine's to decide (RFC 5227
//! 2.4 allows once in `DEFEND_INTERVAL`); what the defence says is in [`announce`](super::announce).

use core::net::{IpAddr, Ipv4Addr};

use surrogate_wire::emit::Ethernet;
use surrogate_wire::{Arp, Frame, FrameBuf, Mac, Packet, arp, ethertype};

use crate::engine::Answered;
use crate::guest::identity::NicIdentity;

/// The reply to a request for one of the guest's addresses, unicast to the sender hardware address.
///
/// A probe gets the same, which is what makes the newcomer give up (RFC 5227 2.1.1).
pub fn reply_for(
    identity: &NicIdentity,
    frame: &Frame<'_>,
    packet: &Packet<'_>,
    out: &mut FrameBuf<'_>,
) -> Option<Answered> {
    let Packet::Arp(request) = packet else { return None };
    let for_us = frame.dst == Mac::BROADCAST || frame.dst == identity.mac;
    let from_another =
        request.is_from_a_station() && request.sha != identity.mac && frame.src != identity.mac;
    if request.op != arp::REQUEST || !for_us || !from_another {
        return None;
    }
    // Whoever claims an address of the guest is in conflict with it, whatever else it asks.
    if !identity.holds(IpAddr::V4(request.tpa)) || conflict(identity, packet).is_some() {
        return None;
    }
    let reply =
        Arp { op: arp::REPLY, sha: identity.mac, spa: request.tpa, tha: request.sha, tpa: request.spa };
    let to = Ethernet { dst: request.sha, src: identity.mac, tags: frame.tags };
    send(&to, &reply, out).map(|()| Answered::Arp)
}

/// The address of the guest that another station claims, and who: any ARP packet, request or reply,
/// "where the sender IP address is (one of) the host's own IP address(es) [...], but the sender hardware
/// address does not match" (RFC 5227 2.4).
#[must_use]
pub fn conflict(identity: &NicIdentity, packet: &Packet<'_>) -> Option<(Ipv4Addr, Mac)> {
    let Packet::Arp(arp) = packet else { return None };
    let another = arp.sha.is_unicast() && arp.sha != identity.mac;
    (another && identity.holds(IpAddr::V4(arp.spa))).then_some((arp.spa, arp.sha))
}

/// Writes a whole ARP frame.
pub(super) fn send(to: &Ethernet, arp: &Arp, out: &mut FrameBuf<'_>) -> Option<()> {
    out.ethernet(to, ethertype::ARP);
    out.push(&arp.emit());
    out.finish().map(|_| ())
}

#[cfg(test)]
mod tests {
    use surrogate_wire::Tags;

    use super::*;
    use crate::responder::testing::{
        GUEST, GUEST_V4, PEER, PEER_V4, TO_GUEST, answer, arp_frame, arp_request, guest, read, tagged,
    };

    const TO_ALL: Ethernet = Ethernet { dst: Mac::BROADCAST, ..TO_GUEST };

    fn reply_to(to: &Ethernet, request: &Arp) -> Option<(Ethernet, Arp)> {
        let (answered, reply) = answer(reply_for, &guest(), &arp_frame(to, request))?;
        assert_eq!(answered, Answered::Arp);
        match read(&reply) {
            (frame, Packet::Arp(arp)) => {
                Some((Ethernet { dst: frame.dst, src: frame.src, tags: frame.tags }, arp))
            }
            other => panic!("no ARP: {other:?}"),
        }
    }

    fn conflict_in(arp: &Arp) -> Option<(Ipv4Addr, Mac)> {
        conflict(&guest(), &Packet::Arp(*arp))
    }

    #[test]
    fn a_broadcast_request_is_answered_to_the_asker_alone() {
        let expected = Arp { op: arp::REPLY, sha: GUEST, spa: GUEST_V4, tha: PEER, tpa: PEER_V4 };
        let to = Ethernet { dst: PEER, src: GUEST, tags: Tags::NONE };
        assert_eq!(reply_to(&TO_ALL, &arp_request()), Some((to, expected)));
    }

    #[test]
    fn a_unicast_poll_is_answered_likewise() {
        assert_eq!(reply_to(&TO_GUEST, &arp_request()), reply_to(&TO_ALL, &arp_request()));
    }

    #[test]
    fn a_probe_gets_a_reply_with_the_unspecified_target() {
        let probe = Arp { spa: Ipv4Addr::UNSPECIFIED, ..arp_request() };
        let (_, reply) = reply_to(&TO_ALL, &probe).unwrap();
        assert_eq!((reply.tha, reply.tpa, reply.spa), (PEER, Ipv4Addr::UNSPECIFIED, GUEST_V4));
    }

    #[test]
    fn a_sender_address_off_the_link_is_answered_too() {
        let request = Arp { spa: Ipv4Addr::new(198, 51, 100, 1), ..arp_request() };
        assert_eq!(reply_to(&TO_ALL, &request).unwrap().1.tpa, request.spa);
    }

    #[test]
    fn tags_and_priority_are_mirrored() {
        let (to, _) = reply_to(&tagged(TO_ALL), &arp_request()).unwrap();
        assert_eq!(to.tags, tagged(TO_ALL).tags);
    }

    #[test]
    fn silent_where_a_real_host_would_be() {
        let ask = arp_request();
        for (why, to, arp) in [
            ("another's address", TO_ALL, Arp { tpa: Ipv4Addr::new(192, 0, 2, 12), ..ask }),
            ("a reply", TO_GUEST, Arp { op: arp::REPLY, ..ask }),
            ("an inverse request", TO_GUEST, Arp { op: 8, ..ask }),
            ("a reverse request", TO_ALL, Arp { op: 3, ..ask }),
            ("an announcement of another", TO_ALL, Arp { tpa: PEER_V4, ..ask }),
            ("to another station", Ethernet { dst: PEER, ..TO_GUEST }, ask),
            ("to a group", Ethernet { dst: Mac([1, 0, 0x5e, 0, 0, 1]), ..TO_GUEST }, ask),
            ("sender hardware address of a group", TO_ALL, Arp { sha: Mac::BROADCAST, ..ask }),
            ("sender hardware address zero", TO_ALL, Arp { sha: Mac::ZERO, ..ask }),
            ("the guest itself", Ethernet { src: GUEST, ..TO_ALL }, Arp { sha: GUEST, ..ask }),
        ] {
            assert_eq!(reply_to(&to, &arp), None, "{why}");
        }
    }

    #[test]
    fn any_packet_that_claims_our_address_is_a_conflict_and_no_question() {
        let claim = Arp { spa: GUEST_V4, ..arp_request() };
        for arp in [claim, Arp { op: arp::REPLY, ..claim }, Arp { tpa: PEER_V4, ..claim }] {
            assert_eq!(conflict_in(&arp), Some((GUEST_V4, PEER)), "{arp:?}");
            assert_eq!(reply_to(&TO_ALL, &arp), None, "{arp:?}");
        }
    }

    #[test]
    fn no_conflict_with_ourselves_a_probe_or_a_station_that_cannot_be() {
        let claim = Arp { spa: GUEST_V4, ..arp_request() };
        assert_eq!(conflict_in(&Arp { sha: GUEST, ..claim }), None);
        assert_eq!(conflict_in(&Arp { sha: Mac::ZERO, ..claim }), None);
        assert_eq!(conflict_in(&Arp { spa: Ipv4Addr::UNSPECIFIED, ..claim }), None);
        assert_eq!(conflict_in(&arp_request()), None);
    }
}
