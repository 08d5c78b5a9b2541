//! Port unreachable for a datagram to a UDP port that is declared closed (RFC 1122 3.2.2.1, RFC 4443 3.1).
//!
//! Quotes as much of the datagram as fits: 576 bytes of IPv4 (RFC 1812 4.3.2.3), the minimum MTU of
//! IPv6. Never about a broadcast or multicast, a fragment, or a source that is no single host; rate
//! limits are the engine's.

use surrogate_wire::checksum::Sum;
use surrogate_wire::{Frame, FrameBuf, Ipv4, Ipv6, Packet, Transport, emit, icmpv4, icmpv6, protocol};

use super::envelope::Envelope;
use crate::engine::Answered;
use crate::guest::identity::NicIdentity;

/// The error message.
pub fn reply_for(
    identity: &NicIdentity,
    frame: &Frame<'_>,
    packet: &Packet<'_>,
    out: &mut FrameBuf<'_>,
) -> Option<Answered> {
    match packet {
        Packet::Ipv4(ip, Transport::Udp(_)) => {
            // "SHOULD be sent with [...] precedence [...] 6 or 7" (RFC 1812 4.3.2.5).
            let envelope = Envelope::back(identity, frame, packet, protocol::ICMP)?
                .with_class(|tos| (tos & 0x1e) | INTERNETWORK_CONTROL, |class| class);
            let quote = quote(ip.packet, MAX_V4 - Ipv4::HEADER - HEADER);
            let header = emit::icmp_header(Sum::ZERO, icmpv4::UNREACHABLE, icmpv4::CODE_PORT, [0; 4], quote);
            envelope.send(&header, quote, out)?;
        }
        Packet::Ipv6(ip, Transport::Udp(_)) => {
            let envelope =
                Envelope::back(identity, frame, packet, protocol::ICMPV6)?.with_class(|tos| tos, |_| 0);
            let quote = quote(ip.packet, MAX_V6 - Ipv6::HEADER - HEADER);
            let pseudo = envelope.pseudo(HEADER + quote.len());
            let header = emit::icmp_header(pseudo, icmpv6::UNREACHABLE, icmpv6::CODE_PORT, [0; 4], quote);
            envelope.send(&header, quote, out)?;
        }
        _ => return None,
    }
    Some(Answered::PortUnreachable)
}

fn quote(packet: &[u8], most: usize) -> &[u8] {
    packet.get(..most).unwrap_or(packet)
}

/// Bytes of an ICMP error before the quote.
const HEADER: usize = 8;
/// Longest IPv4 error.
const MAX_V4: usize = 576;
/// Longest IPv6 error.
const MAX_V6: usize = 1280;
/// Precedence "internetwork control".
const INTERNETWORK_CONTROL: u8 = 0xc0;

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    use surrogate_wire::Mac;
    use surrogate_wire::emit::{Ethernet, Ipv4Header};

    use crate::responder::testing::{
        GUEST_V4, GUEST_V6, PEER_V4, PEER_V6, TO_GUEST, answer, echo_v4, guest, read, udp_v4, udp_v4_to,
        udp_v6, v4_header, v6_header,
    };

    const ASKED: fn() -> Ipv4Header = || v4_header(protocol::UDP);

    #[test]
    fn quotes_the_datagram_whole_where_it_fits() {
        let request = udp_v4(&ASKED(), 40_000, 9, b"hello");
        let (answered, reply) = answer(reply_for, &guest(), &request).unwrap();
        assert_eq!(answered, Answered::PortUnreachable);
        let (_, Packet::Ipv4(ip, Transport::Icmpv4(icmp))) = read(&reply) else { panic!("{reply:x?}") };
        assert_eq!((ip.src, ip.dst, ip.ttl), (GUEST_V4, PEER_V4, 64));
        assert_eq!(ip.tos, 0xd8, "precedence 6, type of service as it came, no ECN");
        assert_eq!((icmp.kind, icmp.code), (3, 3));
        assert_eq!(icmp.message[4..8], [0; 4]);
        assert_eq!(icmp.message[8..], request[14..14 + 20 + 8 + 5]);
    }

    #[test]
    fn is_never_longer_than_every_host_must_take() {
        let request = udp_v4(&ASKED(), 40_000, 9, &[7; 1400]);
        let (_, reply) = answer(reply_for, &guest(), &request).unwrap();
        assert_eq!(reply.len(), 14 + 576);
        assert_eq!(reply[42..], request[14..14 + 548]);

        let request = udp_v6(&v6_header(protocol::UDP), 40_000, 9, &[7; 1400]);
        let (_, reply) = answer(reply_for, &guest(), &request).unwrap();
        assert_eq!(reply.len(), 14 + 1280);
        let (_, Packet::Ipv6(ip, Transport::Icmpv6(icmp))) = read(&reply) else { panic!("{reply:x?}") };
        assert_eq!((ip.src, ip.dst, ip.hop_limit), (GUEST_V6, PEER_V6, 64));
        assert_eq!((icmp.kind, icmp.code), (1, 4));
        assert_eq!(icmp.message[8..], request[14..14 + 1232]);
    }

    #[test]
    fn no_error_about_what_is_no_datagram_to_us_alone() {
        let to_all = Ethernet { dst: Mac::BROADCAST, ..TO_GUEST };
        let subnet = Ipv4Header { dst: Ipv4Addr::new(192, 0, 2, 255), ..ASKED() };
        let from_all = Ipv4Header { src: Ipv4Addr::new(192, 0, 2, 255), ..ASKED() };
        let mut fragment = udp_v4(&ASKED(), 40_000, 9, &[7; 16]);
        fragment[20] = 0x20;
        fragment[24..26].fill(0);
        let sum = Sum::ZERO.add(&fragment[14..34]).finish();
        fragment[24..26].copy_from_slice(&sum.to_be_bytes());
        for (why, request) in [
            ("a broadcast", udp_v4_to(&to_all, &subnet, 40_000, 9, &[])),
            ("a broadcast frame", udp_v4_to(&to_all, &ASKED(), 40_000, 9, &[])),
            ("from no single host", udp_v4(&from_all, 40_000, 9, &[])),
            ("a fragment", fragment),
            ("an echo", echo_v4(&TO_GUEST, &v4_header(protocol::ICMP), &[])),
        ] {
            assert_eq!(answer(reply_for, &guest(), &request), None, "{why}");
        }
    }
}
