//! Which guests are observed at their own ports, and how closely.
//!
//! A guest is observed if its policy has `custody` and we could stand in for it, on every port that it has at the
//! moment; awake or not, since one that wakes speaks at once. One that does so much that this would cost it too much
//! is observed now and then. With `custody` off nothing of ours is ever attached to its ports.

use std::time::Duration;

use super::control::Control;
use super::messages::Message;
use crate::guest::identity::NicId;
use crate::guest::lifecycle::State;
use crate::io::clock;
use crate::io::driver::DriverCommand;
use crate::io::netlink::LinkEvent;
use crate::io::observe::Observer;

impl Control {
    /// Has the guest's NICs observed at the ports that they have now, and nowhere else.
    pub(super) fn observe(&mut self, at: usize) {
        let Some(guest) = self.guests.get_mut(at) else { return };
        let wanted = guest.config.policy.traffic.custody && guest.unfit.is_none();
        let mut commands = Vec::new();
        let mut failed = false;
        for nic in &mut guest.nics {
            let served = self.bridges.get(nic.bridge).is_some_and(|side| side.port.is_some());
            let name = nic.port.as_ref().filter(|_| wanted && served && nic.paused_until.is_none());
            let port = name.and_then(|name| self.ports.get(name)).copied();
            if nic.observed == port {
                continue;
            }
            nic.observed = None;
            let command = match port.map(Observer::open) {
                None => DriverCommand::Unobserve { nic: nic.id },
                Some(Ok(observer)) => {
                    nic.observed = port;
                    DriverCommand::Observe { nic: nic.id, observer }
                }
                Some(Err(why)) => {
                    // Of a port that went, links tell in a moment; anything else may pass.
                    tracing::warn!(guest = guest.config.name, port = nic.port, %why, "cannot be observed");
                    nic.paused_until = Some(clock::now() + RETRY);
                    failed = true;
                    DriverCommand::Unobserve { nic: nic.id }
                }
            };
            commands.push((nic.bridge, command));
        }
        for (bridge, command) in commands {
            self.command(bridge, command);
        }
        if failed {
            self.later(RETRY, Message::ObserveAgain { guest: at });
        }
    }

    /// The NIC's observer is gone, since its guest does so much. One that is about to sleep is observed all the same:
    /// it has little time left for that.
    pub(super) fn pause_observing(&mut self, id: NicId) {
        let guests = self.guests.iter_mut().enumerate();
        let mut nics = guests.flat_map(|(at, guest)| guest.nics.iter_mut().map(move |nic| (at, nic)));
        let Some((at, nic)) = nics.find(|(_, nic)| nic.id == id) else { return };
        nic.observed = None;
        nic.paused_until = Some(clock::now() + PAUSE);
        let bridge = nic.bridge;
        drop(nics);
        // Another one may have come to its port while we were told of this one.
        self.unobserve(id, bridge);
        if self.guests.get(at).is_some_and(|guest| guest.cycle.state() == State::Settling) {
            return self.observe_closely(at, true);
        }
        self.later(PAUSE, Message::ObserveAgain { guest: at });
    }

    /// NICs of the guest whose pause is over are observed again.
    pub(super) fn observe_again(&mut self, at: usize) {
        let Some(guest) = self.guests.get_mut(at) else { return };
        let now = clock::now();
        for nic in &mut guest.nics {
            nic.paused_until = nic.paused_until.filter(|until| now < *until);
        }
        self.observe(at);
    }

    /// All TCP of the guest is to be observed while it is idle, a sample while it works.
    pub(super) fn observe_closely(&mut self, at: usize, closely: bool) {
        if closely && let Some(guest) = self.guests.get_mut(at) {
            guest.nics.iter_mut().for_each(|nic| nic.paused_until = None);
            self.observe(at);
        }
        let Some(guest) = self.guests.get(at) else { return };
        let observed = guest.nics.iter().filter(|nic| nic.observed.is_some());
        let nics: Vec<_> = observed.map(|nic| (nic.id, nic.bridge)).collect();
        for (nic, bridge) in nics {
            self.command(bridge, DriverCommand::Closely { nic, closely });
        }
    }

    /// A NIC is no more.
    pub(super) fn unobserve(&mut self, nic: NicId, bridge: usize) {
        self.command(bridge, DriverCommand::Unobserve { nic });
    }

    /// Our port on `bridge` is gone, and with its thread all observers there.
    pub(super) fn observers_lost(&mut self, bridge: usize) {
        let nics = self.guests.iter_mut().flat_map(|guest| &mut guest.nics);
        nics.filter(|nic| nic.bridge == bridge).for_each(|nic| nic.observed = None);
    }

    /// Follows where ports are.
    pub(super) fn port_moved(&mut self, event: &LinkEvent) {
        let (ifindex, now) = match event {
            LinkEvent::Changed(link) => (link.ifindex, link.master.map(|_| &link.name)),
            LinkEvent::Removed { ifindex, .. } => (*ifindex, None),
        };
        if now.is_some_and(|name| self.ports.get(name) == Some(&ifindex)) {
            return;
        }
        self.ports.retain(|_, known| *known != ifindex);
        if let Some(name) = now {
            self.ports.insert(name.clone(), ifindex);
        }
        for at in 0..self.guests.len() {
            self.observe(at);
        }
    }
}

/// Closes what the packet thread has no use for: that waits for every processor.
pub(super) fn close(observer: Observer) {
    drop(tokio::task::spawn_blocking(|| drop(observer)));
}

/// How long after a failed attempt the next one is made: one for each NIC, whatever is told of links meanwhile.
const RETRY: Duration = Duration::from_secs(5);
/// How long a guest for which it was too dear is not observed.
const PAUSE: Duration = Duration::from_secs(1);
