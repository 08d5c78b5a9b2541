//! The surrogate's ports on a real bridge: what they receive, how they leave the bridge alone, and that
//! deliveries to a guest's own port are never lost in silence.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use surrogate::engine::Refusal;
use surrogate::guest::identity::NicId;
use surrogate::io::deliver::Deliveries;
use surrogate::io::driver::PortKind;
use surrogate::io::netlink::{Exchange, Link};
use surrogate::io::port::bridge::{Bridge, PortMacs};
use surrogate::io::port::{FramePort, TapPort, Transmitted, VethPort};
use surrogate::io::sys;
use surrogate::rng::Rng;
use surrogate_house::capture::Sender;
use surrogate_house::network::{v4, v6};
use surrogate_house::{Capture, Deadline, Namespace, Network, until};
use surrogate_wire::Offload;

const PATIENCE: Duration = Duration::from_secs(30);
const C2_MAC: &str = "02:00:00:00:01:02";

/// A port of either kind, and what a test needs to know of it.
struct Port {
    port: Box<dyn FramePort + Send>,
    name: String,
    never: OwnedFd,
}

/// A frame that a port received, the tag in line.
#[derive(Debug, PartialEq)]
struct Got {
    bytes: Vec<u8>,
    offload: Offload,
}

impl Port {
    fn open(kind: PortKind, hypervisor: &Namespace) -> Self {
        hypervisor.enter(|| {
            let mut exchange = Exchange::open().unwrap();
            let bridge = Bridge::find(&mut exchange, "br0").unwrap();
            let name = bridge.free_port_name(&mut exchange).unwrap();
            let mac = PortMacs::draw(&mut Rng::seeded(1)).port;
            let port: Box<dyn FramePort + Send> = match kind {
                PortKind::Veth => Box::new(VethPort::open(&mut exchange, &bridge, &name, mac).unwrap()),
                PortKind::Tap => Box::new(TapPort::open(&mut exchange, &bridge, &name, mac).unwrap()),
            };
            Self { port, name, never: sys::eventfd().unwrap() }
        })
    }

    /// Receives until `wanted` frames pass `filter`, in order; the others are of no interest.
    fn receive(&mut self, wanted: usize, filter: impl Fn(&Got) -> bool) -> Vec<Got> {
        let (deadline, mut got) = (Deadline::after(PATIENCE), Vec::new());
        while got.len() < wanted {
            assert!(!deadline.passed(), "{} of {wanted} frames came: {got:?}", got.len());
            self.port.wait([self.never.as_fd(), self.never.as_fd()], Some(deadline.left())).unwrap();
            while let Some(frame) = self.port.receive().unwrap() {
                let mut bytes = frame.bytes.to_vec();
                if let Some(tag) = frame.vlan {
                    let [[a, b], [c, d]] = [tag.tpid.to_be_bytes(), tag.tci.to_be_bytes()];
                    bytes.splice(12..12, [a, b, c, d]);
                }
                got.extend(Some(Got { bytes, offload: frame.offload }).filter(&filter));
            }
        }
        got
    }

    fn send(&mut self, frame: &[u8]) -> Transmitted {
        self.port.transmit(frame);
        self.port.flush()
    }
}

/// A broadcast frame of an experimental EtherType, behind a tag of VLAN 7 if asked, of `length` bytes.
fn broadcast(tagged: bool, length: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 1, 1]);
    if tagged {
        frame.extend([0x81, 0x00, 0x60, 0x07]);
    }
    frame.extend([0x88, 0xb5]);
    frame.extend((frame.len()..length).map(|n| n as u8));
    frame
}

fn is_ours(got: &Got) -> bool {
    got.bytes[12..].windows(2).take(5).any(|two| two == [0x88, 0xb5])
}

fn link(namespace: &Namespace, name: &str) -> Option<Link> {
    namespace.enter(|| Exchange::open().unwrap().link(name).unwrap())
}

fn receives_frames_whole(kind: PortKind) {
    let network = Network::new();
    let mut port = Port::open(kind, &network.hypervisor);
    let sender = Sender::new(&network.c1, "eth0");
    let sent = [broadcast(false, 60), broadcast(true, 64), broadcast(false, 1514), broadcast(true, 1518)];
    sent.iter().for_each(|frame| sender.send(frame));
    let got: Vec<_> = port.receive(sent.len(), is_ours).into_iter().map(|got| got.bytes).collect();
    assert!(got == sent, "lengths {:?}", got.iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!(port.port.dropped(), 0);
}

#[test]
fn a_veth_port_receives_tagged_and_untagged_frames_whole() {
    receives_frames_whole(PortKind::Veth);
}

#[test]
fn a_tap_port_receives_tagged_and_untagged_frames_whole() {
    receives_frames_whole(PortKind::Tap);
}

fn sends_frames_to_the_bridge(kind: PortKind) {
    let network = Network::new();
    let mut port = Port::open(kind, &network.hypervisor);
    let capture = Capture::start(&network.c1, "eth0");
    for length in [60, 1514] {
        assert_eq!(port.send(&broadcast(false, length)), Transmitted { sent: 1, failed: 0 });
    }
    for _ in 0..200 {
        port.port.transmit(&broadcast(false, 61));
    }
    assert_eq!(port.port.flush(), Transmitted { sent: 200, failed: 0 });
    assert_eq!(port.send(&broadcast(false, 1600)), Transmitted { sent: 0, failed: 1 });
    let frames = capture.wait("202 frames of ours", PATIENCE, |frames| {
        frames.iter().filter(|f| f.ethertype() == Some((0x88b5, 14))).count() >= 202
    });
    let lengths: Vec<_> =
        frames.iter().filter(|f| f.ethertype() == Some((0x88b5, 14))).map(|f| f.bytes.len()).collect();
    assert_eq!((lengths.len(), &lengths[..3]), (202, &[60, 1514, 61][..]));
    // What we send does not come back to us.
    Sender::new(&network.c2, "eth0").send(&broadcast(false, 100));
    assert_eq!(port.receive(1, is_ours)[0].bytes.len(), 100);
}

#[test]
fn a_veth_port_sends_frames_to_the_bridge_in_order_and_counts_refused_ones() {
    sends_frames_to_the_bridge(PortKind::Veth);
}

#[test]
fn a_tap_port_sends_frames_to_the_bridge_in_order_and_counts_refused_ones() {
    sends_frames_to_the_bridge(PortKind::Tap);
}

/// The Internet checksum over the pseudo-header and the transport part of an untagged IPv4 or IPv6
/// frame without options: 0 if it is right.
fn transport_checksum(frame: &[u8]) -> u16 {
    let (protocol, addresses, transport) = match frame[12..14] {
        [0x08, 0x00] => {
            let end = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
            (frame[23], &frame[26..34], &frame[34..end])
        }
        _ => {
            let end = 54 + usize::from(u16::from_be_bytes([frame[18], frame[19]]));
            (frame[20], &frame[22..54], &frame[54..end])
        }
    };
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let words = addresses.chunks(2).chain(transport.chunks(2)).map(word).sum::<u32>();
    let mut sum = words + u32::from(protocol) + transport.len() as u32;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn finishes_frames_of_local_senders(kind: PortKind) {
    let network = Network::new();
    let mut port = Port::open(kind, &network.hypervisor);
    for (number, address) in [v4(102), v6(102)].into_iter().enumerate() {
        let listener = network.c2.enter(|| TcpListener::bind((address, 80)).unwrap());
        let mut client = network.c1.enter(|| TcpStream::connect((address, 80)).unwrap());
        let _served = listener.accept().unwrap();
        let datagrams = network.c1.enter(|| UdpSocket::bind((address_of_c1(address), 0)).unwrap());
        segment_datagrams(&datagrams, 1000);
        network.hypervisor.bridge(&format!("fdb replace {C2_MAC} dev {} master static sticky\n", port.name));

        // More than the first window: the kernel hands it over as one frame of about ten segments.
        client.write_all(&[0x5a; 60_000]).unwrap();
        let protocol_at = [23, 20][number];
        let is_data = |got: &Got, protocol| got.bytes[protocol_at] == protocol && got.bytes.len() > 500;
        let segments = port.receive(10, |got| is_data(got, 6));
        // The kernel segments a datagram that leaves it to the card, too.
        datagrams.send_to(&[0xa5; 10_000], (address, 9)).unwrap();
        let fragments = port.receive(10, |got| is_data(got, 17));
        for got in segments.iter().chain(&fragments) {
            assert!(got.bytes.len() <= 1514, "{} bytes", got.bytes.len());
            assert_eq!(transport_checksum(&got.bytes), 0, "{kind:?} {:02x?}", &got.bytes[..80]);
            assert_ne!(got.offload, Offload::Partial);
        }
        network.hypervisor.bridge(&format!("fdb replace {C2_MAC} dev c2 master dynamic\n"));
    }
}

fn address_of_c1(like: std::net::IpAddr) -> std::net::IpAddr {
    if like.is_ipv4() { v4(101) } else { v6(101) }
}

/// Makes the kernel cut each write into datagrams of `bytes`, as late as it can.
#[expect(unsafe_code, reason = "std has no UDP_SEGMENT")]
fn segment_datagrams(socket: &UdpSocket, bytes: i32) {
    use std::os::fd::AsRawFd;
    let length = size_of::<i32>() as libc::socklen_t;
    let value = (&raw const bytes).cast();
    // SAFETY: the kernel reads 4 bytes, all of `bytes`.
    let rc = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, value, length) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_veth_port_gets_segments_of_local_senders_at_mtu_size_with_right_checksums() {
    finishes_frames_of_local_senders(PortKind::Veth);
}

#[test]
fn a_tap_port_gets_segments_of_local_senders_at_mtu_size_with_right_checksums() {
    finishes_frames_of_local_senders(PortKind::Tap);
}

fn is_no_part_of_the_bridges_own(kind: PortKind) {
    let hypervisor = Namespace::new("hv");
    let client = Namespace::new("c");
    // No address and no MTU set: the bridge takes the least of its ports'.
    hypervisor.ip(&format!(
        "link add br0 type bridge mcast_snooping 1\nlink set br0 up\n\
         link add p1 mtu 9000 address fc:ff:ff:ff:ff:ff type veth peer name eth0 mtu 9000 netns {}\n\
         link set p1 master br0 up\n",
        client.name()
    ));
    client.ip("link set eth0 up");
    let sizes = |link: Option<Link>| link.map(|link| (link.mtu, link.mac));
    let before = sizes(link(&hypervisor, "br0"));
    assert_eq!(before.unwrap().0, 9000);

    let mut port = Port::open(kind, &hypervisor);
    assert_eq!(sizes(link(&hypervisor, "br0")), before);
    let own = link(&hypervisor, &port.name).unwrap();
    let flags = own.port.unwrap();
    assert!(own.up && own.mtu == 9000 && own.mac.unwrap().0[0] == 0xfe, "{own:?}");
    assert!(!flags.learning && !flags.flood && flags.bcast_flood && flags.mcast_flood, "{flags:?}");
    assert_eq!((flags.mcast_router, flags.state), (2, 3), "{flags:?}");
    let shown = hypervisor.run("ip", &["link", "show", &port.name]);
    assert!(shown.contains("alias surrogate port of br0"), "{shown}");
    assert_eq!(hypervisor.run("ip", &["-6", "addr", "show", "dev", &port.name]), "");

    let long = broadcast(false, 9014);
    Sender::new(&client, "eth0").send(&long);
    assert!(port.receive(1, is_ours)[0].bytes == long);
    let capture = Capture::start(&client, "eth0");
    assert_eq!(port.send(&long).sent, 1);
    capture.wait("the jumbo frame", PATIENCE, |frames| frames.iter().any(|f| f.bytes == long));

    let name = port.name.clone();
    drop(port);
    // A child that another test's thread is starting holds a copy until it becomes its own program.
    until("the port to vanish", PATIENCE, || link(&hypervisor, &name).is_none());
    assert_eq!(sizes(link(&hypervisor, "br0")), before);
}

#[test]
fn a_veth_port_leaves_the_bridges_mtu_and_mac_alone_and_carries_jumbo_frames() {
    is_no_part_of_the_bridges_own(PortKind::Veth);
}

#[test]
fn a_tap_port_leaves_the_bridges_mtu_and_mac_alone_and_carries_jumbo_frames() {
    is_no_part_of_the_bridges_own(PortKind::Tap);
}

#[test]
fn two_surrogates_on_one_bridge_have_ports_of_different_names() {
    let network = Network::new();
    let one = Port::open(PortKind::Veth, &network.hypervisor);
    let two = Port::open(PortKind::Tap, &network.hypervisor);
    assert_ne!(one.name, two.name);
    assert!(link(&network.hypervisor, &one.name).is_some() && link(&network.hypervisor, &two.name).is_some());
}

/// Not a test: the process that [`vanishes_with_its_process`] kills.
#[test]
#[ignore = "a helper process of other tests"]
fn helper_holds_a_port_until_it_is_killed() {
    let kind = if std::env::var_os("HOLD_TAP").is_some() { PortKind::Tap } else { PortKind::Veth };
    let mut exchange = Exchange::open().unwrap();
    let bridge = Bridge::find(&mut exchange, "br0").unwrap();
    let mac = PortMacs::draw(&mut Rng::seeded(1)).port;
    let _port: Box<dyn FramePort> = match kind {
        PortKind::Veth => Box::new(VethPort::open(&mut exchange, &bridge, "held", mac).unwrap()),
        PortKind::Tap => Box::new(TapPort::open(&mut exchange, &bridge, "held", mac).unwrap()),
    };
    println!("holding");
    let _ = std::io::stdin().read(&mut [0]);
}

fn vanishes_with_its_process(kind: PortKind) {
    let network = Network::new();
    let mut command = network.hypervisor.command(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", "helper_holds_a_port_until_it_is_killed"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    if kind == PortKind::Tap {
        command.env("HOLD_TAP", "1");
    }
    let mut child = command.spawn().unwrap();
    until("the helper's port to be up", PATIENCE, || {
        link(&network.hypervisor, "held").is_some_and(|link| link.up)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    until("its port to vanish", PATIENCE, || link(&network.hypervisor, "held").is_none());
}

#[test]
fn a_veth_port_vanishes_with_its_process() {
    vanishes_with_its_process(PortKind::Veth);
}

#[test]
fn a_tap_port_vanishes_with_its_process() {
    vanishes_with_its_process(PortKind::Tap);
}

/// A guest's tap, its file in our hands.
struct Tap {
    file: File,
    ifindex: u32,
    deliveries: Deliveries,
    namespace: Namespace,
}

const NIC: NicId = NicId(1);

impl Tap {
    /// `qdisc` as libvirt sets it (`noqueue`), or empty for the kernel's default.
    fn new(qdisc: &str) -> Self {
        let namespace = Namespace::new("hv");
        let (file, deliveries) =
            namespace.enter(|| (File::from(sys::tap_open("g1").unwrap()), Deliveries::open().unwrap()));
        namespace.ip("link set g1 addrgenmode none\nlink set g1 up\n");
        if !qdisc.is_empty() {
            namespace.run("tc", &["qdisc", "replace", "dev", "g1", "root", qdisc]);
        }
        let ifindex = link(&namespace, "g1").unwrap().ifindex;
        let mut tap = Self { file, ifindex, deliveries, namespace };
        tap.deliveries.attach(NIC, tap.ifindex, None);
        tap
    }

    /// Delivers numbered frames until one is refused: how many were taken, and why no more.
    fn fill(&mut self, from: u16) -> (u16, Refusal) {
        for number in from..from + 5000 {
            let mut frame = broadcast(false, 60);
            frame[58..].copy_from_slice(&number.to_be_bytes());
            if let Err(why) = self.deliveries.deliver(NIC, &frame) {
                return (number - from, why);
            }
        }
        panic!("5000 frames into a tap that nobody reads");
    }

    /// Reads numbers until nothing is left.
    fn read(&mut self) -> Vec<u16> {
        let (mut numbers, mut frame) = (Vec::new(), [0; 2000]);
        loop {
            match self.file.read(&mut frame) {
                Ok(length) => numbers.push(u16::from_be_bytes([frame[length - 2], frame[length - 1]])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return numbers,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn a_full_tap_pushes_back(qdisc: &str) {
    let mut tap = Tap::new(qdisc);
    let (taken, why) = tap.fill(0);
    assert_eq!(why, Refusal::Full);
    assert!(taken >= 900, "{taken}");
    assert_eq!(tap.read(), (0..taken).collect::<Vec<_>>(), "each once, in order");
    let (again, why) = tap.fill(taken);
    assert_eq!((again > 0, why), (true, Refusal::Full));
    assert!(tap.read().into_iter().eq(taken..taken + again));
}

#[test]
fn a_full_tap_refuses_frames_and_loses_none_that_it_took() {
    a_full_tap_pushes_back("noqueue");
}

#[test]
fn a_full_tap_refuses_frames_under_the_kernels_default_queueing_discipline_too() {
    a_full_tap_pushes_back("");
}

#[test]
fn a_port_that_leads_nowhere_yet_takes_nothing() {
    let mut tap = Tap::new("noqueue");
    let frame = broadcast(false, 60);
    tap.namespace.ip("tuntap add g2 mode tap\nlink set g2 up\n\
         link add g3 type veth peer name eth0\nlink set g3 up\n");
    for port in ["g2", "g3"] {
        tap.deliveries.attach(NIC, link(&tap.namespace, port).unwrap().ifindex, None);
        assert_eq!(tap.deliveries.deliver(NIC, &frame), Err(Refusal::Full), "{port}");
    }
    tap.namespace.ip("link set eth0 up\n");
    assert_eq!(tap.deliveries.deliver(NIC, &frame), Ok(()), "its other end is up");
}

#[test]
fn deliveries_say_what_became_of_the_port() {
    let mut tap = Tap::new("noqueue");
    let frame = broadcast(false, 60);
    assert_eq!(tap.deliveries.deliver(NicId(2), &frame), Err(Refusal::Gone), "never attached");
    assert_eq!(tap.deliveries.deliver(NIC, &broadcast(false, 1600)), Err(Refusal::TooLong));
    assert_eq!(tap.deliveries.deliver(NIC, &broadcast(true, 1518)), Ok(()), "a tag does not count");
    tap.namespace.ip("link set g1 down");
    assert_eq!(tap.deliveries.deliver(NIC, &frame), Err(Refusal::Gone), "down");
    tap.namespace.ip("link set g1 up");
    assert_eq!(tap.deliveries.deliver(NIC, &frame), Ok(()), "up again");
    tap.namespace.ip("link del g1");
    assert_eq!(tap.deliveries.deliver(NIC, &frame), Err(Refusal::Gone), "deleted");
    tap.deliveries.detach(NIC);
    assert_eq!(tap.deliveries.deliver(NIC, &frame), Err(Refusal::Gone), "detached");
}

#[test]
fn a_delivery_leaves_the_tag_off_where_the_bridge_would() {
    let mut tap = Tap::new("noqueue");
    let (mut frame, mut got) = (broadcast(true, 60), [0; 100]);
    let vlan = u16::from_be_bytes([frame[14], frame[15]]) & 0x0fff;
    frame[59] = 7;
    tap.deliveries.attach(NIC, tap.ifindex, Some(vlan + 1));
    tap.deliveries.deliver(NIC, &frame).unwrap();
    assert_eq!(tap.file.read(&mut got).unwrap(), 60);
    assert_eq!(got[..60], frame, "another VLAN's tag stays");
    tap.deliveries.attach(NIC, tap.ifindex, Some(vlan));
    tap.deliveries.deliver(NIC, &frame).unwrap();
    assert_eq!(tap.file.read(&mut got).unwrap(), 60);
    assert_eq!((&got[..12], &got[12..56]), (&frame[..12], &frame[16..]), "the rest is as it was");
    assert_eq!(got[56..60], [0; 4], "padded with zeros");
}
