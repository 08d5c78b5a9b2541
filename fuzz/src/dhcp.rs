//! DHCP messages of both families, and the renewals that we write.

use surrogate_wire::dhcpv4::{self, Dhcpv4, Renewal};
use surrogate_wire::dhcpv6::{self, Dhcpv6};
use surrogate_wire::{Packet, Transport};

use crate::dns::datagrams;
use crate::lan;

pub(crate) fn run_v4(data: &[u8]) -> bool {
    let Ok(message) = Dhcpv4::parse(data) else { return false };
    assert!(message.kind != 0 && matches!(message.op, dhcpv4::FROM_CLIENT | dhcpv4::FROM_SERVER));
    assert!(message.options().count() <= data.len());
    // What a client repeats in its renewals comes from such a message.
    let mut options = Vec::new();
    let left_out = [dhcpv4::option::MESSAGE_TYPE, dhcpv4::option::OVERLOAD];
    for (code, value) in message.options().filter(|(code, _)| !left_out.contains(code)) {
        let len = u8::try_from(value.len()).expect("a length is a byte");
        options.extend([code, len]);
        options.extend(value);
    }
    let (xid, ciaddr) = (message.xid, message.yiaddr);
    let renewal = Renewal { xid, secs: 7, ciaddr, chaddr: message.chaddr, options: &options };
    let written = lan::written(|out| {
        let to = lan::to(surrogate_wire::Mac::BROADCAST);
        if renewal.write(&to, core::net::Ipv4Addr::BROADCAST, 1, out).is_none() {
            // Nothing, which nobody can read.
            out.ethernet(&to, 0);
        }
    });
    if options.len() > dhcpv4::MAX_OPTIONS {
        assert!(
            lan::read(&written).is_none_or(|(_, packet)| packet.transport().is_none()),
            "longer than allowed"
        );
        return true;
    }
    let bad_source = ciaddr.is_multicast() || ciaddr.is_broadcast() || ciaddr.is_loopback();
    let Some((_, Packet::Ipv4(ip, Transport::Udp(udp)))) = lan::read(&written) else {
        assert!(bad_source, "{message:?} was renewed as {written:02x?}");
        return true;
    };
    assert_eq!((ip.src, udp.src_port, udp.dst_port), (ciaddr, dhcpv4::CLIENT_PORT, dhcpv4::SERVER_PORT));
    let read = Dhcpv4::parse(udp.payload).unwrap_or_else(|why| panic!("{why:?}: {written:02x?}"));
    assert_eq!((read.op, read.kind, read.xid), (dhcpv4::FROM_CLIENT, dhcpv4::kind::REQUEST, xid));
    assert_eq!((read.ciaddr, read.chaddr), (ciaddr, message.chaddr));
    assert_eq!((read.lease_time, read.server), (message.lease_time, message.server));
    true
}

pub(crate) fn seeds_v4() -> Vec<Vec<u8>> {
    let mut seeds = datagrams(&[67, 68]);
    let ack = [
        &[53, 1, 5, 54, 4, 192, 0, 2, 1, 51, 4, 0, 0, 14, 16][..],
        &[58, 4, 0, 0, 7, 8, 59, 4, 0, 0, 12, 78, 1, 4, 255, 255, 255, 0, 255],
    ]
    .concat();
    seeds.push(bootp(dhcpv4::FROM_SERVER, &ack));
    seeds.push(bootp(dhcpv4::FROM_SERVER, &[53, 1, 6, 54, 4, 192, 0, 2, 1, 255]));
    let request = [
        53, 1, 3, 50, 4, 192, 0, 2, 11, 61, 7, 1, 0x52, 0x54, 0, 0, 0, 0x11, 55, 2, 1, 3, 12, 4, b'w', b'e',
        b'b', b'1', 255,
    ];
    seeds.push(bootp(dhcpv4::FROM_CLIENT, &request));
    let mut overloaded = bootp(dhcpv4::FROM_SERVER, &[52, 1, 3, 53, 1, 5, 255]);
    if let Some(file) = overloaded.get_mut(108..115) {
        file.copy_from_slice(&[51, 4, 0, 0, 0, 9, 255]);
    }
    seeds.push(overloaded);
    seeds
}

fn bootp(op: u8, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![op, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0, 0, 192, 0, 2, 11, 192, 0, 2, 11];
    bytes.extend([0; 8]);
    bytes.extend([0x52, 0x54, 0, 0, 0, 0x11]);
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99]);
    bytes.extend(options);
    bytes
}

pub(crate) fn run_v6(data: &[u8]) -> bool {
    let Ok(message) = Dhcpv6::parse(data) else { return false };
    assert!(message.xid < 1 << 24);
    let (mut ours, mut addresses) = (dhcpv6::Message::new(dhcpv6::kind::RENEW, message.xid), 0);
    for (code, value) in [(dhcpv6::option::CLIENT, message.client), (dhcpv6::option::SERVER, message.server)]
    {
        if let Some(value) = value {
            ours.option(code, value);
        }
    }
    for association in message.associations() {
        addresses += association.addresses().count();
        let leased: Vec<_> = association.addresses().map(|leased| leased.address).collect();
        ours.association(association.iaid, leased.iter().copied());
    }
    assert!(addresses * 28 <= data.len());
    assert!(message.options().map(|(_, value)| 4 + value.len()).sum::<usize>() + 4 == data.len());

    let mut memory = vec![0; 2000];
    let mut out = surrogate_wire::FrameBuf::new(&mut memory);
    let src = core::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);
    let to = lan::to(surrogate_wire::Mac([0x33, 0x33, 0, 1, 0, 2]));
    if ours.write(&to, src, &mut out).is_none() {
        return true;
    }
    let Some((_, Packet::Ipv6(ip, Transport::Udp(udp)))) = lan::read(out.as_bytes()) else {
        panic!("{message:?} was renewed as {:02x?}", out.as_bytes());
    };
    assert_eq!((ip.src, udp.src_port, udp.dst_port), (src, dhcpv6::CLIENT_PORT, dhcpv6::SERVER_PORT));
    let read = Dhcpv6::parse(udp.payload).unwrap_or_else(|why| panic!("{why:?}: {:02x?}", udp.payload));
    assert_eq!((read.xid, read.client, read.server), (message.xid, message.client, message.server));
    let named = |message: &Dhcpv6<'_>| -> Vec<_> {
        let each = message.associations();
        each.map(|one| (one.iaid, one.addresses().map(|leased| leased.address).collect::<Vec<_>>())).collect()
    };
    assert_eq!(named(&read), named(&message));
    true
}

pub(crate) fn seeds_v6() -> Vec<Vec<u8>> {
    let duid =
        |code: u8, last: u8| [&[0, code, 0, 10, 0, 3, 0, 1, 0x52, 0x54, 0, 0, 0][..], &[last]].concat();
    let address = [
        &[0, 5, 0, 24, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11][..],
        &[0, 0, 7, 8, 0, 0, 14, 16],
    ]
    .concat();
    let association = [&[0, 3, 0, 40, 0, 0, 0, 1, 0, 0, 3, 132, 0, 0, 5, 160][..], &address].concat();
    let none = [0, 3, 0, 20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13, 0, 4, 0, 3, b'n', b'o'];
    let mut seeds = datagrams(&[546, 547]);
    seeds.push([&[7, 1, 2, 3][..], &duid(1, 0x11), &duid(2, 1), &association].concat());
    seeds.push([&[7, 1, 2, 3][..], &duid(1, 0x11), &duid(2, 1), &none, &[0, 13, 0, 2, 0, 0]].concat());
    seeds.push([&[5, 1, 2, 3][..], &duid(1, 0x11), &duid(2, 1), &association, &[0, 8, 0, 2, 0, 9]].concat());
    seeds.push([&[11, 9, 9, 9][..], &duid(1, 0x11), &[0, 6, 0, 2, 0, 23]].concat());
    seeds
}
