//! Link-local multicast name resolution in a sleeper's name (RFC 4795), over UDP.
//!
//! Its names are what the guest itself answered to, its host name in multicast DNS, and what its operator declared.
//! That the guest runs such a responder at all is known by the group that it joined: else no question comes here.
//! Only questions to that group are answered, each to its asker alone and at once, since the name is known to be
//! the guest's. TCP to the same port is like that to any other.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use surrogate_wire::dns::{
    self, ANY_CLASS, Data, IN, MAX_NAME, Message, Question, Section, Writer, flag, kind,
};
use surrogate_wire::{Frame, FrameBuf, Packet, Transport};

use super::datagram::{self, Asker, Datagram, Way};
use super::mdns;
use super::presence::Heard;
use crate::engine::Answered;
use crate::guest::identity::NicIdentity;
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// The port.
pub const PORT: u16 = 5355;
/// Where all listen (RFC 4795 2).
pub const GROUPS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(224, 0, 0, 252)), IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 3))];
/// Names of one NIC; the one heard longest ago goes first.
pub const NAMES: usize = 8;
/// "A default TTL of 30 seconds is RECOMMENDED" (2.8).
const TTL: u32 = 30;
/// "it is RECOMMENDED that the value 255 be used" (2.5).
const HOPS: u8 = 255;
/// Answers that wait for room in the queue of our own frames.
const ASKERS: usize = 4;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Llmnr {
    names: Vec<Name>,
    owed: Vec<Owed>,
    limited: u64,
}

/// A name of one label, in wire form.
#[derive(Clone, Debug)]
struct Name {
    wire: Box<[u8]>,
    /// `None` if the operator said so.
    heard: Option<Instant>,
}

/// An answer that is due.
#[derive(Clone, Debug)]
struct Owed {
    due: Instant,
    asker: Asker,
    id: u16,
    question: [u8; dns::MAX_REVERSE],
    len: usize,
    kind: u16,
    class: u16,
    /// Whether it was asked for an address's name.
    reverse: bool,
}

/// What survives the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LlmnrLearned {
    /// The names, each one label.
    pub names: Vec<Vec<u8>>,
}

impl Llmnr {
    /// Takes note of names that the guest answers to.
    pub fn learn(&mut self, now: Instant, from_guest: bool, _: &Frame<'_>, packet: &Packet<'_>) {
        let Some(Transport::Udp(udp)) = packet.transport() else { return };
        let is_mdns = (udp.src_port, udp.dst_port) == (mdns::PORT, mdns::PORT);
        if !from_guest || !(is_mdns || udp.src_port == PORT) {
            return;
        }
        let Ok(message) = Message::parse(udp.payload) else { return };
        // A tentative answer (bit T) claims nothing yet.
        let tentative = !is_mdns && message.flags & flag::RECURSION_DESIRED != 0;
        if !message.is_response() || message.opcode() != 0 || message.rcode() != 0 || tentative {
            return;
        }
        let src = packet.addresses().map(|(src, _)| src);
        for (_, record) in message.records().filter(|(section, _)| *section != Section::Authority) {
            // The speaker's own is the name of where the packet came from: others' names may be told by who passes
            // them on from another link.
            let is_own =
                address(&record).is_some_and(|address| Some(address) == src) && (record.flush || !is_mdns);
            let mut memory = [0; MAX_NAME];
            if is_own && let Some(label) = one_label(record.name.write(&mut memory), is_mdns) {
                let wire = [&[u8::try_from(label.len()).unwrap_or(0)], label, &[0]].concat();
                self.names.retain(|known| !known.wire.eq_ignore_ascii_case(&wire));
                if record.ttl > 0 {
                    self.keep(Name { wire: wire.into(), heard: Some(now) });
                }
            }
        }
    }

    /// Takes a question.
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
        let quiet = if datagram::listens(identity, PORT) { Heard::NotMine } else { Heard::Noted };
        let Ok(message) = Message::parse(udp.payload) else { return Heard::NotMine };
        if !GROUPS.contains(&datagram.dst) {
            // "Unicast queries SHOULD be sent using TCP" (2.4): a responder drops others, and then has no closed port.
            let runs = GROUPS.iter().any(|group| identity.groups.contains(group));
            return if runs && !message.is_response() { quiet } else { Heard::NotMine };
        }
        match self.owed_for(now, identity, datagram.asker, &message) {
            Some(_) if self.owed.len() >= ASKERS.min(self.owed.capacity()) => Heard::TooMany,
            Some(owed) => {
                self.owed.push(owed);
                Heard::Owed(Answered::Llmnr)
            }
            None => quiet,
        }
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
                return Some(Answered::Llmnr);
            }
        }
        None
    }

    /// From now on we answer.
    pub fn sleep(&mut self, _: Instant, _: &mut Rng, identity: &NicIdentity) {
        self.owed.clear();
        self.names.retain(|name| name.heard.is_some());
        if let Some(host) = &identity.traffic.names.host
            && let Ok(len) = u8::try_from(host.len())
        {
            let wire = [&[len], host.as_bytes(), &[0]].concat();
            if !self.names.iter().any(|known| known.wire.eq_ignore_ascii_case(&wire)) {
                self.keep(Name { wire: wire.into(), heard: None });
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
    pub fn learned(&self, _: Instant) -> LlmnrLearned {
        let learned = self.names.iter().filter(|name| name.heard.is_some());
        LlmnrLearned { names: learned.map(|name| name.wire.to_vec()).collect() }
    }

    /// As it was `ago` before `now`, as far as that is sound.
    #[must_use]
    pub fn restore(learned: &LlmnrLearned, now: Instant, ago: Duration) -> Self {
        let mut restored = Self::default();
        for wire in learned.names.iter().take(NAMES) {
            if dns::is_name(wire) && one_label(wire, false).is_some() {
                restored.keep(Name { wire: wire.as_slice().into(), heard: Some(now - ago) });
            }
        }
        restored
    }

    /// How often a limit kept something from being remembered.
    #[must_use]
    pub const fn limited(&self) -> u64 {
        self.limited
    }

    fn keep(&mut self, name: Name) {
        if self.names.len() >= NAMES {
            let heard = self.names.iter().enumerate().filter_map(|(at, name)| Some((name.heard?, at)));
            let Some((_, oldest)) = heard.min() else { return };
            self.names.remove(oldest);
            self.limited += 1;
        }
        self.names.push(name);
    }

    /// What a question of the form that RFC 4795 2.1.1 asks for is owed.
    fn owed_for(
        &self,
        now: Instant,
        identity: &NicIdentity,
        asker: Asker,
        message: &Message<'_>,
    ) -> Option<Owed> {
        let counts = [Section::Question, Section::Answer, Section::Authority].map(|s| message.count(s));
        // With bit C, where DNS has "authoritative", the asker tells of a conflict and wants no answer.
        let wants_answer = !message.is_response() && message.flags & flag::AUTHORITATIVE == 0;
        if !wants_answer || message.opcode() != 0 || counts != [1, 0, 0] {
            return None;
        }
        let question = message.questions().next()?;
        if !matches!(question.class, IN | ANY_CLASS) {
            return None;
        }
        let reverse = self.asks_for_name(identity, &question);
        if !reverse && !self.names.iter().any(|name| question.name.is(&name.wire)) {
            return None;
        }
        let mut memory = [0; MAX_NAME];
        let asked = question.name.write(&mut memory);
        let mut kept = [0; dns::MAX_REVERSE];
        kept.get_mut(..asked.len())?.copy_from_slice(asked);
        let (len, kind, class) = (asked.len(), question.kind, question.class);
        Some(Owed { due: now, asker, id: message.id, question: kept, len, kind, class, reverse })
    }

    fn asks_for_name(&self, identity: &NicIdentity, question: &Question<'_>) -> bool {
        let mut memory = [0; dns::MAX_REVERSE];
        matches!(question.kind, kind::PTR | kind::ANY)
            && identity.addresses.iter().any(|held| question.name.is(dns::reverse(held.address, &mut memory)))
    }

    /// The answer: question and records, as many as find room; of a type that the name has not, none.
    fn write(&self, owed: &Owed, identity: &NicIdentity, memory: &mut [u8]) -> Option<usize> {
        let mut out = Writer::new(memory, owed.id, flag::RESPONSE)?;
        let asked = owed.question.get(..owed.len)?;
        if !out.question(asked, owed.kind, owed.class) {
            return None;
        }
        if owed.reverse {
            let name = self.names.first().map(|name| &name.wire[..]);
            let data = Data { name, compress: true, ..Data::default() };
            out.record(Section::Answer, asked, kind::PTR, IN, TTL, &data);
        } else {
            let is_asked = |kind: u16| owed.kind == kind || owed.kind == kind::ANY;
            for held in &identity.addresses {
                match held.address {
                    IpAddr::V4(v4) if is_asked(kind::A) => {
                        let data = Data { before: &v4.octets(), ..Data::default() };
                        out.record(Section::Answer, asked, kind::A, IN, TTL, &data);
                    }
                    IpAddr::V6(v6) if is_asked(kind::AAAA) => {
                        let data = Data { before: &v6.octets(), ..Data::default() };
                        out.record(Section::Answer, asked, kind::AAAA, IN, TTL, &data);
                    }
                    _ => {}
                }
            }
        }
        Some(out.finish().len())
    }
}

/// The address that a record tells.
fn address(record: &dns::Record<'_>) -> Option<IpAddr> {
    match record.kind {
        kind::A => <[u8; 4]>::try_from(record.data).ok().map(IpAddr::from),
        kind::AAAA => <[u8; 16]>::try_from(record.data).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The label of a name that has only one, below `local` if `is_mdns`.
fn one_label(wire: &[u8], is_mdns: bool) -> Option<&[u8]> {
    let (label, rest) = dns::split_label(wire)?;
    let domain: &[u8] = if is_mdns { b"\x05local\0" } else { &[0] };
    (!label.is_empty() && rest.eq_ignore_ascii_case(domain)).then_some(label)
}

/// Longest answer.
const LONGEST: usize = 512;

#[cfg(test)]
mod tests;
