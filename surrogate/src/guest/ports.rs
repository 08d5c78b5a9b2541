//! Which ports of a guest are closed, learned from what the guest itself answered while it was awake: a reset or a
//! port unreachable says closed; a SYN-ACK or a datagram from the port says open.
//!
//! Closed is believed only if it was said in the last [`MEMORY`] in which the guest was awake, and nothing said open
//! in that time. A service may have been started since, without any word on the network; the longer ago the answer,
//! the likelier. Time asleep does not count: who sleeps starts nothing. Whoever is wrongly taken for closed is refused
//! as if its service were down; whoever is not known wakes the guest as ever, so all doubt is on that side:
//!
//! - An answer is forgotten by halves of that time, so that none is believed for longer.
//! - A packet filter that admits some and refuses others makes a port both open and closed: it is not believed.
//! - What one address of the guest refuses another may serve: services listen on one, or over one family.
//! - A guest's packets with others' addresses are those of hosts behind it.
//!
//! Bitmaps in pages that are made where a port is seen; all ports of one address take some 70 KiB.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};
use surrogate_wire::{Packet, TcpFlags, Transport, icmpv4, icmpv6, protocol};

use super::identity::NicIdentity;
use crate::time::{Duration, Instant};

/// How long an answer counts, in time that the guest is awake.
pub const MEMORY: Duration = Duration::from_mins(10);
/// What is forgotten at once.
const HALF: Duration = Duration::from_mins(5);

/// Of which protocol a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What is known of one NIC's ports. See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Ports {
    young: Seen,
    old: Seen,
    /// When the young ones began, as if the guest had never slept.
    begun: Option<Instant>,
    asleep: Option<Instant>,
}

/// The same as a value: the ports that a sleeper is known to have closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortsLearned {
    /// At each of its addresses.
    pub closed: Vec<ClosedAt>,
}

/// The closed ports of one address, as ranges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedAt {
    /// The address.
    pub address: IpAddr,
    /// First and last port of each range, ascending.
    pub tcp: Vec<(u16, u16)>,
    /// The same.
    pub udp: Vec<(u16, u16)>,
}

/// What was seen in a half of the time, of each address.
#[derive(Clone, Debug, Default)]
struct Seen(Vec<SeenAt>);

#[derive(Clone, Debug)]
struct SeenAt {
    address: IpAddr,
    tcp: Two,
    udp: Two,
}

#[derive(Clone, Debug, Default)]
struct Two {
    closed: Bits,
    open: Bits,
}

impl Ports {
    /// Takes note of a packet that the awake guest sent.
    pub fn learn(&mut self, now: Instant, identity: &NicIdentity, packet: &Packet<'_>) {
        let Some((src, _)) = packet.addresses().filter(|(src, _)| identity.holds(*src)) else { return };
        let Some((of, port, is_open)) = told(src, packet) else { return };
        self.forget(now);
        if let Some(two) = self.young.of_mut(of, src) {
            if is_open { two.open.insert(port) } else { two.closed.insert(port) }
        }
    }

    /// Whether the guest is known not to listen on a port of one of its addresses.
    #[must_use]
    pub fn is_closed(&self, of: Of, address: IpAddr, port: u16) -> bool {
        let seen = [&self.young, &self.old].map(|seen| seen.of(of, address));
        let two = || seen.into_iter().flatten();
        two().any(|two| two.closed.contains(port)) && !two().any(|two| two.open.contains(port))
    }

    /// The guest fell asleep. Again, for one that sleeps: nothing changes.
    pub fn sleep(&mut self, now: Instant) {
        if self.asleep.is_none() {
            self.forget(now);
            self.asleep = Some(now);
        }
    }

    /// It is awake.
    pub fn wake(&mut self, now: Instant) {
        if let Some(asleep) = self.asleep.take() {
            self.begun = self.begun.map(|begun| begun + now.since(asleep));
        }
    }

    /// What must survive a restart of the daemon.
    #[must_use]
    pub fn learned(&self) -> PortsLearned {
        let mut closed: Vec<ClosedAt> = Vec::new();
        for SeenAt { address, .. } in self.young.0.iter().chain(&self.old.0) {
            let [tcp, udp] = [Of::Tcp, Of::Udp].map(|of| self.ranges(of, *address));
            let known = closed.iter().any(|known| known.address == *address);
            let nothing = tcp.is_empty() && udp.is_empty();
            if !known && !nothing {
                closed.push(ClosedAt { address: *address, tcp, udp });
            }
        }
        PortsLearned { closed }
    }

    /// Takes what was learned of a guest that has slept since. How old it was is not known: it is forgotten next.
    pub fn restore(learned: &PortsLearned, now: Instant) -> Self {
        let mut ports = Self { begun: Some(now), asleep: Some(now), ..Self::default() };
        for ClosedAt { address, tcp, udp } in learned.closed.iter().take(ADDRESSES) {
            for (of, ranges) in [(Of::Tcp, tcp), (Of::Udp, udp)] {
                let Some(two) = ports.old.of_mut(of, *address) else { continue };
                for (first, last) in ranges.iter().take(RANGES) {
                    (*first..=*last).for_each(|port| two.closed.insert(port));
                }
            }
        }
        ports
    }

    fn ranges(&self, of: Of, address: IpAddr) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for port in (0..=u16::MAX).filter(|port| self.is_closed(of, address, *port)) {
            let full = ranges.len() == RANGES;
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
                _ if full => break,
                _ => ranges.push((port, port)),
            }
        }
        ranges
    }

    /// Forgets what is too old.
    fn forget(&mut self, now: Instant) {
        let begun = *self.begun.get_or_insert(now);
        let since = now.since(begun);
        if since >= MEMORY {
            (self.young, self.old, self.begun) = (Seen::default(), Seen::default(), Some(now));
        } else if since >= HALF {
            self.old = core::mem::take(&mut self.young);
            self.begun = Some(begun + HALF);
        }
    }
}

impl Seen {
    fn of(&self, of: Of, address: IpAddr) -> Option<&Two> {
        let at = self.0.iter().find(|at| at.address == address)?;
        Some(match of {
            Of::Tcp => &at.tcp,
            Of::Udp => &at.udp,
        })
    }

    /// Those of an address, which is entered if it was not.
    fn of_mut(&mut self, of: Of, address: IpAddr) -> Option<&mut Two> {
        if !self.0.iter().any(|at| at.address == address) {
            self.0.push(SeenAt { address, tcp: Two::default(), udp: Two::default() });
        }
        let at = self.0.iter_mut().find(|at| at.address == address)?;
        Some(match of {
            Of::Tcp => &mut at.tcp,
            Of::Udp => &mut at.udp,
        })
    }
}

/// Which of its ports the host at `src` tells of, and whether it is open.
fn told(src: IpAddr, packet: &Packet<'_>) -> Option<(Of, u16, bool)> {
    match packet.transport()? {
        Transport::Tcp(tcp) => {
            let flags = tcp.flags.0 & CONTROLS;
            match TcpFlags(flags) {
                flags if flags == TcpFlags::SYN | TcpFlags::ACK => Some((Of::Tcp, tcp.src_port, true)),
                // To a SYN without ACK: "<SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>" (RFC 9293 3.10.7.1). The
                // reset of a connection has its next sequence number.
                flags if flags == TcpFlags::RST | TcpFlags::ACK && tcp.seq == 0 => {
                    Some((Of::Tcp, tcp.src_port, false))
                }
                _ => None,
            }
        }
        Transport::Udp(udp) => Some((Of::Udp, udp.src_port, true)),
        Transport::Icmpv4(icmp) if (icmp.kind, icmp.code) == (icmpv4::UNREACHABLE, icmpv4::CODE_PORT) => {
            let (dst, port) = quoted_v4(icmp.message.get(8..)?)?;
            (dst == src).then_some((Of::Udp, port, false))
        }
        Transport::Icmpv6(icmp) if (icmp.kind, icmp.code) == (icmpv6::UNREACHABLE, icmpv6::CODE_PORT) => {
            let (dst, port) = quoted_v6(icmp.message.get(8..)?)?;
            (dst == src).then_some((Of::Udp, port, false))
        }
        _ => None,
    }
}

/// Destination address and port of a quoted datagram: its header and eight bytes are always there (RFC 792).
fn quoted_v4(quote: &[u8]) -> Option<(IpAddr, u16)> {
    let header = quote.first_chunk::<20>()?;
    let [version_ihl, _, _, _, _, _, f0, f1, _, number, _, _, _, _, _, _, dst @ ..] = *header;
    let is_first = u16::from_be_bytes([f0, f1]) & 0x1fff == 0;
    let udp = quote.get(usize::from(version_ihl & 0x0f) * 4..)?;
    (number == protocol::UDP && is_first).then_some((IpAddr::from(dst), destination_port(udp)?))
}

/// The same of IPv6, without extension headers.
fn quoted_v6(quote: &[u8]) -> Option<(IpAddr, u16)> {
    let (header, udp) = quote.split_first_chunk::<40>()?;
    let dst = header.last_chunk::<16>()?;
    let [_, _, _, _, _, _, number, ..] = *header;
    (number == protocol::UDP).then_some((IpAddr::from(*dst), destination_port(udp)?))
}

fn destination_port(udp: &[u8]) -> Option<u16> {
    match udp {
        [_, _, d0, d1, ..] => Some(u16::from_be_bytes([*d0, *d1])),
        _ => None,
    }
}

/// A set of ports.
#[derive(Clone, Debug, Default)]
struct Bits(Option<Box<[Option<Box<Page>>; PAGES]>>);

type Page = [u64; 16];

impl Bits {
    fn insert(&mut self, port: u16) {
        let pages = self.0.get_or_insert_with(|| Box::new([const { None }; PAGES]));
        let (page, word, bit) = place(port);
        if let Some(page) = pages.get_mut(page)
            && let Some(word) = page.get_or_insert_with(|| Box::new([0; 16])).get_mut(word)
        {
            *word |= bit;
        }
    }

    fn contains(&self, port: u16) -> bool {
        let (page, word, bit) = place(port);
        let page = self.0.as_ref().and_then(|pages| pages.get(page)?.as_ref());
        page.and_then(|page| page.get(word)).is_some_and(|word| word & bit != 0)
    }
}

/// Page, word and bit of a port.
const fn place(port: u16) -> (usize, usize, u64) {
    (port as usize >> 10, port as usize >> 6 & 15, 1 << (port & 63))
}

const PAGES: usize = 64;
/// Ranges of closed ports of each protocol and address that are remembered: of what is beyond nothing is known.
const RANGES: usize = 512;
/// Addresses of which that is taken back.
const ADDRESSES: usize = 64;
/// FIN, SYN, RST, ACK.
const CONTROLS: u8 = 0x17;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use core::net::{Ipv4Addr, Ipv6Addr};

    use surrogate_wire::checksum::Sum;
    use surrogate_wire::emit::{Ethernet, Ipv4Header, Ipv6Header, icmp_header, udp_header};
    use surrogate_wire::{Frame, FrameBuf, Mac, Offload, Received, Tags};

    use super::*;
    use crate::guest::identity::{GuestId, InterfaceAddress, NicId, PortId};
    use crate::policy::traffic::TrafficPolicy;

    const GUEST_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
    const PEER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
    const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11);
    const PEER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99);
    const V4: IpAddr = IpAddr::V4(GUEST_V4);
    const V6: IpAddr = IpAddr::V6(GUEST_V6);
    const OUT: Ethernet = Ethernet {
        dst: Mac([0x52, 0x54, 0, 0, 0, 0x99]),
        src: Mac([0x52, 0x54, 0, 0, 0, 0x11]),
        tags: Tags::NONE,
    };

    fn guest() -> NicIdentity {
        NicIdentity {
            guest: GuestId(1),
            nic: NicId(1),
            port: PortId(1),
            mac: OUT.src,
            vlan: None,
            addresses: vec![
                InterfaceAddress { address: GUEST_V4.into(), prefix_len: 24 },
                InterfaceAddress { address: GUEST_V6.into(), prefix_len: 64 },
            ],
            groups: Vec::new(),
            router: false,
            traffic: TrafficPolicy::default(),
        }
    }

    fn at(minutes: u64) -> Instant {
        Instant::ZERO + Duration::from_mins(minutes)
    }

    fn v4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let header = Ipv4Header { src, dst, tos: 0, id: 0, dont_fragment: true, ttl: 64, protocol };
        let mut memory = [0; 256];
        let mut out = FrameBuf::new(&mut memory);
        out.ipv4(&OUT, &header, payload.len());
        out.push(payload);
        out.as_bytes().to_vec()
    }

    fn v6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let header = Ipv6Header { src, dst, traffic_class: 0, hop_limit: 64, protocol };
        let mut memory = [0; 256];
        let mut out = FrameBuf::new(&mut memory);
        out.ipv6(&OUT, &header, payload.len());
        out.push(payload);
        out.as_bytes().to_vec()
    }

    /// A segment from a port of `src`.
    fn segment_of(src: Ipv4Addr, port: u16, seq: u32, flags: TcpFlags) -> Vec<u8> {
        let [p0, p1] = port.to_be_bytes();
        let mut segment = [p0, p1, 0x9c, 0x40, 0, 0, 0, 0, 0, 0, 0, 9, 0x50, flags.0, 4, 0, 0, 0, 0, 0];
        segment[4..8].copy_from_slice(&seq.to_be_bytes());
        let sum = Sum::pseudo_v4(src, PEER_V4, protocol::TCP, segment.len()).add(&segment).finish();
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        v4(src, PEER_V4, protocol::TCP, &segment)
    }

    fn segment(port: u16, seq: u32, flags: TcpFlags) -> Vec<u8> {
        segment_of(GUEST_V4, port, seq, flags)
    }

    fn refused(port: u16) -> Vec<u8> {
        segment(port, 0, TcpFlags::RST | TcpFlags::ACK)
    }

    fn syn_ack(port: u16) -> Vec<u8> {
        segment(port, 7, TcpFlags::SYN | TcpFlags::ACK)
    }

    /// A datagram from a port of the guest.
    fn datagram(port: u16) -> Vec<u8> {
        let pseudo = Sum::pseudo_v4(GUEST_V4, PEER_V4, protocol::UDP, 8);
        v4(GUEST_V4, PEER_V4, protocol::UDP, &udp_header(pseudo, port, 40_000, &[]))
    }

    /// Port unreachable about a datagram to a port of the guest, in both families.
    fn unreachable(port: u16) -> [Vec<u8>; 2] {
        let asked = udp_header(Sum::ZERO, 40_000, port, &[]);
        let quote = v4(PEER_V4, GUEST_V4, protocol::UDP, &asked)[14..].to_vec();
        let head = icmp_header(Sum::ZERO, icmpv4::UNREACHABLE, icmpv4::CODE_PORT, [0; 4], &quote);
        let over_v4 = v4(GUEST_V4, PEER_V4, protocol::ICMP, &[&head[..], &quote].concat());
        let quote = v6(PEER_V6, GUEST_V6, protocol::UDP, &asked)[14..].to_vec();
        let pseudo = Sum::pseudo_v6(GUEST_V6, PEER_V6, protocol::ICMPV6, 8 + quote.len());
        let head = icmp_header(pseudo, icmpv6::UNREACHABLE, icmpv6::CODE_PORT, [0; 4], &quote);
        [over_v4, v6(GUEST_V6, PEER_V6, protocol::ICMPV6, &[&head[..], &quote].concat())]
    }

    fn learn(ports: &mut Ports, now: Instant, bytes: &[u8]) {
        let frame = Frame::parse(&Received::plain(bytes)).unwrap();
        ports.learn(now, &guest(), &Packet::parse(&frame, Offload::None).unwrap());
    }

    #[test]
    fn what_the_guest_refuses_is_closed() {
        let mut ports = Ports::default();
        learn(&mut ports, at(0), &refused(81));
        let [over_v4, _] = unreachable(9998);
        let [_, over_v6] = unreachable(9999);
        learn(&mut ports, at(0), &over_v4);
        learn(&mut ports, at(0), &over_v6);
        assert!(ports.is_closed(Of::Tcp, V4, 81) && !ports.is_closed(Of::Udp, V4, 81));
        assert!(ports.is_closed(Of::Udp, V4, 9998) && ports.is_closed(Of::Udp, V6, 9999));
        assert!(
            !ports.is_closed(Of::Udp, V6, 9998) && !ports.is_closed(Of::Udp, V4, 9999),
            "there it may be open"
        );
        assert!(!ports.is_closed(Of::Tcp, V6, 81));
        assert!(!ports.is_closed(Of::Udp, V4, 40_000) && !ports.is_closed(Of::Tcp, V4, 40_000));
    }

    #[test]
    fn only_the_answer_to_a_syn_says_so_and_only_the_guests_own() {
        let mut ports = Ports::default();
        for (seq, flags) in [
            (5, TcpFlags::RST | TcpFlags::ACK),
            (0, TcpFlags::RST),
            (0, TcpFlags::ACK),
            (0, TcpFlags::RST | TcpFlags::ACK | TcpFlags::FIN),
        ] {
            learn(&mut ports, at(0), &segment(81, seq, flags));
            assert!(!ports.is_closed(Of::Tcp, V4, 81), "{seq} {flags:?}");
        }
        // Of a host behind the guest.
        let behind = Ipv4Addr::new(198, 51, 100, 7);
        learn(&mut ports, at(0), &segment_of(behind, 81, 0, TcpFlags::RST | TcpFlags::ACK));
        assert!(!ports.is_closed(Of::Tcp, V4, 81));
    }

    #[test]
    fn a_port_that_is_open_to_anybody_is_not_closed() {
        let [no_service, _] = unreachable(53);
        for (of, port, open, closed) in
            [(Of::Tcp, 81, syn_ack(81), refused(81)), (Of::Udp, 53, datagram(53), no_service)]
        {
            for said in [[&open, &closed], [&closed, &open]] {
                let mut ports = Ports::default();
                said.iter().for_each(|frame| learn(&mut ports, at(0), frame));
                assert!(!ports.is_closed(of, V4, port), "{of:?}");
            }
        }
    }

    #[test]
    fn it_is_forgotten_after_ten_minutes_awake_and_not_while_it_sleeps() {
        let closed = |learned: u64, asleep: u64| {
            let mut ports = Ports::default();
            learn(&mut ports, at(0), &syn_ack(22));
            learn(&mut ports, at(learned), &refused(81));
            ports.sleep(at(asleep));
            ports.is_closed(Of::Tcp, V4, 81)
        };
        assert!(closed(0, 1) && closed(0, 9) && closed(4, 9) && closed(6, 14));
        assert!(!closed(0, 10) && !closed(0, 600) && !closed(6, 16));

        let mut ports = Ports::default();
        learn(&mut ports, at(0), &refused(81));
        for night in 0..3 {
            ports.sleep(at(night * 1000 + 2));
            ports.sleep(at(night * 1000 + 900));
            assert!(ports.is_closed(Of::Tcp, V4, 81), "night {night}");
            ports.wake(at(night * 1000 + 1000));
        }
        ports.sleep(at(3002));
        assert!(ports.is_closed(Of::Tcp, V4, 81), "awake for eight minutes in all");
        ports.wake(at(5000));
        ports.sleep(at(5003));
        assert!(!ports.is_closed(Of::Tcp, V4, 81));
    }

    #[test]
    fn an_open_port_is_forgotten_as_well() {
        let mut ports = Ports::default();
        learn(&mut ports, at(0), &syn_ack(81));
        learn(&mut ports, at(11), &refused(81));
        assert!(ports.is_closed(Of::Tcp, V4, 81));
    }

    #[test]
    fn what_is_kept_on_disk_is_short_and_read_with_care() {
        let mut ports = Ports::default();
        for port in (0..=u16::MAX).filter(|port| port % 1000 != 22) {
            ports.young.of_mut(Of::Tcp, V4).unwrap().closed.insert(port);
        }
        let learned = ports.learned();
        let [ClosedAt { address: V4, tcp, udp }] = &learned.closed[..] else { panic!("{learned:?}") };
        assert_eq!((tcp.len(), tcp[0], tcp[1], udp.len()), (67, (0, 21), (23, 1021), 0));
        let back = Ports::restore(&learned, at(3));
        assert!(back.is_closed(Of::Tcp, V4, 65_535) && !back.is_closed(Of::Tcp, V4, 22));
        assert_eq!(back.learned(), learned);
        // Nobody knows how old it was.
        let mut woken = back.clone();
        woken.wake(at(4));
        woken.sleep(at(9));
        assert!(!woken.is_closed(Of::Tcp, V4, 65_535));

        for port in (0..=u16::MAX).step_by(2) {
            ports.young.of_mut(Of::Udp, V6).unwrap().closed.insert(port);
        }
        let learned = ports.learned();
        assert_eq!((learned.closed.len(), learned.closed[1].udp.len()), (2, RANGES));
        let wild =
            |address| ClosedAt { address, tcp: vec![(9, 3), (0, u16::MAX)], udp: vec![(5, 5); 100_000] };
        let many = (0..100).map(|n| wild(IpAddr::from([192, 0, 2, n]))).collect();
        let back = Ports::restore(&PortsLearned { closed: many }, at(0));
        assert!(back.is_closed(Of::Tcp, V4, 7) && back.old.0.len() == ADDRESSES);
    }

    proptest! {
        #[test]
        fn nothing_quoted_makes_it_panic(quote in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = quoted_v4(&quote);
            let _ = quoted_v6(&quote);
        }

        #[test]
        fn a_quote_names_the_port_that_was_asked(port: u16, options in 0_u8..11) {
            let ihl = 5 + options;
            let mut quote = vec![0; usize::from(ihl) * 4];
            (quote[0], quote[9]) = (0x40 | ihl, 17);
            quote[16..20].copy_from_slice(&GUEST_V4.octets());
            quote.extend([&[0, 1][..], &port.to_be_bytes(), &[0; 4]].concat());
            prop_assert_eq!(quoted_v4(&quote), Some((GUEST_V4.into(), port)));
            let mut quote = vec![0; 40];
            quote[6] = 17;
            quote[24..].copy_from_slice(&GUEST_V6.octets());
            quote.extend([&[0, 1][..], &port.to_be_bytes(), &[0; 4]].concat());
            prop_assert_eq!(quoted_v6(&quote), Some((GUEST_V6.into(), port)));
        }
    }
}
