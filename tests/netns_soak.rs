//! Long connections: a thousand of them to fifty sleepers, kept alive by the clients' kernels every second, for
//! as long as `SOAK_SECONDS` says (90 here, 600 by `make soak`); then data flows both ways on each.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use surrogate_house::deadline::pause;
use surrogate_house::lab::LISTEN;
use surrogate_house::{
    Config, Connections, Daemon, Deadline, Namespace, NetnsGuest, Network, services, until,
};

const GUESTS: u8 = 50;
/// To each guest, from each of two clients.
const CONNECTIONS: usize = 10;
/// An operator's script would not begin all of them in one moment.
const SLEEPS_AT_ONCE: usize = 4;
const PATIENCE: Duration = Duration::from_secs(120);

fn soak() -> Duration {
    let seconds = std::env::var("SOAK_SECONDS").map(|text| text.parse().expect("SOAK_SECONDS in seconds"));
    Duration::from_secs(seconds.unwrap_or(90))
}

/// Guests differ in what their TCP agrees to: timestamps, window scaling, selective acknowledgement.
fn set_tcp_options(namespace: &Namespace, number: u8) {
    namespace.enter(|| {
        for (bit, key) in ["tcp_timestamps", "tcp_window_scaling", "tcp_sack"].into_iter().enumerate() {
            let value = if number >> bit & 1 == 0 { "1" } else { "0" };
            std::fs::write(format!("/proc/sys/net/ipv4/{key}"), value).unwrap();
        }
    });
}

#[test]
fn a_thousand_connections_to_fifty_sleepers_outlast_the_sleep() {
    let network = Network::new();
    let guests: Vec<_> = (1..=GUESTS)
        .map(|number| {
            let guest = NetnsGuest::bare(&network, number);
            set_tcp_options(&guest.namespace, number);
            services::echo_for_many(&guest.namespace);
            guest
        })
        .collect();
    let config =
        guests.iter().fold(Config::netns("", ""), |config, guest| config.with(&guest.section(LISTEN)));
    let daemon = Daemon::start(&network.hypervisor, &config);

    let mut held: Vec<Connections> = [&network.c1, &network.c2]
        .into_iter()
        .map(|client| {
            let of = |guest: &NetnsGuest| {
                (0..CONNECTIONS)
                    .map(|n| SocketAddr::new(if n % 2 == 0 { guest.v4 } else { guest.v6 }, 7))
                    .collect()
            };
            let to: Vec<SocketAddr> = guests.iter().flat_map(|guest| -> Vec<_> { of(guest) }).collect();
            Connections::open(client, &to)
        })
        .collect();
    let connections: usize = held.iter().map(Connections::count).sum();
    assert_eq!(connections, 1_000);
    held.iter_mut().for_each(|connections| connections.say("before the sleep"));
    let left = Mutex::new(guests.iter());
    let next = || left.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..SLEEPS_AT_ONCE {
            scope.spawn(|| {
                while let Some(guest) = next() {
                    daemon.sleep(&guest.name);
                }
            });
        }
    });

    let end = Deadline::after(soak());
    while !end.passed() {
        pause(Duration::from_secs(1));
        let broken: Vec<_> = held.iter().flat_map(Connections::broken).collect();
        assert!(broken.is_empty(), "{} broke: {:#?}", broken.len(), broken.first());
    }
    for guest in &guests {
        let status = daemon.status(&guest.name);
        assert_eq!((&status["state"], &status["wakes"]), (&"asleep".into(), &0.into()), "{status:#}");
    }
    // Each connection asked once a second: what was answered, with room for a busy machine.
    let kept = daemon.metrics().sum("surrogate_frames_answered_total", &[("by", "keep-alive")]);
    let asked = soak().as_secs_f64() * connections as f64;
    assert!(kept > asked / 3.0, "{kept} keep-alives answered, of some {asked}");

    held.iter_mut().for_each(|connections| connections.say("and after it"));
    until("everybody to be awake", PATIENCE, || {
        guests.iter().all(|guest| daemon.state(&guest.name) == "awake")
    });
    held.iter_mut().for_each(|connections| connections.say("awake"));
    println!("{connections} connections, {:?} asleep, {kept} keep-alives answered", soak());
}
