//! What a guest's throughput costs when its connections may be taken into custody: one packet socket is at its
//! port then, and the daemon learns from what that takes.
//!
//! ```text
//!   client namespace        hypervisor namespace               guest namespaces
//!   eth0 -------- veth -------- br0 ----+--- ports -------- web1, web4, custody: their ports are observed
//!                                |      +--- ports -------- web2, web3, no custody: nothing is at their ports
//!                                +--- surrogate port of the real daemon
//! ```
//!
//! The same load goes between the client and each guest, one after the other in turns. Printed is the ratio of those
//! with custody to those without: of the throughput, and of what was moved in a second of processor time (of both
//! ends, the daemon and the kernel's `ksoftirqd`); the geometric mean over all rounds and its standard error. The
//! ratio of web2 to web3 measures the measurement: it would be 1.000 if the machine were nobody else's.
//!
//! Each end has a processor of its own: left to the scheduler, two threads that feed one another are on one
//! processor in one turn and on two in the next, which is a factor of two. And their buffers are small enough for the
//! processors' caches: else it is the memory that is measured, which others on the machine use as well.
//! `cargo bench --bench observe`.

#![allow(clippy::unwrap_used, reason = "a benchmark without its lab has failed")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use surrogate::io::sys;
use surrogate_house::daemon::Config;
use surrogate_house::deadline::{pause, timed};
use surrogate_house::{Daemon, NetnsGuest, Network, pin_to, until};

/// Rounds of every load.
const ROUNDS: usize = 21;
/// How long each load is measured in a round, for each guest.
const TURN: Duration = Duration::from_millis(500);
/// How long a load runs before its turn counts.
const SETTLE: Duration = Duration::from_millis(150);
/// What must be left of the throughput.
const WANTED: f64 = 0.97;
const GUESTS: [&str; 4] = ["custody = true", "custody = false", "custody = false", "custody = true"];
/// The processor that sends, and does the bridge's work and the filter's, and the one that receives.
const SENDER: usize = 0;
const RECEIVER: usize = 1;
const PATIENCE: Duration = Duration::from_secs(10);
/// What is written and read at once,
const CHUNK: usize = 64 << 10;
/// and what a socket keeps at most; the kernel doubles it.
const BUFFER: usize = 256 << 10;

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return; // asked by a test runner
    }
    let lab = Lab::new();
    println!(
        "what is left of an observed guest's throughput; means of {ROUNDS} rounds and their standard errors, \
         wanted >= {WANTED}\n"
    );
    println!("{:<37} {:>14}   {:<37} neither observed", "", "not observed", "observed");
    let head = format!("{:<16} {:<20}", "throughput", "per processor time");
    println!("{:<37} {:>14}   {head} {head}", "", "");
    for load in [Load::BulkToGuest, Load::BulkFromGuest, Load::Requests, Load::Connections] {
        lab.measure(load, "");
    }
    // As of a guest without offloads: every segment is a frame.
    lab.segment_by_hand();
    for load in [Load::BulkToGuest, Load::BulkFromGuest] {
        lab.measure(load, ", 1514-byte frames");
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Load {
    BulkToGuest,
    BulkFromGuest,
    Requests,
    Connections,
}

struct Lab {
    daemon: Daemon,
    guests: Vec<NetnsGuest>,
    network: Network,
}

impl Lab {
    fn new() -> Self {
        let network = Network::new();
        let guests: Vec<_> = (1..).zip(GUESTS).map(|(n, _)| NetnsGuest::with_page(&network, n)).collect();
        let sections = guests.iter().zip(GUESTS).map(|(guest, own)| guest.section(own));
        let config = sections.fold(Config::netns("", ""), |config, section| config.with(&section));
        let daemon = Daemon::start(&network.hypervisor, &config);
        for guest in &guests {
            until("a guest to be awake", PATIENCE, || daemon.state(&guest.name) == "awake");
        }
        Self { daemon, guests, network }
    }

    fn measure(&self, load: Load, how: &str) {
        let mut rates: [Vec<Rate>; GUESTS.len()] = Default::default();
        for round in 0..=ROUNDS {
            for turn in 0..rates.len() {
                let guest = (turn + round) % rates.len(); // nobody is always the first
                let rate = self.turn(&self.guests[guest], load);
                if round > 0 {
                    rates[guest].push(rate); // the first only warms up
                }
            }
        }
        let [observed, neither] = [[0, 3, 1, 2], [1, 1, 2, 2]].map(|[one, two, by, and]| {
            let [throughput, of_processors] = [|rate: &Rate| rate.a_second, |rate: &Rate| rate.a_busy_second]
                .map(|of| {
                    let of = |guest: usize, round: usize| of(&rates[guest][round]).ln();
                    let rounds = 0..ROUNDS;
                    mean(rounds.map(|n| (of(one, n) + of(two, n) - of(by, n) - of(and, n)) / 2.0).collect())
                });
            format!("{throughput:<16} {of_processors:<20}")
        });
        let (name, unit, scale) = match load {
            Load::BulkToGuest => ("TCP to the guest", "MB/s", 1e6),
            Load::BulkFromGuest => ("TCP from the guest", "MB/s", 1e6),
            Load::Requests => ("TCP request and response, 1 byte", "/s", 1.0),
            Load::Connections => ("TCP connections, begun and ended", "/s", 1.0),
        };
        let rate = rates[1].iter().map(|rate| rate.a_second).sum::<f64>() / ROUNDS as f64;
        println!("{:<37} {:>9.0} {unit:<4}   {observed} {neither}", format!("{name}{how}"), rate / scale);
    }

    /// The load for one turn, on a connection of its own.
    fn turn(&self, guest: &NetnsGuest, load: Load) -> Rate {
        let running = Running::new(self, guest, load);
        std::thread::scope(|scope| {
            scope.spawn(|| running.begin(&self.network));
            scope.spawn(|| running.answer());
            let rate = running.rate(self.daemon.pid().unwrap());
            running.end();
            rate
        })
    }

    /// From now on all ends send frames of at most 1,514 bytes.
    fn segment_by_hand(&self) {
        const ETHTOOL_STSO: u32 = 0x1f;
        const ETHTOOL_SGSO: u32 = 0x24;
        for namespace in self.guests.iter().map(|guest| &guest.namespace).chain([&self.network.c1]) {
            namespace.enter(|| {
                let any = Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap();
                for offload in [ETHTOOL_STSO, ETHTOOL_SGSO] {
                    sys::ethtool_set(any.as_fd(), "eth0", offload, false).unwrap();
                }
            });
        }
    }
}

/// Bytes, requests or connections.
#[derive(Clone, Copy, Debug)]
struct Rate {
    a_second: f64,
    a_busy_second: f64,
}

/// How long the threads of this process and of the daemon, and the kernel's that go on with what they sent, were on
/// a processor.
fn busy_nanoseconds(daemon: u32) -> u64 {
    static KERNELS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let folders = |of: &str| std::fs::read_dir(of).unwrap().flatten().map(|entry| entry.path());
    let kernels = KERNELS
        .get_or_init(|| folders("/proc").filter(|f| read(f.join("comm")).starts_with("ksoftirqd")).collect());
    let on_processor = |folder: PathBuf| {
        let figures = read(folder.join("schedstat"));
        figures.split_whitespace().next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0)
    };
    let threads = folders("/proc/self/task").chain(folders(&format!("/proc/{daemon}/task")));
    threads.chain(kernels.iter().cloned()).map(on_processor).sum()
}

/// A load between the first client and one guest, until it is told to end.
struct Running {
    load: Load,
    listener: TcpListener,
    /// The client's end and the guest's, of loads that have one connection.
    streams: [TcpStream; 2],
    moved: AtomicU64,
    ends: AtomicBool,
}

impl Running {
    fn new(lab: &Lab, guest: &NetnsGuest, load: Load) -> Self {
        let listener = guest.namespace.enter(|| TcpListener::bind((guest.v4, 0)).unwrap());
        let address = listener.local_addr().unwrap();
        let client = lab.network.c1.enter(|| TcpStream::connect(address).unwrap());
        let served = listener.accept().unwrap().0;
        let streams = [client, served];
        for stream in &streams {
            let stream = SockRef::from(stream);
            stream.set_tcp_nodelay(true).unwrap();
            stream.set_send_buffer_size(BUFFER).unwrap();
            stream.set_recv_buffer_size(BUFFER).unwrap();
        }
        Self { load, listener, streams, moved: AtomicU64::new(0), ends: AtomicBool::new(false) }
    }

    /// The end that the other one waits for, until this ends.
    fn begin(&self, network: &Network) {
        pin_to(SENDER).unwrap();
        let [client, guest] = &self.streams;
        let data = vec![0x5a; CHUNK];
        let write = |mut to: &TcpStream| while to.write_all(&data).is_ok() {};
        match self.load {
            Load::BulkToGuest => write(client),
            Load::BulkFromGuest => write(guest),
            Load::Requests => {
                let mut stream = client;
                while stream.write_all(&[1]).and_then(|()| stream.read_exact(&mut [0])).is_ok() {
                    self.moved.fetch_add(1, Ordering::Relaxed);
                }
            }
            Load::Connections => network.c1.enter(|| {
                let address = self.listener.local_addr().unwrap();
                while !self.ends.load(Ordering::Relaxed) {
                    // It is over when the guest has ended its half.
                    TcpStream::connect(address).unwrap().read_to_end(&mut Vec::new()).unwrap();
                    self.moved.fetch_add(1, Ordering::Relaxed);
                }
                drop(TcpStream::connect(address)); // accepted last
            }),
        }
    }

    /// The other end.
    fn answer(&self) {
        pin_to(RECEIVER).unwrap();
        let [client, guest] = &self.streams;
        let read = |mut from: &TcpStream| {
            let mut buffer = vec![0; CHUNK];
            while let Ok(bytes @ 1..) = from.read(&mut buffer) {
                self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
            }
        };
        match self.load {
            Load::BulkToGuest => read(guest),
            Load::BulkFromGuest => read(client),
            Load::Requests => {
                let mut stream = guest;
                while stream.read_exact(&mut [0]).and_then(|()| stream.write_all(&[1])).is_ok() {}
            }
            Load::Connections => {
                // Asked before the connection ends: the client begins no other one if this was the last.
                while let Ok(_accepted) = self.listener.accept()
                    && !self.ends.load(Ordering::Relaxed)
                {}
            }
        }
    }

    /// Over one turn.
    fn rate(&self, daemon: u32) -> Rate {
        pause(SETTLE);
        let figures = || (self.moved.load(Ordering::Relaxed), busy_nanoseconds(daemon));
        let before = figures();
        let (after, took) = timed(|| {
            pause(TURN);
            figures()
        });
        let moved = (after.0 - before.0) as f64;
        let busy = (after.1 - before.1) as f64 / 1e9;
        Rate { a_second: moved / took.as_secs_f64(), a_busy_second: moved / busy }
    }

    fn end(&self) {
        self.ends.store(true, Ordering::Relaxed);
        for stream in &self.streams {
            let _ = stream.shutdown(std::net::Shutdown::Both); // the other end may have done it
        }
    }
}

/// The mean ratio, of its logarithms, and how far off that may be.
fn mean(logarithms: Vec<f64>) -> String {
    let count = logarithms.len() as f64;
    let mean = logarithms.iter().sum::<f64>() / count;
    let variance = logarithms.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / (count - 1.0);
    format!("{:.3} +- {:.3}", mean.exp(), (variance / count).sqrt())
}
