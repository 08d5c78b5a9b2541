//! The surrogate port: how frames for sleepers leave the bridge towards us, and ours go back.
//!
//! Two kinds behind one trait, both gone when the process is: [`veth`] with mapped rings and batched
//! sends, and [`tap`], read and written through its file. What they have in common on the bridge is in
//! [`bridge`]. A port hands over whole frames with what the kernel keeps beside them, and never decides
//! anything about one.

pub mod bridge;
mod queue;
mod ring;
mod tap;
mod veth;
mod watch;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use surrogate_wire::Received;

pub use tap::TapPort;
pub use veth::VethPort;

/// Where a packet thread gets frames from and puts its own.
pub trait FramePort {
    /// Waits until a frame can be received, one of `others` is readable, or `timeout` has passed (`None`: for
    /// ever). May return early. Which of `others` were seen to be readable; `None` where nothing had to be
    /// waited for, so that nobody looked.
    ///
    /// # Errors
    /// The port is gone or down.
    fn wait(
        &mut self,
        others: [BorrowedFd<'_>; 2],
        timeout: Option<Duration>,
    ) -> io::Result<Option<[bool; 2]>>;

    /// The next frame, `None` if there is none now. Its bytes are valid until the next call.
    ///
    /// # Errors
    /// The port is gone or down.
    fn receive(&mut self) -> io::Result<Option<Received<'_>>>;

    /// Takes a whole frame of ours, any VLAN tag in line. It is sent at the latest by the next
    /// [`flush`](Self::flush), in order.
    fn transmit(&mut self, frame: &[u8]);

    /// Sends what is still queued, and tells what became of all frames since the last call.
    fn flush(&mut self) -> Transmitted;

    /// Frames for us that the kernel discarded since the port was opened, because they were not
    /// received in time or did not fit.
    fn dropped(&mut self) -> u64;
}

/// What became of frames of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Transmitted {
    /// Taken by the port.
    pub sent: u32,
    /// Refused by the port; they are lost.
    pub failed: u32,
}

/// Bytes of the longest frame on a link with this MTU: Ethernet header and one tag more.
const fn longest_frame(mtu: usize) -> usize {
    mtu + 14 + 4
}
