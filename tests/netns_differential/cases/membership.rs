//! Group membership (RFC 2236, RFC 9776, RFC 2710, RFC 9777): queries, and the reports that keep a snooping switch
//! forwarding.
//!
//! The response times are the shortest that the protocols have, so that silence is known soon.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::build::{V4, V6, ethernet, icmp6, sum};
use crate::case::{Case, Stimulus, Until};
use crate::hosts::{GROUP4, GROUP6, OTHER_GROUP4, OTHER_GROUP6, ROUTER, ROUTER4, ROUTER6, group_mac};

const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Longer than the longest of the response times below.
const SILENCE: Until = Until::Silence(Duration::from_millis(400));
/// Router alert (RFC 2113).
const ALERT: [u8; 4] = [148, 4, 0, 0];

/// A query's frame, from the router.
fn query4(dst: Ipv4Addr, change: impl Fn(&mut V4), message: Vec<u8>) -> Vec<u8> {
    let mut packet = V4 { ttl: 1, options: ALERT.to_vec(), ..V4::new(ROUTER4, dst, 2, message) };
    change(&mut packet);
    ethernet(group_mac(dst.into()), ROUTER, 0x0800, &packet.bytes())
}

/// Version 1 and 2 have eight bytes, version 3 has `sources` behind four more.
fn message4(kind: u8, tenths: u8, group: Ipv4Addr, sources: Option<&[Ipv4Addr]>) -> Vec<u8> {
    let mut bytes = vec![kind, tenths, 0, 0];
    bytes.extend(group.octets());
    if let Some(sources) = sources {
        bytes.extend([2, 125]);
        bytes.extend((sources.len() as u16).to_be_bytes());
        bytes.extend(sources.iter().flat_map(|source| source.octets()));
    }
    let checksum = sum(&bytes);
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn query6(
    dst: Ipv6Addr,
    change: impl Fn(&mut V6),
    milliseconds: u16,
    group: Ipv6Addr,
    sources: Option<&[Ipv6Addr]>,
) -> Vec<u8> {
    let [high, low] = milliseconds.to_be_bytes();
    let mut data = group.octets().to_vec();
    if let Some(sources) = sources {
        data.extend([2, 125]);
        data.extend((sources.len() as u16).to_be_bytes());
        data.extend(sources.iter().flat_map(|source| source.octets()));
    }
    let message = icmp6(ROUTER6, dst, 130, 0, [high, low, 0, 0], &data);
    let mut packet =
        V6 { hop: 1, ..V6::new(ROUTER6, dst, 58, message) }.extended(0, vec![0, 0, 5, 2, 0, 0, 1, 0]);
    change(&mut packet);
    ethernet(group_mac(dst.into()), ROUTER, 0x86dd, &packet.bytes())
}

const ANY4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ANY6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, source, frame: Vec<u8>, until| {
        let case = Case::new(name, source, frame).reports(until);
        cases.push(case.differs_if(name.ends_with("group-and-source"), "membership-sources"));
    };
    let keep = |_: &mut V4| {};
    let one = Until::Frames(1);
    let source = Ipv4Addr::new(198, 51, 100, 9);

    // Version 3 first: who has heard an older querier goes on in its version.
    let v3 = |group, sources: &[Ipv4Addr]| message4(0x11, 1, group, Some(sources));
    add("igmp/v3-general", "RFC 9776 5.2", query4(ALL_HOSTS, keep, v3(ANY4, &[])), one);
    add("igmp/v3-group", "RFC 9776 5.2", query4(GROUP4, keep, v3(GROUP4, &[])), one);
    add("igmp/v3-group-and-source", "RFC 9776 5.2", query4(GROUP4, keep, v3(GROUP4, &[source])), one);
    add("igmp/v3-other-group", "RFC 9776 5.2", query4(OTHER_GROUP4, keep, v3(OTHER_GROUP4, &[])), SILENCE);
    add(
        "igmp/v3-sources-cut",
        "RFC 9776 4.1",
        query4(GROUP4, keep, {
            let mut cut = v3(GROUP4, &[source, source]);
            cut.truncate(14);
            cut[2..4].fill(0);
            let checksum = sum(&cut);
            cut[2..4].copy_from_slice(&checksum.to_be_bytes());
            cut
        }),
        SILENCE,
    );
    add(
        "igmp/v3-bad-checksum",
        "RFC 9776 4.1.2",
        query4(ALL_HOSTS, keep, {
            let mut damaged = v3(ANY4, &[]);
            damaged[2] ^= 1;
            damaged
        }),
        SILENCE,
    );
    add(
        "igmp/report-v3-of-another",
        "RFC 9776 5.2",
        query4(Ipv4Addr::new(224, 0, 0, 22), keep, message4(0x22, 0, ANY4, None)),
        SILENCE,
    );
    add(
        "igmp/leave-of-another",
        "RFC 2236 3",
        query4(Ipv4Addr::new(224, 0, 0, 2), keep, message4(0x17, 0, GROUP4, None)),
        SILENCE,
    );
    add("igmp/unknown-type", "RFC 2236 2.1", query4(ALL_HOSTS, keep, message4(0x77, 0, ANY4, None)), SILENCE);
    add(
        "igmp/cut-at-4",
        "RFC 2236 2",
        query4(ALL_HOSTS, keep, message4(0x11, 1, ANY4, None)[..4].to_vec()),
        SILENCE,
    );

    let keep6 = |_: &mut V6| {};
    let v2 = |dst, group, sources: &[Ipv6Addr]| query6(dst, keep6, 100, group, Some(sources));
    let source = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9);
    add("mld/v2-general", "RFC 9777 6.2", v2(ALL_NODES, ANY6, &[]), one);
    add("mld/v2-group", "RFC 9777 6.2", v2(GROUP6, GROUP6, &[]), one);
    add("mld/v2-group-and-source", "RFC 9777 6.2", v2(GROUP6, GROUP6, &[source]), one);
    add("mld/v2-other-group", "RFC 9777 6.2", v2(OTHER_GROUP6, OTHER_GROUP6, &[]), SILENCE);
    add(
        "mld/v2-hop-limit-2",
        "RFC 9777 6.2",
        query6(ALL_NODES, |p| p.hop = 2, 100, ANY6, Some(&[])),
        SILENCE,
    );
    add(
        "mld/v2-from-global",
        "RFC 9777 5.1.14",
        query6(ALL_NODES, |p| p.src = crate::hosts::A6, 100, ANY6, Some(&[])),
        SILENCE,
    );
    add(
        "mld/v2-bad-checksum",
        "RFC 9777 5.1.2",
        query6(ALL_NODES, |p| p.payload[10] ^= 1, 100, ANY6, Some(&[])),
        SILENCE,
    );

    // Older queriers. A general query gets one report for each group.
    let old = |tenths, group| message4(0x11, tenths, group, None);
    add("igmp/v2-general", "RFC 2236 3", query4(ALL_HOSTS, keep, old(1, ANY4)), one);
    add("igmp/v2-group", "RFC 2236 3", query4(GROUP4, keep, old(1, GROUP4)), one);
    add("igmp/v2-other-group", "RFC 2236 3", query4(OTHER_GROUP4, keep, old(1, OTHER_GROUP4)), SILENCE);
    add(
        "igmp/v2-general-without-alert",
        "RFC 2236 9",
        query4(ALL_HOSTS, |p| p.options.clear(), old(1, ANY4)),
        one,
    );
    let v1 = |dst, group| query6(dst, keep6, 100, group, None);
    add("mld/v1-group", "RFC 2710 4", v1(GROUP6, GROUP6), one);
    add("mld/v1-other-group", "RFC 2710 4", v1(OTHER_GROUP6, OTHER_GROUP6), SILENCE);
    let together =
        |frames| Case::of("igmp/v2-report-of-another-first", "RFC 2236 3", Stimulus::Frames(frames));
    let report = query4(GROUP4, keep, message4(0x16, 0, GROUP4, None));
    cases.push(together(vec![query4(GROUP4, keep, old(1, GROUP4)), report]).reports(SILENCE));
    cases
}
