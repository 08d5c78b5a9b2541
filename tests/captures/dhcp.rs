//! Real DHCP messages through our parsers: what tcpdump prints of them is what we read.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use surrogate_wire::dhcpv4::{FROM_SERVER, kind};
use surrogate_wire::{Dhcpv4, Dhcpv6, Frame, Mac, Malformed, Offload, Packet, Received, Transport, dhcpv6};

use crate::files::{self, CaptureFile};

/// The payloads of all datagrams to or from `ports` in the file `name`.
fn messages(files: &[CaptureFile], name: &str, ports: [u16; 2]) -> Vec<Vec<u8>> {
    let file = files.iter().find(|file| file.name == name).expect("the capture is there");
    let mut found = Vec::new();
    for captured in &file.frames {
        let Ok(frame) = Frame::parse(&Received::plain(&captured.bytes)) else { continue };
        let Ok(packet) = Packet::parse(&frame, Offload::Verified) else { continue };
        if let Some(Transport::Udp(udp)) = packet.transport()
            && (ports.contains(&udp.src_port) || ports.contains(&udp.dst_port))
        {
            found.push(udp.payload.to_vec());
        }
    }
    found
}

#[test]
fn leases_are_read_as_they_were_given() {
    let Some(files) = files::all() else { return };
    let all = messages(&files, "dhcp-leases.pcap", [67, 68]);
    let mut kinds: BTreeMap<u8, usize> = BTreeMap::new();
    let mut refused = 0;
    for bytes in &all {
        match Dhcpv4::parse(bytes) {
            Ok(message) => {
                *kinds.entry(message.kind).or_default() += 1;
                if message.kind == kind::ACK {
                    assert_eq!((message.op, message.lease_time), (FROM_SERVER, Some(43_200)));
                    assert_eq!(message.server, Some(Ipv4Addr::new(10, 40, 2, 3)));
                    assert_eq!(message.chaddr, Mac([0x5a, 0x4f, 0x34, 0xb1, 0xaf, 0x66]));
                    assert!(message.yiaddr.octets().ends_with(&[4, 4]), "{message:?}");
                    assert!(message.giaddr.octets().ends_with(&[1, 1]), "{message:?}");
                }
            }
            // Requests of plain BOOTP.
            Err(why) => {
                assert_eq!(why, Malformed::Header);
                refused += 1;
            }
        }
    }
    println!("{} messages: {kinds:?}, {refused} refused", all.len());
    let told = [kind::DISCOVER, kind::OFFER, kind::REQUEST, kind::ACK].map(|kind| kinds.get(&kind).copied());
    assert_eq!((told, refused), ([Some(4); 4], 2));
}

#[test]
fn a_solicitation_is_read() {
    let Some(files) = files::all() else { return };
    let all = messages(&files, "mixed-keepalive-http-vlan.pcap", [546, 547]);
    assert_eq!(all.len(), 2);
    for bytes in &all {
        let message = Dhcpv6::parse(bytes).unwrap();
        assert_eq!(message.kind, dhcpv6::kind::SOLICIT);
        assert!(message.client.is_some() && message.server.is_none(), "{message:?}");
        assert_eq!(message.associations().count(), 1, "{message:?}");
    }
}
