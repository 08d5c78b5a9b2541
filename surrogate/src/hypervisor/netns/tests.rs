//! Real namespaces and real processes; needs root. Everything made here has a name of its own and goes
//! with the test that made it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::guest::identity::InterfaceAddress;
use crate::io::clock;

/// A guest namespace with processes, and a bridge in a namespace of its own that the test's thread
/// is moved into, so that it is "ours".
struct Lab {
    guest: String,
    host: String,
    processes: Vec<Child>,
    cgroup: Option<PathBuf>,
}

impl Lab {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("hyper-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let lab =
            Self { guest: format!("{id}-g"), host: format!("{id}-h"), processes: Vec::new(), cgroup: None };
        sh(&format!("ip netns add {}; ip netns add {}", lab.guest, lab.host));
        lab
    }

    /// Moves this thread beside a bridge that the guest has a NIC on.
    fn with_bridge() -> Self {
        let lab = Self::new();
        let (guest, host) = (&lab.guest, &lab.host);
        let host_namespace = Namespace::open(host).unwrap().unwrap();
        host_namespace.enter_for_good().unwrap();
        sh(&format!(
            "for n in {guest} {host}; do
                 ip netns exec $n sh -c 'echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad'
                 ip -n $n link set lo up
             done
             ip link add br0 type bridge
             ip link set br0 up
             ip addr add 192.0.2.1/24 dev br0
             ip link add p0 type veth peer name eth0 address 52:54:00:00:00:11 netns {guest}
             ip link set p0 master br0 up
             ip -n {guest} link set eth0 up
             ip -n {guest} addr add 192.0.2.11/24 dev eth0
             ip -n {guest} addr add 2001:db8::11/64 dev eth0"
        ));
        lab
    }

    /// Starts `script` inside the guest and waits until it is there.
    fn run(&mut self, script: &str) -> u32 {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.guest, "sh", "-c", script]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let pid = child.id();
        self.processes.push(child);
        until("process is in the namespace", || self.pids().contains(&pid));
        pid
    }

    /// Puts `pid` into a new cgroup below `root`; `false` if there is no such hierarchy here.
    fn confine(&mut self, root: &str, file: &str, pid: u32) -> bool {
        let directory = Path::new(root).join(&self.guest);
        if fs::create_dir(&directory).is_err() {
            return false;
        }
        self.cgroup = Some(directory.clone());
        fs::write(directory.join("cgroup.procs"), pid.to_string()).unwrap();
        directory.join(file).exists()
    }

    fn pids(&self) -> Vec<u32> {
        processes::in_namespace(self.id()).unwrap()
    }

    /// Name and state of each process, for whoever reads why a test failed.
    fn states(&self) -> Vec<String> {
        let line = |pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        self.pids().into_iter().filter_map(line).map(|stat| stat.chars().take(40).collect()).collect()
    }

    fn id(&self) -> namespace::NamespaceId {
        Namespace::open(&self.guest).unwrap().unwrap().id
    }

    fn config(&self) -> NetnsConfig {
        let guest = NetnsGuest {
            name: "web1".to_owned(),
            netns: self.guest.clone(),
            cgroup: self.cgroup.clone(),
            port: None,
            mac: None,
        };
        NetnsConfig { name: "local".to_owned(), delay: Duration::ZERO, guests: vec![guest] }
    }

    fn connect(&self) -> (Netns, Events) {
        let (sender, receiver) = unbounded_channel();
        let netns = Netns::connect(self.config(), sender);
        let mut events = Events(receiver);
        assert_eq!(events.next(), HypervisorEvent::Connected);
        (netns, events)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.cgroup
            && let Ok(freezer) = Freezer::open(cgroup)
        {
            let _ = freezer.thaw();
        }
        // Until none is left: a kill may let a fork through that was under way.
        let killed = comes_true(|| {
            let pids = self.pids();
            for pid in &pids {
                let _ = processes::signal(self.id(), *pid, libc::SIGKILL);
            }
            pids.is_empty()
        });
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        if let Some(cgroup) = &self.cgroup {
            until("cgroup is empty", || fs::remove_dir(cgroup).is_ok());
        }
        sh(&format!("ip netns del {}; ip netns del {}", self.guest, self.host));
        assert!(killed || std::thread::panicking(), "processes of {} outlive their test", self.guest);
    }
}

struct Events(UnboundedReceiver<HypervisorEvent>);

impl Events {
    fn next(&mut self) -> HypervisorEvent {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let next = async { tokio::time::timeout(PATIENCE, self.0.recv()).await };
        runtime.block_on(next).expect("an event in time").unwrap()
    }

    fn next_power(&mut self) -> Power {
        match self.next() {
            HypervisorEvent::Power { guest, power } if guest == "web1" => power,
            other => panic!("{other:?}"),
        }
    }
}

fn sh(script: &str) {
    let script = format!("set -e\n{script}");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn until(what: &str, done: impl FnMut() -> bool) {
    assert!(comes_true(done), "{what}: not within {} s", PATIENCE.as_secs());
}

fn comes_true(mut done: impl FnMut() -> bool) -> bool {
    let deadline = clock::now() + PATIENCE;
    while !done() {
        if clock::now() > deadline {
            return false;
        }
        nap(Duration::from_millis(2));
    }
    true
}

fn refusal(result: Result<(), HypervisorError>) -> String {
    match result.unwrap_err() {
        HypervisorError::Refused { guest, why } if guest == "web1" => why,
        other => panic!("{other:?}"),
    }
}

/// Far beyond what anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

const PAUSED: Power = Power::Paused(PauseReason::User);

#[test]
fn processes_are_stopped_and_continued_by_signals() {
    let mut lab = Lab::new();
    lab.run("sleep 100 & sleep 100");
    let (netns, mut events) = lab.connect();
    assert_eq!(netns.inspect("web1").unwrap().power, Power::Running);

    netns.sleep("web1", Depth::Pause).unwrap();
    assert!(processes::all_stopped(&lab.pids()));
    assert_eq!(netns.inspect("web1").unwrap().power, PAUSED);
    assert_eq!(events.next_power(), PAUSED);
    netns.sleep("web1", Depth::Pause).unwrap();
    assert_eq!(events.next_power(), PAUSED, "a second sleep finds its work done");

    netns.restore("web1").unwrap();
    assert_eq!(netns.inspect("web1").unwrap().power, PAUSED, "restore is nothing for a namespace");
    netns.resume("web1").unwrap();
    assert!(!processes::all_stopped(&lab.pids()));
    assert_eq!(events.next_power(), Power::Running);
}

#[test]
fn nothing_escapes_by_forking_while_it_is_stopped() {
    let mut lab = Lab::new();
    for _ in 0..3 {
        lab.run("i=0; while [ $i -lt 100000 ]; do (: & /bin/true; :) & i=$((i+1)); wait; done");
    }
    let (netns, _events) = lab.connect();
    for round in 0..5 {
        netns.sleep("web1", Depth::Pause).unwrap();
        let stopped = lab.pids();
        assert!(processes::all_stopped(&stopped), "round {round}");
        nap(Duration::from_millis(20));
        assert_eq!(lab.pids(), stopped, "round {round}: nobody came, nobody went");
        netns.resume("web1").unwrap();
        let go_on = comes_true(|| lab.pids() != stopped);
        assert!(go_on, "round {round}: nobody forks any more: {:?}", lab.states());
    }
}

#[test]
fn the_processes_are_those_that_ip_netns_pids_lists() {
    let mut lab = Lab::new();
    lab.run("sleep 100 & sleep 100 & sleep 100");
    until("all four are there", || lab.pids().len() == 4);
    let output = Command::new("ip").args(["netns", "pids", &lab.guest]).output().unwrap();
    let mut listed: Vec<u32> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    listed.sort_unstable();
    let mut ours = lab.pids();
    ours.sort_unstable();
    assert_eq!(ours, listed);
}

fn freezes_and_thaws_by_cgroup(root: &str, file: &str) {
    let mut lab = Lab::new();
    let pid = lab.run("while :; do sleep 0.01; done");
    if !lab.confine(root, file, pid) {
        eprintln!("skipped: no {file} below {root}");
        return;
    }
    let (netns, mut events) = lab.connect();
    // A child that was born before its parent moved into the cgroup must have ended.
    until("all are in the cgroup", || netns.sleep("web1", Depth::Pause).is_ok());
    while events.next_power() != PAUSED {}
    assert_eq!(netns.inspect("web1").unwrap().power, PAUSED);
    let frozen = lab.pids();
    assert!(!processes::all_stopped(&frozen), "the processes see no signal");
    nap(Duration::from_millis(50));
    assert_eq!(lab.pids(), frozen);

    netns.resume("web1").unwrap();
    assert_eq!(events.next_power(), Power::Running);
    until("it works again", || lab.pids() != frozen);

    let outside = lab.run("exec sleep 100");
    let why = refusal(netns.sleep("web1", Depth::Pause));
    assert!(why.starts_with(&format!("process {outside} of")), "{why}");
    assert_eq!(netns.inspect("web1").unwrap().power, Power::Running, "a refused sleep leaves it running");
}

#[test]
fn a_version_1_freezer_freezes_and_thaws() {
    freezes_and_thaws_by_cgroup("/sys/fs/cgroup/freezer", "freezer.state");
}

#[test]
fn a_version_2_cgroup_freezes_and_thaws() {
    let unified = Path::new("/sys/fs/cgroup/unified");
    let root = if unified.is_dir() { unified } else { Path::new("/sys/fs/cgroup") };
    freezes_and_thaws_by_cgroup(root.to_str().unwrap(), "cgroup.freeze");
}

#[test]
fn what_others_do_to_the_processes_is_told() {
    let mut lab = Lab::new();
    let pid = lab.run("exec sleep 100");
    let (netns, mut events) = lab.connect();
    netns.sleep("web1", Depth::Pause).unwrap();
    assert_eq!(events.next_power(), PAUSED);
    sh(&format!("kill -CONT {pid}"));
    assert_eq!(events.next_power(), Power::Running);
    sh(&format!("kill -STOP {pid}"));
    assert_eq!(events.next_power(), PAUSED);
    sh(&format!("ip netns del {}", lab.guest));
    assert_eq!(events.next_power(), Power::Gone);
    sh(&format!("ip netns attach {} {pid}", lab.guest)); // back, for the clean-up
}

#[test]
fn what_cannot_be_done_is_refused_with_what_to_do() {
    let lab = Lab::new();
    let mut config = lab.config();
    config.guests.push(NetnsGuest {
        netns: "hyper-none".to_owned(),
        name: "web2".to_owned(),
        ..config.guests[0].clone()
    });
    config.guests.push(NetnsGuest {
        cgroup: Some("/sys/fs/cgroup/hyper-none".into()),
        name: "web3".to_owned(),
        ..config.guests[0].clone()
    });
    let (sender, _receiver) = unbounded_channel();
    let netns = Netns::connect(config, sender);

    assert!(refusal(netns.sleep("web1", Depth::Pause)).contains("no process runs in it; start its services"));
    assert!(refusal(netns.sleep("web1", Depth::Save)).contains("use depth \"pause\""));
    assert_eq!(netns.inspect("web1").unwrap().power, Power::Running);

    let missing = netns.sleep("web2", Depth::Pause).unwrap_err().to_string();
    assert_eq!(missing, "there is no network namespace \"hyper-none\" (`ip netns` lists those there are)");
    assert_eq!(netns.resume("web2").unwrap_err().to_string(), missing);
    assert_eq!(netns.statistics("web2").unwrap_err().to_string(), missing);
    let report = netns.inspect("web2").unwrap();
    assert_eq!((report.power, report.nics), (Power::Gone, vec![]));

    assert!(netns.sleep("web3", Depth::Pause).unwrap_err().to_string().contains("no cgroup at"));
    let all = netns.list().unwrap();
    assert_eq!(all.len(), 3, "a guest that cannot be read does not hide the others");
    assert!(all.iter().any(|report| report.busy.as_ref().is_some_and(|why| why.contains("no cgroup at"))));

    assert_eq!(
        netns.sleep("web4", Depth::Pause).unwrap_err(),
        HypervisorError::NoGuest { hypervisor: "local".to_owned(), guest: "web4".to_owned() }
    );
}

#[test]
fn neither_the_daemon_nor_what_started_it_is_ever_stopped() {
    let guest = Lab::new().config().guests.remove(0);
    for pid in [std::process::id(), std::os::unix::process::parent_id()] {
        assert!(matches!(refuse_own(&guest, &[1, pid]), Err(Trouble::Ourselves(_))));
    }
    assert!(refuse_own(&guest, &[]).is_ok());
}

#[test]
fn a_step_takes_as_long_as_the_delay_says() {
    let mut lab = Lab::new();
    lab.run("exec sleep 100");
    let (sender, _receiver) = unbounded_channel();
    let delay = Duration::from_millis(150);
    let netns = Netns::connect(NetnsConfig { delay, ..lab.config() }, sender);
    let mut before = clock::now();
    for step in [|n: &Netns| n.sleep("web1", Depth::Pause), |n: &Netns| n.resume("web1")] {
        step(&netns).unwrap();
        assert!(clock::now().since(before) >= delay);
        before = clock::now();
    }
    netns.restore("web1").unwrap();
    assert!(clock::now().since(before) < delay, "restore is not a step");
}

#[test]
fn a_nic_is_found_with_its_bridge_port_addresses_and_groups() {
    let lab = Lab::with_bridge();
    sh(&format!("ip -n {} addr add 239.1.2.3/32 dev eth0 autojoin", lab.guest));
    let (netns, _events) = lab.connect();
    let report = netns.inspect("web1").unwrap();
    assert_eq!(report.nics.len(), 1, "{:?}", report.nics);
    let nic = &report.nics[0];
    assert_eq!(nic.mac.unwrap().to_string(), "52:54:00:00:00:11");
    assert_eq!((nic.bridge.as_deref(), nic.port.as_deref(), &nic.refused), (Some("br0"), Some("p0"), &None));
    for (address, prefix_len) in [("192.0.2.11", 24), ("2001:db8::11", 64), ("fe80::5054:ff:fe00:11", 64)] {
        let address = InterfaceAddress { address: address.parse().unwrap(), prefix_len };
        assert!(nic.addresses.contains(&address), "{address:?} in {:?}", nic.addresses);
    }
    assert!(nic.groups.contains(&"239.1.2.3".parse().unwrap()), "{:?}", nic.groups);

    sh("bridge link set dev p0 isolated on");
    let refused = |netns: &Netns| netns.inspect("web1").unwrap().nics[0].refused.clone();
    assert_eq!(refused(&netns).as_deref(), Some("port p0 is isolated on bridge br0"));
    sh("ip link set p0 nomaster");
    assert_eq!(refused(&netns).as_deref(), Some("port p0 is on no bridge"));
}

#[test]
fn a_nic_that_leads_elsewhere_or_is_not_the_configured_one_is_refused() {
    let lab = Lab::with_bridge();
    sh(&format!(
        "ip netns add {0}2; ip -n {0} link add eth1 type veth peer name far netns {0}2
         ip link add link br0 name mv0 type macvlan; ip link set mv0 netns {0}
         ip -n {0} link add inner type veth peer name inner2",
        lab.guest
    ));
    let refusals = |port: &str, mac: u8| -> Vec<String> {
        let mut config = lab.config();
        config.guests[0].port = Some(port.to_owned());
        config.guests[0].mac = Some(Mac([0x52, 0x54, 0, 0, 0, mac]));
        let (sender, _receiver) = unbounded_channel();
        let nics = Netns::connect(config, sender).inspect("web1").unwrap().nics;
        nics.into_iter().filter_map(|nic| nic.refused).collect()
    };
    let elsewhere = ["the other end of eth1 is in another namespace", "mv0 is a macvlan, not a veth"];
    let mut found = refusals("p0", 0x11);
    found.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(found, elsewhere, "and nothing is said of the link that is wholly inside");
    let wrong_port = format!("port p9 is not the other end of a veth of namespace {}", lab.guest);
    assert!(refusals("p9", 0x11).contains(&wrong_port));
    let wrong_mac = format!("no NIC of namespace {} has the MAC address 52:54:00:00:00:99", lab.guest);
    assert!(refusals("p0", 0x99).contains(&wrong_mac));
    sh(&format!("ip netns del {}2", lab.guest));
}

#[test]
fn figures_count_what_the_guest_uses_and_receives() {
    let mut lab = Lab::with_bridge();
    let (netns, _events) = lab.connect();
    lab.run("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; exec sleep 100");
    let before = netns.statistics("web1").unwrap();
    // One way only, so that the two directions cannot be mistaken for each other.
    sh("ip neigh replace 192.0.2.11 lladdr 52:54:00:00:00:11 dev br0
        ping -q -c 20 -i 0.01 -W 1 192.0.2.11 > /dev/null
        ip neigh replace 192.0.2.12 lladdr 52:54:00:00:00:11 dev br0
        ping -q -c 30 -i 0.01 -W 1 192.0.2.12 > /dev/null || true");
    let after = netns.statistics("web1").unwrap();
    let (received, sent) = (after.rx_packets - before.rx_packets, after.tx_packets - before.tx_packets);
    assert!(received >= 50 && sent >= 20 && received > sent + 20, "received {received}, sent {sent}");
    until("work is counted", || netns.statistics("web1").unwrap().cpu > before.cpu);
}
