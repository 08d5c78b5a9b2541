//! A real DHCP server and its sleeping clients: leases go on while the guests are frozen, and one that the server
//! takes away wakes its guest.

use std::net::IpAddr;
use std::time::Duration;

use surrogate_house::clients::{arping, ping};
use surrogate_house::dhcp::{Clients, LEASE, Server};
use surrogate_house::{Config, Daemon, Lab, NetnsGuest, Network, until};

/// For what takes a server or the guest a moment, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A guest without addresses of its own, and a daemon that has not been started.
fn lab() -> Lab {
    let network = Network::new();
    let guest = NetnsGuest::bare(&network, 1);
    guest.namespace.ip("addr flush dev eth0 scope global\n");
    let section = format!(
        "[[guest]]\nname = \"web1\"\nhypervisor = \"local\"\nbridge = \"br0\"\nmac = \"{}\"\nnetns = \"{}\"\n\
         port = \"web1\"\n",
        guest.mac,
        guest.namespace.name(),
    );
    let daemon = Daemon::prepare(&Config::netns("", "").with(&section));
    Lab { daemon, guests: vec![guest], network }
}

/// Starts the daemon; returns when it sees what the guest says.
fn launch(daemon: &mut Daemon, network: &Network) {
    daemon.launch(&network.hypervisor);
    until("the guest to be observed", PATIENCE, || {
        let sockets = network.hypervisor.run("ss", &["--no-header", "--packet"]);
        sockets.lines().any(|line| line.split_whitespace().any(|word| word == "*:web1"))
    });
}

fn observed(daemon: &Daemon) -> u64 {
    daemon.status("web1")["nics"][0]["counters"]["observed"].as_u64().unwrap()
}

fn spoken(lab: &Lab, by: &str) -> u64 {
    lab.daemon.status("web1")["nics"][0]["counters"]["spoken"][by].as_u64().unwrap_or(0)
}

/// Puts the guest to sleep, once the server would write down a later expiry than now. Returns the present one.
fn sleep(lab: &Lab, server: &Server<'_>, address: IpAddr) -> u64 {
    let expiry = server.expiry(address);
    until("a second to pass", PATIENCE, || {
        let now: u64 = lab.network.hypervisor.run("date", &["+%s"]).trim().parse().unwrap();
        now + LEASE > expiry
    });
    lab.daemon.sleep("web1");
    assert!(lab.guest().is_frozen());
    expiry
}

/// The server gives more time than until `expiry`, `times` times, while the guest is frozen.
fn renewed(lab: &Lab, server: &Server<'_>, address: IpAddr, mut expiry: u64, times: usize) {
    for _ in 0..times {
        let before = expiry;
        until("the server to give more time", PATIENCE, || {
            expiry = server.expiry(address);
            expiry > before
        });
    }
    assert!(lab.guest().is_frozen(), "{}", server.log());
    assert_eq!(lab.daemon.state("web1"), "asleep");
    let woken: Vec<_> =
        lab.daemon.events().all().into_iter().filter(|event| event.kind == "waking").collect();
    assert_eq!(woken, [], "nobody was woken for it");
    lab.daemon.assert_conserved();
}

/// The guest wakes because its lease of `address` was refused.
fn refused(lab: &Lab, address: IpAddr) {
    let waking = lab.daemon.events().wait("web1", "waking", PATIENCE);
    assert!(waking.detail.contains(&format!("lease of {address} refused by ")), "{waking:?}");
    until("the guest to be awake", PATIENCE, || lab.daemon.state("web1") == "awake");
    assert!(!lab.guest().is_frozen());
    lab.daemon.assert_conserved();
}

#[test]
fn an_ipv4_lease_goes_on_while_its_guest_is_frozen() {
    let mut lab = lab();
    launch(&mut lab.daemon, &lab.network);
    let server = Server::start(&lab.network.c1);
    let clients = Clients::new();
    let (_, address) = clients.start_v4(&lab.guest().namespace, "web1");
    let asked_with = server.line(address);
    let expiry = sleep(&lab, &server, address);

    renewed(&lab, &server, address, expiry, 2);
    assert!(spoken(&lab, "dhcpv4") >= 2);
    let renewed_with = server.line(address);
    let without_expiry = |line: &str| line.split_once(' ').map(|(_, rest)| rest.to_owned());
    assert_eq!(
        without_expiry(&renewed_with),
        without_expiry(&asked_with),
        "the same client, by the same name"
    );
    assert!(renewed_with.contains(" web1 "), "{renewed_with}");
    let (answers, text) = arping(&lab.network.c2, address, 2);
    assert_eq!(answers, 2, "{text}");
}

#[test]
fn an_ipv4_lease_that_the_server_takes_away_wakes_its_guest() {
    let mut lab = lab();
    launch(&mut lab.daemon, &lab.network);
    let mut server = Server::start(&lab.network.c1);
    let clients = Clients::new();
    let (_, address) = clients.start_v4(&lab.guest().namespace, "web1");
    lab.daemon.sleep("web1");
    server.replace();
    refused(&lab, address);
    assert!(spoken(&lab, "dhcpv4") >= 1);
}

/// A guest whose IPv6 lease was given before anybody looked, and which confirmed it since, as after a restart of its
/// network: that it has the address is known, but not for how long.
fn confirmed(
    daemon: &mut Daemon,
    network: &Network,
    guest: &NetnsGuest,
    server: &Server<'_>,
) -> (Clients, IpAddr) {
    let clients = Clients::new();
    let (client, address) = clients.start_v6(&guest.namespace);
    guest.namespace.end(client);
    launch(daemon, network);
    let before = observed(daemon);
    let (_, confirmed) = clients.start_v6(&guest.namespace);
    assert_eq!(address, confirmed);
    assert!(server.log().contains("DHCPCONFIRM(eth0)"), "{}", server.log());
    until("that to be seen", PATIENCE, || observed(daemon) > before);
    (clients, address)
}

#[test]
fn an_ipv6_lease_goes_on_while_its_guest_is_frozen() {
    let mut lab = lab();
    let server = Server::start(&lab.network.c1);
    let (_clients, address) = confirmed(&mut lab.daemon, &lab.network, &lab.guests[0], &server);
    let asked_with = server.line(address);
    let expiry = sleep(&lab, &server, address);

    renewed(&lab, &server, address, expiry, 1);
    assert!(spoken(&lab, "dhcpv6") >= 1);
    assert!(server.log().contains("DHCPREBIND(eth0)"), "{}", server.log());
    let renewed_with = server.line(address);
    let without_expiry = |line: &str| line.split_once(' ').map(|(_, rest)| rest.to_owned());
    assert_eq!(without_expiry(&renewed_with), without_expiry(&asked_with), "the same client and association");
    let pings = ping(&lab.network.c2, address, 3, Duration::from_millis(100));
    assert!(pings.all_answered(), "{}", pings.text);
}

#[test]
fn an_ipv6_lease_that_the_server_takes_away_wakes_its_guest() {
    let mut lab = lab();
    let mut server = Server::start(&lab.network.c1);
    let (_clients, address) = confirmed(&mut lab.daemon, &lab.network, &lab.guests[0], &server);
    server.replace();
    lab.daemon.sleep("web1");
    refused(&lab, address);
}
