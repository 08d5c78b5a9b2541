//! Packet sockets, taps and their options.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use surrogate_wire::vlan::TPID_8021Q;
use surrogate_wire::{Offload, VlanTag};

use super::checked;

/// The most frames [`send_batch`] takes at once.
pub const BATCH: usize = 64;

/// Sets an integer option of a packet socket, as `PACKET_QDISC_BYPASS`.
///
/// # Errors
/// The kernel's.
pub fn set_option(socket: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    set(socket, option, &value)
}

/// Asks for a ring of received frames; it is then mapped by its file offset 0.
///
/// # Errors
/// `ENOMEM`; `EINVAL` for sizes that do not fit each other.
pub fn request_rx_ring(socket: BorrowedFd<'_>, ring: libc::tpacket_req) -> io::Result<()> {
    set(socket, libc::PACKET_RX_RING, &ring)
}

/// Binds a packet socket to an interface, for frames of every protocol.
///
/// # Errors
/// `ENODEV`; `ENETDOWN` is no error here but shows when it is read.
pub fn bind_packet(socket: BorrowedFd<'_>, ifindex: u32) -> io::Result<()> {
    let address = link_address(ifindex, (libc::ETH_P_ALL as u16).to_be())?;
    // SAFETY: the kernel reads `LINK_ADDRESS_BYTES`, all of `address`, which outlives the call.
    let rc = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), LINK_ADDRESS_BYTES) };
    checked(rc).map(drop)
}

/// Frames that the kernel dropped for want of room since the last call.
///
/// # Errors
/// The kernel's.
pub fn packet_drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    get(socket, libc::PACKET_STATISTICS, &mut stats)?;
    Ok(stats.tp_drops)
}

/// A frame that [`receive`] took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of it in the buffer.
    pub bytes: usize,
    /// Bytes it had before the socket's filter cut it.
    pub length: usize,
    /// The interface sent it, rather than received it.
    pub outgoing: bool,
    /// The outermost tag, where the kernel took it out of the bytes.
    pub vlan: Option<VlanTag>,
    /// State of the transport checksum.
    pub offload: Offload,
}

/// The next frame of a packet socket with `PACKET_AUXDATA`, if there is one; never blocks.
///
/// # Errors
/// `ENETDOWN`, once each time the interface went down; `EINTR`.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Taken>> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut from = link_address(0, 0)?;
    let mut beside = [0u64; 16]; // words, so that it is aligned
    let mut message = libc::msghdr {
        msg_name: (&raw mut from).cast(),
        msg_namelen: LINK_ADDRESS_BYTES,
        msg_iov: &raw mut part,
        msg_iovlen: 1,
        msg_control: beside.as_mut_ptr().cast(),
        msg_controllen: size_of_val(&beside),
        ..EMPTY_MESSAGE.msg_hdr
    };
    // SAFETY: every pointer in `message` is to a local or to `buffer`, of the size given beside it; the kernel
    // writes no more than that, and integers only.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let Ok(bytes) = usize::try_from(received) else {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
    };
    let outgoing = from.sll_pkttype == libc::PACKET_OUTGOING;
    let mut taken = Taken { bytes, length: bytes, outgoing, vlan: None, offload: Offload::None };
    // SAFETY: the macros walk `beside`, whose filled length the kernel put into `message`; the data is read
    // unaligned, and only for the option whose structure it is: integers.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if ((*header).cmsg_level, (*header).cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
                let data = libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned();
                taken.length = data.tp_len as usize;
                (taken.vlan, taken.offload) =
                    beside_frame(data.tp_status, data.tp_vlan_tci, data.tp_vlan_tpid);
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok(Some(taken))
}

/// What a packet socket says beside a frame, with its status word.
#[must_use]
pub const fn beside_frame(status: u32, tci: u16, tpid: u16) -> (Option<VlanTag>, Offload) {
    let told = status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    let tag = VlanTag { tpid: if told { tpid } else { TPID_8021Q }, tci };
    let vlan = if status & libc::TP_STATUS_VLAN_VALID != 0 { Some(tag) } else { None };
    let offload = if status & libc::TP_STATUS_CSUMNOTREADY != 0 {
        Offload::Partial
    } else if status & libc::TP_STATUS_CSUM_VALID != 0 {
        Offload::Verified
    } else {
        Offload::None
    };
    (vlan, offload)
}

/// Lets `socket` keep so many bytes until they are received, whatever the system's limit.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`.
pub fn force_receive_buffer(socket: BorrowedFd<'_>, bytes: libc::c_int) -> io::Result<()> {
    set_at(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &bytes)
}

/// Sends the first [`BATCH`] of `frames`, in order, with one system call; never blocks.
///
/// Returns how many the interface took: all, or those before the first that it refused.
///
/// # Errors
/// The first was refused: the kernel's reason for it.
pub fn send_batch<'a>(socket: BorrowedFd<'_>, frames: impl Iterator<Item = &'a [u8]>) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); BATCH];
    let mut messages = [EMPTY_MESSAGE; BATCH];
    let mut count = 0;
    for ((frame, slice), message) in frames.zip(&mut slices).zip(&mut messages) {
        *slice = IoSlice::new(frame);
        message.msg_hdr.msg_iov = ptr::from_mut(slice).cast();
        message.msg_hdr.msg_iovlen = 1;
        count += 1;
    }
    // SAFETY: the first `count` messages point each at one `IoSlice`, which has the layout of an
    // iovec and borrows its frame; all outlive the call. The kernel reads the frames and writes
    // only `msg_len`.
    let rc = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
    checked(rc).map(|sent| sent as usize)
}

/// Sends `frame` out of the interface `ifindex`; never blocks.
///
/// # Errors
/// `ENOBUFS` if its queue is full, `ENXIO` if there is none such, `ENETDOWN`, `EMSGSIZE`.
pub fn send_to(socket: BorrowedFd<'_>, frame: &[u8], ifindex: u32) -> io::Result<()> {
    let address = link_address(ifindex, 0)?;
    // SAFETY: the kernel reads `frame` and `LINK_ADDRESS_BYTES`, all of `address`; both outlive the
    // call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            (&raw const address).cast(),
            LINK_ADDRESS_BYTES,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens a tap of this name that vanishes when its file is closed. Reads and writes do not block.
///
/// # Errors
/// `EPERM`, `ENOENT` without the tun driver, `EBUSY` or `EINVAL` if the name is taken.
pub fn tap_open(name: &str) -> io::Result<OwnedFd> {
    let path = c"/dev/net/tun";
    // SAFETY: `path` is a C string.
    let fd =
        checked(unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC) })?;
    // SAFETY: the call succeeded, so `fd` is open and nobody else's.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut request = interface_request(name)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_TUN_EXCL) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, all of `request`, which outlives the call.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(file)
}

/// Switches one offload of the interface `name` (`command` is an `ETHTOOL_S...` of `ethtool_value`).
/// `socket` is any socket in the interface's namespace.
///
/// # Errors
/// `ENODEV`, `EOPNOTSUPP`, `EPERM`.
pub fn ethtool_set(socket: BorrowedFd<'_>, name: &str, command: u32, on: bool) -> io::Result<()> {
    let mut value = [command, u32::from(on)]; // struct ethtool_value
    let mut request = interface_request(name)?;
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    // SAFETY: SIOCETHTOOL reads one `ifreq` and through it the command's structure, which for these
    // commands is two words, all of `value`; both outlive the call.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) }).map(drop)
}

fn set<T>(socket: BorrowedFd<'_>, option: libc::c_int, value: &T) -> io::Result<()> {
    set_at(socket, libc::SOL_PACKET, option, value)
}

fn set_at<T>(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes, all of `value`, which outlives the call;
    // `socket` is borrowed, so its descriptor stays open.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    checked(rc).map(drop)
}

/// `T` is plain old data of the option's own layout.
fn get<T>(socket: BorrowedFd<'_>, option: libc::c_int, value: &mut T) -> io::Result<()> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, all of `value`; the callers pass integers and
    // a structure of integers, for which any bytes are valid.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            ptr::from_mut(value).cast(),
            &raw mut length,
        )
    };
    checked(rc).map(drop)
}

fn link_address(ifindex: u32, protocol: u16) -> io::Result<libc::sockaddr_ll> {
    let ifindex = i32::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    Ok(libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol,
        sll_ifindex: ifindex,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    })
}

fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    let mut padded = [0; libc::IFNAMSIZ];
    let bytes = name.as_bytes();
    if bytes.len() >= libc::IFNAMSIZ || bytes.contains(&0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in padded.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_data: ptr::null_mut() };
    Ok(libc::ifreq { ifr_name: padded, ifr_ifru })
}

const LINK_ADDRESS_BYTES: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

const EMPTY_MESSAGE: libc::mmsghdr = libc::mmsghdr {
    msg_hdr: libc::msghdr {
        msg_name: ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    },
    msg_len: 0,
};
