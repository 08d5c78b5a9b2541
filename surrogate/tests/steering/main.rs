//! Steering on real bridges, in namespaces of our own: nothing lost, nothing left behind.
//!
//! `bridge` and `ip` serve as the oracle: what they show before and after must be the same.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fails here fails its test")]

mod crash;
mod entries;
mod floods;
mod foresight;
mod links;
mod vlans;
mod world;
