//! Capture files: pcap and pcapng in, pcapng out.

pub mod read;
pub mod write;

pub use read::{CaptureError, CaptureReader, Captured};
pub use write::PcapngWriter;
