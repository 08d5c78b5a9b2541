//! Many TCP connections to echo servers, kept alive by the client's own kernel.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::namespace::Namespace;
use crate::sys;

/// See the [module](self).
#[derive(Debug)]
pub struct Connections(Vec<TcpStream>);

impl Connections {
    /// One connection from `from` to each of `to`, whose kernel asks every second of silence whether the peer is
    /// there, and gives up after five unanswered questions.
    ///
    /// # Panics
    /// If one cannot be had.
    #[must_use]
    #[track_caller]
    pub fn open(from: &Namespace, to: &[SocketAddr]) -> Self {
        let open = |address: &SocketAddr| {
            let stream = TcpStream::connect_timeout(address, PATIENCE)
                .unwrap_or_else(|error| panic!("{address}: {error}"));
            sys::keep_alive(stream.as_raw_fd(), 1, 5).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        };
        Self(from.enter(|| to.iter().map(open).collect()))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Those that have ended or failed, with how. Takes nothing that has come.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let broken = |stream: &TcpStream| {
            stream.set_nonblocking(true).unwrap();
            let seen = stream.peek(&mut [0]);
            stream.set_nonblocking(false).unwrap();
            match seen {
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                Ok(1) => None,
                seen => Some(format!("{stream:?}: {seen:?}")),
            }
        };
        self.0.iter().filter_map(broken).collect()
    }

    /// Says `word` on all of them at once and hears each echo.
    ///
    /// # Panics
    /// If an echo does not come, or is another word.
    #[track_caller]
    pub fn say(&mut self, word: &str) {
        for stream in &mut self.0 {
            stream.write_all(word.as_bytes()).unwrap_or_else(|error| panic!("{stream:?}: {error}"));
        }
        for stream in &mut self.0 {
            let mut echo = vec![0; word.len()];
            stream.read_exact(&mut echo).unwrap_or_else(|error| panic!("{stream:?}: {error}"));
            assert_eq!(String::from_utf8_lossy(&echo), word, "{stream:?}");
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(60);
