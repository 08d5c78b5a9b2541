//! Frames straight into a guest's own port: what was held, and the barrier's question.
//!
//! One packet socket per packet thread, of protocol 0 so that it receives nothing. It names the port with
//! each frame, so that a port may come and go and there is nothing to open or close (closing a packet
//! socket waits for every processor: milliseconds that frames would pay for).
//!
//! With `PACKET_QDISC_BYPASS` a frame goes to the port's driver itself and the driver's word comes back.
//! 4,000 frames for a tap that nobody reads (kernel 6.18, queue of 1,000):
//!
//! | qdisc of the tap | bypass | accepted | `ENOBUFS` | lost in silence |
//! |---|---|---|---|---|
//! | pfifo_fast, pfifo | no | 4,000 | 0 | **3,000** |
//! | pfifo_fast, pfifo | yes | 1,000 | 3,000 | 0 |
//! | noqueue (libvirt's) | either | 1,000 | 3,000 | 0 |
//!
//! A tap whose file nobody has open and a veth whose other end is down say `ENOBUFS` too, as long as they
//! are bypassed; through a qdisc they swallow frames. Tests: `tests/port.rs`.

use std::io;
use std::os::fd::AsFd;

use socket2::{Domain, Socket, Type};
use surrogate_wire::emit::MIN_FRAME;
use surrogate_wire::vlan::{TPID_8021AD, TPID_8021Q};

use super::sys;
use crate::engine::Refusal;
use crate::guest::identity::NicId;

/// The socket, and which NIC's port is where.
#[derive(Debug)]
pub struct Deliveries {
    socket: Socket,
    /// A few sleepers' ports at most: searched, not hashed.
    ports: Vec<Port>,
    /// Where a frame is put together whose tag is taken off.
    untagged: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Port {
    nic: NicId,
    ifindex: u32,
    /// The VLAN that has no tag there.
    untag: Option<u16>,
}

impl Deliveries {
    /// Opens the socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        sys::set_option(socket.as_fd(), libc::PACKET_QDISC_BYPASS, 1)?;
        Ok(Self { socket, ports: Vec::new(), untagged: Vec::new() })
    }

    /// Frames for `nic` go to the port with this index from now on; those of VLAN `untag` without their tag, as
    /// the bridge itself would send them there.
    pub fn attach(&mut self, nic: NicId, ifindex: u32, untag: Option<u16>) {
        self.detach(nic);
        self.ports.push(Port { nic, ifindex, untag });
    }

    /// `nic` has no port any more.
    pub fn detach(&mut self, nic: NicId) {
        self.ports.retain(|port| port.nic != nic);
    }

    /// Gives `frame` to the port of `nic`.
    ///
    /// # Errors
    /// Why the port did not take it. It certainly did not.
    pub fn deliver(&mut self, nic: NicId, frame: &[u8]) -> Result<(), Refusal> {
        let port = self.ports.iter().find(|port| port.nic == nic).ok_or(Refusal::Gone)?;
        let frame = match port.untag.and_then(|vlan| around_tag(frame, vlan)) {
            Some((addresses, rest)) => {
                self.untagged.clear();
                self.untagged.extend_from_slice(addresses);
                self.untagged.extend_from_slice(rest);
                // What was 60 bytes with its tag is too short without.
                self.untagged.resize(self.untagged.len().max(MIN_FRAME), 0);
                &self.untagged
            }
            None => frame,
        };
        sys::send_to(self.socket.as_fd(), frame, port.ifindex).map_err(|error| meaning(&error))
    }
}

/// What is before and behind the outermost tag of `frame`, if that is of `vlan`.
fn around_tag(frame: &[u8], vlan: u16) -> Option<(&[u8], &[u8])> {
    let (addresses, rest) = frame.split_at_checked(12)?;
    let (tag, rest) = rest.split_first_chunk::<4>()?;
    let [t0, t1, c0, c1] = *tag;
    let is_tag = matches!(u16::from_be_bytes([t0, t1]), TPID_8021Q | TPID_8021AD);
    (is_tag && u16::from_be_bytes([c0, c1]) & 0x0fff == vlan).then_some((addresses, rest))
}

/// What an error of the send means for the frame.
fn meaning(error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(libc::ENXIO | libc::ENODEV | libc::ENETDOWN) => Refusal::Gone,
        // EINVAL: shorter than an Ethernet header, which no later try makes longer.
        Some(libc::EMSGSIZE | libc::EINVAL) => Refusal::TooLong,
        // ENOBUFS: the port's queue; EAGAIN: the socket's own; ENOMEM and whatever else may pass.
        _ => Refusal::Full,
    }
}
