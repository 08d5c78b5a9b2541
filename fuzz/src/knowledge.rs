//! What was learned of a guest, as it comes back from a disk: JSON of another version, or damaged. Whatever it says,
//! the engine takes it, sleeps, hears and speaks within its limits.

use std::time::Duration;

use surrogate::engine::Knowledge;

use crate::engine::World;
use crate::lan;

pub(crate) fn run(data: &[u8]) -> bool {
    let Ok(knowledge) = serde_json::from_slice::<Knowledge>(data) else { return false };
    let mut world = World::new();
    world.sleep_knowing(knowledge);
    for frame in lan::captured().iter().step_by(7) {
        world.hear(frame);
        world.wait(Duration::from_secs(20));
    }
    // What was taken can be kept again.
    let again = serde_json::to_vec(&world.known()).expect("plain values");
    assert!(serde_json::from_slice::<Knowledge>(&again).is_ok(), "{}", String::from_utf8_lossy(&again));
    true
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut world = World::new();
    let mut seeds = vec![b"{}".to_vec()];
    for frames in lan::captured().chunks(16) {
        for frame in frames {
            world.learn(frame);
        }
        seeds.push(serde_json::to_vec(&world.known()).expect("plain values"));
    }
    seeds.sort();
    seeds.dedup();
    seeds
}
