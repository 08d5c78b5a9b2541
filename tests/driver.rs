//! A packet thread with its port and engine on a real bridge: what it answers, holds and delivers, and
//! how it ends.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use surrogate::engine::{Command, Limits, Mode, Notice};
use surrogate::guest::identity::{Epoch, GuestId, InterfaceAddress, Mac, NicId, NicIdentity, PortId};
use surrogate::io::driver::{
    self, DriverCommand, DriverNotice, NicFigures, Notices, OpenError, PortConfig, PortHandle, PortKind,
    Snapshot,
};
use surrogate::io::netlink::Exchange;
use surrogate::io::sys;
use surrogate::policy::traffic::TrafficPolicy;
use surrogate_house::clients::ping;
use surrogate_house::network::{v4, v6};
use surrogate_house::{Namespace, Network, until};

const PATIENCE: Duration = Duration::from_secs(30);
const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x11]);
const NIC: NicId = NicId(7);

/// A network, a driver on its bridge, and one guest registered with it.
struct Lab {
    port: PortHandle,
    notices: Notices,
    runtime: tokio::runtime::Runtime,
    epoch: u64,
    network: Network,
}

fn config(kind: PortKind, bridge: &str) -> PortConfig {
    let limits = Limits {
        held_bytes: 16 << 20,
        flooded_ring: 64,
        outbox_bytes: 1 << 20,
        errors_per_second: 10,
        echoes_per_second: 1000,
        mtu: 1500,
    };
    PortConfig { port: PortId(0), bridge: bridge.to_owned(), kind, limits, seed: 1 }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn open(namespace: &Namespace, config: PortConfig) -> Result<(PortHandle, Notices), OpenError> {
    let runtime = runtime();
    namespace.enter(|| {
        let _context = runtime.enter();
        driver::open(config)
    })
}

impl Lab {
    fn new(kind: PortKind) -> Self {
        let (network, runtime) = (Network::new(), runtime());
        let (port, notices) = network.hypervisor.enter(|| {
            let _context = runtime.enter();
            driver::open(config(kind, "br0")).unwrap()
        });
        let address = |address: IpAddr| InterfaceAddress {
            address,
            prefix_len: if address.is_ipv4() { 24 } else { 64 },
        };
        let identity = NicIdentity {
            guest: GuestId(1),
            nic: NIC,
            port: PortId(0),
            mac: MAC,
            vlan: None,
            addresses: vec![address(v4(11)), address(v6(11))],
            groups: Vec::new(),
            router: false,
            traffic: TrafficPolicy::default(),
        };
        let mut lab = Self { port, notices, runtime, epoch: 0, network };
        lab.command(Command::Register(Box::new(identity)));
        lab.network
            .hypervisor
            .bridge(&format!("fdb replace {MAC} dev {} master static sticky\n", lab.port.ifname()));
        lab
    }

    fn command(&mut self, command: Command) {
        self.port.send(DriverCommand::Engine(command)).unwrap();
    }

    fn notice(&mut self) -> Option<DriverNotice> {
        let next = self.notices.recv();
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, next).await }).expect("a notice is due")
    }

    /// Takes notices until `wanted` says yes.
    fn await_notice(&mut self, wanted: impl Fn(&Notice) -> bool) -> Notice {
        loop {
            match self.notice() {
                Some(DriverNotice::Engine(notice)) if wanted(&notice) => return notice,
                Some(DriverNotice::Engine(_)) => {}
                other => panic!("the thread ended: {other:?}"),
            }
        }
    }

    /// Sets a mode, in a new epoch, and waits until it is in force.
    fn set_mode(&mut self, mode: Mode) {
        self.epoch += 1;
        let epoch = Epoch(self.epoch);
        self.command(Command::SetMode { nic: NIC, epoch, mode });
        self.await_notice(|n| matches!(n, Notice::ModeSet { epoch: of, .. } if *of == epoch));
    }

    fn snapshot(&mut self) -> Snapshot {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.port.send(DriverCommand::Snapshot(tell)).unwrap();
        let snapshot = self.runtime.block_on(told).expect("the thread lives");
        for NicFigures { nic, counters, .. } in &snapshot.nics {
            counters.conserved().unwrap_or_else(|why| panic!("{nic:?}: {why}"));
        }
        snapshot
    }

    /// Sends numbered datagrams to the guest from c1 until `count` are held.
    fn hold(&mut self, count: u16) {
        let client = self.network.c1.enter(|| UdpSocket::bind((v4(101), 0)).unwrap());
        self.network.c1.ip(&format!("neigh replace {} lladdr {MAC} dev eth0 nud permanent\n", v4(11)));
        for number in 0..count {
            client.send_to(&number.to_be_bytes(), (v4(11), 9)).unwrap();
        }
        let mut held = 0;
        until("the datagrams to be held", PATIENCE, || {
            held = self.snapshot().nics[0].counters.held;
            held >= u64::from(count)
        });
        assert_eq!(held, u64::from(count));
    }
}

fn answers_for_a_sleeper(kind: PortKind) {
    let mut lab = Lab::new(kind);
    assert_eq!(lab.port.mtu(), 1500);
    lab.set_mode(Mode::Answer);
    for address in [v4(11), v6(11)] {
        let pings = ping(&lab.network.c1, address, 20, Duration::from_millis(10));
        assert!(pings.all_answered(), "{pings:?}");
    }
    let snapshot = lab.snapshot();
    let NicFigures { nic, mode, counters, .. } = &snapshot.nics[0];
    assert_eq!((*nic, *mode), (NIC, Mode::Answer));
    let answered: u64 = counters.answered.iter().sum();
    assert!(answered >= 42, "40 echoes, an ARP request and a solicitation: {counters:?}");
    assert!(snapshot.transmitted >= answered && snapshot.received >= answered, "{snapshot:?}");
    assert_eq!((snapshot.transmit_failed, snapshot.kernel_drops), (0, 0));

    lab.set_mode(Mode::Hold { flooded: true });
    let pings = ping(&lab.network.c1, v4(11), 3, Duration::from_millis(10));
    assert!(!pings.all_answered(), "silent from the moment the mode is in force: {pings:?}");
}

#[test]
fn a_sleeper_is_answered_for_through_a_veth_port() {
    answers_for_a_sleeper(PortKind::Veth);
}

#[test]
fn a_sleeper_is_answered_for_through_a_tap_port() {
    answers_for_a_sleeper(PortKind::Tap);
}

/// A guest's tap on the hypervisor: its file, and its index.
fn tap(hypervisor: &Namespace) -> (File, u32) {
    let file = hypervisor.enter(|| File::from(sys::tap_open("g1").unwrap()));
    hypervisor.ip("link set g1 addrgenmode none\nlink set g1 up\n");
    let link = hypervisor.enter(|| Exchange::open().unwrap().link("g1").unwrap());
    (file, link.unwrap().ifindex)
}

/// Reads the numbers of `count` datagrams from a guest's tap.
fn numbers(tap: &mut File, count: usize) -> Vec<u16> {
    let (mut numbers, mut frame) = (Vec::new(), [0; 2000]);
    until("the datagrams to reach the guest", PATIENCE, || {
        loop {
            match tap.read(&mut frame) {
                Ok(_) => numbers.push(u16::from_be_bytes([frame[42], frame[43]])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return numbers.len() >= count,
                Err(error) => panic!("{error}"),
            }
        }
    });
    numbers
}

#[test]
fn more_held_frames_than_the_guests_queue_takes_reach_it_once_and_in_order() {
    const HELD: u16 = 2000; // one flow may have half of the 4096
    let mut lab = Lab::new(PortKind::Veth);
    let (mut tap, ifindex) = tap(&lab.network.hypervisor);
    lab.set_mode(Mode::Hold { flooded: false });
    lab.hold(HELD);
    lab.port.send(DriverCommand::AttachPort { nic: NIC, ifindex, untag: None }).unwrap();
    lab.set_mode(Mode::Replay { released: false });
    // Nobody reads: the queue is full at about 1000, and what is left stays held.
    until("the guest's queue to be full", PATIENCE, || lab.snapshot().nics[0].counters.replayed >= 900);
    assert!(lab.snapshot().nics[0].counters.holding >= 900);
    assert!(numbers(&mut tap, HELD.into()).into_iter().eq(0..HELD));
    let drained = lab.await_notice(|notice| matches!(notice, Notice::Drained { .. }));
    assert!(
        matches!(drained, Notice::Drained { delivered, .. } if delivered == u64::from(HELD)),
        "{drained:?}"
    );
    assert_eq!(lab.snapshot().nics[0].counters.holding, 0);
}

#[test]
fn frames_for_a_port_that_is_not_there_wait_until_it_is() {
    let mut lab = Lab::new(PortKind::Veth);
    lab.set_mode(Mode::Hold { flooded: false });
    lab.hold(10);
    lab.set_mode(Mode::Replay { released: false });
    assert_eq!(lab.snapshot().nics[0].counters.holding, 10);
    let (mut tap, ifindex) = tap(&lab.network.hypervisor);
    lab.port.send(DriverCommand::AttachPort { nic: NIC, ifindex, untag: None }).unwrap();
    lab.command(Command::PortReady { nic: NIC });
    assert!(numbers(&mut tap, 10).into_iter().eq(0..10));
    lab.await_notice(|notice| matches!(notice, Notice::Drained { delivered: 10, .. }));
}

fn ends_when_its_port_vanishes(kind: PortKind) {
    let mut lab = Lab::new(kind);
    lab.network.hypervisor.ip(&format!("link del {}\n", lab.port.ifname()));
    let last = lab.notice();
    assert!(matches!(&last, Some(DriverNotice::Failed { why }) if why.contains("port")), "{last:?}");
    assert!(lab.notice().is_none());
    assert!(lab.port.send(DriverCommand::DetachPort { nic: NIC }).is_err());
}

#[test]
fn the_thread_says_that_its_veth_port_vanished() {
    ends_when_its_port_vanishes(PortKind::Veth);
}

#[test]
fn the_thread_says_that_its_tap_port_vanished() {
    ends_when_its_port_vanishes(PortKind::Tap);
}

fn leaves_nothing_behind(kind: PortKind) {
    let lab = Lab::new(kind);
    let Lab { port, mut notices, runtime, network, .. } = lab;
    let name = port.ifname().to_owned();
    let here = || network.hypervisor.enter(|| Exchange::open().unwrap().link(&name).unwrap()).is_some();
    assert!(here());
    port.close();
    assert!(!here(), "{name} is still there");
    assert!(runtime.block_on(notices.recv()).is_none());
}

#[test]
fn a_closed_veth_port_is_gone() {
    leaves_nothing_behind(PortKind::Veth);
}

#[test]
fn a_closed_tap_port_is_gone() {
    leaves_nothing_behind(PortKind::Tap);
}

#[test]
fn a_bridge_that_is_missing_or_none_is_refused_by_name() {
    let network = Network::new();
    let refused = |bridge: &str| open(&network.hypervisor, config(PortKind::Veth, bridge)).err().unwrap();
    let missing = refused("br7");
    assert!(matches!(missing, OpenError::NoSuchBridge { .. }) && missing.to_string().contains("br7"));
    let veth = refused("c1");
    assert!(matches!(veth, OpenError::NotABridge { .. }) && veth.to_string().contains("veth"), "{veth}");
}
