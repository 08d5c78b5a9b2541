//! The other end of an established TCP connection, whose kernel asks every 75 s whether the guest is there, with
//! nothing or with one byte, and gives up after nine questions in vain.

use core::net::IpAddr;

use surrogate::rng::Rng;
use surrogate::time::Instant;
use surrogate_wire::checksum::Sum;
use surrogate_wire::{Frame, Packet, Tcp, TcpFlags, Transport, protocol};

use crate::frames::{self, Station};
use crate::link::{GUEST, Lives, seconds};

const WINDOW: u16 = 501;

pub struct Peer {
    own: Station,
    port: u16,
    /// What it sends next, and what the guest does.
    sent: u32,
    received: u32,
    /// The timestamps, if agreed: its own clock's last, and the guest's last.
    timestamps: Option<(u32, u32)>,
    next: Instant,
    turn: u64,
    awaits: bool,
    answered: u64,
}

impl Peer {
    pub fn new(number: u8, timestamps: bool) -> Self {
        Self {
            own: Station::numbered(number),
            port: 40_000 + u16::from(number),
            sent: 0xffff_fff0,
            received: 0x7fff_fff0,
            timestamps: timestamps.then_some((1_000, 5_000)),
            next: Instant::ZERO + seconds(100),
            turn: 0,
            awaits: false,
            answered: 0,
        }
    }

    fn segment(&self, from_guest: bool, flags: TcpFlags, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
        let (from, to, ports) =
            if from_guest { (GUEST, self.own, (22, self.port)) } else { (self.own, GUEST, (self.port, 22)) };
        let mut options = Vec::new();
        if flags.contains(TcpFlags::SYN) {
            options.extend_from_slice(&[2, 4, 5, 0xb4, 4, 2, 1, 3, 3, 7]);
            options.extend_from_slice(&[1, 1]);
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
}

impl Lives for Peer {
    fn due(&self) -> Instant {
        self.next
    }

    fn act(&mut self, now: Instant, _: &mut Rng, out: &mut Vec<Vec<u8>>) {
        assert!(!self.awaits, "no answer to a keep-alive by {now:?}");
        if let Some((own, _)) = &mut self.timestamps {
            *own = own.wrapping_add(75_000);
        }
        // As Linux and BSD ask, and as Windows does.
        let data: &[u8] = if self.turn.is_multiple_of(2) { b"" } else { b"\0" };
        out.push(self.segment(false, TcpFlags::ACK, self.sent.wrapping_sub(1), self.received, data));
        self.awaits = true;
        self.turn += 1;
        self.next = now + seconds(75);
    }

    fn see(&mut self, _: Instant, frame: &Frame<'_>, packet: &Packet<'_>, _: &mut Vec<Vec<u8>>) {
        let Some(Transport::Tcp(tcp)) = packet.transport() else { return };
        if frame.dst != self.own.mac {
            return;
        }
        let Tcp { seq, ack, flags, window, options, payload, .. } = *tcp;
        assert_eq!((seq, ack, flags, window), (self.received, self.sent, TcpFlags::ACK, WINDOW));
        assert!(self.awaits && payload.is_empty(), "{tcp:?}");
        if let Some((own, guests)) = self.timestamps {
            // The guest's last, never a later one; and an echo of what was asked with, or of what came before.
            let told = [&[1, 1, 8, 10][..], &guests.to_be_bytes()].concat();
            assert_eq!(options.get(..8), Some(&told[..]));
            let echo = options.get(8..12).and_then(<[u8]>::first_chunk).map(|echo| u32::from_be_bytes(*echo));
            assert!(echo.is_some_and(|echo| own.wrapping_sub(echo) < 1 << 31), "{options:?}");
        }
        self.awaits = false;
        self.answered += 1;
    }

    fn tally(&self) -> (&'static str, u64) {
        ("keep-alives answered", self.answered)
    }
}
