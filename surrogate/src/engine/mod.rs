//! The engine: one frame in, one counted verdict per sleeper concerned, outputs to be performed.
//!
//! No I/O: bytes, commands, completions, time and randomness are arguments. It holds each NIC's
//! [`Mode`] and what is held for it; the lifecycle itself lives once per guest on the control side
//! ([`crate::guest::lifecycle`]).
//!
//! ```text
//!  handle_frame ─▶ dispatch: whom does it concern? ─▶ classify: kind × mode ─┬─▶ responder ─▶ outbox ─▶ Transmit
//!                                                                            ├─▶ hold ─▶ replay ─────▶ Deliver
//!                                                                            └─▶ wake ───────────────▶ Notify
//!  handle_command ─▶ modes      handle_done ─▶ replay      handle_timeout ─▶ due
//! ```
//!
//! What each frame gets in each mode is written down, and tested row by row, in docs/packet-policy.md.

mod addresses;
mod arena;
mod by_name;
mod classify;
mod connections;
pub mod contract;
pub mod counters;
mod dispatch;
mod due;
mod gather;
mod hold;
mod knowledge;
mod limiter;
mod lists;
mod magic;
mod modes;
mod nic;
mod noise;
mod outbox;
mod reassembly;
mod replay;
mod speak;
pub mod spoof;
mod twin;
pub mod verdict;
mod view;
mod wake;

use std::collections::{HashMap, VecDeque};

use core::hash::BuildHasher;
use core::time::Duration;

pub use contract::{Command, Done, Mode, Notice, Output, Refusal, WakeReason};
pub use counters::Counters;
pub use knowledge::Knowledge;
use surrogate_wire::{Frame, Mac, Packet, Received};
pub use verdict::{Answered, DropReason, Verdict, Verdicts};

use crate::guest::identity::{NicId, NicIdentity, PortId};
use crate::guest::table::{Lan, Place, Table};
use crate::hash::Seeded;
use crate::responder::router::Advertised;
use crate::rng::Rng;
use crate::time::Instant;
use due::Timers;
use hold::{Hold, MAX_FRAME};
use limiter::Limiter;
use nic::Nic;
use outbox::{Outbox, Own, Way};
use reassembly::Reassembly;
use wake::Notices;

/// How long a released NIC's port must have been quiet before it passes.
pub const LINGER: Duration = Duration::from_millis(20);
/// How long to wait before a delivery is tried again that the guest's full queue refused.
pub const RETRY: Duration = Duration::from_millis(2);
/// Deliveries outstanding at once, per NIC.
pub const WINDOW: usize = 64;

/// Limits of one engine. Worst-case memory: `held_bytes` and half as much for bookkeeping.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes held for all guests together; memory is touched only as it is used.
    pub held_bytes: usize,
    /// Flooded frames kept per NIC by policy `flooded = "hold"`, newest kept.
    pub flooded_ring: usize,
    /// Bytes of our own frames waiting for the driver.
    pub outbox_bytes: usize,
    /// ICMP errors of ours per destination and second.
    pub errors_per_second: u32,
    /// Echo answers (ICMP, UDP) per source and second.
    pub echoes_per_second: u32,
    /// MTU of the bridge: answers are never longer (payload of the Ethernet frame, in bytes).
    pub mtu: usize,
}

/// Decides about frames for the sleepers of one shard. See the [module](self).
pub struct Engine {
    limits: Limits,
    service_mac: Mac,
    table: Table,
    /// By place. A forgotten NIC leaves a free one.
    nics: Vec<Option<Nic>>,
    hold: Hold,
    reassembly: Reassembly,
    outbox: Outbox,
    notices: Notices,
    limiter: Limiter,
    /// NICs that may have a frame to deliver, each at most once.
    ready: VecDeque<Place>,
    /// In whose name the last frames were transmitted, so that a failure is counted for the right one.
    spoke: [Option<(PortId, NicId)>; SPOKE],
    spoke_at: usize,
    timers: Timers,
    /// The caller's, while it has called; its place is taken by nobody's meanwhile.
    rng: Rng,
    foreign: u64,
    /// What routers said, for each LAN of a NIC.
    routers: HashMap<Lan, Advertised, Seeded>,
    /// What time it was when.
    time_of_day: Option<(Instant, Duration)>,
    hasher: Seeded,
    /// Where a held frame is put together.
    scratch: Box<[u8]>,
    /// Where a frame of ours waits while it re-enters.
    ours: Box<[u8]>,
    /// Where a datagram that came in fragments is put together, and the answer to it.
    whole: Box<[u8]>,
    reply: Box<[u8]>,
}

impl Engine {
    /// An engine without NICs. `seed` keys its hash tables. `service_mac` is the source of the
    /// barrier's question, a MAC that no guest has.
    #[must_use]
    pub fn new(limits: Limits, service_mac: Mac, seed: u64) -> Self {
        let mut seeds = Rng::seeded(seed);
        Self {
            service_mac,
            table: Table::new(seeds.next_u64()),
            nics: Vec::new(),
            hold: Hold::new(limits.held_bytes, limits.flooded_ring, seeds.next_u64()),
            reassembly: Reassembly::new(limits.held_bytes / 8),
            outbox: Outbox::new(limits.outbox_bytes),
            notices: Notices::default(),
            limiter: Limiter::new(limits.errors_per_second, limits.echoes_per_second, seeds.next_u64()),
            ready: VecDeque::new(),
            spoke: [None; SPOKE],
            spoke_at: 0,
            timers: Timers::default(),
            rng: Rng::seeded(0),
            foreign: 0,
            routers: HashMap::with_hasher(Seeded::new(seeds.next_u64())),
            time_of_day: None,
            hasher: Seeded::new(seeds.next_u64()),
            scratch: vec![0; MAX_FRAME].into_boxed_slice(),
            ours: vec![0; limits.mtu + dispatch::ENVELOPE].into_boxed_slice(),
            whole: vec![0; MAX_FRAME].into_boxed_slice(),
            reply: vec![0; MAX_FRAME].into_boxed_slice(),
            limits,
        }
    }

    /// Decides what happens to one frame received on `port` at `now`, for each sleeper it concerns.
    ///
    /// `frame` is a whole Ethernet frame, destination MAC to payload, without FCS, with the VLAN tag
    /// and offload state the kernel kept beside it. `now` never goes back. Drain
    /// [`poll_output`](Self::poll_output) after each call. Allocates nothing, unless the frame is a sleeper's own
    /// from while it was awake. Randomness is for answers that a host delays at random.
    #[inline]
    pub fn handle_frame(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        port: PortId,
        frame: Received<'_>,
    ) -> Verdicts {
        let verdicts = self.with(rng, |engine| engine.dispatch(now, port, &frame));
        self.foreign += u64::from(verdicts.is_foreign());
        verdicts
    }

    /// Learns from one frame that an awake guest sent (`from_guest`) or got at its own port: what a stand-in
    /// will have to know. No verdict, and nothing is said. A frame of a guest that we stand in for is ignored:
    /// it cannot have sent it. So is one of another station behind that port, or of another VLAN there.
    pub fn handle_observed(&mut self, now: Instant, id: NicId, from_guest: bool, frame: Received<'_>) {
        let Ok(parsed) = Frame::parse(&frame) else { return };
        let Ok(packet) = Packet::parse(&parsed, frame.offload) else { return };
        if let Some(nic) = self.by_id_mut(id)
            && nic.mode != Mode::Answer
            && is_its_own(&nic.identity, from_guest, &parsed)
        {
            nic.counters.observed += 1;
            nic.fresh = false;
            let changes = nic.presence.changes_of_groups();
            nic.presence.learn(now, from_guest, &parsed, &packet);
            if from_guest {
                nic.ports.learn(now, &nic.identity, &packet);
            }
            if let Some(custody) = &mut nic.custody {
                custody.learn(now, &nic.identity, from_guest, &parsed, &packet);
            }
            if nic.presence.changes_of_groups() != changes {
                self.take_groups(id);
            }
            self.count_unremembered(id);
            self.look_at_watched(now, id);
        }
    }

    /// The guest of a NIC is observed from now on, and was not before.
    pub fn handle_gap(&mut self, now: Instant, id: NicId) {
        if let Some(custody) = self.by_id_mut(id).and_then(|nic| nic.custody.as_mut()) {
            custody.note_gap(now);
        }
    }

    /// What limits kept from being remembered, of its guest's words and of its LAN's routers'.
    pub(super) fn count_unremembered(&mut self, id: NicId) {
        let Some(nic) = self.by_id(id) else { return };
        let of_routers = self.routers.get(&Lan::of(&nic.identity)).map_or(0, Advertised::unremembered);
        let all = nic.presence.limited() + of_routers;
        if let Some(nic) = self.by_id_mut(id) {
            nic.counters.unremembered = all;
        }
    }

    /// Frames to the groups of a NIC concern it from now on.
    pub(super) fn take_groups(&mut self, id: NicId) {
        let Some(place) = self.table.nic(id) else { return };
        if let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) {
            let before = nic.take_groups();
            self.table.change_groups(&nic.identity, place, &before);
        }
    }

    /// Learns the time of day at `now`: how long it is since the beginning of 1970, UTC. Without, nobody is told what
    /// time it is; to be said again now and then, since that clock is set.
    pub fn handle_time_of_day(&mut self, now: Instant, since_1970: Duration) {
        self.time_of_day = Some((now, since_1970));
    }

    fn time_of_day(&self, now: Instant) -> Option<Duration> {
        self.time_of_day.map(|(at, then)| then.saturating_add(now.since(at)))
    }

    /// Does what is due: ages held frames, retries deliveries, ends lingering. Cheap when nothing is. A
    /// driver first hands over what waits at its port: a frame that came in time must not find its NIC
    /// passing.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut Rng) {
        if self.timers.next().is_some_and(|due| due <= now) {
            self.with(rng, |engine| engine.do_what_is_due(now));
        }
    }

    /// Takes a command of the control side.
    pub fn handle_command(&mut self, now: Instant, rng: &mut Rng, command: Command) {
        self.with(rng, |engine| engine.obey(now, command));
    }

    /// Learns what outputs came to.
    pub fn handle_done(&mut self, now: Instant, done: Done) {
        match done {
            Done::Delivered { nic, epoch, count } => self.delivered(now, nic, epoch, count),
            Done::Refused { nic, epoch, why } => self.refused(now, nic, epoch, why),
            Done::TransmitFailed { port, count } => self.transmit_failed(port, count),
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next, if ever.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next output to perform, if any.
    pub fn poll_output(&mut self) -> Option<Output<'_>> {
        while let Some(own) = self.outbox.pop() {
            if let Some(way) = self.may_leave(&own) {
                let bytes = self.outbox.bytes(&own);
                return Some(match way {
                    Way::Transmit(port) => Output::Transmit { port, bytes },
                    Way::Inject => Output::Inject { nic: own.nic, bytes },
                });
            }
        }
        if let Some(notice) = self.notices.pop() {
            return Some(Output::Notify(notice));
        }
        let (nic, epoch, len) = self.next_delivery()?;
        Some(Output::Deliver { nic, epoch, bytes: self.scratch.get(..len).unwrap_or_default() })
    }

    /// A NIC's counters, `None` if it is not registered.
    #[must_use]
    pub fn counters(&self, nic: NicId) -> Option<&Counters> {
        self.by_id(nic).map(|nic| &nic.counters)
    }

    /// A NIC's mode.
    #[must_use]
    pub fn mode(&self, nic: NicId) -> Option<Mode> {
        self.by_id(nic).map(|nic| nic.mode)
    }

    /// Frames that concerned no sleeper.
    #[must_use]
    pub const fn foreign(&self) -> u64 {
        self.foreign
    }

    /// Whether a frame of ours may still go out: one that was written before its guest could run, and not
    /// taken in time, would be a second voice.
    fn may_leave(&mut self, own: &Own) -> Option<Way> {
        let nic = self.nics.get_mut(own.place as usize)?.as_mut()?;
        // Another NIC may have its place now.
        if nic.identity.nic != own.nic {
            return None;
        }
        match own.way {
            Way::Inject => matches!(nic.mode, Mode::Fence { .. }).then_some(own.way),
            Way::Transmit(port) if nic.mode == Mode::Answer => {
                if let Some(spoke) = self.spoke.get_mut(self.spoke_at) {
                    *spoke = Some((port, own.nic));
                }
                self.spoke_at = (self.spoke_at + 1) % SPOKE;
                Some(own.way)
            }
            Way::Transmit(_) => {
                nic.counters.transmit_failed += 1;
                None
            }
        }
    }

    fn transmit_failed(&mut self, port: PortId, count: u32) {
        for back in 1..=SPOKE.min(count as usize) {
            let at = (self.spoke_at + SPOKE - back) % SPOKE;
            let Some(Some((spoke_at, nic))) = self.spoke.get(at).copied() else { return };
            if let Some(nic) = self.by_id_mut(nic)
                && spoke_at == port
            {
                nic.counters.transmit_failed += 1;
            }
        }
    }

    fn by_id(&self, nic: NicId) -> Option<&Nic> {
        self.nics.get(self.table.nic(nic)? as usize)?.as_ref()
    }

    fn by_id_mut(&mut self, nic: NicId) -> Option<&mut Nic> {
        self.nics.get_mut(self.table.nic(nic)? as usize)?.as_mut()
    }

    /// What keys the tables of a NIC's custody.
    fn seed_of(&self, nic: NicId) -> u64 {
        self.hasher.hash_one(nic)
    }

    /// Calls `does` with the caller's randomness in its place.
    #[inline]
    fn with<R>(&mut self, rng: &mut Rng, does: impl FnOnce(&mut Self) -> R) -> R {
        core::mem::swap(&mut self.rng, rng);
        let done = does(self);
        core::mem::swap(&mut self.rng, rng);
        done
    }
}

/// Whether a frame at a NIC's own port is that NIC's: a guest may have guests and containers of its own, with other
/// MACs, and other VLANs with the same one. A port may take the tag of its own VLAN off.
fn is_its_own(identity: &NicIdentity, from_guest: bool, frame: &Frame<'_>) -> bool {
    let station = if from_guest {
        frame.src == identity.mac
    } else {
        frame.dst == identity.mac || !frame.dst.is_unicast()
    };
    let vid = frame.tags.vid();
    station && (vid.is_none() || vid == identity.vlan) && frame.tags.inner_vid().is_none()
}

// Without the bytes.
impl core::fmt::Debug for Engine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Engine").field("nics", &self.nics).finish_non_exhaustive()
    }
}

/// Transmitted frames whose senders are remembered: what one batch of a driver holds.
const SPOKE: usize = 64;
