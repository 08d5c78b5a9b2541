//! What people read: tables, times, and numbers with their words.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

use serde::Serialize;

use crate::api::{EventRecord, GuestStatus, NicStatus, Released, Transition};
use crate::custody::CustodyCounters;
use crate::engine::verdict::{Answered, DropReason};

/// Prints `value` as JSON, one line.
pub(super) fn json(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Prints a line.
pub(super) fn line(what: fmt::Arguments<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{what}")?;
    out.flush()
}

/// Prints text that ends its lines itself.
pub(super) fn text(what: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(what.as_bytes())?;
    out.flush()
}

/// All guests as a table.
pub(super) fn guests(guests: &[GuestStatus], now_ms: u64) -> String {
    if guests.is_empty() {
        return "no guests\n".to_owned();
    }
    let mut rows = vec![
        ["GUEST", "STATE", "FOR", "POWER", "SLEPT", "WOKEN", "HOLDS", "ADDRESSES", ""].map(str::to_owned),
    ];
    for guest in guests {
        let holding: u64 = guest.nics.iter().map(|nic| nic.counters.holding).sum();
        let addresses: Vec<&str> =
            guest.nics.iter().flat_map(|nic| &nic.addresses).map(|a| bare(a)).collect();
        rows.push([
            guest.name.clone(),
            state(guest).to_owned(),
            span(now_ms.saturating_sub(guest.since_unix_ms)),
            guest.power.clone(),
            guest.sleeps.to_string(),
            guest.wakes.to_string(),
            holding.to_string(),
            if addresses.is_empty() { "-".to_owned() } else { addresses.join(" ") },
            guest.why.as_ref().map(|why| format!("({why})")).unwrap_or_default(),
        ]);
    }
    table(&rows)
}

/// Where a guest stands. To the daemon a guest is `awake` when nobody stands in for it; people are told if it
/// does not run.
fn state(guest: &GuestStatus) -> &str {
    match (guest.state.as_str(), guest.power.as_str()) {
        ("awake", power) if !matches!(power, "running" | "unknown") => "left alone",
        (state, _) => state,
    }
}

/// One guest, readable.
pub(super) fn status(guest: &GuestStatus, now_ms: u64) -> String {
    let mut text = String::new();
    let age = span(now_ms.saturating_sub(guest.since_unix_ms));
    let by = match (guest.depth, guest.slept_by_us) {
        (Some(depth), true) => format!(", put to sleep by Surrogate, depth {}", word(&depth)),
        (Some(depth), false) => format!(", put to sleep by someone else, depth {}", word(&depth)),
        (None, _) => String::new(),
    };
    let mut field = |name: &str, what: String| {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{name:<12}{what}");
    };
    field("guest", guest.name.clone());
    field("state", format!("{} for {age} (since {}){by}", state(guest), utc(guest.since_unix_ms)));
    if let Some(why) = &guest.why {
        field("why", why.clone());
    }
    field("hypervisor", format!("{}: {}", guest.hypervisor, guest.power));
    let asleep = span(guest.asleep_ms);
    field("history", format!("slept {}, {asleep} in all; woken {}", times(guest.sleeps), times(guest.wakes)));
    field("last wake", guest.last_wake.clone().unwrap_or_else(|| "-".to_owned()));
    for (n, nic) in guest.nics.iter().enumerate() {
        nic_status(n, nic, &mut field);
    }
    text
}

fn nic_status(n: usize, nic: &NicStatus, field: &mut impl FnMut(&str, String)) {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let vlan = nic.vlan.map(|vlan| format!(", VLAN {vlan}")).unwrap_or_default();
    let place = format!("port {} of bridge {}{vlan}", or_dash(&nic.port), or_dash(&nic.bridge));
    field(&format!("NIC {n}"), format!("{} at {place}, mode {}", or_dash(&nic.mac), nic.mode));
    if !nic.addresses.is_empty() {
        field("  addresses", nic.addresses.join(" "));
    }
    let counters = &nic.counters;
    let answered = kinds(Answered::ALL.map(Answered::name), counters.answered);
    let dropped = kinds(DropReason::ALL.map(DropReason::name), counters.dropped);
    let stubbed =
        if counters.stubbed == 0 { String::new() } else { format!(", {} stubbed", counters.stubbed) };
    field(
        "  frames",
        format!(
            "{}: {answered} answered, {} absorbed{stubbed}, {} held, {dropped} dropped",
            counters.concerned, counters.absorbed, counters.held
        ),
    );
    let later = kinds(DropReason::ALL.map(DropReason::name), counters.held_dropped);
    field(
        "  held",
        format!(
            "{}: {} replayed, {} answered later, {later} dropped, {} held now ({})",
            counters.held,
            counters.replayed,
            counters.reclassified,
            counters.holding,
            bytes(counters.holding_bytes)
        ),
    );
    for kept in &nic.kept_awake {
        field("  kept", format!("awake by {}: {}", kept.connection, kept.why));
    }
    if counters.spoken.iter().any(|n| *n > 0) {
        let spoken = kinds(Answered::ALL.map(Answered::name), counters.spoken);
        field("  spoken", format!("{spoken} of its own accord"));
    }
    if let Some(custody) = nic.custody.filter(|custody| *custody != CustodyCounters::default()) {
        field("  custody", in_custody(&custody));
    }
    let odd = [
        (counters.overtaken, "came after the release"),
        (counters.awake_unicast, "came to us while the guest was awake"),
        (counters.transmit_failed, "answers could not be sent"),
        (counters.own_source, "came from its own MAC while it slept"),
        (counters.silencing, "of them silenced us until its hypervisor was asked"),
        (counters.conflicts, "claimed its addresses for another host"),
    ];
    let odd: Vec<String> =
        odd.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    if !odd.is_empty() {
        field("  notable", odd.join(", "));
    }
}

/// The TCP connections that are answered for, and what was notable about them.
fn in_custody(custody: &CustodyCounters) -> String {
    let notable = [
        (custody.inferred, "inferred"),
        (custody.unconfirmed, "not confirmed by the guest"),
        (custody.reset, "ended by their peers while it slept"),
        (custody.evicted, "gave way"),
        (custody.refused, "times no place"),
        (custody.unanswered, "keep-alives over the limit"),
        (custody.unchallenged, "challenges over the limit"),
    ];
    let parts = notable.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!(", {n} {what}"));
    format!(
        "{}, {} learned{}",
        plural(custody.known, "connection"),
        custody.learned,
        parts.collect::<String>()
    )
}

/// A transition that came to its end.
pub(super) fn transition(done: &Transition) -> String {
    let Transition { guest, state, took_ms, held, replayed } = done;
    let frames = match (held, replayed) {
        (0, 0) => String::new(),
        _ => format!(", {} held, {replayed} replayed", plural(*held, "frame")),
    };
    format!("{guest}: {state} after {}{frames}\n", span(*took_ms))
}

/// What was put back.
pub(super) fn released(released: &Released) -> String {
    let mut text = match (released.guests, released.restored) {
        (0, 0) if released.failed.is_empty() => "nothing to put back\n".to_owned(),
        (0, n) => format!("put back {}\n", plural(n, "change")),
        (n, _) => format!("gave back {}, and put back all that was changed for them\n", plural(n, "guest")),
    };
    for failed in &released.failed {
        let _ = writeln!(text, "FAILED {failed}");
    }
    text
}

/// One event as a line.
pub(super) fn event(record: &EventRecord) -> String {
    let guest = record.guest.as_deref().unwrap_or("-");
    let line = format!("{}  {guest:<12}  {:<10}  {}", utc(record.unix_ms), record.kind, record.detail);
    line.trim_end().to_owned()
}

/// "1 guest", "2 guests".
pub(super) fn plural(n: u64, what: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {what}{s}")
}

/// Milliseconds as people say them.
pub(super) fn span(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("{ms} ms"),
        1..60 => format!("{}.{} s", s, ms % 1000 / 100),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {:02} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {:02} h", s / 86_400, s / 3600 % 24),
    }
}

/// A moment in UTC (RFC 3339). Days to date after Howard Hinnant's `civil_from_days`.
pub(super) fn utc(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", ms % 1000)
}

/// Columns as wide as their widest cell; a cell that is a number stands to the right.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let number = !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit());
            let _ = if number { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A total and, if it is not zero, what it is made of.
fn kinds<const N: usize>(names: [&str; N], counts: [u64; N]) -> String {
    let total: u64 = counts.iter().sum();
    let parts: Vec<String> =
        names.iter().zip(counts).filter(|(_, n)| *n > 0).map(|(name, n)| format!("{n} {name}")).collect();
    if parts.is_empty() { total.to_string() } else { format!("{total} ({})", parts.join(", ")) }
}

fn bytes(n: u64) -> String {
    match n {
        0..10_240 => format!("{n} bytes"),
        10_240..10_485_760 => format!("{} KiB", n >> 10),
        _ => format!("{} MiB", n >> 20),
    }
}

fn times(n: u64) -> String {
    if n == 1 { "once".to_owned() } else { format!("{n} times") }
}

/// An address without its prefix length.
fn bare(address: &str) -> &str {
    address.split_once('/').map_or(address, |(bare, _)| bare)
}

/// A value's name in the API.
fn word(value: &impl Serialize) -> String {
    let json = serde_json::to_value(value).unwrap_or_default();
    json.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::messages::tests::guest;

    #[test]
    fn times_are_civil() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(951_827_696_789), "2000-02-29T12:34:56.789Z");
        assert_eq!(utc(1_790_000_000_000), "2026-09-21T14:13:20.000Z");
        assert_eq!(utc(4_107_542_399_999), "2100-02-28T23:59:59.999Z");
    }

    #[test]
    fn spans_are_as_people_say_them() {
        let said: Vec<String> = [999, 1_500, 61_000, 3_700_000, 90_000_000].into_iter().map(span).collect();
        assert_eq!(said, ["999 ms", "1.5 s", "1 min 01 s", "1 h 01 min", "1 d 01 h"]);
    }

    #[test]
    fn guests_are_an_aligned_table() {
        let mut awake = guest("a-longer-name", "awake");
        awake.why = Some("min_awake: 12 s more".to_owned());
        awake.power = "running".to_owned();
        awake.nics.clear();
        let all = [guest("web1", "asleep"), awake, guest("let-go", "awake")];
        let text = guests(&all, 1_700_000_060_000);
        let expected = "\
GUEST          STATE       FOR         POWER    SLEPT  WOKEN  HOLDS  ADDRESSES
web1           asleep      1 min 00 s  paused       3      2      0  192.0.2.11 2001:db8::11
a-longer-name  awake       1 min 00 s  running      3      2      0  -                        (min_awake: 12 s more)
let-go         left alone  1 min 00 s  paused       3      2      0  192.0.2.11 2001:db8::11
";
        assert_eq!(text, expected);
    }

    #[test]
    fn status_accounts_for_every_frame() {
        let mut web1 = guest("web1", "asleep");
        let counters = &mut web1.nics[0].counters;
        counters.concerned = 20;
        counters.answered[Answered::Arp as usize] = 7;
        counters.answered[Answered::Icmpv4Echo as usize] = 5;
        counters.absorbed = 4;
        counters.held = 3;
        counters.dropped[DropReason::Duplicate as usize] = 1;
        counters.replayed = 1;
        counters.holding = 2;
        counters.holding_bytes = 120;
        counters.overtaken = 1;
        let why = crate::custody::Unrepresentable::Closing;
        let connection = "192.0.2.11:22 to 192.0.2.99:40000".to_owned();
        web1.nics[0].custody =
            Some(CustodyCounters { known: 3, learned: 9, unchallenged: 5, ..CustodyCounters::default() });
        web1.nics[0].kept_awake = vec![crate::api::ConnectionStatus { connection, why }];
        let text = status(&web1, 1_700_003_700_000);
        assert!(
            text.contains("  kept      awake by 192.0.2.11:22 to 192.0.2.99:40000: it is being closed\n"),
            "{text}"
        );
        for part in [
            "state       asleep for 1 h 01 min (since 2023-11-14T22:13:20.000Z), put to sleep by Surrogate, depth pause",
            "hypervisor  local: paused",
            "history     slept 3 times, 0 ms in all; woken 2 times",
            "NIC 0       52:54:00:00:00:11 at port vnet0 of bridge br0, mode answer",
            "frames    20: 12 (7 arp, 5 icmpv4-echo) answered, 4 absorbed, 3 held, 1 (1 duplicate) dropped",
            "held      3: 1 replayed, 0 answered later, 0 dropped, 2 held now (120 bytes)",
            "custody   3 connections, 9 learned, 5 challenges over the limit",
            "notable   1 came after the release",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let record = EventRecord {
            seq: 9,
            unix_ms: 1_790_000_000_000,
            guest: Some("web1".to_owned()),
            kind: "waking".to_owned(),
            detail: "TCP SYN to port 80 from 192.0.2.99".to_owned(),
        };
        assert_eq!(
            event(&record),
            "2026-09-21T14:13:20.000Z  web1          waking      TCP SYN to port 80 from 192.0.2.99"
        );
    }
}
