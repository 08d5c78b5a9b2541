//! DHCP for IPv6 (RFC 8415): what clients and servers say, and a client's messages.
//!
//! All options are walked once when a message is read, those inside identity associations and addresses
//! too; a length that leads out of what it is in refuses the message. Delegated prefixes and temporary
//! addresses are passed over.

use core::net::Ipv6Addr;

use crate::checksum::Sum;
use crate::emit::{Ethernet, FrameBuf, Ipv6Header, udp_header};
use crate::malformed::Malformed;
use crate::packet::protocol;
use crate::udp::Udp;

/// Where servers and relays listen.
pub const SERVER_PORT: u16 = 547;
/// Where clients listen.
pub const CLIENT_PORT: u16 = 546;
/// The group of all servers and relays of a link.
pub const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// A time without an end.
pub const INFINITE: u32 = u32::MAX;
/// The longest unique identifier of a client or server (RFC 8415 11.1).
pub const LONGEST_DUID: usize = 130;

/// Message types.
pub mod kind {
    /// A client looks for servers.
    pub const SOLICIT: u8 = 1;
    /// A client asks one server for addresses.
    pub const REQUEST: u8 = 3;
    /// A client asks whether its addresses fit the link.
    pub const CONFIRM: u8 = 4;
    /// A client asks its server for more time.
    pub const RENEW: u8 = 5;
    /// A client asks any server for more time.
    pub const REBIND: u8 = 6;
    /// A server answers.
    pub const REPLY: u8 = 7;
    /// A client gives addresses back.
    pub const RELEASE: u8 = 8;
    /// A client found an address in use.
    pub const DECLINE: u8 = 9;
    /// A client that needs no address asks for the rest.
    pub const INFORMATION_REQUEST: u8 = 11;
    /// From one relay to the next, with another head.
    pub const RELAY_FORWARD: u8 = 12;
    /// The way back.
    pub const RELAY_REPLY: u8 = 13;
}

/// Option codes with a meaning here.
pub mod option {
    /// Which client.
    pub const CLIENT: u16 = 1;
    /// Which server.
    pub const SERVER: u16 = 2;
    /// Addresses that belong together.
    pub const IA_NA: u16 = 3;
    /// Temporary addresses.
    pub const IA_TA: u16 = 4;
    /// An address and its lifetimes.
    pub const IA_ADDRESS: u16 = 5;
    /// Hundredths of a second since the client began to ask.
    pub const ELAPSED: u16 = 8;
    /// A proof that holds for one message.
    pub const AUTHENTICATION: u16 = 11;
    /// What came of it.
    pub const STATUS: u16 = 13;
    /// Two messages instead of four.
    pub const RAPID_COMMIT: u16 = 14;
    /// Delegated prefixes.
    pub const IA_PD: u16 = 25;
}

/// Status codes.
pub mod status {
    /// As asked.
    pub const SUCCESS: u16 = 0;
    /// The server does not know the association.
    pub const NO_BINDING: u16 = 3;
}

/// A message between a client and a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dhcpv6<'a> {
    /// One of [`kind`].
    pub kind: u8,
    /// What belongs together; 24 bits.
    pub xid: u32,
    /// The client's unique identifier.
    pub client: Option<&'a [u8]>,
    /// The server's.
    pub server: Option<&'a [u8]>,
    /// What came of it; success if the message does not say.
    pub status: u16,
    options: Options<'a>,
}

/// An identity association for addresses (RFC 8415 21.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Association<'a> {
    /// The client's name for it.
    pub iaid: u32,
    /// Seconds until the client asks its server for more time; 0: as it likes.
    pub t1: u32,
    /// Seconds until it asks any server; 0: as it likes.
    pub t2: u32,
    /// What came of it.
    pub status: u16,
    options: Options<'a>,
}

/// An address of an association (RFC 8415 21.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leased {
    /// The address.
    pub address: Ipv6Addr,
    /// Seconds for which it may be used for what is new.
    pub preferred: u32,
    /// Seconds for which it may be used at all.
    pub valid: u32,
    /// What came of it.
    pub status: u16,
}

impl<'a> Dhcpv6<'a> {
    /// Reads the payload of a datagram.
    ///
    /// # Errors
    /// [`Malformed::Length`] if it is too short or a length leads out of what it is in;
    /// [`Malformed::Header`] if it is a relay's, or an identifier or status is there twice or has a length
    /// that it cannot have.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let ([kind, x0, x1, x2], rest) = payload.split_first_chunk::<4>().ok_or(Malformed::Length)?;
        if matches!(*kind, 0 | kind::RELAY_FORWARD | kind::RELAY_REPLY) {
            return Err(Malformed::Header);
        }
        let options = Options::new(rest);
        let (mut client, mut server) = (None, None);
        options.check(|code, value| match code {
            option::CLIENT => once(&mut client, duid(value)?),
            option::SERVER => once(&mut server, duid(value)?),
            option::IA_NA => Association::parse(value).map(|_| ()),
            _ => Ok(()),
        })?;
        Ok(Self {
            kind: *kind,
            xid: u32::from_be_bytes([0, *x0, *x1, *x2]),
            client,
            server,
            status: options.status()?,
            options,
        })
    }

    /// The associations for addresses.
    pub fn associations(&self) -> impl Iterator<Item = Association<'a>> + use<'a> {
        self.options.filter_map(|(code, value)| match code {
            option::IA_NA => Association::parse(value).ok(),
            _ => None,
        })
    }

    /// All options of the message itself, in order.
    pub fn options(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        self.options
    }
}

impl<'a> Association<'a> {
    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Leased> + use<'a> {
        self.options.filter_map(|(code, value)| match code {
            option::IA_ADDRESS => Leased::parse(value).ok(),
            _ => None,
        })
    }

    fn parse(value: &'a [u8]) -> Result<Self, Malformed> {
        let (head, rest) = value.split_first_chunk::<12>().ok_or(Malformed::Length)?;
        let [iaid, t1, t2] = *head.as_chunks::<4>().0 else { return Err(Malformed::Length) };
        let options = Options::new(rest);
        options.check(|code, value| match code {
            option::IA_ADDRESS => Leased::parse(value).map(|_| ()),
            _ => Ok(()),
        })?;
        Ok(Self {
            iaid: u32::from_be_bytes(iaid),
            t1: u32::from_be_bytes(t1),
            t2: u32::from_be_bytes(t2),
            status: options.status()?,
            options,
        })
    }
}

impl Leased {
    fn parse(value: &[u8]) -> Result<Self, Malformed> {
        let (address, rest) = value.split_first_chunk::<16>().ok_or(Malformed::Length)?;
        let (times, rest) = rest.split_first_chunk::<8>().ok_or(Malformed::Length)?;
        let [preferred, valid] = *times.as_chunks::<4>().0 else { return Err(Malformed::Length) };
        let options = Options::new(rest);
        options.check(|_, _| Ok(()))?;
        Ok(Self {
            address: Ipv6Addr::from(*address),
            preferred: u32::from_be_bytes(preferred),
            valid: u32::from_be_bytes(valid),
            status: options.status()?,
        })
    }
}

/// Whether `bytes` are whole options, as [`Message::append`] takes them.
#[must_use]
pub fn are_options(bytes: &[u8]) -> bool {
    Options::new(bytes).check(|_, _| Ok(())).is_ok()
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Malformed> {
    if slot.replace(value).is_some() { Err(Malformed::Header) } else { Ok(()) }
}

fn duid(value: &[u8]) -> Result<&[u8], Malformed> {
    if (3..=LONGEST_DUID).contains(&value.len()) { Ok(value) } else { Err(Malformed::Header) }
}

/// A walk over options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Walks to the end, which must be the end of the bytes.
    fn check(
        mut self,
        mut each: impl FnMut(u16, &'a [u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        for (code, value) in &mut self {
            each(code, value)?;
        }
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Length) }
    }

    fn status(self) -> Result<u16, Malformed> {
        let mut found = None;
        for (code, value) in self {
            if code == option::STATUS {
                let status = value.first_chunk::<2>().ok_or(Malformed::Header)?;
                once(&mut found, u16::from_be_bytes(*status))?;
            }
        }
        Ok(found.unwrap_or(status::SUCCESS))
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let ([c0, c1, l0, l1], rest) = self.0.split_first_chunk::<4>()?;
        let len = usize::from(u16::from_be_bytes([*l0, *l1]));
        let (value, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((u16::from_be_bytes([*c0, *c1]), value))
    }
}

/// A client's message while it is written: the type, then its options one by one.
#[derive(Debug)]
pub struct Message {
    bytes: [u8; LONGEST],
    len: usize,
    overflowed: bool,
}

impl Message {
    /// Of this type; the lower 24 bits of `xid` count.
    #[must_use]
    pub fn new(kind: u8, xid: u32) -> Self {
        let mut message = Self { bytes: [0; LONGEST], len: 0, overflowed: false };
        let [_, x0, x1, x2] = xid.to_be_bytes();
        message.push(&[kind, x0, x1, x2]);
        message
    }

    /// Appends an option.
    pub fn option(&mut self, code: u16, value: &[u8]) {
        self.head(code, value.len());
        self.push(value);
    }

    /// Appends whole options.
    pub fn append(&mut self, options: &[u8]) {
        self.push(options);
    }

    /// Appends an association with its addresses, whose times are the server's to say: all are 0, "no
    /// preference" (RFC 8415 21.4, 21.6).
    pub fn association(&mut self, iaid: u32, addresses: impl Iterator<Item = Ipv6Addr> + Clone) {
        self.head(option::IA_NA, 12 + addresses.clone().count() * (4 + 24));
        self.push(&iaid.to_be_bytes());
        self.push(&[0; 8]);
        for address in addresses {
            self.head(option::IA_ADDRESS, 24);
            self.push(&address.octets());
            self.push(&[0; 8]);
        }
    }

    /// Writes a whole frame to all servers of the link. `None` if the message was too long, or the frame
    /// does not fit.
    pub fn write(&self, to: &Ethernet, src: Ipv6Addr, out: &mut FrameBuf<'_>) -> Option<()> {
        let message = if self.overflowed { None } else { self.bytes.get(..self.len) }?;
        let header = Ipv6Header {
            src,
            dst: ALL_SERVERS,
            traffic_class: 0,
            hop_limit: HOP_LIMIT,
            protocol: protocol::UDP,
        };
        let pseudo = Sum::pseudo_v6(src, header.dst, header.protocol, Udp::HEADER + message.len());
        out.ipv6(to, &header, Udp::HEADER + message.len());
        out.push(&udp_header(pseudo, CLIENT_PORT, SERVER_PORT, message));
        out.push(message);
        out.finish().map(|_| ())
    }

    fn head(&mut self, code: u16, len: usize) {
        let Ok(len) = u16::try_from(len) else {
            self.overflowed = true;
            return;
        };
        self.push(&code.to_be_bytes());
        self.push(&len.to_be_bytes());
    }

    fn push(&mut self, part: &[u8]) {
        let end = self.len.saturating_add(part.len());
        match self.bytes.get_mut(self.len..end) {
            Some(to) => {
                to.copy_from_slice(part);
                self.len = end;
            }
            None => self.overflowed = true,
        }
    }
}

/// With its headers it fits the smallest MTU, 1280 bytes.
const LONGEST: usize = 1232;
/// Of multicast inside the link; as Linux and the BSDs send it.
const HOP_LIMIT: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ALICE_V6, BOB_V6, TO_BOB, frame, parse};
    use crate::{Packet, Transport};
    use proptest::prelude::*;

    const CLIENT: [u8; 10] = [0, 3, 0, 1, 0x52, 0x54, 0, 0, 0, 0x11];
    const SERVER: [u8; 6] = [0, 2, 0, 0, 0, 9];

    fn opt(code: u16, value: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat()
    }

    fn leased(address: Ipv6Addr, preferred: u32, valid: u32, inside: &[u8]) -> Vec<u8> {
        let value = [&address.octets()[..], &preferred.to_be_bytes(), &valid.to_be_bytes(), inside].concat();
        opt(option::IA_ADDRESS, &value)
    }

    fn association(iaid: u32, t1: u32, t2: u32, inside: &[u8]) -> Vec<u8> {
        let value = [&iaid.to_be_bytes()[..], &t1.to_be_bytes(), &t2.to_be_bytes(), inside].concat();
        opt(option::IA_NA, &value)
    }

    fn reply(options: &[Vec<u8>]) -> Vec<u8> {
        [&[kind::REPLY, 1, 2, 3][..], &options.concat()].concat()
    }

    fn sound() -> Vec<u8> {
        let inside = [leased(ALICE_V6, 60, 90, &[]), leased(BOB_V6, 0, 0, &opt(13, &[0, 3, b'n']))].concat();
        let prefix = opt(option::IA_PD, &[0; 12]);
        reply(&[opt(1, &CLIENT), opt(2, &SERVER), prefix, association(7, 30, 48, &inside), opt(13, &[0, 0])])
    }

    #[test]
    fn a_reply_is_read() {
        let bytes = sound();
        let read = Dhcpv6::parse(&bytes).unwrap();
        assert_eq!((read.kind, read.xid, read.status), (kind::REPLY, 0x01_0203, status::SUCCESS));
        assert_eq!((read.client, read.server), (Some(&CLIENT[..]), Some(&SERVER[..])));
        let all: Vec<_> = read.associations().collect();
        assert_eq!(all.len(), 1, "a delegated prefix is none");
        assert_eq!((all[0].iaid, all[0].t1, all[0].t2, all[0].status), (7, 30, 48, status::SUCCESS));
        let alice = Leased { address: ALICE_V6, preferred: 60, valid: 90, status: status::SUCCESS };
        let bob = Leased { address: BOB_V6, preferred: 0, valid: 0, status: status::NO_BINDING };
        assert_eq!(all[0].addresses().collect::<Vec<_>>(), [alice, bob]);
    }

    #[test]
    fn an_association_says_what_came_of_it() {
        let bytes = reply(&[association(9, 0, 0, &opt(13, &[0, 3]))]);
        let read = Dhcpv6::parse(&bytes).unwrap();
        assert_eq!(read.associations().map(|a| (a.iaid, a.status)).collect::<Vec<_>>(), [(9, 3)]);
    }

    #[test]
    fn lengths_that_lead_out_of_what_they_are_in_are_refused() {
        let mut beyond = leased(ALICE_V6, 60, 90, &[]);
        beyond[3] += 1;
        for bytes in [
            vec![],
            vec![7, 1, 2],
            vec![7, 1, 2, 3, 0],
            vec![7, 1, 2, 3, 0, 6, 0, 2, 0],
            reply(&[association(7, 30, 48, &beyond)]),
            reply(&[opt(option::IA_NA, &[0; 11])]),
            reply(&[association(7, 30, 48, &opt(option::IA_ADDRESS, &[0; 23]))]),
            reply(&[association(7, 30, 48, &leased(ALICE_V6, 60, 90, &[0, 13, 0]))]),
        ] {
            assert_eq!(Dhcpv6::parse(&bytes), Err(Malformed::Length), "{bytes:x?}");
        }
    }

    #[test]
    fn identifiers_and_status_are_there_once_and_have_a_length_that_they_can_have() {
        for options in [
            vec![opt(1, &CLIENT), opt(1, &CLIENT)],
            vec![opt(1, &[0, 3])],
            vec![opt(2, &[1; LONGEST_DUID + 1])],
            vec![opt(13, &[0])],
            vec![opt(13, &[0, 0]), opt(13, &[0, 1])],
        ] {
            assert_eq!(Dhcpv6::parse(&reply(&options)), Err(Malformed::Header), "{options:x?}");
        }
        let longest = reply(&[opt(2, &[1; LONGEST_DUID])]);
        assert_eq!(Dhcpv6::parse(&longest).unwrap().server.map(<[u8]>::len), Some(LONGEST_DUID));
    }

    #[test]
    fn what_relays_say_to_each_other_is_not_read() {
        for kind in [0, kind::RELAY_FORWARD, kind::RELAY_REPLY] {
            assert_eq!(Dhcpv6::parse(&[kind; 34]), Err(Malformed::Header));
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut message = Message::new(kind::RENEW, 0xff01_0203);
        message.option(option::CLIENT, &CLIENT);
        message.option(option::SERVER, &SERVER);
        message.option(option::ELAPSED, &[0, 9]);
        message.association(7, [ALICE_V6, BOB_V6].into_iter());
        let bytes = frame(|out| message.write(&TO_BOB, ALICE_V6, out).unwrap());
        let Ok(Packet::Ipv6(ip, Transport::Udp(udp))) = parse(&bytes) else { panic!("{bytes:x?}") };
        assert_eq!((ip.src, ip.dst, ip.hop_limit), (ALICE_V6, ALL_SERVERS, 1));
        assert_eq!((udp.src_port, udp.dst_port), (546, 547));
        let read = Dhcpv6::parse(udp.payload).unwrap();
        assert_eq!((read.kind, read.xid), (kind::RENEW, 0x01_0203));
        assert_eq!((read.client, read.server), (Some(&CLIENT[..]), Some(&SERVER[..])));
        assert_eq!(read.options().map(|(code, _)| code).collect::<Vec<_>>(), [1, 2, 8, 3]);
        let association = read.associations().next().unwrap();
        assert_eq!((association.iaid, association.t1, association.t2), (7, 0, 0));
        assert_eq!(association.addresses().map(|a| a.address).collect::<Vec<_>>(), [ALICE_V6, BOB_V6]);
    }

    #[test]
    fn options_on_their_own_are_whole() {
        for (bytes, expected) in
            [(&[][..], true), (&[0, 6, 0, 2, 0, 23], true), (&[0, 6, 0, 2, 0], false), (&[0, 6, 0], false)]
        {
            assert_eq!(are_options(bytes), expected, "{bytes:?}");
        }
        let mut message = Message::new(kind::RENEW, 1);
        message.append(&[0, 6, 0, 2, 0, 23]);
        let bytes = frame(|out| message.write(&TO_BOB, ALICE_V6, out).unwrap());
        let Ok(Packet::Ipv6(_, Transport::Udp(udp))) = parse(&bytes) else { panic!("{bytes:x?}") };
        assert_eq!(Dhcpv6::parse(udp.payload).unwrap().options().next(), Some((6, &[0, 23][..])));
    }

    #[test]
    fn what_is_too_long_is_not_written() {
        let mut message = Message::new(kind::RENEW, 1);
        message.option(99, &[0; LONGEST - 8]);
        let mut memory = [0; 2048];
        assert!(message.write(&TO_BOB, ALICE_V6, &mut FrameBuf::new(&mut memory)).is_some());
        assert_eq!(message.write(&TO_BOB, ALICE_V6, &mut FrameBuf::new(&mut memory[..600])), None);
        message.option(99, &[]);
        assert_eq!(message.write(&TO_BOB, ALICE_V6, &mut FrameBuf::new(&mut memory)), None);
    }

    proptest! {
        #[test]
        fn no_bytes_lead_out_of_themselves(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            look(&bytes)?;
        }

        #[test]
        fn nor_do_changed_ones(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut: prop::sample::Index,
        ) {
            let mut bytes = sound();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            look(&bytes)?;
            look(&bytes[..cut.index(bytes.len())])?;
        }
    }

    fn look(bytes: &[u8]) -> Result<(), TestCaseError> {
        let Ok(message) = Dhcpv6::parse(bytes) else { return Ok(()) };
        let mut read = 4;
        for (_, value) in message.options() {
            prop_assert!(bytes.as_ptr_range().contains(&value.as_ptr()) || value.is_empty());
            read += 4 + value.len();
        }
        prop_assert_eq!(read, bytes.len());
        for association in message.associations() {
            prop_assert!(association.addresses().count() * 28 <= bytes.len());
        }
        Ok(())
    }
}
