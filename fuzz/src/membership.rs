//! IGMP and MLD: queries and reports of all versions, and the reports that we write.

use core::net::{Ipv4Addr, Ipv6Addr};

use surrogate_wire::emit::{Ipv4Header, Ipv6Header};
use surrogate_wire::membership::{Address, Generation, Message, Record, RecordKind, Reporter};
use surrogate_wire::{Packet, Tags, Transport, igmp, mld, protocol};

use crate::input::Input;
use crate::lan;

/// First a byte of which family, then the message.
pub(crate) fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    if input.byte() & 1 == 0 { over_ipv4(input.rest()) } else { over_ipv6(input.rest()) }
}

fn over_ipv4(message: &[u8]) -> bool {
    let header = Ipv4Header {
        src: Ipv4Addr::new(192, 0, 2, 1),
        dst: igmp::ALL_HOSTS,
        tos: 0xc0,
        id: 0,
        dont_fragment: true,
        ttl: 1,
        protocol: protocol::IGMP,
    };
    let mut bytes = lan::written(|out| {
        out.ipv4_router_alert(&lan::to(igmp::ALL_HOSTS.group_mac()), &header, message.len());
        out.push(message);
    });
    lan::mend(&mut bytes);
    let Some((_, Packet::Ipv4(ip, _))) = lan::read(&bytes) else { panic!("{bytes:02x?}") };
    let Ok(Some(read)) = igmp::parse(&ip) else { return false };
    let from = Reporter { mac: lan::CLIENT, tags: Tags::NONE, address: header.src };
    let again = |bytes: &[u8], was: &dyn Fn(&Message<'_, Ipv4Addr>) -> bool| {
        let Some((_, Packet::Ipv4(ip, _))) = lan::read(bytes) else { panic!("{bytes:02x?}") };
        assert!(igmp::parse(&ip).is_ok_and(|read| read.is_some_and(|read| was(&read))), "{bytes:02x?}");
    };
    if let Some((group, generation)) = look(&read) {
        let bytes =
            lan::written(|out| igmp::write_report(&from, generation, group, out).expect("there is room"));
        again(&bytes, &|read| *read == Message::Report { generation, group });
    }
    let kept = records(&read);
    let written = kept.iter().map(|(kind, group, sources)| Record { kind: *kind, group: *group, sources });
    let bytes = lan::written(|out| igmp::write_records(&from, written, out).expect("there is room"));
    again(&bytes, &|read| records(read) == kept);
    true
}

fn over_ipv6(message: &[u8]) -> bool {
    let src = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let dst = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let header = Ipv6Header { src, dst, traffic_class: 0, hop_limit: 1, protocol: protocol::ICMPV6 };
    let mut bytes = lan::written(|out| {
        out.ipv6_router_alert(&lan::to(dst.group_mac()), &header, message.len());
        out.push(message);
    });
    lan::mend(&mut bytes);
    let Some((_, Packet::Ipv6(ip, Transport::Icmpv6(icmp)))) = lan::read(&bytes) else { return false };
    let Ok(Some(read)) = mld::parse(&ip, &icmp) else { return false };
    let from = Reporter { mac: lan::CLIENT, tags: Tags::NONE, address: src };
    let again = |bytes: &[u8], was: &dyn Fn(&Message<'_, Ipv6Addr>) -> bool| {
        let Some((_, Packet::Ipv6(ip, Transport::Icmpv6(icmp)))) = lan::read(bytes) else {
            panic!("{bytes:02x?}")
        };
        assert!(mld::parse(&ip, &icmp).is_ok_and(|read| read.is_some_and(|read| was(&read))), "{bytes:02x?}");
    };
    if let Some((group, _)) = look(&read) {
        let bytes = lan::written(|out| mld::write_report(&from, group, out).expect("there is room"));
        again(&bytes, &|read| *read == Message::Report { generation: Generation::Second, group });
    }
    let kept = records(&read);
    let written = kept.iter().map(|(kind, group, sources)| Record { kind: *kind, group: *group, sources });
    let bytes = lan::written(|out| mld::write_records(&from, written, out).expect("there is room"));
    again(&bytes, &|read| records(read) == kept);
    true
}

/// Checks what a message says; the group of a report that can be repeated.
fn look<A: Address>(message: &Message<'_, A>) -> Option<(A, Generation)> {
    match message {
        Message::Query(query) => {
            assert!(!query.max_response.is_zero() && query.group.is_none_or(Address::is_group));
            assert_eq!(query.sources.is_empty(), query.sources.iter().next().is_none());
            assert!(query.sources.iter().all(|source| query.sources.contains(source)));
            None
        }
        Message::Report { generation, group } => {
            assert!(group.is_group());
            Some((*group, *generation))
        }
        Message::Leave(group) => {
            assert!(group.is_group());
            None
        }
        Message::Records(_) => None,
    }
}

fn records<A: Address>(message: &Message<'_, A>) -> Vec<(RecordKind, A, Vec<A>)> {
    match message {
        Message::Records(records) => records
            .iter()
            .map(|record| (record.kind, record.group, record.sources.iter().collect()))
            .collect(),
        _ => Vec::new(),
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let v4: [&[u8]; 7] = [
        &[0x11, 0, 0, 0, 0, 0, 0, 0],
        &[0x11, 100, 0, 0, 239, 1, 1, 1],
        &[0x11, 0x90, 0, 0, 239, 1, 1, 1, 2, 125, 0, 1, 192, 0, 2, 9],
        &[0x12, 0, 0, 0, 239, 1, 1, 1],
        &[0x16, 0, 0, 0, 239, 1, 1, 1],
        &[0x17, 0, 0, 0, 239, 1, 1, 1],
        &[
            0x22, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, 0, 239, 1, 1, 1, 1, 1, 0, 1, 232, 1, 1, 1, 192, 0, 2, 9, 1,
            2, 3, 4,
        ],
    ];
    let group = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x1234).octets();
    let source = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9).octets();
    let head = |kind: u8, code: u8| [&[kind, 0, 0, 0, code, 1, 0, 0][..], &group].concat();
    let v6 = [
        head(130, 9),
        [&head(130, 0x91)[..], &[2, 125, 0, 1], &source].concat(),
        head(131, 0),
        head(132, 0),
        [&[143, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, 0][..], &group, &[1, 1, 0, 1], &group, &source, &[1, 2, 3, 4]]
            .concat(),
    ];
    let tagged = |family: u8, message: &[u8]| [&[family], message].concat();
    let v4 = v4.into_iter().map(|message| tagged(0, message));
    v4.chain(v6.iter().map(|message| tagged(1, message))).collect()
}
