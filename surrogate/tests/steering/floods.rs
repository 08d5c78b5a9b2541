//! Flooded frames and multicast groups: taken, kept coming to us, put back.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use surrogate::io::netlink::{LinkEvent, watch};
use surrogate::io::steering::{Place, SteeringError};
use surrogate_house::{Capture, Frame, deadline};
use surrogate_wire::Mac;

use crate::world::{CLIENT, GUEST, GUEST_GROUP, OTHER, World, numbered, numbers};

/// A querier that counts as such after a tenth of a second.
const SNOOPING: &str =
    "mcast_snooping 1 mcast_querier 1 mcast_query_response_interval 10 mcast_igmp_version 3";

#[test]
fn flags_and_groups_are_put_back_exactly() {
    let world = World::new(SNOOPING);
    world.hypervisor.bridge("link set dev g1 mcast_flood off mcast_router 2");
    for group in ["239.1.2.3 permanent", "239.1.2.4 temp", "ff02::1:ff00:11 temp"] {
        world.hypervisor.bridge(&format!("mdb add dev br0 port g1 grp {group}"));
    }
    let (before, place) = (world.tables(), world.place());

    world.steering(async |steering| {
        for _ in 0..2 {
            let joined = steering.take_floods(&place, "g1").await.unwrap();
            let expected = ["239.1.2.3", "239.1.2.4", GUEST_GROUP];
            assert_eq!(joined, expected.map(|group| group.parse::<IpAddr>().unwrap()));
        }
        assert_eq!(world.groups("g1"), [""; 0]);
        assert_eq!(world.groups("sur0").len(), 3, "{:?}", world.groups("sur0"));
        assert!(world.groups("sur0").iter().all(|group| group.contains("permanent")));
        let link = world.hypervisor.run("bridge", &["-d", "-o", "link", "show", "dev", "g1"]);
        for flag in [" flood off", "mcast_flood off", "bcast_flood off", "mcast_router 0"] {
            assert!(link.contains(flag), "{flag}: {link}");
        }
        steering.return_floods(&place, Some("g1")).await.unwrap();
        steering.return_floods(&place, Some("g1")).await.unwrap();
    });
    assert_eq!(world.tables(), before);
}

#[test]
fn groups_that_only_we_know_of_come_to_us_as_long_as_the_guest_sleeps() {
    let world = World::new(SNOOPING);
    world.hypervisor.bridge("mdb add dev br0 port g1 grp 239.1.2.3 temp");
    let (before, place) = (world.tables(), world.place());
    // One that the bridge knows too, two that it does not, and one that it floods always.
    let groups = ["239.1.2.3", "239.1.2.4", "ff05::1234", "224.0.0.251"];
    let place = Place { groups: groups.map(|group| group.parse().unwrap()).into(), ..place };
    let ours = || {
        world.groups("sur0").iter().map(|line| line.split("grp ").nth(1).unwrap_or("").to_owned()).collect()
    };
    world.steering(async |steering| {
        let joined = steering.take_floods(&place, "g1").await.unwrap();
        assert_eq!(joined, ["239.1.2.3".parse::<IpAddr>().unwrap()]);
        let all: BTreeSet<String> = ours();
        let expected =
            ["239.1.2.3", "239.1.2.4", "ff05::1234", GUEST_GROUP].map(|group| format!("{group} permanent"));
        assert_eq!(all, expected.into());
        // Told of fewer, as after a restart: what was done is still undone.
        let forgotten = Place { groups: Vec::new(), ..place.clone() };
        steering.take_floods(&forgotten, "g1").await.unwrap();
        assert_eq!(ours(), all);
        steering.return_floods(&forgotten, Some("g1")).await.unwrap();
    });
    assert_eq!(world.tables(), before);
}

#[test]
fn the_port_of_a_copy_on_another_bridge_is_left_alone() {
    let world = World::new(SNOOPING);
    world.hypervisor.ip("link add br1 type bridge\nlink set br1 addrgenmode none up");
    world.add_port("copy", "");
    world.hypervisor.ip("link set copy master br1");
    let (before, place) = (world.tables(), world.place());
    world.steering(async |steering| {
        for refused in
            [steering.take_floods(&place, "copy").await.map(drop), steering.release(&place, "copy").await]
        {
            assert!(matches!(refused, Err(SteeringError::NoPort(_))), "{refused:?}");
        }
    });
    assert_eq!(world.tables(), before);
}

#[test]
fn source_filters_of_a_group_are_put_back() {
    let world = World::new(SNOOPING);
    world.sender("g1").send(&igmpv3_allow([239, 1, 2, 5], [192, 0, 2, 99]));
    deadline::until("the bridge has heard the report", Duration::from_secs(5), || {
        world.groups("g1").len() == 2
    });
    let (before, place) = (world.tables(), world.place());
    assert!(before.iter().any(|line| line.contains("filter_mode include")), "{before:#?}");

    world.steering(async |steering| {
        let joined = steering.take_floods(&place, "g1").await.unwrap();
        assert_eq!(joined, ["239.1.2.5".parse::<IpAddr>().unwrap()]);
        assert_eq!(world.groups("g1"), [""; 0]);
        steering.return_floods(&place, Some("g1")).await.unwrap();
    });
    // Who made an entry is all that cannot be told the kernel; how old it is the bridge counts anew.
    let comparable = |tables: Vec<String>| -> Vec<String> {
        let age = |word: &str| word.split_once("/2").map_or(word, |(source, _)| source).to_owned();
        let words = |line: String| line.replace("proto static", "proto kernel").split(' ').map(age).collect();
        tables.into_iter().map(words).map(|words: Vec<_>| words.join(" ")).collect()
    };
    if takes_source_lists() {
        assert_eq!(comparable(world.tables()), comparable(before));
    } else {
        // All sources until the guest's next report: more than it asked for, never less.
        let groups = world.groups("g1");
        assert!(groups.len() == 1 && groups[0].ends_with("grp 239.1.2.5 temp"), "{groups:?}");
    }
}

#[test]
fn flooded_frames_no_longer_reach_a_sleeper_but_reach_us() {
    for (bridge, port) in [("mcast_snooping 0", "mcast_router 1"), (SNOOPING, "mcast_router 2")] {
        let world = World::new(bridge);
        world.hypervisor.bridge(&format!("link set dev g1 {port}"));
        let place = world.place();
        world.steering(async |steering| steering.take_floods(&place, "g1").await.unwrap());
        let (at_guest, at_surrogate) =
            (Capture::start(&world.hypervisor, "g1-in"), Capture::start(&world.hypervisor, "sur0-in"));
        let client = world.sender("c1");
        let multicast = Mac([0x33, 0x33, 0xff, 0, 0, 0x11]);
        client.send(&solicitation(1));
        client.send(&numbered(multicast, CLIENT, 2));
        client.send(&numbered(OTHER, CLIENT, 3));
        client.send(&numbered(Mac::BROADCAST, CLIENT, 4));
        let seen = at_surrogate
            .wait("the broadcast", Duration::from_secs(5), |frames| numbers(frames, Mac::BROADCAST) == [4]);
        assert_eq!((solicited(&seen), numbers(&seen, multicast)), (vec![1], vec![2]));
        let flooded = at_guest.stop();
        // The bridge's own IGMP and MLD are sent port by port, whatever the flags.
        let bridges_own = |frame: &&Frame| frame.source() == [2, 0, 0, 0, 0, 1];
        let came = flooded.iter().filter(|frame| !frame.outgoing && !bridges_own(frame)).count();
        assert_eq!(came, 0, "{bridge}: {flooded:?}");
    }
}

#[test]
fn a_snooping_bridge_with_a_querier_still_sends_us_the_sleepers_solicitations() {
    let world = World::new(SNOOPING);
    // Without an address of its own a bridge asks no MLD queries.
    world.hypervisor.ip("addr add fe80::1/64 dev br0 nodad");
    let client = world.sender("c1");
    let group: IpAddr = GUEST_GROUP.parse().unwrap();
    world.hypervisor.bridge(&format!("mdb add dev br0 port g1 grp {group} temp"));
    // What a broadcast overtakes at neither port has not come.
    let (at_guest, at_surrogate) =
        (Capture::start(&world.hypervisor, "g1-in"), Capture::start(&world.hypervisor, "sur0-in"));
    let mut last = 0_u16;
    let mut solicit = || {
        last += 1;
        client.send(&solicitation(last));
        client.send(&numbered(Mac::BROADCAST, CLIENT, u32::from(last)));
        let passed = |frames: &[Frame]| numbers(frames, Mac::BROADCAST).last() == Some(&u32::from(last));
        [&at_guest, &at_surrogate].map(|port| {
            port.wait("the broadcast", Duration::from_secs(5), passed);
            solicited(&port.frames()).contains(&last)
        })
    };

    // A bridge that asks no queries floods: before it does the test would show nothing. It may try its
    // first before its address or its ports are ready, and the next long after, so it is told again.
    deadline::until("the bridge is the querier", Duration::from_secs(10), || {
        let querier = "link set br0 type bridge mcast_querier";
        world.hypervisor.ip(&format!("{querier} 0\n{querier} 1"));
        deadline::pause(Duration::from_millis(150));
        solicit() == [true, false]
    });
    let place = world.place();
    world.steering(async |steering| {
        steering.take_floods(&place, "g1").await.unwrap();
        world.hypervisor.bridge("link set dev g1 bcast_flood on");
        assert_eq!(solicit(), [false, true]);
        steering.return_floods(&place, Some("g1")).await.unwrap();
        assert_eq!(solicit(), [true, false]);
    });
}

#[test]
fn a_restored_guest_gets_its_groups_at_its_new_device_whose_flags_stand() {
    let world = World::new(SNOOPING);
    world.hypervisor.bridge("mdb add dev br0 port g1 grp 239.1.2.3 temp");
    let place = world.place();
    world.steering(async |steering| {
        steering.take_floods(&place, "g1").await.unwrap();
        world.hypervisor.ip("link del g1");
        assert_eq!(world.groups("sur0").len(), 2);
        // Made anew, under its old name, by someone who wants no unknown unicast there.
        world.add_port("g1", "flood off");
        steering.return_floods(&place, Some("g1")).await.unwrap();
    });
    assert_eq!(world.groups("sur0"), [""; 0]);
    assert_eq!(world.groups("g1").len(), 1, "{:?}", world.groups("g1"));
    let link = world.hypervisor.run("bridge", &["-d", "-o", "link", "show", "dev", "g1"]);
    assert!(link.contains(" flood off") && link.contains("bcast_flood on"), "{link}");
}

#[test]
fn a_guest_that_sleeps_again_at_its_new_device_keeps_that_devices_flags() {
    let world = World::new("mcast_snooping 0");
    let place = world.place();
    world.steering(async |steering| {
        steering.take_floods(&place, "g1").await.unwrap();
        world.hypervisor.ip("link del g1");
        world.add_port("g1", "mcast_flood off");
        steering.take_floods(&place, "g1").await.unwrap();
        steering.return_floods(&place, Some("g1")).await.unwrap();
    });
    let link = world.hypervisor.run("bridge", &["-d", "-o", "link", "show", "dev", "g1"]);
    assert!(link.contains(" flood on") && link.contains("mcast_flood off"), "{link}");
}

#[test]
fn a_group_of_two_sleepers_stays_with_us_until_the_second_wakes() {
    let world = World::new(SNOOPING);
    world.add_port("g2", "");
    for port in ["g1", "g2"] {
        world.hypervisor.bridge(&format!("mdb add dev br0 port {port} grp 239.1.2.3 temp"));
    }
    let before = world.tables();
    let first = world.place();
    let mut second = world.place();
    (second.guest, second.mac) = ("web2".to_owned(), OTHER);
    second.addresses = vec!["192.0.2.12".parse().unwrap()];
    world.steering(async |steering| {
        steering.take_floods(&first, "g1").await.unwrap();
        steering.take_floods(&second, "g2").await.unwrap();
        steering.return_floods(&first, Some("g1")).await.unwrap();
        let ours = world.groups("sur0");
        assert_eq!(ours.len(), 1, "{ours:?}");
        assert!(ours[0].contains("239.1.2.3"), "{ours:?}");
        steering.return_floods(&second, Some("g2")).await.unwrap();
    });
    assert_eq!(world.tables(), before);
}

#[test]
fn a_port_that_two_vlans_share_gets_its_flags_back_with_the_second() {
    let world = World::new("mcast_snooping 0");
    let before = world.tables();
    let first = world.place();
    let mut second = world.place();
    second.vlan = Some(10);
    world.steering(async |steering| {
        steering.take_floods(&first, "g1").await.unwrap();
        steering.take_floods(&second, "g1").await.unwrap();
        steering.return_floods(&first, Some("g1")).await.unwrap();
        let link = world.hypervisor.run("bridge", &["-d", "-o", "link", "show", "dev", "g1"]);
        assert!(link.contains(" flood off"), "{link}");
        steering.return_floods(&second, Some("g1")).await.unwrap();
    });
    assert_eq!(world.tables(), before);
}

#[test]
fn nothing_passes_a_disabled_port_until_it_is_enabled() {
    let world = World::new("mcast_snooping 0");
    let (before, place) = (world.tables(), world.place());
    let at_guest = Capture::start(&world.hypervisor, "g1-in");
    let at_client = Capture::start(&world.hypervisor, "c1-in");
    let (client, guest) = (world.sender("c1"), world.sender("g1"));
    world.steering(async |steering| {
        steering.disable_port(&place, "g1").await.unwrap();
        steering.disable_port(&place, "g1").await.unwrap();
        client.send(&numbered(Mac::BROADCAST, CLIENT, 1));
        guest.send(&numbered(Mac::BROADCAST, GUEST, 2));
        steering.enable_port(&place, "g1").await.unwrap();
        steering.enable_port(&place, "g1").await.unwrap();
    });
    client.send(&numbered(Mac::BROADCAST, CLIENT, 3));
    guest.send(&numbered(Mac::BROADCAST, GUEST, 4));
    let broadcast = Mac::BROADCAST;
    at_guest.wait("the client", Duration::from_secs(5), |frames| numbers(frames, broadcast) == [3]);
    at_client.wait("the guest", Duration::from_secs(5), |frames| numbers(frames, broadcast) == [4]);
    // Their frames taught the bridge where they are.
    let learned = format!("{CLIENT} dev c1 master br0");
    let after: Vec<_> = world.tables().into_iter().filter(|line| *line != learned).collect();
    assert_eq!(after, before);
}

#[test]
fn a_disabled_port_that_a_change_enabled_is_disabled_again() {
    let world = World::new("mcast_snooping 0");
    let (before, place) = (world.tables(), world.place());
    let state = |wanted| {
        let line = world.hypervisor.run("bridge", &["link", "show", "dev", "g1"]);
        assert!(line.contains(wanted), "wanted {wanted}: {line}");
    };
    world.steering(async |steering| {
        steering.disable_port(&place, "g1").await.unwrap();
        // Taking the floods is no change that the bridge would enable it for.
        steering.take_floods(&place, "g1").await.unwrap();
        state("state disabled");
        let mut links = watch().unwrap();
        world.hypervisor.ip("link set g1 alias renumbered");
        state("state forwarding");
        // What the daemon does when it hears of it.
        loop {
            let heard = tokio::time::timeout(Duration::from_secs(5), links.recv()).await.unwrap().unwrap();
            if let LinkEvent::Changed(link) = heard
                && link.name == "g1"
                && link.port.unwrap().state == 3
            {
                break;
            }
        }
        steering.disable_port(&place, "g1").await.unwrap();
        state("state disabled");
        steering.enable_port(&place, "g1").await.unwrap();
        steering.return_floods(&place, Some("g1")).await.unwrap();
    });
    assert_eq!(world.tables(), before);
}

#[test]
fn a_port_without_carrier_is_not_left_disabled() {
    let world = World::new("mcast_snooping 0");
    let place = world.place();
    world.hypervisor.ip("link set g1-in down");
    world.steering(async |steering| {
        steering.disable_port(&place, "g1").await.unwrap();
        steering.enable_port(&place, "g1").await.unwrap();
        world.hypervisor.ip("link set g1-in up");
        deadline::until("the port forwards", Duration::from_secs(5), || {
            world.hypervisor.run("bridge", &["link", "show", "dev", "g1"]).contains("state forwarding")
        });
        steering.disable_port(&place, "g1").await.unwrap();
        world.hypervisor.ip("link set g1-in down");
        steering.enable_port(&place, "g1").await.unwrap();
        world.hypervisor.ip("link set g1-in up");
    });
    deadline::until("the port forwards again", Duration::from_secs(5), || {
        world.hypervisor.run("bridge", &["link", "show", "dev", "g1"]).contains("state forwarding")
    });
}

/// Whether the kernel can be told the sources of a group: since 6.3.
fn takes_source_lists() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 3)
}

/// A neighbour solicitation for the guest, its hop limit 255 but its payload only a number.
fn solicitation(number: u16) -> Vec<u8> {
    let mut frame = vec![0x33, 0x33, 0xff, 0, 0, 0x11];
    frame.extend(CLIENT.0);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255]);
    frame.extend("2001:db8::99".parse::<std::net::Ipv6Addr>().unwrap().octets());
    frame.extend(GUEST_GROUP.parse::<std::net::Ipv6Addr>().unwrap().octets());
    frame.extend([135, 0, 0, 0, 0, 0]);
    frame.extend(number.to_be_bytes());
    frame.extend("2001:db8::11".parse::<std::net::Ipv6Addr>().unwrap().octets());
    frame
}

/// The numbers of the [`solicitation`]s received.
fn solicited(frames: &[Frame]) -> Vec<u16> {
    frames
        .iter()
        .filter(|frame| !frame.outgoing && frame.bytes.get(54) == Some(&135))
        .map(|frame| u16::from_be_bytes([frame.bytes[60], frame.bytes[61]]))
        .collect()
}

/// The guest asks for `group` from `source` only (RFC 3376 §4.2, ALLOW_NEW_SOURCES).
fn igmpv3_allow(group: [u8; 4], source: [u8; 4]) -> Vec<u8> {
    let mut report = vec![0x22, 0, 0, 0, 0, 0, 0, 1, 5, 0, 0, 1];
    report.extend(group);
    report.extend(source);
    let sum = checksum(&report);
    report[2..4].copy_from_slice(&sum);

    let mut header = vec![0x46, 0xc0, 0, 44, 0, 0, 0, 0, 1, 2, 0, 0, 192, 0, 2, 11, 224, 0, 0, 22];
    header.extend([0x94, 4, 0, 0]);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);

    let mut frame = vec![0x01, 0, 0x5e, 0, 0, 22];
    frame.extend(GUEST.0);
    frame.extend([8, 0]);
    frame.extend(header);
    frame.extend(report);
    frame
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!(folded as u16)).to_be_bytes()
}
