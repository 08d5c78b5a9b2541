//! Frames and segments as bytes: one-pass checked views, VLAN tags, flow keys, checksums, offload
//! state, and the emission of the few frames that a stand-in sends.
//!
//! The bottom of the house: no I/O, no allocation on the way of a frame, no panic on any input. A
//! frame is read in two steps: [`Frame::parse`] tells whom it is for, [`Packet::parse`] what it is,
//! checked in the order length, version, header length, total length, checksum, fields. What does not
//! pass is a [`Malformed`] with the reason; what is valid but unknown to us is passed on as `Other`.

#![forbid(unsafe_code)]

pub mod arp;
pub mod checksum;
pub mod dhcpv4;
pub mod dhcpv6;
pub mod dns;
pub mod emit;
pub mod flow;
pub mod fragments;
pub mod frame;
pub mod icmpv4;
pub mod icmpv6;
pub mod igmp;
pub mod ipv4;
pub mod ipv6;
pub mod mac;
pub mod malformed;
pub mod membership;
pub mod mld;
pub mod netbios;
pub mod packet;
pub mod received;
pub mod router;
pub mod tcp;
pub mod tcp_options;
#[cfg(test)]
mod testing;
pub mod udp;
pub mod vlan;

pub use arp::Arp;
pub use dhcpv4::Dhcpv4;
pub use dhcpv6::Dhcpv6;
pub use emit::FrameBuf;
pub use flow::FlowKey;
pub use fragments::Fragments;
pub use frame::{Frame, ethertype};
pub use icmpv4::{Echo, Icmpv4};
pub use icmpv6::{Icmpv6, Icmpv6Body};
pub use ipv4::Ipv4;
pub use ipv6::Ipv6;
pub use mac::{Mac, ParseMacError};
pub use malformed::Malformed;
pub use netbios::Netbios;
pub use packet::{Fragment, Packet, Transport, protocol};
pub use received::{Offload, Received};
pub use tcp::{Tcp, TcpFlags};
pub use tcp_options::{TcpOptions, Timestamps};
pub use udp::Udp;
pub use vlan::{Tags, VlanTag};
