//! What a stand-in has learned of its guest, as a value: to be kept where a restart of the daemon, or another port
//! of ours, finds it. Whoever reads it back may get it damaged or of another version: what is not there is as if
//! never learned, and each protocol judges its own part.

use serde::{Deserialize, Serialize};

use super::{Engine, NicId};
use crate::custody::{Custody, CustodyLearned};
use crate::guest::ports::{Ports, PortsLearned};
use crate::responder::presence;
use crate::time::{Duration, Instant};

/// See the [module](self). Times in it are relative to when it was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Knowledge {
    /// Of the presence protocols.
    pub presence: presence::Learned,
    /// Its connections.
    pub connections: CustodyLearned,
    /// Which ports are closed.
    pub ports: PortsLearned,
}

impl Engine {
    /// What is known of a NIC at `now`; `None` if it is not registered.
    #[must_use]
    pub fn knowledge(&self, now: Instant, nic: NicId) -> Option<Knowledge> {
        let nic = self.by_id(nic)?;
        let connections = nic.custody.as_deref().map(Custody::learned).unwrap_or_default();
        let (presence, ports) = (nic.presence.learned(now), nic.ports.learned());
        Some(Knowledge { presence, connections, ports })
    }

    /// Takes what was known of a NIC `ago` before `now`, unless it has learned or spoken since it was registered.
    pub(super) fn know(&mut self, now: Instant, id: NicId, knowledge: &Knowledge, ago: Duration) {
        let seed = self.seed_of(id);
        if let Some(nic) = self.by_id_mut(id)
            && core::mem::take(&mut nic.fresh)
        {
            if let Some(custody) = &mut nic.custody {
                **custody = Custody::restore(&knowledge.connections, nic.identity.traffic.connections, seed);
            }
            nic.presence.restore(&knowledge.presence, now, ago);
            nic.ports = Ports::restore(&knowledge.ports, now);
            self.take_groups(id);
        }
    }
}
