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

mod arena;
mod by_name;
mod classify;
pub mod contract;
pub mod counters;
mod dispatch;
mod due;
mod hold;
mod limiter;
mod lists;
mod magic;
mod modes;
mod nic;
mod noise;
mod outbox;
mod replay;
pub mod spoof;
mod twin;
pub mod verdict;
mod view;
mod wake;

use std::collections::VecDeque;

use core::time::Duration;

pub use contract::{Command, Done, Mode, Notice, Output, Refusal, WakeReason};
pub use counters::Counters;
use surrogate_wire::{Mac, Received};
pub use verdict::{Answered, DropReason, Verdict, Verdicts};

use crate::guest::identity::{NicId, PortId};
use crate::guest::table::{Place, Table};
use crate::hash::Seeded;
use crate::rng::Rng;
use crate::time::Instant;
use hold::{Hold, MAX_FRAME};
use limiter::Limiter;
use nic::Nic;
use outbox::{Outbox, Own, Way};
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
    outbox: Outbox,
    notices: Notices,
    limiter: Limiter,
    /// NICs that may have a frame to deliver, each at most once.
    ready: VecDeque<Place>,
    /// In whose name the last frames were transmitted, so that a failure is counted for the right one.
    spoke: [Option<(PortId, NicId)>; SPOKE],
    spoke_at: usize,
    /// Nothing is due before.
    due: Option<Instant>,
    foreign: u64,
    hasher: Seeded,
    /// Where a held frame is put together.
    scratch: Box<[u8]>,
    /// Where a frame of ours waits while it re-enters.
    ours: Box<[u8]>,
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
            outbox: Outbox::new(limits.outbox_bytes),
            notices: Notices::default(),
            limiter: Limiter::new(limits.errors_per_second, limits.echoes_per_second, seeds.next_u64()),
            ready: VecDeque::new(),
            spoke: [None; SPOKE],
            spoke_at: 0,
            due: None,
            foreign: 0,
            hasher: Seeded::new(seeds.next_u64()),
            scratch: vec![0; MAX_FRAME].into_boxed_slice(),
            ours: vec![0; limits.mtu + dispatch::ENVELOPE].into_boxed_slice(),
            limits,
        }
    }

    /// Decides what happens to one frame received on `port` at `now`, for each sleeper it concerns.
    ///
    /// `frame` is a whole Ethernet frame, destination MAC to payload, without FCS, with the VLAN tag
    /// and offload state the kernel kept beside it. `now` never goes back. Drain
    /// [`poll_output`](Self::poll_output) after each call. Allocates nothing. Randomness is for answers
    /// that a host delays at random; all that are given here are due at once. It stays an argument, here and
    /// below, so that an answer which needs it changes no driver.
    #[inline]
    pub fn handle_frame(
        &mut self,
        now: Instant,
        _rng: &mut Rng,
        port: PortId,
        frame: Received<'_>,
    ) -> Verdicts {
        let verdicts = self.dispatch(now, port, &frame);
        self.foreign += u64::from(verdicts.is_foreign());
        verdicts
    }

    /// Does what is due: ages held frames, retries deliveries, ends lingering. Cheap when nothing is. A
    /// driver first hands over what waits at its port: a frame that came in time must not find its NIC
    /// passing.
    pub fn handle_timeout(&mut self, now: Instant, _rng: &mut Rng) {
        if self.due.is_some_and(|due| due <= now) {
            self.do_what_is_due(now);
        }
    }

    /// Takes a command of the control side.
    pub fn handle_command(&mut self, now: Instant, _rng: &mut Rng, command: Command) {
        self.obey(now, command);
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
        self.due
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

    /// Something is due at `at`, perhaps before what was next.
    fn due_at(&mut self, at: Instant) {
        if self.due.is_none_or(|due| at < due) {
            self.due = Some(at);
        }
    }
}

// Without the bytes.
impl core::fmt::Debug for Engine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Engine").field("nics", &self.nics).finish_non_exhaustive()
    }
}

/// Transmitted frames whose senders are remembered: what one batch of a driver holds.
const SPOKE: usize = 64;
