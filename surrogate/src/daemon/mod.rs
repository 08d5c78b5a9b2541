//! The control side: follows the guests, performs their lifecycles' orders, serves the operator.
//!
//! One task owns every guest's state ([`control::Control`]) and takes messages; everything that waits
//! (netlink, hypervisor calls, the journal) is done elsewhere and comes back as a message. No frame
//! passes here: packet threads (`io::driver`) and this task speak by commands and notices only.
//!
//! - [`start`]: what must be there before anything is promised; bridges, hypervisors, the journal
//! - [`control`]: the loop and what each message means
//! - [`hypervisors`], [`bridges`]: what comes from either, and what is known then
//! - [`guest`]: what is kept of one guest
//! - [`orders`]: how each order of a lifecycle is performed
//! - [`ports`]: whether a guest's ports let us stand in for it
//! - [`calls`]: hypervisor calls, each on a thread of its own
//! - [`reports`]: lifecycle reports as events, and answers to those who wait for a command
//! - [`commands`]: what operators ask
//! - [`idle`]: readings for the idleness rule

mod bridges;
mod calls;
mod commands;
mod control;
mod guest;
mod hypervisors;
mod idle;
mod messages;
mod orders;
mod ports;
mod reports;
mod start;

pub use start::{DaemonError, run};
