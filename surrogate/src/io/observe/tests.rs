//! What the filters take, run by an interpreter of classic BPF; `tests/observe.rs` shows the kernel the same.

use surrogate_wire::vlan::{TPID_8021AD, TPID_8021Q};

use super::bpf::{Assembler, Beside, Instruction, Size};
use super::filter::{HEADERS, SAMPLE, program};

/// As [`libc::PACKET_OUTGOING`] and how frames from elsewhere come.
const SENT: u32 = libc::PACKET_OUTGOING as u32;
const RECEIVED: u32 = libc::PACKET_OTHERHOST as u32;
const HEAD: usize = HEADERS as usize;

/// Runs a program as the kernel would: what it takes of the frame, 0 for nothing.
fn run(program: &[Instruction], frame: &[u8], kind: u32, random: u32) -> u32 {
    let [mut a, mut x, mut at] = [0u32, 0, 0];
    loop {
        let Instruction { code, jt, jf, k } = program[at as usize];
        let jump = |holds: bool| u32::from(if holds { jt } else { jf });
        let load = |at: u32, bytes: usize| {
            let loaded = frame.get(at as usize..at as usize + bytes)?;
            Some(loaded.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
        };
        let loaded = match code {
            0x20 if k == Beside::PacketType.offset() => Some(kind),
            0x20 if k == Beside::Random.offset() => Some(random),
            0x20 => load(k, 4),
            0x28 => load(k, 2),
            0x30 => load(k, 1),
            0x40 => load(x.wrapping_add(k), 4),
            0x48 => load(x.wrapping_add(k), 2),
            0x50 => load(x.wrapping_add(k), 1),
            _ => Some(a),
        };
        let Some(loaded) = loaded else { return 0 };
        a = loaded;
        match code {
            0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50 => {}
            0xb1 => match load(k, 1) {
                Some(byte) => x = (byte & 15) * 4,
                None => return 0,
            },
            0x01 => x = k,
            0x07 => x = a,
            0x04 => a = a.wrapping_add(k),
            0x54 => a &= k,
            0x64 => a <<= k,
            0x05 => at += k,
            0x15 => at += jump(a == k),
            0x1d => at += jump(a == x),
            0x45 => at += jump(a & k != 0),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
        at += 1;
    }
}

/// The frame with each tag that a filter must see through: none, either kind.
fn in_each_vlan(frame: &[u8]) -> [Vec<u8>; 3] {
    let tagged = |tpid: u16| {
        let mut tagged = frame.to_vec();
        let [a, b] = tpid.to_be_bytes();
        tagged.splice(12..12, [a, b, 0x60, 7]);
        tagged
    };
    [frame.to_vec(), tagged(TPID_8021Q), tagged(TPID_8021AD)]
}

/// What both filters take of `frame`, and of it tagged: (steady, closely).
#[track_caller]
fn taken(frame: &[u8], kind: u32, random: u32) -> (usize, usize) {
    let took = in_each_vlan(frame).map(|frame| {
        let how = |closely| run(&program(closely).unwrap(), &frame, kind, random) as usize;
        (how(false).min(frame.len()), how(true).min(frame.len()))
    });
    let whole = |n: usize, frame: usize| if n >= frame { usize::MAX } else { n };
    let relative = [0, 4, 4].map(|tag| frame.len() + tag);
    let took: Vec<_> =
        took.iter().zip(relative).map(|((s, c), frame)| (whole(*s, frame), whole(*c, frame))).collect();
    assert!(took.iter().all(|other| *other == took[0]), "tags made a difference: {took:?}");
    took[0]
}

const ALL: (usize, usize) = (usize::MAX, usize::MAX);
const NONE: (usize, usize) = (0, 0);
/// Random numbers that choose a frame, and that do not.
const CHOSEN: u32 = 5 * SAMPLE;
const PASSED_OVER: u32 = 5 * SAMPLE + 1;

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x52, 0x54, 0, 0, 0, 0x22, 0x52, 0x54, 0, 0, 0, 0x11];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// With `options` words of no-operations.
fn ipv4(protocol: u8, options: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45 + options, 0, 0, 0, 0, 7];
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 192, 0, 2, 11, 192, 0, 2, 101]);
    packet.extend(std::iter::repeat_n(1, usize::from(options) * 4));
    packet.extend(payload);
    ethernet(0x0800, &packet)
}

/// Behind a hop-by-hop header of so many words of eight bytes, if any.
fn ipv6(protocol: u8, words: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, if words > 0 { 0 } else { protocol }, 1];
    packet.extend([0x20; 32]);
    if words > 0 {
        packet.extend([protocol, words - 1]);
        packet.extend(std::iter::repeat_n(0, usize::from(words) * 8 - 2));
    }
    packet.extend(payload);
    ethernet(0x86dd, &packet)
}

/// A segment in both families, and with options in front of it, longer than its headers.
fn tcp(flags: u8) -> [Vec<u8>; 4] {
    let mut segment = vec![0, 80, 0x30, 0x39, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 4, 0, 0, 0, 0, 0];
    segment.resize(1400, 0xff);
    [ipv4(6, 0, 0, &segment), ipv4(6, 10, 0, &segment), ipv6(6, 0, &segment), ipv6(6, 2, &segment)]
}

fn udp(from: u16, to: u16) -> [Vec<u8>; 4] {
    let [[f0, f1], [t0, t1]] = [from.to_be_bytes(), to.to_be_bytes()];
    let datagram = [&[f0, f1, t0, t1, 0, 0, 0, 0][..], &[0; 400]].concat();
    [ipv4(17, 0, 0, &datagram), ipv4(17, 1, 0, &datagram), ipv6(17, 0, &datagram), ipv6(17, 1, &datagram)]
}

#[test]
fn connections_that_begin_and_end_are_always_seen_from_the_guest() {
    for flags in [0x02, 0x12, 0x11, 0x04, 0x14, 0xc2, 0x01] {
        for frame in tcp(flags) {
            assert_eq!(taken(&frame, RECEIVED, PASSED_OVER), (HEAD, HEAD), "flags {flags:#x}");
        }
    }
}

#[test]
fn of_other_segments_of_the_guest_a_sample_is_taken_or_all() {
    for frame in [0x10, 0x18, 0x38, 0xd0].into_iter().flat_map(tcp) {
        assert_eq!(taken(&frame, RECEIVED, PASSED_OVER), (0, HEAD));
        assert_eq!(taken(&frame, RECEIVED, CHOSEN), (HEAD, HEAD));
    }
}

#[test]
fn of_segments_to_the_guest_those_with_syn_are_taken_or_all() {
    for frame in [0x02, 0x12].into_iter().flat_map(tcp) {
        assert_eq!(taken(&frame, SENT, PASSED_OVER), (HEAD, HEAD));
    }
    for frame in [0x10, 0x18, 0x11, 0x04].into_iter().flat_map(tcp) {
        assert_eq!(taken(&frame, SENT, CHOSEN), (0, HEAD));
    }
}

#[test]
fn names_and_leases_are_taken_whole_from_the_guest() {
    let ports = [67, 68, 546, 547, 137, 5353, 5355];
    for frame in ports.into_iter().flat_map(|port| [udp(port, 4000), udp(4000, port)]).flatten() {
        assert_eq!(taken(&frame, RECEIVED, PASSED_OVER), ALL);
    }
    for frame in [udp(53, 4000), udp(4000, 53), udp(66, 69), udp(5354, 138)].into_iter().flatten() {
        assert_eq!(taken(&frame, RECEIVED, PASSED_OVER), (0, usize::MAX));
        assert_eq!(
            taken(&frame, RECEIVED, CHOSEN),
            (HEAD, usize::MAX),
            "what its guest sends is estimated by these"
        );
    }
}

#[test]
fn to_the_guest_only_what_its_lease_comes_in_is_taken() {
    for frame in [udp(67, 68), udp(547, 546)].into_iter().flatten() {
        assert_eq!(taken(&frame, SENT, PASSED_OVER), ALL);
    }
    let others = [udp(68, 67), udp(546, 547), udp(5353, 5353), udp(67, 546), udp(67, 4000)];
    for frame in others.into_iter().flatten() {
        assert_eq!(taken(&frame, SENT, CHOSEN), NONE);
    }
}

#[test]
fn memberships_advertisements_and_closed_ports_are_taken_from_the_guest_only() {
    let icmpv6 = |kind: u8, code: u8| [0, 1].map(|words| ipv6(58, words, &[kind, code, 0, 0, 0, 0, 0, 0]));
    let mut wanted = vec![ipv4(2, 1, 0, &[0x22, 0, 0, 0]), ipv4(1, 0, 0, &[3, 3, 0, 0, 0, 0, 0, 0])];
    wanted.extend([130, 131, 132, 143, 134, 136].into_iter().flat_map(|kind| icmpv6(kind, 0)));
    wanted.extend(icmpv6(1, 4));
    for frame in &wanted {
        assert_eq!(taken(frame, RECEIVED, PASSED_OVER), ALL, "{frame:02x?}");
        assert_eq!(taken(frame, SENT, CHOSEN), NONE, "{frame:02x?}");
    }
    let mut others = vec![ipv4(1, 0, 0, &[8, 0, 0, 0, 0, 0, 0, 0]), ipv4(1, 0, 0, &[3, 1, 0, 0, 0, 0, 0, 0])];
    others.extend(
        [(128, 0), (129, 0), (133, 0), (135, 0), (1, 3), (2, 0)].into_iter().flat_map(|(k, c)| icmpv6(k, c)),
    );
    others.push(ipv4(47, 0, 0, &[0; 40]));
    others.push(ethernet(0x88cc, &[0; 60]));
    for frame in &others {
        assert_eq!(taken(frame, RECEIVED, CHOSEN), NONE, "{frame:02x?}");
    }
}

#[test]
fn of_arp_announcements_and_probes_of_the_guest_are_taken() {
    let arp = |operation: u8, sender: [u8; 4], target: [u8; 4]| {
        let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, operation, 0x52, 0x54, 0, 0, 0, 0x11];
        bytes.extend(sender);
        bytes.extend([0; 6]);
        bytes.extend(target);
        ethernet(0x0806, &bytes)
    };
    let (own, other, none) = ([192, 0, 2, 11], [192, 0, 2, 1], [0; 4]);
    for frame in [arp(1, own, own), arp(2, own, own), arp(1, none, own)] {
        assert_eq!(taken(&frame, RECEIVED, PASSED_OVER), ALL);
        assert_eq!(taken(&frame, SENT, CHOSEN), NONE);
    }
    for frame in [arp(1, own, other), arp(2, own, other)] {
        assert_eq!(taken(&frame, RECEIVED, CHOSEN), NONE);
    }
}

#[test]
fn later_fragments_say_nothing_and_first_ones_are_read() {
    for protocol in [6, 17] {
        let mut payload = [0; 60];
        payload[..4].copy_from_slice(&[0, 67, 0, 68]);
        payload[13] = 2;
        assert_ne!(taken(&ipv4(protocol, 0, 0x2000, &payload), RECEIVED, PASSED_OVER), NONE);
        assert_eq!(taken(&ipv4(protocol, 0, 0x2001, &payload), RECEIVED, CHOSEN), NONE);
        assert_eq!(taken(&ipv4(protocol, 0, 0x0001, &payload), SENT, CHOSEN), NONE);
    }
}

#[test]
fn a_frame_that_ends_too_early_is_not_taken_and_none_runs_out_of_the_program() {
    let whole = [tcp(2), udp(67, 68)].into_iter().flatten().chain([ipv6(58, 1, &[143, 0, 0, 0])]);
    for frame in whole {
        for length in 0..frame.len().min(160) {
            for kind in [SENT, RECEIVED] {
                for closely in [false, true] {
                    run(&program(closely).unwrap(), &frame[..length], kind, CHOSEN);
                }
            }
        }
        assert_eq!(taken(&frame[..20], RECEIVED, CHOSEN), NONE);
    }
}

proptest::proptest! {
    #[test]
    fn any_frame_is_judged(frame: Vec<u8>, kind in 0u32..7, random: u32, closely: bool) {
        run(&program(closely).unwrap(), &frame, kind, random);
    }
}

#[test]
fn the_assembler_refuses_what_classic_bpf_cannot_express() {
    let mut unplaced = Assembler::default();
    let label = unplaced.label();
    unplaced.go(label);
    assert_eq!(unplaced.finish(), None);

    let distance = |instructions: usize| {
        let mut asm = Assembler::default();
        let label = asm.label();
        asm.if_equal(1, label);
        (0..instructions).for_each(|_| asm.load(Size::Byte, 0));
        asm.place(label);
        asm.take(0);
        asm.finish().map(|program| program.len())
    };
    assert_eq!((distance(255), distance(256)), (Some(257), None));
}
