//! Datagrams in parts: how we cut one, and what the engine makes of parts that come in any order, twice, overlapping,
//! changed, or not at all.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use surrogate_wire::emit::{Ipv4Header, Ipv6Header};
use surrogate_wire::fragments::Fragments;
use surrogate_wire::{Frame, FrameBuf, Packet, Received, Transport, protocol};

use crate::engine::World;
use crate::input::Input;
use crate::lan;

/// First how the datagram is and how it is cut, then one byte of what each step is and what it needs.
pub(crate) fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let how = input.byte();
    let len = usize::from(input.u16() % 8000);
    let mtu = 28 + usize::from(input.u16() % 1500);
    let whole = datagram(how, len);
    let Some(parts) = cut(&whole, mtu) else { return false };
    let mut world = World::new();
    let mut steps = 0;
    while !input.is_empty() && steps < 200 {
        let step = input.byte();
        if step & 0x80 != 0 {
            world.wait(Duration::from_millis(u64::from(step & 0x7f) * 100));
        } else if let Some(part) = parts.get(usize::from(step) % parts.len().max(1)) {
            world.hear(&changed(part, &mut input));
        }
        steps += 1;
    }
    parts.len() > 1 && world.concerned() > 0
}

/// An echo request or a datagram to an open or a closed port, from the client to the first guest.
fn datagram(how: u8, len: usize) -> Vec<u8> {
    let guest = lan::guest(0x11, None);
    let port = if how & 2 == 0 { 7_u16 } else { 5001 };
    let data = vec![0x5a; len];
    let body = if how & 4 == 0 {
        let kind = if how & 1 == 0 { 8 } else { 128 };
        [&[kind, 0, 0, 0, 0, 9, 0, 1][..], &data].concat()
    } else {
        let ([p0, p1], [l0, l1]) = (port.to_be_bytes(), u16::try_from(8 + len).unwrap_or(0).to_be_bytes());
        [&[0x9c, 0x40, p0, p1, l0, l1, 0, 0][..], &data].concat()
    };
    let to = lan::to(guest.mac);
    let mut bytes = lan::written(|out| {
        if how & 1 == 0 {
            let protocol = if how & 4 == 0 { protocol::ICMP } else { protocol::UDP };
            let (src, dst) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 0x11));
            let (tos, id, ttl) = (0, 77, 64);
            let header = Ipv4Header { src, dst, tos, id, dont_fragment: false, ttl, protocol };
            out.ipv4(&to, &header, body.len());
        } else {
            let protocol = if how & 4 == 0 { protocol::ICMPV6 } else { protocol::UDP };
            let net = |last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
            let header =
                Ipv6Header { src: net(1), dst: net(0x11), traffic_class: 0, hop_limit: 64, protocol };
            out.ipv6(&to, &header, body.len());
        }
        out.push(&body);
    });
    lan::mend(&mut bytes);
    bytes
}

/// The parts, after a look at whether they make the whole again. `None` where the MTU has no room for any.
fn cut(whole: &[u8], mtu: usize) -> Option<Vec<Vec<u8>>> {
    let frame = Frame::parse(&Received::plain(whole)).expect("a frame of ours");
    let (_, packet) = lan::read(whole).expect("a sound frame of ours");
    let mut fragments = Fragments::of(&frame, mtu, 0xdead_beef)?;
    let (count, mut parts, mut payload) = (fragments.count(), Vec::new(), Vec::new());
    loop {
        let mut memory = [0; 1700];
        let mut out = FrameBuf::new(&mut memory);
        if fragments.write_next(&mut out).is_none() {
            break;
        }
        let part = out.as_bytes();
        let (frame, read) = lan::read(part).expect("a part is sound");
        assert!(frame.payload.len() <= mtu.max(46), "a part of {} bytes", frame.payload.len());
        let (bytes, place) = match read {
            Packet::Ipv4(ip, _) => (ip.payload, ip.fragment),
            Packet::Ipv6(ip, _) => (ip.payload, ip.fragment),
            other => panic!("no part: {other:?}"),
        };
        if let Some(place) = place {
            assert_eq!(usize::from(place.offset), payload.len());
            assert_eq!(place.more, parts.len() + 1 < count);
        }
        payload.extend_from_slice(bytes);
        parts.push(part.to_vec());
    }
    assert_eq!(parts.len(), count);
    let was: (IpAddr, &[u8]) = match packet {
        Packet::Ipv4(ip, Transport::Icmpv4(_) | Transport::Udp(_)) => (ip.dst.into(), ip.payload),
        Packet::Ipv6(ip, Transport::Icmpv6(_) | Transport::Udp(_)) => (ip.dst.into(), ip.payload),
        other => panic!("not what was written: {other:?}"),
    };
    assert!(payload == was.1, "the parts for {} do not make the whole", was.0);
    Some(parts)
}

/// Another byte, another place or another end.
fn changed(part: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    let mut part = part.to_vec();
    let how = input.byte();
    if how & 1 != 0 {
        let (at, value) = (usize::from(input.u16()), input.byte());
        // Behind the Ethernet header, which is as it must be.
        if let Some(byte) = part.get_mut(14..).and_then(|rest| rest.get_mut(at)) {
            *byte = value;
        }
    }
    if how & 2 != 0 {
        part.truncate(14 + usize::from(input.u16()));
    }
    if how & 4 != 0 {
        let place_at = if part.get(12) == Some(&8) { 20 } else { 56 };
        let [high, low] = input.u16().to_be_bytes();
        if let Some(place) = part.get_mut(place_at..place_at + 2) {
            place.copy_from_slice(&[high & 0x3f, low]);
        }
    }
    lan::mend(&mut part);
    part
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for how in 0..8 {
        let head = [how, 0x0f, 0xa0, 0x05, 0xb0];
        for order in [&[0, 1, 2][..], &[2, 1, 0], &[0, 0, 1, 2, 2], &[1, 0]] {
            let steps = order.iter().flat_map(|part| [*part, 0]);
            seeds.push(head.into_iter().chain(steps).chain([0xff, 0xff, 0xff]).collect());
        }
    }
    seeds
}
