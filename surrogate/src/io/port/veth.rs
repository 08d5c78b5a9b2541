//! A surrogate port made of a veth pair with a mapped ring.
//!
//! The outer end is the port on the bridge. The inner end lives in a network namespace without a name
//! that only our packet socket keeps alive: nobody else can see or configure it, and when the socket
//! is closed, by us or by the end of the process, namespace and pair are gone.
//!
//! Frames of local senders can come with unfilled checksums and 64 KiB long. With `tx`, TSO and GSO off
//! on the outer end the kernel finishes them before they cross over.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};
use socket2::{Domain, Socket, Type};
use surrogate_wire::{Mac, Received};

use super::bridge::{Bridge, failed, keep_silent, refused, set_up};
use super::queue::SendQueue;
use super::ring::RxRing;
use super::watch::Watch;
use super::{FramePort, Transmitted, longest_frame};
use crate::io::clock;
use crate::io::driver::OpenError;
use crate::io::netlink::Exchange;
use crate::io::sys;

/// The inner end, ready to receive and send.
pub struct VethPort {
    ring: RxRing,
    watch: Watch,
    queue: SendQueue,
    transmitted: Transmitted,
    /// Frames that found no free slot.
    overrun: u64,
    socket: Socket,
    outer: OuterEnd,
}

impl VethPort {
    /// Makes the pair, its outer end `name` with address `mac` a port of `bridge`. `exchange` and the
    /// calling thread are in the bridge's namespace.
    ///
    /// # Errors
    /// The kernel's. Nothing is left behind.
    pub fn open(exchange: &mut Exchange, bridge: &Bridge, name: &str, mac: Mac) -> Result<Self, OpenError> {
        let mut inside = Inside::make()?;
        let outer = OuterEnd::make(exchange, &inside, bridge, name)?;
        outer.finish_frames(name)?;
        let ring = inside.connect(bridge.mtu as usize)?;
        bridge.add_port(exchange, outer.ifindex, mac)?;
        let queue = SendQueue::for_frames_of(longest_frame(bridge.mtu as usize));
        let socket = inside.socket;
        Ok(Self {
            ring,
            watch: Watch::default(),
            queue,
            transmitted: Transmitted::default(),
            overrun: 0,
            socket,
            outer,
        })
    }

    /// Index of the outer end, in the bridge's namespace.
    #[must_use]
    pub const fn ifindex(&self) -> u32 {
        self.outer.ifindex
    }

    fn send_queued(&mut self) {
        let mut done = 0;
        while done < self.queue.len() {
            match sys::send_batch(self.socket.as_fd(), self.queue.frames().skip(done)) {
                Ok(sent) => {
                    self.transmitted.sent += u32::try_from(sent).unwrap_or(u32::MAX);
                    done += sent;
                }
                Err(_) => {
                    // Only the first was refused; those behind it have their own chance.
                    self.transmitted.failed += 1;
                    done += 1;
                }
            }
        }
        self.queue.clear();
    }
}

impl FramePort for VethPort {
    fn wait(
        &mut self,
        [one, two]: [BorrowedFd<'_>; 2],
        timeout: Option<Duration>,
    ) -> io::Result<Option<[bool; 2]>> {
        self.ring.release(); // or the kernel would call the ring readable for ever
        if self.ring.is_ready() {
            return Ok(None);
        }
        let Self { ring, watch, socket, .. } = self;
        let slept = watch.wait(
            clock::now,
            timeout,
            || ring.is_ready(),
            || sys::wait_readable([socket.as_fd(), one, two], timeout),
        );
        let Some(slept) = slept else { return Ok(None) };
        let [port, one, two] = slept?;
        if !port.readable {
            self.watch.disappoint();
        }
        match port.failed.then(|| self.socket.take_error()) {
            Some(Ok(Some(error)) | Err(error)) => Err(error),
            _ => Ok(Some([one.readable, two.readable])),
        }
    }

    fn receive(&mut self) -> io::Result<Option<Received<'_>>> {
        Ok(self.ring.receive())
    }

    fn transmit(&mut self, frame: &[u8]) {
        if self.queue.is_full() {
            self.send_queued();
        }
        if !self.queue.push(frame) {
            self.transmitted.failed += 1;
        }
    }

    fn flush(&mut self) -> Transmitted {
        if self.queue.len() > 0 {
            self.send_queued();
        }
        std::mem::take(&mut self.transmitted)
    }

    fn dropped(&mut self) -> u64 {
        self.overrun += sys::packet_drops(self.socket.as_fd()).map_or(0, u64::from);
        self.overrun + self.ring.cut()
    }
}

/// The unnamed namespace and what we have in it.
struct Inside {
    namespace: File,
    exchange: Exchange,
    socket: Socket,
}

impl Inside {
    /// A socket belongs for ever to the namespace of the thread that opened it, so a short-lived
    /// thread moves into a new namespace, opens what we need and ends; the sockets keep it alive.
    fn make() -> Result<Self, OpenError> {
        let made = std::thread::spawn(|| -> io::Result<Self> {
            sys::enter_new_network_namespace()?;
            let namespace = File::open("/proc/thread-self/ns/net")?;
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            Ok(Self { namespace, exchange: Exchange::open()?, socket })
        });
        let died = || io::Error::other("the thread that makes it died");
        made.join().map_err(|_| died()).flatten().map_err(failed("make a network namespace for the port"))
    }

    /// Sets the inner end up and puts a ring on it. The ring comes before the binding, or it would
    /// miss frames.
    fn connect(&mut self, mtu: usize) -> Result<RxRing, OpenError> {
        let inner = self.exchange.link(INNER_NAME).map_err(refused("find the port's inner end"))?;
        let inner = inner.ok_or(io::Error::from_raw_os_error(libc::ENODEV));
        let ifindex = inner.map_err(failed("find the port's inner end"))?.ifindex;
        keep_silent(&mut self.exchange, ifindex)?;
        set_up(&mut self.exchange, ifindex)?;
        let socket = self.socket.as_fd();
        for option in [libc::PACKET_IGNORE_OUTGOING, libc::PACKET_QDISC_BYPASS] {
            sys::set_option(socket, option, 1).map_err(failed("configure the port's socket"))?;
        }
        let ring = RxRing::map(socket, mtu).map_err(failed("map the port's ring"))?;
        sys::bind_packet(socket, ifindex).map_err(failed("bind the port's socket"))?;
        Ok(ring)
    }
}

/// The end on the bridge; dropping it deletes the pair.
struct OuterEnd {
    ifindex: u32,
    exchange: Exchange,
}

impl OuterEnd {
    fn make(
        exchange: &mut Exchange,
        inside: &Inside,
        bridge: &Bridge,
        name: &str,
    ) -> Result<Self, OpenError> {
        let mut inner = LinkMessage::default();
        inner.attributes = vec![
            LinkAttribute::IfName(INNER_NAME.to_owned()),
            LinkAttribute::Mtu(bridge.mtu),
            LinkAttribute::NetNsFd(inside.namespace.as_raw_fd()),
        ];
        let mut pair = LinkMessage::default();
        pair.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(inner))),
            ]),
        ];
        let own = Exchange::open().map_err(failed("open a netlink socket"))?;
        exchange
            .route(&RouteNetlinkMessage::NewLink(pair), NLM_F_CREATE | NLM_F_EXCL)
            .map_err(refused("make the port"))?;
        let outer = exchange.link(name).map_err(refused("find the new port"))?;
        let outer =
            outer.ok_or(io::Error::from_raw_os_error(libc::ENODEV)).map_err(failed("find the new port"))?;
        Ok(Self { ifindex: outer.ifindex, exchange: own })
    }

    /// Makes the kernel finish what it would have left to a network card: checksums, segmentation.
    fn finish_frames(&self, name: &str) -> Result<(), OpenError> {
        let any = Socket::new(Domain::UNIX, Type::DGRAM, None).map_err(failed("open a socket"))?;
        for command in [ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO] {
            sys::ethtool_set(any.as_fd(), name, command, false)
                .map_err(failed("turn the port's offloads off"))?;
        }
        Ok(())
    }
}

impl Drop for OuterEnd {
    fn drop(&mut self) {
        let mut message = LinkMessage::default();
        message.header.index = self.ifindex;
        // That it is gone already is what we want; anything else the namespace's end takes care of.
        let _ = self.exchange.route(&RouteNetlinkMessage::DelLink(message), 0);
    }
}

const INNER_NAME: &str = "inner";

const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_SGSO: u32 = 0x24;
