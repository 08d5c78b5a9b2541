//! What our reader of names finds in captures of real hosts, and that it writes what it reads.

use std::collections::{BTreeMap, BTreeSet};

use surrogate_wire::dns::{self, Data, Message, Writer, kind};
use surrogate_wire::{Frame, Netbios, Packet, Received, Transport};

use crate::files::{self, CaptureFile};

#[test]
fn every_message_about_names_is_read_and_written_again() {
    let Some(files) = files::all() else { return };
    let mut read: BTreeMap<(&str, u16), usize> = BTreeMap::new();
    for file in &files {
        for (port, payload) in datagrams(file).filter(|(port, _)| matches!(port, 137 | 5353 | 5355)) {
            let message = Message::parse(payload).unwrap_or_else(|why| panic!("{}: {why:?}", file.name));
            if port == 137 {
                Netbios::parse(payload).unwrap_or_else(|why| panic!("{}: {why:?}", file.name));
            }
            let mut memory = [0; dns::MAX_MESSAGE];
            let again = write(&message, &mut memory);
            assert_eq!(said(&message), said(&Message::parse(&again).unwrap()), "{}", file.name);
            assert!(again.len() <= payload.len(), "{}: names are compressed as well as there", file.name);
            *read.entry((&file.name, port)).or_default() += 1;
        }
    }
    // As a dissector of others counts them.
    for (file, port, count) in [
        ("mdns.pcap", 5353, 18),
        ("igmp-mld-llmnr-nbns.pcap", 5355, 30),
        ("igmp-mld-llmnr-nbns.pcap", 137, 8),
    ] {
        assert_eq!(read.get(&(file, port)), Some(&count), "{file} port {port}");
    }
}

#[test]
fn a_real_hosts_announcement_says_what_it_is_called() {
    let Some(files) = files::all() else { return };
    let file = files.iter().find(|file| file.name == "mdns.pcap").expect("it is there");
    let mut names = BTreeSet::new();
    for (_, payload) in datagrams(file).filter(|(port, _)| *port == 5353) {
        let message = Message::parse(payload).unwrap();
        for (_, record) in message.records().filter(|(_, record)| record.kind == kind::A) {
            let labels: Vec<_> = record.name.labels().map(String::from_utf8_lossy).collect();
            names.insert((labels.join("."), record.data.to_vec(), record.flush));
        }
    }
    let host = "johanna-QEMU-Virtual-Machine.local".to_owned();
    // Announced as its own alone, and proposed before that by its probes.
    let address = vec![10, 0, 2, 7];
    assert_eq!(names, BTreeSet::from([(host.clone(), address.clone(), true), (host, address, false)]));
}

/// The payload of each datagram to or from a port below 10,000, with that port.
fn datagrams(file: &CaptureFile) -> impl Iterator<Item = (u16, &[u8])> {
    file.frames.iter().filter_map(|frame| {
        let frame = Frame::parse(&Received::plain(&frame.bytes)).ok()?;
        match Packet::parse(&frame, file.offload).ok()?.transport()? {
            Transport::Udp(udp) => Some((udp.src_port.min(udp.dst_port), udp.payload)),
            _ => None,
        }
    })
}

fn write(message: &Message<'_>, memory: &mut [u8]) -> Vec<u8> {
    let mut out = Writer::new(memory, message.id, message.flags).unwrap();
    let mut own = [0; dns::MAX_NAME];
    let mut other = [0; dns::MAX_NAME];
    for question in message.questions() {
        let class = question.class | if question.unicast { dns::TOP_BIT } else { 0 };
        assert!(out.question(question.name.write(&mut own), question.kind, class));
    }
    for (section, record) in message.records() {
        let class = record.class | if record.flush { dns::TOP_BIT } else { 0 };
        // NetBIOS gives the number of SRV to a type of its own.
        let data = match record.target() {
            Some((before, target)) => {
                Data { before, name: Some(target.write(&mut other)), compress: true, after: &[] }
            }
            None => Data { before: record.data, ..Data::default() },
        };
        assert!(out.record(section, record.name.write(&mut own), record.kind, class, record.ttl, &data));
    }
    out.finish().to_vec()
}

/// All that a message says, names uncompressed.
fn said(message: &Message<'_>) -> Vec<String> {
    let name = |name: dns::Name<'_>| format!("{:?}", name.labels().collect::<Vec<_>>());
    let questions =
        message.questions().map(|q| format!("{} {} {} {}", name(q.name), q.kind, q.class, q.unicast));
    let records = message.records().map(|(section, r)| {
        let data = r.target().map_or_else(
            || format!("{:?}", r.data),
            |(before, target)| format!("{before:?} {}", name(target)),
        );
        format!("{section:?} {} {} {} {} {} {data}", name(r.name), r.kind, r.class, r.flush, r.ttl)
    });
    [format!("{} {}", message.id, message.flags)].into_iter().chain(questions).chain(records).collect()
}
