//! What the engine keeps of one NIC: who it is, its mode, what is held and what was told.

use core::net::IpAddr;

use super::connections::Watch;
use super::contract::Mode;
use super::counters::Counters;
use super::hold::Queue;
use super::reassembly::Share;
use super::replay::Delivery;
use super::spoof::Spoof;
use super::wake::Told;
use crate::custody::Custody;
use crate::guest::identity::{Epoch, InterfaceAddress, NicIdentity};
use crate::guest::ports::Ports;
use crate::responder::presence::Presence;
use crate::time::{Duration, Instant};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Nic {
    pub(super) identity: NicIdentity,
    pub(super) mode: Mode,
    pub(super) epoch: Epoch,
    pub(super) counters: Counters,
    pub(super) queue: Queue,
    /// Which of the held frames are parts of what.
    pub(super) parts: Share,
    pub(super) delivery: Delivery,
    pub(super) told: Told,
    pub(super) spoof: Spoof,
    /// What it has learned and has to say of its own accord.
    pub(super) presence: Presence,
    /// Which ports it has closed.
    pub(super) ports: Ports,
    /// Nothing was learned yet, and it was not stood in for.
    pub(super) fresh: bool,
    /// Its connections, if it is to be observed.
    pub(super) custody: Option<Box<Custody>>,
    /// Its guest, which is to sleep, is watched before it is asked about its connections.
    pub(super) watch: Option<Watch>,
    /// It is being asked about its connections; the barrier's question comes after.
    pub(super) soliciting: bool,
    /// A barrier's question is out and not answered.
    pub(super) barrier: bool,
    /// It is in the engine's list of those that have something to deliver.
    pub(super) ready: bool,
    /// The groups that it is in whatever its guest tells.
    declared: Vec<IpAddr>,
    /// When each of its addresses was defended last, in the order of the identity's.
    defended: Vec<Option<Instant>>,
    /// Addresses that are the sleeper's no longer, and not in its identity until it has woken, with why.
    withdrawn: Vec<(InterfaceAddress, Ended)>,
    /// When to look again whether an address is over.
    pub(super) check_at: Option<Instant>,
}

/// Why an address is a sleeper's no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// A DHCP server took it away or did not prolong it.
    Lease,
    /// Its prefix is over, as routers told, which may advertise it again.
    Prefix,
}

/// RFC 5227 1.1.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

impl Nic {
    pub(super) fn new(identity: NicIdentity, seed: u64) -> Self {
        let defended = vec![None; identity.addresses.len()];
        // Room for all of them, so that no frame makes us look for more.
        let withdrawn = Vec::with_capacity(identity.addresses.len());
        let custody = custody_of(&identity, seed);
        Self {
            declared: identity.groups.clone(),
            identity,
            mode: Mode::Pass,
            epoch: Epoch::default(),
            counters: Counters::default(),
            queue: Queue::default(),
            parts: Share::default(),
            delivery: Delivery::default(),
            told: Told::default(),
            spoof: Spoof::default(),
            presence: Presence::default(),
            ports: Ports::default(),
            fresh: true,
            custody,
            watch: None,
            soliciting: false,
            barrier: false,
            ready: false,
            defended,
            withdrawn,
            check_at: None,
        }
    }

    /// Replaces what is known of it; mode, counters, held frames, connections, the time of each defence and what its guest told stay.
    pub(super) fn learn(&mut self, identity: NicIdentity, seed: u64) {
        match &mut self.custody {
            Some(custody) if identity.traffic.custody => custody.set_policy(identity.traffic.connections),
            custody => *custody = custody_of(&identity, seed),
        }
        self.defended = identity.addresses.iter().map(|held| self.last_defence(held.address)).collect();
        self.declared.clone_from(&identity.groups);
        self.identity = identity;
        self.withdrawn.reserve(self.identity.addresses.len());
        self.take_groups();
    }

    /// Does without an address until [`give_back`](Self::give_back). Says whether there was such a one.
    pub(super) fn withdraw(&mut self, address: IpAddr, why: Ended) -> bool {
        let Some(at) = self.place_of(address) else { return false };
        self.withdrawn.push((self.identity.addresses.remove(at), why));
        if at < self.defended.len() {
            self.defended.remove(at);
        }
        true
    }

    /// Takes back one address that was withdrawn for a reason that `may_return`.
    pub(super) fn give_back(
        &mut self,
        may_return: impl Fn(IpAddr, Ended) -> bool,
    ) -> Option<(InterfaceAddress, Ended)> {
        let at = self.withdrawn.iter().position(|(held, why)| may_return(held.address, *why))?;
        let (held, why) = self.withdrawn.remove(at);
        self.identity.addresses.push(held);
        self.defended.push(None);
        Some((held, why))
    }

    /// Its addresses, those withdrawn too.
    pub(super) fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let withdrawn = self.withdrawn.iter().map(|(held, _)| held);
        self.identity.addresses.iter().chain(withdrawn).map(|held| held.address)
    }

    /// Makes its groups those declared and those that its guest told of. Gives back what they were.
    pub(super) fn take_groups(&mut self) -> Vec<IpAddr> {
        let mut groups = self.declared.clone();
        for group in self.presence.groups() {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        core::mem::replace(&mut self.identity.groups, groups)
    }

    /// The guest speaks for itself.
    pub(super) fn wake(&mut self) {
        self.presence.wake();
        if let Some(custody) = &mut self.custody {
            custody.wake();
        }
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

/// Custody of nothing yet, if the policy wants it.
fn custody_of(identity: &NicIdentity, seed: u64) -> Option<Box<Custody>> {
    let traffic = &identity.traffic;
    traffic.custody.then(|| Box::new(Custody::new(traffic.connections, seed)))
}
