//! picohttpparser's, of test.c.

use super::Verdict::{Read, Refused, Wants};
use super::{FOLD, LF, Vector, other, same};

pub(super) const VECTORS: &[Vector] = &[
    same("simple", b"HTTP/1.0 200 OK\r\n\r\n", Read(1)),
    same("an LF missing", b"HTTP/1.0 200 OK\r\n\r", Wants),
    same("fields", b"HTTP/1.1 200 OK\r\nHost: example.com\r\nCookie: \r\n\r\n", Read(1)),
    other("folded", b"HTTP/1.0 200 OK\r\nfoo: \r\nfoo: b\r\n  \tc\r\n\r\n", [Read(1), Refused], FOLD),
    same("another status", b"HTTP/1.0 500 Internal Server Error\r\n\r\n", Read(1)),
    same("incomplete 1", b"H", Wants),
    same("incomplete 2", b"HTTP/1.", Wants),
    same("incomplete 3", b"HTTP/1.1", Wants),
    same("incomplete 4", b"HTTP/1.1 ", Wants),
    same("incomplete 5", b"HTTP/1.1 2", Wants),
    same("incomplete 6", b"HTTP/1.1 200", Wants),
    same("incomplete 7", b"HTTP/1.1 200 ", Wants),
    same("incomplete 8", b"HTTP/1.1 200 O", Wants),
    same("incomplete 9", b"HTTP/1.1 200 OK\r", Wants),
    same("incomplete 10", b"HTTP/1.1 200 OK\r\n", Wants),
    other("incomplete, and LF only", b"HTTP/1.1 200 OK\n", [Wants, Refused], LF),
    same("incomplete 11", b"HTTP/1.1 200 OK\r\nA: 1\r", Wants),
    same("incomplete 12", b"HTTP/1.1 200 OK\r\nA: 1\r\n", Wants),
    same("no minor version", b"HTTP/1. 200 OK\r\n\r\n", Refused),
    same("a letter in the version", b"HTTP/1.2z 200 OK\r\n\r\n", Refused),
    same("no status", b"HTTP/1.1  OK\r\n\r\n", Refused),
    // Of its decoder of chunks, behind a head of ours; its trailers end with the empty line too.
    same(
        "a chunk",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n",
        Read(1),
    ),
    same(
        "chunks, their end missing",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n",
        Wants,
    ),
    same(
        "chunks and an extension",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6;comment=hi\r\nhello \r\n5\r\n\
          world\r\n0\r\n",
        Wants,
    ),
    same(
        "chunks and a trailer",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\
          a: b\r\nc: d\r\n\r\n",
        Read(1),
    ),
    other(
        "chunks with LF only",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\nhello world\n0\n\n",
        [Read(1), Refused],
        LF,
    ),
    same("no size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\nabcdefg", Refused),
    same(
        "a size of 64 bits",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\nffffffffffffffff\r\n\
          abcdefg",
        Wants,
    ),
    same(
        "a size of 68 bits",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\nfffffffffffffffff\r\n\
          abcdefg",
        Refused,
    ),
];
