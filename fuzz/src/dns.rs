//! Messages of DNS, mDNS and LLMNR, and of the NetBIOS name service. What was read is written again and must say the
//! same.

use surrogate_wire::dns::{self, Data, MAX_MESSAGE, MAX_NAME, Message, Name, Section, TOP_BIT, Writer, kind};
use surrogate_wire::netbios::{self, Netbios};
use surrogate_wire::{Packet, Transport};

use crate::lan;

pub(crate) fn run(data: &[u8]) -> bool {
    let Ok(message) = Message::parse(data) else { return false };
    assert!(data.len() <= MAX_MESSAGE);
    let questions = usize::from(message.count(Section::Question));
    let records: usize = [Section::Answer, Section::Authority, Section::Additional]
        .map(|s| usize::from(message.count(s)))
        .iter()
        .sum();
    assert_eq!((message.questions().count(), message.records().count()), (questions, records));
    assert!(message.records().map(|(section, _)| section).is_sorted());

    let mut memory = vec![0; 4 * usize::from(u16::MAX)];
    let Some(mut out) = Writer::new(&mut memory, message.id, message.flags) else { panic!("there is room") };
    if !write(&message, &mut out) {
        return true;
    }
    let written = out.finish();
    if written.len() > MAX_MESSAGE {
        return true;
    }
    let again = Message::parse(written).unwrap_or_else(|why| panic!("{why:?}: {written:02x?}"));
    same(&message, &again);
    true
}

/// Writes all of `message`; `false` if it does not fit.
fn write(message: &Message<'_>, out: &mut Writer<'_>) -> bool {
    let (mut name, mut target) = ([0; MAX_NAME], [0; MAX_NAME]);
    let top = |set: bool| if set { TOP_BIT } else { 0 };
    for question in message.questions() {
        let name = whole(&question.name, &mut name);
        if !out.question(name, question.kind, question.class | top(question.unicast)) {
            return false;
        }
    }
    for (section, record) in message.records() {
        let name = whole(&record.name, &mut name);
        let data = match record.target() {
            Some((before, named)) => {
                Data { before, name: Some(whole(&named, &mut target)), compress: true, after: &[] }
            }
            None => Data { before: record.data, ..Data::default() },
        };
        if !out.record(section, name, record.kind, record.class | top(record.flush), record.ttl, &data) {
            return false;
        }
    }
    true
}

/// A name in wire form, without compression.
fn whole<'b>(name: &Name<'_>, memory: &'b mut [u8; MAX_NAME]) -> &'b [u8] {
    let wire = name.write(memory);
    assert!(dns::is_name(wire) && name.is(wire), "{wire:02x?}");
    wire
}

fn same(was: &Message<'_>, is: &Message<'_>) {
    let (mut memory, mut other) = ([0; MAX_NAME], [0; MAX_NAME]);
    assert_eq!((was.id, was.flags), (is.id, is.flags));
    assert_eq!(was.questions().count(), is.questions().count());
    for (was, is) in was.questions().zip(is.questions()) {
        assert_eq!(whole(&was.name, &mut memory), whole(&is.name, &mut other));
        assert_eq!((was.kind, was.class, was.unicast), (is.kind, is.class, is.unicast));
    }
    assert_eq!(was.records().count(), is.records().count());
    for ((section, was), (again, is)) in was.records().zip(is.records()) {
        assert_eq!(whole(&was.name, &mut memory), whole(&is.name, &mut other));
        assert_eq!(
            (section, was.kind, was.class, was.flush, was.ttl),
            (again, is.kind, is.class, is.flush, is.ttl)
        );
        let data = match was.target() {
            Some((before, named)) => [before, whole(&named, &mut memory)].concat(),
            // No name where there should be one: somewhere else a pointer in it may lead to one. We write none such.
            None if dns::target_offset(was.kind).is_some() => continue,
            None => was.data.to_vec(),
        };
        assert!(is.has_data(&data), "{was:?} was read back as {is:?}");
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = datagrams(&[53, 137, 5353, 5355]);
    let (host, service) = (b"\x04web1\x05local\0", b"\x05_http\x04_tcp\x05local\0");
    seeds.push(message(0, |out| {
        out.question(host, kind::A, dns::IN);
        out.question(service, kind::PTR, dns::IN | TOP_BIT);
    }));
    seeds.push(message(0x8400, |out| {
        let pointer =
            Data { name: Some(b"\x04web1\x05_http\x04_tcp\x05local\0"), compress: true, ..Data::default() };
        out.record(Section::Answer, service, kind::PTR, dns::IN, 4500, &pointer);
        let place = Data { before: &[0, 0, 0, 0, 0, 80], name: Some(host), compress: true, after: &[] };
        let flush = dns::IN | TOP_BIT;
        out.record(
            Section::Additional,
            b"\x04web1\x05_http\x04_tcp\x05local\0",
            kind::SRV,
            flush,
            120,
            &place,
        );
        out.record(
            Section::Additional,
            host,
            kind::A,
            flush,
            120,
            &Data { before: &[192, 0, 2, 11], ..Data::default() },
        );
        let text = Data { before: b"\x06path=/", ..Data::default() };
        out.record(
            Section::Additional,
            b"\x04web1\x05_http\x04_tcp\x05local\0",
            kind::TXT,
            flush,
            4500,
            &text,
        );
    }));
    seeds
}

pub(crate) fn run_netbios(data: &[u8]) -> bool {
    let Ok(packet) = Netbios::parse(data) else { return false };
    assert!(packet.nodes().count() * 6 <= data.len());
    assert!(packet.status().count() <= 255);
    let named = |name: netbios::Name| {
        let wire = name.wire();
        assert!(dns::is_name(&wire));
        let mut memory = [0; 64];
        let Some(mut out) = Writer::new(&mut memory, packet.id, 0) else { panic!("there is room") };
        assert!(out.question(&wire, netbios::NB, dns::IN));
        let read = Netbios::parse(out.finish()).map(|read| read.name);
        assert_eq!(read, Ok(name));
    };
    named(packet.name);
    packet.status().for_each(|(name, _)| named(name));
    true
}

pub(crate) fn seeds_netbios() -> Vec<Vec<u8>> {
    let name = netbios::Name::new("WEB1", 0x20).expect("it is short");
    let node = Data { before: &[0, 0, 192, 0, 2, 11], ..Data::default() };
    let mut status = vec![1];
    status.extend(name.0);
    status.extend([4, 0]);
    status.extend([0; 46]);
    let mut seeds = datagrams(&[137]);
    seeds.push(message(0x0110, |out| {
        out.question(&name.wire(), netbios::NB, dns::IN);
    }));
    seeds.push(message(0x2910, |out| {
        out.question(&name.wire(), netbios::NB, dns::IN);
        out.record(Section::Additional, &name.wire(), netbios::NB, dns::IN, 300_000, &node);
    }));
    seeds.push(message(0x8400, |out| {
        let data = Data { before: &status, ..Data::default() };
        out.record(Section::Answer, &netbios::Name::WILDCARD.wire(), netbios::NBSTAT, dns::IN, 0, &data);
    }));
    seeds
}

fn message(flags: u16, write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut memory = [0; 600];
    let mut out = Writer::new(&mut memory, 7, flags).expect("there is room");
    write(&mut out);
    out.finish().to_vec()
}

/// The payloads of the captures' datagrams to or from these ports.
pub(crate) fn datagrams(ports: &[u16]) -> Vec<Vec<u8>> {
    let frames = lan::captured();
    let found = frames.iter().filter_map(|bytes| match lan::read(bytes)? {
        (_, Packet::Ipv4(_, Transport::Udp(udp)) | Packet::Ipv6(_, Transport::Udp(udp))) => {
            let wanted = ports.contains(&udp.src_port) || ports.contains(&udp.dst_port);
            wanted.then(|| udp.payload.to_vec())
        }
        _ => None,
    });
    found.collect()
}
