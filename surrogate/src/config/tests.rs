use super::*;
use crate::policy::custody::CustodyPolicy;
use crate::policy::names::{Names, Service};
use crate::policy::traffic::{ClosedPorts, Flooded, Listen};

const WHOLE: &str = r#"
[daemon]
state_dir = "/var/lib/surrogate"
socket    = "/run/surrogate/surrogate.sock"
metrics   = "127.0.0.1:9180"
port      = "tap"
wake_limit = { burst = 100, per_minute = 600, at_once = 8 }

[[bridge]]
name = "br0"

[[hypervisor]]
name = "local"
kind = "libvirt"
uri  = "qemu:///system"

[[hypervisor]]
name  = "lab"
kind  = "netns"
delay = "2s"

[defaults]
idle_after   = "10m"
min_awake    = "30s"
depth        = "pause"
wake         = "managed"
idle_cpu     = 2
idle_packets = 5
wake_budget  = { burst = 5, per_minute = 10 }
wake_timeout = "30s"
hold         = { frames = 4096, bytes = "4MiB", age = "75s" }
closed_ports = "reset"
flooded      = "hold"
custody      = true
connections  = { limit = 1024, challenges = 100, keep_alive = "never" }

[[guest]]
name       = "web1"
hypervisor = "local"
bridge     = "br0"
mac        = "52:54:00:00:00:11"
addresses  = ["192.0.2.11/24", "2001:db8::11/64"]
groups     = ["239.1.1.1"]
listen     = ["tcp/80", "tcp/22", "udp/7", "tcp/7"]

[[guest]]
name       = "db1"
hypervisor = "lab"
netns      = "db1"
cgroup     = "/sys/fs/cgroup/db1"
idle_after = "never"
depth      = "save"
hold       = { age = "90s" }
[guest.names]
host    = "db1"
netbios = ["DB1", "DB1<20>", "OFFICE<00> group"]
[[guest.service]]
name = "Our database"
kind = "_postgresql._tcp"
port = 5432
txt  = ["role=primary"]
[[guest.nic]]
bridge    = "br0"
port      = "vdb1"
vlan      = 7
mac       = "52:54:00:00:00:12"
addresses = ["192.0.2.11/24"]
[[guest.nic]]
bridge    = "br0"
mac       = "52:54:00:00:00:13"
"#;

#[test]
fn the_whole_contract_is_read() {
    let config = Config::parse(WHOLE).unwrap();
    assert_eq!(config.daemon.socket, Path::new("/run/surrogate/surrogate.sock"));
    assert_eq!(config.daemon.port, Some(PortKindName::Tap));
    assert_eq!(config.daemon.metrics, Some("127.0.0.1:9180".parse().unwrap()));
    assert_eq!(config.hypervisors[1].kind, HypervisorKind::Netns { delay: Duration::from_secs(2) });
    let web1 = config.guest("web1").unwrap();
    assert_eq!(web1.nics.len(), 1);
    assert_eq!(web1.nics[0].addresses.len(), 2);
    assert_eq!(web1.nics[0].groups, ["239.1.1.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(web1.policy.idle_after, Some(Duration::from_secs(600)));
    assert_eq!(web1.policy.traffic.listen, Some(Listen { tcp: vec![7, 22, 80], udp: vec![7] }));
    let db1 = config.guest("db1").unwrap();
    assert_eq!((db1.policy.idle_after, db1.policy.depth), (None, Depth::Save));
    assert_eq!(db1.policy.traffic.hold.age, Duration::from_secs(90));
    assert_eq!(db1.policy.traffic.hold.frames.get(), 4096, "the other limits stay as in [defaults]");
    assert_eq!(db1.nics.len(), 2);
    assert_eq!(db1.nics[0].vlan, Some(7), "web1's address again, in another VLAN: another network");
    assert_eq!(db1.netns.as_deref(), Some("db1"));
    assert_eq!(web1.policy.traffic.names, Names::default());
    let names = &db1.policy.traffic.names;
    assert_eq!(names.host.as_deref(), Some("db1"));
    assert_eq!(
        names.netbios.iter().map(|n| (n.name.0, n.group)).collect::<Vec<_>>(),
        [(*b"DB1            \0", false), (*b"DB1            \x20", false), (*b"OFFICE         \0", true)]
    );
    let kind = "_postgresql._tcp".to_owned();
    let txt = vec!["role=primary".to_owned()];
    assert_eq!(names.services, [Service { name: "Our database".to_owned(), kind, port: 5432, txt }]);
}

#[test]
fn the_defaults_are_those_of_the_example() {
    let text = "[[hypervisor]]\nname='local'\nkind='libvirt'\n[[guest]]\nname='a'\nhypervisor='local'\n\
                addresses=['192.0.2.11/24']\n";
    let config = Config::parse(text).unwrap();
    let example = Config::parse(WHOLE).unwrap();
    let policy = |config: &Config, name| GuestPolicy {
        traffic: TrafficPolicy { listen: None, ..config.guest(name).unwrap().policy.traffic.clone() },
        ..config.guest(name).unwrap().policy.clone()
    };
    assert_eq!(policy(&config, "a"), policy(&example, "web1"));
    assert_eq!(config.daemon.state_dir, example.daemon.state_dir);
    assert_eq!(config.daemon.socket, example.daemon.socket);
    assert_eq!(config.daemon.wake_limit, example.daemon.wake_limit);
    assert_eq!(config.hypervisors[0], example.hypervisors[0]);
    let traffic = &config.guests[0].policy.traffic;
    assert_eq!((traffic.closed_ports, traffic.flooded), (ClosedPorts::Reset, Flooded::Hold));
    assert!(traffic.custody);
    assert_eq!(traffic.connections, CustodyPolicy::default());
    let addresses = config.guests[0].nics[0].addresses.clone();
    assert_eq!(
        config.guests[0].nics,
        [Nic { addresses, ..Nic::default() }],
        "the hypervisor is to tell the rest"
    );
}

#[test]
fn each_part_of_the_hosts_wake_limit_may_be_given_alone() {
    let config = Config::parse("[daemon]\nwake_limit = { at_once = 2 }\n").unwrap();
    let budget = WakeBudget { burst: 100, per_minute: 600 };
    assert_eq!(config.daemon.wake_limit, WakeLimit { budget, at_once: 2 });
    let config = Config::parse("[daemon.wake_limit]\nburst = 3\nper_minute = 1\n").unwrap();
    let budget = WakeBudget { burst: 3, per_minute: 1 };
    assert_eq!(config.daemon.wake_limit, WakeLimit { budget, at_once: 8 });
}

/// The problems of the whole example after `from` was replaced by `to`.
fn wrong(from: &str, to: &str) -> Vec<(usize, String)> {
    assert_eq!(WHOLE.matches(from).count(), 1, "{from:?} stands once");
    match Config::parse(&WHOLE.replace(from, to)) {
        Err(ConfigError::Wrong { problems, .. }) => problems,
        other => panic!("{to:?}: {other:?}"),
    }
}

#[test]
fn what_is_wrong_is_one_line_each_with_what_was_meant() {
    let age = "hold         = { frames = 4096, bytes = \"4MiB\", age = \"75s\" }";
    for (from, to, what) in [
        (
            "min_awake    =",
            "min_awak     =",
            "unknown key `min_awak` in [defaults]: did you mean `min_awake`?",
        ),
        ("[defaults]", "[default]", "unknown key `default` in the file: did you mean `defaults`?"),
        ("groups     =", "cpus       =", "unknown key `cpus` in [[guest]] \"web1\": known are"),
        (
            "burst = 5",
            "bursts = 5",
            "unknown key `bursts` in `wake_budget` of [defaults]: did you mean `burst`?",
        ),
        (
            "at_once = 8",
            "at_onec = 8",
            "unknown key `at_onec` in `wake_limit` of [daemon]: did you mean `at_once`?",
        ),
        ("at_once = 8", "at_once = 0", "wanted a whole number above zero, found 0"),
        ("burst = 100", "burst = -1", "wanted a whole number above zero, found -1"),
        ("per_minute = 600", "per_minute = \"many\"", "wanted a whole number above zero, found"),
        (
            "{ burst = 100, per_minute = 600, at_once = 8 }",
            "600",
            "`wake_limit` in [daemon]: wanted a table, as { ... }, found 600",
        ),
        (
            "name       = \"db1\"",
            "name       = \"web1\"",
            "there are two [[guest]] named \"web1\"; the first is on line 38",
        ),
        ("00:00:00:12", "00:00:00:11", "MAC 52:54:00:00:00:11 is of both \"web1\" and \"db1\""),
        ("00:00:00:12", "00:00:00:13", "MAC 52:54:00:00:00:13 is given twice to \"db1\""),
        ("52:54:00:00:00:11", "53:54:00:00:00:11", "53:54:00:00:00:11 is a group address"),
        ("52:54:00:00:00:11", "52:54:00:11", "\"52:54:00:11\" is no MAC address"),
        (
            "\"192.0.2.11/24\", ",
            "\"192.0.2.11\", ",
            "192.0.2.11 has no prefix length: write it as \"192.0.2.11/24\"",
        ),
        ("\"192.0.2.11/24\", ", "\"192.0.2.0/24\", ", "192.0.2.0/24 is its network's own address"),
        ("\"192.0.2.11/24\", ", "\"192.0.2.255/24\", ", "192.0.2.255/24 is its network's broadcast address"),
        ("vlan      = 7\n", "", "192.0.2.11 is of both \"web1\" and \"db1\""),
        ("\"2001:db8::11/64\"", "\"192.0.2.11/24\"", "192.0.2.11 is given twice to \"web1\""),
        (
            "bridge     = \"br0\"",
            "bridge     = \"br1\"",
            "there is no [[bridge]] named \"br1\": did you mean \"br0\"?",
        ),
        (
            "hypervisor = \"lab\"",
            "hypervisor = \"libvirt\"",
            "there is no [[hypervisor]] named \"libvirt\": there is",
        ),
        ("hypervisor = \"lab\"\n", "", "[[guest]] \"db1\" has no `hypervisor`"),
        (
            "netns      = \"db1\"\n",
            "",
            "[[guest]] \"db1\" has no `netns`, which its hypervisor \"lab\" needs",
        ),
        ("groups     =", "netns      = \"web1\" #", "`netns` is only for a hypervisor of kind = \"netns\""),
        ("kind  = \"netns\"", "kind  = \"wol\"", "wanted \"libvirt\" or \"netns\", found \"wol\""),
        ("uri  = ", "delay = \"1s\" # ", "`delay` is only for kind = \"netns\""),
        ("name = \"br0\"", "name = \"\"", "`name` in [[bridge]]: must not be empty"),
        ("name = \"br0\"", "name = \"bridge with spaces\"", "can be no interface's name"),
        ("name       = \"web1\"", "name       = \"\"", "`name` in [[guest]]: must not be empty"),
        (
            "\"tcp/22\"",
            "\"ssh\"",
            "wanted \"tcp/PORT\" or \"udp/PORT\" with a port from 1 to 65535, found \"ssh\"",
        ),
        (
            "wake_timeout = \"30s\"",
            "wake_timeout = \"80s\"",
            "`hold.age` (75s) is shorter than `wake_timeout` (80s)",
        ),
        (
            age,
            "hold = { age = \"29s\" }",
            "[defaults]: `hold.age` (29s) is shorter than `wake_timeout` (30s)",
        ),
        ("{ age = \"90s\" }", "{ age = \"9s\" }", "[[guest]] \"db1\": `hold.age` (9s) is shorter"),
        ("idle_after   = \"10m\"", "idle_after   = 10", "wanted a duration with its unit"),
        (
            "idle_after   = \"10m\"",
            "idle_after   = \"0s\"",
            "must be longer than zero, or \"never\"; found \"0s\"",
        ),
        ("frames = 4096", "frames = \"4KiB\"", "wanted a whole number above zero, found \"4KiB\""),
        (
            "frames = 4096",
            "frames = 0",
            "`frames` in `hold` of [defaults]: wanted a whole number above zero, found 0",
        ),
        (
            "frames = 4096",
            "frames = 4294967296",
            "wanted a whole number, at most 4294967295, found 4294967296",
        ),
        ("bytes = \"4MiB\"", "bytes = \"0KiB\"", "must be more than no bytes, found \"0KiB\""),
        ("bytes = \"4MiB\"", "bytes = \"4MB\"", "wanted a size, as \"64KiB\", \"4MiB\""),
        ("custody      = true", "custody      = \"no\"", "wanted true or false, found \"no\""),
        (
            "keep_alive = \"never\"",
            "keep_alive = \"5ms\"",
            "must be at least \"1s\", or \"never\"; found \"5ms\"",
        ),
        ("limit = 1024", "limit = 70000", "must be at most 65536, found 70000"),
        ("challenges = 100", "challenges = 0", "wanted a whole number above zero, found 0"),
        ("burst = 5", "burst = 0", "wanted a whole number above zero, found 0"),
        ("idle_cpu     = 2", "idle_cpu     = -1", "wanted a number, zero or above, found -1"),
        ("vlan      = 7", "vlan      = 4095", "wanted a VLAN from 1 to 4094, found 4095"),
        ("depth      = \"save\"", "depth      = \"deep\"", "wanted \"pause\" or \"save\", found \"deep\""),
        ("\"239.1.1.1\"", "\"192.0.2.1\"", "wanted a multicast address"),
        ("[[bridge]]", "[bridge]", "each bridge stands in double brackets, as [[bridge]]; found single ones"),
        ("[defaults]", "[[defaults]]", "[defaults] stands once, in single brackets; found [[defaults]]"),
        (
            "groups     = [\"239.1.1.1\"]",
            "groups     = \"239.1.1.1\"",
            "wanted a list, as [\"...\", \"...\"], found \"239.1.1.1\"",
        ),
        (
            "depth        =",
            "wake_budget  = {}\ndepth        =",
            "`wake_budget` stands twice in the same table",
        ),
        ("depth      = \"save\"", "bridge     = \"br0\"", "`bridge` stands beside [[guest.nic]]"),
        (
            "host    = \"db1\"",
            "hots    = \"db1\"",
            "unknown key `hots` in `names` of [[guest]] \"db1\": did you mean",
        ),
        ("host    = \"db1\"\n", "", "[[guest]] \"db1\": a service is at a host: give its name"),
        ("host    = \"db1\"", "host = \"db1.local\"", "wanted the first part of the name alone, as \"db1\""),
        ("\"OFFICE<00> group\"", "\"OFFICE<0>\"", "`netbios` in `names` of [[guest]] \"db1\": wanted a name"),
        ("\"_postgresql._tcp\"", "\"postgresql\"", "`kind` in [[guest.service]]: wanted \"_NAME._tcp\""),
        ("port = 5432", "port = 0", "`port` in [[guest.service]]: wanted a port from 1 to 65535, found 0"),
        ("port = 5432\n", "", "[[guest.service]] has no `port`"),
        ("\"role=primary\"", "\"=primary\"", "`txt` in [[guest.service]]: \"=primary\" has no key"),
        (
            "[[guest.service]]",
            "[guest.service]",
            "each service stands in double brackets, as [[guest.service]]",
        ),
        ("[guest.names]", "[[guest.names]]", "`names` in [[guest]] \"db1\": wanted a table"),
        ("metrics   = \"127.0.0.1:9180\"", "metrics = 9180", "wanted text in quotes, found 9180"),
        ("[[bridge]]\n", "[[bridge]\n", "not TOML: "),
    ] {
        let found = wrong(from, to);
        assert!(found.iter().any(|(_, line)| line.contains(what)), "{to}: wanted {what:?} in {found:#?}");
        assert!(found.iter().all(|(_, line)| !line.contains('\n')), "one line each: {found:?}");
    }
}

#[test]
fn a_single_mistake_is_a_single_problem_at_its_line() {
    let line = |needle: &str| 1 + WHOLE.lines().position(|line| line.contains(needle)).unwrap();
    for (from, to) in [
        ("min_awake    =", "min_awak     ="),
        ("192.0.2.11/24\", \"2001", "192.0.2.11\", \"2001"),
        ("{ age = \"90s\" }", "{ age = \"9s\" }"),
        ("wake         = \"managed\"", "wake         = \"managd\""),
        ("bridge     = \"br0\"", "bridge     = \"br1\""),
        ("kind  = \"netns\"", "kind  = 7"),
        ("name  = \"lab\"", "name  = 7"),
        ("name = \"br0\"", "name = 7"),
        ("[[bridge]]", "[bridge]"),
        ("addresses  = [\"192.0.2.11/24\", \"2001:db8::11/64\"]", "adresses   = []"),
        ("addresses  = [\"192.0.2.11/24\", \"2001:db8::11/64\"]", "addresses  = \"192.0.2.11/24\""),
    ] {
        let found = wrong(from, to);
        assert_eq!(found.first().unwrap().0, line(from), "{from}: {found:?}");
        assert_eq!(found.len(), 1, "{to}: {found:?}");
    }
}

#[test]
fn what_stands_twice_names_the_first_place_too() {
    let line = |needle: &str| 1 + WHOLE.lines().position(|line| line.contains(needle)).unwrap();
    for (from, to, first, second) in [
        ("name  = \"lab\"", "name  = \"local\"", "name = \"local\"", "name  = \"lab\""),
        ("name       = \"db1\"", "name       = \"web1\"", "name       = \"web1\"", "name       = \"db1\""),
        ("00:00:00:12", "00:00:00:11", "00:00:00:11", "00:00:00:12"),
        ("00:00:00:13", "00:00:00:12", "00:00:00:12", "00:00:00:13"),
        ("vlan      = 7", "# vlan    = 7", "addresses  = [", "addresses = ["),
    ] {
        let found = wrong(from, to);
        let (at, what) = found.iter().find(|(_, what)| what.contains("; the first is on line")).unwrap();
        let ending = format!("; the first is on line {}", line(first));
        assert!(*at == line(second) && what.ends_with(&ending), "{to}: wanted {ending:?} in {found:?}");
    }
}

#[test]
fn a_libvirt_guest_must_give_the_addresses_of_each_nic_and_one_in_a_namespace_need_not() {
    let given = "addresses  = [\"192.0.2.11/24\", \"2001:db8::11/64\"]";
    let missing =
        "gives no `addresses`, and libvirt tells none: write all that the guest has, as addresses = [";
    for to in ["", "addresses = []"] {
        let found = wrong(given, to);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].1.starts_with(&format!("[[guest]] \"web1\" {missing}")), "{found:?}");
        assert_eq!(found[0].0, 37, "where the guest begins");
    }
    // Nothing but its name is given; and one of its two NICs is forgotten. In a namespace both are found.
    let (kind, nics) = (
        "[[hypervisor]]\nname = \"h\"\nkind = \"libvirt\"\n[[guest]]\nname = \"a\"\nhypervisor = \"h\"\n",
        "[[guest.nic]]\nvlan = 7\naddresses = [\"192.0.2.11/24\"]\n[[guest.nic]]\nvlan = 8\n",
    );
    for (nics, place) in [("", "[[guest]] \"a\" gives"), (nics, "a [[guest.nic]] of [[guest]] \"a\" gives")] {
        let error = Config::parse(&format!("{kind}{nics}")).unwrap_err().to_string();
        let line = if nics.is_empty() { 4 } else { 10 };
        assert!(error.starts_with(&format!("line {line}: {place}")) && error.lines().count() == 1, "{error}");
        let netns = kind.replace("libvirt", "netns") + "netns = \"a\"\n" + nics;
        Config::parse(&netns).unwrap();
    }
}

#[test]
fn a_guest_has_only_as_many_names_as_find_room() {
    let service = |name: &str, txt: &str| {
        format!("[[guest.service]]\nname = \"{name}\"\nkind = \"_http._tcp\"\nport = 80\ntxt = [{txt}]\n")
    };
    let guest = "[[hypervisor]]\nname = \"h\"\nkind = \"netns\"\n[[guest]]\nname = \"a\"\nhypervisor = \"h\"\n\
                 netns = \"a\"\n";
    let problem = |names: &str, services: &[String]| {
        let text = format!("{guest}[guest.names]\nhost = \"a\"\n{names}\n{}", services.concat());
        Config::parse(&text).map(drop).map_err(|error| error.to_string())
    };
    let services: Vec<String> = (0..13).map(|n| service(&n.to_string(), "")).collect();
    assert_eq!(problem("", &services[..12]), Ok(()));
    let error = problem("", &services).unwrap_err();
    assert!(error.contains("[[guest]] \"a\": 13 [[guest.service]], at most 12"), "{error}");
    let netbios = format!("netbios = [{}]", "\"A\", ".repeat(17));
    let error = problem(&netbios, &[]).unwrap_err();
    assert!(error.contains("17 `netbios` names, at most 16"), "{error}");
    let error = problem("", &[service("x", &format!("\"{}\", ", "t".repeat(249)).repeat(5))]).unwrap_err();
    assert!(error.contains("`txt` has 1250 bytes in all, at most 1000"), "{error}");
    let error = problem("", &[service("x", ""), service("x", "")]).unwrap_err();
    assert!(error.contains("has two services \"x\" of kind _http._tcp; the first is on line"), "{error}");
}

#[test]
fn everything_wrong_is_said_at_once_in_order_of_the_file() {
    let text = WHOLE
        .replace("min_awake    =", "min_awak     =")
        .replace("52:54:00:00:00:13", "52:54:00:00:00:11")
        .replace("port      = \"tap\"", "port      = \"tun\"");
    let Err(error @ ConfigError::Wrong { .. }) = Config::parse(&text) else { panic!() };
    let lines: Vec<usize> = error
        .to_string()
        .lines()
        .map(|line| line.strip_prefix("line ").unwrap().split(':').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(lines.len(), 3, "{error}");
    assert!(lines.is_sorted(), "{error}");
}

#[test]
fn a_file_error_names_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("surrogate.toml");
    let error = Config::load(&path).unwrap_err();
    assert!(error.to_string().starts_with("cannot read "), "{error}");
    std::fs::write(&path, "[daemon]\nsokcet = \"/tmp/x\"\n").unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    let wanted = format!("{}:2: unknown key `sokcet` in [daemon]: did you mean `socket`?", path.display());
    assert_eq!(error, wanted);
}
