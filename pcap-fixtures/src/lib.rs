//! The project's own captures, for tests: where they are, what is in them, and what README.md says of
//! each.
//!
//! All were recorded in the project's own lab by `make-captures`, as pcap files with nanoseconds. The
//! reader here reads just that; the one for files from anywhere is `surrogate::io::capture`.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// A frame and when it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Since the first frame of its capture.
    pub at: Duration,
    /// Destination MAC to payload.
    pub bytes: Vec<u8>,
}

/// What README.md says of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its name, as `wake/syn-retry.pcap`.
    pub name: String,
    /// The verdicts it must provoke and how often each, as ("drop duplicate", 3).
    pub verdicts: Vec<(String, usize)>,
}

/// Where the capture `name` is.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    folder().join(name)
}

/// The frames of the capture `name`, as "arp/request.pcap".
///
/// # Panics
/// If there is no such capture, or it is not as `make-captures` writes them.
#[must_use]
#[track_caller]
pub fn capture(name: &str) -> Vec<Captured> {
    let file = std::fs::read(path(name)).unwrap_or_else(|why| panic!("{name}: {why}"));
    frames(&file).unwrap_or_else(|| panic!("{name} is no whole pcap file with nanoseconds"))
}

/// The names of all captures, sorted.
///
/// # Panics
/// If the folder cannot be read.
#[must_use]
pub fn names() -> Vec<String> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let read = std::fs::read_dir(folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
        read.filter_map(|entry| Some(entry.ok()?.path())).collect()
    };
    let topics = entries(&folder()).into_iter().filter(|path| path.is_dir());
    let files = topics.flat_map(|topic| entries(&topic));
    let mut names: Vec<String> = files
        .filter(|file| file.extension().is_some_and(|extension| extension == "pcap"))
        .filter_map(|file| Some(file.strip_prefix(folder()).ok()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

/// What README.md's table says, row by row.
///
/// # Panics
/// If a row is not as the others.
#[must_use]
pub fn expected() -> Vec<Expected> {
    let readme = std::fs::read_to_string(folder().join("README.md")).expect("README.md is there");
    let rows = readme.lines().filter(|line| line.starts_with("| `") && line.contains(".pcap`"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, _made, verdicts, _why] = cells.as_slice() else { panic!("four cells wanted: {row}") };
        let verdicts = verdicts.split(',').map(|verdict| {
            let (name, count) = verdict.trim().rsplit_once(' ').unwrap_or_else(|| panic!("{row}"));
            (name.trim_matches('`').to_owned(), count.parse().unwrap_or_else(|_| panic!("{row}")))
        });
        Expected { name: name.trim_matches('`').to_owned(), verdicts: verdicts.collect() }
    })
    .collect()
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The frames of a little-endian pcap file with nanoseconds.
fn frames(file: &[u8]) -> Option<Vec<Captured>> {
    let word = |at: usize| Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?));
    if (word(0)?, word(20)?) != (0xa1b2_3c4d, 1) {
        return None;
    }
    let mut frames = Vec::new();
    let mut first = None;
    let mut at = 24;
    while at < file.len() {
        let time = Duration::new(word(at)?.into(), word(at + 4)?);
        let length = usize::try_from(word(at + 8)?).ok()?;
        let bytes = file.get(at + 16..at + 16 + length)?.to_vec();
        frames.push(Captured { at: time.saturating_sub(*first.get_or_insert(time)), bytes });
        at += 16 + length;
    }
    Some(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capture_has_a_row_and_every_row_a_capture() {
        let mut described: Vec<String> = expected().into_iter().map(|expected| expected.name).collect();
        described.sort();
        assert_eq!(described, names());
        assert!(described.len() >= 12);
    }

    #[test]
    fn every_capture_is_whole_and_in_order_of_time() {
        for name in names() {
            let frames = capture(&name);
            assert!(!frames.is_empty(), "{name}");
            assert!(frames.is_sorted_by_key(|frame| frame.at), "{name}");
            assert!(frames.iter().all(|frame| frame.bytes.len() >= 14), "{name}");
        }
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        assert_eq!(frames(b""), None);
        assert_eq!(frames(&[0; 40]), None);
        let whole = std::fs::read(path("arp/request.pcap")).unwrap();
        assert!(frames(&whole).is_some());
        assert_eq!(frames(&whole[..whole.len() - 1]), None);
    }
}
