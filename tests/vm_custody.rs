//! Long connections to a real virtual machine: its peers' kernels ask every second whether it is there, while it is
//! paused, and while it is saved to disk with no QEMU process at all. Of two clients: one agrees to timestamps, window
//! scaling and selective acknowledgement, the other to none of them.

use std::net::SocketAddr;
use std::time::Duration;

use surrogate_house::deadline::pause;
use surrogate_house::lab::LISTEN;
use surrogate_house::{Config, Connections, Daemon, Machine, VirtualLab, until};

const PATIENCE: Duration = Duration::from_secs(60);
/// Five unanswered questions would end a connection.
const ASLEEP: Duration = Duration::from_secs(12);

/// How long the machine is saved: `SOAK_SECONDS`, if it is given.
fn soak() -> Duration {
    let seconds = std::env::var("SOAK_SECONDS").map(|text| text.parse().expect("SOAK_SECONDS in seconds"));
    seconds.map_or(ASLEEP, Duration::from_secs)
}

fn lab(defaults: &str) -> (Daemon, Machine, VirtualLab) {
    let lab = VirtualLab::new();
    let vm = lab.boot(1);
    let config = Config::libvirt(&lab.uri(), defaults).with(&vm.section(LISTEN));
    let daemon = Daemon::start(&lab.network.hypervisor, &config);
    (daemon, vm, lab)
}

/// Connections of both clients, each over both families.
struct Held([Connections; 2]);

impl Held {
    fn open(lab: &VirtualLab, vm: &Machine) -> Self {
        let [c1, c2] = [&lab.network.c1, &lab.network.c2];
        for key in ["tcp_timestamps", "tcp_window_scaling", "tcp_sack"] {
            c2.run("sysctl", &["-q", "-w", &format!("net.ipv4.{key}=0")]);
        }
        let to = [vm.v4, vm.v6].map(|address| SocketAddr::new(address, 7));
        let mut held = Self([c2, c1].map(|client| Connections::open(client, &to)));
        held.say("before");
        held
    }

    fn say(&mut self, word: &str) {
        self.0.iter_mut().for_each(|connections| connections.say(word));
    }

    fn count(&self) -> usize {
        self.0.iter().map(Connections::count).sum()
    }

    /// The machine sleeps on, and nobody's connection breaks.
    #[track_caller]
    fn is_kept_alive(&self, daemon: &Daemon, vm: &Machine, asleep: Duration) {
        let kept = || daemon.metrics().sum("surrogate_frames_answered_total", &[("by", "keep-alive")]);
        let before = kept();
        pause(asleep);
        assert_eq!(self.0.iter().flat_map(Connections::broken).collect::<Vec<_>>(), Vec::<String>::new());
        assert_eq!(daemon.state(&vm.name), "asleep", "{:#}", daemon.status(&vm.name));
        let answered = kept() - before;
        println!("{} connections, {asleep:?} asleep, {answered} keep-alives answered", self.count());
        assert!(
            answered >= self.count() as f64 * asleep.as_secs_f64() / 3.0,
            "{answered} keep-alives answered"
        );
    }

    #[track_caller]
    fn speaks_again(&mut self, daemon: &Daemon, vm: &Machine) {
        self.say("after it");
        until("the guest to be awake", PATIENCE, || daemon.state(&vm.name) == "awake");
        self.say("awake");
        daemon.assert_conserved();
    }
}

#[test]
fn connections_outlast_a_pause() {
    let (daemon, vm, lab) = lab("");
    let mut held = Held::open(&lab, &vm);
    lab.wait_for_rest();
    daemon.sleep(&vm.name);
    assert_eq!(lab.domstate(&vm.name), "paused (user)");
    held.is_kept_alive(&daemon, &vm, ASLEEP);
    assert_eq!(lab.domstate(&vm.name), "paused (user)");
    held.speaks_again(&daemon, &vm);
}

#[test]
fn connections_outlast_a_managed_save_and_the_daemon_s_end() {
    let (mut daemon, vm, lab) = lab("depth = \"save\"");
    let mut held = Held::open(&lab, &vm);
    lab.wait_for_rest();
    daemon.sleep(&vm.name);
    assert_eq!(lab.qemus(), [0u32; 0]);
    held.is_kept_alive(&daemon, &vm, soak());
    // What was learned of them is on the disk.
    daemon.kill();
    daemon.launch(&lab.network.hypervisor);
    until("the sleeper to be stood in for", PATIENCE, || daemon.state(&vm.name) == "asleep");
    held.is_kept_alive(&daemon, &vm, ASLEEP);
    assert_eq!(lab.qemus(), [0u32; 0], "a keep-alive does not wake it");
    held.speaks_again(&daemon, &vm);
}
