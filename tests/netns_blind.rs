//! Somebody who can write any source address, but does not see what the guest or its peers say, attacks connections
//! that are in custody (RFC 5961): he ends none, wakes nobody, and draws few answers.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use surrogate_house::capture::{Capture, Sender};
use surrogate_house::deadline::{Deadline, pause};
use surrogate_house::lab::Lab;
use surrogate_house::until;
use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::{Ethernet, Ipv4Header};
use surrogate_wire::{FrameBuf, Mac, Tags, TcpFlags, protocol};

const PATIENCE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
/// After so long a handshake whose end was not seen has ended: its SYN-ACK would have been repeated.
const AT_REST: Duration = Duration::from_secs(3);
/// Connections that are attacked, and segments against all of them.
const CONNECTIONS: u32 = 8;
const FORGED: u32 = 100_000;
/// Sent at once; then their verdicts are waited for, so that the kernel drops none.
const AT_ONCE: u32 = 500;
/// Challenge and duplicate ACKs a second: of a connection, and of a guest at most (`connections.challenges` is 100).
const OF_A_CONNECTION: u64 = 2;
const OF_A_GUEST: u64 = 150;
/// A guess that falls in here would be for the guest to judge. One in 4,096 does; the attack goes on beside it.
const WINDOW: u32 = 1 << 20;

/// The attacker's station, and the address that he says is his.
struct Attacker {
    sender: Sender,
    ethernet: Ethernet,
    peer: Ipv4Addr,
    guest: Ipv4Addr,
}

impl Attacker {
    /// Returns how many bytes it sent.
    fn forge(&self, port: u16, (seq, ack): (u32, u32), flags: TcpFlags, data: &[u8]) -> u64 {
        let mut message = [&port.to_be_bytes()[..], &7_u16.to_be_bytes()].concat();
        message.extend(seq.to_be_bytes());
        message.extend(if flags.contains(TcpFlags::ACK) { ack } else { 0 }.to_be_bytes());
        message.extend([0x50, flags.0, 0xfa, 0xf0, 0, 0, 0, 0]);
        message.extend(data);
        let sum = Sum::pseudo_v4(self.peer, self.guest, protocol::TCP, message.len()).add(&message).finish();
        message[16..18].copy_from_slice(&sum.to_be_bytes());
        let (src, dst) = (self.peer, self.guest);
        let header =
            Ipv4Header { src, dst, tos: 0, id: 0, dont_fragment: true, ttl: 64, protocol: protocol::TCP };
        let mut memory = [0; 128];
        let mut out = FrameBuf::new(&mut memory);
        out.ipv4(&self.ethernet, &header, message.len());
        out.push(&message);
        let frame = out.finish().unwrap();
        self.sender.send(frame);
        frame.len() as u64
    }
}

/// Numbers that nobody chose; the same each time.
fn guess(state: &mut u64) -> u32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 32) as u32
}

#[test]
fn a_hundred_thousand_forged_segments_end_no_connection_wake_nobody_and_draw_few_answers() {
    let lab = Lab::one_guest();
    let (client, guest) = (&lab.network.c1, lab.guest());
    let IpAddr::V4(guest4) = guest.v4 else { panic!("{}", guest.v4) };
    until("the guest to be observed", PATIENCE, || {
        lab.network.hypervisor.run("ss", &["-0an"]).contains("*:web1")
    });
    let sniffer = Capture::start(client, "eth0");
    let often = TcpKeepalive::new().with_time(SECOND).with_interval(SECOND).with_retries(8);
    let mut sessions: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let address = SocketAddr::new(guest.v4, 7);
            let stream = client.enter(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            SockRef::from(&stream).set_tcp_keepalive(&often).unwrap();
            stream
        })
        .collect();
    let talk = |stream: &mut TcpStream| {
        stream.write_all(b"here").unwrap();
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"here");
    };
    sessions.iter_mut().for_each(talk);
    pause(AT_REST);
    lab.daemon.sleep("web1");
    let counters = || lab.daemon.status("web1")["nics"][0]["counters"].clone();
    let count = |counter: &serde_json::Value| counter.as_u64().unwrap_or(0);
    assert_eq!(lab.daemon.status("web1")["nics"][0]["custody"]["unconfirmed"], 0);

    // What the guest expects next of each: the attacker does not know it, the test does.
    let expected: HashMap<u16, u32> = sniffer
        .frames()
        .iter()
        .filter_map(|frame| frame.segment().filter(|segment| segment.from.1 == 7))
        .map(|segment| (segment.to.1, segment.ack))
        .collect();
    let ports: Vec<u16> = expected.keys().copied().collect();
    assert_eq!(ports.len(), CONNECTIONS as usize);

    let attacker = Attacker {
        sender: Sender::new(&lab.network.c2, "eth0"),
        ethernet: Ethernet {
            dst: guest.mac.parse().unwrap(),
            src: Mac([2, 0, 0, 0, 1, 2]),
            tags: Tags::NONE,
        },
        peer: Ipv4Addr::new(192, 0, 2, 101),
        guest: guest4,
    };
    let before = counters();
    let (heard, began) = (sniffer.count(), Deadline::after(PATIENCE * 4));
    let (mut state, mut forged_bytes) = (7, 0);
    for n in 0..FORGED {
        let port = ports[guess(&mut state) as usize % ports.len()];
        let (mut seq, ack) = (guess(&mut state), guess(&mut state));
        if seq.wrapping_sub(expected[&port]) < WINDOW {
            seq = seq.wrapping_add(WINDOW);
        }
        let (flags, data): (_, &[u8]) = match n % 4 {
            0 => (TcpFlags::RST, b""),
            1 => (TcpFlags::SYN, b""),
            2 => (TcpFlags::ACK, b""),
            _ => (TcpFlags::ACK | TcpFlags::PSH, b"forged"),
        };
        forged_bytes += attacker.forge(port, (seq, ack), flags, data);
        if (n + 1) % AT_ONCE == 0 {
            let judged = count(&before["concerned"]) + u64::from(n + 1);
            until("them to be judged", PATIENCE, || count(&counters()["concerned"]) >= judged);
        }
    }
    let after = counters();
    let seconds = began.elapsed().as_secs() + 1;

    let status = lab.daemon.status("web1");
    assert_eq!((&status["state"], &status["wakes"]), (&"asleep".into(), &0.into()), "{status:#}");
    let drawn = |kind: &str| count(&after["answered"][kind]) - count(&before["answered"][kind]);
    let challenges = drawn("challenge-ack") + drawn("duplicate-ack");
    let allowed = (OF_A_GUEST * seconds).min(OF_A_CONNECTION * u64::from(CONNECTIONS) * seconds);
    println!("{challenges} of {allowed} answers in {seconds} s");
    assert!(challenges > 0 && challenges <= allowed, "{challenges} of {allowed} in {seconds} s: {after}");
    let reflected: usize = sniffer
        .frames()
        .iter()
        .skip(heard)
        .filter(|frame| !frame.outgoing && frame.segment().is_some_and(|segment| segment.from.1 == 7))
        .map(|frame| frame.bytes.len())
        .sum();
    assert!((reflected as u64) < forged_bytes / 10, "{reflected} bytes for {forged_bytes}");

    // Their real peers were answered all along, and go on.
    until("keep-alives to be answered", PATIENCE, || {
        let now = counters();
        count(&now["answered"]["keep-alive"])
            >= count(&after["answered"]["keep-alive"]) + u64::from(CONNECTIONS)
    });
    sessions.iter_mut().for_each(talk);
    until("the guest to be awake", PATIENCE, || lab.daemon.state("web1") == "awake");
    sessions.iter_mut().for_each(talk);
    lab.daemon.assert_conserved();
}
