//! The sender: as many echo requests as one core can make, without the cost of a socket.
//!
//! `BPF_PROG_RUN` with live frames runs a two-line XDP program that redirects copies of one frame into
//! the client's `eth0`: the kernel makes, sends and recycles them in batches, three to five times faster
//! than `sendmmsg`. Bounded in time, and each call in count.

#![expect(unsafe_code, reason = "the bpf system call")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use surrogate::io::netlink::Exchange;
use surrogate_house::deadline::{pause, timed};
use surrogate_house::{Namespace, pin_to};

use crate::contenders::Contender;

/// What a flood came to.
pub struct Flood {
    /// Replies a second that came back to the client.
    pub rate: f64,
    /// Microseconds that the answering thread was on a processor, per reply.
    pub cpu: Option<f64>,
}

/// Floods the contender's guest for `duration`.
pub fn measure(client: &Namespace, contender: &Contender, duration: Duration) -> Flood {
    let (frame, thread) = (contender.guest().echo_request(), contender.thread());
    let stop = AtomicBool::new(false);
    client.enter(|| {
        let mut exchange = Exchange::open().unwrap();
        let ifindex = exchange.link("eth0").unwrap().unwrap().ifindex;
        let program = redirect_to(ifindex).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pin_to(SENDER_CORE).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    run(&program, &frame, FRAMES_PER_CALL).unwrap();
                }
            });
            pause(SETTLE);
            let mut received = || exchange.link("eth0").unwrap().unwrap().rx_packets;
            let cpu = || thread.map(busy_nanoseconds);
            let (before, cpu_before) = (received(), cpu());
            let ((after, cpu_after), elapsed) = timed(|| {
                pause(duration);
                (received(), cpu())
            });
            stop.store(true, Ordering::Relaxed);
            let replies = (after - before) as f64;
            let cpu =
                cpu_after.zip(cpu_before).map(|(after, before)| (after - before) as f64 / 1e3 / replies);
            Flood { rate: replies / elapsed.as_secs_f64(), cpu }
        })
    })
}

/// How long the thread of this name in this process was on a processor so far.
fn busy_nanoseconds(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let task = tasks.map(|task| task.path()).find(|task| read(task.join("comm")).trim() == name);
    let figures = read(task.unwrap_or_else(|| panic!("no thread {name}")).join("schedstat"));
    figures.split_whitespace().next().unwrap().parse().unwrap()
}

/// Until the queues are as full as they get.
const SETTLE: Duration = Duration::from_millis(100);
const FRAMES_PER_CALL: u32 = 20_000;
/// The core that sends.
pub const SENDER_CORE: usize = 0;
/// The core that answers.
pub const ANSWER_CORE: usize = 1;

/// `r1 = ifindex; r2 = 0; call bpf_redirect; exit`
fn redirect_to(ifindex: u32) -> io::Result<OwnedFd> {
    const HELPER_REDIRECT: u32 = 23;
    let instruction = |code: u8, register: u8, value: u32| {
        u64::from(code) | u64::from(register) << 8 | u64::from(value) << 32
    };
    let instructions = [
        instruction(0xb7, 1, ifindex),
        instruction(0xb7, 2, 0),
        instruction(0x85, 0, HELPER_REDIRECT),
        instruction(0x95, 0, 0),
    ];
    let attributes = LoadAttributes {
        prog_type: 6, // XDP
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..LoadAttributes::default()
    };
    let fd = bpf(5, &attributes)?; // BPF_PROG_LOAD
    // SAFETY: the call succeeded, so `fd` is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends `count` copies of `frame`.
fn run(program: &OwnedFd, frame: &[u8], count: u32) -> io::Result<()> {
    let attributes = RunAttributes {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat: count,
        flags: 2, // BPF_F_TEST_XDP_LIVE_FRAMES
        batch_size: 64,
        ..RunAttributes::default()
    };
    match bpf(10, &attributes) {
        // BPF_PROG_TEST_RUN; a signal may end it early
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

fn bpf<A>(command: libc::c_int, attributes: &A) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads the attributes, and through them what the callers keep alive.
    let rc = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<A>()) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc as libc::c_int) }
}

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// `union bpf_attr` for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct RunAttributes {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    reserved: u32,
}
