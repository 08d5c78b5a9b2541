//! Forwarding entries: steering, releasing, forgetting.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use surrogate::io::steering::{PortRefused, SteeringError};
use surrogate_house::{Capture, deadline};

use crate::world::{CLIENT, GUEST, OTHER, World, numbered, numbers};

#[test]
fn no_frame_is_lost_or_doubled_while_its_entry_flips_to_and_fro() {
    let world = World::new("mcast_snooping 0");
    let place = world.place();
    let at_guest = Capture::start(&world.hypervisor, "g1-in");
    let at_surrogate = Capture::start(&world.hypervisor, "sur0-in");
    let client = world.sender("c1");

    let (sending, flips) = (AtomicBool::new(true), AtomicU32::new(0));
    let sent = std::thread::scope(|scope| {
        scope.spawn(|| {
            world.steering(async |steering| {
                while sending.load(Ordering::Relaxed) {
                    steering.steer(&place, Some("g1")).await.unwrap();
                    steering.release(&place, "g1").await.unwrap();
                    flips.fetch_add(2, Ordering::Relaxed);
                }
            });
        });
        // Long enough for many flips, however slow the disk that each is recorded on.
        let mut sent = 0;
        while sent < 4_000 || (flips.load(Ordering::Relaxed) < 200 && sent < 100_000) {
            client.send(&numbered(GUEST, CLIENT, sent));
            sent += 1;
            deadline::pause(Duration::from_micros(200));
        }
        sending.store(false, Ordering::Relaxed);
        sent
    });

    let (at_guest, at_surrogate) = (numbers(&at_guest.stop(), GUEST), numbers(&at_surrogate.stop(), GUEST));
    println!("{flips:?} flips, {} at the guest, {} at the surrogate", at_guest.len(), at_surrogate.len());
    assert!(flips.into_inner() >= 200, "hardly any flips: the test shows nothing");
    assert!(at_guest.len() > 100 && at_surrogate.len() > 100, "one side saw hardly anything");
    let mut all = [at_guest, at_surrogate].concat();
    all.sort_unstable();
    assert_eq!(all, (0..sent).collect::<Vec<_>>());
}

#[test]
fn a_spoofed_source_address_does_not_move_a_steered_guest() {
    let world = World::new("mcast_snooping 0");
    let place = world.place();
    world.steering(async |steering| steering.steer(&place, Some("g1")).await.unwrap());
    let at_surrogate = Capture::start(&world.hypervisor, "sur0-in");
    let at_guest = Capture::start(&world.hypervisor, "g1-in");

    // The guest itself, and then a thief.
    world.sender("g1").send(&numbered(CLIENT, GUEST, 1));
    world.sender("c1").send(&numbered(OTHER, GUEST, 2));
    world.sender("c1").send(&numbered(GUEST, CLIENT, 3));

    at_surrogate.wait("the client's frame", Duration::from_secs(5), |frames| numbers(frames, GUEST) == [3]);
    assert!(numbers(&at_guest.stop(), GUEST).is_empty());
    // Where the kernel knows VLANs there is another one for the default VLAN.
    let entries = world.entries(GUEST);
    let stays = |entry: &String| {
        entry.contains("dev sur0 ") && entry.contains(" sticky ") && entry.ends_with("static")
    };
    assert!(!entries.is_empty() && entries.iter().all(stays), "{entries:?}");
}

#[test]
fn a_released_guest_has_its_entry_as_it_was_and_may_roam_again() {
    for kind in ["dynamic", "static", "static sticky"] {
        let world = World::new("mcast_snooping 0");
        world.hypervisor.bridge(&format!("fdb replace {GUEST} dev g1 master {kind}"));
        let (before, place) = (world.tables(), world.place());
        world.steering(async |steering| {
            steering.steer(&place, Some("g1")).await.unwrap();
            steering.steer(&place, Some("g1")).await.unwrap();
            steering.release(&place, "g1").await.unwrap();
        });
        assert_eq!(world.tables(), before, "{kind}");
        world.steering(async |steering| assert!(steering.reconcile(|_| false).await.released.is_empty()));
    }
}

#[test]
fn a_guest_without_a_port_is_steered_and_released_to_the_one_it_gets() {
    let world = World::new("mcast_snooping 0");
    let place = world.place();
    world.hypervisor.ip("link del g1");
    world.steering(async |steering| {
        steering.steer(&place, None).await.unwrap();
        let refused = steering.release(&place, "g1").await.unwrap_err();
        assert!(matches!(refused, SteeringError::NoPort(_)), "{refused}");
        assert!(world.entries(GUEST)[0].contains("dev sur0"));
        world.add_port("g1", "");
        steering.release(&place, "g1").await.unwrap();
    });
    assert!(world.entries(GUEST)[0].contains("dev g1"), "{:?}", world.entries(GUEST));
}

#[test]
fn a_forgotten_guest_leaves_no_entry_and_no_record() {
    let world = World::new("mcast_snooping 1 mcast_querier 1");
    let place = world.place();
    world.steering(async |steering| {
        steering.steer(&place, Some("g1")).await.unwrap();
        steering.take_floods(&place, "g1").await.unwrap();
        steering.disable_port(&place, "g1").await.unwrap();
        world.hypervisor.ip("link del g1");
        assert!(steering.reconcile(|_| false).await.is_complete());
        assert_eq!(world.entries(GUEST), [""; 0]);
        assert_eq!(world.groups("sur0"), [""; 0]);
        assert!(steering.reconcile(|_| false).await.released.is_empty());
    });
}

#[test]
fn frames_for_the_service_address_come_to_our_port_only() {
    let world = World::new("mcast_snooping 0");
    let port = world.ifindex("sur0");
    world.steering(async |steering| steering.own_mac("br0", None, port, OTHER).await.unwrap());
    let (at_surrogate, at_guest) =
        (Capture::start(&world.hypervisor, "sur0-in"), Capture::start(&world.hypervisor, "g1-in"));
    world.sender("c1").send(&numbered(OTHER, CLIENT, 1));
    at_surrogate.wait("the frame", Duration::from_secs(5), |frames| numbers(frames, OTHER) == [1]);
    assert!(numbers(&at_guest.stop(), OTHER).is_empty());
    world.lose_surrogate_port();
    assert_eq!(world.entries(OTHER), [""; 0]);
}

#[test]
fn ports_that_cannot_be_served_are_refused_with_the_reason() {
    let world = World::new("");
    world.add_port("iso", "isolated on");
    world.hypervisor.ip("link add br1 type bridge\n\
         link add lone type veth peer name lone-in\n\
         tuntap add tap0 mode tap\n\
         link set tap0 master br0");
    world.steering(async |steering| {
        assert_eq!(steering.check_port("br0", "g1", None).await.unwrap().name, "g1");
        assert_eq!(steering.check_port("br0", "tap0", Some(7)).await.unwrap().name, "tap0");
        let refused = async |bridge, port| steering.check_port(bridge, port, None).await.unwrap_err();
        assert!(matches!(refused("br0", "iso").await, PortRefused::Isolated(_)));
        assert!(matches!(refused("br9", "g1").await, PortRefused::NoBridge(_)));
        assert!(matches!(refused("lone", "g1").await, PortRefused::NotALinuxBridge { .. }));
        assert!(matches!(refused("br0", "nowhere").await, PortRefused::NoPort(_)));
        assert!(matches!(refused("br0", "a-name-longer-than-any").await, PortRefused::NoPort(_)));
        assert!(matches!(refused("br0", "lone").await, PortRefused::NotOnBridge { .. }));
        assert!(matches!(refused("br1", "g1").await, PortRefused::NotOnBridge { .. }));
        let bridge_as_port = refused("br0", "br1").await.to_string();
        assert_eq!(bridge_as_port, "br1 is no port of br0");
    });
}
