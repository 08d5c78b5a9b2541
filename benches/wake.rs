//! What a wake costs beyond the hypervisor's own work, on the path of the network lab.
//!
//! A client's `curl` wakes a guest in a frozen namespace, again and again. Where the time goes is read off
//! three clocks that are one (CLOCK_REALTIME): the kernel's stamps of the SYN leaving the client and
//! reaching the guest's own interface, and the daemon's log of when the resume call began and returned.
//! Surrogate's overhead is what comes before the call and after it; the call is the hypervisor's.

use std::net::IpAddr;
use std::time::Duration;

use surrogate_house::capture::{Capture, Frame, SYN};
use surrogate_house::clients::curl;
use surrogate_house::deadline::until;
use surrogate_house::lab::{LISTEN, Lab};

const WAKES: usize = 40;
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    let lab = Lab::new(1, "", &format!("{LISTEN}\nwake_budget = {{ burst = 1000, per_minute = 6000 }}"));
    let guest = lab.guest();
    let mut rows: [Vec<Duration>; 4] = Default::default();
    for _ in 0..WAKES {
        until("the guest to be awake", PATIENCE, || lab.daemon.state("web1") == "awake");
        lab.daemon.sleep("web1");
        let log_before = lab.daemon.log().len();
        let at_client = Capture::start(&lab.network.c1, "eth0");
        let at_guest = Capture::start(&guest.namespace, "eth0");
        let page = curl(&lab.network.c1, guest.v4).expect("the page of the woken guest");
        let sent = first_syn(&at_client.stop(), guest.v4);
        let delivered = first_syn(&at_guest.stop(), guest.v4);
        let log = lab.daemon.log().split_off(log_before);
        let called = logged(&log, "hypervisor call begins");
        let returned = logged(&log, "hypervisor call returned");
        rows[0].push(called.saturating_sub(sent));
        rows[1].push(returned.saturating_sub(called));
        rows[2].push(delivered.saturating_sub(returned));
        rows[3].push(page.took);
    }
    println!("wake overhead, {WAKES} wakes of a frozen namespace by curl, microseconds:");
    println!("  {:<46} {:>8} {:>8}", "", "p50", "p99");
    let names = [
        "first frame sent -> resume call",
        "resume call (the hypervisor's own time)",
        "running -> first frame delivered to the guest",
        "curl, start to end",
    ];
    for (name, row) in names.iter().zip(&mut rows) {
        row.sort();
        println!(
            "  {name:<46} {:>8} {:>8}",
            percentile(row, 50).as_micros(),
            percentile(row, 99).as_micros()
        );
    }
}

fn first_syn(frames: &[Frame], to: IpAddr) -> Duration {
    let syn = |frame: &&Frame| frame.segment().is_some_and(|s| s.flags == SYN && s.to == (to, 80));
    frames.iter().find(syn).expect("a SYN passed").at
}

/// When the resume's line with `message` was logged; the log's time stamps are UTC with microseconds.
fn logged(log: &str, message: &str) -> Duration {
    let line = log
        .lines()
        .find(|line| line.contains(message) && line.contains("resume"))
        .unwrap_or_else(|| panic!("no line \"{message}\" of the resume in:\n{log}"));
    let digits = |range: core::ops::Range<usize>| -> u64 {
        let at = line.find("20").expect("a time stamp");
        line[at..][range].parse().expect("digits of a time stamp")
    };
    let seconds = days(digits(0..4), digits(5..7), digits(8..10)) * 86_400
        + digits(11..13) * 3600
        + digits(14..16) * 60
        + digits(17..19);
    Duration::from_secs(seconds) + Duration::from_micros(digits(20..26))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let shifted = (month + 9) % 12;
    let year = if month <= 2 { year - 1 } else { year };
    year * 365 + year / 4 - year / 100 + year / 400 + (shifted * 306 + 5) / 10 + day - 1 - 719_468
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() - 1) * percent / 100).copied().unwrap_or_default()
}
