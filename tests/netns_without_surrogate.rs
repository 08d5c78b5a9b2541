//! The network lab by itself, no Surrogate in it: if one of these fails, the lab is at fault.

use std::time::Duration;

use surrogate_house::capture::{
    Capture, FIN, Frame, SYN, Segment, retransmissions, tcp_is_at_rest, write_pcap,
};
use surrogate_house::clients::{Echo, Pinging, Ssh, arping, curl, ping};
use surrogate_house::{NetnsGuest, Network, until};

#[test]
fn an_awake_guest_is_reached_in_every_way_the_lab_knows() {
    let network = Network::new();
    let guest = NetnsGuest::new(&network, 1);
    let patience = Duration::from_secs(5);
    let capture = Capture::start(&network.c1, "eth0");

    for address in [guest.v4, guest.v6] {
        let pings = ping(&network.c1, address, 5, Duration::from_millis(20));
        assert!(pings.all_answered(), "{pings:?}");
        assert_eq!(curl(&network.c1, address).unwrap().body, guest.page());
        let mut echo = Echo::open(&network.c1, address, patience).unwrap();
        echo.say("one").unwrap();
        echo.say("two").unwrap();
        let mut ssh = Ssh::open(&network.c2, address, &guest.ssh_key());
        ssh.say("over ssh", patience).unwrap();
    }
    let (answers, text) = arping(&network.c1, guest.v4, 2);
    assert_eq!(answers, 2, "{text}");

    let frames = capture.stop();
    assert!(frames.iter().any(|frame| frame.segment().is_some_and(|s| s.to.1 == 80)));
    assert_eq!(retransmissions(&frames), []);
}

#[test]
fn a_guest_stopped_by_hand_serves_nothing_until_it_is_thawed() {
    let network = Network::new();
    let guest = NetnsGuest::new(&network, 1);
    assert!(!guest.is_frozen());
    guest.freeze();
    assert!(guest.is_frozen());
    let mut echo = Echo::open(&network.c1, guest.v4, Duration::from_millis(300)).unwrap();
    assert!(echo.say("into the void").is_err());
    guest.thaw();
    until("the guest to run", Duration::from_secs(2), || !guest.is_frozen());
    assert_eq!(curl(&network.c1, guest.v4).unwrap().body, guest.page());
}

#[test]
fn a_ping_that_is_stopped_counts_what_was_answered() {
    let network = Network::new();
    let guest = NetnsGuest::bare(&network, 1);
    let capture = Capture::start(&network.c1, "eth0");
    let pinging = Pinging::start(&network.c1, guest.v4, Duration::from_millis(10));
    let icmp = |frame: &Frame| frame.ip().is_some_and(|(protocol, ..)| protocol == 1);
    capture
        .wait("twenty echo frames", Duration::from_secs(5), |f| f.iter().filter(|f| icmp(f)).count() >= 20);
    let pings = pinging.stop();
    assert!(pings.all_answered() && pings.sent >= 9, "{pings:?}");

    // And what was not.
    let capture = Capture::start(&network.c1, "eth0");
    let pinging = Pinging::start(&network.c1, guest.v4, Duration::from_millis(10));
    capture.wait("an echo", Duration::from_secs(5), |f| f.iter().any(|f| icmp(f) && !f.outgoing));
    guest.namespace.ip("link set eth0 down");
    let sent = capture.frames().len();
    capture
        .wait("more requests", Duration::from_secs(5), |f| f[sent..].iter().filter(|f| icmp(f)).count() >= 5);
    let pings = pinging.stop();
    assert!(0 < pings.received && pings.received < pings.sent && pings.duplicates == 0, "{pings:?}");
    assert!(!pings.all_answered());
}

#[test]
fn a_connection_is_at_rest_when_both_sides_have_acknowledged_everything() {
    let network = Network::new();
    let guest = NetnsGuest::new(&network, 1);
    let patience = Duration::from_secs(5);
    let capture = Capture::start(&network.c1, "eth0");
    assert!(tcp_is_at_rest(&capture.frames()), "there is none");
    let mut echo = Echo::open(&network.c1, guest.v4, patience).unwrap();
    echo.say("a line").unwrap();
    let open = capture.wait("the line's end", patience, |f| tcp_is_at_rest(f) && has(f, |s| s.length > 0));
    drop(echo);
    let ended = capture
        .wait("the connection's end", patience, |f| tcp_is_at_rest(f) && has(f, |s| s.flags & FIN != 0));

    let until_last = |frames: &[Frame], is: fn(&Segment) -> bool| {
        let last = frames.iter().rposition(|f| f.segment().is_some_and(|s| is(&s))).unwrap();
        tcp_is_at_rest(&frames[..=last])
    };
    assert!(!until_last(&open, |s| s.flags & SYN != 0), "the last step of the handshake is missing");
    assert!(!until_last(&open, |s| s.length > 0), "the echo is not acknowledged");
    assert!(!until_last(&ended, |s| s.flags & FIN != 0), "the last FIN is not acknowledged");
}

fn has(frames: &[Frame], is: impl Fn(&Segment) -> bool) -> bool {
    frames.iter().filter_map(Frame::segment).any(|segment| is(&segment))
}

#[test]
fn a_segment_sent_twice_is_seen_as_a_retransmission_and_written_to_a_pcap() {
    let network = Network::new();
    let guest = NetnsGuest::new(&network, 1);
    let capture = Capture::start(&network.c1, "eth0");
    guest.namespace.ip("link set eth0 down");
    let refused = Echo::open(&network.c1, guest.v4, Duration::from_millis(1500));
    assert!(refused.is_err());
    let frames = capture.stop();
    // Nobody answers ARP: nothing to retransmit. With a neighbour entry the SYN goes out, and again.
    assert_eq!(retransmissions(&frames), []);
    network.c1.ip(&format!("neigh replace {} lladdr {} dev eth0 nud permanent", guest.v4, guest.mac));
    let capture = Capture::start(&network.c1, "eth0");
    assert!(Echo::open(&network.c1, guest.v4, Duration::from_millis(1500)).is_err());
    let frames = capture.stop();
    assert_eq!(retransmissions(&frames).len(), 1, "{frames:#?}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("syn.pcap");
    write_pcap(&path, &frames).unwrap();
    let expected = 24 + frames.iter().map(|frame| 16 + frame.bytes.len() as u64).sum::<u64>();
    assert_eq!(path.metadata().unwrap().len(), expected);
}
