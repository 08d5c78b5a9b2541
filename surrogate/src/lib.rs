//! Surrogate stands in on the network for virtual machines that sleep.
//!
//! Layers, lower ones first: [`guest`] (who it is, its sleep cycle), [`responder`] (a reply for a
//! request, pure), [`policy`], [`engine`] (the decision about each frame, without I/O), and, behind
//! feature `io`, everything that touches the world: `hypervisor`, `io`, `config`, `daemon`, `api`, `cli`.

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
