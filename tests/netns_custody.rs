//! Connections of real clients through a sleep: their keep-alives are answered, nobody is woken by them, and when
//! one has something to say it goes on where it was.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use surrogate_house::capture::{Capture, Frame};
use surrogate_house::lab::{LISTEN, Lab};
use surrogate_house::{Namespace, deadline::pause, until};
use surrogate_wire::{Offload, Packet, Received, TcpOptions, Transport};

const PATIENCE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// A connection to the guest's echo whose end asks every second whether the other one is there, and gives up after
/// four answers that did not come.
struct Session(TcpStream);

impl Session {
    fn open(client: &Namespace, address: IpAddr) -> Self {
        let stream =
            client.enter(|| TcpStream::connect_timeout(&SocketAddr::new(address, 7), PATIENCE)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let often = TcpKeepalive::new().with_time(SECOND).with_interval(SECOND).with_retries(4);
        SockRef::from(&stream).set_tcp_keepalive(&often).unwrap();
        Self(stream)
    }

    /// Says something and hears it again.
    fn talk(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
        let mut heard = vec![0; text.len()];
        self.0.read_exact(&mut heard).unwrap();
        assert_eq!(heard, text.as_bytes());
    }

    /// Whether its end has not given up, nor been told to.
    fn lives(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let seen = self.0.peek(&mut [0]);
        self.0.set_nonblocking(false).unwrap();
        seen.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// So many keep-alives of each connection are answered before it goes on: 20 s of them.
const KEEP_ALIVES: u64 = 20;

fn connections_live_through_a_sleep(timestamps: bool) {
    let lab = Lab::one_guest();
    let (client, guest) = (&lab.network.c1, lab.guest());
    let setting = format!("net.ipv4.tcp_timestamps={}", u8::from(timestamps));
    for namespace in [client, &guest.namespace] {
        namespace.run("sysctl", &["-q", "-w", &setting]);
    }
    // A connection that is seen from its beginning on; the others are inferred, or not.
    until("the guest to be observed", PATIENCE, || {
        lab.network.hypervisor.run("ss", &["-0an"]).contains("*:web1")
    });
    let sniffer = Capture::start(client, "eth0");
    let mut sessions = [guest.v4, guest.v6].map(|address| Session::open(client, address));
    for session in &mut sessions {
        session.talk("before");
    }

    let events = lab.daemon.events();
    lab.daemon.sleep("web1");
    assert!(guest.is_frozen());
    let asleep = events.last();
    let counters = || lab.daemon.status("web1")["nics"][0]["counters"].clone();
    let answered = || counters()["answered"]["keep-alive"].as_u64().unwrap_or(0);
    until("their keep-alives to be answered", PATIENCE, || {
        assert!(sessions.iter().all(Session::lives), "{}", counters());
        answered() >= KEEP_ALIVES * sessions.len() as u64
    });
    assert_eq!(lab.daemon.state("web1"), "asleep");
    assert!(events.all().iter().all(|event| event.seq <= asleep || event.kind != "waking"));
    let status = lab.daemon.status("web1");
    let custody = &status["nics"][0]["custody"];
    assert_eq!((&custody["known"], &custody["learned"]), (&2.into(), &2.into()), "{status}");

    for session in &mut sessions {
        session.talk("after");
    }
    let awake = events.wait_after(asleep, "web1", "awake", PATIENCE);
    assert!(
        awake.detail.contains("answered in its name: ") && awake.detail.contains(" keep-alive"),
        "{awake:?}"
    );
    assert!(events.all().iter().any(|event| event.kind == "waking" && event.detail.contains("port 7")));
    for session in &mut sessions {
        session.talk("and awake");
    }
    // Of one kind from the first segment to the last, whoever made it.
    let stamped = sniffer.stop().iter().filter_map(has_timestamps).collect::<Vec<_>>();
    assert!(
        stamped.len() as u64 > 4 * KEEP_ALIVES && stamped.iter().all(|has| *has == timestamps),
        "{stamped:?}"
    );
    lab.daemon.assert_conserved();
}

/// Whether a segment of the sessions has them; a reset, of which there is none, need not.
fn has_timestamps(frame: &Frame) -> Option<bool> {
    let received = Received { offload: Offload::Verified, ..Received::plain(&frame.bytes) };
    let parsed = surrogate_wire::Frame::parse(&received).ok()?;
    let packet = Packet::parse(&parsed, received.offload).ok()?;
    let Some(Transport::Tcp(tcp)) = packet.transport() else { return None };
    assert!(!tcp.is_rst(), "{tcp:?}");
    (tcp.src_port == 7 || tcp.dst_port == 7).then(|| TcpOptions::parse(tcp.options).timestamps.is_some())
}

#[test]
fn a_connection_from_before_the_daemon_lives_through_a_sleep_as_well() {
    let mut lab = Lab::one_guest();
    let mut session = Session::open(&lab.network.c1, lab.guest().v4);
    session.talk("before");
    lab.daemon.kill();
    lab.daemon.launch(&lab.network.hypervisor);
    until("the guest to be awake", PATIENCE, || lab.daemon.state("web1") == "awake");
    lab.daemon.sleep("web1");
    let answered = || lab.daemon.status("web1")["nics"][0]["counters"]["answered"]["keep-alive"].as_u64();
    until("its keep-alives to be answered", PATIENCE, || {
        assert!(session.lives());
        answered() >= Some(KEEP_ALIVES / 2)
    });
    assert_eq!(lab.daemon.state("web1"), "asleep");
    session.talk("after");
}

/// What a busy guest sends is seen as a sample only, so that the peers' clocks move on unseen.
#[test]
fn each_connection_is_known_exactly_when_its_guest_falls_asleep_and_goes_on_both_ways() {
    let lab = Lab::one_guest();
    let (client, guest) = (&lab.network.c1, lab.guest());
    until("the guest to be observed", PATIENCE, || {
        lab.network.hypervisor.run("ss", &["-0an"]).contains("*:web1")
    });
    let mut sessions: Vec<_> =
        (0..SESSIONS).map(|n| Session::open(client, [guest.v4, guest.v6][n % 2])).collect();
    // Half of them say something now and then, the others have been silent since.
    for _ in 0..3 {
        for session in sessions.iter_mut().step_by(2) {
            session.talk("before");
        }
        pause(SECOND);
    }
    for session in sessions.iter_mut().skip(1).step_by(4) {
        session.talk("once more");
    }
    pause(SECOND);
    lab.daemon.sleep("web1");
    let counters = || lab.daemon.status("web1")["nics"][0]["counters"].clone();
    let custody = lab.daemon.status("web1")["nics"][0]["custody"].clone();
    assert_eq!(custody["unconfirmed"], 0, "{custody}");
    let answered = || counters()["answered"]["keep-alive"].as_u64().unwrap_or(0);
    until("their keep-alives to be answered", PATIENCE, || answered() >= 2 * SESSIONS as u64);
    assert_eq!(lab.daemon.state("web1"), "asleep");

    // What the peers' own clocks say now is less than what the guest was asked with.
    for round in ["after", "and awake", "and again"] {
        for session in &mut sessions {
            assert!(session.lives());
            session.talk(round);
        }
    }
    let rejected = guest.namespace.run("nstat", &["-asz", "TcpExtPAWSEstab", "TcpExtPAWSOldAck"]);
    for line in rejected.lines().filter(|line| line.starts_with("TcpExt")) {
        assert_eq!(line.split_whitespace().nth(1), Some("0"), "{rejected}");
    }
    lab.daemon.assert_conserved();
}

const SESSIONS: usize = 16;

#[test]
fn with_timestamps_connections_live_through_a_sleep() {
    connections_live_through_a_sleep(true);
}

#[test]
fn without_timestamps_connections_live_through_a_sleep() {
    connections_live_through_a_sleep(false);
}

/// Its connections are more than custody may remember: the one that found no place keeps an idle guest awake, until
/// there is one.
#[test]
fn a_connection_that_could_not_be_answered_for_keeps_an_idle_guest_awake_and_is_named() {
    let rule = "idle_after = \"2s\"\nmin_awake = \"1s\"\nidle_cpu = 50\nidle_packets = 50";
    let lab = Lab::new(1, "", &format!("{LISTEN}\n{rule}\nconnections = {{ limit = 1 }}"));
    let (client, guest) = (&lab.network.c1, lab.guest());
    let events = lab.daemon.events();
    until("the guest to be observed", PATIENCE, || {
        lab.network.hypervisor.run("ss", &["-0an"]).contains("*:web1")
    });
    let mut sessions: Vec<_> = (0..2).map(|_| Session::open(client, guest.v4)).collect();
    let told = events.wait("web1", "kept-awake", PATIENCE);
    let end = |session: &Session| format!("{}:7 to {}", guest.v4, session.0.local_addr().unwrap());
    let refused =
        sessions.iter().position(|session| told.detail.contains(&end(session))).expect("one of them");
    assert!(told.detail.ends_with("there are more connections than custody remembers"), "{told:?}");
    let kept = lab.daemon.status("web1")["nics"][0]["kept_awake"].clone();
    assert_eq!(
        (&kept[0]["connection"], &kept[0]["why"]),
        (&end(&sessions[refused]).into(), &"table-full".into())
    );
    let text = lab.daemon.cli(&["status", "web1"]).output;
    assert!(text.contains(&format!("awake by {}: there are more", end(&sessions[refused]))), "{text}");
    let labels = [("guest", "web1"), ("nic", "0")];
    assert!(lab.daemon.metrics().value("surrogate_connections_refused_total", &labels) >= Some(1.0));

    let mut left = sessions.remove(refused);
    // Cut short, so that the guest is not left with its end of it.
    SockRef::from(&sessions[0].0).set_linger(Some(Duration::ZERO)).unwrap();
    drop(sessions);
    events.wait_after(told.seq, "web1", "asleep", PATIENCE);
    let answered = || lab.daemon.status("web1")["nics"][0]["counters"]["answered"]["keep-alive"].as_u64();
    until("its keep-alives to be answered", PATIENCE, || answered() >= Some(3));
    left.talk("after");
}
