//! What an operator decides, seen on the wire: ports that are closed, echo, when a guest may sleep.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use surrogate_house::capture::Sender;
use surrogate_house::clients::{Pinging, curl, ping_of};
use surrogate_house::deadline::{pause, timed};
use surrogate_house::lab::{LISTEN, Lab, bridge_state};
use surrogate_house::until;
use surrogate_wire::Mac;

const PATIENCE: Duration = Duration::from_secs(30);
/// Nobody listens here, and the configuration says so.
const CLOSED: u16 = 81;

#[test]
fn a_closed_port_of_a_sleeper_refuses_at_once_and_does_not_wake_it() {
    let lab = Lab::one_guest();
    let guest = lab.guest();
    lab.daemon.sleep("web1");
    for address in [guest.v4, guest.v6] {
        let target = SocketAddr::new(address, CLOSED);
        let (refused, took) =
            timed(|| lab.network.c1.enter(|| TcpStream::connect_timeout(&target, PATIENCE)));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert!(took < Duration::from_millis(500), "{took:?}");

        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = lab.network.c1.enter(|| UdpSocket::bind(any)).unwrap();
        socket.connect(target).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send(b"anyone?").unwrap();
        let unreachable = socket.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(unreachable.kind(), ErrorKind::ConnectionRefused, "port unreachable, {address}");
    }
    assert!(guest.is_frozen());
    lab.daemon.assert_conserved();
}

#[test]
fn a_sleeper_that_runs_udp_echo_goes_on_echoing() {
    let lab = Lab::one_guest();
    let guest = lab.guest();
    lab.daemon.sleep("web1");
    for address in [guest.v4, guest.v6] {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = lab.network.c1.enter(|| UdpSocket::bind(any)).unwrap();
        socket.connect(SocketAddr::new(address, 7)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        for length in [0, 1, 17, 1400, 4000] {
            let sent = vec![0x5a; length];
            socket.send(&sent).unwrap();
            let mut back = [0; 5000];
            let received = socket.recv(&mut back).unwrap();
            assert_eq!(back[..received], sent[..], "{address}, {length} bytes");
        }
    }
    assert!(guest.is_frozen());
    lab.daemon.assert_conserved();
}

#[test]
fn a_sleeper_that_runs_daytime_goes_on_telling_it() {
    let lab = Lab::new(1, "", "listen = [\"udp/13\"]");
    let guest = lab.guest();
    lab.daemon.sleep("web1");
    for address in [guest.v4, guest.v6] {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = lab.network.c1.enter(|| UdpSocket::bind(any)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(SocketAddr::new(address, 13)).unwrap();
        socket.send(&[]).unwrap();
        let mut told = [0; 100];
        let length = socket.recv(&mut told).unwrap();
        let told = std::str::from_utf8(&told[..length]).unwrap();
        let year = lab.network.c1.run("date", &["-u", "+%Y"]);
        assert!(told.ends_with(&format!("{}\r\n", year.trim())), "{told}");
    }
    assert!(guest.is_frozen());
    let status = lab.daemon.status("web1");
    assert_eq!(status["nics"][0]["counters"]["answered"]["daytime"], 2, "{status}");
    lab.daemon.assert_conserved();
}

#[test]
fn long_pings_of_a_sleeper_are_answered_in_fragments_and_do_not_wake_it() {
    let lab = Lab::one_guest();
    let guest = lab.guest();
    lab.daemon.sleep("web1");
    for address in [guest.v4, guest.v6] {
        for size in [1473, 3000, 30_000] {
            let pings = ping_of(&lab.network.c1, address, 5, Duration::from_millis(50), size);
            assert!(pings.all_answered(), "{size} bytes: {}", pings.text);
            // It compares what comes back with what it sent.
            assert!(!pings.text.contains("wrong data"), "{}", pings.text);
        }
    }
    assert!(guest.is_frozen());
    let status = lab.daemon.status("web1");
    assert_eq!(status["wakes"], 0, "{status}");
    lab.daemon.assert_conserved();
}

#[test]
fn without_declared_ports_any_syn_wakes_and_the_guest_itself_refuses() {
    let lab = Lab::new(1, "", "");
    let guest = lab.guest();
    lab.daemon.sleep("web1");
    let target = SocketAddr::new(guest.v4, CLOSED);
    let refused = lab.network.c1.enter(|| TcpStream::connect_timeout(&target, PATIENCE));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    until("the guest to be awake", PATIENCE, || lab.daemon.state("web1") == "awake");
    assert!(!guest.is_frozen());
    lab.daemon.assert_conserved();
}

#[test]
fn a_port_that_the_guest_refused_is_refused_while_it_sleeps_and_one_that_nobody_tried_wakes_it() {
    let lab = Lab::new(1, "", "");
    let guest = lab.guest();
    let refused = |port: u16| {
        let target = SocketAddr::new(guest.v4, port);
        let refused = lab.network.c1.enter(|| TcpStream::connect_timeout(&target, PATIENCE));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    };
    let observed = || lab.daemon.status("web1")["nics"][0]["counters"]["observed"].as_u64().unwrap();
    // The first refusal may come before the observer is there, and other frames are seen as well.
    let mut before = observed();
    until("the guest to be observed", PATIENCE, || {
        before = observed();
        (0..20).for_each(|_| refused(CLOSED));
        observed() >= before + 20
    });
    lab.daemon.sleep("web1");
    for _ in 0..3 {
        refused(CLOSED);
    }
    assert!(guest.is_frozen());
    let status = lab.daemon.status("web1");
    assert_eq!(status["nics"][0]["counters"]["answered"]["tcp-reset"], 3, "{status}");
    refused(CLOSED + 1);
    until("the guest to be awake", PATIENCE, || lab.daemon.state("web1") == "awake");
    lab.daemon.assert_conserved();
}

#[test]
fn a_guest_on_an_isolated_port_is_not_put_to_sleep_and_the_reason_is_told() {
    let lab = Lab::one_guest();
    lab.network.hypervisor.bridge("link set dev web1 isolated on");
    let refused = lab.daemon.cli(&["sleep", "web1"]);
    assert!(!refused.status.success(), "{refused:?}");
    assert!(refused.errors.contains("isolated") && refused.errors.trim().lines().count() == 1, "{refused:?}");
    assert!(!lab.guest().is_frozen());
    lab.network.hypervisor.bridge("link set dev web1 isolated off");
    lab.daemon.sleep("web1");
}

#[test]
fn a_guest_that_somebody_else_stops_is_not_stood_in_for_where_its_port_forbids_it() {
    let mut lab = Lab::one_guest();
    let before = bridge_state(&lab.network.hypervisor);
    // Whether the daemon sees it happen or finds it so when it starts.
    for (flag, found_at_start) in [("locked", false), ("isolated", false), ("locked", true)] {
        let set = |lab: &Lab, on| lab.network.hypervisor.bridge(&format!("link set dev web1 {flag} {on}"));
        set(&lab, "on");
        if found_at_start {
            lab.daemon.stop();
            lab.guest().freeze();
            lab.daemon.launch(&lab.network.hypervisor);
        } else {
            lab.guest().freeze();
        }
        let events = lab.daemon.events();
        let told = events.wait("web1", "unmanaged", PATIENCE).detail;
        assert!(told.contains(flag), "{told}");
        assert!(events.all().iter().all(|event| event.kind != "steered"), "{:?}", events.all());
        let status = lab.daemon.status("web1");
        assert_eq!((&status["state"], &status["why"]), (&"unmanaged".into(), &told.into()), "{status}");
        set(&lab, "off");
        until("it to be stood in for", PATIENCE, || lab.daemon.state("web1") == "asleep");
        lab.guest().thaw();
        until("it to be awake", PATIENCE, || lab.daemon.state("web1") == "awake");
        lab.daemon.stop();
        lab.daemon.launch(&lab.network.hypervisor);
        until("it to be known", PATIENCE, || lab.daemon.state("web1") == "awake");
    }
    let ours = |fact: &String| fact.contains("\"sgt");
    let state = |facts: Vec<String>| facts.into_iter().filter(|fact| !ours(fact)).collect::<Vec<_>>();
    assert_eq!(state(bridge_state(&lab.network.hypervisor)), state(before));
}

#[test]
fn who_forges_a_sleepers_mac_silences_it_for_moments_and_is_told_of() {
    let lab = Lab::one_guest();
    let guest = lab.guest();
    let events = lab.daemon.events();
    lab.daemon.sleep("web1");
    let own: Mac = guest.mac.parse().unwrap();
    let frame = [&[0xff; 6][..], &own.0, &[0x88, 0xb5], &[0; 46]].concat();
    let stranger = Sender::new(&lab.network.c2, "eth0");
    let pinging = Pinging::start(&lab.network.c1, guest.v4, Duration::from_millis(10));
    stranger.send(&frame);
    let first = events.wait("web1", "spoofed", PATIENCE);
    for _ in 0..100 {
        stranger.send(&frame);
    }
    // With what came meanwhile, the hypervisor is asked once more, when the first second is over.
    let second = events.wait_after(first.seq, "web1", "spoofed", PATIENCE);
    assert!(second.detail.contains("2 times in a row"), "{second:?}");
    let pings = pinging.stop();
    assert!(pings.all_answered(), "{}", pings.text);
    assert!(guest.is_frozen());
    let status = lab.daemon.status("web1");
    assert_eq!((&status["state"], &status["nics"][0]["mode"]), (&"asleep".into(), &"answer".into()));
    let counters = &status["nics"][0]["counters"];
    assert_eq!(counters["silencing"], 2, "{counters}");
    assert!(counters["own_source"].as_u64().is_some_and(|n| (2..=101).contains(&n)), "{counters}");
    lab.daemon.assert_conserved();
}

#[test]
fn a_quiet_guest_falls_asleep_by_itself_and_one_under_traffic_does_not() {
    let rule = "idle_after = \"1s\"\nmin_awake = \"1s\"\nidle_cpu = 50\nidle_packets = 20";
    let lab = Lab::new(2, "", &format!("{rule}\n{LISTEN}"));
    let [quiet, busy] = &lab.guests[..] else { panic!("two guests") };
    let events = lab.daemon.events();
    let pinging = Pinging::start(&lab.network.c1, busy.v4, Duration::from_millis(10));
    events.wait("web1", "asleep", PATIENCE);
    assert!(quiet.is_frozen());
    // Twice the time that made the other one sleep.
    pause(Duration::from_secs(3));
    assert!(!busy.is_frozen());
    let pings = pinging.stop();
    assert!(pings.all_answered(), "{}", pings.text);
    events.wait("web2", "asleep", PATIENCE);

    let seq = events.last();
    assert_eq!(curl(&lab.network.c1, quiet.v4).unwrap().body, quiet.page());
    events.wait_after(seq, "web1", "awake", PATIENCE);
    events.wait_after(seq, "web1", "asleep", PATIENCE);
    lab.daemon.assert_conserved();
}

#[test]
fn wakes_beyond_the_budget_are_put_off_and_held_frames_wait_for_them() {
    let lab = Lab::new(1, "", &format!("wake_budget = {{ burst = 1, per_minute = 20 }}\n{LISTEN}"));
    let guest = lab.guest();
    let events = lab.daemon.events();
    lab.daemon.sleep("web1");
    assert!(curl(&lab.network.c1, guest.v4).unwrap().took < Duration::from_secs(1));
    until("the guest to be awake", PATIENCE, || lab.daemon.state("web1") == "awake");
    lab.daemon.sleep("web1");
    // The next token comes after three seconds; the client sees one slow answer.
    let page = curl(&lab.network.c1, guest.v4).unwrap();
    assert_eq!(page.body, guest.page());
    assert!(page.took > Duration::from_secs(1), "{page:?}");
    assert!(events.all().iter().any(|event| event.kind == "wake-put-off"), "{:?}", events.all());
    lab.daemon.assert_conserved();
}
