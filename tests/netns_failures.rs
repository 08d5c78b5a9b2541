//! What goes wrong from outside: crashes, vanished guests and bridges, strangers, a stranger's hands.
//! Each gets one clear error, the rest goes on, nothing stays bent.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use surrogate_house::clients::{arping, curl, ping};
use surrogate_house::daemon::binary;
use surrogate_house::deadline::{Deadline, pause};
use surrogate_house::lab::{LISTEN, Lab, bridge_ports, bridge_state};
use surrogate_house::{Config, Daemon, Namespace, NetnsGuest, Network, until};

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `surrogate run` where it must not come up; what it wrote to standard error.
#[track_caller]
fn must_not_run(hypervisor: &Namespace, daemon: &Daemon, before: &[&str]) -> String {
    let mut words: Vec<_> = before.iter().map(std::ffi::OsString::from).collect();
    words.push(binary().into());
    let mut command = hypervisor.command(&words[0]);
    command.args(&words[1..]).args(["run", "--config"]).arg(daemon.config());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Deadline::after(PATIENCE);
    while child.try_wait().unwrap().is_none() {
        if deadline.passed() {
            child.kill().unwrap();
            panic!("it runs: {:?}", child.wait_with_output());
        }
        pause(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn after_a_crash_and_release_all_a_guest_thawed_by_hand_answers() {
    let network = Network::new();
    let guest = NetnsGuest::new(&network, 1);
    let before = bridge_state(&network.hypervisor);
    let config = Config::netns("", "").with(&guest.section(LISTEN));
    let mut daemon = Daemon::start(&network.hypervisor, &config);
    daemon.sleep("web1");
    daemon.kill();
    assert!(guest.is_frozen());
    until("the surrogate port to go with the daemon", PATIENCE, || {
        !bridge_ports(&network.hypervisor).iter().any(|port| port.starts_with("sgt"))
    });

    let output = network
        .hypervisor
        .command(binary())
        .args(["release", "--all", "--config"])
        .arg(daemon.config())
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(bridge_state(&network.hypervisor), before);
    guest.thaw();
    let (answers, text) = arping(&network.c1, guest.v4, 3);
    assert_eq!(answers, 3, "{text}");
    assert_eq!(curl(&network.c1, guest.v4).unwrap().body, guest.page());
}

#[test]
fn a_daemon_started_again_after_a_crash_stands_in_for_its_sleepers_and_wakes_them() {
    let mut lab = Lab::new(2, "", LISTEN);
    lab.daemon.sleep("web1");
    lab.daemon.sleep("web2");
    lab.daemon.kill();
    lab.daemon.launch(&lab.network.hypervisor);
    for guest in &lab.guests {
        until("the sleeper to be stood in for", PATIENCE, || lab.daemon.state(&guest.name) == "asleep");
        assert!(guest.is_frozen());
        let pings = ping(&lab.network.c1, guest.v4, 10, Duration::from_millis(20));
        assert!(pings.all_answered(), "{pings:?}");
        assert!(guest.is_frozen());
        assert_eq!(curl(&lab.network.c1, guest.v4).unwrap().body, guest.page());
    }
    // Nothing is steered to a port that nobody reads.
    let ports = bridge_ports(&lab.network.hypervisor);
    for fact in bridge_state(&lab.network.hypervisor).iter().filter(|fact| fact.starts_with("entry")) {
        assert!(ports.iter().any(|port| fact.contains(&format!("\"{port}\""))), "{fact}, ports: {ports:?}");
    }
    lab.daemon.assert_conserved();
}

#[test]
fn a_guest_resumed_by_hand_is_followed_and_served_by_itself() {
    let lab = Lab::one_guest();
    let guest = lab.guest();
    let events = lab.daemon.events();
    lab.daemon.sleep("web1");
    let seq = events.last();
    guest.thaw();
    events.wait_after(seq, "web1", "awake", PATIENCE);
    assert!(!guest.is_frozen());
    assert_eq!(curl(&lab.network.c1, guest.v4).unwrap().body, guest.page());
    lab.daemon.assert_conserved();
}

#[test]
fn a_guest_that_is_deleted_while_asleep_is_reported_gone_and_the_others_go_on() {
    let mut lab = Lab::new(2, "", LISTEN);
    lab.daemon.sleep("web1");
    lab.daemon.sleep("web2");
    drop(lab.guests.remove(0));
    until("the daemon to see it", PATIENCE, || {
        let status = lab.daemon.status("web1");
        status["power"] == "gone" || status["state"] == "unmanaged"
    });
    let wake = lab.daemon.cli(&["wake", "web1"]);
    assert!(!wake.status.success() && wake.errors.trim().lines().count() == 1, "{wake:?}");
    let other = lab.guest();
    assert!(other.is_frozen());
    assert_eq!(curl(&lab.network.c1, other.v4).unwrap().body, other.page());
    lab.daemon.assert_conserved();
}

#[test]
fn without_its_capability_the_daemon_says_which_one_it_needs() {
    let network = Network::new();
    let daemon = Daemon::prepare(&Config::netns("", ""));
    let errors = must_not_run(
        &network.hypervisor,
        &daemon,
        &["setpriv", "--bounding-set", "-net_admin,-net_raw", "--inh-caps", "-net_admin,-net_raw"],
    );
    let last = errors.trim().lines().last().unwrap_or_default();
    assert!(last.contains("CAP_NET_ADMIN"), "{errors}");
}

#[test]
fn without_its_bridge_a_guest_is_not_put_to_sleep_and_the_bridge_is_served_once_it_comes() {
    let network = Network::new();
    let guest = NetnsGuest::new(&network, 1);
    network.hypervisor.ip("link set br0 name away0");
    let config = Config::netns("", "").with(&guest.section(LISTEN));
    let daemon = Daemon::start(&network.hypervisor, &config);
    let refused = daemon.cli(&["sleep", "web1"]);
    assert!(!refused.status.success() && refused.errors.contains("br0"), "{refused:?}");
    assert_eq!(refused.errors.trim().lines().count(), 1, "{refused:?}");
    let events = daemon.events();
    network.hypervisor.ip("link set away0 name br0");
    until("the bridge to be served", PATIENCE, || events.all().iter().any(|e| e.kind == "port-opened"));
    daemon.sleep("web1");
    assert_eq!(curl(&network.c1, guest.v4).unwrap().body, guest.page());
}

#[test]
fn a_sleeper_whose_bridge_comes_late_is_stood_in_for_then_and_wakes_on_demand() {
    let mut lab = Lab::one_guest();
    lab.daemon.sleep("web1");
    lab.daemon.kill();
    let hypervisor = &lab.network.hypervisor;
    hypervisor.ip("link set br0 name away0");
    lab.daemon.launch(hypervisor);
    until("the missing bridge to be told", PATIENCE, || lab.daemon.state("web1") == "unmanaged");
    hypervisor.ip("link set away0 name br0");
    until("the sleeper to be stood in for", PATIENCE, || lab.daemon.state("web1") == "asleep");
    let guest = lab.guest();
    assert!(guest.is_frozen());
    assert_eq!(curl(&lab.network.c1, guest.v4).unwrap().body, guest.page());
    lab.daemon.assert_conserved();
}

#[test]
fn a_sleeper_wakes_by_command_while_bridge_and_surrogate_port_are_gone() {
    let lab = Lab::one_guest();
    let hypervisor = &lab.network.hypervisor;
    for _ in 0..2 {
        lab.daemon.sleep("web1");
        let (events, port) = (lab.daemon.events(), lab.surrogate_port());
        hypervisor.ip(&format!("link set br0 name away0\nlink del {}", port));
        until("the loss to be told", PATIENCE, || events.all().iter().any(|e| e.kind == "port-lost"));
        let mut wake = lab.daemon.command(&["wake", "web1"]).spawn().unwrap();
        let deadline = Deadline::after(2 * PATIENCE);
        while wake.try_wait().unwrap().is_none() && !deadline.passed() {
            pause(Duration::from_millis(20));
        }
        let _ = wake.kill();
        assert!(wake.wait().unwrap().success(), "the wake did not end: {:#}", lab.daemon.status("web1"));
        hypervisor.ip("link set away0 name br0");
        let guest = lab.guest();
        assert!(!guest.is_frozen());
        assert_eq!(curl(&lab.network.c1, guest.v4).unwrap().body, guest.page());
        until("another surrogate port", PATIENCE, || {
            bridge_ports(hypervisor).iter().any(|port| port.starts_with("sgt"))
        });
    }
}

#[test]
fn a_wake_that_finds_no_port_of_its_guest_ends_with_the_reason_and_goes_on_by_itself() {
    let lab = Lab::one_guest();
    let (hypervisor, guest) = (&lab.network.hypervisor, lab.guest());
    lab.daemon.sleep("web1");
    hypervisor.ip("link set web1 nomaster");
    hypervisor.ip("link set web1 name away1");
    let mut wake = lab.daemon.command(&["wake", "web1"]).spawn().unwrap();
    let deadline = Deadline::after(2 * PATIENCE);
    while wake.try_wait().unwrap().is_none() && !deadline.passed() {
        pause(Duration::from_millis(20));
    }
    let ended = wake.try_wait().unwrap();
    let _ = wake.kill();
    let _ = wake.wait();
    assert!(ended.is_some_and(|status| !status.success()), "{ended:?}: {:#}", lab.daemon.status("web1"));
    assert!(!guest.is_frozen());
    hypervisor.ip("link set away1 name web1");
    hypervisor.ip("link set web1 master br0");
    until("it to be handed back", 2 * PATIENCE, || lab.daemon.state("web1") == "awake");
    assert_eq!(curl(&lab.network.c1, guest.v4).unwrap().body, guest.page());
}

#[test]
fn a_surrogate_port_that_somebody_sets_down_or_takes_off_its_bridge_is_replaced() {
    let lab = Lab::one_guest();
    let (hypervisor, guest) = (&lab.network.hypervisor, lab.guest());
    let events = lab.daemon.events();
    // The first is replaced at once, the next not before 5 s.
    for (change, patience) in [("nomaster", Duration::from_secs(3)), ("down", 2 * PATIENCE)] {
        lab.daemon.sleep("web1");
        let (port, seq) = (lab.surrogate_port(), events.last());
        hypervisor.ip(&format!("link set {port} {change}"));
        until(&format!("another port after {change}"), patience, || {
            events.all().iter().any(|event| event.seq > seq && event.kind == "port-opened")
        });
        until("the sleeper to be stood in for", PATIENCE, || {
            ping(&lab.network.c1, guest.v4, 1, Duration::from_millis(20)).all_answered()
        });
        assert!(guest.is_frozen());
        assert_eq!(curl(&lab.network.c1, guest.v4).unwrap().body, guest.page());
    }
}

#[test]
fn a_guest_that_came_after_the_daemon_falls_asleep_by_itself() {
    let network = Network::new();
    let guest = NetnsGuest::new(&network, 1);
    let late = format!("{}-late", guest.namespace.name());
    let idle = "idle_after = \"1s\"\nmin_awake = \"1s\"";
    let section = guest.section(idle).replace(guest.namespace.name(), &late);
    let daemon = Daemon::start(&network.hypervisor, &Config::netns("", "").with(&section));
    until("the guest to be missing", PATIENCE, || daemon.status("web1")["power"] == "gone");
    assert_eq!(daemon.status("web1")["why"], format!("there is no network namespace {late}"));
    let pid = guest.namespace.processes()[0].to_string();
    let ip = |arguments: &[&str]| Command::new("ip").args(arguments).status().unwrap().success();
    assert!(ip(&["netns", "attach", &late, &pid]));
    let deadline = Deadline::after(2 * PATIENCE);
    while daemon.state("web1") != "asleep" && !deadline.passed() {
        pause(Duration::from_millis(50));
    }
    let state = daemon.state("web1");
    assert!(ip(&["netns", "delete", &late]));
    assert_eq!(state, "asleep");
}

#[test]
fn a_wrong_configuration_is_refused_with_the_line() {
    let network = Network::new();
    let mut config = Config::netns("", "");
    config.sections.push_str("[[guest]]\nname = \"web1\"\nhypervisor = \"local\"\nadresses = []\n");
    let daemon = Daemon::prepare(&config);
    let line = std::fs::read_to_string(daemon.config())
        .unwrap()
        .lines()
        .position(|l| l.starts_with("adresses"))
        .unwrap()
        + 1;
    let errors = must_not_run(&network.hypervisor, &daemon, &["env"]);
    assert!(
        errors.contains(&format!(":{line}")) || errors.contains(&format!("line {line}")),
        "line {line}: {errors}"
    );
    assert!(errors.contains("addresses"), "and what was meant: {errors}");
}

#[test]
fn a_second_daemon_with_the_same_socket_is_refused_and_the_first_goes_on() {
    let lab = Lab::one_guest();
    lab.daemon.sleep("web1");
    let errors = must_not_run(&lab.network.hypervisor, &lab.daemon, &["env"]);
    assert!(!errors.trim().is_empty());
    let guest = lab.guest();
    let pings = ping(&lab.network.c1, guest.v4, 5, Duration::from_millis(20));
    assert!(pings.all_answered(), "{pings:?}");
    assert_eq!(curl(&lab.network.c1, guest.v4).unwrap().body, guest.page());
}

#[test]
fn a_stranger_is_refused_at_the_socket() {
    let lab = Lab::one_guest();
    let mode = lab.daemon.socket().metadata().unwrap().mode() & 0o777;
    assert_eq!(mode, 0o600);
    // The folder lets the stranger through as far as the socket, and the configuration can be read.
    let folder = lab.daemon.socket().parent().unwrap().to_owned();
    let open = |path: &std::path::Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    open(&folder);
    open(&lab.daemon.config());
    let copy = folder.join("surrogate-copy");
    std::fs::copy(binary(), &copy).unwrap();
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&copy).args(arguments);
        command.arg("--config").arg(lab.daemon.config()).output().unwrap()
    };
    let refused = as_nobody(&["guests"]);
    assert!(!refused.status.success(), "{refused:?}");
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(errors.trim().lines().count() == 1 && errors.contains("may not use"), "{errors}");
    // Even where somebody opens the socket's mode, the peer's credentials decide.
    std::fs::set_permissions(lab.daemon.socket(), std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .unwrap();
    let refused = as_nobody(&["sleep", "web1"]);
    assert!(!refused.status.success(), "{refused:?}");
    assert!(!lab.guest().is_frozen());
    assert_eq!(lab.daemon.state("web1"), "awake");
}

#[test]
fn an_order_right_after_the_start_waits_until_the_guest_is_known() {
    let network = Network::new();
    let guest = NetnsGuest::new(&network, 1);
    let config = Config::netns("", "").with(&guest.section(LISTEN));
    for _ in 0..10 {
        let daemon = Daemon::start(&network.hypervisor, &config);
        daemon.sleep("web1");
        daemon.wake("web1");
    }
}
