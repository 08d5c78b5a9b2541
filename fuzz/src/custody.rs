//! Custody of TCP connections: what an observer saw of an awake guest, then what peers send to the sleeper.

use surrogate::custody::{Custody, Judgement};
use surrogate::guest::identity::NicIdentity;
use surrogate::policy::custody::CustodyPolicy;
use surrogate::rng::Rng;
use surrogate::time::{Duration, Instant};
use surrogate_wire::emit::{Ethernet, Ipv4Header, Ipv6Header};
use surrogate_wire::tcp_options::TcpOptions;
use surrogate_wire::{FrameBuf, Packet, Tags, TcpFlags, Transport, protocol};

use crate::input::Input;
use crate::lan;

/// First a byte of which family and policy, then one of what each step is and what it needs.
pub(crate) fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let how = input.byte();
    let policy = CustodyPolicy {
        connections: CONNECTIONS,
        keep_alive: (how & 2 != 0).then_some(Duration::from_secs(50)),
        ..CustodyPolicy::default()
    };
    let mut world = World {
        custody: Custody::new(policy, 5),
        policy,
        identity: lan::guest(0x11, None),
        rng: Rng::seeded(9),
        now: Instant::from_nanos(1_000_000_000),
        v6: how & 1 != 0,
        asleep: false,
        judged: 0,
    };
    let mut steps = 0;
    while !input.is_empty() && steps < 300 {
        world.step(&mut input);
        steps += 1;
    }
    world.judged > 0
}

const CONNECTIONS: core::num::NonZeroUsize = core::num::NonZeroUsize::new(6).expect("six");
/// What a sleeper has room for beyond, see [`Custody::sleep`].
const MOST: u64 = 6;

struct World {
    custody: Custody,
    policy: CustodyPolicy,
    identity: NicIdentity,
    rng: Rng,
    now: Instant,
    v6: bool,
    asleep: bool,
    judged: u64,
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        let kind = input.byte();
        match kind & 0x0f {
            0..=4 => {
                let bytes = self.segment(kind >> 4, kind & 1 == 0, input);
                if self.asleep { self.judge(&bytes) } else { self.learn(kind & 1 == 0, &bytes) }
            }
            5..=8 => {
                let bytes = self.segment(kind >> 4, false, input);
                if self.asleep { self.judge(&bytes) } else { self.learn(false, &bytes) }
            }
            9 => self.now = self.now + Duration::from_millis(u64::from(input.byte()) * 10),
            10 => self.now = self.now + Duration::from_secs(u64::from(input.byte()) * 60),
            11 => self.solicit(),
            12 => {
                self.custody.sleep(self.now, &mut self.rng);
                self.asleep = true;
            }
            13 => {
                self.custody.wake();
                self.asleep = false;
                assert!(self.custody.due().is_none(), "a second voice");
            }
            14 => {
                let learned = self.custody.learned();
                let restored = Custody::restore(&learned, self.policy, 3);
                assert_eq!(restored.counters().known, count(&learned, self.policy));
                self.custody = restored;
                self.asleep = false;
            }
            _ => {}
        }
        if self.asleep {
            self.speak();
        }
        assert!(self.custody.counters().known <= MOST);
        for watched in [None, Some(Instant::ZERO), Some(self.now)] {
            let _ = self.custody.unrepresentable(self.now, watched).count();
        }
    }

    /// A segment between the guest's port 22 and a peer.
    fn segment(&self, peer: u8, from_guest: bool, input: &mut Input<'_>) -> Vec<u8> {
        let near = |input: &mut Input<'_>, number: u32| match input.byte() {
            255 => input.u32(),
            offset => number.wrapping_add(u32::from(offset)).wrapping_sub(8),
        };
        let (guest_number, peer_number) = (0x10, 0xffff_fff0);
        let (seq, ack) = if from_guest { (guest_number, peer_number) } else { (peer_number, guest_number) };
        let (seq, ack) = (near(input, seq), near(input, ack));
        let flags = TcpFlags(input.byte());
        let (window, shape) = (input.u16(), input.byte());
        let mut options = match shape & 3 {
            0 => Vec::new(),
            1 => input.chunk().iter().take(40).copied().collect(),
            2 => surrogate_wire::Timestamps { value: near(input, 7000), echo: near(input, 9000) }
                .emit()
                .to_vec(),
            _ => vec![2, 4, 5, 0xb4, 4, 2, 3, 3, input.byte(), 1],
        };
        options.resize(options.len().next_multiple_of(4), 1);
        let data = vec![7; usize::from(shape >> 2)];
        let offset = u8::try_from(5 + options.len() / 4).unwrap_or(15) << 4;
        let peer_port = 40_000 + u16::from(peer);
        let ports = if from_guest { (22, peer_port) } else { (peer_port, 22) };
        let [w0, w1] = window.to_be_bytes();
        let (src_port, dst_port) = (ports.0.to_be_bytes(), ports.1.to_be_bytes());
        let head = [
            &src_port[..],
            &dst_port,
            &seq.to_be_bytes(),
            &ack.to_be_bytes(),
            &[offset, flags.0, w0, w1, 0, 0, 0, 0],
        ];
        let body = [&head.concat()[..], &options, &data].concat();
        self.frame(from_guest, &body)
    }

    fn frame(&self, from_guest: bool, body: &[u8]) -> Vec<u8> {
        let (mut src, mut dst) = (self.identity.mac, lan::CLIENT);
        if !from_guest {
            core::mem::swap(&mut src, &mut dst);
        }
        let to = Ethernet { dst, src, tags: Tags::NONE };
        let mut bytes = lan::written(|out| {
            if self.v6 {
                let guest = core::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11);
                let peer = core::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
                let (src, dst) = if from_guest { (guest, peer) } else { (peer, guest) };
                let header =
                    Ipv6Header { src, dst, traffic_class: 0, hop_limit: 64, protocol: protocol::TCP };
                out.ipv6(&to, &header, body.len());
            } else {
                let (guest, peer) = ([192, 0, 2, 0x11].into(), [192, 0, 2, 1].into());
                let (src, dst) = if from_guest { (guest, peer) } else { (peer, guest) };
                let (tos, id, ttl) = (0, 5, 64);
                let header =
                    Ipv4Header { src, dst, tos, id, dont_fragment: true, ttl, protocol: protocol::TCP };
                out.ipv4(&to, &header, body.len());
            }
            out.push(body);
        });
        lan::mend(&mut bytes);
        bytes
    }

    fn learn(&mut self, from_guest: bool, bytes: &[u8]) {
        if let Some((frame, packet)) = lan::read(bytes) {
            self.custody.learn(self.now, &self.identity, from_guest, &frame, &packet);
        }
    }

    fn judge(&mut self, bytes: &[u8]) {
        let Some((frame, packet)) = lan::read(bytes) else { return };
        let judgement = self.custody.judge(self.now, &mut self.rng, &self.identity, &frame, &packet);
        self.judged += u64::from(judgement != Judgement::NotMine);
        if let Judgement::Answer(kind) = judgement {
            let mut memory = [0; 200];
            let mut out = FrameBuf::new(&mut memory);
            let written = self.custody.answer(kind, &self.identity, &frame, &packet, &mut out);
            assert!(written.is_some(), "{kind:?} is owed for {packet:?} and cannot be written");
            self.is_bare_ack(out.as_bytes());
        }
    }

    fn solicit(&mut self) {
        if self.asleep {
            return;
        }
        self.custody.begin_solicit();
        let mut asked = 0;
        loop {
            let mut memory = [0; 200];
            let mut out = FrameBuf::new(&mut memory);
            if self.custody.solicit(self.now, &self.identity, &mut out).is_none() {
                break;
            }
            lan::assert_sound(out.as_bytes());
            asked += 1;
            assert!(asked <= MOST, "a connection is asked for ever");
        }
    }

    fn speak(&mut self) {
        let mut said = 0;
        while self.custody.due().is_some_and(|due| due <= self.now) {
            let mut memory = [0; 200];
            let mut out = FrameBuf::new(&mut memory);
            if self.custody.speak(self.now, &self.identity, &mut out).is_none() {
                assert!(self.custody.due().is_none_or(|due| due > self.now), "due for ever");
                break;
            }
            self.is_bare_ack(out.as_bytes());
            said += 1;
            assert!(said <= 10_000, "we speak for ever");
        }
    }

    /// Hold, never acknowledge: whatever we say has no data and sets nothing but ACK.
    fn is_bare_ack(&self, bytes: &[u8]) {
        let Some((frame, packet)) = lan::read(bytes) else { panic!("unsound: {bytes:02x?}") };
        assert_eq!(frame.src, self.identity.mac);
        let (Packet::Ipv4(_, Transport::Tcp(tcp)) | Packet::Ipv6(_, Transport::Tcp(tcp))) = packet else {
            panic!("no segment: {bytes:02x?}")
        };
        assert_eq!((tcp.flags, tcp.payload.len()), (TcpFlags::ACK, 0), "{bytes:02x?}");
        assert!(!TcpOptions::parse(tcp.options).signed);
    }
}

/// How many connections a restored custody must have.
fn count(learned: &surrogate::custody::CustodyLearned, policy: CustodyPolicy) -> u64 {
    Custody::restore(learned, policy, 8).counters().known
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for how in 0..4 {
        let stamp = if how & 1 == 0 { 2 } else { 0 };
        let stamps: &[u8] = if stamp == 2 { &[8, 8] } else { &[] };
        let segment = |kind: u8, seq: u8, ack: u8, flags: u8, shape: u8| {
            [&[kind, seq, ack, flags, 1, 244, shape | stamp][..], stamps].concat()
        };
        let mut seed = vec![how];
        // A handshake, data both ways, a question to the guest, asleep.
        seed.extend([5, 4, 8, 2, 1, 244, 3, 7]);
        seed.extend([0, 4, 5, 0x12, 1, 244, 3, 7]);
        seed.extend(segment(5, 5, 5, 0x10, 0));
        seed.extend(segment(5, 5, 5, 0x18, 12));
        seed.extend(segment(0, 5, 8, 0x18, 12));
        seed.extend(segment(5, 8, 8, 0x10, 0));
        seed.extend([9, 200, 11]);
        seed.extend(segment(0, 8, 8, 0x10, 0));
        seed.extend([12, 9, 200]);
        // Keep-alives of both kinds, a window probe, old and new data, a reset, a SYN, an end.
        for (seq, flags, shape) in [
            (7, 0x10, 0),
            (7, 0x10, 4),
            (8, 0x10, 4),
            (5, 0x18, 8),
            (8, 4, 0),
            (9, 4, 0),
            (8, 2, 0),
            (8, 0x11, 0),
        ] {
            seed.extend(segment(5, seq, 8, flags, shape));
            seed.extend([9, 120]);
        }
        seed.extend([10, 3, 14, 0, 12, 10, 1, 13]);
        seeds.push(seed);
    }
    seeds
}
