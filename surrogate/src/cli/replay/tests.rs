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

/// A replay with these lines in `[defaults]`.
fn with(defaults: &str) -> Replay {
    let config = CONFIG.replace("[defaults]\n", &format!("[defaults]\n{defaults}\n"));
    Replay::new(&Config::parse(&config).unwrap(), None, false).unwrap()
}

/// The frames' numbers that woke web1.
fn woke(replay: Replay) -> Vec<u64> {
    replay.finish().guests[0].wakes.iter().map(|wake| wake.frame).collect()
}

#[test]
fn a_woken_guest_is_awake_until_it_was_idle_for_long_enough() {
    let mut replay = with("idle_after = \"10m\"");
    let from_it = || [&CLIENT[..], &guest(11), &[0x88, 0xb5], &[0; 46]].concat();
    for (second, bytes, awake) in [
        (0, syn(CLIENT, 11, 40_000), false),
        (1, syn(CLIENT, 11, 40_001), true),
        (500, from_it(), true),
        (1099, syn(CLIENT, 11, 40_002), true),
        // Somebody else's frame does not keep it awake, and a request for its address is its own to answer.
        (1600, arp_request(12), false),
        (1601, arp_request(11), false),
        (1699, syn(CLIENT, 11, 40_003), false),
    ] {
        let judged = replay.frame(&at(second, bytes));
        assert_eq!(judged.awake, if awake { vec!["web1"] } else { vec![] }, "{second} s: {judged:?}");
        assert!(!judged.own && (!awake || judged.verdicts.is_empty()), "{second} s: {judged:?}");
    }
    let totals = replay.finish();
    let wakes: Vec<u64> = totals.guests[0].wakes.iter().map(|wake| wake.frame).collect();
    assert_eq!((wakes, totals.awake, totals.foreign), (vec![1, 7], 3, 1));
    assert_eq!(totals.kinds["tcp-syn"]["awake"], 2);
    totals.guests[0].nics[0].conserved().unwrap();
}

#[test]
fn a_woken_guest_is_awake_for_min_awake_and_with_idle_after_never_for_good() {
    let play = |defaults: &str, seconds: &[u64]| {
        let mut replay = with(defaults);
        for (second, port) in seconds.iter().zip(40_000..) {
            replay.frame(&at(*second, syn(CLIENT, 11, port)));
        }
        woke(replay)
    };
    assert_eq!(play("idle_after = \"1s\"\nmin_awake = \"30s\"", &[0, 5, 29, 31, 60, 62]), [1, 4, 6]);
    assert_eq!(play("idle_after = \"1s\"\nmin_awake = \"0s\"", &[0, 5, 29]), [1, 2, 3]);
    assert_eq!(play("idle_after = \"never\"", &[0, 5, 100_000]), [1]);
    assert_eq!(play("", &[0, 599, 1198, 1799]), [1, 4], "ten minutes unless said otherwise");
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
fn a_guest_that_is_idle_at_once_is_woken_as_often_as_its_budget_allows() {
    let mut replay = with("idle_after = \"500ms\"\nmin_awake = \"0s\"");
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
    for port in [40_000, 40_001] {
        let judged = replay.frame(&at(0, syn(CLIENT, 11, port)));
        assert!(judged.woke.is_empty());
    }
    let web1 = &replay.finish().guests[0];
    assert_eq!((web1.forbidden, &web1.put_off, web1.nics[0].holding), (2, &None, 2));
}

#[test]
fn a_wake_that_found_no_budget_before_the_end_is_named() {
    let mut replay = with("idle_after = \"500ms\"\nmin_awake = \"0s\"");
    for n in 0..4_u16 {
        replay.frame(&at(u64::from(n), syn(CLIENT, 11, 40_000 + n)));
    }
    let web1 = &replay.finish().guests[0];
    let put_off = web1.put_off.as_ref().map(|wake| wake.frame);
    assert_eq!((web1.wakes.len(), put_off, web1.forbidden), (2, Some(3), 0));
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
fn a_silence_of_centuries_is_told_like_one_of_a_day() {
    let mut replay = replay(None);
    let mut said = |unix_ns: u64| {
        let captured = Captured { unix_ns, ..at(0, arp_request(11)) };
        replay.frame(&captured).replies.len()
    };
    assert_eq!(said(START), 1);
    // What keeps two sleepers in the tables of switches, at least every two minutes.
    let day = said(START + 24 * 60 * 60 * SECOND);
    assert!(day > 2 * 24 * 30, "{day}");
    let centuries = said(u64::MAX);
    assert!(centuries > 2 * 24 * 30 && centuries < 2 * day, "{centuries}, and {day} of a day");
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
