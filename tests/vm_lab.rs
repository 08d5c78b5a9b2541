//! Surrogate and a real virtual machine: QEMU under libvirt, paused and saved, on a real bridge.

use std::time::Duration;

use surrogate_house::clients::{Echo, Pinging, Ssh, curl, ping};
use surrogate_house::lab::LISTEN;
use surrogate_house::{Config, Daemon, Machine, VirtualLab, machine, until};

/// For what a machine does on a processor that it shares with others.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine that runs, and the daemon.
fn lab(defaults: &str) -> (Daemon, Machine, VirtualLab) {
    let lab = VirtualLab::new();
    let vm = lab.boot(1);
    let config = Config::libvirt(&lab.uri(), defaults).with(&vm.section(LISTEN));
    let daemon = Daemon::start(&lab.network.hypervisor, &config);
    (daemon, vm, lab)
}

/// Puts the machine to sleep, with nothing of the last traffic on its way that would undo it.
#[track_caller]
fn sleep(daemon: &Daemon, lab: &VirtualLab, vm: &Machine) {
    lab.wait_for_rest();
    daemon.sleep(&vm.name);
}

#[track_caller]
fn is_awake_in_the_end(daemon: &Daemon, lab: &VirtualLab, vm: &Machine) {
    until("the guest to be awake", PATIENCE, || daemon.state(&vm.name) == "awake");
    assert!(lab.domstate(&vm.name).starts_with("running"));
    daemon.assert_conserved();
}

#[test]
fn a_paused_machine_answers_ping_and_a_page_request_wakes_it() {
    let (daemon, vm, lab) = lab("");
    let client = &lab.network.c1;
    let mut echo = Echo::open(client, vm.v4, PATIENCE).unwrap();
    let mut ssh = Ssh::open(client, vm.v6, &machine::ssh_key());
    echo.say("before").unwrap();
    ssh.say("before", PATIENCE).unwrap();

    let pinging =
        [vm.v4, vm.v6].map(|address| Pinging::start(&lab.network.c2, address, Duration::from_millis(10)));
    sleep(&daemon, &lab, &vm);
    assert_eq!(lab.domstate(&vm.name), "paused (user)");
    assert!(ping(client, vm.v4, 20, Duration::from_millis(20)).all_answered());
    assert!(ping(client, vm.v6, 20, Duration::from_millis(20)).all_answered());
    assert_eq!(lab.domstate(&vm.name), "paused (user)", "a ping does not wake it");
    assert_eq!(curl(client, vm.v4).unwrap().body, vm.page());
    is_awake_in_the_end(&daemon, &lab, &vm);
    // And some more of them to the awake machine.
    assert!(ping(client, vm.v4, 10, Duration::from_millis(20)).all_answered());
    for pings in pinging.map(Pinging::stop) {
        assert!(pings.all_answered(), "from before the sleep to after the wake: {}", pings.text);
        assert!(pings.sent > 50);
    }
    echo.say("after").unwrap();
    ssh.say("after", PATIENCE).unwrap();

    // A session alone is enough to wake it, too.
    sleep(&daemon, &lab, &vm);
    echo.say("while it slept").unwrap();
    is_awake_in_the_end(&daemon, &lab, &vm);
    sleep(&daemon, &lab, &vm);
    ssh.say("while it slept", PATIENCE).unwrap();
    is_awake_in_the_end(&daemon, &lab, &vm);
}

#[test]
fn a_saved_machine_has_no_process_answers_ping_and_a_page_request_restores_it() {
    let (daemon, vm, lab) = lab("depth = \"save\"");
    let client = &lab.network.c1;
    let mut echo = Echo::open(client, vm.v4, PATIENCE).unwrap();
    echo.say("before").unwrap();
    let pinging =
        [vm.v4, vm.v6].map(|address| Pinging::start(&lab.network.c2, address, Duration::from_millis(10)));
    sleep(&daemon, &lab, &vm);
    assert_eq!(lab.qemus(), [0u32; 0]);
    assert!(lab.domstate(&vm.name).contains("saved"), "{}", lab.domstate(&vm.name));
    assert!(ping(client, vm.v4, 20, Duration::from_millis(20)).all_answered());
    assert!(ping(client, vm.v6, 20, Duration::from_millis(20)).all_answered());
    assert_eq!(lab.qemus(), [0u32; 0], "a ping does not wake it");
    assert_eq!(curl(client, vm.v4).unwrap().body, vm.page());
    is_awake_in_the_end(&daemon, &lab, &vm);
    assert_eq!(lab.qemus().len(), 1);
    assert!(ping(client, vm.v4, 10, Duration::from_millis(20)).all_answered());
    for pings in pinging.map(Pinging::stop) {
        assert!(pings.all_answered(), "from before the sleep to after the wake: {}", pings.text);
    }
    echo.say("after").unwrap();
}

#[test]
fn suspend_and_resume_by_hand_are_followed() {
    let (daemon, vm, lab) = lab("");
    let client = &lab.network.c1;
    let events = daemon.events();
    let seq = events.last();
    lab.virsh(&["suspend", &vm.name]);
    events.wait_after(seq, &vm.name, "asleep", PATIENCE);
    assert!(ping(client, vm.v4, 10, Duration::from_millis(20)).all_answered());
    // wake = "managed": what a person paused, traffic does not wake.
    assert!(Echo::open(client, vm.v4, Duration::from_secs(1)).is_err());
    events.wait(&vm.name, "wake-forbidden", PATIENCE);
    assert_eq!(lab.domstate(&vm.name), "paused (user)");

    let seq = events.last();
    lab.virsh(&["resume", &vm.name]);
    events.wait_after(seq, &vm.name, "awake", PATIENCE);
    assert_eq!(curl(client, vm.v4).unwrap().body, vm.page());

    // What Surrogate paused, a person may resume.
    sleep(&daemon, &lab, &vm);
    let seq = events.last();
    lab.virsh(&["resume", &vm.name]);
    events.wait_after(seq, &vm.name, "awake", PATIENCE);
    assert_eq!(curl(client, vm.v4).unwrap().body, vm.page());
    daemon.assert_conserved();
}

#[test]
fn while_libvirtd_is_away_a_sleeper_is_stood_in_for_and_it_wakes_when_libvirtd_is_back() {
    let (daemon, vm, lab) = lab("");
    let client = &lab.network.c1;
    sleep(&daemon, &lab, &vm);
    lab.stop_libvirtd();
    assert!(ping(client, vm.v4, 20, Duration::from_millis(20)).all_answered());
    let wake = daemon.cli(&["wake", &vm.name]);
    assert!(!wake.status.success() && wake.errors.trim().lines().count() == 1, "{wake:?}");
    assert!(ping(client, vm.v4, 20, Duration::from_millis(20)).all_answered(), "still stood in for");
    lab.start_libvirtd();
    assert_eq!(curl(client, vm.v4).unwrap().body, vm.page());
    is_awake_in_the_end(&daemon, &lab, &vm);
    sleep(&daemon, &lab, &vm);
    assert_eq!(curl(client, vm.v6).unwrap().body, vm.page());
    is_awake_in_the_end(&daemon, &lab, &vm);
}

#[test]
fn a_daemon_started_again_after_a_crash_restores_a_saved_machine_on_demand() {
    let (mut daemon, vm, lab) = lab("depth = \"save\"");
    sleep(&daemon, &lab, &vm);
    daemon.kill();
    daemon.launch(&lab.network.hypervisor);
    until("the sleeper to be stood in for", PATIENCE, || daemon.state(&vm.name) == "asleep");
    assert!(ping(&lab.network.c1, vm.v4, 10, Duration::from_millis(20)).all_answered());
    assert_eq!(curl(&lab.network.c1, vm.v4).unwrap().body, vm.page());
    is_awake_in_the_end(&daemon, &lab, &vm);
}

#[test]
fn a_machine_deleted_while_asleep_is_reported_and_the_daemon_goes_on() {
    let (daemon, vm, lab) = lab("depth = \"save\"");
    let events = daemon.events();
    sleep(&daemon, &lab, &vm);
    lab.virsh(&["undefine", &vm.name, "--managed-save"]);
    until("the daemon to see it", PATIENCE, || {
        let status = daemon.status(&vm.name);
        status["power"] == "gone" || status["state"] == "unmanaged"
    });
    let wake = daemon.cli(&["wake", &vm.name]);
    assert!(!wake.status.success() && wake.errors.trim().lines().count() == 1, "{wake:?}");
    assert!(daemon.is_running(), "{:?}", events.all());
}

#[test]
fn without_libvirtd_the_daemon_says_so_and_connects_when_it_comes() {
    let lab = VirtualLab::new();
    let vm = lab.boot(1);
    lab.stop_libvirtd();
    let config = Config::libvirt(&lab.uri(), "").with(&vm.section(LISTEN));
    let daemon = Daemon::start(&lab.network.hypervisor, &config);
    let sleep = daemon.cli(&["sleep", &vm.name]);
    assert!(!sleep.status.success() && sleep.errors.trim().lines().count() == 1, "{sleep:?}");
    lab.start_libvirtd();
    until("the guest to be known", PATIENCE, || daemon.status(&vm.name)["power"] == "running");
    daemon.sleep(&vm.name);
    assert_eq!(curl(&lab.network.c1, vm.v4).unwrap().body, vm.page());
    is_awake_in_the_end(&daemon, &lab, &vm);
}

#[test]
fn a_quiet_machine_falls_asleep_by_itself_time_and_again() {
    // An emulated processor is never quite idle.
    let (daemon, vm, lab) = lab("idle_after = \"1s\"\nmin_awake = \"1s\"\nidle_cpu = 60\nidle_packets = 20");
    let events = daemon.events();
    events.wait(&vm.name, "asleep", PATIENCE);
    assert_eq!(lab.domstate(&vm.name), "paused (user)");
    assert_eq!(curl(&lab.network.c1, vm.v4).unwrap().body, vm.page());
    let seq = events.last();
    events.wait_after(seq, &vm.name, "asleep", PATIENCE);
    daemon.wake(&vm.name);
    daemon.assert_conserved();
}
