//! Guests of other shapes: with two NICs, and with processes that a cgroup freezes.

use std::net::IpAddr;
use std::time::Duration;

use surrogate_house::capture::Capture;
use surrogate_house::cgroup::Version;
use surrogate_house::clients::{arping, curl, ping};
use surrogate_house::lab::{LISTEN, bridge_state};
use surrogate_house::numbered::{Datagrams, Flow, arrived, numbered};
use surrogate_house::{Cgroup, Config, Daemon, Events, Namespace, NetnsGuest, Network, until};

const PATIENCE: Duration = Duration::from_secs(30);
/// The guest's second NIC.
const SECOND_MAC: &str = "52:54:00:00:00:51";
const SECOND_V4: &str = "198.51.100.11";
const SECOND_V6: &str = "2001:db8:1::11";

/// A guest with two NICs, `eth0` on br0 and `eth1` on br0 or br1, and a client of each.
struct TwoNics {
    // In this order they are dropped: daemon first, network last.
    daemon: Daemon,
    guest: NetnsGuest,
    /// A client of the second network on br1, if it is not on br0 where c1 is in both.
    other: Option<Namespace>,
    network: Network,
}

impl TwoNics {
    fn on(second: &str, delay: &str) -> Self {
        let network = Network::new();
        let guest = NetnsGuest::with_page(&network, 1);
        // Each address belongs to one NIC, also where both NICs hear the same broadcasts.
        guest.namespace.enter(|| std::fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "1")).unwrap();
        let inside = guest.namespace.name();
        let hypervisor = &network.hypervisor;
        if second != "br0" {
            hypervisor.ip(&format!(
                "link add {second} address 02:00:00:00:00:02 type bridge forward_delay 0 stp_state 0\n\
                 link set {second} addrgenmode none up"
            ));
        }
        hypervisor.ip(&format!(
            "link add web1b type veth peer name eth1 address {SECOND_MAC} netns {inside}\n\
             link set web1b addrgenmode none master {second} up"
        ));
        let addresses = |namespace: &Namespace, nic: &str, number: u8| {
            namespace.ip(&format!(
                "link set {nic} up\n\
                 addr add 198.51.100.{number}/24 dev {nic}\naddr add 2001:db8:1::{number}/64 dev {nic} nodad"
            ));
        };
        addresses(&guest.namespace, "eth1", 11);
        let other = if second == "br0" {
            addresses(&network.c1, "eth0", 101);
            None
        } else {
            let other = Namespace::new("c3");
            hypervisor.ip(&format!(
                "link add c3 type veth peer name eth0 address 02:00:00:00:01:03 netns {}\n\
                 link set c3 addrgenmode none master {second} up",
                other.name()
            ));
            addresses(&other, "eth0", 101);
            Some(other)
        };
        let (v4, v6, mac) = (guest.v4, guest.v6, &guest.mac);
        let mut config = Config::netns(&format!("delay = \"{delay}\""), "");
        if second != "br0" {
            config = config.with(&format!("[[bridge]]\nname = \"{second}\"\n\n"));
        }
        let config = config.with(&format!(
            "[[guest]]\nname = \"web1\"\nhypervisor = \"local\"\nnetns = \"{inside}\"\n{LISTEN}\n\
             [[guest.nic]]\nbridge = \"br0\"\nmac = \"{mac}\"\naddresses = [\"{v4}/24\", \"{v6}/64\"]\n\
             [[guest.nic]]\nbridge = \"{second}\"\nmac = \"{SECOND_MAC}\"\n\
             addresses = [\"{SECOND_V4}/24\", \"{SECOND_V6}/64\"]\n"
        ));
        let daemon = Daemon::start(&network.hypervisor, &config);
        Self { daemon, guest, other, network }
    }

    /// Both NICs: a client that sees it, and its addresses and MAC.
    fn nics(&self) -> [(&Namespace, IpAddr, IpAddr, &str); 2] {
        let other = self.other.as_ref().unwrap_or(&self.network.c1);
        let (v4, v6) = (SECOND_V4.parse().unwrap(), SECOND_V6.parse().unwrap());
        [(&self.network.c1, self.guest.v4, self.guest.v6, &self.guest.mac), (other, v4, v6, SECOND_MAC)]
    }

    /// Asleep, each address answers with its own NIC's MAC; a page asked for at any of them wakes it once.
    fn answers_and_wakes_by_each_address(&self) {
        let before = bridge_state(&self.network.hypervisor);
        let events = self.daemon.events();
        let mut wakes = 0;
        for asked in 0..2 {
            for v6 in [false, true] {
                self.daemon.sleep("web1");
                assert!(self.guest.is_frozen());
                for (client, v4, v6, mac) in self.nics() {
                    for address in [v4, v6] {
                        let pings = ping(client, address, 5, Duration::from_millis(20));
                        assert!(pings.all_answered(), "{}", pings.text);
                    }
                    let (answers, text) = arping(client, v4, 2);
                    assert!(answers == 2 && text.to_lowercase().contains(mac), "{text}");
                }
                assert!(self.guest.is_frozen(), "none of this is worth waking for");

                let (client, address4, address6, _) = self.nics()[asked];
                let address = if v6 { address6 } else { address4 };
                let seq = events.last();
                assert_eq!(curl(client, address).unwrap().body, self.guest.page());
                events.wait_after(seq, "web1", "awake", PATIENCE);
                wakes += 1;
                let status = self.daemon.status("web1");
                assert_eq!((&status["wakes"], &status["sleeps"]), (&wakes.into(), &wakes.into()), "{status}");
                assert_eq!(bridge_state(&self.network.hypervisor), before, "both ports as they were");
            }
        }
        assert_eq!(kinds(&events, "waking"), 4, "{:#?}", events.all());
        self.daemon.assert_conserved();
    }

    /// What comes to both NICs during a slow wake is held by each and delivered by each, once.
    fn holds_on_both_and_delivers_once(&self) {
        let before = bridge_state(&self.network.hypervisor);
        let events = self.daemon.events();
        self.daemon.sleep("web1");
        // The clients know where it is: frames that wait for that would be sent out of order.
        for (client, v4, v6, _) in self.nics() {
            for address in [v4, v6] {
                assert!(ping(client, address, 1, Duration::from_millis(20)).all_answered());
            }
        }
        let flows: Vec<Vec<(String, Datagrams)>> = (self.nics().iter().enumerate())
            .map(|(at, (client, v4, v6, _))| {
                let flow = |address, name: String| (name.clone(), Datagrams::new(client, address, &name));
                vec![flow(*v4, format!("flow-{at}-v4")), flow(*v6, format!("flow-{at}-v6"))]
            })
            .collect();
        let sniffers = ["eth0", "eth1"].map(|nic| Capture::start(&self.guest.namespace, nic));
        let per_flow = 50;
        for number in 1..=per_flow {
            for (_, flow) in flows.iter().flatten() {
                flow.send(number);
            }
        }
        // The wake takes two seconds from here: all of it is held, on both NICs.
        let held = || {
            let status = self.daemon.status("web1");
            [0, 1].map(|nic| status["nics"][nic]["counters"]["holding"].as_u64().unwrap())
        };
        until("both NICs to hold", PATIENCE, || held() == [u64::from(2 * per_flow); 2]);
        events.wait(&self.guest.name, "awake", PATIENCE);
        for (sniffer, flows) in sniffers.into_iter().zip(&flows) {
            let all = 2 * per_flow as usize;
            sniffer.wait("all of it", PATIENCE, |f| f.iter().filter_map(numbered).count() >= all);
            let frames = sniffer.stop();
            assert_eq!(frames.iter().filter_map(numbered).count(), all, "nothing twice, nothing astray");
            for (name, _) in flows {
                assert_eq!(arrived(&frames, name), (1..=per_flow).collect::<Vec<_>>(), "{name}");
            }
        }
        assert_eq!(kinds(&events, "waking"), 1, "{:#?}", events.all());
        assert_eq!(bridge_state(&self.network.hypervisor), before, "both ports as they were");
        self.daemon.assert_conserved();
    }
}

fn kinds(events: &Events, kind: &str) -> usize {
    events.all().iter().filter(|event| event.kind == kind).count()
}

#[test]
fn a_guest_with_two_nics_on_two_bridges_is_stood_in_for_on_both_and_woken_by_either() {
    TwoNics::on("br1", "0s").answers_and_wakes_by_each_address();
}

#[test]
fn a_guest_with_two_nics_on_one_bridge_is_stood_in_for_on_both_and_woken_by_either() {
    TwoNics::on("br0", "0s").answers_and_wakes_by_each_address();
}

#[test]
fn what_is_held_on_two_nics_of_two_bridges_arrives_once_on_each() {
    TwoNics::on("br1", "2s").holds_on_both_and_delivers_once();
}

#[test]
fn what_is_held_on_two_nics_of_one_bridge_arrives_once_on_each() {
    TwoNics::on("br0", "2s").holds_on_both_and_delivers_once();
}

#[test]
fn a_guest_is_not_put_to_sleep_while_a_nic_of_it_has_no_known_address() {
    let network = Network::new();
    let guest = NetnsGuest::with_page(&network, 1);
    let inside = guest.namespace.name();
    network.hypervisor.ip(&format!(
        "link add web1b type veth peer name eth1 address {SECOND_MAC} netns {inside}\n\
         link set web1b addrgenmode none master br0 up"
    ));
    guest.namespace.ip("link set eth1 addrgenmode none up");
    let daemon = Daemon::start(&network.hypervisor, &Config::netns("", "").with(&guest.section("")));
    let refused = daemon.cli(&["sleep", "web1"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let what = format!("no addresses of NIC {SECOND_MAC} on br0 are known");
    let status = daemon.status("web1");
    for said in [&refused.errors, status["why"].as_str().unwrap()] {
        assert!(said.contains(&what), "{what}: {said}");
    }
    assert_eq!(status["state"], "awake");

    guest.namespace.ip(&format!("addr add {SECOND_V4}/24 dev eth1"));
    daemon.sleep("web1");
    network.c1.ip("addr add 198.51.100.101/24 dev eth0");
    let (answers, text) = arping(&network.c1, SECOND_V4.parse().unwrap(), 2);
    assert!(answers == 2 && text.to_lowercase().contains(SECOND_MAC), "{text}");
    assert!(guest.is_frozen());
    daemon.assert_conserved();
}

fn sleeps_and_wakes_in_a_cgroup(version: Version) {
    let network = Network::new();
    let guest = NetnsGuest::new(&network, 1);
    let Some(cgroup) = Cgroup::around(&guest.namespace, version) else {
        println!("skipped: this machine has no cgroup of version {version:?} that freezes");
        return;
    };
    let before = bridge_state(&network.hypervisor);
    let config =
        Config::netns("", "").with(&guest.section(&format!("cgroup = {:?}\n{LISTEN}", cgroup.path())));
    let mut daemon = Daemon::start(&network.hypervisor, &config);
    for address in [guest.v4, guest.v6] {
        daemon.sleep("web1");
        assert!(cgroup.is_frozen());
        assert!(!guest.is_frozen(), "no process was sent a signal");
        let pings = ping(&network.c1, address, 10, Duration::from_millis(20));
        assert!(pings.all_answered(), "{}", pings.text);
        assert!(cgroup.is_frozen());
        assert_eq!(curl(&network.c1, address).unwrap().body, guest.page());
        assert!(!cgroup.is_frozen());
        until("the guest to be awake", PATIENCE, || daemon.state("web1") == "awake");
    }
    daemon.assert_conserved();

    // One process that is not in it, and it is not put to sleep.
    let outside = guest.namespace.start(guest.namespace.command("sleep").arg("1000"));
    let refused = daemon.cli(&["sleep", "web1"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.errors.contains(&format!("process {outside} of")), "{refused:?}");
    until("the guest to be awake", PATIENCE, || daemon.state("web1") == "awake");
    assert!(!cgroup.is_frozen());
    assert_eq!(curl(&network.c1, guest.v4).unwrap().body, guest.page());
    daemon.stop();
    assert_eq!(bridge_state(&network.hypervisor), before);
}

#[test]
fn a_guest_in_a_version_1_cgroup_sleeps_answers_and_wakes() {
    sleeps_and_wakes_in_a_cgroup(Version::One);
}

#[test]
fn a_guest_in_a_version_2_cgroup_sleeps_answers_and_wakes() {
    sleeps_and_wakes_in_a_cgroup(Version::Two);
}
