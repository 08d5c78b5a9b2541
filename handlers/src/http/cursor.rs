//! Takes bytes off the front of an input, and lines that may be cut anywhere.

use super::{Fault, FramingError};

/// What is left of an input, and where in the stream that is.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    at: u64,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(at: u64, rest: &'a [u8]) -> Self {
        Self { rest, at }
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The offset in the stream of the next byte.
    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next `len` bytes, or as many as there are.
    pub(super) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at_checked(len).unwrap_or((self.rest, &[]));
        self.rest = rest;
        self.at = self.at.saturating_add(taken.len() as u64);
        taken
    }

    /// `fault`, at the next byte.
    pub(super) const fn fault(&self, fault: Fault) -> FramingError {
        FramingError { at: self.at, fault }
    }
}

/// A line that is under way.
///
/// Lines end in CR LF. RFC 9112 2.2 allows a recipient to take a line feed alone for an end, and has it refuse a
/// carriage return alone or take it for a space; here both are refused, as is any other control character but
/// the tab: others disagree about what is a line then, and that is how responses are smuggled (RFC 9112 11.1).
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    text: Vec<u8>,
    /// The carriage return was there.
    ending: bool,
}

impl Line {
    /// Takes bytes up to the end of the line, which may have `limit` bytes without CR LF. The whole line without
    /// CR LF, once it is there.
    pub(super) fn take(
        &mut self,
        cursor: &mut Cursor<'_>,
        limit: usize,
        too_long: Fault,
    ) -> Result<Option<Vec<u8>>, FramingError> {
        if !self.ending {
            let plain = cursor.rest().iter().take_while(|byte| !is_control(**byte)).count();
            let room = limit.saturating_sub(self.text.len());
            self.text.extend_from_slice(cursor.take(plain.min(room)));
            match cursor.peek() {
                None => return Ok(None),
                Some(_) if plain > room => return Err(cursor.fault(too_long)),
                Some(b'\r') => self.ending = !cursor.take(1).is_empty(),
                Some(b'\n') => return Err(cursor.fault(Fault::BareLf)),
                Some(found) => return Err(cursor.fault(Fault::Control { found })),
            }
        }
        match cursor.peek() {
            None => Ok(None),
            Some(b'\n') => {
                cursor.take(1);
                self.ending = false;
                Ok(Some(core::mem::take(&mut self.text)))
            }
            Some(found) => Err(cursor.fault(Fault::BareCr { found })),
        }
    }

    /// How long it is so far.
    pub(super) const fn len(&self) -> usize {
        self.text.len()
    }

    /// One byte of it that somebody else has looked at.
    pub(super) fn push(&mut self, byte: u8) {
        self.text.push(byte);
    }
}

/// Anything that is neither text, nor a space or tab (RFC 9110 5.5).
pub(super) const fn is_control(byte: u8) -> bool {
    byte != b'\t' && byte.is_ascii_control()
}

/// What ends a line.
pub(super) const CRLF: &[u8] = b"\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    /// The first line of `input`, handed in at once and byte by byte, and how many bytes were taken.
    fn line(input: &[u8], limit: usize) -> (Result<Option<Vec<u8>>, FramingError>, u64) {
        let mut cursor = Cursor::new(0, input);
        let whole = Line::default().take(&mut cursor, limit, Fault::FieldsTooLong);

        let (mut one, mut at, mut outcome) = (Line::default(), 0, Ok(None));
        for byte in input.chunks(1) {
            let mut cursor = Cursor::new(at, byte);
            outcome = one.take(&mut cursor, limit, Fault::FieldsTooLong);
            at = cursor.at();
            if !matches!(outcome, Ok(None)) {
                break;
            }
        }
        assert_eq!((&outcome, at), (&whole, cursor.at()), "{input:?}");
        (whole, at)
    }

    #[test]
    fn a_line_ends_in_cr_lf() {
        assert_eq!(line(b"ab\tc d\xff\r\nmore", 9), (Ok(Some(b"ab\tc d\xff".to_vec())), 9));
        assert_eq!(line(b"\r\n", 0), (Ok(Some(vec![])), 2));
        assert_eq!(line(b"ab\r", 9), (Ok(None), 3));
    }

    #[test]
    fn a_carriage_return_or_a_line_feed_alone_is_refused_where_it_shows() {
        let error = |at, fault| (Err(FramingError { at, fault }), at);
        assert_eq!(line(b"ab\nc", 9), error(2, Fault::BareLf));
        assert_eq!(line(b"ab\rc\n", 9), error(3, Fault::BareCr { found: b'c' }));
        assert_eq!(line(b"ab\r\r\n", 9), error(3, Fault::BareCr { found: b'\r' }));
    }

    #[test]
    fn a_control_character_in_a_line_is_refused() {
        for found in [0, 1, 8, 0x0b, 0x1b, 0x7f] {
            let fault = Fault::Control { found };
            assert_eq!(line(&[b'a', found, b'\r', b'\n'], 9), (Err(FramingError { at: 1, fault }), 1));
        }
    }

    #[test]
    fn a_line_is_as_long_as_its_limit_and_no_longer() {
        assert_eq!(line(b"abcd\r\n", 4), (Ok(Some(b"abcd".to_vec())), 6));
        assert_eq!(line(b"abcde\r\n", 4), (Err(FramingError { at: 4, fault: Fault::FieldsTooLong }), 4));
    }
}
