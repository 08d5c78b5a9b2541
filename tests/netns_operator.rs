//! What operators and their programs are told: releases, metrics, refusals and exit codes.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use surrogate_house::clients::{arping, curl, ping};
use surrogate_house::daemon::{Outcome, binary};
use surrogate_house::lab::{LISTEN, Lab, bridge_state};
use surrogate_house::namespace::must;
use surrogate_house::prometheus::{Metrics, Sample};
use surrogate_house::until;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn release_all_wakes_our_sleepers_and_lets_go_of_those_that_others_stopped() {
    let lab = Lab::new(3, "", LISTEN);
    let [ours, others, awake] = &lab.guests[..] else { panic!("three guests") };
    let before = bridge_state(&lab.network.hypervisor);
    let events = lab.daemon.events();
    lab.daemon.sleep("web1");
    others.freeze();
    events.wait("web2", "asleep", PATIENCE);
    // What waits for the one that is let go of is not for us to keep.
    let socket = lab.network.c1.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.send_to(b"for whoever wakes it", (others.v4, 514)).unwrap();
    until("it to be held", PATIENCE, || lab.daemon.status("web2")["nics"][0]["counters"]["holding"] == 1);
    let asleep = lab.daemon.status("web2");
    assert_eq!((&asleep["state"], &asleep["slept_by_us"]), (&json!("asleep"), &json!(false)), "{asleep}");
    assert!(ping(&lab.network.c1, others.v4, 3, Duration::from_millis(20)).all_answered());

    let released = lab.daemon.json(&["release", "--all"]);
    assert_eq!(released, json!({ "guests": 2, "restored": 0, "failed": [] }));
    assert_eq!(bridge_state(&lab.network.hypervisor), before);
    assert!(!ours.is_frozen() && !awake.is_frozen());
    assert_eq!(lab.daemon.state("web1"), "awake");
    assert_eq!(curl(&lab.network.c1, ours.v4).unwrap().body, ours.page());
    assert!(others.is_frozen(), "who paused it decides when it runs");
    let status = lab.daemon.status("web2");
    assert_eq!((&status["state"], &status["power"]), (&json!("awake"), &json!("paused")), "{status}");
    let text = lab.daemon.cli(&["status", "web2"]).output;
    assert!(text.contains("state       left alone for "), "{text}");
    let nic = &status["nics"][0];
    assert_eq!((&nic["mode"], &nic["counters"]["holding"]), (&json!("pass"), &json!(0)), "{status}");

    // And so it stays: the paused guest's own network stack answers now, nothing of it comes to us. For
    // longer than the daemon takes to look at its guests again.
    let pings = ping(&lab.network.c1, others.v4, 15, Duration::from_millis(100));
    assert!(pings.all_answered(), "{}", pings.text);
    let later = lab.daemon.status("web2");
    assert_eq!(later["nics"][0]["counters"], nic["counters"]);
    assert_eq!(bridge_state(&lab.network.hypervisor), before);
    lab.daemon.assert_conserved();

    // Thawed by its owner it is a guest like the others.
    others.thaw();
    until("the daemon to see it run", PATIENCE, || lab.daemon.status("web2")["power"] == "running");
    assert_eq!(curl(&lab.network.c1, others.v4).unwrap().body, others.page());
    lab.daemon.sleep("web2");
    assert_eq!(lab.daemon.json(&["release", "--all"])["guests"], 1);
    assert_eq!(bridge_state(&lab.network.hypervisor), before);
}

#[test]
fn metrics_on_the_socket_and_over_tcp_say_what_the_status_says() {
    let mut config = surrogate_house::Config::netns("", "");
    config.daemon = "metrics = \"127.0.0.1:9180\"".to_owned();
    let lab = Lab::with(2, LISTEN, config);
    let (network, guest) = (&lab.network, lab.guest());
    lab.daemon.sleep("web1");
    lab.daemon.wake("web1");
    lab.daemon.sleep("web1");
    // Something of each kind.
    for address in [guest.v4, guest.v6] {
        assert!(ping(&network.c1, address, 3, Duration::from_millis(20)).all_answered());
    }
    assert_eq!(arping(&network.c1, guest.v4, 2).0, 2);
    let socket = network.c1.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.set_broadcast(true).unwrap();
    for port in [514, 5353, 137] {
        socket.send_to(b"to whom it may concern", ("192.0.2.255", port)).unwrap();
    }
    socket.send_to(b"to nobody", (guest.v4, 4444)).unwrap();
    until("all of it to be counted", PATIENCE, || {
        let counters = &lab.daemon.status("web1")["nics"][0]["counters"];
        counters["holding"] == 1
            && counters["absorbed"] == 2
            && !counters["answered"]["port-unreachable"].is_null()
    });

    let over_socket = || lab.daemon.metrics();
    let tcp = "http://127.0.0.1:9180";
    let over_tcp = || Metrics::fetch(&mut network.hypervisor.command("curl"), &format!("{tcp}/metrics"));
    for (place, ask) in [("socket", &over_socket as &dyn Fn() -> Metrics), ("tcp", &over_tcp)] {
        // Whatever the lab's own noise may be, the same status before and after means the same in between.
        let mut seen = None;
        until("a quiet moment", PATIENCE, || {
            let before = lab.daemon.json(&["guests"]);
            let metrics = ask();
            let after = lab.daemon.json(&["guests"]);
            let same = (0..2).all(|at| before[at]["nics"] == after[at]["nics"]);
            seen = same.then_some((after, metrics));
            same
        });
        let (guests, metrics) = seen.unwrap();
        for guest in guests.as_array().unwrap() {
            agree(&metrics, guest).unwrap_or_else(|why| panic!("{place}: {why}\n{guest:#}\n{metrics:#?}"));
        }
        assert_eq!(metrics.value("surrogate_guest_sleeps_total", &[("guest", "web1")]), Some(2.0));
        let asleep = [("guest", "web1"), ("state", "asleep")];
        assert_eq!(metrics.value("surrogate_guest_state", &asleep), Some(1.0));
    }
    assert!(guest.is_frozen(), "asking does not wake it");

    // The open address gives away nothing else.
    for (method, path) in [("GET", "/v1/guests"), ("POST", "/v1/guests/web1/wake"), ("POST", "/v1/release")] {
        let mut command = network.hypervisor.command("curl");
        command.args([
            "-gsS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-X",
            method,
            &format!("{tcp}{path}"),
        ]);
        assert_eq!(must(&mut command), "404", "{method} {path}");
    }
    assert!(guest.is_frozen());
}

/// Whether the series about a guest are what its status says, no more and no less.
fn agree(metrics: &Metrics, guest: &Value) -> Result<(), String> {
    let name = guest["name"].as_str().unwrap();
    let check = |series: &str, labels: &[(&str, &str)], expected: &Value| {
        let labels = [&[("guest", name)], labels].concat();
        let told = metrics.value(series, &labels);
        if told == expected.as_f64() && told.is_some() {
            Ok(())
        } else {
            Err(format!("{series} {labels:?} is {told:?}, the status says {expected}"))
        }
    };
    check("surrogate_guest_sleeps_total", &[], &guest["sleeps"])?;
    check("surrogate_guest_wakes_total", &[], &guest["wakes"])?;
    for (at, nic) in guest["nics"].as_array().unwrap().iter().enumerate() {
        let at = at.to_string();
        let custody = nic["custody"].as_object().expect("custody is the default");
        for (key, value) in custody {
            let total = if key == "known" { "" } else { "_total" };
            check(&format!("surrogate_connections_{key}{total}"), &[("nic", &at)], value)?;
        }
        let counters = nic["counters"].as_object().unwrap();
        for (key, value) in counters {
            let series = match key.as_str() {
                "holding" => "surrogate_frames_holding".to_owned(),
                "holding_bytes" => "surrogate_holding_bytes".to_owned(),
                key => format!("surrogate_frames_{key}_total"),
            };
            let Value::Object(kinds) = value else {
                check(&series, &[("nic", &at)], value)?;
                continue;
            };
            let label = if matches!(key.as_str(), "answered" | "spoken") { "by" } else { "reason" };
            let of_nic = |sample: &&Sample| {
                let is = |key, value| sample.labels.iter().any(|(k, v)| k == key && v == value);
                sample.name == series && is("guest", name) && is("nic", at.as_str())
            };
            for sample in metrics.samples().iter().filter(of_nic) {
                let kind = &sample.labels.iter().find(|(key, _)| key == label).ok_or("a kind is missing")?.1;
                // Zeros are left out of the status.
                let expected = kinds.get(kind).cloned().unwrap_or_else(|| 0.into());
                check(&series, &[("nic", &at), (label, kind)], &expected)?;
            }
            let told = metrics.samples().iter().filter(of_nic).map(|sample| sample.value).sum::<f64>();
            let all = kinds.values().filter_map(Value::as_f64).sum::<f64>();
            if told != all {
                return Err(format!("{series} is {told} in all, the status says {all}"));
            }
        }
    }
    Ok(())
}

#[test]
fn a_refusal_says_why_in_a_line_and_as_an_object_and_its_exit_code_says_what_kind() {
    let mut lab = Lab::one_guest();
    let before = bridge_state(&lab.network.hypervisor);
    let deep = lab.daemon.cli(&["sleep", "web1", "--depth", "save"]);
    assert_refused(&deep, 1, "a namespace has no saved state: use depth \"pause\"");
    assert_eq!(deep.errors.matches("web1").count(), 1, "the guest is named once: {deep:?}");
    let object = lab.daemon.cli(&["sleep", "web1", "--depth", "save", "--json"]);
    assert_error(&object, 1, "conflict", "a namespace has no saved state: use depth \"pause\"");
    assert!(!lab.guest().is_frozen());
    let status = lab.daemon.status("web1");
    assert_eq!(status["state"], "awake");
    let why = status["why"].as_str().unwrap();
    assert!(why.contains("a namespace has no saved state") && !why.contains("web1"), "{status}");
    assert_eq!(bridge_state(&lab.network.hypervisor), before);
    assert_eq!(curl(&lab.network.c1, lab.guest().v4).unwrap().body, lab.guest().page());

    for command in ["status", "sleep", "wake"] {
        assert_refused(&lab.daemon.cli(&[command, "nobody"]), 1, "there is no guest \"nobody\"");
        assert_error(&lab.daemon.cli(&[command, "nobody", "--json"]), 1, "not-found", "\"nobody\"");
    }
    assert_refused(&lab.daemon.cli(&["sleep"]), 2, "<NAME>");
    assert_error(&lab.daemon.cli(&["sleep", "--json"]), 2, "bad-request", "<NAME>");
    assert_error(&lab.daemon.cli(&["snooze", "web1", "--json"]), 2, "bad-request", "'snooze'");

    lab.daemon.sleep("web1");
    lab.daemon.stop();
    for command in [&["guests"][..], &["status", "web1"], &["sleep", "web1"], &["wake", "web1"], &["events"]]
    {
        assert_refused(&lab.daemon.cli(command), 3, "is `surrogate run` running");
        let object = lab.daemon.cli(&[command, &["--json"]].concat());
        assert_error(&object, 3, "unavailable", "is `surrogate run` running");
    }
    assert!(lab.guest().is_frozen(), "nobody woke it");
    let text = std::fs::read_to_string(lab.daemon.config()).unwrap();
    std::fs::write(lab.daemon.config(), text.replace("[[guest]]", "[[gest]]")).unwrap();
    assert_refused(&lab.daemon.cli(&["guests"]), 2, "`gest`");
    assert_error(&lab.daemon.cli(&["guests", "--json"]), 2, "bad-request", "`gest`");
    let mut check = Command::new(binary());
    assert_eq!(check.arg("check").arg(lab.daemon.config()).output().unwrap().status.code(), Some(2));
}

/// One line on standard error, nothing on standard output.
#[track_caller]
fn assert_refused(outcome: &Outcome, code: i32, why: &str) {
    assert_eq!(outcome.status.code(), Some(code), "{outcome:?}");
    assert!(outcome.errors.starts_with("surrogate: ") && outcome.errors.contains(why), "{outcome:?}");
    assert!(outcome.errors.lines().count() == 1 && outcome.output.is_empty(), "{outcome:?}");
}

/// The same, and an object on standard output.
#[track_caller]
fn assert_error(outcome: &Outcome, exit: i32, code: &str, why: &str) {
    let told: Value = serde_json::from_str(&outcome.output).unwrap_or_else(|e| panic!("{e}: {outcome:?}"));
    let message = told["error"]["message"].as_str().unwrap_or_default();
    assert_eq!(told, json!({ "error": { "code": code, "message": message } }));
    assert!(message.contains(why) && message.lines().count() == 1, "{outcome:?}");
    assert_eq!(outcome.status.code(), Some(exit), "{outcome:?}");
    assert_eq!(outcome.errors, format!("surrogate: {message}\n"));
}
