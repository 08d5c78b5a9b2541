//! The vocabulary of handling plans: what a conditional handler may look at and what it may do.
//!
//! A guest that goes to sleep while it waits for a response leaves a plan behind: ordered handlers,
//! each a condition and actions, first match wins. Here are the words that plans are made of, pure
//! values with one spelling each, so that configuration, interface and log agree. Beside them, [`http`] says
//! where responses are in a stream of bytes. No I/O, no clock.

#![forbid(unsafe_code)]

pub mod action;
pub mod event;
pub mod http;
pub mod status;
mod word;

pub use action::Action;
pub use event::Event;
pub use status::StatusClass;
pub use word::UnknownWord;
