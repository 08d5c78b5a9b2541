//! The engine's own time for one frame, by kind, and what it allocates meanwhile: nothing.
//!
//! A frame in, verdicts counted, outputs taken: what the packet thread does with each, without port or
//! system call; as there, the clock is read once for a batch. Printed are the least and the median of many
//! short rounds, since a shared machine only ever adds. `cargo bench --bench engine`, or with
//! `-- arp-request` only the kinds whose name contains that: for `valgrind --tool=callgrind`, which counts
//! instructions whatever else the machine does.

#![allow(clippy::unwrap_used, reason = "a benchmark without its engine has failed")]

mod allocations;
#[path = "../frames/mod.rs"]
mod frames;
mod requests;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use surrogate::engine::{Command, Done, Engine, Limits, Mode, Output};
use surrogate::guest::identity::{Epoch, GuestId, InterfaceAddress, Mac, NicId, NicIdentity, PortId};
use surrogate::io::clock;
use surrogate::policy::traffic::{Listen, TrafficPolicy};
use surrogate::rng::Rng;
use surrogate_wire::Received;

use frames::Between;

/// Frames in a round: some hundred microseconds, so that many rounds see no other process.
const FRAMES: usize = 2000;
const ROUNDS: usize = 200;
/// Frames for one reading of the clock: a full batch of the packet thread.
const BATCH: usize = 64;
const PORT: PortId = PortId(0);

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return; // asked by a test runner
    }
    let wanted: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part));
    println!("{:<34} {:>9} {:>9} {:>12}", "engine, per frame", "least ns", "median ns", "allocations");
    for sleepers in [1, 1000] {
        println!("{sleepers} sleeping guests");
        let between = between(sleepers / 2);
        let other = between.client.1;
        let unknown =
            Between { guest: (Mac([0x52, 0x54, 9, 9, 9, 9]), between.guest.1, between.guest.2), ..between };
        let mut damaged = between.echo_request(18);
        damaged[50] ^= 1;
        let kinds = [
            ("answer/arp-request", between.arp_request(between.guest.1)),
            ("answer/echo-request, 60 bytes", between.echo_request(18)),
            ("answer/echo-request, 1514 bytes", between.echo_request(1472)),
            ("answer/neighbour-solicitation", between.solicitation()),
            ("answer/echo-request-v6", between.echo_request_v6(18)),
            ("answer/udp-echo", between.datagram(7, 18)),
            ("drop/duplicate-syn", between.syn(40000, 80)),
            ("drop/bad-checksum", damaged),
            ("drop/malformed", between.echo_request(18)[..30].to_vec()),
            ("foreign/broadcast-arp", between.arp_request(other)),
            ("foreign/unicast", unknown.echo_request(18)),
        ];
        for (name, frame) in kinds.iter().filter(|(name, _)| is_wanted(name)) {
            Bench::new(sleepers).measure(name, frame);
        }
        if is_wanted("hold/distinct-syn") || is_wanted("replay/distinct-syn") {
            let syns: Vec<_> = (0..FRAMES as u16).map(|from| between.syn(10_000 + from, 80)).collect();
            hold_and_replay(sleepers, &syns);
        }
    }
}

/// Holds distinct frames, then delivers them: both per frame.
fn hold_and_replay(sleepers: u32, frames: &[Vec<u8>]) {
    let nic = NicId(sleepers / 2);
    let (mut hold, mut replay) = (Samples::default(), Samples::default());
    for round in 0..20u64 {
        let mut bench = Bench::new(sleepers);
        let epoch = Epoch(2 + round);
        bench.set_mode(nic, epoch, Mode::Hold { flooded: true });
        hold.time(frames.len(), || bench.handle_all(frames.iter().map(Vec::as_slice)));
        replay.time(frames.len(), || {
            bench.set_mode(nic, epoch, Mode::Replay { released: false });
            while bench.deliver(nic, epoch) > 0 {}
        });
        assert_eq!(bench.engine.counters(nic).unwrap().replayed, frames.len() as u64);
    }
    hold.print("hold/distinct-syn");
    replay.print("replay/distinct-syn");
}

/// An engine with sleepers.
struct Bench {
    engine: Engine,
    rng: Rng,
}

impl Bench {
    fn new(sleepers: u32) -> Self {
        let limits = Limits {
            held_bytes: 64 << 20,
            flooded_ring: 64,
            outbox_bytes: 1 << 20,
            errors_per_second: 1_000_000,
            echoes_per_second: u32::MAX,
            mtu: 1500,
        };
        let engine = Engine::new(limits, Mac([0xfa, 0, 0, 0, 0, 1]), 1);
        let mut bench = Self { engine, rng: Rng::seeded(1) };
        for number in 0..sleepers {
            let nic = NicId(number);
            bench.command(Command::Register(Box::new(identity(number))));
            bench.set_mode(nic, Epoch(1), Mode::Answer);
        }
        bench
    }

    fn command(&mut self, command: Command) {
        self.engine.handle_command(clock::now(), &mut self.rng, command);
        while self.engine.poll_output().is_some() {}
    }

    fn set_mode(&mut self, nic: NicId, epoch: Epoch, mode: Mode) {
        self.engine.handle_command(clock::now(), &mut self.rng, Command::SetMode { nic, epoch, mode });
    }

    /// Handles frames as the packet thread does.
    fn handle_all<'f>(&mut self, frames: impl Iterator<Item = &'f [u8]>) {
        let mut now = clock::now();
        for (at, frame) in frames.enumerate() {
            if at % BATCH == 0 {
                now = clock::now();
            }
            let frame = Received::plain(black_box(frame));
            black_box(self.engine.handle_frame(now, &mut self.rng, PORT, frame));
            while let Some(output) = self.engine.poll_output() {
                black_box(&output);
            }
        }
    }

    /// Takes what is to be delivered now and reports it; how many.
    fn deliver(&mut self, nic: NicId, epoch: Epoch) -> u32 {
        let mut count = 0;
        while let Some(output) = self.engine.poll_output() {
            count += u32::from(matches!(black_box(&output), Output::Deliver { .. }));
        }
        if count > 0 {
            self.engine.handle_done(clock::now(), Done::Delivered { nic, epoch, count });
        }
        count
    }

    fn measure(&mut self, name: &str, frame: &[u8]) {
        let mut samples = Samples::default();
        for round in 0..=ROUNDS {
            let mut whole = || self.handle_all(std::iter::repeat_n(frame, FRAMES));
            // The first one warms up.
            if round == 0 { whole() } else { samples.time(FRAMES, whole) }
        }
        samples.print(name);
    }
}

/// Nanoseconds and allocations per frame, of each round.
#[derive(Default)]
struct Samples {
    nanoseconds: Vec<f64>,
    allocations: u64,
    frames: usize,
}

impl Samples {
    fn time(&mut self, frames: usize, work: impl FnOnce()) {
        let (started, allocated) = (clock::now(), allocations::count());
        work();
        let taken = clock::now().since(started);
        self.allocations += allocations::count() - allocated;
        self.frames += frames;
        self.nanoseconds.push(taken.as_nanos() as f64 / frames as f64);
    }

    fn print(&mut self, name: &str) {
        self.nanoseconds.sort_by(f64::total_cmp);
        let (least, median) = (self.nanoseconds[0], self.nanoseconds[self.nanoseconds.len() / 2]);
        let allocations = self.allocations as f64 / self.frames as f64;
        println!("  {name:<32} {least:>9.0} {median:>9.0} {allocations:>12.4}");
    }
}

fn between(number: u32) -> Between {
    let client =
        (Mac([2, 0, 0, 0, 1, 9]), Ipv4Addr::new(10, 255, 255, 1), "2001:db8:ffff::1".parse().unwrap());
    Between { client, guest: addresses(number) }
}

fn addresses(number: u32) -> (Mac, Ipv4Addr, Ipv6Addr) {
    let [_, a, b, c] = number.to_be_bytes();
    let v6 = (0x2001_0db8 << 96) | (u128::from(number) + 0x1000);
    (
        Mac([0x52, 0x54, 0, a, b, c]),
        Ipv4Addr::new(10, a, b, c).max(Ipv4Addr::new(10, 0, 0, 1)),
        Ipv6Addr::from(v6),
    )
}

fn identity(number: u32) -> NicIdentity {
    let (mac, v4, v6) = addresses(number);
    NicIdentity {
        guest: GuestId(number),
        nic: NicId(number),
        port: PORT,
        mac,
        vlan: None,
        addresses: vec![
            InterfaceAddress { address: IpAddr::V4(v4), prefix_len: 8 },
            InterfaceAddress { address: IpAddr::V6(v6), prefix_len: 64 },
        ],
        groups: Vec::new(),
        router: false,
        traffic: TrafficPolicy {
            listen: Some(Listen { tcp: vec![80], udp: vec![7] }),
            ..TrafficPolicy::default()
        },
    }
}
