//! `ICMPv6` echo replies in a sleeper's name (RFC 4443 4.2).
//!
//! Only to requests for one of the guest's unicast addresses, from that address: a multicast echo is
//! answered by those who are awake.

use surrogate_wire::{Frame, FrameBuf, Icmpv6Body, Packet, Transport, emit, icmpv6, protocol};

use super::envelope::Envelope;
use crate::engine::Answered;
use crate::guest::identity::NicIdentity;

/// The reply to an echo request.
pub fn reply_for(
    identity: &NicIdentity,
    frame: &Frame<'_>,
    packet: &Packet<'_>,
    out: &mut FrameBuf<'_>,
) -> Option<Answered> {
    let Packet::Ipv6(_, Transport::Icmpv6(icmp)) = packet else { return None };
    let Icmpv6Body::EchoRequest(echo) = icmp.body else { return None };
    let envelope = Envelope::back(identity, frame, packet, protocol::ICMPV6)?;
    let pseudo = envelope.pseudo(icmp.message.len());
    let reply = emit::icmp_header(pseudo, icmpv6::ECHO_REPLY, icmp.code, echo.words(), echo.data);
    envelope.send(&reply, echo.data, out).map(|()| Answered::Icmpv6Echo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv6Addr;

    use surrogate_wire::Mac;
    use surrogate_wire::emit::{Ethernet, Ipv6Header};
    use surrogate_wire::icmpv6::ALL_NODES;

    use crate::responder::testing::{
        GUEST, GUEST_V6, PEER, PEER_V6, TO_GUEST, answer, guest, icmpv6_frame, read, tagged, v6_header,
    };

    fn echo(to: &Ethernet, header: &Ipv6Header, data: &[u8]) -> Vec<u8> {
        icmpv6_frame(to, header, [128, 0], [1, 2, 3, 4], data)
    }

    fn reply_to(request: &[u8]) -> Option<Vec<u8>> {
        let (answered, reply) = answer(reply_for, &guest(), request)?;
        assert_eq!(answered, Answered::Icmpv6Echo);
        Some(reply)
    }

    #[test]
    fn identifier_sequence_and_data_come_back_whole() {
        let data: Vec<u8> = (0..57).collect();
        let reply = reply_to(&echo(&tagged(TO_GUEST), &v6_header(58), &data)).unwrap();
        let (frame, Packet::Ipv6(ip, Transport::Icmpv6(icmp))) = read(&reply) else { panic!("{reply:x?}") };
        assert_eq!((frame.dst, frame.src, frame.tags), (PEER, GUEST, tagged(TO_GUEST).tags));
        assert_eq!((ip.src, ip.dst, ip.traffic_class, ip.hop_limit), (GUEST_V6, PEER_V6, 0xb9, 64));
        assert_eq!((icmp.kind, icmp.code), (129, 0));
        assert_eq!(icmp.message[4..], [&[1, 2, 3, 4], &data[..]].concat());
    }

    #[test]
    fn silent_where_a_real_host_would_be() {
        let to_all = Ethernet { dst: Mac([0x33, 0x33, 0, 0, 0, 1]), ..TO_GUEST };
        let asked = v6_header(protocol::ICMPV6);
        let other = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x12);
        for (why, to, header) in [
            ("all nodes", to_all, Ipv6Header { dst: ALL_NODES, ..asked }),
            ("our address in a multicast frame", to_all, asked),
            ("another address", TO_GUEST, Ipv6Header { dst: other, ..asked }),
            ("from nobody", TO_GUEST, Ipv6Header { src: Ipv6Addr::UNSPECIFIED, ..asked }),
            ("from ourselves", TO_GUEST, Ipv6Header { src: GUEST_V6, ..asked }),
            ("from our MAC", Ethernet { src: GUEST, ..TO_GUEST }, asked),
        ] {
            assert_eq!(reply_to(&echo(&to, &header, &[1, 2, 3])), None, "{why}");
        }
    }

    #[test]
    fn the_code_is_repeated() {
        let request = icmpv6_frame(&TO_GUEST, &v6_header(58), [icmpv6::ECHO_REQUEST, 9], [1, 2, 3, 4], &[]);
        let (_, reply) = answer(reply_for, &guest(), &request).unwrap();
        let (_, Packet::Ipv6(_, Transport::Icmpv6(icmp))) = read(&reply) else { panic!("{reply:x?}") };
        assert_eq!((icmp.kind, icmp.code), (icmpv6::ECHO_REPLY, 9));
    }

    #[test]
    fn other_messages_get_no_answer() {
        for kind in [1, 2, 3, 4, 129, 130, 131, 132, 139, 140, 143, 200] {
            let message = icmpv6_frame(&TO_GUEST, &v6_header(58), [kind, 0], [0; 4], &[0; 20]);
            assert_eq!(reply_to(&message), None, "type {kind}");
        }
    }
}
