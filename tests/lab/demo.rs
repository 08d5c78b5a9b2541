//! The demonstration: a transcript that a person can follow, each claim checked as it is made.
//!
//! Ends with success only if every claim was true. What is shown is what happened: times come from
//! the daemon's events and from the clients.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use surrogate_house::capture::{ACK, Capture, Frame, SYN, retransmissions};
use surrogate_house::clients::{Echo, Pinging, arping, curl, ping};
use surrogate_house::deadline::timed;
use surrogate_house::events::Events;
use surrogate_house::lab::{LISTEN, Lab};
use surrogate_house::{Config, Daemon, Network, VirtualLab, until};

const PATIENCE: Duration = Duration::from_secs(15);
/// Between two pings of a few, and of those that go on all the while.
const PING_EVERY: Duration = Duration::from_millis(50);
const PING_ON_EVERY: Duration = Duration::from_millis(20);
/// A SYN that is not answered is sent again after this long (RFC 6298 2.1); a wake from disk may take longer.
const FIRST_RETRY: Duration = Duration::from_millis(950);

/// Guests are namespaces: seconds, and nothing but root is needed.
pub(crate) fn with_namespaces() -> ExitCode {
    title("guests in network namespaces, frozen instead of suspended");
    let lab = Lab::new(2, "", LISTEN);
    let guest = lab.guest();
    let processes = || {
        let state = if guest.is_frozen() { "stopped" } else { "running" };
        format!("its {} processes are {state}", guest.namespace.processes().len())
    };
    let mut show = Show {
        network: &lab.network,
        daemon: &lab.daemon,
        events: lab.daemon.events(),
        name: "web1",
        v4: guest.v4,
        v6: guest.v6,
        page: guest.page(),
        evidence: &processes,
        wake_within: Duration::from_millis(900),
        explained: false,
        failed: 0,
    };
    show.scene();
    show.a_night_of("pause");
    show.two_sleepers(&lab.guests[1]);
    show.balance();
    show.end()
}

/// The guest is a QEMU machine under a libvirt of its own: paused, then saved to disk.
pub(crate) fn with_a_machine() -> ExitCode {
    title("a real virtual machine: QEMU under libvirt, in a namespace");
    say("booting it (no KVM needed; about six seconds)");
    let lab = VirtualLab::new();
    let machine = lab.boot(1);
    let config = Config::libvirt(&lab.uri(), "").with(&machine.section(LISTEN));
    let daemon = Daemon::start(&lab.network.hypervisor, &config);
    let domain = || {
        let qemus = match lab.qemus().len() {
            0 => "no QEMU process exists".to_owned(),
            n => format!("{n} QEMU process"),
        };
        format!("virsh says \"{}\", {qemus}", lab.domstate(&machine.name))
    };
    let mut show = Show {
        network: &lab.network,
        daemon: &daemon,
        events: daemon.events(),
        name: "vm1",
        v4: machine.v4,
        v6: machine.v6,
        page: machine.page(),
        evidence: &domain,
        wake_within: Duration::from_secs(5),
        explained: false,
        failed: 0,
    };
    show.scene();
    show.a_night_of("pause");
    show.a_night_of("save");
    show.balance();
    show.end()
}

struct Show<'a> {
    network: &'a Network,
    daemon: &'a Daemon,
    events: Events,
    name: &'a str,
    v4: IpAddr,
    v6: IpAddr,
    page: String,
    evidence: &'a dyn Fn() -> String,
    wake_within: Duration,
    /// The words of a timeline have been explained.
    explained: bool,
    failed: u32,
}

impl Show<'_> {
    fn scene(&mut self) {
        say(&format!("bridge br0; client at 192.0.2.101; {} at {} and {}", self.name, self.v4, self.v6));
        let page = curl(&self.network.c1, self.v4);
        self.claim(&format!("{} is awake and serves its page", self.name), page.is_ok(), "");
    }

    /// Falls asleep, is stood in for, is woken by a page request; a session and a ping live through it.
    fn a_night_of(&mut self, depth: &str) {
        heading(&format!("{} goes to sleep (depth: {depth})", self.name));
        let client = &self.network.c1;
        command(&format!("{} &", ping_line(self.v4, PING_ON_EVERY)));
        let pinging = Pinging::start(&self.network.c2, self.v4, PING_ON_EVERY);
        let mut session = Echo::open(client, self.v4, PATIENCE).expect("a TCP session with the awake guest");
        session.say("hello").expect("an echo from the awake guest");
        let seen = self.events.last();
        command(&format!("surrogate sleep {} --depth {depth}", self.name));
        let outcome = self.daemon.cli(&["sleep", self.name, "--depth", depth]);
        print!("{}{}", outcome.output, outcome.errors);
        self.claim("it sleeps", outcome.status.success(), &(self.evidence)());
        self.timeline(seen, "asleep");

        heading("while it sleeps, the network sees no difference");
        command(&format!("{}        (ended after 10)", ping_line(self.v4, PING_EVERY)));
        let pings = ping(client, self.v4, 10, PING_EVERY);
        self.claim(
            &format!("{} of {} pings answered", pings.received, pings.sent),
            pings.all_answered(),
            round_trip(&pings.text),
        );
        command(&format!("{}        (ended after 10)", ping_line(self.v6, PING_EVERY)));
        let pings = ping(client, self.v6, 10, PING_EVERY);
        self.claim(
            &format!("{} of {} pings answered over IPv6", pings.received, pings.sent),
            pings.all_answered(),
            round_trip(&pings.text),
        );
        command(&format!("arping -c 3 -I eth0 {}", self.v4));
        let (answers, text) = arping(client, self.v4, 3);
        let mac = text.split(['[', ']']).nth(1).unwrap_or_default();
        self.claim(
            &format!("{answers} of 3 ARP requests answered"),
            answers == 3,
            &format!("by {mac}, its own MAC"),
        );
        let state = self.daemon.state(self.name);
        self.claim("and it still sleeps", state == "asleep", &(self.evidence)());

        heading("someone wants its page");
        let capture = Capture::start(client, "eth0");
        let seen = self.events.last();
        command(&format!("curl http://{}/", self.v4));
        let page = curl(client, self.v4);
        let took = page.as_ref().map(|page| page.took).unwrap_or_default();
        let body = page.as_ref().map_or_else(Clone::clone, |page| page.body.clone());
        print!("{body}");
        self.claim(
            &format!("the page came after {}", milliseconds(took)),
            body == self.page && took < self.wake_within,
            "",
        );
        self.timeline(seen, "awake");
        let frames = capture.stop();
        if let Some((answered, page)) = seen_by_the_client(&frames, self.v4) {
            let (answered, page) = (milliseconds(answered), milliseconds(page));
            say(&format!(
                "the client had a SYN-ACK {answered} after its first SYN, and the page after {page}"
            ));
        }
        if depth == "save" {
            say(
                "(from resumed on that is the guest's own time: QEMU translates its code anew after a restore)",
            );
        }
        let again = retransmissions(&frames).len();
        let segments = if again == 1 { "1 segment" } else { &format!("{again} segments") };
        if took < FIRST_RETRY {
            self.claim(&format!("{segments} had to be sent again"), again == 0, "");
        } else {
            let were = if again == 1 { "was" } else { "were" };
            say(&format!("{segments} {were} sent again while it was restored; each is held once"));
        }
        self.claim("it is awake", self.daemon.state(self.name) == "awake", &(self.evidence)());
        let (said, took) = timed(|| session.say("are you still there?"));
        self.claim("the TCP session from before the sleep goes on", said.is_ok(), &milliseconds(took));
        let pings = pinging.stop();
        self.claim(
            &format!(
                "a ping ran all the while: {} sent, {} answered, {} twice",
                pings.sent, pings.received, pings.duplicates
            ),
            pings.all_answered(),
            "",
        );
    }

    fn two_sleepers(&mut self, other: &surrogate_house::NetnsGuest) {
        heading("two sleepers, and one of them wants the other");
        for name in [self.name, &other.name] {
            command(&format!("surrogate sleep {name}"));
            print!("{}", self.daemon.cli(&["sleep", name]).output);
        }
        let asleep = self.daemon.state(self.name) == "asleep" && self.daemon.state(&other.name) == "asleep";
        self.claim("both sleep", asleep, "");
        let seen = self.events.last();
        command(&format!("surrogate wake {}", other.name));
        print!("{}", self.daemon.cli(&["wake", &other.name]).output);
        let awake = self.daemon.state(&other.name) == "awake";
        self.claim("that one is awake, the other sleeps", awake, &self.daemon.state(self.name));
        command(&format!("curl http://{}/        (from {})", self.v4, other.name));
        let page = curl(&other.namespace, self.v4);
        let came = page.as_ref().is_ok_and(|page| page.body == self.page);
        self.claim(
            "the one that woke got the other's page",
            came,
            &page.map_or_else(|e| e, |p| milliseconds(p.took)),
        );
        self.timeline(seen, "awake");
    }

    fn balance(&mut self) {
        heading("the balance");
        let status = self.daemon.status(self.name);
        let counters = &status["nics"][0]["counters"];
        let number = |key: &str| counters[key].as_u64().unwrap_or_default();
        let sum = |key: &str| {
            counters[key]
                .as_object()
                .into_iter()
                .flat_map(|kinds| kinds.values())
                .filter_map(serde_json::Value::as_u64)
                .sum::<u64>()
        };
        let (held, replayed, late, lost) =
            (number("held"), number("replayed"), number("reclassified"), sum("held_dropped"));
        say(&format!(
            "frames for the sleeper: {}; answered: {}; held: {held}",
            number("concerned"),
            sum("answered")
        ));
        self.claim(
            &format!("of those held, {replayed} were replayed, {late} answered late, {lost} lost"),
            lost == 0 && held == replayed + late,
            "",
        );
        self.claim(
            "while it was awake not one unicast frame passed through Surrogate",
            number("awake_unicast") == 0,
            "",
        );
    }

    fn end(self) -> ExitCode {
        println!();
        if self.failed == 0 {
            println!("All of it was true. Nothing was lost.");
            ExitCode::SUCCESS
        } else {
            println!("{} of the claims above were not true.", self.failed);
            println!("---- the daemon's log\n{}", self.daemon.log());
            ExitCode::FAILURE
        }
    }

    /// What happened to the guest after event `seq` until `last`, with the time between the steps.
    fn timeline(&mut self, seq: u64, last: &str) {
        let arrived = |events: &Events| {
            events
                .all()
                .iter()
                .any(|e| e.seq > seq && e.kind == last && e.guest.as_deref() == Some(self.name))
        };
        until(&format!("event {last}"), PATIENCE, || arrived(&self.events));
        let events = self.events.all();
        let mine = events.iter().filter(|e| e.seq > seq && e.guest.as_deref() == Some(self.name));
        let mut began = None;
        for event in mine {
            let began = *began.get_or_insert(event.unix_ms);
            println!(
                "      {:>5} ms  {:<10} {}",
                event.unix_ms.saturating_sub(began),
                event.kind,
                if event.kind == "drained" {
                    "what was queued at its port has reached it"
                } else {
                    &event.detail
                }
            );
        }
        if last == "awake" && !self.explained {
            self.explained = true;
            say("(awake: it has all that was held, and nothing more came to us for 20 ms;");
            say(" overtaken: was on its way to us when forwarding was given back; it got that too)");
        }
    }

    fn claim(&mut self, what: &str, holds: bool, detail: &str) {
        let mark = if holds { "ok" } else { "NOT TRUE" };
        let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
        println!("  {mark:>2}  {what}{detail}");
        self.failed += u32::from(!holds);
    }
}

fn title(text: &str) {
    println!("Surrogate: {text}\n");
}

fn heading(text: &str) {
    println!("\n-- {text}");
}

fn say(text: &str) {
    println!("      {text}");
}

fn command(text: &str) {
    println!("   $  {text}");
}

/// How [`ping`] and [`Pinging`] call it.
fn ping_line(address: IpAddr, every: Duration) -> String {
    format!("ping -n -i {} {address}", every.as_secs_f64())
}

/// How long after the first SYN to port 80 of `guest` its SYN-ACK came, and its first data.
fn seen_by_the_client(frames: &[Frame], guest: IpAddr) -> Option<(Duration, Duration)> {
    let segments = || frames.iter().filter_map(|frame| Some((frame.at, frame.segment()?)));
    let (asked, _) = segments().find(|(_, s)| s.to == (guest, 80) && s.flags & SYN != 0)?;
    let mut said = segments().filter(|(_, s)| s.from == (guest, 80));
    let (answered, _) = said.clone().find(|(_, s)| s.flags & (SYN | ACK) == SYN | ACK)?;
    let (page, _) = said.find(|(_, s)| s.length > 0)?;
    Some((answered.checked_sub(asked)?, page.checked_sub(asked)?))
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

/// Ping's own line of round trips: `rtt min/avg/max/mdev = ...`.
fn round_trip(text: &str) -> &str {
    text.lines().find(|line| line.starts_with("rtt")).unwrap_or_default()
}
