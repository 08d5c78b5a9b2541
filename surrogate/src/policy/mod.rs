//! Decisions that an operator sets: traffic, idleness, wake budgets. Pure.

pub mod budget;
pub mod custody;
pub mod idleness;
pub mod names;
pub mod traffic;
