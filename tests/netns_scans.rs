//! What scanners see of a guest, awake and asleep: nmap, nping, hping3, fping, arping and ndisc6, each with a
//! network of two clients. Closed ports wake nobody, open ones at most once.
//!
//! Compared is what the tools say they saw, without times and their own counts of packets.

use std::collections::BTreeSet;
use std::net::IpAddr;

use surrogate_house::Namespace;
use surrogate_house::lab::Lab;

/// Closed on the guest, TCP and UDP.
const CLOSED: &str = "1,21,81,443,1000-1039";

/// What a tool wrote, whatever it returned.
fn say(from: &Namespace, program: &str, arguments: &[&str]) -> String {
    let output = from.command(program).args(arguments).env("LC_ALL", "C").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    format!("{}{errors}", String::from_utf8_lossy(&output.stdout))
}

/// Each port's state with its reason, as nmap's XML has it; and the MAC that it saw.
fn nmap(from: &Namespace, arguments: &[&str], address: IpAddr) -> BTreeSet<String> {
    let address = address.to_string();
    let family: &[&str] = if address.contains(':') { &["-6"] } else { &[] };
    let arguments = [&["-n", "--reason", "-oX", "-"], family, arguments, &[&address]].concat();
    let xml = say(from, "nmap", &arguments);
    let elements = xml.split('<').filter_map(|element| Some(element.split_once('>')?.0.to_owned()));
    let told = ["address ", "port ", "state ", "extrareasons ", "status "];
    let mut seen = BTreeSet::new();
    let mut port = String::new();
    for element in elements.filter(|element| told.iter().any(|begin| element.starts_with(begin))) {
        match element.strip_prefix("port ") {
            Some(attributes) => port = attributes.to_owned(),
            None if element.starts_with("state ") => _ = seen.insert(format!("{port} {element}")),
            None => _ = seen.insert(element),
        }
    }
    assert!(seen.len() > 1, "nmap saw nothing: {xml}");
    seen
}

/// The lines of a tool's answer that `tells` something, in a form without times, sorted.
fn lines(text: &str, tells: impl Fn(&str) -> Option<String>) -> BTreeSet<String> {
    text.lines().filter_map(tells).collect()
}

/// Everything that closed ports and the neighbourhood tell, by tool.
fn closed(lab: &Lab) -> Vec<(&'static str, BTreeSet<String>)> {
    let [c1, c2] = [&lab.network.c1, &lab.network.c2];
    let guest = lab.guest();
    let (v4, v6) = (guest.v4.to_string(), guest.v6.to_string());
    let up_to = |text: &str, end: &str| Some(text.split_once(end)?.0.to_owned());
    let nping = |arguments: &[&str], address: &str| {
        let family: &[&str] = if address.contains(':') { &["-6"] } else { &[] };
        let text =
            say(c2, "nping", &[family, &["-c", "2", "--delay", "1200ms"], arguments, &[address]].concat());
        // RCVD (0.0071s) ICMP [192.0.2.11 > 192.0.2.102 Echo reply (type=0/code=0) id=1 seq=1] IP [ttl=64 id=1 iplen=28 ]
        lines(&text, |line| {
            let what = line.strip_prefix("RCVD ")?.split_once(") ")?.1;
            let what = what.split(" IP [").next()?.split(" id=").next()?.split(" seq=").next()?;
            Some(what.to_owned())
        })
    };
    let hping3 = |arguments: &[&str]| {
        let text = say(c2, "hping3", &[&["-n", "-c", "1"], arguments, &[&v4]].concat());
        // The length is the frame's, padding included, which a namespace leaves out.
        // len=40 ip=192.0.2.11 ttl=64 DF id=0 sport=81 flags=RA seq=0 win=0 rtt=3.9 ms
        lines(&text, |line| {
            let told = line.contains("ip=").then_some(line)?;
            let told = told
                .split(' ')
                .filter(|word| !["id=", "rtt=", "ms", "len="].iter().any(|w| word.starts_with(w)));
            Some(told.collect::<Vec<_>>().join(" "))
        })
    };
    vec![
        ("nmap -sS", nmap(c1, &["-sS", "-p", CLOSED], guest.v4)),
        ("nmap -sS -6", nmap(c1, &["-sS", "-p", CLOSED], guest.v6)),
        ("nmap -sF", nmap(c1, &["-sF", "-p", CLOSED], guest.v4)),
        ("nmap -sN", nmap(c1, &["-sN", "-p", CLOSED], guest.v4)),
        ("nmap -sX -6", nmap(c1, &["-sX", "-p", CLOSED], guest.v6)),
        ("nmap -sF open", nmap(c1, &["-sF", "--max-retries", "1", "-p", "7,22,80"], guest.v4)),
        ("nmap -sU", nmap(c1, &["-sU", "-p", "1001-1003"], guest.v4)),
        ("nmap -sU -6", nmap(c1, &["-sU", "-p", "1001-1003"], guest.v6)),
        ("nmap -sn -PE", nmap(c2, &["-sn", "--disable-arp-ping", "-PE"], guest.v4)),
        ("arping", lines(&say(c1, "arping", &["-c", "3", "-I", "eth0", &v4]), |line| up_to(line, "  "))),
        ("fping", lines(&say(c1, "fping", &["-c", "3", "-p", "20", &v4]), |line| up_to(line, "bytes"))),
        (
            "fping -6",
            lines(&say(c1, "fping", &["-6", "-c", "3", "-p", "20", &v6]), |line| up_to(line, "bytes")),
        ),
        ("ndisc6", lines(&say(c2, "ndisc6", &[&v6, "eth0"]), |line| Some(line.to_owned()))),
        ("nping --icmp", nping(&["--icmp"], &v4)),
        ("nping --tcp", nping(&["--tcp", "-g", "40001", "-p", "81"], &v4)),
        ("nping --udp", nping(&["--udp", "-g", "40001", "-p", "1001"], &v4)),
        ("nping --arp", nping(&["--arp"], &v4)),
        ("hping3 -S", hping3(&["-S", "-p", "81"])),
        ("hping3 -F", hping3(&["-F", "-p", "81"])),
        ("hping3 -SF", hping3(&["-S", "-F", "-p", "81"])),
        ("hping3 -FPU", hping3(&["-F", "-P", "-U", "-p", "81"])),
        ("hping3 without flags", hping3(&["-p", "81"])),
        ("hping3 -1", hping3(&["-1"])),
    ]
}

#[test]
fn scanners_of_closed_ports_see_a_sleeper_as_they_see_it_awake_and_wake_nobody() {
    let lab = Lab::one_guest();
    let awake = closed(&lab);
    lab.daemon.sleep("web1");
    let asleep = closed(&lab);
    for ((tool, awake), (_, asleep)) in awake.iter().zip(&asleep) {
        assert!(!awake.is_empty(), "{tool} saw nothing");
        assert_eq!(awake, asleep, "{tool}");
    }
    assert!(lab.guest().is_frozen());
    let status = lab.daemon.status("web1");
    assert_eq!((&status["state"], &status["wakes"]), (&"asleep".into(), &0.into()), "{status:#}");
    lab.daemon.assert_conserved();
}

#[test]
fn a_scan_of_every_port_of_a_guest_that_serves_nothing_wakes_nobody() {
    let lab = Lab::new(1, "", "listen = []");
    lab.daemon.sleep("web1");
    let guest = lab.guest();
    let scan = ["-n", "-Pn", "-sS", "-T5", "--min-rate", "3000", "-p-", "-oG", "-", &guest.v4.to_string()];
    let said = say(&lab.network.c1, "nmap", &scan);
    assert!(said.contains("Ignored State: closed (65535)"), "{said}");
    assert!(guest.is_frozen());
    let status = lab.daemon.status("web1");
    assert_eq!((&status["state"], &status["wakes"]), (&"asleep".into(), &0.into()), "{status:#}");
    lab.daemon.assert_conserved();
}

#[test]
fn a_scan_that_touches_open_ports_sees_the_same_and_wakes_once() {
    let lab = Lab::one_guest();
    for address in [lab.guest().v4, lab.guest().v6] {
        let scan = || nmap(&lab.network.c1, &["-sS", "-p", "7,22,80,81,443,8080"], address);
        let awake = scan();
        let before = lab.daemon.sleep("web1");
        let wakes = |status: &serde_json::Value| status["wakes"].as_u64().unwrap();
        let slept = wakes(&lab.daemon.status("web1"));
        let asleep = scan();
        assert_eq!(awake, asleep, "{before}");
        assert_eq!(wakes(&lab.daemon.status("web1")), slept + 1);
        assert!(
            awake.iter().any(|port| port.contains("portid=\"80\"") && port.contains("open")),
            "{awake:?}"
        );
    }
    lab.daemon.assert_conserved();
}

/// What nmap's probes for the operating system were answered with, test by test (nmap's "fingerprint"), but for the
/// one about how numbers grow: it is another one each time, and identifications are not the guest's own.
fn fingerprint(lab: &Lab, ports: &str) -> BTreeSet<String> {
    let address = lab.guest().v4.to_string();
    let text = say(&lab.network.c1, "nmap", &["-n", "-O", "-d", "-oX", "-", "-p", ports, &address]);
    let told = text.split("fingerprint=\"").nth(1).and_then(|rest| rest.split('"').next());
    let told = told.unwrap_or_else(|| panic!("no fingerprint: {text}"));
    // Either a test a line, or lines of one length that begin with "OS:".
    let told = told.replace("&#xa;OS:", "").replace("&#xa;", "");
    let tests = told.trim_start_matches("OS:").split_inclusive(')');
    tests.filter(|test| !test.starts_with("SCAN(") && !test.starts_with("SEQ(")).map(str::to_owned).collect()
}

#[test]
fn a_scan_for_the_operating_system_sees_the_same() {
    let lab = Lab::one_guest();
    // Closed ports alone; then an open one too, which wakes it: the rest is the guest's own answers.
    for (ports, tests, most_wakes) in [("81", ["T6(", "IE(", "U1("], 0), ("80,81", ["T1(", "OPS(", "U1("], 1)]
    {
        let awake = fingerprint(&lab, ports);
        lab.daemon.sleep("web1");
        let wakes = || lab.daemon.status("web1")["wakes"].as_u64().unwrap();
        let slept = wakes();
        let asleep = fingerprint(&lab, ports);
        println!("ports {ports}, {} wakes: {asleep:?}", wakes() - slept);
        for begin in tests {
            assert!(awake.iter().any(|test| test.starts_with(begin)), "{begin}: {awake:?}");
        }
        assert_eq!(awake, asleep, "ports {ports}");
        assert!(wakes() - slept <= most_wakes, "ports {ports}");
        lab.daemon.wake("web1");
    }
    lab.daemon.assert_conserved();
}
