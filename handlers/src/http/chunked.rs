//! A body in chunks (RFC 9112 7.1).

use super::cursor::{Cursor, is_control};
use super::field::{Fields, Row};
use super::{Fault, FramingError};

/// So many digits a chunk's size may have, leading zeros among them: more would not fit 64 bits.
pub const MAX_CHUNK_DIGITS: u8 = 16;

/// So many bytes the chunk extensions of one body may have in all, with the semicolons. They would otherwise be
/// a way to send without end what nobody counts (RFC 9112 7.1.1).
pub const MAX_EXTENSION_BYTES: usize = 16 << 10;

/// A chunked body that is under way.
///
/// ```text
///   Size --;--> Extension --CR--> SizeLf --> Data --> DataCr --> DataLf --> Size
///     '----------CR---------------^  '-- if the size is 0 --> Trailer --empty line--> the end
/// ```
///
/// Extensions are skipped and not read, but for control characters in them. White space before a semicolon is
/// skipped (7.1.1); before the end of the line it is refused, where others skip it: it is in no rule. Fields of
/// the trailer are checked like those of a head and dropped: merging them into the head is for those who know
/// what they mean (RFC 9110 6.5.1).
#[derive(Clone, Debug, Default)]
pub(super) struct Chunked {
    state: State,
    /// Of the extensions so far.
    extension_bytes: usize,
}

#[derive(Clone, Debug)]
enum State {
    Size { digits: u8, size: u64 },
    BeforeExtension { size: u64 },
    Extension { size: u64 },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailer(Fields),
}

impl Default for State {
    fn default() -> Self {
        Self::Size { digits: 0, size: 0 }
    }
}

/// What a part of the input is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Data of a chunk, at least one byte.
    Content(&'a [u8]),
    /// The end of the body, which was the last byte taken.
    End,
}

impl Chunked {
    /// The next piece, once there is some of it. Its content ends where the cursor is then.
    pub(super) fn take<'a>(&mut self, cursor: &mut Cursor<'a>) -> Result<Option<Piece<'a>>, FramingError> {
        loop {
            match &mut self.state {
                State::Trailer(fields) => match fields.take(cursor)? {
                    None => return Ok(None),
                    Some(Row::Field(_)) => {}
                    Some(Row::End) => return Ok(Some(Piece::End)),
                },
                State::Data { left: 0 } => self.state = State::DataCr,
                State::Data { left } => {
                    let content = cursor.take(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left = left.saturating_sub(content.len() as u64);
                    return Ok(Some(Piece::Content(content)).filter(|_| !content.is_empty()));
                }
                _ => {
                    let Some(byte) = cursor.peek() else { return Ok(None) };
                    self.state = self.after(byte).map_err(|fault| cursor.fault(fault))?;
                    cursor.take(1);
                }
            }
        }
    }

    /// Where `byte` of the framing leads.
    fn after(&mut self, byte: u8) -> Result<State, Fault> {
        let next = match (&self.state, byte) {
            (State::Size { digits, size }, _) if byte.is_ascii_hexdigit() => {
                if *digits >= MAX_CHUNK_DIGITS {
                    return Err(Fault::ChunkSizeTooLong);
                }
                State::Size { digits: digits.saturating_add(1), size: size << 4 | hex(byte) }
            }
            (State::Size { digits: 0, .. }, found) => return Err(Fault::ChunkSize { found }),
            (State::Size { size, .. } | State::Extension { size }, b'\r') => State::SizeLf { size: *size },
            (State::Size { size, .. } | State::BeforeExtension { size }, b';') => {
                State::Extension { size: *size }
            }
            (State::Size { size, .. } | State::BeforeExtension { size }, b' ' | b'\t') => {
                State::BeforeExtension { size: *size }
            }
            (State::Size { .. }, found) => return Err(Fault::ChunkSize { found }),
            (State::Extension { size }, _) if !is_control(byte) => State::Extension { size: *size },
            (State::Extension { .. } | State::BeforeExtension { .. }, found) => {
                return Err(Fault::ChunkExtension { found });
            }
            (State::SizeLf { size: 0 }, b'\n') => State::Trailer(Fields::default()),
            (State::SizeLf { size }, b'\n') => State::Data { left: *size },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::default(),
            (_, found) => return Err(Fault::ChunkEnd { found }),
        };
        if matches!(next, State::Extension { .. } | State::BeforeExtension { .. }) {
            self.extension_bytes = self.extension_bytes.saturating_add(1);
            if self.extension_bytes > MAX_EXTENSION_BYTES {
                return Err(Fault::ChunkExtensionsTooLong);
            }
        }
        Ok(next)
    }
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> u64 {
    char::from(digit).to_digit(16).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content of a body, and where it ends; the same byte by byte.
    fn body(input: &[u8]) -> Result<(Vec<u8>, Option<u64>), FramingError> {
        let whole = fed(input, usize::MAX);
        assert_eq!(fed(input, 1), whole, "{input:?}");
        whole
    }

    fn fed(input: &[u8], piece: usize) -> Result<(Vec<u8>, Option<u64>), FramingError> {
        let (mut chunked, mut content, mut at) = (Chunked::default(), Vec::new(), 0);
        for part in input.chunks(piece.min(input.len()).max(1)) {
            let mut cursor = Cursor::new(at, part);
            while let Some(piece) = chunked.take(&mut cursor)? {
                match piece {
                    Piece::Content(more) => content.extend_from_slice(more),
                    Piece::End => return Ok((content, Some(cursor.at()))),
                }
            }
            at = cursor.at();
        }
        Ok((content, None))
    }

    fn fault(input: &[u8]) -> (u64, Fault) {
        let error = body(input).unwrap_err();
        (error.at, error.fault)
    }

    #[test]
    fn chunks_are_joined_and_their_framing_left_out() {
        let input = b"6\r\nhello \r\n005\r\nworld\r\n0\r\n\r\nHTTP";
        assert_eq!(body(input), Ok((b"hello world".to_vec(), Some(28))));
        assert_eq!(body(b"A\r\n\r\n\r\n\r\n\r\n\r\n\r\n00\r\n\r\n").unwrap().0, b"\r\n\r\n\r\n\r\n\r\n");
        assert_eq!(body(b"0\r\n\r\n"), Ok((vec![], Some(5))));
    }

    #[test]
    fn a_size_is_hexadecimal_in_either_case_and_has_sixteen_digits_at_most() {
        let long = [b"1f\r\n".to_vec(), vec![b'x'; 31], b"\r\n1F\r\n".to_vec(), vec![b'y'; 31]].concat();
        assert_eq!(body(&long).unwrap().0.len(), 62);
        assert_eq!(body(b"0000000000000001\r\nx\r\n").unwrap().0, b"x");
        assert_eq!(body(b"FFFFFFFFFFFFFFFF\r\nx").unwrap().0, b"x");
        assert_eq!(fault(b"00000000000000001\r\nx\r\n"), (16, Fault::ChunkSizeTooLong));
        assert_eq!(fault(b"fffffffffffffffff\r\nx\r\n"), (16, Fault::ChunkSizeTooLong));
    }

    #[test]
    fn anything_else_in_the_place_of_a_size_is_refused() {
        for input in [&b"\r\n"[..], b"x\r\n", b"-1\r\n", b" 1\r\n", b";a\r\n", b"+1\r\n", b"\n"] {
            assert_eq!(fault(input), (0, Fault::ChunkSize { found: input[0] }), "{input:?}");
        }
        assert_eq!(fault(b"0x5\r\n"), (1, Fault::ChunkSize { found: b'x' }));
        assert_eq!(fault(b"5_0\r\n"), (1, Fault::ChunkSize { found: b'_' }));
        assert_eq!(fault(b"5\n"), (1, Fault::ChunkSize { found: b'\n' }));
    }

    #[test]
    fn extensions_are_ignored() {
        for line in ["5;a", "5;a=b;c=\"d e\"", "5 ; a", "5\t;", "5;\u{e9}", "5;;\"", "5;5"] {
            let input = format!("{line}\r\nhello\r\n0;last\r\n\r\n");
            assert_eq!(
                body(input.as_bytes()).unwrap(),
                (b"hello".to_vec(), Some(input.len() as u64)),
                "{line}"
            );
        }
    }

    #[test]
    fn white_space_that_no_extension_follows_is_refused() {
        for (input, at) in [(&b"5 \r\n"[..], 2), (b"5\t \r\n", 3), (b"5 5\r\n", 2), (b"5 a\r\n", 2)] {
            let found = input[usize::try_from(at).unwrap()];
            assert_eq!(fault(input), (at, Fault::ChunkExtension { found }), "{input:?}");
        }
    }

    #[test]
    fn control_characters_in_extensions_are_refused() {
        for found in [0, b'\n', 0x0b, 0x7f] {
            assert_eq!(fault(&[b'5', b';', b'a', found]), (3, Fault::ChunkExtension { found }));
        }
    }

    #[test]
    fn extensions_of_one_body_are_limited_in_all() {
        let chunks = |count: usize| [b"1;345678\r\nx\r\n".repeat(count), b"0\r\n\r\n".to_vec()].concat();
        let most = MAX_EXTENSION_BYTES / 7;
        assert_eq!(body(&chunks(most)).unwrap().0.len(), most);
        assert_eq!(body(&chunks(most + 1)).unwrap_err().fault, Fault::ChunkExtensionsTooLong);
    }

    #[test]
    fn a_chunk_and_its_size_end_in_cr_lf_exactly() {
        assert_eq!(fault(b"5\rx"), (2, Fault::ChunkEnd { found: b'x' }));
        assert_eq!(fault(b"5;a\r;"), (4, Fault::ChunkEnd { found: b';' }));
        assert_eq!(fault(b"5\r\nhello0\r\n"), (8, Fault::ChunkEnd { found: b'0' }));
        assert_eq!(fault(b"5\r\nhello\n"), (8, Fault::ChunkEnd { found: b'\n' }));
        assert_eq!(fault(b"5\r\nhello\r0"), (9, Fault::ChunkEnd { found: b'0' }));
        assert_eq!(fault(b"5\r\nhello\r\r\n"), (9, Fault::ChunkEnd { found: b'\r' }));
    }

    #[test]
    fn a_trailer_is_checked_and_belongs_to_the_body() {
        let input = b"0\r\nDigest: 1\r\nContent-Length: 5\r\n\r\nHTTP/1.1";
        assert_eq!(body(input), Ok((vec![], Some(35))));
        assert_eq!(fault(b"0\r\nA: 1\r\n B\r\n\r\n"), (9, Fault::Folded));
        assert_eq!(fault(b"0\r\nno field\r\n\r\n").0, 3);
        assert_eq!(fault(b"0\r\n\n"), (3, Fault::BareLf));
        assert_eq!(fault(b"0\r\nA: 1\n\r\n"), (7, Fault::BareLf));
    }

    #[test]
    fn a_trailer_is_limited_like_a_head() {
        let fields = |count| [b"0\r\n".to_vec(), b"a: 1\r\n".repeat(count), b"\r\n".to_vec()].concat();
        assert_eq!(body(&fields(100)).unwrap().1, Some(605));
        assert_eq!(fault(&fields(101)), (603, Fault::TooManyFields));
        let long = [b"0\r\na: ".to_vec(), vec![b'x'; 20_000]].concat();
        assert_eq!(fault(&long), (3 + (16 << 10) - 2, Fault::FieldsTooLong));
    }
}
