//! A guest whose ports nobody has declared: what it refused while it was awake is refused in its name.

use core::net::IpAddr;
use core::time::Duration;

use surrogate::engine::{Answered, Command, Mode, Notice, Verdict};
use surrogate::guest::identity::NicIdentity;
use surrogate_wire::TcpFlags;

use crate::frames::*;
use crate::scenario::*;

const REFUSED: Option<Verdict> = Some(Verdict::Answer(Answered::TcpReset));
const WAKES: Option<Verdict> = Some(Verdict::HoldAndWake);
const MINUTE: u64 = 60_000;

fn undeclared() -> NicIdentity {
    let mut guest = GUEST.identity();
    guest.traffic.listen = None;
    guest
}

/// All ports below 1024 were scanned while it was awake: 22 is open.
fn scanned() -> Scenario {
    let mut s = Scenario::new(&[undeclared()]);
    for port in 1..1024 {
        match port {
            22 => s.observe(true, &segment_of_guest(port, 7, TcpFlags::SYN | TcpFlags::ACK)),
            _ => s.observe(true, &refused_by_guest(port)),
        }
    }
    s
}

#[test]
fn a_scan_of_a_sleeper_shows_what_it_showed_while_awake_and_wakes_nobody_for_closed_ports() {
    let mut s = scanned();
    s.mode(1, Mode::Answer).outputs();
    for port in (1..1024).filter(|port| *port != 22) {
        assert_eq!(s.verdict(&syn(port, 9)), REFUSED, "port {port}");
        let out = s.outputs();
        assert!(matches!(out[..], [Out::Transmit(_)]), "{out:?}");
    }
    assert_eq!(s.verdict(&syn(22, 9)), WAKES);
    assert!(matches!(s.notices()[..], [Notice::Wake { .. }]));
}

#[test]
fn of_what_nobody_asked_nothing_is_known() {
    let mut s = scanned();
    s.mode(1, Mode::Answer).outputs();
    assert_eq!(s.verdict(&syn(8080, 9)), WAKES);
    assert_eq!(s.verdict(&datagram((40_000, 80), b"x")), WAKES, "it was TCP that was refused");
}

#[test]
fn what_one_address_refused_another_may_serve() {
    let mut s = scanned();
    s.observe(true, &unreachable_by_guest(9999));
    s.mode(1, Mode::Answer).outputs();
    let asked = |from: IpAddr, to: IpAddr| udp(TO_GUEST, from, to, (40_000, 9999), b"x");
    let over_v4 = asked(CLIENT.v4().into(), GUEST.v4().into());
    assert_eq!(s.verdict(&over_v4), Some(Verdict::Answer(Answered::PortUnreachable)));
    assert_eq!(s.verdict(&asked(CLIENT.v6().into(), GUEST.v6().into())), WAKES, "a service of IPv6 alone");
}

#[test]
fn what_was_refused_long_before_the_sleep_is_not_believed_and_the_sleep_itself_does_not_count() {
    let mut s = scanned();
    s.at_ms(9 * MINUTE).mode(1, Mode::Answer).outputs();
    s.at_ms(600 * MINUTE);
    assert_eq!(s.verdict(&syn(80, 9)), REFUSED);
    // Awake for a minute and more: that makes ten.
    s.mode(2, HOLD_FLOODED).mode(2, REPLAY).mode(2, RELEASED);
    s.at_ms(600 * MINUTE + 100);
    assert_eq!(s.engine.mode(GUEST.nic()), Some(Mode::Pass));
    s.at_ms(602 * MINUTE).mode(3, Mode::Answer).outputs();
    assert_eq!(s.verdict(&syn(80, 10)), WAKES);
}

#[test]
fn it_outlives_a_restart_of_the_daemon() {
    let mut s = scanned();
    s.mode(1, Mode::Answer);
    let knowledge = s.engine.knowledge(s.now, GUEST.nic()).expect("registered");
    let text = serde_json::to_string(&knowledge).expect("a value");
    assert!(text.contains(r#""tcp":[[1,21],[23,1023]]"#), "{text}");

    let mut s = Scenario::new(&[undeclared()]);
    let knowledge = Box::new(serde_json::from_str(&text).expect("the same"));
    s.command(Command::Know { nic: GUEST.nic(), knowledge, ago: Duration::from_secs(3 * 3600) });
    s.mode(1, Mode::Answer).outputs();
    assert_eq!(s.verdict(&syn(80, 9)), REFUSED);
    assert_eq!(s.verdict(&syn(22, 9)), WAKES);
}
