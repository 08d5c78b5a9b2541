//! From what was written to what the code relies on: defaults, references, and what only shows when
//! several values are looked at together.

use core::net::IpAddr;
use core::ops::Range;
use core::time::Duration;
use std::collections::HashMap;
use std::path::PathBuf;

use super::error::Problem;
use super::file::{DaemonSection, File, GuestSection, HypervisorSection, NicSection, PolicyKeys};
use super::names;
use super::reader::{At, Tables, nearest};
use super::value::{Kind, Transport};
use super::{
    Bridge, Config, Daemon, Guest, GuestPolicy, HypervisorConfig, HypervisorKind, Nic, WakeBudget, WakeLimit,
    WakePolicy,
};
use crate::guest::identity::Mac;
use crate::hypervisor::Depth;
use crate::policy::custody::CustodyPolicy;
use crate::policy::traffic::{HoldLimits, Listen, TrafficPolicy};

/// What `file` means. If anything is added to `problems`, the result is not to be used.
pub(super) fn convert(file: File, problems: &mut Vec<Problem>) -> Config {
    let mut checks = Checks { problems, macs: HashMap::new(), addresses: Vec::new() };
    let bridges = checks.bridges(file.bridges);
    let hypervisors = checks.hypervisors(file.hypervisors);
    let guests = checks.guests(file.guests, &file.defaults, &bridges, &hypervisors);
    Config {
        daemon: daemon(file.daemon),
        bridges: bridges.list.into_iter().map(|(_, bridge)| bridge).collect(),
        hypervisors: hypervisors.list.into_iter().filter_map(|(_, hypervisor)| hypervisor).collect(),
        guests,
    }
}

fn daemon(section: DaemonSection) -> Daemon {
    Daemon {
        state_dir: section.state_dir.map_or_else(|| PathBuf::from("/var/lib/surrogate"), |at| at.value),
        socket: section.socket.map_or_else(|| PathBuf::from("/run/surrogate/surrogate.sock"), |at| at.value),
        metrics: section.metrics.map(|at| at.value),
        port: section.port.map(|at| at.value),
        wake_limit: WakeLimit {
            budget: WakeBudget {
                burst: or(section.wake_limit.burst.as_ref(), 100),
                per_minute: or(section.wake_limit.per_minute.as_ref(), 600),
            },
            at_once: or(section.wake_limit.at_once.as_ref(), 8),
        },
    }
}

/// What was seen so far, to find what stands twice.
struct Checks<'p> {
    problems: &'p mut Vec<Problem>,
    /// Whose each MAC is, and where that is written.
    macs: HashMap<Mac, (String, Range<usize>)>,
    addresses: Vec<Taken>,
}

/// An address and the network it is taken on.
struct Taken {
    address: IpAddr,
    bridge: Option<String>,
    vlan: Option<u16>,
    guest: String,
    /// Where it is written.
    span: Range<usize>,
}

/// What can be referred to by name.
struct Named<T> {
    /// Each with the name and where that is written.
    list: Vec<(At<String>, T)>,
    /// Whether no other name can have been meant to stand there.
    whole: bool,
}

impl<T> Named<T> {
    fn find(&self, name: &str) -> Option<&(At<String>, T)> {
        self.list.iter().find(|(known, _)| known.value == name)
    }

    fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.list.iter().map(|(name, _)| name.value.as_str())
    }
}

impl Checks<'_> {
    fn wrong(&mut self, span: &Range<usize>, what: impl Into<String>) {
        self.problems.push(Problem::new(span, what));
    }

    fn again(&mut self, span: &Range<usize>, first: &Range<usize>, what: String) {
        self.problems.push(Problem::again(span, first, what));
    }

    fn bridges(&mut self, sections: Tables<Option<At<String>>>) -> Named<Bridge> {
        let mut bridges = Named { list: Vec::new(), whole: sections.whole };
        for section in sections.list {
            match section.value {
                Some(name) => {
                    let bridge = Bridge { name: name.value.clone() };
                    self.add(&mut bridges, "[[bridge]]", name, bridge);
                }
                None => bridges.whole = false,
            }
        }
        bridges
    }

    fn hypervisors(&mut self, sections: Tables<HypervisorSection>) -> Named<Option<HypervisorConfig>> {
        let mut hypervisors = Named { list: Vec::new(), whole: sections.whole };
        for At { value: HypervisorSection { name, kind, uri, delay }, .. } in sections.list {
            let kind = kind.map(|kind| match (kind.value, uri, delay) {
                (Kind::Libvirt, uri, delay) => {
                    if let Some(delay) = delay {
                        self.wrong(&delay.span, "`delay` is only for kind = \"netns\"");
                    }
                    let uri = uri.map_or_else(|| "qemu:///system".to_owned(), |at| at.value);
                    HypervisorKind::Libvirt { uri }
                }
                (Kind::Netns, uri, delay) => {
                    if let Some(uri) = uri {
                        self.wrong(&uri.span, "`uri` is only for kind = \"libvirt\"");
                    }
                    HypervisorKind::Netns { delay: delay.map_or(Duration::ZERO, |at| at.value) }
                }
            });
            match name {
                Some(name) => {
                    let hypervisor = kind.map(|kind| HypervisorConfig { name: name.value.clone(), kind });
                    self.add(&mut hypervisors, "[[hypervisor]]", name, hypervisor);
                }
                None => hypervisors.whole = false,
            }
        }
        hypervisors
    }

    /// Adds what is named `name`, unless there is one already.
    fn add<T>(&mut self, all: &mut Named<T>, header: &str, name: At<String>, new: T) {
        match all.find(&name.value) {
            Some((first, _)) => {
                let what = format!("there are two {header} named \"{}\"", name.value);
                self.again(&name.span, &first.span, what);
            }
            None => all.list.push((name, new)),
        }
    }

    /// Says that nothing of that name is there, unless it may be one that could not be read.
    fn unknown<T>(&mut self, header: &str, name: &At<String>, known: &Named<T>) {
        if known.whole {
            let hint = meant(&name.value, known.names());
            self.wrong(&name.span, format!("there is no {header} named \"{}\"{hint}", name.value));
        }
    }

    fn guests(
        &mut self,
        sections: Tables<GuestSection>,
        defaults: &PolicyKeys,
        bridges: &Named<Bridge>,
        hypervisors: &Named<Option<HypervisorConfig>>,
    ) -> Vec<Guest> {
        let mut guests: Vec<Guest> = Vec::new();
        let mut names = Named { list: Vec::new(), whole: true };
        self.hold_outlasts_wake(defaults, "[defaults]");
        for At { value: section, span } in sections.list {
            let Some(name) = section.name else { continue };
            self.add(&mut names, "[[guest]]", name.clone(), ());
            let place = format!("[[guest]] \"{}\"", name.value);
            let hypervisor = section.hypervisor.and_then(|at| self.known_hypervisor(&at, hypervisors));
            if let Some(hypervisor) = hypervisor {
                self.addresses_given(hypervisor, &section.nics, section.gives_addresses, &span, &place);
                self.netns(hypervisor, section.netns.as_ref(), section.cgroup.as_ref(), &span, &place);
            }
            let keys = section.policy.over(defaults);
            if section.policy.hold_age.is_some() || section.policy.wake_timeout.is_some() {
                self.hold_outlasts_wake(&keys, &place);
            }
            let mut policy = policy(&keys, section.listen.map(listen));
            policy.traffic.names = names::convert(section.names, section.services, &place, self.problems);
            let nics = section.nics.into_iter().map(|nic| self.nic(nic, &name.value, bridges)).collect();
            guests.push(Guest {
                name: name.value,
                hypervisor: hypervisor.map(|known| known.name.clone()).unwrap_or_default(),
                netns: section.netns.map(|at| at.value),
                cgroup: section.cgroup.map(|at| at.value),
                nics,
                policy,
            });
        }
        guests
    }

    /// The hypervisor of that name, if it is there and right.
    fn known_hypervisor<'h>(
        &mut self,
        name: &At<String>,
        hypervisors: &'h Named<Option<HypervisorConfig>>,
    ) -> Option<&'h HypervisorConfig> {
        match hypervisors.find(&name.value) {
            Some((_, hypervisor)) => hypervisor.as_ref(),
            None => {
                self.unknown("[[hypervisor]]", name, hypervisors);
                None
            }
        }
    }

    /// libvirt tells no addresses: without them a sleeper would answer nothing and be woken by nothing.
    fn addresses_given(
        &mut self,
        hypervisor: &HypervisorConfig,
        nics: &[NicSection],
        guest_gives: bool,
        guest: &Range<usize>,
        place: &str,
    ) {
        let HypervisorKind::Libvirt { .. } = hypervisor.kind else { return };
        let missing = "gives no `addresses`, and libvirt tells none: write all that the guest has, as \
                       addresses = [\"192.0.2.11/24\", \"2001:db8::11/64\"]";
        if nics.is_empty() && !guest_gives {
            self.wrong(guest, format!("{place} {missing}"));
        }
        for nic in nics.iter().filter(|nic| !nic.gives_addresses) {
            let of =
                if nic.span == *guest { place.to_owned() } else { format!("a [[guest.nic]] of {place}") };
            self.wrong(&nic.span, format!("{of} {missing}"));
        }
    }

    fn netns(
        &mut self,
        hypervisor: &HypervisorConfig,
        netns: Option<&At<String>>,
        cgroup: Option<&At<PathBuf>>,
        guest: &Range<usize>,
        place: &str,
    ) {
        match (&hypervisor.kind, netns, cgroup) {
            (HypervisorKind::Netns { .. }, None, _) => {
                self.wrong(
                    guest,
                    format!("{place} has no `netns`, which its hypervisor \"{}\" needs", hypervisor.name),
                );
            }
            (HypervisorKind::Libvirt { .. }, Some(At { span, .. }), _) => {
                self.wrong(span, format!("{place}: `netns` is only for a hypervisor of kind = \"netns\""));
            }
            (HypervisorKind::Libvirt { .. }, _, Some(At { span, .. })) => {
                self.wrong(span, format!("{place}: `cgroup` is only for a hypervisor of kind = \"netns\""));
            }
            _ => {}
        }
    }

    fn nic(&mut self, section: NicSection, guest: &str, bridges: &Named<Bridge>) -> Nic {
        if let Some(bridge) = &section.bridge
            && bridges.find(&bridge.value).is_none()
        {
            self.unknown("[[bridge]]", bridge, bridges);
        }
        if let Some(mac) = &section.mac {
            match self.macs.get(&mac.value).cloned() {
                Some((other, first)) => {
                    let whose = twice(&other, guest);
                    let what = format!("MAC {} is {whose}: each NIC has its own", mac.value);
                    self.again(&mac.span, &first, what);
                }
                None => {
                    self.macs.insert(mac.value, (guest.to_owned(), mac.span.clone()));
                }
            }
        }
        let nic = Nic {
            bridge: section.bridge.map(|at| at.value),
            mac: section.mac.map(|at| at.value),
            vlan: section.vlan.map(|at| at.value),
            port: section.port.map(|at| at.value),
            addresses: section.addresses.iter().map(|at| at.value).collect(),
            groups: section.groups.into_iter().map(|at| at.value).collect(),
        };
        for At { value, span } in section.addresses {
            self.address(value.address, &nic, guest, &span);
        }
        nic
    }

    /// An address may stand once per network; where a NIC's network is not written, once at all.
    fn address(&mut self, address: IpAddr, nic: &Nic, guest: &str, span: &Range<usize>) {
        let met = self.addresses.iter().find(|taken| {
            let apart = matches!((&taken.bridge, &nic.bridge), (Some(a), Some(b)) if a != b || taken.vlan != nic.vlan);
            taken.address == address && !apart
        });
        match met.map(|taken| (taken.guest.clone(), taken.span.clone())) {
            Some((other, first)) => {
                self.again(span, &first, format!("{address} is {}", twice(&other, guest)));
            }
            None => self.addresses.push(Taken {
                address,
                bridge: nic.bridge.clone(),
                vlan: nic.vlan,
                guest: guest.to_owned(),
                span: span.clone(),
            }),
        }
    }

    fn hold_outlasts_wake(&mut self, keys: &PolicyKeys, place: &str) {
        let GuestPolicy { wake_timeout, traffic: TrafficPolicy { hold, .. }, .. } = policy(keys, None);
        if hold.age < wake_timeout {
            let written = keys.hold_age.as_ref().or(keys.wake_timeout.as_ref()).map(|at| at.span.clone());
            let what = format!(
                "{place}: `hold.age` ({:?}) is shorter than `wake_timeout` ({wake_timeout:?}): frames would expire \
                 before the guest is up",
                hold.age
            );
            self.wrong(&written.unwrap_or_default(), what);
        }
    }
}

/// The policy of `keys`, with the standard values where one is not given.
fn policy(keys: &PolicyKeys, listen: Option<Listen>) -> GuestPolicy {
    let standard = TrafficPolicy::default();
    GuestPolicy {
        idle_after: or(keys.idle_after.as_ref(), Some(Duration::from_secs(600))),
        min_awake: or(keys.min_awake.as_ref(), Duration::from_secs(30)),
        depth: or(keys.depth.as_ref(), Depth::Pause),
        wake: or(keys.wake.as_ref(), WakePolicy::Managed),
        idle_cpu: or(keys.idle_cpu.as_ref(), 2.0),
        idle_packets: or(keys.idle_packets.as_ref(), 5.0),
        wake_budget: WakeBudget {
            burst: or(keys.wake_burst.as_ref(), 5),
            per_minute: or(keys.wake_per_minute.as_ref(), 10),
        },
        wake_timeout: or(keys.wake_timeout.as_ref(), Duration::from_secs(30)),
        traffic: TrafficPolicy {
            listen,
            closed_ports: or(keys.closed_ports.as_ref(), standard.closed_ports),
            flooded: or(keys.flooded.as_ref(), standard.flooded),
            custody: or(keys.custody.as_ref(), standard.custody),
            connections: CustodyPolicy {
                connections: or(keys.connections.as_ref(), standard.connections.connections),
                challenges_per_second: or(
                    keys.challenges.as_ref(),
                    standard.connections.challenges_per_second,
                ),
                keep_alive: or(keys.keep_alive.as_ref(), standard.connections.keep_alive),
            },
            hold: HoldLimits {
                frames: or(keys.hold_frames.as_ref(), standard.hold.frames),
                bytes: or(keys.hold_bytes.as_ref(), standard.hold.bytes),
                age: or(keys.hold_age.as_ref(), standard.hold.age),
            },
            names: standard.names,
        },
    }
}

impl PolicyKeys {
    /// These keys, and where one is not given, that of `defaults`.
    fn over(&self, defaults: &Self) -> Self {
        macro_rules! over {
            ($($key:ident)*) => { Self { $($key: self.$key.clone().or_else(|| defaults.$key.clone()),)* } };
        }
        over!(
            idle_after min_awake depth wake idle_cpu idle_packets wake_burst wake_per_minute wake_timeout
            hold_frames hold_bytes hold_age closed_ports flooded custody connections
            challenges keep_alive
        )
    }
}

fn listen(entries: Vec<At<(Transport, u16)>>) -> Listen {
    let mut listen = Listen::default();
    for At { value: (transport, port), .. } in entries {
        match transport {
            Transport::Tcp => listen.tcp.push(port),
            Transport::Udp => listen.udp.push(port),
        }
    }
    for ports in [&mut listen.tcp, &mut listen.udp] {
        ports.sort_unstable();
        ports.dedup();
    }
    listen
}

fn or<T: Clone>(value: Option<&At<T>>, default: T) -> T {
    value.map_or(default, |at| at.value.clone())
}

/// Whose it is that stands twice.
fn twice(first: &str, second: &str) -> String {
    if first == second {
        format!("given twice to \"{second}\"")
    } else {
        format!("of both \"{first}\" and \"{second}\"")
    }
}

/// A hint at what `name` was meant to be.
fn meant<'n>(name: &str, known: impl Iterator<Item = &'n str> + Clone) -> String {
    match nearest(name, known.clone()) {
        Some(meant) => format!(": did you mean \"{meant}\"?"),
        None if known.clone().next().is_none() => ": the file has none".to_owned(),
        None => {
            format!(": there is {}", known.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", "))
        }
    }
}
