//! Keeps a sleeper's IPv4 lease alive in its name (RFC 2131 4.4.5): asks its server at T1, any server at T2,
//! as the guest itself would ask.
//!
//! What the guest asks with (identifier, host name, parameter list, whatever its request had) is kept as it sent
//! it, and so is what the server said. Each request of ours has a new identification, so an answer is to the
//! newest one or to none. Of a lease whose times are not known, because the answer to the guest was not
//! seen, they are asked for by a request to all soon after the guest fell asleep:
//! an acknowledgement says them, and a guest that has its address from elsewhere gets no answer.
//!
//! Nothing of this is handed to the guest at its wake: an acknowledgement with an identification that is not
//! its own it would have to drop. Its own timers stood still while it slept, so it asks at the latest half a
//! lease after its wake, and until then the lease that we kept runs on.

use core::hash::{BuildHasher, Hasher};
use core::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use surrogate_wire::dhcpv4::{
    CLIENT_PORT, FROM_CLIENT, FROM_SERVER, INFINITE, MAX_OPTIONS, Renewal, SERVER_PORT, are_options, kind,
    option,
};
use surrogate_wire::emit::Ethernet;
use surrogate_wire::{Dhcpv4 as Message, Frame, FrameBuf, Mac, Packet, Tags, Transport};

use super::lease::{ANSWERABLE, Alarm, GRACE, SPREAD_MS, Times, left};
use super::presence::Heard;
use crate::engine::{Answered, WakeReason};
use crate::guest::identity::NicIdentity;
use crate::hash::Seeded;
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Dhcpv4 {
    /// How the guest asks.
    client: Option<Client>,
    /// The guest's own request that is not answered yet.
    asked: Option<Asked>,
    /// What it has.
    lease: Option<Lease>,
    /// While it sleeps and has a lease that ends.
    watch: Option<Watch>,
    /// An address that is the guest's no longer, not told yet.
    withdrawn: Option<Ipv4Addr>,
    /// The server said something new with its last acknowledgement, not told yet.
    changed: bool,
    /// It gave more time, not told yet.
    renewed: bool,
}

/// What is kept over a restart: how the guest asks, and what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dhcpv4Learned {
    client: [u8; 6],
    options: Vec<u8>,
    address: Ipv4Addr,
    /// The server and the station on the way to it.
    server: Option<(Ipv4Addr, [u8; 6])>,
    /// Seconds left until T1, T2 and the end, where they are known.
    left: Option<[u32; 3]>,
}

#[derive(Clone, Debug)]
struct Client {
    chaddr: Mac,
    /// Whole options of its last request, at most [`MAX_OPTIONS`] bytes.
    options: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    xid: u32,
    at: Instant,
    address: Option<Ipv4Addr>,
    server: Option<Server>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Server {
    /// Its identifier, which is an address of it.
    address: Ipv4Addr,
    /// The next station on the way there: itself, a relay or a router.
    station: Mac,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    address: Ipv4Addr,
    server: Option<Server>,
    /// As the server said, if that was seen.
    terms: Option<Terms>,
    /// A digest of what it said beside that.
    options: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Terms {
    /// When it was asked for.
    from: Instant,
    /// Seconds.
    lifetime: u32,
    renewal: Option<u32>,
    rebinding: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    /// `None`: not known.
    times: Option<Times>,
    /// The next request.
    next: Option<Instant>,
    /// Our request that is not answered yet, and when it was sent.
    sent: Option<(u32, Instant)>,
    /// Since when we ask in vain.
    since: Option<Instant>,
    /// The pause after the next request while the times are not known.
    pause: Duration,
    /// The guest was called.
    called: bool,
}

impl Dhcpv4 {
    /// Takes note of what the guest asks for, and of what it gets.
    pub fn learn(&mut self, now: Instant, from_guest: bool, frame: &Frame<'_>, packet: &Packet<'_>) {
        let Some((dst, message)) = message(packet) else { return };
        match (from_guest, message.op) {
            (true, FROM_CLIENT) if message.chaddr == frame.src => {
                self.guest_says(now, frame.dst, dst, &message);
            }
            (false, FROM_SERVER) => self.guest_is_told(now, frame.src, &message),
            _ => {}
        }
    }

    /// Takes the answer to our last request, and one to the guest's own that is still on its way.
    pub fn hear(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        identity: &NicIdentity,
        frame: &Frame<'_>,
        packet: &Packet<'_>,
    ) -> Heard {
        let Some((_, message)) = message(packet).filter(|(_, message)| message.op == FROM_SERVER) else {
            return Heard::NotMine;
        };
        if message.chaddr != identity.mac {
            return Heard::NotMine;
        }
        if let Some(asked) = self.answered_by(now, &message) {
            // The guest waits for it, so it is held like any other.
            self.guest_is_told(now, frame.src, &message);
            self.sleep(now, rng, identity);
            return match (asked.address, message.kind) {
                (Some(address), kind::NAK) => {
                    self.refused(address, message.server.unwrap_or(Ipv4Addr::UNSPECIFIED))
                }
                _ => Heard::NotMine,
            };
        }
        let (Some(watch), Some(lease)) = (&mut self.watch, &mut self.lease) else { return Heard::NotMine };
        let Some((_, sent)) = watch.sent.filter(|(xid, _)| *xid == message.xid) else {
            return Heard::NotMine;
        };
        let Some(server) = server(frame.src, &message) else { return Heard::Noted };
        // While we renew, one server was asked and no other may answer.
        let renewing = watch.times.is_some_and(|times| sent < times.rebind);
        if renewing && lease.server.is_some_and(|known| known.address != server.address) {
            return Heard::Noted;
        }
        match message.kind {
            kind::ACK if message.yiaddr == lease.address => {
                let Some(terms) = terms(sent, &message) else { return Heard::Noted };
                let options = Some(digest(&message));
                self.changed = lease.options.is_some() && lease.options != options;
                self.renewed = true;
                *lease = Lease { address: lease.address, server: Some(server), terms: Some(terms), options };
                self.watch = Watch::over(*lease, rng);
                Heard::Noted
            }
            // Another address instead is as good as none: the guest has this one.
            kind::ACK | kind::NAK => {
                let address = lease.address;
                self.refused(address, server.address)
            }
            _ => Heard::Noted,
        }
    }

    /// When the next request, the last call or the end is due.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        if self.withdrawn.is_some() || self.changed || self.renewed {
            return Some(Instant::ZERO);
        }
        let watch = self.watch.as_ref()?;
        let call = watch.times.filter(|_| !watch.called).map(|times| times.last_call);
        let end = watch.times.map(|times| times.end);
        [watch.next, call, end].into_iter().flatten().min()
    }

    /// What is due beside frames: ask until there is none, before [`speak`](Self::speak).
    pub fn alarm(&mut self, now: Instant) -> Option<Alarm> {
        if let Some(address) = self.withdrawn.take() {
            return Some(Alarm::Withdraw(address.into()));
        }
        if core::mem::take(&mut self.changed)
            && let Some(lease) = &self.lease
        {
            return Some(Alarm::Changed(lease.address.into()));
        }
        if core::mem::take(&mut self.renewed) {
            return Some(Alarm::Renewed);
        }
        let (watch, lease) = (self.watch.as_mut()?, self.lease.as_ref()?);
        let (times, address) = (watch.times?, IpAddr::V4(lease.address));
        if now >= times.last_call && !watch.called {
            watch.called = true;
            return Some(Alarm::Wake(WakeReason::LeaseEnding { address }));
        }
        if now >= times.end {
            (self.lease, self.watch) = (None, None);
            return Some(Alarm::Withdraw(address));
        }
        None
    }

    /// Asks for more time.
    pub fn speak(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        identity: &NicIdentity,
        out: &mut FrameBuf<'_>,
    ) -> Option<Answered> {
        let (watch, lease, client) = (self.watch.as_mut()?, self.lease.as_ref()?, self.client.as_ref()?);
        if watch.next.is_none_or(|next| now < next) {
            return None;
        }
        let xid = rng.next_u64() as u32;
        let since = *watch.since.get_or_insert(now);
        let server = lease.server.filter(|_| watch.times.is_some_and(|times| now < times.rebind));
        watch.next = watch.after(now);
        watch.sent = Some((xid, now));
        let request = Renewal {
            xid,
            secs: u16::try_from(now.since(since).as_secs()).unwrap_or(u16::MAX),
            ciaddr: lease.address,
            chaddr: client.chaddr,
            options: &client.options,
        };
        let to = Ethernet {
            dst: server.map_or(Mac::BROADCAST, |server| server.station),
            src: identity.mac,
            tags: Tags::for_vid(identity.vlan),
        };
        let dst = server.map_or(Ipv4Addr::BROADCAST, |server| server.address);
        request.write(&to, dst, rng.next_u64() as u16, out).map(|()| Answered::Dhcpv4)
    }

    /// Begins to watch over the lease, if the guest has one and its address is ours to answer for.
    pub fn sleep(&mut self, now: Instant, rng: &mut Rng, identity: &NicIdentity) {
        self.watch = None;
        let ours = |address: Ipv4Addr| identity.holds(address.into());
        // A newer request whose answer was not seen, for an address that the guest has, had an answer.
        if let Some(Asked { address: Some(address), server, .. }) = self.asked
            && ours(address)
            && self.lease.is_none_or(|lease| lease.address != address)
        {
            self.lease = Some(Lease { address, server, terms: None, options: None });
        }
        let known_client = self.client.as_ref().is_some_and(|client| client.chaddr == identity.mac);
        let Some(lease) = self.lease.as_mut().filter(|lease| ours(lease.address) && known_client) else {
            return;
        };
        // It is over, and the guest has the address still: it must have got more time meanwhile.
        lease.terms = lease.terms.filter(|terms| now < terms.end());
        self.watch = Watch::over(*lease, rng).map(|watch| watch.from(now, rng));
    }

    /// Leaves it to the guest.
    pub fn wake(&mut self) {
        self.watch = None;
        self.withdrawn = None;
        (self.changed, self.renewed) = (false, false);
    }

    /// What must survive a restart.
    #[must_use]
    pub fn learned(&self, now: Instant) -> Option<Dhcpv4Learned> {
        let (client, lease) = (self.client.as_ref()?, self.lease.as_ref()?);
        Some(Dhcpv4Learned {
            client: client.chaddr.0,
            options: client.options.clone(),
            address: lease.address,
            server: lease.server.map(|server| (server.address, server.station.0)),
            left: lease
                .terms
                .map(|terms| terms.seconds().map(|seconds| left(seconds, now.since(terms.from)))),
        })
    }

    /// The same back, `ago` later; what cannot have been learned is not believed.
    #[must_use]
    pub fn restore(learned: &Option<Dhcpv4Learned>, now: Instant, ago: Duration) -> Self {
        let Some(Dhcpv4Learned { client, options, address, server, left: seconds }) = learned else {
            return Self::default();
        };
        let is_host = |a: &Ipv4Addr| !(a.is_unspecified() || a.is_multicast() || a.is_broadcast());
        let sound = Mac(*client).is_unicast()
            && options.len() <= MAX_OPTIONS
            && are_options(options)
            && is_host(address)
            && server
                .as_ref()
                .is_none_or(|(address, station)| is_host(address) && Mac(*station).is_unicast());
        if !sound {
            return Self::default();
        }
        let server = server.map(|(address, station)| Server { address, station: Mac(station) });
        let terms = seconds.map(|seconds| {
            let [t1, t2, lifetime] = seconds.map(|seconds| left(seconds, ago));
            Terms { from: now, lifetime: lifetime.max(GRACE), renewal: Some(t1), rebinding: Some(t2) }
        });
        Self {
            client: Some(Client { chaddr: Mac(*client), options: options.clone() }),
            lease: Some(Lease { address: *address, server, terms, options: None }),
            ..Self::default()
        }
    }

    fn refused(&mut self, address: Ipv4Addr, by: Ipv4Addr) -> Heard {
        self.withdrawn = Some(address);
        (self.lease, self.watch) = (None, None);
        Heard::Wake(WakeReason::LeaseRefused { address: address.into(), by: by.into() })
    }

    fn guest_says(&mut self, now: Instant, station: Mac, dst: Ipv4Addr, message: &Message<'_>) {
        match message.kind {
            kind::DISCOVER | kind::REQUEST => {
                let rapid = message.options().any(|(code, _)| code == option::RAPID_COMMIT);
                let Some(options) = kept(message) else { return };
                self.client = Some(Client { chaddr: message.chaddr, options });
                if message.kind == kind::REQUEST || rapid {
                    let address =
                        (!message.ciaddr.is_unspecified()).then_some(message.ciaddr).or(message.requested);
                    // Who renews asks its server alone, and shows the way there.
                    let server = (!dst.is_broadcast() && station.is_unicast())
                        .then_some(Server { address: dst, station });
                    self.asked = Some(Asked { xid: message.xid, at: now, address, server });
                }
            }
            kind::RELEASE | kind::DECLINE => (self.lease, self.asked) = (None, None),
            _ => {}
        }
    }

    /// The guest's own request, if this may be the answer to it.
    fn answered_by(&self, now: Instant, message: &Message<'_>) -> Option<Asked> {
        let may_be = |asked: &Asked| asked.xid == message.xid && now.since(asked.at) <= ANSWERABLE;
        self.asked.filter(may_be)
    }

    /// A server's answer to the guest's own request.
    fn guest_is_told(&mut self, now: Instant, station: Mac, message: &Message<'_>) {
        let ours = self.client.as_ref().is_some_and(|client| client.chaddr == message.chaddr);
        let Some(asked) = self.answered_by(now, message).filter(|_| ours) else { return };
        match message.kind {
            kind::ACK if !message.yiaddr.is_unspecified() => {
                let Some(terms) = terms(asked.at, message) else { return };
                let server = server(station, message).or(asked.server);
                let options = Some(digest(message));
                self.lease = Some(Lease { address: message.yiaddr, server, terms: Some(terms), options });
                self.asked = None;
            }
            kind::NAK => (self.lease, self.asked) = (None, None),
            _ => {}
        }
    }
}

impl Terms {
    /// T1, T2 and the whole lease, the usual ones in place of what the server did not say.
    fn seconds(&self) -> [u32; 3] {
        let [t1, t2] = self.usual();
        [self.renewal.unwrap_or(t1), self.rebinding.unwrap_or(t2), self.lifetime]
    }

    /// T1 and T2 where the server says nothing, or contradicts itself (RFC 2131 4.4.5).
    const fn usual(&self) -> [u32; 2] {
        [self.lifetime / 2, self.lifetime - self.lifetime / 8]
    }

    fn end(&self) -> Instant {
        self.from + Duration::from_secs(u64::from(self.lifetime))
    }
}

impl Watch {
    /// Over `lease`; one without an end needs none.
    fn over(lease: Lease, rng: &mut Rng) -> Option<Self> {
        let times = match lease.terms {
            Some(Terms { lifetime: INFINITE, .. }) => return None,
            Some(terms) => {
                let [t1, t2, lifetime] = terms.seconds();
                Some(Times::new(terms.from, lifetime, [t1, t2], terms.usual(), rng))
            }
            None => None,
        };
        let next = times.map(|times| times.renew);
        Some(Self { times, next, sent: None, since: None, pause: RETRY, called: false })
    }

    /// Over the lease of a guest that falls asleep at `now`.
    fn from(self, now: Instant, rng: &mut Rng) -> Self {
        let soon = now + Duration::from_millis(rng.below(SPREAD_MS));
        let times = self.times.map(|times| times.from(now, rng));
        Self { times, next: Some(times.map_or(soon, |times| times.renew)), ..self }
    }

    /// When to ask again after a request at `now`: after half of the time left in this state, and not sooner
    /// than 60 s (RFC 2131 4.4.5).
    fn after(&mut self, now: Instant) -> Option<Instant> {
        let Some(times) = self.times else {
            let pause = self.pause;
            self.pause = (pause * 2).min(LONGEST_PAUSE);
            return Some(now + pause);
        };
        let state_ends = if now < times.rebind { times.rebind } else { times.end };
        let next = now + (state_ends.since(now) / 2).max(RETRY);
        if now < times.rebind { Some(next.min(times.rebind)) } else { (next < times.end).then_some(next) }
    }
}

/// What a client or server says, and to whom.
fn message<'a>(packet: &Packet<'a>) -> Option<(Ipv4Addr, Message<'a>)> {
    let Packet::Ipv4(ip, Transport::Udp(udp)) = packet else { return None };
    if !matches!((udp.src_port, udp.dst_port), (CLIENT_PORT, SERVER_PORT) | (SERVER_PORT, CLIENT_PORT)) {
        return None;
    }
    Message::parse(udp.payload).ok().map(|message| (ip.dst, message))
}

fn server(station: Mac, message: &Message<'_>) -> Option<Server> {
    message.server.filter(|address| !address.is_unspecified()).map(|address| Server { address, station })
}

fn terms(from: Instant, message: &Message<'_>) -> Option<Terms> {
    let lifetime = message.lease_time?;
    // Who says at once says nothing: else a long lease would be renewed every second.
    let said = |time: Option<u32>| time.filter(|seconds| *seconds > 0);
    Some(Terms { from, lifetime, renewal: said(message.renewal), rebinding: said(message.rebinding) })
}

/// What an acknowledgement says beside times and server, as a number that is another one if that is.
fn digest(message: &Message<'_>) -> u64 {
    let mut hasher = Seeded::new(0).build_hasher();
    for (code, value) in message.options().filter(|(code, _)| !TIMES.contains(code)) {
        hasher.write_u8(code);
        hasher.write(value);
    }
    hasher.finish()
}

/// The options of a guest's request that belong to a later one too, in its order. The client identifier always
/// finds room; what else does not is left out. `None` if the identifier alone is too long.
fn kept(message: &Message<'_>) -> Option<Vec<u8>> {
    let len = |value: &[u8]| 2 + value.len();
    let identifier = |code: u8| code == option::CLIENT;
    let needed: usize = message.options().filter(|(code, _)| identifier(*code)).map(|(_, v)| len(v)).sum();
    let mut room = MAX_OPTIONS.checked_sub(needed)?;
    let mut options = Vec::new();
    for (code, value) in message.options() {
        if ONE_MESSAGES.contains(&code) || !(identifier(code) || len(value) <= room) {
            continue;
        }
        if !identifier(code) {
            room -= len(value);
        }
        options.push(code);
        options.push(u8::try_from(value.len()).ok()?);
        options.extend(value);
    }
    Some(options)
}

/// What belongs to one message and its state (RFC 2131 table 5), or is no client's.
const ONE_MESSAGES: [u8; 8] = [
    option::REQUESTED_ADDRESS,
    option::OVERLOAD,
    option::MESSAGE_TYPE,
    option::SERVER,
    option::MESSAGE,
    option::RAPID_COMMIT,
    option::RELAY_AGENT,
    option::AUTHENTICATION,
];

/// What may differ from one acknowledgement to the next without saying anything new to the guest.
const TIMES: [u8; 8] = [
    option::LEASE_TIME,
    option::RENEWAL,
    option::REBINDING,
    option::OVERLOAD,
    option::MESSAGE_TYPE,
    option::MESSAGE,
    option::SERVER,
    option::RELAY_AGENT,
];

/// RFC 2131 4.4.5: "down to a minimum of 60 seconds".
const RETRY: Duration = Duration::from_secs(60);
/// Between requests whose times nobody says.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
