//! Whatever moment the daemon dies at, what is recorded is enough to put everything back.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use surrogate::io::journal::{Journal, JournalError};
use surrogate::io::netlink::Netlink;
use surrogate::io::steering::{Place, Steering};
use surrogate_house::deadline;

use crate::world::{GUEST, World};

const SNOOPING: &str = "mcast_snooping 1 mcast_querier 1";

pub(crate) fn world_with_groups() -> World {
    let world = World::new(SNOOPING);
    world.hypervisor.bridge(
        "link set dev g1 mcast_flood off\n\
         mdb add dev br0 port g1 grp 239.1.2.3 permanent\n\
         mdb add dev br0 port g1 grp ff02::1:ff00:11 temp",
    );
    world
}

#[test]
fn release_all_puts_back_everything_and_says_so() {
    let world = world_with_groups();
    let place = world.place();
    world.lose_surrogate_port();
    let before = world.tables();
    world.add_surrogate_port();
    let place = Place { surrogate_port: world.ifindex("sur0"), ..place };
    world.steering(async |steering| sleep(steering, &place).await);
    assert_ne!(world.tables(), before);
    world.lose_surrogate_port();

    let report = world.release_all();
    assert!(report.is_complete(), "{report}");
    let lines = report.to_string();
    assert_eq!(
        lines,
        "web1: port g1 enabled\n\
         web1: flooding and 2 multicast groups returned to port g1\n\
         web1: 2 multicast groups on br0 left\n\
         web1: 52:54:00:00:00:11 on br0 goes to g1 again"
    );
    assert_eq!(world.tables(), before);
    assert_eq!(world.release_all().to_string(), "nothing was recorded, nothing to release");
}

#[test]
fn release_all_copes_with_ports_and_bridges_that_are_gone() {
    for gone in ["g1", "br0"] {
        let world = world_with_groups();
        let place = world.place();
        world.steering(async |steering| sleep(steering, &place).await);
        world.hypervisor.ip(&format!("link del {gone}"));
        let report = world.release_all();
        assert!(report.is_complete(), "{report}");
        assert!(report.to_string().contains(" is gone, nothing to put back"), "{report}");
        assert_eq!(world.release_all().released.len(), 0);
        if gone == "g1" {
            // Our port is still there in this test: its entry must not keep frames from a new g1.
            assert_eq!(world.entries(GUEST), [""; 0]);
        }
    }
}

#[test]
fn release_all_takes_no_port_for_the_guests_by_its_name_alone() {
    let world = world_with_groups();
    let place = world.place();
    world.steering(async |steering| sleep(steering, &place).await);
    world.lose_surrogate_port();
    // The saved guest's name for a port is given to another guest.
    world.hypervisor.ip("link del g1");
    world.add_port("g1", "flood off");
    let before = world.tables();
    assert!(world.release_all().is_complete());
    assert_eq!(world.tables(), before);
}

#[test]
fn a_guest_given_up_while_the_daemon_runs_leaves_no_group_at_its_port() {
    let world = world_with_groups();
    let (before, place) = (world.tables(), world.place());
    world.steering(async |steering| {
        sleep(steering, &place).await;
        assert_eq!(world.groups("sur0").len(), 2);
        let report = steering.reconcile(|_| false).await;
        assert!(report.is_complete(), "{report}");
    });
    assert_eq!(world.tables(), before);
}

#[test]
fn release_all_leaves_a_state_directory_in_use_alone() {
    let world = World::new("");
    world.steering(async |_| {
        let locked = Journal::open(world.state_dir.path()).unwrap_err();
        assert!(matches!(locked, JournalError::Locked(_)), "{locked}");
        assert!(locked.to_string().ends_with("is in use by a running daemon"), "{locked}");
    });
}

#[test]
fn a_restarted_daemon_puts_back_only_what_it_no_longer_wants() {
    let world = world_with_groups();
    let before = world.tables();
    let place = world.place();
    world.steering(async |steering| sleep(steering, &place).await);
    world.lose_surrogate_port();
    world.add_surrogate_port();
    let place = Place { surrogate_port: world.ifindex("sur0"), ..place };
    let sorted = |mut tables: Vec<String>| {
        // A new port has another number.
        for line in &mut tables {
            *line = line.split_once(": ").map_or(&**line, |(_, rest)| rest).to_owned();
        }
        tables.sort();
        tables
    };
    world.steering(async |steering| {
        assert!(steering.reconcile(|guest| guest == "web1").await.released.is_empty());
        // The sleeper is taken up again, and what it was before is not forgotten over that.
        sleep(steering, &place).await;
        wake(steering, &place).await;
    });
    assert_eq!(sorted(world.tables()), sorted(before.clone()));
    world.steering(async |steering| {
        sleep(steering, &place).await;
        steering.return_floods(&place, Some("g1")).await.unwrap();
        assert!(steering.reconcile(|_| false).await.is_complete());
    });
    assert_eq!(sorted(world.tables()), sorted(before));
}

/// The change fails (our port is on no bridge, spanning tree owns the state), its record is written.
#[test]
fn what_was_recorded_and_then_not_changed_is_put_back_to_itself() {
    let world = world_with_groups();
    world.lose_surrogate_port();
    world.hypervisor.ip("link set br0 type bridge stp_state 1");
    let before = world.tables();
    let place = Place { surrogate_port: world.ifindex("c1-in"), ..place_without_port() };
    let mut daemon = daemon(&world, &place, "record-only");
    // It says that it has written all three records, and waits to be killed.
    wait_for_lines(&mut daemon, 3);
    daemon.kill().unwrap();
    daemon.wait().unwrap();

    assert_eq!(world.tables(), before, "something was changed");
    let report = world.release_all();
    let state_refused = report.released.iter().filter(|released| released.failed.is_some()).count();
    assert_eq!(state_refused, 1, "spanning tree is still on: {report}");
    world.hypervisor.ip("link set br0 type bridge stp_state 0");
    assert!(world.release_all().is_complete());
    world.hypervisor.ip("link set br0 type bridge stp_state 1");
    assert_eq!(world.tables(), before);
}

#[test]
fn a_daemon_killed_at_any_moment_leaves_nothing_that_cannot_be_put_back() {
    let world = world_with_groups();
    world.lose_surrogate_port();
    let before = world.tables();
    let (mut round, mut interrupted) = (0, 0);
    while round < 16 || (interrupted < 8 && round < 100) {
        world.add_surrogate_port();
        let place = Place { surrogate_port: world.ifindex("sur0"), ..place_without_port() };
        let mut daemon = daemon(&world, &place, "loop");
        wait_for_lines(&mut daemon, 1 + round % 9);
        deadline::pause(Duration::from_micros(u64::from(round) * 173 % 2_000));
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        world.lose_surrogate_port();
        interrupted += usize::from(world.tables() != before);
        let report = world.release_all();
        assert!(report.is_complete(), "round {round}: {report}");
        assert_eq!(world.tables(), before, "round {round}: {report}");
        round += 1;
    }
    println!("{interrupted} of {round} were killed amid a change");
    assert!(interrupted >= 8, "hardly any kill hit a change: the test shows little");
}

pub(crate) async fn sleep(steering: &Steering, place: &Place) {
    steering.steer(place, Some("g1")).await.unwrap();
    steering.take_floods(place, "g1").await.unwrap();
    steering.disable_port(place, "g1").await.unwrap();
}

pub(crate) async fn wake(steering: &Steering, place: &Place) {
    steering.enable_port(place, "g1").await.unwrap();
    steering.return_floods(place, Some("g1")).await.unwrap();
    steering.release(place, "g1").await.unwrap();
}

fn place_without_port() -> Place {
    Place {
        guest: "web1".to_owned(),
        mac: GUEST,
        vlan: None,
        bridge: "br0".to_owned(),
        surrogate_port: 0,
        addresses: vec!["2001:db8::11".parse().unwrap()],
        groups: Vec::new(),
    }
}

/// This test binary again, as the daemon that is going to be killed.
fn daemon(world: &World, place: &Place, task: &str) -> std::process::Child {
    let mut command: Command = world.hypervisor.command(std::env::current_exe().unwrap());
    command
        .args(["--exact", "crash::as_the_daemon", "--nocapture", "--test-threads=1"])
        .env(TASK, task)
        .env(STATE_DIR, world.state_dir.path())
        .env(PORT, place.surrogate_port.to_string())
        .stdout(Stdio::piped());
    command.spawn().unwrap()
}

fn wait_for_lines(daemon: &mut std::process::Child, wanted: u32) {
    let lines = BufReader::new(daemon.stdout.as_mut().unwrap()).lines();
    let seen = lines.map_while(Result::ok).filter(|line| line.ends_with(DONE)).take(wanted as usize).count();
    assert_eq!(seen, wanted as usize, "the daemon ended by itself");
}

/// Not a test of its own: what [`daemon`] runs.
#[test]
fn as_the_daemon() {
    let Ok(task) = std::env::var(TASK) else { return };
    let state_dir = std::env::var_os(STATE_DIR).unwrap();
    let port = std::env::var(PORT).unwrap().parse().unwrap();
    let place = Place { surrogate_port: port, ..place_without_port() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let journal = Arc::new(Journal::open(state_dir.as_ref()).unwrap());
        let steering = Steering::new(Netlink::connect().unwrap(), journal);
        if task == "record-only" {
            steering.steer(&place, Some("g1")).await.unwrap_err();
            say_done();
            steering.take_floods(&place, "g1").await.unwrap_err();
            say_done();
            steering.disable_port(&place, "g1").await.unwrap_err();
            say_done();
            std::future::pending::<()>().await;
        }
        loop {
            sleep(&steering, &place).await;
            say_done();
            wake(&steering, &place).await;
            say_done();
        }
    });
}

fn say_done() {
    println!("{DONE}");
    std::io::stdout().flush().unwrap();
}

const TASK: &str = "SURROGATE_TEST_TASK";
const STATE_DIR: &str = "SURROGATE_TEST_STATE_DIR";
const PORT: &str = "SURROGATE_TEST_PORT";
const DONE: &str = "done";
