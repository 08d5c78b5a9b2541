//! Fields, of a head or of a trailer (RFC 9112 5, 7.1.2).

use super::cursor::{CRLF, Cursor, Line};
use super::error::excerpt;
use super::{Fault, FramingError};

/// So many fields a head or a trailer may have.
pub const MAX_FIELDS: usize = 100;

/// So many bytes all fields of a head or of a trailer may have, with what ends their lines.
pub const MAX_FIELDS_BYTES: usize = 16 << 10;

/// A field's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// As it was written; names are the same in either case (RFC 9110 5.1).
    pub name: String,
    /// Without the white space around it (RFC 9110 5.5). Not always text.
    pub value: Vec<u8>,
}

impl Field {
    /// Whether it has this name.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Reads a line, without its end. A field that goes on in a second line is refused: stricter than RFC 9112 5.2,
    /// which has a user agent replace the fold by spaces.
    fn parse(line: &[u8]) -> Result<Self, Fault> {
        if line.first().is_some_and(is_space) {
            return Err(Fault::Folded);
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or_default();
        if line.get(..colon).and_then(<[u8]>::last).is_some_and(is_space) {
            return Err(Fault::SpaceBeforeColon { found: excerpt(line) });
        }
        let whole = [line, CRLF, CRLF].concat();
        match httparse::parse_headers(&whole, &mut [httparse::EMPTY_HEADER]) {
            Ok(httparse::Status::Complete((_, [field]))) => {
                Ok(Self { name: field.name.to_owned(), value: field.value.to_vec() })
            }
            _ => Err(Fault::Field { found: excerpt(line) }),
        }
    }
}

const fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The elements of the lists in all fields of this name, each with the value that it is from (RFC 9110 5.3, 5.6.1).
pub(super) fn elements<'a>(fields: &'a [Field], name: &str) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let values = fields.iter().filter(move |field| field.is(name)).map(|field| &field.value[..]);
    values.flat_map(|value| value.split(|byte| *byte == b',').map(move |part| (value, part.trim_ascii())))
}

/// Fields that are under way. Keeps one line, and none that it has handed out.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    line: Line,
    /// So many more bytes there may be.
    bytes: usize,
    /// So many more fields.
    count: usize,
}

/// What stands in a line of fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Row {
    Field(Field),
    /// Nothing: there are no more.
    End,
}

impl Default for Fields {
    fn default() -> Self {
        Self { line: Line::default(), bytes: MAX_FIELDS_BYTES, count: MAX_FIELDS }
    }
}

impl Fields {
    /// The next line, once it is there.
    pub(super) fn take(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<Row>, FramingError> {
        let limit = self.bytes.saturating_sub(CRLF.len());
        let Some(line) = self.line.take(cursor, limit, Fault::FieldsTooLong)? else { return Ok(None) };
        if line.is_empty() {
            return Ok(Some(Row::End));
        }
        let len = line.len().saturating_add(CRLF.len());
        let wrong = |fault| FramingError { at: cursor.at().saturating_sub(len as u64), fault };
        let field = Field::parse(&line).map_err(wrong)?;
        self.count = self.count.checked_sub(1).ok_or_else(|| wrong(Fault::TooManyFields))?;
        self.bytes = self.bytes.saturating_sub(len);
        Ok(Some(Row::Field(field)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[u8]) -> Result<(String, Vec<u8>), Fault> {
        Field::parse(line).map(|field| (field.name, field.value))
    }

    fn all(input: &[u8]) -> Result<usize, FramingError> {
        let (mut fields, mut cursor, mut count) = (Fields::default(), Cursor::new(0, input), 0);
        while let Some(Row::Field(_)) = fields.take(&mut cursor)? {
            count += 1;
        }
        Ok(count)
    }

    #[test]
    fn a_value_has_no_white_space_around_it() {
        let plain = Ok(("Server".to_owned(), b"a \t b".to_vec()));
        for line in [&b"Server:a \t b"[..], b"Server: a \t b", b"Server: \t a \t b \t "] {
            assert_eq!(read(line), plain);
        }
        assert_eq!(read(b"Pragma:"), Ok(("Pragma".to_owned(), vec![])));
        assert_eq!(read(b"Pragma: \t"), Ok(("Pragma".to_owned(), vec![])));
    }

    #[test]
    fn a_value_may_be_other_than_ascii() {
        assert_eq!(read(b"X: \xe4:\xff").unwrap().1, b"\xe4:\xff");
    }

    #[test]
    fn a_name_is_a_token_and_the_same_in_either_case() {
        let field = Field::parse(b"x-$_.~Name!: 1").unwrap();
        assert!(field.is("X-$_.~nAME!") && !field.is("x-$_.~name"));
        for line in [&b"a b: 1"[..], b"a(b: 1", b"\xe4: 1", b": 1", b":", b"no colon", b"a\"b: 1"] {
            assert_eq!(read(line), Err(Fault::Field { found: excerpt(line) }));
        }
    }

    #[test]
    fn a_second_line_of_a_field_is_refused() {
        for line in [&b" folded"[..], b"\tfolded", b" Name: value", b" "] {
            assert_eq!(read(line), Err(Fault::Folded));
        }
    }

    #[test]
    fn white_space_before_the_colon_is_refused() {
        for line in [&b"Name : value"[..], b"Name\t: value", b"Content-Length  : 5"] {
            assert_eq!(read(line), Err(Fault::SpaceBeforeColon { found: excerpt(line) }));
        }
    }

    #[test]
    fn a_hundred_fields_are_read_and_no_more() {
        assert_eq!(all(&[b"a: 1\r\n".repeat(100), CRLF.to_vec()].concat()), Ok(100));
        let error = all(&b"a: 1\r\n".repeat(101)).unwrap_err();
        assert_eq!(error, FramingError { at: 600, fault: Fault::TooManyFields });
    }

    #[test]
    fn sixteen_kib_of_fields_are_read_and_no_more() {
        let fields = |last: usize| {
            let long = [b"a: ".to_vec(), vec![b'x'; 4096 - 5], CRLF.to_vec()].concat();
            let end = [b"a: ".to_vec(), vec![b'x'; last - 5], CRLF.to_vec(), CRLF.to_vec()].concat();
            [long.repeat(3), end].concat()
        };
        assert_eq!(all(&fields(4096)), Ok(4));
        let error = all(&fields(4097)).unwrap_err();
        assert_eq!(error, FramingError { at: MAX_FIELDS_BYTES as u64 - 2, fault: Fault::FieldsTooLong });
    }
}
