//! What docs/architecture.md says of the code is true: its map names each file, and its layers are the code's.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the sources fails with the place")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The layers as docs/architecture.md draws them, upper ones first. Those of one line do not know each other.
const LAYERS: [&[&str]; 8] = [
    &["cli"],
    &["daemon"],
    &["api", "config", "hypervisor"],
    &["io"],
    &["engine"],
    &["responder", "custody"],
    &["guest"],
    &["policy"],
];
/// Plain values that every layer may use.
const EVERYBODYS: [(&str, &[&str]); 2] = [
    ("engine", &["Answered", "Mode", "WakeReason"]),
    ("hypervisor", &["Depth", "PauseReason", "Power", "Statistics"]),
];

#[test]
fn the_map_names_each_file_of_the_code_in_its_folders_row_and_no_other() {
    let mapped = mapped();
    let there: BTreeSet<String> = ["surrogate/src", "surrogate/wire/src"]
        .iter()
        .flat_map(|folder| sources(&root().join(folder)))
        .map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned())
        .collect();
    let missing: Vec<_> = there.difference(&mapped).filter(|path| !is_its_folders(path)).collect();
    let gone: Vec<_> = mapped.difference(&there).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "not in the map: {missing:#?}; only in the map: {gone:#?}"
    );
}

#[test]
fn no_layer_uses_one_above_it() {
    let src = root().join("surrogate/src");
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for path in sources(&src).into_iter().filter(|path| !is_test(path)) {
        let inside = path.strip_prefix(&src).unwrap();
        let own = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        let Some(layer) = layer(own) else { continue };
        for (module, items) in uses(&std::fs::read_to_string(&path).unwrap()) {
            let Some(below) = crate::layer(&module) else { continue };
            seen.insert((own.to_owned(), module.clone()));
            let values =
                EVERYBODYS.iter().find(|(of, _)| *of == module).map_or(&[][..], |(_, values)| values);
            let only_values = !items.is_empty() && items.iter().all(|item| values.contains(&item.as_str()));
            if module != own && below <= layer && !only_values {
                wrong.push(format!("{}: crate::{module}::{items:?}", inside.display()));
            }
        }
    }
    assert!(seen.len() > LAYERS.len(), "the uses were read: {seen:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Each `crate::MODULE::` in the code above its tests, with what follows: one name, or all of a list.
fn uses(text: &str) -> Vec<(String, Vec<String>)> {
    let code: String = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap()
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join(" ");
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let module = word(rest);
        let items = rest.strip_prefix(module.as_str()).unwrap().trim_start_matches("::");
        let items = match items.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap().split(',').map(|item| word(item.trim())).collect(),
            None => vec![word(items)],
        };
        found.push((module, items.into_iter().filter(|item| !item.is_empty()).collect()));
    }
    found
}

/// The files that the map's rows name: the folder is the first cell, each `file.rs` stands in the second.
fn mapped() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let mut files = BTreeSet::new();
    for row in text.lines().filter_map(|line| line.strip_prefix("| `surrogate/")) {
        let (folder, what) = row.split_once("` |").unwrap();
        if folder.contains("tests/") {
            continue;
        }
        for name in what.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs")) {
            assert!(files.insert(format!("surrogate/{folder}{name}")), "{folder}{name} is there twice");
        }
    }
    files
}

/// A folder's own file and its tests need no name of their own.
fn is_its_folders(path: &str) -> bool {
    path.ends_with("/mod.rs") || path.ends_with("/tests.rs")
}

fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.ends_with("testing.rs")
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
