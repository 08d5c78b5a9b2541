//! A lab leaves nothing in the machine's own network namespace, while it runs and after.

use surrogate_house::Lab;
use surrogate_house::clients::curl;
use surrogate_house::own_machine::Machine;

#[test]
fn the_machines_own_namespace_is_the_same_before_during_and_after_a_network_lab() {
    let before = Machine::now();
    let lab = Lab::one_guest();
    lab.daemon.sleep("web1");
    assert_eq!(curl(&lab.network.c1, lab.guest().v4).unwrap().body, lab.guest().page());
    assert_eq!(Machine::now(), before, "while the lab runs");
    drop(lab);
    assert_eq!(Machine::now(), before, "after the lab");
}
