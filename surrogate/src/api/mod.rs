//! The operator API: what the daemon can be asked and what it tells, as types; a server on a Unix
//! socket; the metrics text.
//!
//! Speaks HTTP and JSON outwards and [`messages`] inwards: the server owns no state of a guest, it
//! asks the control side over a channel and waits for the answer. docs/operator-api.md describes the
//! outward side.

pub mod client;
pub mod events;
pub mod messages;
pub mod metrics;
mod routes;
pub mod server;
mod socket;

pub use client::{Client, ClientError};
pub use events::EventLog;
pub use messages::{
    ConnectionStatus, EventRecord, GuestStatus, NicStatus, Refusal, RefusalCode, Released, Request,
    Transition,
};
pub use server::{BindError, Server};
