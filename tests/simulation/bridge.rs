//! The bridge: forwarding entries, ports with flood flags, and our own port's queue. It behaves as the
//! kernel's does where that matters: an unknown unicast is flooded, nothing goes back to where it came
//! from, a sticky entry does not move, what our port has accepted is not lost.

use std::collections::VecDeque;

use surrogate_wire::Mac;

use crate::frames::Frame;
use crate::hypervisor::Hand;
use crate::world::World;

/// A port of the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Ours. No learning, no flooding of unknown unicast.
    Surrogate,
    /// A client's, by its place.
    Client(usize),
    /// A guest's NIC, by its place.
    Nic(usize),
}

/// Where frames go.
#[derive(Debug, Default)]
pub struct Bridge {
    entries: Vec<Entry>,
    /// Our port, while the daemon has one.
    pub ours: Option<OurPort>,
    /// Frames that came in so far: tells the order.
    pub arrivals: u64,
}

/// Our port and what it has accepted for the packet thread.
#[derive(Debug, Default)]
pub struct OurPort {
    pub queue: VecDeque<Frame>,
}

#[derive(Debug)]
struct Entry {
    mac: Mac,
    port: Port,
    sticky: bool,
}

/// A guest's own port: a tap with a queue that the guest reads.
#[derive(Debug)]
pub struct Tap {
    /// Tells the device from another one with the same name.
    pub device: u32,
    /// Flooded frames go to it.
    pub flood: bool,
    /// Anything goes to it, or comes from it.
    pub enabled: bool,
    pub queue: VecDeque<Frame>,
}

impl Tap {
    pub fn new(device: u32) -> Self {
        Self { device, flood: true, enabled: true, queue: VecDeque::new() }
    }
}

impl Bridge {
    pub fn entry(&self, mac: Mac) -> Option<Port> {
        self.entries.iter().find(|entry| entry.mac == mac).map(|entry| entry.port)
    }

    /// Points `mac` at `port`, in one step.
    pub fn replace(&mut self, mac: Mac, port: Port, sticky: bool) {
        self.entries.retain(|entry| entry.mac != mac);
        self.entries.push(Entry { mac, port, sticky });
    }

    pub fn remove(&mut self, mac: Mac, port: Port) {
        self.entries.retain(|entry| entry.mac != mac || entry.port != port);
    }

    /// A port vanishes with its entries.
    pub fn remove_port(&mut self, port: Port) {
        self.entries.retain(|entry| entry.port != port);
    }

    fn learn(&mut self, mac: Mac, port: Port) {
        match self.entries.iter_mut().find(|entry| entry.mac == mac) {
            Some(entry) if entry.sticky => {}
            Some(entry) => entry.port = port,
            None => self.entries.push(Entry { mac, port, sticky: false }),
        }
    }
}

impl World {
    /// A frame comes into the bridge at `from` and goes where it has to.
    pub fn forward(&mut self, from: Port, frame: &Frame) {
        if let Port::Nic(nic) = from
            && !self.nics[nic].tap.as_ref().is_some_and(|tap| tap.enabled)
        {
            return;
        }
        self.bridge.arrivals += 1;
        self.ledger.entered(frame, self.bridge.arrivals);
        if from != Port::Surrogate {
            self.bridge.learn(frame.src(), from);
        }
        if frame.dst().0[0] & 1 != 0 {
            self.flood(from, frame, true);
            return;
        }
        match self.bridge.entry(frame.dst()) {
            Some(port) if port == from => {}
            Some(Port::Surrogate) => self.send_to_us(frame),
            Some(Port::Nic(nic)) => self.send_to_tap(nic, frame),
            Some(Port::Client(client)) => self.send_to_client(client, frame),
            None => self.flood(from, frame, false),
        }
    }

    fn flood(&mut self, from: Port, frame: &Frame, group: bool) {
        for client in (0..self.clients.len()).filter(|c| from != Port::Client(*c)) {
            self.send_to_client(client, frame);
        }
        for nic in (0..self.nics.len()).filter(|n| from != Port::Nic(*n)) {
            if self.nics[nic].tap.as_ref().is_some_and(|tap| tap.flood && tap.enabled) {
                self.send_to_tap(nic, frame);
            } else if group && !self.was_taken_away(nic) && self.is_in_order(nic) {
                self.ledger.not_flooded(frame, nic);
            }
        }
        if group && from != Port::Surrogate {
            self.send_to_us(frame);
        }
    }

    /// Whether somebody else took the port away, or a daemon that has died since: for such a guest we stand in
    /// only after we are told.
    fn was_taken_away(&self, nic: usize) -> bool {
        let domain = &self.guests[self.nics[nic].guest].domain;
        self.nics[nic].tap.is_none() && (domain.stopped_by == Hand::Other || domain.saved_late)
    }

    /// Whether the daemon found the guest, or put it, in order since it has its port.
    fn is_in_order(&self, nic: usize) -> bool {
        self.daemon.as_ref().is_some_and(|daemon| daemon.has_rested(self.nics[nic].guest))
    }

    fn send_to_us(&mut self, frame: &Frame) {
        if let Some(ours) = &mut self.bridge.ours {
            ours.queue.push_back(frame.clone());
            self.wake_thread();
        }
    }

    fn send_to_tap(&mut self, nic: usize, frame: &Frame) {
        let limit = self.setup.tap_queue;
        let Some(tap) = self.nics[nic].tap.as_mut().filter(|tap| tap.enabled) else { return };
        // Beyond its length a tap drops the newest, and nobody is told.
        if tap.queue.len() < limit {
            tap.queue.push_back(frame.clone());
            self.ledger.came_directly(frame, nic);
            self.guest_has_frames(nic);
        }
    }

    /// What clients are told is of interest only in that it is said at all: see `invariants`.
    fn send_to_client(&mut self, _client: usize, frame: &Frame) {
        self.ledger.heard(frame);
    }
}
