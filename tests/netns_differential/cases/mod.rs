//! All cases, by what they are about.

mod arp;
mod echo4;
mod echo6;
mod ipv4;
mod ipv6;
mod membership;
mod neighbour;
mod tcp_open;
mod tcp_strangers;

use crate::case::{Case, PORTS};

/// Client's ports, each only once: every module of cases has a block of its own.
fn ports(block: u16) -> impl FnMut() -> u16 {
    let mut block = PORTS.skip(usize::from(block) * 500).take(500);
    move || block.next().expect("a block has ports enough")
}

/// Cases that are written and not compared yet: the beginning of their names, and what the stand-in has to do first.
pub const AWAITED: [(&str, &str); 5] = [
    ("tcp/known-", "connections are kept"),
    ("tcp6/known-", "connections are kept"),
    ("tcp/plain-", "connections are kept"),
    ("tcp6/sack-", "connections are kept"),
    ("tcp/full-", "connections are kept"),
];

/// The cases to compare, and how many wait for something.
pub fn all() -> (Vec<Case>, usize) {
    let cases = [
        arp::cases(),
        ipv4::cases(),
        echo4::cases(),
        ipv6::cases(),
        echo6::cases(),
        neighbour::cases(),
        tcp_strangers::cases(),
        tcp_open::cases(),
        membership::cases(),
    ];
    let waits = |case: &Case| AWAITED.iter().any(|(begin, _)| case.name.starts_with(begin));
    let (waiting, cases): (Vec<_>, Vec<_>) = cases.into_iter().flatten().partition(waits);
    (cases, waiting.len())
}
