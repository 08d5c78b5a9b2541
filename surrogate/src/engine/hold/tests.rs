//! The hold buffer case by case, then against a model that keeps the same rules in a plain vector.

use core::net::IpAddr;
use core::num::NonZeroUsize;

use proptest::prelude::*;

use super::super::arena::CHUNK;
use super::admit::DHCP_KEPT;
use super::*;
use crate::policy::traffic::HoldLimits;

const AGE: Duration = Duration::from_secs(75);

fn hold_limits(frames: usize, bytes: usize) -> HoldLimits {
    HoldLimits {
        frames: NonZeroUsize::new(frames).unwrap(),
        bytes: NonZeroUsize::new(bytes).unwrap(),
        age: AGE,
    }
}

fn segment(seq: u32, flags: u8) -> Twin {
    let ip = |n| IpAddr::from([192, 0, 2, n]);
    let ports = (40_000, 80);
    Twin { source: ip(1), destination: ip(11), ports, seq, ack: 0, len: 0, window: 0, flags }
}

/// One guest's buffer and everything around it.
struct Buffer {
    hold: Hold,
    queue: Queue,
    limits: HoldLimits,
    counters: Counters,
    now: Instant,
}

impl Buffer {
    fn new(frames: usize, bytes: usize) -> Self {
        Self {
            hold: Hold::new(64 * CHUNK, 3, 1),
            queue: Queue::default(),
            limits: hold_limits(frames, bytes),
            counters: Counters::default(),
            now: Instant::ZERO,
        }
    }

    fn at_s(&mut self, s: u64) -> &mut Self {
        self.now = Instant::ZERO + Duration::from_secs(s);
        self.hold.sweep(self.now, AGE, &mut self.queue, &mut self.counters);
        self
    }

    fn arrive(&mut self, class: Class, flow: u64, twin: Option<Twin>, bytes: &[u8]) -> Admission {
        let arrival = Arrival {
            bytes,
            vlan: None,
            offload: Offload::None,
            class,
            flow,
            twin,
            flooded: class == Class::Flooded,
        };
        self.hold.admit(self.now, 0, &mut self.queue, &self.limits, &arrival, &mut self.counters)
    }

    /// One frame of a flow of its own.
    fn one(&mut self, class: Class, id: u8) -> Admission {
        self.arrive(class, u64::from(id), None, &[id; 60])
    }

    fn all(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.hold.next_to_deliver(&mut self.queue) {
            let mut bytes = vec![0; frame.len];
            self.hold.read(frame, &mut bytes);
            frames.push(bytes);
        }
        self.hold.refused(&mut self.queue);
        frames
    }

    /// First byte of each.
    fn ids(&mut self) -> Vec<u8> {
        self.all().iter().map(|bytes| bytes[0]).collect()
    }

    fn dropped(&self, why: DropReason) -> u64 {
        self.counters.held_dropped[why as usize]
    }
}

#[test]
fn frames_come_out_in_arrival_order_unchanged_with_their_tag_in_line() {
    let mut b = Buffer::new(8, 8192);
    b.one(Class::Datagram, 1);
    let vlan = Some(VlanTag { tpid: 0x8100, tci: 0x6005 });
    let bytes: Vec<u8> = (0..100).collect();
    let arrival = Arrival {
        bytes: &bytes,
        vlan,
        offload: Offload::Partial,
        class: Class::Data,
        flow: 2,
        twin: None,
        flooded: false,
    };
    b.hold.admit(b.now, 0, &mut b.queue, &b.limits, &arrival, &mut b.counters);
    b.one(Class::Flooded, 3);
    let frames = b.all();
    assert_eq!([frames[0][0], frames[2][0]], [1, 3]);
    assert_eq!(frames[1], [&bytes[..12], &[0x81, 0, 0x60, 5], &bytes[12..]].concat());
}

#[test]
fn a_repeated_segment_is_held_once_and_of_a_syn_the_newest_copy() {
    let mut b = Buffer::new(8, 8192);
    let syn = Some(segment(7, Twin::SYN));
    assert_eq!(b.arrive(Class::Control, 1, syn, &[1; 74]), Admission::Held);
    b.one(Class::Datagram, 9);
    assert_eq!(b.arrive(Class::Data, 1, Some(segment(8, 0x18)), &[3; 80]), Admission::Held);
    let repeated = Admission::Refused(DropReason::Duplicate);
    assert_eq!(b.at_s(60).arrive(Class::Control, 1, syn, &[2; 66]), repeated);
    assert_eq!(b.arrive(Class::Data, 1, Some(segment(8, 0x18)), &[4; 80]), repeated);
    assert_eq!(b.all(), [vec![2; 66], vec![9; 60], vec![3; 80]]);
    assert_eq!(b.counters.holding_bytes, 66 + 60 + 80);
    // The renewed SYN is young, the others are not.
    assert_eq!(b.at_s(75).ids(), [2]);
    assert_eq!(b.dropped(DropReason::Aged), 2);
    assert_eq!(b.at_s(134).ids(), [2]);
    assert_eq!(b.at_s(135).ids(), [] as [u8; 0]);
}

#[test]
fn a_syn_that_the_driver_has_is_not_replaced() {
    let mut b = Buffer::new(8, 8192);
    let syn = Some(segment(7, Twin::SYN));
    b.arrive(Class::Control, 1, syn, &[1; 74]);
    assert!(b.hold.next_to_deliver(&mut b.queue).is_some());
    b.arrive(Class::Control, 1, syn, &[2; 74]);
    b.hold.refused(&mut b.queue);
    assert_eq!(b.ids(), [1]);
}

#[test]
fn of_flooded_frames_the_newest_few_are_kept() {
    let mut b = Buffer::new(8, 8192);
    for id in 1..=5 {
        assert_eq!(b.one(Class::Flooded, id), Admission::Held);
    }
    assert_eq!(b.ids(), [3, 4, 5]);
    assert_eq!(b.dropped(DropReason::FloodedRing), 2);
}

#[test]
fn one_flow_gets_half_of_the_frames() {
    let mut b = Buffer::new(8, 8192);
    for _ in 0..4 {
        assert_eq!(b.arrive(Class::Datagram, 1, None, &[1; 60]), Admission::Held);
    }
    let full = Admission::Refused(DropReason::BufferFull);
    assert_eq!(b.arrive(Class::Datagram, 1, None, &[1; 60]), full);
    assert_eq!(b.arrive(Class::Datagram, 2, None, &[2; 60]), Admission::Held);
    // What has left makes room in the share.
    b.hold.next_to_deliver(&mut b.queue);
    b.hold.delivered(&mut b.queue, 1, &mut b.counters);
    assert_eq!(b.arrive(Class::Datagram, 1, None, &[1; 60]), Admission::Held);
}

#[test]
fn the_cheapest_class_goes_first_and_nothing_cheaper_gets_in() {
    let mut b = Buffer::new(7, 8192);
    let order = [
        (Class::Flooded, 1),
        (Class::Neighbour, 2),
        (Class::Neighbour, 3),
        (Class::Data, 4),
        (Class::Data, 5),
        (Class::Ack, 6),
        (Class::Datagram, 7),
    ];
    for (class, id) in order {
        assert_eq!(b.one(class, id), Admission::Held);
    }
    // Flooded; the newer of two neighbour frames; the newest data; then the rest of it; then the ACK.
    for (id, left) in [
        (11, vec![2, 3, 4, 5, 6, 7, 11]),
        (12, vec![2, 4, 5, 6, 7, 11, 12]),
        (13, vec![2, 4, 6, 7, 11, 12, 13]),
        (14, vec![2, 6, 7, 11, 12, 13, 14]),
        (15, vec![2, 7, 11, 12, 13, 14, 15]),
        (16, vec![2, 11, 12, 13, 14, 15, 16]),
    ] {
        assert_eq!(b.one(Class::Control, id), Admission::Held);
        assert_eq!(b.ids(), left);
    }
    for class in [Class::Flooded, Class::Neighbour, Class::Data, Class::Ack, Class::Datagram, Class::Control]
    {
        assert_eq!(b.one(class, 99), Admission::Refused(DropReason::BufferFull), "{class:?}");
    }
    assert_eq!(b.one(Class::Dhcp, 50), Admission::Held);
    assert_eq!(b.ids(), [2, 11, 12, 13, 14, 15, 50]);
}

#[test]
fn a_dhcp_reply_gives_way_only_to_a_newer_one() {
    let mut b = Buffer::new(2, 8192);
    assert_eq!(b.one(Class::Dhcp, 1), Admission::Held);
    assert_eq!(b.one(Class::Dhcp, 2), Admission::Held);
    assert_eq!(b.one(Class::Control, 3), Admission::Refused(DropReason::BufferFull));
    assert_eq!(b.one(Class::Dhcp, 4), Admission::Held);
    assert_eq!(b.ids(), [2, 4]);
    let mut b = Buffer::new(64, 8192);
    for id in 0..20 {
        b.one(Class::Dhcp, id);
    }
    assert_eq!(b.ids(), (4..20).collect::<Vec<u8>>());
}

#[test]
fn a_long_frame_makes_room_in_bytes_and_in_the_memory_of_all() {
    let mut b = Buffer::new(100, 2000);
    for id in 0..10 {
        b.one(Class::Data, id);
    }
    assert_eq!(b.arrive(Class::Datagram, 90, None, &[90; 1514]), Admission::Held);
    assert_eq!(b.ids(), [0, 1, 2, 3, 4, 5, 6, 7, 90]);
    let mut b = Buffer::new(100, 1 << 20);
    for id in 0..64 {
        assert_eq!(b.one(Class::Data, id), Admission::Held);
    }
    assert_eq!(b.one(Class::Data, 64), Admission::Refused(DropReason::HostFull));
    assert_eq!(b.arrive(Class::Datagram, 90, None, &[90; 1514]), Admission::Held);
    assert_eq!(b.dropped(DropReason::HostFull), 3);
}

#[test]
fn outstanding_frames_are_never_dropped() {
    let mut b = Buffer::new(2, 8192);
    b.one(Class::Flooded, 1);
    b.one(Class::Data, 2);
    b.hold.next_to_deliver(&mut b.queue);
    b.hold.next_to_deliver(&mut b.queue);
    assert_eq!(b.one(Class::Dhcp, 3), Admission::Refused(DropReason::BufferFull));
    b.at_s(1000);
    assert_eq!(b.counters.holding, 2);
    b.hold.drop_waiting(&mut b.queue, &mut b.counters, DropReason::GuestGone);
    assert_eq!(b.counters.holding, 2);
    assert_eq!(b.hold.delivered(&mut b.queue, 9, &mut b.counters), 2);
    assert_eq!((b.counters.replayed, b.counters.holding), (2, 0));
}

#[test]
fn a_frame_longer_than_any_ip_packet_is_refused() {
    let mut b = Buffer::new(4, 1 << 20);
    let frame = vec![1; MAX_FRAME + 1];
    assert_eq!(b.arrive(Class::Data, 1, None, &frame), Admission::Refused(DropReason::TooLong));
}

#[test]
fn a_review_goes_on_where_it_stood_when_a_newer_acknowledgement_takes_the_place_of_that_frame() {
    let newest = Some(segment(1, 0x10).of_newest_ack());
    for stands_at in 0..3 {
        let mut b = Buffer::new(100, 1 << 20);
        b.one(Class::Datagram, 1);
        b.arrive(Class::Ack, 2, newest, &[2; 60]);
        b.one(Class::Datagram, 3);
        b.hold.review(&mut b.queue);
        let mut seen = Vec::new();
        let next = |b: &mut Buffer| {
            let frame = b.hold.review_next(&mut b.queue)?;
            let mut bytes = vec![0; frame.len];
            b.hold.read(frame, &mut bytes);
            Some(bytes[0])
        };
        seen.extend((0..stands_at).filter_map(|_| next(&mut b)));
        b.arrive(Class::Ack, 2, newest, &[9; 60]);
        while let Some(id) = next(&mut b) {
            seen.push(id);
        }
        let expected: &[u8] = if stands_at == 2 { &[1, 2, 3, 9] } else { &[1, 3, 9] };
        assert_eq!(seen, expected);
    }
}

#[test]
fn a_review_survives_the_eviction_of_the_frame_it_stands_at() {
    let mut b = Buffer::new(3, 8192);
    for (id, class) in [(1, Class::Datagram), (2, Class::Data), (3, Class::Datagram)] {
        b.one(class, id);
    }
    b.hold.review(&mut b.queue);
    let first = b.hold.review_next(&mut b.queue).unwrap();
    b.hold.remove(first, &mut b.queue, &mut b.counters);
    b.one(Class::Datagram, 4);
    // Evicts frame 2, which is next.
    b.one(Class::Control, 5);
    let mut seen = Vec::new();
    while let Some(frame) = b.hold.review_next(&mut b.queue) {
        let mut bytes = vec![0; frame.len];
        b.hold.read(frame, &mut bytes);
        seen.push(bytes[0]);
    }
    assert_eq!(seen, [3, 4, 5]);
    assert!(!b.queue.in_review());
}

// The model.

#[derive(Clone, Debug)]
struct Modelled {
    id: u8,
    class: Class,
    flow: u64,
    seq: Option<u32>,
    len: usize,
    at: Instant,
    outstanding: bool,
}

#[derive(Default)]
struct Model {
    frames: Vec<Modelled>,
}

impl Model {
    fn cheapest(&self, class: Class) -> Option<usize> {
        let waiting =
            |c: Class| (0..self.frames.len()).filter(|i| self.frames[*i].class == c).collect::<Vec<_>>();
        Class::ALL.into_iter().filter(|c| *c <= class).find_map(|c| {
            let all = waiting(c);
            if c == Class::Flooded || (c == Class::Dhcp && c == class) {
                return all.into_iter().find(|i| !self.frames[*i].outstanding);
            }
            if c == class || (c == Class::Neighbour && all.len() < 2) {
                return None;
            }
            all.last().copied().filter(|i| !self.frames[*i].outstanding)
        })
    }

    fn bytes(&self) -> usize {
        self.frames.iter().map(|f| f.len).sum()
    }

    fn chunks(&self) -> usize {
        self.frames.iter().map(|f| f.len.div_ceil(CHUNK)).sum()
    }

    fn admit(
        &mut self,
        new: Modelled,
        limits: &HoldLimits,
        ring: usize,
        others: usize,
        chunks: usize,
    ) -> bool {
        if let Some(old) = self.frames.iter_mut().find(|f| f.seq.is_some() && f.seq == new.seq) {
            let (old_len, old_out) = (old.len, old.outstanding);
            let fits = self.bytes() - old_len + new.len <= limits.bytes.get()
                && self.chunks() - old_len.div_ceil(CHUNK) + new.len.div_ceil(CHUNK) + others <= chunks;
            if new.class == Class::Control && !old_out && fits {
                let old = self.frames.iter_mut().find(|f| f.seq == new.seq).unwrap();
                (old.id, old.len, old.at) = (new.id, new.len, new.at);
            }
            return false;
        }
        let of = |model: &Self, class: Class| model.frames.iter().filter(|f| f.class == class).count();
        let full = match new.class {
            Class::Flooded => of(self, new.class) >= ring,
            Class::Dhcp => of(self, new.class) >= DHCP_KEPT as usize,
            _ if self.frames.iter().filter(|f| f.flow == new.flow).count()
                >= limits.frames.get().div_ceil(2) =>
            {
                return false;
            }
            _ => false,
        };
        if full {
            let same = |f: &Modelled| f.class == new.class && !f.outstanding;
            let Some(oldest) = self.frames.iter().position(same) else { return false };
            self.frames.remove(oldest);
        }
        while self.frames.len() >= limits.frames.get()
            || self.bytes() + new.len > limits.bytes.get()
            || self.chunks() + new.len.div_ceil(CHUNK) + others > chunks
        {
            let Some(victim) = self.cheapest(new.class) else { return false };
            self.frames.remove(victim);
        }
        self.frames.push(new);
        true
    }
}

#[derive(Clone, Debug)]
enum Step {
    Arrive { guest: usize, class: Class, flow: u64, seq: Option<u32>, len: usize },
    Give { guest: usize },
    Delivered { guest: usize, count: u32 },
    Refused { guest: usize, too_long: bool },
    Pass { s: u64 },
    Remove { guest: usize, nth: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let guest = 0..2_usize;
    let class = prop::sample::select(Class::ALL.to_vec());
    prop_oneof![
        8 => (guest.clone(), class, 0..4_u64, prop::option::of(0..6_u32), 60..1600_usize).prop_map(
            |(guest, class, flow, seq, len)| {
                // Segments have identities, others do not; a SYN is a control segment here.
                let seq = seq.filter(|_| matches!(class, Class::Control | Class::Data));
                let seq = seq.map(|s| if class == Class::Data { s + 100 } else { s });
                Step::Arrive { guest, class, flow, seq, len }
            }
        ),
        2 => guest.clone().prop_map(|guest| Step::Give { guest }),
        1 => (guest.clone(), 0..4_u32).prop_map(|(guest, count)| Step::Delivered { guest, count }),
        1 => (guest.clone(), any::<bool>()).prop_map(|(guest, too_long)| Step::Refused { guest, too_long }),
        1 => (1..40_u64).prop_map(|s| Step::Pass { s }),
        1 => (guest, 0..8_usize).prop_map(|(guest, nth)| Step::Remove { guest, nth }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_buffer_agrees_with_a_plain_vector(steps in prop::collection::vec(step(), 1..120)) {
        const CHUNKS: usize = 24;
        let mut hold = Hold::new(CHUNKS * CHUNK, 3, 7);
        let limits = [hold_limits(9, 6000), hold_limits(40, 1 << 20)];
        let mut queues = [Queue::default(), Queue::default()];
        let mut counters = [Counters::default(), Counters::default()];
        let mut models = [Model::default(), Model::default()];
        let mut now = Instant::ZERO;
        for (id, step) in (0_u8..).zip(steps) {
            match step {
                Step::Arrive { guest, class, flow, seq, len } => {
                    let twin = seq.map(|s| segment(s, if class == Class::Control { Twin::SYN } else { 0x18 }));
                    // Apart in the low bits, so that no two flows share a counter.
                    let flow = flow + 4 * guest as u64;
                    let bytes = vec![id; len];
                    let arrival = Arrival {
                        bytes: &bytes, vlan: None, offload: Offload::None, class, flow, twin, flooded: false,
                    };
                    let admission = hold.admit(
                        now, guest as u32, &mut queues[guest], &limits[guest], &arrival, &mut counters[guest],
                    );
                    counters[guest].count(match admission {
                        Admission::Held => super::super::Verdict::Hold,
                        Admission::Refused(why) => super::super::Verdict::Drop(why),
                    });
                    let others = models[1 - guest].chunks();
                    let new = Modelled { id, class, flow, seq, len, at: now, outstanding: false };
                    let kept = models[guest].admit(new, &limits[guest], 3, others, CHUNKS);
                    prop_assert_eq!(admission == Admission::Held, kept);
                }
                Step::Give { guest } => {
                    let given = hold.next_to_deliver(&mut queues[guest]);
                    let next = models[guest].frames.iter_mut().find(|f| !f.outstanding);
                    prop_assert_eq!(given.map(|f| f.len), next.as_ref().map(|f| f.len));
                    if let Some(next) = next {
                        next.outstanding = true;
                    }
                }
                Step::Delivered { guest, count } => {
                    hold.delivered(&mut queues[guest], count, &mut counters[guest]);
                    let model = &mut models[guest].frames;
                    let out = model.iter().filter(|f| f.outstanding).count();
                    model.drain(..out.min(count as usize));
                }
                Step::Refused { guest, too_long } => {
                    hold.refused(&mut queues[guest]);
                    models[guest].frames.iter_mut().for_each(|f| f.outstanding = false);
                    if too_long {
                        hold.drop_oldest(&mut queues[guest], &mut counters[guest], DropReason::TooLong);
                        if !models[guest].frames.is_empty() {
                            models[guest].frames.remove(0);
                        }
                    }
                }
                Step::Pass { s } => {
                    now = now + Duration::from_secs(s);
                    for guest in 0..2 {
                        hold.sweep(now, AGE, &mut queues[guest], &mut counters[guest]);
                        models[guest].frames.retain(|f| f.outstanding || now.since(f.at) < AGE);
                        let oldest = models[guest].frames.iter().filter(|f| !f.outstanding).map(|f| f.at).min();
                        prop_assert_eq!(hold.next_aged(AGE, &queues[guest]), oldest.map(|at| at + AGE));
                    }
                }
                Step::Remove { guest, nth } => {
                    hold.review(&mut queues[guest]);
                    for n in 0.. {
                        let Some(frame) = hold.review_next(&mut queues[guest]) else { break };
                        if n == nth {
                            hold.remove(frame, &mut queues[guest], &mut counters[guest]);
                            counters[guest].reclassified += 1;
                        }
                    }
                    let waiting = models[guest].frames.iter().enumerate().filter(|(_, f)| !f.outstanding);
                    if let Some(at) = waiting.map(|(at, _)| at).nth(nth) {
                        models[guest].frames.remove(at);
                    }
                }
            }
            for guest in 0..2 {
                counters[guest].conserved().unwrap();
                prop_assert_eq!(counters[guest].holding as usize, models[guest].frames.len());
                prop_assert_eq!(counters[guest].holding_bytes as usize, models[guest].bytes());
            }
            prop_assert_eq!(hold.arena.in_use(), models[0].chunks() + models[1].chunks());
        }
        for guest in 0..2 {
            let mut ids = Vec::new();
            hold.refused(&mut queues[guest]);
            while let Some(frame) = hold.next_to_deliver(&mut queues[guest]) {
                let mut bytes = vec![0; frame.len];
                hold.read(frame, &mut bytes);
                prop_assert!(bytes.iter().all(|b| *b == bytes[0]));
                ids.push(bytes[0]);
            }
            let expected: Vec<u8> = models[guest].frames.iter().map(|f| f.id).collect();
            prop_assert_eq!(ids, expected);
        }
    }
}
