//! While the guest sleeps: what is said in its name, how often, and when we fall silent.

use core::net::Ipv4Addr;

use surrogate::engine::{Answered, Command, DropReason, Mode, Notice, Verdict, WakeReason};
use surrogate::guest::identity::{Epoch, GuestId, InterfaceAddress};
use surrogate::time::Duration;
use surrogate_wire::{Frame, Mac, Packet, Received, TcpFlags, VlanTag, arp as arp_op};

use crate::frames::*;
use crate::scenario::*;

#[test]
fn an_awake_guest_is_left_alone_and_its_unicast_at_our_port_is_counted() {
    let mut s = Scenario::new(&[GUEST.identity()]);
    assert_eq!(s.receive(&arp_request(CLIENT, GUEST.v4())), []);
    assert_eq!(s.receive(&syn(80, 1)), []);
    assert_eq!(s.outputs(), []);
    assert_eq!((s.counters().awake_unicast, s.counters().concerned), (1, 0));
    assert_eq!(s.engine.foreign(), 2);
}

#[test]
fn an_answer_goes_to_who_asked_from_the_guests_own_mac() {
    let mut s = Scenario::one_asleep();
    assert_eq!(s.verdict(&arp_request(CLIENT, GUEST.v4())), Some(Verdict::Answer(Answered::Arp)));
    let replies = s.transmitted();
    assert_eq!(replies.len(), 1);
    let received = Received::plain(&replies[0]);
    let frame = Frame::parse(&received).unwrap();
    assert_eq!((frame.dst, frame.src, replies[0].len()), (CLIENT.mac(), GUEST.mac(), 60));
    let Ok(Packet::Arp(reply)) = Packet::parse(&frame, received.offload) else { panic!("{frame:?}") };
    assert_eq!((reply.op, reply.sha, reply.spa), (arp_op::REPLY, GUEST.mac(), GUEST.v4()));
}

#[test]
fn one_wake_notice_per_epoch_however_many_frames_ask_for_it() {
    let mut s = Scenario::one_asleep();
    let wake =
        |epoch, reason| Notice::Wake { guest: GuestId(111), nic: GUEST.nic(), epoch: Epoch(epoch), reason };
    let from = CLIENT.v4().into();
    for seq in 0..5 {
        assert_eq!(s.verdict(&syn(80, seq)), Some(Verdict::HoldAndWake));
    }
    assert_eq!(s.verdict(&datagram((1, 514), b"x")), Some(Verdict::HoldAndWake));
    assert_eq!(s.notices(), [wake(1, WakeReason::TcpSyn { port: 80, from })]);
    // The wake failed; in the next epoch what is held asks again.
    s.mode(2, HOLD_FLOODED).mode(2, Mode::Answer);
    assert!(s.notices().contains(&wake(2, WakeReason::TcpSyn { port: 80, from })));
    assert_eq!(s.verdict(&syn(22, 9)), Some(Verdict::HoldAndWake));
    assert_eq!(s.notices(), []);
}

#[test]
fn a_frame_of_the_guests_own_silences_us_at_once() {
    let mut s = Scenario::one_asleep();
    // An answer that the driver has not taken yet is not sent either.
    assert!(s.verdict(&echo(GUEST.v4().into(), b"late")).is_some());
    s.receive(&arp_request(GUEST, CLIENT.v4()));
    let spoke = Notice::GuestSpoke { nic: GUEST.nic(), epoch: Epoch(1) };
    assert_eq!(s.outputs(), [Out::Notify(spoke)]);
    assert_eq!(s.engine.mode(GUEST.nic()), Some(HOLD_FLOODED));
    assert_eq!(s.counters().transmit_failed, 1);
    for frame in [arp_request(CLIENT, GUEST.v4()), echo(GUEST.v4().into(), b"x")] {
        assert_eq!(s.verdict(&frame), Some(Verdict::Hold));
    }
    s.receive(&arp_request(GUEST, CLIENT.v4()));
    assert_eq!(s.outputs(), []);
    assert_eq!((s.counters().own_source, s.counters().silencing), (1, 1));
}

#[test]
fn a_forged_source_costs_one_silence_and_then_none_for_a_while() {
    let mut s = Scenario::one_asleep();
    let forged = arp_request(GUEST, CLIENT.v4());
    let spoke = Notice::GuestSpoke { nic: GUEST.nic(), epoch: Epoch(1) };
    s.receive(&forged);
    assert_eq!(s.notices(), [spoke]);
    assert_eq!(s.verdict(&arp_request(CLIENT, GUEST.v4())), Some(Verdict::Hold));
    // The hypervisor says that it sleeps: what was held is answered at once, and the operator is told.
    s.mode(1, Mode::Answer);
    let outs = s.outputs();
    let told = |outs: &[Out]| outs.iter().find_map(spoofed);
    assert_eq!(told(&outs), Some((1, 1, 1_000)));
    assert_eq!(outs.iter().filter(|out| matches!(out, Out::Transmit(_))).count(), 1);
    // However many come now, we go on answering.
    for _ in 0..1000 {
        s.receive(&forged);
    }
    assert_eq!(s.outputs(), []);
    assert_eq!(s.at_ms(999).verdict(&arp_request(CLIENT, GUEST.v4())), Some(Verdict::Answer(Answered::Arp)));
    s.outputs();
    // At the end of that while it is asked about once more, with no further frame.
    assert_eq!(s.at_ms(1_000).notices(), [spoke]);
    assert_eq!(s.engine.mode(GUEST.nic()), Some(HOLD_FLOODED));
    s.mode(1, Mode::Answer);
    assert_eq!(told(&s.outputs()), Some((2, 1001, 2_000)));
    // Nothing came meanwhile, so the next frame silences us, whenever it comes.
    assert_eq!(s.at_ms(5_000).notices(), []);
    s.receive(&forged);
    assert_eq!(s.notices(), [spoke]);
    assert_eq!((s.counters().own_source, s.counters().silencing), (1002, 3));
}

#[test]
fn whoever_goes_on_forging_silences_us_ever_more_rarely_and_fills_no_log() {
    let mut s = Scenario::one_asleep();
    let forged = arp_request(GUEST, CLIENT.v4());
    let (mut silent_at, mut alarms) = (Vec::new(), Vec::new());
    for ms in 0..120_000 {
        s.at_ms(ms).receive(&forged);
        let outs = s.outputs();
        alarms.extend(outs.iter().filter_map(spoofed).map(|(lies, ..)| lies));
        if s.engine.mode(GUEST.nic()) == Some(HOLD_FLOODED) {
            silent_at.push(ms / 1000);
            s.mode(1, Mode::Answer);
        }
    }
    assert_eq!(silent_at, [0, 1, 3, 7, 15, 25, 35, 45, 55, 65, 75, 85, 95, 105, 115]);
    assert_eq!(alarms, [1, 2, 4, 8]);
    assert_eq!(s.counters().silencing, silent_at.len() as u64);
}

#[test]
fn after_a_transition_the_guests_own_frame_is_believed_at_once() {
    let mut s = Scenario::one_asleep();
    let own = arp_request(GUEST, CLIENT.v4());
    s.receive(&own);
    s.mode(1, Mode::Answer).outputs();
    // It was woken and sleeps again; this time it is the guest that runs.
    s.mode(2, HOLD).mode(3, FENCE).mode(3, Mode::Answer).outputs();
    s.receive(&own);
    assert_eq!(s.notices(), [Notice::GuestSpoke { nic: GUEST.nic(), epoch: Epoch(3) }]);
    // Handed back in a new epoch, it was no lie: nobody is alarmed.
    s.mode(4, HOLD).mode(5, Mode::Answer);
    assert_eq!(s.outputs().iter().find_map(spoofed), None);
}

#[test]
fn while_the_control_side_asks_nothing_becomes_due() {
    let mut s = Scenario::one_asleep();
    let forged = arp_request(GUEST, CLIENT.v4());
    s.receive(&forged);
    s.mode(1, Mode::Answer).outputs();
    s.at_ms(500).receive(&forged);
    // Something else makes the control side ask, and that takes long.
    s.mode(1, HOLD_FLOODED).at_ms(1_500).outputs();
    assert_eq!(s.engine.poll_timeout(), None);
    s.mode(1, Mode::Answer).outputs();
    s.at_ms(1_501);
    assert_eq!(s.notices(), [Notice::GuestSpoke { nic: GUEST.nic(), epoch: Epoch(1) }]);
}

/// What an alarm says: how many lies in a row, how many frames, and for how many milliseconds none is believed.
fn spoofed(out: &Out) -> Option<(u32, u64, u128)> {
    match out {
        Out::Notify(Notice::Spoofed { lies, frames, deaf, .. }) => Some((*lies, *frames, deaf.as_millis())),
        _ => None,
    }
}

#[test]
fn the_guests_mac_on_another_vlan_silences_us_too() {
    let mut s = Scenario::one_asleep();
    let mut tagged = arp_request(GUEST, CLIENT.v4());
    tagged.splice(12..12, [0x81, 0, 0, 9]);
    s.receive(&tagged);
    assert_eq!(s.engine.mode(GUEST.nic()), Some(HOLD_FLOODED));
}

#[test]
fn an_address_is_defended_once_in_ten_seconds() {
    let mut s = Scenario::one_asleep();
    let claim =
        arp(between(Mac::BROADCAST, THIEF.mac()), arp_op::REPLY, THIEF.mac(), GUEST.v4(), CLIENT.v4());
    let conflict = |defended| Notice::Conflict {
        nic: GUEST.nic(),
        epoch: Epoch(1),
        address: GUEST.v4().into(),
        by: THIEF.mac(),
        defended,
    };
    let defence = Some(Verdict::Answer(Answered::ArpDefence));
    assert_eq!(s.verdict(&claim), defence);
    let outs = s.outputs();
    let [Out::Transmit(announcement), Out::Notify(notice)] = &outs[..] else { panic!("{outs:?}") };
    assert_eq!((&announcement[..6], &announcement[6..12]), (&[0xff; 6][..], &GUEST.mac().0[..]));
    assert_eq!(*notice, conflict(true));
    // Ten seconds later it is a first conflict again, and its kind was told already.
    assert_eq!(s.at_ms(10_000).verdict(&claim), defence);
    assert_eq!(s.notices(), []);
    assert_eq!(s.at_ms(19_999).verdict(&claim), Some(Verdict::HoldAndWake));
    let reason = WakeReason::Conflict;
    let wake = Notice::Wake { guest: GuestId(111), nic: GUEST.nic(), epoch: Epoch(1), reason };
    assert_eq!(s.notices(), [conflict(false), wake]);
    // A quarrel that goes on is not defended again.
    assert_eq!(s.at_ms(29_000).verdict(&claim), Some(Verdict::HoldAndWake));
    assert_eq!(s.counters().conflicts, 4);
}

#[test]
fn what_is_learned_of_a_nic_does_not_begin_its_defence_anew() {
    let mut s = Scenario::one_asleep();
    let claim =
        arp(between(Mac::BROADCAST, THIEF.mac()), arp_op::REPLY, THIEF.mac(), GUEST.v4(), CLIENT.v4());
    assert_eq!(s.verdict(&claim), Some(Verdict::Answer(Answered::ArpDefence)));
    // The hypervisor was asked again and told of one more address, which stands before the others.
    let mut identity = GUEST.identity();
    identity.addresses.insert(0, InterfaceAddress { address: THIEF.v6().into(), prefix_len: 64 });
    s.command(Command::Register(Box::new(identity)));
    assert_eq!(s.at_ms(9_999).verdict(&claim), Some(Verdict::HoldAndWake));
    assert_eq!(s.at_ms(19_999).verdict(&claim), Some(Verdict::Answer(Answered::ArpDefence)));
}

#[test]
fn each_address_is_defended_for_itself() {
    let mut s = Scenario::one_asleep();
    let to_all = between(Mac::BROADCAST, THIEF.mac());
    let claim = arp(to_all, arp_op::REQUEST, THIEF.mac(), GUEST.v4(), GUEST.v4());
    assert_eq!(s.verdict(&claim), Some(Verdict::Answer(Answered::ArpDefence)));
    let all_nodes = surrogate_wire::icmpv6::ALL_NODES;
    let to = surrogate_wire::emit::Ethernet { src: THIEF.mac(), ..to_group(all_nodes.into()) };
    let claim = advertisement(to, THIEF.mac(), all_nodes, GUEST.v6());
    assert_eq!(s.verdict(&claim), Some(Verdict::Answer(Answered::NdiscDefence)));
}

#[test]
fn errors_are_limited_per_destination() {
    let mut s = Scenario::one_asleep();
    let from = |host: Host| {
        let to = between(GUEST.mac(), host.mac());
        udp(to, host.v4().into(), GUEST.v4().into(), (1, 9999), b"x")
    };
    let unreachable = Some(Verdict::Answer(Answered::PortUnreachable));
    let limited = Some(Verdict::Drop(DropReason::RateLimited));
    let verdicts: Vec<_> = (0..3).map(|_| s.verdict(&from(CLIENT))).collect();
    assert_eq!(verdicts, [unreachable, unreachable, limited]);
    assert_eq!(s.verdict(&from(THIEF)), unreachable);
    assert_eq!(s.at_ms(500).verdict(&from(CLIENT)), unreachable);
    assert_eq!(s.transmitted().len(), 4);
}

#[test]
fn a_full_outbox_drops_answers_and_counts_them() {
    let small = surrogate::engine::Limits { outbox_bytes: 2000, ..limits() };
    let mut s = Scenario::with_limits(small, &[GUEST.identity()]);
    s.mode(1, Mode::Answer).outputs();
    let verdicts: Vec<_> = (0..9).filter_map(|_| s.verdict(&arp_request(CLIENT, GUEST.v4()))).collect();
    let answered = verdicts.iter().filter(|v| **v == Verdict::Answer(Answered::Arp)).count();
    assert!(answered > 0 && verdicts[answered..].iter().all(|v| *v == Verdict::Drop(DropReason::OutputFull)));
    assert_eq!(s.transmitted().len(), answered);
    assert_eq!(s.verdict(&arp_request(CLIENT, GUEST.v4())), Some(Verdict::Answer(Answered::Arp)));
}

#[test]
fn a_guest_in_a_vlan_is_answered_for_there_alone_with_the_tag_as_it_came() {
    let mut identity = GUEST.identity();
    identity.vlan = Some(7);
    let mut s = Scenario::asleep(&[identity]);
    let request = arp_request(CLIENT, GUEST.v4());
    assert_eq!(s.verdict(&request), None);
    let tag = VlanTag { tpid: 0x8100, tci: 0x6007 };
    let beside = Received { vlan: Some(tag), ..Received::plain(&request) };
    assert_eq!(s.receive_as(beside), [(GUEST.nic(), Verdict::Answer(Answered::Arp))]);
    let replies = s.transmitted();
    assert_eq!(replies[0][12..18], [0x81, 0, 0x60, 7, 8, 6]);
    // What is held has the tag in line.
    let syn = syn(80, 1);
    s.receive_as(Received { vlan: Some(tag), ..Received::plain(&syn) });
    s.mode(2, HOLD).mode(2, REPLAY);
    let expected = [&syn[..12], &[0x81, 0, 0x60, 7], &syn[12..]].concat();
    assert_eq!(s.deliveries(), [expected]);
}

#[test]
fn a_priority_tag_is_no_vlan() {
    let mut s = Scenario::one_asleep();
    let request = arp_request(CLIENT, GUEST.v4());
    let beside = Received { vlan: Some(VlanTag { tpid: 0x8100, tci: 0xa000 }), ..Received::plain(&request) };
    assert_eq!(s.receive_as(beside), [(GUEST.nic(), Verdict::Answer(Answered::Arp))]);
}

#[test]
fn one_broadcast_is_judged_for_every_sleeper() {
    let mut s = Scenario::asleep(&[GUEST.identity(), NEIGHBOUR.identity()]);
    let frame = udp(TO_ALL, CLIENT.v4().into(), Ipv4Addr::BROADCAST.into(), (1, 514), b"log");
    assert_eq!(s.receive(&frame), [(GUEST.nic(), Verdict::Hold), (NEIGHBOUR.nic(), Verdict::Hold)]);
    s.set_mode(NEIGHBOUR.nic(), 2, Mode::Pass);
    assert_eq!(s.receive(&frame), [(GUEST.nic(), Verdict::Hold)]);
}

#[test]
fn an_announcement_names_every_address_and_only_while_asleep() {
    let mut s = Scenario::one_asleep();
    s.command(Command::Announce { nic: GUEST.nic() });
    let frames = s.transmitted();
    let types: Vec<&[u8]> = frames.iter().map(|f| &f[12..14]).collect();
    assert_eq!(types, [&[8, 6][..], &[0x86, 0xdd]]);
    assert!(frames.iter().all(|f| f[6..12] == GUEST.mac().0));
    s.mode(2, HOLD).outputs();
    s.command(Command::Announce { nic: GUEST.nic() });
    assert_eq!(s.outputs(), []);
}

#[test]
fn what_the_port_did_not_take_is_counted_for_who_spoke_last() {
    let mut s = Scenario::asleep(&[GUEST.identity(), NEIGHBOUR.identity()]);
    for of in [NEIGHBOUR, GUEST, GUEST] {
        s.receive(&arp_request(CLIENT, of.v4()));
    }
    assert_eq!(s.transmitted().len(), 3);
    s.done(surrogate::engine::Done::TransmitFailed { port: PORT, count: 2 });
    assert_eq!(s.counters().transmit_failed, 2);
    assert_eq!(s.engine.counters(NEIGHBOUR.nic()).unwrap().transmit_failed, 0);
}

#[test]
fn a_reset_from_a_peer_does_not_wake() {
    let mut s = Scenario::one_asleep();
    let reset = segment((40_000, 22), (5, 6), TcpFlags::RST | TcpFlags::ACK, &[]);
    assert_eq!(s.verdict(&reset), Some(Verdict::Hold));
    assert_eq!(s.outputs(), []);
}

#[test]
fn an_answer_has_the_tags_of_its_question_in_their_order() {
    let mut guest = GUEST.identity();
    guest.vlan = Some(100);
    let mut s = Scenario::asleep(&[guest]);
    let service = VlanTag { tpid: 0x88a8, tci: 0x2064 };
    let inside = [0x81, 0, 0x60, 0];
    let untagged = echo(GUEST.v4().into(), &[7; 1400]);
    let mut stack = untagged.clone();
    stack.splice(12..12, [&[0x88, 0xa8, 0x20, 0x64][..], &inside].concat());
    let mut inner = untagged.clone();
    inner.splice(12..12, inside);
    let echoed = [(GUEST.nic(), Verdict::Answer(Answered::Icmpv4Echo))];
    // In the bytes, and as the kernel hands it over.
    assert_eq!(s.receive(&stack), echoed);
    assert_eq!(s.receive_as(Received { vlan: Some(service), ..Received::plain(&inner) }), echoed);
    for reply in s.transmitted() {
        assert_eq!((&reply[12..20], reply.len()), (&stack[12..20], stack.len()));
    }
    // Also when it is put together from fragments, and cut up.
    for mut part in cut(echo(GUEST.v4().into(), &[7; 3000]), 1500, 7) {
        part.splice(12..12, stack[12..20].iter().copied());
        s.receive(&part);
    }
    let replies = s.transmitted();
    assert_eq!(replies.len(), 3);
    assert!(replies.iter().all(|reply| reply[12..20] == stack[12..20]), "{replies:x?}");
}

#[test]
fn who_asks_what_time_it_is_is_told_and_wakes_the_guest_only_if_we_do_not_know() {
    let mut guest = GUEST.identity();
    guest.traffic.listen.get_or_insert_default().udp = vec![13];
    let asked = datagram((40_000, 13), &[]);
    let mut s = Scenario::asleep(std::slice::from_ref(&guest));
    s.at_ms(90_000).outputs();
    assert_eq!(s.verdict(&asked), Some(Verdict::Answer(Answered::Daytime)));
    let replies = s.transmitted();
    assert_eq!(replies.len(), 1);
    assert_eq!(&replies[0][42..68], b"Sat Nov 21 16:30:01 2026\r\n");
    // It was set back.
    s.engine.handle_time_of_day(s.now, Duration::from_secs(86_399));
    s.receive(&asked);
    assert_eq!(&s.transmitted()[0][42..68], b"Thu Jan  1 23:59:59 1970\r\n");

    let mut s = Scenario::without_clock(limits(), &[guest]);
    s.mode(1, Mode::Answer).outputs();
    assert_eq!(s.verdict(&asked), Some(Verdict::HoldAndWake));
}
