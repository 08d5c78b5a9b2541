//! What both kinds of surrogate port have in common on the bridge.
//!
//! The bridge must not notice us: its MTU and MAC are those of its smallest port, so ours takes the
//! bridge's MTU and an `fe:...` address *before* it is enslaved. It learns nothing (a frame that we send
//! in a guest's name would move the guest to our port), gets no unicast that nobody steered here, and
//! counts as a multicast router, so that a snooping bridge sends it solicitations for sleepers.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};
use surrogate_wire::Mac;

use crate::io::driver::OpenError;
use crate::io::netlink::{Exchange, LinkKind, PortChange, RequestError};
use crate::io::{clock, sys};
use crate::rng::Rng;

/// A bridge that a port is to be made on.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Its MTU: bytes after the Ethernet header.
    pub mtu: u32,
    /// Set up by its administrator.
    pub up: bool,
}

impl Bridge {
    /// Finds the bridge `name` in the namespace of `exchange`.
    ///
    /// # Errors
    /// There is none, or it is something else.
    pub fn find(exchange: &mut Exchange, name: &str) -> Result<Self, OpenError> {
        let link = exchange.link(name).map_err(refused("look up the bridge"))?;
        let Some(link) = link else { return Err(OpenError::NoSuchBridge { bridge: name.to_owned() }) };
        match link.kind {
            LinkKind::Bridge => {
                Ok(Self { name: name.to_owned(), ifindex: link.ifindex, mtu: link.mtu, up: link.up })
            }
            found => {
                let found = match found {
                    LinkKind::Other(kind) if kind.is_empty() => "hardware interface".to_owned(),
                    LinkKind::Other(kind) => kind,
                    known => format!("{known:?}").to_lowercase(),
                };
                Err(OpenError::NotABridge { bridge: name.to_owned(), found })
            }
        }
    }

    /// A name for our port that no interface has yet.
    ///
    /// Usually `sgt-` and the bridge's index. A port of a daemon that was killed can linger for
    /// moments, so there are others.
    ///
    /// # Errors
    /// All are taken.
    pub fn free_port_name(&self, exchange: &mut Exchange) -> Result<String, OpenError> {
        let first = format!("sgt-{}", self.ifindex);
        let others = (2..=9).map(|n| format!("sgt{n}-{}", self.ifindex));
        for name in std::iter::once(first).chain(others) {
            if exchange.link(&name).map_err(refused("look up the port's name"))?.is_none() {
                return Ok(name);
            }
        }
        Err(OpenError::System {
            what: "name the port: nine surrogates serve this bridge already",
            source: io::Error::from_raw_os_error(libc::EEXIST),
        })
    }

    /// Gives the new, still unconnected link `ifindex` its settings and makes it a port of this bridge.
    /// It is up when this returns.
    ///
    /// # Errors
    /// The kernel's. The link may be half done then: delete it.
    pub fn add_port(&self, exchange: &mut Exchange, ifindex: u32, mac: Mac) -> Result<(), OpenError> {
        let own = [
            LinkAttribute::Mtu(self.mtu),
            LinkAttribute::Address(mac.0.to_vec()),
            LinkAttribute::IfAlias(format!("surrogate port of {}", self.name)),
            LinkAttribute::TxQueueLen(QUEUE_FRAMES),
        ];
        set_link(exchange, ifindex, own.to_vec()).map_err(refused("configure the port"))?;
        keep_silent(exchange, ifindex)?;
        set_link(exchange, ifindex, vec![LinkAttribute::Controller(self.ifindex)])
            .map_err(refused("add the port to the bridge"))?;
        let as_port = PortChange {
            learning: Some(false),
            flood: Some(false),
            mcast_router: Some(MCAST_ROUTER_PERMANENT),
            ..PortChange::default()
        };
        exchange.set_port(ifindex, as_port).map_err(refused("configure the bridge port"))?;
        let news = LinkNews::listen().map_err(failed("watch the port"))?;
        set_up(exchange, ifindex)?;
        self.wait_for_port(exchange, ifindex, news)
    }

    /// Waits until the port is no longer disabled: the kernel gets round to its carrier moments after
    /// it was set up, and what is steered to a port before that is lost.
    ///
    /// Under spanning tree the port then listens and learns for many seconds, which is the operator's
    /// wish; on a bridge that is down it stays disabled until that is up.
    fn wait_for_port(
        &self,
        exchange: &mut Exchange,
        ifindex: u32,
        mut news: LinkNews,
    ) -> Result<(), OpenError> {
        let started = clock::now();
        loop {
            let link = exchange.link_by_index(ifindex).map_err(refused("look up the port"))?;
            let state = link.and_then(|link| link.port).map(|port| port.state);
            if !self.up || state.is_some_and(|state| state != STATE_DISABLED) {
                return Ok(());
            }
            let left = PORT_DEADLINE.saturating_sub(clock::now().since(started));
            if left.is_zero() {
                return Err(failed("wait for the port to forward")(io::ErrorKind::TimedOut.into()));
            }
            news.wait(left).map_err(failed("watch the port"))?;
        }
    }
}

/// The MAC addresses of one surrogate port, drawn anew each time.
#[derive(Clone, Copy, Debug)]
pub struct PortMacs {
    /// The port's own. Locally administered and above any guest's, so that the bridge, which takes the
    /// lowest of its ports', keeps its own.
    pub port: Mac,
    /// That of our services, a station behind the port.
    pub service: Mac,
}

impl PortMacs {
    /// Draws both.
    #[must_use]
    pub fn draw(rng: &mut Rng) -> Self {
        let [_, _, _, a, b, c, d, e] = rng.next_u64().to_be_bytes();
        Self { port: Mac([0xfe, a, b, c, d, e]), service: Mac([0xfa, a, b, c, d, e]) }
    }
}

/// Keeps the kernel from giving the link an address, and so from saying anything on it.
pub(super) fn keep_silent(exchange: &mut Exchange, ifindex: u32) -> Result<(), OpenError> {
    let silent = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    match set_link(exchange, ifindex, vec![LinkAttribute::AfSpecUnspec(vec![silent])]) {
        // A kernel without IPv6 has nothing to say.
        Err(error) if matches!(error.errno(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => Ok(()),
        other => other.map_err(refused("keep the kernel silent on the port")),
    }
}

/// Sets the link up.
pub(super) fn set_up(exchange: &mut Exchange, ifindex: u32) -> Result<(), OpenError> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    exchange.route(&RouteNetlinkMessage::SetLink(message), 0).map(drop).map_err(refused("set the port up"))
}

/// Notices of link changes, to wait for one.
struct LinkNews(netlink_sys::Socket);

impl LinkNews {
    /// From now on, in the calling thread's namespace.
    fn listen() -> io::Result<Self> {
        let mut socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_ROUTE)?;
        socket.bind(&netlink_sys::SocketAddr::new(0, RTMGRP_LINK))?;
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Waits until a link has changed since the last call.
    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        sys::wait_readable([self.0.as_fd()], Some(timeout))?;
        while self.0.recv_from_full().is_ok() {}
        Ok(())
    }
}

/// Turns a failed request into an error that says what it was for.
pub(super) fn refused(what: &'static str) -> impl FnOnce(RequestError) -> OpenError {
    move |error| match error.errno() {
        Some(errno) => failed(what)(io::Error::from_raw_os_error(errno)),
        None => OpenError::System { what, source: io::Error::other(error) },
    }
}

/// Turns a failed system call into an error that says what it was for.
pub(super) fn failed(what: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied => OpenError::NotPermitted { what },
        _ => OpenError::System { what, source },
    }
}

fn set_link(
    exchange: &mut Exchange,
    ifindex: u32,
    attributes: Vec<LinkAttribute>,
) -> Result<(), RequestError> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.attributes = attributes;
    exchange.route(&RouteNetlinkMessage::SetLink(message), 0).map(drop)
}

/// Frames that a tap queues for us (a veth has no queue of its own: the ring is it).
const QUEUE_FRAMES: u32 = 4096;
/// `BR_STATE_DISABLED`.
const STATE_DISABLED: u8 = 0;
/// The kernel delays news of a carrier by at most a second.
const PORT_DEADLINE: Duration = Duration::from_secs(3);
const RTMGRP_LINK: u32 = 1;
/// `MDB_RTR_TYPE_PERM`: multicast goes to this port, whatever was or was not asked for.
const MCAST_ROUTER_PERMANENT: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_mac_is_local_and_above_any_guests() {
        let mut rng = Rng::seeded(7);
        for _ in 0..100 {
            let macs = PortMacs::draw(&mut rng);
            assert!(macs.port.is_unicast() && macs.service.is_unicast() && macs.port != macs.service);
            assert!(macs.port.0[0] & 2 != 0 && macs.service.0[0] & 2 != 0);
            assert!(macs.port > Mac([0xfd, 0xff, 0xff, 0xff, 0xff, 0xff]));
        }
    }

    #[test]
    fn a_port_name_is_never_too_long_for_the_kernel() {
        let mut exchange = Exchange::open().unwrap();
        let bridge = Bridge { name: "br0".into(), ifindex: u32::MAX, mtu: 1500, up: true };
        assert!(bridge.free_port_name(&mut exchange).unwrap().len() < libc::IFNAMSIZ);
        assert!(format!("sgt9-{}", u32::MAX).len() < libc::IFNAMSIZ);
    }
}
