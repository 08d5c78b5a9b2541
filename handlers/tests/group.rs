//! Chains and the group they are in, as whoever drives them does it.

#![allow(clippy::unwrap_used, reason = "the groups here have room")]

mod scenario;

use handlers::group::Group;
use handlers::plan::GroupWake;
use scenario::Scenario;

const PLAN: &str =
    "max_bytes = 5\n[[handler]]\nwhen = { event = \"head\" }\nthen = { wake = \"first-frame\" }";

#[test]
fn a_wake_that_the_group_withheld_still_has_its_byte_limit() {
    let mut group = Group::new(GroupWake::All);
    group.join("a").unwrap();
    group.join("b").unwrap();
    let mut a = Scenario::of(PLAN);
    assert_eq!([a.head(200), a.body(b"x")].concat(), ["1: wake"]);
    assert!(!group.want(&"a"));
    a.chain.withhold();
    assert_eq!(a.body(b"yz.")[..], [""; 0]);
    assert_eq!(a.body(b"!"), ["max_bytes: wake"]);
    assert!(group.wake_now(), "b was not waited for");
    assert_eq!(a.body(b"more")[..], [""; 0], "once");
    assert!(!group.want(&"b"), "the guest is awake");
}

#[test]
fn only_a_wake_is_withheld() {
    let mut waiting = Scenario::of(PLAN);
    waiting.chain.withhold();
    assert_eq!(waiting.head(200)[..], [""; 0]);
    assert_eq!(waiting.body(b"x"), ["1: wake"]);
    assert_eq!(waiting.body(b"long enough")[..], [""; 0], "the guest is awake");

    let mut closed = Scenario::of("max_bytes = 5\n[[handler]]\nthen = \"close\"");
    assert_eq!(closed.head(200), ["1: close"]);
    closed.chain.withhold();
    assert_eq!(closed.body(b"long enough")[..], [""; 0]);
}
