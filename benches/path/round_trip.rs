//! One echo request at a time: from the send call to the reply in the client's hands.

use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use surrogate::io::netlink::Exchange;
use surrogate::io::{clock, sys};
use surrogate_house::{Namespace, pin_to, until};

use crate::contenders::Guest;
use crate::flood::SENDER_CORE;

/// Microseconds.
pub struct Trips {
    /// Median.
    pub p50: f64,
    /// One in a hundred took longer.
    pub p99: f64,
    /// Requests that had no reply in time.
    pub lost: usize,
}

/// Waits until `guest` answers: ports need a moment until they forward.
pub fn await_first(client: &Namespace, guest: &Guest) {
    client.enter(|| {
        let socket = socket(Duration::from_millis(20));
        until("a first reply", Duration::from_secs(5), || {
            socket.send(&guest.echo_request()).unwrap();
            await_reply(&socket, guest).is_ok()
        });
    });
}

/// Asks `guest` `count` times.
pub fn measure(client: &Namespace, guest: &Guest, count: usize) -> Trips {
    let (mut nanoseconds, lost) = client.enter(|| {
        pin_to(SENDER_CORE).unwrap();
        let socket = socket(Duration::from_millis(100));
        let request = guest.echo_request();
        drain(&socket);
        let (mut nanoseconds, mut lost) = (Vec::with_capacity(count), 0);
        for _ in 0..count {
            let before = clock::now();
            socket.send(&request).unwrap();
            match await_reply(&socket, guest) {
                Ok(()) => nanoseconds.push(clock::now().since(before).as_nanos() as f64),
                Err(_) => lost += 1,
            }
        }
        (nanoseconds, lost)
    });
    nanoseconds.sort_by(f64::total_cmp);
    let at = |percent: usize| nanoseconds[nanoseconds.len() * percent / 100] / 1e3;
    Trips { p50: at(50), p99: at(99), lost }
}

/// A packet socket on the client's `eth0`.
fn socket(patience: Duration) -> Socket {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
    let ifindex = Exchange::open().unwrap().link("eth0").unwrap().unwrap().ifindex;
    sys::set_option(socket.as_fd(), libc::PACKET_IGNORE_OUTGOING, 1).unwrap();
    sys::bind_packet(socket.as_fd(), ifindex).unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    socket
}

/// Takes what an earlier flood left in the queue.
fn drain(mut socket: &Socket) {
    socket.set_nonblocking(true).unwrap();
    while socket.read(&mut [0; 64]).is_ok() {}
    socket.set_nonblocking(false).unwrap();
}

fn await_reply(mut socket: &Socket, guest: &Guest) -> io::Result<()> {
    let mut frame = [0; 64];
    loop {
        let length = socket.read(&mut frame)?;
        if frame.get(6..12.min(length)) == Some(&guest.mac.0) {
            return Ok(());
        }
    }
}
