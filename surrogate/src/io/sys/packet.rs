//! Packet sockets, taps and their options.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

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
    // SAFETY: the kernel reads `size_of::<T>()` bytes, all of `value`, which outlives the call;
    // `socket` is borrowed, so its descriptor stays open.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
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
