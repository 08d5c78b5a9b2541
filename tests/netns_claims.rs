//! Another host claims a sleeper's address: it is defended once, then an alarm is raised and the guest decides.

use std::net::IpAddr;
use std::time::Duration;

use surrogate_house::capture::{Capture, Sender};
use surrogate_house::{Events, Lab};
use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::{Ethernet, Ipv6Header, icmp_header};
use surrogate_wire::icmpv6::{ALL_NODES, NEIGHBOUR_ADVERTISEMENT};
use surrogate_wire::{FrameBuf, Mac, Tags, protocol};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn an_address_announced_by_another_host_is_defended_once_then_its_guest_wakes() {
    // As a request and as a reply: RFC 5227 3 has the one, many hosts send the other.
    for form in ["-U", "-A"] {
        let lab = Lab::one_guest();
        let guest = lab.guest();
        let thief = &lab.network.c2;
        thief.ip(&format!("addr add {}/32 dev eth0", guest.v4));
        let sniffer = Capture::start(&lab.network.c1, "eth0");
        lab.daemon.sleep("web1");
        let events = lab.daemon.events();
        let seq = events.last();
        thief.run("arping", &[form, "-c", "4", "-I", "eth0", &guest.v4.to_string()]);
        alarm_and_wake(&lab, &events, seq, guest.v4, "arp-defence");
        let IpAddr::V4(v4) = guest.v4 else { panic!("{}", guest.v4) };
        let defences = sniffer.stop();
        let announced = defences.iter().filter(|frame| {
            let from_us = frame.source() == mac(&guest.mac).0;
            from_us
                && frame.bytes[12..14] == [8, 6]
                && frame.bytes[28..32] == v4.octets()
                && frame.bytes[38..42] == v4.octets()
        });
        assert_eq!(announced.count(), 1, "{form}");
    }
}

#[test]
fn an_ipv6_address_advertised_by_another_host_is_defended_once_then_its_guest_wakes() {
    let lab = Lab::one_guest();
    let guest = lab.guest();
    let IpAddr::V6(address) = guest.v6 else { panic!("{}", guest.v6) };
    let thief = mac("02:00:00:00:01:02");
    let target_link_layer = [&[2, 1][..], &thief.0].concat();
    let body = [&address.octets()[..], &target_link_layer].concat();
    let pseudo = Sum::pseudo_v6(address, ALL_NODES, protocol::ICMPV6, 8 + body.len());
    let head = icmp_header(pseudo, NEIGHBOUR_ADVERTISEMENT, 0, [0x20, 0, 0, 0], &body);
    let to = Ethernet { dst: Mac([0x33, 0x33, 0, 0, 0, 1]), src: thief, tags: Tags::NONE };
    let header = Ipv6Header {
        src: address,
        dst: ALL_NODES,
        traffic_class: 0,
        hop_limit: 255,
        protocol: protocol::ICMPV6,
    };
    let mut memory = [0; 128];
    let mut claim = FrameBuf::new(&mut memory);
    claim.ipv6(&to, &header, head.len() + body.len());
    claim.push(&head);
    claim.push(&body);

    lab.daemon.sleep("web1");
    let events = lab.daemon.events();
    let seq = events.last();
    let sender = Sender::new(&lab.network.c2, "eth0");
    for _ in 0..2 {
        sender.send(claim.as_bytes());
    }
    alarm_and_wake(&lab, &events, seq, guest.v6, "ndisc-defence");
}

/// What `surrogate events` and the metrics say, and that the guest was woken for it.
#[track_caller]
fn alarm_and_wake(lab: &Lab, events: &Events, seq: u64, address: IpAddr, defence: &str) {
    events.wait_after(seq, "web1", "awake", PATIENCE);
    let since: Vec<_> = events.all().into_iter().filter(|event| event.seq > seq).collect();
    let told = |kind: &str| -> Vec<_> {
        since.iter().filter(|event| event.kind == kind).map(|event| event.detail.clone()).collect()
    };
    let [defended, given_up] = &told("conflict")[..] else { panic!("{since:#?}") };
    assert!(defended.ends_with(&format!("claims {address}: defended")), "{defended}");
    assert!(given_up.contains("not defended"), "{given_up}");
    assert!(told("waking").iter().all(|why| why.contains("address conflict")), "{since:#?}");
    let status = lab.daemon.status("web1");
    let counters = &status["nics"][0]["counters"];
    assert_eq!(counters["answered"][defence], 1, "{status}");
    assert!(counters["conflicts"].as_u64() >= Some(2), "{status}");
    let metrics = lab.daemon.metrics();
    let labels = [("guest", "web1"), ("nic", "0")];
    assert!(metrics.value("surrogate_frames_conflicts_total", &labels) >= Some(2.0));
    let by = [labels[0], labels[1], ("by", defence)];
    assert_eq!(metrics.value("surrogate_frames_answered_total", &by), Some(1.0));
    assert!(!lab.guest().is_frozen());
    lab.daemon.assert_conserved();
}

fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}
