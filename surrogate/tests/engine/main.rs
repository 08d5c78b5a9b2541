//! The engine as a driver sees it: frames, commands and completions in, counted verdicts and outputs out,
//! on a clock that is set.

#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

mod allocation;
mod answering;
mod connections;
mod fragments;
mod frames;
mod groups;
mod learned_ports;
mod leases;
mod lifetimes;
mod named;
mod names_learned;
mod own_frames;
mod packet_policy;
mod properties;
mod replaying;
mod scenario;
mod sleeping;
mod vlans;
