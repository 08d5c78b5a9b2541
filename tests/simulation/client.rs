//! Clients: they ask, connect, send, repeat themselves, announce, quarrel about addresses, and now and
//! then send nonsense. Between a client and the bridge frames get lost, doubled and late.

use core::net::Ipv4Addr;

use surrogate_wire::{Arp, Mac, TcpFlags, arp};

use crate::bridge::Port;
use crate::dice::Fault;
use crate::frames::{self, Frame, Segment, Station};
use crate::ledger::{Kind, Sent};
use crate::world::{Event, World};

/// A client.
#[derive(Debug)]
pub struct Client {
    pub station: Station,
    flows: Vec<Flow>,
    next_port: u16,
}

/// One conversation with a guest's NIC.
#[derive(Clone, Copy, Debug)]
struct Flow {
    /// Unique in the world.
    number: usize,
    nic: usize,
    tcp: bool,
    ports: (u16, u16),
    seq: u32,
    /// The last segment, to be repeated.
    last: Option<Segment>,
}

impl Client {
    pub fn new(station: Station) -> Self {
        Self { station, flows: Vec::new(), next_port: 30_000 }
    }
}

impl World {
    /// A client does what it feels like, and will again.
    pub fn client_acts(&mut self, client: usize) {
        if self.calm {
            return;
        }
        let wait = self.dice.around(self.setup.client_gap);
        self.later(wait, Event::ClientActs(client));
        let nic = self.dice.below(self.nics.len() as u64) as usize;
        let (own, guest) = (self.clients[client].station, self.nics[nic].station);
        let sequence = self.dice.below(1 << 16) as u16;
        let what =
            if self.dice.chance(self.setup.urgent) { self.dice.below(100) } else { self.dice.below(37 + 10) };
        match what {
            0..10 => {
                let ask = Arp { op: arp::REQUEST, sha: own.mac, spa: own.v4, tha: Mac::ZERO, tpa: guest.v4 };
                let bytes = frames::arp(own.mac, Mac::BROADCAST, &ask);
                self.client_sends(client, bytes, Sent::concerning(Kind::ArpRequest, nic));
            }
            10..16 => {
                let ask = Arp { op: arp::REQUEST, sha: own.mac, spa: own.v4, tha: Mac::ZERO, tpa: guest.v4 };
                self.sends_to(client, nic, frames::arp(own.mac, guest.mac, &ask), Kind::ArpRequest);
            }
            16..28 => self.sends_to(client, nic, frames::echo(&own, &guest, 8, sequence), Kind::Echo),
            28..32 => self.sends_to(client, nic, frames::echo6(&own, &guest, 128, sequence), Kind::Echo),
            32..35 => {
                let bytes = frames::solicitation(&own, &guest, false);
                self.client_sends(client, bytes, Sent::concerning(Kind::Solicitation, nic));
            }
            35..37 => {
                self.sends_to(client, nic, frames::solicitation(&own, &guest, true), Kind::Solicitation);
            }
            37..44 => {
                let everyone = Ipv4Addr::new(192, 0, 2, 255);
                let bytes = frames::udp(&own, Mac::BROADCAST, everyone, (50_000, 5_000), 1, 40);
                self.client_sends(client, bytes, Sent::concerning_all(Kind::Broadcast));
            }
            44..46 => {
                let told = Arp { op: arp::REQUEST, sha: own.mac, spa: own.v4, tha: Mac::ZERO, tpa: own.v4 };
                let bytes = frames::arp(own.mac, Mac::BROADCAST, &told);
                self.client_sends(client, bytes, Sent::new(Kind::Announcement, None));
            }
            46 => {
                let claim =
                    Arp { op: arp::REQUEST, sha: own.mac, spa: guest.v4, tha: Mac::ZERO, tpa: guest.v4 };
                let bytes = frames::arp(own.mac, Mac::BROADCAST, &claim);
                self.client_sends(client, bytes, Sent::concerning(Kind::Conflict, nic));
            }
            47..57 => self.opens(client, nic),
            57..88 => self.goes_on(client),
            88..90 => {
                for _ in 0..self.dice.below(60) {
                    self.goes_on(client);
                }
            }
            90..92 => {
                let bytes = frames::udp(&own, guest.mac, guest.v4, (50_000, 7), 1, 10);
                self.sends_to(client, nic, bytes, Kind::Datagram);
            }
            92..94 => {
                let bytes = frames::udp(&own, guest.mac, guest.v4, (50_000, 9_999), 1, 10);
                self.sends_to(client, nic, bytes, Kind::Datagram);
            }
            94 => {
                // Longer than the guest's own port takes.
                let bytes = frames::udp(&own, guest.mac, guest.v4, (50_001, 5_000), 1, 1_500);
                self.sends_to(client, nic, bytes, Kind::Long);
            }
            95..97 if self.strikes(Fault::Damage) => {
                let mut bytes = frames::udp(&own, guest.mac, guest.v4, (50_000, 5_000), 1, 40);
                let at = self.dice.below(bytes.len() as u64 - 14) as usize + 14;
                bytes[at] ^= 0x5a;
                self.sends_to(client, nic, bytes, Kind::Damaged);
            }
            97..99 if self.strikes(Fault::Spoof) => {
                let told =
                    Arp { op: arp::REQUEST, sha: guest.mac, spa: guest.v4, tha: Mac::ZERO, tpa: own.v4 };
                let bytes = frames::arp(guest.mac, Mac::BROADCAST, &told);
                self.client_sends(client, bytes, Sent::new(Kind::Spoofed, None));
            }
            _ => {}
        }
    }

    /// A connection attempt to a port that every guest serves.
    pub fn knocks(&mut self, nic: usize) {
        let (own, guest) = (self.clients[0].station, self.nics[nic].station);
        let seq = self.dice.below(1 << 32) as u32;
        let segment = Segment { ports: (29_999, 80), seq, flags: TcpFlags::SYN, len: 0 };
        self.sends_to(0, nic, frames::tcp(&own, &guest, &segment), Kind::Syn);
    }

    /// A datagram that is at the bridge already.
    pub fn passes_by(&mut self, nic: usize, flow: usize, seq: u32) {
        let (own, guest) = (self.clients[0].station, self.nics[nic].station);
        let bytes = frames::udp(&own, guest.mac, guest.v4, (29_998, 5_000), seq, 60);
        let frame = self.ledger.number(bytes, Sent::in_flow(Kind::Datagram, nic, flow));
        self.forward(Port::Client(0), &frame);
    }

    fn opens(&mut self, client: usize, nic: usize) {
        let tcp = self.dice.chance(650);
        let number = self.ledger.new_flow();
        let seq = self.dice.below(1 << 32) as u32;
        let port = if tcp { self.dice.one_of(&[80, 80, 22, 8_080]) } else { 5_000 };
        let of = &mut self.clients[client];
        of.next_port += 1;
        let mut flow = Flow { number, nic, tcp, ports: (of.next_port, port), seq, last: None };
        if tcp {
            let segment = Segment { ports: flow.ports, seq, flags: TcpFlags::SYN, len: 0 };
            flow.last = Some(segment);
            flow.seq = seq.wrapping_add(1);
        }
        of.flows.push(flow);
        if of.flows.len() > 6 {
            of.flows.remove(0);
        }
        self.says(client, flow, flow.last);
    }

    /// The next frame of some conversation, or the last one again.
    fn goes_on(&mut self, client: usize) {
        let count = self.clients[client].flows.len() as u64;
        if count == 0 {
            return;
        }
        let at = self.dice.below(count) as usize;
        let again = self.dice.chance(200);
        let len = self.dice.one_of(&[0, 10, 100, 400]);
        let fin = self.dice.chance(20);
        let flow = &mut self.clients[client].flows[at];
        if flow.tcp && !again {
            let flags = if fin { TcpFlags::FIN | TcpFlags::ACK } else { TcpFlags::PSH | TcpFlags::ACK };
            flow.last = Some(Segment { ports: flow.ports, seq: flow.seq, flags, len });
            flow.seq = flow.seq.wrapping_add(len as u32 + u32::from(fin));
        } else if !flow.tcp {
            flow.seq = flow.seq.wrapping_add(1);
        }
        let flow = *flow;
        self.says(client, flow, flow.last);
    }

    fn says(&mut self, client: usize, flow: Flow, segment: Option<Segment>) {
        let (own, guest) = (self.clients[client].station, self.nics[flow.nic].station);
        let (bytes, kind) = match segment {
            Some(segment) => {
                let is_end = segment.flags.contains(TcpFlags::FIN);
                let kind = match segment.flags {
                    TcpFlags::SYN => Kind::Syn,
                    _ if is_end || segment.len == 0 => Kind::Edge,
                    _ => Kind::Segment,
                };
                (frames::tcp(&own, &guest, &segment), kind)
            }
            None => (frames::udp(&own, guest.mac, guest.v4, flow.ports, flow.seq, 60), Kind::Datagram),
        };
        self.client_sends(client, bytes, Sent::in_flow(kind, flow.nic, flow.number));
    }

    fn sends_to(&mut self, client: usize, nic: usize, bytes: Vec<u8>, kind: Kind) {
        self.client_sends(client, bytes, Sent::new(kind, Some(nic)));
    }

    /// Over the client's cable. Each copy has a number of its own.
    fn client_sends(&mut self, client: usize, bytes: Vec<u8>, sent: Sent) {
        let copies = if self.strikes(Fault::Double) { 2 } else { 1 };
        for _ in 0..copies {
            if self.strikes(Fault::Loss) {
                continue;
            }
            let late = self.strikes(Fault::Delay);
            let wait = self.dice.micros(10, if late { 30_000 } else { 60 });
            let frame: Frame = self.ledger.number(bytes.clone(), sent);
            self.later(wait, Event::Arrives(Port::Client(client), frame));
        }
    }
}
