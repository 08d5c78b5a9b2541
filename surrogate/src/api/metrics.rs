//! The metrics text, OpenMetrics as Prometheus reads it.
//!
//! Rendered from the same [`GuestStatus`] that the API shows, so the two cannot disagree. Names are
//! `surrogate_*`; every frame counter is per guest and NIC, and each equation of the engine's
//! [`Counters`](crate::engine::Counters) can be checked with the series as they are.

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::messages::{GuestStatus, NicStatus};
use crate::custody::CustodyCounters;
use crate::engine::verdict::{Answered, DropReason};
use crate::io::observe;
use crate::io::process::ProcessFigures;

/// What `Content-Type` the text has.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The states a guest can be in, as in [`GuestStatus::state`].
const STATES: [&str; 7] = ["awake", "settling", "asleep", "waking", "replaying", "stranded", "unmanaged"];

type Labels = Vec<(&'static str, String)>;

/// What a surrogate port has seen, whomever it concerned.
#[derive(Clone, Debug, Default)]
pub struct PortFigures {
    /// The bridge it is on.
    pub bridge: String,
    /// Frames read from the port.
    pub received: u64,
    /// Frames that concerned no sleeper.
    pub foreign: u64,
    /// Frames of ours that the port took.
    pub transmitted: u64,
    /// Frames of ours that it did not take.
    pub transmit_failed: u64,
    /// Frames that the kernel discarded because we did not read them in time.
    pub kernel_drops: u64,
    /// What awake guests on that bridge were observed by.
    pub observed: observe::Numbers,
}

/// Renders the text for `guests` and `ports` as they are now, and this process.
#[must_use]
pub fn render(guests: &[GuestStatus], ports: &[PortFigures]) -> String {
    render_with(guests, ports, &ProcessFigures::read())
}

fn render_with(guests: &[GuestStatus], ports: &[PortFigures], process: &ProcessFigures) -> String {
    let mut registry = Registry::default();
    build(&mut registry);
    states(&mut registry, guests);
    frames(&mut registry, guests);
    connections(&mut registry, guests);
    port_figures(&mut registry, ports);
    figures(&mut registry, process);
    let mut text = String::new();
    // Writing into a String cannot fail; a scrape gets what was written until then in any case.
    let _ = text::encode(&mut text, &registry);
    text
}

fn build(registry: &mut Registry) {
    let info = vec![("version", env!("CARGO_PKG_VERSION"))];
    registry.register(
        "surrogate_build",
        "The running version",
        prometheus_client::metrics::info::Info::new(info),
    );
}

fn port_figures(registry: &mut Registry, ports: &[PortFigures]) {
    type Figure = fn(&PortFigures) -> u64;
    let figures: [(&str, &str, Figure); 8] = [
        ("surrogate_port_received", "Frames read from the surrogate port", |p| p.received),
        ("surrogate_port_foreign", "Frames that concerned no sleeper", |p| p.foreign),
        ("surrogate_port_transmitted", "Frames of ours that the port took", |p| p.transmitted),
        ("surrogate_port_transmit_failed", "Frames of ours that it did not take", |p| p.transmit_failed),
        ("surrogate_port_kernel_drops", "Frames lost because they were not read in time", |p| p.kernel_drops),
        ("surrogate_observed_drops", "Such frames lost because they were not read in time", |p| {
            p.observed.dropped
        }),
        (
            "surrogate_observed_too_busy",
            "Idle guests that turned out to be too busy to be watched closely",
            |p| p.observed.too_busy,
        ),
        ("surrogate_observed_pauses", "Times that a guest was too busy to be observed for a while", |p| {
            p.observed.paused
        }),
    ];
    for (name, help, figure) in figures {
        let family = Family::<Labels, Counter>::default();
        for port in ports {
            family.get_or_create(&vec![("bridge", port.bridge.clone())]).inc_by(figure(port));
        }
        registry.register(name, help, family);
    }
}

fn states(registry: &mut Registry, guests: &[GuestStatus]) {
    let state = Family::<Labels, Gauge>::default();
    let sleeps = Family::<Labels, Counter>::default();
    let wakes = Family::<Labels, Counter>::default();
    let asleep = Family::<Labels, Counter<f64, std::sync::atomic::AtomicU64>>::default();
    for guest in guests {
        let name = || ("guest", guest.name.clone());
        for known in STATES {
            let labels = vec![name(), ("state", known.to_owned())];
            state.get_or_create(&labels).set(i64::from(guest.state == known));
        }
        let labels = vec![name()];
        sleeps.get_or_create(&labels).inc_by(guest.sleeps);
        wakes.get_or_create(&labels).inc_by(guest.wakes);
        #[expect(clippy::cast_precision_loss, reason = "exact to the millisecond for 285,000 years")]
        asleep.get_or_create(&labels).inc_by(guest.asleep_ms as f64 / 1000.0);
    }
    registry.register("surrogate_guest_state", "1 for the state the guest is in", state);
    registry.register("surrogate_guest_sleeps", "Times the guest fell asleep", sleeps);
    registry.register("surrogate_guest_wakes", "Times the guest woke", wakes);
    registry.register_with_unit("surrogate_guest_asleep", "Time asleep", Unit::Seconds, asleep);
}

fn frames(registry: &mut Registry, guests: &[GuestStatus]) {
    type Read = fn(&NicStatus) -> u64;
    let plain: [(&str, &str, Read); 15] = [
        ("concerned", "Frames that concerned the sleeper", |nic| nic.counters.concerned),
        ("absorbed", "Frames that needed no answer", |nic| nic.counters.absorbed),
        ("stubbed", "Frames given to a listener stub", |nic| nic.counters.stubbed),
        ("held", "Frames held for the guest", |nic| nic.counters.held),
        ("replayed", "Held frames delivered to the guest", |nic| nic.counters.replayed),
        ("reclassified", "Held frames answered or absorbed later", |nic| nic.counters.reclassified),
        ("overtaken", "Held frames that came after the release", |nic| nic.counters.overtaken),
        ("awake_unicast", "Unicast frames of an awake guest that reached us", |nic| {
            nic.counters.awake_unicast
        }),
        ("transmit_failed", "Answers the port did not take", |nic| nic.counters.transmit_failed),
        ("own_source", "Frames from the sleeper's own MAC", |nic| nic.counters.own_source),
        ("silencing", "Those that silenced us until the hypervisor was asked", |nic| nic.counters.silencing),
        ("conflicts", "Claims of other hosts to the sleeper's addresses", |nic| nic.counters.conflicts),
        ("observed", "Frames seen at the port of the awake guest", |nic| nic.counters.observed),
        (
            "unremembered",
            "Times that a limit kept what the guest or its routers told from being remembered",
            |nic| nic.counters.unremembered,
        ),
        ("expired", "Addresses not answered for since their lifetime is over", |nic| nic.counters.expired),
    ];
    for (name, help, read) in plain {
        let family = Family::<Labels, Counter>::default();
        each_nic(guests, |nic, labels| {
            family.get_or_create(&labels).inc_by(read(nic));
        });
        registry.register(format!("surrogate_frames_{name}"), help, family);
    }
    let answered = Family::<Labels, Counter>::default();
    let dropped = Family::<Labels, Counter>::default();
    let held_dropped = Family::<Labels, Counter>::default();
    let spoken = Family::<Labels, Counter>::default();
    let holding = Family::<Labels, Gauge>::default();
    let bytes = Family::<Labels, Gauge>::default();
    let with = |labels: &Labels, key: &'static str, value: &str| {
        let mut labels = labels.clone();
        labels.push((key, value.to_owned()));
        labels
    };
    each_nic(guests, |nic, labels| {
        for (kind, n) in Answered::ALL.into_iter().zip(nic.counters.answered) {
            answered.get_or_create(&with(&labels, "by", kind.name())).inc_by(n);
        }
        for (kind, n) in Answered::ALL.into_iter().zip(nic.counters.spoken) {
            spoken.get_or_create(&with(&labels, "by", kind.name())).inc_by(n);
        }
        for (family, counts) in [(&dropped, nic.counters.dropped), (&held_dropped, nic.counters.held_dropped)]
        {
            for (reason, n) in DropReason::ALL.into_iter().zip(counts) {
                family.get_or_create(&with(&labels, "reason", reason.name())).inc_by(n);
            }
        }
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        holding.get_or_create(&labels).set(gauge(nic.counters.holding));
        bytes.get_or_create(&labels).set(gauge(nic.counters.holding_bytes));
    });
    registry.register(
        "surrogate_frames_answered",
        "Frames answered in the guest's name, by responder",
        answered,
    );
    registry.register("surrogate_frames_spoken", "Frames sent when their time came, by protocol", spoken);
    registry.register("surrogate_frames_dropped", "Frames dropped on arrival", dropped);
    registry.register("surrogate_frames_held_dropped", "Held frames dropped later", held_dropped);
    registry.register("surrogate_frames_holding", "Frames held now", holding);
    registry.register_with_unit("surrogate_holding", "Size of the frames held now", Unit::Bytes, bytes);
}

/// What custody of a NIC's connections has done; nothing where there is no custody. None of it is per connection.
fn connections(registry: &mut Registry, guests: &[GuestStatus]) {
    type Read = fn(&CustodyCounters) -> u64;
    let counters: [(&str, &str, Read); 8] = [
        ("learned", "TCP connections learned from the awake guest", |custody| custody.learned),
        ("inferred", "TCP connections inferred from a keep-alive of the peer", |custody| custody.inferred),
        ("refused", "Times that a TCP connection found no place", |custody| custody.refused),
        ("evicted", "Unfinished TCP connections that gave their place to others", |custody| custody.evicted),
        (
            "unconfirmed",
            "TCP connections whose state the guest did not confirm when it fell asleep",
            |custody| custody.unconfirmed,
        ),
        ("reset", "TCP connections that their peers ended while the guest slept", |custody| custody.reset),
        ("unanswered", "Keep-alives and window probes that a limit left unanswered", |custody| {
            custody.unanswered
        }),
        ("unchallenged", "Challenge and duplicate ACKs that a limit forbade", |custody| custody.unchallenged),
    ];
    let known = Family::<Labels, Gauge>::default();
    let mut families = counters.map(|_| Family::<Labels, Counter>::default());
    each_nic(guests, |nic, labels| {
        let Some(custody) = &nic.custody else { return };
        known.get_or_create(&labels).set(i64::try_from(custody.known).unwrap_or(i64::MAX));
        for (family, (.., read)) in families.iter_mut().zip(&counters) {
            family.get_or_create(&labels).inc_by(read(custody));
        }
    });
    registry.register("surrogate_connections_known", "TCP connections in custody now", known);
    for (family, (name, help, _)) in families.into_iter().zip(counters) {
        registry.register(format!("surrogate_connections_{name}"), help, family);
    }
}

fn each_nic(guests: &[GuestStatus], mut each: impl FnMut(&NicStatus, Labels)) {
    for guest in guests {
        for (n, nic) in guest.nics.iter().enumerate() {
            each(nic, vec![("guest", guest.name.clone()), ("nic", n.to_string())]);
        }
    }
}

fn figures(registry: &mut Registry, process: &ProcessFigures) {
    let cpu = Counter::<f64, std::sync::atomic::AtomicU64>::default();
    cpu.inc_by(process.cpu_seconds);
    registry.register_with_unit("process_cpu", "Processor time used", Unit::Seconds, cpu);
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Memory in RAM", process.resident_bytes),
        ("process_open_fds", "Open file descriptors", process.open_fds),
        ("process_threads", "Threads", process.threads),
    ] {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::messages::tests::guest;

    #[test]
    fn every_counter_is_there_under_guest_and_nic() {
        let mut web1 = guest("web1", "asleep");
        let counters = &mut web1.nics[0].counters;
        counters.concerned = 12;
        counters.answered[Answered::Ndisc as usize] = 5;
        counters.dropped[DropReason::Duplicate as usize] = 3;
        counters.spoken[Answered::Presence as usize] = 4;
        counters.observed = 9;
        counters.unremembered = 2;
        counters.held_dropped[DropReason::Aged as usize] = 1;
        counters.holding_bytes = 600;
        web1.nics[0].custody = Some(CustodyCounters { known: 7, unchallenged: 3, ..Default::default() });
        web1.asleep_ms = 1500;
        let process = ProcessFigures { cpu_seconds: 0.25, resident_bytes: 4096, open_fds: 9, threads: 2 };
        let port = PortFigures { bridge: "br0".to_owned(), kernel_drops: 3, ..PortFigures::default() };
        let text = render_with(&[web1, guest("db \"1\"", "awake")], &[port], &process);
        assert!(text.contains("surrogate_port_kernel_drops_total{bridge=\"br0\"} 3"), "{text}");
        for line in [
            "surrogate_guest_state{guest=\"web1\",state=\"asleep\"} 1",
            "surrogate_guest_state{guest=\"web1\",state=\"awake\"} 0",
            "surrogate_guest_state{guest=\"db \\\"1\\\"\",state=\"awake\"} 1",
            "surrogate_guest_asleep_seconds_total{guest=\"web1\"} 1.5",
            "surrogate_frames_concerned_total{guest=\"web1\",nic=\"0\"} 12",
            "surrogate_frames_answered_total{guest=\"web1\",nic=\"0\",by=\"ndisc\"} 5",
            "surrogate_frames_spoken_total{guest=\"web1\",nic=\"0\",by=\"presence\"} 4",
            "surrogate_frames_observed_total{guest=\"web1\",nic=\"0\"} 9",
            "surrogate_frames_unremembered_total{guest=\"web1\",nic=\"0\"} 2",
            "surrogate_frames_dropped_total{guest=\"web1\",nic=\"0\",reason=\"duplicate\"} 3",
            "surrogate_frames_held_dropped_total{guest=\"web1\",nic=\"0\",reason=\"aged\"} 1",
            "surrogate_holding_bytes{guest=\"web1\",nic=\"0\"} 600",
            "surrogate_connections_known{guest=\"web1\",nic=\"0\"} 7",
            "surrogate_connections_unchallenged_total{guest=\"web1\",nic=\"0\"} 3",
            "surrogate_connections_learned_total{guest=\"web1\",nic=\"0\"} 0",
            "process_cpu_seconds_total 0.25",
            "process_resident_memory_bytes 4096",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
        assert!(!text.contains("surrogate_connections_known{guest=\"db"), "it has no custody:\n{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
