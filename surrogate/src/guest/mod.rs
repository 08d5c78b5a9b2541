//! Who the guests are and where each stands in its sleep cycle. Pure.

pub mod identity;
pub mod lifecycle;
pub mod ports;
pub mod table;
