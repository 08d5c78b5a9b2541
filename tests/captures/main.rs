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
mod dhcp;
mod files;
mod fragments;
mod groups;
mod hosts;
mod mutate;
mod names;
mod noise;
mod pairs;
mod said;
mod sleeper;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use surrogate::engine::Counters;
use surrogate::io::capture::Captured;
use surrogate::rng::Rng;
use surrogate_wire::{Mac, Offload};

use crate::files::CaptureFile;
use crate::hosts::Host;
use crate::pairs::{Pair, Pairs};
use crate::sleeper::Sleepers;

/// More pairs than this must be compared over all captures, each pair counted once.
const PAIRS_WANTED: usize = 100;
/// And more than this in captures of others. Those have 121 answers to ARP, solicitations and echo: 88 are
/// compared, 33 are damaged, announcements, or answers to what is damaged or not in the capture.
const PAIRS_OF_OTHERS: usize = 90;
/// Hosts of each file that sleep, one after the other.
const SLEEPERS: usize = 3;
/// Mutated frames that each of them gets.
const MUTANTS: usize = 1_000;

#[test]
fn answers_equal_those_of_the_real_hosts() {
    let Some(mut files) = files::all() else { return };
    let others = compare_all(&files);
    assert!(others.pairs.len() > PAIRS_OF_OTHERS, "only {} pairs in captures of others", others.pairs.len());
    files.extend(files::own());
    let all = compare_all(&files);
    assert!(all.pairs.len() > PAIRS_WANTED, "only {} pairs", all.pairs.len());
}

#[test]
fn answers_equal_those_of_the_labs_linux_host() {
    let census = compare_all(&files::own());
    for kind in pairs::KINDS {
        assert!(census.by_kind().contains_key(kind), "no {kind} was compared");
    }
}

/// Compares all pairs in `files`, prints how many, and fails for a difference that is not listed.
fn compare_all(files: &[CaptureFile]) -> Census {
    let listed = listed_differences();
    let mut census = Census::default();
    let mut frames_read = 0;
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for file in files {
        let mut of_file = Census::default();
        let frames = file.below_service_tags();
        for host in hosts::answering(&frames) {
            for form in [Form::InLine, Form::Beside] {
                if form == Form::Beside && host.vlan.is_none() {
                    continue;
                }
                let (pairs, differences) = compare(file, &frames, &host, form).end();
                of_file.add(&file.name, &pairs, form);
                for (name, what) in differences {
                    found.entry(name).or_default().push(format!("{} {}: {what}", file.name, host.mac));
                }
            }
        }
        println!("{:<36} {:>6} frames, {of_file}", file.name, file.frames.len());
        frames_read += file.frames.len();
        census.pairs.append(&mut of_file.pairs);
        census.beside += of_file.beside;
    }
    println!("{:<36} {frames_read:>6} frames, {census}", "all files");
    for (name, what) in &found {
        println!("difference `{name}`: {} times, first {}", what.len(), what[0]);
    }
    let unlisted: Vec<_> = found.iter().filter(|(name, _)| !listed.contains(**name)).collect();
    assert!(unlisted.is_empty(), "not on the list in docs/packet-policy.md: {unlisted:#?}");
    census
}

/// What was compared.
#[derive(Default)]
struct Census {
    /// Each pair once, with the name of its file.
    pairs: BTreeSet<(String, Pair)>,
    /// How many of them were compared again with the tag beside the bytes.
    beside: usize,
}

impl Census {
    fn add(&mut self, file: &str, pairs: &[Pair], form: Form) {
        for pair in pairs {
            let new = self.pairs.insert((file.to_owned(), *pair));
            self.beside += usize::from(form == Form::Beside && !new);
        }
    }

    fn by_kind(&self) -> BTreeMap<&str, usize> {
        let mut kinds = BTreeMap::new();
        for (_, pair) in &self.pairs {
            *kinds.entry(pair.kind).or_default() += 1;
        }
        kinds
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>4} distinct pairs compared", self.pairs.len())?;
        for (n, (kind, count)) in self.by_kind().into_iter().enumerate() {
            write!(f, "{} {count} {kind}", if n == 0 { ":" } else { "," })?;
        }
        if self.beside > 0 {
            write!(f, "; {} of them in both forms of a tag", self.beside)?;
        }
        Ok(())
    }
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
