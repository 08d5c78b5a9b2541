//! Frames to try the engine with: one guest, its client and a stranger on one LAN.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use surrogate::engine::Limits;
use surrogate::guest::identity::{GuestId, InterfaceAddress, NicId, NicIdentity, PortId};
use surrogate::policy::traffic::{Listen, TrafficPolicy};
use surrogate_wire::checksum::Sum;
use surrogate_wire::dhcpv4::Renewal;
use surrogate_wire::emit::{Ethernet, Ipv4Header, Ipv6Header};
use surrogate_wire::{
    Arp, Dhcpv4, Dhcpv6, Fragments, Frame, FrameBuf, Mac, Received, Tags, TcpFlags, Transport, dhcpv4,
    dhcpv6, ethertype, icmpv6, protocol,
};

pub(crate) const PORT: PortId = PortId(1);
pub(crate) const SERVICE: Mac = Mac([0x02, 0, 0, 0, 0, 0xfe]);
pub(crate) const CLIENT: Host = Host(1);
/// A host that claims what is not its own.
pub(crate) const THIEF: Host = Host(66);
pub(crate) const GUEST: Host = Host(11);
/// Another guest of the same engine, where there is one.
pub(crate) const NEIGHBOUR: Host = Host(12);
pub(crate) const JOINED: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);
pub(crate) const MDNS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
pub(crate) const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
pub(crate) const SUBNET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 255);

/// A station of the LAN, by the last byte of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host(pub(crate) u8);

impl Host {
    pub(crate) const fn mac(self) -> Mac {
        Mac([0x52, 0x54, 0, 0, 0, self.0])
    }

    pub(crate) const fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, self.0)
    }

    pub(crate) const fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, self.0 as u16)
    }

    pub(crate) const fn link_local(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, self.0 as u16)
    }

    pub(crate) const fn nic(self) -> NicId {
        NicId(self.0 as u32)
    }

    /// As a guest: some ports declared, one group joined.
    pub(crate) fn identity(self) -> NicIdentity {
        NicIdentity {
            guest: GuestId(u32::from(self.0) + 100),
            nic: self.nic(),
            port: PORT,
            mac: self.mac(),
            vlan: None,
            addresses: vec![
                InterfaceAddress { address: self.v4().into(), prefix_len: 24 },
                InterfaceAddress { address: self.v6().into(), prefix_len: 64 },
            ],
            groups: vec![JOINED.into(), MDNS.into()],
            router: false,
            traffic: TrafficPolicy {
                listen: Some(Listen { tcp: vec![22, 80], udp: vec![7, 514] }),
                ..TrafficPolicy::default()
            },
        }
    }
}

pub(crate) fn limits() -> Limits {
    Limits {
        held_bytes: 1 << 20,
        flooded_ring: 4,
        outbox_bytes: 16 << 10,
        errors_per_second: 2,
        echoes_per_second: 100,
        mtu: 1500,
    }
}

pub(crate) const fn between(dst: Mac, src: Mac) -> Ethernet {
    Ethernet { dst, src, tags: Tags::NONE }
}

/// From the client to the guest.
pub(crate) const TO_GUEST: Ethernet = between(GUEST.mac(), CLIENT.mac());
/// From the client to all.
pub(crate) const TO_ALL: Ethernet = between(Mac::BROADCAST, CLIENT.mac());

/// From the client to a multicast group.
pub(crate) fn to_group(group: IpAddr) -> Ethernet {
    let mac = match group {
        IpAddr::V4(group) => {
            let [_, a, b, c] = group.octets();
            Mac([1, 0, 0x5e, a & 0x7f, b, c])
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            Mac([0x33, 0x33, a, b, c, d])
        }
    };
    between(mac, CLIENT.mac())
}

pub(crate) fn frame(write: impl FnOnce(&mut FrameBuf<'_>)) -> Vec<u8> {
    let mut memory = vec![0; 70_000];
    let mut out = FrameBuf::new(&mut memory);
    write(&mut out);
    out.finish().expect("it fits").to_vec()
}

pub(crate) fn raw(to: Ethernet, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    frame(|out| {
        out.ethernet(&to, ethertype);
        out.push(payload);
    })
}

pub(crate) fn arp(to: Ethernet, op: u16, sha: Mac, spa: Ipv4Addr, tpa: Ipv4Addr) -> Vec<u8> {
    raw(to, ethertype::ARP, &Arp { op, sha, spa, tha: Mac::ZERO, tpa }.emit())
}

/// A request by `from` for `tpa`, broadcast.
pub(crate) fn arp_request(from: Host, tpa: Ipv4Addr) -> Vec<u8> {
    arp(between(Mac::BROADCAST, from.mac()), surrogate_wire::arp::REQUEST, from.mac(), from.v4(), tpa)
}

pub(crate) fn v4_header(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8) -> Ipv4Header {
    Ipv4Header { src, dst, tos: 0, id: 1, dont_fragment: true, ttl: 64, protocol }
}

/// An IP packet of either family; both addresses are of the same.
pub(crate) fn ip(to: Ethernet, src: IpAddr, dst: IpAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
    // ND wants 255; nothing else minds.
    frame(|out| {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => out.ipv4(&to, &v4_header(src, dst, protocol), body.len()),
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header = Ipv6Header { src, dst, traffic_class: 0, hop_limit: 255, protocol };
                out.ipv6(&to, &header, body.len());
            }
            _ => panic!("{src} and {dst} are of different families"),
        }
        out.push(body);
    })
}

/// Adds the checksum at `at` over the pseudo-header and `body`.
fn summed(src: IpAddr, dst: IpAddr, protocol: u8, mut body: Vec<u8>, at: usize) -> Vec<u8> {
    let pseudo = match (src, dst) {
        (IpAddr::V4(_), IpAddr::V4(_)) if protocol == protocol::ICMP => Sum::ZERO,
        (IpAddr::V4(src), IpAddr::V4(dst)) => Sum::pseudo_v4(src, dst, protocol, body.len()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Sum::pseudo_v6(src, dst, protocol, body.len()),
        _ => panic!("{src} and {dst} are of different families"),
    };
    let sum = pseudo.add(&body).finish();
    body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    body
}

pub(crate) fn icmp(to: Ethernet, src: IpAddr, dst: IpAddr, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let protocol = if src.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
    let message = [&[kind, code, 0, 0], rest].concat();
    ip(to, src, dst, protocol, &summed(src, dst, protocol, message, 2))
}

/// An echo request from the client, of either family.
pub(crate) fn echo(dst: IpAddr, data: &[u8]) -> Vec<u8> {
    let (src, kind) = if dst.is_ipv4() { (CLIENT.v4().into(), 8) } else { (CLIENT.v6().into(), 128) };
    icmp(TO_GUEST, src, dst, kind, 0, &[&[0, 9, 0, 1], data].concat())
}

/// An IGMP message with its checksum.
pub(crate) fn igmp_message(to: Ethernet, src: Ipv4Addr, dst: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let sum = Sum::ZERO.add(&message).finish();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(to, src.into(), dst.into(), protocol::IGMP, &message)
}

/// The client asks, in the way of `IGMPv2` or `IGMPv3`, and wants to know within a second.
pub(crate) fn igmp_query(group: Option<Ipv4Addr>, third: bool) -> Vec<u8> {
    let dst = group.unwrap_or(ALL_HOSTS);
    let mut message = [&[0x11, 10, 0, 0][..], &group.unwrap_or(Ipv4Addr::UNSPECIFIED).octets()].concat();
    message.extend_from_slice(if third { &[2, 125, 0, 0] } else { &[] });
    igmp_message(to_group(dst.into()), CLIENT.v4(), dst, &message)
}

/// An MLD message of a host with this link-local address, with its checksum and the router alert.
pub(crate) fn mld_message(src: Ipv6Addr, dst: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let message = summed(src.into(), dst.into(), protocol::ICMPV6, message.to_vec(), 2);
    let header = Ipv6Header { src, dst, traffic_class: 0, hop_limit: 1, protocol: protocol::ICMPV6 };
    frame(|out| {
        out.ipv6_router_alert(&to_group(dst.into()), &header, message.len());
        out.push(&message);
    })
}

/// The client asks in the way of `MLDv1`, and wants to know within a second.
pub(crate) fn mld_query(group: Option<Ipv6Addr>) -> Vec<u8> {
    let (dst, asked) = (group.unwrap_or(icmpv6::ALL_NODES), group.unwrap_or(Ipv6Addr::UNSPECIFIED));
    let message = [&[130, 0, 0, 0, 3, 0xe8, 0, 0][..], &asked.octets()].concat();
    mld_message(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), dst, &message)
}

/// A neighbour solicitation of the client's for `target`.
pub(crate) fn solicitation(to: Ethernet, src: Ipv6Addr, dst: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let option: &[u8] = if src.is_unspecified() { &[] } else { &[&[1, 1][..], &CLIENT.mac().0].concat() };
    let rest = [&[0; 4], &target.octets()[..], option].concat();
    icmp(to, src.into(), dst.into(), icmpv6::NEIGHBOUR_SOLICITATION, 0, &rest)
}

/// A solicitation as hosts send it first: to the group of the target.
pub(crate) fn solicit(target: Ipv6Addr) -> Vec<u8> {
    let group = icmpv6::solicited_node(target);
    solicitation(to_group(group.into()), CLIENT.v6(), group, target)
}

/// A neighbour advertisement for `target` by `by`.
pub(crate) fn advertisement(to: Ethernet, by: Mac, dst: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let rest = [&[0x20, 0, 0, 0], &target.octets()[..], &[2, 1], &by.0].concat();
    icmp(to, target.into(), dst.into(), icmpv6::NEIGHBOUR_ADVERTISEMENT, 0, &rest)
}

pub(crate) fn udp(to: Ethernet, src: IpAddr, dst: IpAddr, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + data.len()).expect("it fits");
    let head = [ports.0.to_be_bytes(), ports.1.to_be_bytes(), len.to_be_bytes(), [0, 0]].concat();
    let datagram = summed(src, dst, protocol::UDP, [&head, data].concat(), 6);
    ip(to, src, dst, protocol::UDP, &datagram)
}

/// A datagram from the client to the guest.
pub(crate) fn datagram(ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    udp(TO_GUEST, CLIENT.v4().into(), GUEST.v4().into(), ports, data)
}

/// A segment from the client to `guest`.
pub(crate) fn segment_to(
    guest: Host,
    ports: (u16, u16),
    (seq, ack): (u32, u32),
    flags: TcpFlags,
    data: &[u8],
) -> Vec<u8> {
    segment_between(CLIENT, guest, ports, (seq, ack), (flags, 0x1000), data)
}

/// With flags and window.
pub(crate) fn segment_between(
    from: Host,
    to: Host,
    ports: (u16, u16),
    (seq, ack): (u32, u32),
    (flags, window): (TcpFlags, u16),
    data: &[u8],
) -> Vec<u8> {
    with_options((from, to), ports, (seq, ack), (flags, window), &[], data)
}

/// From the client to the guest, with these options: whole words.
pub(crate) fn segment_with_options(
    ports: (u16, u16),
    numbers: (u32, u32),
    flags: TcpFlags,
    options: &[u8],
) -> Vec<u8> {
    with_options((CLIENT, GUEST), ports, numbers, (flags, 0x1000), options, &[])
}

fn with_options(
    (from, to): (Host, Host),
    ports: (u16, u16),
    (seq, ack): (u32, u32),
    (flags, window): (TcpFlags, u16),
    options: &[u8],
    data: &[u8],
) -> Vec<u8> {
    let (src, dst) = (from.v4().into(), to.v4().into());
    let head = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    let numbers = [seq.to_be_bytes(), ack.to_be_bytes()].concat();
    let [w0, w1] = window.to_be_bytes();
    let words = u8::try_from(5 + options.len() / 4).expect("at most 15");
    let rest = [words << 4, flags.0, w0, w1, 0, 0, 0, 0];
    let segment = [&head, &numbers, &rest[..], options, data].concat();
    let segment = summed(src, dst, protocol::TCP, segment, 16);
    ip(between(to.mac(), from.mac()), src, dst, protocol::TCP, &segment)
}

pub(crate) fn segment(ports: (u16, u16), numbers: (u32, u32), flags: TcpFlags, data: &[u8]) -> Vec<u8> {
    segment_to(GUEST, ports, numbers, flags, data)
}

pub(crate) fn syn(port: u16, seq: u32) -> Vec<u8> {
    segment((40_000, port), (seq, 0), TcpFlags::SYN, &[])
}

/// A segment of the guest's own, from `port` to the client.
pub(crate) fn segment_of_guest(port: u16, seq: u32, flags: TcpFlags) -> Vec<u8> {
    let (src, dst) = (GUEST.v4().into(), CLIENT.v4().into());
    let head = [port.to_be_bytes(), 40_000_u16.to_be_bytes()].concat();
    let segment = [&head, &seq.to_be_bytes()[..], &[0, 0, 0, 8, 0x50, flags.0, 0x10, 0, 0, 0, 0, 0]].concat();
    ip(
        between(CLIENT.mac(), GUEST.mac()),
        src,
        dst,
        protocol::TCP,
        &summed(src, dst, protocol::TCP, segment, 16),
    )
}

/// What the guest says to a SYN to a port where nobody listens.
pub(crate) fn refused_by_guest(port: u16) -> Vec<u8> {
    segment_of_guest(port, 0, TcpFlags::RST | TcpFlags::ACK)
}

/// The same to a datagram.
pub(crate) fn unreachable_by_guest(port: u16) -> Vec<u8> {
    let rest = [&[0; 4], &datagram((40_000, port), b"anyone?")[14..]].concat();
    icmp(between(CLIENT.mac(), GUEST.mac()), GUEST.v4().into(), CLIENT.v4().into(), 3, 3, &rest)
}

/// Makes the IPv4 header's checksum right again after a field was changed.
pub(crate) fn mended(mut frame: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    change(&mut frame[14..34]);
    frame[24..26].fill(0);
    let len = usize::from(frame[14] & 0xf) * 4;
    let sum = Sum::ZERO.add(&frame[14..14 + len]).finish();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// A frame as the fragments that a host sends at an MTU; `id` is their identification.
pub(crate) fn cut(frame: Vec<u8>, mtu: usize, id: u16) -> Vec<Vec<u8>> {
    let frame = match frame.get(12..14) {
        Some([8, 0]) => mended(frame, |header| header[4..6].copy_from_slice(&id.to_be_bytes())),
        _ => frame,
    };
    let received = Received::plain(&frame);
    let whole = Frame::parse(&received).expect("a frame");
    let mut fragments = Fragments::of(&whole, mtu, u32::from(id)).expect("a packet");
    (0..fragments.count())
        .map(|_| self::frame(|out| fragments.write_next(out).expect("another one")))
        .collect()
}

pub(crate) fn magic(mac: Mac) -> Vec<u8> {
    [&[0xff; 6][..], &mac.0.repeat(16)].concat()
}

/// The guest asks its server, the client of the other tests, for more time with its address.
pub(crate) fn dhcp_renewal(xid: u32) -> Vec<u8> {
    let (ciaddr, chaddr) = (GUEST.v4(), GUEST.mac());
    let renewal = Renewal { xid, secs: 0, ciaddr, chaddr, options: &[12, 4, b'w', b'e', b'b', b'1'] };
    let to = between(CLIENT.mac(), GUEST.mac());
    frame(|out| renewal.write(&to, CLIENT.v4(), 1, out).expect("it fits"))
}

/// What the server says to the guest's request `xid`: an acknowledgement has a lease of an hour.
pub(crate) fn dhcp_answer(to: Ethernet, kind: u8, xid: u32) -> Vec<u8> {
    dhcp_answer_with(to, kind, xid, &[])
}

/// The same with further options.
pub(crate) fn dhcp_answer_with(to: Ethernet, kind: u8, xid: u32, options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..3].copy_from_slice(&[2, 1, 6]);
    message[4..8].copy_from_slice(&xid.to_be_bytes());
    message[28..34].copy_from_slice(&GUEST.mac().0);
    message.extend([99, 130, 83, 99, 53, 1, kind, 54, 4]);
    message.extend(CLIENT.v4().octets());
    if kind == dhcpv4::kind::ACK {
        message[16..20].copy_from_slice(&GUEST.v4().octets());
        message.extend([51, 4, 0, 0, 0x0e, 0x10]);
    }
    message.extend(options);
    message.push(255);
    let dst = if to.dst == Mac::BROADCAST { Ipv4Addr::BROADCAST } else { GUEST.v4() };
    udp(to, CLIENT.v4().into(), dst.into(), (67, 68), &message)
}

/// The identification of a DHCP message of either family.
pub(crate) fn dhcp_xid(frame: &[u8]) -> Option<u32> {
    let received = surrogate_wire::Received::plain(frame);
    let frame = surrogate_wire::Frame::parse(&received).ok()?;
    let packet = surrogate_wire::Packet::parse(&frame, surrogate_wire::Offload::None).ok()?;
    match packet.transport()? {
        Transport::Udp(udp) if udp.dst_port == 67 => {
            Dhcpv4::parse(udp.payload).ok().map(|message| message.xid)
        }
        Transport::Udp(udp) if udp.dst_port == 547 => {
            Dhcpv6::parse(udp.payload).ok().map(|message| message.xid)
        }
        _ => None,
    }
}

const DUID: [u8; 10] = [0, 3, 0, 1, 0x52, 0x54, 0, 0, 0, 11];
const IAID: u32 = 7;

/// The guest asks for more time with its IPv6 address.
pub(crate) fn dhcp6_renewal(xid: u32) -> Vec<u8> {
    let mut message = dhcpv6::Message::new(dhcpv6::kind::RENEW, xid);
    message.option(dhcpv6::option::CLIENT, &DUID);
    message.option(dhcpv6::option::SERVER, &[0, 2, 9]);
    message.association(IAID, [GUEST.v6()].into_iter());
    let to = Ethernet { src: GUEST.mac(), ..to_group(dhcpv6::ALL_SERVERS.into()) };
    frame(|out| message.write(&to, GUEST.link_local(), out).expect("it fits"))
}

/// A server gives an hour, or nothing more.
pub(crate) fn dhcp6_answer(xid: u32, seconds: u32) -> Vec<u8> {
    let [_, x0, x1, x2] = xid.to_be_bytes();
    let mut message = vec![7, x0, x1, x2, 0, 1, 0, 10];
    message.extend(DUID);
    message.extend([0, 2, 0, 3, 0, 2, 9, 0, 3, 0, 40]);
    for part in [IAID, seconds / 2, seconds / 8 * 7] {
        message.extend(part.to_be_bytes());
    }
    message.extend([0, 5, 0, 24]);
    message.extend(GUEST.v6().octets());
    message.extend([seconds.to_be_bytes(), seconds.to_be_bytes()].concat());
    udp(TO_GUEST, CLIENT.link_local().into(), GUEST.link_local().into(), (547, 546), &message)
}
