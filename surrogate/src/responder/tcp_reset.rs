//! The reset for a segment to a port that is declared closed (RFC 9293 3.5.2, 3.10.7.1).
//!
//! Never in answer to a reset. That the port is closed, and that no connection of the guest's owns the
//! segment, is for the caller to know: a reset for a live connection would destroy it.

use surrogate_wire::{Frame, FrameBuf, Packet, Tcp, TcpFlags, Transport, protocol};

use super::envelope::Envelope;
use crate::engine::Answered;
use crate::guest::identity::NicIdentity;

/// The reset.
pub fn reply_for(
    identity: &NicIdentity,
    frame: &Frame<'_>,
    packet: &Packet<'_>,
    out: &mut FrameBuf<'_>,
) -> Option<Answered> {
    let Some(Transport::Tcp(tcp)) = packet.transport() else { return None };
    if tcp.is_rst() {
        return None;
    }
    // The class as it came, but for the ECN bits: a reset is not ECN-capable (RFC 3168 6.1.1).
    let without_ecn = |class: u8| class & 0xfc;
    let envelope = Envelope::back(identity, frame, packet, protocol::TCP)?
        .dont_fragment()
        .with_class(without_ecn, without_ecn);
    let (seq, ack, flags) = if tcp.flags.contains(TcpFlags::ACK) {
        (tcp.ack, 0, TcpFlags::RST)
    } else {
        (0, tcp.seq.wrapping_add(tcp.segment_len()), TcpFlags::RST | TcpFlags::ACK)
    };
    let [sp0, sp1] = tcp.dst_port.to_be_bytes();
    let [dp0, dp1] = tcp.src_port.to_be_bytes();
    let [s0, s1, s2, s3] = seq.to_be_bytes();
    let [a0, a1, a2, a3] = ack.to_be_bytes();
    let mut reset = [sp0, sp1, dp0, dp1, s0, s1, s2, s3, a0, a1, a2, a3, 0x50, flags.0, 0, 0, 0, 0, 0, 0];
    [reset[16], reset[17]] = envelope.pseudo(Tcp::HEADER).add(&reset).finish().to_be_bytes();
    envelope.send(&reset, &[], out).map(|()| Answered::TcpReset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::responder::testing::{
        GUEST_V4, GUEST_V6, PEER_V4, PEER_V6, answer, guest, read, tcp_v4, tcp_v6,
    };

    /// Sequence, acknowledgement and flags of the reset for a segment.
    fn reset_for(seq: u32, ack: u32, flags: TcpFlags, data: &[u8]) -> Option<(u32, u32, TcpFlags)> {
        let (answered, reply) = answer(reply_for, &guest(), &tcp_v4(seq, ack, flags, data))?;
        assert_eq!(answered, Answered::TcpReset);
        let (_, Packet::Ipv4(ip, Transport::Tcp(tcp))) = read(&reply) else { panic!("{reply:x?}") };
        assert_eq!((ip.src, ip.dst, ip.ttl, ip.tos), (GUEST_V4, PEER_V4, 64, 0xb8));
        assert_eq!((ip.dont_fragment, ip.id), (true, 0));
        assert_eq!((tcp.src_port, tcp.dst_port, tcp.window), (81, 40_000, 0));
        assert!(tcp.options.is_empty() && tcp.payload.is_empty());
        Some((tcp.seq, tcp.ack, tcp.flags))
    }

    const RST_ACK: TcpFlags = TcpFlags(TcpFlags::RST.0 | TcpFlags::ACK.0);

    #[test]
    fn a_syn_is_acknowledged_by_its_reset() {
        assert_eq!(reset_for(1000, 0, TcpFlags::SYN, &[]), Some((0, 1001, RST_ACK)));
        assert_eq!(reset_for(u32::MAX, 0, TcpFlags::SYN, &[]), Some((0, 0, RST_ACK)));
    }

    #[test]
    fn data_and_fin_count_towards_the_acknowledgement() {
        assert_eq!(reset_for(1000, 0, TcpFlags::FIN, b"abc"), Some((0, 1004, RST_ACK)));
        assert_eq!(reset_for(1000, 0, TcpFlags::SYN | TcpFlags::FIN, b"ab"), Some((0, 1004, RST_ACK)));
    }

    #[test]
    fn a_segment_that_acknowledges_is_reset_at_that_point() {
        let data = TcpFlags::ACK | TcpFlags::PSH;
        assert_eq!(reset_for(1000, 77, data, b"abc"), Some((77, 0, TcpFlags::RST)));
    }

    #[test]
    fn a_reset_is_never_answered() {
        assert_eq!(reset_for(1000, 0, TcpFlags::RST, &[]), None);
        assert_eq!(reset_for(1000, 77, RST_ACK, &[]), None);
    }

    #[test]
    fn the_same_over_ipv6() {
        let (_, reply) = answer(reply_for, &guest(), &tcp_v6(1000, 0, TcpFlags::SYN, &[])).unwrap();
        let (_, Packet::Ipv6(ip, Transport::Tcp(tcp))) = read(&reply) else { panic!("{reply:x?}") };
        assert_eq!((ip.src, ip.dst, ip.hop_limit, ip.traffic_class), (GUEST_V6, PEER_V6, 64, 0xb8));
        assert_eq!((tcp.seq, tcp.ack, tcp.flags), (0, 1001, RST_ACK));
    }
}
