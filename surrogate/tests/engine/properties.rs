//! Any frames, commands and reports in any order: nothing is lost or counted twice, we speak only for
//! guests that sleep, and what is delivered comes in order and once.

use std::collections::HashMap;

use proptest::prelude::*;
use surrogate::engine::{Command, Done, Mode, Notice, Refusal};
use surrogate::guest::identity::{Epoch, NicId};
use surrogate_wire::{Mac, TcpFlags, arp as arp_op};

use crate::frames::*;
use crate::scenario::*;

#[derive(Clone, Debug)]
enum Step {
    Frame(Vec<u8>),
    Mode { of: Host, next_epoch: bool, mode: Mode },
    Watch(Host),
    Barrier(Host),
    Announce(Host),
    Report { of: Host, delivered: u32, refused: Option<Refusal> },
    PortReady(Host),
    Register(Host),
    Unregister(Host),
    Wait { ms: u64 },
    TransmitFailed(u32),
}

fn guest() -> impl Strategy<Value = Host> {
    prop::sample::select(vec![GUEST, NEIGHBOUR])
}

fn station() -> impl Strategy<Value = Host> {
    prop::sample::select(vec![CLIENT, THIEF, GUEST, NEIGHBOUR])
}

fn a_mode() -> impl Strategy<Value = Mode> {
    let modes = vec![Mode::Pass, FENCE, FENCE_FLOODED, Mode::Answer, HOLD_FLOODED, HOLD, REPLAY, RELEASED];
    prop::sample::select(modes)
}

/// Meaningful frames: hardly any random bytes would get past the parser.
fn a_frame() -> impl Strategy<Value = Vec<u8>> {
    let arp_frame = (station(), station(), station(), 1..3_u16, any::<bool>()).prop_map(
        |(from, claims, asks, op, broadcast)| {
            let dst = if broadcast { Mac::BROADCAST } else { asks.mac() };
            arp(between(dst, from.mac()), op, from.mac(), claims.v4(), asks.v4())
        },
    );
    let nd = (station(), guest()).prop_map(|(from, target)| {
        let to = surrogate_wire::emit::Ethernet {
            src: from.mac(),
            ..to_group(surrogate_wire::icmpv6::solicited_node(target.v6()).into())
        };
        solicitation(to, CLIENT.v6(), surrogate_wire::icmpv6::solicited_node(target.v6()), target.v6())
    });
    let tcp =
        (guest(), 0..4_u16, prop::sample::select(vec![22_u16, 80, 8080]), 0..6_u32, 0..64_u8, 0..700_usize)
            .prop_map(|(of, port, to, seq, flags, len)| {
                segment_to(of, (1000 + port, to), (seq, 1), TcpFlags(flags), &vec![7; len])
            });
    let udp_frame =
        (station(), guest(), 0..4_u16, prop::sample::select(vec![7_u16, 68, 514, 9999]), any::<bool>())
            .prop_map(|(from, of, n, port, flooded)| {
                let dst = if flooded { SUBNET } else { of.v4() };
                let mac = if flooded { Mac::BROADCAST } else { of.mac() };
                let src = if port == 68 { 67 } else { 1000 + n };
                udp(between(mac, from.mac()), from.v4().into(), dst.into(), (src, port), b"data")
            });
    let ping = (station(), station()).prop_map(|(from, of)| {
        icmp(between(of.mac(), from.mac()), from.v4().into(), of.v4().into(), 8, 0, &[1; 20])
    });
    // Parts of a few long ones, so that some become whole.
    let part = (station(), guest(), 0..3_u16, 0..3_usize, prop::sample::select(vec![8_u8, 0]), any::<bool>())
        .prop_map(|(from, of, id, part, kind, service)| {
            let to = between(of.mac(), from.mac());
            let (src, dst) = (from.v4().into(), of.v4().into());
            let whole = if service {
                udp(to, src, dst, (1000, 7), &[1; 3000])
            } else {
                icmp(to, src, dst, kind, 0, &[1; 3000])
            };
            cut(whole, if id == 0 { 1400 } else { 1500 }, id / 2)[part].clone()
        });
    let any_of = prop_oneof![arp_frame, nd, tcp, udp_frame, ping, part];
    (any_of, prop::option::weighted(0.1, 0..60_usize), prop::option::weighted(0.1, 0..8_u8)).prop_map(
        |(mut frame, damage, vid)| {
            if let Some(at) = damage.filter(|at| *at < frame.len()) {
                frame[at] ^= 0x11;
            }
            if let Some(vid) = vid {
                frame.splice(12..12, [0x81, 0, 0, vid]);
            }
            frame
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let refusal = prop::sample::select(vec![Refusal::Full, Refusal::Gone, Refusal::TooLong]);
    prop_oneof![
        20 => a_frame().prop_map(Step::Frame),
        5 => (guest(), any::<bool>(), a_mode())
            .prop_map(|(of, next_epoch, mode)| Step::Mode { of, next_epoch, mode }),
        1 => guest().prop_map(Step::Watch),
        1 => guest().prop_map(Step::Barrier),
        1 => guest().prop_map(Step::Announce),
        5 => (guest(), 0..9_u32, prop::option::of(refusal))
            .prop_map(|(of, delivered, refused)| Step::Report { of, delivered, refused }),
        1 => guest().prop_map(Step::PortReady),
        1 => guest().prop_map(Step::Register),
        1 => guest().prop_map(Step::Unregister),
        4 => (0..40_u64).prop_map(|ms| Step::Wait { ms }),
        1 => (10_000..80_000_u64).prop_map(|ms| Step::Wait { ms }),
        1 => (0..5_u32).prop_map(Step::TransmitFailed),
    ]
}

/// What the driver and the control side know.
#[derive(Default)]
struct World {
    epochs: HashMap<u8, u64>,
    /// Given to the driver and not reported, with their epoch.
    outstanding: HashMap<NicId, Vec<Epoch>>,
    now_ms: u64,
}

impl World {
    fn perform(&mut self, s: &mut Scenario, drains: bool) {
        if !drains {
            return;
        }
        for out in s.outputs() {
            match out {
                Out::Transmit(bytes) => {
                    let speaker = [GUEST, NEIGHBOUR].into_iter().find(|h| bytes[6..12] == h.mac().0);
                    let speaker = speaker.expect("only guests' own MACs are ever used");
                    assert_eq!(s.engine.mode(speaker.nic()), Some(Mode::Answer), "a second voice");
                    assert!(bytes.len() >= 60 && bytes.len() <= 1500 + 22);
                }
                Out::Deliver(nic, epoch, _) => {
                    assert!(matches!(s.engine.mode(nic), Some(Mode::Replay { .. })));
                    let outstanding = self.outstanding.entry(nic).or_default();
                    outstanding.push(epoch);
                    assert!(outstanding.len() <= surrogate::engine::WINDOW);
                    assert!(outstanding.iter().all(|e| *e == epoch), "one epoch at a time");
                }
                Out::Inject(..) => {}
                Out::Notify(Notice::Settled { nic, .. }) => {
                    // Unless it was unregistered since.
                    assert!(s.engine.counters(nic).is_none_or(|c| c.holding == 0));
                }
                Out::Notify(_) => {}
            }
        }
    }

    fn report(&mut self, s: &mut Scenario, of: Host, delivered: u32, refused: Option<Refusal>) {
        let outstanding = self.outstanding.remove(&of.nic()).unwrap_or_default();
        let Some(epoch) = outstanding.first().copied() else { return };
        let count = delivered.min(outstanding.len() as u32);
        s.done(Done::Delivered { nic: of.nic(), epoch, count });
        let left = outstanding.len() - count as usize;
        match refused {
            Some(why) if left > 0 => s.done(Done::Refused { nic: of.nic(), epoch, why }),
            _ => _ = self.outstanding.insert(of.nic(), vec![epoch; left]),
        }
    }

    fn take(&mut self, s: &mut Scenario, step: Step) {
        match step {
            Step::Frame(bytes) => {
                let concerned = |s: &Scenario| {
                    [GUEST, NEIGHBOUR].map(|h| s.engine.counters(h.nic()).map_or(0, |c| c.concerned))
                };
                let before = concerned(s);
                let verdicts = s.receive(&bytes);
                let after = concerned(s);
                let counted: u64 = before.iter().zip(after).map(|(b, a)| a - b).sum();
                // Own frames that re-entered are counted as well.
                assert!(counted >= verdicts.len() as u64);
            }
            Step::Mode { of, next_epoch, mode } => {
                let epoch = self.epochs.entry(of.0).or_insert(1);
                *epoch += u64::from(next_epoch);
                s.set_mode(of.nic(), *epoch, mode);
            }
            Step::Watch(of) => {
                let (epoch, watched) = (Epoch(*self.epochs.get(&of.0).unwrap_or(&0)), Some(s.now));
                s.command(Command::Watch { nic: of.nic(), epoch, watched });
            }
            Step::Barrier(of) => {
                let epoch = Epoch(*self.epochs.get(&of.0).unwrap_or(&0));
                s.command(Command::Barrier { nic: of.nic(), epoch });
                let answer = arp(between(SERVICE, of.mac()), arp_op::REPLY, of.mac(), of.v4(), [0; 4].into());
                s.receive(&answer);
            }
            Step::Announce(of) => s.command(Command::Announce { nic: of.nic() }),
            Step::Report { of, delivered, refused } => self.report(s, of, delivered, refused),
            Step::PortReady(of) => s.command(Command::PortReady { nic: of.nic() }),
            Step::Register(of) => s.command(Command::Register(Box::new(of.identity()))),
            Step::Unregister(of) => {
                s.command(Command::Unregister { nic: of.nic() });
                self.outstanding.remove(&of.nic());
                self.epochs.remove(&of.0);
            }
            Step::Wait { ms } => {
                self.now_ms += ms;
                s.at_ms(self.now_ms);
            }
            Step::TransmitFailed(count) => s.done(Done::TransmitFailed { port: PORT, count }),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_lost_and_nobody_speaks_out_of_turn(
        steps in prop::collection::vec((step(), prop::bool::weighted(0.9)), 1..150),
    ) {
        let tight = surrogate::engine::Limits { held_bytes: 48 << 10, outbox_bytes: 4000, ..limits() };
        let mut s = Scenario::with_limits(tight, &[GUEST.identity(), NEIGHBOUR.identity()]);
        let mut world = World::default();
        for (step, drains) in steps {
            world.take(&mut s, step);
            world.perform(&mut s, drains);
        }
    }

    #[test]
    fn a_woken_guest_gets_each_held_frame_once_in_order(
        frames in prop::collection::vec((0..3_u16, any::<bool>()), 1..200),
        reports in prop::collection::vec((0..40_u32, any::<bool>()), 1..40),
    ) {
        let mut s = Scenario::one_asleep();
        let mut sent = Vec::new();
        let mut got = Vec::new();
        let mut number = 0_u32;
        let mut arrive = |s: &mut Scenario, flow: u16, sent: &mut Vec<u32>| {
            number += 1;
            s.receive(&datagram((2000 + flow, 514), &number.to_be_bytes()));
            sent.push(number);
        };
        let take = |s: &mut Scenario, got: &mut Vec<u32>| {
            let numbers = s.deliveries();
            got.extend(numbers.iter().map(|f| u32::from_be_bytes([f[42], f[43], f[44], f[45]])));
            numbers.len() as u32
        };
        for (flow, _) in frames.iter().filter(|(_, late)| !late) {
            arrive(&mut s, *flow, &mut sent);
        }
        s.mode(2, HOLD).mode(2, REPLAY);
        let mut late = frames.iter().filter(|(_, late)| *late);
        let mut now = 0;
        let endless = reports.iter().copied().chain(std::iter::repeat((64, false)));
        for (delivered, refused) in endless.take(reports.len() + 20) {
            if let Some((flow, _)) = late.next() {
                arrive(&mut s, *flow, &mut sent);
            }
            let before = got.len();
            let given = take(&mut s, &mut got);
            let delivered = delivered.min(given);
            s.delivered(2, delivered);
            if refused || delivered < given {
                s.refused(2, Refusal::Full);
                got.truncate(before + delivered as usize);
            }
            now += 2;
            s.at_ms(now);
        }
        for (flow, _) in late {
            arrive(&mut s, *flow, &mut sent);
        }
        loop {
            let given = take(&mut s, &mut got);
            if given == 0 {
                break;
            }
            s.delivered(2, given);
        }
        prop_assert_eq!(got, sent);
        prop_assert_eq!(s.counters().holding, 0);
    }
}
