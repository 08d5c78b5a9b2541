//! The same frames to a Linux guest awake and to Surrogate for the same guest asleep: the answers are the same, or
//! the difference is a row of docs/packet-policy.md.
//!
//! `make differential` runs this and shows the table; it is in `target/differential/` too. A new case is a line in
//! one of `cases/`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what this test cannot read fails it at once, with the place"
)]

mod ask;
mod build;
mod case;
mod cases;
mod compare;
mod connection;
mod hosts;
mod report;
mod stage;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use surrogate_house::deadline::pause;

use crate::case::{Asleep, Case, Stimulus};
use crate::compare::{Answers, plain, rows_needed};
use crate::connection::Connection;
use crate::report::Line;
use crate::stage::{Stage, Tried};

/// As many must be compared.
const CASES_WANTED: usize = 300;

/// After so long a connection that was opened is at rest: what was not answered would have been repeated.
const AT_REST: Duration = Duration::from_secs(3);

/// What came of one case on one stage.
struct Heard {
    connection: Option<Connection>,
    tried: Tried,
}

#[test]
fn a_sleeper_answers_what_the_awake_guest_answers() {
    let cases = cases::all();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "each case has a name of its own");
    assert!(cases.len() >= CASES_WANTED, "only {} cases", cases.len());

    let rows = policy_rows();
    let mut lines = Vec::new();
    let mut wrong = String::new();
    // Those without connections by themselves: a guest that has many takes longer to fall asleep, each time.
    let (on_connections, others): (Vec<_>, Vec<_>) =
        cases.into_iter().partition(|case| matches!(case.stimulus, Stimulus::On(..)));
    for cases in [others, on_connections] {
        let awake = hear(Stage::awake(), &cases);
        let asleep = hear(Stage::to_sleep(), &cases);
        for (case, (awake, asleep)) in cases.iter().zip(awake.iter().zip(&asleep)) {
            let line = compare(case, awake, asleep, &rows).unwrap_or_else(|why| {
                wrong += &why;
                Line::differing(case, awake.tried.answers.len())
            });
            lines.push(line);
        }
    }
    println!("{}", report::write(&lines));
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// What is to be reported of a case, or what is wrong with it.
fn compare(case: &Case, awake: &Heard, asleep: &Heard, rows: &BTreeSet<String>) -> Result<Line, String> {
    let of = |heard: &Heard| -> Answers {
        heard.tried.answers.iter().map(|frame| plain(frame, heard.connection.as_ref())).collect()
    };
    let (before, during) = (of(awake), of(asleep));
    let mut wrong = String::new();
    let needed = rows_needed(&before, &during, &case.differs);
    match needed.as_deref() {
        None => writeln!(wrong, "{}: differs\n{}", case.name, difference(&before, &during)).unwrap(),
        Some(needed) => {
            for row in case.differs.iter().filter(|row| !needed.contains(row)) {
                writeln!(wrong, "{}: no difference of `{row}`", case.name).unwrap();
            }
            for row in needed.iter().filter(|row| !rows.contains(**row)) {
                writeln!(wrong, "{}: `{row}` is no row of docs/packet-policy.md", case.name).unwrap();
            }
        }
    }
    let did = asleep.tried.asleep.expect("a daemon was there");
    if did != case.asleep {
        writeln!(wrong, "{}: the stand-in {did:?}, not {:?}", case.name, case.asleep).unwrap();
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(Line::new(case, needed.unwrap_or_default(), before.len(), did, during.len()))
}

/// Tries all cases on a stage.
fn hear(stage: Stage, cases: &[Case]) -> Vec<Heard> {
    let opening = |case: &Case| match &case.stimulus {
        Stimulus::On(opening, _) => Some(stage.open(opening)),
        Stimulus::Frames(_) => None,
    };
    let connections: Vec<_> = cases.iter().map(opening).collect();
    if connections.iter().any(Option::is_some) {
        // A peer whose handshake has only just begun could not be answered for: a guest with such is not idle.
        pause(AT_REST);
    }
    let mut asleep = stage.has_daemon();
    if asleep {
        stage.sleep();
        stage.assert_confirmed();
    }
    let mut heard = Vec::new();
    for (case, connection) in cases.iter().zip(connections) {
        if stage.has_daemon() && !asleep {
            stage.sleep();
        }
        let tried = stage.try_case(case, connection.as_ref());
        asleep = tried.asleep == Some(Asleep::Speaks);
        heard.push(Heard { connection, tried });
    }
    stage.end();
    heard
}

/// Both sets of answers, with a mark under the first byte that is not the same.
fn difference(awake: &Answers, asleep: &Answers) -> String {
    let mut text = String::new();
    for n in 0..awake.len().max(asleep.len()) {
        let hex = |answers: &Answers| {
            let bytes = answers.get(n)?;
            Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "))
        };
        let [before, during] =
            [hex(awake), hex(asleep)].map(|text| text.unwrap_or_else(|| "nothing".to_owned()));
        if before == during {
            writeln!(text, "    both   {before}").unwrap();
            continue;
        }
        let at = before.bytes().zip(during.bytes()).take_while(|(a, b)| a == b).count();
        writeln!(
            text,
            "    awake  {before}\n    asleep {during}\n           {}^ byte {}",
            " ".repeat(at),
            at / 3
        )
        .unwrap();
    }
    text
}

/// The names in the first column of the table of differences in docs/packet-policy.md.
fn policy_rows() -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/packet-policy.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("\n## Differences from a real host\n").expect("the section is there");
    let section = section.split("\n## ").next().unwrap();
    let names = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut rows = BTreeSet::new();
    for name in names {
        assert!(rows.insert(name.to_owned()), "`{name}` stands twice in docs/packet-policy.md");
    }
    rows
}
