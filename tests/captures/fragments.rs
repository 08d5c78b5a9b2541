//! Real datagrams in fragments. An echo is answered in the fragments that the real host made; of those to sleepers
//! whose ports are all closed each that is whole gets one answer, or is over the limit of such answers, and no
//! fragment is left.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use smoltcp::wire::{EthernetProtocol, Ipv4Packet};
use surrogate::engine::{Answered, Counters, DropReason};
use surrogate::io::capture::Captured;
use surrogate::policy::traffic::Listen;
use surrogate_wire::{Mac, Offload};

use crate::files::{self, CaptureFile};
use crate::hosts::Host;
use crate::said::split;
use crate::sleeper::Sleepers;

#[test]
fn a_long_echo_is_answered_in_the_fragments_of_the_real_host() {
    let mut files = files::own().into_iter();
    let file = files.find(|file| file.name == "echo/fragmented.pcap").expect("the capture");
    let mac = Mac([0x52, 0x54, 0, 0, 0, 0x11]);
    let host = Host { mac, addresses: [IpAddr::from([192, 0, 2, 11])].into(), ..Host::default() };
    // Length, flags and offset, and what follows the header.
    let part = |frame: &[u8]| (frame[16..18].to_vec(), frame[20..22].to_vec(), frame[34..].to_vec());
    let is_ip = |frame: &[u8]| frame[12..14] == [8, 0];
    let mut sleeper = Sleepers::asleep(std::slice::from_ref(&host));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for frame in &file.frames {
        if host.sent(&frame.bytes) {
            theirs.extend(Some(&frame.bytes).filter(|frame| is_ip(frame)).map(|frame| part(frame)));
        } else {
            let replies = sleeper.feed(frame.unix_ns, &frame.bytes, file.offload);
            ours.extend(replies.iter().filter(|frame| is_ip(frame)).map(|frame| part(frame)));
        }
    }
    assert_eq!(ours.len(), 3);
    assert_eq!(ours, theirs);
}

#[test]
fn nfs_writes_in_six_fragments_some_of_them_captured_twice() {
    let Some(file) = named("ip4-fragments.pcap") else { return };
    let server = IpAddr::from([10, 118, 213, 211]);
    let to_server = |frame: &&Captured| {
        matches!(split(&frame.bytes), Some((_, EthernetProtocol::Ipv4, packet))
            if Ipv4Packet::new_checked(packet).is_ok_and(|ip| IpAddr::from(ip.dst_addr()) == server))
    };
    let frames: Vec<_> = file.frames.iter().filter(to_server).cloned().collect();
    let mac = crate::mac_at(&frames[0].bytes, 0).unwrap();
    let counters = refused(&[server], mac, &frames);
    assert_eq!(whole(&counters), 6);
    // Copies of what was whole already, and of what was not yet.
    assert_eq!(counters.dropped[DropReason::Duplicate as usize] as usize, frames.len() - 36);
}

#[test]
fn announcements_in_ipv6_fragments_as_if_sent_to_one_host() {
    let Some(file) = named("ip6-fragments.pcap") else { return };
    let mac = Mac([0x52, 0x54, 0, 0, 0, 0x11]);
    // Other destinations with the same sums, so that the checksums stay right.
    let instead = [
        ("ff02::fb".parse::<Ipv6Addr>().unwrap(), "2001:db8::d244".parse::<Ipv6Addr>().unwrap()),
        ("ff02::c".parse().unwrap(), "2001:db8::d155".parse().unwrap()),
    ];
    let mut frames = file.frames;
    for frame in &mut frames {
        let group: [u8; 16] = frame.bytes[38..54].try_into().unwrap();
        let (_, host) = instead.iter().find(|(of, _)| of.octets() == group).unwrap();
        frame.bytes[38..54].copy_from_slice(&host.octets());
        frame.bytes[..6].copy_from_slice(&mac.0);
    }
    let counters = refused(&instead.map(|(_, host)| host.into()), mac, &frames);
    assert_eq!(whole(&counters), 4);
}

fn named(name: &str) -> Option<CaptureFile> {
    files::all()?.into_iter().find(|file| file.name == name)
}

/// What became of frames for a sleeper on which nothing listens.
fn refused(addresses: &[IpAddr], mac: Mac, frames: &[Captured]) -> Counters {
    let listen = Some(Listen::default());
    let host = Host { mac, addresses: addresses.iter().copied().collect(), listen, ..Host::default() };
    let mut sleeper = Sleepers::asleep(std::slice::from_ref(&host));
    for frame in frames {
        sleeper.feed(frame.unix_ns, &frame.bytes, Offload::None);
        sleeper.check(|| format!("{mac}"));
    }
    let counters = sleeper.wake_and_deliver().remove(0);
    assert_eq!((counters.concerned, counters.replayed), (frames.len() as u64, 0), "none is left");
    let reasons: BTreeMap<_, _> =
        DropReason::ALL.iter().map(|why| why.name()).zip(counters.dropped).collect();
    let odd =
        reasons.iter().filter(|(why, n)| **n > 0 && !["duplicate", "rate-limited"].contains(why)).count();
    assert_eq!(odd, 0, "{reasons:?}");
    counters
}

/// Datagrams that were put together.
fn whole(counters: &Counters) -> u64 {
    counters.answered[Answered::PortUnreachable as usize] + counters.dropped[DropReason::RateLimited as usize]
}
