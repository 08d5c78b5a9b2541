//! The head of a response: status line and fields (RFC 9112 4, 5).

use core::ops::Range;

use super::cursor::{CRLF, Cursor, Line};
use super::error::excerpt;
use super::field::{Fields, Row, elements};
use super::{BodyLength, Fault, Field, FramingError, Request};
use crate::StatusClass;

/// So many bytes a status line may have, without what ends it.
pub const MAX_STATUS_LINE: usize = 8 << 10;

/// The version of HTTP that a response is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// A response's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Where it is in the stream, with the empty line at its end.
    pub at: Range<u64>,
    /// Its version.
    pub version: Version,
    /// The status code, 100 to 999.
    pub status: u16,
    /// The reason phrase, which means nothing (RFC 9112 4). Not always text.
    pub reason: Vec<u8>,
    /// In the order in which they came, none merged.
    pub fields: Vec<Field>,
    /// What follows.
    pub body: BodyLength,
}

impl Head {
    /// The class of its status; a code from 600 on is one of a server's error (RFC 9110 15).
    #[must_use]
    pub fn class(&self) -> StatusClass {
        StatusClass::of(self.status).unwrap_or(StatusClass::ServerError)
    }

    /// The values of all fields of this name.
    pub fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |field| field.is(name)).map(|field| &field.value[..])
    }

    /// Whether another response may follow on the connection (RFC 9112 9.3): HTTP/1.1 persists unless it says
    /// `Connection: close`, HTTP/1.0 if it says `keep-alive` and does not say `close`. It means nothing in an interim
    /// response or before a tunnel.
    #[must_use]
    pub fn persists(&self) -> bool {
        let says = |option: &[u8]| {
            elements(&self.fields, "connection").any(|(_, said)| said.eq_ignore_ascii_case(option))
        };
        !says(b"close") && (self.version == Version::Http11 || says(b"keep-alive"))
    }
}

/// A head that is under way.
#[derive(Clone, Debug)]
pub(super) struct HeadReader {
    start: u64,
    line: Line,
    status: Option<StatusLine>,
    reader: Fields,
    fields: Vec<Field>,
}

impl HeadReader {
    /// One that begins at this offset.
    pub(super) fn new(start: u64) -> Self {
        Self { start, line: Line::default(), status: None, reader: Fields::default(), fields: Vec::new() }
    }

    /// Where it begins.
    pub(super) const fn start(&self) -> u64 {
        self.start
    }

    /// The head of the response to `request`, once it is there.
    pub(super) fn take(
        &mut self,
        cursor: &mut Cursor<'_>,
        request: Request,
    ) -> Result<Option<Head>, FramingError> {
        if self.status.is_none() {
            self.status = self.status_line(cursor)?;
        }
        if self.status.is_none() {
            return Ok(None);
        }
        loop {
            match self.reader.take(cursor)? {
                None => return Ok(None),
                Some(Row::Field(field)) => self.fields.push(field),
                Some(Row::End) => break,
            }
        }
        let Some(status) = self.status.take() else { return Ok(None) };
        let body = BodyLength::of(request, status.version, status.code, &self.fields)
            .map_err(|fault| FramingError { at: self.start, fault })?;
        Ok(Some(Head {
            at: self.start..cursor.at(),
            version: status.version,
            status: status.code,
            reason: status.reason,
            fields: core::mem::take(&mut self.fields),
            body,
        }))
    }

    /// What does not speak HTTP is known by its first bytes, whether or not a line ever ends. No empty line may
    /// stand before it: only a server is to skip one (RFC 9112 2.2).
    fn status_line(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<StatusLine>, FramingError> {
        while let Some(wanted) = b"HTTP/1.".get(self.line.len()) {
            match cursor.peek() {
                None => return Ok(None),
                Some(found) if found == *wanted => self.line.push(found),
                Some(found) => return Err(cursor.fault(Fault::NotHttp { found })),
            }
            cursor.take(1);
        }
        let line = self.line.take(cursor, MAX_STATUS_LINE, Fault::StatusLineTooLong)?;
        let parsed = line.map(|line| StatusLine::parse(&line)).transpose();
        parsed.map_err(|fault| FramingError { at: self.start, fault })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct StatusLine {
    version: Version,
    code: u16,
    reason: Vec<u8>,
}

impl StatusLine {
    /// Reads a line, without its end. The space behind the code may be missing, against RFC 9112 4: so do many
    /// servers, and nobody reads it otherwise.
    fn parse(line: &[u8]) -> Result<Self, Fault> {
        const BEFORE_REASON: usize = "HTTP/1.1 200 ".len();
        let whole = [line, CRLF, CRLF].concat();
        let mut parsed = httparse::Response::new(&mut []);
        let complete = parsed.parse(&whole).is_ok_and(|status| status.is_complete());
        match (complete, parsed.version, parsed.code) {
            (true, Some(minor), Some(code @ 100..)) => Ok(Self {
                version: if minor == 0 { Version::Http10 } else { Version::Http11 },
                code,
                // httparse hands out only a reason in ASCII.
                reason: line.get(BEFORE_REASON..).unwrap_or_default().to_vec(),
            }),
            _ => Err(Fault::StatusLine { found: excerpt(line) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(line: &str) -> Option<(Version, u16, String)> {
        let parsed = StatusLine::parse(line.as_bytes());
        parsed.ok().map(|line| (line.version, line.code, String::from_utf8(line.reason).unwrap()))
    }

    fn head(input: &[u8]) -> Result<Option<Head>, FramingError> {
        HeadReader::new(0).take(&mut Cursor::new(0, input), Request::Other)
    }

    #[test]
    fn a_status_line_has_a_version_a_code_and_maybe_a_reason() {
        let ok = |version, code, reason: &str| Some((version, code, reason.to_owned()));
        assert_eq!(status("HTTP/1.1 200 OK"), ok(Version::Http11, 200, "OK"));
        assert_eq!(status("HTTP/1.0 404 Not Found"), ok(Version::Http10, 404, "Not Found"));
        assert_eq!(status("HTTP/1.1 200 "), ok(Version::Http11, 200, ""));
        assert_eq!(status("HTTP/1.1 200"), ok(Version::Http11, 200, ""));
        assert_eq!(status("HTTP/1.1 500 Oriëntatieprobleem"), ok(Version::Http11, 500, "Oriëntatieprobleem"));
        assert_eq!(status("HTTP/1.1 999 ?"), ok(Version::Http11, 999, "?"));
    }

    #[test]
    fn anything_else_is_no_status_line() {
        for line in [
            "",
            "HTTP/1.1",
            "HTTP/1.1 ",
            "HTTP/1.1 20",
            "HTTP/1.1 2000",
            "HTTP/1.1 2 OK",
            "HTTP/1.1 20x OK",
            "HTTP/1.1 200OK",
            "HTTP/1.1  200 OK",
            "HTTP/1.1\t200 OK",
            "HTTP/1.1 200\tOK",
            "HTTP/1.1 -20 OK",
            "HTTP/1.1 099 OK",
            "HTTP/1.2 200 OK",
            "HTTP/2.0 200 OK",
            "HTTP/0.9 200 OK",
            "HTTP/1.01 200 OK",
            "HTTP/01.1 200 OK",
            "http/1.1 200 OK",
            "ICY 200 OK",
            " HTTP/1.1 200 OK",
        ] {
            assert_eq!(status(line), None, "{line}");
        }
    }

    #[test]
    fn what_is_not_http_is_known_by_its_first_byte_that_differs() {
        for (input, at) in [(&b"\r\nHTTP/1.1 200 OK\r\n"[..], 0), (b"\x16\x03\x01", 0), (b"HTTP/2", 5)] {
            let found = input[usize::try_from(at).unwrap()];
            assert_eq!(head(input), Err(FramingError { at, fault: Fault::NotHttp { found } }));
        }
        assert_eq!(head(b"HTTP/1."), Ok(None));
    }

    #[test]
    fn a_head_says_where_it_is_and_keeps_its_fields_in_order() {
        let input = b"HTTP/1.1 200 OK\r\nB: 2\r\nA: 1\r\nb: 3\r\n\r\nbody";
        let head = head(input).unwrap().unwrap();
        assert_eq!(head.at, 0..input.len() as u64 - 4);
        assert_eq!(head.fields.iter().map(|field| &field.name[..]).collect::<String>(), "BAb");
        assert_eq!(head.values("b").collect::<Vec<_>>(), [b"2", b"3"]);
        assert_eq!((head.class(), head.body), (StatusClass::Successful, BodyLength::UntilClose));
    }

    #[test]
    fn a_connection_persists_by_version_and_options() {
        for (version, connection, persists) in [
            ("1.1", "", true),
            ("1.1", "Connection: keep-alive\r\n", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "connection: x, CLOSE\r\nConnection: keep-alive\r\n", false),
            ("1.1", "Connection: closed\r\nProxy-Connection: close\r\n", true),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ] {
            let input = format!("HTTP/{version} 200 OK\r\n{connection}\r\n");
            assert_eq!(head(input.as_bytes()).unwrap().unwrap().persists(), persists, "{input}");
        }
    }

    #[test]
    fn a_status_nobody_knows_is_a_servers_error() {
        let head = head(b"HTTP/1.1 742 Hm\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.status, head.class()), (742, StatusClass::ServerError));
    }

    #[test]
    fn eight_kib_of_a_status_line_are_read_and_no_more() {
        let line =
            |len: usize| [b"HTTP/1.1 200 ".to_vec(), vec![b'x'; len - 13], b"\r\n\r\n".to_vec()].concat();
        assert!(head(&line(MAX_STATUS_LINE)).unwrap().is_some());
        let error = head(&line(MAX_STATUS_LINE + 1)).unwrap_err();
        assert_eq!(error, FramingError { at: MAX_STATUS_LINE as u64, fault: Fault::StatusLineTooLong });
    }

    #[test]
    fn a_wrong_line_is_told_with_where_it_begins() {
        assert_eq!(head(b"HTTP/1.1 2x0\r\n").unwrap_err().at, 0);
        let folded = head(b"HTTP/1.1 200 OK\r\nA: 1\r\n b\r\n\r\n").unwrap_err();
        assert_eq!(folded, FramingError { at: 23, fault: Fault::Folded });
    }
}
