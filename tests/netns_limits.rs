//! What is limited, from the configuration to the wire: what is held, and how many wakes run at once.

use std::sync::Barrier;
use std::time::Duration;

use serde_json::json;
use surrogate_house::capture::Capture;
use surrogate_house::clients::curl;
use surrogate_house::lab::{LISTEN, Lab};
use surrogate_house::numbered::{Datagrams, Flow, arrived, numbered};
use surrogate_house::{Config, Daemon, Events, Namespace, NetnsGuest, Network, until};

const PATIENCE: Duration = Duration::from_secs(20);
/// Wakes that may be under way at once, as configured where that matters.
const CEILING: usize = 3;

/// A lab with `hold` as configured, whose client asks nobody where the guest is: only what a test sends is
/// held.
fn lab(hold: &str, more: &str, delay: &str) -> Lab {
    let lab = Lab::new(1, &format!("delay = \"{delay}\""), &format!("hold = {{ {hold} }}\n{more}\n{LISTEN}"));
    let guest = lab.guest();
    for address in [guest.v4, guest.v6] {
        lab.network.c1.ip(&format!("neigh replace {address} lladdr {} dev eth0 nud permanent", guest.mac));
    }
    lab
}

/// Sends `all` datagrams, each a flow of its own, to the sleeper that is slow to wake. Exactly the first
/// `kept` may arrive; the rest must be counted as dropped for want of room, before the guest runs.
fn exactly_so_many_arrive(lab: &Lab, all: u32, kept: u32, padding: usize) {
    let guest = lab.guest();
    let events = lab.daemon.events();
    let flow = |_| Datagrams::new(&lab.network.c1, guest.v4, "flow-limited").longer(padding);
    let flows: Vec<_> = (0..all).map(flow).collect();
    lab.daemon.sleep("web1");
    let sniffer = Capture::start(&guest.namespace, "eth0");
    let seq = events.last();
    for (number, flow) in (1..).zip(&flows) {
        flow.send(number);
    }
    let dropped = u64::from(all - kept);
    until("the rest to be dropped", PATIENCE, || {
        let counters = &lab.daemon.status("web1")["nics"][0]["counters"];
        counters["dropped"]["buffer-full"] == dropped && counters["holding"] == kept
    });
    assert!(guest.is_frozen(), "it is still on its way up");
    let metrics = lab.daemon.metrics();
    let labels = [("guest", "web1"), ("nic", "0"), ("reason", "buffer-full")];
    assert_eq!(metrics.value("surrogate_frames_dropped_total", &labels), Some(dropped as f64));
    assert_eq!(metrics.value("surrogate_frames_holding", &labels[..2]), Some(f64::from(kept)));

    events.wait_after(seq, "web1", "awake", PATIENCE);
    sniffer.wait("what was kept", PATIENCE, |f| f.iter().filter_map(numbered).count() >= kept as usize);
    assert_eq!(arrived(&sniffer.stop(), "flow-limited"), (1..=kept).collect::<Vec<_>>());
    let counters = &lab.daemon.status("web1")["nics"][0]["counters"];
    assert_eq!((&counters["holding"], &counters["held_dropped"]), (&0.into(), &json!({})), "{counters}");
    lab.daemon.assert_conserved();
}

#[test]
fn beyond_the_configured_frames_nothing_more_is_held_and_what_is_held_arrives() {
    exactly_so_many_arrive(&lab("frames = 16", "", "3s"), 40, 16, 0);
}

#[test]
fn beyond_the_configured_bytes_nothing_more_is_held_and_what_is_held_arrives() {
    // Ethernet, IPv4 and UDP headers, `flow-limited NN.` with one digit or two, and the padding.
    let frame = 14 + 20 + 8 + 16 + 900;
    let padding = 900;
    exactly_so_many_arrive(&lab(&format!("bytes = {}", 9 * frame + frame / 2), "", "3s"), 30, 9, padding);
}

#[test]
fn one_flow_gets_half_of_the_configured_frames() {
    let lab = lab("frames = 16", "", "3s");
    let guest = lab.guest();
    let events = lab.daemon.events();
    let (greedy, modest) = (
        Datagrams::new(&lab.network.c1, guest.v4, "flow-greedy"),
        Datagrams::new(&lab.network.c1, guest.v6, "flow-modest"),
    );
    lab.daemon.sleep("web1");
    let sniffer = Capture::start(&guest.namespace, "eth0");
    for number in 1..=30 {
        greedy.send(number);
    }
    modest.send(1);
    let count = |frames: &[_]| frames.iter().filter_map(numbered).count();
    events.wait("web1", "awake", PATIENCE);
    sniffer.wait("both flows", PATIENCE, |frames| count(frames) >= 9);
    let frames = sniffer.stop();
    assert_eq!(arrived(&frames, "flow-greedy"), (1..=8).collect::<Vec<_>>());
    assert_eq!(arrived(&frames, "flow-modest"), [1]);
    assert_eq!(lab.daemon.status("web1")["nics"][0]["counters"]["dropped"]["buffer-full"], 22);
    lab.daemon.assert_conserved();
}

#[test]
fn what_is_held_longer_than_configured_does_not_arrive_any_more() {
    let lab = lab("age = \"1s\"", "wake = \"never\"\nwake_timeout = \"1s\"", "0s");
    let guest = lab.guest();
    let flow = Datagrams::new(&lab.network.c1, guest.v4, "flow-aged");
    lab.daemon.sleep("web1");
    let sniffer = Capture::start(&guest.namespace, "eth0");
    for number in 1..=5 {
        flow.send(number);
    }
    until("it to be too old", PATIENCE, || {
        lab.daemon.status("web1")["nics"][0]["counters"]["held_dropped"]["aged"] == 5
    });
    let labels = [("guest", "web1"), ("nic", "0"), ("reason", "aged")];
    assert_eq!(lab.daemon.metrics().value("surrogate_frames_held_dropped_total", &labels), Some(5.0));
    flow.send(6);
    until("it to be held", PATIENCE, || lab.daemon.status("web1")["nics"][0]["counters"]["held"] == 6);
    lab.daemon.wake("web1");
    sniffer.wait("the newest", PATIENCE, |frames| frames.iter().any(|f| numbered(f).is_some()));
    assert_eq!(arrived(&sniffer.stop(), "flow-aged"), [6]);
    lab.daemon.assert_conserved();
}

#[test]
fn no_more_guests_wake_at_once_than_the_host_bears_and_all_are_served() {
    let network = Network::new();
    let guests: Vec<_> = (1..=8).map(|number| NetnsGuest::with_page(&network, number)).collect();
    let mut config = Config::netns("delay = \"1s\"", "");
    config.daemon = format!("wake_limit = {{ at_once = {CEILING} }}");
    let config = guests.iter().fold(config, |config, guest| config.with(&guest.section(LISTEN)));
    let daemon = Daemon::start(&network.hypervisor, &config);
    std::thread::scope(|scope| {
        for guest in &guests {
            scope.spawn(|| daemon.sleep(&guest.name));
        }
    });
    assert!(guests.iter().all(NetnsGuest::is_frozen));
    let events = daemon.events();
    events.wait("web1", "asleep", PATIENCE);
    let start = Barrier::new(guests.len());
    std::thread::scope(|scope| {
        for guest in &guests {
            let (client, start): (&Namespace, _) = (&network.c1, &start);
            scope.spawn(move || {
                start.wait();
                assert_eq!(curl(client, guest.v4).unwrap().body, guest.page());
            });
        }
    });
    for guest in &guests {
        events.wait(&guest.name, "awake", PATIENCE);
        assert!(!guest.is_frozen());
        let status = daemon.status(&guest.name);
        assert_eq!((&status["state"], &status["wakes"]), (&"awake".into(), &1.into()), "{status}");
    }
    let (most, put_off) = under_way(&events);
    assert_eq!(most, CEILING, "as many as may be, and no more: {:#?}", events.all());
    assert_eq!(put_off, guests.len() - CEILING);
    let all = events.all();
    let told = all.iter().filter(|event| event.kind == "wake-put-off");
    for event in told {
        assert!(event.detail.starts_with("as many guests wake as may at once: "), "{event:?}");
    }
    daemon.assert_conserved();
}

/// The most wakes that were under way at once, and how many guests had to wait for a place.
fn under_way(events: &Events) -> (usize, usize) {
    let (mut now, mut most, mut put_off) = (0, 0, 0);
    for event in events.all() {
        match event.kind.as_str() {
            "waking" => now += 1,
            "replaying" => now -= 1,
            "wake-put-off" => put_off += 1,
            _ => {}
        }
        most = most.max(now);
    }
    (most, put_off)
}
