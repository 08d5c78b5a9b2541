//! A frame as the kernel hands it over: bytes, and what it keeps beside them.

use crate::vlan::VlanTag;

/// What the kernel said about the checksums and size of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Offload {
    /// Nothing: verify.
    #[default]
    None,
    /// The transport checksum was verified already.
    Verified,
    /// The transport checksum is not filled in: the frame comes from a local sender and is intact.
    Partial,
}

/// A frame as it was received, with what the kernel keeps beside the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Destination MAC to payload, without FCS; tags may be in line too.
    pub bytes: &'a [u8],
    /// The outermost tag, where the kernel took it out of the bytes.
    pub vlan: Option<VlanTag>,
    /// State of the transport checksum.
    pub offload: Offload,
}

impl<'a> Received<'a> {
    /// A frame with everything in its bytes.
    #[must_use]
    pub const fn plain(bytes: &'a [u8]) -> Self {
        Self { bytes, vlan: None, offload: Offload::None }
    }
}
