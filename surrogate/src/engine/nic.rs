//! What the engine keeps of one NIC: who it is, its mode, what is held and what was told.

use core::net::IpAddr;

use super::contract::Mode;
use super::counters::Counters;
use super::hold::Queue;
use super::replay::Delivery;
use super::spoof::Spoof;
use super::wake::Told;
use crate::guest::identity::{Epoch, NicIdentity};
use crate::time::{Duration, Instant};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Nic {
    pub(super) identity: NicIdentity,
    pub(super) mode: Mode,
    pub(super) epoch: Epoch,
    pub(super) counters: Counters,
    pub(super) queue: Queue,
    pub(super) delivery: Delivery,
    pub(super) told: Told,
    pub(super) spoof: Spoof,
    /// A barrier's question is out and not answered.
    pub(super) barrier: bool,
    /// It is in the engine's list of those that have something to deliver.
    pub(super) ready: bool,
    /// When each of its addresses was defended last, in the order of the identity's.
    defended: Vec<Option<Instant>>,
}

/// RFC 5227 1.1.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

impl Nic {
    pub(super) fn new(identity: NicIdentity) -> Self {
        let defended = vec![None; identity.addresses.len()];
        Self {
            identity,
            mode: Mode::Pass,
            epoch: Epoch::default(),
            counters: Counters::default(),
            queue: Queue::default(),
            delivery: Delivery::default(),
            told: Told::default(),
            spoof: Spoof::default(),
            barrier: false,
            ready: false,
            defended,
        }
    }

    /// Replaces what is known of it; mode, counters, held frames and the time of each defence stay.
    pub(super) fn learn(&mut self, identity: NicIdentity) {
        self.defended = identity.addresses.iter().map(|held| self.last_defence(held.address)).collect();
        self.identity = identity;
    }

    /// Whether `address` may be defended at `now` (RFC 5227 2.4 b); if so, it was.
    pub(super) fn defend(&mut self, now: Instant, address: IpAddr) -> bool {
        let Some(last) = self.place_of(address).and_then(|at| self.defended.get_mut(at)) else {
            return false;
        };
        let may = last.is_none_or(|last| now.since(last) >= DEFEND_INTERVAL);
        // A conflict soon after one that was not defended is no better than the second one.
        *last = Some(now);
        may
    }

    fn last_defence(&self, address: IpAddr) -> Option<Instant> {
        *self.defended.get(self.place_of(address)?)?
    }

    fn place_of(&self, address: IpAddr) -> Option<usize> {
        self.identity.addresses.iter().position(|held| held.address == address)
    }

    /// Its frames that arrive now are ours to handle.
    pub(super) fn stands(&self) -> bool {
        self.mode != Mode::Pass
    }
}
