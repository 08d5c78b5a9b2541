//! Fuzz targets: everything that reads bytes from outside, called with any bytes, and what must hold then.
//!
//! A target is a plain function, so that the fuzzer (`make fuzz`, libFuzzer behind feature `libfuzzer`) and an
//! ordinary test (`tests/replay.rs`, which replays each crash that was ever found) run the same code. It panics where
//! something is wrong, and otherwise says whether the input got through the parser: by that the test knows that
//! the seeds are worth their name. A target draws nothing from a clock or a generator but what the input gives.

mod api;
mod capture;
mod config;
mod custody;
mod dhcp;
mod dns;
mod domain_xml;
mod engine;
mod fragments;
mod frame;
mod http_response;
mod input;
mod journal;
mod knowledge;
mod lan;
mod membership;
mod netlink;
mod router;

/// Something that reads bytes from outside.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As in `fuzz/run NAME` and `fuzz/crashes/NAME/`.
    pub name: &'static str,
    /// Reads one input; panics if what must hold does not. Says whether the input was understood.
    pub run: fn(&[u8]) -> bool,
    /// Inputs to begin with, most of them understood.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// The longest input that is worth trying, in bytes.
    pub longest: usize,
}

/// All targets.
pub static TARGETS: &[Target] = &[
    Target { name: "frame", run: frame::run, seeds: frame::seeds, longest: 1600 },
    Target { name: "dns", run: dns::run, seeds: dns::seeds, longest: 600 },
    Target { name: "netbios", run: dns::run_netbios, seeds: dns::seeds_netbios, longest: 600 },
    Target { name: "dhcpv4", run: dhcp::run_v4, seeds: dhcp::seeds_v4, longest: 600 },
    Target { name: "dhcpv6", run: dhcp::run_v6, seeds: dhcp::seeds_v6, longest: 400 },
    Target { name: "membership", run: membership::run, seeds: membership::seeds, longest: 400 },
    Target { name: "router", run: router::run, seeds: router::seeds, longest: 700 },
    Target { name: "engine", run: engine::run, seeds: engine::seeds, longest: 4096 },
    Target { name: "custody", run: custody::run, seeds: custody::seeds, longest: 2048 },
    Target { name: "fragments", run: fragments::run, seeds: fragments::seeds, longest: 200 },
    Target { name: "knowledge", run: knowledge::run, seeds: knowledge::seeds, longest: 4096 },
    Target { name: "journal", run: journal::run, seeds: journal::seeds, longest: 4096 },
    Target { name: "config", run: config::run, seeds: config::seeds, longest: 4096 },
    Target { name: "capture", run: capture::run, seeds: capture::seeds, longest: 4096 },
    Target { name: "api", run: api::run, seeds: api::seeds, longest: 1024 },
    Target { name: "netlink", run: netlink::run, seeds: netlink::seeds, longest: 1024 },
    Target { name: "http-response", run: http_response::run, seeds: http_response::seeds, longest: 2048 },
    Target { name: "domain-xml", run: domain_xml::run, seeds: domain_xml::seeds, longest: 2048 },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
