//! A surrogate port that is a tap, read and written through its file.
//!
//! No ring: on a tap every frame for us is an outgoing one, and what a packet socket sends there comes
//! back to us and not to the bridge. Without a virtio header the kernel finishes checksums and
//! segmentation before it hands a frame over, and puts a VLAN tag back in line. One queue, since one
//! thread reads it. The tap vanishes when its file is closed, by us or by the end of the process.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use surrogate_wire::{Mac, Received};

use super::bridge::{Bridge, failed, refused};
use super::{FramePort, Transmitted, longest_frame};
use crate::io::driver::OpenError;
use crate::io::netlink::Exchange;
use crate::io::sys;

/// The tap, ready to receive and send.
pub struct TapPort {
    file: File,
    buffer: Box<[u8]>,
    transmitted: Transmitted,
    /// Frames that were longer than the buffer.
    cut: u64,
    ifindex: u32,
    /// In the bridge's namespace, to read the link's counters.
    exchange: Exchange,
}

impl TapPort {
    /// Makes the tap `name` with address `mac` a port of `bridge`. `exchange` and the calling thread
    /// are in the bridge's namespace.
    ///
    /// # Errors
    /// The kernel's. Nothing is left behind.
    pub fn open(exchange: &mut Exchange, bridge: &Bridge, name: &str, mac: Mac) -> Result<Self, OpenError> {
        let own = Exchange::open().map_err(failed("open a netlink socket"))?;
        let file = File::from(sys::tap_open(name).map_err(failed("make the port"))?);
        let link = exchange.link(name).map_err(refused("find the new port"))?;
        let link =
            link.ok_or(io::Error::from_raw_os_error(libc::ENODEV)).map_err(failed("find the new port"))?;
        bridge.add_port(exchange, link.ifindex, mac)?;
        // One byte more than the longest frame, so that a cut one shows.
        let buffer = vec![0; longest_frame(bridge.mtu as usize) + 1].into_boxed_slice();
        let transmitted = Transmitted::default();
        Ok(Self { file, buffer, transmitted, cut: 0, ifindex: link.ifindex, exchange: own })
    }

    /// Index of the tap, in the bridge's namespace.
    #[must_use]
    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

impl FramePort for TapPort {
    fn wait(
        &mut self,
        [one, two]: [BorrowedFd<'_>; 2],
        timeout: Option<Duration>,
    ) -> io::Result<Option<[bool; 2]>> {
        let [port, one, two] = sys::wait_readable([self.file.as_fd(), one, two], timeout)?;
        if port.failed && !port.readable {
            return Err(io::Error::from_raw_os_error(libc::EBADFD));
        }
        Ok(Some([one.readable, two.readable]))
    }

    fn receive(&mut self) -> io::Result<Option<Received<'_>>> {
        match self.file.read(&mut self.buffer) {
            Ok(length) if length == self.buffer.len() => {
                self.cut += 1; // a part of a frame is of no use to anyone
                Ok(None)
            }
            Ok(length) => Ok(self.buffer.get(..length).map(Received::plain)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn transmit(&mut self, frame: &[u8]) {
        // A tap takes longer frames than its link, and the bridge would drop them unseen.
        if frame.len() < self.buffer.len() && self.file.write(frame).is_ok() {
            self.transmitted.sent += 1;
        } else {
            self.transmitted.failed += 1;
        }
    }

    fn flush(&mut self) -> Transmitted {
        std::mem::take(&mut self.transmitted)
    }

    fn dropped(&mut self) -> u64 {
        let link = self.exchange.link_by_index(self.ifindex).ok().flatten();
        self.cut + link.map_or(0, |link| link.tx_dropped)
    }
}
