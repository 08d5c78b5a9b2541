//! A switch that forgets a station after 300 s of silence, and a group on the sleeper's port after 260 s without
//! a report (RFC 9776 8.4 with the standard values), and the querier that asks for reports every 125 s: one day
//! in the first version, one in the second, the others in the third.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;

use surrogate::rng::Rng;
use surrogate::time::{Duration, Instant};
use surrogate_wire::checksum::Sum;
use surrogate_wire::membership::{Message, RecordKind};
use surrogate_wire::{Frame, Packet, Transport, igmp, mld, protocol};

use crate::frames::{self, Station};
use crate::link::{GUEST, Lives, seconds};

const FORGETS_STATION: Duration = seconds(300);
const FORGETS_GROUP: Duration = seconds(260);
const INTERVAL: Duration = seconds(125);
const DAY: u64 = 86_400;

pub struct Switch {
    own: Station,
    next: Instant,
    heard: Instant,
    groups: BTreeMap<IpAddr, Instant>,
    reports: u64,
}

impl Switch {
    /// Knows the sleeper and its groups.
    pub fn new(now: Instant, groups: &[IpAddr]) -> Self {
        let groups = groups.iter().map(|group| (*group, now)).collect();
        Self { own: Station::numbered(2), next: now + seconds(10), heard: now, groups, reports: 0 }
    }

    fn query(&self, now: Instant) -> Vec<u8> {
        let code: &[u8] = match now.as_nanos() / 1_000_000_000 / DAY {
            0 => &[0],
            1 => &[100],
            // Robustness 2, every 125 s, no sources.
            _ => &[100, 2, 125, 0, 0],
        };
        let mut message = vec![igmp::QUERY, code[0], 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(&code[1..]);
        let sum = Sum::ZERO.add(&message).finish().to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        let all = Ipv4Addr::new(224, 0, 0, 1);
        frames::ip(self.own.mac, GUEST.mac, self.own.v4.into(), all.into(), protocol::IGMP, 1, &[&message])
    }

    fn query6(&self, now: Instant) -> Vec<u8> {
        let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let mut body = vec![0; 16];
        if now.as_nanos() / 1_000_000_000 / DAY > 0 {
            body.extend_from_slice(&[2, 125, 0, 0]);
        }
        let [high, low] = 10_000u16.to_be_bytes();
        frames::icmpv6(self.own.mac, GUEST.mac, self.own.link_local, all, 130, [high, low, 0, 0], &body)
    }

    fn is_in(&mut self, now: Instant, group: IpAddr) {
        self.reports += 1;
        self.groups.insert(group, now);
    }
}

impl Lives for Switch {
    fn due(&self) -> Instant {
        self.next
    }

    fn act(&mut self, now: Instant, _: &mut Rng, out: &mut Vec<Vec<u8>>) {
        assert!(now.since(self.heard) < FORGETS_STATION, "forgotten at {now:?}");
        for (group, reported) in &self.groups {
            assert!(now.since(*reported) < FORGETS_GROUP, "{group} forgotten at {now:?}");
        }
        // Asks every 125 s and looks at its tables each second beside.
        if now.as_nanos() / 1_000_000_000 % INTERVAL.as_secs() == 10 {
            out.extend([self.query(now), self.query6(now)]);
        }
        self.next = now + seconds(1);
    }

    fn see(&mut self, now: Instant, frame: &Frame<'_>, packet: &Packet<'_>, _: &mut Vec<Vec<u8>>) {
        if frame.dst.0[0] & 1 == 1 {
            self.heard = now;
        }
        match packet {
            Packet::Ipv4(ip, _) => match igmp::parse(ip) {
                Ok(Some(Message::Report { group, .. })) => self.is_in(now, group.into()),
                Ok(Some(Message::Records(records))) => {
                    for record in records.iter().filter(|r| r.kind == RecordKind::IsExclude) {
                        self.is_in(now, record.group.into());
                    }
                }
                Ok(None) => {}
                other => panic!("{other:?}"),
            },
            Packet::Ipv6(ip, Transport::Icmpv6(icmp)) => match mld::parse(ip, icmp) {
                Ok(Some(Message::Report { group, .. })) => self.is_in(now, group.into()),
                Ok(Some(Message::Records(records))) => {
                    for record in records.iter().filter(|r| r.kind == RecordKind::IsExclude) {
                        self.is_in(now, record.group.into());
                    }
                }
                Ok(None) => {}
                other => panic!("{other:?}"),
            },
            _ => {}
        }
    }

    fn tally(&self) -> (&'static str, u64) {
        ("group reports", self.reports)
    }
}
