//! ICMP echo replies in a sleeper's name (RFC 792, RFC 1122 3.2.2.6).
//!
//! Same identifier, sequence and data, all of it; type of service reflected, time to live 64,
//! don't-fragment off, no options. Never for a broadcast or multicast request, and to no other type. A
//! request in fragments comes here as the engine has put it together.

use surrogate_wire::checksum::Sum;
use surrogate_wire::{Frame, FrameBuf, Packet, Transport, emit, icmpv4, protocol};

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
    let Packet::Ipv4(_, Transport::Icmpv4(icmp)) = packet else { return None };
    let echo = icmp.echo_request()?;
    let envelope = Envelope::back(identity, frame, packet, protocol::ICMP)?;
    let reply = emit::icmp_header(Sum::ZERO, icmpv4::ECHO_REPLY, icmp.code, echo.words(), echo.data);
    envelope.send(&reply, echo.data, out).map(|()| Answered::Icmpv4Echo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    use proptest::prelude::*;
    use surrogate_wire::emit::{Ethernet, Ipv4Header};
    use surrogate_wire::{Ipv4, Mac};

    use crate::responder::testing::{
        GUEST, GUEST_V4, PEER, PEER_V4, TO_GUEST, answer, build, echo_v4, guest, read, tagged, v4_header,
    };

    const ASKED: fn() -> Ipv4Header = || v4_header(protocol::ICMP);

    fn reply_to(request: &[u8]) -> Option<Vec<u8>> {
        let (answered, reply) = answer(reply_for, &guest(), request)?;
        assert_eq!(answered, Answered::Icmpv4Echo);
        Some(reply)
    }

    #[test]
    fn identifier_sequence_and_data_come_back_whole() {
        let data: Vec<u8> = (0..57).collect();
        let reply = reply_to(&echo_v4(&tagged(TO_GUEST), &ASKED(), &data)).unwrap();
        let (frame, Packet::Ipv4(ip, Transport::Icmpv4(icmp))) = read(&reply) else { panic!("{reply:x?}") };
        assert_eq!((frame.dst, frame.src, frame.tags), (PEER, GUEST, tagged(TO_GUEST).tags));
        assert_eq!((ip.src, ip.dst, ip.tos, ip.ttl), (GUEST_V4, PEER_V4, 0xb9, 64));
        assert!(!ip.dont_fragment && !ip.has_options);
        assert_eq!((icmp.kind, icmp.code), (0, 0));
        assert_eq!(icmp.message[4..], [&[1, 2, 3, 4], &data[..]].concat());
    }

    #[test]
    fn options_of_the_request_are_not_returned() {
        let plain = echo_v4(&TO_GUEST, &ASKED(), &[7; 40]);
        let mut request = [&plain[..34], &[7, 7, 4, 0, 0, 0, 0, 0], &plain[34..]].concat();
        request[14] = 0x47;
        request[17] += 8;
        request[24..26].fill(0);
        let sum = Sum::ZERO.add(&request[14..42]).finish();
        request[24..26].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(reply_to(&request), reply_to(&plain));
    }

    #[test]
    fn silent_where_a_real_host_would_be() {
        let to_group = Ethernet { dst: Mac([1, 0, 0x5e, 0, 0, 1]), ..TO_GUEST };
        let to_all = Ethernet { dst: Mac::BROADCAST, ..TO_GUEST };
        for (why, to, header) in [
            ("limited broadcast", to_all, Ipv4Header { dst: Ipv4Addr::BROADCAST, ..ASKED() }),
            ("subnet broadcast", to_all, Ipv4Header { dst: Ipv4Addr::new(192, 0, 2, 255), ..ASKED() }),
            ("all hosts", to_group, Ipv4Header { dst: Ipv4Addr::new(224, 0, 0, 1), ..ASKED() }),
            ("our address in a broadcast frame", to_all, ASKED()),
            ("another address", TO_GUEST, Ipv4Header { dst: Ipv4Addr::new(192, 0, 2, 12), ..ASKED() }),
            (
                "from the subnet broadcast",
                TO_GUEST,
                Ipv4Header { src: Ipv4Addr::new(192, 0, 2, 255), ..ASKED() },
            ),
            (
                "from the network address",
                TO_GUEST,
                Ipv4Header { src: Ipv4Addr::new(192, 0, 2, 0), ..ASKED() },
            ),
            ("from ourselves", TO_GUEST, Ipv4Header { src: GUEST_V4, ..ASKED() }),
            ("from our MAC", Ethernet { src: GUEST, ..TO_GUEST }, ASKED()),
            ("to another station", Ethernet { dst: PEER, ..TO_GUEST }, ASKED()),
        ] {
            assert_eq!(reply_to(&echo_v4(&to, &header, &[1, 2, 3])), None, "{why}");
        }
    }

    #[test]
    fn the_code_is_repeated() {
        let message = emit::icmp_header(Sum::ZERO, icmpv4::ECHO_REQUEST, 9, [1, 2, 3, 4], &[]);
        let request = build(|out| {
            out.ipv4(&TO_GUEST, &ASKED(), message.len());
            out.push(&message);
        });
        let (_, reply) = answer(reply_for, &guest(), &request).unwrap();
        let (_, Packet::Ipv4(_, Transport::Icmpv4(icmp))) = read(&reply) else { panic!("{reply:x?}") };
        assert_eq!((icmp.kind, icmp.code), (icmpv4::ECHO_REPLY, 9));
    }

    #[test]
    fn other_questions_get_no_answer() {
        for [kind, code] in [[0, 0], [0, 8], [13, 0], [15, 0], [17, 0], [10, 0], [5, 1], [3, 3]] {
            let message = emit::icmp_header(Sum::ZERO, kind, code, [1, 2, 3, 4], &[]);
            let request = build(|out| {
                out.ipv4(&TO_GUEST, &ASKED(), message.len());
                out.push(&message);
            });
            assert_eq!(reply_to(&request), None, "type {kind} code {code}");
        }
    }

    #[test]
    fn an_answer_that_does_not_fit_the_buffer_is_not_sent() {
        let request = echo_v4(&TO_GUEST, &ASKED(), &[7; 100]);
        let (frame, packet) = read(&request);
        let mut memory = [0; 141];
        assert_eq!(reply_for(&guest(), &frame, &packet, &mut FrameBuf::new(&mut memory)), None);
        let mut memory = [0; 142];
        assert!(reply_for(&guest(), &frame, &packet, &mut FrameBuf::new(&mut memory)).is_some());
    }

    proptest! {
        /// A reply speaks for exactly the address asked, to exactly who asked, and only if both are hosts.
        #[test]
        fn a_reply_claims_the_address_asked_and_only_if_the_guest_holds_it(
            src in prop_oneof![Just(PEER_V4), Just(GUEST_V4), any::<[u8; 4]>().prop_map(Ipv4Addr::from)],
            dst in prop_oneof![3 => Just(GUEST_V4), 1 => any::<[u8; 4]>().prop_map(Ipv4Addr::from)],
            data in prop::collection::vec(any::<u8>(), 0..1472),
        ) {
            let request = echo_v4(&TO_GUEST, &Ipv4Header { src, dst, ..ASKED() }, &data);
            prop_assume!(Ipv4::parse(&request[14..]).is_ok());
            let frame = Frame::parse(&surrogate_wire::Received::plain(&request)).unwrap();
            let Ok(packet) = Packet::parse(&frame, surrogate_wire::Offload::None) else { return Ok(()) };
            let mut memory = [0; 2048];
            let mut out = FrameBuf::new(&mut memory);
            match reply_for(&guest(), &frame, &packet, &mut out) {
                Some(_) => {
                    let (_, reply) = read(out.as_bytes());
                    prop_assert_eq!(reply.addresses(), Some((GUEST_V4.into(), src.into())));
                    prop_assert_eq!(dst, GUEST_V4);
                    prop_assert_eq!(out.as_bytes().len(), request.len());
                }
                None => prop_assert!(dst != GUEST_V4 || src == GUEST_V4 || guest().is_broadcast(src)),
            }
        }
    }
}
