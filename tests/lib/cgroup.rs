//! A cgroup that freezes, of either version, with a guest's processes in it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::namespace::Namespace;

/// A cgroup of ours. Dropping it thaws it, moves its processes to the root, and removes it.
#[derive(Debug)]
pub struct Cgroup {
    folder: PathBuf,
    version: Version,
}

/// Which kernel interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The freezer controller, `freezer.state`.
    One,
    /// `cgroup.freeze`, Linux 5.2.
    Two,
}

impl Version {
    /// Where this machine has its root, if anywhere.
    fn root(self) -> Option<&'static Path> {
        let candidates: &[&str] = match self {
            Self::One => &["/sys/fs/cgroup/freezer"],
            Self::Two => &["/sys/fs/cgroup/unified", "/sys/fs/cgroup"],
        };
        let file = if self == Self::One { "tasks" } else { "cgroup.controllers" };
        candidates.iter().map(Path::new).find(|root| root.join(file).exists())
    }

    fn file(self) -> &'static str {
        if self == Self::One { "freezer.state" } else { "cgroup.freeze" }
    }
}

impl Cgroup {
    /// A new one with all processes of `namespace`, named like it; `None` where the machine has none of this
    /// version, or none that freezes.
    ///
    /// # Panics
    /// If a process cannot be moved.
    #[must_use]
    #[track_caller]
    pub fn around(namespace: &Namespace, version: Version) -> Option<Self> {
        let folder = version.root()?.join(namespace.name());
        fs::create_dir(&folder).ok()?;
        let cgroup = Self { folder, version };
        if !cgroup.folder.join(version.file()).exists() {
            return None;
        }
        for pid in namespace.processes() {
            fs::write(cgroup.folder.join("cgroup.procs"), pid.to_string()).unwrap();
        }
        Some(cgroup)
    }

    /// For the configuration.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Whether everything in it is frozen, as the kernel says.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        let (file, frozen) = match self.version {
            Version::One => ("freezer.state", "FROZEN"),
            Version::Two => ("cgroup.events", "frozen 1"),
        };
        let text = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        text.lines().any(|line| line == frozen)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.folder) {
            eprintln!("lab: cgroup {} was not removed: {error}", self.folder.display());
        }
    }
}

/// Removes the cgroups in whose names `stale` finds a run that is no more. Before the processes themselves:
/// a frozen one does not die.
pub(crate) fn sweep(stale: impl Fn(&Path) -> Vec<String>) -> Vec<String> {
    let roots = [Version::One, Version::Two].into_iter().filter_map(Version::root);
    let mut removed = Vec::new();
    for root in roots {
        removed.extend(stale(root).into_iter().filter(|name| remove(&root.join(name)).is_ok()));
    }
    removed
}

fn remove(folder: &Path) -> std::io::Result<()> {
    for (file, thawed) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        let file = folder.join(file);
        if file.exists() {
            fs::write(file, thawed)?;
        }
    }
    if let Some(root) = folder.parent() {
        for pid in fs::read_to_string(folder.join("cgroup.procs"))?.lines() {
            // One that ended meanwhile is out, too.
            let _ = fs::write(root.join("cgroup.procs"), pid);
        }
    }
    fs::remove_dir(folder)
}
