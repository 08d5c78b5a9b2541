//! Network, guests in namespaces and the daemon, together: what most tests begin with.

use crate::daemon::{Config, Daemon};
use crate::namespace::Namespace;
use crate::netns_guest::NetnsGuest;
use crate::network::{BRIDGE, Network};

/// What the guests of the lab serve, as configuration. Nobody reads what comes to udp/514: tests count it
/// on the way there.
pub const LISTEN: &str = "listen = [\"tcp/80\", \"tcp/22\", \"tcp/7\", \"udp/7\", \"udp/514\"]";

/// See the [module](self).
#[derive(Debug)]
pub struct Lab {
    // In this order they are dropped: daemon first, network last.
    /// The daemon, in the hypervisor namespace.
    pub daemon: Daemon,
    /// `web1`, `web2`, ...
    pub guests: Vec<NetnsGuest>,
    /// The network.
    pub network: Network,
}

impl Lab {
    /// One guest, [`LISTEN`] declared, nothing slowed down.
    #[must_use]
    pub fn one_guest() -> Self {
        Self::new(1, "", LISTEN)
    }

    /// `guests` guests. `hypervisor` and `defaults` are further lines of those sections.
    #[must_use]
    #[track_caller]
    pub fn new(guests: u8, hypervisor: &str, defaults: &str) -> Self {
        let (listen, defaults): (Vec<_>, Vec<_>) =
            defaults.lines().partition(|line| line.starts_with("listen"));
        Self::with(guests, &listen.join("\n"), Config::netns(hypervisor, &defaults.join("\n")))
    }

    /// `guests` guests, each with the further lines `own` in its section, added to `config`.
    #[must_use]
    #[track_caller]
    pub fn with(guests: u8, own: &str, config: Config) -> Self {
        let network = Network::new();
        let guests: Vec<_> = (1..=guests).map(|number| NetnsGuest::new(&network, number)).collect();
        let config = guests.iter().fold(config, |config, guest| config.with(&guest.section(own)));
        let daemon = Daemon::start(&network.hypervisor, &config);
        Self { daemon, guests, network }
    }

    /// The first guest.
    #[must_use]
    pub fn guest(&self) -> &NetnsGuest {
        &self.guests[0]
    }

    /// The name of the surrogate port on the bridge.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn surrogate_port(&self) -> String {
        let ports = bridge_ports(&self.network.hypervisor);
        ports.into_iter().find(|name| name.starts_with("sgt")).expect("a surrogate port on the bridge")
    }
}

/// The names of the bridge's ports.
#[must_use]
pub fn bridge_ports(hypervisor: &Namespace) -> Vec<String> {
    let text = hypervisor.run("ip", &["-j", "link", "show", "master", BRIDGE]);
    let links: serde_json::Value = serde_json::from_str(&text).unwrap();
    let names =
        links.as_array().into_iter().flatten().filter_map(|link| Some(link["ifname"].as_str()?.to_owned()));
    names.collect()
}

/// Everything about the bridge that a stand-in could change, one fact a line, sorted: its own MTU and
/// MAC, each port's flags, permanent forwarding entries, group entries. Counters and what the bridge
/// learned by itself are left out.
#[must_use]
pub fn bridge_state(hypervisor: &Namespace) -> Vec<String> {
    let json = |program: &str, arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&hypervisor.run(program, arguments)).unwrap()
    };
    let mut facts = Vec::new();
    for link in json("ip", &["-j", "link", "show", BRIDGE]).as_array().into_iter().flatten() {
        facts.push(format!("bridge mtu {} mac {}", link["mtu"], link["address"]));
    }
    for port in json("bridge", &["-j", "-d", "link"]).as_array().into_iter().flatten() {
        facts.push(format!("port {port}"));
    }
    for entry in json("bridge", &["-j", "fdb"]).as_array().into_iter().flatten() {
        let static_or_sticky = entry["state"] == "static" || entry["flags"].to_string().contains("sticky");
        if static_or_sticky {
            facts.push(format!("entry {entry}"));
        }
    }
    for mdb in json("bridge", &["-j", "mdb"]).as_array().into_iter().flatten() {
        for entry in mdb["mdb"].as_array().into_iter().flatten() {
            if entry["state"] == "permanent" && entry["port"] != BRIDGE {
                facts.push(format!("group {entry}"));
            }
        }
    }
    facts.sort();
    facts
}
