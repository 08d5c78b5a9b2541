//! The lab: networks of namespaces with real clients, real guests and the real daemon, for the
//! whole-system tests and the demonstration.
//!
//! Nothing here reaches into Surrogate's code: the daemon is a process, spoken to through its command
//! line, and what it does is seen with the eyes of its neighbours (ping, curl, sniffers on ports).
//! Everything is made under names of its own and removed when the value that stands for it is
//! dropped, processes first; what a killed run left behind is swept away by the next one. The machine's own
//! network namespace is never touched. Needs root and what packaging/setup.sh installs.
//!
//! The lab's helpers panic where the lab itself cannot be had: a test without its lab has failed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a lab that cannot be set up fails its test at once, with the place"
)]

pub mod capture;
pub mod cgroup;
pub mod clients;
pub mod connections;
pub mod daemon;
pub mod deadline;
pub mod dhcp;
pub mod echo_server;
pub mod events;
pub mod lab;
pub mod machine;
pub mod names;
pub mod namespace;
pub mod netns_guest;
pub mod network;
pub mod numbered;
pub mod own_machine;
pub mod prometheus;
pub mod services;
mod sys;

pub use capture::{Capture, Frame};
pub use cgroup::Cgroup;
pub use connections::Connections;
pub use daemon::{Config, Daemon};
pub use deadline::{Deadline, until};
pub use events::Events;
pub use lab::Lab;
pub use machine::{Machine, VirtualLab};
pub use namespace::Namespace;
pub use netns_guest::NetnsGuest;
pub use network::Network;
pub use sys::pin_to;
