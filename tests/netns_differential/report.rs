//! What was compared, for people and for programs: `target/differential/`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::case::Asleep;

/// One case, compared.
#[derive(Serialize)]
pub struct Line {
    pub name: String,
    /// The section that it tries.
    pub source: &'static str,
    /// The answers are the same.
    pub equal: bool,
    /// Where they are not: the rows of docs/packet-policy.md that say why, with commas between.
    pub policy: Option<String>,
    /// How many frames the awake guest answered.
    pub answers: usize,
    /// What the stand-in did: it spoke or was silent, held it, or woke the guest.
    pub asleep: &'static str,
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
        let same = line.policy.as_deref().map_or_else(|| "yes".to_owned(), |rows| format!("no: {rows}"));
        writeln!(text, "| {} | {} | {} | {} | {same} |", line.name, line.source, line.answers, line.asleep)
            .unwrap();
    }
    text
}

/// In one word.
pub fn word(asleep: Asleep, answers: usize) -> &'static str {
    match (asleep, answers) {
        (Asleep::Speaks, 0) => "silent",
        (Asleep::Speaks, _) => "answered",
        (Asleep::Holds, _) => "held",
        (Asleep::Wakes, _) => "woken",
    }
}
