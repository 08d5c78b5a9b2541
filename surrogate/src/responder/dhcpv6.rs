//! Keeps a sleeper's IPv6 addresses leased in its name (RFC 8415 18.2.4, 18.2.5): RENEW at T1, REBIND at T2, to all
//! servers of the link, from the guest's link-local address, as the guest itself would ask.
//!
//! The guest's identifiers and the options of its request are kept as it sent them. All its associations go
//! into one message. Delegated prefixes and temporary addresses are not renewed, and who asks for information
//! alone has nothing to renew. As with IPv4, times that are not known are asked for soon after the guest fell
//! asleep, by REBIND, and no answer is handed to it at its wake.

use core::net::Ipv6Addr;

use serde::{Deserialize, Serialize};
use surrogate_wire::dhcpv6::{
    ALL_SERVERS, Association, CLIENT_PORT, INFINITE, LONGEST_DUID, Message, SERVER_PORT, are_options, kind,
    option, status,
};
use surrogate_wire::emit::Ethernet;
use surrogate_wire::{Dhcpv6 as Received, Frame, FrameBuf, Packet, Tags, Transport};

use super::lease::{ANSWERABLE, Alarm, GRACE, SPREAD_MS, Times, left};
use super::ndisc::multicast_mac;
use super::presence::Heard;
use crate::engine::{Answered, WakeReason};
use crate::guest::identity::NicIdentity;
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Dhcpv6 {
    /// How the guest asks.
    client: Option<Client>,
    /// The guest's own request that is not answered yet, and when it was sent.
    asked: Option<(u32, Instant)>,
    /// What it has.
    bindings: Vec<Binding>,
    /// Who gave it.
    server: Option<Duid>,
    /// While it sleeps and has an address that can be lost.
    watch: Option<Watch>,
    /// The server gave more time, not told yet.
    renewed: bool,
}

/// What is kept over a restart: how the guest asks, and what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dhcpv6Learned {
    client: Vec<u8>,
    link_local: Ipv6Addr,
    options: Vec<u8>,
    server: Option<Vec<u8>>,
    bindings: Vec<LearnedBinding>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LearnedBinding {
    iaid: u32,
    address: Ipv6Addr,
    /// Seconds left until T1, T2 and the end, where they are known.
    left: Option<[u32; 3]>,
}

#[derive(Clone, Debug)]
struct Client {
    duid: Duid,
    /// From where it asks and where it is answered.
    link_local: Ipv6Addr,
    /// Whole options of its last request, at most [`MAX_OPTIONS`] bytes.
    options: Vec<u8>,
}

/// An address of an association.
#[derive(Clone, Copy, Debug)]
struct Binding {
    iaid: u32,
    address: Ipv6Addr,
    /// As the server said, if that was seen.
    terms: Option<Terms>,
    /// The answer to the request that is out has it.
    renewed: bool,
    /// It is not the guest's any more; not told yet.
    withdrawn: bool,
}

#[derive(Clone, Copy, Debug)]
struct Terms {
    /// When the answer came.
    from: Instant,
    /// Seconds, as are the others.
    valid: u32,
    preferred: u32,
    /// 0: as the client likes.
    t1: u32,
    t2: u32,
}

#[derive(Clone, Copy)]
struct Duid {
    len: u8,
    bytes: [u8; LONGEST_DUID],
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    /// Of all leases together, the earliest of each kind. `None`: not known.
    times: Option<Times>,
    /// The next message; none if nobody could answer it.
    next: Option<Instant>,
    /// The exchange that goes on.
    exchange: Option<Exchange>,
    /// The guest was called.
    called: bool,
}

#[derive(Clone, Copy, Debug)]
struct Exchange {
    kind: u8,
    xid: u32,
    since: Instant,
    /// The pause after the last message.
    pause: Duration,
}

impl Dhcpv6 {
    /// Takes note of what the guest asks for, and of what it gets.
    pub fn learn(&mut self, now: Instant, from_guest: bool, _: &Frame<'_>, packet: &Packet<'_>) {
        let Some((src, dst, message)) = message(packet, from_guest) else { return };
        if from_guest {
            self.guest_says(now, src, &message);
        } else {
            self.guest_is_told(now, dst, &message);
        }
    }

    /// Takes the answer to our last message, and one to the guest's own that is still on its way.
    pub fn hear(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        identity: &NicIdentity,
        _: &Frame<'_>,
        packet: &Packet<'_>,
    ) -> Heard {
        let Some((src, dst, message)) = message(packet, false) else { return Heard::NotMine };
        if !self.is_reply_to_client(dst, &message) {
            return Heard::NotMine;
        }
        if self.is_answered_by(now, &message) {
            // The guest waits for it, so it is held like any other.
            self.asked = None;
            let refused = self.take(now, &message);
            self.sleep(now, rng, identity);
            let wake =
                |address: Ipv6Addr| WakeReason::LeaseRefused { address: address.into(), by: src.into() };
            return refused.map_or(Heard::NotMine, |address| Heard::Wake(wake(address)));
        }
        let Some(watch) = &self.watch else { return Heard::NotMine };
        let Some(exchange) = watch.exchange.filter(|exchange| exchange.xid == message.xid) else {
            return Heard::NotMine;
        };
        let Some(server) = message.server.and_then(Duid::new) else { return Heard::Noted };
        if exchange.kind == kind::RENEW && self.server.is_some_and(|known| known.bytes() != server.bytes()) {
            return Heard::Noted;
        }
        if let Some(address) = self.take(now, &message) {
            let by = src.into();
            return Heard::Wake(WakeReason::LeaseRefused { address: address.into(), by });
        }
        if self.bindings.iter().all(|binding| binding.renewed) {
            self.server = Some(server);
            self.watch = self.watch(rng);
            self.renewed = true;
        }
        Heard::Noted
    }

    /// Whether `address` is one of its leases.
    #[must_use]
    pub fn leases(&self, address: Ipv6Addr) -> bool {
        self.bindings.iter().any(|binding| binding.address == address)
    }

    /// When the next message, the last call or the end of a lease is due.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        if self.renewed || self.bindings.iter().any(|binding| binding.withdrawn) {
            return Some(Instant::ZERO);
        }
        let watch = self.watch.as_ref()?;
        let call = watch.times.filter(|_| !watch.called).map(|times| times.last_call);
        let end = self.bindings.iter().filter_map(|binding| binding.terms?.end()).min();
        [watch.next, call, end].into_iter().flatten().min()
    }

    /// What is due beside frames: ask until there is none, before [`speak`](Self::speak).
    pub fn alarm(&mut self, now: Instant) -> Option<Alarm> {
        if let Some(at) = self.bindings.iter().position(|binding| binding.withdrawn) {
            return Some(self.gone(at));
        }
        if core::mem::take(&mut self.renewed) {
            return Some(Alarm::Renewed);
        }
        let watch = self.watch.as_mut()?;
        let over =
            |binding: &Binding| binding.terms.and_then(|terms| terms.end()).is_some_and(|end| now >= end);
        let next = |a: &&Binding, b: &&Binding| {
            let end = |binding: &Binding| binding.terms.and_then(|terms| terms.end()).unwrap_or(NEVER);
            end(a).cmp(&end(b))
        };
        if watch.times.is_some_and(|times| now >= times.last_call) && !watch.called {
            watch.called = true;
            let first = self.bindings.iter().min_by(next)?;
            return Some(Alarm::Wake(WakeReason::LeaseEnding { address: first.address.into() }));
        }
        let at = self.bindings.iter().position(over)?;
        Some(self.gone(at))
    }

    /// Does without the binding at `at`.
    fn gone(&mut self, at: usize) -> Alarm {
        let gone = self.bindings.swap_remove(at);
        if self.bindings.is_empty() {
            self.watch = None;
        }
        Alarm::Withdraw(gone.address.into())
    }

    /// Asks for more time.
    pub fn speak(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        identity: &NicIdentity,
        out: &mut FrameBuf<'_>,
    ) -> Option<Answered> {
        let (watch, client) = (self.watch.as_mut()?, self.client.as_ref()?);
        if watch.next.is_none_or(|next| now < next) {
            return None;
        }
        let server = self.server.filter(|_| watch.times.is_some_and(|times| now < times.rebind));
        let kind = if server.is_some() { kind::RENEW } else { kind::REBIND };
        let exchange = match watch.exchange {
            Some(on) if on.kind == kind => {
                Exchange { pause: jitter(on.pause * 2, rng).min(jitter(LONGEST_PAUSE, rng)), ..on }
            }
            _ => Exchange {
                kind,
                xid: rng.next_u64() as u32 & 0x00ff_ffff,
                since: now,
                pause: jitter(PAUSE, rng),
            },
        };
        watch.exchange = Some(exchange);
        let again = now + exchange.pause;
        watch.next = Some(match watch.times {
            Some(times) if now < times.rebind => again.min(times.rebind),
            _ => again,
        });
        let elapsed = now.since(exchange.since).as_millis() / 10;
        let mut message = Message::new(kind, exchange.xid);
        message.option(option::CLIENT, client.duid.bytes());
        if let Some(server) = &server {
            message.option(option::SERVER, server.bytes());
        }
        message.option(option::ELAPSED, &u16::try_from(elapsed).unwrap_or(u16::MAX).to_be_bytes());
        for (n, binding) in self.bindings.iter().enumerate() {
            let same = move |other: &&Binding| other.iaid == binding.iaid;
            if !self.bindings.iter().take(n).any(|earlier| same(&earlier)) {
                message.association(binding.iaid, self.bindings.iter().filter(same).map(|b| b.address));
            }
        }
        message.append(&client.options);
        let tags = Tags::for_vid(identity.vlan);
        let to = Ethernet { dst: multicast_mac(ALL_SERVERS), src: identity.mac, tags };
        message.write(&to, client.link_local, out).map(|()| Answered::Dhcpv6)
    }

    /// Begins to watch over those leases whose addresses are ours to answer for.
    pub fn sleep(&mut self, now: Instant, rng: &mut Rng, identity: &NicIdentity) {
        self.bindings.retain(|binding| identity.holds(binding.address.into()));
        for binding in &mut self.bindings {
            // It is over, and the guest has the address still: it must have got more time meanwhile.
            binding.terms = binding.terms.filter(|terms| terms.end().is_none_or(|end| now < end));
        }
        self.watch = self.watch(rng).map(|watch| watch.from(now, rng));
        // The answer goes to the address that asked. Where we may not answer for that, none would arrive.
        let reachable = self.client.as_ref().is_some_and(|client| identity.holds(client.link_local.into()));
        if let Some(watch) = self.watch.as_mut().filter(|_| !reachable) {
            watch.next = None;
        }
    }

    /// Leaves it to the guest.
    pub fn wake(&mut self) {
        (self.watch, self.renewed) = (None, false);
        self.bindings.retain(|binding| !binding.withdrawn);
    }

    /// What must survive a restart.
    #[must_use]
    pub fn learned(&self, now: Instant) -> Option<Dhcpv6Learned> {
        let client = self.client.as_ref().filter(|_| !self.bindings.is_empty())?;
        Some(Dhcpv6Learned {
            client: client.duid.bytes().to_vec(),
            link_local: client.link_local,
            options: client.options.clone(),
            server: self.server.as_ref().map(|server| server.bytes().to_vec()),
            bindings: self.bindings.iter().map(|binding| binding.learned(now)).collect(),
        })
    }

    /// The same back, `ago` later; what cannot have been learned is not believed.
    #[must_use]
    pub fn restore(learned: &Option<Dhcpv6Learned>, now: Instant, ago: Duration) -> Self {
        let Some(Dhcpv6Learned { client, link_local, options, server, bindings }) = learned else {
            return Self::default();
        };
        let sound = options.len() <= MAX_OPTIONS
            && are_options(options)
            && bindings.len() <= MAX_BINDINGS
            && bindings.iter().all(|binding| is_leasable(binding.address))
            && link_local.is_unicast_link_local();
        let Some(duid) = Duid::new(client).filter(|_| sound) else { return Self::default() };
        Self {
            client: Some(Client { duid, link_local: *link_local, options: options.clone() }),
            bindings: bindings.iter().map(|binding| Binding::restored(binding, now, ago)).collect(),
            server: server.as_deref().and_then(Duid::new),
            ..Self::default()
        }
    }

    fn guest_says(&mut self, now: Instant, src: Ipv6Addr, message: &Received<'_>) {
        let Some(duid) = message.client.and_then(Duid::new).filter(|_| src.is_unicast_link_local()) else {
            return;
        };
        match message.kind {
            kind::SOLICIT | kind::REQUEST | kind::CONFIRM | kind::RENEW | kind::REBIND => {
                self.client = Some(Client { duid, link_local: src, options: kept(message) });
                self.asked = Some((message.xid, now));
                // Even if nobody sees the answer: what of it the guest has will be known when it falls asleep.
                if message.kind != kind::SOLICIT {
                    for association in message.associations() {
                        self.has(association.iaid, association.addresses().map(|leased| leased.address));
                    }
                }
            }
            kind::RELEASE | kind::DECLINE => {
                for association in message.associations() {
                    for leased in association.addresses() {
                        self.bindings.retain(|binding| binding.address != leased.address);
                    }
                }
            }
            _ => {}
        }
    }

    /// A server's answer to the guest's own request.
    fn guest_is_told(&mut self, now: Instant, dst: Ipv6Addr, message: &Received<'_>) {
        if !self.is_answered_by(now, message) || !self.is_reply_to_client(dst, message) {
            return;
        }
        self.asked = None;
        if message.status != status::SUCCESS {
            return;
        }
        for association in message.associations().filter(|association| association.status == status::SUCCESS)
        {
            self.has(association.iaid, given(association).map(|(address, _)| address));
        }
        self.take(now, message);
        // What it asked for in an association and was not given there, it does not have.
        let answered = |iaid: u32| message.associations().any(|association| association.iaid == iaid);
        self.bindings
            .retain(|binding| !binding.withdrawn && (binding.terms.is_some() || !answered(binding.iaid)));
        self.server = message.server.and_then(Duid::new);
    }

    /// The guest has these addresses; of too many the first ones are known.
    fn has(&mut self, iaid: u32, addresses: impl Iterator<Item = Ipv6Addr>) {
        for address in addresses.filter(|address| is_leasable(*address)) {
            let known = self.bindings.iter().any(|b| (b.iaid, b.address) == (iaid, address));
            if !known && self.bindings.len() < MAX_BINDINGS {
                self.bindings.push(Binding::new(iaid, address, None));
            }
        }
    }

    /// Whether this may be the answer to the guest's own request.
    fn is_answered_by(&self, now: Instant, message: &Received<'_>) -> bool {
        self.asked.is_some_and(|(xid, at)| xid == message.xid && now.since(at) <= ANSWERABLE)
    }

    fn is_reply_to_client(&self, dst: Ipv6Addr, message: &Received<'_>) -> bool {
        let Some(client) = &self.client else { return false };
        message.kind == kind::REPLY && dst == client.link_local && message.client == Some(client.duid.bytes())
    }

    /// Takes over what a reply says of the known addresses. Returns one that it refuses. One that failed as a whole
    /// prolongs nothing, but may refuse: so says dnsmasq that it has nothing left on the link.
    fn take(&mut self, now: Instant, message: &Received<'_>) -> Option<Ipv6Addr> {
        let mut refused = None;
        for association in message.associations() {
            let unknown = association.status == status::NO_BINDING;
            for binding in self.bindings.iter_mut().filter(|binding| binding.iaid == association.iaid) {
                let terms =
                    given(association).find(|(address, _)| *address == binding.address).map(|(_, t)| t);
                match terms {
                    // The guest would ask anew; what it has, it may keep until that ends.
                    _ if unknown => refused = Some(binding.address),
                    Some(terms) if terms.valid == 0 => {
                        binding.withdrawn = true;
                        refused = Some(binding.address);
                    }
                    Some(terms) if message.status == status::SUCCESS => {
                        binding.terms = Some(Terms { from: now, ..terms });
                        binding.renewed = true;
                    }
                    _ => {}
                }
            }
        }
        refused
    }

    /// The watch over all leases from their terms on.
    fn watch(&mut self, rng: &mut Rng) -> Option<Watch> {
        self.client.as_ref()?;
        if self.bindings.is_empty() {
            return None;
        }
        let unknown = self.bindings.iter().any(|binding| binding.terms.is_none());
        let times =
            self.bindings.iter().filter_map(|binding| binding.terms?.times(rng)).reduce(Times::earliest);
        for binding in &mut self.bindings {
            binding.renewed = false;
        }
        if times.is_none() && !unknown {
            return None;
        }
        let times = times.filter(|_| !unknown);
        let next = times.map(|times| times.renew);
        Some(Watch { times, next, exchange: None, called: false })
    }
}

impl Watch {
    /// The watch of a guest that falls asleep at `now`.
    fn from(self, now: Instant, rng: &mut Rng) -> Self {
        let soon = now + Duration::from_millis(rng.below(SPREAD_MS));
        let times = self.times.map(|times| times.from(now, rng));
        Self { times, next: Some(times.map_or(soon, |times| times.renew)), ..self }
    }
}

impl Binding {
    const fn new(iaid: u32, address: Ipv6Addr, terms: Option<Terms>) -> Self {
        Self { iaid, address, terms, renewed: false, withdrawn: false }
    }

    fn learned(&self, now: Instant) -> LearnedBinding {
        let left = self.terms.map(|terms| {
            let ([t1, t2], passed) = (terms.given(), now.since(terms.from));
            [t1, t2, terms.valid].map(|seconds| left(seconds, passed))
        });
        LearnedBinding { iaid: self.iaid, address: self.address, left }
    }

    fn restored(learned: &LearnedBinding, now: Instant, ago: Duration) -> Self {
        let terms = learned.left.map(|seconds| {
            let [t1, t2, valid] = seconds.map(|seconds| left(seconds, ago));
            // 0 would say that the server leaves it to us.
            let (t1, valid) = (t1.max(1), valid.max(GRACE));
            Terms { from: now, valid, preferred: valid, t1, t2: t2.max(t1) }
        });
        Self::new(learned.iaid, learned.address, terms)
    }
}

impl Terms {
    fn end(&self) -> Option<Instant> {
        (self.valid != INFINITE).then(|| self.from + Duration::from_secs(u64::from(self.valid)))
    }

    /// T1 and T2 where the server leaves them to the client or contradicts itself: half and four fifths of the
    /// preferred lifetime, if it has one (RFC 8415 21.4).
    fn usual(&self) -> [u32; 2] {
        let preferred = if self.preferred == 0 { self.valid } else { self.preferred.min(self.valid) };
        [preferred / 2, preferred / 5 * 4]
    }

    /// T1 and T2, the usual ones in place of what the server did not say.
    fn given(&self) -> [u32; 2] {
        let usual = self.usual();
        match [self.t1, self.t2] {
            [0, 0] => usual,
            [t1, 0] => [t1, t1.max(usual[1])],
            [0, t2] => [usual[0].min(t2), t2],
            given => given,
        }
    }

    /// `None` for a lease without an end.
    fn times(&self, rng: &mut Rng) -> Option<Times> {
        (self.valid != INFINITE).then(|| Times::new(self.from, self.valid, self.given(), self.usual(), rng))
    }
}

impl Duid {
    fn new(duid: &[u8]) -> Option<Self> {
        let mut bytes = [0; LONGEST_DUID];
        bytes.get_mut(..duid.len())?.copy_from_slice(duid);
        // RFC 8415 11.1: a type of two bytes and something behind it.
        (duid.len() > 2).then_some(Self { len: u8::try_from(duid.len()).ok()?, bytes })
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl core::fmt::Debug for Duid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:02x?}", self.bytes())
    }
}

/// What is said by a client, or to one: from where, to whom.
fn message<'a>(packet: &Packet<'a>, by_client: bool) -> Option<(Ipv6Addr, Ipv6Addr, Received<'a>)> {
    let Packet::Ipv6(ip, Transport::Udp(udp)) = packet else { return None };
    // A server may answer from any port (RFC 8415 7.2).
    let ours = if by_client {
        (udp.src_port, udp.dst_port) == (CLIENT_PORT, SERVER_PORT)
    } else {
        udp.dst_port == CLIENT_PORT
    };
    let message = if ours { Received::parse(udp.payload).ok() } else { None };
    message.map(|message| (ip.src, ip.dst, message))
}

/// The addresses that a server gives in an association, with their terms. Those that contradict themselves
/// are not believed (RFC 8415 21.4, 21.6).
fn given(association: Association<'_>) -> impl Iterator<Item = (Ipv6Addr, Terms)> {
    let Association { t1, t2, .. } = association;
    let contradicts = t1 > t2 && t2 > 0;
    let sound = association.addresses().filter(move |leased| {
        !contradicts && leased.status == status::SUCCESS && leased.preferred <= leased.valid
    });
    sound.map(move |leased| {
        let terms = Terms { from: Instant::ZERO, valid: leased.valid, preferred: leased.preferred, t1, t2 };
        (leased.address, terms)
    })
}

/// The options of a guest's request that belong to a later one too. What finds no room is left out.
fn kept(message: &Received<'_>) -> Vec<u8> {
    let mut options = Vec::new();
    for (code, value) in message.options().filter(|(code, _)| !ONE_MESSAGES.contains(code)) {
        if let Ok(len) = u16::try_from(value.len())
            && options.len() + 4 + value.len() <= MAX_OPTIONS
        {
            options.extend(code.to_be_bytes());
            options.extend(len.to_be_bytes());
            options.extend(value);
        }
    }
    options
}

/// An address that a server can have given to a host.
fn is_leasable(address: Ipv6Addr) -> bool {
    !(address.is_unspecified()
        || address.is_multicast()
        || address.is_loopback()
        || address.is_unicast_link_local())
}

/// Up to a tenth more or less (RFC 8415 15).
fn jitter(pause: Duration, rng: &mut Rng) -> Duration {
    let tenth = u64::try_from(pause.as_millis() / 10).unwrap_or(u64::MAX);
    pause - Duration::from_millis(tenth) + Duration::from_millis(rng.below(2 * tenth))
}

/// What is written anew in each message, or is not renewed.
const ONE_MESSAGES: [u16; 9] = [
    option::CLIENT,
    option::SERVER,
    option::IA_NA,
    option::IA_TA,
    option::IA_PD,
    option::ELAPSED,
    option::AUTHENTICATION,
    option::STATUS,
    option::RAPID_COMMIT,
];

/// Addresses that are watched over.
const MAX_BINDINGS: usize = 8;
/// With all else that a message has it is then shorter than the smallest MTU.
const MAX_OPTIONS: usize = 256;
/// REN_TIMEOUT and REB_TIMEOUT, REN_MAX_RT and REB_MAX_RT (RFC 8415 7.6).
const PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
const NEVER: Instant = Instant::from_nanos(u64::MAX);

#[cfg(test)]
mod tests;
