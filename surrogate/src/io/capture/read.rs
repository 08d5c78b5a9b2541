//! Reads pcap (micro- and nanoseconds, both byte orders) and pcapng (any resolution, several
//! interfaces and sections), one frame at a time, Ethernet only.
//!
//! A file is untrusted: whatever it holds, reading it ends, allocates no more than
//! [`LONGEST_BLOCK`] at a time, and never panics. Where a file is damaged, the frames before the
//! damage are given and the error says how far it got.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

/// The longest block of a file that is read at once; a frame is part of one.
pub const LONGEST_BLOCK: usize = 16 << 20;

/// What is read at first; grows up to [`LONGEST_BLOCK`] where a block needs it.
const BUFFER: usize = 256 << 10;

/// A frame as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// When, in nanoseconds since 1970, UTC.
    pub unix_ns: u64,
    /// Destination MAC to the last byte that was captured.
    pub bytes: Vec<u8>,
    /// How long the frame was on the wire; more than `bytes` if a snap length cut it.
    pub original_len: u32,
}

impl Captured {
    /// Whether a snap length cut it.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.bytes.len() < self.original_len as usize
    }
}

/// Why a file gives no (more) frames.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("neither pcap nor pcapng")]
    NotACapture,
    /// Its frames are not Ethernet.
    #[error("its link type is {0}: only Ethernet (1) can be replayed")]
    LinkType(i32),
    /// It is damaged or ends in the middle of a block.
    #[error("damaged after {frames} frames, at byte {offset}: {what}")]
    Damaged {
        /// Frames that were read before.
        frames: u64,
        /// Where the block begins that makes no sense.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Frames of one file, in the order of the file. After an error there are no more.
pub struct CaptureReader<'r> {
    blocks: Option<Box<dyn PcapReaderIterator + Send + 'r>>,
    ticks: Ticks,
    interfaces: Vec<Ticks>,
    frames: u64,
    offset: u64,
}

/// How a file counts time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    per_second: u128,
    offset_seconds: i64,
    snaplen: u32,
}

impl CaptureReader<'static> {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// It cannot be read or is no capture.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        Self::new(File::open(path)?)
    }
}

impl<'r> CaptureReader<'r> {
    /// Reads from `input`.
    ///
    /// # Errors
    /// It cannot be read or is no capture.
    pub fn new(input: impl Read + Send + 'r) -> Result<Self, CaptureError> {
        let blocks = create_reader(BUFFER, Whole(input)).map_err(|why| match why {
            PcapError::ReadError => read_failed(),
            _ => CaptureError::NotACapture,
        })?;
        let ticks = Ticks { per_second: 1_000_000, offset_seconds: 0, snaplen: 0 };
        Ok(Self { blocks: Some(blocks), ticks, interfaces: Vec::new(), frames: 0, offset: 0 })
    }

    /// Frames given so far.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// The next frame, `None` at the end.
    ///
    /// # Errors
    /// See [`CaptureError`]. After an error, `None`.
    pub fn next_frame(&mut self) -> Result<Option<Captured>, CaptureError> {
        let Some(mut blocks) = self.blocks.take() else { return Ok(None) };
        let found = self.read_on(blocks.as_mut());
        if matches!(found, Ok(Some(_))) {
            self.blocks = Some(blocks);
            self.frames += 1;
        }
        found
    }

    fn read_on(&mut self, blocks: &mut dyn PcapReaderIterator) -> Result<Option<Captured>, CaptureError> {
        let mut capacity = BUFFER;
        loop {
            let stop = match blocks.next() {
                Ok((length, block)) => {
                    let found = self.block(&block);
                    blocks.consume(length);
                    self.offset += length as u64;
                    if let Some(frame) = found? {
                        return Ok(Some(frame));
                    }
                    if length == 0 {
                        return Err(self.damaged("a block of no length"));
                    }
                    continue;
                }
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::ReadError) => return Err(read_failed()),
                Err(PcapError::Incomplete(_)) => Stop::More,
                Err(PcapError::BufferTooSmall) => Stop::Larger,
                Err(PcapError::UnexpectedEof) => Stop::End,
                Err(_) => return Err(self.damaged("a block that makes no sense")),
            };
            match stop {
                Stop::End if blocks.data().is_empty() => return Ok(None),
                Stop::End => return Err(self.damaged("the file ends inside a block")),
                Stop::More => {}
                Stop::Larger => {
                    capacity = capacity.saturating_mul(2);
                    if capacity > LONGEST_BLOCK || !blocks.grow(capacity) {
                        return Err(self.damaged("a block longer than any frame"));
                    }
                }
            }
            self.refill(blocks)?;
        }
    }

    fn refill(&self, blocks: &mut dyn PcapReaderIterator) -> Result<(), CaptureError> {
        match blocks.refill() {
            Ok(()) => Ok(()),
            Err(PcapError::ReadError) => Err(read_failed()),
            Err(_) => Err(self.damaged("a block that makes no sense")),
        }
    }

    /// Learns from `block`, or takes the frame out of it.
    fn block(&mut self, block: &PcapBlockOwned<'_>) -> Result<Option<Captured>, CaptureError> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                ethernet(header.network)?;
                let nanoseconds = header.is_nanosecond_precision();
                self.ticks.per_second = if nanoseconds { 1_000_000_000 } else { 1_000_000 };
                Ok(None)
            }
            PcapBlockOwned::Legacy(frame) => {
                let fraction = u128::from(frame.ts_usec) * (1_000_000_000 / self.ticks.per_second);
                let ns = u128::from(frame.ts_sec) * 1_000_000_000 + fraction;
                Ok(Some(captured(ns, frame.data, frame.origlen)))
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                self.interfaces.clear();
                Ok(None)
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                ethernet(interface.linktype)?;
                let per_second = resolution(interface.if_tsresol)
                    .ok_or_else(|| self.damaged("an interface with an impossible time resolution"))?;
                let snaplen = interface.snaplen;
                self.interfaces.push(Ticks { per_second, offset_seconds: interface.if_tsoffset, snaplen });
                Ok(None)
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let ticks = self.interface(packet.if_id)?;
                let count = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                Ok(Some(captured(ticks.unix_ns(count), packet.packet_data(), packet.origlen)))
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                // It has no time and no length of its own: as long as the interface let it be.
                let ticks = self.interface(0)?;
                let longest = if ticks.snaplen == 0 { u32::MAX } else { ticks.snaplen };
                let kept = usize::try_from(packet.origlen.min(longest)).unwrap_or(usize::MAX);
                let data = packet.data.get(..kept).unwrap_or(packet.data);
                Ok(Some(captured(0, data, packet.origlen)))
            }
            PcapBlockOwned::NG(_) => Ok(None),
        }
    }

    fn interface(&self, id: u32) -> Result<Ticks, CaptureError> {
        let known = usize::try_from(id).ok().and_then(|id| self.interfaces.get(id));
        known.copied().ok_or_else(|| self.damaged("a frame of an interface that was not described"))
    }

    const fn damaged(&self, what: &'static str) -> CaptureError {
        CaptureError::Damaged { frames: self.frames, offset: self.offset, what }
    }
}

impl Ticks {
    fn unix_ns(&self, count: u64) -> u128 {
        // Below 2^64 * 10^9, far inside 128 bits.
        let ns = u128::from(count) * 1_000_000_000 / self.per_second;
        let offset = u128::from(self.offset_seconds.unsigned_abs()) * 1_000_000_000;
        if self.offset_seconds < 0 { ns.saturating_sub(offset) } else { ns.saturating_add(offset) }
    }
}

/// Why the parser could not go on.
enum Stop {
    /// The next block is not all there.
    More,
    /// The next block does not fit.
    Larger,
    /// There is no more.
    End,
}

/// Fills the buffer as far as it can: a pipe gives less than was asked for, and the file's header
/// has to be there at the first look.
struct Whole<R>(R);

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read(rest) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) if filled == 0 => return Err(why),
                Err(_) => break,
            }
        }
        Ok(filled)
    }
}

/// The parser does not pass the system's error on.
fn read_failed() -> CaptureError {
    CaptureError::Io(io::Error::other("reading failed"))
}

fn captured(unix_ns: u128, bytes: &[u8], original_len: u32) -> Captured {
    Captured { unix_ns: u64::try_from(unix_ns).unwrap_or(u64::MAX), bytes: bytes.to_vec(), original_len }
}

fn ethernet(found: Linktype) -> Result<(), CaptureError> {
    if found == Linktype::ETHERNET { Ok(()) } else { Err(CaptureError::LinkType(found.0)) }
}

/// Option `if_tsresol`: a negative power of ten, or of two if the top bit is set.
fn resolution(tsresol: u8) -> Option<u128> {
    let exponent = u32::from(tsresol & 0x7f);
    if tsresol & 0x80 == 0 { 10_u128.checked_pow(exponent) } else { 1_u128.checked_shl(exponent) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::capture::write::PcapngWriter;

    /// A pcap file of `frames` (seconds, fraction, bytes, original length).
    fn pcap(magic: u32, big: bool, network: u32, frames: &[(u32, u32, &[u8], u32)]) -> Vec<u8> {
        let word = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let half = |n: u16| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let mut file = Vec::new();
        file.extend(word(magic));
        file.extend(half(2));
        file.extend(half(4));
        for n in [0, 0, 65535, network] {
            file.extend(word(n));
        }
        for (seconds, fraction, bytes, original) in frames {
            for n in [*seconds, *fraction, u32::try_from(bytes.len()).unwrap(), *original] {
                file.extend(word(n));
            }
            file.extend(*bytes);
        }
        file
    }

    fn all(file: &[u8]) -> (Vec<Captured>, Option<CaptureError>) {
        let mut frames = Vec::new();
        let mut reader = match CaptureReader::new(file) {
            Ok(reader) => reader,
            Err(why) => return (frames, Some(why)),
        };
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, None),
                Err(why) => {
                    assert!(reader.next_frame().unwrap().is_none(), "an error ends it");
                    return (frames, Some(why));
                }
            }
        }
    }

    #[test]
    fn both_byte_orders_and_resolutions_give_the_same_frames() {
        for big in [false, true] {
            for (magic, fraction) in [(0xa1b2_c3d4, 5), (0xa1b2_3c4d, 5_000)] {
                let file = pcap(magic, big, 1, &[(7, fraction, b"first", 5), (8, 0, b"cut", 1500)]);
                let (frames, error) = all(&file);
                assert!(error.is_none(), "{error:?}");
                assert_eq!(frames.len(), 2, "big endian: {big}, magic {magic:x}");
                assert_eq!((frames[0].unix_ns, frames[0].bytes.as_slice()), (7_000_005_000, &b"first"[..]));
                assert!(!frames[0].is_cut() && frames[1].is_cut());
            }
        }
    }

    #[test]
    fn what_is_no_ethernet_capture_is_refused() {
        for not in [&b""[..], b"x", b"#!/bin/sh\necho this is no capture at all\n", &[0; 4096]] {
            assert!(matches!(all(not).1, Some(CaptureError::NotACapture)), "{not:?}");
        }
        let wifi = pcap(0xa1b2_c3d4, false, 105, &[(0, 0, b"beacon", 6)]);
        let error = all(&wifi).1.unwrap().to_string();
        assert!(error.contains("link type is 105"), "{error}");
    }

    #[test]
    fn a_file_that_ends_early_gives_what_was_before() {
        let whole = pcap(0xa1b2_c3d4, false, 1, &[(1, 0, &[1; 60], 60), (2, 0, &[2; 60], 60)]);
        for end in 24..whole.len() {
            let (frames, error) = all(&whole[..end]);
            assert_eq!(frames.len(), usize::from(end >= 24 + 76), "{end}");
            let clean = end == 24 || end == 24 + 76;
            assert_eq!(error.is_none(), clean, "{end}: {error:?}");
            if let Some(error) = error {
                assert!(matches!(error, CaptureError::Damaged { .. }), "{error:?}");
            }
        }
    }

    #[test]
    fn a_length_beyond_all_reason_is_no_allocation() {
        let mut file = pcap(0xa1b2_c3d4, false, 1, &[(1, 0, &[1; 60], 60)]);
        file[24 + 8..24 + 12].copy_from_slice(&u32::MAX.to_le_bytes());
        file.extend(vec![0; 1 << 20]);
        let error = all(&file).1.unwrap();
        assert!(matches!(error, CaptureError::Damaged { frames: 0, offset: 24, .. }), "{error:?}");
    }

    #[test]
    fn a_frame_longer_than_the_first_buffer_is_read() {
        let long = vec![7; BUFFER * 3];
        let len = u32::try_from(long.len()).unwrap();
        let (frames, error) = all(&pcap(0xa1b2_c3d4, true, 1, &[(1, 0, &long, len), (2, 0, b"next", 4)]));
        assert!(error.is_none(), "{error:?}");
        assert_eq!(frames.iter().map(|f| f.bytes.len()).collect::<Vec<_>>(), [long.len(), 4]);
    }

    #[test]
    fn resolutions_are_powers_of_ten_or_two() {
        assert_eq!(resolution(6), Some(1_000_000));
        assert_eq!(resolution(0x80 | 10), Some(1024));
        assert_eq!(resolution(39), None);
        let ticks = Ticks { per_second: 1 << 32, offset_seconds: -1, snaplen: 0 };
        assert_eq!(ticks.unix_ns(3 << 32 | 1 << 31), 2_500_000_000);
    }

    proptest::proptest! {
        #[test]
        fn a_mutated_file_ends_without_a_panic(
            seed in proptest::collection::vec((proptest::num::usize::ANY, proptest::num::u8::ANY), 0..12),
            cut in proptest::num::usize::ANY,
            ng in proptest::bool::ANY,
        ) {
            let mut file = if ng {
                let mut writer = PcapngWriter::new(Vec::new(), "lab").unwrap();
                for n in 0..5_u8 {
                    writer.frame(u64::from(n), &[n; 61], "a comment").unwrap();
                }
                writer.finish().unwrap()
            } else {
                pcap(0xa1b2_c3d4, false, 1, &[(1, 0, &[1; 60], 60), (2, 0, &[2; 60], 60)])
            };
            for (at, byte) in seed {
                let at = at % file.len();
                file[at] = byte;
            }
            file.truncate(cut % (file.len() + 1));
            let (frames, _) = all(&file);
            proptest::prop_assert!(frames.len() <= file.len());
        }
    }
}
