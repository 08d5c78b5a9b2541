//! TCP connections of a scripted client, whose host has no stack of its own that would meddle: opened while the
//! guest is awake, then left alone.

use std::net::IpAddr;

use crate::build::{ACK, SYN, Tcp, timestamps};
use crate::hosts::{self, A4, A6, GUEST4, GUEST6};

/// How to open one.
#[derive(Clone, Debug)]
pub struct Opening {
    pub v6: bool,
    /// The client's port.
    pub port: u16,
    /// The guest's.
    pub to: u16,
    pub timestamps: bool,
    pub sack: bool,
    pub scale: bool,
    /// Bytes that the guest gets and acknowledges at once.
    pub said: usize,
    /// The guest's application reads nothing: fill its window.
    pub fill: bool,
}

/// An open one, at rest.
#[derive(Clone, Debug)]
pub struct Connection {
    pub opening: Opening,
    /// What the guest expects next from us (RN).
    pub rn: u32,
    /// What we expect next from it (SN).
    pub sn: u32,
    /// The window that it offered last, as it stood in the header.
    pub window: u16,
    /// Its last timestamp.
    pub tsval: u32,
}

/// Our timestamps: of what is said until the guest sleeps, all within one tick, and of what is sent then.
pub const TS_OPEN: u32 = 5_000;
pub const TS_LATER: u32 = 6_000;

impl Opening {
    pub fn new(v6: bool, port: u16) -> Self {
        Self { v6, port, to: hosts::SINK, timestamps: true, sack: true, scale: true, said: 0, fill: false }
    }

    /// The client's address and the guest's.
    pub fn addresses(&self) -> (IpAddr, IpAddr) {
        if self.v6 { (A6.into(), GUEST6.into()) } else { (A4.into(), GUEST4.into()) }
    }

    /// Ours; the same each time the same case is tried.
    pub fn isn(&self) -> u32 {
        u32::from(self.port).wrapping_mul(0x0003_0201)
    }

    pub fn syn(&self) -> Vec<u8> {
        let mut options = vec![2, 4, 0x05, 0xb4];
        if self.sack {
            options.extend([4, 2]);
        }
        if self.timestamps {
            options.extend(&timestamps(TS_OPEN, 0)[if self.sack { 2 } else { 0 }..]);
        }
        if self.scale {
            options.extend([1, 3, 3, 7]);
        }
        let syn = Tcp { seq: self.isn(), options, ..Tcp::new((self.port, self.to), SYN) };
        self.frame(&syn)
    }

    /// A frame with `segment`, from the client to the guest.
    pub fn frame(&self, segment: &Tcp) -> Vec<u8> {
        let (src, dst) = self.addresses();
        hosts::from_a(src, dst, 6, segment.bytes(src, dst))
    }
}

impl Connection {
    /// A segment at RN that acknowledges SN.
    pub fn segment(&self, flags: u8) -> Tcp {
        let options = if self.opening.timestamps { timestamps(TS_LATER, self.tsval) } else { Vec::new() };
        Tcp {
            seq: self.rn,
            ack: if flags & ACK == 0 { 0 } else { self.sn },
            options,
            ..Tcp::new((self.opening.port, self.opening.to), flags)
        }
    }

    /// It, so far before or behind RN.
    pub fn at(&self, offset: i64, flags: u8) -> Tcp {
        Tcp { seq: self.rn.wrapping_add_signed(offset as i32), ..self.segment(flags) }
    }

    pub fn frame(&self, segment: &Tcp) -> Vec<u8> {
        self.opening.frame(segment)
    }
}
