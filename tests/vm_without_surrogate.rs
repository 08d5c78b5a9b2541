//! The VM lab by itself, no Surrogate in it: if this fails, the lab is at fault.

use std::time::Duration;

use surrogate_house::clients::{Echo, Ssh, curl, ping};
use surrogate_house::own_machine::Machine;
use surrogate_house::{VirtualLab, machine};

#[test]
fn a_machine_boots_is_saved_and_restored_and_serves() {
    let before = Machine::now();
    let lab = VirtualLab::new();
    let vm = lab.boot(1);
    assert_eq!(Machine::now(), before, "the machine's own namespace, while a VM lab runs");
    let patience = Duration::from_secs(10);
    for address in [vm.v4, vm.v6] {
        assert!(ping(&lab.network.c1, address, 5, Duration::from_millis(50)).all_answered());
        assert_eq!(curl(&lab.network.c1, address).unwrap().body, vm.page());
        Echo::open(&lab.network.c1, address, patience).unwrap().say("hello").unwrap();
    }
    let mut ssh = Ssh::open(&lab.network.c2, vm.v4, &machine::ssh_key());
    ssh.say("over ssh", patience).unwrap();

    lab.virsh(&["suspend", &vm.name]);
    assert_eq!(lab.domstate(&vm.name), "paused (user)");
    lab.virsh(&["resume", &vm.name]);
    lab.virsh(&["managedsave", &vm.name]);
    assert_eq!(lab.qemus(), [0u32; 0]);
    lab.stop_libvirtd();
    lab.start_libvirtd();
    lab.virsh(&["start", &vm.name]);
    assert_eq!(lab.qemus().len(), 1);
    ssh.say("still there", patience).unwrap();
    drop(lab);
    assert_eq!(Machine::now(), before, "and after it");
}
