//! What was compared, for people and for programs: `target/differential/`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::case::{Asleep, Case};

/// One case, compared.
#[derive(Serialize)]
pub struct Line {
    name: String,
    /// The section that it tries.
    source: &'static str,
    /// The answers are the same.
    equal: bool,
    /// Where they are not: the row of docs/packet-policy.md that says why.
    policy: Option<&'static str>,
    /// All such rows, where one is not enough.
    rows: Vec<&'static str>,
    /// How many frames the awake guest answered.
    answers: usize,
    /// What the stand-in did: it answered or was silent, held it, or woke the guest.
    asleep: &'static str,
}

impl Line {
    /// Of a case whose answers are the same but for `rows`.
    pub fn new(
        case: &Case,
        rows: Vec<&'static str>,
        answers: usize,
        did: Asleep,
        answers_asleep: usize,
    ) -> Self {
        let policy = rows.first().copied();
        let asleep = match (did, answers_asleep) {
            (Asleep::Speaks, 0) => "silent",
            (Asleep::Speaks, _) => "answered",
            (Asleep::Holds, _) => "held",
            (Asleep::Wakes, _) => "woken",
        };
        Self {
            name: case.name.clone(),
            source: case.source,
            equal: rows.is_empty(),
            policy,
            rows,
            answers,
            asleep,
        }
    }

    /// Of a case whose answers should be the same, and are not.
    pub fn differing(case: &Case, answers: usize) -> Self {
        Self { equal: false, asleep: "wrong", ..Self::new(case, Vec::new(), answers, Asleep::Speaks, 0) }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    cases: &'a [Line],
}

/// Writes `report.json` and `report.md`; the table.
pub fn write(lines: &[Line]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/differential");
    fs::create_dir_all(&folder).unwrap();
    let json = serde_json::to_string_pretty(&Report { cases: lines }).unwrap();
    fs::write(folder.join("report.json"), json).unwrap();
    let table = table(lines);
    fs::write(folder.join("report.md"), &table).unwrap();
    table
}

fn table(lines: &[Line]) -> String {
    let equal = lines.iter().filter(|line| line.equal).count();
    let mut text = format!(
        "# Awake and asleep, compared\n\n{} cases, {equal} with the same answers, {} with a difference that \
         docs/packet-policy.md names.\n\n",
        lines.len(),
        lines.len() - equal
    );
    text += "`answers` is how many frames the awake guest sent; `asleep` is how its stand-in came to the same.\n\n\
             | case | tries | answers | asleep | same |\n|---|---|---|---|---|\n";
    for line in lines {
        let same = if line.equal { "yes".to_owned() } else { format!("no: {}", line.rows.join(", ")) };
        writeln!(text, "| {} | {} | {} | {} | {same} |", line.name, line.source, line.answers, line.asleep)
            .unwrap();
    }
    text
}
