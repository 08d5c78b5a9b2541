//! Questions and orders over the daemon's own socket, without a process for each: hundreds of cases ask.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;
use surrogate_house::Daemon;

/// As long as the daemon may take for an order.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the guest is.
#[track_caller]
pub fn status(daemon: &Daemon) -> Value {
    ask(daemon, "GET", "/v1/guests/web1")
}

/// Puts it to sleep; it sleeps on return.
#[track_caller]
pub fn sleep(daemon: &Daemon) {
    ask(daemon, "POST", "/v1/guests/web1/sleep");
}

/// Wakes it; it runs, and has all that was held, on return.
#[track_caller]
pub fn wake(daemon: &Daemon) {
    ask(daemon, "POST", "/v1/guests/web1/wake");
}

#[track_caller]
fn ask(daemon: &Daemon, method: &str, path: &str) -> Value {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: surrogate\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    assert!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {answer}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{method} {path}: {error}: {answer}"))
}
