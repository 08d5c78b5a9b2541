//! The text of a configuration file. What is accepted must be what the rest of the program relies on.

use std::collections::HashSet;

use surrogate::config::{Config, ConfigError, HypervisorKind};
use surrogate::policy::names::{MAX_NETBIOS, MAX_SERVICES, MAX_TEXT, Names};

pub(crate) fn run(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    match Config::parse(&text) {
        Ok(config) => {
            check(&config);
            true
        }
        Err(why) => {
            assert!(!why.to_string().trim().is_empty());
            let ConfigError::Wrong { problems, .. } = why else {
                panic!("a text is never unreadable: {why:?}")
            };
            assert!(!problems.is_empty());
            false
        }
    }
}

fn check(config: &Config) {
    let unique = |names: Vec<&str>| {
        let count = names.len();
        assert_eq!(names.into_iter().collect::<HashSet<_>>().len(), count, "a name is there twice");
    };
    unique(config.bridges.iter().map(|bridge| bridge.name.as_str()).collect());
    unique(config.hypervisors.iter().map(|hypervisor| hypervisor.name.as_str()).collect());
    unique(config.guests.iter().map(|guest| guest.name.as_str()).collect());
    assert!(config.daemon.wake_limit.at_once >= 1);
    let mut macs = HashSet::new();
    for guest in &config.guests {
        let hypervisor = config.hypervisors.iter().find(|one| one.name == guest.hypervisor);
        let hypervisor = hypervisor.unwrap_or_else(|| panic!("{} is of no hypervisor", guest.name));
        let is_netns = matches!(hypervisor.kind, HypervisorKind::Netns { .. });
        assert_eq!(is_netns, guest.netns.is_some(), "{}", guest.name);
        assert!(is_netns || guest.cgroup.is_none());
        assert!(guest.policy.wake_timeout <= guest.policy.traffic.hold.age, "{}", guest.name);
        if let Some(listen) = &guest.policy.traffic.listen {
            assert!(listen.tcp.is_sorted() && listen.udp.is_sorted());
        }
        check_names(&guest.policy.traffic.names);
        for nic in &guest.nics {
            assert!(nic.vlan.is_none_or(|vlan| (1..=4094).contains(&vlan)));
            let known = |name: &String| config.bridges.iter().any(|bridge| bridge.name == *name);
            assert!(nic.bridge.as_ref().is_none_or(known));
            assert!(nic.mac.is_none_or(|mac| mac.is_unicast() && macs.insert(mac)), "{}", guest.name);
            assert!(nic.groups.iter().all(|group| group.is_multicast()));
            for held in &nic.addresses {
                let bits = if held.address.is_ipv4() { 32 } else { 128 };
                assert!(held.prefix_len <= bits && !held.address.is_multicast());
            }
        }
    }
}

/// What is declared has room in the messages that tell it.
fn check_names(names: &Names) {
    assert!(names.host.as_ref().is_none_or(|host| (1..=63).contains(&host.len()) && !host.contains('.')));
    assert!(names.services.is_empty() || names.host.is_some());
    assert!(names.services.len() <= MAX_SERVICES && names.netbios.len() <= MAX_NETBIOS);
    for service in &names.services {
        assert!((1..=63).contains(&service.name.len()) && service.port > 0, "{service:?}");
        assert!(service.txt.iter().all(|text| (1..=255).contains(&text.len())), "{service:?}");
        assert!(service.txt.iter().map(|text| 1 + text.len()).sum::<usize>() <= MAX_TEXT, "{service:?}");
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let shipped = include_str!("../../packaging/surrogate.toml");
    // Much of the shipped file is in comments that show what may be said.
    let shown: String = shipped
        .lines()
        .map(|line| line.strip_prefix("# ").or_else(|| line.strip_prefix('#')).unwrap_or(line))
        .filter(|line| line.starts_with('[') || line.contains('='))
        .flat_map(|line| [line, "\n"])
        .collect();
    [shipped, &shown, FULL, MANY_NICS].map(|text| text.as_bytes().to_vec()).to_vec()
}

const FULL: &str = r#"
[daemon]
state_dir = "/var/lib/surrogate"
socket = "/run/surrogate/surrogate.sock"
metrics = "127.0.0.1:9090"
port = "tap"
[[bridge]]
name = "br0"
[[hypervisor]]
name = "lab"
kind = "netns"
delay = "10ms"
[defaults]
idle_after = "10m"
[[guest]]
name = "web1"
hypervisor = "lab"
netns = "web1"
bridge = "br0"
vlan = 7
mac = "52:54:00:00:00:11"
addresses = ["192.0.2.11/24", "2001:db8::11/64"]
groups = ["239.1.1.1"]
listen = ["tcp/22", "udp/7"]
wake = "always"
depth = "pause"
[guest.names]
host = "printer"
netbios = ["PRINTER", "PRINTER<20>", "OFFICE<00> group"]
[[guest.service]]
name = "Laser printer, 2. floor"
kind = "_ipp._tcp"
port = 631
txt = ["rp=printers/laser", "color"]
"#;

const MANY_NICS: &str = r#"
[[bridge]]
name = "br0"
[[bridge]]
name = "br1"
[[hypervisor]]
name = "kvm"
kind = "libvirt"
uri = "qemu:///system"
[[guest]]
name = "db1"
hypervisor = "kvm"
[[guest.nic]]
bridge = "br0"
mac = "52:54:00:00:00:12"
[[guest.nic]]
bridge = "br1"
vlan = 3
"#;
