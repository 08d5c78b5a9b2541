//! Where the captures are and how they are read.

use std::io::Read;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use smoltcp::wire::{EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket};
use surrogate::io::capture::{CaptureReader, Captured};
use surrogate_wire::{Mac, Offload};

use crate::said::split;

/// A capture in memory.
pub struct CaptureFile {
    pub name: String,
    pub frames: Vec<Captured>,
    /// How its frames are to be taken: some were captured where checksums were not filled in yet.
    pub offload: Offload,
}

/// The project's own captures.
pub fn own() -> Vec<CaptureFile> {
    let load = |name: String| {
        let mut reader = CaptureReader::open(&pcap_fixtures::path(&name)).unwrap();
        let mut frames = Vec::new();
        while let Some(frame) = reader.next_frame().unwrap() {
            frames.push(frame);
        }
        CaptureFile { name, frames, offload: Offload::None }
    };
    pcap_fixtures::names().into_iter().map(load).collect()
}

impl CaptureFile {
    /// The frames as a customer's bridge sees them: where a frame has two tags, the outer one is the
    /// provider's and is taken off at his edge.
    pub fn below_service_tags(&self) -> Vec<Captured> {
        let below = |frame: &Captured| {
            let mut frame = frame.clone();
            let is_tag = |at: usize| matches!(frame.bytes.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8]));
            if is_tag(12) && is_tag(16) {
                frame.bytes.drain(12..16);
                frame.original_len -= 4;
            }
            frame
        };
        self.frames.iter().map(below).collect()
    }
}

/// Captured on the sending host: transport checksums are what offload left.
const UNFILLED: [&str; 4] =
    ["igmp-mld-llmnr-nbns.pcap", "ssh-11-sessions.pcap", "tcp-retransmissions.pcap", "telnet-session.pcap"];

/// All captures, or `None` where there are none, which is said.
pub fn all() -> Option<Vec<CaptureFile>> {
    let folder = std::env::var_os("SURROGATE_CAPTURES").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/captures")),
        PathBuf::from,
    );
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: no captures at {} (SURROGATE_CAPTURES)", folder.display());
        return None;
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let input: Box<dyn Read + Send> = if name.ends_with(".pcap.gz") {
            let unpack = Command::new("gzip").arg("-dc").arg(&path).stdout(Stdio::piped()).spawn();
            Box::new(unpack.expect("gzip unpacks").stdout.unwrap())
        } else if name.ends_with(".pcap") || name.ends_with(".pcapng") {
            Box::new(std::fs::File::open(&path).unwrap())
        } else {
            continue;
        };
        let mut reader = CaptureReader::new(input).unwrap_or_else(|why| panic!("{name}: {why}"));
        let mut frames = Vec::new();
        while let Some(frame) = reader.next_frame().unwrap_or_else(|why| panic!("{name}: {why}")) {
            assert!(!frame.is_cut(), "{name}: no frame is cut");
            frames.push(off_loopback(frame));
        }
        assert!(!frames.is_empty(), "{name} has frames");
        let offload = if UNFILLED.contains(&name.as_str()) { Offload::Verified } else { Offload::None };
        files.push(CaptureFile { name, frames, offload });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!files.is_empty(), "{} has captures", folder.display());
    Some(files)
}

/// A frame recorded on a loopback interface, where both ends have the same addresses and no MAC, as it
/// would have crossed a network: the end with the lower port gets addresses of its own. Others as they are.
fn off_loopback(mut frame: Captured) -> Captured {
    const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
    let Some((envelope, EthernetProtocol::Ipv4, _)) = split(&frame.bytes) else { return frame };
    if envelope.src != Mac::ZERO || !envelope.tags.is_empty() {
        return frame;
    }
    let Ok(mut ip) = Ipv4Packet::new_checked(&mut frame.bytes[14..]) else { return frame };
    if ip.src_addr() != LOOPBACK || ip.dst_addr() != LOOPBACK || ip.next_header() != IpProtocol::Tcp {
        return frame;
    }
    let Ok(tcp) = TcpPacket::new_checked(&*ip.payload_mut()) else { return frame };
    let to_server = tcp.dst_port() < tcp.src_port();
    let ends = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
    let [from, to] = if to_server { ends } else { [ends[1], ends[0]] };
    ip.set_src_addr(from);
    ip.set_dst_addr(to);
    ip.fill_checksum();
    TcpPacket::new_unchecked(ip.payload_mut()).fill_checksum(&from.into(), &to.into());
    for (at, end) in [(0, to), (6, from)] {
        frame.bytes[at..at + 6].copy_from_slice(&[2, 0, 0, 0, 0, end.octets()[3]]);
    }
    frame
}
