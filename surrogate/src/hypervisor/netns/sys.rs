//! The few system calls that std lacks: entering a namespace, signals that cannot hit a stranger, and
//! waiting for a cgroup's event file.

#![expect(unsafe_code, reason = "thin safe functions over system calls without a wrapper in std")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Moves the calling thread into the network namespace `namespace`; other threads stay where they are.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` if it is no network namespace.
pub(super) fn enter_network_namespace(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes two integers; `namespace` is borrowed, so its descriptor is open.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

/// A handle on the process that has number `pid` now, and on no later one with that number.
///
/// # Errors
/// `ESRCH` if there is none.
pub(super) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: takes two integers by value and returns a descriptor or -1.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    check(descriptor)?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec) for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Sends `signal` to a process.
///
/// # Errors
/// `ESRCH` if it has ended.
pub(super) fn pidfd_send_signal(process: &OwnedFd, signal: i32) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null `siginfo_t` asks for the one that kill(2) would send; `process` is open.
    let rc = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, no_info, 0) };
    check(i32::try_from(rc).unwrap_or(-1))
}

/// Waits until the kernel says that `file`, a cgroup's event file that was read to its end, has changed,
/// or until `timeout` has passed.
///
/// # Errors
/// What poll(2) says.
pub(super) fn wait_for_change(file: &File, timeout: Duration) -> io::Result<()> {
    let mut wanted = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLPRI, revents: 0 };
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1);
    // SAFETY: the kernel reads and writes one `pollfd`, which outlives the call; `file` is borrowed.
    let rc = unsafe { libc::poll(&raw mut wanted, 1, milliseconds) };
    match check(rc) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        result => result,
    }
}

fn check(rc: i32) -> io::Result<()> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
