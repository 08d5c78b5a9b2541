//! The other end of an established TCP connection, whose kernel asks now and then whether the guest is there, with
//! nothing or with one byte. And what the guest knows of the connection: nothing of all that, when it wakes.

use core::net::IpAddr;
use core::ops::RangeInclusive;

use surrogate::rng::Rng;
use surrogate::time::{Duration, Instant};
use surrogate_wire::checksum::Sum;
use surrogate_wire::{Frame, Offload, Packet, Received, Tcp, TcpFlags, Transport, protocol};

use crate::frames::{self, Station};
use crate::link::{GUEST, Lives, Questions, seconds};

const WINDOW: u16 = 501;

pub struct Peer {
    own: Station,
    port: u16,
    /// What it sends next, and what the guest does.
    sent: u32,
    received: u32,
    /// The timestamps, if agreed: its own clock's last, and the guest's last.
    timestamps: Option<(u32, u32)>,
    /// Whether windows are scaled.
    scales: bool,
    /// How often it asks.
    every: Duration,
    next: Instant,
    turn: u64,
    questions: Questions<()>,
}

impl Peer {
    pub fn new(number: u8, timestamps: bool, scales: bool, every: Duration) -> Self {
        Self {
            own: Station::numbered(number),
            port: 40_000 + u16::from(number),
            sent: 0xffff_fff0,
            received: 0x7fff_fff0,
            timestamps: timestamps.then_some((1_000, 5_000)),
            scales,
            every,
            next: Instant::ZERO + seconds(100),
            turn: 0,
            questions: Questions::none(),
        }
    }

    fn segment(&self, from_guest: bool, flags: TcpFlags, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
        let (from, to, ports) =
            if from_guest { (GUEST, self.own, (22, self.port)) } else { (self.own, GUEST, (self.port, 22)) };
        let mut options = Vec::new();
        if flags.contains(TcpFlags::SYN) {
            options.extend_from_slice(&[2, 4, 5, 0xb4]);
            if self.scales {
                options.extend_from_slice(&[1, 3, 3, 7]);
            }
        }
        if let Some((own, guests)) = self.timestamps {
            let (value, echo) = if from_guest { (guests, own) } else { (own, guests) };
            options.extend_from_slice(&[1, 1, 8, 10]);
            options.extend_from_slice(&value.to_be_bytes());
            options.extend_from_slice(&echo.to_be_bytes());
        }
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&ports.0.to_be_bytes());
        bytes.extend_from_slice(&ports.1.to_be_bytes());
        bytes.extend_from_slice(&seq.to_be_bytes());
        bytes.extend_from_slice(&ack.to_be_bytes());
        bytes.push((((20 + options.len()) / 4) << 4) as u8);
        bytes.push(flags.0);
        bytes.extend_from_slice(&WINDOW.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&options);
        bytes.extend_from_slice(data);
        let sum = Sum::pseudo_v4(from.v4, to.v4, protocol::TCP, bytes.len()).add(&bytes).finish();
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        let (src, dst): (IpAddr, IpAddr) = (from.v4.into(), to.v4.into());
        frames::ip(from.mac, to.mac, src, dst, protocol::TCP, 64, &[&bytes])
    }

    /// What passed the guest's port while it was awake: the handshake, and a word each way.
    pub fn conversation(&mut self) -> Vec<(bool, Vec<u8>)> {
        let (c, s) = (self.sent, self.received);
        let (syn, ack) = (TcpFlags::SYN, TcpFlags::ACK);
        let word = ack | TcpFlags::PSH;
        let passed = vec![
            (false, self.segment(false, syn, c, 0, b"")),
            (true, self.segment(true, syn | ack, s, c.wrapping_add(1), b"")),
            (false, self.segment(false, ack, c.wrapping_add(1), s.wrapping_add(1), b"")),
            (false, self.segment(false, word, c.wrapping_add(1), s.wrapping_add(1), b"question")),
            (true, self.segment(true, word, s.wrapping_add(1), c.wrapping_add(9), b"an answer")),
            (false, self.segment(false, ack, c.wrapping_add(9), s.wrapping_add(10), b"")),
        ];
        self.sent = c.wrapping_add(9);
        self.received = s.wrapping_add(10);
        passed
    }

    /// It says something at last.
    pub fn says(&self, data: &[u8]) -> Vec<u8> {
        self.segment(false, TcpFlags::ACK | TcpFlags::PSH, self.sent, self.received, data)
    }

    /// What the guest makes of `delivered` after its sleep: it is what comes next of this connection with `data`. It
    /// acknowledges that and answers. What passed its port then.
    pub fn goes_on(&mut self, delivered: &[u8], data: &[u8]) -> Vec<(bool, Vec<u8>)> {
        let received = Received::plain(delivered);
        let frame = Frame::parse(&received).expect("a frame");
        let packet = Packet::parse(&frame, Offload::None).expect("a sound packet");
        let Some(Transport::Tcp(tcp)) = packet.transport() else { panic!("{packet:?}") };
        assert_eq!((tcp.src_port, tcp.dst_port), (self.port, 22));
        // As before its sleep: nobody acknowledged anything in its name, and nobody said anything.
        assert_eq!((tcp.seq, tcp.ack, tcp.payload), (self.sent, self.received, data));
        self.sent = self.sent.wrapping_add(data.len() as u32);
        if let Some((own, guests)) = &mut self.timestamps {
            let value = tcp.options.get(4..8).and_then(<[u8]>::first_chunk).map(|v| u32::from_be_bytes(*v));
            assert!(value.is_some_and(|value| value.wrapping_sub(*own) < 1 << 31), "PAWS");
            // Its clock stood still.
            *guests = guests.wrapping_add(3);
        }
        let reply = b"here I am";
        let flags = TcpFlags::ACK | TcpFlags::PSH;
        let said = self.segment(true, flags, self.received, self.sent, reply);
        self.received = self.received.wrapping_add(reply.len() as u32);
        let told = self.segment(false, TcpFlags::ACK, self.sent, self.received, b"");
        vec![(false, delivered.to_vec()), (true, said), (false, told)]
    }

    /// It asks again from now on.
    pub fn asks_from(&mut self, now: Instant) {
        self.next = now + self.every;
    }
}

impl Lives for Peer {
    fn due(&self) -> Instant {
        self.questions.until().unwrap_or(self.next)
    }

    fn act(&mut self, now: Instant, _: &mut Rng, out: &mut Vec<Vec<u8>>) {
        self.questions.check(now);
        if let Some((own, _)) = &mut self.timestamps {
            *own = own.wrapping_add(self.every.as_millis() as u32);
        }
        // As Linux and BSD ask, and as Windows does.
        let data: &[u8] = if self.turn.is_multiple_of(2) { b"" } else { b"\0" };
        out.push(self.segment(false, TcpFlags::ACK, self.sent.wrapping_sub(1), self.received, data));
        self.questions.ask(now, (), self.every.min(seconds(1)) - Duration::from_millis(1));
        self.turn += 1;
        self.next = now + self.every;
    }

    fn see(&mut self, _: Instant, frame: &Frame<'_>, packet: &Packet<'_>, _: &mut Vec<Vec<u8>>) {
        let Some(Transport::Tcp(tcp)) = packet.transport() else { return };
        if frame.dst != self.own.mac {
            return;
        }
        let Tcp { seq, ack, flags, window, options, payload, .. } = *tcp;
        assert_eq!((seq, ack, flags, window), (self.received, self.sent, TcpFlags::ACK, WINDOW));
        assert!(payload.is_empty(), "{tcp:?}");
        if let Some((own, guests)) = self.timestamps {
            // The guest's last, never a later one; and an echo of what was asked with, or of what came before.
            let told = [&[1, 1, 8, 10][..], &guests.to_be_bytes()].concat();
            assert_eq!(options.get(..8), Some(&told[..]));
            let echo = options.get(8..12).and_then(<[u8]>::first_chunk).map(|echo| u32::from_be_bytes(*echo));
            assert!(echo.is_some_and(|echo| own.wrapping_sub(echo) < 1 << 31), "{options:?}");
        } else {
            assert!(options.is_empty(), "{options:?}");
        }
        self.questions.answered();
    }

    fn tally(&self, _: Instant) -> (&'static str, u64, RangeInclusive<u64>) {
        self.questions.tally("keep-alives answered")
    }
}
