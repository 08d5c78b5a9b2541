//! What is shipped beside the program: the unit's limits let it work, the configuration is right.

use std::path::{Path, PathBuf};
use std::process::Command;

use surrogate_house::clients::curl;
use surrogate_house::daemon::binary;
use surrogate_house::lab::LISTEN;
use surrogate_house::{Config, Daemon, NetnsGuest, Network};

fn packaging(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(file)
}

#[test]
fn the_capabilities_of_the_unit_are_enough_for_a_whole_cycle() {
    let unit = std::fs::read_to_string(packaging("surrogate.service")).unwrap();
    let set = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let kept: Vec<_> = set
        .split(' ')
        .map(|name| format!("+{}", name.strip_prefix("CAP_").unwrap().to_lowercase()))
        .collect();
    let network = Network::new();
    let guest = NetnsGuest::new(&network, 1);
    let mut daemon = Daemon::prepare(&Config::netns("", "").with(&guest.section(LISTEN)));
    let limit = format!("-all,{}", kept.join(","));
    daemon.launch_under(
        &network.hypervisor,
        &["setpriv", "--no-new-privs", "--bounding-set", &limit, "--inh-caps", "-all"],
    );
    daemon.sleep("web1");
    assert!(guest.is_frozen());
    assert_eq!(curl(&network.c1, guest.v4).unwrap().body, guest.page());
    daemon.stop();
}

#[test]
fn the_configuration_that_is_shipped_passes_the_check() {
    let output = Command::new(binary()).arg("check").arg(packaging("surrogate.toml")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // And so does the example in it, which is commented out.
    let text = std::fs::read_to_string(packaging("surrogate.toml")).unwrap();
    let example = text.lines().map(|line| {
        let code = line.strip_prefix("# ").unwrap_or(line);
        if code.starts_with("[[guest]]")
            || code.split_once('=').is_some_and(|(key, _)| !key.trim().contains(' '))
        {
            code
        } else {
            line
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("surrogate.toml");
    std::fs::write(&file, example.collect::<Vec<_>>().join("\n")).unwrap();
    let output = Command::new(binary()).arg("check").arg(&file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let shown = Command::new(binary()).args(["guests", "--config"]).arg(&file).output().unwrap();
    assert_eq!(shown.status.code(), Some(3), "no daemon answers: {shown:?}");
}
