//! A guest, a peer, and the frames between them, for the responders' tests.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::{self, Ethernet, Ipv4Header, Ipv6Header};
use surrogate_wire::icmpv6::solicited_node;
use surrogate_wire::{
    Arp, Frame, FrameBuf, Mac, Offload, Packet, Received, Tags, Tcp, TcpFlags, Udp, arp, ethertype, protocol,
};

use super::ndisc::multicast_mac;
use crate::engine::Answered;
use crate::guest::identity::{GuestId, InterfaceAddress, NicId, NicIdentity, PortId};
use crate::policy::traffic::{Listen, TrafficPolicy};

pub(super) const GUEST: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x11]);
pub(super) const PEER: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x99]);
pub(super) const GUEST_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
pub(super) const PEER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
pub(super) const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11);
pub(super) const PEER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99);

/// From the peer to the guest's MAC, untagged.
pub(super) const TO_GUEST: Ethernet = Ethernet { dst: GUEST, src: PEER, tags: Tags::NONE };

type Responder = fn(&NicIdentity, &Frame<'_>, &Packet<'_>, &mut FrameBuf<'_>) -> Option<Answered>;

/// A guest that holds one address of each family in prefixes of 24 and 64 bits and runs UDP echo.
pub(super) fn guest() -> NicIdentity {
    NicIdentity {
        guest: GuestId(1),
        nic: NicId(1),
        port: PortId(1),
        mac: GUEST,
        vlan: None,
        addresses: vec![
            InterfaceAddress { address: GUEST_V4.into(), prefix_len: 24 },
            InterfaceAddress { address: GUEST_V6.into(), prefix_len: 64 },
        ],
        groups: Vec::new(),
        router: false,
        traffic: TrafficPolicy {
            listen: Some(Listen { tcp: vec![22, 80], udp: vec![7] }),
            ..TrafficPolicy::default()
        },
    }
}

/// What `responder` says to `request`, padded and whole.
pub(super) fn answer(
    responder: Responder,
    identity: &NicIdentity,
    request: &[u8],
) -> Option<(Answered, Vec<u8>)> {
    let frame = Frame::parse(&Received::plain(request)).expect("a frame");
    let packet = Packet::parse(&frame, Offload::None).expect("a sound packet");
    let mut memory = [0xee; 2048];
    let mut out = FrameBuf::new(&mut memory);
    let answered = responder(identity, &frame, &packet, &mut out)?;
    Some((answered, out.as_bytes().to_vec()))
}

/// Reads an answer back, checksums verified.
pub(super) fn read(bytes: &[u8]) -> (Frame<'_>, Packet<'_>) {
    assert!(bytes.len() >= emit::MIN_FRAME, "shorter than Ethernet allows");
    let frame = Frame::parse(&Received::plain(bytes)).expect("a frame");
    (frame, Packet::parse(&frame, Offload::None).expect("a sound packet"))
}

pub(super) fn build(write: impl FnOnce(&mut FrameBuf<'_>)) -> Vec<u8> {
    let mut memory = [0; 2048];
    let mut out = FrameBuf::new(&mut memory);
    write(&mut out);
    out.finish().expect("it fits").to_vec()
}

/// One tag: VLAN 10, priority 5, drop eligible.
pub(super) fn tagged(to: Ethernet) -> Ethernet {
    let mut tags = Tags::NONE;
    tags.push(surrogate_wire::VlanTag { tpid: 0x8100, tci: 0xb00a });
    Ethernet { tags, ..to }
}

pub(super) fn arp_frame(to: &Ethernet, arp: &Arp) -> Vec<u8> {
    build(|out| {
        out.ethernet(to, ethertype::ARP);
        out.push(&arp.emit());
    })
}

/// Who has the guest's address? Tell the peer.
pub(super) fn arp_request() -> Arp {
    Arp { op: arp::REQUEST, sha: PEER, spa: PEER_V4, tha: Mac::ZERO, tpa: GUEST_V4 }
}

pub(super) fn v4_header(protocol: u8) -> Ipv4Header {
    Ipv4Header { src: PEER_V4, dst: GUEST_V4, tos: 0xb9, id: 0x1234, dont_fragment: true, ttl: 3, protocol }
}

pub(super) fn v6_header(protocol: u8) -> Ipv6Header {
    Ipv6Header { src: PEER_V6, dst: GUEST_V6, traffic_class: 0xb9, hop_limit: 3, protocol }
}

pub(super) fn echo_v4(to: &Ethernet, header: &Ipv4Header, data: &[u8]) -> Vec<u8> {
    let message = emit::icmp_header(Sum::ZERO, 8, 0, [1, 2, 3, 4], data);
    build(|out| {
        out.ipv4(to, header, message.len() + data.len());
        out.push(&message);
        out.push(data);
    })
}

pub(super) fn icmpv6_frame(
    to: &Ethernet,
    header: &Ipv6Header,
    [kind, code]: [u8; 2],
    rest: [u8; 4],
    data: &[u8],
) -> Vec<u8> {
    let pseudo = Sum::pseudo_v6(header.src, header.dst, header.protocol, 8 + data.len());
    let message = emit::icmp_header(pseudo, kind, code, rest, data);
    build(|out| {
        out.ipv6(to, header, message.len() + data.len());
        out.push(&message);
        out.push(data);
    })
}

/// A neighbour solicitation for `target` from `src` to `dst`, at the MAC that goes with `dst`.
pub(super) fn solicitation(src: Ipv6Addr, dst: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    let mac = if dst.is_multicast() { multicast_mac(dst) } else { GUEST };
    let to = Ethernet { dst: mac, ..TO_GUEST };
    let header = Ipv6Header { src, dst, hop_limit: 255, ..v6_header(protocol::ICMPV6) };
    icmpv6_frame(&to, &header, [135, 0], [0; 4], &[&target.octets(), options].concat())
}

/// The peer's solicitation for the guest's address, to the group.
pub(super) fn solicitation_from_peer() -> Vec<u8> {
    let source_link_layer = [1, 1, 0x52, 0x54, 0, 0, 0, 0x99];
    solicitation(PEER_V6, solicited_node(GUEST_V6), GUEST_V6, &source_link_layer)
}

pub(super) fn udp_v4(header: &Ipv4Header, src_port: u16, dst_port: u16, data: &[u8]) -> Vec<u8> {
    udp_v4_to(&TO_GUEST, header, src_port, dst_port, data)
}

pub(super) fn udp_v4_to(
    to: &Ethernet,
    header: &Ipv4Header,
    src_port: u16,
    dst_port: u16,
    data: &[u8],
) -> Vec<u8> {
    let pseudo = Sum::pseudo_v4(header.src, header.dst, header.protocol, 8 + data.len());
    let datagram = emit::udp_header(pseudo, src_port, dst_port, data);
    build(|out| {
        out.ipv4(to, header, datagram.len() + data.len());
        out.push(&datagram);
        out.push(data);
    })
}

pub(super) fn udp_v6(header: &Ipv6Header, src_port: u16, dst_port: u16, data: &[u8]) -> Vec<u8> {
    udp_v6_to(&TO_GUEST, header, [src_port, dst_port], data)
}

pub(super) fn udp_v6_to(to: &Ethernet, header: &Ipv6Header, [src, dst]: [u16; 2], data: &[u8]) -> Vec<u8> {
    let pseudo = Sum::pseudo_v6(header.src, header.dst, header.protocol, 8 + data.len());
    let datagram = emit::udp_header(pseudo, src, dst, data);
    build(|out| {
        out.ipv6(to, header, datagram.len() + data.len());
        out.push(&datagram);
        out.push(data);
    })
}

/// A segment from the peer's port 40000 to port 81.
fn segment(pseudo: impl Fn(usize) -> Sum, seq: u32, ack: u32, flags: TcpFlags, data: &[u8]) -> Vec<u8> {
    let fixed = [
        &40_000u16.to_be_bytes()[..],
        &81u16.to_be_bytes(),
        &seq.to_be_bytes(),
        &ack.to_be_bytes(),
        &[0x50, flags.0, 4, 0, 0, 0, 0, 0],
        data,
    ];
    let mut bytes = fixed.concat();
    let sum = pseudo(Tcp::HEADER + data.len()).add(&bytes).finish();
    bytes[16..18].copy_from_slice(&sum.to_be_bytes());
    bytes
}

pub(super) fn tcp_v4(seq: u32, ack: u32, flags: TcpFlags, data: &[u8]) -> Vec<u8> {
    let header = v4_header(protocol::TCP);
    let bytes = segment(|len| Sum::pseudo_v4(PEER_V4, GUEST_V4, protocol::TCP, len), seq, ack, flags, data);
    build(|out| {
        out.ipv4(&TO_GUEST, &header, bytes.len());
        out.push(&bytes);
    })
}

pub(super) fn tcp_v6(seq: u32, ack: u32, flags: TcpFlags, data: &[u8]) -> Vec<u8> {
    let header = v6_header(protocol::TCP);
    let bytes = segment(|len| Sum::pseudo_v6(PEER_V6, GUEST_V6, protocol::TCP, len), seq, ack, flags, data);
    build(|out| {
        out.ipv6(&TO_GUEST, &header, bytes.len());
        out.push(&bytes);
    })
}

/// `Laser._http._tcp.local` as DNS writes it; no label has a dot in it.
pub(super) fn wire(name: &str) -> Vec<u8> {
    let labels = name
        .split('.')
        .flat_map(|label| [&[u8::try_from(label.len()).expect("a label")], label.as_bytes()].concat());
    labels.chain([0]).collect()
}

/// A datagram between any two.
pub(super) fn datagram(
    to: &Ethernet,
    src: IpAddr,
    dst: IpAddr,
    [src_port, dst_port]: [u16; 2],
    payload: &[u8],
) -> Vec<u8> {
    let len = Udp::HEADER + payload.len();
    build(|out| {
        let pseudo = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let (protocol, dont_fragment) = (protocol::UDP, false);
                out.ipv4(to, &Ipv4Header { src, dst, tos: 0, id: 0, dont_fragment, ttl: 255, protocol }, len);
                Sum::pseudo_v4(src, dst, protocol::UDP, len)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let protocol = protocol::UDP;
                out.ipv6(to, &Ipv6Header { src, dst, traffic_class: 0, hop_limit: 255, protocol }, len);
                Sum::pseudo_v6(src, dst, protocol::UDP, len)
            }
            _ => panic!("one family"),
        };
        out.push(&emit::udp_header(pseudo, src_port, dst_port, payload));
        out.push(payload);
    })
}
