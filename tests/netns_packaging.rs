//! What is shipped beside the program: the unit's limits let it work, the configuration is right.

use std::collections::BTreeMap;
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
fn the_unit_gives_up_on_nothing_but_a_wrong_configuration() {
    let unit = std::fs::read_to_string(packaging("surrogate.service")).unwrap();
    let section = |name: &str| {
        let (_, rest) = unit.split_once(&format!("[{name}]\n")).unwrap();
        rest.split("\n[").next().unwrap().lines().collect::<Vec<_>>()
    };
    // Else five ends within ten seconds leave the sleepers without anybody, for good.
    assert!(section("Unit").contains(&"StartLimitIntervalSec=0"), "{unit}");
    let service = section("Service");
    assert!(service.contains(&"Restart=always"), "{unit}");
    let never = service.iter().find_map(|line| line.strip_prefix("RestartPreventExitStatus=")).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "[[guest]]\n").unwrap();
    let run = Command::new(binary()).args(["run", "--config"]).arg(file.path()).output().unwrap();
    assert_eq!(run.status.code().map(|code| code.to_string()).as_deref(), Some(never), "{run:?}");
}

#[test]
fn the_configuration_that_is_shipped_passes_the_check() {
    let output = Command::new(binary()).arg("check").arg(packaging("surrogate.toml")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // And so does the example in it, which is commented out.
    let text = std::fs::read_to_string(packaging("surrogate.toml")).unwrap();
    let example = text.lines().map(|line| {
        let code = line.strip_prefix("# ").unwrap_or(line);
        if code.starts_with('[') || code.split_once('=').is_some_and(|(key, _)| !key.trim().contains(' ')) {
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

#[test]
fn what_the_unit_and_the_shipped_pages_refer_to_is_in_the_package() {
    let shipped = shipped();
    let unit = std::fs::read_to_string(packaging("surrogate.service")).unwrap();
    let page = unit.lines().find_map(|line| line.strip_prefix("Documentation=file://")).unwrap();
    assert!(shipped.contains_key(Path::new(page)), "{page} of the unit: {shipped:?}");
    let mut references = 0;
    for (installed, source) in
        shipped.iter().filter(|(installed, _)| installed.extension() == Some("md".as_ref()))
    {
        let text = std::fs::read_to_string(source).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let meant = installed.parent().unwrap().join(target);
            assert!(shipped.contains_key(&meant), "{target} in {}: {shipped:?}", source.display());
            references += 1;
        }
    }
    assert!(references > 5, "the pages refer to each other: {references}");
}

/// Where the package puts each file of ours, and which file that is.
fn shipped() -> BTreeMap<PathBuf, PathBuf> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("surrogate");
    let manifest = std::fs::read_to_string(package.join("Cargo.toml")).unwrap();
    let (_, assets) = manifest.split_once("\nassets = [\n").unwrap();
    let mut shipped = BTreeMap::new();
    for line in assets.lines().take_while(|line| *line != "]").filter(|line| !line.trim().starts_with('#')) {
        let [source, folder, _mode]: [String; 3] =
            serde_json::from_str(line.trim().trim_end_matches(',')).unwrap();
        let folder = Path::new("/").join(folder);
        let files = match source.strip_suffix("*.md") {
            Some(pages) => std::fs::read_dir(package.join(pages))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension() == Some("md".as_ref()))
                .collect(),
            None => vec![package.join(&source)],
        };
        shipped.extend(files.into_iter().map(|file| (folder.join(file.file_name().unwrap()), file)));
    }
    shipped
}
