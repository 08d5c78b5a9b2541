//! The frames that stations of the week's link send.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::{Ethernet, Ipv4Header, Ipv6Header, icmp_header, udp_header};
use surrogate_wire::{Arp, FrameBuf, Mac, Tags, ethertype, protocol};

/// Who a station is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    pub mac: Mac,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    pub link_local: Ipv6Addr,
}

impl Station {
    pub const fn numbered(n: u8) -> Self {
        Self {
            mac: Mac([0x52, 0x54, 0, 0, 0, n]),
            v4: Ipv4Addr::new(192, 0, 2, n),
            v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n as u16),
            link_local: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n as u16),
        }
    }
}

/// The MAC that frames for an address go to: of a group its own, else `unicast`.
pub fn mac_for(address: IpAddr, unicast: Mac) -> Mac {
    match address {
        IpAddr::V4(v4) if v4.is_broadcast() => Mac::BROADCAST,
        IpAddr::V4(v4) if v4.is_multicast() => {
            let [_, b, c, d] = v4.octets();
            Mac([1, 0, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(v6) if v6.is_multicast() => {
            let [.., a, b, c, d] = v6.octets();
            Mac([0x33, 0x33, a, b, c, d])
        }
        _ => unicast,
    }
}

pub fn arp(from: Mac, to: Mac, arp: &Arp) -> Vec<u8> {
    write(|out| {
        out.ethernet(&Ethernet { dst: to, src: from, tags: Tags::NONE }, ethertype::ARP);
        out.push(&arp.emit());
    })
}

/// A datagram; `to` is the station's MAC if `dst` is no group.
pub fn udp(from: Mac, to: Mac, src: IpAddr, dst: IpAddr, ports: (u16, u16), ttl: u8, data: &[u8]) -> Vec<u8> {
    let len = 8 + data.len();
    let sum = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Sum::pseudo_v4(src, dst, protocol::UDP, len),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Sum::pseudo_v6(src, dst, protocol::UDP, len),
        mixed => panic!("{mixed:?}"),
    };
    let header = udp_header(sum, ports.0, ports.1, data);
    ip(from, to, src, dst, protocol::UDP, ttl, &[&header, data])
}

/// An `ICMPv6` message.
pub fn icmpv6(
    from: Mac,
    to: Mac,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    kind: u8,
    rest: [u8; 4],
    body: &[u8],
) -> Vec<u8> {
    let header = icmp_header(Sum::pseudo_v6(src, dst, protocol::ICMPV6, 8 + body.len()), kind, 0, rest, body);
    let ttl = if matches!(kind, 130..=132 | 143) { 1 } else { 255 };
    ip(from, to, src.into(), dst.into(), protocol::ICMPV6, ttl, &[&header, body])
}

/// An IP packet with router alert where the protocol is one of multicast membership.
pub fn ip(from: Mac, to: Mac, src: IpAddr, dst: IpAddr, protocol: u8, ttl: u8, payload: &[&[u8]]) -> Vec<u8> {
    let ethernet = Ethernet { dst: mac_for(dst, to), src: from, tags: Tags::NONE };
    let len = payload.iter().map(|part| part.len()).sum();
    write(|out| {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header = Ipv4Header { src, dst, tos: 0, id: 0, dont_fragment: true, ttl, protocol };
                if protocol == protocol::IGMP {
                    out.ipv4_router_alert(&ethernet, &header, len);
                } else {
                    out.ipv4(&ethernet, &header, len);
                }
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header = Ipv6Header { src, dst, traffic_class: 0, hop_limit: ttl, protocol };
                if ttl == 1 {
                    out.ipv6_router_alert(&ethernet, &header, len);
                } else {
                    out.ipv6(&ethernet, &header, len);
                }
            }
            mixed => panic!("{mixed:?}"),
        }
        payload.iter().for_each(|part| out.push(part));
    })
}

pub fn write(fill: impl FnOnce(&mut FrameBuf<'_>)) -> Vec<u8> {
    let mut memory = [0; 2048];
    let mut out = FrameBuf::new(&mut memory);
    fill(&mut out);
    out.finish().expect("2 KiB are enough").to_vec()
}
