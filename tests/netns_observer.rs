//! What is attached to a guest's own port: one packet socket while its connections may be taken into custody,
//! and nothing at all where they may not.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use surrogate_house::capture::{RST, Sender};
use surrogate_house::clients::curl;
use surrogate_house::daemon::Config;
use surrogate_house::deadline::pause;
use surrogate_house::lab::LISTEN;
use surrogate_house::{Lab, Namespace, until};

const PATIENCE: Duration = Duration::from_secs(20);

/// Packet sockets bound to the link `name`, as the kernel lists them.
fn sockets(namespace: &Namespace, name: &str) -> usize {
    let listed = namespace.run("ss", &["--no-header", "--packet"]);
    let at = format!("*:{name}");
    listed.lines().filter(|line| line.split_whitespace().any(|word| word == at)).count()
}

/// Packet sockets bound to any link with this number.
fn sockets_by_number(namespace: &Namespace, ifindex: &str) -> usize {
    let listed = namespace.run("cat", &["/proc/thread-self/net/packet"]);
    listed.lines().skip(1).filter(|line| line.split_whitespace().nth(4) == Some(ifindex)).count()
}

fn ifindex(namespace: &Namespace, name: &str) -> String {
    let shown = namespace.run("ip", &["-o", "link", "show", name]);
    shown.split(':').next().unwrap().to_owned()
}

/// Queueing disciplines, filters and programs at the link `name`.
fn attached(namespace: &Namespace, name: &str) -> String {
    let filters = |hook: &str| namespace.run("tc", &["filter", "show", "dev", name, hook]);
    let link = namespace.run("ip", &["-d", "-o", "link", "show", name]);
    let programs = link.split_whitespace().filter(|word| word.contains("xdp") || word.contains("bpf"));
    let programs: Vec<_> = programs.collect();
    let qdisc = namespace.run("tc", &["qdisc", "show", "dev", name]);
    format!("{qdisc}{}{}{programs:?}", filters("ingress"), filters("egress"))
}

fn lab(own: &str) -> Lab {
    Lab::with(1, &format!("{LISTEN}\n{own}"), Config::netns("", ""))
}

/// Lets the guest be seen awake, asleep and woken, and `check` what is at its port in each.
fn through_a_cycle(lab: &Lab, check: impl Fn(&str)) {
    let guest = lab.guest();
    until("the guest to be awake", PATIENCE, || lab.daemon.state("web1") == "awake");
    assert_eq!(curl(&lab.network.c1, guest.v4).unwrap().body, guest.page());
    check("awake");
    lab.daemon.sleep("web1");
    check("asleep");
    assert_eq!(curl(&lab.network.c1, guest.v4).unwrap().body, guest.page());
    until("the guest to be awake", PATIENCE, || lab.daemon.state("web1") == "awake");
    check("woken");
}

#[test]
fn with_custody_off_nothing_is_attached_to_a_guests_port() {
    let lab = lab("custody = false");
    let hypervisor = &lab.network.hypervisor;
    // The other client's port has certainly nothing of ours.
    let bare = attached(hypervisor, "c2").replace("c2", "web1");
    let number = ifindex(hypervisor, "web1");
    through_a_cycle(&lab, |when| {
        assert_eq!(sockets(hypervisor, "web1"), 0, "{when}");
        assert_eq!(sockets_by_number(hypervisor, &number), 0, "{when}");
        assert_eq!(attached(hypervisor, "web1"), bare, "{when}");
    });
}

#[test]
fn with_custody_on_one_socket_is_attached_and_nothing_else_and_it_goes_with_the_daemon() {
    let mut lab = lab("custody = true");
    let hypervisor = &lab.network.hypervisor;
    let bare = attached(hypervisor, "c2").replace("c2", "web1");
    let number = ifindex(hypervisor, "web1");
    until("the guest to be observed", PATIENCE, || sockets(hypervisor, "web1") == 1);
    through_a_cycle(&lab, |when| {
        assert_eq!(sockets(hypervisor, "web1"), 1, "{when}");
        assert_eq!(sockets_by_number(hypervisor, &number), 1, "{when}");
        assert_eq!(attached(hypervisor, "web1"), bare, "{when}");
        // No other port is anybody's business.
        assert_eq!(sockets(hypervisor, "c1"), 0, "{when}");
    });
    let metrics = lab.daemon.metrics();
    assert!(metrics.value("surrogate_frames_observed_total", &[("guest", "web1"), ("nic", "0")]) > Some(0.0));
    assert_eq!(metrics.value("surrogate_observed_drops_total", &[("bridge", "br0")]), Some(0.0));
    lab.daemon.kill();
    assert_eq!(sockets_by_number(&lab.network.hypervisor, &number), 0);
}

/// A reset of a connection between the guest and nobody.
fn reset() -> Vec<u8> {
    let ethernet = [2, 0, 0, 0, 9, 8, 2, 0, 0, 0, 9, 9, 8, 0];
    let ipv4 = [0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 11, 192, 0, 2, 99];
    let tcp = [0, 80, 0x30, 0x39, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, RST, 0, 0, 0, 0, 0, 0];
    [&ethernet[..], &ipv4, &tcp].concat()
}

#[test]
fn a_guest_that_does_very_much_is_not_observed_for_a_while() {
    let lab = lab("");
    let hypervisor = &lab.network.hypervisor;
    until("the guest to be observed", PATIENCE, || sockets(hypervisor, "web1") == 1);
    let pauses = || lab.daemon.metrics().value("surrogate_observed_pauses_total", &[("bridge", "br0")]);
    assert_eq!(pauses(), Some(0.0));
    let sender = Sender::new(&lab.guest().namespace, "eth0");
    let segment = reset();
    // To its observer each is a connection that ends.
    until("it to be too much", PATIENCE, || {
        for _ in 0..10 {
            (0..1000).for_each(|_| sender.send(&segment));
            pause(Duration::from_millis(20)); // its queue has room for so many, and they are taken in such times
        }
        pauses() > Some(0.0)
    });
    // What it says now is heard: its own part of a connection.
    let labels = [("guest", "web1"), ("nic", "0")];
    let observed = || lab.daemon.metrics().value("surrogate_frames_observed_total", &labels);
    let before = observed();
    until("it to be observed again", PATIENCE, || {
        assert_eq!(curl(&lab.network.c1, lab.guest().v4).unwrap().body, lab.guest().page());
        observed() > before
    });
    assert_eq!(sockets(hypervisor, "web1"), 1);
    assert_eq!(lab.daemon.status("web1")["state"], "awake");
}

#[test]
fn while_a_guest_is_idle_each_segment_of_its_connections_is_seen() {
    // It is always idle, and never for long enough.
    let lab = lab("idle_after = \"4s\"\nmin_awake = \"1h\"\nidle_cpu = 100\nidle_packets = 1000000");
    let echo = (lab.guest().v4, 7);
    let mut stream = lab.network.c1.enter(|| TcpStream::connect(echo).unwrap());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let observed = || {
        let labels = [("guest", "web1"), ("nic", "0")];
        lab.daemon.metrics().value("surrogate_frames_observed_total", &labels).unwrap_or_default()
    };
    until("it to be observed closely", PATIENCE, || {
        let before = observed();
        for _ in 0..10 {
            stream.write_all(b"?").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        }
        observed() >= before + 20.0 // what came and what went
    });
}

#[test]
fn the_socket_goes_with_its_port_and_comes_with_the_next() {
    let lab = lab("");
    let hypervisor = &lab.network.hypervisor;
    let guest = lab.guest();
    until("the guest to be observed", PATIENCE, || sockets(hypervisor, "web1") == 1);
    let before = ifindex(hypervisor, "web1");
    hypervisor.ip("link del web1\n");
    // A socket that outlives its link is at none.
    until("its observer to be closed", PATIENCE, || {
        ["-1", &before].iter().all(|number| sockets_by_number(hypervisor, number) == 0)
    });

    lab.network.attach(&guest.namespace, "web1", &guest.mac, 11);
    until("its new port to be observed", PATIENCE, || sockets(hypervisor, "web1") == 1);
    hypervisor.ip("link set web1 nomaster\n");
    until("a port of no bridge to be left alone", PATIENCE, || sockets(hypervisor, "web1") == 0);
}
