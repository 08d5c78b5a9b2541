//! MLD in a sleeper's name (RFC 2710, RFC 9777): so that snooping switches go on sending it its groups, among them
//! the solicited-node groups of its addresses, without which nobody finds it.
//!
//! Learns the groups from the guest's own reports and answers queries for them; what both have in common with
//! IGMP is in [`membership`](super::membership).

use core::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use surrogate_wire::icmpv6::{ALL_NODES, solicited_node};
use surrogate_wire::membership::{Message, Reporter};
use surrogate_wire::{Frame, FrameBuf, Packet, Tags, Transport, mld};

use super::membership::{Membership, Memberships, Reported, Saying};
use super::presence::Heard;
use crate::engine::Answered;
use crate::guest::identity::NicIdentity;
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Mld {
    memberships: Memberships<Ipv6Addr>,
    /// The link-local address that the guest reported from last.
    reporter: Option<Ipv6Addr>,
}

/// What must survive a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MldLearned {
    /// The groups that the guest told of.
    pub groups: Vec<Membership<Ipv6Addr>>,
    /// The link-local address that it told of them from.
    pub reporter: Option<Ipv6Addr>,
}

impl Mld {
    /// Takes what the awake guest itself reports.
    pub fn learn(&mut self, now: Instant, from_guest: bool, _: &Frame<'_>, packet: &Packet<'_>) {
        if from_guest
            && let Packet::Ipv6(ip, Transport::Icmpv6(icmp)) = packet
            && let Ok(Some(message)) = mld::parse(ip, icmp)
        {
            self.memberships.learn(now, &message);
            if ip.src.is_unicast_link_local() {
                self.reporter = Some(ip.src);
            }
        }
    }

    /// Takes queries, and reports of others.
    pub fn hear(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        identity: &NicIdentity,
        frame: &Frame<'_>,
        packet: &Packet<'_>,
    ) -> Heard {
        let Packet::Ipv6(ip, Transport::Icmpv6(icmp)) = packet else { return Heard::NotMine };
        let Ok(Some(message)) = mld::parse(ip, icmp) else { return Heard::NotMine };
        if let Message::Query(query) = &message {
            // "any of the addresses (unicast or multicast) assigned to the interface" (RFC 9777 5.1.15).
            let to_all = ip.dst == ALL_NODES || query.group == Some(ip.dst);
            let to_guest = frame.dst == identity.mac && identity.holds(IpAddr::V6(ip.dst));
            if !(to_all || to_guest) {
                return Heard::Noted;
            }
        }
        // A report to the guest alone was heard by no querier, and can come from beyond the link.
        if let Message::Report { group, .. } = &message
            && (ip.dst != *group || frame.dst.is_unicast())
        {
            return Heard::Noted;
        }
        if self.memberships.hear(now, rng, &message) { Heard::Owed(Answered::Mld) } else { Heard::Noted }
    }

    /// When a report is due.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.memberships.due()
    }

    /// Writes the next report that is due.
    pub fn speak(
        &mut self,
        now: Instant,
        _: &mut Rng,
        identity: &NicIdentity,
        out: &mut FrameBuf<'_>,
    ) -> Option<Answered> {
        let own = |address: IpAddr| match address {
            IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
            IpAddr::V6(_) | IpAddr::V4(_) => None,
        };
        let held = identity.addresses.iter().find_map(|held| own(held.address));
        let from = Reporter {
            mac: identity.mac,
            tags: Tags::for_vid(identity.vlan),
            address: held.or(self.reporter).unwrap_or(Ipv6Addr::UNSPECIFIED),
        };
        let said = self.memberships.speak(now, ROOM, |saying| match saying {
            Saying::Report(_, group) => mld::write_report(&from, group, out),
            Saying::Records(records) => mld::write_records(&from, records.iter(), out),
        });
        said.map(|()| Answered::Mld)
    }

    /// The guest sleeps: from now on it is in the groups learned, the known ones, and those of its addresses.
    pub fn sleep(&mut self, _: Instant, _: &mut Rng, identity: &NicIdentity) {
        let v6 = |address: IpAddr| match address {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        };
        let of_addresses = identity.addresses.iter().filter_map(|held| v6(held.address)).map(solicited_node);
        self.memberships.sleep(of_addresses.chain(identity.groups.iter().copied().filter_map(v6)));
    }

    /// It answers for itself.
    pub fn wake(&mut self) {
        self.memberships.wake();
    }

    /// The groups that the guest told of.
    pub fn groups(&self) -> impl Iterator<Item = IpAddr> {
        self.memberships.groups().map(IpAddr::V6)
    }

    /// How often these have changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.memberships.changes()
    }

    /// How often a limit kept a group or a source from being remembered.
    #[must_use]
    pub fn limited(&self) -> u64 {
        self.memberships.limited()
    }

    /// What must survive a restart.
    #[must_use]
    pub fn learned(&self, _: Instant) -> MldLearned {
        MldLearned { groups: self.memberships.learned(), reporter: self.reporter }
    }

    /// With what survived one.
    #[must_use]
    pub fn restore(learned: &MldLearned, now: Instant, ago: Duration) -> Self {
        Self {
            memberships: Memberships::restore(&learned.groups, now - ago),
            reporter: learned.reporter.filter(Ipv6Addr::is_unicast_link_local),
        }
    }
}

impl Reported for Ipv6Addr {
    fn is_reported(self) -> bool {
        let scope = self.octets()[1] & 0x0f;
        self.is_multicast() && self != ALL_NODES && scope > 1
    }
}

/// For records: in a packet that every link takes whole (RFC 8200 5).
const ROOM: usize = 1280 - mld::BEFORE_RECORDS;

#[cfg(test)]
mod tests {
    use surrogate_wire::checksum::Sum;
    use surrogate_wire::emit::{Ethernet, Ipv6Header};
    use surrogate_wire::membership::{Address as _, Record, RecordKind};
    use surrogate_wire::protocol;

    use super::*;
    use crate::guest::identity::InterfaceAddress;
    use crate::responder::testing::{GUEST, PEER, build, guest, read};

    const LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);
    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99);
    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x1234);
    const SOURCE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77);
    /// Of the guest's address 2001:db8::11.
    const SOLICITED: &str = "ff02::1:ff00:11";

    fn sent(src: Ipv6Addr, dst: Ipv6Addr, message: &[u8]) -> Vec<u8> {
        let mut message = message.to_vec();
        let sum = Sum::pseudo_v6(src, dst, protocol::ICMPV6, message.len()).add(&message).finish();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let header = Ipv6Header { src, dst, traffic_class: 0, hop_limit: 1, protocol: protocol::ICMPV6 };
        let to = Ethernet { dst: dst.group_mac(), src: PEER, tags: Tags::NONE };
        build(|out| {
            out.ipv6_router_alert(&to, &header, message.len());
            out.push(&message);
        })
    }

    /// A query to be answered within a second; with sources one of version 2.
    fn query(group: Option<Ipv6Addr>, sources: Option<&[Ipv6Addr]>) -> Vec<u8> {
        let mut message = vec![mld::QUERY, 0, 0, 0, 0x03, 0xe8, 0, 0];
        message.extend(group.unwrap_or(Ipv6Addr::UNSPECIFIED).octets());
        if let Some(sources) = sources {
            message.extend([2, 125, 0, u8::try_from(sources.len()).unwrap()]);
            sources.iter().for_each(|source| message.extend(source.octets()));
        }
        sent(ROUTER, group.unwrap_or(ALL_NODES), &message)
    }

    fn record(src: Ipv6Addr, kind: RecordKind, group: Ipv6Addr, sources: &[Ipv6Addr]) -> Vec<u8> {
        let from = Reporter { mac: GUEST, tags: Tags::NONE, address: src };
        build(|out| mld::write_records(&from, [Record { kind, group, sources }].into_iter(), out).unwrap())
    }

    struct Sleeper {
        mld: Mld,
        identity: NicIdentity,
        now: Instant,
        rng: Rng,
    }

    impl Sleeper {
        /// That has told of these, awake, and sleeps.
        fn that_said(identity: NicIdentity, reports: &[Vec<u8>]) -> Self {
            let mut of = Self { mld: Mld::default(), identity, now: Instant::ZERO, rng: Rng::seeded(7) };
            for bytes in reports {
                let (frame, packet) = read(bytes);
                of.mld.learn(of.now, true, &frame, &packet);
            }
            of.mld.sleep(of.now, &mut of.rng, &of.identity);
            of
        }

        fn hears(&mut self, bytes: &[u8]) -> Heard {
            let (frame, packet) = read(bytes);
            self.mld.hear(self.now, &mut self.rng, &self.identity, &frame, &packet)
        }

        /// What is said to `bytes`, within a second.
        fn answers(&mut self, bytes: &[u8]) -> Vec<String> {
            self.now = self.now + Duration::from_secs(5);
            let heard = self.hears(bytes);
            let mut all = Vec::new();
            while let Some(at) = self.mld.due() {
                assert!(at > self.now && at.since(self.now) <= Duration::from_secs(1), "{at:?}");
                let mut memory = [0xee; 1600];
                let mut out = FrameBuf::new(&mut memory);
                let said = self.mld.speak(at, &mut self.rng, &self.identity, &mut out);
                assert_eq!(said, Some(Answered::Mld));
                all.push(in_words(out.as_bytes()));
            }
            assert_eq!(heard, if all.is_empty() { Heard::Noted } else { Heard::Owed(Answered::Mld) });
            all.sort();
            all
        }
    }

    fn in_words(bytes: &[u8]) -> String {
        let (frame, packet) = read(bytes);
        let Packet::Ipv6(ip, Transport::Icmpv6(icmp)) = packet else { panic!("{packet:?}") };
        assert_eq!((frame.src, frame.dst), (GUEST, ip.dst.group_mac()));
        let what = match mld::parse(&ip, &icmp) {
            Ok(Some(Message::Report { group, .. })) => group.to_string(),
            Ok(Some(Message::Records(records))) => records
                .iter()
                .map(|r| format!("{:?} {} {:?}", r.kind, r.group, r.sources))
                .collect::<Vec<_>>()
                .join(", "),
            other => panic!("{other:?}"),
        };
        format!("{what} from {} to {}", ip.src, ip.dst)
    }

    #[test]
    fn the_groups_of_its_addresses_are_reported_without_being_told() {
        let mut sleeper = Sleeper::that_said(guest(), &[]);
        let third = format!("IsExclude {SOLICITED} [] from :: to ff02::16");
        let group = SOLICITED.parse().unwrap();
        for query in [query(None, Some(&[])), query(Some(group), Some(&[]))] {
            assert_eq!(sleeper.answers(&query), [third.as_str()]);
        }
        let first = format!("{SOLICITED} from :: to {SOLICITED}");
        assert_eq!(sleeper.answers(&query(None, None)), [first]);
    }

    #[test]
    fn reports_come_from_the_guests_link_local_address_its_own_or_as_it_was_seen() {
        let report = record(LOCAL, RecordKind::ToExclude, GROUP, &[]);
        let mut sleeper = Sleeper::that_said(guest(), std::slice::from_ref(&report));
        let said = sleeper.answers(&query(Some(GROUP), None));
        assert_eq!(said, [format!("{GROUP} from {LOCAL} to {GROUP}")]);

        let held: Ipv6Addr = "fe80::abcd".parse().unwrap();
        let own = InterfaceAddress { address: held.into(), prefix_len: 64 };
        let identity = NicIdentity { addresses: vec![own], ..guest() };
        let mut sleeper = Sleeper::that_said(identity, &[report]);
        let said = sleeper.answers(&query(Some(GROUP), None));
        assert_eq!(said, [format!("{GROUP} from {held} to {GROUP}")]);
    }

    #[test]
    fn a_report_that_no_querier_heard_is_not_enough() {
        let report = [&[mld::REPORT_V1, 0, 0, 0, 0, 0, 0, 0][..], &GROUP.octets()].concat();
        for (dst, said) in [(GROUP, 0), (LOCAL, 1), (ALL_NODES, 1)] {
            let own = InterfaceAddress { address: LOCAL.into(), prefix_len: 64 };
            let identity = NicIdentity { addresses: vec![own], groups: vec![GROUP.into()], ..guest() };
            let mut sleeper = Sleeper::that_said(identity, &[]);
            sleeper.hears(&query(Some(GROUP), None));
            let mut theirs = sent(ROUTER, dst, &report);
            if dst == LOCAL {
                theirs[..6].copy_from_slice(&GUEST.0);
            }
            assert_eq!(sleeper.hears(&theirs), Heard::Noted);
            assert_eq!(usize::from(sleeper.mld.due().is_some()), said, "to {dst}");
        }
    }

    #[test]
    fn learned_groups_and_sources_are_reported() {
        let identity = NicIdentity { groups: vec!["ff02::fb".parse().unwrap()], ..guest() };
        let none = Ipv6Addr::UNSPECIFIED;
        let reports = [
            record(none, RecordKind::ToExclude, SOLICITED.parse().unwrap(), &[]),
            record(LOCAL, RecordKind::Allow, GROUP, &[SOURCE]),
        ];
        let mut sleeper = Sleeper::that_said(identity, &reports);
        let all = format!(
            "IsExclude {SOLICITED} [], IsInclude {GROUP} [{SOURCE}], IsExclude ff02::fb [] from {LOCAL} to ff02::16"
        );
        assert_eq!(sleeper.answers(&query(None, Some(&[]))), [all]);
        let one = format!("IsInclude {GROUP} [{SOURCE}] from {LOCAL} to ff02::16");
        assert_eq!(sleeper.answers(&query(Some(GROUP), Some(&[SOURCE, ROUTER]))), [one]);
        assert_eq!(sleeper.answers(&query(Some(GROUP), Some(&[ROUTER]))), [""; 0]);
    }

    #[test]
    fn groups_that_every_node_is_in_or_that_do_not_leave_it_are_never_reported() {
        let groups = ["ff02::1", "ff01::1", "ff01::fb", "ff00::5", "224.0.0.251"];
        let identity = NicIdentity {
            addresses: Vec::new(),
            groups: groups.map(|group| group.parse().unwrap()).into(),
            ..guest()
        };
        let reports = [
            record(LOCAL, RecordKind::ToExclude, ALL_NODES, &[]),
            record(LOCAL, RecordKind::ToExclude, "ff01::9".parse().unwrap(), &[]),
        ];
        let mut sleeper = Sleeper::that_said(identity, &reports);
        assert_eq!(sleeper.answers(&query(None, Some(&[]))), [""; 0]);
        assert_eq!(sleeper.answers(&query(None, None)), [""; 0]);
    }

    #[test]
    fn a_query_from_beyond_the_link_or_to_another_is_not_answered() {
        let mut far = query(None, Some(&[]));
        far[21] = 64;
        let heard = |bytes: &[u8]| Sleeper::that_said(guest(), &[]).hears(bytes);
        assert_eq!(heard(&far), Heard::NotMine, "the hop limit");
        let message = [&[mld::QUERY, 0, 0, 0, 0, 1, 0, 0][..], &[0; 16]].concat();
        assert_eq!(heard(&sent(ROUTER, GROUP, &message)), Heard::Noted);
        assert_eq!(heard(&query(None, Some(&[]))), Heard::Owed(Answered::Mld));
    }

    #[test]
    fn what_survives_a_restart_is_taken_as_far_as_it_can_be_true() {
        let report = record(LOCAL, RecordKind::ToExclude, GROUP, &[SOURCE]);
        let restored = |learned: &MldLearned| Mld::restore(learned, Instant::ZERO, Duration::from_secs(9));
        let mut learned = Sleeper::that_said(guest(), &[report]).mld.learned(Instant::ZERO);
        let text = serde_json::to_string(&learned).unwrap();
        assert_eq!(serde_json::from_str::<MldLearned>(&text).unwrap(), learned);
        assert_eq!(restored(&learned).learned(Instant::ZERO), learned);
        learned.reporter = Some(SOURCE);
        learned.groups.push(Membership { group: SOURCE, include: false, sources: Vec::new() });
        let restored = restored(&learned);
        assert_eq!((restored.reporter, restored.groups().count()), (None, 1));
    }
}
