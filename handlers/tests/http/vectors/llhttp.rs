//! llhttp's, of test/response/.

use handlers::http::Request;

use super::Verdict::{Read, Refused, Wants};
use super::{EMPTY, EXTENSION, Vector, other, same, verdict};

pub(super) const VECTORS: &[Vector] = &[
    // Heads.
    same(
        "simple",
        b"HTTP/1.1 200 OK\r\nHeader1: Value1\r\nHeader2:\t Value2\r\nContent-Length: 0\r\n\r\n",
        Read(1),
    ),
    same("neither headers nor body", b"HTTP/1.1 404 Not Found\r\n\r\n", Read(1)),
    same("no reason", b"HTTP/1.1 301\r\n\r\n", Read(1)),
    same("an empty reason behind a space", b"HTTP/1.1 200 \r\n\r\n", Read(1)),
    same("two spaces before the reason", b"HTTP/1.1 200  OK\r\n\r\n", Read(1)),
    same(
        "an odd but valid name",
        b"HTTP/1.1 301 Moved\r\nX-$PrototypeBI-Version: 1\r\nContent-Length:  2  \r\n\r\nok",
        Read(1),
    ),
    same(
        "an underscore in a name",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDCLK_imp: v7;x;~okv=;\r\n\r\n",
        Read(1),
    ),
    same(
        "an empty value",
        b"HTTP/1.0 301 Moved\r\nPragma: \r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        Read(1),
    ),
    same(
        "names that begin oddly",
        b"HTTP/1.1 200 OK\r\n.et-Cookie: a=b; path=/\r\n_onnection: x\r\n\
          Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Read(1),
    ),
    other("RTSP", b"RTSP/1.1 200 OK\r\n\r\n", [Read(1), Refused], "a stub's plan is about HTTP"),
    other("ICE", b"ICE/1.1 200 OK\r\n\r\n", [Read(1), Refused], "a stub's plan is about HTTP"),
    same("another protocol that begins like it", b"HTTPER/1.1 200 OK\r\n\r\n", Refused),
    same("a letter missing", b"HTP/1.1 200 OK\r\n\r\n", Refused),
    same("a major version of two digits, 0 first", b"HTTP/01.1 200 OK\r\n\r\n", Refused),
    same("a major version of two digits", b"HTTP/11.1 200 OK\r\n\r\n", Refused),
    same("a minor version of two digits", b"HTTP/1.01 200 OK\r\n\r\n", Refused),
    same("a version that there is not", b"HTTP/5.6 200 OK\r\n\r\n", Refused),
    same("a tab behind the version", b"HTTP/1.1\t200 OK\r\n\r\n", Refused),
    same("a CR first, and that tab", b"\rHTTP/1.1\t200 OK\r\n\r\n", Refused),
    same("two spaces behind the version", b"HTTP/1.1  200 OK\r\n\r\n", Refused),
    same("a status of one digit", b"HTTP/1.1 2 OK\r\n\r\n", Refused),
    same("a space before the first name", b"HTTP/1.1 200 OK\r\n Host: foo\r\n\r\n", Refused),
    same("CR between fields", b"HTTP/1.1 200 OK\r\nFoo: 1\rBar: 2\r\n\r\n", Refused),
    same("LF only, no body", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", Refused),
    same("LF only, a body", b"HTTP/1.1 200 OK\nFoo: abc\nBar: def\n\nBODY\n", Refused),
    same(
        "a space in a name",
        b"HTTP/1.1 200 OK\r\nen-US Content-Type: text/xml\r\nContent-Length: 0\r\n\r\n",
        Refused,
    ),
    same(
        "other than ASCII in the reason",
        b"HTTP/1.1 500 Ori\xc3\xabntatieprobleem\r\nContent-Length: 0\r\n\r\n",
        Read(1),
    ),
    other(
        "HTTP/0.9",
        b"HTTP/0.9 200 OK\r\n\r\n",
        [Read(1), Refused],
        "a response of HTTP/0.9 has no status line, so this is none",
    ),
    other(
        "an empty line first",
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        [Read(1), Refused],
        EMPTY,
    ),
    // Lengths.
    same("no length", b"HTTP/1.1 200 OK\r\nServer: Apache\r\nConnection: close\r\n\r\n<?xml?>\n", Read(1)),
    same(
        "a name that begins with Content-Length",
        b"HTTP/1.1 200 OK\r\nContent-Length-X: 0\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n\
          0\r\n\r\n",
        Read(1),
    ),
    same("tabs around a length", b"HTTP/1.1 200 OK\r\nContent-Length:\t42\t\r\n\r\n", Wants),
    same(
        "a length",
        b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nProxy-Connection: close\r\n\r\nhello world",
        Read(1),
    ),
    same(
        "HTTP/1.0, kept alive, no length",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nHTTP/1.0 200 OK",
        Read(1),
    ),
    same("no length, until the end", b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK", Read(1)),
    same(
        "bytes behind a close",
        b"HTTP/1.1 204 No content\r\nConnection: close\r\n\r\nHTTP/1.1 200 OK",
        Refused,
    )
    .asked_twice(),
    same(
        "more bytes than the length",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n2ad731e3-4dcd",
        Refused,
    )
    .asked_twice(),
    other(
        "101 with a length",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\
          Content-Length: 4\r\n\r\nbodyproto",
        [Read(1), Wants],
        "101 has no body: what follows is the other protocol (RFC 9112 6.3, RFC 9110 15.2.2)",
    ),
    same("200 with Upgrade", b"HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nbody", Read(1)),
    same(
        "200 with Upgrade and a length",
        b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nContent-Length: 4\r\n\r\nbody",
        Read(1),
    ),
    same(
        "200 with Upgrade, chunked",
        b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n\
          0\r\n\r\n",
        Read(1),
    ),
    // Codings and chunks.
    same(
        "an empty coding and a length",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello",
        Refused,
    ),
    same(
        "chunked before another",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, deflate\r\n\r\nWorld",
        Read(1),
    ),
    same(
        "chunked before another, in two fields",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\nWorld",
        Read(1),
    ),
    same(
        "chunkedchunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunkedchunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n",
        Read(1),
    ),
    same(
        "a chunk that is a line end",
        b"HTTP/1.1 301 Moved\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n0\r\n\r\n",
        Read(1),
    ),
    same(
        "spaces behind a size",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2  \r\nab\r\n0  \r\n\r\n",
        Refused,
    ),
    same(
        "extensions",
        b"HTTP/1.1 200 OK\r\nTransfer-encoding: chunked\r\n\r\n5;ilovew3;somuchlove=x\r\nhello\r\n\
          6;blahblah;blah\r\n world\r\n0\r\n\r\n",
        Read(1),
    ),
    same(
        "extensions in quotes",
        b"HTTP/1.1 200 OK\r\nTransfer-encoding: chunked\r\n\r\n5;a=\"I love; extensions\";b=\"c\"\r\n\
          hello\r\n0\r\n\r\n",
        Read(1),
    ),
    same(
        "an extension without a semicolon",
        b"HTTP/1.1 200 OK\r\nTransfer-encoding: chunked\r\n\r\n2 erfr\r\naa\r\n0\r\n\r\n",
        Refused,
    ),
    other(
        "a semicolon without an extension",
        b"HTTP/1.1 200 OK\r\nTransfer-encoding: chunked\r\n\r\n2;\r\naa\r\n0\r\n\r\n",
        [Refused, Read(1)],
        EXTENSION,
    ),
    other(
        "an extension whose quotes do not end",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"abc\";b=\"def; ghi\r\nhello\r\n\
          0\r\n\r\n",
        [Refused, Read(1)],
        EXTENSION,
    ),
];

/// Those of llhttp that are about several responses.
#[test]
fn responses_are_followed_by_the_next_one() {
    let skipped =
        b"HTTP/1.1 200 OK\r\nContent-Length: 123\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 456\r\n\r\n";
    assert_eq!(verdict(&[Request::Head; 2], skipped), Read(2));
    let empty = b"HTTP/1.1 204 No content\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    assert_eq!(verdict(&[Request::Other; 2], empty), Read(2));
    let pipelined = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nAAA\r\nHTTP/1.1 201 Created\r\n\
      Content-Length: 4\r\n\r\nBBBB";
    assert_eq!(verdict(&[Request::Other; 2], pipelined), Refused, "{EMPTY}: llhttp reads both");
}
