//! Why a frame is not taken for what its type says.

/// What was wrong with a frame, by the first check that it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// Too short, or its lengths contradict each other.
    Length,
    /// A field has a value that nobody may send: version, TTL 0, data offset, option length, hop limit.
    Header,
    /// A checksum that the kernel did not vouch for is wrong.
    Checksum,
    /// Group or zero source MAC, or an IP source that no single host can have.
    Source,
    /// An IPv4 source route option, or an IPv6 routing header of type 0.
    SourceRoute,
    /// An IPv6 option that says of itself to discard what has it and is not understood.
    UnknownOption,
}
