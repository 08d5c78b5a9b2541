//! A guest, its peer, and the segments between them, for custody's tests.

use core::net::IpAddr;

use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::{Ethernet, Ipv4Header, Ipv6Header};
use surrogate_wire::tcp_options::TcpOptions;
use surrogate_wire::{
    Frame, FrameBuf, Mac, Offload, Packet, Received, Tags, Tcp, TcpFlags, Timestamps, Transport, protocol,
};

use super::{Custody, CustodyPolicy, Judgement, Kind};
use crate::guest::identity::{GuestId, InterfaceAddress, NicId, NicIdentity, PortId};
use crate::policy::traffic::TrafficPolicy;
use crate::rng::Rng;
use crate::time::{Duration, Instant};

pub(super) const GUEST: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x11]);
pub(super) const PEER: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x99]);

pub(super) const ACK: TcpFlags = TcpFlags::ACK;
pub(super) const SYN: TcpFlags = TcpFlags::SYN;
pub(super) const RST: TcpFlags = TcpFlags::RST;
pub(super) const FIN_ACK: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
pub(super) const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);
pub(super) const URG_ACK: TcpFlags = TcpFlags(TcpFlags::URG.0 | TcpFlags::ACK.0);

/// RN, SN and W of the tests' connection, all near where they go round.
pub(super) const RN: u32 = 0xffff_fff0;
pub(super) const SN: u32 = 0x0000_0010;
pub(super) const W: u16 = 500;
/// The guest's window scale, and its window in bytes.
pub(super) const SCALE: u8 = 7;
pub(super) const WINDOW: u32 = (W as u32) << SCALE;
/// The guest's last TSval and the peer's.
pub(super) const TSVAL: u32 = 7_000;
pub(super) const TSRECENT: u32 = 9_000;

/// One segment.
#[derive(Clone, Debug)]
pub(super) struct Seg {
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: TcpFlags,
    pub(super) window: u16,
    pub(super) options: Vec<u8>,
    pub(super) data: Vec<u8>,
    pub(super) peer_port: u16,
}

/// An acknowledgement without anything.
pub(super) fn seg(seq: u32, ack: u32) -> Seg {
    Seg { seq, ack, flags: ACK, window: 800, options: Vec::new(), data: Vec::new(), peer_port: 40_000 }
}

impl Seg {
    pub(super) fn flags(self, flags: TcpFlags) -> Self {
        Self { flags, ..self }
    }

    pub(super) fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }

    pub(super) fn data(self, data: &[u8]) -> Self {
        Self { data: data.to_vec(), ..self }
    }

    pub(super) fn options(mut self, options: &[u8]) -> Self {
        self.options.extend_from_slice(options);
        self
    }

    pub(super) fn stamped(self, value: u32, echo: u32) -> Self {
        self.options(&Timestamps { value, echo }.emit())
    }

    pub(super) fn port(self, peer_port: u16) -> Self {
        Self { peer_port, ..self }
    }
}

/// An answer as it was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) window: u16,
    pub(super) timestamps: Option<(u32, u32)>,
    pub(super) sack: Option<(u32, u32)>,
}

/// A NIC in custody and its only peer.
pub(super) struct World {
    pub(super) custody: Custody,
    pub(super) identity: NicIdentity,
    pub(super) rng: Rng,
    pub(super) now: Instant,
    pub(super) v6: bool,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(CustodyPolicy::default())
    }

    pub(super) fn with(policy: CustodyPolicy) -> Self {
        let addresses = vec![
            InterfaceAddress { address: "192.0.2.11".parse().unwrap(), prefix_len: 24 },
            InterfaceAddress { address: "2001:db8::11".parse().unwrap(), prefix_len: 64 },
        ];
        let identity = NicIdentity {
            guest: GuestId(1),
            nic: NicId(1),
            port: PortId(1),
            mac: GUEST,
            vlan: None,
            addresses,
            groups: Vec::new(),
            router: false,
            traffic: TrafficPolicy::default(),
        };
        let now = Instant::from_nanos(1_000_000_000);
        Self { custody: Custody::new(policy, 5), identity, rng: Rng::seeded(9), now, v6: false }
    }

    /// With an established connection of an awake guest, SACK agreed, no timestamps.
    pub(super) fn connected() -> Self {
        let mut world = Self::new();
        world.connect(40_000, false);
        world
    }

    /// The same with timestamps.
    pub(super) fn stamped() -> Self {
        let mut world = Self::new();
        world.connect(40_000, true);
        world
    }

    /// With that connection, its guest asked for its state and asleep.
    pub(super) fn asleep() -> Self {
        Self::connected().settled()
    }

    /// Handshake, then data both ways, so that the numbers are RN, SN and W.
    pub(super) fn connect(&mut self, port: u16, stamps: bool) {
        let stamp = |seg: Seg, v, e| if stamps { seg.stamped(v, e) } else { seg };
        let syn = [2, 4, 5, 0xb4, 4, 2, 3, 3, 6, 1];
        let syn_ack = [2, 4, 5, 0xa0, 4, 2, 3, 3, SCALE, 1];
        let (iss, irs) = (SN.wrapping_sub(11), RN.wrapping_sub(4));
        let quiet = |seq, ack| seg(seq, ack).port(port);
        self.peer_sends(&stamp(quiet(irs, 0).flags(SYN).options(&syn), TSRECENT - 2, 0));
        self.guest_sends(&stamp(
            quiet(iss, irs + 1).flags(SYN_ACK).options(&syn_ack),
            TSVAL - 2,
            TSRECENT - 2,
        ));
        self.peer_sends(&stamp(quiet(irs + 1, iss + 1).data(b"abc"), TSRECENT, TSVAL - 2));
        self.guest_sends(&stamp(quiet(iss + 1, RN).window(W).data(&[7; 10]), TSVAL, TSRECENT));
        self.peer_sends(&stamp(quiet(RN, SN), TSRECENT, TSVAL));
    }

    /// Asks the guest, which answers, and lets it fall asleep.
    pub(super) fn settled(mut self) -> Self {
        self.after(Duration::from_secs(10));
        for question in self.solicit() {
            self.answer_solicit(&question);
        }
        self.custody.sleep(self.now, &mut self.rng);
        self.after(Duration::from_secs(10));
        self
    }

    /// What the guest is asked.
    pub(super) fn solicit(&mut self) -> Vec<Vec<u8>> {
        self.custody.begin_solicit();
        let mut said = Vec::new();
        while let Some(frame) =
            self.written(|world, out| world.custody.solicit(world.now, &world.identity, out))
        {
            said.push(frame);
        }
        said
    }

    /// What Linux says to such a question.
    pub(super) fn answer_solicit(&mut self, question: &[u8]) {
        let (_, packet) = read(question);
        let (tcp, options) = tcp(&packet);
        let answer = seg(SN, RN).window(W).port(tcp.src_port);
        let answer = if options.timestamps.is_some() { answer.stamped(TSVAL, TSRECENT) } else { answer };
        self.guest_sends(&answer);
    }

    pub(super) fn after(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    pub(super) fn guest_sends(&mut self, seg: &Seg) {
        let frame = self.frame(true, seg);
        self.learn(true, &frame);
    }

    pub(super) fn peer_sends(&mut self, seg: &Seg) {
        let frame = self.frame(false, seg);
        self.learn(false, &frame);
    }

    pub(super) fn learn(&mut self, from_guest: bool, bytes: &[u8]) {
        let (frame, packet) = read(bytes);
        self.custody.learn(self.now, &self.identity, from_guest, &frame, &packet);
    }

    /// What a segment of the peer gets while the guest sleeps.
    pub(super) fn judge(&mut self, seg: &Seg) -> Judgement {
        let bytes = self.frame(false, seg);
        let (frame, packet) = read(&bytes);
        self.custody.judge(self.now, &mut self.rng, &self.identity, &frame, &packet)
    }

    /// The same with the answer.
    pub(super) fn answer(&mut self, seg: &Seg) -> Option<(Kind, Said)> {
        let Judgement::Answer(kind) = self.judge(seg) else { return None };
        Some((kind, said(&self.answer_frame(kind, seg))))
    }

    /// The frame that answers a segment.
    pub(super) fn answer_frame(&mut self, kind: Kind, seg: &Seg) -> Vec<u8> {
        let bytes = self.frame(false, seg);
        let (frame, packet) = read(&bytes);
        self.written(|world, out| world.custody.answer(kind, &world.identity, &frame, &packet, out))
            .expect("an answer")
    }

    pub(super) fn written<R>(
        &mut self,
        write: impl FnOnce(&mut Self, &mut FrameBuf<'_>) -> Option<R>,
    ) -> Option<Vec<u8>> {
        let mut memory = [0xee; super::LONGEST_FRAME];
        let mut out = FrameBuf::new(&mut memory);
        write(self, &mut out)?;
        Some(out.as_bytes().to_vec())
    }

    /// A frame between the guest's port 22 and the peer.
    pub(super) fn frame(&self, from_guest: bool, seg: &Seg) -> Vec<u8> {
        let guest: IpAddr = if self.v6 { "2001:db8::11" } else { "192.0.2.11" }.parse().unwrap();
        let peer: IpAddr = if self.v6 { "2001:db8::99" } else { "192.0.2.99" }.parse().unwrap();
        let (guest, peer) = ((guest, GUEST, 22), (peer, PEER, seg.peer_port));
        let (from, to) = if from_guest { (guest, peer) } else { (peer, guest) };
        let ethernet = Ethernet { dst: to.1, src: from.1, tags: Tags::NONE };
        let mut options = seg.options.clone();
        options.resize(options.len().next_multiple_of(4), 1);
        let offset = ((Tcp::HEADER + options.len()) / 4) as u8;
        let mut message = [
            &from.2.to_be_bytes()[..],
            &to.2.to_be_bytes(),
            &seg.seq.to_be_bytes(),
            &seg.ack.to_be_bytes(),
            &[offset << 4, seg.flags.0],
            &seg.window.to_be_bytes(),
            &[0; 4],
            &options,
            &seg.data,
        ]
        .concat();
        let mut memory = [0; 2048];
        let mut out = FrameBuf::new(&mut memory);
        match (from.0, to.0) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                mend(&mut message, |len| Sum::pseudo_v4(src, dst, protocol::TCP, len));
                let (tos, id, ttl) = (0, 5, 64);
                let header =
                    Ipv4Header { src, dst, tos, id, dont_fragment: true, ttl, protocol: protocol::TCP };
                out.ipv4(&ethernet, &header, message.len());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                mend(&mut message, |len| Sum::pseudo_v6(src, dst, protocol::TCP, len));
                let header =
                    Ipv6Header { src, dst, traffic_class: 0, hop_limit: 64, protocol: protocol::TCP };
                out.ipv6_of_flow(&ethernet, &header, if from_guest { 0xabcde } else { 7 }, message.len());
            }
            _ => unreachable!("one family"),
        }
        out.push(&message);
        out.finish().expect("it fits").to_vec()
    }
}

fn mend(message: &mut [u8], pseudo: impl Fn(usize) -> Sum) {
    let sum = pseudo(message.len()).add(message).finish();
    message[16..18].copy_from_slice(&sum.to_be_bytes());
}

pub(super) fn read(bytes: &[u8]) -> (Frame<'_>, Packet<'_>) {
    let frame = Frame::parse(&Received::plain(bytes)).expect("a frame");
    (frame, Packet::parse(&frame, Offload::None).expect("a sound packet"))
}

pub(super) fn tcp<'a>(packet: &Packet<'a>) -> (Tcp<'a>, TcpOptions) {
    let Some(Transport::Tcp(tcp)) = packet.transport() else { panic!("no segment: {packet:?}") };
    (*tcp, TcpOptions::parse(tcp.options))
}

/// Reads an answer of ours, checksums verified.
pub(super) fn said(bytes: &[u8]) -> Said {
    let (_, packet) = read(bytes);
    let (tcp, options) = tcp(&packet);
    assert_eq!(tcp.flags, ACK);
    assert!(tcp.payload.is_empty());
    let word = |at: usize| u32::from_be_bytes(tcp.options[at..at + 4].try_into().unwrap());
    // The block is the last option that we write.
    let end = tcp.options.len();
    Said {
        seq: tcp.seq,
        ack: tcp.ack,
        window: tcp.window,
        timestamps: options.timestamps.map(|t| (t.value, t.echo)),
        sack: options.sack.then(|| (word(end - 8), word(end - 4))),
    }
}
