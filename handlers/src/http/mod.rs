//! Where HTTP/1.1 responses begin and end in a stream of bytes, and what in it is content (RFC 9110, RFC 9112).
//!
//! [`Responses`] is told which requests were sent and takes what the peer sends, cut anywhere. It says where each
//! head is and what it says, which bytes are content, and where each response ends. It keeps no content: of a
//! stream it remembers the head that is under way, within limits, and a few numbers.
//!
//! It is stricter than RFC 9112 asks a recipient to be: where two parsers could understand different things, the
//! stub and the guest behind it must not be the two. Any doubt is a [`FramingError`], and whoever gets one stops
//! to interpret the stream and gives the guest all of it.
//!
//! hyper 1.12 reads some of what is refused here. A test compares the two on generated responses, one on a
//! connection, by head, content and end, and finds no other difference. Trailers are not compared, only whether
//! they are read; nor is what follows on a connection. Of the limits in the second table, the responses reach only
//! the one on the digits of a chunk's size:
//!
//! | what comes | hyper | here | section |
//! |---|---|---|---|
//! | LF alone in a head or a trailer | ends a line | refused | RFC 9112 2.2 allows both |
//! | empty lines before the status line | skipped | refused | RFC 9112 2.2: that is for servers |
//! | `Transfer-Encoding` and `Content-Length` | the former wins | refused | RFC 9112 6.3, 11.2 |
//! | 101 without `Upgrade`, or of HTTP/1.0 | a tunnel | refused | RFC 9110 7.8, 15.2.2 |
//! | `Transfer-Encoding` in 1xx or 204, or in a response of HTTP/1.0 without a body | ignored | refused | RFC 9112 6.1 |
//! | `Content-Length` other than 0 in 1xx or 204 | ignored | refused | RFC 9110 8.6 |
//! | `Transfer-Encoding` with empty elements, quotes, chunked twice | the last comma decides | refused | RFC 9112 6.1, 7.1 |
//! | `Content-Length` from 2^63 on | read | refused | RFC 9110 8.6: prevent overflows |
//! | a chunk's size of more than 16 digits | read, if the first ones are 0 | refused | RFC 9112 7.1 |
//! | white space behind a chunk's size, without an extension | skipped | refused | in no rule of RFC 9112 7.1 |
//! | control characters in a chunk's extensions | skipped | refused | in no rule of RFC 9112 7.1.1 |
//!
//! | what | limit | hyper's | section |
//! |---|---|---|---|
//! | status line | [`MAX_STATUS_LINE`] | with the fields 408 KiB | ours |
//! | bytes of fields of a head | [`MAX_FIELDS_BYTES`] | with the status line 408 KiB | ours, RFC 9110 5.4 |
//! | bytes of fields of a trailer | [`MAX_FIELDS_BYTES`] | 16 KiB | ours, RFC 9110 5.4 |
//! | fields of a head, and of a trailer | [`MAX_FIELDS`] | 100 | ours, RFC 9110 5.4 |
//! | interim responses before a final one | [`MAX_INTERIM`] | none | ours, RFC 9110 15.2 |
//! | digits of a chunk's size | [`MAX_CHUNK_DIGITS`] | none, if the first ones are 0 | RFC 9112 7.1 |
//! | chunk extensions of a body | [`MAX_EXTENSION_BYTES`] | less than 16 KiB without semicolons and white space before them | ours, RFC 9112 7.1.1 |
//! | requests that wait for a response | [`MAX_OUTSTANDING`] | 1 | ours, RFC 9112 9.3.2 |

mod chunked;
mod cursor;
mod error;
mod field;
mod head;
mod length;
mod response;

pub use chunked::{MAX_CHUNK_DIGITS, MAX_EXTENSION_BYTES};
pub use error::{Fault, FramingError};
pub use field::{Field, MAX_FIELDS, MAX_FIELDS_BYTES};
pub use head::{Head, MAX_STATUS_LINE, Version};
pub use length::{BodyLength, Request};
pub use response::{MAX_INTERIM, MAX_OUTSTANDING, NotExpected, ResponseEvent, Responses, Within};
