//! Many descriptors behind one: epoll.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::checked;

/// Descriptors that are waited for together. It is readable itself while one of them is.
#[derive(Debug)]
pub struct Poll(OwnedFd);

impl Poll {
    /// Waits for nothing yet.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let fd = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the call succeeded, so `fd` is open and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Waits for `fd` to be readable from now on, too; `token` tells which it is.
    ///
    /// # Errors
    /// `EEXIST`, `ENOSPC`, `ENOMEM`; `EPERM` for what cannot be waited for.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        let (this, fd) = (self.0.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: the kernel reads one event, all of `event`, which outlives the call.
        checked(unsafe { libc::epoll_ctl(this, libc::EPOLL_CTL_ADD, fd, &raw mut event) }).map(drop)
    }

    /// Waits for `fd` no more. That it did not is no error.
    pub fn remove(&self, fd: BorrowedFd<'_>) {
        // SAFETY: no memory is passed.
        unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_DEL, fd.as_raw_fd(), ptr::null_mut()) };
    }

    /// The tokens of at most `N` that are readable, or have failed, now. Those that stay so take turns from
    /// call to call.
    ///
    /// # Errors
    /// `EINTR`.
    pub fn ready<const N: usize>(&self) -> io::Result<impl Iterator<Item = u64> + use<N>> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; N];
        let most = libc::c_int::try_from(N).unwrap_or(libc::c_int::MAX);
        // SAFETY: the kernel writes at most `most` events, no more than `events` has room for.
        let count = checked(unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), most, 0) })?;
        Ok(events.into_iter().take(count as usize).map(|event| event.u64))
    }
}

impl AsFd for Poll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
