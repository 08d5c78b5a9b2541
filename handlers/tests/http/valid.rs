//! Streams that are right, for tests that cut them.

use handlers::http::Request::{self, Connect, Head, Other};

/// What was asked, what came, and how many final responses are complete when the peer has closed.
pub(crate) struct Valid {
    pub(crate) what: &'static str,
    pub(crate) requests: &'static [Request],
    pub(crate) stream: &'static [u8],
    pub(crate) complete: usize,
}

const fn valid(
    what: &'static str,
    requests: &'static [Request],
    stream: &'static [u8],
    complete: usize,
) -> Valid {
    Valid { what, requests, stream, complete }
}

pub(crate) const VALID: &[Valid] = &[
    valid("no body", &[Other], b"HTTP/1.1 204 No Content\r\nServer: a\r\n\r\n", 1),
    valid("a counted body", &[Other], b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 1),
    valid("an empty body", &[Other], b"HTTP/1.1 200 \r\ncontent-length:0\r\n\r\n", 1),
    valid(
        "a length said twice",
        &[Other],
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\
      Content-Length: 02\r\n\r\nok",
        1,
    ),
    valid(
        "a body like a head",
        &[Other],
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 19\r\n\r\n\
      HTTP/1.1 200 OK\r\n\r\n",
        1,
    ),
    valid(
        "a chunk",
        &[Other],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n\
      0\r\n\r\n",
        1,
    ),
    valid(
        "chunks with extensions and a trailer",
        &[Other],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\nTrailer: Digest\r\n\r\n\
          5;a=b\r\n\r\n\r\n0\r\n00A ; c=\"d\"\r\n0123456789\r\n0;z\r\nDigest: x\r\nExpires: \r\n\r\n",
        1,
    ),
    valid("until the close", &[Other], b"HTTP/1.0 200 OK\r\nServer:\ta \r\n\r\n\x00\r\n\r\n\xff", 1),
    valid("nothing until the close", &[Other], b"HTTP/1.1 500 No\r\nConnection: close\r\n\r\n", 1),
    valid("another coding", &[Other], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n\x1f\x8b", 1),
    valid("a response to HEAD", &[Head], b"HTTP/1.1 200 OK\r\nContent-Length: 10485760\r\n\r\n", 1),
    valid(
        "a part",
        &[Other],
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\n\
      Content-Length: 2\r\n\r\nab",
        1,
    ),
    valid(
        "not modified",
        &[Other],
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\
      ETag: \"x\"\r\n\r\n",
        1,
    ),
    valid("a redirection", &[Other], b"HTTP/1.1 302\r\nLocation: /\r\nContent-Length: 1\r\n\r\n\n", 1),
    valid(
        "interim responses",
        &[Other],
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\
          Content-Length: 2\r\n\r\nok",
        1,
    ),
    valid(
        "pipelined",
        &[Other, Head, Other, Other],
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
          HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\
          HTTP/1.1 100 Continue\r\n\r\n\
          HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n\
          HTTP/1.1 200 OK\r\n\r\nthe rest",
        4,
    ),
    valid(
        "an upgrade",
        &[Other],
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\
      \x81\x05hello",
        0,
    ),
    valid("a tunnel", &[Connect], b"HTTP/1.1 200 Connection Established\r\n\r\n\x16\x03\x01", 0),
    valid(
        "a tunnel refused",
        &[Connect, Other],
        b"HTTP/1.1 403 No\r\nContent-Length: 1\r\n\r\n\
      nHTTP/1.1 204 No\r\n\r\n",
        2,
    ),
    valid("a body cut short", &[Other], b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", 0),
    valid(
        "chunks cut short",
        &[Other],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n\
      hello\r\n",
        0,
    ),
    valid("a head cut short", &[Other], b"HTTP/1.1 200 OK\r\nContent-Len", 0),
];
