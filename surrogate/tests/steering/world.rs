//! A bridge with a guest, a client and our port; all in one namespace, each as a pair of veths.

use std::sync::Arc;
use std::time::Duration;

use surrogate::io::journal::Journal;
use surrogate::io::netlink::Netlink;
use surrogate::io::steering::{Place, ReleaseReport, Steering, release_all};
use surrogate_house::Namespace;
use surrogate_house::capture::Sender;
use surrogate_house::until;
use surrogate_wire::Mac;
use tempfile::TempDir;

/// The guest at port `g1`.
pub(crate) const GUEST: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x11]);
/// Another one at port `g2`.
pub(crate) const OTHER: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x12]);
/// The client at port `c1`.
pub(crate) const CLIENT: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x99]);
/// The guest's solicited-node group, of its address 2001:db8::11.
pub(crate) const GUEST_GROUP: &str = "ff02::1:ff00:11";

pub(crate) struct World {
    pub(crate) hypervisor: Namespace,
    pub(crate) state_dir: TempDir,
}

impl World {
    /// With `bridge`, settings for the bridge as `ip` wants them.
    pub(crate) fn new(bridge: &str) -> Self {
        let hypervisor = Namespace::new("steering");
        hypervisor.ip(&format!(
            "link add br0 address 02:00:00:00:00:01 type bridge forward_delay 0 stp_state 0 {bridge}\n\
             link set br0 addrgenmode none up"
        ));
        let world = Self { hypervisor, state_dir: TempDir::new().unwrap() };
        world.add_port("c1", "");
        world.add_port("g1", "");
        world.add_surrogate_port();
        // As if the guest had just spoken.
        world.hypervisor.bridge(&format!("fdb replace {GUEST} dev g1 master dynamic"));
        world
    }

    /// A pair of veths, `port` on the bridge and `port-in` at the station.
    pub(crate) fn add_port(&self, port: &str, options: &str) {
        self.hypervisor.ip(&format!(
            "link add {port} type veth peer name {port}-in\n\
             link set {port}-in addrgenmode none up\n\
             link set {port} addrgenmode none master br0 up"
        ));
        self.wait_until_forwarding(port);
        if !options.is_empty() {
            self.hypervisor.bridge(&format!("link set dev {port} {options}"));
        }
    }

    pub(crate) fn add_surrogate_port(&self) {
        self.hypervisor.ip("link add sur0 address fe:00:00:00:00:aa type veth peer name sur0-in\n\
             link set sur0-in addrgenmode none up\n\
             link set sur0 addrgenmode none master br0 up");
        self.wait_until_forwarding("sur0");
        self.hypervisor.bridge("link set dev sur0 learning off flood off");
    }

    /// The kernel turns a port on some time after its carrier came, and gives it no entries before.
    fn wait_until_forwarding(&self, port: &str) {
        until("the port to forward", Duration::from_secs(30), || {
            self.hypervisor.run("bridge", &["link", "show", "dev", port]).contains("state forwarding")
        });
    }

    /// As the kernel does when the daemon dies.
    pub(crate) fn lose_surrogate_port(&self) {
        self.hypervisor.ip("link del sur0");
    }

    pub(crate) fn ifindex(&self, link: &str) -> u32 {
        let path = format!("/sys/class/net/{link}/ifindex");
        let text = self.hypervisor.run("ip", &["-j", "link", "show", "dev", link]);
        let index = text.split("\"ifindex\":").nth(1).and_then(|rest| rest.split(',').next());
        index.unwrap_or_else(|| panic!("no {path}")).parse().unwrap()
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            guest: "web1".to_owned(),
            mac: GUEST,
            vlan: None,
            bridge: "br0".to_owned(),
            surrogate_port: self.ifindex("sur0"),
            addresses: vec!["192.0.2.11".parse().unwrap(), "2001:db8::11".parse().unwrap()],
            groups: Vec::new(),
        }
    }

    /// Runs `f` with the daemon's steering, in the bridge's namespace.
    pub(crate) fn steering<T: Send>(&self, f: impl AsyncFnOnce(&Steering) -> T + Send) -> T {
        let journal = Arc::new(Journal::open(self.state_dir.path()).unwrap());
        self.netlink(async move |netlink| f(&Steering::new(netlink.clone(), journal)).await)
    }

    pub(crate) fn netlink<T: Send>(&self, f: impl AsyncFnOnce(&Netlink) -> T + Send) -> T {
        self.hypervisor.enter(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { f(&Netlink::connect().unwrap()).await })
        })
    }

    /// What `surrogate release --all` does.
    pub(crate) fn release_all(&self) -> ReleaseReport {
        self.netlink(async |netlink| release_all(self.state_dir.path(), netlink).await.unwrap())
    }

    /// Every setting and entry of the bridge's ports, a line each. The groups that the bridge itself
    /// joins, at a moment of its own after it came up, are nobody's here.
    pub(crate) fn tables(&self) -> Vec<String> {
        [&["-d", "-o", "link"][..], &["-d", "mdb"], &["fdb"]]
            .iter()
            .flat_map(|question| {
                let answer = self.hypervisor.run("bridge", question);
                let lines = answer.lines().map(|line| line.trim().to_owned());
                let mut lines: Vec<String> =
                    lines.filter(|line| !line.starts_with("dev br0 port br0 ")).collect();
                lines.sort();
                lines
            })
            .collect()
    }

    /// The forwarding entries of a station, as `bridge` prints them.
    pub(crate) fn entries(&self, mac: Mac) -> Vec<String> {
        let mac = mac.to_string();
        let all = self.hypervisor.run("bridge", &["fdb", "show", "br", "br0"]);
        all.lines().filter(|line| line.starts_with(&mac)).map(|line| line.trim().to_owned()).collect()
    }

    /// The groups of a port, as `bridge` prints them.
    pub(crate) fn groups(&self, port: &str) -> Vec<String> {
        let all = self.hypervisor.run("bridge", &["mdb", "show", "dev", "br0"]);
        let port = format!("port {port} ");
        all.lines().filter(|line| line.contains(&port)).map(|line| line.trim().to_owned()).collect()
    }

    pub(crate) fn sender(&self, port: &str) -> Sender {
        Sender::new(&self.hypervisor, &format!("{port}-in"))
    }
}

/// A frame of an EtherType for experiments, with a number in it.
pub(crate) fn numbered(to: Mac, from: Mac, number: u32) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0, &[0x88, 0xb5]].concat();
    frame.extend(number.to_be_bytes());
    frame.resize(60, 0);
    frame
}

/// The numbers of the [`numbered`] frames among `frames`, for `to`.
pub(crate) fn numbers(frames: &[surrogate_house::Frame], to: Mac) -> Vec<u32> {
    frames
        .iter()
        .filter(|frame| !frame.outgoing && frame.destination() == to.0 && frame.bytes[12..14] == [0x88, 0xb5])
        .map(|frame| u32::from_be_bytes(frame.bytes[14..18].try_into().unwrap()))
        .collect()
}
