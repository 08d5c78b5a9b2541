use core::net::Ipv4Addr;

use proptest::prelude::*;
use surrogate_wire::emit::Ethernet;
use surrogate_wire::netbios::BROADCAST;
use surrogate_wire::{Mac, Tags};

use super::*;
use crate::policy::names::{Names, NetbiosName};
use crate::policy::traffic::TrafficPolicy;
use crate::responder::testing::{GUEST, GUEST_V4, PEER, PEER_V4, datagram, guest, read};
use crate::rng::Rng;

const DESIRED: u16 = flag::RECURSION_DESIRED;
const ALL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 255);

fn name(text: &str, suffix: u8) -> Name {
    Name::new(text, suffix).unwrap()
}

fn query(name: Name, kind: u16, flags: u16) -> Vec<u8> {
    let mut memory = [0; 128];
    let mut out = Writer::new(&mut memory, 0x0815, flags).unwrap();
    assert!(out.question(&name.wire(), kind, IN));
    out.finish().to_vec()
}

/// A registration, refresh or release, or with `flag::RESPONSE` what became of one.
fn about(name: Name, operation: u8, flags: u16, node: u16, address: Ipv4Addr) -> Vec<u8> {
    let mut memory = [0; 128];
    let mut out = Writer::new(&mut memory, 0x0815, u16::from(operation) << 11 | flags).unwrap();
    let data = [&node.to_be_bytes()[..], &address.octets()].concat();
    let data = Data { before: &data, ..Data::default() };
    let section = if flags & flag::RESPONSE == 0 {
        assert!(out.question(&name.wire(), NB, IN));
        Section::Additional
    } else {
        Section::Answer
    };
    assert!(out.record(section, &name.wire(), NB, IN, TTL, &data));
    out.finish().to_vec()
}

fn from_peer(dst: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let mac = if dst == GUEST_V4 { GUEST } else { Mac::BROADCAST };
    let to = Ethernet { dst: mac, src: PEER, tags: Tags::NONE };
    datagram(&to, PEER_V4.into(), dst.into(), [port, PORT], payload)
}

fn from_guest(payload: &[u8]) -> Vec<u8> {
    let to = Ethernet { dst: Mac::BROADCAST, src: GUEST, tags: Tags::NONE };
    datagram(&to, GUEST_V4.into(), ALL.into(), [PORT, PORT], payload)
}

struct Link {
    netbios: Netbios,
    identity: NicIdentity,
    rng: Rng,
}

impl Link {
    /// Declared: PRINTER as workstation and server, OFFICE as a group.
    fn declared() -> Self {
        let declared = [("PRINTER", 0, false), ("PRINTER", 0x20, false), ("OFFICE", 0, true)];
        let netbios =
            declared.map(|(text, suffix, group)| NetbiosName { name: name(text, suffix), group }).to_vec();
        let names = Names { netbios, ..Names::default() };
        Self::asleep(NicIdentity { traffic: TrafficPolicy { names, ..guest().traffic }, ..guest() })
    }

    fn asleep(identity: NicIdentity) -> Self {
        let mut link = Self { netbios: Netbios::default(), identity, rng: Rng::seeded(1) };
        link.sleep();
        link
    }

    fn sleep(&mut self) {
        self.netbios.sleep(Instant::ZERO, &mut self.rng, &self.identity);
    }

    fn learn(&mut self, bytes: &[u8]) {
        let (frame, packet) = read(bytes);
        self.netbios.learn(Instant::ZERO, frame.src == GUEST, &frame, &packet);
    }

    fn hear(&mut self, bytes: &[u8]) -> Heard {
        let (frame, packet) = read(bytes);
        self.netbios.hear(Instant::ZERO, &mut self.rng, &self.identity, &frame, &packet)
    }

    fn said(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut memory = [0xee; 1_522];
        let mut out = FrameBuf::new(&mut memory);
        while self.netbios.speak(Instant::ZERO, &mut self.rng, &self.identity, &mut out).is_some() {
            all.push(out.as_bytes().to_vec());
        }
        assert_eq!(self.netbios.due(), None);
        all
    }

    /// What one question is answered with, of which the payload is read.
    fn ask(&mut self, bytes: &[u8]) -> Vec<u8> {
        assert_eq!(self.hear(bytes), Heard::Owed(Answered::Netbios));
        let said = self.said();
        assert_eq!(said.len(), 1);
        let (frame, Packet::Ipv4(ip, Transport::Udp(udp))) = read(&said[0]) else { panic!("{said:x?}") };
        assert_eq!((frame.dst, frame.src, ip.src, ip.dst), (PEER, GUEST, GUEST_V4, PEER_V4));
        assert_eq!(udp.src_port, PORT);
        udp.payload.to_vec()
    }
}

#[test]
fn a_question_for_its_name_is_answered_to_the_asker_by_broadcast_or_not() {
    for dst in [ALL, Ipv4Addr::BROADCAST, GUEST_V4] {
        let asked = query(name("PRINTER", 0x20), NB, DESIRED | BROADCAST);
        let said = Link::declared().ask(&from_peer(dst, PORT, &asked));
        let read = surrogate_wire::Netbios::parse(&said).unwrap();
        assert_eq!((read.id, read.flags, read.name), (0x0815, 0x8500, name("PRINTER", 0x20)));
        assert_eq!(read.nodes().collect::<Vec<_>>(), [(0, GUEST_V4)]);
        assert_eq!(read.record.unwrap().ttl, TTL);
    }
    let said = Link::declared().ask(&from_peer(ALL, 50_000, &query(name("OFFICE", 0), NB, 0)));
    let read = surrogate_wire::Netbios::parse(&said).unwrap();
    assert_eq!((read.flags, read.nodes().next()), (0x8400, Some((GROUP, GUEST_V4))));
}

#[test]
fn a_nodes_status_is_told_to_who_asks_it_alone() {
    let asked = query(Name::WILDCARD, NBSTAT, 0);
    let said = Link::declared().ask(&from_peer(GUEST_V4, 50_000, &asked));
    let read = surrogate_wire::Netbios::parse(&said).unwrap();
    let expected =
        [(name("PRINTER", 0), ACTIVE), (name("PRINTER", 0x20), ACTIVE), (name("OFFICE", 0), ACTIVE | GROUP)];
    assert_eq!(read.status().collect::<Vec<_>>(), expected);
    let data = read.record.unwrap().data;
    assert_eq!(data[1 + 3 * NAME..][..6], GUEST.0, "the node's address");
    assert_eq!(data.len(), 1 + 3 * NAME + STATISTICS);
    assert_eq!(Link::declared().hear(&from_peer(ALL, 50_000, &asked)), Heard::Noted, "to all at once: no");
}

#[test]
fn nobody_is_sent_more_than_three_times_what_he_sent() {
    let mut link = Link::declared();
    for n in 0..40 {
        link.learn(&from_guest(&about(
            name(&format!("N{n}"), 0),
            opcode::REGISTRATION,
            DESIRED,
            0,
            GUEST_V4,
        )));
    }
    link.sleep();
    assert_eq!(link.netbios.names.len(), NAMES);
    assert_eq!(link.netbios.limited(), 40 - NAMES as u64 + 3);
    let asked = from_peer(GUEST_V4, 50_000, &query(Name::WILDCARD, NBSTAT, 0));
    let said = link.ask(&asked);
    let told = surrogate_wire::Netbios::parse(&said).unwrap().status().count();
    assert!(said.len() + 28 <= 3 * (asked.len() - 14) && told >= 5, "{} bytes, {told} names", said.len());
}

#[test]
fn another_hosts_wish_for_its_name_is_refused() {
    let wish = |flags: u16, node: u16, text: &str| {
        from_peer(ALL, PORT, &about(name(text, 0), opcode::REGISTRATION, flags, node, PEER_V4))
    };
    let said = Link::declared().ask(&wish(DESIRED | BROADCAST, 0, "PRINTER"));
    let read = surrogate_wire::Netbios::parse(&said).unwrap();
    assert_eq!((read.flags, read.opcode, read.rcode()), (0xad86, opcode::REGISTRATION, ACTIVE_ERROR));
    assert_eq!(read.nodes().next(), Some((0, GUEST_V4)));
    assert_eq!(read.record.unwrap().ttl, 0);
    assert!(
        matches!(Link::declared().hear(&wish(DESIRED, GROUP, "PRINTER")), Heard::Owed(_)),
        "nor for a group"
    );
    assert!(matches!(Link::declared().hear(&wish(DESIRED, 0, "OFFICE")), Heard::Owed(_)), "nor the group's");
    assert_eq!(Link::declared().hear(&wish(DESIRED, GROUP, "OFFICE")), Heard::Noted, "it may join");
    assert_eq!(Link::declared().hear(&wish(DESIRED, 0, "OTHER")), Heard::Noted);
    let demand = Heard::Wake(WakeReason::NameConflict { by: PEER_V4.into() });
    assert_eq!(Link::declared().hear(&wish(0, 0, "PRINTER")), demand, "it did not hear, and takes it");
}

#[test]
fn what_is_not_the_guests_gets_no_answer() {
    let mut link = Link::declared();
    for (payload, why) in [
        (query(name("OTHER", 0), NB, 0), "another's name"),
        (query(name("PRINTER", 0x1b), NB, 0), "another suffix"),
        (query(Name::WILDCARD, NB, 0), "everybody"),
        (about(name("PRINTER", 0), opcode::RELEASE, 0, 0, PEER_V4), "somebody gives a name up"),
        (about(name("PRINTER", 0), opcode::REFRESH, 0, 0, PEER_V4), "somebody keeps a name"),
    ] {
        assert_eq!(link.hear(&from_peer(ALL, PORT, &payload)), Heard::Noted, "{why}");
    }
    let answer = about(name("OTHER", 0), opcode::QUERY, flag::RESPONSE, 0, PEER_V4);
    assert_eq!(link.hear(&from_peer(GUEST_V4, PORT, &answer)), Heard::NotMine, "the guest asked");
    assert_eq!(link.hear(&from_peer(GUEST_V4, PORT, b"nothing")), Heard::NotMine);
    let asked = query(name("PRINTER", 0), NB, 0);
    let elsewhere = Ipv4Addr::new(198, 51, 100, 255);
    assert_eq!(link.hear(&from_peer(elsewhere, PORT, &asked)), Heard::NotMine, "another prefix");
    assert_eq!(link.said(), Vec::<Vec<u8>>::new());
    assert_eq!(Link::asleep(guest()).hear(&from_peer(ALL, PORT, &asked)), Heard::NotMine, "it has no name");
}

#[test]
fn names_are_learned_from_what_the_guest_registers_and_answers() {
    let learned = |payloads: &[Vec<u8>]| {
        let mut link = Link::asleep(guest());
        payloads.iter().for_each(|payload| link.learn(&from_guest(payload)));
        link.netbios.learned(Instant::ZERO).names
    };
    let printer = name("PRINTER", 0);
    // An M-node: its type is kept, and told.
    let node = 0x4000;
    let all = [(printer.0, node)];
    for operation in [opcode::REGISTRATION, opcode::MULTIHOMED, opcode::REFRESH, opcode::REFRESH_ALSO] {
        assert_eq!(learned(&[about(printer, operation, DESIRED, node, GUEST_V4)]), all, "{operation}");
    }
    assert_eq!(learned(&[about(printer, opcode::QUERY, flag::RESPONSE, node, GUEST_V4)]), all, "it answered");
    assert!(learned(&[query(printer, NB, DESIRED)]).is_empty(), "it asked");
    assert!(learned(&[about(Name::WILDCARD, opcode::QUERY, flag::RESPONSE, 0, GUEST_V4)]).is_empty());
    let registration = about(printer, opcode::REGISTRATION, DESIRED, node, GUEST_V4);
    assert!(learned(&[registration.clone(), about(printer, opcode::RELEASE, 0, node, GUEST_V4)]).is_empty());

    let mut link = Link::asleep(guest());
    link.learn(&from_guest(&registration));
    let refusal = about(printer, opcode::REGISTRATION, flag::RESPONSE | ACTIVE_ERROR, 0, PEER_V4);
    link.learn(&from_peer(GUEST_V4, PORT, &refusal));
    assert!(link.netbios.learned(Instant::ZERO).names.is_empty(), "it was another's");
}

#[test]
fn names_that_the_guest_serves_for_others_are_not_its_own() {
    let mut link = Link::asleep(guest());
    for (operation, flags) in [(opcode::QUERY, flag::RESPONSE), (opcode::REGISTRATION, DESIRED)] {
        link.learn(&from_guest(&about(name("THEIRS", 0x20), operation, flags, 0, PEER_V4)));
    }
    link.sleep();
    let asked = query(name("THEIRS", 0x20), NB, DESIRED | BROADCAST);
    assert_eq!(link.hear(&from_peer(ALL, PORT, &asked)), Heard::NotMine);
    assert!(link.netbios.learned(Instant::ZERO).names.is_empty());
}

#[test]
fn a_status_that_the_guest_told_is_learned_whole() {
    let mut told = Link::declared();
    let status = told.ask(&from_peer(GUEST_V4, 50_000, &query(Name::WILDCARD, NBSTAT, 0)));
    let mut link = Link::asleep(guest());
    link.learn(&from_guest(&status));
    let learned = link.netbios.learned(Instant::ZERO);
    let expected = [(name("PRINTER", 0).0, 0), (name("PRINTER", 0x20).0, 0), (name("OFFICE", 0).0, GROUP)];
    assert_eq!(learned.names, expected);
    assert_eq!(Netbios::restore(&learned, Instant::ZERO, Duration::ZERO).learned(Instant::ZERO), learned);
    assert!(told.netbios.learned(Instant::ZERO).names.is_empty(), "what is declared is in the configuration");
}

#[test]
fn the_queue_is_limited_and_an_awake_guest_speaks_for_itself() {
    let mut link = Link::declared();
    let asked = from_peer(ALL, PORT, &query(name("PRINTER", 0), NB, DESIRED));
    for _ in 0..ASKERS {
        assert_eq!(link.hear(&asked), Heard::Owed(Answered::Netbios));
    }
    assert_eq!(link.hear(&asked), Heard::TooMany, "he asks again");
    link.netbios.wake();
    assert_eq!(link.netbios.due(), None);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        seed in 0usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        random in prop::collection::vec(any::<u8>(), 0..100),
        unicast: bool,
    ) {
        let printer = name("PRINTER", 0);
        let seeds = [
            query(Name::WILDCARD, NBSTAT, 0),
            query(printer, NB, DESIRED),
            about(printer, opcode::REGISTRATION, DESIRED, 0, PEER_V4),
            random,
        ];
        let mut payload = seeds[seed].clone();
        for (at, byte) in changes {
            if !payload.is_empty() {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
        }
        let mut link = Link::declared();
        let asked = from_peer(if unicast { GUEST_V4 } else { ALL }, PORT, &payload);
        link.hear(&asked);
        for said in link.said() {
            prop_assert!(said.len() - 14 <= 3 * (asked.len() - 14));
        }
        link.learn(&from_guest(&payload));
        link.learn(&asked);
        let learned = link.netbios.learned(Instant::ZERO);
        prop_assert_eq!(Netbios::restore(&learned, Instant::ZERO, Duration::ZERO).learned(Instant::ZERO), learned);
    }
}
