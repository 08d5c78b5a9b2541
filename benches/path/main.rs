//! Echo replies on a real path: how many a second, and how long one takes.
//!
//! ```text
//!   client namespace            hypervisor namespace
//!   eth0 ------------- veth ------- br0 ---+--- a guest's own kernel, awake
//!    ^  sender on one core                 +--- Surrogate, veth port   (a sleeping guest)
//!    |  replies counted here               +--- Surrogate, tap port    (a sleeping guest)
//!                                          +--- a plain pnet datalink loop
//!                                          +--- a bare ring that only swaps addresses
//! ```
//!
//! All stand on one bridge in one run and take turns, in several rounds; printed are medians and, since
//! absolute figures of a shared machine mean little, ratios. One core sends, the other answers. What the
//! sender offers is more than any of them takes. `cargo bench --bench path`.

#![allow(clippy::unwrap_used, reason = "a benchmark without its lab has failed")]

mod contenders;
mod flood;
#[path = "../frames/mod.rs"]
mod frames;
mod round_trip;

use std::os::fd::AsFd as _;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use surrogate::io::driver::PortKind;
use surrogate::io::sys;
use surrogate_house::Namespace;

use contenders::{Contender, Guest};

/// Rounds of every measurement; odd, so that the median is one of them.
const ROUNDS: usize = 11;
/// How long each contender is flooded in each round.
const FLOOD: Duration = Duration::from_millis(300);
/// Echo requests one at a time, in each round.
const ROUND_TRIPS: usize = 1000;

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return; // asked by a test runner
    }
    let lab = Lab::new();
    let contenders = [
        Contender::kernel(&lab, Guest::number(11)),
        Contender::surrogate(&lab, Guest::number(12), PortKind::Veth),
        Contender::surrogate(&lab, Guest::number(13), PortKind::Tap),
        Contender::pnet_loop(&lab, Guest::number(14)),
        Contender::bare_ring(&lab, Guest::number(15)),
    ];
    contenders.iter().for_each(|contender| round_trip::await_first(&lab.client, contender.guest()));
    let mut results = contenders.each_ref().map(|_| Results::default());
    for round in 0..=ROUNDS {
        for (contender, results) in contenders.iter().zip(&mut results) {
            let trips = round_trip::measure(&lab.client, contender.guest(), ROUND_TRIPS);
            let flood = flood::measure(&lab.client, contender, FLOOD);
            if round > 0 {
                results.add(&flood, &trips); // the first only warms up
            }
        }
    }
    print(&contenders, &mut results);
}

/// The path: a client, a bridge, and whatever contender is measured.
pub struct Lab {
    hypervisor: Namespace,
    client: Namespace,
}

impl Lab {
    fn new() -> Self {
        let (hypervisor, client) = (Namespace::new("bhv"), Namespace::new("bc"));
        hypervisor.ip(&format!(
            "link add br0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0\n\
             link set br0 addrgenmode none\n\
             link set br0 up\n\
             link add c1 type veth peer name eth0 netns {}\n\
             link set c1 addrgenmode none\n\
             link set c1 master br0\n\
             link set c1 up\n",
            client.name()
        ));
        client.ip("link set eth0 addrgenmode none\nlink set eth0 up\n");
        // With GRO on, a veth end polls and takes frames in batches; the flood needs it.
        turn_gro_on(&hypervisor, "c1");
        turn_gro_on(&client, "eth0");
        Self { hypervisor, client }
    }
}

fn turn_gro_on(namespace: &Namespace, link: &str) {
    const ETHTOOL_SGRO: u32 = 0x2c;
    namespace.enter(|| {
        let any = Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap();
        sys::ethtool_set(any.as_fd(), link, ETHTOOL_SGRO, true).unwrap();
    });
}

#[derive(Default)]
struct Results {
    rates: Vec<f64>,
    cpu: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    lost: usize,
}

impl Results {
    fn add(&mut self, flood: &flood::Flood, trips: &round_trip::Trips) {
        self.rates.push(flood.rate);
        self.cpu.extend(flood.cpu);
        self.p50.push(trips.p50);
        self.p99.push(trips.p99);
        self.lost += trips.lost;
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print(contenders: &[Contender], results: &mut [Results]) {
    println!("medians of {ROUNDS} rounds; range in brackets\n");
    let heads = ["replies/s", "", "CPU µs each", "p50 µs", "p99 µs", "lost"];
    let [rate, range, cpu, p50, p99, lost] = heads;
    println!("{:<24} {rate:>10} {range:>17} {cpu:>12} {p50:>9} {p99:>9} {lost:>6}", "echo");
    let mut rates = Vec::new();
    for (contender, results) in contenders.iter().zip(results) {
        let (rate, p50, p99) =
            (median(&mut results.rates), median(&mut results.p50), median(&mut results.p99));
        let (least, most) = (results.rates[0], results.rates[results.rates.len() - 1]);
        let range = format!("[{:.0}k..{:.0}k]", least / 1e3, most / 1e3);
        let cpu =
            if results.cpu.is_empty() { "-".to_owned() } else { format!("{:.2}", median(&mut results.cpu)) };
        println!(
            "{:<24} {:>9.0}k {range:>17} {cpu:>12} {p50:>9.1} {p99:>9.1} {:>6}",
            contender.name(),
            rate / 1e3,
            results.lost
        );
        rates.push((rate, p50));
    }
    let [kernel, veth, tap, pnet, ring] = rates[..] else { return };
    println!("\n{:<24} {:>10} {:>10}   wanted", "ratio of replies/s", "veth", "tap");
    for (peer, of, wanted) in [
        ("to the pnet loop", pnet, 2.0),
        ("to the kernel's guest", kernel, 1.0),
        ("to the bare ring", ring, 0.7),
    ] {
        println!("{peer:<24} {:>10.2} {:>10.2}   >= {wanted}", veth.0 / of.0, tap.0 / of.0);
    }
    println!("round trip to kernel's   {:>10.2} {:>10.2}", veth.1 / kernel.1, tap.1 / kernel.1);
}
