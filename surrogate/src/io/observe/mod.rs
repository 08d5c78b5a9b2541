//! What an awake guest itself says, and a little of what is said to it: learned at the guest's own port, as
//! cheaply as the kernel lets us.
//!
//! An [`Observer`] is a packet socket on one port with a filter ([`filter`]). For what the guest sends, the
//! kernel runs the filter before it copies anything. What is sent to the guest it copies first, each frame
//! (`dev_queue_xmit_nit`), which takes several percent of a busy guest's throughput (docs/performance.md). So
//! that way is looked at only while it is cheap or worth it:
//!
//! - *closely*, which is for guests that are idle anyway, and ends by itself as soon as one is not;
//! - for a few seconds after the guest asked for a lease: the answer says how long its addresses are its own.
//!
//! What is lost is the peer's side of connections that begin while the guest works: its SYN, or SYN-ACK, with
//! its window scale and MSS. The guest's own tells what both agreed on.
//!
//! A guest that does so much that even this would cost it too much is not observed for a while ([`budget`]).
//!
//! [`Observers`] are those of one packet thread, behind one descriptor. Nothing here decides what a frame means.

mod bpf;
mod budget;
pub mod filter;
mod observer;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use surrogate_wire::{Frame, Offload, Packet, Received, TcpFlags, Transport};

use budget::Budget;
pub use observer::Observer;

use super::sys::{Poll, Taken};
use crate::guest::identity::NicId;
use crate::time::Instant;

/// The observers of one packet thread.
#[derive(Debug)]
pub struct Observers {
    poll: Poll,
    /// In the order of their numbers.
    watched: Vec<Watched>,
    /// Whose frames to take next, as far as known; the first one's turn lasts for so many frames more.
    ready: VecDeque<NicId>,
    turn: usize,
    /// The frame that was taken last, and zeroes.
    buffer: Box<[u8]>,
    /// What of the buffer is not zero.
    filled: usize,
    /// For whom it costs too much that it is observed.
    too_dear: Option<NicId>,
    numbers: Numbers,
}

/// What a packet thread's observers count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Frames taken.
    pub taken: u64,
    /// Frames that passed a filter and found no room, or were longer than any frame should be.
    pub dropped: u64,
    /// Times that close observation ended because the guest was too busy for it.
    pub too_busy: u64,
    /// Times that a guest was observed no more, for a while, because it would have cost it too much.
    pub paused: u64,
}

/// A frame of an awake guest.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// At whose port.
    pub nic: NicId,
    /// Whether the guest sent it, rather than got it.
    pub from_guest: bool,
    /// The frame. Of a long TCP segment or UDP datagram only the first [`filter::HEADERS`] bytes were read: its data
    /// is then zeroes from there to its end, so that lengths are right, and its checksum is taken to be.
    pub received: Received<'a>,
}

#[derive(Debug)]
struct Watched {
    nic: NicId,
    observer: Observer,
    /// Until when an answer to the guest is looked for.
    answer_until: Option<Instant>,
    /// Since when it is closely observed, without a gap.
    closely_since: Option<Instant>,
    /// Since when frames are counted while it is, and how many.
    counted: (Instant, u32),
    /// What is spent on it while it is not.
    budget: Budget,
    /// The queue may have frames in it that were taken closely, though now it is a sample.
    leftovers: bool,
    /// Frames were taken since there were none.
    taken: bool,
    /// Until when its frames gather: nobody is woken for one.
    gather_until: Option<Instant>,
}

impl Observers {
    /// None yet.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            watched: Vec::new(),
            ready: VecDeque::with_capacity(AT_ONCE),
            turn: TURN,
            buffer: vec![0; LONGEST].into_boxed_slice(),
            filled: 0,
            too_dear: None,
            numbers: Numbers::default(),
        })
    }

    /// Takes the frames of `observer` as those of `nic` from now on. The one that it had, or this one if it
    /// cannot be waited for, comes back to be closed elsewhere.
    pub fn attach(&mut self, nic: NicId, observer: Observer) -> Option<Observer> {
        let before = self.detach(nic);
        let at = self.watched.partition_point(|watched| watched.nic < nic);
        if self.poll.add(observer.as_fd(), nic.0.into()).is_err() {
            return Some(observer);
        }
        let watched = Watched {
            nic,
            observer,
            answer_until: None,
            closely_since: None,
            counted: (Instant::ZERO, 0),
            budget: Budget::default(),
            leftovers: false,
            taken: false,
            gather_until: None,
        };
        self.watched.insert(at, watched);
        before
    }

    /// Takes no more frames of `nic`; its observer comes back to be closed elsewhere.
    pub fn detach(&mut self, nic: NicId) -> Option<Observer> {
        let at = self.watched.binary_search_by_key(&nic, |watched| watched.nic).ok()?;
        let Watched { observer, .. } = self.watched.remove(at);
        self.poll.remove(observer.as_fd());
        self.ready.retain(|ready| *ready != nic);
        self.numbers.dropped += observer.dropped();
        Some(observer)
    }

    /// Takes all TCP of `nic` from now on, both ways, or no more than a sample of what it sends. An idle
    /// guest's: of one that turns out to be busy it is a sample again.
    pub fn closely(&mut self, now: Instant, nic: NicId, closely: bool) {
        if let Some(watched) = find(&mut self.watched, nic) {
            watched.counted = (now, 0);
            watched.set(now, closely);
            watched.wait_again(&self.poll);
        }
    }

    /// Since when all TCP of `nic` was taken, both ways and without a gap; `None`: it is not.
    pub fn closely_since(&mut self, now: Instant, nic: NicId) -> Option<Instant> {
        let watched = find(&mut self.watched, nic)?;
        self.numbers.dropped += watched.take_drops(now);
        watched.closely_since
    }

    /// Whether nobody is observed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// Frames that gather can be taken: somebody is about to act on what they tell.
    pub fn gather_no_more(&mut self) {
        for watched in &mut self.watched {
            watched.wait_again(&self.poll);
        }
    }

    /// The next frame, if there is one that does not gather. Who has many waits for those who have few: [`TURN`] of
    /// each are taken, then the kernel is asked again who has some.
    pub fn take(&mut self, now: Instant) -> Option<Observed<'_>> {
        let (nic, taken) = self.next_whole(now)?;
        self.numbers.taken += 1;
        // What the last frame left behind this one is not its own.
        if let Some(rest) = self.buffer.get_mut(taken.bytes..self.filled.max(taken.bytes)) {
            rest.fill(0);
        }
        self.filled = taken.bytes;
        let is_cut = taken.bytes < taken.length;
        let offload = if is_cut { Offload::Verified } else { taken.offload };
        let received = Received { bytes: self.buffer.get(..taken.length)?, vlan: taken.vlan, offload };
        let from_guest = !taken.outgoing;
        let watched = find(&mut self.watched, nic)?;
        watched.taken = true;
        let kind = Kind::of(&received);
        if from_guest && kind == Kind::AsksForALease {
            watched.answer_until = Some(now + ANSWER);
            watched.set(now, watched.observer.is_closely());
        }
        self.numbers.too_busy += u64::from(watched.is_too_busy(now));
        if watched.is_too_dear(now, kind) {
            self.too_dear = Some(nic);
        }
        Some(Observed { nic, from_guest, received })
    }

    /// The observer that cost its guest too much when the last frame was taken: detached, to be closed elsewhere.
    pub fn detach_too_dear(&mut self) -> Option<(NicId, Observer)> {
        let nic = self.too_dear.take()?;
        let observer = self.detach(nic)?;
        self.numbers.paused += 1;
        Some((nic, observer))
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.watched.iter().flat_map(|watched| [watched.answer_until, watched.gather_until]).flatten().min()
    }

    /// Looks no more for answers that did not come, and again for frames that gathered.
    pub fn handle_timeout(&mut self, now: Instant) {
        for watched in &mut self.watched {
            if watched.gather_until.is_some_and(|until| until <= now) {
                watched.wait_again(&self.poll);
            }
            if watched.answer_until.is_some_and(|until| until <= now) {
                watched.answer_until = None;
                watched.set(now, watched.observer.is_closely());
            }
        }
    }

    /// What was counted so far.
    pub fn numbers(&mut self, now: Instant) -> Numbers {
        self.numbers.dropped += self.watched.iter_mut().map(|watched| watched.take_drops(now)).sum::<u64>();
        self.numbers
    }

    /// The descriptor that is readable while there are frames.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.as_fd()
    }

    /// Reads the next frame into the buffer.
    fn next_whole(&mut self, now: Instant) -> Option<(NicId, Taken)> {
        let mut asked = false;
        loop {
            let Some(nic) = self.ready.front().copied() else {
                if core::mem::replace(&mut asked, true) {
                    return None;
                }
                // An interruption is as good as none ready: we are asked again.
                let ready = self.poll.ready::<AT_ONCE>().ok()?;
                self.ready.extend(ready.filter_map(|token| u32::try_from(token).ok()).map(NicId));
                self.turn = TURN;
                continue;
            };
            let left = self.turn.checked_sub(1);
            let watched = find(&mut self.watched, nic);
            let (Some(left), Some(watched)) = (left, watched) else {
                self.end_turn();
                continue;
            };
            self.turn = left;
            // A port that went down says so once, before the frames that it had.
            let received = watched.observer.receive(&mut self.buffer);
            let received = received.or_else(|_| watched.observer.receive(&mut self.buffer));
            let Ok(Some(taken)) = received else {
                watched.drained(now, &self.poll);
                self.end_turn();
                continue;
            };
            if taken.length <= self.buffer.len() {
                return Some((nic, taken));
            }
            self.filled = self.filled.max(taken.bytes);
            self.numbers.dropped += 1;
        }
    }

    fn end_turn(&mut self) {
        self.ready.pop_front();
        self.turn = TURN;
    }
}

impl Watched {
    /// Observes as it is wanted now. What the kernel refuses, being out of memory, stays as it was: less is
    /// learned, or more spent, until the next time.
    fn set(&mut self, now: Instant, closely: bool) {
        let both_ways = closely || self.answer_until.is_some();
        self.leftovers |= self.observer.is_closely() && !closely;
        let (how, ways) = (self.observer.set_closely(closely), self.observer.set_both_ways(both_ways));
        if let Err(error) = how.and(ways) {
            tracing::warn!(nic = self.nic.0, %error, "its port is not observed as it should be");
        }
        let whole = self.observer.is_closely() && self.observer.is_both_ways();
        self.closely_since = whole.then(|| self.closely_since.unwrap_or(now));
    }

    /// Takes how many frames found no room. What they told was missed.
    fn take_drops(&mut self, now: Instant) -> u64 {
        let dropped = self.observer.dropped();
        if dropped > 0 && self.closely_since.is_some() {
            self.closely_since = Some(now);
        }
        dropped
    }

    /// Counts a frame. Whether it is too busy to be closely observed; it is not any more then.
    fn is_too_busy(&mut self, now: Instant) -> bool {
        if !self.observer.is_closely() {
            return false;
        }
        let (since, frames) = &mut self.counted;
        if now.since(*since) >= SECOND {
            self.counted = (now, 1);
            return false;
        }
        *frames += 1;
        if *frames <= CLOSELY_A_SECOND {
            return false;
        }
        self.set(now, false);
        true
    }

    /// Counts what a frame cost. Whether the guest is busy, and it costs it too much that it is observed.
    fn is_too_dear(&mut self, now: Instant, kind: Kind) -> bool {
        if self.observer.is_closely() {
            return false; // it is idle, or soon not observed closely any more
        }
        let spent = self.budget.spend(now, kind == Kind::Sampled && !self.leftovers);
        spent > if self.answer_until.is_some() { budget::A_SECOND_FOR_A_LEASE } else { budget::A_SECOND }
    }

    /// There are no more frames now. Of a guest that works the next ones gather.
    fn drained(&mut self, now: Instant, poll: &Poll) {
        self.leftovers = false;
        if core::mem::take(&mut self.taken) && !self.observer.is_both_ways() {
            poll.remove(self.observer.as_fd());
            self.gather_until = Some(now + GATHER);
        }
    }

    /// Its frames do not gather any more. If the kernel cannot, they go on, for another while.
    fn wait_again(&mut self, poll: &Poll) {
        if let Some(until) = self.gather_until {
            let waits = poll.add(self.observer.as_fd(), self.nic.0.into());
            self.gather_until = waits.is_err().then(|| until + GATHER);
        }
    }
}

/// What an observed frame is to an observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A client of DHCP or DHCPv6 speaks to a server.
    AsksForALease,
    /// A TCP segment or UDP datagram that is taken only closely or as one of many.
    Sampled,
    Other,
}

impl Kind {
    fn of(received: &Received<'_>) -> Self {
        let Ok(frame) = Frame::parse(received) else { return Self::Other };
        let packet = Packet::parse(&frame, received.offload).ok();
        let Some(transport) = packet.as_ref().and_then(Packet::transport) else { return Self::Other };
        match transport {
            Transport::Tcp(segment) => {
                let rare =
                    [TcpFlags::SYN, TcpFlags::FIN, TcpFlags::RST].map(|flag| segment.flags.contains(flag));
                if rare.contains(&true) { Self::Other } else { Self::Sampled }
            }
            other => match other.ports() {
                Some((68, 67) | (546, 547)) => Self::AsksForALease,
                Some((from, to)) if !filter::PORTS.contains(&from) && !filter::PORTS.contains(&to) => {
                    Self::Sampled
                }
                _ => Self::Other,
            },
        }
    }
}

fn find(watched: &mut [Watched], nic: NicId) -> Option<&mut Watched> {
    let at = watched.binary_search_by_key(&nic, |watched| watched.nic).ok()?;
    watched.get_mut(at)
}

/// Observers with frames that the kernel names at once.
const AT_ONCE: usize = 16;
/// A frame of the longest IP packet, with a tag.
const LONGEST: usize = 14 + 4 + 65_535;
/// How long after its request a lease is looked for: longer than servers take to see that an address is free.
const ANSWER: Duration = Duration::from_secs(5);
/// How long frames of a guest that works gather before they are taken. To be woken for each one costs such a guest far
/// more than the frame does, since it is its processor that we are woken on (benches/observe).
const GATHER: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);
/// Frames of one guest in a row.
const TURN: usize = 16;
/// TCP segments a second, both ways, that an idle guest has at most: also one that is about to sleep, and is asked
/// about each of its connections (1,024 are remembered by default) and answers.
const CLOSELY_A_SECOND: u32 = 4096;
