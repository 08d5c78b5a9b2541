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

/// All of them, in the order in which they are tried.
pub fn all() -> Vec<Case> {
    let cases = [
        // First: the guest's connections are as they were when it fell asleep for the first time.
        tcp_open::cases(),
        arp::cases(),
        ipv4::cases(),
        echo4::cases(),
        ipv6::cases(),
        echo6::cases(),
        neighbour::cases(),
        tcp_strangers::cases(),
        membership::cases(),
    ];
    cases.into_iter().flatten().collect()
}
