//! Multicast group membership: what IGMP ([`igmp`](crate::igmp)) and MLD ([`mld`](crate::mld)) have in
//! common. MLD is IGMP for IPv6, one number behind: `MLDv1` is `IGMPv2` (RFC 2710 1), `MLDv2` is `IGMPv3`
//! (RFC 9777 1), group records included.

use core::fmt;
use core::marker::PhantomData;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use crate::checksum::Sum;
use crate::emit::FrameBuf;
use crate::mac::Mac;
use crate::malformed::Malformed;

/// An address of the family that a message is of.
pub trait Address: Copy + Ord + fmt::Debug {
    /// Its bytes in a message.
    type Octets: AsRef<[u8]>;
    /// How many these are.
    const BYTES: usize;

    /// The address at the beginning of `bytes`.
    fn read(bytes: &[u8]) -> Option<Self>;
    /// Its bytes.
    fn octets(self) -> Self::Octets;
    /// Whether it is a group's.
    fn is_group(self) -> bool;
    /// Whether it is no address at all: 0.0.0.0, `::`.
    fn is_none(self) -> bool;
    /// The MAC that frames for a group go to (RFC 1112 6.4, RFC 2464 7).
    fn group_mac(self) -> Mac;
}

/// How old a message's version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// `IGMPv1` (RFC 1112).
    First,
    /// `IGMPv2` (RFC 2236), `MLDv1` (RFC 2710).
    Second,
    /// `IGMPv3` (RFC 9776), `MLDv2` (RFC 9777): with sources.
    Third,
}

/// A membership message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a, A: Address> {
    /// A router, or a switch in its place, asks who is in a group.
    Query(Query<'a, A>),
    /// A host is in a group.
    Report {
        /// Not [`Third`](Generation::Third).
        generation: Generation,
        /// The group.
        group: A,
    },
    /// A host, perhaps the last one, is in a group no more.
    Leave(A),
    /// What a host wants to hear from each of some groups: a report of the third generation.
    Records(Records<'a, A>),
}

/// A query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a, A: Address> {
    /// Of the querier.
    pub generation: Generation,
    /// The group asked for; `None`: all (a general query).
    pub group: Option<A>,
    /// The answer is due within this. Not zero.
    pub max_response: Duration,
    /// The sources asked for; none: all.
    pub sources: Sources<'a, A>,
    /// The querier's robustness variable, if it says so.
    pub robustness: Option<u8>,
    /// How often it asks, if it says so.
    pub interval: Option<Duration>,
}

/// What a group record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// The sources listed are wanted, and no others.
    IsInclude,
    /// All but those listed are wanted.
    IsExclude,
    /// From now on those listed, and no others; none listed: the host left.
    ToInclude,
    /// From now on all but those listed.
    ToExclude,
    /// Those listed too.
    Allow,
    /// Those listed no more.
    Block,
}

impl RecordKind {
    /// By its number (RFC 9776 4.2.12); `None`: "Unrecognized Record Type values MUST be silently ignored".
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::IsInclude,
            2 => Self::IsExclude,
            3 => Self::ToInclude,
            4 => Self::ToExclude,
            5 => Self::Allow,
            6 => Self::Block,
            _ => return None,
        })
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8 + 1
    }
}

/// A list of sources in a received message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sources<'a, A> {
    bytes: &'a [u8],
    family: PhantomData<A>,
}

impl<'a, A: Address> Sources<'a, A> {
    /// The first `count` addresses of `bytes`, and what follows them.
    pub(crate) fn split(bytes: &'a [u8], count: u16) -> Result<(Self, &'a [u8]), Malformed> {
        let len = usize::from(count) * A::BYTES;
        let (bytes, rest) = bytes.split_at_checked(len).ok_or(Malformed::Length)?;
        Ok((Self { bytes, family: PhantomData }, rest))
    }

    /// No sources.
    pub const NONE: Self = Self { bytes: &[], family: PhantomData };

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = A> + Clone + use<'a, A> {
        self.bytes.chunks_exact(A::BYTES).filter_map(A::read)
    }

    /// Whether `address` is among them.
    #[must_use]
    pub fn contains(&self, address: A) -> bool {
        self.iter().any(|source| source == address)
    }
}

impl<A: Address> fmt::Debug for Sources<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The group records of a received report, whose lengths are right.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Records<'a, A> {
    bytes: &'a [u8],
    count: u16,
    family: PhantomData<A>,
}

/// One group record of a received report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard<'a, A: Address> {
    /// What it says.
    pub kind: RecordKind,
    /// Of which group.
    pub group: A,
    /// And which sources.
    pub sources: Sources<'a, A>,
}

impl<'a, A: Address> Records<'a, A> {
    /// `count` records in `bytes`. What follows them is passed over (RFC 9776 4.2.11).
    pub(crate) fn parse(bytes: &'a [u8], count: u16) -> Result<Self, Malformed> {
        let mut rest = bytes;
        for _ in 0..count {
            (_, rest) = split_record::<A>(rest)?;
        }
        Ok(Self { bytes, count, family: PhantomData })
    }

    /// Each record of a known kind about a group.
    pub fn iter(&self) -> impl Iterator<Item = Heard<'a, A>> + use<'a, A> {
        let mut rest = self.bytes;
        (0..self.count)
            .map_while(move |_| {
                let (record, after) = split_record::<A>(rest).ok()?;
                rest = after;
                Some(record)
            })
            .flatten()
    }
}

impl<A: Address> fmt::Debug for Records<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The first record, unless it says nothing that we know, and what follows it.
fn split_record<A: Address>(bytes: &[u8]) -> Result<(Option<Heard<'_, A>>, &[u8]), Malformed> {
    let (&[kind, auxiliary, n0, n1], rest) = bytes.split_first_chunk::<4>().ok_or(Malformed::Length)?;
    let (group, rest) = rest.split_at_checked(A::BYTES).ok_or(Malformed::Length)?;
    let (sources, rest) = Sources::split(rest, u16::from_be_bytes([n0, n1]))?;
    let rest = rest.get(usize::from(auxiliary) * 4..).ok_or(Malformed::Length)?;
    let group = A::read(group).filter(|group| group.is_group());
    let heard = match (RecordKind::from_number(kind), group) {
        (Some(kind), Some(group)) => Some(Heard { kind, group, sources }),
        _ => None,
    };
    Ok((heard, rest))
}

/// A group record to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'s, A> {
    /// What it says.
    pub kind: RecordKind,
    /// Of which group.
    pub group: A,
    /// And which sources, at most 65,535.
    pub sources: &'s [A],
}

impl<A: Address> Record<'_, A> {
    /// Its bytes in a message.
    #[must_use]
    pub const fn len(&self) -> usize {
        4 + A::BYTES + self.sources.len() * A::BYTES
    }

    /// Never: it names a group.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    fn head(&self) -> [u8; 4] {
        let [n0, n1] = u16::try_from(self.sources.len()).unwrap_or(u16::MAX).to_be_bytes();
        [self.kind.number(), 0, n0, n1]
    }

    pub(crate) fn add_to(&self, sum: Sum) -> Sum {
        let sum = sum.add(&self.head()).add(self.group.octets().as_ref());
        self.sources.iter().fold(sum, |sum, source| sum.add(source.octets().as_ref()))
    }

    pub(crate) fn push_to(&self, out: &mut FrameBuf<'_>) {
        out.push(&self.head());
        out.push(self.group.octets().as_ref());
        self.sources.iter().for_each(|source| out.push(source.octets().as_ref()));
    }
}

/// Who sends a report: the station, its tags, and its own address or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reporter<A> {
    /// Its MAC.
    pub mac: Mac,
    /// Its VLAN.
    pub tags: crate::vlan::Tags,
    /// Its IPv4 address or 0.0.0.0 (RFC 9776 4.2.13), its link-local IPv6 address or `::` (RFC 9777 5.2.13).
    pub address: A,
}

/// A code of eight bits: up to 127 itself, else a mantissa of four bits and an exponent of three (RFC 9776
/// 4.1.1 and 4.1.7).
#[must_use]
pub(crate) const fn from_code8(code: u8) -> u32 {
    if code < 0x80 {
        return code as u32;
    }
    (code as u32 & 0x0f | 0x10) << ((code as u32 >> 4 & 7) + 3)
}

/// A code of sixteen bits: up to 32,767 itself, else a mantissa of twelve bits and an exponent of three
/// (RFC 9777 5.1.3).
#[must_use]
pub(crate) const fn from_code16(code: u16) -> u32 {
    if code < 0x8000 {
        return code as u32;
    }
    (code as u32 & 0x0fff | 0x1000) << ((code as u32 >> 12 & 7) + 3)
}

impl Address for Ipv4Addr {
    type Octets = [u8; 4];
    const BYTES: usize = 4;

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk::<4>().map(|octets| Self::from(*octets))
    }

    fn octets(self) -> [u8; 4] {
        Self::octets(&self)
    }

    fn is_group(self) -> bool {
        self.is_multicast()
    }

    fn is_none(self) -> bool {
        self.is_unspecified()
    }

    fn group_mac(self) -> Mac {
        let [_, b, c, d] = Self::octets(&self);
        Mac([0x01, 0, 0x5e, b & 0x7f, c, d])
    }
}

impl Address for Ipv6Addr {
    type Octets = [u8; 16];
    const BYTES: usize = 16;

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk::<16>().map(|octets| Self::from(*octets))
    }

    fn octets(self) -> [u8; 16] {
        Self::octets(&self)
    }

    fn is_group(self) -> bool {
        self.is_multicast()
    }

    fn is_none(self) -> bool {
        self.is_unspecified()
    }

    fn group_mac(self) -> Mac {
        let [.., a, b, c, d] = Self::octets(&self);
        Mac([0x33, 0x33, a, b, c, d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_below_the_bound_are_numbers_and_above_it_mantissa_and_exponent() {
        for (code, value) in
            [(0, 0), (100, 100), (127, 127), (128, 128), (0x8f, 248), (0x90, 256), (0xff, 31_744)]
        {
            assert_eq!(from_code8(code), value, "{code:#x}");
        }
        for (code, value) in [
            (0, 0),
            (0x7fff, 32_767),
            (0x8000, 32_768),
            (0x8fff, 65_528),
            (0x9000, 65_536),
            (0xffff, 8_387_584),
        ] {
            assert_eq!(from_code16(code), value, "{code:#x}");
        }
    }

    #[test]
    fn a_groups_frames_go_to_the_mac_made_of_its_last_bits() {
        let v4: Ipv4Addr = "239.129.2.3".parse().unwrap();
        assert_eq!(v4.group_mac(), Mac([1, 0, 0x5e, 1, 2, 3]));
        let v6: Ipv6Addr = "ff02::1:ff12:3456".parse().unwrap();
        assert_eq!(v6.group_mac(), Mac([0x33, 0x33, 0xff, 0x12, 0x34, 0x56]));
    }

    #[test]
    fn records_are_read_one_after_the_other_and_unknown_ones_passed_over() {
        let bytes = [
            &[4, 0, 0, 0, 239, 1, 1, 1][..],
            // An unknown kind, with auxiliary data.
            &[9, 1, 0, 0, 239, 1, 1, 2, 7, 7, 7, 7],
            // No group.
            &[4, 0, 0, 0, 192, 0, 2, 1],
            &[5, 0, 0, 2, 239, 1, 1, 3, 192, 0, 2, 1, 192, 0, 2, 2],
        ]
        .concat();
        let records = Records::<Ipv4Addr>::parse(&bytes, 4).unwrap();
        let read: Vec<_> =
            records.iter().map(|r| (r.kind, r.group.to_string(), r.sources.iter().count())).collect();
        assert_eq!(
            read,
            [
                (RecordKind::ToExclude, "239.1.1.1".to_owned(), 0),
                (RecordKind::Allow, "239.1.1.3".to_owned(), 2)
            ]
        );
        assert_eq!(Records::<Ipv4Addr>::parse(&bytes, 5), Err(Malformed::Length), "one more than there is");
        for cut in [3, 7, 19, bytes.len() - 1] {
            assert_eq!(Records::<Ipv4Addr>::parse(&bytes[..cut], 4), Err(Malformed::Length), "{cut}");
        }
    }

    #[test]
    fn kinds_have_the_numbers_of_the_standard() {
        for number in 1..=6 {
            assert_eq!(RecordKind::from_number(number).map(RecordKind::number), Some(number));
        }
        assert_eq!((RecordKind::from_number(0), RecordKind::from_number(7)), (None, None));
        assert_eq!(RecordKind::IsExclude.number(), 2);
    }
}
