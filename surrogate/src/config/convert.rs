//! From what was written to what the code relies on: defaults, references, and what only shows when
//! several values are looked at together.

use core::net::IpAddr;
use core::ops::Range;
use core::time::Duration;
use std::collections::HashMap;
use std::path::PathBuf;

use super::error::Problem;
use super::file::{DaemonSection, File, GuestSection, HypervisorSection, NicSection, PolicyKeys};
use super::reader::{At, nearest};
use super::value::{Kind, Transport};
use super::{
    Bridge, Config, Daemon, Guest, GuestPolicy, HypervisorConfig, HypervisorKind, Nic, WakeBudget, WakeLimit,
    WakePolicy,
};
use crate::guest::identity::Mac;
use crate::hypervisor::Depth;
use crate::policy::traffic::{HoldLimits, Listen, TrafficPolicy};

/// What `file` means. If anything is added to `problems`, the result is not to be used.
pub(super) fn convert(file: File, problems: &mut Vec<Problem>) -> Config {
    let mut checks = Checks { problems, macs: HashMap::new(), addresses: Vec::new() };
    let bridges = checks.bridges(file.bridges);
    let hypervisors = checks.hypervisors(file.hypervisors);
    let guests = checks.guests(file.guests, &file.defaults, &bridges, &hypervisors);
    Config { daemon: daemon(file.daemon), bridges, hypervisors, guests }
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
    /// Whose each MAC is.
    macs: HashMap<Mac, String>,
    addresses: Vec<Taken>,
}

/// An address and the network it is taken on.
struct Taken {
    address: IpAddr,
    bridge: Option<String>,
    vlan: Option<u16>,
    guest: String,
}

impl Checks<'_> {
    fn wrong(&mut self, span: &Range<usize>, what: impl Into<String>) {
        self.problems.push(Problem::new(span, what));
    }

    fn bridges(&mut self, sections: Vec<At<Option<At<String>>>>) -> Vec<Bridge> {
        let mut bridges: Vec<Bridge> = Vec::new();
        for section in sections {
            let Some(name) = section.value else { continue };
            if bridges.iter().any(|bridge| bridge.name == name.value) {
                self.wrong(&name.span, format!("there are two [[bridge]] named \"{}\"", name.value));
            } else {
                bridges.push(Bridge { name: name.value });
            }
        }
        bridges
    }

    fn hypervisors(&mut self, sections: Vec<At<HypervisorSection>>) -> Vec<HypervisorConfig> {
        let mut hypervisors: Vec<HypervisorConfig> = Vec::new();
        for At { value: HypervisorSection { name, kind, uri, delay }, .. } in sections {
            let (Some(name), Some(kind)) = (name, kind) else { continue };
            let kind = match (kind.value, uri, delay) {
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
            };
            if hypervisors.iter().any(|known| known.name == name.value) {
                self.wrong(&name.span, format!("there are two [[hypervisor]] named \"{}\"", name.value));
            } else {
                hypervisors.push(HypervisorConfig { name: name.value, kind });
            }
        }
        hypervisors
    }

    fn guests(
        &mut self,
        sections: Vec<At<GuestSection>>,
        defaults: &PolicyKeys,
        bridges: &[Bridge],
        hypervisors: &[HypervisorConfig],
    ) -> Vec<Guest> {
        let mut guests: Vec<Guest> = Vec::new();
        self.hold_outlasts_wake(defaults, "[defaults]");
        for At { value: section, span } in sections {
            let Some(name) = section.name else { continue };
            if guests.iter().any(|guest| guest.name == name.value) {
                self.wrong(&name.span, format!("there are two [[guest]] named \"{}\"", name.value));
            }
            let place = format!("[[guest]] \"{}\"", name.value);
            let hypervisor = section.hypervisor.and_then(|at| self.known_hypervisor(&at, hypervisors));
            if let Some(hypervisor) = hypervisor {
                self.netns(hypervisor, section.netns.as_ref(), section.cgroup.as_ref(), &span, &place);
            }
            let keys = section.policy.over(defaults);
            if section.policy.hold_age.is_some() || section.policy.wake_timeout.is_some() {
                self.hold_outlasts_wake(&keys, &place);
            }
            let nics = section.nics.into_iter().map(|nic| self.nic(nic, &name.value, bridges)).collect();
            guests.push(Guest {
                name: name.value,
                hypervisor: hypervisor.map(|known| known.name.clone()).unwrap_or_default(),
                netns: section.netns.map(|at| at.value),
                cgroup: section.cgroup.map(|at| at.value),
                nics,
                policy: policy(&keys, section.listen.map(listen)),
            });
        }
        guests
    }

    fn known_hypervisor<'h>(
        &mut self,
        name: &At<String>,
        hypervisors: &'h [HypervisorConfig],
    ) -> Option<&'h HypervisorConfig> {
        let found = hypervisors.iter().find(|known| known.name == name.value);
        if found.is_none() {
            let hint = meant(&name.value, hypervisors.iter().map(|known| known.name.as_str()));
            self.wrong(&name.span, format!("there is no [[hypervisor]] named \"{}\"{hint}", name.value));
        }
        found
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

    fn nic(&mut self, section: NicSection, guest: &str, bridges: &[Bridge]) -> Nic {
        if let Some(bridge) = &section.bridge
            && !bridges.iter().any(|known| known.name == bridge.value)
        {
            let hint = meant(&bridge.value, bridges.iter().map(|known| known.name.as_str()));
            self.wrong(&bridge.span, format!("there is no [[bridge]] named \"{}\"{hint}", bridge.value));
        }
        if let Some(mac) = &section.mac
            && let Some(other) = self.macs.insert(mac.value, guest.to_owned())
        {
            let whose =
                if other == guest { "given twice to".to_owned() } else { format!("of both \"{other}\" and") };
            self.wrong(&mac.span, format!("MAC {} is {whose} \"{guest}\": each NIC has its own", mac.value));
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
        match met.map(|taken| taken.guest.clone()) {
            Some(other) if other == guest => {
                self.wrong(span, format!("{address} is given twice to \"{guest}\""))
            }
            Some(other) => self.wrong(span, format!("{address} is of both \"{other}\" and \"{guest}\"")),
            None => self.addresses.push(Taken {
                address,
                bridge: nic.bridge.clone(),
                vlan: nic.vlan,
                guest: guest.to_owned(),
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
            hold: HoldLimits {
                frames: or(keys.hold_frames.as_ref(), standard.hold.frames),
                bytes: or(keys.hold_bytes.as_ref(), standard.hold.bytes),
                age: or(keys.hold_age.as_ref(), standard.hold.age),
            },
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
            hold_frames hold_bytes hold_age closed_ports flooded
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
