//! One LAN for all targets that need somebody on it, that of `pcap-fixtures/`: guests, a client, and frames that are
//! made sound again after the fuzzer changed them, as no random checksum would ever be right.

use core::net::Ipv6Addr;

use surrogate::guest::identity::{GuestId, InterfaceAddress, NicId, NicIdentity, PortId};
use surrogate::policy::traffic::{Listen, TrafficPolicy};
use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::Ethernet;
use surrogate_wire::vlan::{TPID_8021AD, TPID_8021Q, VlanTag};
use surrogate_wire::{
    Frame, FrameBuf, Ipv4, Ipv6, Mac, Offload, Packet, Received, Tags, ethertype, protocol,
};

use crate::input::Input;

pub(crate) const PORT: PortId = PortId(1);
pub(crate) const SERVICE: Mac = Mac([0x02, 0, 0, 0, 0, 0xfe]);
pub(crate) const CLIENT: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x01]);
/// The longest payload of a frame of ours.
pub(crate) const MTU: usize = 1500;

/// A guest of the LAN, by the last byte of its addresses.
pub(crate) fn guest(last: u8, vlan: Option<u16>) -> NicIdentity {
    let v6 = |net: [u16; 4]| {
        let [a, b, c, d] = net;
        Ipv6Addr::new(a, b, c, d, 0, 0, 0, u16::from(last)).into()
    };
    NicIdentity {
        guest: GuestId(u32::from(last) + 100),
        nic: NicId(u32::from(last)),
        port: PORT,
        mac: Mac([0x52, 0x54, 0, 0, 0, last]),
        vlan,
        addresses: vec![
            InterfaceAddress { address: [192, 0, 2, last].into(), prefix_len: 24 },
            InterfaceAddress { address: v6([0x2001, 0xdb8, 0, 0]), prefix_len: 64 },
            InterfaceAddress { address: v6([0xfe80, 0, 0, 0]), prefix_len: 64 },
        ],
        groups: vec![[239, 1, 1, 1].into(), [224, 0, 0, 251].into()],
        router: false,
        traffic: TrafficPolicy {
            listen: Some(Listen { tcp: vec![22, 80], udp: vec![7, 514] }),
            ..TrafficPolicy::default()
        },
    }
}

/// What the kernel may keep beside a frame.
pub(crate) fn beside(input: &mut Input<'_>) -> (Option<VlanTag>, Offload) {
    let how = input.byte();
    let offload = match how & 3 {
        0 => Offload::None,
        1 => Offload::Partial,
        _ => Offload::Verified,
    };
    let tpid = if how & 8 == 0 { TPID_8021Q } else { TPID_8021AD };
    let vlan = (how & 4 != 0).then(|| VlanTag { tpid, tci: input.u16() });
    (vlan, offload)
}

/// All frames of all captures of the project.
pub(crate) fn captured() -> Vec<Vec<u8>> {
    let captures = pcap_fixtures::names().into_iter().flat_map(|name| pcap_fixtures::capture(&name));
    captures.map(|captured| captured.bytes).collect()
}

/// Reads `bytes` as they came, without anything beside them.
pub(crate) fn read(bytes: &[u8]) -> Option<(Frame<'_>, Packet<'_>)> {
    let frame = Frame::parse(&Received::plain(bytes)).ok()?;
    let packet = Packet::parse(&frame, Offload::None).ok()?;
    Some((frame, packet))
}

/// A frame of ours that goes out must be one that any host takes for sound.
pub(crate) fn assert_sound(bytes: &[u8]) {
    assert!(read(bytes).is_some(), "we said what nobody can read: {bytes:02x?}");
}

/// `payload` in a frame with IP and transport headers written by us.
pub(crate) fn written(write: impl FnOnce(&mut FrameBuf<'_>)) -> Vec<u8> {
    let mut memory = vec![0; 70_000];
    let mut out = FrameBuf::new(&mut memory);
    write(&mut out);
    out.finish().map(<[u8]>::to_vec).unwrap_or_default()
}

/// From the client to `dst`, untagged.
pub(crate) const fn to(dst: Mac) -> Ethernet {
    Ethernet { dst, src: CLIENT, tags: Tags::NONE }
}

/// Makes the checksums of `frame` right, as far as its headers can be followed.
pub(crate) fn mend(frame: &mut [u8]) {
    let mut at = 12;
    for _ in 0..2 {
        if matches!(word(frame, at), Some(TPID_8021Q | TPID_8021AD)) {
            at += 4;
        }
    }
    let Some(kind) = word(frame, at) else { return };
    let Some(packet) = frame.get_mut(at + 2..) else { return };
    match kind {
        ethertype::IPV4 => mend_ipv4(packet),
        ethertype::IPV6 => mend_ipv6(packet),
        _ => {}
    }
}

fn mend_ipv4(packet: &mut [u8]) {
    let Some([first, _, l0, l1, _, _, f0, f1, _, number, ..]) = packet.first_chunk::<20>().copied() else {
        return;
    };
    let header = usize::from(first & 0xf) * 4;
    store(packet, header, 10, Sum::ZERO);
    let is_part = u16::from_be_bytes([f0, f1]) & 0x3fff != 0;
    let whole = usize::from(u16::from_be_bytes([l0, l1])).min(packet.len());
    if is_part || header < Ipv4::HEADER || whole < header {
        return;
    }
    let Some((addresses, body)) =
        packet.get_mut(..whole).and_then(|packet| packet.split_at_mut_checked(header))
    else {
        return;
    };
    let pseudo = match addresses.get(12..20) {
        Some(addresses) if matches!(number, protocol::TCP | protocol::UDP) => {
            pseudo(addresses, number, body.len())
        }
        _ => Sum::ZERO,
    };
    mend_transport(body, number, pseudo);
}

fn mend_ipv6(packet: &mut [u8]) {
    let Some((fixed, rest)) = packet.split_at_mut_checked(Ipv6::HEADER) else { return };
    let Some([_, _, _, _, l0, l1, mut number, _]) = fixed.first_chunk::<8>().copied() else { return };
    let len = usize::from(u16::from_be_bytes([l0, l1])).min(rest.len());
    let Some(mut body) = rest.get_mut(..len) else { return };
    for _ in 0..8 {
        if !matches!(number, protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS) {
            break;
        }
        let Some([next, units]) = body.first_chunk::<2>().copied() else { return };
        let Some(after) = body.get_mut((usize::from(units) + 1) * 8..) else { return };
        (number, body) = (next, after);
    }
    let Some(addresses) = fixed.get(8..) else { return };
    let pseudo = pseudo(addresses, number, body.len());
    mend_transport(body, number, pseudo);
}

fn mend_transport(body: &mut [u8], number: u8, pseudo: Sum) {
    let at = match number {
        protocol::TCP => 16,
        protocol::UDP => 6,
        protocol::ICMP | protocol::ICMPV6 | protocol::IGMP => 2,
        _ => return,
    };
    store(body, body.len(), at, pseudo);
    if number == protocol::UDP
        && let Some(sum @ [0, 0]) = body.get_mut(at..at + 2)
    {
        // Zero says that there is none (RFC 768).
        sum.fill(0xff);
    }
}

fn pseudo(addresses: &[u8], number: u8, len: usize) -> Sum {
    // Its fields in any order: a sum does not mind.
    let len = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    Sum::ZERO.add(addresses).add(&len).add_u16(u16::from(number))
}

/// Sums the first `len` bytes and writes the result at `at`.
fn store(bytes: &mut [u8], len: usize, at: usize, start: Sum) {
    let Some(summed) = bytes.get_mut(..len) else { return };
    let Some(field) = summed.get_mut(at..at + 2) else { return };
    field.fill(0);
    let sum = start.add(summed).finish();
    if let Some(field) = summed.get_mut(at..at + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mended_is_sound_and_what_was_sound_stays_as_it_was() {
        let mut broken = 0;
        for whole in captured().iter().filter(|bytes| read(bytes).is_some()) {
            let mut mended = whole.clone();
            mend(&mut mended);
            // A UDP checksum may be left out, and is filled in then.
            assert!(read(&mended).is_some(), "{whole:02x?}");
            // The low byte of the source address, or of what stands there: in each sum of the frame.
            let Some(byte) = mended.get_mut(29) else { continue };
            *byte ^= 1;
            broken += usize::from(read(&mended).is_none());
            mend(&mut mended);
            let frame = Frame::parse(&Received::plain(&mended)).unwrap();
            let found = Packet::parse(&frame, Offload::None);
            assert_ne!(found, Err(surrogate_wire::Malformed::Checksum), "{mended:02x?}");
        }
        assert!(broken > 20, "only {broken} frames had a checksum to break");
    }
}
