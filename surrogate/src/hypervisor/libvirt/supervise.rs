//! The thread that keeps one connection for events, and makes a new one whenever it ends.
//!
//! It makes no calls beside: whatever hangs in a call, a connection that is lost is noticed (by end of
//! file, or by keep-alive) and made again.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use virt::sys;

use super::Shared;
use super::connection::Connection;
use crate::hypervisor::HypervisorEvent;

/// What the thread waits for.
pub(super) enum Notice {
    /// Something happened to this guest.
    Lifecycle(String),
    /// The connection of that number ended by itself.
    Closed { connection: u64, why: &'static str },
    /// The daemon is done with this hypervisor.
    Stop,
}

/// Connects and reconnects until it is told to stop.
pub(super) fn run(shared: &Arc<Shared>, notices: &Receiver<Notice>, sender: &Sender<Notice>) {
    let mut wait = FIRST_WAIT;
    let mut told = false;
    for number in 0.. {
        match connect(shared, sender, number) {
            Ok(connection) => {
                (wait, told) = (FIRST_WAIT, true);
                shared.pool.set_up();
                tell(shared, HypervisorEvent::Connected);
                let Some(why) = follow(shared, notices, number) else { break };
                shared.pool.set_down(why);
                tell(shared, HypervisorEvent::Disconnected { why: why.to_owned() });
                drop(connection);
            }
            Err(why) => {
                shared.pool.set_down(&why);
                if !std::mem::replace(&mut told, true) {
                    tell(shared, HypervisorEvent::Disconnected { why });
                }
                if rest(notices, wait) {
                    break;
                }
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
    shared.pool.set_down("the daemon is stopping");
}

fn connect(shared: &Arc<Shared>, sender: &Sender<Notice>, number: u64) -> Result<Connection, String> {
    let mut connection = Connection::open(&shared.uri)?;
    let (stops, to_thread) = (Arc::clone(&shared.stops), sender.clone());
    let on_lifecycle = move |guest: String, event: i32| {
        let event = event.cast_unsigned();
        if matches!(event, sys::VIR_DOMAIN_EVENT_SUSPENDED | sys::VIR_DOMAIN_EVENT_STOPPED) {
            stops.add(&guest);
        }
        // The thread has gone: so will this connection.
        let _ = to_thread.send(Notice::Lifecycle(guest));
    };
    let to_thread = sender.clone();
    let on_close = move |reason: i32| {
        let _ = to_thread.send(Notice::Closed { connection: number, why: close_reason(reason) });
    };
    connection.subscribe(Box::new(on_lifecycle), Box::new(on_close))?;
    Ok(connection)
}

/// Passes events on until connection `number` ends, and says why; `None` if told to stop.
fn follow(shared: &Arc<Shared>, notices: &Receiver<Notice>, number: u64) -> Option<&'static str> {
    loop {
        match notices.recv() {
            Ok(Notice::Lifecycle(guest)) => shared.asker.ask_about(guest),
            Ok(Notice::Closed { connection, why }) if connection == number => return Some(why),
            Ok(Notice::Closed { .. }) => {}
            Ok(Notice::Stop) | Err(_) => return None,
        }
    }
}

/// Waits before the next attempt; `true` if told to stop.
fn rest(notices: &Receiver<Notice>, wait: Duration) -> bool {
    loop {
        match notices.recv_timeout(wait) {
            Ok(Notice::Stop) | Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
            // Left over from the last connection.
            Ok(Notice::Lifecycle(_) | Notice::Closed { .. }) => {}
        }
    }
}

fn tell(shared: &Shared, event: HypervisorEvent) {
    // Nobody listens any more once the daemon is stopping.
    let _ = shared.events.send(event);
}

const fn close_reason(reason: i32) -> &'static str {
    match reason.cast_unsigned() {
        sys::VIR_CONNECT_CLOSE_REASON_EOF => "libvirtd closed the connection (stopped or restarted)",
        sys::VIR_CONNECT_CLOSE_REASON_KEEPALIVE => "libvirtd did not answer keep-alive messages",
        sys::VIR_CONNECT_CLOSE_REASON_CLIENT => "closed by us",
        _ => "the connection failed",
    }
}

/// How long until the next attempt, at first and at most: a restarted libvirtd is back in half a second,
/// one that is not running may stay away for days.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
