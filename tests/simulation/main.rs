//! A seeded world around the engine and the lifecycle: bridge, clients, guests, a hypervisor, a daemon that
//! may die, and much that goes wrong. What must always hold is checked after every step.
//!
//! ```text
//! cargo test --test simulation                                        1,000 seeds of 2,000 steps
//! SURROGATE_SEEDS=100000 cargo test --test simulation                 more of them
//! SURROGATE_SEED=1234 cargo test --test simulation -- --nocapture     one, and its story
//! ```

mod bridge;
mod client;
mod daemon;
mod dice;
mod frames;
mod guest;
mod hypervisor;
mod invariants;
mod ledger;
mod orders;
mod setup;
mod steering;
mod tally;
mod thread;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use dice::Fault;
use tally::Tally;
use world::{Outcome, World};

const SEEDS: u64 = 1_000;
const STEPS: u64 = 2_000;

#[test]
fn whatever_happens_no_frame_is_lost_and_no_guest_is_spoken_over() {
    if let Some(seed) = number("SURROGATE_SEED") {
        return tell(seed);
    }
    let seeds = number("SURROGATE_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let tallies: Vec<(Tally, u64, Option<u64>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| live_through(&next, seeds))).collect();
        workers.into_iter().map(|worker| worker.join().expect("seeds do not panic out here")).collect()
    });
    if let Some(seed) = tallies.iter().filter_map(|(.., failed)| *failed).min() {
        tell(seed);
        panic!("seed {seed} failed among others, but not alone: it depends on more than its seed");
    }
    let steps: u64 = tallies.iter().map(|(_, steps, _)| steps).sum();
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(|(tally, ..)| of(tally)).sum::<u64>();
    println!(
        "{seeds} seeds, {steps} steps: {} frames, {} answers, {} for other sleepers; {} held, {} answered late, \
         {} aged, {} delivered, {} to second NICs, {} overtaken, {} twice, {} refusals, {} lost with a daemon; \
         {} sleeps, {} aborted, {} ends of a wake, {} stranded",
        sum(|t| t.frames),
        sum(|t| t.answers),
        sum(|t| t.re_entered),
        sum(|t| t.held),
        sum(|t| t.reclassified),
        sum(|t| t.aged),
        sum(|t| t.delivered),
        sum(|t| t.second_nic),
        sum(|t| t.overtaken),
        sum(|t| t.twice),
        sum(|t| t.refused),
        sum(|t| t.lost_with_daemon),
        sum(|t| t.sleeps),
        sum(|t| t.aborted),
        sum(|t| t.wakes),
        sum(|t| t.stranded),
    );
    // A world in which nothing happens proves nothing.
    assert!(sum(|t| t.sleeps) > seeds, "guests sleep");
    assert!(sum(|t| t.answers) > seeds, "sleepers are answered for");
    assert!(sum(|t| t.delivered) > seeds, "frames are held and replayed");
    for (what, count) in [
        ("a second NIC's frames are delivered", sum(|t| t.second_nic)),
        ("sleepers hear each other", sum(|t| t.re_entered)),
        ("held frames are answered late", sum(|t| t.reclassified)),
        ("frames grow too old", sum(|t| t.aged)),
        ("frames are overtaken", sum(|t| t.overtaken)),
        ("a guest's port refuses frames", sum(|t| t.refused)),
        ("sleeps are aborted", sum(|t| t.aborted)),
        ("guests are stranded", sum(|t| t.stranded)),
    ] {
        assert!(count >= seeds / 200, "{what}: only {count} times");
    }
    for (fault, _) in Fault::ALL {
        let count: u64 = tallies.iter().map(|(tally, ..)| tally.faults[fault as usize]).sum();
        println!("  {fault:?}: {count}");
        assert!(count >= seeds / 100, "{fault:?} struck only {count} times");
    }
}

#[test]
fn a_seed_is_one_history() {
    for seed in 0..20 {
        let (once, again) = (World::history(seed, STEPS, false), World::history(seed, STEPS, true));
        assert_eq!((once.hash, once.steps), (again.hash, again.steps), "seed {seed}");
    }
}

/// Takes seeds until one fails or none is left.
fn live_through(next: &AtomicU64, seeds: u64) -> (Tally, u64, Option<u64>) {
    let (mut sum, mut steps) = (Tally::default(), 0);
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds {
            return (sum, steps, None);
        }
        match catch_unwind(|| World::history(seed, STEPS, false)) {
            Ok(Outcome { violation: None, tally, steps: took, .. }) => {
                sum.add(&tally);
                steps += took;
            }
            _ => {
                // The others may stop, a lower seed may still be under way.
                next.store(seeds, Ordering::Relaxed);
                return (sum, steps, Some(seed));
            }
        }
    }
}

/// Lives through one seed and tells the end of its story if it is a bad one.
fn tell(seed: u64) {
    let again = format!("again: SURROGATE_SEED={seed} cargo test --test simulation -- --nocapture");
    let told = catch_unwind(AssertUnwindSafe(|| World::history(seed, STEPS, true)));
    match told {
        Ok(Outcome { violation: Some((why, story)), steps, .. }) => {
            for line in story {
                println!("{line}");
            }
            panic!("seed {seed}, step {steps}: {why}\n{again}");
        }
        Ok(outcome) => println!("seed {seed}: all is well: {outcome:?}"),
        Err(_) => panic!("seed {seed}: a panic, see above\n{again}"),
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
