//! What hosts in captures of others say of their groups, read as an observer of theirs would.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use surrogate::responder::igmp::Igmp;
use surrogate::responder::mld::Mld;
use surrogate::time::Instant;
use surrogate_wire::{Frame, Mac, Packet, Received};

use crate::files;

/// The groups that the hosts of each file were in at its end, by what they had said.
const KNOWN: [(&str, &[&str]); 3] = [
    ("igmp-mld-llmnr-nbns.pcap", &["224.0.0.252", "ff02::1:3"]),
    ("mdns.pcap", &["224.0.0.251", "ff02::fb"]),
    ("nd-dad-mld.pcap", &["ff02::1:ff0e:4c67", "ff02::1:ff10:782e", "ff02::1:fff5:0", "ff02::2"]),
];

#[test]
fn groups_are_learned_from_what_real_hosts_say() {
    let Some(files) = files::all() else { return };
    let mut seen = 0;
    for file in &files {
        let mut hosts: BTreeMap<Mac, (Igmp, Mld)> = BTreeMap::new();
        for (n, captured) in file.frames.iter().enumerate() {
            let received = Received::plain(&captured.bytes);
            let Ok(frame) = Frame::parse(&received) else { continue };
            let Ok(packet) = Packet::parse(&frame, file.offload) else { continue };
            let now = Instant::from_nanos(n as u64);
            let (igmp, mld) = hosts.entry(frame.src).or_default();
            igmp.learn(now, true, &frame, &packet);
            mld.learn(now, true, &frame, &packet);
        }
        let groups: BTreeSet<IpAddr> =
            hosts.values().flat_map(|(igmp, mld)| igmp.groups().chain(mld.groups())).collect();
        if let Some((_, expected)) = KNOWN.iter().find(|(name, _)| *name == file.name) {
            let expected: BTreeSet<IpAddr> = expected.iter().map(|group| group.parse().unwrap()).collect();
            assert_eq!(groups, expected, "{}", file.name);
            seen += 1;
        } else {
            assert!(hosts.values().all(|(igmp, mld)| igmp.limited() + mld.limited() == 0), "{}", file.name);
        }
    }
    assert_eq!(seen, KNOWN.len());
}
