//! The answer to a segment of a connection in custody: `SEQ=SN ACK=RN W`, no data.
//!
//! It repeats what the guest said last, so it acknowledges nothing new and the right edge of the window stays
//! where the guest put it.

use surrogate_wire::emit::Ethernet;
use surrogate_wire::{Frame, FrameBuf, Packet, Tags, TcpFlags};

use super::connection::Connection;
use super::segment::{BareAck, Segment};
use super::{Custody, Kind};
use crate::guest::identity::NicIdentity;

impl Custody {
    /// Writes the answer of `kind` that [`judge`](Self::judge) found to be owed for this segment. Goes to the station
    /// that the guest itself sent to (unless the peer has shown that it comes another way now), on the tags of the
    /// segment.
    pub fn answer(
        &self,
        kind: Kind,
        identity: &NicIdentity,
        frame: &Frame<'_>,
        packet: &Packet<'_>,
        out: &mut FrameBuf<'_>,
    ) -> Option<Kind> {
        let segment = Segment::of(false, packet)?;
        let written = match self.table.get(&segment.tuple) {
            Some(connection) => answer_to(connection, kind, identity, frame.tags, &segment).write(out),
            // Custody of it is being inferred.
            None => self.question(identity, frame, &segment)?.write(out),
        };
        written.map(|()| kind)
    }
}

fn answer_to(
    connection: &Connection,
    kind: Kind,
    identity: &NicIdentity,
    tags: Tags,
    segment: &Segment<'_>,
) -> BareAck {
    // Who hits SEQ is the peer; of any other segment the timestamp counts no more than the rest (RFC 7323 5.3 R2).
    let is_peers = matches!(kind, Kind::KeepAlive | Kind::WindowProbe);
    let theirs = segment.options.timestamps.filter(|_| is_peers);
    let len = if segment.has(TcpFlags::SYN) { 0 } else { segment.tcp.segment_len() };
    let below = segment.seq().is_before(connection.rcv_nxt) && len > 0;
    // What had arrived already is named (RFC 2883 4), as Linux and Windows do; its end counts, as for Linux.
    let again = (segment.seq(), segment.seq().plus(len));
    BareAck {
        timestamps: connection.timestamps(theirs.map(|t| (segment.seq(), t))),
        sack: (connection.sack && below).then_some(again),
        ..connection.bare_ack(identity, tags)
    }
}

impl Connection {
    /// The guest's last acknowledgement once more.
    pub(super) fn bare_ack(&self, identity: &NicIdentity, tags: Tags) -> BareAck {
        BareAck {
            to: Ethernet { dst: self.peer_mac, src: identity.mac, tags },
            src: (self.tuple.guest, self.tuple.guest_port),
            dst: (self.tuple.peer, self.tuple.peer_port),
            class: self.class,
            flow_label: self.flow_label,
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            window: self.window,
            timestamps: self.timestamps(None),
            sack: None,
            byte: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use surrogate_wire::{Mac, TcpFlags};

    use super::*;
    use crate::custody::testing::{GUEST, PEER, RN, SN, Seg, TSRECENT, TSVAL, World, read, seg};
    use crate::custody::{CustodyPolicy, Judgement};
    use crate::time::Duration;

    const BELOW: u32 = RN.wrapping_sub(1);

    /// TSval and TSecr of the answer to a segment at `seq` with TSval `value`.
    fn stamps(seq: u32, value: u32) -> (u32, u32) {
        let mut world = World::stamped().settled();
        let (_, said) = world.answer(&seg(seq, SN).stamped(value, TSVAL)).expect("an answer");
        said.timestamps.expect("every segment carries them")
    }

    #[test]
    fn tsval_is_the_guests_last_and_never_larger_however_long_it_sleeps() {
        for value in [TSRECENT, TSRECENT + 1_000_000_000, TSRECENT.wrapping_sub(5)] {
            assert_eq!(stamps(BELOW, value).0, TSVAL);
        }
    }

    #[test]
    fn what_the_peer_has_of_the_guests_clock_counts_if_it_was_missed() {
        let told = |segment: Seg| {
            let mut world = World::stamped();
            world.custody.sleep(world.now, &mut world.rng);
            let (_, said) = world.answer(&segment).expect("an answer");
            said.timestamps.expect("every segment carries them").0
        };
        let by_peer = |echo: u32| seg(BELOW, SN).stamped(TSRECENT, echo);
        assert_eq!(told(by_peer(TSVAL + 60_000)), TSVAL + 60_000, "or it would take no answer");
        for other in [TSVAL, TSVAL - 5, 0, TSVAL.wrapping_add(1 << 31), TSVAL.wrapping_sub(1 << 31) + 1] {
            assert_eq!(told(by_peer(other)), TSVAL, "{other}");
        }
        // By nobody else, whatever he says.
        let syn = seg(RN ^ 0x7777, SN).flags(TcpFlags::SYN).stamped(TSRECENT, TSVAL + 60_000);
        assert_eq!(told(syn), TSVAL);
    }

    #[test]
    fn tsecr_is_the_segments_unless_it_is_older_than_ts_recent() {
        assert_eq!(stamps(BELOW, TSRECENT + 60_000).1, TSRECENT + 60_000);
        assert_eq!(stamps(BELOW, TSRECENT).1, TSRECENT);
        assert_eq!(stamps(BELOW, TSRECENT - 1).1, TSRECENT);
    }

    #[test]
    fn tsecr_is_not_that_of_a_segment_beyond_the_last_acknowledgement() {
        let mut world = World::stamped().settled();
        let rst = seg(RN + 1, SN).flags(surrogate_wire::TcpFlags::RST).stamped(TSRECENT + 5, 0);
        assert_eq!(world.answer(&rst).unwrap().1.timestamps, Some((TSVAL, TSRECENT)));
    }

    #[test]
    fn a_strangers_timestamp_is_not_repeated() {
        let mut world = World::stamped().settled();
        for forged in [seg(RN.wrapping_sub(9), SN), seg(RN.wrapping_sub(70_000), 0).flags(TcpFlags::SYN)] {
            world.after(Duration::from_secs(1));
            let (_, said) = world.answer(&forged.stamped(TSRECENT + 1_000_000, 0)).expect("an answer");
            assert_eq!(said.timestamps, Some((TSVAL, TSRECENT)));
        }
        let bare = seg(BELOW, SN).stamped(TSRECENT - 1, TSVAL);
        assert_eq!(world.answer(&bare).unwrap().1.timestamps, Some((TSVAL, TSRECENT)));
    }

    #[test]
    fn a_segment_without_timestamps_is_answered_with_them_if_they_were_agreed_and_none_are_made_up() {
        let mut world = World::stamped().settled();
        assert_eq!(world.answer(&seg(BELOW, SN)).unwrap().1.timestamps, Some((TSVAL, TSRECENT)));
        assert_eq!(World::asleep().answer(&seg(BELOW, SN).stamped(1, 2)).unwrap().1.timestamps, None);
    }

    #[test]
    fn one_byte_timestamps_and_sack_stand_beside_each_other() {
        let mut world = World::stamped().settled();
        let (_, said) = world.answer(&seg(BELOW, SN).data(&[0]).stamped(TSRECENT + 4, TSVAL)).unwrap();
        assert_eq!((said.timestamps, said.sack), (Some((TSVAL, TSRECENT + 4)), Some((BELOW, RN))));
    }

    #[test]
    fn the_ip_fields_are_those_of_an_idle_host() {
        let mut world = World::asleep();
        let keep_alive = seg(BELOW, SN);
        let frame = world.answer_frame(Kind::KeepAlive, &keep_alive);
        let (frame, Packet::Ipv4(ip, _)) = read(&frame) else { panic!("{frame:x?}") };
        assert_eq!((frame.src, frame.dst, ip.ttl, ip.tos, ip.dont_fragment), (GUEST, PEER, 64, 0, true));
        let mut world = World::new();
        world.v6 = true;
        world.connect(40_000, true);
        let mut world = world.settled();
        assert_eq!(world.answer(&keep_alive).unwrap().0, Kind::KeepAlive);
        let frame = world.answer_frame(Kind::KeepAlive, &keep_alive);
        let (_, Packet::Ipv6(ip, _)) = read(&frame) else { panic!("{frame:x?}") };
        assert_eq!((ip.hop_limit, ip.traffic_class, ip.flow_label()), (64, 0, 0xabcde), "the guest's label");
    }

    #[test]
    fn the_answer_goes_where_the_guest_sent_on_the_tags_of_the_segment() {
        let mut world = World::asleep();
        let mut bytes = world.frame(false, &seg(BELOW, SN));
        bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0x66]);
        bytes.splice(12..12, [0x81, 0, 0xa0, 5]);
        let (frame, packet) = read(&bytes);
        let written = world
            .written(|world, out| {
                world.custody.answer(Kind::KeepAlive, &world.identity, &frame, &packet, out)
            })
            .unwrap();
        let (answer, _) = read(&written);
        assert_eq!((answer.dst, answer.tags), (Mac(PEER.0), frame.tags));
    }

    /// Where the answer to a segment goes that comes from the station `from`.
    fn answered_to(world: &mut World, segment: &Seg, from: Mac) -> Mac {
        let mut bytes = world.frame(false, segment);
        bytes[6..12].copy_from_slice(&from.0);
        let (frame, packet) = read(&bytes);
        let judged = world.custody.judge(world.now, &mut world.rng, &world.identity, &frame, &packet);
        let Judgement::Answer(kind) = judged else { panic!("{judged:?}") };
        let written = world
            .written(|world, out| world.custody.answer(kind, &world.identity, &frame, &packet, out))
            .unwrap();
        read(&written).0.dst
    }

    #[test]
    fn a_peer_whose_router_gave_way_to_another_is_answered_by_that_one() {
        let other = Mac([2, 0, 0, 0, 0, 0x66]);
        let mut world = World::asleep();
        let learned = world.custody.learned();
        for restart in [false, true] {
            if restart {
                world.custody = Custody::restore(&learned, CustodyPolicy::default(), 1);
                world.custody.sleep(world.now, &mut world.rng);
            }
            // And back.
            for router in [PEER, other, other, PEER] {
                world.after(Duration::from_secs(1));
                assert_eq!(answered_to(&mut world, &seg(BELOW, SN), router), router);
            }
        }
    }

    #[test]
    fn a_stranger_is_told_nothing() {
        let stranger = Mac([2, 0, 0, 0, 0, 0x66]);
        let mut world = World::asleep();
        let forged = [
            seg(RN ^ 0x7777, SN).flags(TcpFlags::SYN),
            seg(RN.wrapping_sub(500), SN).data(b"old"),
            seg(BELOW, SN.wrapping_sub(1 << 30)),
            seg(RN.wrapping_add(1), SN).flags(TcpFlags::RST),
        ];
        for segment in forged {
            world.after(Duration::from_secs(1));
            assert_eq!(answered_to(&mut world, &segment, stranger), PEER, "{segment:x?}");
            world.after(Duration::from_secs(1));
            assert_eq!(answered_to(&mut world, &seg(BELOW, SN), PEER), PEER);
        }
    }

    #[test]
    fn a_guest_that_sends_another_way_than_it_hears_is_stood_in_for_likewise() {
        let inward = Mac([2, 0, 0, 0, 0, 0x77]);
        let mut world = World::connected();
        let mut bytes = world.frame(false, &seg(RN, SN));
        bytes[6..12].copy_from_slice(&inward.0);
        world.learn(false, &bytes);
        // Nor does a question of ours come from the peer, if it is observed.
        world.after(Duration::from_secs(10));
        for question in world.solicit() {
            world.learn(false, &question);
            world.answer_solicit(&question);
        }
        world.custody.sleep(world.now, &mut world.rng);
        assert_eq!(answered_to(&mut world, &seg(BELOW, SN), inward), PEER);
    }
}
