//! A guest, its server, and what passes between them in virtual time.

use proptest::prelude::*;
use surrogate_wire::emit::Ipv6Header;
use surrogate_wire::{Mac, Offload, protocol};

use super::*;
use crate::guest::identity::InterfaceAddress;
use crate::responder::testing::{GUEST, GUEST_V6, PEER, TO_GUEST, guest, read, udp_v6_to};
use crate::rng::Rng;

const GUEST_LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe00, 0x11);
const SERVER_LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const SECOND: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x12);
const CLIENT: [u8; 10] = [0, 3, 0, 1, 0x52, 0x54, 0, 0, 0, 0x11];
const SERVER: [u8; 6] = [0, 2, 0, 0, 0, 9];
const OTHER_SERVER: [u8; 6] = [0, 2, 0, 0, 0, 10];
/// What a guest asks with beside what belongs to one message: the options that it wants, its name.
const OPTIONS: [u8; 14] = [0, 6, 0, 2, 0, 23, 0, 39, 0, 4, 0, b'w', b'e', b'b'];
const IAID: u32 = 0x1122;

struct World {
    dhcp: Dhcpv6,
    now: Instant,
    rng: Rng,
    identity: NicIdentity,
}

/// A message of ours.
#[derive(Debug)]
struct Said {
    at: Instant,
    kind: u8,
    xid: u32,
    server: Option<Vec<u8>>,
    elapsed: u16,
    associations: Vec<(u32, Vec<Ipv6Addr>)>,
    others: Vec<u8>,
}

fn opt(code: u16, value: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat()
}

fn leased(address: Ipv6Addr, preferred: u32, valid: u32) -> Vec<u8> {
    opt(5, &[&address.octets()[..], &preferred.to_be_bytes(), &valid.to_be_bytes()].concat())
}

fn association(iaid: u32, [t1, t2]: [u32; 2], inside: &[Vec<u8>]) -> Vec<u8> {
    opt(3, &[&iaid.to_be_bytes()[..], &t1.to_be_bytes(), &t2.to_be_bytes(), &inside.concat()].concat())
}

fn datagram(to_guest: bool, kind: u8, xid: u32, options: &[Vec<u8>]) -> Vec<u8> {
    let [_, x0, x1, x2] = xid.to_be_bytes();
    let bytes = [&[kind, x0, x1, x2][..], &options.concat()].concat();
    let multicast = Ethernet { dst: Mac([0x33, 0x33, 0, 1, 0, 2]), src: GUEST, tags: Tags::NONE };
    let (to, src, dst) = match to_guest {
        true => (TO_GUEST, SERVER_LINK, GUEST_LINK),
        false => (multicast, GUEST_LINK, ALL_SERVERS),
    };
    let header = Ipv6Header { src, dst, traffic_class: 0, hop_limit: 1, protocol: protocol::UDP };
    let ports = if to_guest { [547, 546] } else { [546, 547] };
    udp_v6_to(&to, &header, ports, &bytes)
}

fn reply(xid: u32, server: &[u8], options: &[Vec<u8>]) -> Vec<u8> {
    datagram(true, kind::REPLY, xid, &[&[opt(1, &CLIENT), opt(2, server)], options].concat())
}

/// Both addresses in one association, as dnsmasq would: preferred as long as valid.
fn granted(xid: u32, valid: u32) -> Vec<u8> {
    let all = [leased(GUEST_V6, valid, valid), leased(SECOND, valid, valid)];
    reply(xid, &SERVER, &[association(IAID, [valid / 2, valid / 8 * 7], &all)])
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl World {
    fn new() -> Self {
        let mut identity = guest();
        for address in [SECOND, GUEST_LINK] {
            identity.addresses.push(InterfaceAddress { address: address.into(), prefix_len: 64 });
        }
        Self { dhcp: Dhcpv6::default(), now: Instant::ZERO + seconds(1000), rng: Rng::seeded(5), identity }
    }

    fn with_lease(valid: u32) -> Self {
        let mut world = Self::new();
        world.asks(kind::REQUEST, 77);
        world.learn(false, &granted(77, valid));
        world
    }

    fn asks(&mut self, kind: u8, xid: u32) {
        let asked = association(IAID, [0, 0], &[leased(GUEST_V6, 0, 0), leased(SECOND, 0, 0)]);
        let options = [opt(1, &CLIENT), opt(2, &SERVER), opt(8, &[0, 0]), asked, OPTIONS.to_vec()];
        self.learn(true, &datagram(false, kind, xid, &options));
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
        self.next().expect("it goes on").expect("a message")
    }

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
    assert_eq!((frame.src, frame.dst), (GUEST, Mac([0x33, 0x33, 0, 1, 0, 2])));
    let Packet::Ipv6(ip, Transport::Udp(udp)) = packet else { panic!("{packet:?}") };
    assert_eq!((ip.src, ip.dst, udp.src_port, udp.dst_port), (GUEST_LINK, ALL_SERVERS, 546, 547));
    let message = Received::parse(udp.payload).expect("a message");
    assert_eq!(message.client, Some(&CLIENT[..]), "the guest's own identifier");
    let elapsed = message.options().find(|(code, _)| *code == 8).expect("RFC 8415 18.2.4").1;
    let others = message.options().filter(|(code, _)| ![1, 2, 3, 8].contains(code));
    Said {
        at,
        kind: message.kind,
        xid: message.xid,
        server: message.server.map(<[u8]>::to_vec),
        elapsed: u16::from_be_bytes(elapsed.try_into().unwrap()),
        associations: message
            .associations()
            .map(|a| (a.iaid, a.addresses().map(|l| l.address).collect()))
            .collect(),
        others: others.flat_map(|(code, value)| opt(code, value)).collect(),
    }
}

/// Whether `at` is so many seconds after `from`, or a little less.
fn about(from: Instant, at: Instant, expected: u64) -> bool {
    let after = at.since(from);
    after <= seconds(expected) && after >= seconds(expected) - seconds(expected) / 32
}

#[test]
fn a_late_answer_to_the_guests_own_message_is_nobodys() {
    // Whoever is on the link has read the message, which went to all servers.
    let takes_away = reply(78, &SERVER, &[association(IAID, [0, 0], &[leased(GUEST_V6, 0, 0)])]);
    let asked_in_vain = |late: u64| {
        let mut world = World::with_lease(3600);
        world.now = world.now + seconds(600);
        world.asks(kind::RENEW, 78);
        let asked = world.now;
        world = world.sleep();
        world.now = asked + seconds(late);
        world
    };
    assert!(matches!(asked_in_vain(60).hear(&takes_away), Heard::Wake(WakeReason::LeaseRefused { .. })));
    let mut world = asked_in_vain(61);
    assert_eq!(world.hear(&takes_away), Heard::NotMine);
    world.learn(false, &takes_away);
    assert_eq!(world.request().associations, [(IAID, vec![GUEST_V6, SECOND])], "its leases go on");
}

#[test]
fn at_t1_the_guests_server_is_asked_with_the_guests_own_identifiers() {
    let mut world = World::with_lease(3600);
    let given = world.now;
    world.now = given + seconds(100);
    let request = world.sleep().request();
    assert!(about(given, request.at, 1800), "{:?}", request.at.since(given));
    assert_eq!((request.kind, request.server.as_deref()), (kind::RENEW, Some(&SERVER[..])));
    assert_eq!((request.elapsed, request.others), (0, OPTIONS.to_vec()));
    assert_eq!(request.associations, [(IAID, vec![GUEST_V6, SECOND])]);
    assert_ne!(request.xid, 77);
}

#[test]
fn a_reply_gives_new_times() {
    let mut world = World::with_lease(3600).sleep();
    let first = world.request();
    world.now = first.at + seconds(1);
    assert_eq!(world.hear(&granted(first.xid, 7200)), Heard::Noted);
    let second = world.request();
    assert!(about(first.at + seconds(1), second.at, 3600), "{second:?}");
    assert_ne!(first.xid, second.xid);
    assert_eq!(second.elapsed, 0);
}

#[test]
fn unanswered_it_asks_ever_more_seldom_then_any_server_then_calls_the_guest_then_gives_up() {
    let mut world = World::with_lease(36_000);
    let given = world.now;
    world = world.sleep();
    let (requests, alarms) = world.unanswered();
    let renewals = requests.iter().filter(|request| request.kind == kind::RENEW).count();
    let (renewing, rebinding) = requests.split_at(renewals);
    assert!(about(given, rebinding[0].at, 31_500), "{:?}", rebinding[0].at.since(given));
    assert!(rebinding.iter().all(|r| r.kind == kind::REBIND && r.server.is_none()), "RFC 8415 18.2.5");
    for exchange in [renewing, rebinding] {
        assert!(exchange.iter().all(|request| request.xid == exchange[0].xid), "RFC 8415 16.1");
        assert!(exchange.windows(2).all(|pair| pair[0].elapsed <= pair[1].elapsed));
        assert_eq!(exchange[0].elapsed, 0);
        let pauses: Vec<u64> =
            exchange.windows(2).map(|pair| pair[1].at.since(pair[0].at).as_secs()).collect();
        assert!((9..=11).contains(&pauses[0]) && (17..=25).contains(&pauses[1]), "{pauses:?}");
        let (_, most) = pauses.split_at(8);
        assert!(most[..most.len() - 1].iter().all(|pause| (540..=660).contains(pause)), "{pauses:?}");
    }
    assert_ne!(renewing[0].xid, rebinding[0].xid);

    let address = GUEST_V6.into();
    assert_eq!(alarms[0].1, Alarm::Wake(WakeReason::LeaseEnding { address }));
    assert!((2250..=2800).contains(&(given + seconds(36_000)).since(alarms[0].0).as_secs()));
    let gone: Vec<_> = alarms[1..].iter().map(|(_, alarm)| *alarm).collect();
    assert_eq!(gone, [GUEST_V6, SECOND].map(|address| Alarm::Withdraw(address.into())));
    assert!(alarms[1..].iter().all(|(at, _)| *at == given + seconds(36_000)));
    assert_eq!(world.dhcp.due(), None);
}

#[test]
fn a_server_that_knows_nothing_of_it_wakes_the_guest_which_may_keep_what_it_has() {
    let mut world = World::with_lease(3600).sleep();
    let request = world.request();
    let unknown = reply(request.xid, &SERVER, &[association(IAID, [0, 0], &[opt(13, &[0, 3])])]);
    let why = WakeReason::LeaseRefused { address: SECOND.into(), by: SERVER_LINK.into() };
    assert_eq!(world.hear(&unknown), Heard::Wake(why));
    assert_eq!(world.dhcp.alarm(world.now), None, "until its time is over");
}

#[test]
fn an_address_whose_time_is_set_to_nothing_is_withdrawn_at_once() {
    let mut world = World::with_lease(3600).sleep();
    let request = world.request();
    let one = [leased(GUEST_V6, 0, 0), leased(SECOND, 3600, 3600)];
    let heard = world.hear(&reply(request.xid, &SERVER, &[association(IAID, [1800, 3000], &one)]));
    let address = GUEST_V6.into();
    assert_eq!(heard, Heard::Wake(WakeReason::LeaseRefused { address, by: SERVER_LINK.into() }));
    assert_eq!(world.next().unwrap().unwrap_err(), Alarm::Withdraw(address));
    assert_eq!(world.request().associations, [(IAID, vec![SECOND])], "the other is renewed still");
}

#[test]
fn a_reply_that_failed_as_a_whole_refuses_too() {
    // As dnsmasq 2.90 answers REBIND for an address of another link.
    let mut world = World::with_lease(120).sleep();
    let mut request = world.request();
    while request.kind != kind::REBIND {
        request = world.request();
    }
    let none = [leased(GUEST_V6, 0, 0), leased(SECOND, 0, 0)];
    let failed = [association(IAID, [INFINITE; 2], &none), opt(13, &[0, 2])];
    assert!(matches!(
        world.hear(&reply(request.xid, &OTHER_SERVER, &failed)),
        Heard::Wake(WakeReason::LeaseRefused { .. })
    ));
    let gone = [world.next(), world.next()].map(|alarm| alarm.unwrap().unwrap_err());
    assert_eq!(gone, [GUEST_V6, SECOND].map(|address| Alarm::Withdraw(address.into())));
}

#[test]
fn a_reply_that_leaves_an_address_out_is_asked_for_again() {
    let mut world = World::with_lease(3600).sleep();
    let request = world.request();
    let half = [association(IAID, [1800, 3000], &[leased(GUEST_V6, 3600, 3600)])];
    assert_eq!(world.hear(&reply(request.xid, &SERVER, &half)), Heard::Noted);
    let again = world.request();
    assert!(again.at.since(request.at) < seconds(12) && again.xid == request.xid, "{again:?}");
    assert_eq!(world.hear(&granted(again.xid, 3600)), Heard::Noted);
    assert!(about(again.at, world.request().at, 1800));
}

#[test]
fn failures_and_contradictions_are_no_answers() {
    let mut world = World::with_lease(3600).sleep();
    let request = world.request();
    let whole = |preferred| [leased(GUEST_V6, preferred, 3600), leased(SECOND, preferred, 3600)];
    for options in [
        vec![opt(13, &[0, 1]), association(IAID, [1800, 3000], &whole(3600))],
        vec![association(IAID, [3000, 1800], &whole(3600))],
        vec![association(IAID, [1800, 3000], &whole(3601))],
        vec![association(IAID + 1, [1800, 3000], &whole(3600))],
        vec![],
    ] {
        assert_eq!(world.hear(&reply(request.xid, &SERVER, &options)), Heard::Noted, "{options:x?}");
    }
    assert_eq!(world.request().xid, request.xid, "it goes on asking");
}

#[test]
fn only_the_server_that_was_asked_may_answer_and_only_us() {
    let mut world = World::with_lease(3600).sleep();
    let request = world.request();
    let whole =
        [association(IAID, [1800, 3000], &[leased(GUEST_V6, 3600, 3600), leased(SECOND, 3600, 3600)])];
    assert_eq!(world.hear(&reply(request.xid, &OTHER_SERVER, &whole)), Heard::Noted);
    assert_eq!(world.hear(&reply(request.xid ^ 1, &SERVER, &whole)), Heard::NotMine);
    let for_another = [vec![opt(1, &[0, 3, 0, 1, 9]), opt(2, &SERVER)], whole.to_vec()].concat();
    assert_eq!(world.hear(&datagram(true, kind::REPLY, request.xid, &for_another)), Heard::NotMine);
    let nobodys = [vec![opt(1, &CLIENT)], whole.to_vec()].concat();
    assert_eq!(world.hear(&datagram(true, kind::REPLY, request.xid, &nobodys)), Heard::Noted);
    assert_eq!(world.request().xid, request.xid, "none of them counted");
}

#[test]
fn any_server_may_answer_who_asks_all() {
    let mut world = World::with_lease(120).sleep();
    let mut request = world.request();
    while request.kind != kind::REBIND {
        request = world.request();
    }
    let whole = [association(IAID, [60, 105], &[leased(GUEST_V6, 120, 120), leased(SECOND, 120, 120)])];
    assert_eq!(world.hear(&reply(request.xid, &OTHER_SERVER, &whole)), Heard::Noted);
    assert_eq!(world.request().server.as_deref(), Some(&OTHER_SERVER[..]));
}

#[test]
fn times_that_nobody_saw_are_asked_for_soon() {
    let mut world = World::new();
    world.asks(kind::RENEW, 77);
    let asleep = world.now;
    let mut world = world.sleep();
    let request = world.request();
    assert!(request.at.since(asleep) < seconds(1) && request.kind == kind::REBIND);
    assert_eq!(request.associations, [(IAID, vec![GUEST_V6, SECOND])]);
    assert_eq!(world.hear(&granted(request.xid, 3600)), Heard::Noted);
    let next = world.request();
    assert!(about(request.at, next.at, 1800) && next.kind == kind::RENEW, "{next:?}");

    let mut silent = World::new();
    silent.asks(kind::REBIND, 77);
    let mut silent = silent.sleep();
    assert!((0..50).all(|_| silent.request().kind == kind::REBIND), "and alarms nobody");
}

#[test]
fn a_guest_whose_answer_nobody_saw_has_what_it_has() {
    for kind in [kind::REQUEST, kind::CONFIRM, kind::RENEW, kind::REBIND] {
        let mut world = World::new();
        world.asks(kind, 77);
        assert_eq!(world.sleep().request().kind, kind::REBIND);
        let mut in_vain = World::new();
        in_vain.asks(kind, 77);
        in_vain.identity.addresses.retain(|held| ![GUEST_V6.into(), SECOND.into()].contains(&held.address));
        assert_eq!(in_vain.sleep().dhcp.due(), None);
    }
    for kind in [kind::SOLICIT, kind::INFORMATION_REQUEST] {
        let mut world = World::new();
        world.asks(kind, 77);
        assert_eq!(world.sleep().dhcp.due(), None);
    }
}

#[test]
fn a_lease_without_an_end_needs_nothing() {
    assert_eq!(World::with_lease(INFINITE).sleep().dhcp.due(), None);
}

#[test]
fn without_times_of_its_own_an_association_has_the_usual_ones() {
    let mut world = World::new();
    world.asks(kind::REQUEST, 77);
    world.learn(false, &reply(77, &SERVER, &[association(IAID, [0, 0], &[leased(GUEST_V6, 1000, 4000)])]));
    let given = world.now;
    let mut world = world.sleep();
    assert!(about(given, world.request().at, 500));
    let (requests, _) = world.unanswered();
    let rebinding = requests.iter().find(|request| request.kind == kind::REBIND).unwrap();
    assert!(about(given, rebinding.at, 800), "RFC 8415 21.4");
}

#[test]
fn two_associations_are_renewed_in_one_message_at_the_earlier_time() {
    let mut world = World::new();
    world.asks(kind::REQUEST, 77);
    let one = association(IAID, [1800, 3000], &[leased(GUEST_V6, 3600, 3600)]);
    let other = association(IAID + 1, [600, 1000], &[leased(SECOND, 1200, 1200)]);
    world.learn(false, &reply(77, &SERVER, &[one, other]));
    let given = world.now;
    let request = world.sleep().request();
    assert!(about(given, request.at, 600));
    assert_eq!(request.associations, [(IAID, vec![GUEST_V6]), (IAID + 1, vec![SECOND])]);
}

#[test]
fn who_may_not_be_answered_for_is_not_asked_for() {
    let mut world = World::with_lease(3600);
    world.identity.addresses.retain(|held| held.address != core::net::IpAddr::V6(SECOND));
    assert_eq!(world.sleep().request().associations, [(IAID, vec![GUEST_V6])]);

    let mut world = World::with_lease(3600);
    world.identity.addresses.retain(|held| held.address != core::net::IpAddr::V6(GUEST_LINK));
    let (requests, alarms) = world.sleep().unanswered();
    assert!(requests.is_empty(), "no answer would arrive: {requests:?}");
    assert!(matches!(alarms[0].1, Alarm::Wake(WakeReason::LeaseEnding { .. })), "{alarms:?}");
}

#[test]
fn what_the_guest_gives_back_is_forgotten() {
    for kind in [kind::RELEASE, kind::DECLINE] {
        let mut world = World::with_lease(3600);
        world.asks(kind, 78);
        assert_eq!(world.sleep().dhcp.due(), None);
    }
}

#[test]
fn the_answer_to_the_guests_own_request_is_held_for_it_and_counts() {
    let mut world = World::with_lease(3600);
    world.now = world.now + seconds(1000);
    world.asks(kind::RENEW, 78);
    let mut world = world.sleep();
    assert_eq!(world.hear(&granted(78, 3600)), Heard::NotMine);
    let now = world.now;
    assert!(about(now, world.request().at, 1800));
}

#[test]
fn the_answer_to_the_guests_own_request_that_takes_an_address_away_wakes_it() {
    for valid in [3600, INFINITE] {
        let mut world = World::with_lease(valid);
        world.asks(kind::RENEW, 78);
        let mut world = world.sleep();
        let one = [leased(GUEST_V6, 0, 0), leased(SECOND, valid, valid)];
        let heard = world.hear(&reply(78, &SERVER, &[association(IAID, [0, 0], &one)]));
        let address = GUEST_V6.into();
        assert_eq!(heard, Heard::Wake(WakeReason::LeaseRefused { address, by: SERVER_LINK.into() }));
        assert_eq!(world.next().unwrap().unwrap_err(), Alarm::Withdraw(address));
    }
}

#[test]
fn an_awake_guest_speaks_for_itself_and_what_was_learned_while_it_slept_stays() {
    let mut world = World::with_lease(3600).sleep();
    let request = world.request();
    assert_eq!(world.hear(&granted(request.xid, 3600)), Heard::Noted);
    world.dhcp.wake();
    assert_eq!(world.dhcp.due(), None);
    assert!(about(request.at, world.sleep().request().at, 1800));
}

/// After a restart that took so long: another clock, and a guest that sleeps on.
fn restarted(world: &World, away: u64) -> World {
    let now = Instant::ZERO + seconds(3);
    let dhcp = Dhcpv6::restore(&world.dhcp.learned(world.now), now, seconds(away));
    World { dhcp, now, ..World::new() }.sleep()
}

#[test]
fn a_restart_keeps_how_to_ask_whom_and_when() {
    let mut world = World::with_lease(3600);
    world.now = world.now + seconds(1000);
    let mut world = restarted(&world, 300);
    let since = world.now;
    let request = world.request();
    assert!(about(since, request.at, 500), "{:?}", request.at.since(since));
    assert_eq!((request.kind, request.server.as_deref()), (kind::RENEW, Some(&SERVER[..])));
    assert_eq!(request.associations, [(IAID, vec![GUEST_V6, SECOND])]);
    assert_eq!(request.others, OPTIONS);
    assert_eq!(Dhcpv6::default().learned(world.now), None);
    assert_eq!(restarted(&World::with_lease(INFINITE), 300).dhcp.due(), None);
}

#[test]
fn a_lease_that_ended_in_a_restart_is_asked_for_at_once_and_given_up_in_a_minute() {
    let mut world = restarted(&World::with_lease(3600), 4000);
    let since = world.now;
    let (requests, alarms) = world.unanswered();
    assert!(requests[0].at.since(since) < seconds(2) && requests[0].kind == kind::REBIND, "{requests:?}");
    assert!(matches!(alarms[0].1, Alarm::Wake(_)) && alarms[0].0 > requests[0].at, "{alarms:?}");
    assert!(alarms.len() == 3 && alarms[2].0 == since + seconds(60), "{alarms:?}");
}

#[test]
fn what_cannot_have_been_learned_is_not_restored() {
    let world = World::with_lease(3600);
    let sound = world.dhcp.learned(world.now).unwrap();
    let restored = |learned: Dhcpv6Learned| Dhcpv6::restore(&Some(learned), world.now, seconds(0));
    assert_eq!(restored(sound.clone()).bindings.len(), 2);
    let bound = |address| LearnedBinding { iaid: 1, address, left: None };
    for learned in [
        Dhcpv6Learned { client: vec![0, 3], ..sound.clone() },
        Dhcpv6Learned { client: vec![1; LONGEST_DUID + 1], ..sound.clone() },
        Dhcpv6Learned { link_local: GUEST_V6, ..sound.clone() },
        Dhcpv6Learned { options: vec![0, 6, 0, 9], ..sound.clone() },
        Dhcpv6Learned { options: opt(6, &[0; MAX_OPTIONS]), ..sound.clone() },
        Dhcpv6Learned { bindings: vec![bound(GUEST_LINK)], ..sound.clone() },
        Dhcpv6Learned { bindings: vec![bound(GUEST_V6); MAX_BINDINGS + 1], ..sound },
    ] {
        let restored = restored(learned);
        assert!(restored.client.is_none() && restored.bindings.is_empty());
    }
}

#[test]
fn more_addresses_than_are_watched_over_are_left_out_and_fit_a_message() {
    let many: Vec<_> =
        (0..20).map(|n| leased(Ipv6Addr::from_bits(GUEST_V6.to_bits() + n), 3600, 3600)).collect();
    let mut world = World::new();
    world.asks(kind::REQUEST, 77);
    world.learn(false, &reply(77, &SERVER, &[association(IAID, [1800, 3000], &many)]));
    for n in 0..20 {
        let address = Ipv6Addr::from_bits(GUEST_V6.to_bits() + n).into();
        world.identity.addresses.push(InterfaceAddress { address, prefix_len: 64 });
    }
    assert_eq!(world.sleep().request().associations[0].1.len(), MAX_BINDINGS);
}

#[test]
fn a_week_of_sleep_with_leases_of_an_hour() {
    let mut world = World::with_lease(3600).sleep();
    let (start, mut granted_at, mut requests) = (world.now, world.now, 0);
    while world.now.since(start) < seconds(7 * 86_400) {
        let request = world.request();
        requests += 1;
        assert!(request.at.since(granted_at) < seconds(3600), "it had run out");
        if requests % 4 != 0 {
            assert_eq!(world.hear(&granted(request.xid, 3600)), Heard::Noted);
            granted_at = request.at;
        }
    }
    assert!((300..=600).contains(&requests), "{requests}");
}

proptest! {
    #[test]
    fn no_server_makes_it_panic_or_speak_without_end(
        seed: u64,
        heard in prop::collection::vec(
            (any::<[u8; 4]>(), any::<[u32; 2]>(), prop::collection::vec(any::<u8>(), 0..40), 0u64..4000), 1..40),
    ) {
        let mut world = World::with_lease(3600);
        world.rng = Rng::seeded(seed);
        let mut world = world.sleep();
        let mut xid = 77;
        for ([kind, how, preferred, valid], times, noise, pause) in heard {
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
            let all = [leased(GUEST_V6, preferred.into(), valid.into()), leased(SECOND, how.into(), u32::MAX)];
            let options = match how % 3 {
                0 => vec![noise],
                1 => vec![association(IAID, times, &all)],
                _ => vec![association(IAID, times.map(|t| t % 300), &all)],
            };
            let kind = if kind % 2 == 0 { kind::REPLY } else { kind };
            let bytes = [vec![opt(1, &CLIENT), opt(2, &SERVER)], options].concat();
            let bytes = datagram(true, kind, xid, &bytes);
            let received = surrogate_wire::Received::plain(&bytes);
            let frame = Frame::parse(&received).unwrap();
            let packet = Packet::parse(&frame, Offload::None).unwrap();
            world.dhcp.hear(world.now, &mut world.rng, &world.identity, &frame, &packet);
            world.dhcp.learn(world.now, pause % 2 == 0, &frame, &packet);
        }
    }
}

#[test]
fn a_frame_of_ours_is_the_guests() {
    let mut world = World::with_lease(3600);
    world.identity.vlan = Some(10);
    let mut world = world.sleep();
    world.now = world.dhcp.due().unwrap();
    let mut memory = [0; 1514];
    let mut out = FrameBuf::new(&mut memory);
    world.dhcp.speak(world.now, &mut world.rng, &world.identity, &mut out).unwrap();
    let (frame, _) = read(out.as_bytes());
    assert_eq!((frame.src, frame.tags.vid()), (GUEST, Some(10)));
    assert_ne!(frame.src, PEER);
}
