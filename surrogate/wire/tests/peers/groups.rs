//! Group membership beside smoltcp: `IGMPv1` and `IGMPv2`, `MLDv2`; of `IGMPv3` and `MLDv1` it knows
//! nothing. Its code of `IGMPv2`'s response time has an exponent, which only `IGMPv3`'s has (RFC 2236 2.2): left out.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::Duration;
use smoltcp::wire::{
    Icmpv6Packet, Icmpv6Repr, IgmpPacket, IgmpRepr, IgmpVersion, Ipv4Packet, Ipv6ExtHeader,
    Ipv6HopByHopHeader, Ipv6HopByHopRepr, Ipv6OptionRepr, Ipv6OptionRouterAlert, Ipv6Packet,
    MldAddressRecord, MldRepr,
};
use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::{Ethernet, Ipv4Header, Ipv6Header};
use surrogate_wire::membership::{Generation, Message, Record, RecordKind, Reporter};
use surrogate_wire::{
    Frame, FrameBuf, Malformed, Offload, Packet, Received, Tags, Transport, igmp, mld, protocol, router,
};

use crate::build::{DST, SRC, changed, changes};

const HOST_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn old_igmp_is_read_as_smoltcp_meant_it(repr in igmp_repr()) {
        let mut message = vec![0; repr.buffer_len()];
        repr.emit(&mut IgmpPacket::new_unchecked(&mut message[..]));
        prop_assert_eq!(read_igmp(&igmp_frame(&message)), Ok(Some(meaning(&repr))));
    }

    #[test]
    fn our_old_reports_are_read_by_smoltcp(group in group_v4(), old: bool) {
        let (generation, version) = if old {
            (Generation::First, IgmpVersion::Version1)
        } else {
            (Generation::Second, IgmpVersion::Version2)
        };
        let from = Reporter { mac: SRC, tags: Tags::NONE, address: HOST_V4 };
        let bytes = written(|out| igmp::write_report(&from, generation, group, out).unwrap());
        let ip = Ipv4Packet::new_checked(&bytes[14..]).unwrap();
        prop_assert!(ip.verify_checksum());
        prop_assert_eq!((ip.header_len(), ip.hop_limit(), ip.dst_addr()), (24, 1, group));
        let message = IgmpPacket::new_checked(ip.payload()).unwrap();
        prop_assert!(message.verify_checksum());
        let expected = IgmpRepr::MembershipReport { group_addr: group, version };
        prop_assert_eq!(IgmpRepr::parse(&message), Ok(expected));
    }

    #[test]
    fn mld_is_read_as_smoltcp_meant_it(
        code in any::<u16>(),
        group in prop::option::of(group_v6()),
        qrv in 0u8..8,
        qqic in 0u8..128,
        sources in prop::collection::vec(any::<u128>().prop_map(Ipv6Addr::from), 0..9),
    ) {
        let data: Vec<u8> = sources.iter().flat_map(|source| source.octets()).collect();
        let repr = MldRepr::Query {
            max_resp_code: code,
            mcast_addr: group.unwrap_or(Ipv6Addr::UNSPECIFIED),
            s_flag: false,
            qrv,
            qqic,
            num_srcs: u16::try_from(sources.len()).unwrap(),
            data: &data,
        };
        let bytes = mld_frame(&emit_mld(repr));
        let Message::Query(query) = read_mld(&bytes).unwrap().unwrap() else { panic!("{bytes:x?}") };
        prop_assert_eq!((query.generation, query.group), (Generation::Third, group));
        prop_assert_eq!(query.sources.iter().collect::<Vec<_>>(), sources);
        prop_assert_eq!(query.robustness.unwrap_or_default(), qrv);
        prop_assert_eq!(query.interval.map_or(0, |every| every.as_secs()), u64::from(qqic));
        if code < 0x8000 {
            prop_assert_eq!(query.max_response.as_millis(), u128::from(code.max(1)));
        }
    }

    #[test]
    fn our_records_are_read_by_smoltcp(records in prop::collection::vec(record_v6(), 0..20)) {
        let from = Reporter { mac: SRC, tags: Tags::NONE, address: HOST_V6 };
        let wanted = records.iter().map(|(kind, group, sources)| Record { kind: *kind, group: *group, sources });
        let bytes = written(|out| mld::write_records(&from, wanted, out).unwrap());
        let ip = Ipv6Packet::new_checked(&bytes[14..]).unwrap();
        let after = Ipv6ExtHeader::new_checked(ip.payload()).unwrap();
        let options = Ipv6HopByHopHeader::new_checked(after.payload()).unwrap();
        let options = Ipv6HopByHopRepr::parse(&options).unwrap();
        let alert = Ipv6OptionRepr::RouterAlert(Ipv6OptionRouterAlert::MulticastListenerDiscovery);
        prop_assert!(options.options.contains(&alert));
        let message = Icmpv6Packet::new_checked(&ip.payload()[8..]).unwrap();
        prop_assert!(message.verify_checksum(&HOST_V6, &ip.dst_addr()));
        let repr = Icmpv6Repr::parse(&HOST_V6, &ip.dst_addr(), &message, &ChecksumCapabilities::default());
        let Ok(Icmpv6Repr::Mld(MldRepr::Report { nr_mcast_addr_rcrds, data })) = repr else {
            panic!("{repr:?}")
        };
        prop_assert_eq!(usize::from(nr_mcast_addr_rcrds), records.len());
        let mut rest = data;
        for (kind, group, sources) in &records {
            let record = MldAddressRecord::new_checked(rest).unwrap();
            prop_assert_eq!(u8::from(record.record_type()), kind.number());
            prop_assert_eq!(record.mcast_addr(), *group);
            prop_assert_eq!(usize::from(record.num_srcs()), sources.len());
            let len = sources.len() * 16;
            let theirs: Vec<u8> = sources.iter().flat_map(|source| source.octets()).collect();
            prop_assert_eq!(&rest[20..20 + len], &theirs[..]);
            rest = &rest[20 + len..];
        }
        prop_assert!(rest.is_empty());
        // And by ourselves, as they were meant.
        let Message::Records(ours) = read_mld(&bytes).unwrap().unwrap() else { panic!("{bytes:x?}") };
        let ours: Vec<_> = ours.iter().map(|r| (r.kind, r.group, r.sources.iter().collect())).collect();
        prop_assert_eq!(ours, records);
    }

    #[test]
    fn what_is_changed_on_the_way_neither_panics_nor_reaches_beyond_the_message(
        records in prop::collection::vec(record_v6(), 0..6),
        v4 in prop::collection::vec(record_v4(), 0..6),
        changes in changes(),
        mend: bool,
    ) {
        let from = Reporter { mac: SRC, tags: Tags::NONE, address: HOST_V6 };
        let wanted = records.iter().map(|(kind, group, sources)| Record { kind: *kind, group: *group, sources });
        let six = written(|out| mld::write_records(&from, wanted, out).unwrap());
        let mut six = changed(&six, &changes, false);
        if mend {
            mend_mld(&mut six);
        }
        look_mld(&six)?;
        let from = Reporter { mac: SRC, tags: Tags::NONE, address: HOST_V4 };
        let wanted = v4.iter().map(|(kind, group, sources)| Record { kind: *kind, group: *group, sources });
        let four = written(|out| igmp::write_records(&from, wanted, out).unwrap());
        let mut four = changed(&four, &changes, false);
        if mend {
            mend_igmp(&mut four);
        }
        look_igmp(&four)?;
    }

    #[test]
    fn plain_noise_is_a_message_or_none(noise in prop::collection::vec(any::<u8>(), 4..120), kind in prop::sample::select(vec![0x11u8, 0x12, 0x16, 0x17, 0x22])) {
        let mut message = noise.clone();
        message[0] = kind;
        message[2..4].fill(0);
        let sum = pnet::packet::util::checksum(&message, 1);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        look_igmp(&igmp_frame(&message))?;
        let mut message = noise;
        message[0] = match kind { 0x11 => 130, 0x22 => 143, _ => 131 };
        look_mld(&mld_frame(&message))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn prefixes_in_what_a_router_may_send_are_inside_it_and_masked(
        options in prop::collection::vec(option(), 0..6),
        cut in 0usize..40,
    ) {
        let mut message = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        message.extend(options.concat());
        message.truncate(message.len().saturating_sub(if cut < 20 { 0 } else { cut }).max(4));
        let dst = surrogate_wire::icmpv6::ALL_NODES;
        let sum = Sum::pseudo_v6(HOST_V6, dst, protocol::ICMPV6, message.len()).add(&message).finish();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let to = Ethernet { dst: DST, src: SRC, tags: Tags::NONE };
        let header =
            Ipv6Header { src: HOST_V6, dst, traffic_class: 0, hop_limit: 255, protocol: protocol::ICMPV6 };
        let bytes = written(|out| {
            out.ipv6(&to, &header, message.len());
            out.push(&message);
        });
        if let Ok(Packet::Ipv6(ip, Transport::Icmpv6(icmp))) = packet(&bytes)
            && let Some(prefixes) = router::prefixes(&ip, &icmp)
        {
            let prefixes: Vec<_> = prefixes.collect();
            prop_assert!(16 + prefixes.len() * 32 <= message.len());
            for prefix in prefixes {
                prop_assert!(prefix.len <= 128 && prefix.covers(prefix.prefix));
            }
        }
    }
}

/// A prefix information option, mostly, or another one.
fn option() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![3 => Just(3u8), 1 => any::<u8>()];
    let words = prop_oneof![4 => Just(4u8), 1 => 0u8..6];
    (kind, words, any::<[u8; 30]>()).prop_map(|(kind, words, rest)| {
        let mut option = [&[kind, words][..], &rest].concat();
        option.resize(usize::from(words) * 8, 0);
        option
    })
}

fn group_v4() -> impl Strategy<Value = Ipv4Addr> {
    (224u8..240, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| Ipv4Addr::new(a, b, c, d))
}

fn group_v6() -> impl Strategy<Value = Ipv6Addr> {
    any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits | 0xff << 120))
}

fn kind() -> impl Strategy<Value = RecordKind> {
    (1u8..7).prop_map(|number| RecordKind::from_number(number).expect("a known one"))
}

fn record_v6() -> impl Strategy<Value = (RecordKind, Ipv6Addr, Vec<Ipv6Addr>)> {
    (kind(), group_v6(), prop::collection::vec(any::<u128>().prop_map(Ipv6Addr::from), 0..4))
}

fn record_v4() -> impl Strategy<Value = (RecordKind, Ipv4Addr, Vec<Ipv4Addr>)> {
    (kind(), group_v4(), prop::collection::vec(any::<u32>().prop_map(Ipv4Addr::from), 0..4))
}

fn igmp_repr() -> impl Strategy<Value = IgmpRepr> {
    let version = || prop_oneof![Just(IgmpVersion::Version1), Just(IgmpVersion::Version2)];
    prop_oneof![
        (1u8..128, prop::option::of(group_v4()), version()).prop_map(|(tenths, group, version)| {
            IgmpRepr::MembershipQuery {
                max_resp_time: Duration::from_millis(u64::from(tenths) * 100),
                group_addr: group.unwrap_or(Ipv4Addr::UNSPECIFIED),
                version,
            }
        }),
        (group_v4(), version())
            .prop_map(|(group_addr, version)| IgmpRepr::MembershipReport { group_addr, version }),
        group_v4().prop_map(|group_addr| IgmpRepr::LeaveGroup { group_addr }),
    ]
}

/// What smoltcp means, in the words in which [`read_igmp`] says what we read.
fn meaning(repr: &IgmpRepr) -> String {
    let generation = |version: &IgmpVersion| match version {
        IgmpVersion::Version1 => Generation::First,
        IgmpVersion::Version2 => Generation::Second,
    };
    match repr {
        IgmpRepr::MembershipQuery { max_resp_time, group_addr, version } => {
            let group = (!group_addr.is_unspecified()).then_some(*group_addr);
            let millis =
                if *version == IgmpVersion::Version1 { 10_000 } else { max_resp_time.total_millis() };
            format!("query {:?} {group:?} {millis}", generation(version))
        }
        IgmpRepr::MembershipReport { group_addr, version } => {
            format!("report {:?} {group_addr}", generation(version))
        }
        IgmpRepr::LeaveGroup { group_addr } => format!("leave {group_addr}"),
    }
}

fn read_igmp(bytes: &[u8]) -> Result<Option<String>, Malformed> {
    let Packet::Ipv4(ip, _) = packet(bytes)? else { return Ok(None) };
    Ok(igmp::parse(&ip)?.map(|message| match message {
        Message::Query(query) => {
            format!("query {:?} {:?} {}", query.generation, query.group, query.max_response.as_millis())
        }
        Message::Report { generation, group } => format!("report {generation:?} {group}"),
        Message::Leave(group) => format!("leave {group}"),
        Message::Records(records) => format!("records {records:?}"),
    }))
}

fn read_mld(bytes: &[u8]) -> Result<Option<Message<'_, Ipv6Addr>>, Malformed> {
    let Packet::Ipv6(ip, Transport::Icmpv6(icmp)) = packet(bytes)? else { return Ok(None) };
    mld::parse(&ip, &icmp)
}

fn packet(bytes: &[u8]) -> Result<Packet<'_>, Malformed> {
    Packet::parse(&Frame::parse(&Received::plain(bytes))?, Offload::None)
}

fn look_igmp(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(Packet::Ipv4(ip, _)) = packet(bytes) else { return Ok(()) };
    match igmp::parse(&ip) {
        Ok(Some(Message::Query(query))) => {
            prop_assert!(!query.max_response.is_zero());
            prop_assert!(query.sources.iter().count() * 4 + 8 <= ip.payload.len());
            prop_assert!(query.group.is_none_or(|group| group.is_multicast()));
        }
        Ok(Some(Message::Records(records))) => {
            let len: usize = records.iter().map(|record| 8 + record.sources.iter().count() * 4).sum();
            prop_assert!(len + 8 <= ip.payload.len());
            prop_assert!(records.iter().all(|record| record.group.is_multicast()));
        }
        _ => {}
    }
    Ok(())
}

fn look_mld(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(Packet::Ipv6(ip, Transport::Icmpv6(icmp))) = packet(bytes) else { return Ok(()) };
    match mld::parse(&ip, &icmp) {
        Ok(Some(Message::Query(query))) => {
            prop_assert!(!query.max_response.is_zero());
            prop_assert!(query.sources.iter().count() * 16 + 24 <= ip.payload.len());
        }
        Ok(Some(Message::Records(records))) => {
            let len: usize = records.iter().map(|record| 20 + record.sources.iter().count() * 16).sum();
            prop_assert!(len + 8 <= ip.payload.len());
        }
        _ => {}
    }
    Ok(())
}

fn written(write: impl FnOnce(&mut FrameBuf<'_>)) -> Vec<u8> {
    let mut memory = vec![0xee; 4096];
    let mut out = FrameBuf::new(&mut memory);
    write(&mut out);
    out.finish().expect("it fits").to_vec()
}

fn igmp_frame(message: &[u8]) -> Vec<u8> {
    let to = Ethernet { dst: DST, src: SRC, tags: Tags::NONE };
    let header = Ipv4Header {
        src: HOST_V4,
        dst: igmp::ALL_HOSTS,
        tos: 0,
        id: 0,
        dont_fragment: true,
        ttl: 1,
        protocol: protocol::IGMP,
    };
    written(|out| {
        out.ipv4(&to, &header, message.len());
        out.push(message);
    })
}

fn emit_mld(repr: MldRepr<'_>) -> Vec<u8> {
    let repr = Icmpv6Repr::Mld(repr);
    let mut message = vec![0; repr.buffer_len()];
    let mut packet = Icmpv6Packet::new_unchecked(&mut message[..]);
    repr.emit(&HOST_V6, &mld::ALL_V2_ROUTERS, &mut packet, &ChecksumCapabilities::default());
    message
}

/// The message from the link, its checksum made right.
fn mld_frame(message: &[u8]) -> Vec<u8> {
    let to = Ethernet { dst: DST, src: SRC, tags: Tags::NONE };
    let dst = mld::ALL_V2_ROUTERS;
    let header = Ipv6Header { src: HOST_V6, dst, traffic_class: 0, hop_limit: 1, protocol: protocol::ICMPV6 };
    let mut bytes = written(|out| {
        out.ipv6_router_alert(&to, &header, message.len());
        out.push(message);
    });
    mend_mld(&mut bytes);
    bytes
}

/// Makes the checksum right as far as the lengths allow.
fn mend_mld(frame: &mut [u8]) {
    let Some(Ok([src, dst])) =
        frame.get(22..54).map(|addresses| <[[u8; 16]; 2]>::try_from(addresses.as_chunks().0))
    else {
        return;
    };
    let end = 54 + usize::from(u16::from_be_bytes([frame[18], frame[19]]));
    let Some(message) = frame.get_mut(62..end).filter(|message| message.len() >= 4) else { return };
    message[2..4].fill(0);
    let packet = pnet::packet::icmpv6::Icmpv6Packet::new(message).expect("four bytes");
    let sum = pnet::packet::icmpv6::checksum(&packet, &src.into(), &dst.into());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// Makes both checksums right as far as the lengths allow.
fn mend_igmp(frame: &mut [u8]) {
    let Some(header) = frame.get_mut(14..38) else { return };
    let sum = pnet::packet::util::checksum(header, 5);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    let end = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    if let Some(message) = frame.get_mut(38..end).filter(|message| message.len() >= 4) {
        let sum = pnet::packet::util::checksum(message, 1);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
}
