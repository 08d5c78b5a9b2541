//! What the fuzzer found stays found: each input under `fuzz/crashes/TARGET/` that once made the target panic, hang or
//! eat memory is read again. And the fuzzer begins with something: the seeds are read, most of them with success.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use surrogate_fuzz::{TARGETS, target};

fn crashes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crashes")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    let mut paths: Vec<PathBuf> = read.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn each_crash_that_was_found_is_read_without_one() {
    for folder in entries(&crashes()) {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let target = target(name).unwrap_or_else(|| panic!("crashes of \"{name}\", which is no target"));
        let inputs = entries(&folder);
        assert!(!inputs.is_empty(), "{} is empty", folder.display());
        for input in inputs {
            println!("{}", input.display());
            (target.run)(&std::fs::read(&input).unwrap());
        }
    }
}

#[test]
fn a_crash_is_named_for_what_it_was() {
    for input in entries(&crashes()).iter().flat_map(|folder| entries(folder)) {
        let name = input.file_name().unwrap().to_str().unwrap();
        let fine = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        assert!(fine && !name.starts_with("crash-"), "{}: name it for what was wrong", input.display());
    }
}

#[test]
fn the_seeds_of_each_target_get_through_its_parser() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        let understood = seeds.iter().filter(|seed| (target.run)(seed)).count();
        println!("{}: {understood} of {} understood", target.name, seeds.len());
        assert!(
            understood * 2 >= seeds.len() && understood > 0,
            "{}: {understood} of {} understood",
            target.name,
            seeds.len()
        );
        let longest = seeds.iter().map(Vec::len).max().unwrap_or_default();
        assert!(longest <= target.longest, "{}: a seed of {longest} bytes", target.name);
    }
}

#[test]
fn bytes_without_meaning_are_understood_by_no_parser_of_a_format() {
    // The engine and custody take any bytes for steps.
    for target in TARGETS.iter().filter(|target| !["engine", "custody"].contains(&target.name)) {
        for bytes in [&[][..], &[0xff; 64], b"#!/bin/sh\necho nothing of the kind\n"] {
            let empty_is_fine = target.name == "config" && bytes.is_empty();
            assert_eq!((target.run)(bytes), empty_is_fine, "{}: {bytes:?}", target.name);
        }
    }
}

#[test]
fn a_target_has_one_name() {
    let names: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names.len(), TARGETS.len());
    assert!(TARGETS.iter().all(|one| std::ptr::eq(target(one.name).unwrap(), one)));
}
