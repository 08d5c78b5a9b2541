//! What a guest's connections are, from the segments that it sends and gets while it is awake.
//!
//! Only the guest's own segments make a connection known, and only they move RN, SN and W: a stranger can say
//! what he likes to it. The peer's segments tell what it has acknowledged and offers. Segments may be
//! missed (the observer looks at a sample of a busy guest's): each one that is seen tells all but what was
//! agreed in the handshake, so a connection that began unseen is known from its next segment on.

use surrogate_wire::{Frame, TcpFlags};

use super::Custody;
use super::connection::{Clock, Connection, Phase};
use super::handshake::Request;
use super::repeat::Sent;
use super::segment::Segment;
use super::sequence::Seq;
use super::table::Full;
use crate::guest::identity::NicIdentity;
use crate::time::Instant;

impl Custody {
    /// Takes note of a segment that the guest sent (`from_guest`) or got. May allocate, up to the limits of the
    /// policy.
    pub(super) fn learn_segment(
        &mut self,
        now: Instant,
        identity: &NicIdentity,
        from_guest: bool,
        frame: &Frame<'_>,
        segment: &Segment<'_>,
    ) {
        // What a guest forwards for others is theirs; two tags are a VLAN of its own.
        let tuple = segment.tuple;
        if !identity.holds(tuple.guest) || identity.holds(tuple.peer) || frame.tags.inner_vid().is_some() {
            return;
        }
        if from_guest {
            self.learn_from_guest(now, frame, segment);
        } else {
            self.learn_from_peer(now, frame, segment);
        }
    }

    fn learn_from_guest(&mut self, now: Instant, frame: &Frame<'_>, segment: &Segment<'_>) {
        let tuple = segment.tuple;
        if !frame.dst.is_unicast() {
            return;
        }
        if segment.has(TcpFlags::RST) {
            self.table.remove(&tuple);
            self.refused.forget(&tuple);
            return;
        }
        let connection = if segment.has(TcpFlags::SYN) {
            let repeated = self
                .table
                .get(&tuple)
                .is_some_and(|there| there.phase != Phase::Established && there.snd_nxt == segment.end());
            let request = self.requests.take(&tuple);
            if repeated {
                if let Some(there) = self.table.get_mut(&tuple) {
                    there.repeats = there.repeats.saturating_add(1);
                }
                self.table.get_mut(&tuple)
            } else {
                let connection = handshake(now, frame, segment, request);
                self.enter(now, connection)
            }
        } else if !segment.has(TcpFlags::ACK) {
            return;
        } else if self.table.get(&tuple).is_some_and(|there| !there.inferred) {
            self.table.get_mut(&tuple)
        } else {
            let numbers = (segment.ack(), segment.end());
            self.enter(now, Connection::new(tuple, frame.dst, Phase::Established, numbers, now))
        };
        let Some(connection) = connection else { return };
        connection.hear_guest(now, frame, segment);
        if connection.is_closed() {
            self.table.remove(&tuple);
        }
    }

    fn learn_from_peer(&mut self, now: Instant, frame: &Frame<'_>, segment: &Segment<'_>) {
        let tuple = segment.tuple;
        if segment.has(TcpFlags::SYN) && !segment.has(TcpFlags::ACK) && !segment.has(TcpFlags::RST) {
            self.requests.note(Request { tuple, scale: segment.options.scale });
            return;
        }
        let Some(connection) = self.table.get_mut(&tuple) else { return };
        if connection.asked_at.is_some() {
            // Its guest is fenced: what gets there is our own question.
            return;
        }
        if segment.has(TcpFlags::RST) {
            // As the guest itself takes it (RFC 5961 3.2); another one may be anybody's.
            if segment.seq() == connection.rcv_nxt {
                self.table.remove(&tuple);
            }
            return;
        }
        connection.hear_peer(now, frame, segment);
        if connection.is_closed() {
            self.table.remove(&tuple);
        }
    }

    fn enter(&mut self, now: Instant, connection: Connection) -> Option<&mut Connection> {
        let (tuple, phase) = (connection.tuple, connection.phase);
        match self.table.insert(connection, self.policy.connections.get()) {
            Ok(gone) => {
                self.counters.learned += 1;
                self.counters.evicted += gone as u64;
                self.refused.forget(&tuple);
                self.table.get_mut(&tuple)
            }
            Err(Full) => {
                self.counters.refused += 1;
                // Requests are anybody's: what comes of one tells of itself again.
                if phase == Phase::Established {
                    self.refused.note(now, tuple);
                }
                None
            }
        }
    }
}

impl Connection {
    /// A segment of the guest's own, no reset.
    fn hear_guest(&mut self, now: Instant, frame: &Frame<'_>, segment: &Segment<'_>) {
        self.heard_at = now;
        // Of one that we take for asleep and that runs: what it says next may be missed.
        self.exact = false;
        self.peer_mac = frame.dst;
        self.class = segment.class;
        self.flow_label = segment.flow_label;
        self.signed |= segment.options.signed;
        self.sack |= segment.options.sack;
        if segment.tcp.segment_len() > 0 {
            self.sent = Some(Sent::after(self.sent, segment.seq(), now));
        }
        self.snd_nxt = self.snd_nxt.advanced_to(segment.end());
        if segment.has(TcpFlags::SYN) {
            self.rcv_nxt = segment.ack();
            return;
        }
        if self.phase != Phase::Established {
            self.phase = Phase::Established;
            // What it acknowledged in the SYN-ACK, or the peer's SYN-ACK itself.
            self.rcv_nxt = segment.ack();
        }
        if segment.has(TcpFlags::FIN) {
            self.guest_fin = Some(segment.end());
        }
        let acknowledged = segment.ack();
        if self.rcv_nxt.advanced_to(acknowledged) == acknowledged {
            self.rcv_nxt = acknowledged;
            self.window = segment.tcp.window;
        }
        if let Some(theirs) = segment.options.timestamps {
            let (value, recent) = (Seq(theirs.value), Seq(theirs.echo));
            let clock = self.clock.get_or_insert(Clock { value, recent, recent_since: Some(now) });
            clock.value = clock.value.advanced_to(value);
            clock.hear_recent(now, recent);
        }
    }

    /// A segment of the peer's, no reset and no request; or of a stranger, which the guest would not take.
    fn hear_peer(&mut self, now: Instant, frame: &Frame<'_>, segment: &Segment<'_>) {
        if !segment.has(TcpFlags::ACK)
            || !self.may_acknowledge(segment.ack())
            || (segment.options.signed && !self.signed)
        {
            return;
        }
        // What lies below may be a question of ours.
        if !segment.end().is_before(self.rcv_nxt) {
            self.from_mac = Some(frame.src);
        }
        self.sack |= segment.options.sack;
        let acknowledged = self.snd_una.map_or(segment.ack(), |una| una.advanced_to(segment.ack()));
        if self.snd_una.replace(acknowledged) != Some(acknowledged)
            && let Some(sent) = &mut self.sent
        {
            sent.was_heard();
        }
        if segment.has(TcpFlags::SYN) {
            if self.phase == Phase::SynSent {
                self.agree(segment.options.scale, segment.options.sack_permitted);
            }
            return;
        }
        if self.phase == Phase::SynReceived && segment.ack() == self.snd_nxt {
            self.phase = Phase::Established;
        }
        self.peer_window = Some(segment.tcp.window);
        self.peer_window_max = self.peer_window_max.max(self.peer_window);
        // A stranger's, out of the window, would keep the guest awake.
        if segment.has(TcpFlags::FIN) && segment.seq().since(self.rcv_nxt) < self.window_bytes().max(1) {
            self.peer_fin = Some(segment.end());
            self.peer_closed = Some(Sent::after(self.peer_closed, segment.seq(), now));
        }
        if let (Some(clock), Some(theirs)) = (&mut self.clock, segment.options.timestamps)
            // RFC 7323 4.3, for a last acknowledgement at RN; not of one that lies wholly below, which is rejected
            // before (5.3 R2) and may be a question of ours.
            && !self.rcv_nxt.is_before(segment.seq())
            && !segment.end().is_before(self.rcv_nxt)
            && clock.recent.is_before(Seq(theirs.value))
        {
            clock.hear_recent(now, Seq(theirs.value));
        }
    }

    /// The handshake is agreed: both ends offered a scale, or there is none (RFC 7323 2.2).
    fn agree(&mut self, peers: Option<u8>, sack: bool) {
        if peers.is_none() || self.guest_scale.is_none() {
            self.guest_scale = Some(0);
        }
        self.peer_scale = Some(peers.unwrap_or(0));
        self.sack &= sack;
    }
}

/// A connection from the guest's own SYN or SYN-ACK.
fn handshake(now: Instant, frame: &Frame<'_>, segment: &Segment<'_>, request: Option<Request>) -> Connection {
    let answers = segment.has(TcpFlags::ACK);
    let phase = if answers { Phase::SynReceived } else { Phase::SynSent };
    let offered = segment.options;
    let numbers = (segment.ack(), segment.end());
    let mut connection = Connection::new(segment.tuple, frame.dst, phase, numbers, now);
    connection.mss = offered.mss;
    connection.sack = offered.sack_permitted;
    connection.guest_scale = offered.scale;
    connection.window = segment.tcp.window;
    if answers {
        // It offers only what the request offered. The window of a SYN is never scaled (RFC 7323 2.2): as a
        // scaled one, rounded up, so that the right edge does not shrink.
        let scale = offered.scale.unwrap_or(0);
        connection.guest_scale = Some(scale);
        connection.peer_scale = if offered.scale.is_none() { Some(0) } else { request.and_then(|r| r.scale) };
        connection.window = rounded_up(segment.tcp.window, scale);
        connection.clock = offered.timestamps.map(|t| Clock {
            value: Seq(t.value),
            recent: Seq(t.echo),
            recent_since: Some(now),
        });
    }
    connection
}

/// A window of a SYN as one that is shifted by `scale`.
fn rounded_up(window: u16, scale: u8) -> u16 {
    let unit = 1_u32 << scale.min(16);
    u16::try_from(u32::from(window).div_ceil(unit)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::testing::{
        FIN_ACK, RN, RST, SCALE, SN, SYN, SYN_ACK, TSRECENT, TSVAL, W, World, seg,
    };
    use crate::policy::custody::CustodyPolicy;
    use crate::time::Duration;

    fn only(world: &World) -> Connection {
        assert_eq!(world.custody.table.len(), 1);
        *world.custody.table.at(0).unwrap()
    }

    /// The guest's timestamps, TS.Recent seen just now.
    fn clock(world: &World, recent: u32) -> Clock {
        Clock { value: Seq(TSVAL), recent: Seq(recent), recent_since: Some(world.now) }
    }

    #[test]
    fn the_peers_clock_is_known_from_what_the_guest_takes() {
        let mut world = World::stamped();
        let before = only(&world).clock;
        world.after(Duration::from_secs(5));
        // Below the window, as its keep-alives are, and as we ask the guest; the same again; beyond the window.
        for untaken in [seg(RN - 1, SN), seg(RN - 4, SN).data(b"abc"), seg(RN + 1, SN)] {
            world.peer_sends(&untaken.stamped(TSRECENT + 5_000, TSVAL));
            assert_eq!(only(&world).clock, before);
        }
        world.guest_sends(&seg(SN, RN).stamped(TSVAL, TSRECENT));
        assert_eq!(only(&world).clock, before, "it is no younger for being repeated");
        world.peer_sends(&seg(RN, SN).stamped(TSRECENT + 5_000, TSVAL));
        assert_eq!(only(&world).clock, Some(clock(&world, TSRECENT + 5_000)));
        world.after(Duration::from_secs(5));
        world.guest_sends(&seg(SN, RN).stamped(TSVAL, TSRECENT + 10_000));
        assert_eq!(only(&world).clock, Some(clock(&world, TSRECENT + 10_000)));
    }

    #[test]
    fn a_handshake_to_the_guest_tells_what_was_agreed() {
        let world = World::stamped();
        let known = only(&world);
        assert_eq!((known.phase, known.rcv_nxt, known.snd_nxt), (Phase::Established, Seq(RN), Seq(SN)));
        assert_eq!((known.snd_una, known.window), (Some(Seq(SN)), W));
        assert_eq!((known.guest_scale, known.peer_scale, known.mss), (Some(SCALE), Some(6), Some(1440)));
        assert!(known.sack);
        assert_eq!(known.clock, Some(clock(&world, TSRECENT)));
    }

    #[test]
    fn a_handshake_of_the_guest_tells_the_same() {
        let mut world = World::new();
        let syn = [2, 4, 5, 0xb4, 4, 2, 3, 3, SCALE, 1];
        world.guest_sends(&seg(99, 0).flags(SYN).options(&syn));
        assert_eq!(only(&world).phase, Phase::SynSent);
        world.peer_sends(&seg(199, 100).flags(SYN_ACK).options(&[3, 3, 5, 1]));
        world.guest_sends(&seg(100, 200).window(W));
        let known = only(&world);
        assert_eq!((known.phase, known.rcv_nxt, known.snd_nxt), (Phase::Established, Seq(200), Seq(100)));
        assert_eq!((known.guest_scale, known.peer_scale), (Some(SCALE), Some(5)));
        assert!(!known.sack, "the peer did not permit it");
        // A peer without scaling: the guest's offer lapses.
        world.guest_sends(&seg(99, 0).flags(SYN).options(&syn).port(2));
        world.peer_sends(&seg(199, 100).flags(SYN_ACK).port(2));
        let plain = world.custody.table.iter().find(|c| c.tuple.peer_port == 2).unwrap();
        assert_eq!((plain.guest_scale, plain.peer_scale), (Some(0), Some(0)));
    }

    #[test]
    fn the_window_of_a_guest_that_only_answered_the_syn_is_scaled_without_shrinking() {
        let mut world = World::new();
        world.peer_sends(&seg(199, 0).flags(SYN).options(&[3, 3, 5, 1]));
        world.guest_sends(&seg(99, 200).flags(SYN_ACK).window(65_160).options(&[3, 3, SCALE, 1]));
        assert_eq!(only(&world).phase, Phase::SynReceived);
        world.peer_sends(&seg(200, 100));
        let known = only(&world);
        assert_eq!((known.phase, known.window), (Phase::Established, 510));
        assert!(known.window_bytes() >= 65_160);
    }

    #[test]
    fn a_connection_that_began_unseen_is_known_from_its_next_segment() {
        let mut world = World::new();
        world.peer_sends(&seg(RN, SN));
        assert_eq!(world.custody.table.len(), 0, "a stranger can say anything");
        world.guest_sends(&seg(SN - 5, RN).window(W).data(b"hello").stamped(TSVAL, TSRECENT));
        let known = only(&world);
        assert_eq!((known.rcv_nxt, known.snd_nxt, known.window), (Seq(RN), Seq(SN), W));
        assert_eq!((known.guest_scale, known.snd_una), (None, None));
        assert_eq!(known.clock, Some(clock(&world, TSRECENT)));
    }

    #[test]
    fn repeated_and_reordered_segments_do_not_turn_the_numbers_back() {
        let mut world = World::stamped();
        let before = only(&world);
        world.guest_sends(&seg(SN - 10, RN - 3).window(3).data(b"again").stamped(TSVAL - 1, TSRECENT - 1));
        world.peer_sends(&seg(RN - 3, SN - 10).window(800).data(b"abc").stamped(TSRECENT - 1, TSVAL - 1));
        let after = only(&world);
        assert_eq!(
            (after.rcv_nxt, after.snd_nxt, after.window),
            (before.rcv_nxt, before.snd_nxt, before.window)
        );
        assert_eq!((after.snd_una, after.clock), (before.snd_una, before.clock));
    }

    #[test]
    fn a_sample_that_missed_gigabytes_counts() {
        let mut world = World::connected();
        let far = 3_000_000_000_u32;
        world.guest_sends(&seg(SN.wrapping_add(far), RN.wrapping_add(far)).window(9));
        let known = only(&world);
        assert_eq!((known.snd_nxt, known.rcv_nxt), (Seq(SN).plus(far), Seq(RN).plus(far)));
        assert_eq!(known.window, 9);
    }

    #[test]
    fn a_reset_of_the_guest_ends_it_and_one_of_the_peer_only_at_rn() {
        let mut world = World::connected();
        world.peer_sends(&seg(RN + 1, 0).flags(RST));
        assert_eq!(world.custody.table.len(), 1);
        world.peer_sends(&seg(RN, 0).flags(RST));
        assert_eq!(world.custody.table.len(), 0);
        let mut world = World::connected();
        world.guest_sends(&seg(SN, 0).flags(RST));
        assert_eq!(world.custody.table.len(), 0);
    }

    #[test]
    fn a_connection_is_over_when_both_ends_have_closed_and_heard_it() {
        let mut world = World::connected();
        world.peer_sends(&seg(RN, SN).flags(FIN_ACK));
        assert!(only(&world).is_closing());
        world.guest_sends(&seg(SN, RN + 1).window(W));
        assert!(!only(&world).is_closing(), "half closed, and it can be waited with that for hours");
        world.guest_sends(&seg(SN, RN + 1).window(W).flags(FIN_ACK));
        assert!(only(&world).is_closing());
        world.peer_sends(&seg(RN + 1, SN + 1));
        assert_eq!(world.custody.table.len(), 0);
    }

    #[test]
    fn strangers_change_nothing_that_an_answer_is_made_of() {
        let mut world = World::stamped();
        let before = only(&world);
        for n in 0..10_000_u32 {
            let seq = n.wrapping_mul(0x9e37_79b9);
            let flags = [TcpFlags::ACK, RST, FIN_ACK, SYN_ACK][n as usize % 4];
            let forged = seg(seq, SN.wrapping_add(1 + n)).flags(flags).data(b"x");
            world.peer_sends(&forged.stamped(n, n));
        }
        let after = only(&world);
        assert_eq!(
            (after.rcv_nxt, after.snd_nxt, after.window),
            (before.rcv_nxt, before.snd_nxt, before.window)
        );
        assert_eq!((after.snd_una, after.clock, after.peer_fin), (before.snd_una, before.clock, None));
    }

    #[test]
    fn a_flood_of_handshakes_costs_no_established_connection_its_place() {
        let connections = core::num::NonZeroUsize::new(16).unwrap();
        let mut world = World::with(CustodyPolicy { connections, ..CustodyPolicy::default() });
        for port in 0..8 {
            world.connect(40_000 + port, false);
        }
        for port in 0..5_000 {
            world.guest_sends(&seg(99, 200).flags(SYN_ACK).port(port));
        }
        let live = world.custody.table.iter().filter(|c| c.phase == Phase::Established).count();
        assert_eq!((world.custody.table.len(), live), (16, 8));
        assert_eq!(world.custody.counters().evicted, 5_000 - 8);
        assert_eq!(world.custody.counters().refused, 0);
    }

    #[test]
    fn a_strangers_signature_or_end_does_not_keep_the_guest_awake() {
        let md5 = [[19, 18].as_slice(), &[0; 16]].concat();
        for n in 0..2_000_u32 {
            let mut world = World::stamped();
            let before = only(&world);
            // Whatever it acknowledges of what the guest has sent, but what the peer still can (RFC 5961 5.2).
            let number = SN.wrapping_sub(60_000 + n * 1_000_000);
            world.peer_sends(&seg(RN.wrapping_add(100), number).flags(FIN_ACK).options(&md5));
            assert_eq!(only(&world), before, "{number:x}");
        }
        // Nor one that hits: a guest whose own segments are not signed takes none that are.
        let mut world = World::stamped();
        world.peer_sends(&seg(RN, SN).options(&md5));
        assert!(!only(&world).signed);
    }

    #[test]
    fn a_strangers_answer_to_the_guests_syn_agrees_nothing() {
        let mut world = World::new();
        world.guest_sends(&seg(99, 0).flags(SYN).options(&[3, 3, SCALE, 1]));
        for n in 1..1_000_u32 {
            world.peer_sends(&seg(199, 100_u32.wrapping_sub(n * 1_000_000)).flags(SYN_ACK));
        }
        assert_eq!((only(&world).guest_scale, only(&world).snd_una), (Some(SCALE), None));
        // With data on the SYN (RFC 7413) it may acknowledge less than all.
        world.guest_sends(&seg(99, 0).flags(SYN).options(&[3, 3, SCALE, 1]).data(&[1; 100]).port(2));
        world.peer_sends(&seg(199, 100).flags(SYN_ACK).options(&[3, 3, 5, 1]).port(2));
        let early = world.custody.table.iter().find(|c| c.tuple.peer_port == 2).unwrap();
        assert_eq!((early.peer_scale, early.snd_una), (Some(5), Some(Seq(100))));
    }

    #[test]
    fn nobody_keeps_a_guest_awake_for_good_by_connections_whose_end_is_not_seen() {
        let connections = core::num::NonZeroUsize::new(16).unwrap();
        let mut world = World::with(CustodyPolicy { connections, ..CustodyPolicy::default() });
        // Opened, and reset by the peer while the guest works: nobody looks at what it is sent then.
        for port in 0..16 {
            world.connect(port, false);
        }
        world.after(Duration::from_secs(60));
        let refused = |world: &World| world.custody.unrepresentable(world.now, None).count();
        for port in 100..1_000 {
            world.guest_sends(&seg(99, 200).flags(SYN_ACK).port(port));
        }
        assert_eq!(refused(&world), 0, "a flood of requests is no reason");
        world.guest_sends(&seg(SN, RN).window(W).port(5_000));
        assert_eq!(refused(&world), 1, "a connection in use is");
        world.after(Duration::from_hours(3));
        world.guest_sends(&seg(SN, RN).window(W).port(5_000));
        assert_eq!((refused(&world), world.custody.counters().evicted), (0, 1));
        assert_eq!(world.custody.table.len(), 16);
    }
}
