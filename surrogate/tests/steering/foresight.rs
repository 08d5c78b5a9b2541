//! What a cycle will change is recorded before it begins: while the guest's frames are held nothing waits for
//! the disk.

use std::fs;
use std::sync::Arc;

use surrogate::guest::lifecycle::Intent;
use surrogate::hypervisor::Depth;
use surrogate::io::journal::{GuestRecord, Journal};
use surrogate::io::steering::{Place, Steering};

use crate::crash::{sleep, wake, world_with_groups};
use crate::world::World;

/// Begins a cycle as the daemon does, then goes on with `rest`.
fn cycle(world: &World, place: &Place, rest: impl AsyncFnOnce(&Steering, &Journal) + Send) {
    let journal = Arc::new(Journal::open(world.state_dir.path()).unwrap());
    world.netlink(async move |netlink| {
        let steering = Steering::new(netlink.clone(), Arc::clone(&journal));
        let changes = steering.foresee(place, Some("g1"), true).await;
        assert_eq!(changes.len(), 4, "{changes:?}");
        journal.put_cycle(&record(), &changes).unwrap();
        rest(&steering, &journal).await;
    });
}

fn record() -> GuestRecord {
    GuestRecord {
        name: "web1".to_owned(),
        hypervisor: "local".to_owned(),
        epoch: 1,
        slept_by_us: true,
        depth: Some(Depth::Pause),
        intent: Intent::Sleep,
        since_unix_ms: 0,
    }
}

#[test]
fn no_step_of_a_cycle_writes_what_was_foreseen() {
    let world = world_with_groups();
    let (before, place) = (world.tables(), world.place());
    cycle(&world, &place, async |steering, journal| {
        let (file, foreseen) = (fs::read(journal.path()).unwrap(), journal.changes());
        sleep(steering, &place).await;
        assert_eq!(journal.changes(), foreseen);
        assert!(fs::read(journal.path()).unwrap() == file, "a step wrote to the journal");
        wake(steering, &place).await;
        steering.came_to_nothing(&place);
        assert_eq!(journal.changes(), []);
    });
    assert_eq!(world.tables(), before);
}

#[test]
fn what_changed_since_it_was_foreseen_is_recorded_before_it_is_taken() {
    let world = world_with_groups();
    let place = world.place();
    world.hypervisor.bridge("mdb del dev br0 port g1 grp 239.1.2.3 permanent");
    cycle(&world, &place, async |steering, journal| {
        let foreseen = journal.changes();
        world.hypervisor.bridge("mdb add dev br0 port g1 grp 239.1.2.3 permanent");
        let joined = world.tables();
        sleep(steering, &place).await;
        assert_ne!(journal.changes(), foreseen);
        wake(steering, &place).await;
        assert_eq!(world.tables(), joined);
    });
}

#[test]
fn a_cycle_that_is_aborted_leaves_no_record() {
    let world = world_with_groups();
    let (before, place) = (world.tables(), world.place());
    cycle(&world, &place, async |steering, journal| {
        steering.steer(&place, Some("g1")).await.unwrap();
        steering.release(&place, "g1").await.unwrap();
        assert_eq!(journal.changes().len(), 3, "floods, groups and the port's state are foreseen still");
        steering.came_to_nothing(&place);
        assert_eq!(journal.changes(), []);
    });
    assert_eq!(world.tables(), before);
    assert_eq!(Journal::open(world.state_dir.path()).unwrap().changes(), []);
}

#[test]
fn what_an_earlier_daemon_changed_is_not_taken_for_foreseen() {
    let world = world_with_groups();
    let (before, place) = (world.tables(), world.place());
    world.steering(async |steering| sleep(steering, &place).await);
    cycle(&world, &place, async |steering, journal| {
        steering.came_to_nothing(&place);
        assert_eq!(journal.changes().len(), 4);
    });
    assert!(world.release_all().is_complete());
    assert_eq!(world.tables(), before);
}
