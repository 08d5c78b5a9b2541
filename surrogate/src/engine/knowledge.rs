//! What a stand-in has learned of its guest, as a value: to be kept where a restart of the daemon, or another port
//! of ours, finds it. Whoever reads it back may get it damaged or of another version: what is not there is as if
//! never learned, and each protocol judges its own part.

use core::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{Engine, NicId};
use crate::custody::{Custody, CustodyLearned};
use crate::guest::ports::{Ports, PortsLearned};
use crate::guest::table::Lan;
use crate::responder::presence;
use crate::responder::router::LearnedPrefix;
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
    /// What routers said of the prefixes of its addresses.
    pub prefixes: Vec<LearnedPrefix>,
}

impl Engine {
    /// What is known of a NIC at `now`; `None` if it is not registered.
    #[must_use]
    pub fn knowledge(&self, now: Instant, nic: NicId) -> Option<Knowledge> {
        let nic = self.by_id(nic)?;
        let connections = nic.custody.as_deref().map(Custody::learned).unwrap_or_default();
        let (presence, ports) = (nic.presence.learned(now), nic.ports.learned());
        let routers = self.routers.get(&Lan::of(&nic.identity));
        let prefixes = routers.map(|routers| routers.learned(now, nic.own_addresses().filter_map(of_v6)));
        Some(Knowledge { presence, connections, ports, prefixes: prefixes.unwrap_or_default() })
    }

    /// Takes what was known of a NIC `ago` before `now`, unless it has learned or spoken since it was registered. What
    /// routers said is its LAN's, and taken unless they were heard since.
    pub(super) fn know(&mut self, now: Instant, id: NicId, knowledge: &Knowledge, ago: Duration) {
        let seed = self.seed_of(id);
        if let Some(lan) = self.by_id(id).map(|nic| Lan::of(&nic.identity))
            && let Some(routers) = self.routers.get_mut(&lan)
        {
            routers.restore(&knowledge.prefixes, now, ago);
        }
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

const fn of_v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}
