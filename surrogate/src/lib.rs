//! Surrogate stands in on the network for virtual machines that sleep.
//!
//! Which layer uses which, and where each thing is: docs/architecture.md. Without feature `io` there are
//! only those that touch nothing: [`policy`], [`guest`] (who it is, its sleep cycle), [`responder`] (a
//! reply for a request), [`custody`] (its TCP connections), [`engine`] (the decision about each frame), and
//! what [`hypervisor`] is to do.

pub mod custody;
pub mod engine;
pub mod guest;
pub mod hash;
pub mod hypervisor;
pub mod policy;
pub mod responder;
pub mod rng;
pub mod time;

#[cfg(all(feature = "io", target_os = "linux"))]
pub mod api;
#[cfg(all(feature = "io", target_os = "linux"))]
pub mod cli;
#[cfg(all(feature = "io", target_os = "linux"))]
pub mod config;
#[cfg(all(feature = "io", target_os = "linux"))]
pub mod daemon;
#[cfg(all(feature = "io", target_os = "linux"))]
pub mod io;
