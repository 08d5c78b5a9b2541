//! DNS messages as names on the link use them (RFC 1035 4; RFC 6762, RFC 4795, RFC 1002).
//!
//! A [`Message`] is walked whole before anything is read from it, so that what comes after knows that each
//! name ends, each record lies inside, and the counts are true. Pointers must go backwards, and only so
//! often: a name cannot loop. Names are compared without regard to ASCII case. A [`Writer`] writes the
//! few messages that a stand-in sends, each record whole or not at all.

use core::net::IpAddr;

use crate::malformed::Malformed;

/// Bytes of the header.
pub const HEADER: usize = 12;
/// Longest name, in wire form with its root.
pub const MAX_NAME: usize = 255;
/// Longest name that [`reverse`] gives.
pub const MAX_REVERSE: usize = 74;
/// Longest message: "the absolute maximum message size" of multicast DNS (RFC 6762 17).
pub const MAX_MESSAGE: usize = 9_000;

/// Record types with a meaning here.
pub mod kind {
    /// IPv4 address.
    pub const A: u16 = 1;
    /// Name server.
    pub const NS: u16 = 2;
    /// Another name for it.
    pub const CNAME: u16 = 5;
    /// Pointer to another name.
    pub const PTR: u16 = 12;
    /// Machine and system.
    pub const HINFO: u16 = 13;
    /// Mail exchanger.
    pub const MX: u16 = 15;
    /// Text.
    pub const TXT: u16 = 16;
    /// IPv6 address.
    pub const AAAA: u16 = 28;
    /// Where a service is (RFC 2782).
    pub const SRV: u16 = 33;
    /// Another name for all below it.
    pub const DNAME: u16 = 39;
    /// Extension of the message itself.
    pub const OPT: u16 = 41;
    /// Which types there are (RFC 4034).
    pub const NSEC: u16 = 47;
    /// In a question: all there are.
    pub const ANY: u16 = 255;
}

/// Class IN.
pub const IN: u16 = 1;
/// In a question: any class.
pub const ANY_CLASS: u16 = 255;
/// The top bit of a class: unicast answer welcome in a question, cache flush in a record (RFC 6762 18.12,
/// 18.13).
pub const TOP_BIT: u16 = 0x8000;

/// Bits of the second word.
pub mod flag {
    /// A response.
    pub const RESPONSE: u16 = 0x8000;
    /// The responder owns the name. In LLMNR: conflict.
    pub const AUTHORITATIVE: u16 = 0x0400;
    /// There is more.
    pub const TRUNCATED: u16 = 0x0200;
    /// Recursion desired. In LLMNR of a response: tentative.
    pub const RECURSION_DESIRED: u16 = 0x0100;
}

/// Part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// What is asked.
    Question,
    /// Answers; in a query of multicast DNS what the asker knows already.
    Answer,
    /// Authority; in a query of multicast DNS what a probe wants to claim.
    Authority,
    /// Additional records.
    Additional,
}

/// A whole message, walked once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    bytes: &'a [u8],
    /// Identification.
    pub id: u16,
    /// The second word, see [`flag`].
    pub flags: u16,
    counts: [u16; 4],
    /// Where the records begin.
    records_at: usize,
}

/// A name in a message, compressed or not.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    message: &'a [u8],
    at: usize,
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What is asked about.
    pub name: Name<'a>,
    /// The type asked for.
    pub kind: u16,
    /// The class without its top bit.
    pub class: u16,
    /// The top bit: an answer by unicast is welcome (RFC 6762 5.4).
    pub unicast: bool,
}

/// A resource record.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Whose it is.
    pub name: Name<'a>,
    /// Its type.
    pub kind: u16,
    /// The class without its top bit.
    pub class: u16,
    /// The top bit: there are no others of this name, type and class (RFC 6762 10.2).
    pub flush: bool,
    /// Time to live in seconds.
    pub ttl: u32,
    /// Its data as it stands in the message.
    pub data: &'a [u8],
    data_at: usize,
}

impl<'a> Message<'a> {
    /// Reads the payload of a datagram; bytes behind the last record are passed over.
    ///
    /// # Errors
    /// [`Malformed::Length`] if it is longer than [`MAX_MESSAGE`] or ends before what it says is in it,
    /// [`Malformed::Header`] if a name has a label of unknown kind, is too long, or a pointer in it does not
    /// go back.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let head = bytes.first_chunk::<HEADER>().ok_or(Malformed::Length)?;
        if bytes.len() > MAX_MESSAGE {
            return Err(Malformed::Length);
        }
        let [i0, i1, f0, f1, q0, q1, a0, a1, n0, n1, r0, r1] = *head;
        let counts = [[q0, q1], [a0, a1], [n0, n1], [r0, r1]].map(u16::from_be_bytes);
        let [questions, answers, authorities, additional] = counts.map(usize::from);
        let mut at = HEADER;
        for _ in 0..questions {
            at = question_at(bytes, at)?.1;
        }
        let records_at = at;
        for _ in 0..answers + authorities + additional {
            at = record_at(bytes, at)?.1;
        }
        let [id, flags] = [[i0, i1], [f0, f1]].map(u16::from_be_bytes);
        Ok(Self { bytes, id, flags, counts, records_at })
    }

    /// Whether it is a response.
    #[must_use]
    pub const fn is_response(&self) -> bool {
        self.flags & flag::RESPONSE != 0
    }

    /// The kind of query.
    #[must_use]
    pub const fn opcode(&self) -> u8 {
        (self.flags >> 11) as u8 & 0x0f
    }

    /// The response code.
    #[must_use]
    pub const fn rcode(&self) -> u8 {
        self.flags as u8 & 0x0f
    }

    /// How many there are in a section.
    #[must_use]
    pub fn count(&self, section: Section) -> u16 {
        self.counts.get(section as usize).copied().unwrap_or(0)
    }

    /// The questions in order.
    pub fn questions(&self) -> impl Iterator<Item = Question<'a>> + use<'a> {
        let bytes = self.bytes;
        let mut at = HEADER;
        (0..self.count(Section::Question)).map_while(move |_| {
            let (question, end) = question_at(bytes, at).ok()?;
            at = end;
            Some(question)
        })
    }

    /// The records of all sections in order.
    pub fn records(&self) -> impl Iterator<Item = (Section, Record<'a>)> + use<'a> {
        let [_, answers, authorities, additional] = self.counts.map(usize::from);
        let bytes = self.bytes;
        let mut at = self.records_at;
        (0..answers + authorities + additional).map_while(move |n| {
            let (record, end) = record_at(bytes, at).ok()?;
            at = end;
            let section = if n < answers {
                Section::Answer
            } else if n < answers + authorities {
                Section::Authority
            } else {
                Section::Additional
            };
            Some((section, record))
        })
    }
}

impl<'a> Name<'a> {
    /// The labels without their lengths, the root left out.
    #[must_use]
    pub const fn labels(&self) -> Labels<'a> {
        Labels { message: self.message, at: self.at, below: self.at, jumps: 0, length: 1 }
    }

    /// Whether it is the name `wire`, which is uncompressed; ASCII case does not matter.
    #[must_use]
    pub fn is(&self, wire: &[u8]) -> bool {
        let mut rest = wire;
        for label in self.labels() {
            let Some((own, tail)) = split_label(rest) else { return false };
            if !own.eq_ignore_ascii_case(label) {
                return false;
            }
            rest = tail;
        }
        rest == [0]
    }

    /// Writes it uncompressed.
    pub fn write<'b>(&self, out: &'b mut [u8; MAX_NAME]) -> &'b [u8] {
        let mut len = 0;
        for label in self.labels() {
            let head = u8::try_from(label.len()).unwrap_or(0);
            let Some(to) = out.get_mut(len..=len + label.len()) else { break };
            let Some((first, rest)) = to.split_first_mut() else { break };
            *first = head;
            rest.copy_from_slice(label);
            len += 1 + label.len();
        }
        // A read name has room for its root.
        if let Some(root) = out.get_mut(len) {
            *root = 0;
            len += 1;
        }
        out.get(..len).unwrap_or_default()
    }
}

/// See [`Name::labels`].
#[derive(Clone, Debug)]
pub struct Labels<'a> {
    message: &'a [u8],
    at: usize,
    /// Pointers must go below this.
    below: usize,
    jumps: usize,
    /// Bytes of the name so far, in wire form with its root.
    length: usize,
}

impl<'a> Labels<'a> {
    /// The next label, `None` at the root.
    fn step(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        loop {
            let &head = self.message.get(self.at).ok_or(Malformed::Length)?;
            match head {
                0 => return Ok(None),
                1..=63 => {
                    let begin = self.at + 1;
                    let end = begin + usize::from(head);
                    let label = self.message.get(begin..end).ok_or(Malformed::Length)?;
                    self.at = end;
                    self.length += 1 + label.len();
                    return if self.length > MAX_NAME { Err(Malformed::Header) } else { Ok(Some(label)) };
                }
                0xc0.. => {
                    let &low = self.message.get(self.at + 1).ok_or(Malformed::Length)?;
                    let to = usize::from(u16::from_be_bytes([head & 0x3f, low]));
                    if to >= self.below || self.jumps == JUMPS {
                        return Err(Malformed::Header);
                    }
                    self.jumps += 1;
                    self.below = to;
                    self.at = to;
                }
                _ => return Err(Malformed::Header),
            }
        }
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.step().ok().flatten()
    }
}

impl<'a> Record<'a> {
    /// The name in its data and what stands before that, for the types whose data ends in one: PTR, CNAME,
    /// NS, DNAME, MX and SRV. `None` for others, and if the data is not exactly that.
    #[must_use]
    pub fn target(&self) -> Option<(&'a [u8], Name<'a>)> {
        let before = target_offset(self.kind)?;
        let end = self.data_at + self.data.len();
        let message = self.name.message.get(..end)?;
        let (name, after) = name_at(message, self.data_at.checked_add(before)?).ok()?;
        Some((self.data.get(..before)?, name)).filter(|_| after == end)
    }

    /// Whether its data, names uncompressed, is `data`; ASCII case of names does not matter.
    #[must_use]
    pub fn has_data(&self, data: &[u8]) -> bool {
        match self.target() {
            Some((before, name)) => {
                data.split_at_checked(before.len()).is_some_and(|(own, rest)| own == before && name.is(rest))
            }
            None => self.data == data,
        }
    }
}

/// Where in the data of a record of this type a name stands that ends it.
#[must_use]
pub const fn target_offset(kind: u16) -> Option<usize> {
    match kind {
        kind::PTR | kind::CNAME | kind::NS | kind::DNAME => Some(0),
        kind::MX => Some(2),
        kind::SRV => Some(6),
        _ => None,
    }
}

/// Whether `wire` is one whole uncompressed name.
#[must_use]
pub fn is_name(wire: &[u8]) -> bool {
    let mut rest = wire;
    while let Some((label, tail)) = split_label(rest) {
        if label.is_empty() {
            return tail.is_empty() && wire.len() <= MAX_NAME;
        }
        rest = tail;
    }
    false
}

/// The first label of an uncompressed name, empty for the root, and what follows.
#[must_use]
pub fn split_label(wire: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = wire.split_first()?;
    if len > 63 { None } else { rest.split_at_checked(usize::from(len)) }
}

/// The name under which an address is looked up, in wire form (RFC 1035 3.5, RFC 3596 2.5).
pub fn reverse(address: IpAddr, out: &mut [u8; MAX_REVERSE]) -> &[u8] {
    let mut len = 0;
    let mut put = |part: &[u8]| {
        if let Some(to) = out.get_mut(len..len + part.len()) {
            to.copy_from_slice(part);
            len += part.len();
        }
    };
    match address {
        IpAddr::V4(v4) => {
            for byte in v4.octets().into_iter().rev() {
                let digits = [byte / 100, byte / 10 % 10, byte % 10].map(|digit| b'0' + digit);
                let [hundreds, tens, ones] = digits;
                match byte {
                    100.. => put(&[3, hundreds, tens, ones]),
                    10.. => put(&[2, tens, ones]),
                    _ => put(&[1, ones]),
                }
            }
            put(b"\x07in-addr\x04arpa\0");
        }
        IpAddr::V6(v6) => {
            let hex = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
            for byte in v6.octets().into_iter().rev() {
                put(&[1, hex(byte & 0x0f), 1, hex(byte >> 4)]);
            }
            put(b"\x03ip6\x04arpa\0");
        }
    }
    out.get(..len).unwrap_or_default()
}

/// Whether `wire` is the name of an address, as [`reverse`] gives it.
#[must_use]
pub fn is_reverse(wire: &[u8]) -> bool {
    let ends = |end: &[u8]| {
        wire.len()
            .checked_sub(end.len())
            .and_then(|at| wire.get(at..))
            .is_some_and(|w| w.eq_ignore_ascii_case(end))
    };
    ends(b"\x07in-addr\x04arpa\0") || ends(b"\x03ip6\x04arpa\0")
}

fn question_at(bytes: &[u8], at: usize) -> Result<(Question<'_>, usize), Malformed> {
    let (name, at) = name_at(bytes, at)?;
    let fixed = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or(Malformed::Length)?;
    let [k0, k1, c0, c1] = *fixed;
    let [kind, class] = [[k0, k1], [c0, c1]].map(u16::from_be_bytes);
    Ok((Question { name, kind, class: class & !TOP_BIT, unicast: class & TOP_BIT != 0 }, at + 4))
}

fn record_at(bytes: &[u8], at: usize) -> Result<(Record<'_>, usize), Malformed> {
    let (name, at) = name_at(bytes, at)?;
    let fixed = bytes.get(at..).and_then(|rest| rest.first_chunk::<10>()).ok_or(Malformed::Length)?;
    let [k0, k1, c0, c1, t0, t1, t2, t3, l0, l1] = *fixed;
    let [kind, class, len] = [[k0, k1], [c0, c1], [l0, l1]].map(u16::from_be_bytes);
    let data_at = at + 10;
    let end = data_at + usize::from(len);
    let data = bytes.get(data_at..end).ok_or(Malformed::Length)?;
    let ttl = u32::from_be_bytes([t0, t1, t2, t3]);
    let record =
        Record { name, kind, class: class & !TOP_BIT, flush: class & TOP_BIT != 0, ttl, data, data_at };
    Ok((record, end))
}

/// The name at `at`, followed to its root, and where what comes behind it begins.
fn name_at(message: &[u8], at: usize) -> Result<(Name<'_>, usize), Malformed> {
    let name = Name { message, at };
    let mut labels = name.labels();
    let mut end = at;
    while labels.step()?.is_some() {
        if labels.jumps == 0 {
            end = labels.at;
        }
    }
    Ok((name, end + if labels.jumps == 0 { 1 } else { 2 }))
}

/// Pointers that are followed in one name.
const JUMPS: usize = 16;

/// A message being written into borrowed memory, names compressed where that may be.
#[derive(Debug)]
pub struct Writer<'b> {
    bytes: &'b mut [u8],
    len: usize,
    counts: [u16; 4],
    /// Where labels stand that a later name may point at.
    known: [u16; KNOWN],
    known_len: usize,
}

/// The data of a record to be written: bytes, perhaps a name, and bytes behind it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Data<'d> {
    /// Before the name, or all.
    pub before: &'d [u8],
    /// An uncompressed name.
    pub name: Option<&'d [u8]>,
    /// Whether the name may be compressed: receivers must know the type (RFC 3597 4, RFC 6762 18.14).
    pub compress: bool,
    /// Behind the name.
    pub after: &'d [u8],
}

impl<'b> Writer<'b> {
    /// A message without anything in it that may grow as long as `bytes`; `None` if not even the header fits.
    pub fn new(bytes: &'b mut [u8], id: u16, flags: u16) -> Option<Self> {
        let head = bytes.first_chunk_mut::<HEADER>()?;
        let [i0, i1] = id.to_be_bytes();
        let [f0, f1] = flags.to_be_bytes();
        *head = [i0, i1, f0, f1, 0, 0, 0, 0, 0, 0, 0, 0];
        Some(Self { bytes, len: HEADER, counts: [0; 4], known: [0; KNOWN], known_len: 0 })
    }

    /// Adds a question; `false` if it does not fit. `name` is uncompressed.
    pub fn question(&mut self, name: &[u8], kind: u16, class: u16) -> bool {
        self.whole(Section::Question, |this| {
            this.name(name, true)?;
            this.word(kind)?;
            this.word(class)
        })
    }

    /// Adds a record; `false`, and nothing is added, if it does not fit. `name` is uncompressed. Sections
    /// are written in their order.
    pub fn record(
        &mut self,
        section: Section,
        name: &[u8],
        kind: u16,
        class: u16,
        ttl: u32,
        data: &Data<'_>,
    ) -> bool {
        self.whole(section, |this| {
            this.name(name, true)?;
            this.word(kind)?;
            this.word(class)?;
            this.push(&ttl.to_be_bytes())?;
            let len_at = this.len;
            this.word(0)?;
            this.push(data.before)?;
            if let Some(name) = data.name {
                this.name(name, data.compress)?;
            }
            this.push(data.after)?;
            let len = u16::try_from(this.len - len_at - 2).ok()?;
            this.bytes.get_mut(len_at..len_at + 2)?.copy_from_slice(&len.to_be_bytes());
            Some(())
        })
    }

    /// How many there are in a section.
    #[must_use]
    pub fn count(&self, section: Section) -> u16 {
        self.counts.get(section as usize).copied().unwrap_or(0)
    }

    /// The message as it is so far.
    pub fn finish(&mut self) -> &[u8] {
        let counts = self.counts;
        if let Some(to) = self.bytes.get_mut(4..HEADER) {
            for (to, count) in to.chunks_exact_mut(2).zip(counts) {
                to.copy_from_slice(&count.to_be_bytes());
            }
        }
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn whole(&mut self, section: Section, write: impl FnOnce(&mut Self) -> Option<()>) -> bool {
        let (len, known_len) = (self.len, self.known_len);
        let count = self.count(section).checked_add(1);
        match (write(self), count, self.counts.get_mut(section as usize)) {
            (Some(()), Some(more), Some(count)) => {
                *count = more;
                true
            }
            _ => {
                (self.len, self.known_len) = (len, known_len);
                false
            }
        }
    }

    fn name(&mut self, wire: &[u8], compress: bool) -> Option<()> {
        let mut rest = wire;
        loop {
            let (label, tail) = split_label(rest)?;
            if label.is_empty() {
                return self.push(&[0]);
            }
            if compress && let Some(at) = self.known_at(rest) {
                return self.word(0xc000 | at);
            }
            if let Ok(at) = u16::try_from(self.len)
                && at < 0xc000 >> 2
                && let Some(slot) = self.known.get_mut(self.known_len)
            {
                *slot = at;
                self.known_len += 1;
            }
            self.push(rest.get(..=label.len())?)?;
            rest = tail;
        }
    }

    /// Where `wire` stands already. With its case: "the case of names must be preserved" (RFC 6762 16).
    fn known_at(&self, wire: &[u8]) -> Option<u16> {
        let written = self.bytes.get(..self.len)?;
        let mut known = self.known.get(..self.known_len)?.iter().copied();
        known.find(|at| {
            let mut labels = Name { message: written, at: usize::from(*at) }.labels();
            let mut rest = wire;
            loop {
                match (labels.step(), split_label(rest)) {
                    (Ok(Some(label)), Some((own, tail))) if own == label => rest = tail,
                    (Ok(None), _) => return rest == [0],
                    // The name that is being written has no end yet, and none points into itself.
                    _ => return false,
                }
            }
        })
    }

    fn word(&mut self, word: u16) -> Option<()> {
        self.push(&word.to_be_bytes())
    }

    fn push(&mut self, part: &[u8]) -> Option<()> {
        let end = self.len.checked_add(part.len())?;
        self.bytes.get_mut(self.len..end)?.copy_from_slice(part);
        self.len = end;
        Some(())
    }
}

/// Labels that are remembered while a message is written.
const KNOWN: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PRINTER: &[u8] = b"\x07printer\x05local\0";
    const HTTP: &[u8] = b"\x05_http\x04_tcp\x05local\0";

    fn text(name: &Name<'_>) -> String {
        name.labels().map(|label| String::from_utf8_lossy(label).into_owned()).collect::<Vec<_>>().join(".")
    }

    fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut memory = [0xee; 512];
        let mut writer = Writer::new(&mut memory, 7, 0x8400).unwrap();
        write(&mut writer);
        writer.finish().to_vec()
    }

    #[test]
    fn a_query_of_two_questions_is_read() {
        // From a printer dialogue: both names share "_tcp.local".
        let bytes = b"\0\0\0\0\0\x02\0\0\0\0\0\0\x04_ipp\x04_tcp\x05local\0\0\x0c\0\x01\x05_ipps\xc0\x11\0\x0c\x80\x01";
        let message = Message::parse(bytes).unwrap();
        let questions: Vec<_> = message.questions().collect();
        assert_eq!(
            questions.iter().map(|q| text(&q.name)).collect::<Vec<_>>(),
            ["_ipp._tcp.local", "_ipps._tcp.local"]
        );
        assert_eq!((questions[0].kind, questions[0].class, questions[0].unicast), (kind::PTR, IN, false));
        assert!(questions[1].unicast);
        assert_eq!((message.is_response(), message.records().count()), (false, 0));
    }

    #[test]
    fn what_is_written_is_read_back_and_names_are_written_once() {
        let srv = [&[0, 0, 0, 0, 0, 80][..], PRINTER].concat();
        let bytes = written(|out| {
            assert!(out.question(HTTP, kind::PTR, IN));
            let instance = Data {
                name: Some(b"\x05Laser\x05_http\x04_tcp\x05local\0"),
                compress: true,
                ..Data::default()
            };
            assert!(out.record(Section::Answer, HTTP, kind::PTR, IN, 4500, &instance));
            let (before, name) = srv.split_at(6);
            let at = Data { before, name: Some(name), compress: true, after: &[] };
            let instance = b"\x05Laser\x05_http\x04_tcp\x05local\0";
            assert!(out.record(Section::Additional, instance, kind::SRV, IN | TOP_BIT, 120, &at));
            let address = Data { before: &[192, 0, 2, 11], ..Data::default() };
            assert!(out.record(Section::Additional, PRINTER, kind::A, IN | TOP_BIT, 120, &address));
        });
        let message = Message::parse(&bytes).unwrap();
        let records: Vec<_> = message.records().collect();
        assert_eq!(
            records.iter().map(|(s, r)| (*s, text(&r.name), r.kind, r.flush, r.ttl)).collect::<Vec<_>>(),
            [
                (Section::Answer, "_http._tcp.local".to_owned(), kind::PTR, false, 4500),
                (Section::Additional, "Laser._http._tcp.local".to_owned(), kind::SRV, true, 120),
                (Section::Additional, "printer.local".to_owned(), kind::A, true, 120),
            ]
        );
        assert!(records[1].1.has_data(&srv) && records[2].1.has_data(&[192, 0, 2, 11]));
        assert!(records[1].1.has_data(&srv.to_ascii_uppercase()), "case of a name does not matter");
        let times = |needle: &[u8]| bytes.windows(needle.len()).filter(|w| *w == needle).count();
        assert_eq!((times(b"\x05local"), times(b"\x04_tcp"), times(b"\x07printer")), (1, 1, 1));
    }

    #[test]
    fn a_record_that_does_not_fit_is_left_out_whole() {
        let mut memory = [0; 40];
        let mut out = Writer::new(&mut memory, 0, 0).unwrap();
        assert!(out.question(PRINTER, kind::A, IN));
        let before = out.finish().to_vec();
        assert!(!out.record(
            Section::Answer,
            PRINTER,
            kind::A,
            IN,
            1,
            &Data { before: &[0; 4], ..Data::default() }
        ));
        assert_eq!(out.finish(), before);
    }

    #[test]
    fn pointers_go_back_or_nowhere() {
        let with = |name: &[u8]| [&[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], name, &[0, 1, 0, 1]].concat();
        for (name, why) in [
            (&b"\xc0\x0c"[..], Malformed::Header),
            (b"\xc0\x0e", Malformed::Header),
            (b"\x01a\xc0\x0c", Malformed::Header),
            (b"\x40a\0", Malformed::Header),
            (b"\x80a\0", Malformed::Header),
            (b"\x3fa", Malformed::Length),
        ] {
            assert_eq!(Message::parse(&with(name)), Err(why), "{name:x?}");
        }
        // Into the header: backwards, and a name of zeros is the root.
        assert!(Message::parse(&with(b"\xc0\x08")).is_ok());
        assert_eq!(Message::parse(&with(&[b"\x01a".repeat(128), vec![0]].concat())), Err(Malformed::Header));
        assert!(Message::parse(&with(&[b"\x01a".repeat(127), vec![0]].concat())).is_ok());
    }

    #[test]
    fn a_name_is_compared_whole_and_without_case() {
        let bytes = written(|out| assert!(out.question(PRINTER, kind::A, IN)));
        let message = Message::parse(&bytes).unwrap();
        let name = message.questions().next().unwrap().name;
        assert!(name.is(PRINTER) && name.is(b"\x07PRINTER\x05Local\0"));
        for other in [&b"\x07printer\0"[..], b"\x07printer\x05local\x01a\0", b"\x07Printer\x05local", b""] {
            assert!(!name.is(other), "{other:?}");
        }
        let mut memory = [0; MAX_NAME];
        assert_eq!(name.write(&mut memory), PRINTER);
    }

    #[test]
    fn counts_that_are_untrue_and_long_messages_are_refused() {
        let mut bytes = written(|out| assert!(out.question(PRINTER, kind::A, IN)));
        bytes[7] = 1;
        assert_eq!(Message::parse(&bytes), Err(Malformed::Length));
        assert_eq!(Message::parse(&vec![0; MAX_MESSAGE + 1]), Err(Malformed::Length));
        assert_eq!(Message::parse(&[0; 11]), Err(Malformed::Length));
    }

    #[test]
    fn a_target_fills_its_data() {
        let record = |data: &[u8]| {
            let bytes = written(|out| {
                assert!(out.record(
                    Section::Answer,
                    HTTP,
                    kind::PTR,
                    IN,
                    1,
                    &Data { before: data, ..Data::default() }
                ));
            });
            Message::parse(&bytes).unwrap().records().next().unwrap().1.target().map(|(_, name)| text(&name))
        };
        assert_eq!(record(PRINTER), Some("printer.local".to_owned()));
        assert_eq!(record(b"\x01a\xc0\x0c"), Some("a._http._tcp.local".to_owned()));
        assert_eq!(record(&[PRINTER, &[0]].concat()), None, "something behind it");
        assert_eq!(record(b"\x07print"), None, "it ends outside");
        assert_eq!(record(b""), None);
    }

    #[test]
    fn an_address_has_a_name_of_its_own() {
        let mut memory = [0; MAX_REVERSE];
        for (address, name) in [
            ("192.0.2.11", &b"\x0211\x012\x010\x03192\x07in-addr\x04arpa\0"[..]),
            ("10.105.7.200", b"\x03200\x017\x03105\x0210\x07in-addr\x04arpa\0"),
        ] {
            assert_eq!(reverse(address.parse().unwrap(), &mut memory), name);
        }
        let six = reverse("2001:db8::567:89ab".parse().unwrap(), &mut memory);
        assert!(is_name(six) && six.len() == MAX_REVERSE);
        // The example of RFC 3596 2.5 in another prefix.
        assert!(six.starts_with(b"\x01b\x01a\x019\x018\x017\x016\x015\x010\x010"), "{six:?}");
        assert!(six.ends_with(b"\x018\x01b\x01d\x010\x011\x010\x010\x012\x03ip6\x04arpa\0"), "{six:?}");
    }

    #[test]
    fn a_name_that_repeats_itself_does_not_point_into_itself() {
        for name in [&b"\x05local\x05local\0"[..], b"\x01a\x01b\x01a\x01b\0", b"\x01a\x01a\x01a\0"] {
            let bytes = written(|out| {
                assert!(out.question(name, kind::A, IN));
                let target = Data { name: Some(name), compress: true, ..Data::default() };
                assert!(out.record(Section::Answer, name, kind::PTR, IN, 120, &target));
            });
            let message = Message::parse(&bytes).unwrap();
            assert!(message.questions().all(|question| question.name.is(name)));
            assert!(message.records().all(|(_, record)| record.name.is(name) && record.has_data(name)));
        }
    }

    #[test]
    fn uncompressed_names_are_checked() {
        assert!(is_name(PRINTER) && is_name(&[0]));
        for wrong in [&b""[..], b"\x07printer", b"\x07printer\x05local\0\0", b"\xc0\x0c", b"\x01a\xc0\0"] {
            assert!(!is_name(wrong), "{wrong:?}");
        }
        assert!(!is_name(&[b"\x01a".repeat(128), vec![0]].concat()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_loop(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            walk(&bytes);
        }

        #[test]
        fn neither_do_real_messages_with_bytes_changed(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8), cut in 0usize..200,
        ) {
            let mut bytes = written(|out| {
                out.question(HTTP, kind::PTR, IN);
                let name = Data { name: Some(PRINTER), compress: true, ..Data::default() };
                out.record(Section::Answer, HTTP, kind::PTR, IN, 1, &name);
                out.record(Section::Additional, PRINTER, kind::A, IN, 1, &Data { before: &[1; 4], ..Data::default() });
            });
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            walk(&bytes);
        }

        #[test]
        fn any_name_survives_writing_and_reading(labels in prop::collection::vec("[a-zA-Z0-9 _-]{1,20}", 0..10)) {
            let wire = labels.iter().fold(Vec::new(), |mut wire, label| {
                wire.push(label.len() as u8);
                wire.extend(label.as_bytes());
                wire
            });
            let wire = [&wire[..], &[0]].concat();
            prop_assert!(is_name(&wire));
            let bytes = written(|out| {
                out.question(&wire, kind::A, IN);
                out.record(Section::Answer, &wire, kind::A, IN, 1, &Data::default());
            });
            let message = Message::parse(&bytes).unwrap();
            let mut memory = [0; MAX_NAME];
            for name in message.questions().map(|q| q.name).chain(message.records().map(|(_, r)| r.name)) {
                prop_assert_eq!(name.write(&mut memory), &wire[..]);
                prop_assert!(name.is(&wire));
            }
        }
    }

    /// Everything that can be asked of a message.
    fn walk(bytes: &[u8]) {
        let Ok(message) = Message::parse(bytes) else { return };
        let mut memory = [0; MAX_NAME];
        for question in message.questions() {
            assert!(is_name(question.name.write(&mut memory)));
        }
        let mut records = 0;
        for (_, record) in message.records() {
            assert!(is_name(record.name.write(&mut memory)));
            if let Some((_, target)) = record.target() {
                assert!(is_name(target.write(&mut memory)));
            }
            records += 1;
        }
        let counted =
            [Section::Answer, Section::Authority, Section::Additional].map(|s| usize::from(message.count(s)));
        assert_eq!(records, counted.iter().sum::<usize>(), "all that were counted are there");
    }
}
