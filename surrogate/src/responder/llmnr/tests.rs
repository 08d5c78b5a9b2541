use proptest::prelude::*;
use surrogate_wire::dns::TOP_BIT;
use surrogate_wire::emit::Ethernet;
use surrogate_wire::{Mac, Tags};

use super::*;
use crate::guest::identity::InterfaceAddress;
use crate::policy::names::Names;
use crate::policy::traffic::TrafficPolicy;
use crate::responder::testing::{
    GUEST, GUEST_V4, GUEST_V6, PEER, PEER_V4, PEER_V6, datagram, guest, read, wire,
};
use crate::rng::Rng;

const CONFLICT: u16 = flag::AUTHORITATIVE;
const TENTATIVE: u16 = flag::RECURSION_DESIRED;

fn message(id: u16, flags: u16, write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut memory = [0; 512];
    let mut out = Writer::new(&mut memory, id, flags).unwrap();
    write(&mut out);
    out.finish().to_vec()
}

fn query(flags: u16, name: &str, kind: u16) -> Vec<u8> {
    message(0x4711, flags, |out| assert!(out.question(&wire(name), kind, IN)))
}

fn answer(flags: u16, name: &str, class: u16, ttl: u32) -> Vec<u8> {
    message(1, flag::RESPONSE | flags, |out| {
        let data = Data { before: &GUEST_V4.octets(), ..Data::default() };
        assert!(out.record(Section::Answer, &wire(name), kind::A, class, ttl, &data));
    })
}

/// To the group of its family, from the peer's port 50000.
fn from_peer(src: IpAddr, payload: &[u8]) -> Vec<u8> {
    let to = Ethernet { dst: Mac([1, 0, 0x5e, 0, 0, 0xfc]), src: PEER, tags: Tags::NONE };
    let dst = GROUPS[usize::from(src.is_ipv6())];
    datagram(&to, src, dst, [50_000, PORT], payload)
}

fn from_guest(ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let to = Ethernet { dst: PEER, src: GUEST, tags: Tags::NONE };
    datagram(&to, GUEST_V4.into(), PEER_V4.into(), ports, payload)
}

fn declared(host: &str) -> NicIdentity {
    let names = Names { host: Some(host.to_owned()), ..Names::default() };
    NicIdentity { traffic: TrafficPolicy { names, ..guest().traffic }, ..guest() }
}

struct Link {
    llmnr: Llmnr,
    identity: NicIdentity,
    rng: Rng,
}

impl Link {
    fn asleep(identity: NicIdentity) -> Self {
        let mut link = Self { llmnr: Llmnr::default(), identity, rng: Rng::seeded(1) };
        link.sleep();
        link
    }

    fn sleep(&mut self) {
        self.llmnr.sleep(Instant::ZERO, &mut self.rng, &self.identity);
    }

    fn learn(&mut self, bytes: &[u8]) {
        let (frame, packet) = read(bytes);
        self.llmnr.learn(Instant::ZERO, frame.src == GUEST, &frame, &packet);
    }

    fn hear(&mut self, bytes: &[u8]) -> Heard {
        let (frame, packet) = read(bytes);
        self.llmnr.hear(Instant::ZERO, &mut self.rng, &self.identity, &frame, &packet)
    }

    /// Everything that is said now.
    fn said(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut memory = [0xee; 1_522];
        let mut out = FrameBuf::new(&mut memory);
        while self.llmnr.speak(Instant::ZERO, &mut self.rng, &self.identity, &mut out).is_some() {
            all.push(out.as_bytes().to_vec());
        }
        assert_eq!(self.llmnr.due(), None);
        all
    }

    /// Type and data of the answers to one question.
    fn ask(&mut self, bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
        assert_eq!(self.hear(bytes), Heard::Owed(Answered::Llmnr));
        let said = self.said();
        assert_eq!(said.len(), 1);
        let (_, packet) = read(&said[0]);
        let Some(Transport::Udp(udp)) = packet.transport() else { panic!("{packet:?}") };
        let message = Message::parse(udp.payload).unwrap();
        assert_eq!(
            (message.id, message.flags, message.count(Section::Question)),
            (0x4711, flag::RESPONSE, 1)
        );
        message.records().map(|(_, record)| (record.kind, record.data.to_vec())).collect()
    }
}

#[test]
fn a_declared_name_is_answered_to_its_asker_alone() {
    let mut link = Link::asleep(declared("printer"));
    assert_eq!(
        link.hear(&from_peer(PEER_V4.into(), &query(0, "PRINTER", kind::A))),
        Heard::Owed(Answered::Llmnr)
    );
    let said = link.said();
    let (frame, Packet::Ipv4(ip, Transport::Udp(udp))) = read(&said[0]) else { panic!("{said:x?}") };
    assert_eq!((frame.dst, frame.src, ip.src, ip.dst), (PEER, GUEST, GUEST_V4, PEER_V4));
    assert_eq!((udp.src_port, udp.dst_port, ip.ttl), (PORT, 50_000, 255));
    let message = Message::parse(udp.payload).unwrap();
    assert_eq!((message.id, message.flags), (0x4711, flag::RESPONSE), "no conflict, not tentative");
    assert!(message.questions().next().unwrap().name.labels().eq([b"PRINTER"]), "the question as it came");
    let (_, record) = message.records().next().unwrap();
    assert_eq!(
        (record.kind, record.ttl, record.flush, record.data),
        (kind::A, 30, false, &GUEST_V4.octets()[..])
    );
}

#[test]
fn all_types_that_it_has_are_told_and_of_the_others_that_there_are_none() {
    let mut link = Link::asleep(declared("printer"));
    let (v4, v6) = ((kind::A, GUEST_V4.octets().to_vec()), (kind::AAAA, GUEST_V6.octets().to_vec()));
    assert_eq!(
        link.ask(&from_peer(PEER_V6.into(), &query(0, "printer", kind::AAAA))),
        std::slice::from_ref(&v6)
    );
    assert_eq!(link.ask(&from_peer(PEER_V4.into(), &query(0, "printer", kind::ANY))), [v4, v6]);
    assert_eq!(link.ask(&from_peer(PEER_V4.into(), &query(0, "printer", kind::MX))), []);
    let names = [(kind::PTR, wire("printer"))];
    assert_eq!(link.ask(&from_peer(PEER_V4.into(), &query(0, "11.2.0.192.in-addr.arpa", kind::PTR))), names);
}

#[test]
fn what_is_not_the_guests_or_no_proper_question_gets_no_answer() {
    let mut link = Link::asleep(declared("printer"));
    let good = query(0, "printer", kind::A);
    let two = message(1, 0, |out| {
        assert!(
            out.question(&wire("printer"), kind::A, IN) && out.question(&wire("printer"), kind::AAAA, IN)
        );
    });
    for (payload, why) in [
        (query(0, "other", kind::A), "another's name"),
        (query(0, "printer.local", kind::A), "more than one label"),
        (query(0, "12.2.0.192.in-addr.arpa", kind::PTR), "another's address"),
        (query(CONFLICT, "printer", kind::A), "it tells of a conflict"),
        (query(0x0800, "printer", kind::A), "an opcode"),
        (answer(0, "printer", IN, 30), "an answer"),
        (two, "two questions"),
    ] {
        assert_eq!(link.hear(&from_peer(PEER_V4.into(), &payload)), Heard::Noted, "{why}");
    }
    let off_link: IpAddr = "198.51.100.7".parse().unwrap();
    assert_eq!(link.hear(&from_peer(off_link, &good)), Heard::NotMine);
    let to = Ethernet { dst: GUEST, src: PEER, tags: Tags::NONE };
    let unicast = datagram(&to, PEER_V4.into(), GUEST_V4.into(), [50_000, PORT], &good);
    assert_eq!(link.hear(&unicast), Heard::NotMine, "nothing says that it runs a responder");
    link.identity.groups.push(GROUPS[0]);
    assert_eq!(link.hear(&unicast), Heard::Noted, "a question by unicast comes by TCP");
    assert_eq!(link.said(), Vec::<Vec<u8>>::new());
    assert_eq!(
        Link::asleep(guest()).hear(&from_peer(PEER_V4.into(), &good)),
        Heard::NotMine,
        "it has no name"
    );
}

#[test]
fn names_are_learned_from_its_own_answers_and_from_multicast_dns() {
    let mdns_ports = [mdns::PORT, mdns::PORT];
    let learned = |ports: [u16; 2], payload: &[u8]| {
        let mut link = Link::asleep(guest());
        link.learn(&from_guest(ports, payload));
        link.sleep();
        link.llmnr.learned(Instant::ZERO).names
    };
    let printer = vec![wire("printer")];
    assert_eq!(learned([PORT, 50_000], &answer(0, "printer", IN, 30)), printer);
    assert_eq!(learned(mdns_ports, &answer(0x0400, "printer.local", IN | TOP_BIT, 120)), printer);
    assert!(learned([PORT, 50_000], &answer(TENTATIVE, "printer", IN, 30)).is_empty(), "not yet its own");
    assert!(learned([50_000, PORT], &answer(0, "printer", IN, 30)).is_empty(), "not from its port");
    assert!(learned([PORT, 50_000], &query(0, "printer", kind::A)).is_empty(), "a question");
    assert!(learned(mdns_ports, &answer(0x0400, "printer.local", IN, 120)).is_empty(), "not its alone");
    let mut link = Link::asleep(guest());
    link.learn(&from_guest(mdns_ports, &answer(0x0400, "printer.local", IN | TOP_BIT, 120)));
    link.learn(&from_guest(mdns_ports, &answer(0x0400, "printer.local", IN | TOP_BIT, 0)));
    assert!(link.llmnr.learned(Instant::ZERO).names.is_empty(), "a goodbye");
    link.learn(&from_peer(PEER_V4.into(), &answer(0, "theirs", IN, 30)));
    assert!(link.llmnr.learned(Instant::ZERO).names.is_empty(), "another's answer");
}

#[test]
fn a_name_of_another_link_that_the_guest_passes_on_is_not_its_own() {
    let told = |address: [u8; 4]| {
        message(0, 0x8400, |out| {
            let data = Data { before: &address, ..Data::default() };
            let name = wire("printer.local");
            assert!(out.record(Section::Answer, &name, kind::A, IN | TOP_BIT, 120, &data));
        })
    };
    let mut link = Link::asleep(guest());
    link.learn(&from_guest([mdns::PORT, mdns::PORT], &told([198, 51, 100, 7])));
    assert!(link.llmnr.learned(Instant::ZERO).names.is_empty());
    link.learn(&from_guest([mdns::PORT, mdns::PORT], &told(GUEST_V4.octets())));
    link.learn(&from_guest([mdns::PORT, mdns::PORT], &told([198, 51, 100, 7])));
    assert_eq!(link.llmnr.learned(Instant::ZERO).names, [wire("printer")], "its own all the same");
}

#[test]
fn names_are_limited_and_survive() {
    let mut link = Link::asleep(declared("declared"));
    for n in 0..20 {
        link.learn(&from_guest([PORT, 50_000], &answer(0, &format!("n{n}"), IN, 30)));
    }
    link.sleep();
    let learned = link.llmnr.learned(Instant::ZERO);
    assert_eq!((learned.names.len(), link.llmnr.names.len()), (NAMES - 1, NAMES), "and the declared one");
    assert_eq!(link.llmnr.limited(), 13);
    assert_eq!(Llmnr::restore(&learned, Instant::ZERO, Duration::ZERO).learned(Instant::ZERO), learned);
    let forged = LlmnrLearned { names: vec![vec![3, b'a'], wire("two.labels"), vec![0], vec![0xc0, 0]] };
    assert!(Llmnr::restore(&forged, Instant::ZERO, Duration::ZERO).learned(Instant::ZERO).names.is_empty());
}

#[test]
fn nobody_is_sent_more_than_three_times_what_he_sent_and_the_queue_is_limited() {
    let mut identity = declared("p");
    for n in 20..60 {
        identity.addresses.push(InterfaceAddress { address: [192, 0, 2, n].into(), prefix_len: 24 });
    }
    let mut link = Link::asleep(identity);
    let asked = from_peer(PEER_V4.into(), &query(0, "p", kind::A));
    for _ in 0..ASKERS {
        assert_eq!(link.hear(&asked), Heard::Owed(Answered::Llmnr));
    }
    assert_eq!(link.hear(&asked), Heard::TooMany, "he asks again");
    for said in link.said() {
        let (_, packet) = read(&said);
        let Packet::Ipv4(ip, _) = packet else { panic!("{packet:?}") };
        assert!(ip.packet.len() <= 3 * (20 + 8 + 12 + 7), "{}", ip.packet.len());
    }
    link.hear(&asked);
    link.llmnr.wake();
    assert_eq!(link.llmnr.due(), None);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        seed in 0usize..3,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        random in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let seeds = [query(0, "printer", kind::ANY), answer(0, "printer", IN, 30), random];
        let mut payload = seeds[seed].clone();
        for (at, byte) in changes {
            if !payload.is_empty() {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
        }
        let mut link = Link::asleep(declared("printer"));
        let asked = from_peer(PEER_V4.into(), &payload);
        link.hear(&asked);
        for said in link.said() {
            prop_assert!(said.len() - 14 <= 3 * (asked.len() - 14));
        }
        link.learn(&from_guest([PORT, 50_000], &payload));
        link.learn(&from_guest([mdns::PORT, mdns::PORT], &payload));
        let learned = link.llmnr.learned(Instant::ZERO);
        prop_assert_eq!(Llmnr::restore(&learned, Instant::ZERO, Duration::ZERO).learned(Instant::ZERO), learned);
    }
}
