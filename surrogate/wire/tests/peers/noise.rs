//! Plain noise behind a believable beginning: nothing panics, and no view reaches beyond the frame.

use proptest::prelude::*;
use surrogate_wire::{FlowKey, Frame, Offload, Packet, Received, Transport, VlanTag, igmp, mld, router};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn nothing_reaches_beyond_the_frame(
        head in prop::sample::select(vec![
            &[0x08, 0x00, 0x45][..], &[0x08, 0x00, 0x4f], &[0x86, 0xdd, 0x60], &[0x08, 0x06, 0, 1, 8, 0],
            &[0x81, 0x00, 0, 10, 0x08, 0x00, 0x45], &[0x88, 0xa8, 0, 1, 0x81, 0x00, 0, 2, 0x86, 0xdd, 0x60],
        ]),
        noise in prop::collection::vec(any::<u8>(), 0..200),
        beside in any::<bool>(),
        offload in prop::sample::select(vec![Offload::None, Offload::Verified, Offload::Partial]),
    ) {
        let mut bytes = vec![0x52; 12];
        bytes.extend(head);
        bytes.extend(noise);
        // A total length that fits, or the walk would end at the first check.
        let ip = bytes.len().saturating_sub(14);
        if head[0] == 0x08 && head[1] == 0x00 && bytes.len() > 18 {
            bytes[16..18].copy_from_slice(&u16::try_from(ip).unwrap_or(0).to_be_bytes());
            mend(&mut bytes[14..]);
        }
        let vlan = beside.then_some(VlanTag { tpid: 0x8100, tci: 7 });
        look(&Received { bytes: &bytes, vlan, offload })?;
    }

    #[test]
    fn nor_does_anything_at_all(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        look(&Received::plain(&bytes))?;
    }
}

fn look(received: &Received<'_>) -> Result<(), TestCaseError> {
    let Ok(frame) = Frame::parse(received) else { return Ok(()) };
    prop_assert!(frame.payload.len() <= received.bytes.len() - 14);
    let Ok(packet) = Packet::parse(&frame, received.offload) else { return Ok(()) };
    let (payload, whole) = match &packet {
        Packet::Ipv4(ip, _) => (ip.payload, ip.packet),
        Packet::Ipv6(ip, _) => (ip.payload, ip.packet),
        _ => return Ok(()),
    };
    prop_assert!(whole.len() <= frame.payload.len() && payload.len() < whole.len());
    prop_assert_eq!(whole.as_ptr(), frame.payload.as_ptr());
    prop_assert_eq!(payload.as_ptr_range().end, whole.as_ptr_range().end);
    let inner = match packet.transport() {
        Some(Transport::Tcp(tcp)) => tcp.options.len() + tcp.payload.len() + 20,
        Some(Transport::Udp(udp)) => udp.payload.len() + 8,
        _ => 0,
    };
    prop_assert!(inner <= payload.len());
    match &packet {
        Packet::Ipv4(ip, _) => _ = igmp::parse(ip),
        Packet::Ipv6(ip, Transport::Icmpv6(icmp)) => {
            _ = mld::parse(ip, icmp);
            let told = router::prefixes(ip, icmp).map_or(0, Iterator::count);
            prop_assert!(told * 32 <= payload.len());
        }
        _ => {}
    }
    prop_assert!(FlowKey::of(&frame, &packet).is_some());
    Ok(())
}

/// Makes the header checksum right if the header is there.
fn mend(packet: &mut [u8]) {
    let len = usize::from(packet[0] & 0x0f) * 4;
    if let Some(header) = packet.get(..len).filter(|header| header.len() >= 20) {
        let sum = pnet::packet::util::checksum(header, 5);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}
