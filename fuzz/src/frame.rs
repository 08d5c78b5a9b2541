//! A frame as it comes from the network: Ethernet, tags, ARP, IPv4, IPv6, ICMP, UDP, TCP with its options. What was
//! read is written again by the functions that write our own frames, and must read the same.

use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::{Ethernet, Ipv4Header, Ipv6Header, icmp_header, udp_header};
use surrogate_wire::tcp_options::TcpOptions;
use surrogate_wire::{
    FlowKey, Frame, FrameBuf, Icmpv6Body, Malformed, Offload, Packet, Received, Transport, ethertype,
    protocol,
};

use crate::input::Input;
use crate::lan;

/// First a byte of how it is received (see [`lan::beside`]) and one whether it is mended, then the frame.
pub(crate) fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let (vlan, offload) = lan::beside(&mut input);
    let mends = input.byte() & 1 != 0;
    let mut bytes = input.rest().to_vec();
    if mends {
        lan::mend(&mut bytes);
    }
    let received = Received { bytes: &bytes, vlan, offload };
    let frame = match Frame::parse(&received) {
        Ok(frame) => frame,
        Err(why) => {
            assert_eq!(why, Malformed::Length);
            return false;
        }
    };
    assert!(frame.tags.len() <= 2 && frame.payload.len() + 14 <= bytes.len());
    let Ok(packet) = Packet::parse(&frame, offload) else { return false };
    if offload != Offload::None {
        // The kernel's word only ever lets more through.
        if let Ok(strict) = Packet::parse(&frame, Offload::None) {
            assert_eq!(strict, packet);
        }
    }
    check(&frame, &packet);
    read_back(&frame, &packet);
    !matches!(packet, Packet::Other(_) | Packet::Llc)
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for bytes in lan::captured().into_iter().filter(|bytes| bytes.len() < 1590) {
        seeds.push([&[0, 0][..], &bytes].concat());
        seeds.push([&[4, 0, 7, 1][..], &bytes].concat());
    }
    seeds
}

fn check(frame: &Frame<'_>, packet: &Packet<'_>) {
    assert!(frame.src.is_unicast());
    let flow = FlowKey::of(frame, packet);
    assert_eq!(flow.is_some(), packet.addresses().is_some());
    let Some(transport) = packet.transport() else { return };
    let payload = match packet {
        Packet::Ipv4(ip, _) => ip.payload,
        Packet::Ipv6(ip, _) => ip.payload,
        _ => &[],
    };
    match transport {
        Transport::Tcp(tcp) => {
            assert_eq!(tcp.payload.len() + tcp.options.len() + 20, payload.len());
            let options = TcpOptions::parse(tcp.options);
            assert!(options.scale.is_none_or(|scale| scale <= 14));
            assert!(tcp.segment_len() as usize <= payload.len());
        }
        Transport::Udp(udp) => assert_eq!(udp.payload.len() + 8, udp.datagram.len()),
        Transport::Icmpv4(icmp) => {
            if let Some(echo) = icmp.echo_request() {
                assert_eq!(echo.data.len() + 8, icmp.message.len());
            }
        }
        Transport::Icmpv6(icmp) => {
            if let Icmpv6Body::EchoRequest(echo) = icmp.body {
                assert_eq!(echo.data.len() + 8, icmp.message.len());
            }
        }
        Transport::Fragment { .. } | Transport::Other(_) => {}
    }
}

/// Writes what was read, as our own frames are written.
fn read_back(frame: &Frame<'_>, packet: &Packet<'_>) {
    let to = Ethernet { dst: frame.dst, src: frame.src, tags: frame.tags };
    let bytes = match packet {
        Packet::Arp(arp) => lan::written(|out| {
            out.ethernet(&to, ethertype::ARP);
            out.push(&arp.emit());
        }),
        Packet::Ipv4(ip, transport) if ip.fragment.is_none() && !ip.has_options => {
            let header = Ipv4Header {
                src: ip.src,
                dst: ip.dst,
                tos: ip.tos,
                id: ip.id,
                dont_fragment: ip.dont_fragment,
                ttl: ip.ttl,
                protocol: ip.protocol,
            };
            let body = body(transport, |number, len| Sum::pseudo_v4(ip.src, ip.dst, number, len), ip.payload);
            lan::written(|out| with(out, |out| out.ipv4(&to, &header, body.len()), &body))
        }
        Packet::Ipv6(ip, transport) if ip.fragment.is_none() => {
            let header = Ipv6Header {
                src: ip.src,
                dst: ip.dst,
                traffic_class: ip.traffic_class,
                hop_limit: ip.hop_limit,
                protocol: ip.protocol,
            };
            let body = body(transport, |number, len| Sum::pseudo_v6(ip.src, ip.dst, number, len), ip.payload);
            lan::written(|out| with(out, |out| out.ipv6(&to, &header, body.len()), &body))
        }
        _ => return,
    };
    assert!(bytes.len() >= surrogate_wire::emit::MIN_FRAME);
    let Some((again, read)) = lan::read(&bytes) else {
        // An extension header that ended the walk is not sound without those before it.
        let odd = matches!(packet, Packet::Ipv6(_, Transport::Other(_)));
        assert!(odd, "{packet:?} was written as {bytes:02x?}");
        return;
    };
    assert_eq!((again.dst, again.src), (frame.dst, frame.src));
    assert!(again.tags.iter().eq(frame.tags.iter()));
    match (packet, read) {
        (Packet::Arp(arp), Packet::Arp(read)) => assert_eq!(*arp, read),
        (Packet::Ipv4(ip, transport), Packet::Ipv4(read, read_transport)) => {
            assert_eq!(
                (ip.src, ip.dst, ip.tos, ip.ttl, ip.id),
                (read.src, read.dst, read.tos, read.ttl, read.id)
            );
            assert_eq!(ip.dont_fragment, read.dont_fragment);
            same(transport, &read_transport);
        }
        (Packet::Ipv6(ip, transport), Packet::Ipv6(read, read_transport)) => {
            assert_eq!((ip.src, ip.dst, ip.hop_limit), (read.src, read.dst, read.hop_limit));
            assert_eq!(ip.traffic_class, read.traffic_class);
            same(transport, &read_transport);
        }
        (was, is) => panic!("{was:?} was read back as {is:?}"),
    }
}

fn with(out: &mut FrameBuf<'_>, head: impl FnOnce(&mut FrameBuf<'_>), body: &[u8]) {
    head(out);
    out.push(body);
}

/// The transport part with checksums of ours.
fn body(transport: &Transport<'_>, pseudo: impl Fn(u8, usize) -> Sum, payload: &[u8]) -> Vec<u8> {
    match transport {
        Transport::Udp(udp) => {
            let len = udp.datagram.len();
            let header = udp_header(pseudo(protocol::UDP, len), udp.src_port, udp.dst_port, udp.payload);
            [&header[..], udp.payload].concat()
        }
        Transport::Icmpv4(icmp) => message(Sum::ZERO, icmp.message),
        Transport::Icmpv6(icmp) => message(pseudo(protocol::ICMPV6, icmp.message.len()), icmp.message),
        Transport::Tcp(_) => {
            let mut segment = payload.to_vec();
            if let Some(field) = segment.get_mut(16..18) {
                field.fill(0);
            }
            let sum = pseudo(protocol::TCP, segment.len()).add(&segment).finish();
            if let Some(field) = segment.get_mut(16..18) {
                field.copy_from_slice(&sum.to_be_bytes());
            }
            segment
        }
        Transport::Fragment { .. } | Transport::Other(_) => payload.to_vec(),
    }
}

fn message(pseudo: Sum, message: &[u8]) -> Vec<u8> {
    let Some((&[kind, code, _, _, a, b, c, d], data)) = message.split_first_chunk::<8>() else {
        // Shorter than an ICMPv6 message that we write: as it is, with its sum.
        let mut short = message.to_vec();
        if let Some(field) = short.get_mut(2..4) {
            field.fill(0);
        }
        let sum = pseudo.add(&short).finish();
        if let Some(field) = short.get_mut(2..4) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
        return short;
    };
    [&icmp_header(pseudo, kind, code, [a, b, c, d], data)[..], data].concat()
}

fn same(was: &Transport<'_>, is: &Transport<'_>) {
    match (was, is) {
        (Transport::Udp(was), Transport::Udp(is)) => {
            assert_eq!((was.src_port, was.dst_port, was.payload), (is.src_port, is.dst_port, is.payload));
        }
        (Transport::Tcp(was), Transport::Tcp(is)) => assert_eq!(was, is),
        (Transport::Icmpv4(was), Transport::Icmpv4(is)) => {
            assert_eq!((was.kind, was.code, was.echo_request()), (is.kind, is.code, is.echo_request()));
        }
        (Transport::Icmpv6(was), Transport::Icmpv6(is)) => {
            assert_eq!((was.kind, was.code, was.body), (is.kind, is.code, is.body));
        }
        (was, is) => assert_eq!(was.protocol(), is.protocol()),
    }
}
