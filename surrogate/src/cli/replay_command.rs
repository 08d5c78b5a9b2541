//! The `replay` command: files in and out, and what people read about it.

use std::path::Path;

use serde::Serialize;

use super::Failure;
use super::args;
use super::output::{self, plural, utc};
use super::replay::{GuestTotals, Judged, Replay, Totals, Wake, verdict_name};
use super::replies::Replies;
use crate::config::Config;
use crate::engine::Verdict;
use crate::engine::verdict::{Answered, DropReason};
use crate::io::capture::{CaptureError, CaptureReader};

/// How many wakes of a guest are shown without `-v`.
const WAKES_SHOWN: usize = 20;
/// The verdicts in the order of the table.
const VERDICTS: [&str; 9] =
    ["answer", "absorb", "hold", "hold-and-wake", "stub", "drop", "awake", "foreign", "own"];
/// What is assumed of guests, as no capture shows it.
const ASSUMED: &str = "each guest sleeps from the first frame on; once woken it is awake until it was idle_after, \
                       and at least min_awake, without a frame to or from it";

/// Replays and shows.
pub(super) fn replay(config: &Path, args: &args::Replay, json: bool) -> Result<(), Failure> {
    let config = Config::load(config)?;
    let mut replay = Replay::new(&config, args.guest.as_deref(), args.trust_checksums)
        .map_err(|why| Failure::Usage(why.to_string()))?;
    for who in replay.left_out() {
        eprintln!("surrogate: {who}: left out, as the configuration does not give its `mac`");
    }
    let unread = |why: CaptureError| Failure::Failed(format!("{}: {why}", args.capture.display()));
    let mut reader = CaptureReader::open(&args.capture).map_err(unread)?;
    let mut replies = Replies::create(args.write.as_deref(), &args.capture)?;
    let damage = loop {
        match reader.next_frame() {
            Ok(None) => break None,
            Ok(Some(captured)) => {
                let judged = replay.frame(&captured);
                if args.verbose {
                    if json { output::json(&judged)? } else { output::text(&verdict_line(&judged))? }
                }
                for reply in &judged.replies {
                    let comment = format!("after frame {}: {}", judged.frame, verdicts(&judged));
                    replies.write(judged.unix_ns, reply, &comment)?;
                }
            }
            Err(why @ CaptureError::Damaged { .. }) if reader.frames() > 0 => break Some(why.to_string()),
            Err(why) => return Err(unread(why)),
        }
    };
    if damage.is_none() {
        replies.finish()?;
    }
    let totals = replay.finish();
    if json {
        output::json(&Report { capture: &args.capture, damage: damage.as_deref(), totals: &totals })?;
    } else {
        output::text(&report(args, &totals))?;
    }
    match damage {
        None => Ok(()),
        Some(why) => {
            let write = args.write.as_ref();
            let unwritten =
                write.map(|path| format!("; {} is not written", path.display())).unwrap_or_default();
            Err(Failure::Failed(format!("{}: {why}{unwritten}", args.capture.display())))
        }
    }
}

/// The last object that `--json` prints.
#[derive(Serialize)]
struct Report<'r> {
    capture: &'r Path,
    damage: Option<&'r str>,
    #[serde(flatten)]
    totals: &'r Totals,
}

fn verdict_line(judged: &Judged) -> String {
    let Judged { frame, unix_ns, kind, what, woke, .. } = judged;
    let woke = if woke.is_empty() { String::new() } else { format!("  WAKES {}", woke.join(", ")) };
    format!("{frame:>7}  {}  {kind:<19}  {:<28}  {what}{woke}\n", utc(unix_ns / 1_000_000), verdicts(judged))
}

fn verdicts(judged: &Judged) -> String {
    if judged.own {
        return "own".to_owned();
    }
    if judged.verdicts.is_empty() && judged.awake.is_empty() {
        return "foreign".to_owned();
    }
    let awake = judged.awake.iter().map(|guest| format!("{guest}: awake"));
    let each = judged.verdicts.iter().map(|(guest, verdict)| match verdict {
        Verdict::Answer(by) => format!("{guest}: answer {}", by.name()),
        Verdict::Drop(reason) => format!("{guest}: drop {}", reason.name()),
        other => format!("{guest}: {}", verdict_name(*other)),
    });
    each.chain(awake).collect::<Vec<_>>().join("; ")
}

fn report(args: &args::Replay, totals: &Totals) -> String {
    let mut text = format!(
        "{}: {} in {}, from {} to {}\n",
        args.capture.display(),
        plural(totals.frames, "frame"),
        output::span(u64::try_from(totals.duration().as_millis()).unwrap_or(u64::MAX)),
        utc(totals.first_unix_ns / 1_000_000),
        utc(totals.last_unix_ns / 1_000_000),
    );
    text.push_str(&format!("assumed: {ASSUMED}\n"));
    for (n, what) in [
        (totals.own, "sent by the sleeping guests themselves, left out"),
        (totals.cut, "cut short by the capture's snap length, their checksums not looked at"),
        (totals.awake, "to or from guests that were awake by then"),
        (totals.foreign, "concerned no sleeper"),
        (totals.replies, "sent in answer"),
    ] {
        if n > 0 {
            text.push_str(&format!("{n:>7} {what}\n"));
        }
    }
    text.push('\n');
    text.push_str(&kinds(totals));
    for guest in &totals.guests {
        text.push('\n');
        text.push_str(&guest_report(guest, args.verbose));
    }
    let bad: u64 = totals.guests.iter().flat_map(|guest| &guest.nics).map(bad_checksums).sum();
    if bad > 0 && !args.trust_checksums {
        let frames = plural(bad, "frame");
        text.push_str(&format!(
            "\n{frames} had a wrong transport checksum; if the capture was made on the sending host, offload left \
             them unfilled: use --trust-checksums\n"
        ));
    }
    text
}

fn kinds(totals: &Totals) -> String {
    let used = VERDICTS.map(|verdict| totals.kinds.values().any(|counts| counts.contains_key(verdict)));
    let row = |name: String, cell: &dyn Fn(&'static str) -> String| {
        let mut row = [const { String::new() }; 10];
        let cells = VERDICTS.iter().zip(used).filter(|(_, used)| *used).map(|(verdict, _)| cell(verdict));
        for (place, text) in row.iter_mut().zip(std::iter::once(name).chain(cells)) {
            *place = text;
        }
        row
    };
    let mut rows = vec![row("KIND".to_owned(), &|verdict| verdict.to_ascii_uppercase())];
    for (kind, counts) in &totals.kinds {
        let cell = |verdict: &'static str| counts.get(verdict).copied().unwrap_or(0).to_string();
        rows.push(row((*kind).to_owned(), &cell));
    }
    output::table(&rows)
}

fn guest_report(guest: &GuestTotals, verbose: bool) -> String {
    let sum = |read: &dyn Fn(&crate::engine::Counters) -> u64| guest.nics.iter().map(read).sum::<u64>();
    let mut text = format!(
        "{}: {} concerned it: {} answered, {} absorbed, {} held, {} dropped\n",
        guest.guest,
        plural(sum(&|c| c.concerned), "frame"),
        named(
            Answered::ALL.map(|by| (by.name(), sum(&|c| c.answered.get(by as usize).copied().unwrap_or(0))))
        ),
        sum(&|c| c.absorbed),
        sum(&|c| c.held),
        named(
            DropReason::ALL
                .map(|why| (why.name(), sum(&|c| c.dropped.get(why as usize).copied().unwrap_or(0))))
        ),
    );
    if guest.forbidden > 0 {
        let frames = plural(guest.forbidden, "frame");
        text.push_str(&format!("  {frames} worth waking for woke nobody: its policy is wake = \"never\"\n"));
    }
    if let Some(Wake { frame, reason, .. }) = &guest.put_off {
        text.push_str(&format!(
            "  frame {frame} ({reason}) still waited for its wake budget when the capture ended\n"
        ));
    }
    if guest.wakes.is_empty() {
        text.push_str("  nothing would have woken it\n");
        return text;
    }
    text.push_str(&format!("  would have been woken {}:\n", plural(guest.wakes.len() as u64, "time")));
    let shown = if verbose { usize::MAX } else { WAKES_SHOWN };
    for Wake { frame, unix_ns, reason, put_off_ms } in guest.wakes.iter().take(shown) {
        let late = match put_off_ms {
            0 => String::new(),
            ms => format!(", put off {} by its wake budget", output::span(*ms)),
        };
        text.push_str(&format!("    {}  frame {frame:>7}  {reason}{late}\n", utc(unix_ns / 1_000_000)));
    }
    if let Some(more) = guest.wakes.len().checked_sub(shown).filter(|more| *more > 0) {
        text.push_str(&format!("    and {more} more (-v or --json shows all)\n"));
    }
    text
}

fn named<const N: usize>(counts: [(&str, u64); N]) -> String {
    let total: u64 = counts.iter().map(|(_, n)| n).sum();
    let parts: Vec<String> =
        counts.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{n} {name}")).collect();
    if parts.is_empty() { total.to_string() } else { format!("{total} ({})", parts.join(", ")) }
}

fn bad_checksums(counters: &crate::engine::Counters) -> u64 {
    counters.dropped.get(DropReason::BadChecksum as usize).copied().unwrap_or(0)
}
