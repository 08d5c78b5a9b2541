//! The `surrogate` command as a process: exit codes, one-line errors, JSON, and `replay` from file to file.

#![allow(clippy::unwrap_used, reason = "a test that cannot read what it made fails with the place")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::Value;
use surrogate::api::{EventLog, Refusal, RefusalCode, Request, Server, Transition};
use surrogate::io::capture::CaptureReader;
use tempfile::TempDir;

const GUESTS: &str = r#"
[[bridge]]
name = "br0"
[[hypervisor]]
name = "lab"
kind = "libvirt"
[[guest]]
name       = "web1"
hypervisor = "lab"
bridge     = "br0"
mac        = "52:54:00:00:00:11"
addresses  = ["192.0.2.11/24", "2001:db8::11/64"]
"#;

/// A configuration whose socket and state are in a folder of its own.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self { folder };
        let (state, socket) = (place.file("state"), place.file("surrogate.sock"));
        let daemon = format!("[daemon]\nstate_dir = {state:?}\nsocket = {socket:?}\n");
        std::fs::write(place.config(), daemon + GUESTS).unwrap();
        place
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.file("surrogate.toml")
    }

    fn run(&self, line: &str) -> Output {
        surrogate(&format!("{line} --config {}", self.config().display()))
    }
}

fn surrogate(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_surrogate")).args(line.split_whitespace()).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn error_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    text.trim_end().to_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{why}: {output:?}"))
}

fn fixture(name: &str) -> String {
    pcap_fixtures::path(name).display().to_string()
}

#[test]
fn a_good_file_is_ok_and_a_bad_one_says_every_line() {
    let place = Place::new();
    let good = surrogate(&format!("check {}", place.config().display()));
    assert_eq!(code(&good), 0, "{good:?}");
    assert!(String::from_utf8_lossy(&good.stdout).ends_with(": ok: 1 bridge, 1 hypervisor, 1 guest\n"));

    let text = std::fs::read_to_string(place.config()).unwrap();
    let bad = text.replace("192.0.2.11/24", "192.0.2.11").replace("bridge     = \"br0\"", "brigde = \"br0\"");
    std::fs::write(place.config(), bad).unwrap();
    let bad = place.run("check");
    assert_eq!(code(&bad), 2);
    let said = String::from_utf8(bad.stderr).unwrap();
    let place_of_it = format!("surrogate: {}:", place.config().display());
    assert_eq!(said.lines().filter(|line| line.starts_with(&place_of_it)).count(), 2, "{said}");
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.contains("surrogate.toml:13: unknown key `brigde`"), "{said}");
    assert!(said.contains("write it as \"192.0.2.11/24\""), "{said}");
    // Every other command refuses it just the same.
    assert_eq!(code(&place.run("guests")), 2);
    assert_eq!(code(&place.run("run")), 2);
}

#[test]
fn the_examples_in_the_operators_manual_pass_the_check() {
    let manual =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating.md")).unwrap();
    let examples = manual.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let place = Place::new();
    std::fs::write(place.config(), examples.collect::<String>()).unwrap();
    let output = place.run("check");
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with(": ok: 2 bridges, 2 hypervisors, 3 guests\n"));
}

#[test]
fn a_file_that_gives_nothing_to_do_is_ok_and_says_so() {
    let place = Place::new();
    for (text, missing) in
        [("", "no [[bridge]] and no [[guest]]"), ("[[bridge]]\nname = \"br0\"\n", "no [[guest]]")]
    {
        std::fs::write(place.config(), text).unwrap();
        for line in ["check", "check --json"] {
            let output = place.run(line);
            assert_eq!(code(&output), 0, "{output:?}");
            let said = format!("surrogate: {}: {missing}: there is nothing to do", place.config().display());
            assert_eq!(error_line(&output), said);
        }
    }
    assert_eq!(Place::new().run("check").stderr, b"");
}

#[test]
fn wrong_usage_is_2_and_no_daemon_is_3() {
    let place = Place::new();
    for (line, mistake) in [
        ("sleep", "<NAME>"),
        ("sleep web1 --depth deep", "'deep'"),
        ("release", "--all"),
        ("nap web1", "'nap'"),
        ("wake web1 --soon", "'--soon'"),
        ("events --since yesterday", "'yesterday'"),
        ("guests --config /nonexistent.toml", "/nonexistent.toml"),
    ] {
        let output = surrogate(line);
        assert_eq!((code(&output), output.stdout.as_slice()), (2, &b""[..]), "{output:?}");
        let said = error_line(&output);
        assert!(said.starts_with("surrogate: ") && said.contains(mistake), "{said}");
        let output = surrogate(&format!("{line} --json"));
        assert_eq!(code(&output), 2);
        let error = &json(&output)["error"];
        assert_eq!(error["code"], "bad-request", "{line}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(mistake) && error_line(&output) == format!("surrogate: {message}"));
    }
    // Behind `--` it is a guest's name, and one too many.
    assert_eq!(surrogate("wake web1 -- --json").stdout, b"");
    for line in ["--help", "sleep --help", "--version"] {
        let output = surrogate(line);
        assert_eq!((code(&output), output.stderr.as_slice()), (0, &b""[..]), "{line}");
        assert!(!output.stdout.is_empty());
    }
    for line in ["guests", "status web1", "sleep web1", "wake web1", "events"] {
        let output = place.run(line);
        assert_eq!(code(&output), 3, "{line}");
        assert!(error_line(&output).contains("is `surrogate run` running"), "{output:?}");
        let told = json(&place.run(&format!("{line} --json")));
        assert_eq!(told["error"]["code"], "unavailable", "{line}");
    }
}

#[test]
fn release_without_a_daemon_and_without_a_record_has_nothing_to_do() {
    let place = Place::new();
    let output = place.run("release --all");
    assert_eq!((code(&output), output.stdout.as_slice()), (0, &b"nothing to put back\n"[..]), "{output:?}");
    assert_eq!(json(&place.run("release --all --json"))["restored"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemons_answer_and_its_refusal_reach_the_caller() {
    let place = Arc::new(Place::new());
    let server = Server::bind(&place.file("surrogate.sock"), None).await.unwrap();
    let (requests, mut control) = tokio::sync::mpsc::channel(4);
    let events = Arc::new(EventLog::new());
    events.record(Some("web1"), "asleep", "0 frames held");
    let serving = tokio::spawn(server.serve(requests, events, std::future::pending()));
    tokio::spawn(async move {
        while let Some(request) = control.recv().await {
            match request {
                Request::Sleep { name, reply, .. } => {
                    let why = format!("{name} cannot be put to sleep now: a backup runs");
                    drop(reply.send(Err(Refusal::new(RefusalCode::Conflict, why))));
                }
                Request::Wake { name, reply } => drop(reply.send(Ok(Transition {
                    guest: name,
                    state: "awake".to_owned(),
                    took_ms: 120,
                    held: 3,
                    replayed: 3,
                }))),
                other => panic!("not asked here: {other:?}"),
            }
        }
    });
    let ask = |line: &'static str| {
        let place = place.clone();
        tokio::task::spawn_blocking(move || place.run(line))
    };
    let woken = ask("wake web1").await.unwrap();
    assert_eq!(code(&woken), 0);
    let said = String::from_utf8(woken.stdout).unwrap();
    assert_eq!(said, "web1: awake after 120 ms, 3 frames held, 3 replayed\n");
    let refused = ask("sleep web1").await.unwrap();
    assert_eq!(code(&refused), 1);
    assert_eq!(error_line(&refused), "surrogate: web1 cannot be put to sleep now: a backup runs");
    assert_eq!(json(&ask("sleep web1 --json").await.unwrap())["error"]["code"], "conflict");
    let events = ask("events").await.unwrap();
    assert!(String::from_utf8_lossy(&events.stdout).contains("web1          asleep      0 frames held"));
    serving.abort();
}

#[test]
fn a_capture_is_replayed_from_file_to_file() {
    let place = Place::new();
    let replies = place.file("replies.pcapng");
    let line = format!("replay {} --write {} --json", fixture("echo/ping.pcap"), replies.display());
    let output = place.run(&line);
    assert_eq!(code(&output), 0, "{output:?}");
    let told = json(&output);
    assert_eq!((&told["frames"], &told["own"], &told["replies"]), (&8.into(), &4.into(), &4.into()));
    assert_eq!(told["kinds"]["icmpv4-echo-request"]["answer"], 3);
    let mut reader = CaptureReader::open(&replies).unwrap();
    let mut lengths = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        lengths.push(frame.bytes.len());
    }
    assert_eq!(lengths, [60, 60, 98, 1514]);
}

#[test]
fn a_replay_never_writes_over_its_capture() {
    let place = Place::new();
    let whole = std::fs::read(pcap_fixtures::path("echo/ping.pcap")).unwrap();
    let capture = place.file("night.pcap");
    std::fs::write(&capture, &whole).unwrap();
    std::os::unix::fs::symlink(&capture, place.file("symbolic")).unwrap();
    std::fs::hard_link(&capture, place.file("hard")).unwrap();
    for name in ["night.pcap", "./night.pcap", "symbolic", "hard"] {
        let to = place.file(name);
        let output = place.run(&format!("replay {} --write {}", capture.display(), to.display()));
        assert_eq!((code(&output), output.stdout.as_slice()), (2, &b""[..]), "{output:?}");
        assert!(error_line(&output).contains("itself: name another file"), "{output:?}");
        assert_eq!(std::fs::read(&capture).unwrap(), whole, "{name}");
    }
}

#[test]
fn a_replay_replaces_a_file_only_when_all_is_written() {
    let place = Place::new();
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(place.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let (target, link) = (place.file("replies.pcapng"), place.file("link"));
    std::fs::write(&target, "of the night before").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let whole = std::fs::read(pcap_fixtures::path("echo/ping.pcap")).unwrap();
    let cut = place.file("cut.pcap");
    std::fs::write(&cut, &whole[..whole.len() - 5]).unwrap();
    let before = names();
    let output = place.run(&format!("replay {} --write {}", cut.display(), link.display()));
    assert_eq!(code(&output), 1);
    assert!(error_line(&output).ends_with(&format!("; {} is not written", link.display())), "{output:?}");
    assert_eq!((std::fs::read(&target).unwrap().as_slice(), names()), (&b"of the night before"[..], before));

    let before = names();
    let output = place.run(&format!("replay {} --write {}", fixture("echo/ping.pcap"), link.display()));
    assert_eq!((code(&output), names()), (0, before), "nothing is left beside it");
    assert!(link.is_symlink());
    assert!(CaptureReader::open(&target).unwrap().next_frame().unwrap().is_some());
    // What is no file cannot be replaced, and is written to.
    assert_eq!(code(&place.run(&format!("replay {} --write /dev/null", fixture("echo/ping.pcap")))), 0);
}

#[test]
fn replay_says_what_would_have_woken_whom_and_when() {
    let place = Place::new();
    let output = place.run(&format!("replay {} -v", fixture("tcp/http.pcap")));
    assert_eq!(code(&output), 0, "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("web1: answer arp"), "{said}");
    assert!(said.contains("TCP SYN to port 80 from 192.0.2.99"), "{said}");
    assert!(said.contains("web1: hold-and-wake") && said.contains("WAKES web1"), "{said}");
    assert!(
        said.contains("\nassumed: each guest sleeps from the first frame on; once woken it is awake"),
        "{said}"
    );
    assert!(
        said.contains("web1: awake") && said.contains("would have been woken 1 time:"),
        "one page: {said}"
    );

    let text = std::fs::read_to_string(place.config()).unwrap();
    std::fs::write(place.config(), text + "wake = \"never\"\n").unwrap();
    let output = place.run(&format!("replay {}", fixture("tcp/http.pcap")));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("  4 frames worth waking for woke nobody: its policy is wake = \"never\"\n"),
        "{said}"
    );
}

#[test]
fn replay_says_who_is_left_out_for_want_of_a_mac() {
    let place = Place::new();
    let text = std::fs::read_to_string(place.config()).unwrap();
    std::fs::write(
        place.config(),
        text + "[[guest]]\nname = \"web2\"\nhypervisor = \"lab\"\naddresses = [\"192.0.2.12/24\"]\n",
    )
    .unwrap();
    let output = place.run(&format!("replay {}", fixture("echo/ping.pcap")));
    assert_eq!(code(&output), 0, "{output:?}");
    let said = "surrogate: web2: left out, as the configuration does not give its `mac`";
    assert_eq!(error_line(&output), said);
}

#[test]
fn a_damaged_or_foreign_file_is_refused_with_how_far_it_got() {
    let place = Place::new();
    let whole = std::fs::read(pcap_fixtures::path("echo/ping.pcap")).unwrap();
    let cut = place.file("cut.pcap");
    std::fs::write(&cut, &whole[..whole.len() - 5]).unwrap();
    let output = place.run(&format!("replay {}", cut.display()));
    assert_eq!(code(&output), 1);
    assert!(error_line(&output).contains("damaged after 7 frames"), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("7 frames in"), "what was read is shown");
    for (file, said) in [(place.config(), "neither pcap nor pcapng"), (place.file("none"), "cannot read it")]
    {
        let output = place.run(&format!("replay {}", file.display()));
        assert_eq!(code(&output), 1);
        assert!(error_line(&output).contains(said), "{output:?}");
    }
    let output = place.run(&format!("replay {} --guest web9", fixture("echo/ping.pcap")));
    assert_eq!((code(&output), error_line(&output).contains("no guest \"web9\"")), (2, true));
    assert!(!Path::new("replies.pcapng").exists());
}
