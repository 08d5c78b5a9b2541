//! IGMP in a sleeper's name (RFC 1112, RFC 2236, RFC 9776): so that snooping switches go on sending it its groups.
//!
//! Learns the groups from the guest's own reports and answers queries for them; what both have in common with
//! MLD is in [`membership`](super::membership).

use core::net::{IpAddr, Ipv4Addr};

use surrogate_wire::membership::{Message, Reporter};
use surrogate_wire::{Frame, FrameBuf, Packet, Tags, Transport, igmp, protocol};

use super::membership::{Membership, Memberships, Reported, Saying};
use super::presence::Heard;
use crate::engine::Answered;
use crate::guest::identity::NicIdentity;
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Igmp(Memberships<Ipv4Addr>);

/// What must survive a restart: the groups that the guest told of.
pub type IgmpLearned = Vec<Membership<Ipv4Addr>>;

impl Igmp {
    /// Takes what the awake guest itself reports.
    pub fn learn(&mut self, now: Instant, from_guest: bool, _: &Frame<'_>, packet: &Packet<'_>) {
        if from_guest
            && let Packet::Ipv4(ip, Transport::Other(protocol::IGMP)) = packet
            && let Ok(Some(message)) = igmp::parse(ip)
        {
            self.0.learn(now, &message);
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
        let Packet::Ipv4(ip, Transport::Other(protocol::IGMP)) = packet else { return Heard::NotMine };
        let Ok(Some(message)) = igmp::parse(ip) else { return Heard::NotMine };
        if let Message::Query(query) = &message {
            // "any of the addresses (unicast or multicast) assigned to the interface" (RFC 9776 4.1.12).
            let to_all = ip.dst == igmp::ALL_HOSTS || query.group == Some(ip.dst);
            // But no router beyond the link makes us speak on it.
            let to_guest = frame.dst == identity.mac
                && identity.holds(IpAddr::V4(ip.dst))
                && identity.is_on_link(IpAddr::V4(ip.src));
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
        if self.0.hear(now, rng, &message) { Heard::Owed(Answered::Igmp) } else { Heard::Noted }
    }

    /// When a report is due.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.0.due()
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
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        };
        let from = Reporter {
            mac: identity.mac,
            tags: Tags::for_vid(identity.vlan),
            address: identity
                .addresses
                .iter()
                .find_map(|held| own(held.address))
                .unwrap_or(Ipv4Addr::UNSPECIFIED),
        };
        let said = self.0.speak(now, ROOM, |saying| match saying {
            Saying::Report(generation, group) => igmp::write_report(&from, generation, group, out),
            Saying::Records(records) => igmp::write_records(&from, records.iter(), out),
        });
        said.map(|()| Answered::Igmp)
    }

    /// The guest sleeps: from now on it is in the groups learned and the known ones.
    pub fn sleep(&mut self, _: Instant, _: &mut Rng, identity: &NicIdentity) {
        self.0.sleep(identity.groups.iter().filter_map(|group| match group {
            IpAddr::V4(group) => Some(*group),
            IpAddr::V6(_) => None,
        }));
    }

    /// It answers for itself.
    pub fn wake(&mut self) {
        self.0.wake();
    }

    /// The groups that the guest told of.
    pub fn groups(&self) -> impl Iterator<Item = IpAddr> {
        self.0.groups().map(IpAddr::V4)
    }

    /// How often these have changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.0.changes()
    }

    /// How often a limit kept a group or a source from being remembered.
    #[must_use]
    pub fn limited(&self) -> u64 {
        self.0.limited()
    }

    /// What must survive a restart.
    #[must_use]
    pub fn learned(&self, _: Instant) -> IgmpLearned {
        self.0.learned()
    }

    /// With what survived one.
    #[must_use]
    pub fn restore(learned: &IgmpLearned, now: Instant, ago: Duration) -> Self {
        Self(Memberships::restore(learned, now - ago))
    }
}

impl Reported for Ipv4Addr {
    fn is_reported(self) -> bool {
        self.is_multicast() && self != igmp::ALL_HOSTS
    }
}

/// For records: in a packet that every host takes whole (RFC 791 3.1).
const ROOM: usize = 576 - igmp::BEFORE_RECORDS;

#[cfg(test)]
mod tests {
    use surrogate_wire::checksum::Sum;
    use surrogate_wire::emit::{Ethernet, Ipv4Header};
    use surrogate_wire::membership::{Address as _, Generation, Record, RecordKind};

    use super::*;
    use crate::responder::membership::{MAX_LEARNED, MAX_SOURCES};
    use crate::responder::testing::{GUEST, GUEST_V4, PEER, PEER_V4, build, guest, read};

    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);
    const OTHER: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
    const SOURCES: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2)];

    /// A host's message to `dst`, its checksum right.
    fn sent(src: Ipv4Addr, dst: Ipv4Addr, message: &[u8]) -> Vec<u8> {
        let mut message = message.to_vec();
        let sum = Sum::ZERO.add(&message).finish();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mac = if dst == GUEST_V4 { GUEST } else { dst.group_mac() };
        let header =
            Ipv4Header { src, dst, tos: 0xc0, id: 0, dont_fragment: true, ttl: 1, protocol: protocol::IGMP };
        build(|out| {
            out.ipv4_router_alert(
                &Ethernet { dst: mac, src: PEER, tags: Tags::NONE },
                &header,
                message.len(),
            );
            out.push(&message);
        })
    }

    /// A query of `generation` about `group`, to be answered within a second where that can be said.
    fn query(generation: Generation, group: Option<Ipv4Addr>, sources: &[Ipv4Addr]) -> Vec<u8> {
        let [g0, g1, g2, g3] = group.unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
        let code = if generation == Generation::First { 0 } else { 10 };
        let mut message = vec![igmp::QUERY, code, 0, 0, g0, g1, g2, g3];
        if generation == Generation::Third {
            message.extend([2, 125, 0, u8::try_from(sources.len()).unwrap()]);
            sources.iter().for_each(|source| message.extend(source.octets()));
        }
        sent(PEER_V4, group.unwrap_or(igmp::ALL_HOSTS), &message)
    }

    fn own(write: impl FnOnce(&Reporter<Ipv4Addr>, &mut FrameBuf<'_>) -> Option<()>) -> Vec<u8> {
        let from = Reporter { mac: GUEST, tags: Tags::NONE, address: GUEST_V4 };
        build(|out| write(&from, out).unwrap())
    }

    fn report(group: Ipv4Addr) -> Vec<u8> {
        own(|from, out| igmp::write_report(from, Generation::Second, group, out))
    }

    fn record(kind: RecordKind, group: Ipv4Addr, sources: &[Ipv4Addr]) -> Vec<u8> {
        own(|from, out| igmp::write_records(from, [Record { kind, group, sources }].into_iter(), out))
    }

    struct Sleeper {
        igmp: Igmp,
        rng: Rng,
        now: Instant,
        identity: NicIdentity,
    }

    impl Sleeper {
        /// That has told of these, awake, and sleeps.
        fn that_said(frames: &[Vec<u8>]) -> Self {
            let mut of =
                Self { igmp: Igmp::default(), rng: Rng::seeded(7), now: Instant::ZERO, identity: guest() };
            of.learns(frames);
            of.sleeps();
            of
        }

        fn learns(&mut self, frames: &[Vec<u8>]) {
            for bytes in frames {
                let (frame, packet) = read(bytes);
                self.now = self.now + Duration::from_secs(1);
                self.igmp.learn(self.now, true, &frame, &packet);
            }
        }

        fn sleeps(&mut self) {
            self.igmp.sleep(self.now, &mut self.rng, &self.identity);
        }

        fn hears(&mut self, bytes: &[u8]) -> Heard {
            let (frame, packet) = read(bytes);
            self.igmp.hear(self.now, &mut self.rng, &self.identity, &frame, &packet)
        }

        /// All that is said in the next `time`, in words, each with how long it took.
        fn says_within(&mut self, time: Duration) -> Vec<(Duration, String)> {
            let (began, until) = (self.now, self.now + time);
            let mut all = Vec::new();
            while let Some(at) = self.igmp.due().filter(|at| *at <= until) {
                self.now = at;
                let mut memory = [0xee; 1600];
                let mut out = FrameBuf::new(&mut memory);
                let said = self.igmp.speak(at, &mut self.rng, &self.identity, &mut out);
                assert_eq!(said, Some(Answered::Igmp));
                all.push((at.since(began), in_words(out.as_bytes())));
            }
            self.now = until;
            all
        }

        fn answers(&mut self, bytes: &[u8]) -> Vec<String> {
            let owed = self.hears(bytes);
            let said = self.says_within(Duration::from_secs(11));
            let expected = if said.is_empty() { Heard::Noted } else { Heard::Owed(Answered::Igmp) };
            assert_eq!(owed, expected);
            said.into_iter().map(|(_, words)| words).collect()
        }
    }

    /// A report of ours: what it says and where it goes.
    fn in_words(bytes: &[u8]) -> String {
        let (frame, packet) = read(bytes);
        let Packet::Ipv4(ip, _) = packet else { panic!("{packet:?}") };
        assert_eq!((frame.src, frame.dst, ip.src, ip.ttl), (GUEST, ip.dst.group_mac(), GUEST_V4, 1));
        assert!(ip.has_options && ip.packet.len() <= 576);
        let what = match igmp::parse(&ip) {
            Ok(Some(Message::Report { generation, group })) => format!("{generation:?} {group}"),
            Ok(Some(Message::Records(records))) => records
                .iter()
                .map(|r| format!("{:?} {} {:?}", r.kind, r.group, r.sources))
                .collect::<Vec<_>>()
                .join(", "),
            other => panic!("{other:?}"),
        };
        format!("{what} to {}", ip.dst)
    }

    #[test]
    fn a_general_query_is_answered_in_its_version_for_all_groups_within_its_time() {
        let reports = [report(GROUP), report(OTHER), report(igmp::ALL_HOSTS)];
        let third = "IsExclude 239.1.1.1 [], IsExclude 224.0.0.251 [] to 224.0.0.22";
        assert_eq!(Sleeper::that_said(&reports).answers(&query(Generation::Third, None, &[])), [third]);
        for generation in [Generation::First, Generation::Second] {
            let mut said = Sleeper::that_said(&reports).answers(&query(generation, None, &[]));
            said.sort();
            let of = |group| format!("{generation:?} {group} to {group}");
            assert_eq!(said, [of(OTHER), of(GROUP)], "never for 224.0.0.1");
        }
        let mut sleeper = Sleeper::that_said(&reports);
        let mut delays = Vec::new();
        for _ in 0..50 {
            sleeper.hears(&query(Generation::Third, None, &[]));
            let said = sleeper.says_within(Duration::from_secs(1));
            assert_eq!(said.len(), 1, "within a second");
            delays.push(said[0].0);
        }
        delays.sort();
        assert!(
            delays[10] < Duration::from_millis(500) && delays[40] > Duration::from_millis(500),
            "{delays:?}"
        );
    }

    #[test]
    fn who_is_in_no_group_says_nothing() {
        let mut sleeper = Sleeper::that_said(&[]);
        for generation in [Generation::Third, Generation::Second, Generation::First] {
            assert_eq!(sleeper.answers(&query(generation, None, &[])), [""; 0]);
            assert_eq!(sleeper.answers(&query(generation, Some(GROUP), &[])), [""; 0]);
        }
    }

    #[test]
    fn a_query_for_one_group_is_answered_for_it_alone() {
        let reports = [report(GROUP), report(OTHER)];
        let mut sleeper = Sleeper::that_said(&reports);
        let expected = "IsExclude 239.1.1.1 [] to 224.0.0.22";
        assert_eq!(sleeper.answers(&query(Generation::Third, Some(GROUP), &[])), [expected]);
        let expected = "Second 239.1.1.1 to 239.1.1.1";
        assert_eq!(sleeper.answers(&query(Generation::Second, Some(GROUP), &[])), [expected]);
        let not_joined = Ipv4Addr::new(239, 9, 9, 9);
        assert_eq!(sleeper.answers(&query(Generation::Third, Some(not_joined), &[])), [""; 0]);
    }

    #[test]
    fn a_query_for_sources_is_answered_for_those_that_are_wanted() {
        let ask = |sources: &[Ipv4Addr]| query(Generation::Third, Some(GROUP), sources);
        let [first, second] = SOURCES;
        let mut any = Sleeper::that_said(&[report(GROUP)]);
        let both = "IsInclude 239.1.1.1 [198.51.100.1, 198.51.100.2] to 224.0.0.22";
        assert_eq!(any.answers(&ask(&SOURCES)), [both]);
        let mut one = Sleeper::that_said(&[record(RecordKind::ToInclude, GROUP, &[first])]);
        let only = "IsInclude 239.1.1.1 [198.51.100.1] to 224.0.0.22";
        assert_eq!(one.answers(&ask(&SOURCES)), [only]);
        assert_eq!(one.answers(&ask(&[second])), [""; 0]);
        assert_eq!(one.answers(&ask(&[])), [only]);
        let mut but_one = Sleeper::that_said(&[record(RecordKind::ToExclude, GROUP, &[first])]);
        assert_eq!(but_one.answers(&ask(&SOURCES)), ["IsInclude 239.1.1.1 [198.51.100.2] to 224.0.0.22"]);
        assert_eq!(but_one.answers(&ask(&[])), ["IsExclude 239.1.1.1 [198.51.100.1] to 224.0.0.22"]);
        assert_eq!(
            but_one.answers(&query(Generation::Second, Some(GROUP), &[])),
            ["Second 239.1.1.1 to 239.1.1.1"],
            "older versions know no sources"
        );
    }

    #[test]
    fn questions_while_an_answer_is_under_way_share_it() {
        let mut sleeper = Sleeper::that_said(&[report(GROUP)]);
        let [first, second] = SOURCES;
        sleeper.hears(&query(Generation::Third, Some(GROUP), &[first]));
        sleeper.hears(&query(Generation::Third, Some(GROUP), &[second]));
        let said = sleeper.says_within(Duration::from_secs(1));
        assert_eq!(said.len(), 1);
        assert_eq!(said[0].1, "IsInclude 239.1.1.1 [198.51.100.1, 198.51.100.2] to 224.0.0.22");
        sleeper.hears(&query(Generation::Third, Some(GROUP), &[first]));
        sleeper.hears(&query(Generation::Third, Some(GROUP), &[]));
        sleeper.hears(&query(Generation::Third, Some(GROUP), &[second]));
        let said = sleeper.says_within(Duration::from_secs(1));
        assert_eq!((said.len(), said[0].1.as_str()), (1, "IsExclude 239.1.1.1 [] to 224.0.0.22"));
        for _ in 0..100 {
            assert_eq!(sleeper.hears(&query(Generation::Third, None, &[])), Heard::Owed(Answered::Igmp));
            assert_eq!(
                sleeper.hears(&query(Generation::Third, Some(GROUP), &[])),
                Heard::Owed(Answered::Igmp)
            );
        }
        assert!(sleeper.says_within(Duration::from_secs(1)).len() <= 2);
    }

    #[test]
    fn a_flood_of_queries_gets_no_flood_of_reports() {
        let mut sleeper = Sleeper::that_said(&[report(GROUP)]);
        let mut said = 0;
        for n in 0..10_000 {
            let group = (n % 2 == 0).then_some(GROUP);
            sleeper.hears(&query(Generation::Third, group, &[]));
            said += sleeper.says_within(Duration::from_millis(1)).len();
        }
        assert!((20..=90).contains(&said), "{said} in ten seconds");
    }

    #[test]
    fn another_hosts_report_is_enough_for_an_older_querier_only() {
        let mut sleeper = Sleeper::that_said(&[report(GROUP), report(OTHER)]);
        let theirs = sent(PEER_V4, GROUP, &[igmp::REPORT_V2, 0, 0, 0, 239, 1, 1, 1]);
        sleeper.hears(&query(Generation::Third, Some(GROUP), &[]));
        assert_eq!(sleeper.hears(&theirs), Heard::Noted);
        assert_eq!(sleeper.says_within(Duration::from_secs(1)).len(), 1);
        sleeper.hears(&query(Generation::Second, None, &[]));
        sleeper.hears(&theirs);
        let said = sleeper.says_within(Duration::from_secs(1));
        assert_eq!((said.len(), said[0].1.as_str()), (1, "Second 224.0.0.251 to 224.0.0.251"));
    }

    #[test]
    fn a_report_that_no_querier_heard_is_not_enough() {
        let mut sleeper = Sleeper::that_said(&[report(GROUP)]);
        let theirs = [igmp::REPORT_V2, 0, 0, 0, 239, 1, 1, 1];
        let mut to_guest = sent(PEER_V4, GROUP, &theirs);
        to_guest[..6].copy_from_slice(&GUEST.0);
        for unheard in [sent(PEER_V4, GUEST_V4, &theirs), sent(PEER_V4, OTHER, &theirs), to_guest] {
            sleeper.hears(&query(Generation::Second, None, &[]));
            assert_eq!(sleeper.hears(&unheard), Heard::Noted);
            assert_eq!(sleeper.says_within(Duration::from_secs(1)).len(), 1);
        }
    }

    #[test]
    fn the_oldest_querier_about_decides_the_version_until_it_was_not_heard_for_long() {
        let mut sleeper = Sleeper::that_said(&[report(GROUP)]);
        let third = query(Generation::Third, None, &[]);
        let of = |words: &str| vec![words.to_owned()];
        assert_eq!(
            sleeper.answers(&query(Generation::Second, None, &[])),
            of("Second 239.1.1.1 to 239.1.1.1")
        );
        assert_eq!(sleeper.answers(&third), of("Second 239.1.1.1 to 239.1.1.1"));
        assert_eq!(sleeper.answers(&query(Generation::First, None, &[])), of("First 239.1.1.1 to 239.1.1.1"));
        assert_eq!(
            sleeper.answers(&query(Generation::Second, None, &[])),
            of("First 239.1.1.1 to 239.1.1.1")
        );
        // Twice the interval, and the time to answer.
        sleeper.says_within(Duration::from_secs(262));
        assert_eq!(sleeper.answers(&third), of("IsExclude 239.1.1.1 [] to 224.0.0.22"));
    }

    #[test]
    fn an_older_querier_that_appears_gets_what_was_under_way_in_its_own_way() {
        let mut sleeper = Sleeper::that_said(&[report(GROUP)]);
        sleeper.hears(&query(Generation::Third, None, &[]));
        sleeper.hears(&query(Generation::Second, None, &[]));
        let said = sleeper.says_within(Duration::from_secs(2));
        assert_eq!((said.len(), said[0].1.as_str()), (1, "Second 239.1.1.1 to 239.1.1.1"));
    }

    #[test]
    fn what_the_guest_leaves_or_blocks_is_not_reported() {
        let leave = sent(GUEST_V4, GROUP, &[igmp::LEAVE, 0, 0, 0, 239, 1, 1, 1]);
        let [first, second] = SOURCES;
        for (frames, expected) in [
            (vec![report(GROUP), leave], ""),
            (vec![report(GROUP), record(RecordKind::ToInclude, GROUP, &[])], ""),
            (
                vec![
                    record(RecordKind::ToInclude, GROUP, &[first]),
                    record(RecordKind::Block, GROUP, &[first]),
                ],
                "",
            ),
            (vec![record(RecordKind::Block, GROUP, &[first])], ""),
            (
                vec![record(RecordKind::Allow, GROUP, &[first]), record(RecordKind::Allow, GROUP, &[second])],
                "IsInclude 239.1.1.1 [198.51.100.1, 198.51.100.2] to 224.0.0.22",
            ),
            (
                vec![record(RecordKind::IsExclude, GROUP, &[]), record(RecordKind::Block, GROUP, &[first])],
                "IsExclude 239.1.1.1 [198.51.100.1] to 224.0.0.22",
            ),
            // An answer about a source that is wanted anyhow.
            (
                vec![
                    record(RecordKind::IsExclude, GROUP, &[second]),
                    record(RecordKind::IsInclude, GROUP, &[first]),
                ],
                "IsExclude 239.1.1.1 [198.51.100.2] to 224.0.0.22",
            ),
            (
                vec![record(RecordKind::ToInclude, GROUP, &[first]), report(GROUP)],
                "IsExclude 239.1.1.1 [] to 224.0.0.22",
            ),
        ] {
            let said = Sleeper::that_said(&frames).answers(&query(Generation::Third, None, &[]));
            assert_eq!(said.concat(), expected);
        }
    }

    #[test]
    fn groups_known_without_the_guest_are_reported_too_and_once() {
        let known: Ipv4Addr = Ipv4Addr::new(239, 7, 7, 7);
        let mut sleeper = Sleeper::that_said(&[record(RecordKind::ToInclude, GROUP, &SOURCES[..1])]);
        let all: [IpAddr; 4] =
            [known.into(), GROUP.into(), igmp::ALL_HOSTS.into(), "ff05::1".parse().unwrap()];
        sleeper.identity.groups = all.into();
        sleeper.igmp.wake();
        sleeper.sleeps();
        let said = sleeper.answers(&query(Generation::Third, None, &[]));
        let expected = "IsInclude 239.1.1.1 [198.51.100.1], IsExclude 239.7.7.7 [] to 224.0.0.22";
        assert_eq!(said, [expected]);
    }

    #[test]
    fn awake_it_owes_nothing_and_goes_on_to_know() {
        let mut sleeper = Sleeper::that_said(&[report(GROUP)]);
        sleeper.hears(&query(Generation::Third, None, &[]));
        sleeper.igmp.wake();
        assert_eq!(sleeper.igmp.due(), None);
        sleeper.learns(&[report(OTHER)]);
        sleeper.sleeps();
        assert_eq!(sleeper.igmp.due(), None, "nobody asked");
        let said = sleeper.answers(&query(Generation::Third, None, &[]));
        assert_eq!(said, ["IsExclude 239.1.1.1 [], IsExclude 224.0.0.251 [] to 224.0.0.22"]);
    }

    #[test]
    fn a_query_reaches_a_host_at_any_of_its_addresses_and_at_no_other() {
        let message = [igmp::QUERY, 10, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0];
        for (dst, answers) in [(GUEST_V4, 1), (igmp::ALL_HOSTS, 1), (igmp::ALL_V3_ROUTERS, 0), (GROUP, 0)] {
            let mut sleeper = Sleeper::that_said(&[report(GROUP)]);
            assert_eq!(sleeper.answers(&sent(PEER_V4, dst, &message)).len(), answers, "{dst}");
        }
        // A snooping switch asks from 0.0.0.0 (RFC 4541 2.1.1), and only the guest's own address is reached from afar.
        let far = Ipv4Addr::new(198, 51, 100, 7);
        for (src, dst, answers) in
            [(far, GUEST_V4, 0), (far, igmp::ALL_HOSTS, 1), (Ipv4Addr::UNSPECIFIED, igmp::ALL_HOSTS, 1)]
        {
            let mut sleeper = Sleeper::that_said(&[report(GROUP)]);
            assert_eq!(sleeper.answers(&sent(src, dst, &message)).len(), answers, "{src} to {dst}");
        }
    }

    #[test]
    fn more_groups_than_a_packet_takes_go_into_several() {
        let group = |n: u8| Ipv4Addr::new(239, 2, 2, n);
        let reports: Vec<_> = (0..40).map(|n| record(RecordKind::ToInclude, group(n), &SOURCES)).collect();
        let mut sleeper = Sleeper::that_said(&reports);
        let said = sleeper.answers(&query(Generation::Third, None, &[]));
        assert_eq!(said.len(), 2);
        assert_eq!(said.concat().matches("IsInclude").count(), 40);
    }

    #[test]
    fn what_is_learned_is_bounded_and_the_longest_unheard_goes() {
        let group = |n: usize| Ipv4Addr::new(239, 2, 2, u8::try_from(n).unwrap());
        let reports: Vec<_> = (0..MAX_LEARNED + 2).map(|n| report(group(n))).collect();
        let mut sleeper = Sleeper::that_said(&reports[..MAX_LEARNED]);
        sleeper.learns(&[report(group(0))]);
        sleeper.learns(&reports[MAX_LEARNED..]);
        let known: Vec<_> = sleeper.igmp.groups().collect();
        assert_eq!((known.len(), sleeper.igmp.limited()), (MAX_LEARNED, 2));
        assert!(known.contains(&group(0).into()) && !known.contains(&group(1).into()));
        assert!(known.contains(&group(MAX_LEARNED + 1).into()));

        let many: Vec<_> =
            (0..=u8::try_from(MAX_SOURCES).unwrap()).map(|n| Ipv4Addr::new(198, 51, 100, n)).collect();
        let mut sleeper = Sleeper::that_said(&[record(RecordKind::ToInclude, GROUP, &many)]);
        assert_eq!(sleeper.igmp.limited(), 1);
        let any = "IsExclude 239.1.1.1 [] to 224.0.0.22";
        assert_eq!(sleeper.answers(&query(Generation::Third, None, &[])), [any]);
        assert_eq!(sleeper.answers(&query(Generation::Third, Some(GROUP), &many)), [any]);
    }

    #[test]
    fn what_survives_a_restart_is_taken_as_far_as_it_can_be_true() {
        let sleeper = Sleeper::that_said(&[report(GROUP), record(RecordKind::ToInclude, OTHER, &SOURCES)]);
        let mut learned = sleeper.igmp.learned(sleeper.now);
        let text = serde_json::to_string(&learned).unwrap();
        assert_eq!(serde_json::from_str::<IgmpLearned>(&text).unwrap(), learned);
        let restored = |learned: &IgmpLearned| Igmp::restore(learned, sleeper.now, Duration::from_secs(9));
        assert_eq!(restored(&learned).learned(sleeper.now), learned);
        let of = |group, sources| Membership { group, include: true, sources };
        learned.extend([
            of(PEER_V4, vec![PEER_V4]),
            of(igmp::ALL_HOSTS, vec![PEER_V4]),
            of(GROUP, Vec::new()),
        ]);
        let groups: Vec<_> = restored(&learned).groups().collect();
        assert_eq!(groups, [IpAddr::V4(OTHER)], "the last word on a group counts");
        let many = (0..200).map(|n| of(Ipv4Addr::new(239, 2, 2, n), vec![PEER_V4])).collect();
        assert_eq!(restored(&many).groups().count(), MAX_LEARNED);
    }

    #[test]
    fn what_others_report_is_not_the_guests() {
        let mut igmp = Igmp::default();
        let bytes = report(GROUP);
        let (frame, packet) = read(&bytes);
        igmp.learn(Instant::ZERO, false, &frame, &packet);
        assert_eq!(igmp.groups().count(), 0);
    }
}
