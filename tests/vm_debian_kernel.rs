//! What Debian's own kernel can do and the test machine's perhaps cannot, VLAN-aware bridges first, tried
//! inside a virtual machine; on the way, that steering manages with a kernel as old as Linux 6.1.

use std::path::PathBuf;
use std::process::Command;

use surrogate_house::daemon::scripts;

#[test]
fn steering_works_on_debians_kernel_and_on_vlan_aware_bridges() {
    let tests = ["vlans", "entries::a_spoofed", "floods::flags", "floods::source", "floods::a_snooping"];
    let mut command = Command::new(scripts().join("on-debian-kernel"));
    let output =
        command.arg(steering_tests()).arg("--test-threads=1").arg("--show-output").args(tests).output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", output.status);
    assert!(text.contains("test vlans::a_guest_in_a_vlan_is_steered_tagged_and_released_untagged ... ok"));
    assert!(!text.contains("skipped"), "this kernel has what it takes");
}

/// The test binary `steering`, built as it is now.
fn steering_tests() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "test",
        "--locked",
        "--workspace", // as it was built already, with the same features
        "--test",
        "steering",
        "--no-run",
        "--message-format=json",
    ]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let built = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find(|message| message["target"]["name"] == "steering" && message["executable"].is_string());
    built.expect("cargo names the binary")["executable"].as_str().unwrap().into()
}
