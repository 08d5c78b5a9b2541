//! The lab's network: a hypervisor namespace with a bridge, and two clients on it.
//!
//! ```text
//!   c1 192.0.2.101 --+            +-- ports of the guests: 192.0.2.11, .12, ...
//!                    +--- br0 ----+
//!   c2 192.0.2.102 --+     |      +-- the surrogate port
//!                     192.0.2.1, the hypervisor itself
//! ```
//!
//! IPv6: 2001:db8:: with the same last number, in decimal digits. The bridge has no uplink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::deadline::until;
use crate::namespace::Namespace;

/// See the [module](self). Dropping it removes it all.
#[derive(Debug)]
pub struct Network {
    /// Where bridge, daemon and hypervisor live.
    pub hypervisor: Namespace,
    /// A client, 192.0.2.101 on `eth0`.
    pub c1: Namespace,
    /// Another, 192.0.2.102 on `eth0`.
    pub c2: Namespace,
}

/// The bridge's name in the hypervisor namespace.
pub const BRIDGE: &str = "br0";
/// The bridge's own MAC address.
pub const BRIDGE_MAC: &str = "02:00:00:00:00:01";
const PATIENCE: Duration = Duration::from_secs(30);

impl Network {
    /// A new network, ready for guests.
    #[must_use]
    pub fn new() -> Self {
        let hypervisor = Namespace::new("hv");
        // A fixed MAC: else the bridge takes the lowest of its ports'.
        hypervisor.ip(&format!(
            "link add {BRIDGE} address {BRIDGE_MAC} type bridge forward_delay 0 stp_state 0\n\
             link set {BRIDGE} addrgenmode none up\n\
             addr add 192.0.2.1/24 dev {BRIDGE}\n\
             addr add 2001:db8::1/64 dev {BRIDGE} nodad\n"
        ));
        let c1 = Namespace::new("c1");
        let c2 = Namespace::new("c2");
        let network = Self { hypervisor, c1, c2 };
        network.attach(&network.c1, "c1", "02:00:00:00:01:01", 101);
        network.attach(&network.c2, "c2", "02:00:00:00:01:02", 102);
        network
    }

    /// Connects `namespace` to the bridge: `eth0` inside with `mac` and the addresses of host `number`,
    /// `port` on the bridge. What is sent after that arrives.
    pub fn attach(&self, namespace: &Namespace, port: &str, mac: &str, number: u8) {
        let inside = namespace.name();
        self.hypervisor.ip(&format!(
            "link add {port} type veth peer name eth0 address {mac} netns {inside}\n\
             link set {port} addrgenmode none master {BRIDGE} up\n"
        ));
        let (v4, v6) = (v4(number), v6(number));
        namespace
            .ip(&format!("link set eth0 up\naddr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\n"));
        // The kernel gets round to the port's carrier a moment later, on a busy machine much later. Until
        // then the bridge takes nothing from it, and what is sent there is dropped.
        until("the port to forward", PATIENCE, || {
            let told = self.hypervisor.run("bridge", &["-j", "link", "show", "dev", port]);
            let told: serde_json::Value = serde_json::from_str(&told).unwrap();
            told[0]["state"] == "forwarding"
        });
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

/// 192.0.2.`number`
#[must_use]
pub fn v4(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, number).into()
}

/// 2001:db8::`number`, read as decimal digits.
#[must_use]
pub fn v6(number: u8) -> IpAddr {
    let digits = u16::from_str_radix(&number.to_string(), 16).unwrap();
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, digits).into()
}
