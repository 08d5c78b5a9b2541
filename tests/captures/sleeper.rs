//! Hosts of a capture as sleeping guests of an engine.

use std::collections::BTreeMap;

use surrogate::engine::{Command, Counters, Done, Engine, Limits, Mode, Notice, Output, WakeReason};
use surrogate::guest::identity::{Epoch, GuestId, InterfaceAddress, NicId, NicIdentity, PortId};
use surrogate::policy::traffic::TrafficPolicy;
use surrogate::rng::Rng;
use surrogate::time::Instant;
use surrogate_wire::{Mac, Offload, Received, VlanTag};

use crate::hosts::Host;

const PORT: PortId = PortId(0);

/// Sleeping guests and the engine that stands in for them.
pub struct Sleepers {
    engine: Engine,
    rng: Rng,
    now: Instant,
    nics: Vec<NicId>,
    epoch: Epoch,
    sent: Vec<Vec<u8>>,
    /// What asked for a wake.
    pub wakes: Vec<WakeReason>,
}

impl Sleepers {
    /// `hosts`, all asleep.
    pub fn asleep(hosts: &[Host]) -> Self {
        let limits = Limits {
            held_bytes: 64 << 20,
            flooded_ring: 64,
            outbox_bytes: 1 << 20,
            errors_per_second: 1,
            echoes_per_second: 100_000,
            mtu: 1500,
        };
        let mut sleepers = Self {
            engine: Engine::new(limits, Mac([0xfe, 0, 0, 0, 0, 1]), 1),
            rng: Rng::seeded(1),
            now: Instant::ZERO,
            nics: Vec::new(),
            epoch: Epoch(1),
            sent: Vec::new(),
            wakes: Vec::new(),
        };
        for (n, host) in (0..).zip(hosts) {
            let prefix = |v4| if v4 { 24 } else { 64 };
            let identity = NicIdentity {
                guest: GuestId(n),
                nic: NicId(n),
                port: PORT,
                mac: host.mac,
                vlan: host.vlan,
                addresses: host
                    .addresses
                    .iter()
                    .map(|&address| InterfaceAddress { address, prefix_len: prefix(address.is_ipv4()) })
                    .collect(),
                groups: Vec::new(),
                router: host.router,
                traffic: TrafficPolicy { listen: host.listen.clone(), ..TrafficPolicy::default() },
            };
            sleepers.nics.push(identity.nic);
            sleepers.command(Command::Register(Box::new(identity)));
        }
        sleepers.set_mode(Mode::Answer);
        sleepers
    }

    /// A frame comes; what is sent in answer.
    pub fn feed(&mut self, unix_ns: u64, bytes: &[u8], offload: Offload) -> Vec<Vec<u8>> {
        self.now = self.now.max(Instant::from_nanos(unix_ns));
        while self.engine.poll_timeout().is_some_and(|when| when <= self.now) {
            self.engine.handle_timeout(self.now, &mut self.rng);
            self.perform();
        }
        self.sent.clear();
        self.receive(Received { bytes, vlan: None, offload })
    }

    /// The same, the outer tag beside the bytes, as the kernel hands frames over.
    pub fn feed_untagged(&mut self, unix_ns: u64, bytes: &[u8], offload: Offload) -> Vec<Vec<u8>> {
        self.now = self.now.max(Instant::from_nanos(unix_ns));
        let Some([0x81, 0x00, high, low]) = bytes.get(12..16) else { return Vec::new() };
        let tag = VlanTag { tpid: 0x8100, tci: u16::from_be_bytes([*high, *low]) };
        let bare = [&bytes[..12], &bytes[16..]].concat();
        self.receive(Received { bytes: &bare, vlan: Some(tag), offload })
    }

    fn receive(&mut self, received: Received<'_>) -> Vec<Vec<u8>> {
        self.engine.handle_frame(self.now, &mut self.rng, PORT, received);
        self.perform();
        std::mem::take(&mut self.sent)
    }

    /// A frame from a sleeper's own MAC silences us, as it seems to run; it goes back to sleep.
    pub fn sleep_again(&mut self) {
        if self.nics.iter().any(|&nic| self.engine.mode(nic) != Some(Mode::Answer)) {
            self.set_mode(Mode::Answer);
        }
    }

    /// What was counted, of all.
    pub fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.nics.iter().filter_map(|&nic| self.engine.counters(nic))
    }

    /// All enter `mode` in the next epoch.
    fn set_mode(&mut self, mode: Mode) {
        self.epoch = self.epoch.next();
        for nic in self.nics.clone() {
            self.command(Command::SetMode { nic, epoch: self.epoch, mode });
        }
    }

    /// The equations hold for everyone.
    pub fn check(&self, context: impl Fn() -> String) {
        for &nic in &self.nics {
            let counters = self.engine.counters(nic).unwrap();
            counters.conserved().unwrap_or_else(|why| panic!("{}: {why}", context()));
        }
    }

    /// All wake and get what is held, and nobody hears a word; their counters then.
    pub fn wake_and_deliver(mut self) -> Vec<Counters> {
        self.sent.clear();
        let held = |engine: &Engine, nics: &[NicId]| -> u64 {
            nics.iter().map(|&nic| engine.counters(nic).unwrap().holding).sum()
        };
        let before = held(&self.engine, &self.nics);
        self.set_mode(Mode::Hold { flooded: true });
        assert_eq!(held(&self.engine, &self.nics), before, "falling silent loses nothing");
        self.set_mode(Mode::Replay { released: false });
        assert_eq!(self.sent, [[0; 0]; 0], "a waking guest is not spoken for");
        self.check(|| "after the wake".to_owned());
        self.nics.iter().map(|&nic| self.engine.counters(nic).unwrap().clone()).collect()
    }

    fn command(&mut self, command: Command) {
        self.engine.handle_command(self.now, &mut self.rng, command);
        self.perform();
    }

    fn perform(&mut self) {
        loop {
            let mut delivered: BTreeMap<(NicId, Epoch), u32> = BTreeMap::new();
            let mut idle = true;
            while let Some(output) = self.engine.poll_output() {
                idle = false;
                match output {
                    Output::Transmit { bytes, .. } => self.sent.push(bytes.to_vec()),
                    Output::Deliver { nic, epoch, .. } => *delivered.entry((nic, epoch)).or_default() += 1,
                    Output::Notify(Notice::Wake { reason, .. }) => self.wakes.push(reason),
                    Output::Inject { .. } | Output::Notify(_) => {}
                }
            }
            for ((nic, epoch), count) in delivered {
                self.engine.handle_done(self.now, Done::Delivered { nic, epoch, count });
            }
            if idle {
                return;
            }
        }
    }
}
