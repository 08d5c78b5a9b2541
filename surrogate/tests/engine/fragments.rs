//! Datagrams in fragments: put together where we owe the answer, held as they came where the guest does.

use core::net::IpAddr;

use proptest::prelude::*;
use surrogate::engine::{Answered, DropReason, Limits, Mode, Notice, Verdict, WakeReason};
use surrogate_wire::{Frame, Offload, Packet, Received, TcpFlags, Transport};

use crate::frames::*;
use crate::scenario::*;

const HELD: Option<Verdict> = Some(Verdict::Hold);

const fn dropped(why: DropReason) -> Option<Verdict> {
    Some(Verdict::Drop(why))
}

const fn answered(by: Answered) -> Option<Verdict> {
    Some(Verdict::Answer(by))
}

fn v4() -> IpAddr {
    GUEST.v4().into()
}

fn v6() -> IpAddr {
    GUEST.v6().into()
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

/// What the payloads of the fragments make together; each fits the MTU.
fn joined(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut whole = Vec::new();
    for (n, bytes) in fragments.iter().enumerate() {
        let frame = Frame::parse(&Received::plain(bytes)).expect("a frame");
        let (place, payload) = match Packet::parse(&frame, Offload::None).expect("a packet") {
            Packet::Ipv4(ip, _) => (ip.fragment, ip.payload),
            Packet::Ipv6(ip, _) => (ip.fragment, ip.payload),
            other => panic!("{other:?}"),
        };
        assert!(frame.payload.len() <= 1500 && (frame.src, frame.dst) == (GUEST.mac(), CLIENT.mac()));
        let place = place.expect("a fragment");
        assert_eq!((usize::from(place.offset), place.more), (whole.len(), n + 1 < fragments.len()));
        whole.extend(payload);
    }
    whole
}

fn held_dropped(s: &Scenario, why: DropReason) -> u64 {
    s.counters().held_dropped[why as usize]
}

fn woken(s: &mut Scenario) -> Vec<WakeReason> {
    let reason = |notice| if let Notice::Wake { reason, .. } = notice { Some(reason) } else { None };
    s.notices().into_iter().filter_map(reason).collect()
}

fn udp_from(src: u16, dst: u16, len: usize, id: u16) -> Vec<Vec<u8>> {
    cut(datagram((src, dst), &bytes(len)), 1500, id)
}

#[test]
fn a_long_echo_is_answered_in_fragments_and_wakes_nobody() {
    for (dst, by, parts) in [(v4(), Answered::Icmpv4Echo, 3), (v6(), Answered::Icmpv6Echo, 3)] {
        let mut s = Scenario::one_asleep();
        let request = cut(echo(dst, &bytes(3000)), 1500, 7);
        assert_eq!(request.len(), parts);
        let verdicts: Vec<_> = request.iter().map(|part| s.verdict(part)).collect();
        assert_eq!(verdicts, [HELD, HELD, answered(by)]);
        let reply = joined(&s.transmitted());
        assert_eq!(reply[4..], [&[0, 9, 0, 1][..], &bytes(3000)].concat());
        let counters = s.counters();
        assert_eq!((counters.held, counters.reclassified, counters.holding), (2, 2, 0));
        assert_eq!(counters.answered.iter().sum::<u64>(), 1);
    }
}

#[test]
fn an_answer_is_cut_only_if_it_is_too_long() {
    let mut s = Scenario::one_asleep();
    for part in cut(echo(v4(), &bytes(1200)), 576, 7) {
        s.receive(&part);
    }
    let reply = s.transmitted();
    assert_eq!(reply.len(), 1);
    assert_eq!(reply[0][42..], bytes(1200));
}

#[test]
fn a_declared_echo_service_answers_long_datagrams_too() {
    let mut s = Scenario::one_asleep();
    let verdicts: Vec<_> = udp_from(40_000, 7, 2000, 7).iter().map(|part| s.verdict(part)).collect();
    assert_eq!(verdicts, [HELD, answered(Answered::UdpEcho)]);
    assert_eq!(joined(&s.transmitted())[8..], bytes(2000));
}

#[test]
fn a_closed_port_is_closed_to_fragments_as_well() {
    let mut s = Scenario::one_asleep();
    let verdicts: Vec<_> = udp_from(40_000, 9999, 2000, 7).iter().map(|part| s.verdict(part)).collect();
    assert_eq!(verdicts, [HELD, answered(Answered::PortUnreachable)]);
    assert_eq!(s.transmitted().len(), 1);

    let syn = segment((40_000, 8080), (7, 0), TcpFlags::SYN, &bytes(40));
    let verdicts: Vec<_> = cut(syn, 60, 8).iter().map(|part| s.verdict(part)).collect();
    assert_eq!(verdicts, [HELD, answered(Answered::TcpReset)]);
    assert_eq!(woken(&mut s), []);
}

#[test]
fn the_first_part_shows_what_is_for_the_guest_and_the_others_follow() {
    let mut s = Scenario::one_asleep();
    let reason = WakeReason::Udp { port: 514, from: CLIENT.v4().into() };
    for (n, part) in udp_from(40_000, 514, 4000, 7).iter().enumerate() {
        assert_eq!(s.verdict(part), Some(Verdict::HoldAndWake), "part {n}");
    }
    assert_eq!(woken(&mut s), [reason]);

    let mut s = Scenario::one_asleep();
    let too_big = icmp(TO_GUEST, CLIENT.v6().into(), v6(), 2, 0, &bytes(1600));
    for part in cut(too_big, 1500, 7) {
        assert_eq!(s.verdict(&part), HELD, "an error about one of its connections");
    }
    s.at_ms(70_000);
    assert_eq!((woken(&mut s).len(), s.counters().holding), (0, 2));
}

#[test]
fn what_came_before_the_first_part_follows_it_too() {
    let mut s = Scenario::one_asleep();
    let mut parts = udp_from(40_000, 514, 4000, 7);
    parts.reverse();
    let verdicts: Vec<_> = parts.iter().map(|part| s.verdict(part)).collect();
    assert_eq!(verdicts, [HELD, HELD, Some(Verdict::HoldAndWake)]);
    s.mode(2, HOLD).mode(2, REPLAY);
    assert_eq!(s.deliveries(), parts, "in order of arrival, as they came");
}

#[test]
fn what_stays_unknown_wakes_after_a_second_because_the_guest_may_know_the_beginning() {
    let mut s = Scenario::one_asleep();
    let parts = udp_from(40_000, 514, 4000, 7);
    assert_eq!((s.verdict(&parts[1]), s.verdict(&parts[2])), (HELD, HELD));
    s.at_ms(999);
    assert_eq!(woken(&mut s), []);
    s.at_ms(1_000);
    assert_eq!(woken(&mut s), [WakeReason::Ip { protocol: 17, from: CLIENT.v4().into() }]);
    assert_eq!(s.counters().holding, 2);
}

#[test]
fn icmp_never_wakes_however_little_of_it_comes() {
    for (dst, seconds) in [(v4(), 30), (v6(), 60)] {
        let mut s = Scenario::one_asleep();
        let replies = [CLIENT.mac().0, GUEST.mac().0].concat();
        let request = cut(echo(dst, &bytes(3000)), 1500, 7);
        assert_eq!(s.verdict(&request[1]), HELD);
        let whole_first = cut(echo(dst, &bytes(3000)), 1500, 8);
        assert_eq!(s.verdict(&whole_first[0]), HELD);
        s.at_ms(seconds * 1000 - 1);
        assert_eq!(s.counters().holding, 2);
        s.at_ms(seconds * 1000);
        assert_eq!((s.counters().holding, held_dropped(&s, DropReason::FragmentTimeout)), (0, 2));
        let words = s.transmitted();
        assert!(words.iter().all(|word| word[..12] != replies[..]), "no word about it: {words:x?}");
        // The rest comes too late for the first: it begins anew.
        assert_eq!(s.verdict(&whole_first[1]), HELD);
    }
}

#[test]
fn parts_that_overlap_are_dropped_with_all_others_of_their_datagram() {
    for dst in [v4(), v6()] {
        let mut s = Scenario::one_asleep();
        let parts = cut(echo(dst, &bytes(3000)), 1500, 7);
        let overlapping = cut(echo(dst, &bytes(3000)), 600, 7);
        assert_eq!(s.verdict(&parts[0]), HELD);
        assert_eq!(s.verdict(&overlapping[1]), dropped(DropReason::FragmentOverlap));
        assert_eq!(s.verdict(&parts[1]), dropped(DropReason::FragmentOverlap), "RFC 5722: those to come");
        assert_eq!(s.verdict(&parts[2]), dropped(DropReason::FragmentOverlap));
        assert_eq!((s.counters().holding, held_dropped(&s, DropReason::FragmentOverlap)), (0, 1));
        assert_eq!(s.outputs(), []);
    }
}

#[test]
fn a_part_that_comes_twice_is_held_once() {
    let mut s = Scenario::one_asleep();
    let parts = cut(echo(v4(), &bytes(3000)), 1500, 7);
    assert_eq!(s.verdict(&parts[0]), HELD);
    assert_eq!(s.verdict(&parts[0]), dropped(DropReason::Duplicate));
    assert_eq!(s.verdict(&parts[1]), HELD);
    assert_eq!(s.verdict(&parts[2]), answered(Answered::Icmpv4Echo));
}

#[test]
fn copies_that_come_when_all_is_answered_are_dropped_and_wake_nobody() {
    let mut s = Scenario::one_asleep();
    let parts = udp_from(40_000, 7, 3000, 7);
    for part in &parts {
        s.receive(part);
    }
    assert_eq!((s.verdict(&parts[1]), s.verdict(&parts[2])), ([dropped(DropReason::Duplicate); 2]).into());
    // The same number again is another datagram.
    let verdicts: Vec<_> = udp_from(40_000, 7, 3000, 7).iter().map(|part| s.verdict(part)).collect();
    assert_eq!(verdicts, [HELD, HELD, answered(Answered::UdpEcho)]);
    let verdicts: Vec<_> = udp_from(40_000, 514, 2000, 7).iter().map(|part| s.verdict(part)).collect();
    assert_eq!(verdicts, [Some(Verdict::HoldAndWake); 2]);
    let verdicts: Vec<_> = udp_from(40_000, 7, 2000, 7).iter().map(|part| s.verdict(part)).collect();
    assert_eq!(verdicts, [HELD, answered(Answered::UdpEcho)]);
    s.at_ms(5_000);
    assert_eq!(woken(&mut s), [WakeReason::Udp { port: 514, from: CLIENT.v4().into() }]);
}

#[test]
fn datagrams_differ_by_address_identification_protocol_and_family() {
    let mut s = Scenario::one_asleep();
    let one = cut(echo(v4(), &bytes(2000)), 1500, 7);
    let by_id = cut(echo(v4(), &bytes(2000)), 1500, 8);
    let by_protocol = udp_from(40_000, 7, 2000, 7);
    let by_family = cut(echo(v6(), &bytes(2000)), 1500, 7);
    let from_other = icmp(TO_GUEST, THIEF.v4().into(), v4(), 8, 0, &bytes(2008));
    let by_source = cut(from_other, 1500, 7);
    let all = [&one, &by_id, &by_protocol, &by_family, &by_source];
    for parts in all {
        assert_eq!(s.verdict(&parts[0]), HELD);
    }
    for parts in all {
        assert!(matches!(s.verdict(&parts[1]), Some(Verdict::Answer(_))));
    }
}

#[test]
fn a_wrong_checksum_shows_when_all_is_there() {
    let mut s = Scenario::one_asleep();
    let mut request = echo(v4(), &bytes(3000));
    request[2000] ^= 1;
    let verdicts: Vec<_> = cut(request, 1500, 7).iter().map(|part| s.verdict(part)).collect();
    assert_eq!(verdicts, [HELD, HELD, dropped(DropReason::BadChecksum)]);
    assert_eq!((held_dropped(&s, DropReason::BadChecksum), s.outputs()), (2, vec![]));
}

#[test]
fn neighbour_discovery_in_fragments_is_refused() {
    let mut s = Scenario::one_asleep();
    let long = icmp(TO_GUEST, CLIENT.v6().into(), v6(), 135, 0, &[[0; 20].as_slice(), &[200, 200]].concat());
    let parts = cut(long, 64, 7);
    assert_eq!(s.verdict(&parts[0]), dropped(DropReason::Malformed), "RFC 6980");
}

#[test]
fn a_guest_that_wakes_meanwhile_gets_the_parts_as_they_came() {
    let mut s = Scenario::one_asleep();
    let request = cut(echo(v4(), &bytes(3000)), 1500, 7);
    assert_eq!(s.verdict(&request[0]), HELD);
    s.mode(2, HOLD_FLOODED);
    assert_eq!((s.verdict(&request[1]), s.verdict(&request[2])), (HELD, HELD));
    s.mode(2, REPLAY);
    assert_eq!(s.deliveries(), request);
    s.delivered(2, 3);
    assert_eq!(s.counters().replayed, 3);
}

#[test]
fn what_was_held_before_the_sleep_is_put_together_and_answered_late() {
    let mut s = Scenario::new(&[GUEST.identity()]);
    s.mode(1, FENCE);
    let request = cut(echo(v4(), &bytes(3000)), 1500, 7);
    assert_eq!((s.verdict(&request[0]), s.verdict(&request[1])), (HELD, HELD));
    assert_eq!(s.verdict(&echo(v4(), b"short")), HELD);
    s.mode(1, Mode::Answer);
    assert_eq!(s.transmitted().len(), 1, "the short one");
    assert_eq!(s.verdict(&request[2]), answered(Answered::Icmpv4Echo));
    assert_eq!(joined(&s.transmitted())[8..], bytes(3000));

    // All of it.
    let mut s = Scenario::new(&[GUEST.identity()]);
    s.mode(1, FENCE);
    for part in &request {
        assert_eq!(s.verdict(part), HELD);
    }
    s.mode(1, Mode::Answer);
    assert_eq!(joined(&s.transmitted())[8..], bytes(3000));
    assert_eq!((s.counters().reclassified, s.counters().holding), (3, 0));
}

#[test]
fn a_late_answer_without_room_is_tried_again() {
    let room = Limits { outbox_bytes: 3 * 1522, ..limits() };
    let mut s = Scenario::with_limits(room, &[GUEST.identity()]);
    s.mode(1, FENCE);
    for id in 0..4 {
        for part in cut(echo(v4(), &bytes(3000)), 1500, id) {
            assert_eq!(s.verdict(&part), HELD);
        }
    }
    s.outputs();
    s.mode(1, Mode::Answer);
    let mut replies = 0;
    for _ in 0..8 {
        replies += s.transmitted().chunks(3).map(joined).filter(|reply| reply[8..] == bytes(3000)).count();
        s.at_ms(0);
    }
    assert_eq!((replies, s.counters().reclassified, s.counters().holding), (4, 12, 0));
    // One that never finds room is not tried for ever.
    for part in cut(echo(v4(), &bytes(6000)), 1500, 9) {
        s.receive(&part);
    }
    assert_eq!((s.counters().dropped[DropReason::FragmentLimit as usize], s.counters().holding), (1, 0));
}

#[test]
fn long_echoes_are_limited_as_short_ones() {
    let mut s = Scenario::with_limits(Limits { echoes_per_second: 2, ..limits() }, &[GUEST.identity()]);
    s.mode(1, Mode::Answer);
    let mut verdicts = Vec::new();
    for id in 0..3 {
        verdicts.extend(cut(echo(v4(), &bytes(2000)), 1500, id).iter().map(|part| s.verdict(part)));
        s.transmitted();
    }
    let last: Vec<_> = verdicts.into_iter().skip(1).step_by(2).collect();
    let echoed = answered(Answered::Icmpv4Echo);
    assert_eq!(last, [echoed, echoed, dropped(DropReason::RateLimited)]);
    assert_eq!(held_dropped(&s, DropReason::RateLimited), 1);
}

#[test]
fn of_too_many_datagrams_the_oldest_gives_way() {
    let mut s = Scenario::one_asleep();
    let requests: Vec<_> = (0..17).map(|id| cut(echo(v4(), &bytes(2000)), 1500, id)).collect();
    for request in &requests {
        assert_eq!(s.verdict(&request[0]), HELD);
    }
    assert_eq!((s.counters().holding, held_dropped(&s, DropReason::FragmentLimit)), (16, 1));
    assert_eq!(s.verdict(&requests[1][1]), answered(Answered::Icmpv4Echo));
    assert_eq!(s.verdict(&requests[16][1]), answered(Answered::Icmpv4Echo));

    // What nobody knows yet is not lost for that.
    let mut s = Scenario::one_asleep();
    assert_eq!(s.verdict(&udp_from(40_000, 514, 2000, 99)[1]), HELD);
    for request in requests.iter().take(16) {
        assert_eq!(s.verdict(&request[0]), HELD);
    }
    assert_eq!(woken(&mut s).len(), 1);
    assert_eq!(s.counters().holding, 17);
}

#[test]
fn of_too_many_bytes_the_oldest_give_way_and_nobody_elses() {
    // 64 KiB of 512 may be fragments.
    let limits = Limits { held_bytes: 512 << 10, ..limits() };
    let mut s = Scenario::with_limits(limits, &[GUEST.identity(), NEIGHBOUR.identity()]);
    s.mode(1, Mode::Answer);
    s.set_mode(NEIGHBOUR.nic(), 1, Mode::Answer);
    s.outputs();
    let neighbours = icmp(
        between(NEIGHBOUR.mac(), CLIENT.mac()),
        CLIENT.v4().into(),
        NEIGHBOUR.v4().into(),
        8,
        0,
        &bytes(2008),
    );
    let neighbours = cut(neighbours, 1500, 7);
    assert_eq!(s.verdict(&neighbours[0]), HELD);
    for id in 0..4 {
        let request = cut(echo(v4(), &bytes(20_000)), 1500, id);
        for part in &request[..13] {
            assert_eq!(s.verdict(part), HELD);
        }
    }
    assert!(held_dropped(&s, DropReason::FragmentLimit) == 13, "{:?}", s.counters());
    assert_eq!(s.verdict(&neighbours[1]), answered(Answered::Icmpv4Echo));
}

#[test]
fn a_datagram_in_too_many_parts_is_not_put_together() {
    let mut s = Scenario::one_asleep();
    let parts = cut(echo(v4(), &bytes(2000)), 44, 7);
    assert!(parts.len() > 66);
    for part in &parts[..64] {
        assert_eq!(s.verdict(part), HELD);
    }
    assert_eq!(s.verdict(&parts[64]), dropped(DropReason::FragmentLimit));
    assert_eq!(s.verdict(&parts[65]), dropped(DropReason::FragmentLimit));
    assert_eq!((s.counters().holding, s.outputs()), (0, vec![]));
}

#[test]
fn a_part_that_had_to_go_takes_its_datagram_with_it() {
    let mut guest = GUEST.identity();
    guest.traffic.hold.frames = core::num::NonZeroUsize::new(4).unwrap();
    let mut s = Scenario::asleep(&[guest]);
    let request = cut(echo(v4(), &bytes(2000)), 1500, 7);
    assert_eq!(s.verdict(&request[0]), HELD);
    for n in 0..2 {
        s.receive(&syn(80, n));
        s.receive(&syn(22, n));
    }
    assert_eq!(held_dropped(&s, DropReason::BufferFull), 1, "a fragment is worth less than a SYN");
    assert_eq!(s.verdict(&request[1]), dropped(DropReason::BufferFull));
}

#[test]
fn fragments_to_a_group_are_not_put_together() {
    let mut s = Scenario::one_asleep();
    let to_all = icmp(TO_ALL, CLIENT.v4().into(), SUBNET.into(), 8, 0, &bytes(2000));
    for part in cut(to_all, 1500, 7) {
        assert_eq!(s.verdict(&part), None);
    }
}

#[test]
fn a_sleepers_long_answer_reaches_another_sleeper_and_is_its_own_to_take() {
    let mut s = Scenario::asleep(&[GUEST.identity(), NEIGHBOUR.identity()]);
    let from_neighbour = icmp(
        between(GUEST.mac(), NEIGHBOUR.mac()),
        NEIGHBOUR.v4().into(),
        v4(),
        8,
        0,
        &[&[0, 9, 0, 1][..], &bytes(3000)].concat(),
    );
    // A frame from the neighbour's own MAC silences us for the neighbour, who is to get the answer.
    for part in cut(from_neighbour, 1500, 7) {
        s.receive(&part);
    }
    let neighbour = s.engine.counters(NEIGHBOUR.nic()).unwrap();
    assert_eq!((neighbour.held, neighbour.holding), (3, 3), "echo replies, each as a part");
    assert_eq!(s.transmitted(), [] as [Vec<u8>; 0], "the bridge would not bring them");
}

proptest! {
    /// In whatever order the parts of some requests come, and come again: each is answered once, whole.
    #[test]
    fn each_request_is_answered_once_whatever_the_order(
        order in Just((0..4_u16).flat_map(|id| (0..3).map(move |n| (id, n))).collect::<Vec<_>>()).prop_shuffle(),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        v6_too: bool,
    ) {
        let dst = if v6_too { v6() } else { v4() };
        let requests: Vec<_> = (0..4).map(|id| cut(echo(dst, &bytes(3000 + usize::from(id))), 1500, id)).collect();
        let mut s = Scenario::one_asleep();
        let mut came: Vec<[bool; 3]> = vec![[false; 3]; 4];
        let mut replies = 0;
        for (n, (id, part)) in order.iter().enumerate() {
            let (of, part) = (usize::from(*id), *part);
            came[of][part] = true;
            let whole = came[of] == [true; 3];
            let verdict = s.verdict(&requests[of][part]);
            prop_assert_eq!(matches!(verdict, Some(Verdict::Answer(_))), whole);
            if whole {
                prop_assert_eq!(&joined(&s.transmitted())[8..], bytes(3000 + of));
                replies += 1;
            }
            // One that came already and is not answered yet.
            for at in &again {
                let (id, part) = order[at.index(n + 1)];
                if came[usize::from(id)] != [true; 3] {
                    let verdict = s.verdict(&requests[usize::from(id)][part]);
                    prop_assert_eq!(verdict, dropped(DropReason::Duplicate));
                }
            }
        }
        prop_assert_eq!((replies, s.counters().holding), (4, 0));
        let first = s.counters();
        prop_assert_eq!(first.answered.iter().sum::<u64>(), 4);
        prop_assert_eq!(first.reclassified, 8);
        for seconds in [31, 61] {
            s.at_ms(seconds * 1000);
            let transports: Vec<_> = s.transmitted().iter().map(|frame| {
                let frame = Frame::parse(&Received::plain(frame)).unwrap();
                matches!(Packet::parse(&frame, Offload::None).unwrap().transport(), Some(Transport::Fragment { .. }))
            }).collect();
            prop_assert!(!transports.contains(&true), "nothing more is said about it");
        }
    }
}
