//! Surrogate on a real bridge with real clients; guests are namespaces that are frozen and thawed.
//!
//! The main job, seen from another host: a sleeper answers, serves and loses nothing.

use std::time::Duration;

use surrogate_house::capture::{Capture, Frame, RST, retransmissions};
use surrogate_house::clients::{Echo, Pings, arping, curl, ping};
use surrogate_house::lab::{Lab, bridge_state};
use surrogate_house::until;

const PATIENCE: Duration = Duration::from_secs(30);
/// What a sleeping guest's first page may take, by the project's own target.
const WAKE: Duration = Duration::from_millis(900);

fn assert_all(pings: &Pings, count: u32) {
    assert!(pings.all_answered() && pings.sent == count, "{}", pings.text);
}

#[test]
fn ping_arping_and_ping6_get_every_answer_from_a_frozen_guest() {
    let lab = Lab::one_guest();
    let guest = lab.guest();
    lab.daemon.sleep("web1");
    assert!(guest.is_frozen());

    for client in [&lab.network.c1, &lab.network.c2] {
        assert_all(&ping(client, guest.v4, 20, Duration::from_millis(20)), 20);
        assert_all(&ping(client, guest.v6, 20, Duration::from_millis(20)), 20);
    }
    let (answers, text) = arping(&lab.network.c1, guest.v4, 3);
    assert_eq!(answers, 3, "{text}");
    assert!(text.to_lowercase().contains(&guest.mac), "with the guest's own MAC: {text}");

    assert!(guest.is_frozen(), "none of this is worth waking for");
    assert_eq!(lab.daemon.state("web1"), "asleep");
    let counters = &lab.daemon.status("web1")["nics"][0]["counters"];
    assert_eq!(counters["held"], 0, "{counters}");
    lab.daemon.assert_conserved();
}

#[test]
fn ping6_finds_a_sleeper_on_a_bridge_that_snoops_with_a_querier() {
    let lab = Lab::one_guest();
    let guest = lab.guest();
    lab.network
        .hypervisor
        .ip("link set br0 type bridge mcast_snooping 1 mcast_querier 1 mcast_query_response_interval 20 \
         mcast_startup_query_interval 20 mcast_query_interval 100");
    let querier = |lab: &Lab| lab.network.hypervisor.run("ip", &["-d", "link", "show", "br0"]);
    assert!(querier(&lab).contains("mcast_querier 1"));
    lab.daemon.sleep("web1");
    // Snooping begins to withhold groups nobody reported once a query's time has passed: seen by a
    // solicitation for an address nobody has, which then reaches no other port.
    let sniffer = Capture::start(&lab.network.c2, "eth0");
    until("the bridge to withhold unknown groups", Duration::from_secs(20), || {
        let before = sniffer.frames().len();
        let _ = ping(&lab.network.c1, "2001:db8::99".parse().unwrap(), 1, Duration::from_millis(10));
        let solicited = |f: &Frame| f.destination() == [0x33, 0x33, 0xff, 0, 0, 0x99];
        !sniffer.frames()[before..].iter().any(solicited)
    });
    lab.network.c1.run("ip", &["-6", "neigh", "flush", "dev", "eth0"]);
    assert_all(&ping(&lab.network.c1, guest.v6, 5, Duration::from_millis(50)), 5);
    assert!(guest.is_frozen());
}

#[test]
fn curl_to_a_sleeping_guest_gets_its_page_and_nothing_is_sent_twice() {
    let lab = Lab::one_guest();
    let guest = lab.guest();
    for address in [guest.v4, guest.v6] {
        lab.daemon.sleep("web1");
        assert!(guest.is_frozen());
        let capture = Capture::start(&lab.network.c1, "eth0");
        let page = curl(&lab.network.c1, address).unwrap();
        let frames = capture.stop();
        assert_eq!(page.body, guest.page());
        assert!(page.took < WAKE, "the first page took {:?}", page.took);
        assert_eq!(retransmissions(&frames), [], "{frames:#?}");
        until("the guest to be awake", PATIENCE, || lab.daemon.state("web1") == "awake");
        assert!(!guest.is_frozen());
    }
    lab.daemon.assert_conserved();
}

#[test]
fn a_session_opened_before_the_sleep_goes_on_and_its_big_frames_survive() {
    let lab = Lab::one_guest();
    let guest = lab.guest();
    for address in [guest.v4, guest.v6] {
        let mut echo = Echo::open(&lab.network.c1, address, PATIENCE).unwrap();
        // Warm, so that the 20 kB below leave in one burst: one segment as long as offloads make it, its
        // checksum not filled in, as the kernel hands it between local ports.
        for _ in 0..10 {
            echo.say(&"warm".repeat(5000)).unwrap();
        }
        lab.daemon.sleep("web1");
        let capture = Capture::start(&lab.network.c1, "eth0");
        let inside = Capture::start(&guest.namespace, "eth0");
        echo.say(&"what was said while it slept ".repeat(700)).unwrap();
        let frames = capture.stop();
        let longest = |frames: &[Frame], outgoing: bool| {
            let lengths = frames.iter().filter(|f| f.outgoing == outgoing).filter_map(Frame::segment);
            lengths.map(|segment| segment.length).max().unwrap_or(0)
        };
        assert!(longest(&frames, true) > 5000, "offloads were at work: {frames:#?}");
        assert!(longest(&inside.stop(), false) > 1000, "the guest was given what was held");
        let reset = |frame: &Frame| frame.segment().is_some_and(|s| s.flags & RST != 0);
        assert!(!frames.iter().any(reset), "{frames:#?}");
        until("the guest to be awake", PATIENCE, || lab.daemon.state("web1") == "awake");
    }
    // A probe for a lost tail goes out when the wake takes longer than a few round trips, so repeats
    // are the client's right; but nothing that the guest was given was damaged.
    let counters =
        guest.namespace.run("nstat", &["-asz", "TcpInErrs", "TcpExtTCPCSumErrors", "TcpInCsumErrors"]);
    for line in counters.lines().filter(|line| line.starts_with("Tcp")) {
        assert_eq!(line.split_whitespace().nth(1), Some("0"), "{counters}");
    }
    assert!(counters.contains("TcpInErrs"), "{counters}");
    lab.daemon.assert_conserved();
}

#[test]
fn the_unicast_of_an_awake_guest_never_reaches_the_surrogate_port() {
    let lab = Lab::one_guest();
    let guest = lab.guest();
    let mac: Vec<u8> = guest.mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let port = lab.surrogate_port();
    let nothing_arrives_during_traffic = |when: &str| {
        let sniffer = Capture::start(&lab.network.hypervisor, &port);
        assert_all(&ping(&lab.network.c1, guest.v4, 20, Duration::from_millis(10)), 20);
        assert_eq!(curl(&lab.network.c1, guest.v4).unwrap().body, guest.page());
        assert_eq!(curl(&lab.network.c2, guest.v6).unwrap().body, guest.page());
        let frames = sniffer.stop();
        assert!(!frames.iter().any(|f| f.destination() == mac), "{when}: {frames:#?}");
    };
    nothing_arrives_during_traffic("before it ever slept");
    lab.daemon.sleep("web1");
    lab.daemon.wake("web1");
    nothing_arrives_during_traffic("after a sleep");
    let counters = &lab.daemon.status("web1")["nics"][0]["counters"];
    assert_eq!(counters["awake_unicast"], 0, "{counters}");
    lab.daemon.assert_conserved();
}

#[test]
fn two_sleepers_answer_at_once_and_one_that_wakes_reaches_the_other() {
    let lab = Lab::new(2, "", surrogate_house::lab::LISTEN);
    let [first, second] = &lab.guests[..] else { panic!("two guests") };
    lab.daemon.sleep("web1");
    lab.daemon.sleep("web2");
    assert_all(&ping(&lab.network.c1, first.v4, 10, Duration::from_millis(10)), 10);
    assert_all(&ping(&lab.network.c1, second.v4, 10, Duration::from_millis(10)), 10);

    lab.daemon.wake("web1");
    assert_all(&ping(&first.namespace, second.v4, 10, Duration::from_millis(10)), 10);
    assert_all(&ping(&first.namespace, second.v6, 10, Duration::from_millis(10)), 10);
    assert!(second.is_frozen(), "a ping does not wake it");
    let page = curl(&first.namespace, second.v4).unwrap();
    assert_eq!(page.body, second.page());
    assert!(page.took < WAKE, "{page:?}");
    lab.daemon.assert_conserved();
}

#[test]
fn a_guest_that_wakes_talks_to_a_sleeper_before_it_was_given_all_that_was_held() {
    // Slow steps: what the first guest sends at once when it runs meets the second one asleep, and the
    // answers come back while the first is still being replayed to.
    let lab = Lab::new(2, "delay = \"300ms\"", surrogate_house::lab::LISTEN);
    let [first, second] = &lab.guests[..] else { panic!("two guests") };
    let mut to_second = Echo::open(&first.namespace, second.v4, PATIENCE).unwrap();
    to_second.say("hello").unwrap();
    lab.daemon.sleep("web1");
    lab.daemon.sleep("web2");
    std::thread::scope(|scope| {
        // Both asleep, both wanted: the first by its page, the second by the first's own session. The
        // session's socket lives in the first guest's namespace, whose port sleeps with it.
        let page = scope.spawn(|| curl(&lab.network.c1, first.v4));
        to_second.say("from one sleeper to another").unwrap();
        assert_eq!(page.join().unwrap().unwrap().body, first.page());
    });
    until("both to be awake", PATIENCE, || {
        lab.daemon.state("web1") == "awake" && lab.daemon.state("web2") == "awake"
    });
    lab.daemon.assert_conserved();
}

#[test]
fn the_bridge_keeps_its_mac_and_mtu_and_a_clean_stop_puts_everything_back() {
    let network = surrogate_house::Network::new();
    let guest = surrogate_house::NetnsGuest::new(&network, 1);
    let own = |facts: &[String]| facts.iter().find(|f| f.starts_with("bridge ")).unwrap().clone();
    let before = bridge_state(&network.hypervisor);
    let config = surrogate_house::Config::netns("", "").with(&guest.section(""));
    let mut daemon = surrogate_house::Daemon::start(&network.hypervisor, &config);
    assert_eq!(own(&bridge_state(&network.hypervisor)), own(&before));
    daemon.sleep("web1");
    let during = bridge_state(&network.hypervisor);
    assert_eq!(own(&during), own(&before));
    let sticky = format!("\"mac\":\"{}\"", guest.mac);
    assert!(during.iter().any(|f| f.starts_with("entry") && f.contains(&sticky)), "{during:#?}");
    daemon.wake("web1");
    daemon.sleep("web1");
    daemon.stop();
    assert_eq!(bridge_state(&network.hypervisor), before);
    guest.thaw();
    assert_eq!(curl(&network.c1, guest.v4).unwrap().body, guest.page(), "woken by hand it serves");
}

#[test]
fn sleeping_a_sleeper_and_waking_one_that_is_awake_succeed_at_once() {
    let lab = Lab::one_guest();
    let asleep = lab.daemon.sleep("web1");
    assert_eq!(asleep["state"], "asleep");
    assert_eq!(lab.daemon.sleep("web1")["state"], "asleep");
    assert_eq!(lab.daemon.wake("web1")["state"], "awake");
    assert_eq!(lab.daemon.wake("web1")["state"], "awake");
    let unknown = lab.daemon.cli(&["sleep", "nobody"]);
    assert!(!unknown.status.success());
    assert!(unknown.errors.contains("nobody") && unknown.errors.lines().count() == 1, "{unknown:?}");
}

#[test]
fn a_sleepers_port_stays_disabled_whatever_is_changed_on_its_link() {
    let lab = Lab::one_guest();
    lab.daemon.sleep("web1");
    let port = lab.daemon.status("web1")["nics"][0]["port"].as_str().unwrap().to_owned();
    let hypervisor = &lab.network.hypervisor;
    let disabled =
        || hypervisor.run("bridge", &["-d", "link", "show", "dev", &port]).contains("state disabled");
    assert!(disabled());
    hypervisor.ip(&format!("link set dev {port} alias changed"));
    until("the port to be disabled again", PATIENCE, disabled);
    assert_all(&ping(&lab.network.c1, lab.guest().v4, 5, Duration::from_millis(50)), 5);
    assert_eq!(curl(&lab.network.c1, lab.guest().v4).unwrap().body, lab.guest().page());
    assert!(!disabled());
}
