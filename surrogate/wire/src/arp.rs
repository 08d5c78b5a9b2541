//! ARP for Ethernet and IPv4 (RFC 826).
//!
//! Anything else under the ARP type (other hardware or protocol, other address lengths) is refused:
//! lengths from the wire are compared, never followed.

use core::net::Ipv4Addr;

use crate::mac::Mac;
use crate::malformed::Malformed;

/// Opcode of a request.
pub const REQUEST: u16 = 1;
/// Opcode of a reply.
pub const REPLY: u16 = 2;
/// Reverse request (RFC 903), under an EtherType of its own.
pub const REVERSE_REQUEST: u16 = 3;
/// Bytes of an Ethernet/IPv4 ARP packet.
pub const LEN: usize = 28;

/// An Ethernet/IPv4 ARP packet: hardware type 1, protocol 0x0800, lengths 6 and 4. Fields as RFC 826
/// names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Operation: [`REQUEST`], [`REPLY`] or another.
    pub op: u16,
    /// Sender hardware address.
    pub sha: Mac,
    /// Sender protocol address.
    pub spa: Ipv4Addr,
    /// Target hardware address.
    pub tha: Mac,
    /// Target protocol address.
    pub tpa: Ipv4Addr,
}

impl Arp {
    /// Reads what follows the Ethernet header; trailing bytes are padding.
    ///
    /// # Errors
    /// [`Malformed::Length`] below 28 bytes, [`Malformed::Header`] if it is not about Ethernet and IPv4
    /// addresses.
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let bytes = payload.first_chunk::<LEN>().ok_or(Malformed::Length)?;
        let [htype0, htype1, ptype0, ptype1, hlen, plen, op0, op1, ..] = *bytes;
        if [htype0, htype1, ptype0, ptype1, hlen, plen] != ETHERNET_IPV4 {
            return Err(Malformed::Header);
        }
        Ok(Self {
            op: u16::from_be_bytes([op0, op1]),
            sha: Mac([bytes[8], bytes[9], bytes[10], bytes[11], bytes[12], bytes[13]]),
            spa: Ipv4Addr::new(bytes[14], bytes[15], bytes[16], bytes[17]),
            tha: Mac([bytes[18], bytes[19], bytes[20], bytes[21], bytes[22], bytes[23]]),
            tpa: Ipv4Addr::new(bytes[24], bytes[25], bytes[26], bytes[27]),
        })
    }

    /// Whether its sender is one station, or one that has no address yet: hosts drop what comes from others.
    #[must_use]
    pub fn is_from_a_station(&self) -> bool {
        self.sha.is_unicast()
            && !(self.spa.is_multicast() || self.spa.is_broadcast() || self.spa.is_loopback())
    }

    /// The packet as bytes.
    #[inline]
    #[must_use]
    pub const fn emit(&self) -> [u8; LEN] {
        let [htype0, htype1, ptype0, ptype1, hlen, plen] = ETHERNET_IPV4;
        let [op0, op1] = self.op.to_be_bytes();
        let [sha0, sha1, sha2, sha3, sha4, sha5] = self.sha.0;
        let [spa0, spa1, spa2, spa3] = self.spa.octets();
        let [tha0, tha1, tha2, tha3, tha4, tha5] = self.tha.0;
        let [tpa0, tpa1, tpa2, tpa3] = self.tpa.octets();
        [
            htype0, htype1, ptype0, ptype1, hlen, plen, op0, op1, sha0, sha1, sha2, sha3, sha4, sha5, spa0,
            spa1, spa2, spa3, tha0, tha1, tha2, tha3, tha4, tha5, tpa0, tpa1, tpa2, tpa3,
        ]
    }
}

/// Hardware type 1, protocol type 0x0800, hardware length 6, protocol length 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ALICE, ALICE_V4, BOB_V4};

    const REQUEST_OF_ALICE: Arp = Arp { op: REQUEST, sha: ALICE, spa: ALICE_V4, tha: Mac::ZERO, tpa: BOB_V4 };

    #[test]
    fn reads_what_it_writes_and_passes_over_padding() {
        let mut bytes = REQUEST_OF_ALICE.emit().to_vec();
        assert_eq!(bytes[..8], [0, 1, 8, 0, 6, 4, 0, 1]);
        bytes.extend([0xee; 18]);
        assert_eq!(Arp::parse(&bytes), Ok(REQUEST_OF_ALICE));
    }

    #[test]
    fn other_hardware_protocols_and_lengths_are_refused() {
        for (at, value) in [(1, 6), (2, 0x86), (4, 8), (4, 255), (4, 0), (5, 16), (5, 255), (5, 0)] {
            let mut bytes = [0; 700];
            bytes[..LEN].copy_from_slice(&REQUEST_OF_ALICE.emit());
            bytes[at] = value;
            assert_eq!(Arp::parse(&bytes), Err(Malformed::Header), "byte {at} = {value}");
        }
    }

    #[test]
    fn a_sender_is_one_station_or_has_no_address_yet() {
        let of = |sha, spa| Arp { sha, spa, ..REQUEST_OF_ALICE }.is_from_a_station();
        for spa in [ALICE_V4, Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(240, 0, 0, 1)] {
            assert!(of(ALICE, spa), "{spa}");
        }
        for spa in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::BROADCAST] {
            assert!(!of(ALICE, spa), "{spa}");
        }
        assert!(!of(Mac::BROADCAST, ALICE_V4) && !of(Mac::ZERO, ALICE_V4));
    }

    #[test]
    fn a_cut_packet_is_refused() {
        assert_eq!(Arp::parse(&REQUEST_OF_ALICE.emit()[..27]), Err(Malformed::Length));
        assert_eq!(Arp::parse(&[]), Err(Malformed::Length));
    }
}
