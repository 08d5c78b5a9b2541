//! Datagrams in fragments that a sleeper may owe an answer for: which parts came, which held frame has each, and
//! what is known of the whole (RFC 791 3.2, RFC 815, RFC 5722, RFC 8200 4.5).
//!
//! The bytes stay where all held frames are, so that a guest which wakes meanwhile gets the parts as they came.
//! Memory is fixed: so many datagrams in all, so many of them and so many bytes per NIC, so many parts of each.
//! What gives way at a limit is the caller's to do; see [`gather`](super::gather).

use core::net::IpAddr;

use surrogate_wire::emit::Ethernet;
use surrogate_wire::protocol;

use super::contract::WakeReason;
use super::hold::Key as Held;
use super::verdict::DropReason;
use crate::time::{Duration, Instant};

/// Datagrams gathered at once, of all NICs.
const IN_ALL: usize = 256;
/// Of one NIC.
const PER_NIC: usize = 16;
/// Bytes of held frames that one NIC's may have: three and a half of the longest datagrams.
const BYTES_PER_NIC: u64 = 256 << 10;
/// Parts of one datagram: the longest in frames of 1,078 bytes, more than any network needs.
const PARTS: usize = 64;
/// How long the first part may be missing before what nobody knows is the guest's to judge.
const GRACE: Duration = Duration::from_secs(1);
/// RFC 1122 3.3.2 wants 60 to 120 s; Linux, and so most guests, gives up after 30.
const PATIENCE_V4: Duration = Duration::from_secs(30);
/// RFC 8200 4.5.
const PATIENCE_V6: Duration = Duration::from_secs(60);

/// What makes fragments parts of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) id: u32,
    /// Of IPv4 only: in IPv6 the parts may differ in it (RFC 8200 4.5).
    pub(super) protocol: Option<u8>,
    /// The VLAN as the bridge sees it, and the one inside.
    pub(super) vlan: (Option<u16>, Option<u16>),
}

/// One fragment's place in its datagram, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) start: u16,
    pub(super) end: u16,
    /// There are later ones.
    pub(super) more: bool,
}

/// What the first part says of the whole's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) to: Ethernet,
    /// Type of service or traffic class.
    pub(super) class: u8,
    /// Time to live or hop limit.
    pub(super) ttl: u8,
    /// What the parts together begin with.
    pub(super) protocol: u8,
}

/// What is known of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its first part has not come.
    Unknown,
    /// Once it is whole we have an answer to give.
    Owed(Head),
    /// It needs none.
    Absorb,
    /// It was whole: what comes again of it is a copy.
    Done,
    /// It is for the guest.
    Hold(Option<WakeReason>),
    /// It is for nobody.
    Drop(DropReason),
}

impl Fate {
    /// Whether no further part changes it.
    pub(super) const fn is_settled(self) -> bool {
        !matches!(self, Self::Unknown | Self::Owed(_))
    }
}

/// How a part goes with those that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is new, and others are missing.
    New,
    /// It makes the datagram whole.
    Completes,
    /// It came before.
    Repeated,
    /// It overlaps another one, or contradicts where the datagram ends.
    Overlaps,
    /// There are too many.
    TooMany,
}

/// A part that is held.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Piece {
    pub(super) held: Held,
    pub(super) start: u16,
    pub(super) end: u16,
    /// Bytes of headers before it in its frame.
    pub(super) skip: u16,
}

/// A datagram whose parts are gathered.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    pub(super) key: Key,
    pub(super) fate: Fate,
    /// Marks its frames among those held.
    pub(super) mark: u32,
    /// As the part that came first said.
    protocol: u8,
    since: Instant,
    /// Where the whole ends, once its last part has come.
    end: Option<u16>,
    received: u32,
    bytes: u64,
    count: usize,
    pieces: [Piece; PARTS],
}

impl Datagram {
    /// The parts that are held.
    pub(super) fn pieces(&self) -> &[Piece] {
        self.pieces.get(..self.count).unwrap_or_default()
    }

    /// How a part of `extent` goes with the others.
    pub(super) fn fit(&self, extent: Extent) -> Fit {
        let Extent { start, end, more } = extent;
        for piece in self.pieces() {
            if (piece.start, piece.end) == (start, end) {
                // "an implementation may choose to [...] drop exact duplicate fragments" (RFC 8200 4.5).
                let was_last = self.end == Some(end);
                return if was_last == more { Fit::Overlaps } else { Fit::Repeated };
            }
            if (start < piece.end && piece.start < end) || (!more && piece.end > end) {
                return Fit::Overlaps;
            }
        }
        let whole = match (self.end, more) {
            (Some(last), true) if end >= last => return Fit::Overlaps,
            (Some(last), false) if end != last => return Fit::Overlaps,
            (last, true) => last,
            (_, false) => Some(end),
        };
        // None overlaps: as many bytes as the whole has are all of it.
        if whole.is_some_and(|whole| self.received + u32::from(end - start) == u32::from(whole)) {
            return Fit::Completes;
        }
        if self.count == PARTS { Fit::TooMany } else { Fit::New }
    }

    /// Whether it may be something that wakes a guest, while only later parts of it came: ICMP never is.
    pub(super) const fn may_wake(&self) -> bool {
        !matches!(self.protocol, protocol::ICMP | protocol::ICMPV6)
    }

    /// What to wake the guest for.
    pub(super) const fn reason(&self) -> WakeReason {
        WakeReason::Ip { protocol: self.protocol, from: self.key.src }
    }

    const fn patience(&self) -> Duration {
        match self.key.src {
            IpAddr::V4(_) => PATIENCE_V4,
            IpAddr::V6(_) => PATIENCE_V6,
        }
    }

    /// When something becomes of it although no part comes.
    fn due(&self) -> Instant {
        match self.fate {
            Fate::Unknown if self.may_wake() => self.since + GRACE,
            _ => self.since + self.patience(),
        }
    }
}

/// One NIC's share, oldest first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    of: [u16; PER_NIC],
    count: usize,
    bytes: u64,
}

impl Share {
    fn list(&self) -> &[u16] {
        self.of.get(..self.count).unwrap_or_default()
    }
}

/// Names a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At(u16);

/// See the [module](self).
pub(super) struct Reassembly {
    pool: Vec<Datagram>,
    /// Those of the pool that are nobody's.
    free: Vec<u16>,
    marks: u32,
    bytes: u64,
    most_bytes: u64,
}

impl Reassembly {
    /// At most `most_bytes` bytes of held frames in all.
    #[must_use]
    pub(super) fn new(most_bytes: usize) -> Self {
        let nobody = IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED);
        let key = Key { src: nobody, dst: nobody, id: 0, protocol: None, vlan: (None, None) };
        let none = Datagram {
            key,
            fate: Fate::Unknown,
            mark: 0,
            protocol: 0,
            since: Instant::ZERO,
            end: None,
            received: 0,
            bytes: 0,
            count: 0,
            pieces: [Piece::default(); PARTS],
        };
        Self {
            pool: vec![none; IN_ALL],
            free: (0..IN_ALL as u16).rev().collect(),
            marks: 0,
            bytes: 0,
            most_bytes: most_bytes as u64,
        }
    }

    /// The datagram of `key`, if parts of it came.
    pub(super) fn find(&self, share: &Share, key: &Key) -> Option<At> {
        let mine = |at: &&u16| self.pool.get(usize::from(**at)).is_some_and(|datagram| datagram.key == *key);
        share.list().iter().find(mine).map(|at| At(*at))
    }

    /// Begins one. `None`: there is no room for it.
    pub(super) fn begin(&mut self, now: Instant, share: &mut Share, key: Key, protocol: u8) -> Option<At> {
        let slot = share.of.get_mut(share.count)?;
        let at = self.free.pop()?;
        let datagram = self.pool.get_mut(usize::from(at))?;
        // Zero is no mark.
        self.marks = self.marks.wrapping_add(1).max(1);
        *slot = at;
        share.count += 1;
        datagram.key = key;
        datagram.fate = Fate::Unknown;
        datagram.mark = self.marks;
        datagram.protocol = protocol;
        datagram.since = now;
        datagram.end = None;
        datagram.received = 0;
        datagram.bytes = 0;
        datagram.count = 0;
        Some(At(at))
    }

    /// What is known of one.
    pub(super) fn get(&self, at: At) -> Option<&Datagram> {
        self.pool.get(usize::from(at.0))
    }

    /// Its first part has come.
    pub(super) fn owe(&mut self, at: At, head: Head) {
        if let Some(datagram) = self.pool.get_mut(usize::from(at.0)) {
            datagram.fate = Fate::Owed(head);
        }
    }

    /// Whether a frame of `len` bytes more is within the limits.
    pub(super) fn has_room(&self, share: &Share, len: usize) -> bool {
        let len = len as u64;
        share.bytes + len <= BYTES_PER_NIC && self.bytes + len <= self.most_bytes
    }

    /// Adds a part of `extent` that is held as a frame of `len` bytes.
    pub(super) fn add(
        &mut self,
        share: &mut Share,
        at: At,
        extent: Extent,
        held: Held,
        skip: u16,
        len: usize,
    ) {
        let Some(datagram) = self.pool.get_mut(usize::from(at.0)) else { return };
        let Some(piece) = datagram.pieces.get_mut(datagram.count) else { return };
        *piece = Piece { held, start: extent.start, end: extent.end, skip };
        datagram.count += 1;
        datagram.received += u32::from(extent.end - extent.start);
        if !extent.more {
            datagram.end = Some(extent.end);
        }
        datagram.bytes += len as u64;
        share.bytes += len as u64;
        self.bytes += len as u64;
    }

    /// Nothing more is to be found out: its parts are forgotten, its fate is remembered for those to come.
    pub(super) fn settle(&mut self, share: &mut Share, at: At, fate: Fate) {
        let Some(datagram) = self.pool.get_mut(usize::from(at.0)) else { return };
        datagram.fate = fate;
        datagram.count = 0;
        let bytes = core::mem::take(&mut datagram.bytes);
        share.bytes -= bytes;
        self.bytes -= bytes;
    }

    /// Forgets one.
    pub(super) fn end(&mut self, share: &mut Share, at: At) {
        let Some(place) = share.list().iter().position(|of| *of == at.0) else { return };
        self.settle(share, at, Fate::Unknown);
        share.of.copy_within(place + 1..share.count, place);
        share.count -= 1;
        self.free.push(at.0);
    }

    /// Forgets all.
    pub(super) fn end_all(&mut self, share: &mut Share) {
        while let Some(at) = share.list().last() {
            self.end(share, At(*at));
        }
    }

    /// Which has to give way for another one: what is settled already, else the oldest, but not `keep`.
    pub(super) fn cheapest(&self, share: &Share, keep: Option<At>) -> Option<At> {
        let others = || share.list().iter().map(|at| At(*at)).filter(|at| Some(*at) != keep);
        let settled = |at: &At| self.get(*at).is_some_and(|datagram| datagram.fate.is_settled());
        others().find(settled).or_else(|| others().next())
    }

    /// One for which it is time at `now`.
    pub(super) fn overdue(&self, share: &Share, now: Instant) -> Option<At> {
        let is_due = |at: &At| self.get(*at).is_some_and(|datagram| datagram.due() <= now);
        share.list().iter().map(|at| At(*at)).find(is_due)
    }

    /// Whether one has been gathered for as long as a host would.
    pub(super) fn is_over(&self, at: At, now: Instant) -> bool {
        self.get(at).is_none_or(|datagram| now >= datagram.since + datagram.patience())
    }

    /// When it is time for the next.
    pub(super) fn due(&self, share: &Share) -> Option<Instant> {
        share.list().iter().filter_map(|at| self.get(At(*at)).map(Datagram::due)).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(id: u32) -> Key {
        let ip = |n| IpAddr::from([192, 0, 2, n]);
        Key { src: ip(1), dst: ip(11), id, protocol: Some(17), vlan: (None, None) }
    }

    const fn extent(start: u16, end: u16, more: bool) -> Extent {
        Extent { start, end, more }
    }

    /// One datagram, with these parts.
    fn with(parts: &[Extent]) -> (Reassembly, At) {
        let (mut table, mut share) = (Reassembly::new(1 << 20), Share::default());
        let at = table.begin(Instant::ZERO, &mut share, key(1), 17).unwrap();
        for part in parts {
            table.add(&mut share, at, *part, Held::default(), 34, 100);
        }
        (table, at)
    }

    fn fit(parts: &[Extent], next: Extent) -> Fit {
        let (table, at) = with(parts);
        table.get(at).unwrap().fit(next)
    }

    #[test]
    fn a_datagram_is_whole_when_all_its_bytes_came_in_whatever_order() {
        let (a, b, c) = (extent(0, 16, true), extent(16, 32, true), extent(32, 33, false));
        for [first, second, third] in [[a, b, c], [c, b, a], [b, c, a], [c, a, b]] {
            assert_eq!(fit(&[], first), Fit::New);
            assert_eq!(fit(&[first], second), Fit::New);
            assert_eq!(fit(&[first, second], third), Fit::Completes);
        }
    }

    #[test]
    fn a_repeated_part_is_told_from_one_that_overlaps() {
        let parts = [extent(0, 16, true), extent(32, 40, false)];
        assert_eq!(fit(&parts, extent(0, 16, true)), Fit::Repeated);
        assert_eq!(fit(&parts, extent(32, 40, false)), Fit::Repeated);
        for wrong in [
            extent(8, 24, true),
            extent(0, 8, true),
            extent(0, 24, true),
            extent(24, 40, true),
            // What contradicts the end of the datagram.
            extent(0, 16, false),
            extent(32, 40, true),
            extent(40, 48, true),
            extent(40, 48, false),
            extent(16, 24, false),
        ] {
            assert_eq!(fit(&parts, wrong), Fit::Overlaps, "{wrong:?}");
        }
        assert_eq!(fit(&parts, extent(16, 24, true)), Fit::New);
        assert_eq!(fit(&parts, extent(16, 32, true)), Fit::Completes);
    }

    #[test]
    fn only_so_many_parts_are_kept_but_the_last_missing_one_is_none_of_them() {
        let parts: Vec<Extent> = (0..64).map(|n| extent(n * 8, n * 8 + 8, true)).collect();
        assert_eq!(fit(&parts, extent(600, 608, true)), Fit::TooMany);
        assert_eq!(fit(&parts, extent(512, 520, false)), Fit::Completes);
    }

    #[test]
    fn the_number_and_the_bytes_per_nic_and_in_all_are_limited() {
        let mut table = Reassembly::new(700);
        let mut shares = vec![Share::default(); 17];
        for share in &mut shares {
            let begun =
                (0..20).filter(|id| table.begin(Instant::ZERO, share, key(*id), 17).is_some()).count();
            assert_eq!(begun, if table.free.is_empty() && share.count == 0 { 0 } else { 16 });
        }
        assert_eq!(shares[16].count, 0, "the pool is empty");
        let at = table.find(&shares[0], &key(3)).unwrap();
        assert!(table.has_room(&shares[0], 700) && !table.has_room(&shares[0], 701));
        table.add(&mut shares[0], at, extent(0, 8, true), Held::default(), 34, 600);
        assert!(table.has_room(&shares[1], 100) && !table.has_room(&shares[1], 101));
        for share in &mut shares {
            table.end_all(share);
        }
        assert_eq!((table.free.len(), table.bytes, shares[0].bytes), (IN_ALL, 0, 0));
    }

    #[test]
    fn what_is_settled_gives_way_first_then_the_oldest() {
        let (mut table, mut share) = (Reassembly::new(1 << 20), Share::default());
        let ids: Vec<At> =
            (0..3).map(|id| table.begin(Instant::ZERO, &mut share, key(id), 17).unwrap()).collect();
        assert_eq!(table.cheapest(&share, None), Some(ids[0]));
        assert_eq!(table.cheapest(&share, Some(ids[0])), Some(ids[1]));
        table.settle(&mut share, ids[2], Fate::Absorb);
        assert_eq!(table.cheapest(&share, None), Some(ids[2]));
        table.end(&mut share, ids[2]);
        table.end(&mut share, ids[0]);
        assert_eq!(table.cheapest(&share, Some(ids[1])), None);
        assert_eq!(table.find(&share, &key(1)), Some(ids[1]));
    }

    #[test]
    fn the_unknown_is_soon_the_guests_to_judge_unless_it_is_icmp() {
        let at = |ms| Instant::ZERO + Duration::from_millis(ms);
        let due = |protocol, id: Key| {
            let (mut table, mut share) = (Reassembly::new(1 << 20), Share::default());
            let datagram = table.begin(Instant::ZERO, &mut share, id, protocol).unwrap();
            let first = table.due(&share);
            table.settle(&mut share, datagram, Fate::Hold(None));
            (first, table.due(&share))
        };
        assert_eq!(due(17, key(1)), (Some(at(1_000)), Some(at(30_000))));
        assert_eq!(due(1, key(1)), (Some(at(30_000)), Some(at(30_000))));
        let v6 = Key { src: core::net::Ipv6Addr::LOCALHOST.into(), ..key(1) };
        assert_eq!(due(58, v6), (Some(at(60_000)), Some(at(60_000))));
    }

    proptest! {
        /// Whatever parts come, those that are taken never overlap, and it is whole exactly if they cover it.
        #[test]
        fn parts_that_are_taken_cover_the_whole_once(
            parts in prop::collection::vec((0u16..12, 0u16..4, any::<bool>()), 1..40),
        ) {
            let (mut table, mut share) = (Reassembly::new(1 << 20), Share::default());
            let at = table.begin(Instant::ZERO, &mut share, key(1), 17).unwrap();
            let (mut covered, mut end) = ([false; 16], None);
            for (start, len, more) in parts {
                let part = extent(start * 8, (start + len) * 8, more);
                let taken = table.get(at).unwrap().fit(part);
                prop_assert_ne!(taken, Fit::TooMany);
                if !matches!(taken, Fit::New | Fit::Completes) {
                    continue;
                }
                for unit in start..start + len {
                    prop_assert!(!core::mem::replace(&mut covered[usize::from(unit)], true), "twice");
                }
                if !more {
                    end = Some(start + len);
                }
                let whole = end.is_some_and(|end| {
                    covered.iter().position(|c| !c) == Some(usize::from(end))
                        && covered[usize::from(end)..].iter().all(|c| !c)
                });
                prop_assert_eq!(taken == Fit::Completes, whole, "{:?} to {:?}", covered, end);
                if whole {
                    break;
                }
                table.add(&mut share, at, part, Held::default(), 34, 100);
            }
        }
    }
}
