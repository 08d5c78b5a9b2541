//! Our ports on the bridges: commands to their packet threads, ports lost and found.

use std::collections::VecDeque;
use std::sync::Arc;

use super::control::Control;
use super::guest::Guest;
use super::messages::{Message, Then};
use super::orders;
use crate::engine::Command;
use crate::guest::identity::{Mac, PortId};
use crate::guest::lifecycle::State;
use crate::io::clock;
use crate::io::driver::{DriverCommand, PortHandle};
use crate::io::netlink::{Link, LinkEvent};
use crate::time::{Duration, Instant};

/// A configured bridge and our port on it, while there is one.
pub(super) struct BridgeSide {
    pub name: String,
    pub port: Option<PortHandle>,
    /// Why there is none.
    pub why: Option<String>,
    /// Commands that the packet thread had no room for yet, in order.
    pub backlog: VecDeque<DriverCommand>,
    /// Whether it is going to be tried again, however often that was asked for.
    pub again: bool,
    /// When a lost port was last made anew at once.
    pub hurried: Option<Instant>,
}

/// How long until a bridge that could not be served is tried again, if no link event says so before.
const REOPEN: Duration = Duration::from_secs(5);

impl Control {
    /// Tells the engines what the guest's NICs are now.
    pub(super) fn register(&mut self, at: usize) {
        let Some(guest) = self.guests.get(at) else { return };
        let identities: Vec<_> = guest.nics.iter().map(|n| (n.bridge, guest.identity(n))).collect();
        for (bridge, identity) in identities {
            self.command(bridge, DriverCommand::Engine(Command::Register(Box::new(identity))));
        }
    }

    /// Posts a command to a bridge's packet thread; in order, whatever its ring has room for.
    pub(super) fn command(&mut self, bridge: usize, command: DriverCommand) {
        if let Some(side) = self.bridges.get_mut(bridge) {
            side.backlog.push_back(command);
            self.post_backlog(bridge);
        }
    }

    pub(super) fn post_backlog(&mut self, bridge: usize) {
        let Some(side) = self.bridges.get_mut(bridge) else { return };
        let Some(port) = side.port.as_mut() else {
            side.backlog.clear();
            return;
        };
        while let Some(command) = side.backlog.pop_front() {
            if let Err(full) = port.send(command) {
                side.backlog.push_front(full.0);
                return;
            }
        }
    }

    pub(super) fn handle_link(&mut self, event: LinkEvent) {
        let LinkEvent::Changed(link) = &event else { return self.port_moved(&event) };
        for bridge in 0..self.bridges.len() {
            let Some(side) = self.bridges.get(bridge) else { break };
            match &side.port {
                None if side.name == link.name => self.reopen(bridge),
                Some(port) if port.ifindex() == link.ifindex && (link.master.is_none() || !link.up) => {
                    self.doubt_port(bridge, link.ifindex);
                }
                // Longer frames would not reach us. A smaller one is as good as it was: the bridge takes what its
                // ports take, and ours would keep it small for ever.
                Some(port) if side.name == link.name && (link.mtu as usize) > port.mtu() => {
                    let why = format!("the bridge's MTU is {} now, and was {}", link.mtu, port.mtu());
                    self.port_failed(bridge, why);
                }
                _ => {}
            }
        }
        orders::port_appeared(self, link);
        self.port_moved(&event);
        self.port_changed(link);
    }

    /// Our port seems to be off its bridge, or down: its thread does not notice, it only hears nothing any more.
    /// What was told of it can be of the moment before it was ready, so it is looked at anew.
    fn doubt_port(&self, bridge: usize, ifindex: u32) {
        let (steering, outbox) = (Arc::clone(&self.steering), self.outbox.clone());
        tokio::spawn(async move {
            match steering.why_cut_off(ifindex).await {
                Ok(None) => {}
                Ok(Some(why)) => drop(outbox.send(Message::CutOff { bridge, ifindex, why })),
                Err(why) => tracing::warn!(%why, "our port cannot be looked up"),
            }
        });
    }

    /// Our port was found useless; another takes its place.
    pub(super) fn port_cut_off(&mut self, bridge: usize, ifindex: u32, why: &str) {
        if self.surrogate_port(bridge) == Some(ifindex) {
            self.port_failed(bridge, why.to_owned());
        }
    }

    pub(super) fn port_failed(&mut self, bridge: usize, why: String) {
        let Some(side) = self.bridges.get_mut(bridge) else { return };
        tracing::error!(bridge = side.name, why, "surrogate port lost");
        self.events.record(None, "port-lost", format!("{}: {why}", side.name));
        side.port = None;
        side.why = Some(format!("the surrogate port on {} was lost: {why}", side.name));
        side.backlog.clear();
        self.observers_lost(bridge);
        for at in 0..self.guests.len() {
            let Some(guest) = self.guests.get_mut(at) else { break };
            if !guest.nics.iter().any(|nic| nic.bridge == bridge) {
                continue;
            }
            if guest.cycle.state() == State::Settling {
                // Nobody is left to hold for it: its sleep is aborted. Refused only if it is stuck.
                let _ = guest.cycle.wake(clock::now(), &mut self.host);
            }
            orders::lost(self, at, bridge);
            self.settle(at);
        }
        // At once, but not again and again if something takes each new one too.
        let now = clock::now();
        let Some(side) = self.bridges.get_mut(bridge) else { return };
        if side.hurried.is_none_or(|at| now.since(at) >= REOPEN) {
            side.hurried = Some(now);
            return self.reopen(bridge);
        }
        self.reopen_later(bridge);
    }

    /// A bridge's turn to be tried again has come.
    pub(super) fn reopen_due(&mut self, bridge: usize) {
        if let Some(side) = self.bridges.get_mut(bridge) {
            side.again = false;
        }
        self.reopen(bridge);
    }

    fn reopen_later(&mut self, bridge: usize) {
        let Some(side) = self.bridges.get_mut(bridge) else { return };
        if !core::mem::replace(&mut side.again, true) {
            self.later(REOPEN, Message::Reopen { bridge });
        }
    }

    pub(super) fn reopen(&mut self, bridge: usize) {
        if self.bridges.get(bridge).is_none_or(|b| b.port.is_some()) {
            return;
        }
        if let Err(why) = super::start::open_port(self, bridge) {
            tracing::debug!(why, "bridge not served yet");
            if let Some(side) = self.bridges.get_mut(bridge) {
                side.why = Some(why);
            }
            return self.reopen_later(bridge);
        }
        let Some(side) = self.bridges.get(bridge) else { return };
        let name = side.name.clone();
        self.events.record(None, "port-opened", name.clone());
        for at in 0..self.guests.len() {
            let on_it = |g: &Guest| {
                g.nics.iter().any(|n| n.bridge == bridge)
                    || g.config.nics.iter().any(|n| n.bridge.as_deref() == Some(&name))
            };
            if self.guests.get(at).is_some_and(on_it) {
                self.register(at);
                if let Some(guest) = self.guests.get_mut(at) {
                    guest.anew = true;
                    if guest.cycle.state() == State::Settling {
                        // Its steps go on, and must find on this port what they had on the one before.
                        guest.cycle.handle_port_lost(clock::now(), &mut self.host);
                    }
                }
                self.settle(at);
                self.look_at(at, Then::Refresh);
            }
        }
    }

    /// Sends `message` to ourselves after a while.
    pub(super) fn later(&self, after: Duration, message: Message) {
        let outbox = self.outbox.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let _ = outbox.send(message);
        });
    }

    /// Index of our port on a bridge.
    pub(super) fn surrogate_port(&self, bridge: usize) -> Option<u32> {
        self.bridges.get(bridge)?.port.as_ref().map(PortHandle::ifindex)
    }
}

/// A port's number towards the engine: its bridge's place in the table.
pub(super) fn port_id(bridge: usize) -> PortId {
    PortId(u32::try_from(bridge).unwrap_or(u32::MAX))
}

/// Whether `link` can be the port of the NIC with `mac`: libvirt gives a tap its guest's MAC with the
/// first byte fe.
pub(super) fn is_tap_of(link: &Link, mac: Mac) -> bool {
    let mut tap = mac.0;
    tap[0] = 0xfe;
    link.mac.is_some_and(|m| m.0 == tap)
}
