//! VLAN-aware bridges. Where the kernel has none, these tests say `skipped`.

use std::net::IpAddr;
use std::time::Duration;

use surrogate::io::steering::Place;
use surrogate_house::{Capture, Frame, Namespace};
use surrogate_wire::Mac;

use crate::world::{CLIENT, GUEST, World, numbered, numbers};

/// A bridge on which guest and client have untagged ports in VLAN 10; `None` if the kernel cannot.
fn vlan_aware(more: &str) -> Option<World> {
    let probe = Namespace::new("vlans");
    let bridge = ["link", "add", "br0", "type", "bridge", "vlan_filtering", "1"];
    if !probe.command("ip").args(bridge).stderr(std::process::Stdio::null()).status().unwrap().success() {
        println!("skipped: this kernel has no VLAN-aware bridges");
        return None;
    }
    let world = World::new(&format!("vlan_filtering 1 {more}"));
    world.hypervisor.bridge(&format!(
        "fdb del {GUEST} dev g1 master\n\
         vlan del dev g1 vid 1\nvlan add dev g1 vid 10 pvid untagged\n\
         vlan del dev c1 vid 1\nvlan add dev c1 vid 10 pvid untagged\n\
         fdb replace {GUEST} dev g1 master dynamic vlan 10"
    ));
    Some(world)
}

#[test]
fn a_guest_in_a_vlan_is_steered_tagged_and_released_untagged() {
    let Some(world) = vlan_aware("mcast_snooping 0") else { return };
    let mut place = world.place();
    place.vlan = Some(10);
    let before = world.tables();
    let (at_guest, at_surrogate) =
        (Capture::start(&world.hypervisor, "g1-in"), Capture::start(&world.hypervisor, "sur0-in"));
    let client = world.sender("c1");
    world.steering(async |steering| {
        steering.steer(&place, Some("g1")).await.unwrap();
        client.send(&numbered(GUEST, CLIENT, 1));
        at_surrogate.wait("the tagged frame", Duration::from_secs(5), |frames| in_vlan_10(frames) == [1]);
        steering.release(&place, "g1").await.unwrap();
        client.send(&numbered(GUEST, CLIENT, 2));
        at_guest.wait("the untagged frame", Duration::from_secs(5), |frames| numbers(frames, GUEST) == [2]);
    });
    assert_eq!(in_vlan_10(&at_surrogate.stop()), [1]);
    // The client's frames taught the bridge where it is; our port's own VLANs go with it.
    let ours = |line: &String| !line.starts_with(&CLIENT.to_string()) && !line.contains("dev sur0 vlan 10");
    let after: Vec<_> = world.tables().into_iter().filter(ours).collect();
    assert_eq!(after, before);
}

#[test]
fn a_delivery_port_says_which_vlan_has_no_tag_there() {
    let Some(world) = vlan_aware("mcast_snooping 0") else { return };
    world.hypervisor.bridge("vlan add dev g1 vid 20");
    let g1 = world.ifindex("g1");
    let found = world.steering(async |steering| {
        let mut found = Vec::new();
        for vlan in [None, Some(10), Some(20)] {
            found.push(steering.delivery_port("br0", vlan, "g1").await.unwrap());
        }
        found.push(steering.delivery_port("br0", Some(10), "gone0").await.unwrap());
        found
    });
    assert_eq!(found, [Some((g1, None)), Some((g1, Some(10))), Some((g1, None)), None]);
}

#[test]
fn a_port_whose_untagged_frames_are_in_another_vlan_than_configured_is_refused() {
    let Some(world) = vlan_aware("mcast_snooping 0") else { return };
    let check = |vlan| {
        world.steering(async |steering| {
            let checked = steering.check_port("br0", "g1", vlan).await;
            checked.map(|link| link.name).map_err(|why| why.to_string())
        })
    };
    assert_eq!(check(Some(10)), Ok("g1".to_owned()));
    let why =
        "untagged frames at g1 are of VLAN 10 (its PVID), not of the bridge's default VLAN: give `vlan = 10`";
    assert_eq!(check(None), Err(why.to_owned()));
    assert_eq!(check(Some(20)), Err("g1 is no member of VLAN 20, which is configured for it".to_owned()));
    world.hypervisor.bridge("vlan add dev g1 vid 20\nvlan del dev g1 vid 10");
    assert_eq!(check(Some(20)), Ok("g1".to_owned()), "tagged");
    let why = "g1 has no PVID, so that its guest's untagged frames are dropped: give the guest's `vlan`";
    assert_eq!(check(None), Err(why.to_owned()));
    world.hypervisor.bridge("vlan add dev g1 vid 1 pvid untagged");
    assert_eq!(check(None), Ok("g1".to_owned()));
}

#[test]
fn a_guest_in_a_vlan_of_a_bridge_whose_tags_are_service_tags_is_refused() {
    let Some(world) = vlan_aware("mcast_snooping 0") else { return };
    world.hypervisor.ip("link set br0 type bridge vlan_protocol 802.1ad");
    let check = |vlan| {
        world.steering(async |steering| {
            let checked = steering.check_port("br0", "g1", vlan).await;
            checked.map(|link| link.name).map_err(|why| why.to_string())
        })
    };
    let why = "the VLANs of br0 are 802.1ad (its vlan_protocol), and `vlan` can only be one of 802.1Q there";
    assert_eq!(check(Some(10)), Err(why.to_owned()));
    world.hypervisor.bridge("vlan add dev g1 vid 1 pvid untagged");
    assert_eq!(check(None), Ok("g1".to_owned()), "untagged, it is like any other");
}

#[test]
fn our_port_leaves_a_vlan_with_the_last_guest_that_is_steered_there() {
    let Some(world) = vlan_aware("mcast_snooping 0") else { return };
    let service = Mac([2, 0, 0, 0, 0, 0xfe]);
    let one = Place { vlan: Some(10), ..world.place() };
    let other = Place { guest: "other".to_owned(), mac: Mac([2, 0, 0, 0, 0, 0x77]), ..one.clone() };
    let ours = || world.tables().into_iter().filter(|line| line.contains("dev sur0 vlan 10")).count();
    world.steering(async |steering| {
        for place in [&one, &other] {
            steering.steer(place, Some("g1")).await.unwrap();
            steering.own_mac("br0", Some(10), place.surrogate_port, service).await.unwrap();
        }
        assert_eq!(ours(), 4, "both guests, our services, our port itself: {:?}", world.tables());
        steering.release(&one, "g1").await.unwrap();
        steering.leave_vlan(&one, service).await.unwrap();
        assert_eq!(ours(), 3, "the other one still needs it: {:?}", world.tables());
        steering.release(&other, "g1").await.unwrap();
        for _ in 0..2 {
            steering.leave_vlan(&other, service).await.unwrap();
            assert_eq!(ours(), 0, "{:?}", world.tables());
        }
    });
}

#[test]
fn a_guest_in_the_default_vlan_is_steered_untagged() {
    let Some(world) = vlan_aware("mcast_snooping 0") else { return };
    world.hypervisor.bridge(&format!(
        "fdb del {GUEST} dev g1 master vlan 10\n\
         vlan del dev g1 vid 10\nvlan add dev g1 vid 1 pvid untagged\n\
         vlan del dev c1 vid 10\nvlan add dev c1 vid 1 pvid untagged\n\
         fdb replace {GUEST} dev g1 master dynamic vlan 1"
    ));
    let place = world.place();
    let at_surrogate = Capture::start(&world.hypervisor, "sur0-in");
    world.steering(async |steering| steering.steer(&place, Some("g1")).await.unwrap());
    world.sender("c1").send(&numbered(GUEST, CLIENT, 1));
    at_surrogate.wait("the untagged frame", Duration::from_secs(5), |frames| numbers(frames, GUEST) == [1]);
    world.steering(async |steering| steering.release(&place, "g1").await.unwrap());
    let entries = world.entries(GUEST);
    assert!(entries.len() == 1 && entries[0].contains("dev g1 vlan 1 "), "{entries:?}");
}

#[test]
fn groups_in_a_vlan_are_taken_and_put_back_there() {
    let Some(world) = vlan_aware("mcast_snooping 1") else { return };
    world.hypervisor.bridge("mdb add dev br0 port g1 grp 239.1.2.3 temp vid 10");
    let mut place = world.place();
    place.vlan = Some(10);
    let before = world.tables();
    world.steering(async |steering| {
        steering.steer(&place, Some("g1")).await.unwrap();
        let joined = steering.take_floods(&place, "g1").await.unwrap();
        assert_eq!(joined, ["239.1.2.3".parse::<IpAddr>().unwrap()]);
        assert_eq!(world.groups("g1"), [""; 0]);
        let ours = world.groups("sur0");
        assert!(ours.len() == 2 && ours.iter().all(|group| group.contains("vid 10")), "{ours:?}");
        steering.return_floods(&place, Some("g1")).await.unwrap();
        steering.release(&place, "g1").await.unwrap();
    });
    let after: Vec<_> =
        world.tables().into_iter().filter(|line| !line.contains("dev sur0 vlan 10")).collect();
    assert_eq!(after, before);
}

/// The numbers of the [`numbered`] frames for the guest that came with the tag of VLAN 10.
fn in_vlan_10(frames: &[Frame]) -> Vec<u32> {
    frames
        .iter()
        .filter(|frame| !frame.outgoing && frame.destination() == GUEST.0)
        .filter(|frame| frame.bytes[12..18] == [0x81, 0, 0, 10, 0x88, 0xb5])
        .map(|frame| u32::from_be_bytes(frame.bytes[18..22].try_into().unwrap()))
        .collect()
}
