//! Which frames belong together: the key under which order is kept and repeats are found.

use core::net::IpAddr;

use crate::frame::Frame;
use crate::packet::Packet;

/// One direction of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Sender.
    pub src: IpAddr,
    /// Receiver.
    pub dst: IpAddr,
    /// Sender's port; 0 where there is none, or it cannot be read.
    pub src_port: u16,
    /// Receiver's port; 0 likewise.
    pub dst_port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// The VLAN as the bridge sees it.
    pub vlan: Option<u16>,
}

impl FlowKey {
    /// The flow of an IP packet; `None` for any other frame. Fragments of one datagram share the key
    /// without ports, the first one included, so that they stay in order.
    #[must_use]
    pub fn of(frame: &Frame<'_>, packet: &Packet<'_>) -> Option<Self> {
        let (src, dst) = packet.addresses()?;
        let transport = packet.transport()?;
        let (src_port, dst_port) = match transport {
            crate::packet::Transport::Fragment { .. } => (0, 0),
            whole => whole.ports().unwrap_or((0, 0)),
        };
        Some(Self { src, dst, src_port, dst_port, protocol: transport.protocol(), vlan: frame.tags.vid() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::protocol;
    use crate::testing::{ALICE_V4, BOB_V4, mend_ipv4, parse_with, v4};
    use crate::{Frame, Offload, Received};

    fn key(bytes: &[u8]) -> Option<FlowKey> {
        let frame = Frame::parse(&Received::plain(bytes)).unwrap();
        FlowKey::of(&frame, &parse_with(bytes, Offload::Verified).unwrap())
    }

    const DATAGRAM: [u8; 16] = [0x30, 0x39, 0, 7, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

    #[test]
    fn a_datagram_has_ports() {
        let expected = FlowKey {
            src: ALICE_V4.into(),
            dst: BOB_V4.into(),
            src_port: 12345,
            dst_port: 7,
            protocol: protocol::UDP,
            vlan: None,
        };
        assert_eq!(key(&v4(protocol::UDP, &DATAGRAM)), Some(expected));
    }

    #[test]
    fn all_fragments_of_a_datagram_are_one_flow() {
        let mut first = v4(protocol::UDP, &DATAGRAM);
        first[20] = 0x20;
        mend_ipv4(&mut first);
        let mut second = v4(protocol::UDP, &DATAGRAM);
        second[21] = 2;
        mend_ipv4(&mut second);
        assert_eq!(key(&first), key(&second));
        assert_eq!(key(&first).map(|k| (k.src_port, k.dst_port)), Some((0, 0)));
    }

    #[test]
    fn what_is_not_ip_has_no_flow() {
        let mut other = v4(protocol::UDP, &DATAGRAM);
        other[12..14].copy_from_slice(&[0x88, 0xcc]);
        assert_eq!(key(&other), None);
    }
}
