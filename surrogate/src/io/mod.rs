//! Everything that touches the world: ports, netlink, the clock, the journal.

pub mod capture;
pub mod clock;
pub mod deliver;
pub mod driver;
pub mod journal;
pub mod mailbox;
pub mod netlink;
pub mod observe;
pub mod port;
pub mod process;
pub mod steering;
pub mod sys;
