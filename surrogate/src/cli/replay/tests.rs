use std::time::Duration;

use surrogate_wire::checksum::Sum;

use super::*;
use crate::engine::{Answered, Verdict};

const CONFIG: &str = r#"
[[bridge]]
name = "br0"
[[hypervisor]]
name = "local"
kind = "libvirt"
[defaults]
wake_budget = { burst = 2, per_minute = 6 }
[[guest]]
name = "web1"
hypervisor = "local"
bridge = "br0"
mac = "52:54:00:00:00:0b"
addresses = ["192.0.2.11/24"]
[[guest]]
name = "db1"
hypervisor = "local"
bridge = "br0"
mac = "52:54:00:00:00:0c"
addresses = ["192.0.2.12/24"]
[[guest]]
name = "nameless"
hypervisor = "local"
addresses = ["192.0.2.13/24"]
"#;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_790_000_000 * SECOND;
const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 0x99];

fn guest(n: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, n]
}

fn at(second: u64, bytes: Vec<u8>) -> Captured {
    let original_len = u32::try_from(bytes.len()).unwrap();
    Captured { unix_ns: START + second * SECOND, bytes, original_len }
}

fn arp_request(for_last: u8) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &CLIENT, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &CLIENT].concat();
    frame.extend([192, 0, 2, 99, 0, 0, 0, 0, 0, 0, 192, 0, 2, for_last]);
    frame
}

/// A SYN from `port` to the guest's port 80; each `port` is another connection.
fn syn(from: [u8; 6], to: u8, port: u16) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 99, 192, 0, 2, to];
    let sum = Sum::ZERO.add(&ip).finish();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut tcp =
        [&port.to_be_bytes()[..], &[0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]].concat();
    let pseudo = [&ip[12..20], &[0, 6, 0, 20]].concat();
    let sum = Sum::ZERO.add(&pseudo).add(&tcp).finish();
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    [&guest(to)[..], &from, &[8, 0], &ip, &tcp].concat()
}

fn replay(only: Option<&str>) -> Replay {
    Replay::new(&Config::parse(CONFIG).unwrap(), only, false).unwrap()
}

#[test]
fn a_request_is_answered_in_the_guests_name() {
    let mut replay = replay(None);
    assert_eq!(replay.guests().collect::<Vec<_>>(), ["web1", "db1"], "one without a MAC is left out");
    let judged = replay.frame(&at(0, arp_request(11)));
    assert_eq!(judged.kind, "arp-request");
    assert_eq!(judged.verdicts, [("web1".to_owned(), Verdict::Answer(Answered::Arp))]);
    let reply = &judged.replies[0];
    assert_eq!((&reply[..6], &reply[6..12]), (&CLIENT[..], &guest(11)[..]));
    assert!(replay.frame(&at(1, arp_request(77))).verdicts.is_empty());
    let totals = replay.finish();
    assert_eq!((totals.frames, totals.foreign, totals.replies), (2, 1, 1));
    assert_eq!(totals.duration(), Duration::from_secs(1));
    assert_eq!(totals.kinds["arp-request"]["answer"], 1);
}

#[test]
fn each_frame_worth_waking_for_shows_as_far_as_the_budget_goes() {
    let mut replay = replay(None);
    for n in 0..4_u16 {
        let judged = replay.frame(&at(u64::from(n), syn(CLIENT, 11, 40_000 + n)));
        assert_eq!(judged.verdicts, [("web1".to_owned(), Verdict::HoldAndWake)]);
        assert_eq!(judged.woke.len(), usize::from(n < 2), "burst = 2: {judged:?}");
    }
    // Ten seconds after the first wake the next token is there.
    replay.frame(&at(30, arp_request(12)));
    let totals = replay.finish();
    let web1 = &totals.guests[0];
    let wakes: Vec<(u64, u64)> = web1.wakes.iter().map(|wake| (wake.frame, wake.put_off_ms)).collect();
    assert_eq!(wakes, [(1, 0), (2, 0), (3, 8_000)], "the fourth came along with the third: {wakes:?}");
    assert!(web1.wakes[0].reason.contains("TCP SYN to port 80 from 192.0.2.99"), "{:?}", web1.wakes);
    assert_eq!((web1.nics[0].held, web1.nics[0].replayed), (4, 4));
    web1.nics[0].conserved().unwrap();
    assert!(totals.guests[1].wakes.is_empty());
}

#[test]
fn a_guest_that_never_wakes_holds() {
    let never = CONFIG.replace("[defaults]\n", "[defaults]\nwake = \"never\"\n");
    let mut replay = Replay::new(&Config::parse(&never).unwrap(), None, false).unwrap();
    let judged = replay.frame(&at(0, syn(CLIENT, 11, 40_000)));
    assert!(judged.woke.is_empty());
    let totals = replay.finish();
    assert_eq!((totals.guests[0].not_woken, totals.guests[0].nics[0].holding), (1, 1));
}

#[test]
fn what_a_sleeping_guest_sent_is_left_out() {
    let mut replay = replay(None);
    let judged = replay.frame(&at(0, syn(guest(12), 11, 40_000)));
    assert!(judged.own && judged.verdicts.is_empty());
    let mut alone = self::replay(Some("web1"));
    let judged = alone.frame(&at(0, syn(guest(12), 11, 40_000)));
    assert!(!judged.own, "db1 does not sleep in this replay");
    assert_eq!(judged.verdicts, [("web1".to_owned(), Verdict::HoldAndWake)]);
    assert_eq!(replay.finish().own, 1);
}

#[test]
fn a_frame_cut_by_a_snap_length_is_judged_by_its_headers() {
    let mut replay = replay(None);
    let whole = syn(CLIENT, 11, 40_000);
    let cut = Captured { bytes: whole[..48].to_vec(), ..at(0, whole) };
    assert!(cut.is_cut());
    let judged = replay.frame(&cut);
    assert_eq!(judged.verdicts, [("web1".to_owned(), Verdict::HoldAndWake)]);
    let totals = replay.finish();
    assert_eq!(totals.cut, 1);
}

#[test]
fn wrong_checksums_can_be_trusted() {
    let mut bad = syn(CLIENT, 11, 40_000);
    bad[50] ^= 1;
    let verdict = |trust| {
        let mut replay = Replay::new(&Config::parse(CONFIG).unwrap(), None, trust).unwrap();
        replay.frame(&at(0, bad.clone())).verdicts[0].1
    };
    assert_eq!(verdict(false), Verdict::Drop(crate::engine::DropReason::BadChecksum));
    assert_eq!(verdict(true), Verdict::HoldAndWake);
}

#[test]
fn timestamps_that_go_back_do_not_turn_time_back() {
    let mut replay = replay(None);
    for second in [5, 3, 9, 0] {
        let judged = replay.frame(&at(second, arp_request(11)));
        assert_eq!(judged.replies.len(), 1);
    }
    assert_eq!(replay.finish().duration(), Duration::from_secs(4), "from the first to the latest");
}

#[test]
fn guests_and_nics_without_a_mac_are_left_out_by_name() {
    let second = "[[guest.nic]]\nbridge = \"br0\"\naddresses = [\"192.0.2.16/24\"]\n";
    let two = "[[guest]]\nname = \"web2\"\nhypervisor = \"local\"\n[[guest.nic]]\n\
               mac = \"52:54:00:00:00:0d\"\naddresses = [\"192.0.2.14/24\"]\n[[guest.nic]]\nvlan = 7\n\
               addresses = [\"192.0.2.15/24\"]\n";
    let config = Config::parse(&format!("{CONFIG}{two}{second}")).unwrap();
    let left_out = |only| Replay::new(&config, only, false).unwrap().left_out().to_vec();
    assert_eq!(left_out(None), ["nameless", "web2, NIC 2", "web2, NIC 3 on br0"]);
    assert!(left_out(Some("web1")).is_empty(), "it has all that is needed");
}

#[test]
fn without_anyone_to_replay_to_it_says_what_is_missing() {
    let config = Config::parse(CONFIG).unwrap();
    let error = Replay::new(&config, Some("web9"), false).err().unwrap().to_string();
    assert!(error.contains("no guest \"web9\""), "{error}");
    let error = Replay::new(&config, Some("nameless"), false).err().unwrap().to_string();
    assert!(error.contains("has to give `mac`"), "{error}");
}
