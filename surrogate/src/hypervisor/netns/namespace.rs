//! A named network namespace, as `ip netns add` makes them.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::sys;

/// A namespace by what makes it one: the device and inode of its file (namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NamespaceId {
    device: u64,
    inode: u64,
}

impl NamespaceId {
    /// The network namespace that process `pid` is in; `None` if it has ended, or is a zombie, which is
    /// in none.
    pub(super) fn of_process(pid: u32) -> Option<Self> {
        fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|file| Self::of_file(&file))
    }

    fn of_file(file: &fs::Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino() }
    }
}

/// An open namespace: it stays while this lives, even if its name goes.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) id: NamespaceId,
    file: File,
}

impl Namespace {
    /// The namespace of that name under `/run/netns`; `None` if there is none.
    ///
    /// # Errors
    /// What opening says, other than that it is missing.
    pub(super) fn open(name: &str) -> io::Result<Option<Self>> {
        let file = match File::open(Path::new(DIRECTORY).join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result?,
        };
        let id = NamespaceId::of_file(&file.metadata()?);
        // A name whose mount is gone (after a reboot, or `umount`) is an empty plain file.
        let is_namespace = fs::metadata("/proc/self/ns/net")?.dev() == id.device;
        Ok(is_namespace.then_some(Self { id, file }))
    }

    /// What `read` finds from inside, on a thread of its own that ends with it.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`, and what `read` says.
    pub(super) fn inside<T: Send>(&self, read: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                sys::enter_network_namespace(self.file.as_fd())?;
                read()
            });
            inside.join().unwrap_or_else(|_| Err(io::Error::other("reading inside the namespace panicked")))
        })
    }

    /// Moves the calling thread in, to stay.
    #[cfg(test)]
    pub(super) fn enter_for_good(&self) -> io::Result<()> {
        sys::enter_network_namespace(self.file.as_fd())
    }
}

/// Where `ip netns` keeps the names.
pub(super) const DIRECTORY: &str = "/run/netns";
