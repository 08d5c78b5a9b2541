//! The other kinds of frames that the engine is measured with.

use std::net::{Ipv4Addr, Ipv6Addr};

use surrogate_wire::Mac;
use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::{Ipv6Header, icmp_header, udp_header};

use crate::frames::{Between, frame};

impl Between {
    /// A UDP datagram with `data` bytes.
    pub fn datagram(&self, port: u16, data: usize) -> Vec<u8> {
        let data = vec![0x5a; data];
        let pseudo = Sum::pseudo_v4(self.client.1, self.guest.1, 17, 8 + data.len());
        self.ipv4(17, &[&udp_header(pseudo, 40000, port, &data)[..], &data].concat())
    }

    /// A broadcast ARP request for `wanted`.
    pub fn arp_request(&self, wanted: Ipv4Addr) -> Vec<u8> {
        frame(|out| {
            out.ethernet(&self.ethernet(Mac::BROADCAST), 0x0806);
            out.push(&[0, 1, 8, 0, 6, 4, 0, 1]);
            out.push(&self.client.0.0);
            out.push(&self.client.1.octets());
            out.push(&[0; 6]);
            out.push(&wanted.octets());
        })
    }

    /// A neighbour solicitation for the guest, to its solicited-node group.
    pub fn solicitation(&self) -> Vec<u8> {
        let target = self.guest.2.octets();
        let group =
            Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, target[13], target[14], target[15]]);
        let data = [&target[..], &[1, 1], &self.client.0.0].concat();
        let mac = Mac([0x33, 0x33, 0xff, target[13], target[14], target[15]]);
        self.icmpv6(mac, group, 135, [0; 4], &data)
    }

    /// An ICMPv6 echo request with `data` bytes.
    pub fn echo_request_v6(&self, data: usize) -> Vec<u8> {
        self.icmpv6(self.guest.0, self.guest.2, 128, [0x53, 0x47, 0, 1], &vec![0x5a; data])
    }

    /// A SYN to a TCP port; each from a port of its own is a flow of its own.
    pub fn syn(&self, from: u16, port: u16) -> Vec<u8> {
        let [[f0, f1], [p0, p1]] = [from.to_be_bytes(), port.to_be_bytes()];
        let mut segment = [f0, f1, p0, p1, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0];
        let sum = Sum::pseudo_v4(self.client.1, self.guest.1, 6, 20).add(&segment).finish();
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        self.ipv4(6, &segment)
    }

    fn icmpv6(&self, to: Mac, dst: Ipv6Addr, kind: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
        let pseudo = Sum::pseudo_v6(self.client.2, dst, 58, 8 + data.len());
        let message = [&icmp_header(pseudo, kind, 0, rest, data)[..], data].concat();
        let header = Ipv6Header { src: self.client.2, dst, traffic_class: 0, hop_limit: 255, protocol: 58 };
        frame(|out| {
            out.ipv6(&self.ethernet(to), &header, message.len());
            out.push(&message);
        })
    }
}
