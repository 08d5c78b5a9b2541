//! An echo server (RFC 862) in one process, a thread for each connection: socat would take a process for each,
//! and a lab with a thousand connections as many.

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, TcpListener};

/// Serves for ever on `port`, both families.
///
/// # Errors
/// The port cannot be had, or no thread.
pub fn serve(port: u16) -> io::Result<()> {
    for peer in TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?.incoming() {
        let Ok(mut peer) = peer else { continue };
        std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
            let mut buffer = [0; 4096];
            // A peer that goes is no fault of ours.
            while let Ok(length @ 1..) = peer.read(&mut buffer) {
                if peer.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
        })?;
    }
    Ok(())
}
