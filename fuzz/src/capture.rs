//! Capture files of anybody's, and what `surrogate replay` makes of their frames.

use std::sync::OnceLock;

use surrogate::cli::replay::Replay;
use surrogate::config::Config;
use surrogate::io::capture::{CaptureReader, PcapngWriter};

use crate::lan;

pub(crate) fn run(data: &[u8]) -> bool {
    let Ok(mut reader) = CaptureReader::new(data) else { return false };
    let mut replay = Replay::new(guests(), None, true).expect("the guests have MACs");
    let mut understood = false;
    loop {
        match reader.next_frame() {
            Ok(Some(frame)) => {
                understood = true;
                assert!(frame.bytes.len() <= data.len());
                if reader.frames() > REPLAYED {
                    continue;
                }
                let judged = replay.frame(&frame);
                judged.replies.iter().for_each(|reply| lan::assert_sound(reply));
            }
            Ok(None) => break,
            Err(why) => {
                assert!(!why.to_string().is_empty());
                assert!(matches!(reader.next_frame(), Ok(None)), "an error ends it");
                break;
            }
        }
    }
    let (frames, totals) = (reader.frames(), replay.finish());
    assert_eq!(totals.frames, frames.min(REPLAYED));
    for counters in totals.guests.iter().flat_map(|guest| &guest.nics) {
        counters.conserved().expect("conserved");
    }
    understood
}

/// Frames of a file that are replayed; the rest is only read.
const REPLAYED: u64 = 24;

fn guests() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(|| Config::parse(GUESTS).expect("it is a configuration"))
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let names = pcap_fixtures::names();
    let files = names.iter().filter_map(|name| std::fs::read(pcap_fixtures::path(name)).ok());
    let mut seeds: Vec<Vec<u8>> = files.filter(|file| file.len() <= 4096).collect();
    let frames = lan::captured();
    for some in frames.chunks(8).take(4) {
        let mut file = Vec::new();
        let mut writer = PcapngWriter::new(&mut file, "lan0").expect("memory takes it");
        for (second, bytes) in (0_u64..).zip(some.iter().filter(|bytes| bytes.len() < 200)) {
            writer.frame(second * 1_000_000_000, bytes, "").expect("memory takes it");
        }
        writer.finish().expect("memory takes it");
        seeds.push(file);
    }
    seeds
}

/// The guests of `pcap-fixtures/`; the second wakes by what comes and sleeps again.
const GUESTS: &str = r#"
[[bridge]]
name = "br0"
[[hypervisor]]
name = "lab"
kind = "libvirt"
[[guest]]
name = "web1"
hypervisor = "lab"
bridge = "br0"
mac = "52:54:00:00:00:11"
addresses = ["192.0.2.11/24", "2001:db8::11/64"]
listen = ["tcp/80", "udp/7"]
wake = "never"
[[guest]]
name = "web2"
hypervisor = "lab"
bridge = "br0"
mac = "52:54:00:00:00:12"
addresses = ["192.0.2.12/24", "2001:db8::12/64"]
idle_after = "1m"
wake = "always"
[[guest]]
name = "web7"
hypervisor = "lab"
bridge = "br0"
vlan = 7
mac = "52:54:00:00:00:17"
addresses = ["192.0.2.17/24"]
"#;
