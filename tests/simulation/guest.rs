//! Guests: they read their ports when they run, answer ARP and ping, and speak of their own accord.

use surrogate::hypervisor::{Depth, PauseReason, Power};
use surrogate_wire::{Arp, Frame as Ethernet, Mac, Packet, Received, Transport, arp};

use crate::bridge::{Port, Tap};
use crate::dice::Fault;
use crate::frames::{self, Station};
use crate::hypervisor::Domain;
use crate::ledger::{Kind, Sent};
use crate::world::{Event, World};

/// A guest.
#[derive(Debug)]
pub struct Guest {
    /// Its NICs, by place.
    pub nics: Vec<usize>,
    pub depth: Depth,
    /// A namespace whose processes are frozen: its network stack stays awake.
    pub frozen: bool,
    pub domain: Domain,
}

/// A guest's NIC and the port behind it.
#[derive(Debug)]
pub struct Nic {
    pub guest: usize,
    pub station: Station,
    /// Its port on the bridge, while there is one.
    pub tap: Option<Tap>,
    reads: bool,
}

impl Nic {
    pub fn new(guest: usize, station: Station) -> Self {
        Self { guest, station, tap: Some(Tap::new(1)), reads: false }
    }
}

impl World {
    /// Whether something behind this port reads frames and answers them.
    pub fn is_awake(&self, nic: usize) -> bool {
        let guest = &self.guests[self.nics[nic].guest];
        guest.domain.runs() || (guest.frozen && matches!(guest.domain.power, Power::Paused(_)))
    }

    /// Frames wait at a port, or its guest runs again.
    pub fn guest_has_frames(&mut self, nic: usize) {
        if !self.nics[nic].reads && self.nics[nic].tap.as_ref().is_some_and(|tap| !tap.queue.is_empty()) {
            self.nics[nic].reads = true;
            let dawdles = self.strikes(Fault::GuestDawdles);
            let wait = self.dice.micros(20, if dawdles { 400_000 } else { 500 });
            self.later(wait, Event::GuestReads(nic));
        }
    }

    pub fn guest_reads(&mut self, nic: usize) {
        self.nics[nic].reads = false;
        if !self.is_awake(nic) {
            return;
        }
        for _ in 0..self.dice.below(24) + 1 {
            let Some(frame) = self.nics[nic].tap.as_mut().and_then(|tap| tap.queue.pop_front()) else {
                return;
            };
            self.guest_receives(nic, &frame.bytes);
        }
        self.guest_has_frames(nic);
    }

    fn guest_receives(&mut self, nic: usize, bytes: &[u8]) {
        let own = self.nics[nic].station;
        let received = Received::plain(bytes);
        let Ok(frame) = Ethernet::parse(&received) else { return };
        let Ok(packet) = Packet::parse(&frame, received.offload) else { return };
        match packet {
            Packet::Arp(asked) if asked.op == arp::REQUEST && asked.tpa == own.v4 => {
                let reply = Arp { op: arp::REPLY, sha: own.mac, spa: own.v4, tha: asked.sha, tpa: asked.spa };
                self.guest_sends(nic, frames::arp(own.mac, asked.sha, &reply), Kind::Reply);
            }
            Packet::Ipv4(ip, Transport::Icmpv4(icmp)) if ip.dst == own.v4 => {
                if let Some(echo) = icmp.echo_request() {
                    let peer = Station { mac: frame.src, v4: ip.src, v6: own.v6 };
                    self.guest_sends(nic, frames::echo(&own, &peer, 0, echo.sequence), Kind::Reply);
                }
            }
            _ => {}
        }
    }

    /// A guest says something that nobody asked for.
    pub fn guest_speaks(&mut self, guest: usize) {
        if self.calm {
            return;
        }
        let wait = self.dice.around(self.setup.guest_gap);
        self.later(wait, Event::GuestSpeaks(guest));
        if !self.guests[guest].domain.runs() {
            return;
        }
        let nic = self.dice.one_of(&self.guests[guest].nics);
        let own = self.nics[nic].station;
        let peer = self.peer_of(nic);
        match self.dice.below(6) {
            0 => self.guest_announces(nic),
            1 => {
                let ask = Arp { op: arp::REQUEST, sha: own.mac, spa: own.v4, tha: Mac::ZERO, tpa: peer.v4 };
                self.guest_sends(nic, frames::arp(own.mac, Mac::BROADCAST, &ask), Kind::ArpRequest);
            }
            2 => {
                let sequence = self.dice.below(1 << 16) as u16;
                self.guest_sends(nic, frames::echo(&own, &peer, 8, sequence), Kind::Echo);
            }
            _ => {
                let number = self.dice.below(1 << 32) as u32;
                let bytes = frames::udp(&own, peer.mac, peer.v4, (40_000, 5_000), number, 30);
                self.guest_sends(nic, bytes, Kind::Datagram);
            }
        }
    }

    /// A gratuitous ARP request, as after a restore.
    pub fn guest_announces(&mut self, nic: usize) {
        let own = self.nics[nic].station;
        let told = Arp { op: arp::REQUEST, sha: own.mac, spa: own.v4, tha: Mac::ZERO, tpa: own.v4 };
        self.guest_sends(nic, frames::arp(own.mac, Mac::BROADCAST, &told), Kind::Announcement);
    }

    fn guest_sends(&mut self, nic: usize, bytes: Vec<u8>, kind: Kind) {
        let to = self.nic_called(&bytes);
        let frame = self.ledger.number(bytes, Sent::new(kind, to));
        self.forward(Port::Nic(nic), &frame);
    }

    /// A client, or another guest's NIC.
    fn peer_of(&mut self, nic: usize) -> Station {
        let guest = self.nics[nic].guest;
        let others: Vec<Station> = self.nics.iter().filter(|n| n.guest != guest).map(|n| n.station).collect();
        if self.dice.chance(500) && !others.is_empty() {
            self.dice.one_of(&others)
        } else {
            let at = self.dice.below(self.clients.len() as u64) as usize;
            self.clients[at].station
        }
    }

    fn nic_called(&self, bytes: &[u8]) -> Option<usize> {
        self.nics.iter().position(|nic| bytes.starts_with(&nic.station.mac.0))
    }
}

/// Whether a guest in this state is one that we may have to stand in for.
pub const fn is_asleep(power: Power) -> bool {
    matches!(power, Power::Saved | Power::Paused(PauseReason::User | PauseReason::Restored))
}
