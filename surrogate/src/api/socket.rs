//! The operator API's Unix socket: made for its owner alone, taken over only from the dead.
//!
//! Mode 0600 before anyone can connect (it listens only after that). A stale socket of a killed
//! daemon is replaced; one that answers, or anything that is no socket, is left alone. Two daemons
//! that start at the same moment are kept apart by a lock on a file beside it, which is its owner's alone
//! too: whoever can open a file can lock it, and a locked one keeps a daemon from starting.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use super::server::BindError;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// The bound socket; its file is removed when this is dropped, if it is still ours.
#[derive(Debug)]
pub(super) struct OwnSocket {
    pub(super) listener: UnixListener,
    /// The user the daemon runs as.
    pub(super) owner: u32,
    path: PathBuf,
    inode: u64,
}

impl OwnSocket {
    /// Takes `path`, making its directory if there is none.
    pub(super) fn bind(path: &Path) -> Result<Self, BindError> {
        let fail = |why: io::Error| BindError::Io { what: path.display().to_string(), why };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or_else(|| Path::new("."));
        DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(fail)?;
        let mut beside = OpenOptions::new();
        beside.write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let lock = beside.open(lock_of(path)).map_err(fail)?;
        // Never waited for: whoever has it holds it for a moment, or is stuck.
        lock.try_lock().map_err(|why| match why {
            TryLockError::WouldBlock => fail(io::Error::other("another daemon is starting on this socket")),
            TryLockError::Error(why) => fail(why),
        })?;
        remove_stale(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None).map_err(fail)?;
        socket.bind(&SockAddr::unix(path).map_err(fail)?).map_err(fail)?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(fail)?;
        socket.listen(BACKLOG).map_err(fail)?;
        let metadata = fs::symlink_metadata(path).map_err(fail)?;
        let listener = UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into()).map_err(fail)?;
        Ok(Self { listener, owner: metadata.uid(), path: path.to_owned(), inode: metadata.ino() })
    }
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        let ours = |found: fs::Metadata| found.ino() == self.inode;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The file that whoever takes the socket `path` locks meanwhile. It stays: a file that comes and goes keeps
/// nobody apart.
fn lock_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".lock");
    name.into()
}

/// Makes room at `path` if what is there is a socket that nobody listens on.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let fail = |why: io::Error| BindError::Io { what: path.display().to_string(), why };
    match fs::symlink_metadata(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(fail(why)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(fail(io::Error::other("there is something else that is no socket; remove it")));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(fail),
        // EAGAIN, a full backlog, is an answer too.
        Ok(_) => Err(BindError::Taken(path.to_owned())),
        Err(why) if why.kind() == io::ErrorKind::WouldBlock => Err(BindError::Taken(path.to_owned())),
        Err(why) => Err(fail(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_its_owners_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/surrogate.sock");
        let socket = OwnSocket::bind(&path).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert_eq!(metadata.uid(), socket.owner);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("surrogate.sock");
        // What a killed daemon leaves behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = OwnSocket::bind(&path).unwrap();
        let second = OwnSocket::bind(&path).unwrap_err();
        assert!(second.to_string().contains("another daemon answers"), "{second}");
        assert!(path.exists());
        drop(live);
    }

    #[tokio::test]
    async fn a_lock_that_another_daemon_holds_is_an_error_and_not_a_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("surrogate.sock");
        drop(OwnSocket::bind(&path).unwrap());
        let other = fs::File::open(lock_of(&path)).unwrap();
        other.lock().unwrap();
        let error = OwnSocket::bind(&path).unwrap_err().to_string();
        assert!(error.contains("starting"), "{error}");
        drop(other);
        drop(OwnSocket::bind(&path).unwrap());
    }

    #[tokio::test]
    async fn a_stranger_has_nothing_to_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("surrogate.sock");
        // Anyone who can read a directory can lock it.
        let stranger = fs::File::open(dir.path()).unwrap();
        stranger.lock().unwrap();
        let socket = OwnSocket::bind(&path).unwrap();
        for of_ours in [path.clone(), lock_of(&path)] {
            assert_eq!(fs::metadata(of_ours).unwrap().permissions().mode() & 0o777, 0o600);
        }
        drop(socket);
    }

    #[tokio::test]
    async fn a_file_in_its_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("surrogate.sock");
        fs::write(&path, "precious").unwrap();
        let error = OwnSocket::bind(&path).unwrap_err().to_string();
        assert!(error.contains("no socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
