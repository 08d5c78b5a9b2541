//! A VLAN-aware bridge: a guest is stood in for in its own VLAN and in no other. Where the kernel has no such
//! bridge this says `skipped`; the VM lab runs it on one that has.

use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use surrogate_house::capture::{Capture, Frame, Sender};
use surrogate_house::clients::{arping, curl, ping};
use surrogate_house::lab::{LISTEN, bridge_state};
use surrogate_house::{Config, Daemon, Namespace, NetnsGuest, Network, until};
use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::{Ethernet, Ipv6Header, icmp_header};
use surrogate_wire::icmpv6::ALL_NODES;
use surrogate_wire::{FrameBuf, Mac, Tags, protocol};

// An emulated processor may be at work.
const PATIENCE: Duration = Duration::from_secs(30);

/// A network whose bridge keeps `web1` and c1 in VLAN 10 and c2 in VLAN 20, all untagged.
fn network_with_vlans() -> Option<(Network, NetnsGuest)> {
    let network = Network::new();
    let aware = ["link", "set", "br0", "type", "bridge", "vlan_filtering", "1"];
    let mut probe = network.hypervisor.command("ip");
    if !probe.args(aware).stderr(std::process::Stdio::null()).status().unwrap().success() {
        println!("skipped: this kernel has no VLAN-aware bridges");
        return None;
    }
    let guest = NetnsGuest::with_page(&network, 1);
    for (port, vlan) in [("web1", 10), ("c1", 10), ("c2", 20)] {
        network
            .hypervisor
            .bridge(&format!("vlan del dev {port} vid 1\nvlan add dev {port} vid {vlan} pvid untagged"));
    }
    Some((network, guest))
}

/// The bridge's tables and every port's VLANs. Our own port's MAC and VLANs, which go with it, are left out.
fn tables(hypervisor: &Namespace, guest: &NetnsGuest) -> Vec<String> {
    let vlans: serde_json::Value = serde_json::from_str(&hypervisor.run("bridge", &["-j", "vlan"])).unwrap();
    let vlans = vlans.as_array().into_iter().flatten().map(|port| format!("vlans {port}"));
    let ours = |fact: &String| {
        let kind = fact.starts_with("vlans ") || fact.starts_with("entry ");
        kind && fact.contains("\"ifname\":\"sgt") && !fact.contains(&guest.mac)
    };
    bridge_state(hypervisor).into_iter().chain(vlans).filter(|fact| !ours(fact)).collect()
}

/// Whether our port is in VLAN 10, or has an entry there.
fn we_are_in_vlan_10(hypervisor: &Namespace) -> bool {
    let told = ["vlan", "fdb"].map(|what| hypervisor.run("bridge", &["-j", what]));
    let told = told.map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap());
    let facts = told.iter().filter_map(|facts| facts.as_array()).flatten().map(ToString::to_string);
    facts.into_iter().any(|fact| fact.contains("\"ifname\":\"sgt") && fact.contains("\"vlan\":10"))
}

/// Where unicast to the guest goes: the port, and the VLAN. Of our port the beginning of its name.
fn forwarding_entries(hypervisor: &Namespace, guest: &NetnsGuest) -> Vec<(String, u64)> {
    let told: serde_json::Value = serde_json::from_str(&hypervisor.run("bridge", &["-j", "fdb"])).unwrap();
    let its = told.as_array().into_iter().flatten().filter(|entry| entry["mac"] == guest.mac.as_str());
    let port = |entry: &serde_json::Value| {
        entry["ifname"].as_str().unwrap_or_default().split('-').next().map(str::to_owned)
    };
    its.map(|entry| (port(entry).unwrap_or_default(), entry["vlan"].as_u64().unwrap_or(0))).collect()
}

/// The flags with which our port is in VLAN 10, as `bridge` has them.
fn our_membership_of_vlan_10(hypervisor: &Namespace) -> String {
    let told: serde_json::Value = serde_json::from_str(&hypervisor.run("bridge", &["-j", "vlan"])).unwrap();
    let ports = told.as_array().into_iter().flatten();
    let ours = ports.filter(|port| port["ifname"].as_str().is_some_and(|name| name.starts_with("sgt")));
    let vlans = ours.filter_map(|port| port["vlans"].as_array()).flatten();
    vlans.filter(|vlan| vlan["vlan"] == 10).map(|vlan| vlan["flags"].to_string()).collect()
}

fn mac_of(guest: &NetnsGuest) -> Mac {
    guest.mac.parse().unwrap()
}

/// c1 asks, in the way of `MLDv1`, who is in which group, and wants to know within a second.
fn mld_query() -> Vec<u8> {
    let src: Ipv6Addr = "fe80::1".parse().unwrap();
    let any_group = [0; 16];
    let pseudo = Sum::pseudo_v6(src, ALL_NODES, protocol::ICMPV6, 8 + any_group.len());
    let head = icmp_header(pseudo, MLD_QUERY, 0, [3, 0xe8, 0, 0], &any_group);
    let c1 = Mac([2, 0, 0, 0, 1, 1]);
    let to = Ethernet { dst: Mac([0x33, 0x33, 0, 0, 0, 1]), src: c1, tags: Tags::NONE };
    let header =
        Ipv6Header { src, dst: ALL_NODES, traffic_class: 0, hop_limit: 1, protocol: protocol::ICMPV6 };
    let mut memory = [0; 128];
    let mut query = FrameBuf::new(&mut memory);
    query.ipv6_router_alert(&to, &header, head.len() + any_group.len());
    query.push(&head);
    query.push(&any_group);
    query.as_bytes().to_vec()
}

/// Whether it is an MLD report in the guest's name: behind the hop-by-hop options with the router alert.
fn is_report_of(frame: &Frame, guest: &NetnsGuest) -> bool {
    let is_report =
        |(next, _, _, rest): (u8, _, _, &[u8])| next == 0 && matches!(rest.get(8), Some(131 | 143));
    frame.source() == mac_of(guest).0 && frame.ip().is_some_and(is_report)
}

/// RFC 2710 3.
const MLD_QUERY: u8 = 130;

#[test]
fn a_guest_whose_vlan_is_not_configured_is_not_put_to_sleep_and_the_vlan_is_told() {
    let Some((network, guest)) = network_with_vlans() else { return };
    let config = Config::netns("", "").with(&guest.section(LISTEN));
    let daemon = Daemon::start(&network.hypervisor, &config);
    let before = tables(&network.hypervisor, &guest);
    let refused = daemon.cli(&["sleep", "web1"]);
    assert!(!refused.status.success() && refused.errors.contains("give `vlan = 10`"), "{refused:?}");
    assert!(!guest.is_frozen());
    assert_eq!(tables(&network.hypervisor, &guest), before);
}

#[test]
fn a_guest_in_a_vlan_is_stood_in_for_there_and_nowhere_else() {
    let Some((network, guest)) = network_with_vlans() else { return };
    let config = Config::netns("", "").with(&guest.section(&format!("vlan = 10\n{LISTEN}")));
    let without_daemon = tables(&network.hypervisor, &guest);
    let mut daemon = Daemon::start(&network.hypervisor, &config);
    let before = tables(&network.hypervisor, &guest);
    for address in [guest.v4, guest.v6] {
        daemon.sleep("web1");
        assert!(guest.is_frozen());
        assert_ne!(tables(&network.hypervisor, &guest), before);
        assert!(we_are_in_vlan_10(&network.hypervisor));
        assert_eq!(forwarding_entries(&network.hypervisor, &guest), [("sgt".to_owned(), 10)]);
        assert_eq!(our_membership_of_vlan_10(&network.hypervisor), "null", "tagged, and no PVID");
        for own in [guest.v4, guest.v6] {
            let pings = ping(&network.c1, own, 5, Duration::from_millis(50));
            assert!(pings.all_answered(), "{}", pings.text);
        }
        let (answers, text) = arping(&network.c1, guest.v4, 2);
        assert!(answers == 2 && text.to_lowercase().contains(&guest.mac), "{text}");

        // The other VLAN: no answer to its questions, and nothing of its reaches the guest or us.
        let counters = || daemon.status("web1")["nics"][0]["counters"].clone();
        let counted = counters();
        let (answers, text) = arping(&network.c2, guest.v4, 1);
        assert_eq!(answers, 0, "{text}");
        network.c2.ip(&format!(
            "neigh replace {} lladdr {mac} dev eth0 nud permanent\n\
             neigh replace {} lladdr {mac} dev eth0 nud permanent",
            guest.v4,
            guest.v6,
            mac = guest.mac
        ));
        let target = SocketAddr::new(address, 80);
        let second = Duration::from_secs(1);
        let unheard = network.c2.enter(|| TcpStream::connect_timeout(&target, second)).unwrap_err();
        assert_eq!(unheard.kind(), std::io::ErrorKind::TimedOut, "{unheard}");
        assert!(guest.is_frozen());
        assert_eq!(daemon.state("web1"), "asleep");
        assert_eq!(counters(), counted);

        // What is said of its own accord is heard in its VLAN only.
        let (in_its_vlan, elsewhere) =
            (Capture::start(&network.c1, "eth0"), Capture::start(&network.c2, "eth0"));
        Sender::new(&network.c1, "eth0").send(&mld_query());
        let reports = |frames: &[Frame]| frames.iter().filter(|frame| is_report_of(frame, &guest)).count();
        in_its_vlan.wait("a report of its groups", PATIENCE, |frames| reports(frames) > 0);
        let heard = in_its_vlan.stop();
        assert!(heard.iter().all(|frame| frame.bytes[12..14] != [0x81, 0]), "untagged at an untagged port");
        assert_eq!(reports(&elsewhere.stop()), 0);

        let at_guest = Capture::start(&guest.namespace, "eth0");
        assert_eq!(curl(&network.c1, address).unwrap().body, guest.page());
        let delivered = at_guest.stop();
        let syn = delivered.iter().find(|frame| !frame.outgoing && frame.destination() == mac_of(&guest).0);
        assert_ne!(
            syn.expect("what woke it").bytes[12..14],
            [0x81, 0],
            "its port takes the tag off, and so do we"
        );
        until("the guest to be awake", PATIENCE, || daemon.state("web1") == "awake");
        assert!(!guest.is_frozen());
        assert_eq!(tables(&network.hypervisor, &guest), before);
        until("our port to leave the VLAN", PATIENCE, || !we_are_in_vlan_10(&network.hypervisor));
    }
    assert_eq!(daemon.status("web1")["wakes"], 2);
    assert_eq!(daemon.status("web1")["nics"][0]["vlan"], 10);
    daemon.assert_conserved();
    daemon.stop();
    assert_eq!(tables(&network.hypervisor, &guest), without_daemon);
}
