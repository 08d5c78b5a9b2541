//! Sleeps at random moments under traffic: no client may ever fail.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use surrogate_house::clients::{Echo, Ssh, curl};
use surrogate_house::deadline::pause;
use surrogate_house::lab::{LISTEN, Lab};
use surrogate_house::until;

const PATIENCE: Duration = Duration::from_secs(30);
/// Of two guests at a time.
const SLEEPS: u32 = 200;
const GUESTS: u8 = 2;

/// Pauses of irregular length, the same in every run.
struct Irregular(u64);

impl Irregular {
    fn pause(&mut self, most: u64) {
        // Knuth's MMIX generator; the high bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        pause(Duration::from_millis((self.0 >> 33) % most));
    }
}

#[test]
fn no_client_fails_over_two_hundred_sleeps_at_random_moments() {
    let lab = Lab::new(GUESTS, "", LISTEN);
    let network = &lab.network;
    let stop = AtomicBool::new(false);
    let (pages, lines, words) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let running = || !stop.load(Ordering::Relaxed);

    let (slept, refused) = std::thread::scope(|scope| {
        // Ends the clients whatever becomes of this thread, or the scope would wait for ever.
        struct Stop<'s>(&'s AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stopping = Stop(&stop);
        let pairs = lab.guests.iter().flat_map(|guest| [(guest, &network.c1), (guest, &network.c2)]);
        for (seed, (guest, client)) in (1..).zip(pairs) {
            let (pages, lines, words) = (&pages, &lines, &words);
            scope.spawn(move || {
                let mut irregular = Irregular(seed);
                while running() {
                    let page = curl(client, guest.v4).unwrap_or_else(|error| panic!("curl: {error}"));
                    assert_eq!(page.body, guest.page());
                    pages.fetch_add(1, Ordering::Relaxed);
                    irregular.pause(3000);
                }
            });
            scope.spawn(move || {
                let mut irregular = Irregular(seed + 10);
                let mut echo = Echo::open(client, guest.v6, PATIENCE).unwrap();
                while running() {
                    let line = format!("line {}", lines.fetch_add(1, Ordering::Relaxed));
                    echo.say(&line).unwrap_or_else(|error| panic!("echo: {line}: {error}"));
                    irregular.pause(3000);
                }
            });
            scope.spawn(move || {
                let mut irregular = Irregular(seed + 20);
                let mut ssh = Ssh::open(client, guest.v4, &guest.ssh_key());
                while running() {
                    let word = format!("word {}", words.fetch_add(1, Ordering::Relaxed));
                    ssh.say(&word, PATIENCE).unwrap_or_else(|error| panic!("ssh: {error}"));
                    irregular.pause(3000);
                }
            });
        }
        let sleepers = lab.guests.iter().map(|guest| {
            scope.spawn(|| {
                let mut irregular = Irregular(42);
                let (mut slept, mut refused) = (0, 0);
                while slept + refused < SLEEPS / u32::from(GUESTS) {
                    let outcome = lab.daemon.cli(&["sleep", &guest.name, "--json"]);
                    if outcome.status.success() {
                        slept += 1;
                    } else {
                        // Traffic aborted it, and the command said so in one line.
                        assert_eq!(outcome.errors.trim().lines().count(), 1, "{outcome:?}");
                        refused += 1;
                    }
                    irregular.pause(100);
                }
                (slept, refused)
            })
        });
        let sleepers: Vec<_> = sleepers.collect();
        let counts: Vec<(u32, u32)> = sleepers.into_iter().map(|sleeper| sleeper.join().unwrap()).collect();
        drop(stopping);
        (
            counts.iter().map(|(slept, _)| slept).sum::<u32>(),
            counts.iter().map(|(_, refused)| refused).sum::<u32>(),
        )
    });
    println!(
        "{slept} sleeps reached, {refused} aborted by traffic; {} pages, {} lines, {} words, no failure",
        pages.load(Ordering::Relaxed),
        lines.load(Ordering::Relaxed),
        words.load(Ordering::Relaxed)
    );
    assert!(slept >= SLEEPS / 4, "only {slept} of {SLEEPS} sleeps were reached");
    assert!(pages.load(Ordering::Relaxed) > 20);
    for guest in &lab.guests {
        lab.daemon.wake(&guest.name);
        until("the guest to be awake", PATIENCE, || lab.daemon.state(&guest.name) == "awake");
        let counters = &lab.daemon.status(&guest.name)["nics"][0]["counters"];
        assert_eq!(counters["holding"], 0, "{counters}");
    }
    lab.daemon.assert_conserved();
}
