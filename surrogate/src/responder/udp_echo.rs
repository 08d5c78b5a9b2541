//! UDP echo, port 7, in the name of a sleeper that is declared to run it (RFC 862).
//!
//! Never to a broadcast or multicast, and never to a port whose owner would answer again: two echo
//! services, once set on each other, do not stop.

use surrogate_wire::{Frame, FrameBuf, Packet, Transport, Udp, emit, protocol};

use super::envelope::Envelope;
use crate::engine::Answered;
use crate::guest::identity::NicIdentity;

/// The port.
pub const PORT: u16 = 7;

/// The same data back to where it came from, if the guest is declared to listen on the port.
pub fn reply_for(
    identity: &NicIdentity,
    frame: &Frame<'_>,
    packet: &Packet<'_>,
    out: &mut FrameBuf<'_>,
) -> Option<Answered> {
    let udp = question(identity, packet, PORT)?;
    let envelope =
        Envelope::back(identity, frame, packet, protocol::UDP)?.dont_fragment().with_class(|_| 0, |_| 0);
    let pseudo = envelope.pseudo(udp.datagram.len());
    let header = emit::udp_header(pseudo, PORT, udp.src_port, udp.payload);
    envelope.send(&header, udp.payload, out).map(|()| Answered::UdpEcho)
}

/// The datagram, if it asks the service at `port`, which the guest is declared to run, and may be answered.
pub(super) fn question<'p, 'a>(
    identity: &NicIdentity,
    packet: &'p Packet<'a>,
    port: u16,
) -> Option<&'p Udp<'a>> {
    let Some(Transport::Udp(udp)) = packet.transport() else { return None };
    let listens = identity.traffic.listen.as_ref().is_some_and(|l| l.udp.binary_search(&port).is_ok());
    // Source port 0 means that the sender wants no answer (RFC 768).
    (udp.dst_port == port && udp.src_port != 0 && listens && !would_loop(udp.src_port)).then_some(udp)
}

/// Whether the service at `src_port` answers whatever it gets: echo, daytime, quote of the day,
/// character generator, time.
#[must_use]
pub const fn would_loop(src_port: u16) -> bool {
    matches!(src_port, 7 | 13 | 17 | 19 | 37)
}

#[cfg(test)]
mod tests {
    use super::*;
    use surrogate_wire::Mac;
    use surrogate_wire::emit::{Ethernet, Ipv4Header};

    use crate::policy::traffic::TrafficPolicy;
    use crate::responder::testing::{
        GUEST_V4, GUEST_V6, PEER_V4, PEER_V6, TO_GUEST, answer, guest, read, udp_v4, udp_v4_to, udp_v6,
        v4_header, v6_header,
    };

    const ASKED: fn() -> Ipv4Header = || v4_header(protocol::UDP);

    #[test]
    fn the_data_comes_back_with_the_ports_exchanged() {
        let request = udp_v4(&ASKED(), 40_000, PORT, b"hello");
        let (answered, reply) = answer(reply_for, &guest(), &request).unwrap();
        assert_eq!(answered, Answered::UdpEcho);
        let (_, Packet::Ipv4(ip, Transport::Udp(udp))) = read(&reply) else { panic!("{reply:x?}") };
        assert_eq!((ip.src, ip.dst, ip.tos, ip.ttl), (GUEST_V4, PEER_V4, 0, 64));
        assert_eq!((udp.src_port, udp.dst_port, udp.payload), (PORT, 40_000, &b"hello"[..]));
        assert_ne!(udp.checksum, 0);
    }

    #[test]
    fn the_same_over_ipv6_and_without_data() {
        let request = udp_v6(&v6_header(protocol::UDP), 40_000, PORT, &[]);
        let (_, reply) = answer(reply_for, &guest(), &request).unwrap();
        let (_, Packet::Ipv6(ip, Transport::Udp(udp))) = read(&reply) else { panic!("{reply:x?}") };
        assert_eq!((ip.src, ip.dst, ip.hop_limit), (GUEST_V6, PEER_V6, 64));
        assert_eq!((udp.src_port, udp.dst_port, udp.payload), (PORT, 40_000, &[][..]));
    }

    #[test]
    fn a_request_without_checksum_is_answered_with_one() {
        let mut request = udp_v4(&ASKED(), 40_000, PORT, b"hello");
        request[40..42].fill(0);
        let (_, reply) = answer(reply_for, &guest(), &request).unwrap();
        assert_eq!(
            Some((Answered::UdpEcho, reply)),
            answer(reply_for, &guest(), &udp_v4(&ASKED(), 40_000, PORT, b"hello"))
        );
    }

    #[test]
    fn services_that_answer_whatever_they_get_are_not_answered() {
        for port in [7, 13, 17, 19, 37] {
            assert!(would_loop(port));
            assert_eq!(answer(reply_for, &guest(), &udp_v4(&ASKED(), port, PORT, b"loop")), None, "{port}");
        }
        assert!(!would_loop(53));
        assert_eq!(answer(reply_for, &guest(), &udp_v4(&ASKED(), 0, PORT, b"mute")), None);
    }

    #[test]
    fn only_where_the_guest_is_declared_to_run_it() {
        let request = udp_v4(&ASKED(), 40_000, PORT, b"hello");
        let undeclared = NicIdentity { traffic: TrafficPolicy::default(), ..guest() };
        assert_eq!(answer(reply_for, &undeclared, &request), None);
        assert_eq!(answer(reply_for, &guest(), &udp_v4(&ASKED(), 40_000, 9, b"hello")), None);
    }

    #[test]
    fn a_broadcast_is_never_answered() {
        let to_all = Ethernet { dst: Mac::BROADCAST, ..TO_GUEST };
        let subnet = Ipv4Header { dst: [192, 0, 2, 255].into(), ..ASKED() };
        assert_eq!(answer(reply_for, &guest(), &udp_v4_to(&to_all, &subnet, 40_000, PORT, b"x")), None);
        assert_eq!(answer(reply_for, &guest(), &udp_v4_to(&to_all, &ASKED(), 40_000, PORT, b"x")), None);
    }
}
