//! The system calls of the packet side that neither the standard library nor `socket2` offers, each
//! as one thin safe function. Everything else under `io` but the mapped ring is safe code.

#![expect(unsafe_code, reason = "system calls; each block says why it holds")]

mod packet;
mod poll;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use packet::{
    BATCH, Taken, beside_frame, bind_packet, ethtool_set, force_receive_buffer, packet_drops, receive,
    request_rx_ring, send_batch, send_to, set_option, tap_open,
};
pub use poll::Poll;

/// An eventfd: a counter that polls readable while it is not zero. Non-blocking, closed on exec.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`.
pub fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = checked(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the call succeeded, so `fd` is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes `event` readable. That it is so already (the counter is at its ceiling) is no error.
pub fn raise(event: BorrowedFd<'_>) {
    let one = 1u64;
    // SAFETY: the kernel reads 8 bytes, all of `one`, which outlives the call. The only possible
    // failure is EAGAIN: the counter is at its ceiling, so the reader wakes anyway.
    unsafe { libc::write(event.as_raw_fd(), (&raw const one).cast(), 8) };
}

/// Makes `event` unreadable until it is raised again.
pub fn lower(event: BorrowedFd<'_>) {
    let mut count = 0u64;
    // SAFETY: the kernel writes 8 bytes, all of `count`, which outlives the call. EAGAIN says that
    // it was unreadable already.
    unsafe { libc::read(event.as_raw_fd(), (&raw mut count).cast(), 8) };
}

/// What [`wait_readable`] found about one descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// There is something to read.
    pub readable: bool,
    /// It is in error, or its other end is gone.
    pub failed: bool,
}

/// Waits until one of `fds` is readable or failed, or `timeout` has passed (`None`: for ever). A
/// signal ends the wait early.
///
/// # Errors
/// `ENOMEM`.
pub fn wait_readable<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    timeout: Option<Duration>,
) -> io::Result<[Readiness; N]> {
    let mut polled = fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    let timeout = timeout.map(|t| libc::timespec {
        tv_sec: t.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: t.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the kernel reads and writes `N` entries, all of `polled`, and reads one timespec or
    // none; both outlive the call. The descriptors are borrowed, so they stay open.
    let rc = unsafe { libc::ppoll(polled.as_mut_ptr(), N as libc::nfds_t, timeout, std::ptr::null()) };
    if let Err(error) = checked(rc)
        && error.kind() != io::ErrorKind::Interrupted
    {
        return Err(error);
    }
    Ok(polled.map(|p| Readiness {
        readable: p.revents & libc::POLLIN != 0,
        failed: p.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0,
    }))
}

/// Registers `event` with the tokio runtime of the calling context, to be awaited until it is readable.
///
/// # Errors
/// `EPERM` for a descriptor that cannot be polled; `ENOSPC`.
pub fn watch(event: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, and the same descriptor, as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(event, Interest::READABLE) }?)
}

/// Moves the calling thread, and no other, into a new network namespace.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn enter_new_network_namespace() -> io::Result<()> {
    // SAFETY: no memory is passed; CLONE_NEWNET changes nothing that Rust relies on.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

fn checked(rc: libc::c_int) -> io::Result<libc::c_int> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}
