//! Nothing on the way of a frame allocates: counted by the allocator itself, per thread.

use core::cell::Cell;
use std::alloc::{GlobalAlloc, Layout, System};

use surrogate::engine::{Done, Engine, Mode, Output};
use surrogate::guest::identity::Epoch;
use surrogate::rng::Rng;
use surrogate::time::{Duration, Instant};
use surrogate_wire::{Received, TcpFlags, dhcpv4};

use crate::frames::*;
use crate::named;
use crate::scenario::REPLAY;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait; this one only counts")]
// SAFETY: every method hands its arguments to `System` unchanged and returns what that returns.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above. Passed on, so that untouched memory stays uncommitted.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above; `at` came from `System`.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above; `at` came from `System`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    // A thread that is ending has no counter any more, and no test.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
}

/// Allocations of this thread while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn a_vector_is_seen() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1_u8]))), 1);
}

#[test]
fn no_frame_allocates_whatever_becomes_of_it() {
    let mut engine = Engine::new(limits(), SERVICE, 1);
    let mut rng = Rng::seeded(1);
    let now = Instant::ZERO;
    for (host, identity) in [(GUEST, named::identity()), (NEIGHBOUR, NEIGHBOUR.identity())] {
        engine.handle_command(now, &mut rng, surrogate::engine::Command::Register(Box::new(identity)));
        set_mode(&mut engine, &mut rng, host, 1, Mode::Answer);
    }
    drain(&mut engine, now);
    let mut frames = vec![
        arp_request(CLIENT, GUEST.v4()),
        arp_request(CLIENT, THIEF.v4()),
        arp_request(NEIGHBOUR, CLIENT.v4()),
        echo(GUEST.v4().into(), &[7; 1400]),
        echo(GUEST.v6().into(), &[7; 64]),
        solicit(GUEST.v6()),
        datagram((1, 9999), b"closed"),
        syn(8080, 1),
        ip(between(THIEF.mac(), CLIENT.mac()), CLIENT.v4().into(), THIEF.v4().into(), 6, &[0; 40]),
        udp(TO_ALL, CLIENT.v4().into(), SUBNET.into(), (1, 514), b"flooded"),
        igmp_query(None, true),
        igmp_query(Some(JOINED), false),
        mld_query(None),
        vec![0xff; 9],
    ];
    for id in 0..40 {
        let long = cut(echo(GUEST.v4().into(), &[7; 3000]), 1500, id);
        // Some are answered, some stay incomplete, and some give way.
        frames.extend(long.into_iter().skip(usize::from(id % 2)));
    }
    frames.extend(named::rows().into_iter().map(|(_, frame)| frame));
    // More than fits: limits, evictions and repetitions are on the way as well.
    for n in 0..3000 {
        frames.push(syn(80, n % 2500));
        frames.push(segment((n as u16, 22), (n, 1), TcpFlags::ACK, &[1; 1200]));
        frames.push(datagram((n as u16, 514), &[2; 200]));
    }
    let during = allocations(|| {
        for (n, frame) in frames.iter().enumerate() {
            let now = Instant::ZERO + Duration::from_millis(n as u64);
            engine.handle_timeout(now, &mut rng);
            let _ = engine.handle_frame(now, &mut rng, PORT, Received::plain(frame));
            drain(&mut engine, now);
        }
    });
    assert_eq!(during, 0);
    let counters = engine.counters(GUEST.nic()).unwrap();
    assert!(counters.holding > 100 && counters.answered.iter().sum::<u64>() > 5, "{counters:?}");

    set_mode(&mut engine, &mut rng, GUEST, 2, REPLAY);
    let during = allocations(|| drain(&mut engine, Instant::ZERO + Duration::from_secs(10)));
    assert_eq!(during, 0);
    assert_eq!(engine.counters(GUEST.nic()).unwrap().holding, 0);
}

#[test]
fn keeping_leases_allocates_nothing() {
    let mut engine = Engine::new(limits(), SERVICE, 1);
    let mut rng = Rng::seeded(1);
    let register = surrogate::engine::Command::Register(Box::new(GUEST.identity()));
    engine.handle_command(Instant::ZERO, &mut rng, register);
    engine.handle_observed(Instant::ZERO, GUEST.nic(), true, Received::plain(&dhcp_renewal(77)));
    set_mode(&mut engine, &mut rng, GUEST, 1, Mode::Answer);
    drain(&mut engine, Instant::ZERO);
    let mut asked = [0; 2];
    for (n, kind) in [dhcpv4::kind::ACK, dhcpv4::kind::NAK].into_iter().enumerate() {
        let now = engine.poll_timeout().unwrap() + Duration::from_secs(1800 * n as u64);
        let during = allocations(|| {
            engine.handle_timeout(now, &mut rng);
            while let Some(output) = engine.poll_output() {
                if let Output::Transmit { bytes, .. } = output {
                    asked[n] = dhcp_xid(bytes).unwrap_or(asked[n]);
                }
            }
        });
        assert_eq!((during, asked[n] != 0), (0, true));
        let answer = dhcp_answer(TO_GUEST, kind, asked[n]);
        let during = allocations(|| {
            let _ = engine.handle_frame(now, &mut rng, PORT, Received::plain(&answer));
        });
        assert_eq!(during, 0);
        drain(&mut engine, now);
    }
    let counters = engine.counters(GUEST.nic()).unwrap();
    assert_eq!((counters.absorbed, counters.held), (1, 1), "one was granted and one refused");
}

fn set_mode(engine: &mut Engine, rng: &mut Rng, host: Host, epoch: u64, mode: Mode) {
    let command = surrogate::engine::Command::SetMode { nic: host.nic(), epoch: Epoch(epoch), mode };
    engine.handle_command(Instant::ZERO, rng, command);
}

/// Performs all outputs; each delivery succeeds.
fn drain(engine: &mut Engine, now: Instant) {
    loop {
        let done = match engine.poll_output() {
            Some(Output::Deliver { nic, epoch, .. }) => Done::Delivered { nic, epoch, count: 1 },
            Some(_) => continue,
            None => return,
        };
        engine.handle_done(now, done);
    }
}
