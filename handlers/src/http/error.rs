//! Why a stream cannot be read as HTTP responses: what was found, and what was wanted.

use core::fmt;

use super::{
    MAX_CHUNK_DIGITS, MAX_EXTENSION_BYTES, MAX_FIELDS, MAX_FIELDS_BYTES, MAX_INTERIM, MAX_STATUS_LINE,
};

/// What is wrong with the stream, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FramingError {
    /// The offset in the stream of the first byte that cannot be right; of a line or a head that is wrong as a
    /// whole, where that begins. In bytes from the first one that was handed in.
    pub at: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a response. Lines and values are quoted escaped, and shortened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A byte came and no request waits for a response (RFC 9112 9.2).
    Unasked,
    /// A byte came behind the last response of the connection: that said so, or the peer had closed (RFC 9112 9.3,
    /// 9.6).
    AfterLast,
    /// A response does not begin with `HTTP/1.`.
    NotHttp {
        /// The first byte that differs.
        found: u8,
    },
    /// No status line of HTTP/1.0 or 1.1 with a code from 100 on (RFC 9112 4).
    StatusLine {
        /// The line.
        found: String,
    },
    /// The status line is longer than [`MAX_STATUS_LINE`].
    StatusLineTooLong,
    /// A line feed without a carriage return before it (RFC 9112 2.2).
    BareLf,
    /// A carriage return without a line feed behind it (RFC 9112 2.2).
    BareCr {
        /// What is there instead.
        found: u8,
    },
    /// A control character in a line (RFC 9110 5.5).
    Control {
        /// Which.
        found: u8,
    },
    /// A field goes on in a second line (RFC 9112 5.2).
    Folded,
    /// White space between a field's name and the colon (RFC 9112 5.1).
    SpaceBeforeColon {
        /// The line.
        found: String,
    },
    /// A line that is no field (RFC 9112 5).
    Field {
        /// The line.
        found: String,
    },
    /// More than [`MAX_FIELDS`].
    TooManyFields,
    /// More than [`MAX_FIELDS_BYTES`].
    FieldsTooLong,
    /// More than [`MAX_INTERIM`].
    TooManyInterim,
    /// 101 without an `Upgrade` field, or of HTTP/1.0 (RFC 9110 7.8, 15.2.2).
    Switching,
    /// `Transfer-Encoding` and `Content-Length` in one head (RFC 9112 6.1, 11.2).
    EncodingAndLength,
    /// `Transfer-Encoding` in HTTP/1.0 (RFC 9112 6.1).
    EncodingInHttp10,
    /// `Transfer-Encoding` in a response that never has a body (RFC 9112 6.1).
    EncodingWithoutBody {
        /// Its status, 1xx or 204.
        status: u16,
    },
    /// A `Content-Length` other than 0 in a response that never has a body (RFC 9110 8.6).
    LengthWithoutBody {
        /// Its status, 1xx or 204.
        status: u16,
    },
    /// A `Transfer-Encoding` that cannot be told for certain (RFC 9112 6.1, 7).
    Encoding {
        /// The value.
        found: String,
    },
    /// A `Content-Length` that is no decimal number below 2^63 (RFC 9110 8.6).
    ContentLength {
        /// The value.
        found: String,
    },
    /// Two values of `Content-Length` that differ (RFC 9112 6.3).
    ContentLengths {
        /// The first of them.
        first: u64,
        /// The other one.
        other: u64,
    },
    /// Something else in the place of a chunk's size (RFC 9112 7.1).
    ChunkSize {
        /// The byte.
        found: u8,
    },
    /// A chunk's size has more than [`MAX_CHUNK_DIGITS`].
    ChunkSizeTooLong,
    /// A control character in a chunk's extensions, or white space that no extension follows (RFC 9112 7.1.1).
    ChunkExtension {
        /// The byte.
        found: u8,
    },
    /// More than [`MAX_EXTENSION_BYTES`] in one body.
    ChunkExtensionsTooLong,
    /// Something else than CR LF behind a chunk's size or its data (RFC 9112 7.1).
    ChunkEnd {
        /// The byte.
        found: u8,
    },
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.at, self.fault)
    }
}

impl std::error::Error for FramingError {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let byte = |found: &u8| found.escape_ascii();
        match self {
            Self::Unasked => write!(f, "bytes behind the last response: wanted none"),
            Self::AfterLast => write!(f, "bytes behind the connection's last response: wanted a close"),
            Self::NotHttp { found } => write!(f, "found '{}': wanted \"HTTP/1.\"", byte(found)),
            Self::StatusLine { found } => {
                write!(
                    f,
                    "found \"{found}\": wanted HTTP/1.0 or HTTP/1.1, a space and a status of three digits"
                )
            }
            Self::StatusLineTooLong => {
                write!(f, "a longer status line: wanted at most {MAX_STATUS_LINE} bytes")
            }
            Self::BareLf => write!(f, "found LF alone: wanted CR LF"),
            Self::BareCr { found } => write!(f, "found CR and '{}': wanted CR LF", byte(found)),
            Self::Control { found } => write!(f, "found '{}': wanted no control character", byte(found)),
            Self::Folded => write!(f, "found a field of several lines: wanted one line"),
            Self::SpaceBeforeColon { found } => {
                write!(f, "found \"{found}\": wanted no white space before the colon")
            }
            Self::Field { found } => write!(f, "found \"{found}\": wanted a name, a colon and a value"),
            Self::TooManyFields => write!(f, "more fields: wanted at most {MAX_FIELDS}"),
            Self::FieldsTooLong => {
                write!(f, "longer fields: wanted at most {MAX_FIELDS_BYTES} bytes of them")
            }
            Self::TooManyInterim => {
                write!(f, "more interim responses: wanted a final one after at most {MAX_INTERIM}")
            }
            Self::Switching => write!(f, "found status 101: wanted HTTP/1.1 and an Upgrade field with it"),
            Self::EncodingAndLength => {
                write!(f, "found Transfer-Encoding and Content-Length: wanted one of them")
            }
            Self::EncodingInHttp10 => write!(f, "found Transfer-Encoding in HTTP/1.0: wanted HTTP/1.1"),
            Self::EncodingWithoutBody { status } => {
                write!(f, "found Transfer-Encoding with status {status}: wanted none")
            }
            Self::LengthWithoutBody { status } => {
                write!(f, "found a Content-Length with status {status}: wanted none, or 0")
            }
            Self::Encoding { found } => {
                write!(
                    f,
                    "found Transfer-Encoding \"{found}\": wanted names of codings, chunked once at most"
                )
            }
            Self::ContentLength { found } => {
                write!(f, "found Content-Length \"{found}\": wanted a decimal number below 2^63")
            }
            Self::ContentLengths { first, other } => {
                write!(f, "found Content-Length {first} and {other}: wanted one value")
            }
            Self::ChunkSize { found } => {
                write!(f, "found '{}': wanted a chunk's size in hexadecimal", byte(found))
            }
            Self::ChunkSizeTooLong => {
                write!(f, "a longer size of a chunk: wanted at most {MAX_CHUNK_DIGITS} digits")
            }
            Self::ChunkExtension { found } => {
                write!(f, "found '{}': wanted a chunk's extension without control characters", byte(found))
            }
            Self::ChunkExtensionsTooLong => {
                write!(f, "more chunk extensions: wanted at most {MAX_EXTENSION_BYTES} bytes of them")
            }
            Self::ChunkEnd { found } => {
                write!(f, "found '{}': wanted CR LF at the end of a chunk's line or data", byte(found))
            }
        }
    }
}

/// The beginning of `text`, for people and in bounded memory.
pub(super) fn excerpt(text: &[u8]) -> String {
    const LONGEST: usize = 64;
    let shown = text.get(..LONGEST).unwrap_or(text);
    let more = if shown.len() < text.len() { "..." } else { "" };
    format!("{}{more}", shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_where_what_and_what_instead() {
        let error = FramingError { at: 17, fault: Fault::BareCr { found: b'x' } };
        assert_eq!(error.to_string(), "at byte 17: found CR and 'x': wanted CR LF");
        let lengths = Fault::ContentLengths { first: 5, other: 6 };
        assert_eq!(lengths.to_string(), "found Content-Length 5 and 6: wanted one value");
        let line = Fault::Field { found: excerpt(b"\x00 and so on\xff") };
        assert_eq!(line.to_string(), r#"found "\x00 and so on\xff": wanted a name, a colon and a value"#);
    }

    #[test]
    fn what_is_quoted_is_short() {
        assert_eq!(excerpt(&[b'a'; 64]), "a".repeat(64));
        assert_eq!(excerpt(&[0; 9000]), r"\x00".repeat(64) + "...");
    }
}
