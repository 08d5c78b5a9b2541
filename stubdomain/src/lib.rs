//! Listener stubs: what stands at the network for a sleeping guest that waits for a message.
//!
//! A stub has one honest mode, and a plan that its mode cannot keep is refused when it is registered,
//! not when it fails. This crate knows the modes and what each can keep; it builds on the words of
//! [`handlers`] and nothing above it.

#![forbid(unsafe_code)]

pub mod mode;

pub use mode::{CannotKeep, Mode};
