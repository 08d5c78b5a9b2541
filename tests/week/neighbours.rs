//! Neighbours that check now and then whether the sleeper is still there, as kernels do: unicast polls of ARP
//! and of neighbour discovery, three of them a second apart before they give up, and a question to all after
//! that; and a ping.

use core::net::IpAddr;
use core::ops::RangeInclusive;

use surrogate::rng::Rng;
use surrogate::time::Instant;
use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::icmp_header;
use surrogate_wire::{Arp, Frame, Icmpv6Body, Mac, Packet, Transport, arp, protocol};

use crate::frames::{self, Station};
use crate::link::{GUEST, Lives, Questions, seconds};

pub struct Neighbour {
    own: Station,
    next: Instant,
    turn: u64,
    questions: Questions<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Arp,
    Advertisement,
    Echo,
    Echo6,
}

impl Neighbour {
    pub fn new(number: u8) -> Self {
        let next = Instant::ZERO + seconds(u64::from(number));
        Self { own: Station::numbered(number), next, turn: 0, questions: Questions::none() }
    }

    fn question(&self, kind: Kind, to_all: bool) -> Vec<u8> {
        let Station { mac, v4, v6, .. } = self.own;
        match kind {
            Kind::Arp => {
                let to = if to_all { Mac::BROADCAST } else { GUEST.mac };
                let ask = Arp { op: arp::REQUEST, sha: mac, spa: v4, tha: Mac::ZERO, tpa: GUEST.v4 };
                frames::arp(mac, to, &ask)
            }
            Kind::Advertisement => {
                let dst = if to_all { surrogate_wire::icmpv6::solicited_node(GUEST.v6) } else { GUEST.v6 };
                let body = [&GUEST.v6.octets()[..], &[1, 1], &mac.0].concat();
                frames::icmpv6(mac, GUEST.mac, v6, dst, 135, [0; 4], &body)
            }
            Kind::Echo => {
                let header = icmp_header(Sum::ZERO, 8, 0, [0, 1, 0, 1], b"is anybody there");
                let parts: [&[u8]; 2] = [&header, b"is anybody there"];
                frames::ip(mac, GUEST.mac, v4.into(), GUEST.v4.into(), protocol::ICMP, 64, &parts)
            }
            Kind::Echo6 => {
                frames::icmpv6(mac, GUEST.mac, v6, GUEST.v6, 128, [0, 1, 0, 1], b"is anybody there")
            }
        }
    }
}

impl Lives for Neighbour {
    fn due(&self) -> Instant {
        self.questions.until().unwrap_or(self.next)
    }

    fn act(&mut self, now: Instant, rng: &mut Rng, out: &mut Vec<Vec<u8>>) {
        self.questions.check(now);
        let kinds = [Kind::Arp, Kind::Advertisement, Kind::Echo, Kind::Echo6];
        let kind = kinds[self.turn as usize % kinds.len()];
        out.push(self.question(kind, self.turn % 20 < 4));
        // RFC 4861 10: RetransTimer; ARP of Linux asks again as soon.
        self.questions.ask(now, kind, seconds(1));
        self.turn += 1;
        self.next = now + seconds(20 + rng.below(60));
    }

    fn see(&mut self, _: Instant, frame: &Frame<'_>, packet: &Packet<'_>, _: &mut Vec<Vec<u8>>) {
        if frame.dst != self.own.mac {
            return;
        }
        let kind = match packet {
            Packet::Arp(reply) if reply.op == arp::REPLY && reply.spa == GUEST.v4 => Kind::Arp,
            Packet::Ipv4(_, Transport::Icmpv4(_)) => Kind::Echo,
            Packet::Ipv6(_, Transport::Icmpv6(icmp)) => match icmp.body {
                Icmpv6Body::Advertisement(told) if IpAddr::from(told.target) == IpAddr::from(GUEST.v6) => {
                    Kind::Advertisement
                }
                _ => Kind::Echo6,
            },
            other => panic!("nobody asked for {other:?}"),
        };
        assert_eq!(self.questions.awaits(), Some(kind));
        self.questions.answered();
    }

    fn tally(&self, _: Instant) -> (&'static str, u64, RangeInclusive<u64>) {
        self.questions.tally("neighbour questions answered")
    }
}
