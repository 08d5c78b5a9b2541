//! What we write, byte for byte beside what smoltcp writes.

use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::{Ethernet, Ipv4Header, Ipv6Header, icmp_header, udp_header};
use surrogate_wire::{Arp, FrameBuf, Tags, ethertype, icmpv4, icmpv6, protocol};

use crate::build::{DST, SRC, Sound, What};
use crate::reading::Upper;

/// The same frame by our own hands; `None` for what we have no emission for.
pub(crate) fn ours(sound: &Sound) -> Option<Vec<u8>> {
    let mut memory = vec![0xee; 2048];
    let mut out = FrameBuf::new(&mut memory);
    let to = Ethernet { dst: DST, src: SRC, tags: Tags::NONE };
    match &sound.what {
        What::Arp { op, spa, tpa } => {
            out.ethernet(&to, ethertype::ARP);
            let (sha, tha) = (SRC, surrogate_wire::Mac::ZERO);
            out.push(&Arp { op: *op, sha, spa: *spa, tha, tpa: *tpa }.emit());
        }
        What::V4 { src, dst, hops, upper } => {
            let pseudo = |protocol, len| Sum::pseudo_v4(*src, *dst, protocol, len);
            let (protocol, head, data) = message(upper, icmpv4::ECHO_REQUEST, protocol::ICMP, pseudo)?;
            let header =
                Ipv4Header { src: *src, dst: *dst, tos: 0, id: 0, dont_fragment: true, ttl: *hops, protocol };
            out.ipv4(&to, &header, head.len() + data.len());
            out.push(&head);
            out.push(data);
        }
        What::V6 { src, dst, hops, upper } => {
            let pseudo = |protocol, len| Sum::pseudo_v6(*src, *dst, protocol, len);
            let (protocol, head, data) = message(upper, icmpv6::ECHO_REQUEST, protocol::ICMPV6, pseudo)?;
            let header = Ipv6Header { src: *src, dst: *dst, traffic_class: 0, hop_limit: *hops, protocol };
            out.ipv6(&to, &header, head.len() + data.len());
            out.push(&head);
            out.push(data);
        }
    }
    out.finish().map(<[u8]>::to_vec)
}

fn message(
    upper: &Upper,
    echo_request: u8,
    icmp: u8,
    pseudo: impl Fn(u8, usize) -> Sum,
) -> Option<(u8, [u8; 8], &[u8])> {
    match upper {
        Upper::Udp { ports, data } => {
            let pseudo = pseudo(protocol::UDP, 8 + data.len());
            Some((protocol::UDP, udp_header(pseudo, ports.0, ports.1, data), data))
        }
        Upper::Echo { identifier, sequence, data } => {
            let pseudo = if icmp == protocol::ICMP { Sum::ZERO } else { pseudo(icmp, 8 + data.len()) };
            let [i0, i1] = identifier.to_be_bytes();
            let [s0, s1] = sequence.to_be_bytes();
            Some((icmp, icmp_header(pseudo, echo_request, 0, [i0, i1, s0, s1], data), data))
        }
        _ => None,
    }
}
