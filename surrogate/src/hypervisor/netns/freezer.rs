//! A cgroup that freezes: version 2 (`cgroup.freeze`) or the version 1 freezer (`freezer.state`).
//!
//! Kinder than signals, since the processes cannot see it and nothing in the guest can undo it, and it
//! has no fork race: children are born into it.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{nap, sys};
use crate::io::clock;

/// A cgroup and how it freezes.
#[derive(Debug)]
pub(super) struct Freezer {
    directory: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Why a cgroup does not serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum FreezerError {
    /// Not there. `ip netns exec` mounts a /sys of its own, which hides all cgroups.
    #[error("no cgroup at {0} (`ip netns exec` hides them: start the daemon with `nsenter --net=`)")]
    Missing(PathBuf),
    /// A cgroup, but none that freezes; the root cgroup never does.
    #[error("{0} has neither cgroup.freeze nor freezer.state: give a cgroup below the root, or no cgroup")]
    NoFreezer(PathBuf),
    /// Something in it does not freeze (it waits for a disk).
    #[error("{directory} was not frozen within {} s", FREEZE_WITHIN.as_secs())]
    Unfrozen { directory: PathBuf },
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

impl Freezer {
    /// The freezer at `directory`.
    ///
    /// # Errors
    /// [`FreezerError::Missing`], [`FreezerError::NoFreezer`].
    pub(super) fn open(directory: &Path) -> Result<Self, FreezerError> {
        let version = if directory.join("cgroup.freeze").exists() {
            Version::Two
        } else if directory.join("freezer.state").exists() {
            Version::One
        } else if directory.is_dir() {
            return Err(FreezerError::NoFreezer(directory.to_owned()));
        } else {
            return Err(FreezerError::Missing(directory.to_owned()));
        };
        Ok(Self { directory: directory.to_owned(), version })
    }

    /// Freezes all that is in it and below; on error it is thawed again.
    ///
    /// # Errors
    /// [`FreezerError::Unfrozen`], [`FreezerError::Io`].
    pub(super) fn freeze(&self) -> Result<(), FreezerError> {
        let frozen = match self.version {
            Version::Two => self.freeze_two(),
            Version::One => self.freeze_one(),
        };
        if frozen.is_err() {
            // The first error is the one to report.
            let _ = self.thaw();
        }
        frozen
    }

    fn freeze_two(&self) -> Result<(), FreezerError> {
        let path = self.directory.join("cgroup.events");
        let failed = |error| FreezerError::Io(path.clone(), error);
        let mut events = File::open(&path).map_err(failed)?;
        self.write("cgroup.freeze", "1")?;
        let deadline = clock::now() + FREEZE_WITHIN;
        loop {
            let mut text = String::new();
            events.rewind().and_then(|()| events.read_to_string(&mut text)).map_err(failed)?;
            if says_frozen(&text) {
                return Ok(());
            }
            let left = deadline.since(clock::now());
            if left.is_zero() {
                return Err(FreezerError::Unfrozen { directory: self.directory.clone() });
            }
            sys::wait_for_change(&events, left).map_err(failed)?;
        }
    }

    fn freeze_one(&self) -> Result<(), FreezerError> {
        self.write("freezer.state", "FROZEN")?;
        let deadline = clock::now() + FREEZE_WITHIN;
        // Version 1 has no event; reading the state is what moves it from FREEZING to FROZEN.
        while self.read("freezer.state")?.trim() != "FROZEN" {
            if clock::now() > deadline {
                return Err(FreezerError::Unfrozen { directory: self.directory.clone() });
            }
            nap(POLL);
        }
        Ok(())
    }

    /// Lets all that is in it run.
    ///
    /// # Errors
    /// [`FreezerError::Io`].
    pub(super) fn thaw(&self) -> Result<(), FreezerError> {
        match self.version {
            Version::Two => self.write("cgroup.freeze", "0"),
            Version::One => self.write("freezer.state", "THAWED"),
        }
    }

    /// Whether nothing in it can run, by whoever's order.
    ///
    /// # Errors
    /// [`FreezerError::Io`].
    pub(super) fn is_frozen(&self) -> Result<bool, FreezerError> {
        match self.version {
            Version::Two => Ok(says_frozen(&self.read("cgroup.events")?)),
            Version::One => Ok(self.read("freezer.state")?.trim() == "FROZEN"),
        }
    }

    /// The processes in it and below.
    ///
    /// # Errors
    /// [`FreezerError::Io`].
    pub(super) fn pids(&self) -> Result<Vec<u32>, FreezerError> {
        let mut pids = Vec::new();
        let mut left = vec![self.directory.clone()];
        while let Some(directory) = left.pop() {
            let procs = directory.join("cgroup.procs");
            let text = match fs::read_to_string(&procs) {
                // A child cgroup may go while we look; our own may not.
                Err(error) if error.kind() == io::ErrorKind::NotFound && directory != self.directory => {
                    continue;
                }
                result => result.map_err(|error| FreezerError::Io(procs, error))?,
            };
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            let below = fs::read_dir(&directory).map_err(|error| FreezerError::Io(directory, error))?;
            left.extend(
                below.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()),
            );
        }
        Ok(pids)
    }

    fn read(&self, file: &str) -> Result<String, FreezerError> {
        let path = self.directory.join(file);
        fs::read_to_string(&path).map_err(|error| FreezerError::Io(path, error))
    }

    fn write(&self, file: &str, value: &str) -> Result<(), FreezerError> {
        let path = self.directory.join(file);
        fs::write(&path, value).map_err(|error| FreezerError::Io(path, error))
    }
}

fn says_frozen(events: &str) -> bool {
    events.lines().any(|line| line == "frozen 1")
}

const FREEZE_WITHIN: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(1);
