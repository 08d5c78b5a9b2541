//! Sessions that a person opens to a sleeper: the SYN wakes it, and all of the session is between him and the guest.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use surrogate_house::clients::Ssh;
use surrogate_house::namespace::scratch;
use surrogate_house::{Lab, Namespace, until};

const PATIENCE: Duration = Duration::from_secs(30);
/// What a telnet server says first: it asks for no go-aheads and offers to echo (RFC 854, 857, 858).
const SERVER: &str = "#!/bin/sh\n\
    printf '\\377\\375\\003\\377\\373\\001web1 login: '\n\
    read name\n\
    printf 'welcome\\r\\n'\n\
    exec cat > /dev/null\n";

#[test]
fn ssh_and_telnet_wake_on_the_syn_and_the_session_reaches_the_guest_whole() {
    let lab = Lab::new(1, "", "listen = [\"tcp/22\", \"tcp/23\"]");
    let guest = lab.guest();
    let folder = scratch("telnet");
    let script = folder.path().join("server");
    std::fs::write(&script, SERVER).unwrap();
    let run = format!("EXEC:sh {}", script.display());
    guest
        .namespace
        .start(guest.namespace.command("socat").args(["TCP6-LISTEN:23,ipv6only=0,fork,reuseaddr", &run]));
    until("a listener on port 23", PATIENCE, || {
        guest.namespace.run("ss", &["-Hltn", "sport = :23"]).contains(":23")
    });
    for (wakes, address) in [(1, guest.v4), (2, guest.v6)] {
        lab.daemon.sleep("web1");
        let mut telnet = Telnet::open(&lab.network.c1, &address.to_string());
        telnet.expect("web1 login: ");
        telnet.say("operator");
        telnet.expect("welcome");
        until("the guest to be awake", PATIENCE, || lab.daemon.state("web1") == "awake");
        assert_eq!(lab.daemon.status("web1")["wakes"], 2 * wakes - 1);
        drop(telnet);

        lab.daemon.sleep("web1");
        let mut ssh = Ssh::open(&lab.network.c1, address, &guest.ssh_key());
        ssh.say("over ssh", PATIENCE).unwrap();
        until("the guest to be awake", PATIENCE, || lab.daemon.state("web1") == "awake");
        assert_eq!(lab.daemon.status("web1")["wakes"], 2 * wakes);
        drop(ssh);
    }
    lab.daemon.assert_conserved();
}

/// A person at a telnet client.
struct Telnet {
    child: Child,
    input: ChildStdin,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Telnet {
    fn open(from: &Namespace, address: &str) -> Self {
        let mut command = from.command("busybox");
        command.args(["telnet", address, "23"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut buffer = [0; 256];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                shared.lock().unwrap().extend(&buffer[..length]);
            }
        });
        Self { child, input, seen }
    }

    #[track_caller]
    fn expect(&self, text: &str) {
        until(text, PATIENCE, || String::from_utf8_lossy(&self.seen.lock().unwrap()).contains(text));
    }

    fn say(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

impl Drop for Telnet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
