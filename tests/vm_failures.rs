//! Real virtual machines where something stands in the way: jobs, ports that cannot be served, calls that
//! never return, a daemon that is gone.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use surrogate_house::clients::{Echo, curl, ping};
use surrogate_house::daemon::binary;
use surrogate_house::lab::{LISTEN, bridge_ports, bridge_state};
use surrogate_house::namespace::must;
use surrogate_house::network::BRIDGE;
use surrogate_house::{Config, Daemon, Machine, VirtualLab, until};

/// For what a machine does on a processor that it shares with others.
const PATIENCE: Duration = Duration::from_secs(60);

fn daemon(lab: &VirtualLab, machines: &[&Machine]) -> Daemon {
    let config = Config::libvirt(&lab.uri(), "");
    let config = machines.iter().fold(config, |config, vm| config.with(&vm.section(LISTEN)));
    Daemon::start(&lab.network.hypervisor, &config)
}

#[track_caller]
fn becomes(daemon: &Daemon, vm: &Machine, state: &str) {
    until(&format!("{} to be {state}", vm.name), PATIENCE, || daemon.state(&vm.name) == state);
}

/// Asks for sleep, which must be refused in one line with `reason` in it, and change nothing.
#[track_caller]
fn is_refused_sleep(daemon: &Daemon, lab: &VirtualLab, vm: &Machine, reason: &str) {
    let before = (lab.domstate(&vm.name), bridge_state(&lab.network.hypervisor));
    let outcome = daemon.cli(&["sleep", &vm.name]);
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    assert_eq!(outcome.errors.trim().lines().count(), 1, "{outcome:?}");
    assert!(outcome.errors.contains(reason), "{reason}: {outcome:?}");
    let status = daemon.status(&vm.name);
    let why = status["why"].as_str().unwrap_or_default();
    assert!(why.contains(reason), "{reason}: {why}");
    assert_eq!((lab.domstate(&vm.name), bridge_state(&lab.network.hypervisor)), before);
}

/// It sleeps, answers, and serves when a page is asked for.
#[track_caller]
fn sleeps_and_wakes(daemon: &Daemon, lab: &VirtualLab, vm: &Machine) {
    lab.wait_for_rest();
    daemon.sleep(&vm.name);
    assert_eq!(lab.domstate(&vm.name), "paused (user)");
    let client = &lab.network.c1;
    for address in [vm.v4, vm.v6] {
        let pings = ping(client, address, 5, Duration::from_millis(20));
        assert!(pings.all_answered(), "{}", pings.text);
    }
    assert_eq!(curl(client, vm.v4).unwrap().body, vm.page());
    becomes(daemon, vm, "awake");
    assert!(lab.domstate(&vm.name).starts_with("running"));
}

/// A file that takes 64 KiB and then blocks its writer, as a dead store would.
fn fifo(path: &Path) {
    must(Command::new("mkfifo").arg(path));
}

/// Reads a fifo to its end, elsewhere.
fn drain(path: &Path) -> Child {
    Command::new("cat").arg(path).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_machine_with_a_libvirt_job_or_on_a_port_that_we_cannot_serve_is_not_put_to_sleep() {
    let lab = VirtualLab::new();
    let disk = lab.path("disk");
    std::fs::File::create(&disk).unwrap().set_len(8 << 20).unwrap();
    let vm = lab.boot_with(
        1,
        &format!(
            "<disk type='file'><driver name='qemu' type='raw'/><source file='{}'/>
               <target dev='vda' bus='virtio'/></disk>",
            disk.display()
        ),
    );
    let daemon = daemon(&lab, &[&vm]);

    // A dump of the running machine, and one that pauses it: neither is sleep.
    for (name, options, state) in [("live", &["--live"][..], "running"), ("paused", &[], "paused (dumping)")]
    {
        let file = lab.path(name);
        fifo(&file);
        let nobody_reads = OpenOptions::new().read(true).write(true).open(&file).unwrap();
        let mut dump = lab.virsh_command(&[&["dump", &vm.name, file.to_str().unwrap()], options].concat());
        let mut dump = dump.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("the dump to run", PATIENCE, || {
            lab.domstate(&vm.name).starts_with(state) && lab.virsh(&["domjobinfo", &vm.name]).contains("Dump")
        });
        is_refused_sleep(&daemon, &lab, &vm, "a libvirt job runs (dump)");
        assert_eq!(daemon.state(&vm.name), "awake");
        let mut reader = drain(&file);
        // A fifo cannot be synchronised with a disk, so the dump may be told that it failed.
        dump.wait().unwrap();
        drop(nobody_reads);
        reader.wait().unwrap();
        until("the machine to run", PATIENCE, || lab.domstate(&vm.name).starts_with("running"));
    }

    // A copy of its disk runs on until somebody ends it.
    let copy = lab.path("copy");
    let copy = ["blockcopy", &vm.name, "vda", copy.to_str().unwrap(), "--format", "raw", "--transient-job"];
    lab.virsh(&copy);
    is_refused_sleep(&daemon, &lab, &vm, "disk vda is being copied");
    lab.virsh(&["blockjob", &vm.name, "vda", "--abort"]);

    // A port that reaches only some of the others.
    let bridge =
        |isolated| lab.network.hypervisor.bridge(&format!("link set dev {} isolated {isolated}\n", vm.name));
    bridge("on");
    is_refused_sleep(&daemon, &lab, &vm, &format!("port {} is isolated on bridge {BRIDGE}", vm.name));
    bridge("off");

    // A filter of libvirt's; its rules do not matter, and none need no tool to be put in force.
    let filter = lab.path("filter.xml");
    std::fs::write(&filter, "<filter name='lab'/>").unwrap();
    lab.virsh(&["nwfilter-define", filter.to_str().unwrap()]);
    let nic = |filter: &str| {
        let file = lab.path("nic.xml");
        let nic = format!(
            "<interface type='bridge'><mac address='{}'/><source bridge='{BRIDGE}'/><target dev='{}'/>
             <model type='virtio'/><rom enabled='no'/>{filter}</interface>",
            vm.mac, vm.name
        );
        std::fs::write(&file, nic).unwrap();
        lab.virsh(&["update-device", &vm.name, file.to_str().unwrap(), "--live"]);
    };
    nic("<filterref filter='lab'/>");
    is_refused_sleep(&daemon, &lab, &vm, "filtered by nwfilter \"lab\"");
    nic("");

    sleeps_and_wakes(&daemon, &lab, &vm);
    daemon.assert_conserved();
}

#[test]
fn a_suspend_and_a_save_that_never_return_strand_their_own_machine_only() {
    let lab = VirtualLab::new();
    let [vm, other] = lab.boot_two();
    let daemon = daemon(&lab, &[&vm, &other]);
    let events = daemon.events();
    let mut echo = Echo::open(&lab.network.c1, vm.v4, PATIENCE).unwrap();
    echo.say("before").unwrap();
    lab.wait_for_rest();

    // A QEMU that answers nobody: the suspend hangs in libvirt.
    lab.hang(&vm);
    let asked = daemon.command(&["sleep", &vm.name]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut asked = asked.unwrap();
    events.wait(&vm.name, "drained", PATIENCE);
    sleeps_and_wakes(&daemon, &lab, &other);
    let failed = events.wait(&vm.name, "failed", PATIENCE);
    assert!(failed.detail.contains("has not returned in time"), "{failed:?}");
    becomes(&daemon, &vm, "stranded");
    assert_eq!(asked.wait().unwrap().code(), Some(1));
    for command in ["sleep", "wake"] {
        let outcome = daemon.cli(&[command, &vm.name]);
        assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
        assert!(outcome.errors.contains("has not returned"), "{outcome:?}");
    }
    sleeps_and_wakes(&daemon, &lab, &other);
    // What is sent to it now waits for it, and the suspend takes place when it can: the wake is due then.
    lab.unhang(&vm);
    echo.say("after").unwrap();
    becomes(&daemon, &vm, "awake");
    assert!(lab.domstate(&vm.name).starts_with("running"));
    sleeps_and_wakes(&daemon, &lab, &vm);

    // A store that takes nothing, and then fails: libvirt waits for it with the machine locked, so that not
    // even its state can be asked for.
    let file = lab.saved_state(&vm);
    fifo(&file);
    let seq = events.last();
    lab.wait_for_rest();
    let mut asked = daemon.command(&["sleep", &vm.name, "--depth", "save"]);
    let mut asked = asked.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("libvirt to wait for the store", PATIENCE, || lab.libvirtd_opens_a_file());
    sleeps_and_wakes(&daemon, &lab, &other);
    assert_eq!(daemon.state(&vm.name), "settling");
    assert!(lab.libvirtd_opens_a_file());
    drop(OpenOptions::new().read(true).open(&file).unwrap());
    let failed = events.wait_after(seq, &vm.name, "failed", PATIENCE);
    assert!(failed.detail.starts_with("save: "), "{failed:?}");
    assert_eq!(asked.wait().unwrap().code(), Some(1));
    becomes(&daemon, &vm, "awake");
    assert!(lab.domstate(&vm.name).starts_with("running"));
    echo.say("and after the save").unwrap();
    sleeps_and_wakes(&daemon, &lab, &vm);
    daemon.assert_conserved();
}

#[test]
fn a_release_wakes_what_surrogate_slept_and_without_a_daemon_leaves_all_as_it_is() {
    let lab = VirtualLab::new();
    let [vm, by_hand] = lab.boot_two();
    let (client, hypervisor) = (&lab.network.c1, &lab.network.hypervisor);
    let without = bridge_state(hypervisor);
    let mut daemon = daemon(&lab, &[&vm, &by_hand]);
    let before = bridge_state(hypervisor);
    let put_both_to_sleep = |daemon: &Daemon| {
        let events = daemon.events();
        let seq = events.last();
        lab.virsh(&["suspend", &by_hand.name]);
        events.wait_after(seq, &by_hand.name, "asleep", PATIENCE);
        lab.wait_for_rest();
        daemon.sleep(&vm.name);
        assert_ne!(bridge_state(hypervisor), before);
    };

    put_both_to_sleep(&daemon);
    daemon.json(&["release", "--all"]);
    assert_eq!(bridge_state(hypervisor), before);
    assert!(lab.domstate(&vm.name).starts_with("running"));
    assert_eq!(lab.domstate(&by_hand.name), "paused (user)", "that is for whoever paused it to end");
    assert_eq!(curl(client, vm.v4).unwrap().body, vm.page());
    assert_eq!(ping(client, by_hand.v4, 3, Duration::from_millis(20)).received, 0, "nobody stands in for it");
    lab.virsh(&["resume", &by_hand.name]);
    assert_eq!(curl(client, by_hand.v4).unwrap().body, by_hand.page());

    put_both_to_sleep(&daemon);
    daemon.kill();
    until("the surrogate port to go with the daemon", PATIENCE, || {
        !bridge_ports(hypervisor).iter().any(|port| port.starts_with("sgt"))
    });
    let mut release = hypervisor.command(binary());
    let released = release.args(["release", "--all", "--config"]).arg(daemon.config()).output().unwrap();
    assert!(released.status.success(), "{released:?}");
    assert_eq!(bridge_state(hypervisor), without);
    for vm in [&vm, &by_hand] {
        assert_eq!(lab.domstate(&vm.name), "paused (user)");
        lab.virsh(&["resume", &vm.name]);
        assert!(ping(client, vm.v4, 3, Duration::from_millis(20)).all_answered());
        assert_eq!(curl(client, vm.v6).unwrap().body, vm.page());
    }
    daemon.launch(hypervisor);
    for vm in [&vm, &by_hand] {
        becomes(&daemon, vm, "awake");
        sleeps_and_wakes(&daemon, &lab, vm);
    }
    daemon.assert_conserved();
}
