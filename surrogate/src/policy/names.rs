//! What a guest is called on its link, as its operator declares it. Pure values.
//!
//! What the guest says of itself while it is awake is learned anyhow; this is for guests that do not, and for
//! what they say too seldom to be heard.

use surrogate_wire::netbios;

/// Names and services that a guest declares; empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Its host name, one label: `printer` for `printer.local`.
    pub host: Option<String>,
    /// Its NetBIOS names, at most [`MAX_NETBIOS`].
    pub netbios: Vec<NetbiosName>,
    /// Services that DNS-SD tells of, at most [`MAX_SERVICES`]; they are at `host`.
    pub services: Vec<Service>,
}

/// A registered NetBIOS name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetbiosName {
    /// With its suffix.
    pub name: netbios::Name,
    /// Whether it is a group's, which several nodes may have.
    pub group: bool,
}

/// A service instance (RFC 6763 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What people read: 1 to 63 bytes.
    pub name: String,
    /// Type and transport: `_http._tcp`.
    pub kind: String,
    /// Where it listens.
    pub port: u16,
    /// `key=value`, 1 to 255 bytes each and [`MAX_TEXT`] in all.
    pub txt: Vec<String>,
}

/// So that all records of a guest find room.
pub const MAX_SERVICES: usize = 12;
/// As many as a node's status can tell without growing too long for who asks.
pub const MAX_NETBIOS: usize = 16;
/// Bytes of a TXT record, the length of each text counted: RFC 6763 6.2 advises 1,300 at most.
pub const MAX_TEXT: usize = 1_000;
