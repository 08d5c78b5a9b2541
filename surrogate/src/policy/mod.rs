//! Decisions that an operator sets: traffic, idleness, wake budgets. Pure.

pub mod budget;
pub mod idleness;
pub mod traffic;
