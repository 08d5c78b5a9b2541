//! Against libvirt's own test driver, which lives in this process: `test:///default`. All tests share
//! its one world, so each defines domains of its own.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

struct World {
    libvirt: Libvirt,
    events: UnboundedReceiver<HypervisorEvent>,
    /// What an operator would do by hand.
    by_hand: Connection,
    domains: Vec<String>,
}

impl World {
    fn new() -> Self {
        let by_hand = Connection::open(URI).unwrap();
        let (sender, events) = unbounded_channel();
        let libvirt = Libvirt::connect("local".to_owned(), URI.to_owned(), sender);
        let mut world = Self { libvirt, events, by_hand, domains: Vec::new() };
        assert_eq!(world.next(), HypervisorEvent::Connected);
        world
    }

    /// Defines and starts a domain with a name that begins with `name`.
    fn start(&mut self, name: &str, devices: &str) -> String {
        let name = format!("{name}-{}", std::process::id());
        let xml = format!(
            "<domain type='test'><name>{name}</name><memory>8192</memory><os><type>hvm</type></os>
             <devices>{devices}</devices></domain>"
        );
        let domain = Domain::define_xml(&self.by_hand, &xml).unwrap();
        domain.create().unwrap();
        self.domains.push(name.clone());
        self.until(&name, Power::Running); // told first that it is defined, perhaps
        name
    }

    fn domain(&self, name: &str) -> Domain {
        Domain::lookup_by_name(&self.by_hand, name).unwrap()
    }

    fn next(&mut self) -> HypervisorEvent {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let next = async { tokio::time::timeout(Duration::from_secs(10), self.events.recv()).await };
        runtime.block_on(next).expect("an event within ten seconds").unwrap()
    }

    /// The next news of the domain `name`. The same may be told twice, when two events led to one state.
    fn next_power(&mut self, name: &str) -> Power {
        loop {
            match self.next() {
                HypervisorEvent::Power { guest, power } if guest == name => return power,
                HypervisorEvent::Power { .. } => {} // another test's domain
                other => panic!("{other:?}"),
            }
        }
    }

    /// The power of `name` as told, until it is `wanted`.
    fn until(&mut self, name: &str, wanted: Power) {
        while self.next_power(name) != wanted {}
    }

    fn power(&self, name: &str) -> Power {
        self.libvirt.inspect(name).unwrap().power
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in &self.domains {
            if let Ok(domain) = Domain::lookup_by_name(&self.by_hand, name) {
                let _ = domain.destroy();
                let _ = domain.managed_save_remove(0);
                let _ = domain.undefine();
            }
        }
    }
}

const URI: &str = "test:///default";
const PAUSED: Power = Power::Paused(PauseReason::User);

#[test]
fn a_domain_is_suspended_and_resumed() {
    let mut world = World::new();
    let name = world.start("pause", "");
    world.libvirt.sleep(&name, Depth::Pause).unwrap();
    assert_eq!(world.power(&name), PAUSED);
    world.until(&name, PAUSED);
    world.libvirt.sleep(&name, Depth::Pause).unwrap();
    world.libvirt.restore(&name).unwrap();
    assert_eq!(world.power(&name), PAUSED, "neither a second sleep nor a restore changes a paused one");

    world.libvirt.resume(&name).unwrap();
    assert_eq!(world.power(&name), Power::Running);
    world.until(&name, Power::Running);
    world.libvirt.resume(&name).unwrap();
    let refused = world.libvirt.restore(&name).unwrap_err();
    assert_eq!(refused.to_string(), "it is running");
}

#[test]
fn a_domain_is_saved_and_comes_back_by_hand() {
    let mut world = World::new();
    let name = world.start("save", "");
    world.libvirt.sleep(&name, Depth::Save).unwrap();
    assert_eq!(world.power(&name), Power::Saved);
    world.until(&name, Power::Saved);
    world.libvirt.sleep(&name, Depth::Save).unwrap();
    assert_eq!(world.libvirt.resume(&name).unwrap_err().to_string(), "it is saved");
    assert!(world.libvirt.statistics(&name).is_err());

    // The test driver cannot start a domain paused, so the rest of a wake is for real guests to show;
    // what it cannot do changes nothing.
    let error = world.libvirt.restore(&name).unwrap_err();
    assert!(error.to_string().starts_with("restore failed: unsupported flags"), "{error}");
    assert_eq!(world.power(&name), Power::Saved);
    world.domain(&name).create().unwrap();
    world.until(&name, Power::Running);
}

#[test]
fn what_others_do_is_told() {
    let mut world = World::new();
    let name = world.start("by-hand", "");
    world.domain(&name).suspend().unwrap();
    world.until(&name, PAUSED);
    world.domain(&name).resume().unwrap();
    world.until(&name, Power::Running);
    world.domain(&name).destroy().unwrap();
    world.until(&name, Power::Off);
    assert_eq!(
        world.libvirt.restore(&name).unwrap_err().to_string(),
        "it is shut off and has no saved state"
    );
    world.domain(&name).undefine().unwrap();
    world.until(&name, Power::Gone);
    let gone = HypervisorError::NoGuest { hypervisor: "local".to_owned(), guest: name.clone() };
    assert_eq!(world.libvirt.inspect(&name).unwrap_err(), gone);
    assert_eq!(world.libvirt.sleep(&name, Depth::Pause).unwrap_err(), gone);
}

#[test]
fn domains_are_listed_with_their_nics() {
    let mut world = World::new();
    let name = world.start(
        "nics",
        "<interface type='bridge'><mac address='52:54:00:00:00:11'/><source bridge='br-none'/>
           <target dev='hyper-none'/></interface>
         <interface type='network'><mac address='52:54:00:00:00:12'/><source network='default'/></interface>
         <interface type='network'><mac address='52:54:00:00:00:13'/><source network='none'/></interface>
         <interface type='user'><mac address='52:54:00:00:00:14'/></interface>",
    );
    let listed = world.libvirt.list().unwrap();
    let report = listed.iter().find(|report| report.name == name).unwrap();
    assert_eq!((report.power, &report.busy), (Power::Running, &None));
    assert_eq!(world.libvirt.inspect(&name).unwrap(), *report);

    let [bridge, network, missing, user] = &report.nics[..] else { panic!("{:?}", report.nics) };
    assert_eq!(bridge.mac.unwrap().to_string(), "52:54:00:00:00:11");
    assert_eq!((bridge.bridge.as_deref(), bridge.port.as_deref()), (Some("br-none"), Some("hyper-none")));
    assert_eq!((network.bridge.as_deref(), &network.refused), (Some("virbr0"), &None));
    let refused = missing.refused.as_deref().unwrap();
    assert!(refused.starts_with("network \"none\" has no bridge: "), "{refused}");
    assert!(user.refused.as_deref().unwrap().contains("type \"user\""));
}

#[test]
fn figures_are_read_while_it_runs() {
    let mut world = World::new();
    let name = world.start("figures", "");
    let before = world.libvirt.statistics(&name).unwrap();
    assert!(world.libvirt.statistics(&name).unwrap().cpu >= before.cpu);
}

#[test]
fn an_unreachable_libvirt_is_told_once_and_calls_fail_at_once() {
    let (sender, mut events) = unbounded_channel();
    let uri = "qemu+unix:///system?socket=/nonexistent/libvirt-sock";
    let libvirt = Libvirt::connect("local".to_owned(), uri.to_owned(), sender);
    let Some(HypervisorEvent::Disconnected { why }) = events.blocking_recv() else { panic!() };
    assert!(why.contains("/nonexistent/libvirt-sock") && !why.contains('\n'), "{why}");
    let error = libvirt.list().unwrap_err();
    assert!(error.to_string().starts_with("local: not connected: "), "{error}");
    assert!(matches!(libvirt.resume("web1"), Err(HypervisorError::Disconnected { .. })));
    drop(libvirt);
    assert_eq!(events.blocking_recv(), None, "and no more is told until it is there");
}

#[test]
fn a_name_that_no_domain_can_have_is_no_domain() {
    let world = World::new();
    for name in ["", "no\0body", "nobody"] {
        assert!(matches!(world.libvirt.inspect(name), Err(HypervisorError::NoGuest { .. })), "{name:?}");
    }
}
