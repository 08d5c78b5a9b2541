//! The way into sleep: fence, barrier, and what was held meanwhile.

use surrogate::engine::{Answered, Command, DropReason, Mode, Notice, Verdict, WakeReason};
use surrogate::guest::identity::{Epoch, GuestId};
use surrogate_wire::arp as arp_op;

use crate::frames::*;
use crate::scenario::*;

fn mode_set(epoch: u64, mode: Mode, held: u32) -> Notice {
    Notice::ModeSet { nic: GUEST.nic(), epoch: Epoch(epoch), mode, held }
}

#[test]
fn a_frame_worth_waking_for_aborts_the_sleep_and_a_ping_does_not() {
    let mut s = Scenario::new(&[GUEST.identity()]);
    s.mode(1, FENCE);
    assert_eq!(s.notices(), [mode_set(1, FENCE, 0)]);
    assert_eq!(s.verdict(&echo(GUEST.v4().into(), b"x")), Some(Verdict::Hold));
    assert_eq!(s.outputs(), []);
    assert_eq!(s.verdict(&syn(80, 1)), Some(Verdict::HoldAndWake));
    let reason = WakeReason::TcpSyn { port: 80, from: CLIENT.v4().into() };
    let wake = Notice::Wake { guest: GuestId(111), nic: GUEST.nic(), epoch: Epoch(1), reason };
    assert_eq!(s.notices(), [wake]);
    // Undone: both reach the guest, in order.
    s.mode(2, HOLD).mode(2, REPLAY);
    assert_eq!(s.deliveries(), [echo(GUEST.v4().into(), b"x"), syn(80, 1)]);
}

#[test]
fn what_was_held_is_answered_late_in_order_once_the_guest_sleeps() {
    let mut s = Scenario::new(&[GUEST.identity()]);
    s.mode(1, FENCE).mode(1, FENCE_FLOODED);
    let request = arp_request(CLIENT, GUEST.v4());
    let noise = udp(to_group(MDNS.into()), CLIENT.v4().into(), MDNS.into(), (5353, 5353), b"q");
    let closed = datagram((1, 9999), b"x");
    assert_eq!(s.verdict(&request), Some(Verdict::Hold));
    assert_eq!(s.verdict(&echo(GUEST.v4().into(), b"x")), Some(Verdict::Hold));
    assert_eq!(s.verdict(&noise), Some(Verdict::Absorb));
    assert_eq!(s.verdict(&closed), Some(Verdict::Hold));
    let rst = segment((1, 22), (1, 1), surrogate_wire::TcpFlags::RST, &[]);
    assert_eq!(s.verdict(&rst), Some(Verdict::Hold));
    s.outputs();
    s.mode(1, Mode::Answer);
    let outs = s.outputs();
    let [Out::Transmit(a), Out::Transmit(b), Out::Transmit(c), Out::Notify(done)] = &outs[..] else {
        panic!("{outs:?}");
    };
    assert_eq!([&a[12..14], &b[12..14]], [&[8, 6], &[8, 0]]);
    // Destination unreachable, port.
    assert_eq!((b[34], &c[34..36]), (0, &[3, 3][..]));
    assert_eq!(*done, mode_set(1, Mode::Answer, 1));
    assert_eq!((s.counters().held, s.counters().reclassified, s.counters().holding), (4, 3, 1));
}

#[test]
fn a_silent_policy_drops_held_frames_with_its_reason() {
    let mut identity = GUEST.identity();
    identity.traffic.closed_ports = surrogate::policy::traffic::ClosedPorts::Silent;
    let mut s = Scenario::new(&[identity]);
    s.mode(1, FENCE);
    assert_eq!(s.verdict(&syn(8080, 1)), Some(Verdict::Hold));
    s.mode(1, Mode::Answer);
    assert_eq!(s.counters().held_dropped[DropReason::ClosedPort as usize], 1);
    assert_eq!(s.counters().holding, 0);
}

#[test]
fn a_full_outbox_interrupts_the_late_answers_and_they_go_on_when_there_is_room() {
    // Room for one echo reply of any length at a time.
    let small = surrogate::engine::Limits { outbox_bytes: 1600, ..limits() };
    let mut s = Scenario::with_limits(small, &[GUEST.identity()]);
    s.mode(1, FENCE);
    let data: Vec<Vec<u8>> = (0..4).map(|n| vec![n; 100]).collect();
    for data in &data {
        assert_eq!(s.verdict(&echo(GUEST.v4().into(), data)), Some(Verdict::Hold));
    }
    s.outputs();
    s.mode(1, Mode::Answer);
    let mut answered = Vec::new();
    for _ in 0..8 {
        answered.extend(s.transmitted());
        if s.engine.poll_timeout() != Some(s.now) {
            break;
        }
        s.at_ms(0);
    }
    let answered: Vec<&[u8]> = answered.iter().map(|f| &f[42..142]).collect();
    assert_eq!(answered, data);
    assert_eq!((s.counters().reclassified, s.counters().holding), (4, 0));
}

#[test]
fn what_finds_the_outbox_full_has_used_up_no_limit() {
    let small = surrogate::engine::Limits { outbox_bytes: 1550, ..limits() };
    let mut s = Scenario::with_limits(small, &[GUEST.identity()]);
    s.mode(1, FENCE).mode(1, FENCE_FLOODED);
    // Two errors a second may be sent, and an address is defended once.
    for port in [9998, 9999] {
        assert_eq!(s.verdict(&datagram((1, port), b"x")), Some(Verdict::Hold));
    }
    for n in 0..20 {
        assert_eq!(s.verdict(&echo(GUEST.v4().into(), &[n; 1456])), Some(Verdict::Hold));
    }
    let to_all = between(surrogate_wire::Mac::BROADCAST, THIEF.mac());
    let claim = arp(to_all, arp_op::REQUEST, THIEF.mac(), GUEST.v4(), GUEST.v4());
    assert_eq!(s.verdict(&claim), Some(Verdict::Hold));
    s.outputs();
    s.mode(1, Mode::Answer);
    let (mut said, mut notices) = (0, Vec::new());
    for _ in 0..40 {
        for out in s.outputs() {
            match out {
                Out::Notify(notice) => notices.push(notice),
                _ => said += 1,
            }
        }
        s.at_ms(0);
    }
    assert_eq!((said, s.counters().reclassified, s.counters().holding), (23, 23, 0));
    assert!(
        matches!(notices[..], [Notice::ModeSet { .. }, Notice::Conflict { defended: true, .. }]),
        "{notices:?}"
    );
}

#[test]
fn an_interrupted_review_is_broken_off_when_the_guest_may_run() {
    let small = surrogate::engine::Limits { outbox_bytes: 1600, ..limits() };
    let mut s = Scenario::with_limits(small, &[GUEST.identity()]);
    s.mode(1, FENCE);
    for n in 0..4 {
        s.receive(&echo(GUEST.v4().into(), &[n; 100]));
    }
    s.outputs();
    s.mode(1, Mode::Answer);
    s.transmitted();
    let left = s.counters().holding;
    assert!(left > 0);
    s.mode(2, HOLD_FLOODED);
    s.at_ms(0).at_ms(1);
    assert_eq!(s.transmitted(), [] as [Vec<u8>; 0]);
    assert_eq!(s.counters().holding, left);
}

#[test]
fn the_barrier_passes_when_the_guest_answers_it_and_nothing_else_does() {
    let mut s = Scenario::new(&[GUEST.identity()]);
    let barrier = |epoch| Command::Barrier { nic: GUEST.nic(), epoch: Epoch(epoch) };
    // Not before the fence.
    s.command(barrier(0));
    assert_eq!(s.outputs(), []);
    s.mode(2, FENCE_FLOODED).outputs();
    let answer = || arp(between(SERVICE, GUEST.mac()), arp_op::REPLY, GUEST.mac(), GUEST.v4(), [0; 4].into());
    s.receive(&answer());
    s.command(barrier(1));
    assert_eq!(s.outputs(), []);
    s.command(barrier(2));
    let outs = s.outputs();
    let [Out::Inject(nic, question)] = &outs[..] else { panic!("{outs:?}") };
    assert_eq!((*nic, &question[..6], &question[6..12]), (GUEST.nic(), &GUEST.mac().0[..], &SERVICE.0[..]));
    // Somebody else's reply, and the guest's own words to others.
    s.receive(&arp(between(SERVICE, THIEF.mac()), arp_op::REPLY, THIEF.mac(), GUEST.v4(), [0; 4].into()));
    s.receive(&arp_request(GUEST, CLIENT.v4()));
    assert_eq!(s.outputs(), []);
    assert_eq!(s.receive(&answer()), []);
    assert_eq!(s.notices(), [Notice::BarrierPassed { nic: GUEST.nic(), epoch: Epoch(2) }]);
    s.receive(&answer());
    assert_eq!(s.outputs(), []);
}

#[test]
fn a_guest_with_ipv6_alone_is_asked_by_neighbour_discovery() {
    let mut identity = GUEST.identity();
    identity.addresses.remove(0);
    let mut s = Scenario::new(&[identity]);
    s.mode(1, FENCE_FLOODED).outputs();
    s.command(Command::Barrier { nic: GUEST.nic(), epoch: Epoch(1) });
    assert!(matches!(&s.outputs()[..], [Out::Inject(_, question)] if question[12..14] == [0x86, 0xdd]));
    let service: core::net::Ipv6Addr = "fe80::ff:fe00:fe".parse().unwrap();
    let rest = [&[0x60, 0, 0, 0], &GUEST.v6().octets()[..], &[2, 1], &GUEST.mac().0].concat();
    let answer = icmp(between(SERVICE, GUEST.mac()), GUEST.v6().into(), service.into(), 136, 0, &rest);
    s.receive(&answer);
    assert_eq!(s.notices(), [Notice::BarrierPassed { nic: GUEST.nic(), epoch: Epoch(1) }]);
}

#[test]
fn a_command_of_an_earlier_epoch_is_late_and_ignored() {
    let mut s = Scenario::new(&[GUEST.identity()]);
    s.mode(3, HOLD_FLOODED).outputs();
    s.mode(2, Mode::Answer);
    assert_eq!(s.outputs(), []);
    assert_eq!(s.engine.mode(GUEST.nic()), Some(HOLD_FLOODED));
    s.mode(3, Mode::Answer);
    assert_eq!(s.notices(), [mode_set(3, Mode::Answer, 0)]);
}

#[test]
fn registering_again_keeps_mode_and_held_frames_and_learns_the_rest() {
    let mut s = Scenario::one_asleep();
    s.receive(&syn(80, 1));
    s.outputs();
    let mut identity = GUEST.identity();
    identity.addresses[0].address = Host(44).v4().into();
    s.command(Command::Register(Box::new(identity)));
    assert_eq!(s.verdict(&arp_request(CLIENT, GUEST.v4())), None);
    assert!(matches!(s.verdict(&arp_request(CLIENT, Host(44).v4())), Some(Verdict::Answer(_))));
    assert_eq!((s.engine.mode(GUEST.nic()), s.counters().holding), (Some(Mode::Answer), 1));
}

#[test]
fn a_forgotten_guest_leaves_nothing_behind() {
    let mut s = Scenario::one_asleep();
    for seq in 0..100 {
        s.receive(&syn(80, seq));
    }
    s.command(Command::Unregister { nic: GUEST.nic() });
    assert_eq!(s.engine.counters(GUEST.nic()), None);
    assert_eq!(s.receive(&arp_request(CLIENT, GUEST.v4())), []);
    s.mode(5, Mode::Answer);
    s.at_ms(100_000);
    // Its place is taken by the next one, which starts anew.
    s.command(Command::Register(Box::new(GUEST.identity())));
    s.mode(1, Mode::Answer).outputs();
    assert_eq!(s.verdict(&syn(80, 5)), Some(Verdict::HoldAndWake));
    assert_eq!(s.counters().held, 1);
}

#[test]
fn passing_with_frames_held_drops_them_with_a_reason() {
    let mut s = Scenario::one_asleep();
    s.receive(&syn(80, 1));
    s.mode(2, Mode::Pass);
    assert_eq!(s.counters().held_dropped[DropReason::GuestGone as usize], 1);
    assert_eq!(s.counters().holding, 0);
}

#[test]
fn held_frames_grow_old_by_the_clock_alone() {
    let mut s = Scenario::one_asleep();
    s.receive(&syn(80, 1));
    s.at_ms(10_000).receive(&datagram((1, 514), b"x"));
    assert_eq!(s.engine.poll_timeout(), Some(surrogate::time::Instant::from_nanos(75_000_000_000)));
    assert_eq!(s.at_ms(75_000).counters().holding, 1);
    assert_eq!(s.at_ms(85_000).counters().holding, 0);
    assert_eq!(s.counters().held_dropped[DropReason::Aged as usize], 2);
    // The next announcement of its own accord, which an awake guest has none of.
    assert!(s.engine.poll_timeout().is_some_and(|due| due > s.now));
    s.mode(2, Mode::Pass);
    s.at_ms(300_000);
    assert_eq!(s.engine.poll_timeout(), None);
}

#[test]
fn a_sleeper_is_heard_at_least_every_two_minutes_until_it_speaks_for_itself() {
    let mut s = Scenario::one_asleep();
    let mut silent_for = 0;
    for second in 1..=600 {
        let said = s.at_ms(second * 1_000).transmitted();
        silent_for = if said.is_empty() { silent_for + 1 } else { 0 };
        assert!(silent_for <= 120, "silent for {silent_for} s");
        assert!(said.iter().all(|frame| frame[6..12] == GUEST.mac().0), "{said:x?}");
    }
    let spoken = s.counters().spoken[Answered::Presence as usize];
    assert!((5..=10).contains(&spoken), "{spoken} in ten minutes");
    s.mode(2, RELEASED).at_ms(900_000);
    assert_eq!(s.transmitted(), Vec::<Vec<u8>>::new());
}
