//! Groups that an awake guest told of: their frames are for it when it sleeps, and queries for them are answered.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use surrogate::engine::{Answered, Command, Mode, Verdict};
use surrogate::policy::traffic::Flooded;
use surrogate::time::Duration;
use surrogate_wire::emit::Ethernet;
use surrogate_wire::membership::{Generation, Message, Reporter};
use surrogate_wire::{Frame, Offload, Packet, Received, Tags, Transport, igmp, mld};

use crate::frames::*;
use crate::scenario::*;

const LEARNED: Ipv4Addr = Ipv4Addr::new(239, 5, 5, 5);
const LEARNED_6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 5);

fn report(group: IpAddr) -> Vec<u8> {
    let local = "fe80::11".parse().expect("an address");
    frame(|out| {
        let (mac, tags) = (GUEST.mac(), Tags::NONE);
        let written = match group {
            IpAddr::V4(group) => {
                let from = Reporter { mac, tags, address: GUEST.v4() };
                igmp::write_report(&from, Generation::Second, group, out)
            }
            IpAddr::V6(group) => mld::write_report(&Reporter { mac, tags, address: local }, group, out),
        };
        written.expect("it fits");
    })
}

fn leave(group: Ipv4Addr) -> Vec<u8> {
    let to = Ethernet { src: GUEST.mac(), ..to_group(Ipv4Addr::new(224, 0, 0, 2).into()) };
    let message = [&[igmp::LEAVE, 0, 0, 0][..], &group.octets()].concat();
    igmp_message(to, GUEST.v4(), Ipv4Addr::new(224, 0, 0, 2), &message)
}

fn to_learned(group: IpAddr) -> Vec<u8> {
    let from = if group.is_ipv4() { CLIENT.v4().into() } else { CLIENT.v6().into() };
    udp(to_group(group), from, group, (1, 9999), b"for the group")
}

/// A guest that said `frames` while it was awake, and sleeps.
fn that_said(frames: &[Vec<u8>], flooded: Flooded) -> Scenario {
    let mut identity = GUEST.identity();
    identity.traffic.flooded = flooded;
    let mut s = Scenario::new(&[identity]);
    frames.iter().for_each(|bytes| s.observe(true, bytes));
    s.mode(1, Mode::Answer).outputs();
    s
}

#[test]
fn datagrams_to_a_group_that_the_guest_told_of_are_for_it() {
    for group in [LEARNED.into(), LEARNED_6.into()] {
        assert_eq!(that_said(&[], Flooded::Wake).verdict(&to_learned(group)), None);
        let mut s = that_said(&[report(group)], Flooded::Hold);
        assert_eq!(s.verdict(&to_learned(group)), Some(Verdict::Hold));
        let mut s = that_said(&[report(group)], Flooded::Wake);
        assert_eq!(s.verdict(&to_learned(group)), Some(Verdict::HoldAndWake));
    }
    let mut s = that_said(&[report(LEARNED.into()), leave(LEARNED)], Flooded::Wake);
    assert_eq!(s.verdict(&to_learned(LEARNED.into())), None, "it left");
}

#[test]
fn what_is_declared_of_a_guest_anew_takes_nothing_from_what_it_told() {
    let mut s = that_said(&[report(LEARNED.into())], Flooded::Hold);
    let mut identity = GUEST.identity();
    identity.groups.clear();
    s.register(identity);
    assert_eq!(s.verdict(&to_learned(LEARNED.into())), Some(Verdict::Hold));
    assert_eq!(s.verdict(&to_learned(JOINED.into())), None, "declared no more");
}

#[test]
fn a_query_for_a_group_that_the_guest_told_of_is_answered_in_time_and_once() {
    let mut s = that_said(&[report(LEARNED.into()), report(LEARNED_6.into())], Flooded::Hold);
    assert_eq!(s.verdict(&igmp_query(Some(LEARNED), false)), Some(Verdict::Answer(Answered::Igmp)));
    assert_eq!(s.verdict(&mld_query(Some(LEARNED_6))), Some(Verdict::Answer(Answered::Mld)));
    assert!(s.transmitted().is_empty(), "not at once");
    let said = s.at_ms(1_000).transmitted();
    assert_eq!(said.len(), 2, "{said:x?}");
    for bytes in &said {
        let received = Received::plain(bytes);
        let ethernet = Frame::parse(&received).expect("a frame");
        assert_eq!(ethernet.src, GUEST.mac());
        match Packet::parse(&ethernet, Offload::None).expect("sound") {
            Packet::Ipv4(ip, _) => {
                let expected = Message::Report { generation: Generation::Second, group: LEARNED };
                assert_eq!(igmp::parse(&ip), Ok(Some(expected)));
            }
            Packet::Ipv6(ip, Transport::Icmpv6(icmp)) => {
                assert_eq!(ip.src, "fe80::11".parse::<Ipv6Addr>().expect("as it reported"));
                let expected = Message::Report { generation: Generation::Second, group: LEARNED_6 };
                assert_eq!(mld::parse(&ip, &icmp), Ok(Some(expected)));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(s.at_ms(20_000).transmitted().is_empty());
    let counters = s.counters();
    assert_eq!(counters.spoken[Answered::Igmp as usize], 1);
    assert_eq!(counters.spoken[Answered::Mld as usize], 1);
}

#[test]
fn a_query_that_came_while_the_guest_was_stopped_is_answered_late() {
    let mut s = Scenario::new(&[GUEST.identity()]);
    s.mode(1, FENCE_FLOODED);
    let unicast =
        igmp_message(TO_GUEST, CLIENT.v4(), GUEST.v4(), &[0x11, 10, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0]);
    assert_eq!(s.verdict(&unicast), Some(Verdict::Hold));
    s.mode(1, Mode::Answer);
    assert_eq!((s.counters().reclassified, s.counters().holding), (1, 0));
    assert_eq!(s.at_ms(1_000).transmitted().len(), 1);
}

#[test]
fn a_guest_that_is_handed_back_answers_for_itself() {
    let mut s = that_said(&[report(LEARNED.into())], Flooded::Hold);
    assert_eq!(s.verdict(&igmp_query(None, false)), Some(Verdict::Answer(Answered::Igmp)));
    s.mode(2, HOLD_FLOODED).mode(2, REPLAY).mode(2, RELEASED).outputs();
    assert!(s.at_ms(20_000).transmitted().is_empty());
}

#[test]
fn more_groups_than_are_remembered_are_counted() {
    let reports: Vec<_> = (0..70).map(|n| report(Ipv4Addr::new(239, 6, 6, n).into())).collect();
    let mut s = that_said(&reports, Flooded::Hold);
    assert_eq!((s.counters().observed, s.counters().unremembered), (70, 6));
    assert_eq!(s.verdict(&to_learned(Ipv4Addr::new(239, 6, 6, 5).into())), None, "the oldest went");
    assert_eq!(s.verdict(&to_learned(Ipv4Addr::new(239, 6, 6, 6).into())), Some(Verdict::Hold));
}

#[test]
fn groups_outlive_a_restart() {
    let s = that_said(&[report(LEARNED.into())], Flooded::Hold);
    let knowledge = Box::new(s.engine.knowledge(s.now, GUEST.nic()).expect("registered"));
    let mut s = Scenario::new(&[GUEST.identity()]);
    s.command(Command::Know { nic: GUEST.nic(), knowledge, ago: Duration::from_secs(9) });
    s.mode(1, Mode::Answer);
    assert_eq!(s.verdict(&to_learned(LEARNED.into())), Some(Verdict::Hold));
    assert_eq!(s.verdict(&igmp_query(Some(LEARNED), true)), Some(Verdict::Answer(Answered::Igmp)));
}
