//! The few system calls that std has no words for: joining a namespace, packet sockets, signals.

#![expect(unsafe_code, reason = "thin safe functions over system calls, each block with its proof")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// Moves the calling thread into the network namespace `namespace`.
pub(crate) fn join(namespace: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `namespace` is borrowed.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Makes `command` run in `namespace` and die with the thread that starts it.
pub(crate) fn run_inside(command: &mut Command, namespace: File) {
    let enter = move || {
        join(&namespace)?;
        // SAFETY: no pointers; the signal number is valid.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }).map(drop)
    };
    // SAFETY: between fork and exec only system calls are made: nothing allocates or locks.
    unsafe { command.pre_exec(enter) };
}

/// Keeps the calling thread on the processor that it runs on: the kernel handles what it sends to a veth on that
/// same processor, in order.
pub(crate) fn stay_on_this_processor() -> io::Result<()> {
    // SAFETY: no pointers.
    let here = check(unsafe { libc::sched_getcpu() })?;
    pin_to(usize::try_from(here).unwrap_or_default())
}

/// Keeps the calling thread, and those that it starts, on one processor.
///
/// # Errors
/// There is no such processor.
pub fn pin_to(processor: usize) -> io::Result<()> {
    // SAFETY: all zeroes is an empty set; `CPU_SET` writes inside it or not at all.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        set
    };
    // SAFETY: the kernel reads `set`, whose size is given; 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) }).map(drop)
}

/// Sends `signal` to the process `pid`; false if there is none.
pub(crate) fn signal(pid: u32, signal: i32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    // SAFETY: no pointers. A positive pid means that one process.
    pid > 0 && unsafe { libc::kill(pid, signal) } == 0
}

/// A packet socket that sees every frame of `interface`, both ways, of the calling thread's namespace.
pub(crate) fn packet_socket(interface: &str) -> io::Result<OwnedFd> {
    // Protocol 0: the socket hears nothing before it is bound to its interface.
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: `fd` was just opened and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let fd = socket.as_raw_fd();
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20)?;
    set_option(fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: `name` is a C string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as i32;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `address`, which is that long and outlives the call.
    check(unsafe { libc::bind(fd, (&raw const address).cast(), length) })?;
    Ok(socket)
}

/// Lets the kernel ask the peer of a TCP connection whether it is there, after each so many `seconds` of silence,
/// and end the connection after `times` questions in vain.
pub(crate) fn keep_alive(fd: RawFd, seconds: i32, times: i32) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, seconds)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, times)
}

/// One frame from a packet socket.
pub(crate) struct Packet {
    /// Bytes written to the buffer.
    pub length: usize,
    /// The VLAN tag that the kernel keeps beside the frame (TCI), if any.
    pub vlan: Option<u16>,
    /// When the kernel saw it.
    pub at: Duration,
    /// Whether this interface sent it, rather than received it.
    pub outgoing: bool,
}

/// The next frame, `None` if none comes within `wait`.
pub(crate) fn receive(socket: &OwnedFd, buffer: &mut [u8], wait: Duration) -> io::Result<Option<Packet>> {
    let mut ready = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let milliseconds = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one pollfd, as the count says.
    if check(unsafe { libc::poll(&raw mut ready, 1, milliseconds) })? == 0 {
        return Ok(None);
    }
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = [0u64; 32];
    // SAFETY: all zeroes is valid for both.
    let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer in `message` is to a local of the size given beside it.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    if length < 0 {
        let error = io::Error::last_os_error();
        // A port that goes down says so once; frames may come again.
        let later = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENETDOWN | libc::EINTR));
        return if later { Ok(None) } else { Err(error) };
    }
    let mut packet = Packet {
        length: length as usize,
        vlan: None,
        at: Duration::ZERO,
        outgoing: from.sll_pkttype == libc::PACKET_OUTGOING,
    };
    // SAFETY: the CMSG macros walk `control`, whose filled length the kernel put in `message`; each
    // payload is read unaligned and only for the type its level and kind name.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                    let data = libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned();
                    if data.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                        packet.vlan = Some(data.tp_vlan_tci);
                    }
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let time = libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned();
                    packet.at = Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok(Some(packet))
}

/// Sends one whole frame through a packet socket.
pub(crate) fn send(socket: &OwnedFd, frame: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads `frame.len()` bytes of `frame`.
    let sent = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Frames that did not fit the socket's buffer since it was last asked.
pub(crate) fn missed(socket: &OwnedFd) -> io::Result<u32> {
    // SAFETY: all zeroes is valid.
    let mut statistics: libc::tpacket_stats = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `statistics`, which is that long.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    })?;
    Ok(statistics.tp_drops)
}

fn set_option(fd: RawFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes, all of `value`, which outlives the call.
    check(unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), length) }).map(drop)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
