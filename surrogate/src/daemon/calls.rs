//! Hypervisor calls, each on a thread of its own.
//!
//! A call can block for as long as it likes (a dead store does that to a suspend). So none runs on the
//! runtime, none waits for another, and nobody waits for its thread when the daemon stops. Deadlines
//! are the lifecycle's: what comes after one is a late message.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::messages::Message;
use crate::hypervisor::Hypervisor;

/// Runs `call` on a new thread and sends what it makes of its result. Says whether there was a thread for it: if
/// not, nothing is sent.
pub(super) fn call(
    hypervisor: &Arc<dyn Hypervisor>,
    to: &UnboundedSender<Message>,
    name: &str,
    call: impl FnOnce(&dyn Hypervisor) -> Message + Send + 'static,
) -> bool {
    let (hypervisor, answer) = (Arc::clone(hypervisor), to.clone());
    let spawned = std::thread::Builder::new().name(format!("hv {name}")).spawn(move || {
        // The receiver is gone only when the daemon stops.
        let _ = answer.send(call(hypervisor.as_ref()));
    });
    if let Err(why) = &spawned {
        // Out of threads: for an order, the lifecycle's deadline turns this into a failed call.
        tracing::error!(%why, name, "cannot start a thread for a hypervisor call");
    }
    spawned.is_ok()
}
