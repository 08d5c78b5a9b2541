//! MLD (RFC 2710, RFC 9777): queries, reports of both versions, and our own reports.
//!
//! A message counts only if it came from the link: hop limit 1, a link-local source, and the router alert
//! option in the hop-by-hop header (RFC 9777 6.2); a report's source may be unspecified (RFC 3590 4).

use core::net::Ipv6Addr;
use core::time::Duration;

use crate::checksum::Sum;
use crate::emit::{Ethernet, FrameBuf, Ipv6Header};
use crate::icmpv6::Icmpv6;
use crate::ipv6::Ipv6;
use crate::malformed::Malformed;
use crate::membership::{
    Address as _, Generation, Message, Query, Record, Records, Reporter, Sources, from_code8, from_code16,
};
use crate::packet::protocol;

/// Type of a query, of both versions.
pub const QUERY: u8 = 130;
/// Type of an `MLDv1` report.
pub const REPORT_V1: u8 = 131;
/// Type of an `MLDv1` done.
pub const DONE: u8 = 132;
/// Type of an `MLDv2` report.
pub const REPORT_V2: u8 = 143;

/// All routers that know `MLDv2`: where its reports go.
pub const ALL_V2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// Bytes of an `MLDv1` message, of an `MLDv2` query before its sources, of its report before the records.
const V1: usize = 24;
const QUERY_V2: usize = 28;
const REPORT_HEADER: usize = 8;

/// The MLD message in `icmp`, the payload of `ip`; `None` if it is none.
///
/// # Errors
/// [`Malformed::Length`], or [`Malformed::Header`] for a group that is none and for a message that may have
/// come from beyond the link.
pub fn parse<'a>(ip: &Ipv6<'_>, icmp: &Icmpv6<'a>) -> Result<Option<Message<'a, Ipv6Addr>>, Malformed> {
    if !matches!(icmp.kind, QUERY..=DONE | REPORT_V2) {
        return Ok(None);
    }
    let from_link = ip.src.is_unicast_link_local() || (ip.src.is_unspecified() && icmp.kind != QUERY);
    if ip.hop_limit != 1 || !from_link || !has_router_alert(ip) {
        return Err(Malformed::Header);
    }
    if icmp.kind == REPORT_V2 {
        let (&[.., n0, n1], rest) =
            icmp.message.split_first_chunk::<REPORT_HEADER>().ok_or(Malformed::Length)?;
        return Ok(Some(Message::Records(Records::parse(rest, u16::from_be_bytes([n0, n1]))?)));
    }
    let (fixed, rest) = icmp.message.split_first_chunk::<V1>().ok_or(Malformed::Length)?;
    let [_, _, _, _, r0, r1, _, _, group @ ..] = *fixed;
    let group = Ipv6Addr::from(group);
    let of_group = || if group.is_group() { Ok(group) } else { Err(Malformed::Header) };
    Ok(Some(match icmp.kind {
        QUERY => Message::Query(query(u16::from_be_bytes([r0, r1]), group, rest)?),
        REPORT_V1 => Message::Report { generation: Generation::Second, group: of_group()? },
        _ => Message::Leave(of_group()?),
    }))
}

fn query(code: u16, group: Ipv6Addr, rest: &[u8]) -> Result<Query<'_, Ipv6Addr>, Malformed> {
    let group = match group {
        none if none.is_unspecified() => None,
        group if group.is_group() => Some(group),
        _ => return Err(Malformed::Header),
    };
    let millis = |millis: u32| Duration::from_millis(u64::from(millis.max(1)));
    if rest.is_empty() {
        // No exponent in version 1.
        let max_response = millis(u32::from(code));
        let generation = Generation::Second;
        return Ok(Query {
            generation,
            group,
            max_response,
            sources: Sources::NONE,
            robustness: None,
            interval: None,
        });
    }
    // "MUST be silently ignored" if between the two lengths (RFC 9777 8.1).
    let (&[flags, qqic, n0, n1], rest) =
        rest.split_first_chunk::<{ QUERY_V2 - V1 }>().ok_or(Malformed::Length)?;
    let (sources, _) = Sources::split(rest, u16::from_be_bytes([n0, n1]))?;
    Ok(Query {
        generation: Generation::Third,
        group,
        max_response: millis(from_code16(code)),
        sources,
        robustness: Some(flags & 7).filter(|robustness| *robustness > 0),
        interval: Some(Duration::from_secs(u64::from(from_code8(qqic)))).filter(|every| !every.is_zero()),
    })
}

/// Whether the hop-by-hop header of `ip` alerts routers to an MLD message (RFC 2711 2.1).
fn has_router_alert(ip: &Ipv6<'_>) -> bool {
    let Some((fixed, rest)) = ip.packet.split_first_chunk::<{ Ipv6::HEADER }>() else { return false };
    let [_, units, ..] = *rest else { return false };
    if fixed.get(6) != Some(&protocol::HOP_BY_HOP) {
        return false;
    }
    let mut options = rest.get(2..(usize::from(units) + 1) * 8).unwrap_or_default();
    loop {
        match *options {
            [PAD1, ref after @ ..] => options = after,
            [ROUTER_ALERT, 2, value, about, ..] => return [value, about] == [0, 0],
            [_, len, ref after @ ..] => options = after.get(usize::from(len)..).unwrap_or_default(),
            _ => return false,
        }
    }
}

const PAD1: u8 = 0;
const ROUTER_ALERT: u8 = 5;

/// Writes an `MLDv1` report of `group`; `None` if it does not fit.
pub fn write_report(from: &Reporter<Ipv6Addr>, group: Ipv6Addr, out: &mut FrameBuf<'_>) -> Option<()> {
    let sum = begin(from, group, V1, out).add(&[REPORT_V1, 0]).add(&group.octets());
    let [c0, c1] = sum.finish().to_be_bytes();
    out.push(&[REPORT_V1, 0, c0, c1, 0, 0, 0, 0]);
    out.push(&group.octets());
    out.finish().map(|_| ())
}

/// Writes an `MLDv2` report with `records`, at most 65,535; `None` if it does not fit.
pub fn write_records<'s>(
    from: &Reporter<Ipv6Addr>,
    records: impl Iterator<Item = Record<'s, Ipv6Addr>> + Clone,
    out: &mut FrameBuf<'_>,
) -> Option<()> {
    let [n0, n1] = u16::try_from(records.clone().count()).ok()?.to_be_bytes();
    let len = REPORT_HEADER + records.clone().map(|record| record.len()).sum::<usize>();
    let sum = begin(from, ALL_V2_ROUTERS, len, out).add(&[REPORT_V2, 0, 0, 0, 0, 0, n0, n1]);
    let [c0, c1] = records.clone().fold(sum, |sum, record| record.add_to(sum)).finish().to_be_bytes();
    out.push(&[REPORT_V2, 0, c0, c1, 0, 0, n0, n1]);
    records.for_each(|record| record.push_to(out));
    out.finish().map(|_| ())
}

/// Link, network and hop-by-hop headers of a message of `len` bytes; gives back its pseudo-header. "All MLD
/// messages [...] are sent with a link-local IPv6 Source Address, an IPv6 Hop Limit of 1, and an IPv6 Router
/// Alert option in a Hop-by-Hop Options header" (RFC 9777 5).
fn begin(from: &Reporter<Ipv6Addr>, dst: Ipv6Addr, len: usize, out: &mut FrameBuf<'_>) -> Sum {
    let to = Ethernet { dst: dst.group_mac(), src: from.mac, tags: from.tags };
    let header =
        Ipv6Header { src: from.address, dst, traffic_class: 0, hop_limit: 1, protocol: protocol::ICMPV6 };
    out.ipv6_router_alert(&to, &header, len);
    Sum::pseudo_v6(from.address, dst, protocol::ICMPV6, len)
}

/// Bytes of a report's packet before its records: IP header, hop-by-hop header, and its own.
pub const BEFORE_RECORDS: usize = Ipv6::HEADER + 8 + REPORT_HEADER;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::RecordKind;
    use crate::packet::Transport;
    use crate::testing::{ALICE, TO_BOB, frame, parse as parse_frame};
    use crate::vlan::Tags;
    use crate::{Mac, Packet};

    const LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);
    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x1234);
    const SOURCE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99);

    /// A message as `begin` sends it, its checksum right.
    fn sent(src: Ipv6Addr, message: &[u8]) -> Vec<u8> {
        let header =
            Ipv6Header { src, dst: GROUP, traffic_class: 0, hop_limit: 1, protocol: protocol::ICMPV6 };
        let mut message = message.to_vec();
        let sum = Sum::pseudo_v6(src, GROUP, protocol::ICMPV6, message.len()).add(&message).finish();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        frame(|out| {
            out.ipv6_router_alert(&TO_BOB, &header, message.len());
            out.push(&message);
        })
    }

    fn said(bytes: &[u8]) -> Result<String, Malformed> {
        let Packet::Ipv6(ip, Transport::Icmpv6(icmp)) = parse_frame(bytes)? else { panic!("no ICMPv6") };
        Ok(match parse(&ip, &icmp)? {
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

    fn v1(kind: u8, code: u16, group: Ipv6Addr) -> Vec<u8> {
        let [r0, r1] = code.to_be_bytes();
        [&[kind, 0, 0, 0, r0, r1, 0, 0][..], &group.octets()].concat()
    }

    fn v2(code: u16, group: Ipv6Addr, sources: &[Ipv6Addr]) -> Vec<u8> {
        let count = u8::try_from(sources.len()).unwrap();
        let mut message = [&v1(QUERY, code, group)[..], &[2, 125, 0, count]].concat();
        sources.iter().for_each(|source| message.extend(source.octets()));
        message
    }

    #[test]
    fn the_version_of_a_query_follows_from_its_length() {
        let none = Ipv6Addr::UNSPECIFIED;
        assert_eq!(said(&sent(LOCAL, &v1(QUERY, 10_000, none))).unwrap(), "Second None 10s [] None None");
        assert_eq!(
            said(&sent(LOCAL, &v1(QUERY, 0xffff, GROUP))).unwrap(),
            "Second Some(ff05::1234) 65.535s [] None None"
        );
        assert_eq!(said(&sent(LOCAL, &v2(0, none, &[]))).unwrap(), "Third None 1ms [] Some(2) Some(125)");
        assert_eq!(
            said(&sent(LOCAL, &v2(0x9000, GROUP, &[SOURCE]))).unwrap(),
            "Third Some(ff05::1234) 65.536s [2001:db8::99] Some(2) Some(125)"
        );
    }

    #[test]
    fn what_may_have_come_from_beyond_the_link_is_refused() {
        let query = v1(QUERY, 10_000, Ipv6Addr::UNSPECIFIED);
        assert_eq!(said(&sent(SOURCE, &query)), Err(Malformed::Header), "a global source");
        assert_eq!(said(&sent(Ipv6Addr::UNSPECIFIED, &query)), Err(Malformed::Header), "a query from nobody");
        assert!(said(&sent(Ipv6Addr::UNSPECIFIED, &v1(REPORT_V1, 0, GROUP))).is_ok(), "RFC 3590");
        let mut far = sent(LOCAL, &query);
        far[21] = 2;
        assert_eq!(said(&far), Err(Malformed::Header), "hop limit");
        let mut silent = sent(LOCAL, &query);
        silent[56..60].copy_from_slice(&[1, 4, 0, 0]);
        assert_eq!(said(&silent), Err(Malformed::Header), "no router alert");
        let mut otherwise = sent(LOCAL, &query);
        otherwise[59] = 1;
        assert_eq!(said(&otherwise), Err(Malformed::Header), "an alert to RSVP");
    }

    #[test]
    fn what_is_wrong_with_a_message_is_said() {
        let none = Ipv6Addr::UNSPECIFIED;
        for cut in [4, 23, 25, 27] {
            assert_eq!(said(&sent(LOCAL, &v2(1, none, &[])[..cut])), Err(Malformed::Length), "{cut}");
        }
        let query = v2(1, GROUP, &[SOURCE]);
        assert_eq!(said(&sent(LOCAL, &query[..43])), Err(Malformed::Length), "a source cut short");
        for kind in [QUERY, REPORT_V1, DONE] {
            assert_eq!(said(&sent(LOCAL, &v1(kind, 1, SOURCE))), Err(Malformed::Header), "no group");
        }
        assert_eq!(said(&sent(LOCAL, &[REPORT_V2, 0, 0, 0, 0, 0, 0])), Err(Malformed::Length));
    }

    fn reporter(vlan: Option<u16>) -> Reporter<Ipv6Addr> {
        Reporter { mac: ALICE, tags: Tags::for_vid(vlan), address: LOCAL }
    }

    #[test]
    fn an_old_report_goes_to_the_group_itself() {
        let bytes = frame(|out| write_report(&reporter(Some(5)), GROUP, out).unwrap());
        let expected = Message::Report::<Ipv6Addr> { generation: Generation::Second, group: GROUP };
        assert_eq!(said(&bytes), Ok(format!("{expected:?}")));
        assert_eq!(bytes[..6], Mac([0x33, 0x33, 0, 0, 0x12, 0x34]).0);
    }

    #[test]
    fn records_go_to_all_routers_of_version_2() {
        let records = [
            Record { kind: RecordKind::IsExclude, group: GROUP, sources: &[][..] },
            Record { kind: RecordKind::IsInclude, group: GROUP, sources: &[SOURCE] },
        ];
        let bytes = frame(|out| write_records(&reporter(None), records.into_iter(), out).unwrap());
        let Ok(Packet::Ipv6(ip, Transport::Icmpv6(icmp))) = parse_frame(&bytes) else { panic!("{bytes:x?}") };
        assert_eq!((ip.src, ip.dst, ip.hop_limit), (LOCAL, ALL_V2_ROUTERS, 1));
        let len: usize = records.iter().map(Record::len).sum();
        assert_eq!(ip.packet.len(), BEFORE_RECORDS + len);
        let Ok(Some(Message::Records(read))) = parse(&ip, &icmp) else { panic!("{bytes:x?}") };
        let read: Vec<_> =
            read.iter().map(|r| (r.kind, r.group, r.sources.iter().collect::<Vec<_>>())).collect();
        assert_eq!(
            read,
            [(RecordKind::IsExclude, GROUP, vec![]), (RecordKind::IsInclude, GROUP, vec![SOURCE])]
        );
    }
}
