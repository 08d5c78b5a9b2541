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
//! - [`observe`]: which guests are observed at their own ports, and how closely
//! - [`ports`]: whether a guest's ports let us stand in for it
//! - [`calls`]: hypervisor calls, each on a thread of its own
//! - [`reports`]: lifecycle reports as events, and answers to those who wait for a command
//! - [`commands`]: what operators ask
//! - [`idle`]: readings for the idleness rule
//! - [`known`]: what was learned of a guest, over a restart

mod bridges;
mod calls;
mod commands;
mod control;
mod guest;
mod hypervisors;
mod idle;
mod known;
mod messages;
mod observe;
mod orders;
mod ports;
mod reports;
mod said;
mod start;

pub use start::{DaemonError, run};
