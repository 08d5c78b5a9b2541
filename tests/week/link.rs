//! The link and its time: a sleeper that the engine stands in for, and stations that live their lives around it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeInclusive;

use surrogate::engine::{Answered, Command, Counters, Done, Engine, Limits, Mode, Notice, Output, Verdict};
use surrogate::guest::identity::{Epoch, GuestId, InterfaceAddress, NicId, NicIdentity, PortId};
use surrogate::policy::traffic::{Listen, TrafficPolicy};
use surrogate::rng::Rng;
use surrogate::time::{Duration, Instant};
use surrogate_wire::{Frame, Mac, Packet, Received};

use crate::frames::Station;

/// The sleeper.
pub const GUEST: Station = Station::numbered(11);
const NIC: NicId = NicId(1);
const PORT: PortId = PortId(1);

/// Somebody on the link, who acts when it is time and sees what the sleeper's stand-in sends.
pub trait Lives {
    /// When it acts next.
    fn due(&self) -> Instant;
    /// It is time: frames of its own go to `out`. What was owed to it until now and did not come is a panic.
    fn act(&mut self, now: Instant, rng: &mut Rng, out: &mut Vec<Vec<u8>>);
    /// A frame in the sleeper's name; answers go to `out`.
    fn see(&mut self, now: Instant, frame: &Frame<'_>, packet: &Packet<'_>, out: &mut Vec<Vec<u8>>);
    /// What it got, in words, how often, and how often it must have been.
    fn tally(&self, now: Instant) -> (&'static str, u64, RangeInclusive<u64>);
}

/// Questions that are owed an answer each, before who asks gives up.
#[derive(Debug)]
pub struct Questions<K> {
    asked: u64,
    answered: u64,
    awaits: Option<(K, Instant)>,
}

impl<K: Copy + PartialEq + Debug> Questions<K> {
    pub const fn none() -> Self {
        Self { asked: 0, answered: 0, awaits: None }
    }

    pub fn ask(&mut self, now: Instant, kind: K, patience: Duration) {
        assert_eq!(self.awaits, None);
        self.asked += 1;
        self.awaits = Some((kind, now + patience));
    }

    /// What is not answered yet.
    pub fn awaits(&self) -> Option<K> {
        self.awaits.map(|(kind, _)| kind)
    }

    /// When the answer must be there.
    pub fn until(&self) -> Option<Instant> {
        self.awaits.map(|(_, until)| until)
    }

    /// The answer is there.
    pub fn answered(&mut self) {
        assert!(self.awaits.take().is_some(), "nobody asked");
        self.answered += 1;
    }

    /// It is too late for an answer to what was asked until now.
    pub fn check(&self, now: Instant) {
        assert!(self.until().is_none_or(|until| now < until), "no answer by {now:?}: {self:?}");
    }

    pub fn tally(&self, what: &'static str) -> (&'static str, u64, RangeInclusive<u64>) {
        (what, self.answered, self.asked - u64::from(self.awaits.is_some())..=self.asked)
    }
}

/// See the [module](self).
pub struct Link {
    pub now: Instant,
    pub rng: Rng,
    engine: Engine,
    epoch: u64,
    pub wakes: Vec<(Instant, String)>,
    /// Frames in the sleeper's name.
    pub said: u64,
}

impl Link {
    /// A link with the guest awake.
    pub fn new(seed: u64) -> Self {
        let limits = Limits {
            held_bytes: 1 << 20,
            flooded_ring: 16,
            outbox_bytes: 64 << 10,
            errors_per_second: 10,
            echoes_per_second: 100,
            mtu: 1_500,
        };
        let address = |address, prefix_len| InterfaceAddress { address, prefix_len };
        let guest = NicIdentity {
            guest: GuestId(1),
            nic: NIC,
            port: PORT,
            mac: GUEST.mac,
            vlan: None,
            addresses: vec![
                address(GUEST.v4.into(), 24),
                address(GUEST.v6.into(), 64),
                address(crate::router::RENUMBERED.into(), 64),
                address(GUEST.link_local.into(), 64),
            ],
            groups: Vec::new(),
            router: false,
            traffic: TrafficPolicy {
                listen: Some(Listen { tcp: vec![22, 80], udp: vec![137, 5353] }),
                ..TrafficPolicy::default()
            },
        };
        let mut rng = Rng::seeded(seed);
        let mut engine = Engine::new(limits, Mac([2, 0, 0, 0, 0, 1]), seed);
        engine.handle_command(Instant::ZERO, &mut rng, Command::Register(Box::new(guest)));
        Self { now: Instant::ZERO, rng, engine, epoch: 0, wakes: Vec::new(), said: 0 }
    }

    /// The guest's own port shows a frame while it is awake.
    pub fn observe(&mut self, from_guest: bool, bytes: &[u8]) {
        self.engine.handle_observed(self.now, NIC, from_guest, Received::plain(bytes));
    }

    /// The guest falls asleep.
    pub fn sleep(&mut self) {
        self.epoch += 1;
        self.set_mode(Mode::Fence { flooded: false });
        self.set_mode(Mode::Answer);
        while self.engine.poll_output().is_some() {}
    }

    /// The guest wakes and gets what was held for it.
    pub fn wake(&mut self) -> Vec<Vec<u8>> {
        self.epoch += 1;
        self.set_mode(Mode::Hold { flooded: true });
        self.set_mode(Mode::Replay { released: false });
        let mut delivered = Vec::new();
        let mut drained = false;
        while !drained {
            while let Some(output) = self.engine.poll_output() {
                match output {
                    Output::Deliver { nic, epoch, bytes } => {
                        delivered.push(bytes.to_vec());
                        self.engine.handle_done(self.now, Done::Delivered { nic, epoch, count: 1 });
                    }
                    Output::Notify(notice) => drained |= matches!(notice, Notice::Drained { .. }),
                    other => panic!("the guest speaks for itself: {other:?}"),
                }
            }
            self.pass_until(|_| drained);
        }
        self.set_mode(Mode::Replay { released: true });
        self.pass_until(|link| link.engine.mode(NIC) == Some(Mode::Pass));
        while self.engine.poll_output().is_some() {}
        self.counters().conserved().unwrap();
        delivered
    }

    /// Lets the engine's own time pass, until something is so.
    fn pass_until(&mut self, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            let due = self.engine.poll_timeout().expect("something is due until then");
            self.now = self.now.max(due);
            self.engine.handle_timeout(self.now, &mut self.rng);
        }
    }

    fn set_mode(&mut self, mode: Mode) {
        let command = Command::SetMode { nic: NIC, epoch: Epoch(self.epoch), mode };
        self.engine.handle_command(self.now, &mut self.rng, command);
    }

    /// A frame comes from the link while nobody else says anything. It is held.
    pub fn hold(&mut self, bytes: &[u8]) {
        let verdicts = self.engine.handle_frame(self.now, &mut self.rng, PORT, Received::plain(bytes));
        let verdict = verdicts.iter().map(|(_, verdict)| verdict).next();
        assert!(matches!(verdict, Some(Verdict::Hold | Verdict::HoldAndWake)), "{verdict:?}");
        self.pass_on(&mut Vec::new(), &mut []);
    }

    /// Lets time pass until `end` among `stations`.
    pub fn live(&mut self, end: Instant, stations: &mut [&mut dyn Lives]) {
        loop {
            let own = self.engine.poll_timeout();
            let next = stations.iter().map(|station| station.due()).chain(own).min().unwrap_or(end);
            if next > end {
                self.now = end;
                return;
            }
            // Never back: a timer may have been due before a station's frame was.
            self.now = self.now.max(next);
            let mut frames = Vec::new();
            for station in stations.iter_mut().filter(|station| station.due() <= self.now) {
                station.act(self.now, &mut self.rng, &mut frames);
            }
            self.engine.handle_timeout(self.now, &mut self.rng);
            self.pass_on(&mut frames, stations);
            while !frames.is_empty() {
                for frame in std::mem::take(&mut frames) {
                    self.engine.handle_frame(self.now, &mut self.rng, PORT, Received::plain(&frame));
                    self.pass_on(&mut frames, stations);
                }
            }
            self.counters().conserved().unwrap();
        }
    }

    /// Shows what the engine says to everybody.
    fn pass_on(&mut self, frames: &mut Vec<Vec<u8>>, stations: &mut [&mut dyn Lives]) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Transmit { bytes, .. } => {
                    self.said += 1;
                    let received = Received::plain(bytes);
                    let frame = Frame::parse(&received).expect("a whole frame");
                    assert_eq!(frame.src, GUEST.mac, "nothing but the guest's own MAC");
                    let packet = Packet::parse(&frame, received.offload).expect("a sound packet");
                    for station in stations.iter_mut() {
                        station.see(self.now, &frame, &packet, frames);
                    }
                }
                Output::Notify(Notice::Wake { reason, .. }) => {
                    self.wakes.push((self.now, reason.to_string()));
                }
                Output::Notify(_) => {}
                other => panic!("a sleeper gets nothing: {other:?}"),
            }
        }
    }

    pub fn counters(&self) -> &Counters {
        self.engine.counters(NIC).expect("it is registered")
    }

    /// What was answered and said, by protocol.
    pub fn by_protocol(&self) -> BTreeMap<&'static str, (u64, u64)> {
        let counters = self.counters();
        let both = counters.answered.iter().zip(counters.spoken);
        let named = Answered::ALL
            .into_iter()
            .zip(both)
            .map(|(by, (answered, spoken))| (by.name(), (*answered, spoken)));
        named.filter(|(_, counts)| *counts != (0, 0)).collect()
    }
}

pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
