//! The noise of real networks wakes nobody: three hours of ARP, names that are announced and looked for, reports
//! and queries of groups, and a storm of all of it.

use std::net::{IpAddr, Ipv4Addr};

use surrogate::engine::WakeReason;
use surrogate::io::capture::Captured;
use surrogate_wire::{Frame, Offload, Packet, Received};

use crate::files::{self, CaptureFile};
use crate::hosts::{self, Host};
use crate::mac_at;
use crate::sleeper::Sleepers;

/// Captures of what a host hears all day, whoever it is.
const NOISY: [&str; 5] =
    ["arp-lan-3h.pcap", "arp-oversized.pcap", "mdns.pcap", "igmp-mld-llmnr-nbns.pcap", "ip6-fragments.pcap"];
/// Times that everything comes again, a microsecond apart.
const STORM: usize = 200;

/// What is flooded: all that a host on the same network hears of others.
fn is_flooded(frame: &Captured) -> bool {
    mac_at(&frame.bytes, 0).is_some_and(|to| to.0[0] & 1 == 1)
}

fn noisy() -> Option<Vec<CaptureFile>> {
    let files: Vec<_> =
        files::all()?.into_iter().filter(|file| NOISY.contains(&file.name.as_str())).collect();
    assert_eq!(files.len(), NOISY.len());
    Some(files)
}

/// Hosts of the file's own network, and one that it never heard of.
fn sleepers(file: &CaptureFile) -> Vec<Host> {
    let mut hosts = hosts::busiest(&file.frames, 20);
    let stranger: [IpAddr; 2] = [Ipv4Addr::new(192, 0, 2, 11).into(), "2001:db8::11".parse().unwrap()];
    let mac = surrogate_wire::Mac([0x52, 0x54, 0, 0, 0, 0x11]);
    hosts.push(Host { mac, addresses: stranger.into(), ..Host::default() });
    hosts
}

/// Whether another station says that an address of `host` is its own.
fn claimed(file: &CaptureFile, host: &Host) -> bool {
    file.frames.iter().any(|frame| {
        let received = Received { bytes: &frame.bytes, vlan: None, offload: file.offload };
        let Ok(parsed) = Frame::parse(&received) else { return false };
        match Packet::parse(&parsed, file.offload) {
            Ok(Packet::Arp(arp)) => arp.sha != host.mac && host.addresses.contains(&arp.spa.into()),
            _ => false,
        }
    })
}

#[test]
fn three_hours_of_arp_and_a_link_full_of_names_wake_nobody() {
    let Some(files) = noisy() else { return };
    for file in &files {
        for host in sleepers(file) {
            let mut sleeper = Sleepers::asleep(std::slice::from_ref(&host));
            let mut heard = 0;
            for frame in file.frames.iter().filter(|frame| is_flooded(frame) && !host.sent(&frame.bytes)) {
                sleeper.feed(frame.unix_ns, &frame.bytes, file.offload);
                heard += 1;
            }
            // A frame with a damaged MAC claims the address of the host it is of: a conflict, and no noise.
            let conflict = claimed(file, &host);
            sleeper.wakes.retain(|reason| !(conflict && *reason == WakeReason::Conflict));
            assert_eq!(sleeper.wakes, [], "{} {}", file.name, host.mac);
            println!("{:<34} {} heard {heard} frames and was not woken", file.name, host.mac);
        }
    }
}

#[test]
fn a_broadcast_storm_wakes_nobody_and_grows_nothing() {
    let Some(files) = noisy() else { return };
    for file in &files {
        let hosts = sleepers(file);
        let flooded: Vec<_> = file.frames.iter().filter(|frame| is_flooded(frame)).collect();
        // Everybody who is heard in the storm is awake.
        let speaks = |host: &Host| flooded.iter().any(|frame| host.sent(&frame.bytes));
        let asleep: Vec<_> = hosts.into_iter().filter(|host| !speaks(host)).collect();
        let mut sleepers = Sleepers::asleep(&asleep);
        let (mut now, mut came, mut answers) = (flooded[0].unix_ns, 0_u64, 0_u64);
        for frame in (0..STORM).flat_map(|_| &flooded) {
            now += 1_000;
            answers += sleepers.feed(now, &frame.bytes, file.offload).len() as u64;
            came += u64::from(
                Frame::parse(&Received { bytes: &frame.bytes, vlan: None, offload: Offload::None }).is_ok(),
            );
        }
        assert_eq!(sleepers.wakes, [], "{}", file.name);
        for counters in sleepers.counters() {
            counters.conserved().unwrap();
            assert!(counters.holding <= 64, "the ring of flooded frames has its limit: {counters:?}");
        }
        println!("{:<34} {} asleep in {came} frames: {answers} answers", file.name, asleep.len());
    }
}
