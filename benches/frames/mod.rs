//! What a client sends to a sleeping guest, for the benchmarks: the request that all of them need, and
//! what others are built with.

use std::net::{Ipv4Addr, Ipv6Addr};

use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::{Ethernet, Ipv4Header, icmp_header};
use surrogate_wire::{FrameBuf, Mac, Tags};

/// Who asks whom.
#[derive(Clone, Copy)]
pub struct Between {
    pub client: (Mac, Ipv4Addr, Ipv6Addr),
    pub guest: (Mac, Ipv4Addr, Ipv6Addr),
}

impl Between {
    /// An ICMP echo request with `data` bytes: 60 bytes in all with 18.
    pub fn echo_request(&self, data: usize) -> Vec<u8> {
        let data = vec![0x5a; data];
        let header = icmp_header(Sum::ZERO, 8, 0, [0x53, 0x47, 0, 1], &data);
        self.ipv4(1, &[&header[..], &data].concat())
    }

    /// A packet to the guest.
    pub fn ipv4(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let (src, dst) = (self.client.1, self.guest.1);
        let header = Ipv4Header { src, dst, tos: 0, id: 7, dont_fragment: true, ttl: 64, protocol };
        frame(|out| {
            out.ipv4(&self.ethernet(self.guest.0), &header, payload.len());
            out.push(payload);
        })
    }
}

impl Between {
    /// From the client to `dst`.
    pub fn ethernet(&self, dst: Mac) -> Ethernet {
        Ethernet { dst, src: self.client.0, tags: Tags::NONE }
    }
}

/// The bytes that `write` puts into a frame, padded.
pub fn frame(write: impl FnOnce(&mut FrameBuf<'_>)) -> Vec<u8> {
    let mut memory = vec![0; 2048];
    let mut out = FrameBuf::new(&mut memory);
    write(&mut out);
    out.finish().expect("it fits").to_vec()
}
