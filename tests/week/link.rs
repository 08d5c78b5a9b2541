//! The link and its time: a sleeper that the engine stands in for, and stations that live their lives around it.

use std::collections::BTreeMap;

use surrogate::engine::{Answered, Command, Counters, Engine, Limits, Mode, Notice, Output};
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
    /// How often it got what it was owed, by name.
    fn tally(&self) -> (&'static str, u64);
}

/// See the [module](self).
pub struct Link {
    pub now: Instant,
    pub rng: Rng,
    engine: Engine,
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
        Self { now: Instant::ZERO, rng, engine, wakes: Vec::new(), said: 0 }
    }

    /// The guest's own port shows a frame while it is awake.
    pub fn observe(&mut self, from_guest: bool, bytes: &[u8]) {
        self.engine.handle_observed(self.now, NIC, from_guest, Received::plain(bytes));
    }

    /// The guest falls asleep.
    pub fn sleep(&mut self) {
        for mode in [Mode::Fence { flooded: false }, Mode::Answer] {
            let command = Command::SetMode { nic: NIC, epoch: Epoch(1), mode };
            self.engine.handle_command(self.now, &mut self.rng, command);
        }
        while self.engine.poll_output().is_some() {}
    }

    /// Lets time pass until `end` among `stations`.
    pub fn live(&mut self, end: Instant, stations: &mut [Box<dyn Lives>]) {
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
    fn pass_on(&mut self, frames: &mut Vec<Vec<u8>>, stations: &mut [Box<dyn Lives>]) {
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
