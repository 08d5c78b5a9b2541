//! DHCP for IPv4 (RFC 2131, options of RFC 2132): what a client and a server say, and a client's request.
//!
//! The options are walked once when a message is read, in the field of their own and in those that option
//! 52 adds; a length that leads out of its field refuses the message. Options with a meaning here
//! stand once and have the length that RFC 2132 gives them: one in pieces (RFC 3396) is refused. Others
//! may be in pieces, which are handed out one by one.

use core::net::Ipv4Addr;

use crate::checksum::Sum;
use crate::emit::{Ethernet, FrameBuf, Ipv4Header, udp_header};
use crate::mac::Mac;
use crate::malformed::Malformed;
use crate::packet::protocol;
use crate::udp::Udp;

/// Where servers listen.
pub const SERVER_PORT: u16 = 67;
/// Where clients listen.
pub const CLIENT_PORT: u16 = 68;
/// A lease without an end.
pub const INFINITE: u32 = u32::MAX;

/// `op` of what a client sends.
pub const FROM_CLIENT: u8 = 1;
/// `op` of what a server sends.
pub const FROM_SERVER: u8 = 2;

/// Values of option 53.
pub mod kind {
    /// A client looks for servers.
    pub const DISCOVER: u8 = 1;
    /// A server offers an address.
    pub const OFFER: u8 = 2;
    /// A client asks for an address, or for more time with it.
    pub const REQUEST: u8 = 3;
    /// A client found its address in use.
    pub const DECLINE: u8 = 4;
    /// The address is the client's.
    pub const ACK: u8 = 5;
    /// It is not.
    pub const NAK: u8 = 6;
    /// A client gives its address back.
    pub const RELEASE: u8 = 7;
    /// A client with an address of its own asks for the rest.
    pub const INFORM: u8 = 8;
}

/// Option codes with a meaning here (RFC 2132, RFC 4039).
pub mod option {
    /// A filler.
    pub const PAD: u8 = 0;
    /// The address that a client asks for.
    pub const REQUESTED_ADDRESS: u8 = 50;
    /// Seconds of the lease.
    pub const LEASE_TIME: u8 = 51;
    /// The fields `file` and `sname` have options too.
    pub const OVERLOAD: u8 = 52;
    /// What kind of message it is.
    pub const MESSAGE_TYPE: u8 = 53;
    /// Which server.
    pub const SERVER: u8 = 54;
    /// Why not, in words.
    pub const MESSAGE: u8 = 56;
    /// Seconds until the client asks its server for more time.
    pub const RENEWAL: u8 = 58;
    /// Seconds until it asks any server.
    pub const REBINDING: u8 = 59;
    /// How the server knows the client.
    pub const CLIENT: u8 = 61;
    /// Two messages instead of four.
    pub const RAPID_COMMIT: u8 = 80;
    /// Added by a relay.
    pub const RELAY_AGENT: u8 = 82;
    /// A proof that holds for one message (RFC 3118).
    pub const AUTHENTICATION: u8 = 90;
    /// The last one.
    pub const END: u8 = 255;
}

/// A message between a client with an Ethernet address and a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dhcpv4<'a> {
    /// [`FROM_CLIENT`] or [`FROM_SERVER`].
    pub op: u8,
    /// What belongs together.
    pub xid: u32,
    /// The client's address, if it may use it.
    pub ciaddr: Ipv4Addr,
    /// The address that the server gives.
    pub yiaddr: Ipv4Addr,
    /// The relay, or 0.0.0.0.
    pub giaddr: Ipv4Addr,
    /// The client.
    pub chaddr: Mac,
    /// Option 53: one of [`kind`].
    pub kind: u8,
    /// Option 50.
    pub requested: Option<Ipv4Addr>,
    /// Option 54.
    pub server: Option<Ipv4Addr>,
    /// Option 51, seconds.
    pub lease_time: Option<u32>,
    /// Option 58, seconds.
    pub renewal: Option<u32>,
    /// Option 59, seconds.
    pub rebinding: Option<u32>,
    options: Options<'a>,
}

impl<'a> Dhcpv4<'a> {
    /// Reads the payload of a datagram.
    ///
    /// # Errors
    /// [`Malformed::Length`] if it is too short or an option leads out of its field; [`Malformed::Header`]
    /// if it is not about Ethernet, is plain BOOTP, or an option with a meaning here is there twice or has
    /// another length than it must.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let (fixed, vendor) = payload.split_first_chunk::<FIXED>().ok_or(Malformed::Length)?;
        let [op, htype, hlen, _hops, rest @ ..] = fixed;
        let (numbers, rest) = rest.split_first_chunk::<24>().ok_or(Malformed::Length)?;
        let (chaddr, rest) = rest.split_first_chunk::<16>().ok_or(Malformed::Length)?;
        let (sname, file) = rest.split_first_chunk::<64>().ok_or(Malformed::Length)?;
        let [x0, x1, x2, x3, _, _, _, _, addresses @ ..] = *numbers;
        let [ciaddr, yiaddr, _, giaddr] = *addresses.as_chunks::<4>().0 else {
            return Err(Malformed::Length);
        };
        let (cookie, main) = vendor.split_first_chunk::<4>().ok_or(Malformed::Length)?;
        let [c0, c1, c2, c3, c4, c5, ..] = *chaddr;
        if (*htype, *hlen) != ETHERNET || !matches!(*op, FROM_CLIENT | FROM_SERVER) || *cookie != COOKIE {
            return Err(Malformed::Header);
        }
        let overload = overload(main)?;
        let part = |bit: u8, field: &'a [u8]| if overload & bit != 0 { field } else { &[] };
        let options = Options { fields: [main, part(1, file), part(2, sname)], damaged: false };
        let mut message = Self {
            op: *op,
            xid: u32::from_be_bytes([x0, x1, x2, x3]),
            ciaddr: ciaddr.into(),
            yiaddr: yiaddr.into(),
            giaddr: giaddr.into(),
            chaddr: Mac([c0, c1, c2, c3, c4, c5]),
            kind: 0,
            requested: None,
            server: None,
            lease_time: None,
            renewal: None,
            rebinding: None,
            options,
        };
        let mut walk = options;
        for (code, value) in &mut walk {
            message.take(code, value)?;
        }
        if walk.damaged {
            return Err(Malformed::Length);
        }
        if message.kind == 0 { Err(Malformed::Header) } else { Ok(message) }
    }

    /// The options in the order of RFC 2131 4.1 (their own field, `file`, `sname`), without padding and end.
    pub fn options(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        self.options
    }

    fn take(&mut self, code: u8, value: &[u8]) -> Result<(), Malformed> {
        match code {
            option::MESSAGE_TYPE => match *value {
                [kind] if kind != 0 && self.kind == 0 => self.kind = kind,
                _ => return Err(Malformed::Header),
            },
            option::REQUESTED_ADDRESS => once(&mut self.requested, address(value)?)?,
            option::SERVER => once(&mut self.server, address(value)?)?,
            option::LEASE_TIME => once(&mut self.lease_time, seconds(value)?)?,
            option::RENEWAL => once(&mut self.renewal, seconds(value)?)?,
            option::REBINDING => once(&mut self.rebinding, seconds(value)?)?,
            _ => {}
        }
        Ok(())
    }
}

/// Whether `bytes` are whole options with nothing between them, as a [`Renewal`] takes them.
#[must_use]
pub fn are_options(bytes: &[u8]) -> bool {
    let mut walk = Options { fields: [bytes, &[], &[]], damaged: false };
    let read: usize = (&mut walk).map(|(_, value)| 2 + value.len()).sum();
    !walk.damaged && read == bytes.len()
}

/// The value of option 52 in the options' own field; 0 without.
fn overload(main: &[u8]) -> Result<u8, Malformed> {
    let mut found = None;
    let mut walk = Options { fields: [main, &[], &[]], damaged: false };
    for (code, value) in &mut walk {
        if code == option::OVERLOAD {
            match *value {
                [bits @ 1..=3] => once(&mut found, bits)?,
                _ => return Err(Malformed::Header),
            }
        }
    }
    if walk.damaged { Err(Malformed::Length) } else { Ok(found.unwrap_or(0)) }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Malformed> {
    if slot.replace(value).is_some() { Err(Malformed::Header) } else { Ok(()) }
}

fn address(value: &[u8]) -> Result<Ipv4Addr, Malformed> {
    <[u8; 4]>::try_from(value).map(Ipv4Addr::from).map_err(|_| Malformed::Header)
}

fn seconds(value: &[u8]) -> Result<u32, Malformed> {
    value.try_into().map(u32::from_be_bytes).map_err(|_| Malformed::Header)
}

/// A walk over up to three fields of options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Options<'a> {
    fields: [&'a [u8]; 3],
    /// A length led out of its field.
    damaged: bool,
}

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        for field in &mut self.fields {
            while let Some((&code, rest)) = field.split_first() {
                *field = rest;
                match code {
                    option::PAD => continue,
                    option::END => {
                        *field = &[];
                        break;
                    }
                    _ => {}
                }
                let value =
                    rest.split_first().and_then(|(len, rest)| rest.split_at_checked(usize::from(*len)));
                let Some((value, rest)) = value else {
                    self.damaged = true;
                    self.fields = [&[]; 3];
                    return None;
                };
                *field = rest;
                return Some((code, value));
            }
        }
        None
    }
}

/// A client's DHCPREQUEST in the states RENEWING and REBINDING (RFC 2131 4.3.2, 4.4.5): its address is in
/// `ciaddr`, and options 50 and 54 are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal<'a> {
    /// New for each request.
    pub xid: u32,
    /// Seconds since the client began to ask.
    pub secs: u16,
    /// The address to keep.
    pub ciaddr: Ipv4Addr,
    /// The client.
    pub chaddr: Mac,
    /// Whole options beside the type and the end, at most [`MAX_OPTIONS`] bytes.
    pub options: &'a [u8],
}

impl Renewal<'_> {
    /// Writes a whole frame to the server at `dst`, or to all with the broadcast address. `id` is the
    /// identification of the datagram. `None` if it does not fit.
    pub fn write(&self, to: &Ethernet, dst: Ipv4Addr, id: u16, out: &mut FrameBuf<'_>) -> Option<()> {
        let mut memory = [0; LONGEST];
        let mut message = FrameBuf::new(&mut memory);
        let [h0, h1] = [ETHERNET.0, ETHERNET.1];
        message.push(&[FROM_CLIENT, h0, h1, 0]);
        message.push(&self.xid.to_be_bytes());
        message.push(&self.secs.to_be_bytes());
        message.push(&[0; 2]);
        message.push(&self.ciaddr.octets());
        message.push(&[0; 12]);
        message.push(&self.chaddr.0);
        message.push(&[0; 10 + 64 + 128]);
        message.push(&COOKIE);
        message.push(&[option::MESSAGE_TYPE, 1, kind::REQUEST]);
        message.push(self.options);
        message.push(&[option::END]);
        let len = message.finish()?.len();
        // Relays drop what is shorter than a BOOTP message (RFC 1542 2.1); the rest is padding.
        let message = memory.get(..len.max(SHORTEST))?;
        let header = Ipv4Header {
            src: self.ciaddr,
            dst,
            tos: 0,
            id,
            dont_fragment: false,
            ttl: 64,
            protocol: protocol::UDP,
        };
        let pseudo = Sum::pseudo_v4(header.src, dst, header.protocol, Udp::HEADER + message.len());
        out.ipv4(to, &header, Udp::HEADER + message.len());
        out.push(&udp_header(pseudo, CLIENT_PORT, SERVER_PORT, message));
        out.push(message);
        out.finish().map(|_| ())
    }
}

/// Bytes of options that a [`Renewal`] takes: with them the datagram is as long as every server accepts, 576
/// bytes (RFC 2131 2), of which type and end take four.
pub const MAX_OPTIONS: usize = 576 - 28 - FIXED - COOKIE.len() - 4;

const ETHERNET: (u8, u8) = (1, 6);
/// RFC 2131 3.
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Bytes before the cookie.
const FIXED: usize = 236;
const SHORTEST: usize = 300;
const LONGEST: usize = FIXED + COOKIE.len() + 4 + MAX_OPTIONS;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ALICE, ALICE_V4, BOB, BOB_V4, TO_BOB, frame, parse};
    use crate::{Packet, Transport};
    use proptest::prelude::*;

    /// A server's message with `options` in their own field.
    fn reply(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[..8].copy_from_slice(&[FROM_SERVER, 1, 6, 1, 0xde, 0xad, 0xbe, 0xef]);
        bytes[16..20].copy_from_slice(&ALICE_V4.octets());
        bytes[24..28].copy_from_slice(&[192, 0, 2, 1]);
        bytes[28..34].copy_from_slice(&ALICE.0);
        bytes.extend(COOKIE);
        bytes.extend(options);
        bytes
    }

    fn codes(bytes: &[u8]) -> Vec<u8> {
        Dhcpv4::parse(bytes).unwrap().options().map(|(code, _)| code).collect()
    }

    const ACK: [u8; 3] = [53, 1, 5];

    #[test]
    fn an_acknowledgement_is_read() {
        let bytes = reply(&[
            53, 1, 5, 54, 4, 192, 0, 2, 22, 51, 4, 0, 0, 14, 16, 0, 0, 58, 4, 0, 0, 7, 8, 59, 4, 0, 0, 12,
            78, 255, 9,
        ]);
        let ack = Dhcpv4::parse(&bytes).unwrap();
        assert_eq!((ack.op, ack.kind, ack.xid, ack.chaddr), (FROM_SERVER, kind::ACK, 0xdead_beef, ALICE));
        assert_eq!((ack.yiaddr, ack.giaddr), (ALICE_V4, Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!((ack.server, ack.requested), (Some(BOB_V4), None));
        assert_eq!((ack.lease_time, ack.renewal, ack.rebinding), (Some(3600), Some(1800), Some(3150)));
        assert_eq!(codes(&bytes), [53, 54, 51, 58, 59]);
    }

    #[test]
    fn options_go_on_in_the_fields_of_file_and_server_name() {
        let mut bytes = reply(&[52, 1, 3, 255]);
        bytes[108..117].copy_from_slice(&[53, 1, 5, 12, 2, b'a', b'b', 255, 77]);
        bytes[44..50].copy_from_slice(&[0, 51, 4, 0, 0, 1]);
        assert_eq!(codes(&bytes), [52, 53, 12, 51]);
        assert_eq!(Dhcpv4::parse(&bytes).unwrap().lease_time, Some(256));
        bytes[242] = 1;
        assert_eq!(codes(&bytes), [52, 53, 12], "the server's name is a name");
        bytes[242] = 2;
        assert_eq!(Dhcpv4::parse(&bytes), Err(Malformed::Header), "and here it has no type");
    }

    #[test]
    fn lengths_that_lead_out_of_their_field_are_refused() {
        for options in [&[53, 1, 5, 12][..], &[53, 1, 5, 12, 2, b'a'], &[53], &[12, 255]] {
            assert_eq!(Dhcpv4::parse(&reply(options)), Err(Malformed::Length), "{options:?}");
        }
        let mut bytes = reply(&[53, 1, 5, 52, 1, 2, 255]);
        bytes[106..108].copy_from_slice(&[12, 1]);
        bytes[44..106].fill(0);
        assert_eq!(Dhcpv4::parse(&bytes), Err(Malformed::Length), "it would go on in the next field");
        for len in [0, FIXED, FIXED + 3] {
            assert_eq!(Dhcpv4::parse(&reply(&ACK)[..len]), Err(Malformed::Length));
        }
    }

    #[test]
    fn an_option_that_matters_is_there_once_and_as_long_as_it_must_be() {
        for options in [
            &[51, 3, 0, 0, 1][..],
            &[54, 5, 1, 2, 3, 4, 5],
            &[50, 0],
            &[53, 2, 5, 5],
            &[52, 1, 4],
            &[52, 1, 0],
            // In pieces, as RFC 3396 has it for long ones.
            &[51, 2, 0, 0, 51, 2, 0, 1],
            &[51, 4, 0, 0, 0, 1, 51, 4, 0, 0, 0, 1],
            &[53, 1, 5],
        ] {
            let bytes = reply(&[&ACK, options].concat());
            assert_eq!(Dhcpv4::parse(&bytes), Err(Malformed::Header), "{options:?}");
        }
        assert_eq!(
            codes(&reply(&[53, 1, 5, 61, 2, 0, 1, 61, 1, 2])),
            [53, 61, 61],
            "others may be in pieces"
        );
    }

    #[test]
    fn what_is_not_dhcp_over_ethernet_is_refused() {
        for (at, value) in [(0, 0), (0, 3), (1, 6), (2, 16), (FIXED, 98)] {
            let mut bytes = reply(&ACK);
            bytes[at] = value;
            assert_eq!(Dhcpv4::parse(&bytes), Err(Malformed::Header), "byte {at} = {value}");
        }
        assert_eq!(Dhcpv4::parse(&reply(&[255])), Err(Malformed::Header), "plain BOOTP");
    }

    #[test]
    fn options_on_their_own_are_whole_and_close_together() {
        for (bytes, expected) in [
            (&[][..], true),
            (&[12, 1, 7, 61, 0], true),
            (&[12], false),
            (&[12, 2, 7], false),
            (&[12, 0, 255], false),
            (&[0], false),
        ] {
            assert_eq!(are_options(bytes), expected, "{bytes:?}");
        }
    }

    fn written(renewal: &Renewal<'_>, dst: Ipv4Addr) -> Vec<u8> {
        frame(|out| renewal.write(&TO_BOB, dst, 5, out).unwrap())
    }

    fn renewal(options: &[u8]) -> Renewal<'_> {
        Renewal { xid: 0x0102_0304, secs: 7, ciaddr: ALICE_V4, chaddr: ALICE, options }
    }

    #[test]
    fn a_renewal_has_the_address_in_ciaddr_and_neither_server_nor_requested_address() {
        let bytes = written(&renewal(&[61, 3, 0, 1, 2]), BOB_V4);
        let Ok(Packet::Ipv4(ip, Transport::Udp(udp))) = parse(&bytes) else { panic!("{bytes:x?}") };
        assert_eq!((ip.src, ip.dst, ip.ttl), (ALICE_V4, BOB_V4, 64));
        assert_eq!((udp.src_port, udp.dst_port, udp.payload.len()), (68, 67, 300));
        assert_eq!(udp.payload[8..10], [0, 7]);
        let read = Dhcpv4::parse(udp.payload).unwrap();
        assert_eq!((read.op, read.kind, read.xid), (FROM_CLIENT, kind::REQUEST, 0x0102_0304));
        assert_eq!(
            (read.ciaddr, read.yiaddr, read.giaddr),
            (ALICE_V4, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED)
        );
        assert_eq!((read.chaddr, read.requested, read.server), (ALICE, None, None));
        let options: Vec<_> = read.options().collect();
        assert_eq!(options, [(53, &[3][..]), (61, &[0, 1, 2])]);
        assert_eq!(&bytes[..6], &BOB.0);
    }

    #[test]
    fn the_longest_renewal_is_a_datagram_that_every_server_takes() {
        let mut options = vec![43, 254];
        options.resize(256, 1);
        options.extend([77, 46]);
        options.resize(MAX_OPTIONS, 1);
        let bytes = written(&renewal(&options), BOB_V4);
        let Ok(Packet::Ipv4(ip, Transport::Udp(udp))) = parse(&bytes) else { panic!("{bytes:x?}") };
        assert_eq!(ip.packet.len(), 576);
        assert_eq!(Dhcpv4::parse(udp.payload).unwrap().options().count(), 3);
        options.push(0);
        let mut memory = [0; 2048];
        assert_eq!(renewal(&options).write(&TO_BOB, BOB_V4, 5, &mut FrameBuf::new(&mut memory)), None);
        let mut small = [0; 200];
        assert_eq!(renewal(&[]).write(&TO_BOB, BOB_V4, 5, &mut FrameBuf::new(&mut small)), None);
    }

    proptest! {
        #[test]
        fn no_bytes_lead_out_of_themselves(options in prop::collection::vec(any::<u8>(), 0..200), sname: [u8; 32]) {
            let mut bytes = reply(&options);
            bytes[44..76].copy_from_slice(&sname);
            look(&bytes)?;
        }

        #[test]
        fn nor_do_changed_ones(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut: prop::sample::Index,
        ) {
            let mut bytes = reply(&[53, 1, 5, 52, 1, 3, 54, 4, 192, 0, 2, 22, 51, 4, 0, 0, 14, 16, 12, 3, 1, 2, 3, 255]);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            look(&bytes)?;
            look(&bytes[..cut.index(bytes.len())])?;
        }

        #[test]
        fn sound_options_are_read_as_they_were_written(
            options in prop::collection::vec((1u8..50, prop::collection::vec(any::<u8>(), 0..20)), 0..8), pad in 0usize..3,
        ) {
            let mut bytes = ACK.to_vec();
            for (code, value) in &options {
                bytes.extend(vec![0; pad]);
                bytes.extend([*code, value.len() as u8]);
                bytes.extend(value);
            }
            bytes.push(255);
            let bytes = reply(&bytes);
            let read: Vec<_> = Dhcpv4::parse(&bytes).unwrap().options().skip(1).map(|(c, v)| (c, v.to_vec())).collect();
            prop_assert_eq!(read, options);
        }
    }

    fn look(bytes: &[u8]) -> Result<(), TestCaseError> {
        let Ok(message) = Dhcpv4::parse(bytes) else { return Ok(()) };
        let mut read = 0;
        for (code, value) in message.options() {
            prop_assert!(code != 0 && code != 255);
            prop_assert!(bytes.as_ptr_range().contains(&value.as_ptr()) || value.is_empty());
            read += 2 + value.len();
        }
        prop_assert!(read <= bytes.len());
        Ok(())
    }
}
