//! Whether two sets of answers are the same: byte by byte, but for what no two hosts have alike.
//!
//! Not compared: the IPv4 identification, the initial sequence number of a connection, the value of a timestamp
//! clock (but that it does not go back) and of a flow label (but that there is one), padding. Checksums are verified instead. Everything else that differs must
//! be a row of docs/packet-policy.md, and each row has one function here that takes away what it allows, no more.

use crate::build::{sum, transport_sum};
use crate::connection::Connection;
use crate::stage::timestamps_at;

/// Answers, each as [`plain`] writes it.
pub type Answers = Vec<Vec<u8>>;

/// What a row of docs/packet-policy.md allows.
enum Allows {
    /// Frames may differ in what this takes out of both.
    Part(fn(Vec<u8>) -> Vec<u8>),
    /// The quote of an error may end earlier.
    Quote,
    /// The guest says the same again, its stand-in only once.
    Fewer,
    /// The guest says such things, where its stand-in says nothing at all.
    OnlyAwake(fn(&[u8]) -> bool),
    /// The stand-in says such things, where the guest says nothing at all.
    OnlyAsleep(fn(&[u8]) -> bool),
}

use Allows::{Fewer, OnlyAsleep, OnlyAwake, Part, Quote};

/// The rows that were met.
const ROWS: &[(&str, Allows)] = &[
    ("answers-all", OnlyAsleep(is_answer)),
    ("arp-strict", OnlyAwake(is_arp)),
    ("back-to-sender", Part(clear_destination)),
    ("defence", OnlyAsleep(is_announcement)),
    ("echo-group", OnlyAwake(is_echo_reply)),
    ("extension-headers", OnlyAwake(is_echo_reply)),
    ("icmp-other", OnlyAwake(is_timestamp)),
    ("ip-options", Part(clear_ip_options)),
    ("ip6-padding", OnlyAsleep(is_echo_reply)),
    ("membership-sources", Part(clear_sources)),
    ("na-option", Part(clear_na_option)),
    ("no-peer", OnlyAwake(is_answer)),
    ("parameter-problem", OnlyAwake(is_problem)),
    ("tcp-limit", Fewer),
    ("tcp-paws", OnlyAsleep(is_segment)),
    ("tcp-tsecr", Part(clear_echo)),
    ("ttl-zero", OnlyAwake(is_echo_reply)),
    ("unicast-in-group-frame", OnlyAwake(is_answer)),
    ("unreachable-quote", Quote),
    ("vlan-priority", Part(clear_priority_tag)),
];

impl Allows {
    /// Takes away what is allowed, on both sides.
    fn level(&self, awake: &mut Answers, asleep: &mut Answers) {
        let unsaid = |said: &mut Answers, silent: &Answers, such: &fn(&[u8]) -> bool| {
            if silent.is_empty() && said.iter().all(|frame| such(frame)) {
                said.clear();
            }
        };
        match self {
            Part(clear) => {
                awake.iter_mut().chain(asleep).for_each(|frame| *frame = clear(std::mem::take(frame)))
            }
            Fewer => awake.dedup(),
            Quote => awake.iter_mut().zip(asleep).for_each(|(one, other)| clear_quote(one, other)),
            OnlyAwake(such) => unsaid(awake, asleep, such),
            OnlyAsleep(such) => unsaid(asleep, awake, such),
        }
    }
}

/// The rows without which two sets of answers are not the same: none if they are, `None` if the rows do not help.
/// `declared` are the ones that the case may need.
pub fn rows_needed(
    awake: &Answers,
    asleep: &Answers,
    declared: &[&'static str],
) -> Option<Vec<&'static str>> {
    let same = |names: &[&str]| {
        let (mut awake, mut asleep) = (awake.clone(), asleep.clone());
        for (_, allows) in ROWS.iter().filter(|(name, _)| names.contains(name)) {
            allows.level(&mut awake, &mut asleep);
        }
        awake == asleep
    };
    let mut needed = declared.to_vec();
    if !same(&needed) {
        return None;
    }
    for name in needed.clone() {
        let without: Vec<_> = needed.iter().copied().filter(|other| *other != name).collect();
        if same(&without) {
            needed = without;
        }
    }
    Some(needed)
}

/// A frame as it is compared. `on` is the connection that it may belong to.
pub fn plain(frame: &[u8], on: Option<&Connection>) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    let Some(ip) = network_header(&bytes) else { return bytes };
    match kind(&bytes) {
        0x0806 => cut(&mut bytes, ip + 28),
        0x0800 => plain_v4(&mut bytes, ip, on),
        0x86dd => plain_v6(&mut bytes, ip, on),
        _ => {}
    }
    bytes
}

fn plain_v4(bytes: &mut Vec<u8>, ip: usize, on: Option<&Connection>) {
    let total = usize::from(word(bytes, ip + 2));
    cut(bytes, ip + total);
    let header = usize::from(bytes[ip] & 15) * 4;
    let right = sum(&bytes[ip..ip + header]) == 0;
    replace_checksum(bytes, ip + 10, right);
    bytes[ip + 4..ip + 6].fill(0);
    let fragment = word(bytes, ip + 6) & 0x3fff != 0;
    if !fragment {
        let [src, dst] = [12, 16].map(|at| <[u8; 4]>::try_from(&bytes[ip + at..ip + at + 4]).unwrap().into());
        let protocol = bytes[ip + 9];
        plain_message(bytes, ip + header, protocol, (src, dst), on);
    }
}

fn plain_v6(bytes: &mut Vec<u8>, ip: usize, on: Option<&Connection>) {
    let total = 40 + usize::from(word(bytes, ip + 4));
    cut(bytes, ip + total);
    let has_label = bytes[ip + 1] & 0x0f != 0 || bytes[ip + 2..ip + 4] != [0, 0];
    bytes[ip + 1] &= 0xf0;
    bytes[ip + 2] = 0;
    bytes[ip + 3] = has_label.into();
    let [src, dst] = [8, 24].map(|at| <[u8; 16]>::try_from(&bytes[ip + at..ip + at + 16]).unwrap().into());
    let (mut protocol, mut message) = (bytes[ip + 6], ip + 40);
    if protocol == 0 {
        (protocol, message) = (bytes[message], message + 8 + usize::from(bytes[message + 1]) * 8);
    }
    plain_message(bytes, message, protocol, (src, dst), on);
}

fn plain_message(
    bytes: &mut [u8],
    at: usize,
    protocol: u8,
    (src, dst): (std::net::IpAddr, std::net::IpAddr),
    on: Option<&Connection>,
) {
    let message = &bytes[at..];
    let (checksum, right) = match protocol {
        1 | 2 => (2, sum(message) == 0),
        6 => (16, transport_sum(src, dst, 6, message) == 0),
        17 => (6, transport_sum(src, dst, 17, message) == 0),
        58 => (2, transport_sum(src, dst, 58, message) == 0),
        _ => return,
    };
    if message.len() < checksum + 2 {
        return;
    }
    replace_checksum(bytes, at + checksum, right);
    if matches!((protocol, bytes[at]), (2, 0x22) | (58, 143)) {
        sort_records(&mut bytes[at..], if protocol == 2 { 4 } else { 16 });
    }
    if protocol == 6 {
        plain_segment(&mut bytes[at..], on);
    }
}

/// The order of a report's records says nothing.
fn sort_records(report: &mut [u8], address: usize) {
    let mut rest = &report[8..];
    let mut records = Vec::new();
    while rest.len() >= 4 + address {
        let length = 4 + address + usize::from(word(rest, 2)) * address + usize::from(rest[1]) * 4;
        let (record, others) = rest.split_at(length.min(rest.len()));
        records.push(record.to_vec());
        rest = others;
    }
    records.sort();
    let sorted = [records.concat(), rest.to_vec()].concat();
    report[8..].copy_from_slice(&sorted);
}

/// Numbers from where the connection was when it came to rest, or from the guest's own first one.
fn plain_segment(tcp: &mut [u8], on: Option<&Connection>) {
    const SYN_ACK: u8 = 0x12;
    if let Some(on) = on {
        let seq = u32::from_be_bytes(tcp[4..8].try_into().unwrap()).wrapping_sub(on.sn);
        tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    } else if tcp[13] & SYN_ACK == SYN_ACK {
        tcp[4..8].fill(0);
    }
    let header = usize::from(tcp[12] >> 4) * 4;
    if let Some(at) = timestamps_at(&tcp[..header.min(tcp.len())]) {
        let value = u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
        let went_back = on.is_some_and(|on| value.wrapping_sub(on.tsval) > 1 << 31);
        tcp[at..at + 4].copy_from_slice(&u32::from(went_back).to_be_bytes());
    }
}

/// Zeros after the end are padding; anything else stays, and is a difference.
fn cut(bytes: &mut Vec<u8>, end: usize) {
    if bytes.get(end..).is_some_and(|padding| padding.iter().all(|byte| *byte == 0)) {
        bytes.truncate(end);
    }
}

fn replace_checksum(bytes: &mut [u8], at: usize, right: bool) {
    bytes[at..at + 2].copy_from_slice(if right { &[0, 0] } else { b"!!" });
}

/// The EtherType behind all tags.
fn kind(bytes: &[u8]) -> u16 {
    network_header(bytes).map_or(0, |ip| word(bytes, ip - 2))
}

/// Where the network header begins.
fn network_header(bytes: &[u8]) -> Option<usize> {
    let mut at = 12;
    while matches!(bytes.get(at..at + 2)?, [0x81, 0x00] | [0x88, 0xa8]) {
        at += 4;
    }
    bytes.get(..at + 2 + 20).map(|_| at + 2)
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

// What the rows allow.

/// Of two errors, both become as short as the shorter one.
fn clear_quote(one: &mut Vec<u8>, other: &mut Vec<u8>) {
    let is_unreachable = |frame: &[u8]| matches!(message(frame, 1), Some([3, ..]));
    if is_unreachable(one) && is_unreachable(other) {
        let length = one.len().min(other.len());
        for frame in [one, other] {
            frame.truncate(length);
            frame[16..18].copy_from_slice(&(length as u16 - 14).to_be_bytes());
        }
    }
}

/// Of a report with one record, its type and sources.
fn clear_sources(mut bytes: Vec<u8>) -> Vec<u8> {
    let (report, address) = match word(&bytes, 12) {
        0x0800 => (14 + 24, 4),
        _ => (14 + 48, 16),
    };
    if matches!(bytes.get(report), Some(0x22 | 143)) && word(&bytes, report + 6) == 1 {
        bytes[report + 8] = 0;
        bytes[report + 10..report + 12].fill(0);
        bytes.truncate(report + 12 + address);
        bytes[16..20].fill(0);
    }
    bytes
}

/// An advertisement without its option and the flag Override.
fn clear_na_option(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some([136, ..]) = message(&bytes, 58) {
        bytes[14 + 40 + 4] &= 0xdf;
        bytes.truncate(14 + 40 + 24);
        bytes[14 + 4..14 + 6].copy_from_slice(&[0, 24]);
    }
    bytes
}

fn clear_ip_options(mut bytes: Vec<u8>) -> Vec<u8> {
    let Some(ip) = network_header(&bytes).filter(|_| kind(&bytes) == 0x0800) else { return bytes };
    let options = ip + 20..ip + usize::from(bytes[ip] & 15) * 4;
    let total = word(&bytes, ip + 2) - options.len() as u16;
    bytes[ip] = 0x45;
    bytes[ip + 2..ip + 4].copy_from_slice(&total.to_be_bytes());
    bytes.drain(options);
    bytes
}

/// A tag of VLAN 0, which is only a priority.
fn clear_priority_tag(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes[12..14] == [0x81, 0x00] && word(&bytes, 14) & 0x0fff == 0 {
        bytes.drain(12..16);
    }
    bytes
}

fn clear_destination(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[..6].fill(0);
    bytes
}

fn is_arp(frame: &[u8]) -> bool {
    kind(frame) == 0x0806
}

fn is_echo_reply(frame: &[u8]) -> bool {
    matches!(message(frame, 1), Some([0, ..])) || matches!(message(frame, 58), Some([129, ..]))
}

fn is_problem(frame: &[u8]) -> bool {
    matches!(message(frame, 1), Some([12, ..])) || matches!(message(frame, 58), Some([4, ..]))
}

fn is_timestamp(frame: &[u8]) -> bool {
    matches!(message(frame, 1), Some([14, ..]))
}

/// An echo reply or an advertisement.
fn is_answer(frame: &[u8]) -> bool {
    is_echo_reply(frame) || matches!(message(frame, 58), Some([136, ..]))
}

/// A gratuitous ARP request, or an unsolicited advertisement to all nodes.
fn is_announcement(frame: &[u8]) -> bool {
    let arp = is_arp(frame) && frame[..6] == [0xff; 6] && frame[28..32] == frame[38..42];
    let advertisement = matches!(message(frame, 58), Some([136, _, _, _, 0x20, ..]));
    arp || (advertisement && frame[..6] == [0x33, 0x33, 0, 0, 0, 1])
}

fn is_segment(frame: &[u8]) -> bool {
    message(frame, 6).is_some()
}

/// The timestamp that a segment echoes.
fn clear_echo(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(tcp) = message(&bytes, 6)
        && let Some(at) = timestamps_at(tcp)
    {
        let at = bytes.len() - tcp.len() + at;
        bytes[at + 4..at + 8].fill(0);
    }
    bytes
}

/// The message of an untagged IP packet without extension headers.
fn message(frame: &[u8], protocol: u8) -> Option<&[u8]> {
    let (own, at) = match word(frame, 12) {
        0x0800 => (frame[23], 14 + usize::from(frame[14] & 15) * 4),
        0x86dd => (frame[20], 54),
        _ => return None,
    };
    (own == protocol).then(|| frame.get(at..))?
}
