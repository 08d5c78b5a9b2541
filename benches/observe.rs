//! What a guest's throughput costs when its port is observed.
//!
//! ```text
//!   client namespace        hypervisor namespace               guest namespace
//!   eth0 -------- veth -------- br0 -------- the guest's port -------- eth0
//!                                |            ^ observed, or not
//!                                +--- surrogate port, its thread reads the observer
//! ```
//!
//! The same connection goes on while the port is observed or not, in turns, and what is printed is the ratio of
//! neighbouring turns: of the throughput, and of what was moved in a second of processor time (of client, guest,
//! packet thread and the kernel's `ksoftirqd`). The second is the first on a machine that has nothing else to do,
//! and can be measured on any. *Observed* is what the daemon does with a guest that works, thread and engine
//! included. *Both ways* is what it does not do: a filter that takes nothing, but is shown what is sent to the
//! guest as well. `cargo bench --bench observe`.

#![allow(clippy::unwrap_used, reason = "a benchmark without its lab has failed")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, SockFilter, Socket, Type};
use surrogate::engine::{Command, Limits};
use surrogate::guest::identity::{GuestId, InterfaceAddress, Mac, NicId, NicIdentity, PortId};
use surrogate::io::driver::{self, DriverCommand, Notices, PortConfig, PortHandle, PortKind};
use surrogate::io::netlink::Exchange;
use surrogate::io::observe::Observer;
use surrogate::io::sys;
use surrogate::policy::traffic::TrafficPolicy;
use surrogate_house::deadline::{pause, timed};
use surrogate_house::{NetnsGuest, Network};

/// Rounds of every load; odd, so that the median is one of them.
const ROUNDS: usize = 11;
/// How long each way of observation lasts in a round, and how long before it counts.
const TURN: Duration = Duration::from_millis(400);
const SETTLE: Duration = Duration::from_millis(100);
/// What must be left of the throughput.
const WANTED: f64 = 0.97;
const NIC: NicId = NicId(1);

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return; // asked by a test runner
    }
    let mut lab = Lab::new();
    println!(
        "throughput of an observed guest; medians of {ROUNDS} rounds, quartiles in brackets, wanted >= {WANTED}\n"
    );
    let [observed, both] = ["observed", "both ways (not done)"];
    println!("{:<37} {:>13}   {observed:<47} {both:<47}", "", "unobserved");
    let head = format!("{:<22} {:<24}", "throughput", "per processor time");
    println!("{:<37} {:>13}   {head} {head}", "", "");
    for load in [Load::BulkToGuest, Load::BulkFromGuest, Load::Requests] {
        lab.measure(load, "");
    }
    // As of a guest without offloads: every segment is a frame.
    lab.segment_by_hand();
    for load in [Load::BulkToGuest, Load::BulkFromGuest] {
        lab.measure(load, ", 1514-byte frames");
    }
    println!("\nframes observed: {}", lab.observed());
}

#[derive(Clone, Copy, Debug)]
enum Load {
    BulkToGuest,
    BulkFromGuest,
    Requests,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Watch {
    Not,
    Observed,
    BothWays,
}

struct Lab {
    runtime: tokio::runtime::Runtime,
    port: PortHandle,
    notices: Notices,
    /// Of the guest's port.
    ifindex: u32,
    guest: NetnsGuest,
    network: Network,
}

impl Lab {
    fn new() -> Self {
        let network = Network::new();
        let guest = NetnsGuest::bare(&network, 1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let (mut port, notices, ifindex) = network.hypervisor.enter(|| {
            let _context = runtime.enter();
            let limits = Limits {
                held_bytes: 1 << 20,
                flooded_ring: 16,
                outbox_bytes: 1 << 20,
                errors_per_second: 1,
                echoes_per_second: 1,
                mtu: 1500,
            };
            let (bridge, kind) = ("br0".to_owned(), PortKind::Veth);
            let config = PortConfig { port: PortId(0), bridge, kind, limits, seed: 1 };
            let (port, notices) = driver::open(config).unwrap();
            (port, notices, Exchange::open().unwrap().link(&guest.name).unwrap().unwrap().ifindex)
        });
        let address = |address: IpAddr, prefix_len| InterfaceAddress { address, prefix_len };
        let identity = NicIdentity {
            guest: GuestId(1),
            nic: NIC,
            port: PortId(0),
            mac: guest.mac.parse::<Mac>().unwrap(),
            vlan: None,
            addresses: vec![address(guest.v4, 24), address(guest.v6, 64)],
            groups: Vec::new(),
            router: false,
            traffic: TrafficPolicy::default(),
        };
        port.send(DriverCommand::Engine(Command::Register(Box::new(identity)))).unwrap();
        Self { runtime, port, notices, ifindex, guest, network }
    }

    fn measure(&mut self, load: Load, how: &str) {
        let running = Running::start(self, load);
        let ways = [Watch::Not, Watch::Observed, Watch::BothWays];
        let mut rates = ways.map(|_| (Vec::new(), Vec::new()));
        for round in 0..=ROUNDS {
            for turn in 0..ways.len() {
                let way = (turn + round) % ways.len(); // nobody is always the first
                let rate = self.watched(ways[way], || running.rate());
                if round > 0 {
                    rates[way].0.push(rate.a_second); // the first only warms up
                    rates[way].1.push(rate.a_busy_second);
                }
            }
        }
        let [not, observed, both] = &mut rates;
        let ratio = |with: &[f64], without: &[f64]| {
            let mut ratios: Vec<_> = with.iter().zip(without).map(|(with, without)| with / without).collect();
            let [low, median, high] = quartiles(&mut ratios);
            format!("{median:.3} [{low:.3}..{high:.3}]")
        };
        let [observed, both] = [observed, both]
            .map(|with| format!("{:<22} {:<24}", ratio(&with.0, &not.0), ratio(&with.1, &not.1)));
        let (name, unit) = match load {
            Load::BulkToGuest => ("TCP to the guest", "MB/s"),
            Load::BulkFromGuest => ("TCP from the guest", "MB/s"),
            Load::Requests => ("TCP request and response, 1 byte", "/s"),
        };
        let scale = if unit == "MB/s" { 1e6 } else { 1.0 };
        let [_, rate, _] = quartiles(&mut not.0);
        println!("{:<37} {:>8.0} {unit:<4}   {observed} {both}", format!("{name}{how}"), rate / scale);
    }

    /// What `rate` says while the port is watched like this.
    /// Every way begins alike: a socket is opened and one is closed, which disturbs both ends for a moment, wherever
    /// their processors were.
    fn watched(&mut self, watch: Watch, rate: impl FnOnce() -> Rate) -> Rate {
        let ifindex = self.ifindex;
        let [observer, closed] =
            self.network.hypervisor.enter(|| [(); 2].map(|()| Observer::open(ifindex).unwrap()));
        drop(closed);
        match watch {
            Watch::Not => {
                drop(observer);
                rate()
            }
            Watch::Observed => {
                self.port.send(DriverCommand::Observe { nic: NIC, observer }).unwrap();
                let rate = rate();
                self.port.send(DriverCommand::Unobserve { nic: NIC }).unwrap();
                // The only notice that comes: the socket, which is closed here.
                drop(self.runtime.block_on(self.notices.recv()));
                rate
            }
            Watch::BothWays => {
                drop(observer);
                let _socket = self.network.hypervisor.enter(|| {
                    let socket = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
                    const TAKE_NOTHING: SockFilter = SockFilter::new(0x06, 0, 0, 0);
                    socket.attach_filter(&[TAKE_NOTHING]).unwrap();
                    sys::bind_packet(socket.as_fd(), ifindex).unwrap();
                    socket
                });
                rate()
            }
        }
    }

    /// From now on both ends send frames of at most 1,514 bytes.
    fn segment_by_hand(&self) {
        const ETHTOOL_STSO: u32 = 0x1f;
        const ETHTOOL_SGSO: u32 = 0x24;
        for namespace in [&self.network.c1, &self.guest.namespace] {
            namespace.enter(|| {
                let any = Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap();
                for offload in [ETHTOOL_STSO, ETHTOOL_SGSO] {
                    sys::ethtool_set(any.as_fd(), "eth0", offload, false).unwrap();
                }
            });
        }
    }

    fn observed(&mut self) -> u64 {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.port.send(DriverCommand::Snapshot(sender)).unwrap();
        self.runtime.block_on(receiver).unwrap().observed.taken
    }
}

/// Bytes, or requests, that were moved.
#[derive(Clone, Copy, Debug)]
struct Rate {
    a_second: f64,
    a_busy_second: f64,
}

/// How long the threads of this process, and the kernel's that go on with what they sent, were on a processor.
fn busy_nanoseconds() -> u64 {
    static KERNELS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let folders = |of: &str| std::fs::read_dir(of).unwrap().flatten().map(|entry| entry.path());
    let kernels = KERNELS
        .get_or_init(|| folders("/proc").filter(|f| read(f.join("comm")).starts_with("ksoftirqd")).collect());
    let on_processor = |folder: PathBuf| {
        let figures = read(folder.join("schedstat"));
        figures.split_whitespace().next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0)
    };
    folders("/proc/self/task").chain(kernels.iter().cloned()).map(on_processor).sum()
}

/// A load, until it is dropped.
struct Running {
    moved: Arc<AtomicU64>,
    streams: [TcpStream; 2],
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// Between the first client and the guest.
    fn start(lab: &Lab, load: Load) -> Self {
        let address = (lab.guest.v4, 80);
        let listener = lab.guest.namespace.enter(|| TcpListener::bind(address).unwrap());
        let client = lab.network.c1.enter(|| TcpStream::connect(address).unwrap());
        let served = listener.accept().unwrap().0;
        let streams = [client, served];
        streams.iter().for_each(|stream| stream.set_nodelay(true).unwrap());
        let [mut one, mut two] = streams.each_ref().map(|stream| stream.try_clone().unwrap());
        if let Load::BulkFromGuest = load {
            std::mem::swap(&mut one, &mut two);
        }
        let moved = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&moved);
        // Each ends with an error when the connection is shut down.
        let threads = if let Load::Requests = load {
            vec![
                std::thread::spawn(move || {
                    while one.write_all(&[1]).and_then(|()| one.read_exact(&mut [0])).is_ok() {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                }),
                std::thread::spawn(move || {
                    while two.read_exact(&mut [0]).and_then(|()| two.write_all(&[1])).is_ok() {}
                }),
            ]
        } else {
            vec![
                std::thread::spawn(move || {
                    let data = vec![0x5a; 256 << 10];
                    while one.write_all(&data).is_ok() {}
                }),
                std::thread::spawn(move || {
                    let mut buffer = vec![0; 256 << 10];
                    while let Ok(bytes @ 1..) = two.read(&mut buffer) {
                        counted.fetch_add(bytes as u64, Ordering::Relaxed);
                    }
                }),
            ]
        };
        Self { moved, streams, threads }
    }

    /// Over one turn.
    fn rate(&self) -> Rate {
        pause(SETTLE);
        let figures = || (self.moved.load(Ordering::Relaxed), busy_nanoseconds());
        let before = figures();
        let (after, took) = timed(|| {
            pause(TURN);
            figures()
        });
        let moved = (after.0 - before.0) as f64;
        let busy = (after.1 - before.1) as f64 / 1e9;
        Rate { a_second: moved / took.as_secs_f64(), a_busy_second: moved / busy }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for stream in &self.streams {
            let _ = stream.shutdown(std::net::Shutdown::Both); // the other end may have done it
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values.get((values.len() - 1) * quarter / 4).copied().unwrap_or(f64::NAN))
}
