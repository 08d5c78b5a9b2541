//! Datagrams about names: who asks, whether he may be answered, and the way to him or to all on the link.
//!
//! Names are a matter of one link, so a source beyond it is told nothing. What goes to one address that has
//! proved nothing is at most [`FACTOR`] times as long as what came from there (as RFC 9000 8.1 has it).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::{self, Ethernet, Ipv4Header, Ipv6Header};
use surrogate_wire::{Frame, FrameBuf, Ipv4, Ipv6, Mac, Packet, Tags, Transport, Udp, protocol};

use super::envelope::is_single_host;
use super::ndisc;
use crate::guest::identity::NicIdentity;

/// How much longer than a question an answer by unicast may be, in bytes of IP packets.
pub(super) const FACTOR: usize = 3;

/// A datagram from another host of the link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram {
    /// Where it went.
    pub(super) dst: IpAddr,
    /// Whether that is one of the guest's own addresses.
    pub(super) is_unicast: bool,
    /// Who sent it.
    pub(super) asker: Asker,
}

/// Who asked, and how much may be said to him.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    mac: Mac,
    tags: Tags,
    /// His address.
    pub(super) address: IpAddr,
    /// His port.
    pub(super) port: u16,
    /// Ours that he asked at, if he knew.
    at: Option<IpAddr>,
    /// Bytes of payload that an answer may have.
    pub(super) room: usize,
}

impl Datagram {
    /// Reads `packet`; `None` if it is no datagram, or from nobody on the link who can be answered.
    pub(super) fn heard(identity: &NicIdentity, frame: &Frame<'_>, packet: &Packet<'_>) -> Option<Self> {
        let (len, header) = match packet {
            Packet::Ipv4(ip, _) => (ip.packet.len(), Ipv4::HEADER),
            Packet::Ipv6(ip, _) => (ip.packet.len(), Ipv6::HEADER),
            Packet::Arp(_) | Packet::Other(_) | Packet::Llc => return None,
        };
        let (Some(Transport::Udp(udp)), Some((src, dst))) = (packet.transport(), packet.addresses()) else {
            return None;
        };
        let is_unicast = identity.holds(dst);
        let ours = frame.dst == identity.mac || !(is_unicast || frame.dst.is_unicast());
        if !ours || frame.src == identity.mac || udp.src_port == 0 {
            return None;
        }
        if !is_single_host(identity, src) || !identity.is_on_link(src) {
            return None;
        }
        let asker = Asker {
            mac: frame.src,
            tags: frame.tags,
            address: src,
            port: udp.src_port,
            at: is_unicast.then_some(dst),
            room: (FACTOR * len).saturating_sub(header + Udp::HEADER),
        };
        Some(Self { dst, is_unicast, asker })
    }
}

/// Where a datagram goes, from which address of the guest's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    to: Ethernet,
    src: IpAddr,
    dst: IpAddr,
    dst_port: u16,
}

impl Way {
    /// Back to who asked; `None` if the guest has no address of his family.
    pub(super) fn back(identity: &NicIdentity, asker: &Asker) -> Option<Self> {
        let src = asker.at.filter(|at| identity.holds(*at)).or_else(|| source(identity, asker.address))?;
        let to = Ethernet { dst: asker.mac, src: identity.mac, tags: asker.tags };
        Some(Self { to, src, dst: asker.address, dst_port: asker.port })
    }

    /// To all that listen to `group`, in the guest's own VLAN.
    pub(super) fn group(identity: &NicIdentity, group: IpAddr, port: u16) -> Option<Self> {
        let dst = match group {
            IpAddr::V4(v4) => {
                let [_, b, c, d] = v4.octets();
                Mac([1, 0, 0x5e, b & 0x7f, c, d])
            }
            IpAddr::V6(v6) => ndisc::multicast_mac(v6),
        };
        let to = Ethernet { dst, src: identity.mac, tags: Tags::for_vid(identity.vlan) };
        Some(Self { to, src: source(identity, group)?, dst: group, dst_port: port })
    }

    /// Writes the whole frame; `None` if it does not fit.
    pub(super) fn send(&self, src_port: u16, ttl: u8, payload: &[u8], out: &mut FrameBuf<'_>) -> Option<()> {
        let len = Udp::HEADER + payload.len();
        let pseudo = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header =
                    Ipv4Header { src, dst, tos: 0, id: 0, dont_fragment: true, ttl, protocol: protocol::UDP };
                out.ipv4(&self.to, &header, len);
                Sum::pseudo_v4(src, dst, protocol::UDP, len)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header =
                    Ipv6Header { src, dst, traffic_class: 0, hop_limit: ttl, protocol: protocol::UDP };
                out.ipv6(&self.to, &header, len);
                Sum::pseudo_v6(src, dst, protocol::UDP, len)
            }
            _ => return None,
        };
        out.push(&emit::udp_header(pseudo, src_port, self.dst_port, payload));
        out.push(payload);
        out.finish().map(|_| ())
    }
}

/// Bytes of payload that a datagram in a frame of this capacity may have, whatever its family and tags.
pub(super) const fn room(out: &FrameBuf<'_>) -> usize {
    out.capacity().saturating_sub(ENVELOPE)
}

/// Ethernet with two tags, IPv6 and UDP.
const ENVELOPE: usize = 14 + 8 + Ipv6::HEADER + Udp::HEADER;

/// The address of the guest's that a datagram to `dst` comes from: one of the same prefix, else of the same scope,
/// else of the same family (RFC 6724 5 in short).
fn source(identity: &NicIdentity, dst: IpAddr) -> Option<IpAddr> {
    let local = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || is_link_group(v6),
    };
    let family = || identity.addresses.iter().filter(|held| held.address.is_ipv4() == dst.is_ipv4());
    let same_prefix = family().find(|held| held.covers(dst));
    let same_scope = || family().find(|held| local(held.address) == local(dst));
    same_prefix.or_else(same_scope).or_else(|| family().next()).map(|held| held.address)
}

const fn is_link_group(v6: Ipv6Addr) -> bool {
    v6.segments()[0] == 0xff02
}

/// Whether the guest is declared to listen on UDP `port`.
pub(super) fn listens(identity: &NicIdentity, port: u16) -> bool {
    identity.traffic.listen.as_ref().is_some_and(|listen| listen.udp.binary_search(&port).is_ok())
}

/// The guest's IPv4 address that `asker` can reach best.
pub(super) fn v4_towards(identity: &NicIdentity, asker: IpAddr) -> Option<Ipv4Addr> {
    match source(identity, asker)? {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use surrogate_wire::emit::MIN_FRAME;

    use crate::guest::identity::InterfaceAddress;
    use crate::responder::testing::{
        GUEST, GUEST_V4, PEER, PEER_V4, TO_GUEST, build, guest, read, udp_v4_to, v4_header,
    };

    fn asker(to: &Ethernet, header: &Ipv4Header, data: &[u8]) -> Option<Asker> {
        let bytes = udp_v4_to(to, header, 5353, 5353, data);
        let (frame, packet) = read(&bytes);
        Datagram::heard(&guest(), &frame, &packet).map(|heard| heard.asker)
    }

    #[test]
    fn only_single_hosts_of_the_link_are_answered() {
        let header = v4_header(protocol::UDP);
        let to_group = Ethernet { dst: Mac([1, 0, 0x5e, 0, 0, 0xfb]), ..TO_GUEST };
        let to = |src: [u8; 4]| Ipv4Header { src: src.into(), dst: [224, 0, 0, 251].into(), ..header };
        assert!(asker(&to_group, &to([192, 0, 2, 99]), b"x").is_some());
        assert!(asker(&to_group, &to([169, 254, 7, 7]), b"x").is_some(), "link-local");
        assert!(asker(&to_group, &to([198, 51, 100, 1]), b"x").is_none(), "off the link");
        assert!(asker(&to_group, &to([192, 0, 2, 255]), b"x").is_none(), "a broadcast address");
        assert!(asker(&to_group, &to(GUEST_V4.octets()), b"x").is_none(), "the guest's own address");
        assert!(asker(&Ethernet { src: GUEST, ..to_group }, &to([192, 0, 2, 99]), b"x").is_none());
        assert!(asker(&to_group, &header, b"x").is_none(), "a unicast address in a group's frame");
        assert_eq!(asker(&TO_GUEST, &header, b"x").and_then(|asker| asker.at), Some(GUEST_V4.into()));
    }

    #[test]
    fn an_answer_to_one_host_is_at_most_three_times_as_long() {
        let asker = asker(&TO_GUEST, &v4_header(protocol::UDP), &[0; 50]).unwrap();
        assert_eq!(asker.room, 3 * (20 + 8 + 50) - 20 - 8);
        let answer = build(|out| {
            Way::back(&guest(), &asker).unwrap().send(5353, 255, &vec![7; asker.room], out).unwrap();
        });
        let (frame, Packet::Ipv4(ip, Transport::Udp(udp))) = read(&answer) else { panic!("{answer:x?}") };
        assert_eq!((frame.dst, frame.src, ip.src, ip.dst), (PEER, GUEST, GUEST_V4, PEER_V4));
        assert_eq!((ip.packet.len(), udp.src_port, udp.dst_port, ip.ttl), (3 * 78, 5353, 5353, 255));
    }

    #[test]
    fn the_source_is_of_the_same_link_as_the_destination() {
        let held = |text: &str, prefix_len| InterfaceAddress { address: text.parse().unwrap(), prefix_len };
        let addresses = vec![
            held("192.0.2.11", 24),
            held("198.51.100.11", 24),
            held("2001:db8::11", 64),
            held("fe80::11", 64),
        ];
        let identity = NicIdentity { addresses, ..guest() };
        for (dst, src) in [
            ("198.51.100.7", Some("198.51.100.11")),
            ("169.254.1.1", Some("192.0.2.11")),
            ("224.0.0.251", Some("192.0.2.11")),
            ("fe80::7", Some("fe80::11")),
            ("2001:db8::7", Some("2001:db8::11")),
            ("ff02::fb", Some("fe80::11")),
        ] {
            let expected: Option<IpAddr> = src.map(|src| src.parse().unwrap());
            assert_eq!(source(&identity, dst.parse().unwrap()), expected, "{dst}");
        }
        let v4_only = NicIdentity { addresses: vec![held("192.0.2.11", 24)], ..guest() };
        assert_eq!(source(&v4_only, "ff02::fb".parse().unwrap()), None);
    }

    #[test]
    fn a_frame_says_how_much_it_has_room_for() {
        let mut memory = [0; 1514 + 8];
        assert_eq!(room(&FrameBuf::new(&mut memory)), 1500 - 48);
        assert_eq!(room(&FrameBuf::new(&mut memory[..MIN_FRAME])), 0);
    }
}
