//! What an awake guest says of itself is answered while it sleeps, and frames of other names never wake it.

use surrogate::engine::{Answered, Command, Mode, Verdict};
use surrogate::guest::identity::NicIdentity;
use surrogate::policy::names::Names;
use surrogate::time::Duration;
use surrogate_wire::Received;
use surrogate_wire::dns::{IN, kind};

use crate::frames::*;
use crate::named;
use crate::scenario::*;

/// The guest as if nothing was declared for it.
fn undeclared() -> NicIdentity {
    let mut identity = named::identity();
    identity.traffic.names = Names::default();
    identity
}

fn observed(s: &mut Scenario, bytes: &[u8], from_guest: bool) {
    s.engine.handle_observed(s.now, GUEST.nic(), from_guest, Received::plain(bytes));
}

#[test]
fn a_name_that_the_guest_announced_is_answered_while_it_sleeps_and_not_before() {
    let asked = named::mdns(&named::question("learned.local", kind::A, IN));
    let mut s = Scenario::new(&[undeclared()]);
    observed(&mut s, &named::announcement(), true);
    assert_eq!((s.verdict(&asked), s.transmitted().len()), (None, 0), "it answers for itself");
    s.mode(1, Mode::Answer).outputs();
    // What all heard a moment ago is not said again at once.
    s.at_ms(1_000);
    assert_eq!(s.verdict(&asked), Some(Verdict::Answer(Answered::Mdns)));
    let said = s.transmitted();
    assert_eq!(said.len(), 1);
    assert!(said[0].windows(8).any(|part| part == b"\x07learned"), "{said:x?}");
    assert_eq!(s.counters().spoken[Answered::Mdns as usize], 1);
    s.mode(2, HOLD_FLOODED).outputs();
    s.verdict(&asked);
    assert_eq!(s.transmitted().len(), 0, "it may run at any moment");
}

#[test]
fn what_others_announce_is_not_learned_of_the_guest() {
    let mut s = Scenario::new(&[undeclared()]);
    observed(&mut s, &named::announcement(), false);
    s.mode(1, Mode::Answer).outputs();
    let asked = named::mdns(&named::question("learned.local", kind::A, IN));
    assert_eq!(s.verdict(&asked), Some(Verdict::Absorb));
}

#[test]
fn names_outlive_the_engine_that_learned_them() {
    let mut s = Scenario::new(&[undeclared()]);
    observed(&mut s, &named::announcement(), true);
    s.mode(1, Mode::Answer).outputs();
    let known = s.engine.knowledge(s.now, GUEST.nic()).expect("it is registered");
    let mut after = Scenario::new(&[undeclared()]);
    let command =
        Command::Know { nic: GUEST.nic(), knowledge: Box::new(known.clone()), ago: Duration::from_secs(60) };
    after.command(command);
    assert_eq!(after.engine.knowledge(after.now, GUEST.nic()), Some(known));
    after.mode(1, Mode::Answer).outputs();
    let asked = named::mdns(&named::question("learned.local", kind::A, IN));
    assert_eq!(after.verdict(&asked), Some(Verdict::Answer(Answered::Mdns)));
}
