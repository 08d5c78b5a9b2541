//! What is known of one TCP connection of the guest: the state that section 3.3.1 of RFC 9293 keeps, as far as a
//! stand-in can know it from outside.
//!
//! Everything in it was said by the guest's own segments, or by the peer's where it says so. `rcv_nxt` and
//! `window` are those of the guest's last acknowledgement, so an answer made of them promises nothing new.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};
use surrogate_wire::tcp_options::MAX_SCALE;
use surrogate_wire::{Mac, Timestamps};

use super::repeat::Sent;
use super::sequence::Seq;
use crate::time::{Duration, Instant};

/// The ends of a connection. The VLAN is the NIC's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tuple {
    /// The guest's address.
    pub guest: IpAddr,
    /// The guest's port.
    pub guest_port: u16,
    /// The other end's address.
    pub peer: IpAddr,
    /// The other end's port.
    pub peer_port: u16,
}

impl core::fmt::Display for Tuple {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let guest = core::net::SocketAddr::new(self.guest, self.guest_port);
        let peer = core::net::SocketAddr::new(self.peer, self.peer_port);
        write!(f, "{guest} to {peer}")
    }
}

/// How far the handshake has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The guest asked for the connection.
    SynSent,
    /// The guest answered a request.
    SynReceived,
    /// Both ends have spoken.
    Established,
}

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) tuple: Tuple,
    /// The next station towards the peer: where the guest's last segment went.
    pub(super) peer_mac: Mac,
    /// The last station that the peer's segments come from, if one was seen: mostly the same.
    pub(super) from_mac: Option<Mac>,
    pub(super) phase: Phase,
    /// RN: what the guest expects next.
    pub(super) rcv_nxt: Seq,
    /// SN: what the guest will send next.
    pub(super) snd_nxt: Seq,
    /// The peer's last acknowledgement, if one was seen.
    pub(super) snd_una: Option<Seq>,
    /// W: the window of the guest's last acknowledgement, as sent.
    pub(super) window: u16,
    /// How far the guest's windows are shifted; `None`: the handshake was not seen.
    pub(super) guest_scale: Option<u8>,
    /// The same of the peer's.
    pub(super) peer_scale: Option<u8>,
    /// The guest's maximum segment size in bytes, if its SYN was seen.
    pub(super) mss: Option<u16>,
    /// The window of the peer's last segment, as sent.
    pub(super) peer_window: Option<u16>,
    /// The largest of them.
    pub(super) peer_window_max: Option<u16>,
    /// Selective acknowledgements were agreed; `false` too if nobody knows.
    pub(super) sack: bool,
    /// Timestamps were agreed.
    pub(super) clock: Option<Clock>,
    /// Type of service or traffic class of the guest's segments.
    pub(super) class: u8,
    /// IPv6 flow label of the guest's segments.
    pub(super) flow_label: u32,
    /// TCP-MD5 or TCP-AO, as the guest's own segments are: what only others sign is no segment of it.
    pub(super) signed: bool,
    /// What follows the guest's FIN.
    pub(super) guest_fin: Option<Seq>,
    /// What follows the peer's FIN.
    pub(super) peer_fin: Option<Seq>,
    /// When the guest spoke last.
    pub(super) heard_at: Instant,
    /// How often it has repeated its SYN or SYN-ACK.
    pub(super) repeats: u8,
    /// What it sent last that has to be acknowledged.
    pub(super) sent: Option<Sent>,
    /// The peer's FIN, when that was sent last.
    pub(super) peer_closed: Option<Sent>,
    /// When it was asked for its state before it falls asleep.
    pub(super) asked_at: Option<Instant>,
    /// Nothing of it was said by the guest: it was inferred from what its peer said.
    pub(super) inferred: bool,
    /// The state is the guest's at the moment it stopped, and not only that of the last segment that was seen.
    pub(super) exact: bool,
    /// Of the newest acknowledgement that is kept for the guest: number and window.
    pub(super) noted: Option<(Seq, u16)>,
    /// When a keep-alive or window probe was answered last.
    pub(super) kept_alive_at: Option<Instant>,
    /// When another answer was given last.
    pub(super) challenged_at: Option<Instant>,
    /// When the peer is to be kept alive from our side.
    pub(super) speak_at: Option<Instant>,
}

/// The guest's timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    /// The last TSval that the guest sent.
    pub(super) value: Seq,
    /// TS.Recent: the TSval that the guest repeats.
    pub(super) recent: Seq,
    /// Since when it is known to be that; `None`: since before a restart. The peer's clock went on from there.
    pub(super) recent_since: Option<Instant>,
}

impl Clock {
    /// TS.Recent was seen to be `recent`, or a moment ago.
    pub(super) fn hear_recent(&mut self, now: Instant, recent: Seq) {
        if self.recent.advanced_to(recent) != self.recent {
            self.recent = recent;
            self.recent_since = Some(now);
        }
    }
}

impl Connection {
    /// A connection that the guest itself has just spoken for: it expects `rcv_nxt` and has sent all before
    /// `snd_nxt`.
    pub(super) const fn new(
        tuple: Tuple,
        peer_mac: Mac,
        phase: Phase,
        (rcv_nxt, snd_nxt): (Seq, Seq),
        now: Instant,
    ) -> Self {
        Self {
            tuple,
            peer_mac,
            from_mac: None,
            phase,
            rcv_nxt,
            snd_nxt,
            snd_una: None,
            window: 0,
            guest_scale: None,
            peer_scale: None,
            mss: None,
            peer_window: None,
            peer_window_max: None,
            sack: false,
            clock: None,
            class: 0,
            flow_label: 0,
            signed: false,
            guest_fin: None,
            peer_fin: None,
            heard_at: now,
            repeats: 0,
            sent: None,
            peer_closed: None,
            asked_at: None,
            inferred: false,
            exact: false,
            noted: None,
            kept_alive_at: None,
            challenged_at: None,
            speak_at: None,
        }
    }

    /// Whether its state can be answered for: the handshake is over, and nobody signs its segments.
    pub(super) fn is_answerable(&self) -> bool {
        self.phase == Phase::Established && !self.signed
    }

    /// Whether its handshake is still under way. Its end may be missed, but not that the guest waits for it: it
    /// repeats its SYN or SYN-ACK after a second, then two, four and so on (RFC 6298 5.5, 5.7), and these are seen.
    pub(super) fn is_in_handshake(&self, now: Instant) -> bool {
        self.handshake_until().is_some_and(|until| now < until)
    }

    /// Until when its handshake counts as under way, if it has not been seen to end.
    pub(super) fn handshake_until(&self) -> Option<Instant> {
        let next = Duration::from_secs(1 << self.repeats.min(7)) + MARGIN;
        (self.phase != Phase::Established).then(|| self.heard_at + next)
    }

    /// Whether it is over, or never came to be: the place in the table may go to another.
    pub(super) fn is_disposable(&self) -> bool {
        self.phase != Phase::Established || self.is_closing()
    }

    /// Whether a FIN is on its way: sent by one end, not known to be acknowledged by the other. An end that has
    /// closed its half and knows that the other one heard it can wait like that for hours, and be answered for.
    pub(super) fn is_closing(&self) -> bool {
        self.has_closed() || self.was_closed()
    }

    /// Whether the guest's own FIN is on its way.
    fn has_closed(&self) -> bool {
        self.guest_fin.is_some_and(|fin| self.snd_una.is_none_or(|una| una.is_before(fin)))
    }

    /// Whether the peer's is.
    fn was_closed(&self) -> bool {
        self.peer_fin.is_some_and(|fin| self.rcv_nxt.is_before(fin))
    }

    /// Whether a FIN is on its way that may be repeated yet; see [`Sent::may_come_again`].
    pub(super) fn waits_for_an_end(&self, now: Instant, watched: Option<Instant>) -> bool {
        let guests = self.sent.filter(|_| self.has_closed());
        let peers = self.peer_closed.filter(|_| self.was_closed());
        guests.iter().chain(&peers).any(|sent| sent.may_come_again(now, watched))
    }

    /// Whether something of the guest's is not acknowledged that may be repeated yet.
    pub(super) fn waits_for_an_acknowledgement(&self, now: Instant, watched: Option<Instant>) -> bool {
        let outstanding = self.snd_una.is_none_or(|una| una.is_before(self.snd_nxt));
        outstanding && self.sent.is_some_and(|sent| sent.may_come_again(now, watched))
    }

    /// Whether both ends have closed and heard each other.
    pub(super) fn is_closed(&self) -> bool {
        self.guest_fin.is_some() && self.peer_fin.is_some() && !self.is_closing()
    }

    /// Bytes that the guest accepts from `rcv_nxt` on; the most that it can be if the scale is unknown.
    pub(super) fn window_bytes(&self) -> u32 {
        u32::from(self.window) << self.guest_scale.unwrap_or(MAX_SCALE).min(MAX_SCALE)
    }

    /// How far below `rcv_nxt` a segment that the peer sends again may begin: as far as a window reaches.
    pub(super) fn farthest_below(&self) -> u32 {
        let known = self.guest_scale.map_or(0, |_| self.window_bytes());
        known.max(u16::MAX.into())
    }

    /// MAX.SND.WND (RFC 5961 5.2): the largest window that the peer ever offered; the most that it can be as far
    /// as that is unknown.
    pub(super) fn largest_window(&self) -> u32 {
        let scale = self.peer_scale.unwrap_or(MAX_SCALE).min(MAX_SCALE);
        u32::from(self.peer_window_max.unwrap_or(u16::MAX)) << scale
    }

    /// A segment of the peer itself, and no stranger's, came from the station `from` while the guest slept. If they
    /// come another way now (its router gave way to another one, say), so must what is said to it: the guest would
    /// have been told by ARP or neighbour discovery.
    pub(super) fn comes_from(&mut self, from: Mac) {
        if self.from_mac.replace(from).is_some_and(|before| before != from) {
            self.peer_mac = from;
        }
    }

    /// The peer itself repeats `value` as the last TSval that it took: what the guest said may have been missed. An older
    /// one than that is an old duplicate's to the peer (RFC 7323 5.3), which would take none of our answers. Zero may be
    /// none.
    pub(super) fn has_told(&mut self, value: Seq) {
        if let Some(clock) = &mut self.clock
            && value.0 != 0
            && clock.value.is_before(value)
            && value.since(clock.value) <= FARTHEST_TOLD
        {
            clock.value = value;
        }
    }

    /// Whether the peer may acknowledge up to `number`: what the guest has sent, and no less than the largest window
    /// allows to be under way (RFC 5961 5.2). In the handshake that is its SYN and the data on it (RFC 7413).
    pub(super) fn may_acknowledge(&self, number: Seq) -> bool {
        let most = match self.phase {
            Phase::SynSent | Phase::SynReceived => u32::from(u16::MAX),
            Phase::Established => self.largest_window().max(u16::MAX.into()),
        };
        self.snd_nxt.since(number) <= most
    }

    /// The timestamps of an answer to a segment of the peer with sequence number `seq` and these timestamps, or
    /// of a segment that answers none.
    ///
    /// TSval repeats the guest's last: an equal one passes the peer's PAWS test (RFC 7323 5.3), a larger one would
    /// make the woken guest look old. TSecr is the segment's own TSval if it is not older than TS.Recent and the
    /// segment begins no later than the last acknowledgement (RFC 7323 4.3). TS.Recent itself stays the guest's.
    pub(super) fn timestamps(&self, answered: Option<(Seq, Timestamps)>) -> Option<Timestamps> {
        let clock = self.clock?;
        let echo = match answered {
            Some((seq, theirs))
                if !Seq(theirs.value).is_before(clock.recent) && !self.rcv_nxt.is_before(seq) =>
            {
                theirs.value
            }
            _ => clock.recent.0,
        };
        Some(Timestamps { value: clock.value.0, echo })
    }
}

/// So much later a TSval may be than the last one that was seen: twelve days of a clock of milliseconds.
const FARTHEST_TOLD: u32 = 1 << 30;
/// A repetition may come so much later than it is due.
const MARGIN: Duration = Duration::from_secs(1);
