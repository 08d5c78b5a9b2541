//! Bridges whose frames are not 1500 bytes long: a sleeper's answers are as long as theirs may be, and no longer.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use surrogate_house::capture::Capture;
use surrogate_house::clients::{curl, ping_of};
use surrogate_house::lab::LISTEN;
use surrogate_house::network::BRIDGE;
use surrogate_house::{Config, Daemon, NetnsGuest, Network, until};

const PATIENCE: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(20);

/// Two hosts on a bridge, and the daemon.
struct Lab {
    daemon: Daemon,
    guest: NetnsGuest,
    network: Network,
}

impl Lab {
    fn new(mtu: u32) -> Self {
        let network = Network::new();
        let guest = NetnsGuest::new(&network, 1);
        set_mtu(&network, &guest, mtu);
        let config = Config::netns("", "").with(&guest.section(LISTEN));
        let daemon = Daemon::start(&network.hypervisor, &config);
        Self { daemon, guest, network }
    }

    /// The lengths of the IP packets with a sleeper's answers to three pings of `size` bytes or a few more: each is
    /// answered.
    fn answered(&self, address: IpAddr, size: usize) -> Vec<usize> {
        let sniffer = Capture::start(&self.network.c1, "eth0");
        let pings = ping_of(&self.network.c1, address, 3, INTERVAL, size);
        assert!(pings.all_answered(), "{address}, {size} bytes: {}", pings.text);
        let frames = sniffer.stop();
        let long = frames.iter().filter(|frame| {
            frame.ip().is_some_and(|(_, from, ..)| from == address) && frame.bytes.len() > 200
        });
        let lengths: Vec<_> = long.map(|frame| frame.bytes.len() - 14).collect();
        assert!(lengths.len() >= 3, "{lengths:?}");
        lengths
    }

    /// They come in one piece.
    fn answered_whole(&self, address: IpAddr, size: usize) {
        let headers = if address.is_ipv4() { 28 } else { 48 };
        let lengths = self.answered(address, size);
        assert!(lengths.iter().all(|len| *len == size + headers), "{lengths:?}");
    }

    /// They come in parts, each as long as may be on a link of this MTU, as from a host.
    fn answered_in_parts(&self, address: IpAddr, size: usize, mtu: usize) {
        let lengths = self.answered(address, size);
        let longest = lengths.iter().max();
        assert!(longest.is_some_and(|len| (mtu - 8..=mtu).contains(len)), "{lengths:?}");
    }
}

/// All hosts first, the bridge last, or it would follow them.
fn set_mtu(network: &Network, guest: &NetnsGuest, mtu: u32) {
    for namespace in [&network.c1, &network.c2, &guest.namespace] {
        namespace.ip(&format!("link set eth0 mtu {mtu}"));
    }
    network.hypervisor.ip(&format!(
        "link set c1 mtu {mtu}\nlink set c2 mtu {mtu}\nlink set {} mtu {mtu}\nlink set {BRIDGE} mtu {mtu}",
        guest.name
    ));
}

#[test]
fn on_a_jumbo_bridge_a_sleepers_answers_are_whole_and_what_is_held_arrives() {
    let lab = Lab::new(9000);
    lab.daemon.sleep("web1");
    for address in [lab.guest.v4, lab.guest.v6] {
        lab.answered_whole(address, 8000);
        lab.answered_in_parts(address, 20_000, 9000);
    }
    assert!(lab.guest.is_frozen());

    let socket = lab.network.c1.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    let sniffer = Capture::start(&lab.guest.namespace, "eth0");
    let datagram = [7; 8900];
    socket.send_to(&datagram, (lab.guest.v4, 514)).unwrap();
    sniffer.wait("the long datagram", PATIENCE, |frames| {
        frames.iter().any(|frame| frame.datagram().is_some_and(|(_, to, data)| to == 514 && data == datagram))
    });
    assert_eq!(curl(&lab.network.c1, lab.guest.v4).unwrap().body, lab.guest.page());
    lab.daemon.assert_conserved();
}

#[test]
fn a_bridge_of_the_smallest_mtu_gets_no_longer_answers() {
    let lab = Lab::new(1280);
    lab.daemon.sleep("web1");
    for address in [lab.guest.v4, lab.guest.v6] {
        lab.answered_in_parts(address, 4000, 1280);
    }
    assert!(lab.guest.is_frozen());
    lab.daemon.assert_conserved();
}

#[test]
fn a_bridge_that_takes_longer_frames_from_now_on_gets_a_port_that_does() {
    let lab = Lab::new(1500);
    let events = lab.daemon.events();
    lab.daemon.sleep("web1");
    lab.answered_in_parts(lab.guest.v4, 8000, 1500);

    let before = events.last();
    set_mtu(&lab.network, &lab.guest, 9000);
    until("another port of ours", PATIENCE, || {
        let since: Vec<_> = events.all().into_iter().filter(|event| event.seq > before).collect();
        let lost = since.iter().find(|event| event.kind == "port-lost");
        lost.is_some_and(|lost| {
            assert!(lost.detail.ends_with("the bridge's MTU is 9000 now, and was 1500"), "{lost:?}");
            since.iter().any(|event| event.seq > lost.seq && event.kind == "port-opened")
        })
    });
    until("the guest to be stood in for", PATIENCE, || {
        let nic = &lab.daemon.status("web1")["nics"][0];
        nic["mode"] == "answer" && ping_of(&lab.network.c1, lab.guest.v4, 1, INTERVAL, 56).all_answered()
    });
    lab.answered_whole(lab.guest.v4, 8000);
    assert!(lab.guest.is_frozen() && lab.daemon.state("web1") == "asleep");
    assert_eq!(curl(&lab.network.c1, lab.guest.v4).unwrap().body, lab.guest.page());
    lab.daemon.assert_conserved();
}
