//! Writes pcapng: one section, one Ethernet interface, nanoseconds, each frame with a comment.
//!
//! Blocks as in the pcapng specification: Section Header, Interface Description, Enhanced Packet.

use std::io::{self, Write};

/// A capture being written. Nothing is buffered here.
#[derive(Debug)]
pub struct PcapngWriter<W: Write> {
    out: W,
    block: Vec<u8>,
}

impl<W: Write> PcapngWriter<W> {
    /// Begins a capture of an interface that a reader will see as `interface`.
    ///
    /// # Errors
    /// `out` fails.
    pub fn new(out: W, interface: &str) -> io::Result<Self> {
        let mut writer = Self { out, block: Vec::new() };
        writer.block(SECTION_HEADER, |body| {
            body.extend(BYTE_ORDER.to_ne_bytes());
            body.extend(1_u16.to_ne_bytes());
            body.extend(0_u16.to_ne_bytes());
            // The section's length: not known yet.
            body.extend((-1_i64).to_ne_bytes());
            option(body, SHB_USERAPPL, concat!("surrogate ", env!("CARGO_PKG_VERSION")).as_bytes());
            body.extend([0; 4]);
        })?;
        writer.block(INTERFACE_DESCRIPTION, |body| {
            body.extend(LINKTYPE_ETHERNET.to_ne_bytes());
            body.extend(0_u16.to_ne_bytes());
            // Snap length: no limit.
            body.extend(0_u32.to_ne_bytes());
            option(body, IF_NAME, interface.as_bytes());
            option(body, IF_TSRESOL, &[9]);
            body.extend([0; 4]);
        })?;
        Ok(writer)
    }

    /// Adds a frame as of `unix_ns`, nanoseconds since 1970, with a `comment` unless that is empty.
    ///
    /// # Errors
    /// `out` fails, or the frame is longer than 4 GiB.
    pub fn frame(&mut self, unix_ns: u64, bytes: &[u8], comment: &str) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.block(ENHANCED_PACKET, |body| {
            let [high, low] = [unix_ns >> 32, unix_ns & 0xffff_ffff];
            for word in [0, high, low, u64::from(length), u64::from(length)] {
                body.extend(u32::try_from(word).unwrap_or(u32::MAX).to_ne_bytes());
            }
            body.extend(bytes);
            pad(body);
            if !comment.is_empty() {
                option(body, OPT_COMMENT, comment.as_bytes());
                body.extend([0; 4]);
            }
        })
    }

    /// Flushes and gives `out` back.
    ///
    /// # Errors
    /// `out` fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    fn block(&mut self, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.block.clear();
        self.block.extend(kind.to_ne_bytes());
        self.block.extend([0; 4]);
        fill(&mut self.block);
        let length = u32::try_from(self.block.len() + 4).map_err(io::Error::other)?.to_ne_bytes();
        self.block.extend(length);
        if let Some(place) = self.block.get_mut(4..8) {
            place.copy_from_slice(&length);
        }
        self.out.write_all(&self.block)
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    body.extend(code.to_ne_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_ne_bytes());
    body.extend(value);
    pad(body);
}

/// Blocks, frames and options end at multiples of four bytes.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET: u16 = 1;
const OPT_COMMENT: u16 = 1;
const IF_NAME: u16 = 2;
const SHB_USERAPPL: u16 = 4;
const IF_TSRESOL: u16 = 9;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::capture::read::CaptureReader;

    #[test]
    fn what_is_written_is_read_back_to_the_nanosecond() {
        let mut writer = PcapngWriter::new(Vec::new(), "replies").unwrap();
        let now = 1_790_000_000_123_456_789;
        writer.frame(now, &[1; 60], "arp for web1").unwrap();
        writer.frame(now + 1, &[2; 61], "").unwrap();
        writer.frame(now + 2, &[], "empty").unwrap();
        let file = writer.finish().unwrap();
        assert!(file.len().is_multiple_of(4));
        let mut reader = CaptureReader::new(file.as_slice()).unwrap();
        for (at, bytes) in [(now, vec![1; 60]), (now + 1, vec![2; 61]), (now + 2, vec![])] {
            let frame = reader.next_frame().unwrap().unwrap();
            assert_eq!((frame.unix_ns, &frame.bytes, frame.is_cut()), (at, &bytes, false));
        }
        assert!(reader.next_frame().unwrap().is_none());
    }
}
