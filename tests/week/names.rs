//! Somebody who looks for the guest by its names, with multicast DNS and LLMNR over IPv4 and IPv6 and NetBIOS in turn.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::RangeInclusive;

use surrogate::rng::Rng;
use surrogate::time::Instant;
use surrogate_wire::dns::{self, Data, Record, Section, Writer};
use surrogate_wire::netbios::{self, Name, Netbios};
use surrogate_wire::{Frame, Packet, Transport};

use crate::frames::{self, Station};
use crate::link::{GUEST, Lives, Questions, seconds};
use crate::router::{GONE, RENUMBERED};

pub const HOST: &[u8] = b"\x07printer\x05local\0";
const SERVICE: &[u8] = b"\x05_http\x04_tcp\x05local\0";
const INSTANCE: &[u8] = b"\x05Admin\x05_http\x04_tcp\x05local\0";
const MDNS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const LLMNR: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 252);
const MDNS6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
const LLMNR6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 3);
const IN: u16 = 1;
const FLUSH: u16 = 0x8001;

pub struct Seeker {
    own: Station,
    next: Instant,
    turn: u64,
    questions: Questions<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Host,
    Host6,
    Service,
    Llmnr,
    Llmnr6,
    Netbios,
}

const ALL: [Kind; 6] = [Kind::Host, Kind::Host6, Kind::Service, Kind::Llmnr, Kind::Llmnr6, Kind::Netbios];

impl Seeker {
    pub fn new() -> Self {
        Self {
            own: Station::numbered(120),
            next: Instant::ZERO + seconds(5),
            turn: 0,
            questions: Questions::none(),
        }
    }

    fn question(&self, kind: Kind) -> Vec<u8> {
        let mut memory = [0; 512];
        let Station { mac, v4, link_local, .. } = self.own;
        let send = |dst: Ipv4Addr, ports, ttl, data: &[u8]| {
            frames::udp(mac, GUEST.mac, v4.into(), dst.into(), ports, ttl, data)
        };
        let send6 = |dst: Ipv6Addr, ports, ttl, data: &[u8]| {
            frames::udp(mac, GUEST.mac, link_local.into(), dst.into(), ports, ttl, data)
        };
        match kind {
            Kind::Host | Kind::Service => {
                let mut query = Writer::new(&mut memory, 0, 0).unwrap();
                let (name, wanted) =
                    if kind == Kind::Host { (HOST, dns::kind::A) } else { (SERVICE, dns::kind::PTR) };
                assert!(query.question(name, wanted, IN));
                send(MDNS, (5353, 5353), 255, query.finish())
            }
            Kind::Llmnr => {
                let mut query = Writer::new(&mut memory, 77, 0).unwrap();
                assert!(query.question(b"\x07printer\0", dns::kind::A, IN));
                send(LLMNR, (50_000, 5355), 1, query.finish())
            }
            Kind::Host6 => {
                let mut query = Writer::new(&mut memory, 0, 0).unwrap();
                assert!(query.question(HOST, dns::kind::AAAA, IN));
                send6(MDNS6, (5353, 5353), 255, query.finish())
            }
            Kind::Llmnr6 => {
                let mut query = Writer::new(&mut memory, 79, 0).unwrap();
                assert!(query.question(b"\x07printer\0", dns::kind::AAAA, IN));
                send6(LLMNR6, (50_000, 5355), 1, query.finish())
            }
            Kind::Netbios => {
                let mut query = Writer::new(&mut memory, 78, 0x0110).unwrap();
                assert!(query.question(&Name::new("PRINTER", 0).unwrap().wire(), netbios::NB, IN));
                send(Ipv4Addr::new(192, 0, 2, 255), (137, 137), 64, query.finish())
            }
        }
    }
}

/// What the guest told of itself when it was awake.
pub fn announcements() -> Vec<Vec<u8>> {
    let mut memory = [0; 1024];
    let mut said = Writer::new(&mut memory, 0, 0x8400).unwrap();
    let plain = |before| Data { before, ..Data::default() };
    let (v4, v6) = (GUEST.v4.octets(), GUEST.v6.octets());
    let pointer = Data { name: Some(INSTANCE), compress: true, ..Data::default() };
    let place = Data { before: &[0, 0, 0, 0, 0, 80], name: Some(HOST), ..Data::default() };
    assert!(said.record(Section::Answer, HOST, dns::kind::A, FLUSH, 120, &plain(&v4)));
    assert!(said.record(Section::Answer, HOST, dns::kind::AAAA, FLUSH, 120, &plain(&v6)));
    assert!(said.record(Section::Answer, SERVICE, dns::kind::PTR, IN, 4_500, &pointer));
    assert!(said.record(Section::Answer, INSTANCE, dns::kind::SRV, FLUSH, 120, &place));
    assert!(said.record(Section::Answer, INSTANCE, dns::kind::TXT, FLUSH, 4_500, &plain(b"\x06path=/")));
    let own = IpAddr::from(GUEST.v4);
    let mdns = frames::udp(GUEST.mac, GUEST.mac, own, MDNS.into(), (5353, 5353), 255, said.finish());

    let name = Name::new("PRINTER", 0).unwrap().wire();
    let mut memory = [0; 512];
    let mut said = Writer::new(&mut memory, 1, 0x2910).unwrap();
    let node = [&[0, 0][..], &v4].concat();
    assert!(said.question(&name, netbios::NB, IN));
    assert!(said.record(Section::Additional, &name, netbios::NB, IN, 300_000, &plain(&node)));
    let all = Ipv4Addr::new(192, 0, 2, 255).into();
    let netbios = frames::udp(GUEST.mac, GUEST.mac, own, all, (137, 137), 64, said.finish());
    vec![mdns, netbios]
}

impl Lives for Seeker {
    fn due(&self) -> Instant {
        self.questions.until().unwrap_or(self.next)
    }

    fn act(&mut self, now: Instant, rng: &mut Rng, out: &mut Vec<Vec<u8>>) {
        self.questions.check(now);
        let kind = ALL[self.turn as usize % ALL.len()];
        out.push(self.question(kind));
        // A second, after which resolvers ask again (RFC 6762 5.2, RFC 4795 7, RFC 1002 6.2 wants less).
        self.questions.ask(now, kind, seconds(1));
        self.turn += 1;
        self.next = now + seconds(10 + rng.below(50));
    }

    fn see(&mut self, now: Instant, _: &Frame<'_>, packet: &Packet<'_>, _: &mut Vec<Vec<u8>>) {
        let Some(Transport::Udp(udp)) = packet.transport() else { return };
        let found = match (udp.src_port, self.questions.awaits()) {
            (137, Some(Kind::Netbios)) => {
                let told = Netbios::parse(udp.payload).expect("a sound answer");
                told.is_response() && told.nodes().any(|(_, address)| address == GUEST.v4)
            }
            (5353 | 5355, Some(kind)) => {
                let told = dns::Message::parse(udp.payload).expect("a sound answer");
                let over = |(_, record): (_, Record<'_>)| record.has_data(&RENUMBERED.octets());
                assert!(now < GONE || !told.records().any(over), "{RENUMBERED} is over since {GONE:?}");
                let (wanted, data) = match kind {
                    Kind::Service => (dns::kind::PTR, INSTANCE.to_vec()),
                    Kind::Host6 | Kind::Llmnr6 => (dns::kind::AAAA, GUEST.v6.octets().to_vec()),
                    _ => (dns::kind::A, GUEST.v4.octets().to_vec()),
                };
                let mut answers = told.records().filter(|(section, _)| *section == Section::Answer);
                answers.any(|(_, record)| record.kind == wanted && record.has_data(&data))
            }
            _ => false,
        };
        if found {
            self.questions.answered();
        }
    }

    fn tally(&self, _: Instant) -> (&'static str, u64, RangeInclusive<u64>) {
        self.questions.tally("names found")
    }
}
