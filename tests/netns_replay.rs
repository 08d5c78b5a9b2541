//! What is sent around a sleep and a wake: each frame arrives once, in order, or aborts the sleep.

use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use surrogate_house::capture::{Capture, Frame};
use surrogate_house::deadline::{pause, timed};
use surrogate_house::lab::{LISTEN, Lab};
use surrogate_house::numbered::{Bare, Datagrams, Flow, numbered};
use surrogate_house::{Namespace, until};

const PATIENCE: Duration = Duration::from_secs(30);

fn datagrams(client: &Namespace, address: IpAddr, name: &str) -> Box<dyn Flow> {
    Box::new(Datagrams::new(client, address, name))
}

fn bare(client: &Namespace, mac: &str, own: [u8; 6], name: &str) -> Box<dyn Flow> {
    Box::new(Bare::new(client, mac, own, name))
}

#[test]
fn a_thousand_mixed_frames_during_a_slow_wake_arrive_once_and_in_order() {
    let lab = Lab::new(1, "delay = \"2s\"", LISTEN);
    let (network, guest) = (&lab.network, lab.guest());
    let flows: Vec<Box<dyn Flow>> = vec![
        datagrams(&network.c1, guest.v4, "flow-c1-v4"),
        datagrams(&network.c1, guest.v6, "flow-c1-v6"),
        datagrams(&network.c2, guest.v4, "flow-c2-v4"),
        bare(&network.c1, &guest.mac, [2, 0, 0, 0, 1, 1], "flow-c1-bare"),
        bare(&network.c2, &guest.mac, [2, 0, 0, 0, 1, 2], "flow-c2-bare"),
    ];
    let events = lab.daemon.events();
    lab.daemon.sleep("web1");
    assert!(guest.is_frozen());
    let sniffer = Capture::start(&guest.namespace, "eth0");

    let began = events.last();
    flows[3].send(0);
    events.wait_after(began, "web1", "waking", PATIENCE);
    let per_flow = 220;
    let ((), took) = timed(|| {
        for number in 1..=per_flow {
            for flow in &flows {
                flow.send(number);
            }
            // Spread over more than the two seconds, so that replay and release happen under way.
            pause(Duration::from_millis(10));
        }
    });
    assert!(took > Duration::from_millis(2100), "{took:?}");
    until("the guest to be awake", PATIENCE, || lab.daemon.state("web1") == "awake");
    let last = |frames: &[Frame]| {
        frames.iter().filter_map(numbered).filter(|(_, number)| *number == per_flow).count() == flows.len()
    };
    sniffer.wait("the last of each flow", PATIENCE, last);
    let frames = sniffer.stop();

    let mut arrived: HashMap<String, Vec<u32>> = HashMap::new();
    for (flow, number) in frames.iter().filter(|frame| !frame.outgoing).filter_map(numbered) {
        arrived.entry(flow).or_default().push(number);
    }
    let total: usize = arrived.values().map(Vec::len).sum();
    let mut inversions = 0;
    for (flow, numbers) in &arrived {
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        let first = u32::from(flow != "flow-c1-bare");
        assert_eq!(sorted, (first..=per_flow).collect::<Vec<_>>(), "{flow}: each exactly once");
        inversions += numbers.windows(2).filter(|pair| pair[0] > pair[1]).count() as u64;
    }
    assert_eq!(arrived.len(), flows.len());
    assert!(total > 1000, "{total} frames");
    let status = lab.daemon.status("web1");
    let counters = &status["nics"][0]["counters"];
    let overtaken = counters["overtaken"].as_u64().unwrap();
    assert!(inversions <= overtaken, "{inversions} out of order, {overtaken} counted as overtaken");
    assert!(counters["replayed"].as_u64().unwrap() > 700, "{counters}");
    println!("{total} frames, {} replayed, {overtaken} overtaken", counters["replayed"]);
    lab.daemon.assert_conserved();
}

#[test]
fn a_frame_between_steered_and_suspended_aborts_the_sleep_and_is_delivered() {
    let lab = Lab::new(1, "delay = \"200ms\"", LISTEN);
    let (network, guest) = (&lab.network, lab.guest());
    let flow = bare(&network.c1, &guest.mac, [2, 0, 0, 0, 1, 1], "flow-abort");
    let events = lab.daemon.events();
    let sniffer = Capture::start(&guest.namespace, "eth0");
    std::thread::scope(|scope| {
        let order = scope.spawn(|| lab.daemon.cli(&["sleep", "web1"]));
        events.wait("web1", "steered", PATIENCE);
        flow.send(1);
        let outcome = order.join().unwrap();
        assert!(!outcome.status.success(), "{outcome:?}");
        assert_eq!(outcome.errors.lines().count(), 1, "one line says why: {outcome:?}");
    });
    events.wait("web1", "aborted", PATIENCE);
    let awake = events.wait("web1", "awake", PATIENCE);
    let kinds: Vec<_> = events.all().into_iter().map(|event| event.kind).collect();
    assert!(!kinds.iter().any(|kind| kind == "asleep"), "{kinds:?}");
    assert_eq!(lab.daemon.state("web1"), "awake", "{awake:?}");
    assert!(!guest.is_frozen());
    let mine = |frame: &Frame| numbered(frame) == Some(("flow-abort".into(), 1));
    sniffer.wait("the frame", PATIENCE, |frames| frames.iter().any(mine));
    assert_eq!(sniffer.stop().iter().filter(|frame| mine(frame)).count(), 1, "exactly once");
    // And the next try, undisturbed, succeeds.
    lab.daemon.sleep("web1");
    lab.daemon.assert_conserved();
}

#[test]
fn a_broadcast_datagram_is_kept_for_the_next_wake() {
    let lab = Lab::one_guest();
    let (network, guest) = (&lab.network, lab.guest());
    let socket = network.c1.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.set_broadcast(true).unwrap();
    lab.daemon.sleep("web1");
    let sniffer = Capture::start(&guest.namespace, "eth0");
    for number in 1..=3 {
        socket.send_to(format!("flow-broadcast {number}.").as_bytes(), "192.0.2.255:514").unwrap();
    }
    until("it to be held", PATIENCE, || lab.daemon.status("web1")["nics"][0]["counters"]["holding"] == 3);
    assert!(guest.is_frozen(), "a broadcast does not wake it");
    assert_eq!(sniffer.frames().iter().filter_map(numbered).count(), 0);
    lab.daemon.wake("web1");
    sniffer.wait("the datagrams", PATIENCE, |f| f.iter().filter_map(numbered).count() == 3);
    let numbers: Vec<_> = sniffer.stop().iter().filter_map(numbered).map(|(_, number)| number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    lab.daemon.assert_conserved();
}
