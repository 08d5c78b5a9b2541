//! A switch that forgets a group on the sleeper's port after 260 s without a report (RFC 9776 8.4 with the standard
//! values), and the querier that asks for reports every 125 s: one day in the first version, one in the second, the
//! others in the third. Each hour somebody else leaves a group: it asks whether there is anybody left in it, and forgets
//! it unless it is told within two seconds (8.8). And a switch further on, which is sent nothing but what goes to all,
//! and must not forget the station.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::RangeInclusive;
use std::collections::BTreeMap;

use surrogate::rng::Rng;
use surrogate::time::{Duration, Instant};
use surrogate_wire::checksum::Sum;
use surrogate_wire::membership::{Message, RecordKind};
use surrogate_wire::{Frame, Mac, Packet, Transport, igmp, mld, protocol};

use crate::frames::{self, Station};
use crate::link::{GUEST, Lives, seconds};

/// Switches forget a station after 300 s of silence; we promise less (docs/packet-policy.md).
const SILENCE: Duration = seconds(121);
const FORGETS_GROUP: Duration = seconds(260);
const INTERVAL: Duration = seconds(125);
const DAY: u64 = 86_400;

pub struct Switch {
    own: Station,
    next: Instant,
    /// Of each group: when it was reported last, and until when it must be.
    groups: BTreeMap<IpAddr, (Instant, Instant)>,
    /// Which group is asked for by itself, since when, and how many of the two questions have gone out.
    leaving: Option<(IpAddr, Instant, u8)>,
    hours: u64,
    reports: u64,
    owed: u64,
    /// Not owed any more, and harmless.
    beyond_its_time: u64,
}

impl Switch {
    /// Knows the sleeper's groups, each with when the sleeper is in it no more.
    pub fn new(now: Instant, groups: &[(IpAddr, Instant)]) -> Self {
        let groups = groups.iter().map(|(group, until)| (*group, (now, *until))).collect();
        let (own, next) = (Station::numbered(2), now + seconds(9));
        Self { own, next, groups, leaving: None, hours: 0, reports: 0, owed: 0, beyond_its_time: 0 }
    }

    /// A query for one group, or for all.
    fn query(&self, now: Instant, group: Option<Ipv4Addr>) -> Vec<u8> {
        let tenths = if group.is_some() { 10 } else { 100 };
        let (code, more): (u8, &[u8]) = match now.as_nanos() / 1_000_000_000 / DAY {
            0 => (0, &[]),
            1 => (tenths, &[]),
            // Robustness 2, every 125 s, no sources.
            _ => (tenths, &[2, 125, 0, 0]),
        };
        let asked = group.unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
        let mut message = [&[igmp::QUERY, code, 0, 0][..], &asked, more].concat();
        let sum = Sum::ZERO.add(&message).finish().to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        let to = group.unwrap_or(Ipv4Addr::new(224, 0, 0, 1));
        frames::ip(self.own.mac, GUEST.mac, self.own.v4.into(), to.into(), protocol::IGMP, 1, &[&message])
    }

    fn query6(&self, now: Instant, group: Option<Ipv6Addr>) -> Vec<u8> {
        let to = group.unwrap_or(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
        let mut body = group.unwrap_or(Ipv6Addr::UNSPECIFIED).octets().to_vec();
        if now.as_nanos() / 1_000_000_000 / DAY > 0 {
            body.extend_from_slice(&[2, 125, 0, 0]);
        }
        let [high, low] = if group.is_some() { 1_000u16 } else { 10_000 }.to_be_bytes();
        frames::icmpv6(self.own.mac, GUEST.mac, self.own.link_local, to, 130, [high, low, 0, 0], &body)
    }

    fn query_one(&self, now: Instant, group: IpAddr) -> Vec<u8> {
        match group {
            IpAddr::V4(group) => self.query(now, Some(group)),
            IpAddr::V6(group) => self.query6(now, Some(group)),
        }
    }

    fn is_in(&mut self, now: Instant, group: IpAddr) {
        let known = self.groups.get_mut(&group).unwrap_or_else(|| panic!("it was never in {group}"));
        let (reported, until) = known;
        *reported = now;
        *if now < *until { &mut self.reports } else { &mut self.beyond_its_time } += 1;
        if self.leaving.is_some_and(|(leaving, ..)| leaving == group) {
            self.leaving = None;
        }
    }

    /// Somebody leaves the next group. IGMPv1 has no such question, nor is it asked while its queriers count as there.
    fn is_left(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) {
        let groups: Vec<_> = self.groups.iter().filter(|(_, (_, until))| now < *until).collect();
        let (group, _) = groups[self.hours as usize % groups.len()];
        self.hours += 1;
        if group.is_ipv6() || now > Instant::ZERO + seconds(DAY) + FORGETS_GROUP * 2 {
            self.leaving = Some((*group, now, 1));
            out.push(self.query_one(now, *group));
        }
    }
}

impl Lives for Switch {
    fn due(&self) -> Instant {
        self.next
    }

    /// Looks at its tables each second.
    fn act(&mut self, now: Instant, _: &mut Rng, out: &mut Vec<Vec<u8>>) {
        for (group, (reported, until)) in &self.groups {
            assert!(now >= *until || now.since(*reported) < FORGETS_GROUP, "{group} forgotten at {now:?}");
        }
        let second = now.as_nanos() / 1_000_000_000;
        if second % INTERVAL.as_secs() == 21 {
            // All were asked for 11 s ago, and had 10 s to answer.
            let late =
                |(reported, until): &(Instant, Instant)| now < *until && now.since(*reported) > seconds(11);
            assert!(!self.groups.values().any(late), "not reported by {now:?}: {:?}", self.groups);
        }
        if second % INTERVAL.as_secs() == 10 {
            out.extend([self.query(now, None), self.query6(now, None)]);
            self.owed += self.groups.values().filter(|(_, until)| now < *until).count() as u64;
        }
        match self.leaving {
            None if second % 3_600 == 1_800 => {
                self.owed += 1;
                self.is_left(now, out);
            }
            Some((group, asked, 1)) if now >= asked + seconds(1) => {
                self.leaving = Some((group, asked, 2));
                out.push(self.query_one(now, group));
            }
            Some((group, asked, _)) => assert!(now < asked + seconds(2), "{group} left at {now:?}"),
            None => {}
        }
        self.next = now + seconds(1);
    }

    fn see(&mut self, now: Instant, _: &Frame<'_>, packet: &Packet<'_>, _: &mut Vec<Vec<u8>>) {
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

    fn tally(&self, _: Instant) -> (&'static str, u64, RangeInclusive<u64>) {
        // The last answer may be under way; where a question is repeated there may be two; and one that comes between a
        // general query and its answer is answered by that.
        let questions = self.hours + 3 * self.groups.len() as u64;
        ("group reports", self.reports, self.owed - questions..=self.owed + questions)
    }
}

/// The switch further on.
pub struct Beyond {
    heard: Instant,
    times: u64,
}

impl Beyond {
    pub const fn new(now: Instant) -> Self {
        Self { heard: now, times: 0 }
    }
}

impl Lives for Beyond {
    fn due(&self) -> Instant {
        self.heard + SILENCE
    }

    fn act(&mut self, now: Instant, _: &mut Rng, _: &mut Vec<Vec<u8>>) {
        panic!("not a word to all since {:?}, at {now:?}", self.heard);
    }

    fn see(&mut self, now: Instant, frame: &Frame<'_>, _: &Packet<'_>, _: &mut Vec<Vec<u8>>) {
        if [Mac::BROADCAST, ALL_NODES].contains(&frame.dst) {
            self.heard = now;
            self.times += 1;
        }
    }

    fn tally(&self, now: Instant) -> (&'static str, u64, RangeInclusive<u64>) {
        // Not much more often either: it is noise for everybody else.
        let least = now.since(Instant::ZERO).as_secs() / SILENCE.as_secs();
        ("words to all", self.times, least..=2 * least)
    }
}

/// The MAC of ff02::1.
const ALL_NODES: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
