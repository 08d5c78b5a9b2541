//! Follows links: made, changed, renamed, enslaved, given another queueing discipline, deleted.
//!
//! The kernel's notices only say *that* something happened to a link; what it is now is asked anew, so
//! that a notice of bridge ports (which tells little) or of a queueing discipline (which tells of no
//! link) counts as much as one of links. Notices that the kernel had to throw away, because nobody read
//! them in time, are made up for by comparing with a list of all links.

use std::collections::BTreeMap;
use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use tokio::sync::mpsc;

use super::request::{Messages, Reply};
use super::{Link, Netlink, NetlinkError};

/// What became of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It is now this: new, or changed in anything but its counters.
    Changed(Link),
    /// It is gone.
    Removed {
        /// The number it had.
        ifindex: u32,
        /// The last name it had.
        name: String,
    },
}

/// Follows the links of the calling thread's network namespace; first tells of each that is there.
///
/// Ends when the receiver is dropped, or, with an error in the log, when the kernel's socket fails. A
/// receiver that falls behind loses no link's last state, only states in between.
///
/// # Errors
/// The system's, as `EMFILE`. Call it inside a tokio runtime.
pub fn watch() -> io::Result<mpsc::Receiver<LinkEvent>> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind(&SocketAddr::new(0, RTMGRP_LINK | RTMGRP_TC))?;
    // Room for the notices of a few hundred links that appear at once.
    socket.socket_mut().set_rx_buf_sz::<libc::c_int>(RECEIVE_BYTES)?;
    let (events, receiver) = mpsc::channel(EVENTS);
    let watcher = Watcher { netlink: Netlink::connect()?, known: BTreeMap::new(), events };
    tokio::spawn(watcher.run(socket));
    Ok(receiver)
}

struct Watcher {
    netlink: Netlink,
    /// Links as last told, by number.
    known: BTreeMap<u32, Link>,
    events: mpsc::Sender<LinkEvent>,
}

/// Why the watcher ends.
enum End {
    /// Nobody listens.
    Unheard,
    Failed(NetlinkError),
}

impl Watcher {
    async fn run(mut self, mut socket: TokioSocket) {
        match self.follow(&mut socket).await {
            Ok(()) | Err(End::Unheard) => {}
            Err(End::Failed(error)) => tracing::error!(%error, "links are followed no more"),
        }
    }

    async fn follow(&mut self, socket: &mut TokioSocket) -> Result<(), End> {
        self.resync().await?;
        loop {
            let received = tokio::select! {
                received = socket.recv_from_full() => received,
                () = self.events.closed() => return Ok(()),
            };
            match received {
                Ok((datagram, _)) => {
                    for ifindex in concerned(&datagram) {
                        let link = self.netlink.link_by_index(ifindex).await.map_err(End::Failed)?;
                        self.tell(ifindex, link).await?;
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    tracing::info!("notices of links were lost; comparing all links");
                    self.resync().await?;
                }
                Err(error) => {
                    tracing::error!(%error, "links are followed no more");
                    return Ok(());
                }
            }
        }
    }

    async fn resync(&mut self) -> Result<(), End> {
        let links = self.netlink.links().await.map_err(End::Failed)?;
        let there: BTreeMap<u32, Link> = links.into_iter().map(|link| (link.ifindex, link)).collect();
        let gone: Vec<u32> = self.known.keys().copied().filter(|known| !there.contains_key(known)).collect();
        for ifindex in gone {
            self.tell(ifindex, None).await?;
        }
        for (ifindex, link) in there {
            self.tell(ifindex, Some(link)).await?;
        }
        Ok(())
    }

    /// Sends what `link` is now, unless that was the last thing said of it.
    async fn tell(&mut self, ifindex: u32, link: Option<Link>) -> Result<(), End> {
        let event = match link {
            Some(link) => {
                let before = self.known.insert(ifindex, link.clone());
                if before.is_some_and(|before| same_but_counters(&before, &link)) {
                    return Ok(());
                }
                LinkEvent::Changed(link)
            }
            None => match self.known.remove(&ifindex) {
                Some(Link { name, .. }) => LinkEvent::Removed { ifindex, name },
                None => return Ok(()),
            },
        };
        self.events.send(event).await.map_err(|_| End::Unheard)
    }
}

/// The numbers of the links that the notices in `datagram` are about, each once.
#[must_use]
pub fn concerned(datagram: &[u8]) -> Vec<u32> {
    let mut links: Vec<u32> = Messages(datagram)
        .map_while(Result::ok)
        .filter_map(|(header, payload)| {
            match (Reply { kind: header.message_type, payload: payload.to_vec() }).route()? {
                RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
                    Some(link.header.index)
                }
                RouteNetlinkMessage::NewQueueDiscipline(qdisc)
                | RouteNetlinkMessage::DelQueueDiscipline(qdisc) => u32::try_from(qdisc.header.index).ok(),
                _ => None,
            }
        })
        .collect();
    links.dedup();
    links
}

fn same_but_counters(before: &Link, now: &Link) -> bool {
    let Link { rx_packets, tx_packets, tx_dropped, .. } = *now;
    Link { rx_packets, tx_packets, tx_dropped, ..before.clone() } == *now
}

const RTMGRP_LINK: u32 = 1;
const RTMGRP_TC: u32 = 1 << 3;
const RECEIVE_BYTES: libc::c_int = 1 << 20;
const EVENTS: usize = 256;
