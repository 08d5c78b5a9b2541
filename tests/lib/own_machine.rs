//! What a lab must leave alone: the machine's own network namespace and services.

use std::process::Command;

use crate::namespace::must;

/// Listening sockets, interfaces with their addresses, forwarding entries, routes, and the services of
/// packages that set-up installs, all in the machine's own network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    facts: Vec<Vec<String>>,
    services: Vec<String>,
}

impl Machine {
    /// As it is now.
    #[must_use]
    pub fn now() -> Self {
        let questions: [(&str, &[&str]); 5] = [
            ("ss", &["-Hlntup"]),
            ("ip", &["-brief", "link"]),
            ("ip", &["-brief", "address"]),
            ("ip", &["route", "show", "table", "all"]),
            ("bridge", &["fdb"]),
        ];
        let facts = questions.map(|(program, arguments)| {
            let text = must(Command::new(program).args(arguments));
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        });
        Self { facts: facts.into(), services: services() }
    }
}

fn services() -> Vec<String> {
    let names = ["libvirtd", "virtlogd", "dnsmasq", "dropbear", "nginx", "sshd", "qemu"];
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let process = entry.path();
        if std::fs::read_link(process.join("ns/net")).ok().as_ref() == Some(&own) {
            let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
            found.extend(names.iter().filter(|n| name.starts_with(**n)).map(|n| (*n).to_owned()));
        }
    }
    found.sort();
    found
}
