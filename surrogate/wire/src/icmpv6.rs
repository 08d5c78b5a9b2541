//! `ICMPv6` (RFC 4443) and neighbour discovery (RFC 4861, RFC 4862, RFC 6980).
//!
//! A neighbour discovery message is checked whole before any of it is used: hop limit 255, code 0, no
//! fragment header, target not multicast, every option longer than zero and inside the packet; with an
//! unspecified source also the rules of duplicate address detection (RFC 4861 7.1).

use core::net::Ipv6Addr;

use crate::icmpv4::Echo;
use crate::ipv6::Ipv6;
use crate::mac::Mac;
use crate::malformed::Malformed;

/// Type of destination unreachable.
pub const UNREACHABLE: u8 = 1;
/// Code of [`UNREACHABLE`]: nobody listens at the port.
pub const CODE_PORT: u8 = 4;
/// Type of an echo request.
pub const ECHO_REQUEST: u8 = 128;
/// Type of an echo reply.
pub const ECHO_REPLY: u8 = 129;
/// Type of a router solicitation.
pub const ROUTER_SOLICITATION: u8 = 133;
/// Type of a router advertisement.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// Type of a neighbour solicitation.
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// Type of a neighbour advertisement.
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Type of a redirect.
pub const REDIRECT: u8 = 137;

/// Option: link-layer address of the sender.
pub const OPTION_SOURCE_LINK_LAYER: u8 = 1;
/// Option: link-layer address of the target.
pub const OPTION_TARGET_LINK_LAYER: u8 = 2;
/// Option: nonce (RFC 3971 5.3.2), by which a sender knows its own solicitation (RFC 7527).
pub const OPTION_NONCE: u8 = 14;

/// An `ICMPv6` message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmpv6<'a> {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// What it says, where we read it.
    pub body: Icmpv6Body<'a>,
    /// The whole message, from its type on.
    pub message: &'a [u8],
}

/// What an `ICMPv6` message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmpv6Body<'a> {
    /// Type 128; RFC 4443 has only code 0, and hosts answer any.
    EchoRequest(Echo<'a>),
    /// Type 135.
    Solicitation(Solicitation),
    /// Type 136.
    Advertisement(Advertisement),
    /// Any other; router messages and redirects have been checked as far as their options.
    Other,
}

/// A neighbour solicitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    /// Whose link-layer address is wanted.
    pub target: Ipv6Addr,
    /// The asker's, if it said so.
    pub source_link_layer: Option<Mac>,
    /// The first six bytes of the nonce, if there is one.
    pub nonce: Option<[u8; 6]>,
}

/// A neighbour advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// Whose link-layer address is told.
    pub target: Ipv6Addr,
    /// The sender is a router.
    pub router: bool,
    /// It answers a solicitation.
    pub solicited: bool,
    /// It overrides a cached link-layer address.
    pub overriding: bool,
    /// The link-layer address.
    pub target_link_layer: Option<Mac>,
}

impl<'a> Icmpv6<'a> {
    /// Reads `message`, the payload of `ip`.
    ///
    /// # Errors
    /// [`Malformed::Length`] if it is shorter than its type wants, [`Malformed::Header`] if it breaks a rule
    /// of RFC 4861 7.1 or 6980.
    #[inline]
    pub fn parse(ip: &Ipv6<'_>, message: &'a [u8]) -> Result<Self, Malformed> {
        let [kind, code, ..] = *message.first_chunk::<4>().ok_or(Malformed::Length)?;
        let body = match kind {
            ECHO_REQUEST => Icmpv6Body::EchoRequest(Echo::parse(message).ok_or(Malformed::Length)?),
            ROUTER_SOLICITATION..=REDIRECT => discovery(ip, kind, code, message)?,
            _ => Icmpv6Body::Other,
        };
        Ok(Self { kind, code, body, message })
    }

    /// Whether it reports an error or redirects: no error may be sent about it (RFC 4443 2.4 e).
    #[must_use]
    pub const fn is_error(&self) -> bool {
        self.kind < 128 || self.kind == REDIRECT
    }
}

impl Solicitation {
    /// Bytes before the options.
    pub const HEADER: usize = 24;
}

fn discovery<'a>(ip: &Ipv6<'_>, kind: u8, code: u8, message: &'a [u8]) -> Result<Icmpv6Body<'a>, Malformed> {
    let fixed = match kind {
        ROUTER_SOLICITATION => 8,
        ROUTER_ADVERTISEMENT => 16,
        REDIRECT => 40,
        _ => Solicitation::HEADER,
    };
    let (head, options) = message.split_at_checked(fixed).ok_or(Malformed::Length)?;
    if ip.hop_limit != 255 || code != 0 || ip.has_fragment_header {
        return Err(Malformed::Header);
    }
    let options = Options::walk(kind, options)?;
    let (NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT, Some(head)) = (kind, head.first_chunk::<24>())
    else {
        return Ok(Icmpv6Body::Other);
    };
    let [_, _, _, _, flags, _, _, _, target @ ..] = *head;
    let target = Ipv6Addr::from(target);
    if target.is_multicast() {
        return Err(Malformed::Header);
    }
    if kind == NEIGHBOUR_SOLICITATION {
        let unspecified = ip.src.is_unspecified();
        if unspecified && (!is_solicited_node(ip.dst) || options.source_link_layer.is_some()) {
            return Err(Malformed::Header);
        }
        return Ok(Icmpv6Body::Solicitation(Solicitation {
            target,
            source_link_layer: options.source_link_layer,
            nonce: options.nonce,
        }));
    }
    let solicited = flags & 0x40 != 0;
    if solicited && ip.dst.is_multicast() {
        return Err(Malformed::Header);
    }
    Ok(Icmpv6Body::Advertisement(Advertisement {
        target,
        router: flags & 0x80 != 0,
        solicited,
        overriding: flags & 0x20 != 0,
        target_link_layer: options.target_link_layer,
    }))
}

/// The options that we read, the first of each kind.
#[derive(Default)]
struct Options {
    source_link_layer: Option<Mac>,
    target_link_layer: Option<Mac>,
    nonce: Option<[u8; 6]>,
}

impl Options {
    fn walk(message: u8, mut bytes: &[u8]) -> Result<Self, Malformed> {
        let mut found = Self::default();
        // The one that the message is about must be an Ethernet address (RFC 2464 6).
        let own = match message {
            NEIGHBOUR_SOLICITATION => OPTION_SOURCE_LINK_LAYER,
            NEIGHBOUR_ADVERTISEMENT => OPTION_TARGET_LINK_LAYER,
            _ => 0,
        };
        while let [kind, words, ..] = *bytes {
            let len = usize::from(words) * 8;
            if len == 0 || (kind == own && len != LINK_LAYER) {
                return Err(Malformed::Header);
            }
            let (option, rest) = bytes.split_at_checked(len).ok_or(Malformed::Length)?;
            if let [_, _, value @ ..] = option
                && let Some(value) = value.first_chunk::<6>()
            {
                match kind {
                    OPTION_SOURCE_LINK_LAYER => _ = found.source_link_layer.get_or_insert(Mac(*value)),
                    OPTION_TARGET_LINK_LAYER => _ = found.target_link_layer.get_or_insert(Mac(*value)),
                    OPTION_NONCE => _ = found.nonce.get_or_insert(*value),
                    _ => {}
                }
            }
            bytes = rest;
        }
        if bytes.is_empty() { Ok(found) } else { Err(Malformed::Length) }
    }
}

/// Bytes of an option with an Ethernet address.
const LINK_LAYER: usize = 8;

/// The solicited-node group of `address` (RFC 4291 2.7.1): ff02::1:ffXX:XXXX.
#[must_use]
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// Whether `group` is somebody's solicited-node group.
#[must_use]
pub fn is_solicited_node(group: Ipv6Addr) -> bool {
    solicited_node(group) == group
}

/// All nodes of the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Sum;
    use crate::packet::{Packet, Transport, protocol};
    use crate::testing::{ALICE, ALICE_V6, BOB_V6, parse, v6, v6_between};

    /// A message with its checksum, its first four bytes as given.
    fn sealed(src: Ipv6Addr, dst: Ipv6Addr, hop_limit: u8, message: &[u8]) -> Vec<u8> {
        let mut message = message.to_vec();
        let sum = Sum::pseudo_v6(src, dst, protocol::ICMPV6, message.len()).add(&message).finish();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        v6_between(src, dst, hop_limit, protocol::ICMPV6, &message)
    }

    fn neighbour(kind: u8, flags: u8, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &target.octets(), options].concat()
    }

    fn body(frame: &[u8]) -> Result<Icmpv6Body<'_>, Malformed> {
        match parse(frame)? {
            Packet::Ipv6(_, Transport::Icmpv6(icmp)) => Ok(icmp.body),
            other => panic!("no ICMPv6: {other:?}"),
        }
    }

    const SLLA: [u8; 8] = [1, 1, 0x52, 0x54, 0, 0, 0, 0x11];
    const NONCE: [u8; 8] = [14, 1, 1, 2, 3, 4, 5, 6];

    #[test]
    fn a_solicitation_with_its_options() {
        let message = neighbour(135, 0, BOB_V6, &[&[200, 1, 0, 0, 0, 0, 0, 0], &SLLA[..], &NONCE].concat());
        let frame = sealed(ALICE_V6, solicited_node(BOB_V6), 255, &message);
        let expected =
            Solicitation { target: BOB_V6, source_link_layer: Some(ALICE), nonce: Some([1, 2, 3, 4, 5, 6]) };
        assert_eq!(body(&frame), Ok(Icmpv6Body::Solicitation(expected)));
    }

    #[test]
    fn an_advertisement_with_its_flags() {
        let message = neighbour(136, 0xa0, ALICE_V6, &[2, 1, 0x52, 0x54, 0, 0, 0, 0x11]);
        let frame = sealed(ALICE_V6, ALL_NODES, 255, &message);
        let expected = Advertisement {
            target: ALICE_V6,
            router: true,
            solicited: false,
            overriding: true,
            target_link_layer: Some(ALICE),
        };
        assert_eq!(body(&frame), Ok(Icmpv6Body::Advertisement(expected)));
    }

    #[test]
    fn rules_of_section_7_1_for_every_neighbour_message() {
        let group = solicited_node(BOB_V6);
        let good = neighbour(135, 0, BOB_V6, &SLLA);
        assert!(body(&sealed(ALICE_V6, group, 255, &good)).is_ok());
        assert_eq!(body(&sealed(ALICE_V6, group, 254, &good)), Err(Malformed::Header), "hop limit");
        let mut code = good.clone();
        code[1] = 1;
        assert_eq!(body(&sealed(ALICE_V6, group, 255, &code)), Err(Malformed::Header), "code");
        assert_eq!(body(&sealed(ALICE_V6, group, 255, &good[..23])), Err(Malformed::Length), "cut");
        let multicast = neighbour(135, 0, group, &[]);
        assert_eq!(body(&sealed(ALICE_V6, group, 255, &multicast)), Err(Malformed::Header), "target");
        let solicited = neighbour(136, 0x40, ALICE_V6, &[]);
        assert_eq!(body(&sealed(ALICE_V6, ALL_NODES, 255, &solicited)), Err(Malformed::Header), "solicited");
    }

    #[test]
    fn one_bad_option_makes_every_neighbour_message_malformed() {
        let fixed = |kind: u8| match kind {
            133 => 8,
            134 => 16,
            137 => 40,
            _ => 24,
        };
        for kind in 133..=137u8 {
            for (options, expected) in [
                (&[1, 0, 0, 0, 0, 0, 0, 0][..], Malformed::Header),
                (&[200, 2, 0, 0, 0, 0, 0, 0], Malformed::Length),
                (&[1], Malformed::Length),
                (&[1, 1, 0, 0, 0, 0, 0], Malformed::Length),
            ] {
                let mut message = vec![0; fixed(kind)];
                message[0] = kind;
                message.extend(options);
                let frame = sealed(ALICE_V6, BOB_V6, 255, &message);
                assert_eq!(body(&frame), Err(expected), "type {kind}, options {options:?}");
            }
        }
    }

    #[test]
    fn the_link_layer_address_that_a_message_is_about_is_an_ethernet_address() {
        let long = |option| [&[option, 2][..], &[2, 0, 0, 0, 0, 1], &[0; 8]].concat();
        for (kind, own, other) in [(135, 1, 2), (136, 2, 1)] {
            let message = |option| neighbour(kind, 0, ALICE_V6, &long(option));
            let refused = |option| body(&sealed(ALICE_V6, BOB_V6, 255, &message(option))).err();
            assert_eq!(refused(own), Some(Malformed::Header), "type {kind}");
            assert_eq!(refused(other), None, "type {kind}: another option's length is not ours to judge");
        }
    }

    #[test]
    fn duplicate_address_detection_goes_to_the_group_and_names_no_mac() {
        let none = Ipv6Addr::UNSPECIFIED;
        let bare = neighbour(135, 0, BOB_V6, &NONCE);
        assert!(body(&sealed(none, solicited_node(BOB_V6), 255, &bare)).is_ok());
        assert_eq!(body(&sealed(none, BOB_V6, 255, &bare)), Err(Malformed::Header));
        assert_eq!(body(&sealed(none, ALL_NODES, 255, &bare)), Err(Malformed::Header));
        let named = neighbour(135, 0, BOB_V6, &SLLA);
        assert_eq!(body(&sealed(none, solicited_node(BOB_V6), 255, &named)), Err(Malformed::Header));
    }

    #[test]
    fn neighbour_messages_in_fragments_are_refused_even_atomic_ones() {
        let mut message = neighbour(135, 0, BOB_V6, &SLLA);
        let sum = Sum::pseudo_v6(ALICE_V6, BOB_V6, 58, message.len()).add(&message).finish();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let frame = v6(44, &[&[58, 0, 0, 0, 0, 0, 0, 1], &message[..]].concat());
        assert_eq!(body(&frame), Err(Malformed::Header));
    }

    #[test]
    fn an_echo_request_needs_its_eight_bytes() {
        let request = [128, 0, 0, 0, 0, 1, 0, 2, 9];
        let expected = Echo { identifier: 1, sequence: 2, data: &[9] };
        assert_eq!(body(&sealed(ALICE_V6, BOB_V6, 64, &request)), Ok(Icmpv6Body::EchoRequest(expected)));
        assert_eq!(body(&sealed(ALICE_V6, BOB_V6, 64, &request[..7])), Err(Malformed::Length));
    }

    #[test]
    fn a_wrong_checksum_is_found_before_a_wrong_field() {
        let mut frame = sealed(ALICE_V6, BOB_V6, 254, &neighbour(135, 0, BOB_V6, &[]));
        frame[60] ^= 1;
        assert_eq!(body(&frame), Err(Malformed::Checksum));
    }
}
