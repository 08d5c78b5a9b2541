//! A guest, its server, and what passes between them in virtual time.

use proptest::prelude::*;
use surrogate_wire::emit::Ipv4Header;
use surrogate_wire::{Offload, Received, protocol};

use super::*;
use crate::responder::testing::{GUEST, GUEST_V4, PEER, guest, read, udp_v4_to};
use crate::rng::Rng;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OTHER_SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The station of the server, or of the router on the way to it.
const STATION: Mac = PEER;
/// What a guest asks with beside what belongs to one request.
const OPTIONS: [u8; 20] =
    [61, 7, 1, 0x52, 0x54, 0, 0, 0, 0x11, 12, 4, b'w', b'e', b'b', b'1', 55, 3, 1, 3, 6];
const HOUR: u32 = 3600;

/// The state of one NIC, and a clock.
struct World {
    dhcp: Dhcpv4,
    now: Instant,
    rng: Rng,
    identity: NicIdentity,
}

/// A request of ours.
#[derive(Debug)]
struct Said {
    at: Instant,
    station: Mac,
    dst: Ipv4Addr,
    xid: u32,
    secs: u16,
    ciaddr: Ipv4Addr,
    options: Vec<u8>,
}

fn payload(op: u8, xid: u32, [ciaddr, yiaddr]: [Ipv4Addr; 2], options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..3].copy_from_slice(&[op, 1, 6]);
    bytes[4..8].copy_from_slice(&xid.to_be_bytes());
    bytes[12..16].copy_from_slice(&ciaddr.octets());
    bytes[16..20].copy_from_slice(&yiaddr.octets());
    bytes[28..34].copy_from_slice(&GUEST.0);
    bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend(options);
    bytes.push(255);
    bytes
}

const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// From the guest, to all or to its server.
fn from_guest(kind: u8, xid: u32, ciaddr: Ipv4Addr, options: &[u8]) -> Vec<u8> {
    let alone = !ciaddr.is_unspecified();
    let to = Ethernet { dst: if alone { STATION } else { Mac::BROADCAST }, src: GUEST, tags: Tags::NONE };
    let dst = if alone { SERVER } else { Ipv4Addr::BROADCAST };
    let header = Ipv4Header {
        src: ciaddr,
        dst,
        tos: 0,
        id: 1,
        dont_fragment: false,
        ttl: 64,
        protocol: protocol::UDP,
    };
    let options = [&[53, 1, kind][..], options].concat();
    udp_v4_to(&to, &header, 68, 67, &payload(FROM_CLIENT, xid, [ciaddr, NONE], &options))
}

fn from_server(server: Ipv4Addr, kind: u8, xid: u32, yiaddr: Ipv4Addr, options: &[u8]) -> Vec<u8> {
    let to = Ethernet { dst: GUEST, src: STATION, tags: Tags::NONE };
    let header = Ipv4Header {
        src: if server.is_unspecified() { SERVER } else { server },
        dst: GUEST_V4,
        tos: 0,
        id: 1,
        dont_fragment: false,
        ttl: 64,
        protocol: protocol::UDP,
    };
    let options = [&[53, 1, kind, 54, 4][..], &server.octets(), options].concat();
    udp_v4_to(&to, &header, 67, 68, &payload(FROM_SERVER, xid, [NONE, yiaddr], &options))
}

fn lease(seconds: u32) -> Vec<u8> {
    [&[51, 4][..], &seconds.to_be_bytes()].concat()
}

fn ack(xid: u32, seconds: u32) -> Vec<u8> {
    from_server(SERVER, kind::ACK, xid, GUEST_V4, &lease(seconds))
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl World {
    fn new() -> Self {
        let now = Instant::ZERO + seconds(1000);
        Self { dhcp: Dhcpv4::default(), now, rng: Rng::seeded(5), identity: guest() }
    }

    /// A guest that asked for an address and got it for so long.
    fn with_lease(seconds: u32) -> Self {
        let mut world = Self::new();
        world.asks(kind::REQUEST, 77, NONE);
        world.is_told(&ack(77, seconds));
        world
    }

    fn asks(&mut self, kind: u8, xid: u32, ciaddr: Ipv4Addr) {
        let [a, b, c, d] = GUEST_V4.octets();
        let selecting = [50, 4, a, b, c, d, 54, 4, 192, 0, 2, 1];
        let options = [if ciaddr.is_unspecified() { &selecting[..] } else { &[] }, &OPTIONS[..]].concat();
        self.learn(true, &from_guest(kind, xid, ciaddr, &options));
    }

    fn is_told(&mut self, bytes: &[u8]) {
        self.learn(false, bytes);
    }

    fn learn(&mut self, from_guest: bool, bytes: &[u8]) {
        let (frame, packet) = read(bytes);
        self.dhcp.learn(self.now, from_guest, &frame, &packet);
    }

    fn sleep(mut self) -> Self {
        self.dhcp.sleep(self.now, &mut self.rng, &self.identity);
        self
    }

    fn hear(&mut self, bytes: &[u8]) -> Heard {
        let (frame, packet) = read(bytes);
        self.dhcp.hear(self.now, &mut self.rng, &self.identity, &frame, &packet)
    }

    /// Goes on until a request is sent or an alarm is given.
    fn next(&mut self) -> Option<Result<Said, Alarm>> {
        for _ in 0..100 {
            self.now = self.dhcp.due()?.max(self.now);
            match self.dhcp.alarm(self.now) {
                // Of no consequence here.
                Some(Alarm::Renewed) => continue,
                Some(alarm) => return Some(Err(alarm)),
                None => {}
            }
            let mut memory = [0xee; 1514];
            let mut out = FrameBuf::new(&mut memory);
            if self.dhcp.speak(self.now, &mut self.rng, &self.identity, &mut out).is_some() {
                return Some(Ok(said(self.now, out.as_bytes())));
            }
        }
        panic!("due and silent: {:?}", self.dhcp);
    }

    fn request(&mut self) -> Said {
        self.next().expect("it goes on").expect("a request")
    }

    fn alarm(&mut self) -> Alarm {
        self.next().expect("it goes on").expect_err("an alarm")
    }

    /// All that comes if nobody answers.
    fn unanswered(&mut self) -> (Vec<Said>, Vec<(Instant, Alarm)>) {
        let (mut requests, mut alarms) = (Vec::new(), Vec::new());
        while let Some(next) = self.next() {
            match next {
                Ok(request) => requests.push(request),
                Err(alarm) => alarms.push((self.now, alarm)),
            }
        }
        (requests, alarms)
    }
}

fn said(at: Instant, bytes: &[u8]) -> Said {
    let (frame, packet) = read(bytes);
    assert_eq!(frame.src, GUEST);
    let Packet::Ipv4(ip, Transport::Udp(udp)) = packet else { panic!("{packet:?}") };
    assert_eq!((udp.src_port, udp.dst_port, ip.src), (68, 67, GUEST_V4));
    let message = Message::parse(udp.payload).expect("a message");
    assert_eq!((message.op, message.kind, message.chaddr), (FROM_CLIENT, kind::REQUEST, GUEST));
    assert_eq!((message.requested, message.server), (None, None), "RFC 2131 4.3.2");
    let options =
        message.options().skip(1).flat_map(|(code, value)| [&[code, value.len() as u8], value].concat());
    Said {
        at,
        station: frame.dst,
        dst: ip.dst,
        xid: message.xid,
        secs: u16::from_be_bytes([udp.payload[8], udp.payload[9]]),
        ciaddr: message.ciaddr,
        options: options.collect(),
    }
}

/// Whether `at` is so many seconds after `from`, or a little less.
fn about(from: Instant, at: Instant, expected: u64) -> bool {
    let after = at.since(from);
    after <= seconds(expected) && after >= seconds(expected) - seconds(expected) / 32
}

#[test]
fn at_half_of_the_lease_the_guests_request_goes_to_its_server() {
    let mut world = World::with_lease(HOUR);
    let asked = world.now;
    world.now = asked + seconds(100);
    let mut world = world.sleep();
    let request = world.request();
    assert!(about(asked, request.at, 1800), "{:?}", request.at.since(asked));
    assert_eq!((request.station, request.dst), (STATION, SERVER));
    assert_eq!((request.ciaddr, request.secs), (GUEST_V4, 0));
    assert_eq!(request.options, OPTIONS, "as the guest sent them, in its order");
    assert_ne!(request.xid, 77);
}

#[test]
fn a_late_answer_to_the_guests_own_request_is_nobodys() {
    // Whoever is on the link has read the request, which went to all.
    let asked_in_vain = |late: u64| {
        let mut world = World::with_lease(HOUR);
        world.now = world.now + seconds(600);
        world.asks(kind::REQUEST, 78, NONE);
        let asked = world.now;
        world = world.sleep();
        world.now = asked + seconds(late);
        world
    };
    let nak = from_server(SERVER, kind::NAK, 78, NONE, &[]);
    let elsewhere = from_server(SERVER, kind::ACK, 78, Ipv4Addr::new(192, 0, 2, 200), &lease(HOUR));
    assert!(matches!(asked_in_vain(60).hear(&nak), Heard::Wake(WakeReason::LeaseRefused { .. })));
    for forged in [nak, elsewhere] {
        let mut world = asked_in_vain(61);
        assert_eq!(world.hear(&forged), Heard::NotMine);
        world.is_told(&forged);
        assert_eq!(world.request().ciaddr, GUEST_V4, "its lease goes on");
    }
}

#[test]
fn a_server_that_wants_to_be_asked_at_once_is_asked_at_half_of_the_lease() {
    let mut world = World::new();
    world.asks(kind::REQUEST, 77, NONE);
    let times = [58, 4, 0, 0, 0, 0, 59, 4, 0, 0, 0, 0];
    world.is_told(&from_server(SERVER, kind::ACK, 77, GUEST_V4, &[&lease(HOUR)[..], &times].concat()));
    let asked = world.now;
    assert!(about(asked, world.sleep().request().at, 1800));
}

#[test]
fn an_acknowledgement_counts_from_when_it_was_asked_for() {
    let mut world = World::with_lease(HOUR).sleep();
    let first = world.request();
    world.now = first.at + seconds(20);
    assert_eq!(world.hear(&ack(first.xid, 7200)), Heard::Noted);
    let second = world.request();
    assert!(about(first.at, second.at, 3600), "{:?}", second.at.since(first.at));
    assert_ne!(first.xid, second.xid);
    assert_eq!(second.secs, 0, "it is asked for anew");
}

#[test]
fn other_options_than_before_are_told_once_and_other_times_are_not() {
    let named = |xid, seconds: u32, name: u8| {
        from_server(
            SERVER,
            kind::ACK,
            xid,
            GUEST_V4,
            &[&lease(seconds)[..], &[6, 4, 192, 0, 2, name]].concat(),
        )
    };
    let mut world = World::new();
    world.asks(kind::REQUEST, 77, NONE);
    world.is_told(&named(77, HOUR, 53));
    let mut world = world.sleep();
    let first = world.request();
    world.hear(&named(first.xid, 7200, 53));
    let second = world.request();
    world.hear(&named(second.xid, HOUR, 54));
    assert_eq!(world.alarm(), Alarm::Changed(GUEST_V4.into()));
    let third = world.request();
    assert!(about(second.at, third.at, 1800), "it goes on as ever");
    world.hear(&named(third.xid, HOUR, 54));
    world.request();
}

#[test]
fn a_server_says_when_to_ask() {
    let mut world = World::new();
    world.asks(kind::REQUEST, 77, NONE);
    let times = [58, 4, 0, 0, 0, 5, 59, 4, 0, 0, 0, 9];
    world.is_told(&from_server(SERVER, kind::ACK, 77, GUEST_V4, &[&lease(120)[..], &times].concat()));
    let asked = world.now;
    let mut world = world.sleep();
    assert!(about(asked, world.request().at, 5));
    let rebinding = world.request();
    assert!(about(asked, rebinding.at, 9));
    assert_eq!((rebinding.station, rebinding.dst), (Mac::BROADCAST, Ipv4Addr::BROADCAST));
}

#[test]
fn unanswered_it_asks_at_half_of_the_rest_then_all_then_calls_the_guest_then_gives_up() {
    let mut world = World::with_lease(HOUR);
    let asked = world.now;
    world = world.sleep();
    let (requests, alarms) = world.unanswered();
    let at: Vec<u64> = requests.iter().map(|request| request.at.since(asked).as_secs()).collect();
    let alone = requests.iter().filter(|request| request.dst == SERVER).count();
    assert!(requests.iter().skip(alone).all(|r| (r.dst, r.station) == (Ipv4Addr::BROADCAST, Mac::BROADCAST)));
    assert!(alone > 3 && requests.len() - alone >= 3, "{at:?}");
    assert!(about(asked, requests[alone].at, 3150), "{at:?}");
    for (n, pair) in requests.windows(2).enumerate().filter(|(n, _)| n + 1 != alone) {
        let until = if n < alone { requests[alone].at } else { asked + seconds(3600) };
        let pause = pair[1].at.since(pair[0].at);
        assert_eq!(pause, (until.since(pair[0].at) / 2).max(seconds(60)), "{at:?}");
    }
    let xids: std::collections::BTreeSet<u32> = requests.iter().map(|request| request.xid).collect();
    assert_eq!(xids.len(), requests.len(), "each has its own");
    assert_eq!(u64::from(requests[alone].secs), requests[alone].at.since(requests[0].at).as_secs());

    let address = GUEST_V4.into();
    let [(called, Alarm::Wake(why)), (ended, Alarm::Withdraw(gone))] = alarms[..] else {
        panic!("{alarms:?}")
    };
    assert_eq!((why, gone), (WakeReason::LeaseEnding { address }, address));
    assert!((seconds(224)..=seconds(275)).contains(&(asked + seconds(3600)).since(called)), "{called:?}");
    assert_eq!(ended, asked + seconds(3600));
    assert_eq!(world.dhcp.due(), None);
}

#[test]
fn the_shortest_lease_is_asked_for_twice_before_the_guest_is_called() {
    let mut world = World::with_lease(120).sleep();
    let (requests, alarms) = world.unanswered();
    assert_eq!(requests.iter().map(|r| r.dst).collect::<Vec<_>>(), [SERVER, Ipv4Addr::BROADCAST]);
    assert!(alarms[0].0 > requests[1].at && alarms.len() == 2, "{alarms:?}");
}

#[test]
fn an_answer_after_the_call_is_an_answer() {
    let mut world = World::with_lease(HOUR).sleep();
    while let Some(Ok(_)) = world.next() {}
    let request = world.request();
    assert_eq!(world.hear(&ack(request.xid, HOUR)), Heard::Noted);
    assert!(about(request.at, world.request().at, 1800));
}

#[test]
fn a_refusal_ends_it_at_once() {
    let mut world = World::with_lease(HOUR).sleep();
    let request = world.request();
    let nak = |server| from_server(server, kind::NAK, request.xid, NONE, &[]);
    assert_eq!(world.hear(&nak(OTHER_SERVER)), Heard::Noted, "it was not asked");
    let (address, by) = (GUEST_V4.into(), SERVER.into());
    assert_eq!(world.hear(&nak(SERVER)), Heard::Wake(WakeReason::LeaseRefused { address, by }));
    assert_eq!(world.alarm(), Alarm::Withdraw(address));
    assert_eq!(world.dhcp.due(), None);
    assert_eq!(world.hear(&ack(request.xid, HOUR)), Heard::NotMine, "it is over");
}

#[test]
fn any_server_may_answer_who_asks_all() {
    let mut world = World::with_lease(120).sleep();
    world.request();
    let rebinding = world.request();
    let given = from_server(OTHER_SERVER, kind::ACK, rebinding.xid, GUEST_V4, &lease(HOUR));
    assert_eq!(world.hear(&given), Heard::Noted);
    assert_eq!(world.request().dst, OTHER_SERVER, "it is the guest's server now");

    let mut world = World::with_lease(120).sleep();
    world.request();
    let rebinding = world.request();
    let nak = from_server(OTHER_SERVER, kind::NAK, rebinding.xid, NONE, &[]);
    assert!(matches!(world.hear(&nak), Heard::Wake(WakeReason::LeaseRefused { .. })));
}

#[test]
fn another_address_instead_is_a_refusal() {
    let mut world = World::with_lease(HOUR).sleep();
    let request = world.request();
    let other = from_server(SERVER, kind::ACK, request.xid, Ipv4Addr::new(192, 0, 2, 12), &lease(HOUR));
    assert!(matches!(world.hear(&other), Heard::Wake(WakeReason::LeaseRefused { .. })));
    assert_eq!(world.alarm(), Alarm::Withdraw(GUEST_V4.into()));
}

#[test]
fn answers_to_others_and_to_older_requests_are_not_ours() {
    let mut world = World::with_lease(HOUR).sleep();
    let first = world.request();
    assert_eq!(world.hear(&ack(first.xid ^ 1, HOUR)), Heard::NotMine);
    let mut for_another =
        payload(FROM_SERVER, first.xid, [NONE, GUEST_V4], &[&[53, 1, 5][..], &lease(HOUR)].concat());
    for_another[33] ^= 1;
    let header = Ipv4Header {
        src: SERVER,
        dst: GUEST_V4,
        tos: 0,
        id: 1,
        dont_fragment: false,
        ttl: 64,
        protocol: protocol::UDP,
    };
    let to = Ethernet { dst: GUEST, src: STATION, tags: Tags::NONE };
    assert_eq!(world.hear(&udp_v4_to(&to, &header, 67, 68, &for_another)), Heard::NotMine);
    world.request();
    assert_eq!(world.hear(&ack(first.xid, HOUR)), Heard::NotMine, "a newer one is out");
}

#[test]
fn an_acknowledgement_without_server_or_time_is_none() {
    let mut world = World::with_lease(HOUR).sleep();
    let request = world.request();
    assert_eq!(world.hear(&from_server(SERVER, kind::ACK, request.xid, GUEST_V4, &[])), Heard::Noted);
    assert_eq!(world.hear(&from_server(NONE, kind::ACK, request.xid, GUEST_V4, &lease(HOUR))), Heard::Noted);
    assert!(world.request().at.since(request.at) < seconds(1000), "it goes on asking");
}

#[test]
fn a_lease_without_an_end_needs_nothing() {
    let world = World::with_lease(INFINITE).sleep();
    assert_eq!(world.dhcp.due(), None);
    let mut world = World::with_lease(HOUR).sleep();
    let request = world.request();
    assert_eq!(world.hear(&ack(request.xid, INFINITE)), Heard::Noted);
    assert_eq!(world.dhcp.alarm(world.now), Some(Alarm::Renewed));
    assert_eq!(world.dhcp.due(), None);
}

#[test]
fn times_that_nobody_saw_are_asked_for_soon() {
    for ciaddr in [NONE, GUEST_V4] {
        let mut world = World::new();
        world.asks(kind::REQUEST, 77, ciaddr);
        let asleep = world.now;
        let mut world = world.sleep();
        let request = world.request();
        assert!(request.at.since(asleep) < seconds(1));
        assert_eq!((request.station, request.dst), (Mac::BROADCAST, Ipv4Addr::BROADCAST), "any server knows");
        assert_eq!(world.hear(&ack(request.xid, HOUR)), Heard::Noted);
        let next = world.request();
        assert!(about(request.at, next.at, 1800) && next.dst == SERVER, "{next:?}");
    }
}

#[test]
fn while_nobody_says_the_times_it_asks_ever_more_seldom_and_alarms_nobody() {
    let mut world = World::new();
    world.asks(kind::REQUEST, 77, NONE);
    let mut world = world.sleep();
    let at: Vec<Instant> = (0..10).map(|_| world.request().at).collect();
    let pauses: Vec<u64> = at.windows(2).map(|pair| pair[1].since(pair[0]).as_secs()).collect();
    assert_eq!(pauses, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
}

#[test]
fn an_address_that_is_not_ours_to_answer_for_is_not_renewed() {
    let mut world = World::with_lease(HOUR);
    world.identity.addresses.clear();
    assert_eq!(world.sleep().dhcp.due(), None);
    assert_eq!(World::new().sleep().dhcp.due(), None, "a guest that never asked");
    let mut other = World::with_lease(HOUR);
    other.identity.mac = Mac([2, 0, 0, 0, 0, 9]);
    assert_eq!(other.sleep().dhcp.due(), None, "another NIC's");
}

#[test]
fn a_lease_that_was_over_long_ago_was_renewed_unseen() {
    let mut world = World::with_lease(HOUR);
    world.now = world.now + seconds(10_000);
    let mut world = world.sleep();
    let request = world.request();
    assert_eq!(request.dst, Ipv4Addr::BROADCAST);
    assert!(matches!(world.next(), Some(Ok(_))), "no alarm: nothing is known to end");
}

#[test]
fn who_falls_asleep_after_its_time_asks_at_once() {
    let mut world = World::with_lease(HOUR);
    world.now = world.now + seconds(2000);
    let asleep = world.now;
    let mut world = world.sleep();
    let request = world.request();
    assert!(request.at.since(asleep) < seconds(1) && request.dst == SERVER);
}

#[test]
fn the_answer_to_the_guests_own_request_is_held_for_it_and_counts() {
    let mut world = World::new();
    world.asks(kind::REQUEST, 77, GUEST_V4);
    let asked = world.now;
    let mut world = world.sleep();
    assert_eq!(world.hear(&ack(77, HOUR)), Heard::NotMine);
    let request = world.request();
    assert!(about(asked, request.at, 1800) && request.dst == SERVER);

    let mut world = World::with_lease(HOUR);
    world.asks(kind::REQUEST, 78, GUEST_V4);
    let mut world = world.sleep();
    let nak = from_server(SERVER, kind::NAK, 78, NONE, &[]);
    assert!(matches!(world.hear(&nak), Heard::Wake(WakeReason::LeaseRefused { .. })));
    assert_eq!(world.alarm(), Alarm::Withdraw(GUEST_V4.into()));
}

#[test]
fn what_the_guest_gives_back_or_loses_is_forgotten() {
    for kind in [kind::RELEASE, kind::DECLINE] {
        let mut world = World::with_lease(HOUR);
        world.asks(kind, 78, GUEST_V4);
        assert_eq!(world.sleep().dhcp.due(), None);
    }
    let mut world = World::with_lease(HOUR);
    world.asks(kind::REQUEST, 78, GUEST_V4);
    world.is_told(&from_server(SERVER, kind::NAK, 78, NONE, &[]));
    assert_eq!(world.sleep().dhcp.due(), None);
}

#[test]
fn who_asks_for_information_alone_keeps_its_lease() {
    let mut world = World::with_lease(HOUR);
    world.asks(kind::INFORM, 78, GUEST_V4);
    world.is_told(&from_server(SERVER, kind::ACK, 78, NONE, &[]));
    assert_eq!(world.sleep().request().dst, SERVER);
}

#[test]
fn a_lease_of_two_messages_counts_too() {
    let mut world = World::new();
    let [a, b, c, d] = GUEST_V4.octets();
    let options = [&OPTIONS[..], &[80, 0, 50, 4, a, b, c, d]].concat();
    world.learn(true, &from_guest(kind::DISCOVER, 77, NONE, &options));
    world.is_told(&ack(77, HOUR));
    let request = world.sleep().request();
    assert_eq!((request.dst, request.options), (SERVER, OPTIONS.to_vec()));
}

#[test]
fn only_the_guests_own_words_count_while_it_is_awake() {
    let mut world = World::new();
    world.learn(false, &from_guest(kind::REQUEST, 77, GUEST_V4, &[]));
    world.learn(true, &ack(77, HOUR));
    assert_eq!(world.sleep().dhcp.due(), None);
    let mut world = World::new();
    world.asks(kind::REQUEST, 77, NONE);
    world.is_told(&ack(78, HOUR));
    assert!(world.dhcp.lease.is_none(), "an answer to another request");
}

#[test]
fn the_identifier_finds_room_whatever_else_a_guest_sends() {
    let mut options = vec![43, 200];
    options.resize(202, 1);
    options.extend([77, 100]);
    options.resize(304, 2);
    options.extend([12, 1, b'w', 61, 50]);
    options.resize(options.len() + 50, 3);
    let mut world = World::new();
    world.learn(true, &from_guest(kind::REQUEST, 77, GUEST_V4, &options));
    let request = world.sleep().request();
    assert!(request.options.len() <= MAX_OPTIONS);
    assert!(request.options.ends_with(&[61, 50].into_iter().chain([3; 50]).collect::<Vec<_>>()));
    assert!(request.options.starts_with(&[43, 200]));
    assert!(request.options.windows(3).any(|part| part == [12, 1, b'w']), "what fits is there");
}

#[test]
fn an_awake_guest_speaks_for_itself_and_what_was_learned_while_it_slept_stays() {
    let mut world = World::with_lease(HOUR).sleep();
    let request = world.request();
    assert_eq!(world.hear(&ack(request.xid, HOUR)), Heard::Noted);
    world.dhcp.wake();
    assert_eq!(world.dhcp.due(), None);
    let next = world.sleep().request();
    assert!(about(request.at, next.at, 1800));
}

/// After a restart that took so long: another clock, and a guest that sleeps on.
fn restarted(world: &World, away: u64) -> World {
    let now = Instant::ZERO + seconds(3);
    let dhcp = Dhcpv4::restore(&world.dhcp.learned(world.now), now, seconds(away));
    World { dhcp, now, ..World::new() }.sleep()
}

#[test]
fn a_restart_keeps_how_to_ask_whom_and_when() {
    let mut world = World::with_lease(HOUR);
    world.now = world.now + seconds(1000);
    let mut world = restarted(&world, 300);
    let since = world.now;
    let request = world.request();
    assert!(about(since, request.at, 500), "{:?}", request.at.since(since));
    assert_eq!((request.station, request.dst, request.ciaddr), (STATION, SERVER, GUEST_V4));
    assert_eq!(request.options, OPTIONS);
    assert_eq!(world.hear(&ack(request.xid, HOUR)), Heard::Noted);
    assert_eq!(Dhcpv4::default().learned(world.now), None);

    let endless = restarted(&World::with_lease(INFINITE), 300);
    assert_eq!(endless.dhcp.due(), None);
    let mut unseen = World::new();
    unseen.asks(kind::REQUEST, 77, GUEST_V4);
    assert_eq!(restarted(&unseen.sleep(), 300).request().dst, Ipv4Addr::BROADCAST);
}

#[test]
fn a_lease_that_ended_in_a_restart_is_asked_for_at_once_and_given_up_in_a_minute() {
    let mut world = restarted(&World::with_lease(HOUR), 4000);
    let since = world.now;
    let (requests, alarms) = world.unanswered();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(requests[0].at.since(since) < seconds(2) && requests[0].dst == Ipv4Addr::BROADCAST);
    let [(called, Alarm::Wake(_)), (ended, Alarm::Withdraw(_))] = alarms[..] else { panic!("{alarms:?}") };
    assert!(called > requests[0].at && ended == since + seconds(60), "{alarms:?}");
}

#[test]
fn what_cannot_have_been_learned_is_not_restored() {
    let world = World::with_lease(HOUR);
    let sound = world.dhcp.learned(world.now).unwrap();
    let restored = |learned: Dhcpv4Learned| Dhcpv4::restore(&Some(learned), world.now, seconds(0));
    assert!(restored(sound.clone()).lease.is_some());
    for learned in [
        Dhcpv4Learned { client: [1, 0, 0, 0, 0, 1], ..sound.clone() },
        Dhcpv4Learned { options: vec![61], ..sound.clone() },
        Dhcpv4Learned { options: vec![12, 0, 255], ..sound.clone() },
        Dhcpv4Learned { options: [61, 0].repeat(MAX_OPTIONS), ..sound.clone() },
        Dhcpv4Learned { server: Some((SERVER, [0xff; 6])), ..sound.clone() },
        Dhcpv4Learned { server: Some((NONE, STATION.0)), ..sound.clone() },
        Dhcpv4Learned { address: Ipv4Addr::BROADCAST, ..sound },
    ] {
        let restored = restored(learned);
        assert!(restored.lease.is_none() && restored.client.is_none());
    }
}

#[test]
fn a_week_of_sleep_with_leases_of_an_hour() {
    let mut world = World::with_lease(HOUR).sleep();
    let (start, mut granted, mut requests) = (world.now, world.now, 0);
    while world.now.since(start) < seconds(7 * 86_400) {
        let request = world.request();
        requests += 1;
        assert!(request.at.since(granted) < seconds(3600), "it had run out");
        // One answer of four is lost.
        if requests % 4 != 0 {
            assert_eq!(world.hear(&ack(request.xid, HOUR)), Heard::Noted);
            granted = request.at;
        }
    }
    assert!((300..=600).contains(&requests), "{requests}");
}

#[test]
fn a_server_of_no_patience_is_asked_once_a_second_at_most() {
    for seconds_of_lease in [0, 1, 2] {
        let mut world = World::with_lease(HOUR).sleep();
        let mut last = world.request();
        for _ in 0..5 {
            world.hear(&ack(last.xid, seconds_of_lease));
            match world.next() {
                Some(Ok(request)) => {
                    assert!(request.at.since(last.at) >= seconds(1));
                    last = request;
                }
                Some(Err(_)) | None => break,
            }
        }
    }
}

proptest! {
    #[test]
    fn no_server_makes_it_panic_or_speak_without_end(
        seed: u64,
        heard in prop::collection::vec((0u8..9, any::<bool>(), prop::collection::vec(any::<u8>(), 0..40), 0u64..4000), 1..40),
    ) {
        let mut world = World::with_lease(HOUR);
        world.rng = Rng::seeded(seed);
        let mut world = world.sleep();
        let mut xid = 77;
        for (kind, sound, noise, pause) in heard {
            world.now = world.now + seconds(pause);
            while world.dhcp.alarm(world.now).is_some() {}
            let mut memory = [0; 1514];
            let mut out = FrameBuf::new(&mut memory);
            if world.dhcp.due().is_some_and(|due| due <= world.now)
                && world.dhcp.speak(world.now, &mut world.rng, &world.identity, &mut out).is_some()
            {
                xid = said(world.now, out.as_bytes()).xid;
            }
            prop_assert!(world.dhcp.due().is_none_or(|due| due > world.now), "it has said all");
            let options = if sound { lease(u32::from_be_bytes([0, 0, kind, pause as u8])) } else { noise };
            let bytes = from_server(SERVER, kind, xid, GUEST_V4, &options);
            let received = Received::plain(&bytes);
            let frame = Frame::parse(&received).unwrap();
            let packet = Packet::parse(&frame, Offload::None).unwrap();
            world.dhcp.hear(world.now, &mut world.rng, &world.identity, &frame, &packet);
            world.dhcp.learn(world.now, pause % 2 == 0, &frame, &packet);
        }
    }
}
