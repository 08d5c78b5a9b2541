//! A sleeper is found by its names, with the tools that people look for names with, and nobody wakes it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use surrogate_house::capture::{Capture, Frame};
use surrogate_house::clients::curl;
use surrogate_house::lab::{LISTEN, Lab};
use surrogate_house::names::{Avahi, Looker, Page, listen_to_llmnr, llmnr, nbtscan, register_netbios};
use surrogate_house::until;

const PATIENCE: Duration = Duration::from_secs(30);
const GUEST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 101);

/// Whether `frame` is a datagram from the guest at `port` with `part` in it.
fn says(frame: &Frame, port: u16, part: &[u8]) -> bool {
    frame.datagram().is_some_and(|(src_port, _, payload)| {
        src_port == port && payload.windows(part.len()).any(|window| window == part)
    })
}

/// Answers in the guest's name, by protocol.
fn answered(lab: &Lab, by: &str) -> u64 {
    lab.daemon.status("web1")["nics"][0]["counters"]["answered"][by].as_u64().unwrap_or(0)
}

fn assert_undisturbed(lab: &Lab) {
    assert!(lab.guest().is_frozen());
    let status = lab.daemon.status("web1");
    assert_eq!((&status["wakes"], &status["state"]), (&0.into(), &"asleep".into()), "{status}");
    lab.daemon.assert_conserved();
}

#[test]
fn a_guest_that_announced_itself_is_found_by_name_while_it_sleeps() {
    let lab = Lab::one_guest();
    let guest = lab.guest();
    let port = Capture::start(&lab.network.hypervisor, "web1");
    let page = Page { name: "A laser printer", port: 80 };
    let _avahi = Avahi::announcing(&guest.namespace, "printer", Some(page));
    port.wait("its page to be announced", PATIENCE, |frames| {
        frames.iter().any(|frame| says(frame, 5353, b"path=/") && says(frame, 5353, b"\x84\0"))
    });
    lab.daemon.sleep("web1");

    // It heard nothing of what was said before.
    let looker = Looker::new(&lab.network.c1);
    assert_eq!(looker.resolve("-4", "printer.local"), Ok(guest.v4));
    assert_eq!(looker.resolve("-6", "printer.local"), Ok(guest.v6));
    assert_eq!(looker.resolve_address(guest.v4), Ok("printer.local".to_owned()));
    let found = looker.browse("_http._tcp");
    let expected = format!(";local;printer.local;{};80;\"path=/\"", guest.v4);
    assert!(found.lines().any(|line| line.starts_with('=') && line.contains(&expected)), "{found}");
    assert!(looker.browse("-a").contains("_http._tcp"), "the list of types");
    assert!(answered(&lab, "mdns") > 0);

    // Another one that wants the same name has to take another.
    let other = Avahi::announcing(&lab.network.c2, "printer", None);
    until("the newcomer to give way", PATIENCE, || other.log().contains("printer-2.local"));
    assert_undisturbed(&lab);

    // Awake it answers for itself.
    assert_eq!(curl(&lab.network.c1, guest.v4).unwrap().body, guest.page());
    until("the guest to be awake", PATIENCE, || lab.daemon.state("web1") == "awake");
    assert_eq!(Looker::new(&lab.network.c1).resolve("-4", "printer.local"), Ok(guest.v4));
}

#[test]
fn declared_names_are_found_too() {
    let names = "groups = [\"224.0.0.251\", \"224.0.0.252\"]\n\
                 [guest.names]\nhost = \"scanner\"\nnetbios = [\"SCANNER\", \"SCANNER<20>\", \"OFFICE<00> group\"]\n\
                 [[guest.service]]\nname = \"Scans\"\nkind = \"_http._tcp\"\nport = 80\ntxt = [\"path=/scans\"]\n";
    let lab = Lab::with(1, &format!("{LISTEN}\n{names}"), surrogate_house::Config::netns("", ""));
    lab.daemon.sleep("web1");
    let looker = Looker::new(&lab.network.c1);
    assert_eq!(looker.resolve("-4", "scanner.local"), Ok(lab.guest().v4));
    let found = looker.browse("_http._tcp");
    assert!(found.contains(&format!(";scanner.local;{};80;\"path=/scans\"", lab.guest().v4)), "{found}");

    let table = nbtscan(&lab.network.c1, lab.guest().v4);
    for name in ["SCANNER", "OFFICE"] {
        assert!(table.contains(name), "{table}");
    }
    let (who, answer) = llmnr(&lab.network.c1, CLIENT, "scanner", 10).expect("an answer");
    assert_eq!((who, answer[..2].to_vec()), (IpAddr::from(GUEST), vec![0x12, 0x34]));
    assert!(answer.ends_with(&[0, 0, 0, 30, 0, 4, 192, 0, 2, 11]), "{answer:x?}");
    assert_eq!(llmnr(&lab.network.c1, CLIENT, "nobody", 1), None);
    for by in ["mdns", "netbios", "llmnr"] {
        assert!(answered(&lab, by) > 0, "{by}");
    }
    assert_undisturbed(&lab);
}

#[test]
fn a_name_that_the_guest_registered_is_found_while_it_sleeps_whatever_becomes_of_the_daemon() {
    let mut lab = Lab::one_guest();
    let guest = lab.guest();
    let port = Capture::start(&lab.network.hypervisor, "web1");
    listen_to_llmnr(&guest.namespace);
    let _avahi = Avahi::announcing(&guest.namespace, "printer", None);
    register_netbios(&guest.namespace, GUEST, "PRINTER");
    port.wait("both to be said", PATIENCE, |frames| {
        let registered = frames.iter().any(|frame| says(frame, 137, b"CACACACA"));
        registered && frames.iter().any(|frame| says(frame, 5353, b"\x84\0") && says(frame, 5353, b"printer"))
    });
    lab.daemon.sleep("web1");
    let table = nbtscan(&lab.network.c1, guest.v4);
    assert!(table.contains("PRINTER") && table.contains(&guest.mac), "{table}");
    // Its host name in multicast DNS; that it answers in LLMNR at all is known by its group.
    let (who, _) = llmnr(&lab.network.c1, CLIENT, "printer", 10).expect("an answer");
    assert_eq!(who, IpAddr::from(GUEST));
    assert_undisturbed(&lab);

    lab.daemon.kill();
    lab.daemon.launch(&lab.network.hypervisor);
    until("the sleeper to be stood in for", PATIENCE, || lab.daemon.state("web1") == "asleep");
    let table = nbtscan(&lab.network.c1, lab.guest().v4);
    assert!(table.contains("PRINTER"), "{table}");
    assert_eq!(Looker::new(&lab.network.c1).resolve("-4", "printer.local"), Ok(lab.guest().v4));
    assert_undisturbed(&lab);
}
