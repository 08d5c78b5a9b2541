//! What an awake guest says of itself: the records of its announcements and answers.
//!
//! The caller has seen that it went from port 5353 to port 5353: an answer to a resolver that knows nothing of
//! multicast has other times and marks (RFC 6762 6.7). A probe claims nothing yet.

use surrogate_wire::dns::{IN, MAX_NAME, Message, Record, Section, target_offset};
use surrogate_wire::{Packet, Transport};

use super::store::{self, FLUSH, Family, Store};
use crate::time::Instant;

/// Takes note of a response of the guest's, if it is one.
pub(super) fn learn(store: &mut Store, now: Instant, packet: &Packet<'_>) {
    let (Some(Transport::Udp(udp)), Some((_, dst))) = (packet.transport(), packet.addresses()) else {
        return;
    };
    let Ok(message) = Message::parse(udp.payload) else { return };
    if !message.is_response() || message.opcode() != 0 || message.rcode() != 0 {
        return;
    }
    let family = Family::of(dst);
    let said = (dst == family.group()).then_some(now);
    let mut name = [0; MAX_NAME];
    let mut target = [0; MAX_NAME];
    let mut data = [0; LONGEST];
    for record in said_by(&message) {
        let name = record.name.write(&mut name);
        let data = match (record.target(), target_offset(record.kind)) {
            (Some((before, ends)), _) => {
                let ends = ends.write(&mut target);
                let Some(data) = data.get_mut(..before.len() + ends.len()) else { continue };
                let (head, tail) = data.split_at_mut(before.len());
                head.copy_from_slice(before);
                tail.copy_from_slice(ends);
                data
            }
            // Damaged.
            (None, Some(_)) => continue,
            (None, None) => record.data,
        };
        if record.ttl == 0 {
            // "a TTL of zero": it is taken back (RFC 6762 10.1).
            store.take_out(|old| old.heard.is_some() && old.is(name, record.kind, data));
            continue;
        }
        let said_now = store::Record::new(name, record.kind, record.flush, record.ttl, data);
        store.keep(said_now.heard_at(now));
        if let Some(kept) = store.iter_mut().find(|kept| kept.is(name, record.kind, data)) {
            let turn = kept.turn(family);
            turn.said = said.or(turn.said);
        }
    }
    // "asserting that all other records of that name, type and class are no longer valid" (10.2).
    for record in said_by(&message).filter(|record| record.flush) {
        let outdated = |old: &store::Record| old.heard.is_some_and(|heard| heard + FLUSH < now);
        store.take_out(|old| old.kind == record.kind && outdated(old) && record.name.is(&old.name));
    }
}

/// The records that a response says to be so.
fn said_by<'a>(message: &Message<'a>) -> impl Iterator<Item = Record<'a>> {
    let said =
        message.records().filter(|(section, record)| *section != Section::Authority && record.class == IN);
    said.map(|(_, record)| record)
}

/// Room for a name and what may stand before it; the data of other types is taken as it stands.
const LONGEST: usize = MAX_NAME + 6;
