//! What the control task keeps of one guest.

use core::net::IpAddr;
use core::time::Duration;

use tokio::sync::oneshot;

use super::said::Said;
use crate::api::{GuestStatus, NicStatus, Refusal, Transition};
use crate::config;
use crate::engine::Mode;
use crate::guest::identity::{GuestId, InterfaceAddress, Mac, NicId, NicIdentity, PortId};
use crate::guest::lifecycle::{CyclePolicy, Lifecycle, Order, State, WakePolicy};
use crate::hypervisor::{Depth, GuestReport, NicReport, PauseReason, Power};
use crate::io::clock;
use crate::io::steering::Place;
use crate::policy::budget::WakeBudget;
use crate::policy::idleness::{Idleness, Thresholds};
use crate::time::Instant;

/// One configured guest.
pub(super) struct Guest {
    pub id: GuestId,
    pub config: config::Guest,
    pub hypervisor: usize,
    pub cycle: Lifecycle,
    pub nics: Vec<Nic>,
    /// Whether its power is known: nothing is decided before.
    pub known: bool,
    /// What an earlier daemon left on its bridges.
    pub inheritance: Inheritance,
    /// Why we cannot stand in for it, if so.
    pub unfit: Option<String>,
    /// Why its ports keep us from standing in for it now that somebody else stopped it, if so.
    pub barred: Option<String>,
    /// Why it is not asleep, or what failed last.
    pub why: Option<String>,
    pub awaiting: Option<Awaiting>,
    /// A port of ours was lost while it was on its way: what stands on that port is made anew once it sleeps.
    pub anew: bool,
    pub waiters: Vec<Waiter>,
    pub idleness: Idleness,
    /// It was told that a connection keeps this guest awake, idle as it is.
    pub kept_awake: bool,
    pub sampling: bool,
    pub sample_at: Option<Instant>,
    pub tally: Tally,
}

/// What an earlier daemon changed on a guest's bridges and did not live to put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inheritance {
    /// Nobody looked yet.
    Unseen,
    /// It is being put back; nothing is decided about the guest until that is over.
    UnderWay,
    /// As far as it could be put back, it is.
    Settled,
}

/// A NIC as configured and as the hypervisor reports it.
#[derive(Clone, Debug)]
pub(super) struct Nic {
    pub id: NicId,
    pub mac: Mac,
    /// Its bridge's place in the table.
    pub bridge: usize,
    pub bridge_name: String,
    /// The name of its port on the bridge, while known.
    pub port: Option<String>,
    pub vlan: Option<u16>,
    pub addresses: Vec<InterfaceAddress>,
    /// Groups from configuration and hypervisor.
    pub groups: Vec<IpAddr>,
    /// Groups that its bridge port had joined when its floods were taken.
    pub joined: Vec<IpAddr>,
    /// The number of the port at which it is observed, if it is.
    pub observed: Option<u32>,
    /// Until when it is not observed, since its guest is too busy or it could not be.
    pub paused_until: Option<Instant>,
}

/// A mode or barrier that not every NIC has confirmed yet.
#[derive(Debug)]
pub(super) struct Awaiting {
    pub order: Order,
    pub nics: Vec<NicId>,
}

/// What a command is to lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// It sleeps.
    Asleep,
    /// It runs and has everything that was held.
    Awake,
    /// It is not stood in for any more; whether it runs is up to whoever stopped it.
    LetGo,
}

impl Goal {
    /// The state that this is.
    pub(super) const fn state(self) -> State {
        match self {
            Self::Asleep => State::Asleep,
            Self::Awake | Self::LetGo => State::Awake,
        }
    }
}

/// Somebody who waits for a command's end.
#[derive(Debug)]
pub(super) struct Waiter {
    pub wants: Goal,
    pub since: Instant,
    pub reply: oneshot::Sender<Result<Transition, Refusal>>,
}

/// What status and metrics tell of a guest's cycles.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub wakes: u64,
    pub sleeps: u64,
    pub asleep: Duration,
    pub asleep_since: Option<Instant>,
    pub since_unix_ms: u64,
    pub last_wake: Option<String>,
    /// Frames held when the last transition began or ended, and delivered in it.
    pub held: u64,
    pub replayed: u64,
    pub overtaken: u64,
    /// What was said in its name.
    pub said: Said,
}

impl Guest {
    /// A guest of which only the configuration is known.
    pub(super) fn new(id: GuestId, config: config::Guest, hypervisor: usize, cycle: Lifecycle) -> Self {
        let policy = &config.policy;
        let thresholds = Thresholds {
            idle_after: policy.idle_after,
            min_awake: policy.min_awake,
            idle_cpu: thousandths(policy.idle_cpu),
            idle_packets: thousandths(policy.idle_packets),
        };
        Self {
            id,
            hypervisor,
            cycle,
            nics: Vec::new(),
            known: false,
            inheritance: Inheritance::Unseen,
            unfit: Some("its hypervisor has not told of it yet".to_owned()),
            barred: None,
            why: None,
            awaiting: None,
            anew: false,
            waiters: Vec::new(),
            idleness: Idleness::new(thresholds),
            kept_awake: false,
            sampling: false,
            sample_at: None,
            tally: Tally { since_unix_ms: clock::unix_ms(), ..Tally::default() },
            config,
        }
    }

    /// Merges configuration and report into NICs. `bridge` finds a bridge's place by name.
    ///
    /// Identifiers are kept by MAC, new ones are drawn from `next_nic`.
    pub(super) fn refresh(
        &mut self,
        report: &GuestReport,
        bridge: impl Fn(&str) -> Option<usize>,
        next_nic: &mut u32,
    ) {
        match merge(&self.config.nics, &report.nics) {
            Ok(merged) => {
                let mut nics = Vec::new();
                for nic in merged {
                    let Some(at) = bridge(&nic.bridge) else {
                        self.unfit = Some(format!(
                            "its NIC {} is on {}, which no [[bridge]] of the configuration names",
                            nic.mac, nic.bridge
                        ));
                        return;
                    };
                    let known = self.nics.iter().find(|n| n.mac == nic.mac && n.bridge == at);
                    let id = known.map_or_else(
                        || {
                            *next_nic += 1;
                            NicId(*next_nic)
                        },
                        |n| n.id,
                    );
                    nics.push(Nic {
                        id,
                        mac: nic.mac,
                        bridge: at,
                        bridge_name: nic.bridge,
                        port: nic.port.or_else(|| known.and_then(|n| n.port.clone())),
                        vlan: nic.vlan,
                        addresses: nic.addresses,
                        groups: nic.groups,
                        joined: known.map(|n| n.joined.clone()).unwrap_or_default(),
                        observed: known.and_then(|n| n.observed),
                        paused_until: known.and_then(|n| n.paused_until),
                    });
                }
                self.unfit = nics.is_empty().then(|| {
                    "nothing is known of its NICs; give bridge, mac and addresses in its [[guest]]".to_owned()
                });
                self.nics = nics;
            }
            Err(why) => self.unfit = Some(why),
        }
    }

    /// Why it is not put to sleep, if nobody knows what a NIC of it is to be asked by: asleep, that NIC would
    /// answer nothing and be woken by nothing.
    pub(super) fn unaddressed(&self) -> Option<String> {
        let nic = self.nics.iter().find(|nic| nic.addresses.is_empty())?;
        let told = match &self.config.netns {
            Some(netns) => format!("it has none in network namespace {netns}"),
            None => format!("{} tells none", self.config.hypervisor),
        };
        Some(format!(
            "no addresses of NIC {} on {} are known: {told}; give `addresses` with this `mac` in its [[guest]] or \
             a [[guest.nic]]",
            nic.mac, nic.bridge_name
        ))
    }

    /// What the engine must know of `nic`.
    pub(super) fn identity(&self, nic: &Nic) -> NicIdentity {
        let mut groups = nic.groups.clone();
        for group in &nic.joined {
            if !groups.contains(group) {
                groups.push(*group);
            }
        }
        NicIdentity {
            guest: self.id,
            nic: nic.id,
            port: PortId(nic.bridge as u32),
            mac: nic.mac,
            vlan: nic.vlan,
            addresses: nic.addresses.clone(),
            groups,
            router: false,
            traffic: self.config.policy.traffic.clone(),
        }
    }

    /// Where `nic` is steered to and from.
    pub(super) fn place(&self, nic: &Nic, surrogate_port: u32) -> Place {
        Place {
            guest: self.config.name.clone(),
            mac: nic.mac,
            vlan: nic.vlan,
            bridge: nic.bridge_name.clone(),
            surrogate_port,
            addresses: nic.addresses.iter().map(|a| a.address).collect(),
            groups: nic.groups.clone(),
        }
    }

    /// As an operator sees it, but for what the packet threads know of its NICs.
    pub(super) fn status(&self, now: Instant, hypervisor: &str) -> GuestStatus {
        let state = self.cycle.state();
        let manageable = self.known && self.unfit.is_none();
        let asleep = self.tally.asleep_since.map_or(Duration::ZERO, |at| now.since(at));
        let awake_for = || if state == State::Awake && self.known { self.unaddressed() } else { None };
        GuestStatus {
            name: self.config.name.clone(),
            hypervisor: hypervisor.to_owned(),
            state: if manageable || state != State::Awake { state.name() } else { "unmanaged" }.to_owned(),
            power: if self.known { power_word(self.cycle.facts().power) } else { "unknown" }.to_owned(),
            since_unix_ms: self.tally.since_unix_ms,
            slept_by_us: self.cycle.slept_by_us(),
            depth: matches!(state, State::Asleep | State::Stranded | State::Waking)
                .then(|| self.cycle.depth()),
            epoch: self.cycle.epoch().0,
            why: self.unfit.clone().or_else(awake_for).or_else(|| self.why.clone()),
            last_wake: self.tally.last_wake.clone(),
            wakes: self.tally.wakes,
            sleeps: self.tally.sleeps,
            asleep_ms: u64::try_from((self.tally.asleep + asleep).as_millis()).unwrap_or(u64::MAX),
            nics: self
                .nics
                .iter()
                .map(|nic| NicStatus {
                    bridge: Some(nic.bridge_name.clone()),
                    port: nic.port.clone(),
                    mac: Some(nic.mac.to_string()),
                    vlan: nic.vlan,
                    addresses: nic
                        .addresses
                        .iter()
                        .map(|a| format!("{}/{}", a.address, a.prefix_len))
                        .collect(),
                    mode: mode_word(Mode::default()).to_owned(),
                    ..NicStatus::default()
                })
                .collect(),
        }
    }
}

/// The cycle policy that a configuration asks for.
pub(super) const fn cycle_policy(policy: &config::GuestPolicy, port_sleeps: bool) -> CyclePolicy {
    CyclePolicy {
        wake: match policy.wake {
            config::WakePolicy::Managed => WakePolicy::Managed,
            config::WakePolicy::Always => WakePolicy::Always,
            config::WakePolicy::Never => WakePolicy::Never,
        },
        budget: WakeBudget { burst: policy.wake_budget.burst, per_minute: policy.wake_budget.per_minute },
        wake_timeout: policy.wake_timeout,
        hold_age: policy.traffic.hold.age,
        port_sleeps,
    }
}

/// A NIC with everything that must be known of it.
struct Merged {
    mac: Mac,
    bridge: String,
    port: Option<String>,
    vlan: Option<u16>,
    addresses: Vec<InterfaceAddress>,
    groups: Vec<IpAddr>,
}

/// What is configured wins; what is not is taken from the report of the NIC with the same MAC, or of
/// the only one. A reported NIC that is not configured must be coverable by itself, else standing in
/// for the others would leave it without an answer.
fn merge(configured: &[config::Nic], reported: &[NicReport]) -> Result<Vec<Merged>, String> {
    let only = (configured.len() == 1 && reported.len() == 1).then(|| reported.first()).flatten();
    let mut used = Vec::new();
    let mut merged = Vec::new();
    for nic in configured {
        let report = reported
            .iter()
            .enumerate()
            .find(|(_, r)| nic.mac.is_some() && r.mac == nic.mac)
            .or_else(|| only.filter(|r| nic.mac.is_none() || r.mac.is_none()).map(|r| (0, r)));
        if let Some((at, _)) = report {
            used.push(at);
        }
        merged.push(complete(nic, report.map(|(_, r)| r))?);
    }
    for (_, report) in reported.iter().enumerate().filter(|(at, _)| !used.contains(at)) {
        merged.push(complete(&config::Nic::default(), Some(report))?);
    }
    Ok(merged)
}

fn complete(nic: &config::Nic, report: Option<&NicReport>) -> Result<Merged, String> {
    let mac = nic.mac.or_else(|| report.and_then(|r| r.mac));
    let Some(mac) = mac else {
        return Err("the MAC of one of its NICs is not known; give mac in its [[guest]]".to_owned());
    };
    if let Some(why) = report.and_then(|r| r.refused.as_ref()) {
        return Err(format!("its NIC {mac}: {why}"));
    }
    let bridge = nic.bridge.clone().or_else(|| report.and_then(|r| r.bridge.clone()));
    let Some(bridge) = bridge else {
        return Err(format!("the bridge of its NIC {mac} is not known; give bridge in its [[guest]]"));
    };
    let mut addresses = nic.addresses.clone();
    let mut groups = nic.groups.clone();
    if let Some(report) = report {
        // Declared addresses are all that is meant; link-local ones are part of any IPv6 host.
        let take_all = addresses.is_empty();
        for address in &report.addresses {
            let link_local = matches!(address.address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            if (take_all || link_local) && !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        for group in &report.groups {
            if !groups.contains(group) {
                groups.push(*group);
            }
        }
    }
    let port = nic.port.clone().or_else(|| report.and_then(|r| r.port.clone()));
    Ok(Merged { mac, bridge, port, vlan: nic.vlan, addresses, groups })
}

/// The depth's word in events.
pub(super) const fn depth_word(depth: Depth) -> &'static str {
    match depth {
        Depth::Pause => "pause",
        Depth::Save => "save",
    }
}

const fn power_word(power: Power) -> &'static str {
    match power {
        Power::Running => "running",
        Power::Paused(PauseReason::IoError) => "paused (I/O error)",
        Power::Paused(PauseReason::Busy) => "paused (job)",
        Power::Paused(PauseReason::Failed) => "paused (crashed)",
        Power::Paused(PauseReason::User | PauseReason::Restored) => "paused",
        Power::Saved => "saved",
        Power::Off => "off",
        Power::Gone => "gone",
    }
}

/// The mode's word in status.
pub(super) const fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Pass => "pass",
        Mode::Fence { .. } => "fence",
        Mode::Answer => "answer",
        Mode::Hold { .. } => "hold",
        Mode::Replay { .. } => "replay",
    }
}

/// As idleness is judged: fractions of a percent or of a packet count.
fn thousandths(value: f64) -> u32 {
    (value * 1000.0).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::guest::identity::Epoch;

    const CONFIG: &str = r#"
[[bridge]]
name = "br0"
[[hypervisor]]
name = "local"
kind = "libvirt"
[[guest]]
name = "web1"
hypervisor = "local"
addresses = ["192.0.2.11/24"]
"#;

    fn reported(last: u8, addresses: &[&str]) -> NicReport {
        let address = |text: &&str| InterfaceAddress { address: text.parse().unwrap(), prefix_len: 64 };
        NicReport {
            mac: Some(Mac([0x52, 0x54, 0, 0, 0, last])),
            bridge: Some("br0".to_owned()),
            port: Some(format!("vnet{last}")),
            addresses: addresses.iter().map(address).collect(),
            groups: Vec::new(),
            refused: None,
        }
    }

    /// The guest of `config` after its hypervisor reported `nics`.
    fn learnt(config: &str, nics: Vec<NicReport>) -> Guest {
        let config = Config::parse(config).unwrap().guests.remove(0);
        let cycle = Lifecycle::new(cycle_policy(&config.policy, false), Epoch(0), clock::now());
        let mut guest = Guest::new(GuestId(0), config, 0, cycle);
        let report = GuestReport { name: "web1".to_owned(), power: Power::Running, nics, busy: None };
        guest.refresh(&report, |_| Some(0), &mut 0);
        guest.known = true;
        guest
    }

    #[test]
    fn a_nic_that_is_only_reported_and_without_addresses_is_a_reason_not_to_sleep() {
        let nics = |guest: &Guest| guest.nics.iter().map(|nic| nic.addresses.len()).collect::<Vec<_>>();
        let guest = learnt(CONFIG, vec![reported(0x11, &[])]);
        assert_eq!(
            (nics(&guest), guest.unaddressed()),
            (vec![1], None),
            "the configured ones are its only NIC's"
        );

        let config = CONFIG.replace("addresses", "mac = \"52:54:00:00:00:11\"\naddresses");
        let guest = learnt(&config, vec![reported(0x11, &[]), reported(0x12, &[])]);
        assert_eq!((nics(&guest), &guest.unfit), (vec![1, 0], &None));
        let why = guest.unaddressed().unwrap();
        assert!(
            why.starts_with("no addresses of NIC 52:54:00:00:00:12 on br0 are known: local tells none"),
            "{why}"
        );
        let status = guest.status(clock::now(), "local");
        assert_eq!((status.state.as_str(), status.why), ("awake", Some(why)));

        let guest = learnt(&config, vec![reported(0x11, &[]), reported(0x12, &["2001:db8::12"])]);
        assert_eq!(guest.unaddressed(), None, "told by the hypervisor");
    }
}
