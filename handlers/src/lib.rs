//! The vocabulary of handling plans: what a conditional handler may look at and what it may do.
//!
//! A guest that goes to sleep while it waits for a response leaves a plan behind: ordered handlers,
//! each a condition and actions, first match wins. Here are the words that plans are made of, pure
//! values with one spelling each, so that configuration, interface and log agree; the plan itself, read
//! from TOML or JSON; and its evaluation, a state machine that is told what happened and when. Beside them,
//! [`http`] says where responses are in a stream of bytes. No I/O, no clock.

#![forbid(unsafe_code)]

pub mod action;
pub mod chain;
pub mod condition;
pub mod event;
pub mod group;
pub mod http;
pub mod plan;
pub mod pointer;
pub mod status;
pub mod step;
mod word;

pub use action::Action;
pub use chain::Chain;
pub use event::Event;
pub use plan::Plan;
pub use status::StatusClass;
pub use word::UnknownWord;
