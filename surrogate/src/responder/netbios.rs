//! The NetBIOS name service in a sleeper's name (RFC 1001 15, RFC 1002 4.2 and 5.1.1), over UDP and IPv4.
//!
//! Its names are those that the guest registered, refreshed or answered to as its own (one that serves names answers to
//! others' as well), and what its operator declared. A
//! question for one of them, by broadcast or not, is answered to its asker; a node's status to who asks the guest
//! alone. Another host's wish for a name of the guest's is refused.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};
use surrogate_wire::dns::{self, Data, IN, Section, Writer, flag};
use surrogate_wire::netbios::{ACTIVE, ACTIVE_ERROR, GROUP, NB, NBSTAT, NODE_TYPE, Name, opcode};
use surrogate_wire::{Frame, FrameBuf, Packet, Transport};

use super::datagram::{self, Asker, Datagram, Way};
use super::presence::Heard;
use crate::engine::{Answered, WakeReason};
use crate::guest::identity::NicIdentity;
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// The port.
pub const PORT: u16 = 137;
/// Names of one NIC; the one heard longest ago goes first.
pub const NAMES: usize = 24;
/// Seconds: three days and a half, as Windows says.
const TTL: u32 = 300_000;
/// Time to live of what a host sends.
const HOPS: u8 = 64;
/// Answers that wait for room in the queue of our own frames.
const ASKERS: usize = 4;
/// Of a response: a server of names could be asked.
const RECURSION_AVAILABLE: u16 = 0x0080;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Netbios {
    names: Vec<Known>,
    owed: Vec<Owed>,
    limited: u64,
}

/// A name of the guest's.
#[derive(Clone, Copy, Debug)]
struct Known {
    name: Name,
    /// Group bit and node type.
    flags: u16,
    /// `None` if the operator said so.
    heard: Option<Instant>,
}

/// An answer that is due.
#[derive(Clone, Copy, Debug)]
struct Owed {
    due: Instant,
    asker: Asker,
    id: u16,
    name: Name,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// Where the name is, with the "recursion desired" of the question.
    Positive { flags: u16, desired: u16 },
    /// The names of the node.
    Status,
    /// The name is taken.
    Refusal { flags: u16 },
}

/// What survives the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetbiosLearned {
    /// Each name, its suffix the last byte, and its flags.
    pub names: Vec<([u8; 16], u16)>,
}

impl Netbios {
    /// Takes note of names that the guest registers, gives up, is refused, or answers to.
    pub fn learn(&mut self, now: Instant, from_guest: bool, _: &Frame<'_>, packet: &Packet<'_>) {
        let Some(Transport::Udp(udp)) = packet.transport() else { return };
        let port = if from_guest { udp.src_port } else { udp.dst_port };
        if port != PORT {
            return;
        }
        let Ok(read) = surrogate_wire::Netbios::parse(udp.payload) else { return };
        // A name is the speaker's own if it is said to be where the packet came from.
        let src = packet.addresses().map(|(src, _)| src);
        let own = read.nodes().find(|(_, address)| Some(IpAddr::V4(*address)) == src);
        match (from_guest, read.is_response(), read.opcode) {
            (false, true, opcode::REGISTRATION | opcode::MULTIHOMED) if read.rcode() != 0 => {
                self.forget(read.name)
            }
            (true, false, opcode::RELEASE) => self.forget(read.name),
            (
                true,
                false,
                opcode::REGISTRATION | opcode::MULTIHOMED | opcode::REFRESH | opcode::REFRESH_ALSO,
            ) => {
                if let Some((flags, _)) = own {
                    self.keep(read.name, flags, Some(now));
                }
            }
            (true, true, opcode::QUERY) if read.rcode() == 0 => {
                if let Some((flags, _)) = own {
                    self.keep(read.name, flags, Some(now));
                }
                for (name, flags) in read.status().filter(|(_, flags)| flags & ACTIVE != 0) {
                    self.keep(name, flags, Some(now));
                }
            }
            _ => {}
        }
    }

    /// Takes a question, or another host's wish for a name.
    pub fn hear(
        &mut self,
        now: Instant,
        _: &mut Rng,
        identity: &NicIdentity,
        frame: &Frame<'_>,
        packet: &Packet<'_>,
    ) -> Heard {
        let Some(Transport::Udp(udp)) = packet.transport() else { return Heard::NotMine };
        if udp.dst_port != PORT || self.names.is_empty() {
            return Heard::NotMine;
        }
        let Some(datagram) = Datagram::heard(identity, frame, packet) else { return Heard::NotMine };
        let is_broadcast = matches!(datagram.dst, IpAddr::V4(v4) if identity.is_broadcast(v4));
        let Ok(read) = surrogate_wire::Netbios::parse(udp.payload) else { return Heard::NotMine };
        // What was said to the guest is for the guest.
        if read.is_response() || !(is_broadcast || datagram.is_unicast) {
            return Heard::NotMine;
        }
        let quiet = if datagram::listens(identity, PORT) { Heard::NotMine } else { Heard::Noted };
        let own = self.names.iter().find(|known| known.name == read.name);
        let desired = read.flags & flag::RECURSION_DESIRED;
        let what = match (read.opcode, read.kind, own) {
            (opcode::QUERY, NB, Some(own)) => What::Positive { flags: own.flags, desired },
            // The whole table only to who asks this guest, not to who asks all at once.
            (opcode::QUERY, NBSTAT, own)
                if datagram.is_unicast && (own.is_some() || read.name == Name::WILDCARD) =>
            {
                What::Status
            }
            (opcode::REGISTRATION | opcode::MULTIHOMED, NB, Some(own)) => {
                let (flags, address) = read.nodes().next().unwrap_or((0, [0; 4].into()));
                if own.flags & flags & GROUP != 0 || identity.holds(address.into()) {
                    return quiet;
                }
                if desired == 0 {
                    // No wish but a demand, by a host that did not hear of a refusal (RFC 1002 4.2.3).
                    return Heard::Wake(WakeReason::NameConflict { by: datagram.asker.address });
                }
                What::Refusal { flags: own.flags }
            }
            _ => return quiet,
        };
        if self.owed.len() >= ASKERS.min(self.owed.capacity()) {
            return Heard::TooMany;
        }
        self.owed.push(Owed { due: now, asker: datagram.asker, id: read.id, name: read.name, what });
        Heard::Owed(Answered::Netbios)
    }

    /// When there is something to say next.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.owed.first().map(|owed| owed.due)
    }

    /// Writes the next answer.
    pub fn speak(
        &mut self,
        now: Instant,
        _: &mut Rng,
        identity: &NicIdentity,
        out: &mut FrameBuf<'_>,
    ) -> Option<Answered> {
        while self.due().is_some_and(|due| due <= now) {
            let owed = self.owed.remove(0);
            let mut memory = [0; LONGEST];
            let room = owed.asker.room.min(datagram::room(out)).min(LONGEST);
            let said = self.write(&owed, identity, memory.get_mut(..room)?);
            if let (Some(len), Some(way)) = (said, Way::back(identity, &owed.asker))
                && way.send(PORT, HOPS, memory.get(..len)?, out).is_some()
            {
                return Some(Answered::Netbios);
            }
        }
        None
    }

    /// From now on we answer.
    pub fn sleep(&mut self, _: Instant, _: &mut Rng, identity: &NicIdentity) {
        self.owed.clear();
        self.names.retain(|known| known.heard.is_some());
        for declared in &identity.traffic.names.netbios {
            if !self.names.iter().any(|known| known.name == declared.name) {
                self.keep(declared.name, if declared.group { GROUP } else { 0 }, None);
            }
        }
        if !self.names.is_empty() {
            self.owed.reserve_exact(ASKERS);
        }
    }

    /// The guest answers for itself.
    pub fn wake(&mut self) {
        self.owed.clear();
    }

    /// What was learned, to be kept.
    #[must_use]
    pub fn learned(&self, _: Instant) -> NetbiosLearned {
        let learned = self.names.iter().filter(|known| known.heard.is_some());
        NetbiosLearned { names: learned.map(|known| (known.name.0, known.flags)).collect() }
    }

    /// As it was `ago` before `now`.
    #[must_use]
    pub fn restore(learned: &NetbiosLearned, now: Instant, ago: Duration) -> Self {
        let mut restored = Self::default();
        for (name, flags) in learned.names.iter().take(NAMES) {
            restored.keep(Name(*name), *flags, Some(now - ago));
        }
        restored
    }

    /// How often a limit kept something from being remembered.
    #[must_use]
    pub const fn limited(&self) -> u64 {
        self.limited
    }

    fn keep(&mut self, name: Name, flags: u16, heard: Option<Instant>) {
        // Nobody's name: it asks for all.
        if name == Name::WILDCARD {
            return;
        }
        let flags = flags & (GROUP | NODE_TYPE);
        if let Some(known) = self.names.iter_mut().find(|known| known.name == name) {
            *known = Known { name, flags, heard };
            return;
        }
        if self.names.len() >= NAMES {
            let learned = self.names.iter().enumerate().filter_map(|(at, known)| Some((known.heard?, at)));
            let Some((_, oldest)) = learned.min() else { return };
            self.names.remove(oldest);
            self.limited += 1;
        }
        self.names.push(Known { name, flags, heard });
    }

    fn forget(&mut self, name: Name) {
        self.names.retain(|known| known.name != name);
    }

    fn write(&self, owed: &Owed, identity: &NicIdentity, memory: &mut [u8]) -> Option<usize> {
        let name = owed.name.wire();
        let address = datagram::v4_towards(identity, owed.asker.address)?.octets();
        let node = |flags: u16| {
            let ([f0, f1], [a, b, c, d]) = (flags.to_be_bytes(), address);
            [f0, f1, a, b, c, d]
        };
        let said = flag::RESPONSE | flag::AUTHORITATIVE;
        match owed.what {
            What::Positive { flags, desired } => {
                let mut out = Writer::new(memory, owed.id, said | desired)?;
                let data = Data { before: &node(flags), ..Data::default() };
                out.record(Section::Answer, &name, NB, IN, TTL, &data).then(|| out.finish().len())
            }
            What::Refusal { flags } => {
                let operation = u16::from(opcode::REGISTRATION) << 11;
                let can = flag::RECURSION_DESIRED | RECURSION_AVAILABLE;
                let mut out = Writer::new(memory, owed.id, said | operation | can | ACTIVE_ERROR)?;
                let data = Data { before: &node(flags), ..Data::default() };
                out.record(Section::Answer, &name, NB, IN, 0, &data).then(|| out.finish().len())
            }
            What::Status => {
                let names = memory.len().checked_sub(AROUND_NAMES)? / NAME;
                let mut data = [0; 1 + NAMES * NAME + STATISTICS];
                let len = self.status(identity, names, &mut data);
                let mut out = Writer::new(memory, owed.id, said)?;
                let data = Data { before: data.get(..len)?, ..Data::default() };
                out.record(Section::Answer, &name, NBSTAT, IN, 0, &data).then(|| out.finish().len())
            }
        }
    }

    /// At most `most` names, and of the statistics the one that has a meaning: the node's address
    /// (RFC 1002 4.2.18).
    fn status(&self, identity: &NicIdentity, most: usize, out: &mut [u8]) -> usize {
        let told = self.names.len().min(most);
        let flags = self.names.iter().map(|known| (known.flags | ACTIVE).to_be_bytes());
        let entries = self.names.iter().zip(flags).take(told);
        let count = core::iter::once(u8::try_from(told).unwrap_or(u8::MAX));
        let names = entries.flat_map(|(known, flags)| known.name.0.into_iter().chain(flags));
        let statistics = identity.mac.0.into_iter().chain([0; STATISTICS - 6]);
        let mut len = 0;
        for (to, byte) in out.iter_mut().zip(count.chain(names).chain(statistics)) {
            *to = byte;
            len += 1;
        }
        len
    }
}

/// A name and its flags in a node's status.
const NAME: usize = 18;
/// What follows the names there.
const STATISTICS: usize = 46;
/// All of such a response but the names.
const AROUND_NAMES: usize = dns::HEADER + 34 + 10 + 1 + STATISTICS;
/// Longest answer.
const LONGEST: usize = AROUND_NAMES + NAMES * NAME;

#[cfg(test)]
mod tests;
