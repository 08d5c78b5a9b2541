//! Whether a guest's ports let us stand in for it: asked before it is put to sleep, and before it is stood in for
//! when somebody else stopped it.

use std::sync::Arc;

use super::control::Control;
use super::messages::{Message, Then};
use crate::guest::lifecycle::State;
use crate::hypervisor::{GuestReport, PauseReason, Power};
use crate::io::netlink::Link;
use crate::io::steering::PortRefused;

impl Control {
    /// Looks at the guest's ports and sends what `then` makes of why it cannot be stood in for there, if so. A
    /// guest that is `saved` has none.
    pub(super) fn check_ports(
        &self,
        at: usize,
        saved: bool,
        then: impl FnOnce(Option<String>) -> Message + Send + 'static,
    ) {
        let Some(guest) = self.guests.get(at) else { return };
        let ports: Vec<_> =
            guest.nics.iter().map(|n| (n.bridge_name.clone(), n.port.clone(), n.vlan, n.mac)).collect();
        let (steering, outbox) = (Arc::clone(&self.steering), self.outbox.clone());
        tokio::spawn(async move {
            let mut why = None;
            for (bridge, port, vlan, mac) in ports {
                let refused = match port {
                    Some(port) => match steering.check_port(&bridge, &port, vlan).await {
                        Ok(_) => None,
                        Err(PortRefused::NoPort(_)) if saved => None,
                        Err(refused) => Some(refused.to_string()),
                    },
                    None if saved => None,
                    None => Some(format!("the port of its NIC {mac} on {bridge} is not known")),
                };
                why = why.or(refused);
            }
            let _ = outbox.send(then(why));
        });
    }

    /// Takes what a report tells of the guest's NICs. Says whether their ports must be looked at before the rest
    /// counts: it may be stood in for, and it was not us who looked at them and stopped it.
    pub(super) fn must_check(&mut self, at: usize, report: &GuestReport) -> bool {
        self.take_report(at, report);
        let Some(guest) = self.guests.get(at) else { return false };
        guest.cycle.state() == State::Awake
            && !guest.cycle.slept_by_us()
            && sleeps(report.power)
            && (guest.unfit.is_none() || guest.barred.is_some())
    }

    /// The ports of a guest that somebody else stopped were looked at.
    pub(super) fn take_check(&mut self, at: usize, report: &GuestReport, why: Option<String>) {
        if let Some(guest) = self.guests.get_mut(at) {
            guest.barred = why;
        }
        self.take_report(at, report);
    }

    /// A port changed: its guest, if it could not be stood in for, perhaps can be now.
    pub(super) fn port_changed(&self, link: &Link) {
        for (at, guest) in self.guests.iter().enumerate().filter(|(_, guest)| guest.unfit.is_some()) {
            let known = guest.nics.iter().map(|nic| nic.port.as_deref());
            let configured = guest.config.nics.iter().map(|nic| nic.port.as_deref());
            if known.chain(configured).any(|port| port == Some(&link.name)) {
                self.look_at(at, Then::Refresh);
            }
        }
    }
}

/// Whether a guest in this state is stood in for.
pub(super) const fn sleeps(power: Power) -> bool {
    matches!(power, Power::Saved | Power::Paused(PauseReason::User | PauseReason::Restored))
}
