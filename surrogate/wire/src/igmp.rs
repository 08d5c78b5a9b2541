//! IGMP (RFC 1112, RFC 2236, RFC 9776): queries, reports of all versions, and our own reports.
//!
//! A query's version follows from its length and code (RFC 9776 7.1). Our reports go to where a snooping
//! switch looks for them, with TTL 1 and the router alert option (RFC 2113).

use core::net::Ipv4Addr;
use core::time::Duration;

use crate::checksum::Sum;
use crate::emit::{Ethernet, FrameBuf, Ipv4Header};
use crate::ipv4::Ipv4;
use crate::malformed::Malformed;
use crate::membership::{
    Address as _, Generation, Message, Query, Record, Records, Reporter, Sources, from_code8,
};
use crate::packet::protocol;

/// Type of a query, of any version.
pub const QUERY: u8 = 0x11;
/// Type of an `IGMPv1` report.
pub const REPORT_V1: u8 = 0x12;
/// Type of an `IGMPv2` report.
pub const REPORT_V2: u8 = 0x16;
/// Type of an `IGMPv2` leave.
pub const LEAVE: u8 = 0x17;
/// Type of an `IGMPv3` report.
pub const REPORT_V3: u8 = 0x22;

/// All hosts of the link, in which every host is without saying so.
pub const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// All `IGMPv3` routers: where reports of that version go.
pub const ALL_V3_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);

/// Bytes of a message before an `IGMPv3` query's sources, and before a report's records.
const QUERY_V3: usize = 12;
const HEADER: usize = 8;

/// The IGMP message in `ip`; `None` if it is none, or of a type that we do not read.
///
/// # Errors
/// [`Malformed::Length`] and [`Malformed::Checksum`], or [`Malformed::Header`] for a group that is none.
pub fn parse<'a>(ip: &Ipv4<'a>) -> Result<Option<Message<'a, Ipv4Addr>>, Malformed> {
    if ip.protocol != protocol::IGMP || ip.fragment.is_some() {
        return Ok(None);
    }
    let (head, rest) = ip.payload.split_first_chunk::<HEADER>().ok_or(Malformed::Length)?;
    if !Sum::ZERO.add(ip.payload).is_intact() {
        return Err(Malformed::Checksum);
    }
    let [kind, code, _, _, g0, g1, g2, g3] = *head;
    let group = Ipv4Addr::new(g0, g1, g2, g3);
    let of_group = || if group.is_group() { Ok(group) } else { Err(Malformed::Header) };
    Ok(Some(match kind {
        QUERY => Message::Query(query(code, group, rest)?),
        REPORT_V1 => Message::Report { generation: Generation::First, group: of_group()? },
        REPORT_V2 => Message::Report { generation: Generation::Second, group: of_group()? },
        LEAVE => Message::Leave(of_group()?),
        REPORT_V3 => Message::Records(Records::parse(rest, u16::from_be_bytes([g2, g3]))?),
        _ => return Ok(None),
    }))
}

fn query(code: u8, group: Ipv4Addr, rest: &[u8]) -> Result<Query<'_, Ipv4Addr>, Malformed> {
    let tenths = |tenths: u32| Duration::from_millis(u64::from(tenths.max(1)) * 100);
    let (generation, max_response) = match (rest.len(), code) {
        // "This MUST be interpreted as a value of 100 (10 seconds)" (RFC 2236 4).
        (0, 0) => (Generation::First, tenths(100)),
        (0, code) => (Generation::Second, tenths(u32::from(code))),
        (_, code) => (Generation::Third, tenths(from_code8(code))),
    };
    let group = match group {
        none if none.is_unspecified() => None,
        group if group.is_group() => Some(group),
        _ => return Err(Malformed::Header),
    };
    let (mut sources, mut robustness, mut interval) = (Sources::NONE, None, None);
    if generation == Generation::Third {
        // "Query messages that do not match any of the above conditions [...] MUST be silently ignored".
        let (&[flags, qqic, n0, n1], rest) =
            rest.split_first_chunk::<{ QUERY_V3 - HEADER }>().ok_or(Malformed::Length)?;
        (sources, _) = Sources::split(rest, u16::from_be_bytes([n0, n1]))?;
        robustness = Some(flags & 7).filter(|robustness| *robustness > 0);
        interval = Some(Duration::from_secs(u64::from(from_code8(qqic)))).filter(|every| !every.is_zero());
    }
    Ok(Query { generation, group, max_response, sources, robustness, interval })
}

/// Writes a report of `group` in the way of `IGMPv1` or `IGMPv2`; `None` if it does not fit.
pub fn write_report(
    from: &Reporter<Ipv4Addr>,
    generation: Generation,
    group: Ipv4Addr,
    out: &mut FrameBuf<'_>,
) -> Option<()> {
    let kind = if generation == Generation::First { REPORT_V1 } else { REPORT_V2 };
    let [g0, g1, g2, g3] = group.octets();
    let bare = [kind, 0, 0, 0, g0, g1, g2, g3];
    let [c0, c1] = Sum::ZERO.add(&bare).finish().to_be_bytes();
    begin(from, group, bare.len(), out);
    out.push(&[kind, 0, c0, c1, g0, g1, g2, g3]);
    out.finish().map(|_| ())
}

/// Writes an `IGMPv3` report with `records`, at most 65,535; `None` if it does not fit.
pub fn write_records<'s>(
    from: &Reporter<Ipv4Addr>,
    records: impl Iterator<Item = Record<'s, Ipv4Addr>> + Clone,
    out: &mut FrameBuf<'_>,
) -> Option<()> {
    let [n0, n1] = u16::try_from(records.clone().count()).ok()?.to_be_bytes();
    let sum = Sum::ZERO.add(&[REPORT_V3, 0, 0, 0, 0, 0, n0, n1]);
    let [c0, c1] = records.clone().fold(sum, |sum, record| record.add_to(sum)).finish().to_be_bytes();
    let len = HEADER + records.clone().map(|record| record.len()).sum::<usize>();
    begin(from, ALL_V3_ROUTERS, len, out);
    out.push(&[REPORT_V3, 0, c0, c1, 0, 0, n0, n1]);
    records.for_each(|record| record.push_to(out));
    out.finish().map(|_| ())
}

/// "All IGMP messages [...] are sent with IP TTL 1, and contain the IP Router Alert option in their IP
/// header" (RFC 2236 2), "an IP Precedence of Internetwork Control (e.g., Type of Service 0xc0)" (RFC 9776 4).
fn begin(from: &Reporter<Ipv4Addr>, dst: Ipv4Addr, len: usize, out: &mut FrameBuf<'_>) {
    let to = Ethernet { dst: dst.group_mac(), src: from.mac, tags: from.tags };
    let header = Ipv4Header {
        src: from.address,
        dst,
        tos: 0xc0,
        id: 0,
        dont_fragment: true,
        ttl: 1,
        protocol: protocol::IGMP,
    };
    out.ipv4_router_alert(&to, &header, len);
}

/// Bytes of a report's packet before its records: IP header with its option, and its own header.
pub const BEFORE_RECORDS: usize = Ipv4::HEADER + 4 + HEADER;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Packet;
    use crate::mac::Mac;
    use crate::membership::RecordKind;
    use crate::testing::{ALICE, ALICE_V4, frame, parse as parse_frame, v4};
    use crate::vlan::Tags;

    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);

    /// What is read of `message`, its checksum made right.
    fn read(message: &[u8]) -> Result<String, Malformed> {
        let mut message = message.to_vec();
        let sum = Sum::ZERO.add(&message).finish();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        said(&v4(protocol::IGMP, &message))
    }

    fn said(frame: &[u8]) -> Result<String, Malformed> {
        let Packet::Ipv4(ip, _) = parse_frame(frame)? else { panic!("not IPv4") };
        Ok(match parse(&ip)? {
            None => "nothing".to_owned(),
            Some(Message::Query(q)) => format!(
                "{:?} {:?} {:?} {:?} {:?} {:?}",
                q.generation,
                q.group,
                q.max_response,
                q.sources,
                q.robustness,
                q.interval.map(|every| every.as_secs())
            ),
            Some(other) => format!("{other:?}"),
        })
    }

    #[test]
    fn the_version_of_a_query_follows_from_its_length_and_code() {
        assert_eq!(read(&[0x11, 0, 0, 0, 0, 0, 0, 0]).unwrap(), "First None 10s [] None None");
        assert_eq!(read(&[0x11, 100, 0, 0, 0, 0, 0, 0]).unwrap(), "Second None 10s [] None None");
        // No exponent in version 2.
        assert_eq!(
            read(&[0x11, 255, 0, 0, 239, 1, 1, 1]).unwrap(),
            "Second Some(239.1.1.1) 25.5s [] None None"
        );
        assert_eq!(
            read(&[0x11, 0x90, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0]).unwrap(),
            "Third None 25.6s [] Some(2) Some(125)"
        );
        assert_eq!(read(&[0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap(), "Third None 100ms [] None None");
        assert_eq!(
            read(&[0x11, 1, 0, 0, 239, 1, 1, 1, 10, 0x80, 0, 2, 192, 0, 2, 1, 192, 0, 2, 2]).unwrap(),
            "Third Some(239.1.1.1) 100ms [192.0.2.1, 192.0.2.2] Some(2) Some(128)"
        );
    }

    #[test]
    fn what_is_wrong_with_a_message_is_said() {
        assert_eq!(read(&[0x11, 0, 0, 0, 0, 0, 0]), Err(Malformed::Length), "too short");
        assert_eq!(read(&[0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Malformed::Length), "between two versions");
        assert_eq!(read(&[0x11, 0, 0, 0, 192, 0, 2, 1]), Err(Malformed::Header), "no group");
        assert_eq!(read(&[0x16, 0, 0, 0, 0, 0, 0, 0]), Err(Malformed::Header), "no group");
        let sources = [0x11, 1, 0, 0, 239, 1, 1, 1, 2, 125, 0, 2, 192, 0, 2, 1, 192, 0, 2];
        assert_eq!(read(&sources), Err(Malformed::Length), "a source cut short");
        assert_eq!(said(&v4(protocol::IGMP, &[0x11, 1, 0, 0, 0, 0, 0, 0])), Err(Malformed::Checksum));
        assert_eq!(read(&[0x13, 0, 0, 0, 0, 0, 0, 0]).unwrap(), "nothing", "DVMRP");
    }

    fn reporter(vlan: Option<u16>) -> Reporter<Ipv4Addr> {
        Reporter { mac: ALICE, tags: Tags::for_vid(vlan), address: ALICE_V4 }
    }

    #[test]
    fn old_reports_go_to_the_group_itself() {
        for (generation, kind) in [(Generation::First, REPORT_V1), (Generation::Second, REPORT_V2)] {
            let bytes = frame(|out| write_report(&reporter(Some(5)), generation, GROUP, out).unwrap());
            assert_eq!(said(&bytes), Ok(format!("{:?}", Message::Report { generation, group: GROUP })));
            assert_eq!(bytes[..6], Mac([1, 0, 0x5e, 1, 1, 1]).0);
            assert_eq!(bytes[42], kind);
        }
    }

    #[test]
    fn reports_have_ttl_1_the_router_alert_and_the_precedence_of_control() {
        let bytes = frame(|out| write_report(&reporter(None), Generation::Second, GROUP, out).unwrap());
        let Ok(Packet::Ipv4(ip, _)) = parse_frame(&bytes) else { panic!("{bytes:x?}") };
        assert_eq!((ip.ttl, ip.tos, ip.src, ip.dst), (1, 0xc0, ALICE_V4, GROUP));
        assert_eq!(bytes[14..16], [0x46, 0xc0]);
        assert_eq!(bytes[34..38], [0x94, 4, 0, 0]);
        assert_eq!(bytes.len(), 60);
    }

    #[test]
    fn records_go_to_all_routers_of_version_3() {
        let other = Ipv4Addr::new(232, 1, 1, 1);
        let sources = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        let records = [
            Record { kind: RecordKind::IsExclude, group: GROUP, sources: &[][..] },
            Record { kind: RecordKind::IsInclude, group: other, sources: &sources },
        ];
        let bytes = frame(|out| write_records(&reporter(None), records.into_iter(), out).unwrap());
        let Ok(Packet::Ipv4(ip, _)) = parse_frame(&bytes) else { panic!("{bytes:x?}") };
        assert_eq!((ip.dst, bytes[5]), (ALL_V3_ROUTERS, 22));
        let len: usize = records.iter().map(Record::len).sum();
        assert_eq!(ip.packet.len(), BEFORE_RECORDS + len);
        let Ok(Some(Message::Records(read))) = parse(&ip) else { panic!("{bytes:x?}") };
        let read: Vec<_> =
            read.iter().map(|r| (r.kind, r.group, r.sources.iter().collect::<Vec<_>>())).collect();
        assert_eq!(
            read,
            [(RecordKind::IsExclude, GROUP, vec![]), (RecordKind::IsInclude, other, sources.to_vec())]
        );
    }
}
