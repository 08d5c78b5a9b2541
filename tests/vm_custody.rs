//! Long connections to a real virtual machine: its peers' kernels ask every second whether it is there, while it is
//! paused, and while it is saved to disk with no QEMU process at all.

use std::net::SocketAddr;
use std::time::Duration;

use surrogate_house::deadline::pause;
use surrogate_house::lab::LISTEN;
use surrogate_house::{Config, Connections, Daemon, Machine, VirtualLab, until};

const PATIENCE: Duration = Duration::from_secs(60);
/// Asleep for as long as five unanswered questions would take to end a connection, twice over.
const ASLEEP: Duration = Duration::from_secs(12);

fn lab(defaults: &str) -> (Daemon, Machine, VirtualLab) {
    let lab = VirtualLab::new();
    let vm = lab.boot(1);
    let config = Config::libvirt(&lab.uri(), defaults).with(&vm.section(LISTEN));
    let daemon = Daemon::start(&lab.network.hypervisor, &config);
    (daemon, vm, lab)
}

fn connect(lab: &VirtualLab, vm: &Machine) -> Connections {
    let to: Vec<_> = [vm.v4, vm.v6, vm.v4].map(|address| SocketAddr::new(address, 7)).into();
    let mut held = Connections::open(&lab.network.c1, &to);
    held.say("before");
    held
}

/// The machine sleeps on, and nobody's connection breaks.
#[track_caller]
fn is_kept_alive(daemon: &Daemon, vm: &Machine, held: &Connections) {
    let kept = || daemon.metrics().sum("surrogate_frames_answered_total", &[("by", "keep-alive")]);
    let before = kept();
    pause(ASLEEP);
    assert_eq!(held.broken(), Vec::<String>::new());
    assert_eq!(daemon.state(&vm.name), "asleep", "{:#}", daemon.status(&vm.name));
    let answered = kept() - before;
    assert!(answered >= held.count() as f64 * 4.0, "{answered} keep-alives answered");
}

#[track_caller]
fn speaks_again(daemon: &Daemon, vm: &Machine, held: &mut Connections) {
    held.say("after it");
    until("the guest to be awake", PATIENCE, || daemon.state(&vm.name) == "awake");
    held.say("awake");
    daemon.assert_conserved();
}

#[test]
fn connections_outlast_a_pause() {
    let (daemon, vm, lab) = lab("");
    let mut held = connect(&lab, &vm);
    lab.wait_for_rest();
    daemon.sleep(&vm.name);
    assert_eq!(lab.domstate(&vm.name), "paused (user)");
    is_kept_alive(&daemon, &vm, &held);
    assert_eq!(lab.domstate(&vm.name), "paused (user)");
    speaks_again(&daemon, &vm, &mut held);
}

#[test]
fn connections_outlast_a_managed_save_and_the_daemon_s_end() {
    let (mut daemon, vm, lab) = lab("depth = \"save\"");
    let mut held = connect(&lab, &vm);
    lab.wait_for_rest();
    daemon.sleep(&vm.name);
    assert_eq!(lab.qemus(), [0u32; 0]);
    is_kept_alive(&daemon, &vm, &held);
    // What was learned of them is on the disk.
    daemon.kill();
    daemon.launch(&lab.network.hypervisor);
    until("the sleeper to be stood in for", PATIENCE, || daemon.state(&vm.name) == "asleep");
    is_kept_alive(&daemon, &vm, &held);
    assert_eq!(lab.qemus(), [0u32; 0], "a keep-alive does not wake it");
    speaks_again(&daemon, &vm, &mut held);
}
