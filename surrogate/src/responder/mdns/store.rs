//! The records that a guest is known to have: at most [`RECORDS`] of them and [`BYTES`] in all.
//!
//! At the limit the record goes that the guest was heard to say longest ago; those that the operator declared
//! never go. A set of records is one number, so that what is owed to whom costs no memory.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use surrogate_wire::dns::{self, Name, kind, target_offset};

use crate::guest::identity::NicIdentity;
use crate::time::{Duration, Instant};

/// Records of one NIC.
pub const RECORDS: usize = 64;
/// Bytes of their names and data.
pub const BYTES: usize = 16 << 10;
/// The longest, so that each finds room in a frame.
const LONGEST: usize = 1_200;

/// The two networks that one link is (RFC 6762 20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(super) const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Where all listen.
    pub(super) const fn group(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb)),
        }
    }
}

/// Some of the records, by their place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set(u64);

impl Set {
    pub(super) const fn add(&mut self, at: usize) {
        if at < RECORDS {
            self.0 |= 1 << at;
        }
    }

    pub(super) const fn has(self, at: usize) -> bool {
        at < RECORDS && self.0 >> at & 1 == 1
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        (0..RECORDS).filter(move |at| self.has(*at))
    }
}

/// When something was said to all, and when it is to be said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    pub(super) said: Option<Instant>,
    pub(super) owed: Option<Instant>,
}

/// One record; names in it are uncompressed.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) name: Box<[u8]>,
    pub(super) kind: u16,
    /// Whether nobody else may have records of this name and type.
    pub(super) unique: bool,
    pub(super) ttl: u32,
    pub(super) data: Box<[u8]>,
    /// When the guest said so last; `None` if its operator did.
    pub(super) heard: Option<Instant>,
    /// Another host has its name, since the guest said so last.
    pub(super) disputed: bool,
    /// By family.
    turns: [Turn; 2],
    /// Of saying that its name has no record of some other type.
    denials: [Turn; 2],
}

impl Record {
    pub(super) fn new(name: &[u8], kind: u16, unique: bool, ttl: u32, data: &[u8]) -> Self {
        Self {
            name: name.into(),
            kind,
            unique,
            ttl,
            data: data.into(),
            heard: None,
            disputed: false,
            turns: Default::default(),
            denials: Default::default(),
        }
    }

    /// From the guest's own mouth.
    pub(super) const fn heard_at(mut self, now: Instant) -> Self {
        self.heard = Some(now);
        self
    }

    pub(super) const fn turn(&mut self, family: Family) -> &mut Turn {
        let [v4, v6] = &mut self.turns;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    pub(super) const fn denial(&mut self, family: Family) -> &mut Turn {
        let [v4, v6] = &mut self.denials;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    pub(super) const fn said(&self, family: Family) -> Option<Instant> {
        let [v4, v6] = &self.turns;
        match family {
            Family::V4 => v4.said,
            Family::V6 => v6.said,
        }
    }

    /// When the earliest of its turns is.
    pub(super) fn owed(&self) -> Option<Instant> {
        self.turns.iter().chain(&self.denials).filter_map(|turn| turn.owed).min()
    }

    /// The name that its data ends in, for the types that have one.
    pub(super) fn target(&self) -> Option<&[u8]> {
        self.data.get(target_offset(self.kind)?..)
    }

    /// Whether it is the same record, whatever its time to live.
    pub(super) fn is(&self, name: &[u8], kind: u16, data: &[u8]) -> bool {
        self.kind == kind && self.is_of(name) && same_data(kind, &self.data, data)
    }

    pub(super) fn is_of(&self, name: &[u8]) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Whether it may be said: no address that is not answered for, nor the name of one.
    fn may_be_said(&self, identity: &NicIdentity) -> bool {
        match (self.kind, &self.data[..]) {
            (kind::PTR, _) if dns::is_reverse(&self.name) => {
                let mut memory = [0; dns::MAX_REVERSE];
                let mut is_of = |address: IpAddr| self.is_of(dns::reverse(address, &mut memory));
                identity.addresses.iter().any(|held| is_of(held.address))
            }
            (kind::A, &[a, b, c, d]) => identity.holds(Ipv4Addr::new(a, b, c, d).into()),
            (kind::AAAA, data) => {
                <[u8; 16]>::try_from(data).is_ok_and(|v6| identity.holds(IpAddr::V6(v6.into())))
            }
            _ => true,
        }
    }

    fn len(&self) -> usize {
        self.name.len() + self.data.len()
    }

    /// Whether it is sound and of a type that may be kept: bytes, or bytes and a name at their end.
    fn is_sound(&self) -> bool {
        let data = match self.kind {
            kind::A => self.data.len() == 4,
            kind::AAAA => self.data.len() == 16,
            kind::NSEC | kind::OPT | 249..=255 | 0 => false,
            _ if has_hidden_names(self.kind) => false,
            _ => target_offset(self.kind).is_none_or(|_| self.target().is_some_and(dns::is_name)),
        };
        data && dns::is_name(&self.name) && self.len() <= LONGEST && self.ttl > 0
    }
}

fn same_data(kind: u16, a: &[u8], b: &[u8]) -> bool {
    match target_offset(kind) {
        Some(at) => {
            let (Some((a, a_name)), Some((b, b_name))) = (a.split_at_checked(at), b.split_at_checked(at))
            else {
                return false;
            };
            a == b && a_name.eq_ignore_ascii_case(b_name)
        }
        None => a == b,
    }
}

/// Types with names inside their data that may be compressed there, and that nobody on a link needs:
/// MD, MF, SOA, MB, MG, MR, MINFO, RP, AFSDB, RT, SIG, PX, NXT, KX.
const fn has_hidden_names(kind: u16) -> bool {
    matches!(kind, 3 | 4 | 6..=9 | 14 | 17 | 18 | 21 | 24 | 26 | 30 | 36)
}

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    records: Vec<Record>,
    bytes: usize,
    /// Records that went, or were not kept, because there was no place, or because they cannot be.
    pub(super) limited: u64,
}

impl Store {
    pub(super) const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn get(&self, at: usize) -> Option<&Record> {
        self.records.get(at)
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Record> {
        self.records.get_mut(at)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Record)> {
        self.records.iter().enumerate()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        self.records.iter_mut()
    }

    /// Those that may be said.
    pub(super) fn sayable(&self, identity: &NicIdentity) -> Set {
        self.set(|record| record.may_be_said(identity))
    }

    pub(super) fn set(&self, which: impl Fn(&Record) -> bool) -> Set {
        let mut set = Set::default();
        self.iter().filter(|(_, record)| which(record)).for_each(|(at, _)| set.add(at));
        set
    }

    /// Those of this name, type and data.
    pub(super) fn same(&self, theirs: &dns::Record<'_>) -> Set {
        self.set(|own| own.kind == theirs.kind && theirs.name.is(&own.name) && theirs.has_data(&own.data))
    }

    /// Those of this name and type, whatever is in them.
    pub(super) fn of(&self, name: &Name<'_>, kind: u16) -> Set {
        self.set(|own| own.kind == kind && name.is(&own.name))
    }

    /// Adds or renews a record.
    pub(super) fn keep(&mut self, new: Record) {
        let known = self.records.iter_mut().find(|old| old.is(&new.name, new.kind, &new.data));
        if let Some(known) = known {
            if new.heard.is_some() {
                (known.heard, known.ttl, known.unique) = (new.heard, new.ttl, new.unique);
                known.disputed = false;
            }
            return;
        }
        if !new.is_sound() {
            self.limited += 1;
            return;
        }
        while self.records.len() >= RECORDS || self.bytes + new.len() > BYTES {
            if !self.evict() {
                self.limited += 1;
                return;
            }
        }
        self.bytes += new.len();
        self.records.push(new);
    }

    /// Another host says that these are its own: so it says of all with their names.
    pub(super) fn dispute(&mut self, claimed: Set) {
        for at in claimed.iter() {
            for other in 0..self.records.len() {
                let of_same_name = self
                    .get(at)
                    .zip(self.get(other))
                    .is_some_and(|(claimed, other)| other.is_of(&claimed.name));
                if let Some(other) = self.get_mut(other).filter(|_| of_same_name) {
                    other.disputed = true;
                }
            }
        }
    }

    /// Takes those out that `go`.
    pub(super) fn take_out(&mut self, go: impl Fn(&Record) -> bool) {
        self.records.retain(|record| !go(record));
        self.bytes = self.records.iter().map(Record::len).sum();
    }

    fn evict(&mut self) -> bool {
        let learned = self.iter().filter_map(|(at, record)| Some((record.heard?, at)));
        let Some((_, oldest)) = learned.min() else { return false };
        self.bytes -= self.records.remove(oldest).len();
        self.limited += 1;
        true
    }

    /// What was learned, as plain values.
    pub(super) fn learned(&self) -> Vec<LearnedRecord> {
        let learned = self.records.iter().filter(|record| record.heard.is_some());
        let plain = learned.map(|record| LearnedRecord {
            name: record.name.to_vec(),
            kind: record.kind,
            unique: record.unique,
            ttl: record.ttl,
            data: record.data.to_vec(),
        });
        plain.collect()
    }

    /// As it was, as far as that is sound.
    pub(super) fn restored(learned: &[LearnedRecord], heard: Instant) -> Self {
        let mut store = Self::default();
        for LearnedRecord { name, kind, unique, ttl, data } in learned.iter().take(RECORDS) {
            store.keep(Record::new(name, *kind, *unique, *ttl, data).heard_at(heard));
        }
        store
    }
}

/// A record that the guest was heard to announce, as it survives the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnedRecord {
    /// Its name, uncompressed.
    pub name: Vec<u8>,
    /// Its type.
    pub kind: u16,
    /// Whether it is the guest's alone.
    pub unique: bool,
    /// Time to live in seconds.
    pub ttl: u32,
    /// Its data, names in it uncompressed.
    pub data: Vec<u8>,
}

/// A record that is repeated may have others beside it that came a moment before (RFC 6762 10.2).
pub(super) const FLUSH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::responder::testing::guest;

    fn record(name: &str, second: u64) -> Record {
        let wire = [&[u8::try_from(name.len()).unwrap()], name.as_bytes(), &[0]].concat();
        let heard = Instant::ZERO + Duration::from_secs(second);
        Record::new(&wire, kind::TXT, true, 120, &[0]).heard_at(heard)
    }

    #[test]
    fn the_one_heard_longest_ago_goes_first_and_what_is_declared_stays() {
        let mut store = Store::default();
        store.keep(Record { heard: None, ..record("declared", 0) });
        for n in 0..RECORDS as u64 {
            store.keep(record(&format!("n{n}"), n));
        }
        assert_eq!((store.records.len(), store.limited), (RECORDS, 1));
        assert!(store.records.iter().all(|record| record.name[..] != *b"\x02n0\0"));
        assert!(store.records.iter().any(|record| record.heard.is_none()));
    }

    #[test]
    fn bytes_are_limited_as_well() {
        let mut store = Store::default();
        for n in 0..40 {
            let long = Record { data: vec![1; 1_000].into(), ..record(&format!("n{n}"), n) };
            store.keep(long);
            assert!(store.bytes <= BYTES, "{}", store.bytes);
        }
        assert_eq!(store.bytes, store.records.iter().map(Record::len).sum::<usize>());
        store.take_out(|_| true);
        assert_eq!((store.bytes, store.is_empty()), (0, true));
    }

    #[test]
    fn where_everything_is_declared_nothing_more_is_learned() {
        let mut store = Store::default();
        for n in 0..RECORDS as u64 {
            store.keep(Record { heard: None, ..record(&format!("n{n}"), n) });
        }
        store.keep(record("one-more", 99));
        assert_eq!((store.records.len(), store.limited), (RECORDS, 1));
    }

    #[test]
    fn unsound_records_are_not_kept() {
        let name = b"\x01a\0";
        for (kind, data) in [
            (kind::A, &[1, 2, 3][..]),
            (kind::AAAA, &[1; 4]),
            (kind::PTR, b"\x05local"),
            (kind::SRV, b"\0\0\0\0\0"),
            (kind::NSEC, b"\x01a\0\0\x01\x40"),
            (kind::OPT, &[]),
            (kind::TXT, &[1; LONGEST]),
            (6, &[0; 22]),
        ] {
            let mut store = Store::default();
            store.keep(Record::new(name, kind, true, 120, data));
            assert_eq!((store.is_empty(), store.limited), (true, 1), "type {kind}");
        }
        let mut store = Store::default();
        store.keep(Record::new(b"\x01a", kind::TXT, true, 120, &[0]));
        assert!(store.is_empty(), "no name");
    }

    #[test]
    fn what_is_restored_was_checked() {
        let mut store = Store::default();
        store.keep(record("printer", 3));
        store.keep(Record { heard: None, ..record("declared", 0) });
        let learned = store.learned();
        assert_eq!(learned.len(), 1, "what is declared is in the configuration");
        assert_eq!(Store::restored(&learned, Instant::ZERO).learned(), learned);
        let mut forged = learned[0].clone();
        forged.name = vec![0xc0, 0];
        assert!(Store::restored(&[forged], Instant::ZERO).is_empty());
        let many = vec![learned[0].clone(); 1_000];
        assert_eq!(Store::restored(&many, Instant::ZERO).records.len(), 1);
    }

    #[test]
    fn an_address_that_the_guest_has_no_more_is_not_said() {
        let mut store = Store::default();
        for data in [[192, 0, 2, 11], [192, 0, 2, 12]] {
            store.keep(Record::new(b"\x01a\0", kind::A, true, 120, &data));
        }
        assert_eq!(store.sayable(&guest()), Set(1));
    }

    #[test]
    fn the_name_of_an_address_goes_with_it() {
        let mut store = Store::default();
        for name in [&b"\x0211\x010\x010\x0210"[..], b"\x0211\x012\x010\x03192"] {
            for domain in [&b"\x07in-addr\x04arpa\0"[..], b"\x07IN-ADDR\x04ARPA\0", b"\x05local\0"] {
                store.keep(Record::new(&[name, domain].concat(), kind::PTR, true, 120, b"\x01a\0"));
            }
        }
        // Written in another case it is the same one.
        assert_eq!(store.records.len(), 4);
        assert_eq!(store.sayable(&guest()), Set(0b1110));
    }
}
