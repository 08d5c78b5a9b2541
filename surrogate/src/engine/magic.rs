//! Magic packets (Wake-on-LAN): six times ff, then sixteen times the MAC address, anywhere in the payload.

use surrogate_wire::{Frame, Mac, Packet, Transport, ethertype};

/// The MAC address that a magic packet calls: under `EtherType` 0x0842, or in a datagram to UDP port 0, 7
/// or 9, as senders do.
#[must_use]
pub(super) fn target(frame: &Frame<'_>, packet: &Packet<'_>) -> Option<Mac> {
    match packet {
        Packet::Other(ethertype::WAKE_ON_LAN) => find(frame.payload),
        Packet::Ipv4(_, Transport::Udp(udp)) | Packet::Ipv6(_, Transport::Udp(udp))
            if matches!(udp.dst_port, 0 | 7 | 9) =>
        {
            find(udp.payload)
        }
        _ => None,
    }
}

fn find(payload: &[u8]) -> Option<Mac> {
    // A pattern may begin late: after more than six bytes of ff the next candidate is one byte on.
    payload.windows(SYNC + REPEATS * 6).find_map(|window| {
        let (sync, macs) = window.split_at_checked(SYNC)?;
        if sync != [0xff; SYNC] {
            return None;
        }
        let (macs, _) = macs.as_chunks::<6>();
        let first = macs.first()?;
        let called = Mac(*first);
        (called.is_unicast() && macs.iter().all(|mac| mac == first)).then_some(called)
    })
}

const SYNC: usize = 6;
const REPEATS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x11]);

    fn magic(before: &[u8], repeats: usize) -> Vec<u8> {
        [before, &[0xff; 6], &MAC.0.repeat(repeats), &[0; 4]].concat()
    }

    #[test]
    fn sixteen_repeats_after_six_ff_wherever_they_begin() {
        assert_eq!(find(&magic(&[], 16)), Some(MAC));
        assert_eq!(find(&magic(&[0xff, 1, 0xff], 16)), Some(MAC));
        assert_eq!(find(&magic(&[], 15)), None);
        assert_eq!(find(&[0xff; 102]), None);
        assert_eq!(find(&[]), None);
    }
}
