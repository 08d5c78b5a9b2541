//! Real captures through the engine: no panic, no answer to damaged frames, conservation, and, where
//! a capture shows both sides, answers that equal the real host's.
//!
//! The captures are not part of this project. `SURROGATE_CAPTURES` names their folder (default:
//! `../shared/captures` beside the checkout); where it is absent these tests say `skipped`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what this test cannot read fails it at once, with the place"
)]

mod damage;
mod files;
mod hosts;
mod mutate;
mod pairs;
mod said;
mod sleeper;

use std::collections::{BTreeMap, BTreeSet};

use surrogate::engine::Counters;
use surrogate::io::capture::Captured;
use surrogate::rng::Rng;
use surrogate_wire::{Mac, Offload};

use crate::files::CaptureFile;
use crate::hosts::Host;
use crate::pairs::Pairs;
use crate::sleeper::Sleepers;

/// Pairs of answers that must at least be compared over all files.
const PAIRS_WANTED: usize = 100;
/// Hosts of each file that sleep, one after the other.
const SLEEPERS: usize = 3;
/// Mutated frames that each of them gets.
const MUTANTS: usize = 1_000;

#[test]
fn answers_equal_those_of_the_real_hosts() {
    let Some(files) = files::all() else { return };
    let compared = compare_all(&files);
    assert!(compared > PAIRS_WANTED, "only {compared} pairs");
}

#[test]
fn answers_equal_those_of_the_labs_linux_host() {
    assert!(compare_all(&files::own()) > 20);
}

/// Compares all pairs in `files`, prints how many, and fails for a difference that is not listed.
fn compare_all(files: &[CaptureFile]) -> usize {
    let listed = listed_differences();
    let mut compared = 0;
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for file in files {
        let mut of_file = 0;
        let frames = file.below_service_tags();
        for host in hosts::answering(&frames) {
            for form in [Form::InLine, Form::Beside] {
                if form == Form::Beside && host.vlan.is_none() {
                    continue;
                }
                let pairs = compare(file, &frames, &host, form);
                of_file += pairs.compared;
                for (name, what) in pairs.differences() {
                    found.entry(name).or_default().push(format!("{} {}: {what}", file.name, host.mac));
                }
            }
        }
        println!("{:<36} {:>6} frames, {of_file:>4} pairs compared", file.name, file.frames.len());
        compared += of_file;
    }
    println!("{compared} pairs compared");
    for (name, what) in &found {
        println!("difference `{name}`: {} times, first {}", what.len(), what[0]);
    }
    let unlisted: Vec<_> = found.iter().filter(|(name, _)| !listed.contains(**name)).collect();
    assert!(unlisted.is_empty(), "not on the list in docs/packet-policy.md: {unlisted:#?}");
    compared
}

/// How a frame's tag is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// In the bytes.
    InLine,
    /// Beside them, as the kernel does.
    Beside,
}

/// `host` sleeps, the others speak; our answers beside its own.
fn compare(file: &CaptureFile, frames: &[Captured], host: &Host, form: Form) -> Pairs {
    let mut pairs = Pairs::default();
    let mut sleeper = Sleepers::asleep(std::slice::from_ref(host));
    for (n, frame) in frames.iter().enumerate() {
        if host.sent(&frame.bytes) {
            pairs.host_said(n, frame);
            continue;
        }
        let answers = match form {
            Form::InLine => sleeper.feed(frame.unix_ns, &frame.bytes, file.offload),
            Form::Beside => sleeper.feed_untagged(frame.unix_ns, &frame.bytes, file.offload),
        };
        pairs.host_was_told(n, host.mac, frame, &answers);
        check_silence(file, n, &frame.bytes, file.offload, &answers);
    }
    for counters in sleeper.wake_and_deliver() {
        counters.conserved().unwrap_or_else(|why| panic!("{} {}: {why}", file.name, host.mac));
        assert_eq!(counters.holding, 0, "{} {}", file.name, host.mac);
    }
    pairs
}

#[test]
fn every_file_is_accounted_for_frame_by_frame() {
    let Some(files) = files::all() else { return };
    for file in &files {
        let mut sum = Counters::default();
        let mut answers_sent = 0;
        let hosts = hosts::busiest(&file.frames, SLEEPERS);
        for host in &hosts {
            let mut sleeper = Sleepers::asleep(std::slice::from_ref(host));
            for (n, frame) in file.frames.iter().enumerate().filter(|(_, frame)| !host.sent(&frame.bytes)) {
                let answers = sleeper.feed(frame.unix_ns, &frame.bytes, file.offload);
                answers_sent += answers.len();
                check_silence(file, n, &frame.bytes, file.offload, &answers);
                sleeper.check(|| format!("{} {} frame {n}", file.name, host.mac));
            }
            for counters in sleeper.wake_and_deliver() {
                assert_eq!(counters.holding, 0, "{}: what was held is delivered or counted", file.name);
                sum.concerned += counters.concerned;
                sum.held += counters.held;
                sum.replayed += counters.replayed;
            }
        }
        println!(
            "{:<34} {} asleep in turn: {:>6} concerned, {answers_sent:>5} answers, {:>6} held, {:>6} replayed",
            file.name,
            hosts.len(),
            sum.concerned,
            sum.held,
            sum.replayed,
        );
        assert!(!hosts.is_empty() || file.name.starts_with("rarp"), "{}: somebody can sleep", file.name);
    }
}

#[test]
fn mutated_frames_never_panic_nor_get_an_answer_that_a_host_would_not_give() {
    let Some(files) = files::all() else { return };
    for (seed, file) in files.iter().enumerate() {
        let mut rng = Rng::seeded(seed as u64);
        let mut answered = 0;
        for host in &hosts::busiest(&file.frames, SLEEPERS) {
            let mut sleeper = Sleepers::asleep(std::slice::from_ref(host));
            let mut at = file.frames[0].unix_ns;
            for n in 0..MUTANTS {
                let bytes = mutate::frame(&file.frames, &mut rng);
                at += rng.below(50_000_000);
                let answers = sleeper.feed(at, &bytes, Offload::None);
                answered += answers.len();
                check_silence(file, n, &bytes, Offload::None, &answers);
                sleeper.check(|| format!("{} seed {seed} {} mutant {n}: {bytes:02x?}", file.name, host.mac));
                sleeper.sleep_again();
            }
            for counters in sleeper.wake_and_deliver() {
                assert_eq!(counters.holding, 0, "{} seed {seed} {}", file.name, host.mac);
            }
        }
        println!("{:<34} {answered:>5} answers to mutated frames", file.name);
    }
}

/// A damaged frame gets no answer, and no answer is in the name of a MAC that does not sleep.
fn check_silence(file: &CaptureFile, n: usize, bytes: &[u8], offload: Offload, answers: &[Vec<u8>]) {
    if answers.is_empty() {
        return;
    }
    if let Some(damage) = damage::of(bytes, offload) {
        panic!("{} frame {n} is damaged ({damage}) and was answered: {bytes:02x?}", file.name);
    }
}

/// The names in the first column of the table in docs/packet-policy.md.
fn listed_differences() -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/packet-policy.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("\n## Differences from a real host\n").expect("the section is there");
    let section = section.split("\n## ").next().unwrap();
    let names: BTreeSet<String> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(str::to_owned)
        .collect();
    assert!(!names.is_empty(), "the list has names");
    names
}

/// Six bytes at `at` as an address.
fn mac_at(bytes: &[u8], at: usize) -> Option<Mac> {
    bytes.get(at..at + 6).map(|mac| Mac(mac.try_into().unwrap()))
}
