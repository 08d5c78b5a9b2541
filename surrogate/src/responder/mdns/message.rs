//! Writes a response: as many of the records owed as find room, then what is told beside them.

use surrogate_wire::dns::{Data, IN, Section, TOP_BIT, Writer, flag, kind, target_offset};

use super::askers::Legacy;
use super::question::Answers;
use super::store::{Record, Store};

/// Longest payload, whatever the frame could take: what fits Ethernet over either family.
pub(super) const LONGEST: usize = 1_440;

/// Writes `answers`, then of `beside` what still fits, into `memory`, and says which were written and how many
/// bytes that is. `None` if not a single answer fits.
pub(super) fn write(
    store: &Store,
    answers: Answers,
    beside: Answers,
    legacy: Option<&Legacy>,
    memory: &mut [u8],
) -> Option<(Answers, usize)> {
    let id = legacy.map_or(0, |legacy| legacy.id);
    let mut out = Writer::new(memory, id, flag::RESPONSE | flag::AUTHORITATIVE)?;
    if let Some(asked) = legacy
        && !out.question(asked.name(), asked.kind, asked.class)
    {
        return None;
    }
    let mut written = Answers::default();
    for (section, wanted) in [(Section::Answer, answers), (Section::Additional, beside)] {
        for at in wanted.records.iter() {
            if store.get(at).is_some_and(|record| put(&mut out, section, record, legacy.is_some())) {
                written.records.add(at);
            }
        }
        for at in wanted.denials.iter() {
            if store.get(at).is_some_and(|record| deny(&mut out, section, store, record, legacy.is_some())) {
                written.denials.add(at);
            }
        }
        // Nothing is told beside an answer that is not there.
        if written.is_empty() {
            return None;
        }
    }
    Some((written, out.finish().len()))
}

fn put(out: &mut Writer<'_>, section: Section, record: &Record, legacy: bool) -> bool {
    let at = target_offset(record.kind);
    let (before, name) = match at.and_then(|at| record.data.split_at_checked(at)) {
        Some((before, name)) => (before, Some(name)),
        None => (&record.data[..], None),
    };
    // Who knows only plain DNS may not know that more may be compressed (RFC 2782, RFC 6672 2.5).
    let compress = !(legacy && matches!(record.kind, kind::SRV | kind::DNAME));
    let data = Data { before, name, compress, after: &[] };
    out.record(
        section,
        &record.name,
        record.kind,
        class(record.unique, legacy),
        ttl(record.ttl, legacy),
        &data,
    )
}

/// An NSEC record with all types that `record`'s name has, below 256 (RFC 6762 6.1).
fn deny(out: &mut Writer<'_>, section: Section, store: &Store, record: &Record, legacy: bool) -> bool {
    let mut bitmap = [0u8; 2 + 32];
    let mut len = 0;
    for (_, of) in store.iter().filter(|(_, other)| other.is_of(&record.name)) {
        let Ok(kind) = u8::try_from(of.kind) else { continue };
        let at = usize::from(kind / 8);
        if let Some(byte) = bitmap.get_mut(2 + at) {
            *byte |= 0x80 >> (kind % 8);
            len = len.max(at + 1);
        }
    }
    if let (Some(to), Ok(len)) = (bitmap.get_mut(1), u8::try_from(len)) {
        *to = len;
    }
    let after = bitmap.get(..2 + len).unwrap_or_default();
    let data = Data { before: &[], name: Some(&record.name), compress: !legacy, after };
    out.record(section, &record.name, kind::NSEC, class(true, legacy), ttl(record.ttl, legacy), &data)
}

/// The cache-flush bit is for those who know it.
const fn class(unique: bool, legacy: bool) -> u16 {
    if unique && !legacy { IN | TOP_BIT } else { IN }
}

/// "SHOULD NOT be greater than ten seconds" for those who do not hear of changes (RFC 6762 6.7).
fn ttl(ttl: u32, legacy: bool) -> u32 {
    if legacy { ttl.min(10) } else { ttl }
}
