//! The project's own captures provoke what their table says: each verdict as often as it stands in
//! pcap-fixtures/README.md, and replies that a neighbour would accept.

use std::collections::BTreeMap;

use surrogate::cli::replay::{Judged, Replay};
use surrogate::config::Config;
use surrogate::engine::Verdict;
use surrogate::io::capture::{CaptureReader, PcapngWriter};

/// The guests of the captures. They sleep on whatever comes, so that what is held stays held.
const GUESTS: &str = r#"
[[bridge]]
name = "br0"

[[hypervisor]]
name = "lab"
kind = "libvirt"

[defaults]
wake = "never"

[[guest]]
name       = "web1"
hypervisor = "lab"
bridge     = "br0"
mac        = "52:54:00:00:00:11"
addresses  = ["192.0.2.11/24", "2001:db8::11/64"]
listen     = ["tcp/80", "udp/7"]

[[guest]]
name       = "web2"
hypervisor = "lab"
bridge     = "br0"
mac        = "52:54:00:00:00:12"
addresses  = ["192.0.2.12/24", "2001:db8::12/64"]

[[guest]]
name       = "web7"
hypervisor = "lab"
bridge     = "br0"
vlan       = 7
mac        = "52:54:00:00:00:17"
addresses  = ["192.0.2.17/24"]
"#;

#[test]
fn each_capture_provokes_what_its_row_says() {
    let mut wrong = Vec::new();
    for expected in pcap_fixtures::expected() {
        let judged = replayed(&expected.name);
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for word in judged.iter().flat_map(|(judged, _)| words(judged)) {
            *found.entry(word).or_default() += 1;
        }
        let wanted: BTreeMap<String, usize> = expected.verdicts.into_iter().collect();
        if found != wanted {
            let row: Vec<String> = found.iter().map(|(word, n)| format!("`{word}` {n}")).collect();
            wrong.push(format!("{}: {}", expected.name, row.join(", ")));
        }
    }
    assert!(wrong.is_empty(), "these rows would be true:\n{}", wrong.join("\n"));
}

#[test]
fn each_reply_goes_back_to_who_asked_by_the_way_it_came() {
    let mut replies = 0;
    for name in pcap_fixtures::names() {
        for (judged, frame) in replayed(&name) {
            for reply in &judged.replies {
                replies += 1;
                let to = &reply[..6];
                assert!(to == &frame[6..12] || to[0] & 1 == 1, "{name} frame {}: to {to:02x?}", judged.frame);
                assert_eq!(reply[6..11], [0x52, 0x54, 0, 0, 0], "{name} frame {}", judged.frame);
                let tag = |bytes: &[u8]| (bytes[12..14] == [0x81, 0]).then(|| bytes[14..16].to_vec());
                assert_eq!(tag(reply), tag(&frame), "{name} frame {}: the same tag", judged.frame);
                assert!(reply.len() >= 60, "{name} frame {}: {} bytes", judged.frame, reply.len());
            }
        }
    }
    assert!(replies > 20, "{replies} replies");
}

#[test]
fn replies_can_be_written_and_read_again() {
    let mut writer = PcapngWriter::new(Vec::new(), "surrogate").unwrap();
    let mut written = Vec::new();
    for (judged, _) in replayed("echo/ping6.pcap") {
        for reply in judged.replies {
            writer.frame(judged.unix_ns, &reply, judged.kind).unwrap();
            written.push((judged.unix_ns, reply));
        }
    }
    let file = writer.finish().unwrap();
    let mut reader = CaptureReader::new(file.as_slice()).unwrap();
    let mut read = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        read.push((frame.unix_ns, frame.bytes));
    }
    assert!(!written.is_empty());
    assert_eq!(read, written);
}

#[test]
fn the_loader_reads_what_the_general_reader_reads() {
    for name in pcap_fixtures::names() {
        let mut reader = CaptureReader::open(&pcap_fixtures::path(&name)).unwrap();
        let mut first = None;
        for captured in pcap_fixtures::capture(&name) {
            let frame = reader.next_frame().unwrap().unwrap();
            let at = frame.unix_ns - *first.get_or_insert(frame.unix_ns);
            assert_eq!((u128::from(at), &frame.bytes), (captured.at.as_nanos(), &captured.bytes), "{name}");
        }
        assert!(reader.next_frame().unwrap().is_none(), "{name}");
    }
}

/// Each frame of a capture with what became of it.
fn replayed(name: &str) -> Vec<(Judged, Vec<u8>)> {
    let mut replay = Replay::new(&Config::parse(GUESTS).unwrap(), None, false).unwrap();
    let mut reader = CaptureReader::open(&pcap_fixtures::path(name)).unwrap();
    let mut judged = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        judged.push((replay.frame(&frame), frame.bytes));
    }
    for guest in replay.finish().guests {
        for counters in guest.nics {
            counters.conserved().unwrap_or_else(|why| panic!("{name} {}: {why}", guest.guest));
        }
    }
    judged
}

/// The words of the table for one frame.
fn words(judged: &Judged) -> Vec<String> {
    if judged.own {
        return vec!["own".to_owned()];
    }
    if judged.verdicts.is_empty() {
        return vec!["foreign".to_owned()];
    }
    let word = |verdict: &Verdict| match verdict {
        Verdict::Answer(by) => format!("answer {}", by.name()),
        Verdict::Drop(reason) => format!("drop {}", reason.name()),
        Verdict::Absorb => "absorb".to_owned(),
        Verdict::Hold => "hold".to_owned(),
        Verdict::HoldAndWake => "wake".to_owned(),
        Verdict::Stub => "stub".to_owned(),
    };
    judged.verdicts.iter().map(|(_, verdict)| word(verdict)).collect()
}
