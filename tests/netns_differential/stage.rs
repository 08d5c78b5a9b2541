//! Where a case is tried: a real bridge, a guest in a namespace, and a client's port to send from and listen at.
//! Once with the guest awake and no Surrogate anywhere, once with the daemon and the guest asleep.
//!
//! After each stimulus a question is asked that is always answered, in order: when its answer is there, all that was
//! to be said at once has been said, and silence is known without waiting for it.

use std::cell::Cell;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use surrogate_house::capture::{Capture, Sender};
use surrogate_house::deadline::{Deadline, pause};
use surrogate_house::{Config, Daemon, Frame, NetnsGuest, Network, services, until};

use crate::ask;
use crate::build::{ACK, SYN, Tcp, V4, ethernet, icmp4, timestamps};
use crate::case::{Asleep, Case, PORTS, Stimulus, Until, client_port};
use crate::connection::{Connection, Opening, TS_OPEN};
use crate::hosts::{
    A, CLOSED, FULL, GROUP4, GROUP6, GUEST, GUEST_LINK_LOCAL, GUEST4, GUEST6, M, M4, ROUTER4, ROUTER6, SINK,
    neighbours,
};

/// The guest wakes in this time, or not at all.
const WAKE: Duration = Duration::from_secs(5);
/// For what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// See the [module](self).
pub struct Stage {
    // In this order they are dropped: daemon first, network last.
    daemon: Option<Daemon>,
    capture: Capture,
    sender: Sender,
    /// Sockets in the guest's namespace: its kernel answers for them, no process does.
    _sockets: Sockets,
    _guest: NetnsGuest,
    _network: Network,
    markers: Cell<u16>,
}

struct Sockets {
    _listeners: Vec<TcpListener>,
    _members: Vec<UdpSocket>,
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Tried {
    /// What the guest's MAC sent, in order.
    pub answers: Vec<Vec<u8>>,
    /// What the stand-in did, if there was one.
    pub asleep: Option<Asleep>,
}

impl Stage {
    /// The guest awake, and nothing else.
    pub fn awake() -> Self {
        Self::new(false)
    }

    /// The guest awake still, to be put to sleep by [`sleep`](Self::sleep).
    pub fn to_sleep() -> Self {
        Self::new(true)
    }

    fn new(with_daemon: bool) -> Self {
        Sender::in_order();
        let network = Network::new();
        // Every frame reaches both, also what a snooping bridge would keep from other members.
        network.hypervisor.ip("link set br0 type bridge mcast_snooping 0");
        let guest = NetnsGuest::bare(&network, 1);
        services::echo(&guest.namespace);
        let capture = Capture::start(&network.c1, "eth0");
        let sender = Sender::new(&network.c1, "eth0");
        let sockets = prepare(&guest);
        let daemon = with_daemon.then(|| Daemon::start(&network.hypervisor, &config(&guest)));
        let markers = Cell::new(0);
        let stage =
            Self { daemon, capture, sender, _sockets: sockets, _guest: guest, _network: network, markers };
        // The bridge learns where A and the guest are.
        stage.sender.send(&ethernet(M, A, 0x88b5, &[0; 46]));
        stage.marker();
        if let Some(daemon) = &stage.daemon {
            stage.until_observed(daemon);
        }
        stage
    }

    /// What the awake guest says is learned from now on: a reset of its is seen.
    fn until_observed(&self, daemon: &Daemon) {
        let (src, dst) = (M4.into(), GUEST4.into());
        let syn = Tcp::new((PORTS.end, CLOSED), SYN).bytes(src, dst);
        let syn = ethernet(GUEST, M, 0x0800, &V4::new(M4, GUEST4, 6, syn).bytes());
        until("the guest to be observed", PATIENCE, || {
            self.sender.send(&syn);
            self.marker();
            ask::status(daemon)["nics"][0]["counters"]["observed"].as_u64().is_some_and(|seen| seen > 0)
        });
    }

    /// Whether there is a stand-in.
    pub fn has_daemon(&self) -> bool {
        self.daemon.is_some()
    }

    /// The end: every frame is accounted for.
    pub fn end(self) {
        if let Some(daemon) = &self.daemon {
            daemon.assert_conserved();
        }
    }

    /// Puts the guest to sleep.
    pub fn sleep(&self) {
        ask::sleep(self.daemon.as_ref().expect("a daemon"));
    }

    /// Of each connection it was heard how it stood when the guest fell asleep.
    #[track_caller]
    pub fn assert_confirmed(&self) {
        let status = ask::status(self.daemon.as_ref().expect("a daemon"));
        assert_eq!(status["nics"][0]["custody"]["unconfirmed"], 0, "{status:#}");
    }

    /// Tries a case; `connection` is the one that it wants.
    #[track_caller]
    pub fn try_case(&self, case: &Case, connection: Option<&Connection>) -> Tried {
        let seen = self.capture.count();
        let made;
        let frames = match (&case.stimulus, connection) {
            (Stimulus::Frames(frames), _) => frames,
            (Stimulus::On(_, make), Some(connection)) => {
                made = make(connection);
                &made
            }
            (Stimulus::On(..), None) => panic!("{}: no connection", case.name),
        };
        for frame in frames {
            self.sender.send(frame);
        }
        self.marker();
        let asleep = self.daemon.as_ref().map(|daemon| self.look(daemon, case));
        let is_answer = |frame: &Frame| answers(case, frame);
        match case.until {
            Until::Marker => {}
            Until::Frames(wanted) => {
                let enough = |since: &[Frame]| since.iter().filter(|f| is_answer(f)).count() >= wanted;
                self.capture.wait_after(seen, &format!("{}: answers", case.name), PATIENCE, enough);
            }
            Until::Silence(time) => pause(time),
        }
        let since = self.marker_after(seen);
        let answers = since.into_iter().filter(is_answer).map(|frame| frame.bytes).collect();
        Tried { answers, asleep }
    }

    /// What the stand-in did about the last stimulus; afterwards the guest has all that was held.
    fn look(&self, daemon: &Daemon, case: &Case) -> Asleep {
        let before = ask::status(daemon);
        if before["state"] == "asleep" && before["nics"][0]["counters"]["holding"] == 0 {
            return Asleep::Speaks;
        }
        if case.asleep == Asleep::Wakes {
            // The frame is held; the guest wakes as soon as the daemon hears of it.
            let deadline = Deadline::after(WAKE);
            while ask::status(daemon)["state"] == "asleep" && !deadline.passed() {
                pause(Duration::from_millis(1));
            }
        }
        ask::wake(daemon);
        if ask::status(daemon)["last_wake"] == "asked for" { Asleep::Holds } else { Asleep::Wakes }
    }

    /// Opens a connection; the guest must be awake.
    #[track_caller]
    pub fn open(&self, opening: &Opening) -> Connection {
        let seen = self.capture.count();
        self.sender.send(&opening.syn());
        let from_guest = |frame: &Frame| {
            let segment = frame.segment().filter(|_| frame.source() == GUEST);
            segment.filter(|s| s.to.1 == opening.port).map(|s| (s, frame.bytes.clone()))
        };
        let newest = |enough: &dyn Fn(&surrogate_house::capture::Segment) -> bool| {
            let enough = |frames: &[Frame]| frames.iter().filter_map(from_guest).any(|(s, _)| enough(&s));
            let frames = self.capture.wait_after(seen, "the guest's side of a connection", PATIENCE, enough);
            frames.iter().filter_map(from_guest).next_back().expect("there is one")
        };
        let (syn_ack, bytes) = newest(&|s| s.flags & (SYN | ACK) == SYN | ACK);
        let mut open = Connection {
            opening: opening.clone(),
            rn: opening.isn().wrapping_add(1),
            sn: syn_ack.seq.wrapping_add(1),
            window: 0,
            tsval: 0,
        };
        open.learn(&bytes);
        let mut acknowledgement = open.segment(ACK);
        if opening.timestamps {
            acknowledgement.options = timestamps(TS_OPEN, open.tsval);
        }
        self.sender.send(&open.frame(&acknowledgement));
        let mut say = |length: usize| {
            let segment = Tcp { data: vec![b'x'; length], ..acknowledgement.clone() };
            self.sender.send(&open.frame(&Tcp { seq: open.rn, flags: ACK, ..segment }));
            open.rn = open.rn.wrapping_add(length as u32);
            let rn = open.rn;
            let (_, bytes) = newest(&|s| s.ack == rn);
            open.learn(&bytes);
            open.window
        };
        if opening.said > 0 {
            say(opening.said);
        }
        if opening.fill {
            let mut window = say(100);
            while window != 0 {
                window = say(usize::from(window).min(400));
            }
        }
        open
    }

    /// Asks what is always answered, and waits for the answer.
    #[track_caller]
    fn marker(&self) {
        self.marker_after(self.capture.count());
    }

    /// The same; all frames since the first `seen`.
    #[track_caller]
    fn marker_after(&self, seen: usize) -> Vec<Frame> {
        let number = self.markers.get() + 1;
        self.markers.set(number);
        let [high, low] = number.to_be_bytes();
        let echo = V4::new(M4, GUEST4, 1, icmp4(8, 0, [b'M', b'M', high, low], &[]));
        self.sender.send(&ethernet(GUEST, M, 0x0800, &echo.bytes()));
        let is_reply = |frame: &Frame| is_marker(frame) && frame.bytes.get(40..42) == Some(&[high, low]);
        self.capture.wait_after(seen, "the answer to a marker", PATIENCE, |since| since.iter().any(is_reply))
    }
}

impl Connection {
    /// From a segment of the guest's: its window and timestamp.
    fn learn(&mut self, frame: &[u8]) {
        let tcp = if self.opening.v6 { &frame[54..] } else { &frame[34..] };
        self.window = u16::from_be_bytes([tcp[14], tcp[15]]);
        let header = usize::from(tcp[12] >> 4) * 4;
        if let Some(at) = timestamps_at(&tcp[..header]) {
            self.tsval = u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
        }
    }
}

/// Where in a TCP header the timestamp value is.
pub fn timestamps_at(header: &[u8]) -> Option<usize> {
    let mut at = 20;
    loop {
        match header.get(at)? {
            0 => return None,
            1 => at += 1,
            8 if header.len() >= at + 10 => return Some(at + 2),
            _ => at += usize::from(*header.get(at + 1)?).max(2),
        }
    }
}

/// Whether a frame at the client's port can be an answer to `case`.
fn answers(case: &Case, frame: &Frame) -> bool {
    let late_for_another =
        client_port(&frame.bytes).is_some_and(|port| PORTS.contains(&port) && Some(port) != case.port);
    frame.source() == GUEST
        && !frame.outgoing
        && !is_marker(frame)
        && !late_for_another
        && !is_out_of_time(frame)
        && !is_question(frame)
        && !is_own_report(case, frame)
}

fn is_marker(frame: &Frame) -> bool {
    frame.destination() == M && frame.bytes.get(38..40) == Some(b"MM")
}

/// Reassembly that was given up: it comes long after its case.
fn is_out_of_time(frame: &Frame) -> bool {
    match frame.ip() {
        Some((1, _, _, message)) => message.starts_with(&[11, 1]),
        Some((58, _, _, message)) => message.starts_with(&[3, 1]),
        _ => false,
    }
}

/// A question of the guest's own: whether a neighbour is still there.
fn is_question(frame: &Frame) -> bool {
    match (frame.ethertype(), frame.ip()) {
        // An announcement, of sender and target the same, is none.
        (Some((0x0806, at)), _) => {
            frame.bytes.get(at + 7) == Some(&1)
                && frame.bytes.get(at + 14..at + 18) != frame.bytes.get(at + 24..at + 28)
        }
        (_, Some((58, _, _, message))) => message.first() == Some(&135),
        _ => false,
    }
}

/// A membership report that `case` did not ask for: the guest makes some of its own accord, when it joins.
fn is_own_report(case: &Case, frame: &Frame) -> bool {
    // Of the newest versions the first record's type tells: 1 and 2 say how things are, others what has changed.
    let is_change = |record: Option<&u8>| !matches!(record, Some(1 | 2));
    match frame.ip() {
        Some((2, _, _, message)) => {
            !case.reports || (message.first() == Some(&0x22) && is_change(message.get(8)))
        }
        // Behind a hop-by-hop header with the router alert.
        Some((0, _, _, payload)) if payload.first() == Some(&58) => match payload.get(8) {
            Some(143) => !case.reports || is_change(payload.get(16)),
            Some(131 | 132) => !case.reports,
            _ => false,
        },
        _ => false,
    }
}

/// The guest's network: fixed neighbours, no limits on what it says, checksums filled in, groups joined.
fn prepare(guest: &NetnsGuest) -> Sockets {
    let namespace = &guest.namespace;
    // What leaves a namespace unfilled would be filled in by a real port's hardware.
    namespace.run("ethtool", &["-K", "eth0", "tx", "off"]);
    let mut batch = String::new();
    for (address, [a, b, c, d, e, f]) in neighbours() {
        batch += &format!(
            "neigh replace {address} lladdr {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} nud permanent dev eth0\n"
        );
    }
    batch += &format!("route add default via {ROUTER4}\nroute add default via {ROUTER6} dev eth0\n");
    namespace.ip(&batch);
    let bind = |v6: bool, kind: Type| {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        Socket::new(domain, kind, None).unwrap()
    };
    namespace.enter(|| {
        for (key, value) in [
            ("ipv4/icmp_ratelimit", "0"),
            ("ipv4/icmp_ratemask", "0"),
            ("ipv6/icmp/ratelimit", "0"),
            ("ipv4/tcp_challenge_ack_limit", "1000000"),
            ("ipv4/tcp_invalid_ratelimit", "0"),
        ] {
            fs::write(format!("/proc/sys/net/{key}"), value).unwrap_or_else(|e| panic!("{key}: {e}"));
        }
        let listen = |port: u16, buffer: Option<usize>| {
            let socket = bind(true, Type::STREAM);
            socket.set_only_v6(false).unwrap();
            if let Some(buffer) = buffer {
                socket.set_recv_buffer_size(buffer).unwrap();
            }
            socket.bind(&SocketAddr::new(IpAddr::from([0u16; 8]), port).into()).unwrap();
            socket.listen(1024).unwrap();
            TcpListener::from(socket)
        };
        let listeners = vec![listen(SINK, None), listen(FULL, Some(2304))];
        let v4 = UdpSocket::bind("0.0.0.0:0").unwrap();
        v4.join_multicast_v4(&GROUP4, &GUEST4).unwrap();
        let v6 = UdpSocket::bind("[::]:0").unwrap();
        v6.join_multicast_v6(&GROUP6, interface_index("eth0").expect("eth0 has IPv6")).unwrap();
        Sockets { _listeners: listeners, _members: vec![v4, v6] }
    })
}

/// From /proc, which shows the calling thread's namespace.
fn interface_index(name: &str) -> Option<u32> {
    let table = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|words| words.last() == Some(&name))?;
    u32::from_str_radix(line[1], 16).ok()
}

fn config(guest: &NetnsGuest) -> Config {
    let section = format!(
        "[[guest]]\nname = \"web1\"\nhypervisor = \"local\"\nbridge = \"br0\"\nmac = \"{}\"\n\
         addresses = [\"{GUEST4}/24\", \"{GUEST6}/64\", \"{GUEST_LINK_LOCAL}/64\"]\n\
         groups = [\"{GROUP4}\", \"{GROUP6}\"]\nnetns = \"{}\"\nport = \"web1\"\n\
         listen = [\"tcp/7\", \"tcp/{SINK}\", \"tcp/{FULL}\", \"udp/7\"]\n",
        guest.mac,
        guest.namespace.name(),
    );
    Config::netns("", "").with(&section)
}
