//! Who answers: Surrogate and those it is measured against.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use pnet::datalink;
use pnet::packet::ethernet::{EtherTypes, EthernetPacket, MutableEthernetPacket};
use pnet::packet::icmp::{IcmpTypes, checksum};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv4::{self, MutableIpv4Packet};
use surrogate::engine::{Command, Limits, Mode};
use surrogate::guest::identity::{Epoch, GuestId, InterfaceAddress, Mac, NicId, NicIdentity, PortId};
use surrogate::io::driver::{self, DriverCommand, Notices, PortConfig, PortHandle, PortKind};
use surrogate::io::netlink::Exchange;
use surrogate::io::port::bridge::{Bridge, PortMacs};
use surrogate::io::port::{FramePort, VethPort};
use surrogate::io::sys;
use surrogate::policy::traffic::TrafficPolicy;
use surrogate::rng::Rng;
use surrogate_house::{Namespace, pin_to};

use crate::Lab;
use crate::flood::ANSWER_CORE;
use crate::frames::Between;

/// The MAC the requests come from: not that of `eth0`, so that the client's own stack ignores replies.
const CLIENT_MAC: Mac = Mac([2, 0, 0, 0, 1, 9]);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 101);

/// Somebody who answers echo requests in the place of a guest.
pub struct Contender {
    name: &'static str,
    guest: Guest,
    alive: Alive,
}

/// Whom the requests ask for.
#[derive(Clone, Copy)]
pub struct Guest {
    /// Its address on the bridge.
    pub mac: Mac,
    address: Ipv4Addr,
}

/// What a contender lives by.
enum Alive {
    Kernel { _namespace: Namespace },
    Surrogate { port: PortHandle, _notices: Notices, _runtime: tokio::runtime::Runtime },
    Loop { worker: Worker, _namespace: Option<Namespace> },
}

impl Guest {
    /// 192.0.2.`number`
    pub const fn number(number: u8) -> Self {
        Self { mac: Mac([0x52, 0x54, 0, 0, 0, number]), address: Ipv4Addr::new(192, 0, 2, number) }
    }

    /// A whole frame of 60 bytes.
    pub fn echo_request(&self) -> Vec<u8> {
        let client = (CLIENT_MAC, CLIENT, Ipv6Addr::UNSPECIFIED);
        let guest = (self.mac, self.address, Ipv6Addr::UNSPECIFIED);
        Between { client, guest }.echo_request(18)
    }
}

impl Contender {
    /// Its name in the table.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whom to ask.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// The name of the thread that answers, if it is one of ours.
    pub fn thread(&self) -> Option<&str> {
        match &self.alive {
            Alive::Kernel { .. } => None,
            Alive::Surrogate { port, .. } => Some(port.ifname()),
            Alive::Loop { worker, .. } => worker.thread.as_ref()?.thread().name(),
        }
    }

    /// A namespace with the guest's addresses: an awake guest, answered for by its own kernel.
    pub fn kernel(lab: &Lab, guest: Guest) -> Self {
        let namespace = guest_namespace(lab, guest);
        let address = guest.address;
        namespace.ip(&format!(
            "addr add {address}/24 dev eth0\nneigh replace {CLIENT} lladdr {CLIENT_MAC} dev eth0 nud permanent\n"
        ));
        Self { name: "kernel's awake guest", guest, alive: Alive::Kernel { _namespace: namespace } }
    }

    /// Surrogate with the guest registered and asleep.
    pub fn surrogate(lab: &Lab, guest: Guest, kind: PortKind) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let (mut port, notices) = lab.hypervisor.enter(|| {
            pin_to(ANSWER_CORE).unwrap();
            let _context = runtime.enter();
            driver::open(PortConfig {
                port: PortId(0),
                bridge: "br0".to_owned(),
                kind,
                limits: Limits {
                    held_bytes: 1 << 20,
                    flooded_ring: 16,
                    outbox_bytes: 1 << 20,
                    errors_per_second: 1,
                    echoes_per_second: u32::MAX,
                    mtu: 1500,
                },
                seed: u64::from(guest.mac.0[5]),
            })
            .unwrap()
        });
        let nic = NicId(1);
        let identity = NicIdentity {
            guest: GuestId(1),
            nic,
            port: PortId(0),
            mac: guest.mac,
            vlan: None,
            addresses: vec![InterfaceAddress { address: IpAddr::V4(guest.address), prefix_len: 24 }],
            groups: Vec::new(),
            router: false,
            traffic: TrafficPolicy::default(),
        };
        let sleep = Command::SetMode { nic, epoch: Epoch(1), mode: Mode::Answer };
        for command in [Command::Register(Box::new(identity)), sleep] {
            port.send(DriverCommand::Engine(command)).unwrap();
        }
        steer(lab, guest, port.ifname());
        let name = match kind {
            PortKind::Veth => "surrogate, veth port",
            PortKind::Tap => "surrogate, tap port",
        };
        Self { name, guest, alive: Alive::Surrogate { port, _notices: notices, _runtime: runtime } }
    }

    /// What one writes first: pnet's datalink channel at the guest's end of a veth, one frame at a time.
    pub fn pnet_loop(lab: &Lab, guest: Guest) -> Self {
        let namespace = guest_namespace(lab, guest);
        let worker = Worker::start(&namespace, "pnet-loop", move |stop| {
            let eth0 = datalink::interfaces().into_iter().find(|i| i.name == "eth0").unwrap();
            let config =
                datalink::Config { read_timeout: Some(Duration::from_millis(50)), ..Default::default() };
            let Ok(datalink::Channel::Ethernet(mut sender, mut receiver)) = datalink::channel(&eth0, config)
            else {
                panic!("no channel on eth0")
            };
            while !stop.load(Ordering::Relaxed) {
                // A time-out is the only error that comes.
                if let Some(reply) = receiver.next().ok().and_then(|frame| echo_reply(frame, guest)) {
                    let _ = sender.send_to(&reply, None);
                }
            }
        });
        Self { name: "pnet datalink loop", guest, alive: Alive::Loop { worker, _namespace: Some(namespace) } }
    }

    /// Surrogate's own veth port without its engine: every frame goes back with its addresses swapped.
    pub fn bare_ring(lab: &Lab, guest: Guest) -> Self {
        let (opened, told) = std::sync::mpsc::channel();
        let worker = Worker::start(&lab.hypervisor, "bare-ring", move |stop| {
            let mut exchange = Exchange::open().unwrap();
            let bridge = Bridge::find(&mut exchange, "br0").unwrap();
            let name = bridge.free_port_name(&mut exchange).unwrap();
            let mac = PortMacs::draw(&mut Rng::seeded(u64::from(guest.mac.0[5]))).port;
            let mut port = VethPort::open(&mut exchange, &bridge, &name, mac).unwrap();
            opened.send(name).unwrap();
            let never = sys::eventfd().unwrap();
            while !stop.load(Ordering::Relaxed) {
                port.wait([never.as_fd(), never.as_fd()], Some(Duration::from_millis(50))).unwrap();
                for _ in 0..64 {
                    let Some(frame) = port.receive().unwrap() else { break };
                    let mut reply = [0; 60];
                    if frame.bytes.len() == 60 && frame.bytes[..6] == guest.mac.0 {
                        reply.copy_from_slice(frame.bytes);
                        reply[..12].rotate_left(6);
                        port.transmit(&reply);
                    }
                }
                let _ = port.flush();
            }
        });
        steer(lab, guest, &told.recv().unwrap());
        Self { name: "bare ring, swaps only", guest, alive: Alive::Loop { worker, _namespace: None } }
    }
}

/// A namespace whose `eth0` has the guest's MAC and is on the bridge.
fn guest_namespace(lab: &Lab, guest: Guest) -> Namespace {
    let namespace = Namespace::new("bg");
    let port = format!("g{}", guest.mac.0[5]);
    lab.hypervisor.ip(&format!(
        "link add {port} type veth peer name eth0 address {} netns {}\n\
         link set {port} addrgenmode none\n\
         link set {port} master br0\n\
         link set {port} up\n",
        guest.mac,
        namespace.name()
    ));
    namespace.ip("link set eth0 addrgenmode none\nlink set eth0 up\n");
    steer(lab, guest, &port);
    namespace
}

fn steer(lab: &Lab, guest: Guest, port: &str) {
    lab.hypervisor.bridge(&format!("fdb replace {} dev {port} master static sticky\n", guest.mac));
}

fn echo_reply(frame: &[u8], guest: Guest) -> Option<Vec<u8>> {
    let ethernet = EthernetPacket::new(frame)?;
    let ours =
        ethernet.get_destination().octets() == guest.mac.0 && ethernet.get_ethertype() == EtherTypes::Ipv4;
    if !ours || frame.len() < 42 {
        return None;
    }
    let mut reply = frame.to_vec();
    let mut swapped = MutableEthernetPacket::new(&mut reply)?;
    swapped.set_destination(ethernet.get_source());
    swapped.set_source(ethernet.get_destination());
    let mut ip = MutableIpv4Packet::new(reply.get_mut(14..)?)?;
    if ip.get_next_level_protocol() != IpNextHeaderProtocols::Icmp || ip.get_destination() != guest.address {
        return None;
    }
    let (source, destination) = (ip.get_source(), ip.get_destination());
    ip.set_source(destination);
    ip.set_destination(source);
    ip.set_ttl(64);
    ip.set_checksum(ipv4::checksum(&ip.to_immutable()));
    let mut icmp = pnet::packet::icmp::MutableIcmpPacket::new(reply.get_mut(34..)?)?;
    if icmp.get_icmp_type() != IcmpTypes::EchoRequest || checksum(&icmp.to_immutable()) != icmp.get_checksum()
    {
        return None;
    }
    icmp.set_icmp_type(IcmpTypes::EchoReply);
    icmp.set_checksum(checksum(&icmp.to_immutable()));
    Some(reply)
}

/// A thread on the answering core, in a namespace, until it is dropped.
struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(namespace: &Namespace, name: &str, work: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = namespace.enter(|| {
            pin_to(ANSWER_CORE).unwrap();
            std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&told)).unwrap()
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
