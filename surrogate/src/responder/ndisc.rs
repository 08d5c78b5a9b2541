//! Neighbour advertisements in a sleeper's name (RFC 4861 7.2, RFC 4862 5.4, RFC 7527).
//!
//! Answers solicitations for the guest's addresses, sent to the group or to the guest alone, also those
//! of duplicate address detection; sees when another station advertises one of them. The parser has
//! checked what RFC 4861 7.1 demands of a message.

use core::net::{IpAddr, Ipv6Addr};

use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::{Ethernet, Ipv6Header};
use surrogate_wire::icmpv6::{
    ALL_NODES, Advertisement, NEIGHBOUR_ADVERTISEMENT, OPTION_TARGET_LINK_LAYER, solicited_node,
};
use surrogate_wire::{Frame, FrameBuf, Icmpv6Body, Mac, Packet, Transport, protocol};

use super::barrier;
use super::envelope::reply_to;
use crate::engine::Answered;
use crate::guest::identity::NicIdentity;

/// The advertisement that the guest owes for a solicitation.
///
/// Unicast and solicited when the source is specified, else to all nodes (RFC 4861 7.2.4). The option
/// with the link-layer address is always there and always overrides: it is the guest's own.
pub fn reply_for(
    identity: &NicIdentity,
    frame: &Frame<'_>,
    packet: &Packet<'_>,
    out: &mut FrameBuf<'_>,
) -> Option<Answered> {
    let Packet::Ipv6(ip, Transport::Icmpv6(icmp)) = packet else { return None };
    let Icmpv6Body::Solicitation(solicitation) = icmp.body else { return None };
    let target = solicitation.target;
    if !identity.holds(IpAddr::V6(target)) || frame.src == identity.mac {
        return None;
    }
    // The group of the target, all nodes, or the guest by any of its addresses: RFC 4861 7.1.1 leaves that to the
    // asker; to another station's MAC it is not for us.
    let in_group = ip.dst == solicited_node(target) || ip.dst == ALL_NODES;
    let to_group = in_group && frame.dst == multicast_mac(ip.dst);
    let to_guest = frame.dst == identity.mac && (in_group || identity.holds(IpAddr::V6(ip.dst)));
    // "The same nonce: looped back" (RFC 7527 4.2); a source of ours: not a neighbour's question.
    let our_own = solicitation.nonce == Some(barrier::NONCE) || identity.holds(IpAddr::V6(ip.src));
    if !(to_group || to_guest) || our_own {
        return None;
    }
    let asker = (!ip.src.is_unspecified()).then_some(ip.src);
    let to = match asker {
        // Where the asker says that it is, which need not be where the frame came from (RFC 4861 7.2.3, 7.2.4).
        Some(_) => {
            let asker = solicitation.source_link_layer.filter(|mac| mac.is_unicast());
            Ethernet { dst: asker.unwrap_or(frame.src), ..reply_to(identity, frame) }
        }
        None => Ethernet { dst: multicast_mac(ALL_NODES), src: identity.mac, tags: frame.tags },
    };
    let advertisement = Advertisement {
        target,
        router: identity.router,
        solicited: asker.is_some(),
        overriding: true,
        target_link_layer: Some(identity.mac),
    };
    send(&to, asker.unwrap_or(ALL_NODES), &advertisement, out).map(|()| Answered::Ndisc)
}

/// The address of the guest that another station advertises as its own, and who.
#[must_use]
pub fn conflict(identity: &NicIdentity, frame: &Frame<'_>, packet: &Packet<'_>) -> Option<(Ipv6Addr, Mac)> {
    let Packet::Ipv6(_, Transport::Icmpv6(icmp)) = packet else { return None };
    let Icmpv6Body::Advertisement(advertisement) = icmp.body else { return None };
    let by = advertisement.target_link_layer.unwrap_or(frame.src);
    let another = by != identity.mac && by.is_unicast();
    (another && identity.holds(IpAddr::V6(advertisement.target))).then_some((advertisement.target, by))
}

/// Writes a whole frame with `advertisement`, from its target to `dst`.
pub(super) fn send(
    to: &Ethernet,
    dst: Ipv6Addr,
    advertisement: &Advertisement,
    out: &mut FrameBuf<'_>,
) -> Option<()> {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    let flags = flag(advertisement.router, 0x80)
        | flag(advertisement.solicited, 0x40)
        | flag(advertisement.overriding, 0x20);
    let option = advertisement.target_link_layer.map(|mac| link_layer_option(OPTION_TARGET_LINK_LAYER, mac));
    send_message(
        to,
        advertisement.target,
        dst,
        [NEIGHBOUR_ADVERTISEMENT, flags],
        advertisement.target,
        option.as_ref().map_or(&[], |option| option.as_slice()),
        out,
    )
}

/// Writes a whole frame with a neighbour message of `[kind, flags]` about `target`.
pub(super) fn send_message(
    to: &Ethernet,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    [kind, flags]: [u8; 2],
    target: Ipv6Addr,
    options: &[u8],
    out: &mut FrameBuf<'_>,
) -> Option<()> {
    let len = FIXED + options.len();
    let header = Ipv6Header { src, dst, traffic_class: 0, hop_limit: 255, protocol: protocol::ICMPV6 };
    let mut fixed = [0; FIXED];
    let [k, _, c0, c1, f, _, _, _, to_target @ ..] = &mut fixed;
    (*k, *f, *to_target) = (kind, flags, target.octets());
    let sum = Sum::pseudo_v6(src, dst, protocol::ICMPV6, len).add(&[kind, 0, 0, 0, flags, 0, 0, 0]);
    [*c0, *c1] = sum.add(&target.octets()).add(options).finish().to_be_bytes();
    out.ipv6(to, &header, len);
    out.push(&fixed);
    out.push(options);
    out.finish().map(|_| ())
}

/// A source or target link-layer address option.
pub(super) fn link_layer_option(kind: u8, mac: Mac) -> [u8; 8] {
    let [a, b, c, d, e, f] = mac.0;
    [kind, 1, a, b, c, d, e, f]
}

/// The Ethernet group of an IPv6 group (RFC 2464 7).
pub(super) fn multicast_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// Bytes of a neighbour message before its options.
const FIXED: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::identity::InterfaceAddress;
    use crate::responder::testing::{
        GUEST, GUEST_V6, PEER, PEER_V6, TO_GUEST, answer, guest, icmpv6_frame, read, solicitation,
        solicitation_from_peer, v6_header,
    };
    use surrogate_wire::Tags;
    use surrogate_wire::icmpv6::OPTION_NONCE;

    struct Reply {
        to: Ethernet,
        src: Ipv6Addr,
        dst: Ipv6Addr,
        hop_limit: u8,
        advertisement: Advertisement,
    }

    fn reply_to(identity: &NicIdentity, request: &[u8]) -> Option<Reply> {
        let (answered, bytes) = answer(reply_for, identity, request)?;
        assert_eq!(answered, Answered::Ndisc);
        let (frame, Packet::Ipv6(ip, Transport::Icmpv6(icmp))) = read(&bytes) else {
            panic!("no ICMPv6: {bytes:x?}")
        };
        let Icmpv6Body::Advertisement(advertisement) = icmp.body else { panic!("{icmp:?}") };
        let to = Ethernet { dst: frame.dst, src: frame.src, tags: frame.tags };
        Some(Reply { to, src: ip.src, dst: ip.dst, hop_limit: ip.hop_limit, advertisement })
    }

    fn advertisement(target: Ipv6Addr, option: Option<Mac>) -> Vec<u8> {
        let options = option.map_or(Vec::new(), |mac| link_layer_option(2, mac).to_vec());
        let header =
            Ipv6Header { src: target, dst: ALL_NODES, hop_limit: 255, ..v6_header(protocol::ICMPV6) };
        let to = Ethernet { dst: multicast_mac(ALL_NODES), ..TO_GUEST };
        let body = [&target.octets()[..], &options].concat();
        icmpv6_frame(&to, &header, [136, 0], [0x20, 0, 0, 0], &body)
    }

    fn conflict_in(bytes: &[u8]) -> Option<(Ipv6Addr, Mac)> {
        let (frame, packet) = read(bytes);
        conflict(&guest(), &frame, &packet)
    }

    #[test]
    fn a_solicitation_with_a_source_is_answered_to_it_alone() {
        let reply = reply_to(&guest(), &solicitation_from_peer()).unwrap();
        assert_eq!(reply.to, Ethernet { dst: PEER, src: GUEST, tags: Tags::NONE });
        assert_eq!((reply.src, reply.dst, reply.hop_limit), (GUEST_V6, PEER_V6, 255));
        let expected = Advertisement {
            target: GUEST_V6,
            router: false,
            solicited: true,
            overriding: true,
            target_link_layer: Some(GUEST),
        };
        assert_eq!(reply.advertisement, expected);
    }

    #[test]
    fn a_unicast_probe_gets_the_same_option_included() {
        let probe = solicitation(PEER_V6, GUEST_V6, GUEST_V6, &[]);
        let reply = reply_to(&guest(), &probe).unwrap();
        let to_group = reply_to(&guest(), &solicitation_from_peer()).unwrap();
        assert_eq!((reply.to, reply.dst), (to_group.to, to_group.dst));
        assert_eq!(reply.advertisement, to_group.advertisement);
    }

    #[test]
    fn a_unicast_probe_may_go_to_another_address_of_the_guest_than_it_asks_for() {
        let mut identity = guest();
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);
        identity.addresses.push(InterfaceAddress { address: link_local.into(), prefix_len: 64 });
        let probe = solicitation(PEER_V6, link_local, GUEST_V6, &[]);
        assert_eq!(
            reply_to(&identity, &probe).map(|reply| (reply.src, reply.dst)),
            Some((GUEST_V6, PEER_V6))
        );
        assert!(reply_to(&guest(), &probe).is_none(), "an address that it has not");
    }

    #[test]
    fn a_solicitation_to_all_nodes_is_answered_as_one_to_the_group() {
        let reply = reply_to(&guest(), &solicitation(PEER_V6, ALL_NODES, GUEST_V6, &[])).unwrap();
        let to_group = reply_to(&guest(), &solicitation_from_peer()).unwrap();
        assert_eq!((reply.to, reply.src, reply.dst), (to_group.to, to_group.src, to_group.dst));
        assert_eq!(reply.advertisement, to_group.advertisement);
    }

    #[test]
    fn the_answer_goes_to_the_mac_that_the_asker_names() {
        let named = Mac([2, 0, 0, 0, 0, 0x77]);
        for (option, to) in [(named, named), (Mac::BROADCAST, PEER), (Mac::ZERO, PEER)] {
            let option = link_layer_option(1, option);
            let asked = solicitation(PEER_V6, solicited_node(GUEST_V6), GUEST_V6, &option);
            assert_eq!(reply_to(&guest(), &asked).unwrap().to.dst, to);
        }
    }

    #[test]
    fn duplicate_address_detection_is_answered_to_all_nodes_unsolicited() {
        let dad = solicitation(Ipv6Addr::UNSPECIFIED, solicited_node(GUEST_V6), GUEST_V6, &[]);
        let reply = reply_to(&guest(), &dad).unwrap();
        assert_eq!(reply.to.dst, Mac([0x33, 0x33, 0, 0, 0, 1]));
        assert_eq!((reply.src, reply.dst), (GUEST_V6, ALL_NODES));
        assert!(!reply.advertisement.solicited && reply.advertisement.overriding);
        assert_eq!(reply.advertisement.target_link_layer, Some(GUEST));
    }

    #[test]
    fn the_router_flag_is_as_the_guest_had_it() {
        let router = NicIdentity { router: true, ..guest() };
        assert!(reply_to(&router, &solicitation_from_peer()).unwrap().advertisement.router);
    }

    #[test]
    fn silent_where_a_real_host_would_be() {
        let group = solicited_node(GUEST_V6);
        let elsewhere = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 1, 0, 0x11);
        assert_eq!(solicited_node(elsewhere), group);
        let nonce = [&[OPTION_NONCE, 1][..], &barrier::NONCE].concat();
        for (why, frame) in [
            ("another address of the same group", solicitation(PEER_V6, group, elsewhere, &[])),
            ("our own nonce", solicitation(PEER_V6, group, GUEST_V6, &nonce)),
            ("from our own address", solicitation(GUEST_V6, group, GUEST_V6, &[])),
            ("an advertisement", advertisement(GUEST_V6, None)),
        ] {
            assert!(reply_to(&guest(), &frame).is_none(), "{why}");
        }
    }

    #[test]
    fn frames_of_the_guest_or_to_another_station_are_not_answered() {
        let mut own = solicitation_from_peer();
        own[6..12].copy_from_slice(&GUEST.0);
        assert!(reply_to(&guest(), &own).is_none());
        let mut astray = solicitation(PEER_V6, GUEST_V6, GUEST_V6, &[]);
        astray[..6].copy_from_slice(&Mac([0x52, 0x54, 0, 0, 0, 0x12]).0);
        assert!(reply_to(&guest(), &astray).is_none());
    }

    #[test]
    fn another_station_that_advertises_our_address_is_a_conflict() {
        assert_eq!(conflict_in(&advertisement(GUEST_V6, Some(PEER))), Some((GUEST_V6, PEER)));
        assert_eq!(conflict_in(&advertisement(GUEST_V6, None)), Some((GUEST_V6, PEER)), "by its frame");
        assert_eq!(conflict_in(&advertisement(GUEST_V6, Some(GUEST))), None);
        assert_eq!(conflict_in(&advertisement(PEER_V6, Some(PEER))), None);
        assert_eq!(conflict_in(&solicitation_from_peer()), None);
    }
}
