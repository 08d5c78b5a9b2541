//! A guest with names, and what others on the link ask and say about them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use surrogate::guest::identity::NicIdentity;
use surrogate::policy::names::{Names, NetbiosName, Service};
use surrogate_wire::dns::{ANY_CLASS, Data, IN, Section, TOP_BIT, Writer, kind};
use surrogate_wire::emit::Ethernet;
use surrogate_wire::{dns, netbios};

use crate::frames::*;

const LLMNR: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 252);
const MDNS_6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

/// `printer.local` with a page, and PRINTER; in the groups where names are asked for.
pub(crate) fn identity() -> NicIdentity {
    let page = Service {
        name: "Laser".to_owned(),
        kind: "_http._tcp".to_owned(),
        port: 80,
        txt: vec!["path=/".to_owned()],
    };
    let mut identity = GUEST.identity();
    identity.groups.extend([IpAddr::from(LLMNR), MDNS_6.into()]);
    identity.traffic.names = Names {
        host: Some("printer".to_owned()),
        netbios: vec![NetbiosName { name: printer(), group: false }],
        services: vec![page],
    };
    identity
}

/// The rows of "Names on the link" in the document.
pub(crate) fn rows() -> Vec<(&'static str, Vec<u8>)> {
    let ask = |name, kind| question(name, kind, ANY_CLASS);
    let host = || question("printer.local", kind::A, IN);
    let claim = [192, 0, 2, 66];
    let from_afar = udp(to_group(MDNS.into()), Host(7).v4().into(), MDNS.into(), (5353, 5353), &host());
    let off_link = moved(from_afar, [198, 51, 100, 7]);
    let netbios_ask = |kind| query(0x0100, |out| out.question(&printer().wire(), kind, IN));
    let unicast = |src_port, port, payload: &[u8]| datagram((src_port, port), payload);
    vec![
        ("mdns-query", mdns(&host())),
        ("mdns-query6", mdns6(&host())),
        ("mdns-query-shared", mdns(&ask("_http._tcp.local", kind::PTR))),
        ("mdns-query-other", mdns(&ask("other.local", kind::A))),
        ("mdns-query-legacy", udp(to_group(MDNS.into()), v4(), MDNS.into(), (40_000, 5353), &host())),
        ("mdns-query-unicast", unicast(5353, 5353, &host())),
        ("mdns-query-off-link", off_link),
        ("mdns-probe", mdns(&probe(claim))),
        ("mdns-conflict", mdns(&response("printer.local", claim, 120))),
        ("mdns-goodbye", mdns(&response("printer.local", GUEST.v4().octets(), 0))),
        ("mdns-response-other", mdns(&response("other.local", claim, 120))),
        ("llmnr-query", llmnr(&question("printer", kind::A, IN))),
        ("llmnr-query-other", llmnr(&question("other", kind::A, IN))),
        ("llmnr-conflict", llmnr(&query(0x0400, |out| out.question(&wire("printer"), kind::A, IN)))),
        ("llmnr-unicast", unicast(40_000, 5355, &question("printer", kind::A, IN))),
        ("netbios-query", broadcast_137(&netbios_ask(netbios::NB))),
        (
            "netbios-query-other",
            broadcast_137(&query(0x0110, |out| out.question(&other().wire(), netbios::NB, IN))),
        ),
        ("netbios-status", unicast(137, 137, &netbios_ask(netbios::NBSTAT))),
        ("netbios-status-broadcast", broadcast_137(&netbios_ask(netbios::NBSTAT))),
        ("netbios-registration", broadcast_137(&registration(0x2910))),
        ("netbios-demand", broadcast_137(&registration(0x2810))),
    ]
}

fn v4() -> IpAddr {
    CLIENT.v4().into()
}

/// From the client, to all that listen.
pub(crate) fn mdns(payload: &[u8]) -> Vec<u8> {
    udp(to_group(MDNS.into()), v4(), MDNS.into(), (5353, 5353), payload)
}

fn mdns6(payload: &[u8]) -> Vec<u8> {
    udp(to_group(MDNS_6.into()), CLIENT.v6().into(), MDNS_6.into(), (5353, 5353), payload)
}

fn llmnr(payload: &[u8]) -> Vec<u8> {
    udp(to_group(LLMNR.into()), v4(), LLMNR.into(), (40_000, 5355), payload)
}

fn broadcast_137(payload: &[u8]) -> Vec<u8> {
    udp(TO_ALL, v4(), SUBNET.into(), (137, 137), payload)
}

/// What the guest says of itself while it is awake.
pub(crate) fn announcement() -> Vec<u8> {
    let to = Ethernet { src: GUEST.mac(), ..to_group(MDNS.into()) };
    udp(
        to,
        GUEST.v4().into(),
        MDNS.into(),
        (5353, 5353),
        &response("learned.local", GUEST.v4().octets(), 120),
    )
}

pub(crate) fn question(name: &str, kind: u16, class: u16) -> Vec<u8> {
    query(0, |out| out.question(&wire(name), kind, class))
}

fn query(flags: u16, write: impl FnOnce(&mut Writer<'_>) -> bool) -> Vec<u8> {
    let mut memory = [0; 512];
    let mut out = Writer::new(&mut memory, 7, flags).expect("it fits");
    assert!(write(&mut out), "it fits");
    out.finish().to_vec()
}

fn address(
    out: &mut Writer<'_>,
    section: Section,
    name: &str,
    class: u16,
    address: [u8; 4],
    ttl: u32,
) -> bool {
    out.record(section, &wire(name), kind::A, class, ttl, &Data { before: &address, ..Data::default() })
}

fn response(name: &str, of: [u8; 4], ttl: u32) -> Vec<u8> {
    query(0x8400, |out| address(out, Section::Answer, name, IN | TOP_BIT, of, ttl))
}

fn probe(by: [u8; 4]) -> Vec<u8> {
    query(0, |out| {
        out.question(&wire("printer.local"), kind::ANY, IN)
            && address(out, Section::Authority, "printer.local", IN, by, 120)
    })
}

fn registration(flags: u16) -> Vec<u8> {
    query(flags, |out| {
        let node = [0, 0, 192, 0, 2, 1];
        let data = Data { before: &node, ..Data::default() };
        out.question(&printer().wire(), netbios::NB, IN)
            && out.record(Section::Additional, &printer().wire(), netbios::NB, IN, 300_000, &data)
    })
}

fn printer() -> netbios::Name {
    netbios::Name::new("PRINTER", 0x20).expect("it fits")
}

fn other() -> netbios::Name {
    netbios::Name::new("OTHER", 0x20).expect("it fits")
}

/// `printer.local` as DNS writes it.
fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    let wire: Vec<u8> = labels.chain([0]).collect();
    assert!(dns::is_name(&wire));
    wire
}

/// An IPv4 datagram as from another source.
fn moved(frame: Vec<u8>, src: [u8; 4]) -> Vec<u8> {
    let mut frame = mended(frame, |header| header[12..16].copy_from_slice(&src));
    // Without a checksum, which is right over IPv4.
    frame[40..42].fill(0);
    frame
}
