//! One guest's port, looked at through a packet socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Socket, Type};

use super::bpf::Instruction;
use super::filter;
use crate::io::sys::{self, Taken};

/// The socket: all that is attached to the port. It goes with its last copy, so with the process at the latest;
/// closing it waits for every processor, which is not for the packet thread to do.
#[derive(Debug)]
pub struct Observer {
    socket: Socket,
    closely: bool,
    both_ways: bool,
}

impl Observer {
    /// Looks at the port with this index in the calling thread's network namespace, steadily and at what the
    /// guest sends only.
    ///
    /// # Errors
    /// `ENODEV`; `EPERM` without `CAP_NET_RAW` and `CAP_NET_ADMIN`.
    pub fn open(ifindex: u32) -> io::Result<Self> {
        // Of protocol 0: no frame comes before filter and port are set.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        sys::set_option(socket.as_fd(), libc::PACKET_AUXDATA, 1)?;
        sys::force_receive_buffer(socket.as_fd(), QUEUE_BYTES)?;
        attach_filter(&socket, false)?;
        ignore_sent(&socket, true)?;
        sys::bind_packet(socket.as_fd(), ifindex)?;
        Ok(Self { socket, closely: false, both_ways: false })
    }

    /// Whether all TCP is taken.
    pub(super) const fn is_closely(&self) -> bool {
        self.closely
    }

    /// Whether what is sent to the guest is looked at.
    pub(super) const fn is_both_ways(&self) -> bool {
        self.both_ways
    }

    /// Takes all TCP from now on, or a sample.
    pub(super) fn set_closely(&mut self, closely: bool) -> io::Result<()> {
        if self.closely != closely {
            attach_filter(&self.socket, closely)?;
            self.closely = closely;
        }
        Ok(())
    }

    /// Looks at what is sent to the guest as well from now on, or no more.
    pub(super) fn set_both_ways(&mut self, both: bool) -> io::Result<()> {
        if self.both_ways != both {
            ignore_sent(&self.socket, !both)?;
            self.both_ways = both;
        }
        Ok(())
    }

    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Taken>> {
        sys::receive(self.socket.as_fd(), buffer)
    }

    /// Frames that found no room since the last call.
    pub(super) fn dropped(&self) -> u64 {
        sys::packet_drops(self.socket.as_fd()).map_or(0, u64::from)
    }
}

impl AsFd for Observer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn attach_filter(socket: &Socket, closely: bool) -> io::Result<()> {
    let program = filter::program(closely).ok_or(io::ErrorKind::InvalidInput)?;
    let program: Vec<_> = program.into_iter().map(Instruction::for_socket).collect();
    socket.attach_filter(&program)
}

/// Ignored is what the port sends, and so the guest gets.
fn ignore_sent(socket: &Socket, ignore: bool) -> io::Result<()> {
    sys::set_option(socket.as_fd(), libc::PACKET_IGNORE_OUTGOING, ignore.into())
}

/// What frames may occupy until they are received. Each counts as long as it was before it was cut, and
/// offloading guests send up to 64 KiB at once. The kernel doubles it.
const QUEUE_BYTES: libc::c_int = 1 << 20;
