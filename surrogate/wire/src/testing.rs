//! Frames for the unit tests, built with our own emission (the peers check that in `tests/`).

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::emit::{Ethernet, Ipv4Header, Ipv6Header};
use crate::{Frame, FrameBuf, Mac, Malformed, Offload, Packet, Received, Tags};

pub(crate) const ALICE: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x11]);
pub(crate) const BOB: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x22]);
pub(crate) const ALICE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
pub(crate) const BOB_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 22);
pub(crate) const ALICE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11);
pub(crate) const BOB_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x22);
pub(crate) const TO_BOB: Ethernet = Ethernet { dst: BOB, src: ALICE, tags: Tags::NONE };

/// The bytes that `write` puts into a frame, padded.
pub(crate) fn frame(write: impl FnOnce(&mut FrameBuf<'_>)) -> Vec<u8> {
    let mut memory = vec![0xee; 4096];
    let mut out = FrameBuf::new(&mut memory);
    write(&mut out);
    out.finish().expect("it fits").to_vec()
}

/// From Alice to Bob.
pub(crate) fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header =
        Ipv4Header { src: ALICE_V4, dst: BOB_V4, tos: 0, id: 7, dont_fragment: false, ttl: 64, protocol };
    frame(|out| {
        out.ipv4(&TO_BOB, &header, payload.len());
        out.push(payload);
    })
}

/// From Alice to Bob.
pub(crate) fn v6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    v6_between(ALICE_V6, BOB_V6, 255, protocol, payload)
}

pub(crate) fn v6_between(
    src: Ipv6Addr,
    dst: Ipv6Addr,
    hop_limit: u8,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let header = Ipv6Header { src, dst, traffic_class: 0, hop_limit, protocol };
    frame(|out| {
        out.ipv6(&TO_BOB, &header, payload.len());
        out.push(payload);
    })
}

/// Makes the checksum of an IPv4 header right again after a test has changed a field of it.
pub(crate) fn mend_ipv4(frame: &mut [u8]) {
    let len = usize::from(frame[14] & 0x0f) * 4;
    frame[24..26].fill(0);
    let sum = crate::checksum::Sum::ZERO.add(&frame[14..14 + len]).finish();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

pub(crate) fn parse(frame: &[u8]) -> Result<Packet<'_>, Malformed> {
    parse_with(frame, Offload::None)
}

pub(crate) fn parse_with(frame: &[u8], offload: Offload) -> Result<Packet<'_>, Malformed> {
    Packet::parse(&Frame::parse(&Received::plain(frame))?, offload)
}
