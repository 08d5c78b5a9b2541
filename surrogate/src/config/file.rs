//! What the file may say: every section with its keys, each value checked by itself and with its line.

use core::net::{IpAddr, SocketAddr};
use core::num::NonZeroUsize;
use core::ops::Range;
use core::time::Duration;
use std::path::PathBuf;

use toml::de::DeTable;

use super::error::Problem;
use super::names::{self, NamesKeys, ServiceSection};
use super::reader::{At, Section, Tables};
use super::value::{self, Kind, Transport};
use super::{PortKindName, WakePolicy};
use crate::guest::identity::{InterfaceAddress, Mac};
use crate::hypervisor::Depth;
use crate::policy::traffic::{ClosedPorts, Flooded};

/// The whole file. A key that must be there and is `None` has been reported.
pub(super) struct File {
    pub(super) daemon: DaemonSection,
    pub(super) bridges: Tables<Option<At<String>>>,
    pub(super) hypervisors: Tables<HypervisorSection>,
    pub(super) defaults: PolicyKeys,
    pub(super) guests: Tables<GuestSection>,
}

/// `[daemon]`.
#[derive(Default)]
pub(super) struct DaemonSection {
    pub(super) state_dir: Option<At<PathBuf>>,
    pub(super) socket: Option<At<PathBuf>>,
    pub(super) metrics: Option<At<SocketAddr>>,
    pub(super) port: Option<At<PortKindName>>,
    pub(super) wake_limit: WakeLimitKeys,
}

/// `wake_limit` of `[daemon]`.
#[derive(Default)]
pub(super) struct WakeLimitKeys {
    pub(super) burst: Option<At<u32>>,
    pub(super) per_minute: Option<At<u32>>,
    pub(super) at_once: Option<At<u32>>,
}

/// `[[hypervisor]]`.
pub(super) struct HypervisorSection {
    pub(super) name: Option<At<String>>,
    pub(super) kind: Option<At<Kind>>,
    pub(super) uri: Option<At<String>>,
    pub(super) delay: Option<At<Duration>>,
}

/// The keys that `[defaults]` and `[[guest]]` share.
#[derive(Clone, Default)]
pub(super) struct PolicyKeys {
    pub(super) idle_after: Option<At<Option<Duration>>>,
    pub(super) min_awake: Option<At<Duration>>,
    pub(super) depth: Option<At<Depth>>,
    pub(super) wake: Option<At<WakePolicy>>,
    pub(super) idle_cpu: Option<At<f64>>,
    pub(super) idle_packets: Option<At<f64>>,
    pub(super) wake_burst: Option<At<u32>>,
    pub(super) wake_per_minute: Option<At<u32>>,
    pub(super) wake_timeout: Option<At<Duration>>,
    pub(super) hold_frames: Option<At<NonZeroUsize>>,
    pub(super) hold_bytes: Option<At<NonZeroUsize>>,
    pub(super) hold_age: Option<At<Duration>>,
    pub(super) closed_ports: Option<At<ClosedPorts>>,
    pub(super) flooded: Option<At<Flooded>>,
    pub(super) custody: Option<At<bool>>,
    pub(super) connections: Option<At<NonZeroUsize>>,
    pub(super) challenges: Option<At<u32>>,
    pub(super) keep_alive: Option<At<Option<Duration>>>,
}

/// `[[guest]]`.
pub(super) struct GuestSection {
    pub(super) name: Option<At<String>>,
    pub(super) hypervisor: Option<At<String>>,
    pub(super) netns: Option<At<String>>,
    pub(super) cgroup: Option<At<PathBuf>>,
    pub(super) listen: Option<Vec<At<(Transport, u16)>>>,
    pub(super) names: NamesKeys,
    pub(super) services: Vec<At<ServiceSection>>,
    pub(super) nics: Vec<NicSection>,
    /// Whether anything is written that says its addresses, well or not.
    pub(super) gives_addresses: bool,
    pub(super) policy: PolicyKeys,
}

/// `[[guest.nic]]`, or the same keys in the guest itself.
pub(super) struct NicSection {
    pub(super) span: Range<usize>,
    pub(super) bridge: Option<At<String>>,
    pub(super) mac: Option<At<Mac>>,
    pub(super) vlan: Option<At<u16>>,
    pub(super) port: Option<At<String>>,
    pub(super) addresses: Vec<At<InterfaceAddress>>,
    /// Whether `addresses` is written, well or not.
    pub(super) gives_addresses: bool,
    pub(super) groups: Vec<At<IpAddr>>,
}

/// Reads `text`; `None` if it is no TOML. What is wrong goes to `problems`.
pub(super) fn read(text: &str, problems: &mut Vec<Problem>) -> Option<File> {
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            problems.push(no_toml(text, &error));
            return None;
        }
    };
    let mut section = Section::document(table, problems);
    let file = File {
        daemon: section.table("daemon", daemon).map(|at| at.value).unwrap_or_default(),
        bridges: section.tables("bridge", |section| section.require("name", value::interface_name)),
        hypervisors: section.tables("hypervisor", hypervisor),
        defaults: section.table("defaults", policy).map(|at| at.value).unwrap_or_default(),
        guests: section.tables("guest", guest),
    };
    section.finish();
    Some(file)
}

/// What the parser says, and of a key that stands twice, which.
fn no_toml(text: &str, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(0..0);
    let what = match text.get(span.clone()) {
        Some(key) if error.message().starts_with("duplicate key") => {
            format!("`{}` stands twice in the same table", key.trim())
        }
        _ => format!("not TOML: {}", error.message()),
    };
    Problem::new(&span, what)
}

fn daemon(section: &mut Section<'_, '_>) -> DaemonSection {
    DaemonSection {
        state_dir: section.take("state_dir", value::path),
        socket: section.take("socket", value::socket_path),
        metrics: section.take("metrics", value::socket_address),
        port: section.take("port", value::port_kind),
        wake_limit: section.table("wake_limit", wake_limit).map(|at| at.value).unwrap_or_default(),
    }
}

fn wake_limit(section: &mut Section<'_, '_>) -> WakeLimitKeys {
    WakeLimitKeys {
        burst: section.take("burst", value::count),
        per_minute: section.take("per_minute", value::count),
        at_once: section.take("at_once", value::count),
    }
}

fn hypervisor(section: &mut Section<'_, '_>) -> HypervisorSection {
    HypervisorSection {
        name: section.require("name", value::name),
        kind: section.require("kind", value::kind),
        uri: section.take("uri", value::name),
        delay: section.take("delay", value::duration),
    }
}

fn policy(section: &mut Section<'_, '_>) -> PolicyKeys {
    let mut keys = PolicyKeys {
        idle_after: section.take("idle_after", value::duration_or_never),
        min_awake: section.take("min_awake", value::duration),
        depth: section.take("depth", value::depth),
        wake: section.take("wake", value::wake),
        idle_cpu: section.take("idle_cpu", value::rate),
        idle_packets: section.take("idle_packets", value::rate),
        wake_timeout: section.take("wake_timeout", value::positive_duration),
        closed_ports: section.take("closed_ports", value::closed_ports),
        flooded: section.take("flooded", value::flooded),
        custody: section.take("custody", value::yes_or_no),
        ..PolicyKeys::default()
    };
    section.table("wake_budget", |section| {
        keys.wake_burst = section.take("burst", value::count);
        keys.wake_per_minute = section.take("per_minute", value::count);
    });
    section.table("hold", |section| {
        keys.hold_frames = section.take("frames", value::count_in_memory);
        keys.hold_bytes = section.take("bytes", value::size);
        keys.hold_age = section.take("age", value::positive_duration);
    });
    section.table("connections", |section| {
        keys.connections = section.take("limit", value::connections);
        keys.challenges = section.take("challenges", value::count);
        keys.keep_alive = section.take("keep_alive", value::keep_alive);
    });
    keys
}

fn guest(section: &mut Section<'_, '_>) -> GuestSection {
    let name = section.require("name", value::name);
    if let Some(name) = &name {
        section.name = format!("[[guest]] \"{}\"", name.value);
    }
    let flat = NIC_KEYS.iter().copied().find(|key| section.has(key));
    let flat_nic = nic(section);
    // Of one that is wrong, or in the wrong place, it is not said as well that it is missing.
    let gives_addresses = flat_nic.gives_addresses || section.has("nic");
    let mut nics: Vec<NicSection> = section.tables("nic", nic).list.into_iter().map(|at| at.value).collect();
    match flat {
        Some(key) if !nics.is_empty() => {
            let what =
                format!("{}: `{key}` stands beside [[guest.nic]]: move it into one of them", section.name);
            section.wrong(&flat_nic.span, what);
            nics.iter_mut().for_each(|nic| nic.gives_addresses |= flat_nic.gives_addresses);
        }
        Some(_) => nics.push(flat_nic),
        None => {}
    }
    GuestSection {
        name,
        hypervisor: section.require("hypervisor", value::name),
        netns: section.take("netns", value::netns_name),
        cgroup: section.take("cgroup", value::path),
        listen: section.list("listen", value::listen),
        names: section.table("names", names::keys).map(|at| at.value).unwrap_or_default(),
        services: section.tables("service", names::service).list,
        nics,
        gives_addresses,
        policy: policy(section),
    }
}

const NIC_KEYS: [&str; 6] = ["bridge", "mac", "vlan", "port", "addresses", "groups"];

fn nic(section: &mut Section<'_, '_>) -> NicSection {
    NicSection {
        span: section.span.clone(),
        bridge: section.take("bridge", value::interface_name),
        mac: section.take("mac", value::mac),
        vlan: section.take("vlan", value::vlan),
        port: section.take("port", value::interface_name),
        gives_addresses: section.is_given("addresses"),
        addresses: section.list("addresses", value::interface_address).unwrap_or_default(),
        groups: section.list("groups", value::group).unwrap_or_default(),
    }
}
