//! Observers at a guest's port on a real bridge: the kernel takes what the filters say, and no more.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use surrogate::guest::identity::NicId;
use surrogate::io::netlink::Exchange;
use surrogate::io::observe::filter::HEADERS;
use surrogate::io::observe::{Observer, Observers};
use surrogate::io::sys;
use surrogate::time::Instant;
use surrogate_house::capture::{ACK, FIN, RST, SYN, Sender};
use surrogate_house::network::BRIDGE;
use surrogate_house::{Deadline, Frame, NetnsGuest, Network, until};
use surrogate_wire::{Offload, Packet, Transport};

const PATIENCE: Duration = Duration::from_secs(30);
/// All happens in one moment.
const NOW: Instant = Instant::ZERO;
/// But for what is about time.
const LATER: Instant = Instant::from_nanos(1);
const NIC: NicId = NicId(7);
/// Who sends what a test makes up.
const STATION: [u8; 6] = [2, 0, 0, 0, 9, 9];
/// Ends what a test waits for: a datagram that is always taken.
const MARK: u16 = 5355;

/// A guest on a bridge, its port observed.
struct Lab {
    observers: Observers,
    guest: NetnsGuest,
    network: Network,
}

/// A frame that was observed, and what was said of it.
#[derive(Debug)]
struct Seen {
    from_guest: bool,
    vlan: Option<u16>,
    offload: Offload,
    frame: Frame,
}

impl Lab {
    fn new() -> Self {
        let network = Network::new();
        let guest = NetnsGuest::bare(&network, 1);
        let mut observers = Observers::new().unwrap();
        assert!(observers.attach(NIC, observer(&network, &guest.name)).is_none());
        Self { observers, guest, network }
    }

    /// Takes frames until one is there for which `last` holds; all of them.
    #[track_caller]
    fn seen(&mut self, last: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        let (deadline, mut seen) = (Deadline::after(PATIENCE), Vec::new());
        loop {
            assert!(!deadline.passed(), "not seen: {seen:#?}");
            sys::wait_readable([self.observers.as_fd()], Some(deadline.left())).unwrap();
            while let Some(observed) = self.observers.take(NOW) {
                assert_eq!(observed.nic, NIC);
                let received = observed.received;
                let frame = Frame { at: Duration::ZERO, outgoing: false, bytes: received.bytes.to_vec() };
                if frame.source() != STATION && frame.segment().is_none() {
                    continue; // the guest's own kernel reports its memberships
                }
                let vlan = received.vlan.map(|tag| tag.vid());
                let (from_guest, offload) = (observed.from_guest, received.offload);
                seen.push(Seen { from_guest, vlan, offload, frame });
                if seen.last().is_some_and(&last) {
                    return seen;
                }
            }
        }
    }

    /// What is seen of `frames` that the guest sends, in order.
    fn of_guests(&mut self, frames: &[Vec<u8>]) -> Vec<Seen> {
        let sender = Sender::new(&self.guest.namespace, "eth0");
        frames.iter().for_each(|frame| sender.send(frame));
        sender.send(&udp(MARK, 9, &[0; 32]));
        let mut seen = self.seen(|seen| seen.from_guest && ports(seen) == Some((MARK, 9)));
        seen.pop();
        seen
    }

    /// What is seen of `frames` that a neighbour sends, up to a frame that the guest sends after them.
    fn of_neighbours(&mut self, frames: &[Vec<u8>]) -> Vec<Seen> {
        let sender = Sender::new(&self.network.c1, "eth0");
        frames.iter().for_each(|frame| sender.send(frame));
        self.of_guests(&[])
    }
}

fn observer(network: &Network, port: &str) -> Observer {
    network.hypervisor.enter(|| {
        let link = Exchange::open().unwrap().link(port).unwrap().unwrap();
        Observer::open(link.ifindex).unwrap()
    })
}

/// Packet sockets at the interface `name`, as the kernel lists them.
fn sockets_at(network: &Network, name: &str) -> usize {
    let (ifindex, list) = network.hypervisor.enter(|| {
        let link = Exchange::open().unwrap().link(name).unwrap().unwrap();
        (link.ifindex.to_string(), std::fs::read_to_string("/proc/thread-self/net/packet").unwrap())
    });
    list.lines().skip(1).filter(|line| line.split_whitespace().nth(4) == Some(&ifindex)).count()
}

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x52, 0x54, 0, 0, 0, 0x11];
    frame.extend(STATION);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 7, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 11, 192, 0, 2, 99]);
    let sum: u32 = packet.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    ethernet(0x0800, &packet)
}

fn udp(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let words = [from, to, 8 + data.len() as u16, 0];
    let header: Vec<u8> = words.into_iter().flat_map(u16::to_be_bytes).collect();
    ipv4(17, &[&header, data].concat())
}

fn tcp(flags: u8, data: &[u8]) -> Vec<u8> {
    let header = [0, 80, 0x30, 0x39, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 4, 0, 0, 0, 0, 0];
    ipv4(6, &[&header, data].concat())
}

fn ports(seen: &Seen) -> Option<(u16, u16)> {
    seen.frame.datagram().map(|(from, to, _)| (from, to))
}

fn flags(seen: &Seen) -> Option<u8> {
    seen.frame.segment().map(|segment| segment.flags)
}

#[test]
fn what_tells_of_a_guest_is_seen_as_it_was_sent_and_the_rest_is_not() {
    let mut lab = Lab::new();
    let arp = |sender: u8, target: u8| {
        let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 9, 9, 192, 0, 2, sender];
        bytes.extend([0, 0, 0, 0, 0, 0, 192, 0, 2, target]);
        ethernet(0x0806, &bytes)
    };
    let mut mld = vec![0x60, 0, 0, 0, 0, 16, 0, 1];
    mld.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    mld.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16]);
    mld.extend([58, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0, 0, 0, 0, 0]);
    let wanted = [
        arp(11, 11),
        ethernet(0x86dd, &mld),
        ipv4(2, &[0x16, 0, 0, 0, 224, 0, 0, 251]),
        ipv4(1, &[3, 3, 0, 0, 0, 0, 0, 0]),
        udp(5353, 5353, &[7; 900]),
        udp(137, 137, &[7; 60]),
        tcp(SYN, &[]),
        tcp(FIN, &[]),
        tcp(RST, &[]),
    ];
    let unwanted = [arp(11, 1), ipv4(1, &[8, 0, 0, 0, 0, 0, 0, 0]), udp(53, 4000, &[7; 60])];
    let sent: Vec<_> = unwanted.iter().chain(&wanted).chain(&unwanted).cloned().collect();
    let seen = lab.of_guests(&sent);
    assert!(seen.iter().all(|seen| seen.from_guest && seen.vlan.is_none()));
    assert_eq!(
        seen.iter().map(|seen| &seen.frame.bytes).collect::<Vec<_>>(),
        wanted.iter().collect::<Vec<_>>()
    );
}

#[test]
fn a_tag_is_told_beside_the_frame() {
    let mut lab = Lab::new();
    let mut tagged = tcp(SYN, &[]);
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    let seen = lab.of_guests(&[tagged, tcp(SYN, &[])]);
    assert_eq!(seen.iter().map(|seen| seen.vlan).collect::<Vec<_>>(), [Some(7), None]);
    assert_eq!(seen[0].frame.bytes, seen[1].frame.bytes);
}

#[test]
fn of_a_long_segment_the_headers_and_the_length_are_true() {
    let mut lab = Lab::new();
    // The second must show nothing of the first.
    let seen = lab.of_guests(&[udp(5353, 5353, &[0xff; 1400]), tcp(SYN, &[0xee; 1000]), tcp(SYN, &[])]);
    let [name, long, short] = &seen[..] else { panic!("{seen:#?}") };
    assert_eq!(
        (name.offload, long.offload, short.offload),
        (Offload::None, Offload::Verified, Offload::None)
    );
    assert_eq!(long.frame.segment().map(|segment| segment.length), Some(1000));
    let (read, rest) = long.frame.bytes.split_at(HEADERS as usize);
    assert_eq!(read, &tcp(SYN, &[0xee; 1000])[..HEADERS as usize]);
    assert!(rest.iter().all(|byte| *byte == 0));

    let received = surrogate_wire::Received {
        offload: long.offload,
        ..surrogate_wire::Received::plain(&long.frame.bytes)
    };
    let parsed = surrogate_wire::Frame::parse(&received).unwrap();
    match Packet::parse(&parsed, received.offload) {
        Ok(Packet::Ipv4(_, Transport::Tcp(tcp))) => assert_eq!((tcp.seq, tcp.segment_len()), (1, 1001)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_idle_guests_connections_are_seen_whole_and_a_busy_ones_in_samples() {
    let mut lab = Lab::new();
    assert_eq!(lab.observers.closely_since(NOW, NIC), None);
    lab.observers.closely(NOW, NIC, true);
    assert_eq!(lab.observers.closely_since(NOW, NIC), Some(NOW));
    lab.observers.closely(LATER, NIC, true);
    assert_eq!(lab.observers.closely_since(LATER, NIC), Some(NOW), "all the time");
    let (_client, mut served) = connection(&lab, 80);
    served.write_all(b"how are you?").unwrap();
    let passed = AtomicU8::new(0); // acknowledgements: of the connection, of the data
    let seen =
        lab.seen(|seen| !seen.from_guest && flags(seen) == Some(ACK) && passed.fetch_add(1, Relaxed) == 1);
    let said = seen.iter().map(|seen| {
        let segment = seen.frame.segment().expect("TCP only");
        (seen.from_guest, segment.flags, segment.length)
    });
    let said: Vec<_> = said.collect();
    const PSH_ACK: u8 = 0x18;
    assert_eq!(
        said,
        [(false, SYN, 0), (true, SYN | ACK, 0), (false, ACK, 0), (true, PSH_ACK, 12), (false, ACK, 0)]
    );

    lab.observers.closely(NOW, NIC, false);
    let (_client, mut served) = connection(&lab, 81);
    let begin = lab.of_guests(&[]);
    assert_eq!(begin.iter().filter_map(flags).collect::<Vec<_>>(), [SYN | ACK], "the guest's half of it");
    let (mut moved, mut sampled) = (0, Vec::new());
    while sampled.len() < 5 {
        served.write_all(&[0x5a; 1 << 20]).unwrap();
        moved += 1 << 20;
        sampled.extend(lab.of_guests(&[]));
        assert!(moved < 4 << 30, "{} of {moved} bytes", sampled.len());
    }
    let segments: Vec<_> = sampled.iter().filter_map(|seen| seen.frame.segment()).collect();
    assert!(sampled.iter().all(|seen| seen.from_guest) && segments.len() == sampled.len(), "{sampled:#?}");
    let bytes: u32 = segments.iter().map(|segment| segment.length).sum();
    assert!(bytes / 5 > 1000 && u64::from(bytes) < moved / 8, "{bytes} of {moved}");

    // One that works after all is not observed closely any more.
    lab.observers.closely(NOW, NIC, true);
    let deadline = Deadline::after(PATIENCE);
    while lab.observers.numbers(NOW).too_busy == 0 {
        assert!(!deadline.passed());
        served.write_all(&[0x5a; 1 << 20]).unwrap();
        while lab.observers.take(NOW).is_some() {} // what found no room is no matter
    }
    assert_eq!(lab.observers.closely_since(NOW, NIC), None);
}

#[test]
fn a_guest_that_is_asked_about_all_its_connections_is_not_busy_for_that() {
    const AT_ONCE: usize = 128;
    let mut lab = Lab::new();
    lab.observers.closely(NOW, NIC, true);
    let (peers, guests) = (Sender::new(&lab.network.c1, "eth0"), Sender::new(&lab.guest.namespace, "eth0"));
    for _ in 0..1024 / AT_ONCE {
        for (sender, from_guest) in [(&peers, false), (&guests, true)] {
            (0..AT_ONCE).for_each(|_| sender.send(&tcp(ACK, &[])));
            let passed = AtomicU8::new(0);
            let seen = lab.seen(|seen| {
                let counts = seen.from_guest == from_guest && flags(seen) == Some(ACK);
                counts && usize::from(passed.fetch_add(1, Relaxed)) + 1 == AT_ONCE
            });
            assert_eq!(seen.len(), AT_ONCE);
        }
    }
}

#[test]
fn who_says_much_makes_nobody_else_wait_until_it_is_silent() {
    const OTHER: NicId = NicId(8);
    const MANY: usize = 500;
    let mut lab = Lab::new();
    let quiet = NetnsGuest::bare(&lab.network, 2);
    // The kernel gives a frame to the one that was opened last first: what this one has, the other one has.
    let mut before = Observers::new().unwrap();
    before.attach(OTHER, observer(&lab.network, &quiet.name));
    lab.observers.attach(OTHER, observer(&lab.network, &quiet.name));
    let waits = |observers: &Observers| {
        let [ready] = sys::wait_readable([observers.as_fd()], Some(PATIENCE)).unwrap();
        assert!(ready.readable, "nothing comes");
    };
    let busy = Sender::new(&lab.guest.namespace, "eth0");
    (0..MANY).for_each(|_| busy.send(&tcp(SYN, &[])));
    // It has had its first turn when the other one speaks.
    let is_theirs = |bytes: &[u8]| bytes.get(6..12) == Some(&STATION[..]);
    let mut taken = 0;
    while taken == 0 {
        waits(&lab.observers);
        taken += lab.observers.take(NOW).map_or(0, |seen| usize::from(is_theirs(seen.received.bytes)));
    }
    Sender::new(&quiet.namespace, "eth0").send(&tcp(SYN, &[]));
    let mut arrived = false;
    while !arrived {
        waits(&before);
        arrived = before.take(NOW).is_some_and(|seen| is_theirs(seen.received.bytes));
    }
    loop {
        waits(&lab.observers);
        let Some(seen) = lab.observers.take(NOW) else { continue };
        if !is_theirs(seen.received.bytes) {
            continue;
        }
        taken += 1;
        if seen.nic == OTHER {
            break;
        }
        assert!(taken < MANY / 2, "it waits for all of them");
    }
}

#[test]
fn one_that_does_so_much_that_it_would_pay_for_it_is_not_observed_any_more() {
    const AT_ONCE: usize = 100;
    let mut lab = Lab::new();
    let guest = Sender::new(&lab.guest.namespace, "eth0");
    let mut taken = 0;
    let detached = loop {
        (0..AT_ONCE).for_each(|_| guest.send(&tcp(SYN, &[])));
        let mut detached = None;
        lab.observers.gather_no_more();
        while detached.is_none() && lab.observers.take(NOW).is_some() {
            taken += 1;
            detached = lab.observers.detach_too_dear();
        }
        match detached {
            Some((nic, _)) => break nic,
            None => assert!(taken < 10_000, "all in one second"),
        }
    };
    assert!(detached == NIC && lab.observers.is_empty() && taken > 1000, "{detached:?} after {taken}");
    assert_eq!(lab.observers.numbers(NOW).paused, 1);
    assert!(lab.observers.take(NOW).is_none() && lab.observers.detach_too_dear().is_none());
}

#[test]
fn after_some_were_taken_those_of_a_guest_that_works_gather_for_a_moment() {
    let mut lab = Lab::new();
    // The kernel gives a frame to the one that was opened last first: what the witness has, the other one has.
    let mut witness = Observers::new().unwrap();
    witness.attach(NIC, observer(&lab.network, &lab.guest.name));
    drop(lab.observers.attach(NIC, observer(&lab.network, &lab.guest.name)));
    let is_readable = |lab: &Lab, patience| {
        let [ready] = sys::wait_readable([lab.observers.as_fd()], Some(patience)).unwrap();
        ready.readable
    };
    let guest = Sender::new(&lab.guest.namespace, "eth0");
    let say = || guest.send(&tcp(SYN, &[]));
    let take = |lab: &mut Lab| {
        let mut taken = 0;
        while lab.observers.take(NOW).is_some() {
            taken += 1;
        }
        taken
    };
    assert_eq!(lab.observers.poll_timeout(), None);
    say();
    assert!(is_readable(&lab, PATIENCE), "the first one");
    assert!(take(&mut lab) > 0);
    let until = lab.observers.poll_timeout().expect("a time at which they are taken again");
    while witness.take(NOW).is_some() {}
    witness.gather_no_more();
    say();
    let [arrived] = sys::wait_readable([witness.as_fd()], Some(PATIENCE)).unwrap();
    assert!(arrived.readable && !is_readable(&lab, Duration::ZERO));
    assert_eq!(take(&mut lab), 0);

    lab.observers.handle_timeout(until);
    assert_eq!(lab.observers.poll_timeout(), None);
    assert!(is_readable(&lab, PATIENCE) && take(&mut lab) > 0, "it was not lost");
    say();
    lab.observers.gather_no_more();
    assert!(is_readable(&lab, PATIENCE) && take(&mut lab) > 0, "somebody is about to act on it");

    assert!(lab.observers.poll_timeout().is_some());
    lab.observers.closely(NOW, NIC, true);
    assert_eq!(lab.observers.poll_timeout(), None);
    say();
    assert!(is_readable(&lab, PATIENCE) && take(&mut lab) > 0);
    assert_eq!(lab.observers.poll_timeout(), None, "one that is watched closely is waited for");
}

/// A connection between the first client, which reads all that comes, and the guest's service.
fn connection(lab: &Lab, port: u16) -> (std::thread::JoinHandle<()>, TcpStream) {
    let address = (lab.guest.v4, port);
    let listener = lab.guest.namespace.enter(|| TcpListener::bind(address).unwrap());
    let mut client = lab.network.c1.enter(|| TcpStream::connect(address).unwrap());
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while client.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    (reader, listener.accept().unwrap().0)
}

#[test]
fn what_is_sent_to_the_guest_is_seen_while_it_waits_for_a_lease() {
    let mut lab = Lab::new();
    let told = [tcp(SYN, &[]), udp(67, 68, &[1; 60])];
    assert_eq!(lab.of_neighbours(&told).len(), 0, "nothing was asked");

    let asked = lab.of_guests(&[udp(68, 67, &[1; 60])]);
    assert_eq!(asked.len(), 1);
    let seen = lab.of_neighbours(&told);
    assert!(seen.iter().all(|seen| !seen.from_guest));
    assert_eq!(
        seen.iter().map(|seen| (flags(seen), ports(seen))).collect::<Vec<_>>(),
        [(Some(SYN), None), (None, Some((67, 68)))]
    );

    let due = lab.observers.poll_timeout().unwrap();
    lab.observers.handle_timeout(due);
    assert_eq!(lab.observers.poll_timeout(), None);
    assert_eq!(lab.of_neighbours(&told).len(), 0, "the answer was looked for long enough");
}

#[test]
fn one_socket_is_attached_and_goes_with_its_observer() {
    let mut lab = Lab::new();
    let port = lab.guest.name.clone();
    assert_eq!((sockets_at(&lab.network, &port), sockets_at(&lab.network, BRIDGE)), (1, 0));
    let another = observer(&lab.network, &port);
    drop(lab.observers.attach(NIC, another).expect("the first one"));
    assert_eq!(lab.of_guests(&[tcp(SYN, &[])]).len(), 1, "seen once");
    assert_eq!(sockets_at(&lab.network, &port), 1);
    assert!(!lab.observers.is_empty());
    drop(lab.observers.detach(NIC).expect("the other one"));
    assert!(lab.observers.detach(NIC).is_none() && lab.observers.is_empty());
    assert_eq!(sockets_at(&lab.network, &port), 0);
}

#[test]
fn a_port_that_goes_down_and_up_is_seen_again_and_one_that_goes_is_silent() {
    let mut lab = Lab::new();
    let port = lab.guest.name.clone();
    lab.network.hypervisor.ip(&format!("link set {port} down\nlink set {port} up\n"));
    // The guest's own end comes up again a moment later.
    until("the port to be up", PATIENCE, || {
        lab.guest.namespace.run("ip", &["link", "show", "eth0"]).contains("LOWER_UP")
    });
    assert_eq!(lab.of_guests(&[tcp(SYN, &[])]).len(), 1);

    lab.network.hypervisor.ip(&format!("link del {port}\n"));
    while lab.observers.take(NOW).is_some() {}
    let [left] = sys::wait_readable([lab.observers.as_fd()], Some(Duration::ZERO)).unwrap();
    assert!(!left.readable, "nobody is woken for ever");
}

#[test]
fn what_finds_no_room_is_counted() {
    let mut lab = Lab::new();
    lab.observers.closely(NOW, NIC, true);
    let sender = Sender::new(&lab.guest.namespace, "eth0");
    let (frame, sent) = (udp(5353, 5353, &[0; 1400]), 3000);
    (0..sent).for_each(|_| sender.send(&frame));
    let mut taken = 0;
    while lab.observers.take(NOW).is_some() {
        taken += 1;
    }
    let numbers = lab.observers.numbers(LATER);
    assert_eq!(lab.observers.closely_since(LATER, NIC), Some(LATER), "what it said before was not all seen");
    assert!(numbers.dropped > 0 && taken > 100, "{numbers:?}");
    // The guest's own kernel may add a few.
    let all = numbers.taken + numbers.dropped;
    assert!(numbers.taken == taken && (sent..sent + 20).contains(&all), "{numbers:?}, {taken} taken");
    assert_eq!(lab.observers.numbers(NOW), numbers, "and not twice");
}
