//! NetBIOS names and the packets of their name service (RFC 1001 14, RFC 1002 4.2).
//!
//! A name is 16 bytes, the last one a suffix that says what it is for; on the wire each half byte becomes a
//! letter ("first-level encoding"). The packets are DNS messages with opcodes and types of their own. Names
//! with a scope are not read: who uses scopes is not asked for by others.

use core::net::Ipv4Addr;

use crate::dns::{self, Message, Record, Section, flag};
use crate::malformed::Malformed;

/// Type of a name's record.
pub const NB: u16 = 0x20;
/// Type of a node's status.
pub const NBSTAT: u16 = 0x21;

/// Operations.
pub mod opcode {
    /// Who has this name?
    pub const QUERY: u8 = 0;
    /// I want this name.
    pub const REGISTRATION: u8 = 5;
    /// I give this name up.
    pub const RELEASE: u8 = 6;
    /// Wait.
    pub const WACK: u8 = 7;
    /// I still have this name.
    pub const REFRESH: u8 = 8;
    /// The same, as some write it (RFC 1002 4.2.4 gives 9 in the picture and 8 in the list).
    pub const REFRESH_ALSO: u8 = 9;
    /// I have this name with several addresses.
    pub const MULTIHOMED: u8 = 15;
}

/// The broadcast bit of the second word.
pub const BROADCAST: u16 = 0x0010;
/// In the flags of a name: a group's, not one node's.
pub const GROUP: u16 = 0x8000;
/// In the flags of a name: the node's type.
pub const NODE_TYPE: u16 = 0x6000;
/// In the flags of a node's status: the name is registered.
pub const ACTIVE: u16 = 0x0400;
/// Response code: another node has it.
pub const ACTIVE_ERROR: u16 = 6;

/// A name with its suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub [u8; 16]);

/// A packet of the name service.
#[derive(Clone, Copy, Debug)]
pub struct Netbios<'a> {
    /// Identification.
    pub id: u16,
    /// The second word.
    pub flags: u16,
    /// What is to be done, see [`opcode`].
    pub opcode: u8,
    /// The name that it is about.
    pub name: Name,
    /// [`NB`] or [`NBSTAT`].
    pub kind: u16,
    /// What a response, registration, refresh or release says of the name.
    pub record: Option<Record<'a>>,
}

impl Name {
    /// What a node's status is asked for with.
    pub const WILDCARD: Self = Self(*b"*\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");

    /// `text` padded with spaces, with `suffix`; `None` if it is longer than 15 bytes.
    #[must_use]
    pub fn new(text: &str, suffix: u8) -> Option<Self> {
        let mut name = [b' '; 16];
        name.get_mut(..text.len()).filter(|to| to.len() < 16)?.copy_from_slice(text.as_bytes());
        if let Some(last) = name.last_mut() {
            *last = suffix;
        }
        Some(Self(name))
    }

    /// In wire form, first-level encoded, without scope.
    #[must_use]
    pub fn wire(&self) -> [u8; 34] {
        let mut wire = [0; 34];
        let letters = self.0.iter().flat_map(|byte| [b'A' + (byte >> 4), b'A' + (byte & 0x0f)]);
        for (to, byte) in wire.iter_mut().zip(core::iter::once(32).chain(letters)) {
            *to = byte;
        }
        wire
    }

    /// Decodes the one label of `name`.
    #[must_use]
    pub fn read(name: &dns::Name<'_>) -> Option<Self> {
        let mut labels = name.labels();
        let label: &[u8; 32] = labels.next()?.try_into().ok()?;
        if labels.next().is_some() {
            return None;
        }
        let mut bytes = [0; 16];
        let (pairs, _) = label.as_chunks::<2>();
        for (to, [high, low]) in bytes.iter_mut().zip(pairs) {
            *to = half(*high)? << 4 | half(*low)?;
        }
        Some(Self(bytes))
    }
}

const fn half(letter: u8) -> Option<u8> {
    match letter {
        b'A'..=b'P' => Some(letter - b'A'),
        _ => None,
    }
}

impl<'a> Netbios<'a> {
    /// Reads the payload of a datagram.
    ///
    /// # Errors
    /// As [`Message::parse`]; [`Malformed::Header`] also if it is not about one name without scope.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let message = Message::parse(bytes)?;
        let is_response = message.is_response();
        // A response has the name in its answer, a registration what it wants in an additional record.
        let record = message
            .records()
            .find(|(section, _)| *section == if is_response { Section::Answer } else { Section::Additional })
            .map(|(_, record)| record);
        let question = message.questions().next();
        let (name, kind) = match (is_response, &question, &record) {
            (false, Some(question), _) => (question.name, question.kind),
            (true, _, Some(record)) => (record.name, record.kind),
            _ => return Err(Malformed::Header),
        };
        let name = Name::read(&name).ok_or(Malformed::Header)?;
        Ok(Self { id: message.id, flags: message.flags, opcode: message.opcode(), name, kind, record })
    }

    /// Whether it is a response.
    #[must_use]
    pub const fn is_response(&self) -> bool {
        self.flags & flag::RESPONSE != 0
    }

    /// The response code.
    #[must_use]
    pub const fn rcode(&self) -> u16 {
        self.flags & 0x0f
    }

    /// Flags and address of each node that it names, of a record of type [`NB`].
    pub fn nodes(&self) -> impl Iterator<Item = (u16, Ipv4Addr)> + use<'a> {
        let data = self.record.filter(|record| record.kind == NB).map_or(&[][..], |record| record.data);
        let (nodes, _) = data.as_chunks::<6>();
        nodes.iter().map(|&[f0, f1, a, b, c, d]| (u16::from_be_bytes([f0, f1]), Ipv4Addr::new(a, b, c, d)))
    }

    /// The names in a node's status with their flags.
    pub fn status(&self) -> impl Iterator<Item = (Name, u16)> + use<'a> {
        let data = self.record.filter(|record| record.kind == NBSTAT).map_or(&[][..], |record| record.data);
        let (count, names) = data.split_first().map_or((0, &[][..]), |(count, names)| (*count, names));
        let (names, _) = names.as_chunks::<18>();
        names.iter().take(usize::from(count)).filter_map(|entry| {
            let (name, flags) = entry.split_first_chunk::<16>()?;
            Some((Name(*name), u16::from_be_bytes(flags.try_into().ok()?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A broadcast query for WORKGROUP<1c>, as Windows sends it.
    const QUERY: &[u8] =
        b"\x80\x53\x01\x10\0\x01\0\0\0\0\0\0\x20FHEPFCELEHFCEPFFFACACACACACACABM\0\0\x20\0\x01";

    fn registration() -> Vec<u8> {
        let name = Name::new("PRINTER", 0x20).unwrap();
        let rest = b"\0\x20\0\x01\xc0\x0c\0\x20\0\x01\0\x04\x93\xe0\0\x06\0\0\xc0\0\x02\x0b";
        [b"\0\x07\x29\x10\0\x01\0\0\0\0\0\x01", &name.wire()[..], rest].concat()
    }

    #[test]
    fn a_query_is_read() {
        let query = Netbios::parse(QUERY).unwrap();
        assert_eq!(query.name, Name(*b"WORKGROUP      \x1c"));
        assert_eq!((query.id, query.opcode, query.kind), (0x8053, opcode::QUERY, NB));
        assert!(!query.is_response() && query.flags & BROADCAST != 0 && query.nodes().next().is_none());
    }

    #[test]
    fn a_registration_says_which_address_wants_the_name() {
        let bytes = registration();
        let wish = Netbios::parse(&bytes).unwrap();
        assert_eq!((wish.opcode, wish.name), (opcode::REGISTRATION, Name(*b"PRINTER        \x20")));
        assert_eq!(wish.nodes().collect::<Vec<_>>(), [(0, Ipv4Addr::new(192, 0, 2, 11))]);
    }

    #[test]
    fn a_nodes_status_lists_its_names() {
        let entry = |name: Name, flags: [u8; 2]| [&name.0[..], &flags].concat();
        let names = [
            entry(Name::new("PRINTER", 0).unwrap(), [4, 0]),
            entry(Name::new("WORKGROUP", 0).unwrap(), [0x84, 0]),
        ]
        .concat();
        let data = [&[2][..], &names, &[0; 46]].concat();
        let mut memory = [0; 300];
        let mut out = dns::Writer::new(&mut memory, 1, 0x8400).unwrap();
        let data = dns::Data { before: &data, ..dns::Data::default() };
        assert!(out.record(Section::Answer, &Name::WILDCARD.wire(), NBSTAT, dns::IN, 0, &data));
        let status = Netbios::parse(out.finish()).unwrap();
        assert_eq!(status.name, Name::WILDCARD);
        let listed: Vec<_> = status.status().collect();
        assert_eq!(listed, [(Name(*b"PRINTER        \0"), 0x0400), (Name(*b"WORKGROUP      \0"), 0x8400)]);
    }

    #[test]
    fn names_with_a_scope_or_other_letters_are_refused() {
        let mut scoped = QUERY.to_vec();
        scoped.splice(45..46, *b"\x02ab\0");
        assert_eq!(Netbios::parse(&scoped).err(), Some(Malformed::Header));
        let mut odd = QUERY.to_vec();
        odd[13] = b'Q';
        assert_eq!(Netbios::parse(&odd).err(), Some(Malformed::Header));
        assert_eq!(Netbios::parse(b"\0\0\0\0\0\0\0\0\0\0\0\0").err(), Some(Malformed::Header), "no name");
        assert_eq!(Name::new("SIXTEEN-BYTES-OK", 0), None);
        assert_eq!(Name::new("FIFTEEN-BYTES-O", 0x20), Some(Name(*b"FIFTEEN-BYTES-O\x20")));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(bytes: [u8; 16]) {
            let mut memory = [0; 60];
            let mut out = dns::Writer::new(&mut memory, 0, 0).unwrap();
            out.question(&Name(bytes).wire(), NB, dns::IN);
            let read = Netbios::parse(out.finish()).map(|read| read.name);
            prop_assert_eq!(read, Ok(Name(bytes)));
        }

        #[test]
        fn no_bytes_make_it_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8), cut in 0usize..80,
        ) {
            for bytes in [QUERY.to_vec(), registration()] {
                let mut bytes = bytes;
                for (at, byte) in &changes {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
                bytes.truncate(bytes.len() - cut.min(bytes.len()));
                if let Ok(read) = Netbios::parse(&bytes) {
                    prop_assert!(read.nodes().count() <= bytes.len() && read.status().count() <= 255);
                }
            }
        }
    }
}
