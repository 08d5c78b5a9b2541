//! Addresses end when the prefix that they were made of does: routers tell, whether the guest is awake or asleep.

use core::net::Ipv6Addr;

use surrogate::engine::{Answered, Command, Mode, Notice, Verdict};
use surrogate::guest::identity::{Epoch, InterfaceAddress};
use surrogate::time::Duration;
use surrogate_wire::icmpv6::{ALL_NODES, ROUTER_ADVERTISEMENT};
use surrogate_wire::{Received, VlanTag};

use crate::frames::*;
use crate::scenario::*;

const HOUR: u32 = 3600;
/// In a prefix that no router advertises.
const STATIC: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x11);

/// A router advertises the guests' prefix for so many seconds.
fn advertised(valid: u32) -> Vec<u8> {
    let prefix = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
    let times = [valid.to_be_bytes(), [0; 4], [0; 4]].concat();
    let option = [&[3, 4, 64, 0xc0], &times[..], &prefix.octets()].concat();
    let rest = [&[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], &option].concat();
    let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    icmp(to_group(ALL_NODES.into()), router.into(), ALL_NODES.into(), ROUTER_ADVERTISEMENT, 0, &rest)
}

fn scenario() -> Scenario {
    let mut identity = GUEST.identity();
    identity.addresses.push(InterfaceAddress { address: STATIC.into(), prefix_len: 64 });
    Scenario::new(&[identity])
}

fn at(s: &mut Scenario, hours: u32, minutes: u32) -> &mut Scenario {
    s.at_ms(u64::from(hours * 60 + minutes) * 60_000)
}

fn answers(s: &mut Scenario, address: Ipv6Addr) -> bool {
    let verdict = s.verdict(&solicit(address));
    assert!(matches!(verdict, None | Some(Verdict::Answer(Answered::Ndisc))), "{verdict:?}");
    verdict.is_some()
}

fn expired(s: &mut Scenario) -> Vec<Notice> {
    let notices = s.outputs().into_iter().filter_map(|out| match out {
        Out::Notify(notice @ Notice::Expired { .. }) => Some(notice),
        _ => None,
    });
    notices.collect()
}

#[test]
fn an_address_past_its_lifetime_is_not_answered_for_and_that_is_told() {
    let mut s = scenario();
    // Awake: nobody's frame, but heard.
    assert_eq!(s.verdict(&advertised(3 * HOUR)), None);
    s.mode(1, Mode::Answer).outputs();
    assert!(answers(at(&mut s, 2, 59), GUEST.v6()));
    assert_eq!(expired(&mut s), []);
    at(&mut s, 3, 1);
    let told = Notice::Expired { nic: GUEST.nic(), epoch: Epoch(1), address: GUEST.v6().into() };
    assert_eq!(expired(&mut s), [told]);
    assert!(!answers(&mut s, GUEST.v6()) && answers(&mut s, STATIC));
    assert_eq!(s.counters().expired, 1);
    assert_eq!(s.engine.mode(GUEST.nic()), Some(Mode::Answer), "no reason to wake");
}

#[test]
fn an_address_lives_on_as_long_as_its_prefix_is_advertised() {
    let mut s = scenario();
    s.mode(1, Mode::Answer);
    for half_hours in 0..48 {
        at(&mut s, 0, half_hours * 30);
        assert_eq!(s.verdict(&advertised(2 * HOUR)), None, "foreign: nobody is owed anything");
        assert!(answers(&mut s, GUEST.v6()));
    }
    assert!(answers(at(&mut s, 25, 25), GUEST.v6()), "the last was at 23:30");
    at(&mut s, 25, 31);
    assert!(!answers(&mut s, GUEST.v6()));
}

#[test]
fn an_address_whose_prefix_is_advertised_again_is_answered_for_again() {
    let mut s = scenario();
    s.receive(&advertised(3 * HOUR));
    s.mode(1, Mode::Answer);
    assert!(!answers(at(&mut s, 4, 0), GUEST.v6()));
    // Where its router was away an awake host makes the address anew (RFC 4862 5.5.3 d).
    s.receive(&advertised(HOUR));
    assert!(answers(&mut s, GUEST.v6()) && answers(&mut s, STATIC));
    assert!(answers(at(&mut s, 4, 59), GUEST.v6()));
    at(&mut s, 5, 1);
    assert!(!answers(&mut s, GUEST.v6()) && answers(&mut s, STATIC));
    assert_eq!(expired(&mut s).len(), 1, "told once");
    // In silence nothing changes, and the end of it finds what routers said meanwhile.
    s.mode(1, HOLD_FLOODED);
    at(&mut s, 6, 0).receive(&advertised(HOUR));
    s.mode(1, Mode::Answer);
    assert!(answers(&mut s, GUEST.v6()));
}

#[test]
fn an_address_that_a_server_took_away_comes_back_with_no_prefix() {
    let mut identity = GUEST.identity();
    identity.addresses.push(InterfaceAddress { address: GUEST.link_local().into(), prefix_len: 64 });
    let mut s = Scenario::new(&[identity]);
    s.receive(&advertised(3 * HOUR));
    s.observe(true, &dhcp6_renewal(78));
    s.observe(false, &dhcp6_answer(78, 3600));
    s.mode(1, Mode::Answer);
    s.transmitted();
    let asked = at(&mut s, 0, 30).transmitted().iter().find_map(|frame| dhcp_xid(frame));
    assert_eq!(s.verdict(&dhcp6_answer(asked.expect("a request"), 0)), Some(Verdict::HoldAndWake));
    at(&mut s, 4, 0).receive(&advertised(3 * HOUR));
    assert!(!answers(&mut s, GUEST.v6()));
}

#[test]
fn in_a_vlan_where_nobody_heard_its_routers_an_address_is_not_over() {
    let mut identity = GUEST.identity();
    identity.vlan = Some(7);
    let mut s = Scenario::new(&[identity]);
    let tag = VlanTag { tpid: 0x8100, tci: 7 };
    let heard = |s: &mut Scenario, bytes: &[u8]| {
        s.receive_as(Received { vlan: Some(tag), ..Received::plain(bytes) }).len()
    };
    s.mode(1, Mode::Answer);
    heard(&mut s, &advertised(24 * HOUR));
    at(&mut s, 1, 0).mode(2, REPLAY).mode(2, RELEASED);
    // Our port is in the VLAN only while one of its guests sleeps.
    at(&mut s, 1, 1);
    at(&mut s, 100, 0).mode(3, Mode::Answer);
    assert_eq!(heard(&mut s, &solicit(GUEST.v6())), 1, "who knows what was advertised meanwhile");
    assert_eq!(heard(at(&mut s, 101, 59), &solicit(GUEST.v6())), 1);
    assert_eq!(heard(at(&mut s, 102, 1), &solicit(GUEST.v6())), 0, "nobody advertises it");
    at(&mut s, 103, 0).mode(4, Mode::Pass).mode(5, Mode::Answer);
    assert_eq!(heard(&mut s, &solicit(GUEST.v6())), 0, "that was heard");
}

#[test]
fn a_lifetime_that_is_cut_short_ends_after_two_hours() {
    let mut s = scenario();
    s.receive(&advertised(1_000 * HOUR));
    s.mode(1, Mode::Answer);
    at(&mut s, 10, 30).receive(&advertised(0));
    assert!(answers(at(&mut s, 12, 29), GUEST.v6()));
    at(&mut s, 12, 31);
    assert!(!answers(&mut s, GUEST.v6()));
}

#[test]
fn the_next_sleep_begins_with_what_routers_say_by_then() {
    let mut s = scenario();
    s.receive(&advertised(3 * HOUR));
    s.mode(1, Mode::Answer);
    at(&mut s, 4, 0).mode(2, RELEASED);
    at(&mut s, 5, 0).mode(3, Mode::Answer);
    assert!(!answers(&mut s, GUEST.v6()), "still over");
    s.mode(4, RELEASED);
    at(&mut s, 6, 0).receive(&advertised(3 * HOUR));
    s.mode(5, Mode::Answer);
    assert!(answers(&mut s, GUEST.v6()));
    assert_eq!(s.counters().expired, 2);
}

/// Another daemon, so many hours after what this one knows of its sleeper was taken.
fn restarted(s: &Scenario, hours: u32) -> Scenario {
    let knowledge = Box::new(s.engine.knowledge(s.now, GUEST.nic()).expect("it is registered"));
    let mut after = scenario();
    let ago = Duration::from_secs(u64::from(hours * HOUR));
    after.command(Command::Know { nic: GUEST.nic(), knowledge, ago });
    after.mode(1, Mode::Answer);
    after
}

#[test]
fn a_lifetime_goes_on_over_a_restart() {
    let mut s = scenario();
    s.receive(&advertised(9 * HOUR));
    s.mode(1, Mode::Answer);
    let mut after = restarted(&s, 5);
    assert!(answers(at(&mut after, 3, 59), GUEST.v6()));
    at(&mut after, 4, 1);
    assert!(!answers(&mut after, GUEST.v6()) && answers(&mut after, STATIC));
    assert_eq!(expired(&mut after).len(), 1);
    // It may have been advertised again while nobody heard.
    let mut after = restarted(&s, 10);
    assert!(answers(at(&mut after, 1, 59), GUEST.v6()));
    at(&mut after, 2, 1);
    assert!(!answers(&mut after, GUEST.v6()));
}

#[test]
fn an_address_that_is_over_is_over_after_a_restart() {
    let mut s = scenario();
    s.receive(&advertised(3 * HOUR));
    s.mode(1, Mode::Answer);
    at(&mut s, 3, 1);
    assert_eq!(expired(&mut s).len(), 1);
    let mut after = restarted(&s, 0);
    assert!(!answers(&mut after, GUEST.v6()) && answers(&mut after, STATIC));
}
