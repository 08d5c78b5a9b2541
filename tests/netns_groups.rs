//! Multicast on a network that snoops: a sleeper's groups go on reaching it, although the switches forget whoever
//! does not answer their queries.
//!
//! ```text
//!   web1 --+
//!          +-- br0 (snoops) -- up0 == up1 -- sw0 (snoops, asks) -- c3 192.0.2.103
//!   c1, c2 +
//! ```

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use surrogate_house::clients::ping;
use surrogate_house::lab::{LISTEN, Lab};
use surrogate_house::namespace::scratch;
use surrogate_house::{Config, Deadline, Namespace, until};

const PATIENCE: Duration = Duration::from_secs(30);
/// How long the switch remembers a member that says nothing: many times the second between its queries, so that a
/// busy machine may be late with some answers.
const MEMBERSHIP: Duration = Duration::from_secs(8);
const GROUP: &str = "239.1.1.1";
const GROUP_6: &str = "ff05::1234";
/// Of the guest's address 2001:db8::11.
const SOLICITED: &str = "ff02::1:ff00:11";
/// A member that falls silent is in this one.
const MUTE: &str = "239.1.1.2";
const PORT: u16 = 9999;

struct World {
    // In this order they are dropped: daemon first, network last.
    lab: Lab,
    switch: Namespace,
    c3: Namespace,
}

impl World {
    /// A switch behind the hypervisor's bridge, with a querier of these versions of IGMP and MLD.
    fn new(igmp: u8, mld: u8, flooded: &str) -> Self {
        let lab = Lab::with(1, &format!("{LISTEN}\nflooded = \"{flooded}\""), Config::netns("", ""));
        let (switch, c3) = (Namespace::new("sw"), Namespace::new("c3"));
        switch.ip(&format!(
            "link add sw0 address 02:00:00:00:00:02 type bridge forward_delay 0 stp_state 0 mcast_snooping 1 \
             mcast_querier 1 mcast_igmp_version {igmp} mcast_mld_version {mld} mcast_query_interval 100 \
             mcast_startup_query_interval 100 mcast_query_response_interval 50 mcast_membership_interval {}\n\
             link set sw0 addrgenmode none up\n\
             addr add 192.0.2.2/24 dev sw0\n\
             addr add fe80::2/64 dev sw0 nodad\n\
             link add c3 type veth peer name eth0 address 02:00:00:00:01:03 netns {}\n\
             link set c3 addrgenmode none master sw0 up\n",
            MEMBERSHIP.as_millis() / 10,
            c3.name(),
        ));
        c3.ip(
            "link set eth0 up\naddr add 192.0.2.103/24 dev eth0\naddr add 2001:db8::103/64 dev eth0 nodad\n",
        );
        let hypervisor = &lab.network.hypervisor;
        hypervisor.ip(&format!(
            "link add up0 type veth peer name up1 netns {}\nlink set up0 addrgenmode none master br0 up\n",
            switch.name()
        ));
        switch.ip("link set up1 addrgenmode none master sw0 up\n");
        Self { lab, switch, c3 }
    }

    /// The groups that the switch sends to where the guest is.
    fn remembered(&self) -> Vec<String> {
        let text = self.switch.run("bridge", &["-j", "mdb", "show", "dev", "sw0"]);
        let told: serde_json::Value = serde_json::from_str(&text).unwrap();
        let entries = told.as_array().into_iter().flatten().filter_map(|mdb| mdb["mdb"].as_array()).flatten();
        let here = entries.filter(|entry| entry["port"] == "up1");
        here.filter_map(|entry| Some(entry["grp"].as_str()?.to_owned())).collect()
    }

    fn remembers(&self, groups: &[&str]) -> bool {
        let remembered = self.remembered();
        groups.iter().all(|group| remembered.iter().any(|known| known == group))
    }

    /// c3 says `text` to `group`.
    fn say(&self, group: &str, text: &str) {
        let group: IpAddr = group.parse().unwrap();
        let own = if group.is_ipv4() { "192.0.2.103:0" } else { "[2001:db8::103]:0" };
        let socket = self.c3.enter(|| UdpSocket::bind(own)).unwrap();
        socket.send_to(text.as_bytes(), SocketAddr::new(group, PORT)).unwrap();
    }

    fn said(&self, protocol: &str) -> u64 {
        self.lab.daemon.status("web1")["nics"][0]["counters"]["spoken"][protocol].as_u64().unwrap_or_default()
    }
}

/// A program of the host joins `group`, as an application does, and appends what it hears to `file`.
fn join(host: &Namespace, group: &str, file: &Path) {
    let from = if group.contains(':') {
        format!("UDP6-RECV:{PORT},ipv6only=1,ipv6-join-group=[{group}]:eth0")
    } else {
        format!("UDP4-RECV:{PORT},reuseaddr,ip-add-membership={group}:eth0")
    };
    host.start(
        host.command("socat").args(["-u", &from]).arg(format!("OPEN:{},creat,append", file.display())),
    );
}

fn a_sleeper_stays_in_its_groups(igmp: u8, mld: u8) {
    let world = World::new(igmp, mld, "hold");
    let guest = world.lab.guest();
    let folder = scratch("groups");
    let heard = [GROUP, GROUP_6].map(|group| (group, folder.path().join(group.replace(':', "-"))));
    heard.iter().for_each(|(group, file)| join(&guest.namespace, group, file));
    join(&world.lab.network.c2, MUTE, &folder.path().join("mute"));
    until("the switch to know all members", PATIENCE, || world.remembers(&[GROUP, GROUP_6, SOLICITED, MUTE]));

    world.lab.daemon.sleep("web1");
    world.lab.network.hypervisor.ip("link set c2 down");
    let asleep = Deadline::after(MEMBERSHIP * 2);
    until("the switch to forget who says nothing", PATIENCE, || !world.remembers(&[MUTE]));
    until("two membership intervals to pass", PATIENCE, || asleep.passed());
    assert!(world.remembers(&[GROUP, GROUP_6, SOLICITED]), "{:?}", world.remembered());
    assert!(guest.is_frozen(), "queries wake nobody");
    assert!(world.said("igmp") > 3 && world.said("mld") > 3);

    for (group, _) in &heard {
        world.say(group, &format!("while it slept, to {group}"));
    }
    until("the datagrams to be held", PATIENCE, || {
        world.lab.daemon.status("web1")["nics"][0]["counters"]["holding"] == 2
    });
    assert!(guest.is_frozen(), "held, as its policy says");
    // Its solicited-node group is forwarded too: who never heard of the guest finds it.
    let pings = ping(&world.c3, guest.v6, 3, Duration::from_millis(50));
    assert!(pings.all_answered(), "{}", pings.text);

    world.lab.daemon.wake("web1");
    for (group, file) in &heard {
        let expected = format!("while it slept, to {group}");
        until("the guest to hear it", PATIENCE, || {
            std::fs::read_to_string(file).is_ok_and(|text| text == expected)
        });
    }
    world.lab.daemon.assert_conserved();
}

#[test]
fn a_sleeper_stays_in_its_groups_for_a_querier_of_today() {
    a_sleeper_stays_in_its_groups(3, 2);
}

#[test]
fn a_sleeper_stays_in_its_groups_for_an_older_querier() {
    a_sleeper_stays_in_its_groups(2, 1);
}

#[test]
fn a_datagram_to_a_sleepers_group_wakes_it_where_the_policy_says_so() {
    let world = World::new(3, 2, "wake");
    let guest = world.lab.guest();
    let folder = scratch("groups");
    let file = folder.path().join("heard");
    join(&guest.namespace, GROUP, &file);
    until("the switch to know the member", PATIENCE, || world.remembers(&[GROUP]));
    world.lab.daemon.sleep("web1");
    world.say("239.9.9.9", "for others");
    world.say(GROUP, "wake up");
    until("the guest to hear it", PATIENCE, || {
        std::fs::read_to_string(&file).is_ok_and(|text| text == "wake up")
    });
    until("the guest to be awake", PATIENCE, || world.lab.daemon.state("web1") == "awake");
    world.lab.daemon.assert_conserved();
}
