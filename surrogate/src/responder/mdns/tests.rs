use core::net::IpAddr;

use proptest::prelude::*;
use surrogate_wire::dns::{self, Data, IN, TOP_BIT, Writer};
use surrogate_wire::emit::Ethernet;
use surrogate_wire::{Mac, Offload, Received, Tags};

use super::*;
use crate::guest::identity::InterfaceAddress;
use crate::policy::names::{Names, Service};
use crate::policy::traffic::TrafficPolicy;
use crate::responder::testing::{
    GUEST, GUEST_V4, GUEST_V6, PEER, PEER_V4, PEER_V6, datagram, guest, read, wire,
};
use crate::rng::Rng;

const V4: Family = Family::V4;
const V6: Family = Family::V6;
const MS: Duration = Duration::from_millis(1);

fn text(name: &dns::Name<'_>) -> String {
    name.labels().map(|label| String::from_utf8_lossy(label).into_owned()).collect::<Vec<_>>().join(".")
}

/// A record as tests write it: bytes, then a name.
type Written<'t> = (&'t str, u16, u16, u32, &'t [u8], Option<&'t str>);

fn put(out: &mut Writer<'_>, section: Section, records: &[Written<'_>]) {
    for (name, kind, class, ttl, before, target) in records {
        let target = target.map(wire);
        let data = Data { before, name: target.as_deref(), compress: true, after: &[] };
        assert!(out.record(section, &wire(name), *kind, *class, *ttl, &data));
    }
}

fn message(id: u16, flags: u16, write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut memory = [0; 1_400];
    let mut out = Writer::new(&mut memory, id, flags).unwrap();
    write(&mut out);
    out.finish().to_vec()
}

/// A query with these questions; class 0x8001 is one for a unicast answer.
fn query(questions: &[(&str, u16, u16)]) -> Vec<u8> {
    message(0, 0, |out| {
        questions.iter().for_each(|(name, kind, class)| assert!(out.question(&wire(name), *kind, *class)))
    })
}

/// A query with what its asker knows.
fn query_knowing(flags: u16, questions: &[(&str, u16, u16)], known: &[Written<'_>]) -> Vec<u8> {
    message(0, flags, |out| {
        questions.iter().for_each(|(name, kind, class)| assert!(out.question(&wire(name), *kind, *class)));
        put(out, Section::Answer, known);
    })
}

fn response(answers: &[Written<'_>]) -> Vec<u8> {
    message(0, 0x8400, |out| put(out, Section::Answer, answers))
}

fn to_group(src: Mac) -> Ethernet {
    Ethernet { dst: Mac([1, 0, 0x5e, 0, 0, 0xfb]), src, tags: Tags::NONE }
}

/// From the peer, or from one as remote as `src`.
fn from_peer_at(src: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
    datagram(&to_group(PEER), src, Family::of(src).group(), [port, PORT], payload)
}

fn from_peer(family: Family, payload: &[u8]) -> Vec<u8> {
    let src = if family == V4 { PEER_V4.into() } else { PEER_V6.into() };
    from_peer_at(src, PORT, payload)
}

fn from_guest(payload: &[u8]) -> Vec<u8> {
    datagram(&to_group(GUEST), GUEST_V4.into(), V4.group(), [PORT, PORT], payload)
}

/// What a host says of itself: its addresses, their names, and a page that others may offer too.
fn announcement() -> Vec<u8> {
    response(&[
        ("printer.local", kind::A, IN | TOP_BIT, 120, &[192, 0, 2, 11], None),
        ("printer.local", kind::AAAA, IN | TOP_BIT, 120, &GUEST_V6.octets(), None),
        ("11.2.0.192.in-addr.arpa", kind::PTR, IN | TOP_BIT, 120, &[], Some("printer.local")),
        ("_http._tcp.local", kind::PTR, IN, 4500, &[], Some("Laser._http._tcp.local")),
        ("Laser._http._tcp.local", kind::SRV, IN | TOP_BIT, 120, &[0, 0, 0, 0, 0, 80], Some("printer.local")),
        ("Laser._http._tcp.local", kind::TXT, IN | TOP_BIT, 4500, b"\x06path=/", None),
    ])
}

/// A response as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    at: Duration,
    to: IpAddr,
    port: u16,
    id: u16,
    /// Name and type.
    questions: Vec<(String, u16)>,
    /// Name, type, whether caches are to be flushed, time to live.
    answers: Vec<(String, u16, bool, u32)>,
    beside: Vec<(String, u16, bool, u32)>,
    len: usize,
}

/// A guest asleep on its link.
struct Link {
    mdns: Mdns,
    identity: NicIdentity,
    now: Instant,
    rng: Rng,
}

impl Link {
    /// That was heard to announce itself at 0, long ago.
    fn announced() -> Self {
        let mut link = Self::awake(guest());
        link.learn(&from_guest(&announcement()));
        link.now = link.now + Duration::from_secs(3_600);
        link.sleep();
        link
    }

    fn awake(identity: NicIdentity) -> Self {
        Self { mdns: Mdns::default(), identity, now: Instant::ZERO, rng: Rng::seeded(7) }
    }

    fn sleep(&mut self) {
        self.mdns.sleep(self.now, &mut self.rng, &self.identity);
    }

    fn learn(&mut self, bytes: &[u8]) {
        let (frame, packet) = read(bytes);
        self.mdns.learn(self.now, frame.src == GUEST, &frame, &packet);
    }

    fn hear(&mut self, bytes: &[u8]) -> Heard {
        let (frame, packet) = read(bytes);
        self.mdns.hear(self.now, &mut self.rng, &self.identity, &frame, &packet)
    }

    /// Asks, and what is said in the next ten seconds.
    fn ask(&mut self, bytes: &[u8]) -> Vec<Said> {
        assert_eq!(self.hear(bytes), Heard::Owed(Answered::Mdns));
        self.said()
    }

    /// What is said in the next ten seconds; times are since now.
    fn said(&mut self) -> Vec<Said> {
        let (begin, end) = (self.now, self.now + Duration::from_secs(10));
        let mut all = Vec::new();
        while let Some(due) = self.mdns.due().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            let mut memory = [0xee; 1_522];
            let mut out = FrameBuf::new(&mut memory);
            while self.mdns.speak(self.now, &mut self.rng, &self.identity, &mut out).is_some() {
                all.push(said(self.now.since(begin), out.as_bytes()));
                assert!(all.len() < 100, "it comes to an end");
            }
            assert!(self.mdns.due().is_none_or(|due| due > self.now), "nothing stays due");
        }
        all
    }
}

fn said(at: Duration, bytes: &[u8]) -> Said {
    let (frame, packet) = read(bytes);
    let (_, to) = packet.addresses().unwrap();
    let ttl = match &packet {
        Packet::Ipv4(ip, _) => ip.ttl,
        Packet::Ipv6(ip, _) => ip.hop_limit,
        _ => panic!("{packet:?}"),
    };
    let Some(Transport::Udp(udp)) = packet.transport() else { panic!("{packet:?}") };
    assert_eq!((frame.src, udp.src_port, ttl), (GUEST, PORT, 255));
    assert_eq!(frame.dst.is_unicast(), !to.is_multicast());
    let message = Message::parse(udp.payload).unwrap();
    assert_eq!(message.flags, 0x8400, "a response with authority");
    let of = |wanted: Section| {
        message
            .records()
            .filter(|(section, _)| *section == wanted)
            .map(|(_, record)| (text(&record.name), record.kind, record.flush, record.ttl))
            .collect()
    };
    Said {
        at,
        to,
        port: udp.dst_port,
        id: message.id,
        questions: message.questions().map(|q| (text(&q.name), q.kind)).collect(),
        answers: of(Section::Answer),
        beside: of(Section::Additional),
        len: frame.payload.len(),
    }
}

fn names(records: &[(String, u16, bool, u32)]) -> Vec<(&str, u16)> {
    let mut names: Vec<_> = records.iter().map(|(name, kind, ..)| (name.as_str(), *kind)).collect();
    names.sort_unstable();
    names
}

// What is answered.

#[test]
fn a_name_of_the_guests_alone_is_answered_at_once_to_all() {
    let said = Link::announced().ask(&from_peer(V4, &query(&[("Printer.LOCAL", kind::A, IN)])));
    assert_eq!(said.len(), 1);
    let answer = &said[0];
    assert_eq!((answer.at, answer.to, answer.port, answer.id), (Duration::ZERO, V4.group(), PORT, 0));
    assert_eq!(answer.answers, [("printer.local".to_owned(), kind::A, true, 120)]);
    assert_eq!(answer.questions, [], "questions are not repeated to all");
}

#[test]
fn what_others_may_have_too_waits_twenty_to_a_hundred_and_twenty_milliseconds() {
    let mut waits = Vec::new();
    let mut link = Link::announced();
    for _ in 0..200 {
        link.now = link.now + Duration::from_secs(5);
        let said = link.ask(&from_peer(V4, &query(&[("_http._tcp.local", kind::PTR, IN)])));
        assert_eq!(said.len(), 1);
        assert_eq!(names(&said[0].answers), [("_http._tcp.local", kind::PTR)]);
        assert!(!said[0].answers[0].2, "no cache is flushed: others may have such a service");
        waits.push(said[0].at);
    }
    let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    assert!(*least >= 20 * MS && *most <= 120 * MS, "{least:?} to {most:?}");
    assert!(*least < 30 * MS && *most > 110 * MS, "{least:?} to {most:?}: the whole time is used");
}

#[test]
fn several_questions_in_one_message_wait_and_are_answered_together() {
    let questions = [
        ("printer.local", kind::A, IN),
        ("other.local", kind::A, IN),
        ("Laser._http._tcp.local", kind::TXT, IN),
    ];
    let said = Link::announced().ask(&from_peer(V4, &query(&questions)));
    assert_eq!(said.len(), 1);
    assert!(said[0].at >= 20 * MS && said[0].at <= 120 * MS, "{:?}", said[0].at);
    assert_eq!(names(&said[0].answers), [("Laser._http._tcp.local", kind::TXT), ("printer.local", kind::A)]);
}

#[test]
fn any_type_gets_all_there_are() {
    let said = Link::announced().ask(&from_peer(V4, &query(&[("printer.local", kind::ANY, dns::ANY_CLASS)])));
    assert_eq!(names(&said[0].answers), [("printer.local", kind::A), ("printer.local", kind::AAAA)]);
    let said = Link::announced().ask(&from_peer(V4, &query(&[("Laser._http._tcp.local", kind::ANY, IN)])));
    assert_eq!(
        names(&said[0].answers),
        [("Laser._http._tcp.local", kind::TXT), ("Laser._http._tcp.local", kind::SRV)]
    );
}

#[test]
fn what_is_asked_next_is_told_beside() {
    let said = Link::announced().ask(&from_peer(V4, &query(&[("_http._tcp.local", kind::PTR, IN)])));
    assert_eq!(
        names(&said[0].beside),
        [
            ("Laser._http._tcp.local", kind::TXT),
            ("Laser._http._tcp.local", kind::SRV),
            ("printer.local", kind::A),
            ("printer.local", kind::AAAA),
        ]
    );
    let said = Link::announced().ask(&from_peer(V4, &query(&[("printer.local", kind::A, IN)])));
    assert_eq!(names(&said[0].beside), [("printer.local", kind::AAAA)]);
}

#[test]
fn the_types_of_services_are_listed() {
    let said =
        Link::announced().ask(&from_peer(V4, &query(&[("_services._dns-sd._udp.local", kind::PTR, IN)])));
    assert_eq!(said[0].answers, [("_services._dns-sd._udp.local".to_owned(), kind::PTR, false, 4_500)]);
}

#[test]
fn an_address_is_looked_up_by_its_own_name() {
    let said = Link::announced().ask(&from_peer(V4, &query(&[("11.2.0.192.in-addr.arpa", kind::PTR, IN)])));
    assert_eq!(said[0].answers, [("11.2.0.192.in-addr.arpa".to_owned(), kind::PTR, true, 120)]);
    assert_eq!(said[0].at, Duration::ZERO);
}

#[test]
fn of_a_name_of_its_own_it_is_said_what_it_has_not() {
    let said = Link::announced().ask(&from_peer(V4, &query(&[("printer.local", kind::HINFO, IN)])));
    assert_eq!(said[0].answers, [("printer.local".to_owned(), kind::NSEC, true, 120)]);
    // A and AAAA, and nothing else: bits 1 and 28 of the first window.
    let mut link = Link::announced();
    link.hear(&from_peer(V4, &query(&[("printer.local", kind::HINFO, IN)])));
    let mut memory = [0; 1_522];
    let mut out = FrameBuf::new(&mut memory);
    link.mdns.speak(link.now, &mut link.rng, &link.identity, &mut out).unwrap();
    let bytes = out.as_bytes();
    assert!(bytes.windows(6).any(|w| w == [0, 4, 0x40, 0, 0, 8]), "{bytes:x?}");
}

#[test]
fn a_host_of_one_family_says_so_beside_its_address() {
    let mut link = Link::awake(guest());
    link.learn(&from_guest(&response(&[(
        "printer.local",
        kind::A,
        IN | TOP_BIT,
        120,
        &GUEST_V4.octets(),
        None,
    )])));
    link.sleep();
    let said = link.ask(&from_peer(V4, &query(&[("printer.local", kind::A, IN)])));
    assert_eq!(names(&said[0].beside), [("printer.local", kind::NSEC)]);
    link.now = link.now + Duration::from_secs(5);
    let said = link.ask(&from_peer(V4, &query(&[("printer.local", kind::AAAA, IN)])));
    assert_eq!(names(&said[0].answers), [("printer.local", kind::NSEC)]);
}

#[test]
fn an_answer_goes_where_the_question_came_from() {
    let mut link = Link::announced();
    let asked = query(&[("printer.local", kind::AAAA, IN)]);
    assert_eq!(link.ask(&from_peer(V6, &asked))[0].to, V6.group());
    assert_eq!(link.ask(&from_peer(V4, &asked))[0].to, V4.group());
    // A family of which the guest has no address cannot be spoken.
    let v4_only = InterfaceAddress { address: GUEST_V4.into(), prefix_len: 24 };
    link.identity.addresses = vec![v4_only];
    link.now = link.now + Duration::from_secs(5);
    let local: IpAddr = "fe80::99".parse().unwrap();
    assert_eq!(
        link.hear(&from_peer_at(local, PORT, &query(&[("printer.local", kind::A, IN)]))),
        Heard::Owed(Answered::Mdns)
    );
    assert_eq!(link.said(), []);
}

#[test]
fn what_is_not_the_guests_gets_no_answer() {
    let mut link = Link::announced();
    for (name, kind, class) in [
        ("other.local", kind::A, IN),
        ("printer.local", kind::A, 3),
        ("_ipp._tcp.local", kind::PTR, IN),
        ("printer", kind::A, IN),
        ("_http._tcp.local", kind::SRV, IN),
    ] {
        assert_eq!(link.hear(&from_peer(V4, &query(&[(name, kind, class)]))), Heard::Noted, "{name}");
    }
    let from =
        |src: &str| from_peer_at(src.parse().unwrap(), PORT, &query(&[("printer.local", kind::A, IN)]));
    assert_eq!(link.hear(&from("198.51.100.7")), Heard::NotMine, "off the link");
    assert_eq!(link.hear(&from("2001:db8:7::1")), Heard::NotMine, "off the link");
    assert_eq!(link.hear(&from_peer(V4, &message(0, 0x0800, |_| {}))), Heard::Noted, "an opcode");
    assert_eq!(link.hear(&from_peer(V4, b"no message")), Heard::Noted);
    assert_eq!(link.mdns.due(), None);
    let mut nameless = Link::awake(guest());
    nameless.sleep();
    assert_eq!(nameless.hear(&from_peer(V4, &query(&[("printer.local", kind::A, IN)]))), Heard::NotMine);
}

#[test]
fn who_declared_the_port_gets_what_is_not_answered() {
    let mut link = Link::announced();
    let listen = link.identity.traffic.listen.as_mut().unwrap();
    listen.udp = vec![7, PORT];
    assert_eq!(link.hear(&from_peer(V4, &query(&[("other.local", kind::A, IN)]))), Heard::NotMine);
    assert_eq!(link.ask(&from_peer(V4, &query(&[("printer.local", kind::A, IN)]))).len(), 1);
}

#[test]
fn an_address_that_the_guest_lost_is_not_told() {
    let mut link = Link::announced();
    link.identity.addresses.retain(|held| held.address.is_ipv4());
    let said = link.ask(&from_peer(V4, &query(&[("printer.local", kind::ANY, IN)])));
    assert_eq!(names(&said[0].answers), [("printer.local", kind::A)]);
    assert_eq!(said[0].beside, [], "nor is it said that there is none: the guest may know better");
    assert_eq!(link.hear(&from_peer(V4, &query(&[("printer.local", kind::AAAA, IN)]))), Heard::Noted);
}

// What the asker knows, and how he wants to be answered.

#[test]
fn what_the_asker_knows_is_left_out_while_half_its_time_is_left() {
    let knows = |ttl: u32| {
        let known = ("_http._tcp.local", kind::PTR, IN, ttl, &[][..], Some("laser._HTTP._tcp.local"));
        from_peer(V4, &query_knowing(0, &[("_http._tcp.local", kind::PTR, IN)], &[known]))
    };
    assert_eq!(Link::announced().hear(&knows(2_250)), Heard::Noted);
    assert_eq!(Link::announced().ask(&knows(2_249)).len(), 1);
    let other = ("_http._tcp.local", kind::PTR, IN, 4_500, &[][..], Some("Other._http._tcp.local"));
    let asked = query_knowing(0, &[("_http._tcp.local", kind::PTR, IN)], &[other]);
    assert_eq!(Link::announced().ask(&from_peer(V4, &asked)).len(), 1, "he knows another one");
}

#[test]
fn one_who_goes_on_is_waited_for() {
    let asked = from_peer(V4, &query_knowing(flag::TRUNCATED, &[("printer.local", kind::ANY, IN)], &[]));
    let said = Link::announced().ask(&asked);
    assert!(said[0].at >= 400 * MS && said[0].at <= 500 * MS, "{:?}", said[0].at);
    assert_eq!(said[0].answers.len(), 2);

    let more =
        |data: &[u8], kind: u16| query_knowing(0, &[], &[("printer.local", kind, IN, 120, data, None)]);
    let mut link = Link::announced();
    link.hear(&asked);
    link.now = link.now + 100 * MS;
    assert_eq!(link.hear(&from_peer(V4, &more(&GUEST_V4.octets(), kind::A))), Heard::Noted);
    let said = link.said();
    assert_eq!(names(&said[0].answers), [("printer.local", kind::AAAA)], "the other one he knows");

    let mut link = Link::announced();
    link.hear(&asked);
    let another: IpAddr = "192.0.2.98".parse().unwrap();
    link.hear(&from_peer_at(another, PORT, &more(&GUEST_V4.octets(), kind::A)));
    assert_eq!(link.said()[0].answers.len(), 2, "what another one knows does not matter");
}

#[test]
fn nobody_is_waited_for_for_ever() {
    let mut link = Link::announced();
    let asked = query_knowing(flag::TRUNCATED, &[("printer.local", kind::A, IN)], &[]);
    link.hear(&from_peer(V4, &asked));
    let begin = link.now;
    let more = from_peer(V4, &query_knowing(flag::TRUNCATED, &[], &[]));
    while link.mdns.due().is_some_and(|due| due > link.now) {
        link.hear(&more);
        link.now = link.now + 10 * MS;
    }
    assert!(link.now.since(begin) <= 1_510 * MS, "{:?}", link.now.since(begin));
    assert_eq!(link.said().len(), 1);
}

#[test]
fn who_wants_his_own_answer_gets_it_if_all_have_heard_it_lately() {
    let asked = from_peer(V4, &query(&[("printer.local", kind::A, IN | TOP_BIT)]));
    let mut link = Link::announced();
    assert_eq!(link.ask(&asked)[0].to, V4.group(), "an hour ago: all shall hear it again");
    link.now = link.now + Duration::from_secs(20);
    let said = link.ask(&asked);
    assert_eq!((said.len(), said[0].to, said[0].port, said[0].at), (1, PEER_V4.into(), PORT, Duration::ZERO));
    assert_eq!(said[0].answers, [("printer.local".to_owned(), kind::A, true, 120)]);
    link.now = link.now + Duration::from_secs(31);
    assert_eq!(link.ask(&asked)[0].to, V4.group(), "a quarter of its time has passed");
}

#[test]
fn one_who_asks_the_guest_itself_is_answered_like_that_too() {
    let mut link = Link::announced();
    link.ask(&from_peer(V4, &query(&[("printer.local", kind::A, IN)])));
    let to = Ethernet { dst: GUEST, src: PEER, tags: Tags::NONE };
    let asked = datagram(
        &to,
        PEER_V4.into(),
        GUEST_V4.into(),
        [PORT, PORT],
        &query(&[("printer.local", kind::A, IN)]),
    );
    assert_eq!(link.ask(&asked)[0].to, IpAddr::from(PEER_V4));
}

#[test]
fn a_plain_resolver_gets_a_plain_answer() {
    let mut link = Link::announced();
    let asked = message(0x1234, flag::RECURSION_DESIRED, |out| {
        assert!(out.question(&wire("PrinteR.local"), kind::A, IN));
    });
    let said = link.ask(&from_peer_at(PEER_V4.into(), 40_000, &asked));
    assert_eq!(said.len(), 1);
    assert_eq!((said[0].to, said[0].port, said[0].id), (PEER_V4.into(), 40_000, 0x1234));
    assert_eq!(said[0].questions, [("PrinteR.local".to_owned(), kind::A)], "with the case that it had");
    assert_eq!(said[0].answers, [("printer.local".to_owned(), kind::A, false, 10)]);
    assert!(said[0].beside.iter().all(|(_, _, flush, ttl)| !flush && *ttl <= 10));
}

#[test]
fn nobody_is_sent_more_than_three_times_what_he_sent() {
    let mut link = Link::awake(guest());
    for n in 0..30 {
        let name = format!("A service with a long name, number {n}._http._tcp.local");
        link.learn(&from_guest(&response(&[("_http._tcp.local", kind::PTR, IN, 4_500, &[], Some(&name))])));
    }
    link.sleep();
    let asked = from_peer_at(PEER_V4.into(), 40_000, &query(&[("_http._tcp.local", kind::PTR, IN)]));
    let said = link.ask(&asked);
    assert_eq!(said.len(), 1, "what does not fit he does not get: he is not asked to come by TCP");
    assert!(said[0].len <= 3 * (asked.len() - 14), "{} for {}", said[0].len, asked.len() - 14);
    assert!(!said[0].answers.is_empty() && said[0].answers.len() < 30);
    // Who may hear what all hear gets the rest with them, in as many frames as it takes.
    let asked = from_peer(V4, &query(&[("_http._tcp.local", kind::PTR, IN | TOP_BIT)]));
    link.now = link.now + Duration::from_secs(5);
    let said = link.ask(&asked);
    let alone: Vec<_> = said.iter().filter(|said| !said.to.is_multicast()).collect();
    assert!(alone.len() <= 1 && alone.iter().all(|said| said.len <= 3 * (asked.len() - 14)), "{said:?}");
    let told: usize = said.iter().map(|said| said.answers.len()).sum();
    assert_eq!(told, 30, "each once");
    assert!(said.iter().all(|said| said.len <= 1_500));
}

#[test]
fn askers_are_limited_and_who_finds_no_place_hears_it_with_all_others() {
    let mut link = Link::announced();
    let asked = |n: u8, flags: u16, class: u16| {
        let src = IpAddr::from([192, 0, 2, 100 + n]);
        from_peer_at(src, PORT, &query_knowing(flags, &[("_http._tcp.local", kind::PTR, class)], &[]))
    };
    link.ask(&asked(50, 0, IN));
    link.now = link.now + Duration::from_secs(2);
    for n in 0..=askers::ASKERS as u8 {
        assert_eq!(link.hear(&asked(n, 0, IN | TOP_BIT)), Heard::Owed(Answered::Mdns));
    }
    let plain = from_peer_at(PEER_V4.into(), 40_000, &query(&[("_http._tcp.local", kind::PTR, IN)]));
    assert_eq!(link.hear(&plain), Heard::TooMany, "he asks again");
    let said = link.said();
    let alone = said.iter().filter(|said| !said.to.is_multicast()).count();
    assert_eq!((alone, said.len()), (askers::ASKERS, askers::ASKERS + 1));
}

// How often.

#[test]
fn nothing_is_said_to_all_twice_in_a_second() {
    let mut link = Link::announced();
    let asked = from_peer(V4, &query(&[("printer.local", kind::A, IN)]));
    let begin = link.now;
    let mut last: Option<Duration> = None;
    let mut times = 0;
    for _ in 0..1_000 {
        link.hear(&asked);
        link.now = link.now + 7 * MS;
        if link.mdns.due().is_some_and(|due| due <= link.now) {
            let mut memory = [0; 1_522];
            let mut out = FrameBuf::new(&mut memory);
            link.mdns.speak(link.now, &mut link.rng, &link.identity, &mut out).unwrap();
            let at = link.now.since(begin);
            assert!(last.is_none_or(|last| at - last >= Duration::from_secs(1)), "{last:?} {at:?}");
            (last, times) = (Some(at), times + 1);
        }
    }
    assert_eq!(times, 7, "once in each of seven seconds");
}

#[test]
fn what_was_just_said_is_not_told_beside_something_else() {
    let mut link = Link::announced();
    link.ask(&from_peer(V4, &query(&[("printer.local", kind::A, IN)])));
    let said = link.ask(&from_peer(V4, &query(&[("Laser._http._tcp.local", kind::SRV, IN)])));
    assert_eq!(said[0].beside, [], "both addresses were told a moment ago");
    link.now = link.now + Duration::from_secs(2);
    let said = link.ask(&from_peer(V4, &query(&[("Laser._http._tcp.local", kind::SRV, IN)])));
    assert_eq!(names(&said[0].beside), [("printer.local", kind::A), ("printer.local", kind::AAAA)]);
}

// Others who want the guest's names.

fn probe(class: u16) -> Vec<u8> {
    from_peer(
        V4,
        &message(0, 0, |out| {
            assert!(out.question(&wire("printer.local"), kind::ANY, class));
            put(out, Section::Authority, &[("printer.local", kind::A, IN, 120, &[192, 0, 2, 99], None)]);
        }),
    )
}

#[test]
fn a_probe_for_its_name_is_answered_at_once_and_again_after_a_quarter_of_a_second() {
    let mut link = Link::announced();
    let said = link.ask(&probe(IN));
    assert_eq!((said[0].at, said[0].to), (Duration::ZERO, V4.group()));
    assert_eq!(said[0].answers.len(), 2);
    let said = link.ask(&probe(IN));
    assert_eq!(said[0].at, 250 * MS);
    // One that may be answered alone is, in any case; and all hear it if they did not lately.
    link.now = link.now + Duration::from_secs(60);
    let to: Vec<_> = link.ask(&probe(IN | TOP_BIT)).iter().map(|said| (said.to, said.at)).collect();
    assert_eq!(to, [(PEER_V4.into(), Duration::ZERO), (V4.group(), Duration::ZERO)]);
}

#[test]
fn another_host_that_has_its_name_wakes_the_guest() {
    let by: IpAddr = PEER_V4.into();
    let conflict = Heard::Wake(WakeReason::NameConflict { by });
    let says = |records: &[Written<'_>]| Link::announced().hear(&from_peer(V4, &response(records)));
    assert_eq!(says(&[("PRINTER.local", kind::A, IN | TOP_BIT, 120, &[192, 0, 2, 99], None)]), conflict);
    let elsewhere = (
        "Laser._http._tcp.local",
        kind::SRV,
        IN | TOP_BIT,
        120,
        &[0, 0, 0, 0, 0, 81][..],
        Some("printer.local"),
    );
    assert_eq!(says(&[elsewhere]), conflict);
    for (record, why) in [
        (("printer.local", kind::A, IN | TOP_BIT, 120, &[192, 0, 2, 11][..], None), "the same"),
        (("printer.local", kind::A, IN | TOP_BIT, 0, &[192, 0, 2, 99], None), "a goodbye to another"),
        (("printer.local", kind::TXT, IN | TOP_BIT, 120, &[0], None), "a type that the guest has not"),
        (("other.local", kind::A, IN | TOP_BIT, 120, &[192, 0, 2, 99], None), "another name"),
        (("_http._tcp.local", kind::PTR, IN, 4_500, &[], Some("Other._http._tcp.local")), "what many have"),
    ] {
        assert_eq!(says(&[record]), Heard::Noted, "{why}");
    }
    let claim = response(&[("printer.local", kind::A, IN | TOP_BIT, 120, &[192, 0, 2, 99], None)]);
    assert_eq!(Link::announced().hear(&from_peer_at(by, 40_000, &claim)), Heard::Noted, "not from its port");
}

#[test]
fn a_name_that_another_host_took_is_the_guests_again_if_it_says_so() {
    let claim =
        from_peer(V4, &response(&[("printer.local", kind::A, IN | TOP_BIT, 120, &[192, 0, 2, 99], None)]));
    let asked = |name: &str, of: u16| from_peer(V4, &query(&[(name, of, IN)]));
    let mut link = Link::announced();
    assert!(matches!(link.hear(&claim), Heard::Wake(_)));
    assert_eq!(link.ask(&asked("printer.local", kind::A)).len(), 1, "asleep it cannot give it up");
    // It took another name, which it announced.
    link.mdns.wake();
    link.sleep();
    assert_eq!(link.hear(&claim), Heard::Noted, "nothing to wake it for");
    for of in [kind::A, kind::AAAA] {
        assert_eq!(link.hear(&asked("printer.local", of)), Heard::Noted);
    }
    assert_eq!(link.ask(&asked("Laser._http._tcp.local", kind::SRV)).len(), 1, "nobody claims that");
    // Or it has its name after all.
    for said_again in [false, true] {
        let mut link = Link::announced();
        link.hear(&claim);
        link.mdns.wake();
        if said_again {
            link.learn(&from_guest(&announcement()));
        }
        link.sleep();
        assert_eq!(matches!(link.hear(&claim), Heard::Wake(_)), said_again);
    }
}

#[test]
fn an_address_that_is_not_the_guests_to_say_is_no_name_to_fight_for() {
    // It passes on what it hears on another link, and that host gets another address.
    let mut link = Link::announced();
    let passed_on =
        |last: u8| response(&[("theirs.local", kind::A, IN | TOP_BIT, 120, &[198, 51, 100, last], None)]);
    link.learn(&from_guest(&passed_on(7)));
    link.sleep();
    assert_eq!(link.hear(&from_peer(V4, &passed_on(8))), Heard::Noted);
    let goodbye = response(&[("theirs.local", kind::A, IN | TOP_BIT, 0, &[198, 51, 100, 7], None)]);
    assert_eq!(link.hear(&from_peer(V4, &goodbye)), Heard::Noted);
    assert_eq!(link.said(), []);
}

#[test]
fn who_says_goodbye_in_the_guests_name_is_contradicted() {
    let mut link = Link::announced();
    let goodbye = response(&[("printer.local", kind::A, IN | TOP_BIT, 0, &[192, 0, 2, 11], None)]);
    let said = link.ask(&from_peer(V4, &goodbye));
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].answers, [("printer.local".to_owned(), kind::A, true, 120)]);
    assert!(said[0].at >= 20 * MS && said[0].at <= 120 * MS);
}

#[test]
fn what_another_host_just_said_need_not_be_said_again() {
    let mut link = Link::announced();
    let asked = from_peer(V4, &query(&[("_services._dns-sd._udp.local", kind::PTR, IN)]));
    let said_by_another = |ttl: u32| {
        let same = ("_services._dns-sd._udp.local", kind::PTR, IN, ttl, &[][..], Some("_http._tcp.local"));
        from_peer(V4, &response(&[same]))
    };
    link.hear(&asked);
    link.hear(&said_by_another(4_000));
    assert_eq!(link.said().len(), 1, "for a shorter time than ours");
    link.now = link.now + Duration::from_secs(5);
    link.hear(&asked);
    link.hear(&said_by_another(4_500));
    assert_eq!(link.said(), []);
}

// What is learned.

#[test]
fn a_goodbye_takes_a_record_back() {
    let mut link = Link::awake(guest());
    link.learn(&from_guest(&announcement()));
    link.learn(&from_guest(&response(&[(
        "_http._tcp.local",
        kind::PTR,
        IN,
        0,
        &[],
        Some("Laser._http._tcp.local"),
    )])));
    link.sleep();
    assert_eq!(link.hear(&from_peer(V4, &query(&[("_http._tcp.local", kind::PTR, IN)]))), Heard::Noted);
    assert_eq!(link.mdns.limited(), 0);
}

#[test]
fn a_record_of_its_own_replaces_those_from_before_and_not_those_that_came_with_it() {
    let address =
        |last: u8| response(&[("printer.local", kind::A, IN | TOP_BIT, 120, &[192, 0, 2, last], None)]);
    let mut link = Link::awake(guest());
    link.identity.addresses.push(InterfaceAddress { address: [192, 0, 2, 12].into(), prefix_len: 24 });
    let told = |link: &mut Link| {
        link.sleep();
        link.now = link.now + Duration::from_secs(5);
        let said = link.ask(&from_peer(V4, &query(&[("printer.local", kind::A, IN)])));
        link.mdns.wake();
        said[0].answers.len()
    };
    link.learn(&from_guest(&address(11)));
    link.now = link.now + 500 * MS;
    link.learn(&from_guest(&address(12)));
    assert_eq!(told(&mut link), 2, "within a second: both");
    link.learn(&from_guest(&address(12)));
    assert_eq!(told(&mut link), 1);
}

#[test]
fn only_what_the_guest_says_of_itself_counts() {
    let mut link = Link::awake(guest());
    link.learn(&from_peer(V4, &announcement()));
    let plain = datagram(&to_group(GUEST), GUEST_V4.into(), V4.group(), [PORT, 40_000], &announcement());
    link.learn(&plain);
    let known = ("_http._tcp.local", kind::PTR, IN, 4_500, &[][..], Some("Theirs._http._tcp.local"));
    link.learn(&from_guest(&query_knowing(0, &[("_http._tcp.local", kind::PTR, IN)], &[known])));
    link.learn(&from_guest(&message(0, 0, |out| {
        assert!(out.question(&wire("printer.local"), kind::ANY, IN));
        put(out, Section::Authority, &[("printer.local", kind::A, IN, 120, &[192, 0, 2, 11], None)]);
    })));
    link.sleep();
    assert!(link.mdns.store.is_empty());
}

#[test]
fn what_is_declared_is_answered_too_and_the_guests_own_word_goes_before() {
    let service =
        Service { name: "Laser".into(), kind: "_http._tcp".into(), port: 8080, txt: vec!["path=/".into()] };
    let names_declared = Names { host: Some("printer".into()), services: vec![service], ..Names::default() };
    let traffic = TrafficPolicy { names: names_declared, ..guest().traffic };
    let identity = NicIdentity { traffic, ..guest() };
    let mut link = Link::awake(identity.clone());
    link.sleep();
    let said = link.ask(&from_peer(V4, &query(&[("_services._dns-sd._udp.local", kind::PTR, IN)])));
    assert_eq!(said[0].answers.len(), 1);
    link.now = link.now + Duration::from_secs(5);
    let said = link.ask(&from_peer(V4, &query(&[("_http._tcp.local", kind::PTR, IN)])));
    assert_eq!(
        names(&said[0].beside),
        [
            ("Laser._http._tcp.local", kind::TXT),
            ("Laser._http._tcp.local", kind::SRV),
            ("printer.local", kind::A),
            ("printer.local", kind::AAAA),
        ]
    );
    let mut memory = [0; dns::MAX_REVERSE];
    for address in [IpAddr::from(GUEST_V4), GUEST_V6.into()] {
        let mut link = Link::awake(identity.clone());
        link.sleep();
        let name = dns::reverse(address, &mut memory);
        let asked = message(0, 0, |out| assert!(out.question(name, kind::PTR, IN)));
        assert_eq!(link.ask(&from_peer(V4, &asked))[0].answers[0].1, kind::PTR);
    }
    // The guest itself tells another port.
    let mut link = Link::awake(identity);
    link.learn(&from_guest(&announcement()));
    link.sleep();
    link.sleep();
    let ports: Vec<_> =
        link.mdns.store.iter().filter(|(_, r)| r.kind == kind::SRV).map(|(_, r)| r.data[5]).collect();
    assert_eq!(ports, [80]);
}

#[test]
fn what_was_learned_survives() {
    let link = Link::announced();
    let learned = link.mdns.learned(link.now);
    assert_eq!(learned.records.len(), 6, "not what follows from it");
    let mut again = Link { mdns: Mdns::restore(&learned, link.now, MS), ..link };
    again.sleep();
    assert_eq!(again.ask(&from_peer(V4, &query(&[("printer.local", kind::A, IN)]))).len(), 1);
}

#[test]
fn an_awake_guest_speaks_for_itself() {
    let mut link = Link::announced();
    link.hear(&from_peer(V4, &query(&[("_http._tcp.local", kind::PTR, IN)])));
    link.hear(&from_peer(V4, &query_knowing(flag::TRUNCATED, &[("printer.local", kind::A, IN)], &[])));
    link.mdns.wake();
    assert_eq!(link.mdns.due(), None);
    assert_eq!(link.said(), []);
}

#[test]
fn a_port_that_takes_only_short_frames_gets_none_that_is_longer() {
    let mut link = Link::announced();
    link.hear(&from_peer(V4, &query(&[("Laser._http._tcp.local", kind::TXT, IN)])));
    let mut memory = [0; 100];
    let mut out = FrameBuf::new(&mut memory);
    assert_eq!(link.mdns.speak(link.now, &mut link.rng, &link.identity, &mut out), None);
    assert_eq!(link.mdns.due(), None, "and it is not tried for ever");
}

// Whatever comes.

/// All that can be done with a payload: nothing panics, everything comes to an end, and nobody gets too much.
fn survives(payload: &[u8], flags: [bool; 3]) {
    let [unicast, plain, v6] = flags;
    let mut link = Link::announced();
    let port = if plain { 40_000 } else { PORT };
    let (src, own): (IpAddr, IpAddr) =
        if v6 { (PEER_V6.into(), GUEST_V6.into()) } else { (PEER_V4.into(), GUEST_V4.into()) };
    let to = if unicast { Ethernet { dst: GUEST, ..to_group(PEER) } } else { to_group(PEER) };
    let dst = if unicast { own } else { Family::of(src).group() };
    let bytes = datagram(&to, src, dst, [port, PORT], payload);
    link.hear(&bytes);
    for said in link.said() {
        assert!(said.to.is_multicast() || said.len <= 3 * (bytes.len() - 14), "{said:?}");
    }
    link.learn(&datagram(&to_group(GUEST), own, Family::of(src).group(), [PORT, PORT], payload));
    link.sleep();
    let learned = link.mdns.learned(link.now);
    assert_eq!(Mdns::restore(&learned, link.now, MS).learned(link.now), learned);
}

fn seeds() -> Vec<Vec<u8>> {
    vec![
        announcement(),
        query(&[("printer.local", kind::ANY, IN | TOP_BIT), ("_http._tcp.local", kind::PTR, IN)]),
        query_knowing(flag::TRUNCATED, &[("Laser._http._tcp.local", kind::SRV, IN)], &[]),
        response(&[("printer.local", kind::A, IN | TOP_BIT, 0, &[192, 0, 2, 11], None)]),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_survived(payload in prop::collection::vec(any::<u8>(), 0..400), flags: [bool; 3]) {
        survives(&payload, flags);
    }

    #[test]
    fn messages_with_bytes_changed_are_survived(
        seed in 0usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        flags: [bool; 3],
    ) {
        let mut payload = seeds()[seed].clone();
        for (at, byte) in changes {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        survives(&payload, flags);
    }
}

#[test]
fn real_payloads_are_no_malformed_ones() {
    for payload in seeds() {
        survives(&payload, [false; 3]);
        let bytes = from_peer(V4, &payload);
        let frame = Frame::parse(&Received::plain(&bytes)).unwrap();
        assert!(Packet::parse(&frame, Offload::None).is_ok());
    }
}
