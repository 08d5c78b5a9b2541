//! What Debian's own kernel can do and the test machine's perhaps cannot, VLAN-aware bridges first, tried
//! inside a virtual machine; on the way, that steering manages with a kernel as old as Linux 6.1.

use std::path::PathBuf;
use std::process::Command;

use surrogate_house::daemon::{binary, scripts};

#[test]
fn steering_works_on_debians_kernel_and_on_vlan_aware_bridges() {
    let tests = ["vlans", "entries::a_spoofed", "floods::flags", "floods::source", "floods::a_snooping"];
    let text = on_debian_kernel(&[], "steering", &tests);
    assert!(text.contains("test vlans::a_guest_in_a_vlan_is_steered_tagged_and_released_untagged ... ok"));
}

#[test]
fn a_daemon_on_debians_kernel_stands_in_within_a_vlan_of_a_vlan_aware_bridge() {
    let text = on_debian_kernel(&[binary()], "netns_vlan", &[]);
    assert!(text.contains("test a_guest_in_a_vlan_is_stood_in_for_there_and_nowhere_else ... ok"));
}

/// Runs `tests` of the test binary `name` in the virtual machine, where `programs` are at hand, too; what it
/// wrote. They must all have passed, and none have been skipped.
#[track_caller]
fn on_debian_kernel(programs: &[PathBuf], name: &str, tests: &[&str]) -> String {
    let mut command = Command::new(scripts().join("on-debian-kernel"));
    for program in programs {
        command.arg("--with").arg(program);
    }
    let output = command.arg(built(name)).arg("--test-threads=1").arg("--show-output").args(tests).output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", output.status);
    assert!(!text.contains("skipped"), "this kernel has what it takes");
    text
}

/// The test binary `name`, built as it is now.
fn built(name: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "test",
        "--locked",
        "--workspace", // as it was built already, with the same features
        "--test",
        name,
        "--no-run",
        "--message-format=json",
    ]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let built = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find(|message| message["target"]["name"] == name && message["executable"].is_string());
    built.expect("cargo names the binary")["executable"].as_str().unwrap().into()
}
