//! Sniffers: what really passed an interface, both ways, as the kernel saw it.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::namespace::Namespace;
use crate::sys;

/// A running capture on one interface; it ends when dropped.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    frames: Mutex<Vec<Frame>>,
    more: Condvar,
    missed: Mutex<u32>,
    stop: AtomicBool,
}

/// A frame that passed.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// When, since 1970.
    pub at: Duration,
    /// Whether the interface sent it, rather than received it.
    pub outgoing: bool,
    /// Destination MAC to payload; a VLAN tag in its place.
    pub bytes: Vec<u8>,
}

/// What a test wants of a TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Source address and port.
    pub from: (IpAddr, u16),
    /// Destination address and port.
    pub to: (IpAddr, u16),
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// The flags' byte: FIN 1, SYN 2, RST 4, PSH 8, ACK 16.
    pub flags: u8,
    /// Length of the payload.
    pub length: u32,
}

/// TCP flag FIN.
pub const FIN: u8 = 1;
/// TCP flag SYN.
pub const SYN: u8 = 2;
/// TCP flag RST.
pub const RST: u8 = 4;
/// TCP flag ACK.
pub const ACK: u8 = 16;

impl Capture {
    /// Starts to listen; every frame from the moment of return is captured.
    ///
    /// # Panics
    /// If there is no such interface.
    #[must_use]
    #[track_caller]
    pub fn start(namespace: &Namespace, interface: &str) -> Self {
        let socket = namespace.enter(|| sys::packet_socket(interface));
        let socket = socket.unwrap_or_else(|e| panic!("sniffer at {interface} in {}: {e}", namespace.name()));
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || listen(&socket, &own));
        Self { shared, thread: Some(thread) }
    }

    /// What passed until now.
    #[must_use]
    pub fn frames(&self) -> Vec<Frame> {
        self.shared.frames.lock().unwrap().clone()
    }

    /// Waits until `enough` says so of what passed; returns it.
    ///
    /// # Panics
    /// If it does not within `allowed`, saying `what` was awaited.
    #[track_caller]
    pub fn wait(&self, what: &str, allowed: Duration, enough: impl Fn(&[Frame]) -> bool) -> Vec<Frame> {
        self.wait_after(0, what, allowed, enough)
    }

    /// How many frames passed until now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.frames.lock().unwrap().len()
    }

    /// As [`wait`](Self::wait), of what passed after the first `seen` frames.
    ///
    /// # Panics
    /// Likewise.
    #[track_caller]
    pub fn wait_after(
        &self,
        seen: usize,
        what: &str,
        allowed: Duration,
        enough: impl Fn(&[Frame]) -> bool,
    ) -> Vec<Frame> {
        let deadline = Deadline::after(allowed);
        let mut frames = self.shared.frames.lock().unwrap();
        while !enough(&frames[seen..]) {
            let since = &frames[seen..];
            assert!(!deadline.passed(), "waited {allowed:?} in vain for {what}; seen: {since:#?}");
            frames = self.shared.more.wait_timeout(frames, deadline.left()).unwrap().0;
        }
        frames[seen..].to_vec()
    }

    /// Ends the capture.
    ///
    /// # Panics
    /// If a frame passed that the sniffer had no room for.
    #[must_use]
    pub fn stop(mut self) -> Vec<Frame> {
        self.end();
        assert_eq!(*self.shared.missed.lock().unwrap(), 0, "the sniffer missed frames");
        std::mem::take(&mut self.shared.frames.lock().unwrap())
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end();
    }
}

fn listen(socket: &OwnedFd, shared: &Shared) {
    let mut buffer = vec![0; 128 << 10];
    loop {
        // Read before the wait: what arrived before the order to stop is still taken.
        let stopping = shared.stop.load(Ordering::Relaxed);
        let wait = if stopping { Duration::ZERO } else { Duration::from_millis(20) };
        let Ok(packet) = sys::receive(socket, &mut buffer, wait) else { return };
        let Some(packet) = packet else {
            if stopping {
                *shared.missed.lock().unwrap() += sys::missed(socket).unwrap_or(0);
                return;
            }
            continue;
        };
        let mut bytes = buffer[..packet.length].to_vec();
        if let (Some(tci), true) = (packet.vlan, bytes.len() >= 12) {
            let [high, low] = tci.to_be_bytes();
            bytes.splice(12..12, [0x81, 0x00, high, low]);
        }
        let frame = Frame { at: packet.at, outgoing: packet.outgoing, bytes };
        shared.frames.lock().unwrap().push(frame);
        shared.more.notify_all();
    }
}

/// A socket that sends whole frames from an interface of a namespace.
#[derive(Debug)]
pub struct Sender(OwnedFd);

impl Sender {
    /// Opens it.
    ///
    /// # Panics
    /// If there is no such interface.
    #[must_use]
    #[track_caller]
    pub fn new(namespace: &Namespace, interface: &str) -> Self {
        Self(namespace.enter(|| sys::packet_socket(interface)).unwrap())
    }

    /// From now on what the calling thread sends arrives in the order in which it was sent, also where the kernel
    /// would handle it on another processor. What the thread starts stays on the same processor too.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn in_order() {
        sys::stay_on_this_processor().unwrap();
    }

    /// Sends one frame, destination MAC to payload.
    ///
    /// # Panics
    /// If the interface refuses it.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        sys::send(&self.0, frame).unwrap();
    }
}

impl Frame {
    /// Destination MAC.
    #[must_use]
    pub fn destination(&self) -> &[u8] {
        self.bytes.get(..6).unwrap_or_default()
    }

    /// Source MAC.
    #[must_use]
    pub fn source(&self) -> &[u8] {
        self.bytes.get(6..12).unwrap_or_default()
    }

    /// The EtherType, behind a VLAN tag if there is one, and where its payload begins.
    #[must_use]
    pub fn ethertype(&self) -> Option<(u16, usize)> {
        match u16_at(&self.bytes, 12)? {
            0x8100 => Some((u16_at(&self.bytes, 16)?, 18)),
            other => Some((other, 14)),
        }
    }

    /// The IP packet's protocol, addresses and payload.
    #[must_use]
    pub fn ip(&self) -> Option<(u8, IpAddr, IpAddr, &[u8])> {
        let (ethertype, at) = self.ethertype()?;
        let packet = self.bytes.get(at..)?;
        match ethertype {
            0x0800 => {
                let header = usize::from(packet.first()? & 15) * 4;
                let total = usize::from(u16_at(packet, 2)?);
                let address =
                    |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
                let (from, to) = (address(12)?.into(), address(16)?.into());
                // A segment of more than 64 KiB (TSO) says 0.
                let payload = if total == 0 { packet.get(header..)? } else { packet.get(header..total)? };
                Some((*packet.get(9)?, from, to, payload))
            }
            0x86dd => {
                let total = usize::from(u16_at(packet, 4)?);
                let address =
                    |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
                let (from, to) = (address(8)?.into(), address(24)?.into());
                let payload = if total == 0 { packet.get(40..)? } else { packet.get(40..40 + total)? };
                Some((*packet.get(6)?, from, to, payload))
            }
            _ => None,
        }
    }

    /// The TCP segment in it.
    #[must_use]
    pub fn segment(&self) -> Option<Segment> {
        let (6, from, to, segment) = self.ip()? else { return None };
        let word = |at: usize| Some(u32::from_be_bytes(segment.get(at..at + 4)?.try_into().ok()?));
        let header = u32::from(segment.get(12)? >> 4) * 4;
        Some(Segment {
            from: (from, u16_at(segment, 0)?),
            to: (to, u16_at(segment, 2)?),
            seq: word(4)?,
            ack: word(8)?,
            flags: *segment.get(13)?,
            length: u32::try_from(segment.len()).ok()?.checked_sub(header)?,
        })
    }

    /// The UDP datagram in it: ports and payload.
    #[must_use]
    pub fn datagram(&self) -> Option<(u16, u16, &[u8])> {
        let (17, _, _, datagram) = self.ip()? else { return None };
        Some((u16_at(datagram, 0)?, u16_at(datagram, 2)?, datagram.get(8..)?))
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = if self.outgoing { ">" } else { "<" };
        let mac = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":");
        write!(f, "{:?} {arrow} {} to {} ", self.at, mac(self.source()), mac(self.destination()))?;
        match (self.segment(), self.ip(), self.ethertype()) {
            (Some(s), ..) => write!(
                f,
                "tcp {}:{} to {}:{} flags {:#04x} seq {} ack {} length {}",
                s.from.0, s.from.1, s.to.0, s.to.1, s.flags, s.seq, s.ack, s.length
            ),
            (_, Some((protocol, from, to, payload)), _) => {
                write!(f, "ip {protocol} {from} to {to}, {} bytes", payload.len())
            }
            (.., Some((ethertype, _))) => write!(f, "type {ethertype:#06x}, {} bytes", self.bytes.len()),
            _ => write!(f, "{} bytes", self.bytes.len()),
        }
    }
}

/// Every segment that went out a second time: SYN, FIN or payload at a sequence number already used in
/// its direction. Keep-alives (one byte or none, one before the next number) are not counted.
#[must_use]
pub fn retransmissions(frames: &[Frame]) -> Vec<Frame> {
    let mut next: HashMap<_, u32> = HashMap::new();
    let mut again = Vec::new();
    for frame in frames {
        let Some(s) = frame.segment() else { continue };
        let length = s.length + u32::from(s.flags & SYN != 0) + u32::from(s.flags & FIN != 0);
        if length == 0 || s.flags & RST != 0 {
            continue;
        }
        let end = s.seq.wrapping_add(length);
        let flow = (s.from, s.to);
        match next.get(&flow) {
            // Half of the number space tells old from new (RFC 9293 3.4).
            Some(&expected) if s.seq.wrapping_sub(expected) > 1 << 31 => {
                let keep_alive = s.length <= 1 && s.flags & (SYN | FIN) == 0 && end == expected;
                if !keep_alive {
                    again.push(frame.clone());
                }
                if end.wrapping_sub(expected) < 1 << 31 {
                    next.insert(flow, end);
                }
            }
            _ => {
                next.insert(flow, end);
            }
        }
    }
    again
}

/// Whether nothing is on its way in any TCP connection: both sides have acknowledged all that the other sent,
/// and either both or neither have ended it. A connection that was reset is over.
#[must_use]
pub fn tcp_is_at_rest(frames: &[Frame]) -> bool {
    #[derive(Default)]
    struct Side {
        next: Option<u32>,
        acknowledged: Option<u32>,
        ended: bool,
    }
    let mut sides: HashMap<_, Side> = HashMap::new();
    for s in frames.iter().filter_map(Frame::segment) {
        if s.flags & RST != 0 {
            sides.remove(&(s.from, s.to));
            sides.remove(&(s.to, s.from));
            continue;
        }
        let length = s.length + u32::from(s.flags & SYN != 0) + u32::from(s.flags & FIN != 0);
        // As in `retransmissions`; a SYN begins anew.
        let later = |old: Option<u32>, new: u32| match old {
            Some(old) if s.flags & SYN == 0 && new.wrapping_sub(old) > 1 << 31 => Some(old),
            _ => Some(new),
        };
        let side = sides.entry((s.from, s.to)).or_default();
        side.next = later(side.next, s.seq.wrapping_add(length));
        side.ended |= s.flags & FIN != 0;
        if s.flags & ACK != 0 {
            side.acknowledged = later(side.acknowledged, s.ack);
        }
    }
    sides.iter().all(|((from, to), side)| {
        let other = sides.get(&(*to, *from));
        other.is_some_and(|other| other.acknowledged == side.next && other.ended == side.ended)
    })
}

/// Writes frames as a pcap file (microseconds, Ethernet).
///
/// # Errors
/// As the file system has them.
pub fn write_pcap(path: &Path, frames: &[Frame]) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 262_144, 1] {
        file.write_all(&word.to_le_bytes())?;
    }
    for frame in frames {
        let length = frame.bytes.len() as u32;
        for word in [frame.at.as_secs() as u32, frame.at.subsec_micros(), length, length] {
            file.write_all(&word.to_le_bytes())?;
        }
        file.write_all(&frame.bytes)?;
    }
    file.flush()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
