//! What of custody survives a restart of the daemon.

use serde::{Deserialize, Serialize};
use surrogate_wire::Mac;
use surrogate_wire::tcp_options::MAX_SCALE;

use super::Custody;
use super::connection::{Clock, Connection, Phase, Tuple};
use super::sequence::Seq;
use crate::policy::custody::CustodyPolicy;
use crate::time::Instant;

/// The established connections of one NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustodyLearned {
    connections: Vec<Kept>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    tuple: Tuple,
    peer_mac: [u8; 6],
    #[serde(default)]
    from_mac: Option<[u8; 6]>,
    rcv_nxt: Seq,
    snd_nxt: Seq,
    snd_una: Option<Seq>,
    window: u16,
    guest_scale: Option<u8>,
    peer_scale: Option<u8>,
    mss: Option<u16>,
    peer_window: Option<u16>,
    peer_window_max: Option<u16>,
    sack: bool,
    /// Last TSval and TS.Recent.
    clock: Option<(Seq, Seq)>,
    class: u8,
    flow_label: u32,
    signed: bool,
    guest_fin: Option<Seq>,
    peer_fin: Option<Seq>,
    #[serde(default)]
    inferred: bool,
}

impl Custody {
    /// What must survive a restart.
    #[must_use]
    pub fn learned(&self) -> CustodyLearned {
        let established = self.table.iter().filter(|connection| connection.phase == Phase::Established);
        CustodyLearned { connections: established.map(Kept::of).collect() }
    }

    /// Custody as it was, within the limits of `policy`: what was kept comes from a disk. Nothing of it counts as
    /// exact: nobody saw whether the guest ran meanwhile.
    #[must_use]
    pub fn restore(learned: &CustodyLearned, policy: CustodyPolicy, seed: u64) -> Self {
        let mut custody = Self::new(policy, seed);
        let sound = learned.connections.iter().filter_map(Kept::connection);
        for connection in sound.take(policy.connections.get()) {
            if custody.table.insert(connection, policy.connections.get()).is_err() {
                break;
            }
        }
        custody
    }
}

impl Kept {
    fn of(connection: &Connection) -> Self {
        let c = *connection;
        Self {
            tuple: c.tuple,
            peer_mac: c.peer_mac.0,
            from_mac: c.from_mac.map(|mac| mac.0),
            rcv_nxt: c.rcv_nxt,
            snd_nxt: c.snd_nxt,
            snd_una: c.snd_una,
            window: c.window,
            guest_scale: c.guest_scale,
            peer_scale: c.peer_scale,
            mss: c.mss,
            peer_window: c.peer_window,
            peer_window_max: c.peer_window_max,
            sack: c.sack,
            clock: c.clock.map(|clock| (clock.value, clock.recent)),
            class: c.class,
            flow_label: c.flow_label,
            signed: c.signed,
            guest_fin: c.guest_fin,
            peer_fin: c.peer_fin,
            inferred: c.inferred,
        }
    }

    /// `None` if no connection can be like that.
    fn connection(&self) -> Option<Connection> {
        let (tuple, peer_mac) = (self.tuple, Mac(self.peer_mac));
        let scales = [self.guest_scale, self.peer_scale];
        let sound = tuple.guest.is_ipv4() == tuple.peer.is_ipv4()
            && peer_mac.is_unicast()
            && scales.iter().flatten().all(|scale| *scale <= MAX_SCALE);
        let numbers = (self.rcv_nxt, self.snd_nxt);
        sound.then(|| Connection {
            from_mac: self.from_mac.map(Mac),
            snd_una: self.snd_una,
            window: self.window,
            guest_scale: self.guest_scale,
            peer_scale: self.peer_scale,
            mss: self.mss,
            peer_window: self.peer_window,
            peer_window_max: self.peer_window_max,
            sack: self.sack,
            clock: self.clock.map(|(value, recent)| Clock { value, recent, recent_since: None }),
            class: self.class,
            flow_label: self.flow_label & 0xf_ffff,
            signed: self.signed,
            guest_fin: self.guest_fin,
            peer_fin: self.peer_fin,
            inferred: self.inferred,
            ..Connection::new(tuple, peer_mac, Phase::Established, numbers, Instant::ZERO)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::Kind;
    use crate::custody::testing::{RN, SN, SYN_ACK, World, seg};

    #[test]
    fn a_sleepers_connections_are_answered_for_after_a_restart_as_before() {
        let mut world = World::stamped().settled();
        let text = serde_json::to_string(&world.custody.learned()).unwrap();
        let learned: CustodyLearned = serde_json::from_str(&text).unwrap();
        let before = world.answer(&seg(RN.wrapping_sub(1), SN)).unwrap();
        world.custody = Custody::restore(&learned, CustodyPolicy::default(), 77);
        world.custody.sleep(world.now, &mut world.rng);
        assert_eq!(world.answer(&seg(RN.wrapping_sub(1), SN)), Some(before));
        assert_eq!(before.0, Kind::KeepAlive);
        assert_eq!(world.custody.counters().unconfirmed, 1, "nobody saw whether it ran meanwhile");
    }

    #[test]
    fn handshakes_are_not_kept_and_a_smaller_limit_counts() {
        let mut world = World::new();
        for port in 0..9 {
            world.connect(40_000 + port, false);
        }
        world.guest_sends(&seg(99, 200).flags(SYN_ACK).port(5));
        let learned = world.custody.learned();
        assert_eq!(learned.connections.len(), 9);
        let connections = core::num::NonZeroUsize::new(4).unwrap();
        let policy = CustodyPolicy { connections, ..CustodyPolicy::default() };
        assert_eq!(Custody::restore(&learned, policy, 1).counters().known, 4);
    }

    #[test]
    fn what_no_connection_can_be_is_not_restored() {
        let good = World::connected().custody.learned().connections[0];
        let mut other_family = good;
        other_family.tuple.guest = "2001:db8::1".parse().unwrap();
        let bad = [
            other_family,
            Kept { guest_scale: Some(15), ..good },
            Kept { peer_scale: Some(255), ..good },
            Kept { peer_mac: [0xff; 6], ..good },
        ];
        for kept in bad {
            let learned = CustodyLearned { connections: vec![kept] };
            let restored = Custody::restore(&learned, CustodyPolicy::default(), 1);
            assert_eq!(restored.counters().known, 0, "{kept:?}");
        }
        let twice = CustodyLearned { connections: vec![good, Kept { flow_label: u32::MAX, ..good }] };
        let restored = Custody::restore(&twice, CustodyPolicy::default(), 1);
        assert_eq!(restored.counters().known, 1);
        assert!(restored.table.iter().all(|connection| connection.flow_label <= 0xf_ffff));
    }
}
