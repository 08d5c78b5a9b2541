//! What a guest in a namespace serves: a page, echo over TCP and UDP, ssh. Real programs of Debian's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::daemon::beside;
use crate::deadline::until;
use crate::namespace::{Namespace, must};

/// The page at port 80.
pub fn http(namespace: &Namespace, folder: &Path, page: &str) {
    let root = folder.join("www");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("index.html"), page).unwrap();
    namespace.start(namespace.command("busybox").args(["httpd", "-f", "-p", "[::]:80", "-h"]).arg(&root));
    listening(namespace, 80);
}

/// Echo over TCP and UDP at port 7 (RFC 862).
pub fn echo(namespace: &Namespace) {
    let tcp = "TCP6-LISTEN:7,ipv6only=0,fork,reuseaddr,backlog=256";
    let udp = "UDP6-RECVFROM:7,ipv6only=0,fork";
    for address in [tcp, udp] {
        // socat complains of peers that go; that is theirs to do.
        namespace.start(namespace.command("socat").args([address, "PIPE"]).stderr(Stdio::null()));
    }
    listening(namespace, 7);
}

/// Echo over TCP at port 7 for many connections at once.
pub fn echo_for_many(namespace: &Namespace) {
    namespace.start(namespace.command(beside("lab")).args(["echo", "7"]));
    listening(namespace, 7);
}

/// ssh at port 22 for root with the key `folder`/key, made here.
pub fn ssh(namespace: &Namespace, folder: &Path) {
    let home = folder.join("home");
    fs::create_dir_all(home.join(".ssh")).unwrap();
    must(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join("key")));
    must(Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(folder.join("host")));
    fs::copy(folder.join("key.pub"), home.join(".ssh/authorized_keys")).unwrap();
    for (path, mode) in [("", 0o700), (".ssh", 0o700), (".ssh/authorized_keys", 0o600)] {
        fs::set_permissions(home.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    // dropbear looks for root's keys in root's home and nowhere else: it gets one of its own.
    let script = "mount --make-rprivate / && mount --bind \"$0/home\" /root && \
                  exec dropbear -F -E -s -p 22 -P '' -r \"$0/host\"";
    let log = fs::File::create(folder.join("dropbear.log")).unwrap();
    let mut command = namespace.command("unshare");
    namespace
        .start(command.args(["--mount", "sh", "-c", script]).arg(folder).stdout(Stdio::null()).stderr(log));
    listening(namespace, 22);
}

fn listening(namespace: &Namespace, port: u16) {
    let socket = format!(":{port:04X} ");
    until(&format!("a listener on port {port}"), Duration::from_secs(10), || {
        namespace.enter(|| {
            ["tcp", "tcp6"].iter().any(|kind| {
                let table = fs::read_to_string(format!("/proc/thread-self/net/{kind}")).unwrap_or_default();
                // local address, remote address, state 0A: listening
                table.lines().any(|l| l.contains(&socket) && l.split_whitespace().nth(3) == Some("0A"))
            })
        })
    });
}
