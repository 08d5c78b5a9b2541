//! Segments of a connection that the guest has, at rest since before it fell asleep (RFC 9293 3.8.4 and 3.10.7.4,
//! RFC 5961, RFC 2018, RFC 2883), and its timestamps (RFC 7323).
//!
//! At the guest's end no process reads: every answer is its kernel's, at once.

use super::ports;
use crate::build::{ACK, CWR, ECE, FIN, PSH, RST, SYN, Tcp, URG, timestamps};
use crate::case::{Asleep, Case, Stimulus, Until};
use crate::connection::{Connection, Opening, TS_OPEN};
use crate::hosts::FULL;

/// What a peer sends on a connection at rest, and what becomes of it asleep.
struct Row {
    name: &'static str,
    source: &'static str,
    asleep: Asleep,
    segments: fn(&Connection) -> Vec<Tcp>,
    /// Answers that come when the guest's timer has run.
    late: usize,
    /// Rows of docs/packet-policy.md.
    differs: &'static [&'static str],
}

const fn row(
    name: &'static str,
    source: &'static str,
    asleep: Asleep,
    segments: fn(&Connection) -> Vec<Tcp>,
) -> Row {
    Row { name, source, asleep, segments, late: 0, differs: &[] }
}

/// Bytes that the guest got before it fell asleep.
const SAID: usize = 100;

fn with(data: usize, segment: Tcp) -> Tcp {
    Tcp { data: vec![b'd'; data], ..segment }
}

/// So far beyond what the guest has acknowledged.
fn acknowledging(offset: i32, segment: Tcp) -> Tcp {
    Tcp { ack: segment.ack.wrapping_add_signed(offset), ..segment }
}

use Asleep::{Holds, Speaks, Wakes};

const ROWS: &[Row] = &[
    row("keep-alive", "RFC 9293 3.8.4", Speaks, |c| vec![c.at(-1, ACK)]).differs(&["tcp-tsecr"]),
    row("keep-alive-of-one-byte", "RFC 9293 3.8.4", Speaks, |c| vec![with(1, c.at(-1, ACK))]),
    row("keep-alive-twice", "RFC 9293 3.8.4", Speaks, |c| vec![c.at(-1, ACK), c.at(-1, ACK)])
        .differs(&["tcp-limit", "tcp-tsecr"]),
    row("keep-alive-with-push", "RFC 9293 3.8.4", Speaks, |c| vec![c.at(-1, PSH | ACK)])
        .differs(&["tcp-tsecr"]),
    row("old-data", "RFC 9293 3.10.7.4", Speaks, |c| vec![with(50, c.at(-50, ACK))]).differs(&["tcp-tsecr"]),
    row("old-data-of-long-ago", "RFC 9293 3.10.7.4", Speaks, |c| vec![with(20, c.at(-90, PSH | ACK))]),
    row("old-acknowledgement", "RFC 9293 3.10.7.4", Speaks, |c| vec![c.at(-20, ACK)]),
    row("acknowledgement", "RFC 9293 3.10.7.4", Holds, |c| vec![c.segment(ACK)]),
    row("acknowledgement-of-what-was-never-sent", "RFC 9293 3.10.7.4", Wakes, |c| {
        vec![acknowledging(1, c.segment(ACK))]
    }),
    row("acknowledgement-of-long-ago", "RFC 5961 5.2", Speaks, |c| {
        vec![acknowledging(-2_000_000_000, c.segment(ACK))]
    })
    .differs(&["tcp-tsecr"]),
    row("data", "RFC 9293 3.10.7.4", Wakes, |c| vec![with(10, c.segment(PSH | ACK))]).late(1),
    row("data-old-and-new", "RFC 9293 3.10.7.4", Wakes, |c| vec![with(20, c.at(-10, PSH | ACK))]).late(1),
    row("data-with-a-gap", "RFC 2018 3", Wakes, |c| vec![with(10, c.at(100, PSH | ACK))]),
    row("data-beyond-the-window", "RFC 9293 3.10.7.4", Speaks, |c| vec![with(10, c.at(20_000_000, ACK))]),
    row("data-without-ack", "RFC 9293 3.10.7.4", Speaks, |c| vec![with(10, c.segment(PSH))]),
    row("urgent", "RFC 9293 3.8.5", Wakes, |c| {
        vec![Tcp { urgent: 5, ..with(10, c.segment(URG | PSH | ACK)) }]
    })
    .late(1),
    row("fin", "RFC 9293 3.6", Wakes, |c| vec![c.segment(FIN | ACK)]).late(1),
    row("fin-behind-data", "RFC 9293 3.6", Wakes, |c| vec![with(10, c.segment(FIN | PSH | ACK))]).late(1),
    row("fin-old", "RFC 9293 3.10.7.4", Speaks, |c| vec![c.at(-1, FIN | ACK)]).differs(&["tcp-tsecr"]),
    row("reset", "RFC 5961 3.2", Holds, |c| vec![c.segment(RST)]),
    row("reset-with-ack", "RFC 5961 3.2", Holds, |c| vec![c.segment(RST | ACK)]),
    row("reset-in-the-window", "RFC 5961 3.2", Speaks, |c| vec![c.at(100, RST)]),
    row("reset-in-the-window-with-ack", "RFC 5961 3.2", Speaks, |c| vec![c.at(100, RST | ACK)]),
    row("reset-before-the-window", "RFC 5961 3.2", Speaks, |c| vec![c.at(-1, RST)]),
    row("reset-beyond-the-window", "RFC 5961 3.2", Speaks, |c| vec![c.at(20_000_000, RST)]),
    row("syn", "RFC 5961 4.2", Speaks, |c| vec![c.segment(SYN)]),
    row("syn-in-the-window", "RFC 5961 4.2", Speaks, |c| vec![c.at(100, SYN)]),
    row("syn-outside-the-window", "RFC 5961 4.2", Speaks, |c| vec![c.at(1_000_000_000, SYN)]),
    row("syn-of-a-peer-that-restarted", "RFC 5961 4.2", Speaks, |c| {
        let options = [&[2, 4, 0x05, 0xb4, 4, 2][..], &timestamps(77, 0)[2..], &[1, 3, 3, 7]].concat();
        vec![Tcp { options, ..c.at(1_000_000_000, SYN) }]
    }),
    row("syn-ack", "RFC 5961 4.2", Speaks, |c| vec![c.segment(SYN | ACK)]),
    row("nothing", "RFC 9293 3.10.7.4", Speaks, |c| vec![c.segment(0)]),
    row("ecn-marks", "RFC 3168 6.1", Speaks, |c| vec![c.at(-1, ACK | ECE | CWR)]).differs(&["tcp-tsecr"]),
    row("keep-alive-window-0", "RFC 9293 3.8.4", Speaks, |c| vec![Tcp { window: 0, ..c.at(-1, ACK) }])
        .differs(&["tcp-tsecr"]),
    row("window-update", "RFC 9293 3.8.6", Holds, |c| vec![Tcp { window: 1_000, ..c.segment(ACK) }]),
];

/// Only where timestamps were agreed.
const STAMPED: &[Row] = &[
    row("keep-alive-stamp-of-before", "RFC 7323 5.3", Speaks, |c| {
        vec![stamped(TS_OPEN, c.tsval, c.at(-1, ACK))]
    }),
    row("keep-alive-stamp-older", "RFC 7323 5.3", Speaks, |c| {
        vec![stamped(TS_OPEN - 1, c.tsval, c.at(-1, ACK))]
    }),
    row("keep-alive-stamp-much-older", "RFC 7323 5.3", Speaks, |c| {
        vec![stamped(TS_OPEN.wrapping_sub(1 << 30), c.tsval, c.at(-1, ACK))]
    })
    .differs(&["tcp-paws"]),
    row("keep-alive-stamp-much-newer", "RFC 7323 5.3", Speaks, |c| {
        vec![stamped(TS_OPEN + (1 << 30), c.tsval, c.at(-1, ACK))]
    })
    .differs(&["tcp-tsecr"]),
    row("keep-alive-echo-of-0", "RFC 7323 3.2", Speaks, |c| vec![stamped(6_000, 0, c.at(-1, ACK))])
        .differs(&["tcp-tsecr"]),
    row("keep-alive-echo-of-the-future", "RFC 7323 3.2", Speaks, |c| {
        vec![stamped(6_000, c.tsval.wrapping_add(1 << 20), c.at(-1, ACK))]
    })
    .differs(&["tcp-tsecr"]),
    row("keep-alive-without-stamp", "RFC 7323 3.2", Speaks, |c| {
        vec![Tcp { options: Vec::new(), ..c.at(-1, ACK) }]
    }),
    row("keep-alive-stamp-cut", "RFC 7323 3.2", Speaks, |c| {
        vec![Tcp { options: vec![1, 1, 8, 10, 0, 0, 0, 0], ..c.at(-1, ACK) }]
    }),
    row("acknowledgement-stamp-older", "RFC 7323 5.3", Holds, |c| {
        vec![stamped(TS_OPEN - 1, c.tsval, c.segment(ACK))]
    }),
    row("data-stamp-older", "RFC 7323 5.3", Wakes, |c| {
        vec![stamped(TS_OPEN - 1, c.tsval, with(10, c.segment(PSH | ACK)))]
    }),
    row("data-without-stamp", "RFC 7323 3.2", Wakes, |c| {
        vec![Tcp { options: Vec::new(), ..with(10, c.segment(PSH | ACK)) }]
    })
    .late(1),
    row("reset-without-stamp", "RFC 7323 3.2", Holds, |c| {
        vec![Tcp { options: Vec::new(), ..c.segment(RST) }]
    }),
    row("keep-alive-stamps-in-turn", "RFC 7323 4.3", Speaks, |c| {
        vec![stamped(6_000, c.tsval, c.at(-1, ACK)), stamped(6_001, c.tsval, c.at(-1, ACK))]
    })
    .differs(&["tcp-limit", "tcp-tsecr"]),
];

/// Only where they were not.
const UNSTAMPED: &[Row] =
    &[row("keep-alive-stamp-not-agreed", "RFC 7323 3.2", Speaks, |c| vec![stamped(1, 2, c.at(-1, ACK))])];

/// Where the guest's window is full.
const FULL_WINDOW: &[Row] = &[
    row("window-probe-of-one-byte", "RFC 9293 3.8.6.1", Speaks, |c| vec![with(1, c.segment(ACK))])
        .differs(&["tcp-tsecr"]),
    row("window-probe-below", "RFC 9293 3.8.6.1", Speaks, |c| vec![c.at(-1, ACK)]).differs(&["tcp-tsecr"]),
    row("keep-alive-at-a-full-window", "RFC 9293 3.8.4", Speaks, |c| vec![with(1, c.at(-1, ACK))]),
    row("fin-at-a-full-window", "RFC 9293 3.6", Wakes, |c| vec![c.segment(FIN | ACK)]).late(1),
];

fn stamped(value: u32, echo: u32, segment: Tcp) -> Tcp {
    Tcp { options: timestamps(value, echo), ..segment }
}

/// How the connection of a client's port is opened.
type Open = fn(u16) -> Opening;

pub fn cases() -> Vec<Case> {
    let mut port = ports(3);
    let mut cases = Vec::new();
    let kinds: [(&str, Open, &[&[Row]]); 5] = [
        ("tcp/known", |port| Opening { said: SAID, ..Opening::new(false, port) }, &[ROWS, STAMPED]),
        ("tcp6/known", |port| Opening { said: SAID, ..Opening::new(true, port) }, &[ROWS, STAMPED]),
        ("tcp/plain", |port| Opening { said: SAID, ..plain(false, port) }, &[ROWS, UNSTAMPED]),
        ("tcp6/sack", |port| Opening { said: SAID, sack: true, ..plain(true, port) }, &[ROWS, UNSTAMPED]),
        (
            "tcp/full",
            |port| Opening { to: FULL, fill: true, scale: false, ..Opening::new(false, port) },
            &[FULL_WINDOW],
        ),
    ];
    for (kind, opening, tables) in kinds {
        for row in tables.iter().copied().flatten() {
            let segments = row.segments;
            let opening = opening(port());
            let possible = |differs: &&str| match *differs {
                "tcp-tsecr" | "tcp-paws" => opening.timestamps,
                _ => true,
            };
            let differs = row.differs.iter().copied().filter(possible).collect();
            let stimulus = Stimulus::On(
                opening,
                Box::new(move |c| segments(c).iter().map(|segment| c.frame(segment)).collect()),
            );
            let case = Case::of(format!("{kind}-{}", row.name), row.source, stimulus);
            let until = if row.late > 0 { Until::Frames(row.late) } else { Until::Marker };
            cases.push(Case { asleep: row.asleep, until, differs, ..case });
        }
    }
    cases
}

/// Without any option.
fn plain(v6: bool, port: u16) -> Opening {
    Opening { timestamps: false, sack: false, scale: false, ..Opening::new(v6, port) }
}

impl Row {
    /// So many answers come a little later: acknowledgements of data may be delayed.
    const fn late(self, late: usize) -> Self {
        Self { late, ..self }
    }

    /// The answers are not the same, for these reasons.
    const fn differs(self, differs: &'static [&'static str]) -> Self {
        Self { differs, ..self }
    }
}
