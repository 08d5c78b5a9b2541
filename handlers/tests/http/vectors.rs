//! What three public parsers are tested with, as far as it is about responses, and how each comes out here.
//!
//! Restated from llhttp (test/response/), httparse 1.10 (its unit tests) and picohttpparser (test.c), each parser as
//! it is by default; what they have for their lenient settings is left out. A verdict that is not theirs has a
//! reason. picohttpparser and httparse read heads only: what they accept may still want a body.

use handlers::http::Request;

use crate::whole;

/// Whose vector it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Llhttp,
    Httparse,
    Pico,
}
use Of::{Httparse, Llhttp, Pico};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Responses that are complete with the stream.
    Read(usize),
    /// Right so far, and more is wanted.
    Wants,
    Refused,
}
use Verdict::{Read, Refused, Wants};

/// A stream, what its parser says of it and what we say.
struct Vector {
    of: Of,
    what: &'static str,
    requests: &'static [Request],
    stream: &'static [u8],
    theirs: Verdict,
    ours: Verdict,
    /// Why they are not the same; empty if they are.
    reason: &'static str,
}

const fn same(of: Of, what: &'static str, stream: &'static [u8], verdict: Verdict) -> Vector {
    other(of, what, stream, [verdict, verdict], "")
}

const fn other(
    of: Of,
    what: &'static str,
    stream: &'static [u8],
    [theirs, ours]: [Verdict; 2],
    reason: &'static str,
) -> Vector {
    Vector { of, what, requests: &[Request::Other], stream, theirs, ours, reason }
}

impl Vector {
    /// The same with a second request, to which more than one response may be an answer.
    const fn asked_twice(self) -> Self {
        Self { requests: &[Request::Other; 2], ..self }
    }
}

const LF: &str = "LF alone ends no line: parsers disagree about it (RFC 9112 2.2)";
const FOLD: &str = "a folded field is refused, and not handed on as a line without a name (RFC 9112 5.2)";
const EMPTY: &str = "only a server is to skip an empty line (RFC 9112 2.2)";
const EXTENSION: &str = "an extension is skipped and not read: no grammar of it changes where the chunk is";

const VECTORS: &[Vector] = &[
    // Heads.
    same(
        Llhttp,
        "simple",
        b"HTTP/1.1 200 OK\r\nHeader1: Value1\r\nHeader2:\t Value2\r\nContent-Length: 0\r\n\r\n",
        Read(1),
    ),
    same(Llhttp, "neither headers nor body", b"HTTP/1.1 404 Not Found\r\n\r\n", Read(1)),
    same(Llhttp, "no reason", b"HTTP/1.1 301\r\n\r\n", Read(1)),
    same(Llhttp, "an empty reason behind a space", b"HTTP/1.1 200 \r\n\r\n", Read(1)),
    same(Llhttp, "two spaces before the reason", b"HTTP/1.1 200  OK\r\n\r\n", Read(1)),
    same(
        Llhttp,
        "an odd but valid name",
        b"HTTP/1.1 301 Moved\r\nX-$PrototypeBI-Version: 1\r\nContent-Length:  2  \r\n\r\nok",
        Read(1),
    ),
    same(
        Llhttp,
        "an underscore in a name",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDCLK_imp: v7;x;~okv=;\r\n\r\n",
        Read(1),
    ),
    same(
        Llhttp,
        "an empty value",
        b"HTTP/1.0 301 Moved\r\nPragma: \r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        Read(1),
    ),
    same(
        Llhttp,
        "names that begin oddly",
        b"HTTP/1.1 200 OK\r\n.et-Cookie: a=b; path=/\r\n_onnection: x\r\n\
          Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Read(1),
    ),
    other(Llhttp, "RTSP", b"RTSP/1.1 200 OK\r\n\r\n", [Read(1), Refused], "a stub's plan is about HTTP"),
    other(Llhttp, "ICE", b"ICE/1.1 200 OK\r\n\r\n", [Read(1), Refused], "a stub's plan is about HTTP"),
    same(Llhttp, "another protocol that begins like it", b"HTTPER/1.1 200 OK\r\n\r\n", Refused),
    same(Llhttp, "a letter missing", b"HTP/1.1 200 OK\r\n\r\n", Refused),
    same(Llhttp, "a major version of two digits, 0 first", b"HTTP/01.1 200 OK\r\n\r\n", Refused),
    same(Llhttp, "a major version of two digits", b"HTTP/11.1 200 OK\r\n\r\n", Refused),
    same(Llhttp, "a minor version of two digits", b"HTTP/1.01 200 OK\r\n\r\n", Refused),
    same(Llhttp, "a version that there is not", b"HTTP/5.6 200 OK\r\n\r\n", Refused),
    same(Llhttp, "a tab behind the version", b"HTTP/1.1\t200 OK\r\n\r\n", Refused),
    same(Llhttp, "a CR first, and that tab", b"\rHTTP/1.1\t200 OK\r\n\r\n", Refused),
    same(Llhttp, "two spaces behind the version", b"HTTP/1.1  200 OK\r\n\r\n", Refused),
    same(Llhttp, "a status of one digit", b"HTTP/1.1 2 OK\r\n\r\n", Refused),
    same(Llhttp, "a space before the first name", b"HTTP/1.1 200 OK\r\n Host: foo\r\n\r\n", Refused),
    same(Llhttp, "CR between fields", b"HTTP/1.1 200 OK\r\nFoo: 1\rBar: 2\r\n\r\n", Refused),
    same(Llhttp, "LF only, no body", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", Refused),
    same(Llhttp, "LF only, a body", b"HTTP/1.1 200 OK\nFoo: abc\nBar: def\n\nBODY\n", Refused),
    same(
        Llhttp,
        "a space in a name",
        b"HTTP/1.1 200 OK\r\nen-US Content-Type: text/xml\r\nContent-Length: 0\r\n\r\n",
        Refused,
    ),
    same(
        Llhttp,
        "other than ASCII in the reason",
        b"HTTP/1.1 500 Ori\xc3\xabntatieprobleem\r\nContent-Length: 0\r\n\r\n",
        Read(1),
    ),
    other(
        Llhttp,
        "HTTP/0.9",
        b"HTTP/0.9 200 OK\r\n\r\n",
        [Read(1), Refused],
        "a response of HTTP/0.9 has no status line, so this is none",
    ),
    other(
        Llhttp,
        "an empty line first",
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        [Read(1), Refused],
        EMPTY,
    ),
    // Lengths.
    same(
        Llhttp,
        "no length",
        b"HTTP/1.1 200 OK\r\nServer: Apache\r\nConnection: close\r\n\r\n<?xml?>\n",
        Read(1),
    ),
    same(
        Llhttp,
        "a name that begins with Content-Length",
        b"HTTP/1.1 200 OK\r\nContent-Length-X: 0\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n\
          0\r\n\r\n",
        Read(1),
    ),
    same(Llhttp, "tabs around a length", b"HTTP/1.1 200 OK\r\nContent-Length:\t42\t\r\n\r\n", Wants),
    same(
        Llhttp,
        "a length",
        b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nProxy-Connection: close\r\n\r\nhello world",
        Read(1),
    ),
    same(
        Llhttp,
        "HTTP/1.0, kept alive, no length",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nHTTP/1.0 200 OK",
        Read(1),
    ),
    same(Llhttp, "no length, until the end", b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK", Read(1)),
    same(
        Llhttp,
        "bytes behind a close",
        b"HTTP/1.1 204 No content\r\nConnection: close\r\n\r\nHTTP/1.1 200 OK",
        Refused,
    )
    .asked_twice(),
    same(
        Llhttp,
        "more bytes than the length",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n2ad731e3-4dcd",
        Refused,
    )
    .asked_twice(),
    other(
        Llhttp,
        "101 with a length",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\
          Content-Length: 4\r\n\r\nbodyproto",
        [Read(1), Wants],
        "101 has no body: what follows is the other protocol (RFC 9112 6.3, RFC 9110 15.2.2)",
    ),
    same(
        Llhttp,
        "200 with Upgrade",
        b"HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nbody",
        Read(1),
    ),
    same(
        Llhttp,
        "200 with Upgrade and a length",
        b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nContent-Length: 4\r\n\r\nbody",
        Read(1),
    ),
    same(
        Llhttp,
        "200 with Upgrade, chunked",
        b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n\
          0\r\n\r\n",
        Read(1),
    ),
    // Codings and chunks.
    same(
        Llhttp,
        "an empty coding and a length",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello",
        Refused,
    ),
    same(
        Llhttp,
        "chunked before another",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, deflate\r\n\r\nWorld",
        Read(1),
    ),
    same(
        Llhttp,
        "chunked before another, in two fields",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\nWorld",
        Read(1),
    ),
    same(
        Llhttp,
        "chunkedchunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunkedchunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n",
        Read(1),
    ),
    same(
        Llhttp,
        "a chunk that is a line end",
        b"HTTP/1.1 301 Moved\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n0\r\n\r\n",
        Read(1),
    ),
    same(
        Llhttp,
        "spaces behind a size",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2  \r\nab\r\n0  \r\n\r\n",
        Refused,
    ),
    same(
        Llhttp,
        "extensions",
        b"HTTP/1.1 200 OK\r\nTransfer-encoding: chunked\r\n\r\n5;ilovew3;somuchlove=x\r\nhello\r\n\
          6;blahblah;blah\r\n world\r\n0\r\n\r\n",
        Read(1),
    ),
    same(
        Llhttp,
        "extensions in quotes",
        b"HTTP/1.1 200 OK\r\nTransfer-encoding: chunked\r\n\r\n5;a=\"I love; extensions\";b=\"c\"\r\n\
          hello\r\n0\r\n\r\n",
        Read(1),
    ),
    same(
        Llhttp,
        "an extension without a semicolon",
        b"HTTP/1.1 200 OK\r\nTransfer-encoding: chunked\r\n\r\n2 erfr\r\naa\r\n0\r\n\r\n",
        Refused,
    ),
    other(
        Llhttp,
        "a semicolon without an extension",
        b"HTTP/1.1 200 OK\r\nTransfer-encoding: chunked\r\n\r\n2;\r\naa\r\n0\r\n\r\n",
        [Refused, Read(1)],
        EXTENSION,
    ),
    other(
        Llhttp,
        "an extension whose quotes do not end",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"abc\";b=\"def; ghi\r\nhello\r\n\
          0\r\n\r\n",
        [Refused, Read(1)],
        EXTENSION,
    ),
    // httparse's heads.
    same(Httparse, "simple", b"HTTP/1.1 200 OK\r\n\r\n", Read(1)),
    other(Httparse, "LF only", b"HTTP/1.0 403 Forbidden\nServer: foo.bar\n\n", [Read(1), Refused], LF),
    same(Httparse, "an empty reason", b"HTTP/1.1 200 \r\n\r\n", Read(1)),
    same(Httparse, "neither space nor reason", b"HTTP/1.1 200\r\n\r\n", Read(1)),
    same(Httparse, "neither, with a field", b"HTTP/1.1 200\r\nFoo: bar\r\n\r\n", Read(1)),
    other(
        Httparse,
        "a tab in the reason",
        b"HTTP/1.1 101 Switching Protocols\t\r\n\r\n",
        [Read(1), Refused],
        "101 says in Upgrade what follows (RFC 9110 15.2.2)",
    ),
    same(Httparse, "a tab in another reason", b"HTTP/1.1 200 Switching Protocols\t\r\n\r\n", Read(1)),
    same(Httparse, "other than ASCII in the reason", b"HTTP/1.1 200 X\xffZ\r\n\r\n", Read(1)),
    same(Httparse, "NUL in the reason", b"HTTP/1.1 200 \x00\r\n\r\n", Refused),
    same(Httparse, "a version only", b"HTTP/1.1", Wants),
    same(Httparse, "a status only", b"HTTP/1.1 200", Wants),
    same(Httparse, "a field and no end", b"HTTP/1.1 200 OK\r\nServer: yolo\r\n", Wants),
    other(Httparse, "empty lines first", b"\n\nHTTP/1.1 200 OK\n\n", [Read(1), Refused], EMPTY),
    other(
        Httparse,
        "LF only, no reason",
        b"HTTP/1.0 200\nContent-type: text/html\n\n",
        [Read(1), Refused],
        LF,
    ),
    same(
        Httparse,
        "a space before a colon",
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Credentials : true\r\nBread: baguette\r\n\r\n",
        Refused,
    ),
    same(
        Httparse,
        "folded from the start",
        b"HTTP/1.1 200 OK\r\nLine-Folded-Header: \r\n   \r\n hello there\r\n\r\n",
        Refused,
    ),
    same(
        Httparse,
        "folded at the end",
        b"HTTP/1.1 200 OK\r\nLine-Folded-Header: hello there\r\n   \r\n \r\n\r\n",
        Refused,
    ),
    same(
        Httparse,
        "folded in the middle",
        b"HTTP/1.1 200 OK\r\nLine-Folded-Header: hello  \r\n \r\n there\r\n\r\n",
        Refused,
    ),
    same(
        Httparse,
        "folded and empty",
        b"HTTP/1.1 200 OK\r\nLine-Folded-Header:   \r\n \r\n \r\n\r\n",
        Refused,
    ),
    same(Httparse, "spaces around the status", b"HTTP/1.1   200  OK\r\n\r\n", Refused),
    same(Httparse, "CR in the status line", b"HTTP/1.1 200\rOK\r\n\r\n", Refused),
    same(Httparse, "two codes", b"HTTP/1.1 99 200 OK\r\n\r\n", Refused),
    same(Httparse, "no name", b"HTTP/1.1 200 OK\r\n: hello\r\nBread: baguette\r\n\r\n", Refused),
    same(
        Httparse,
        "other than ASCII in a name",
        b"HTTP/1.1 200 OK\r\nCredentials\xff  : true\r\nBread: baguette\r\n\r\n",
        Refused,
    ),
    same(Httparse, "no colon", b"HTTP/1.1 200 OK\r\nCredentials\r\nBread: baguette\r\n\r\n", Refused),
    same(
        Httparse,
        "no colon, and folded",
        b"HTTP/1.1 200 OK\r\nCredentials   \r\n hello\r\nBread: baguette\r\n\r\n",
        Refused,
    ),
    same(
        Httparse,
        "NUL in a name",
        b"HTTP/1.1 200 OK\r\nCred\0entials: hello\r\nBread: baguette\r\n\r\n",
        Refused,
    ),
    same(
        Httparse,
        "CR in a name",
        b"HTTP/1.1 200 OK\r\nCred\rentials: hello\r\nBread: baguette\r\n\r\n",
        Refused,
    ),
    same(
        Httparse,
        "NUL behind a name",
        b"HTTP/1.1 200 OK\r\nCredentials   \0: hello\r\nBread: baguette\r\n\r\n",
        Refused,
    ),
    same(
        Httparse,
        "NUL in a value",
        b"HTTP/1.1 200 OK\r\nCredentials: hell\0o\r\nBread: baguette\r\n\r\n",
        Refused,
    ),
    same(
        Httparse,
        "a control character in a value",
        b"HTTP/1.1 200 OK\r\nCredentials: hell\x01o\r\nBread: baguette\r\n\r\n",
        Refused,
    ),
    // picohttpparser's.
    same(Pico, "simple", b"HTTP/1.0 200 OK\r\n\r\n", Read(1)),
    same(Pico, "an LF missing", b"HTTP/1.0 200 OK\r\n\r", Wants),
    same(Pico, "fields", b"HTTP/1.1 200 OK\r\nHost: example.com\r\nCookie: \r\n\r\n", Read(1)),
    other(Pico, "folded", b"HTTP/1.0 200 OK\r\nfoo: \r\nfoo: b\r\n  \tc\r\n\r\n", [Read(1), Refused], FOLD),
    same(Pico, "another status", b"HTTP/1.0 500 Internal Server Error\r\n\r\n", Read(1)),
    same(Pico, "incomplete 1", b"H", Wants),
    same(Pico, "incomplete 2", b"HTTP/1.", Wants),
    same(Pico, "incomplete 3", b"HTTP/1.1", Wants),
    same(Pico, "incomplete 4", b"HTTP/1.1 ", Wants),
    same(Pico, "incomplete 5", b"HTTP/1.1 2", Wants),
    same(Pico, "incomplete 6", b"HTTP/1.1 200", Wants),
    same(Pico, "incomplete 7", b"HTTP/1.1 200 ", Wants),
    same(Pico, "incomplete 8", b"HTTP/1.1 200 O", Wants),
    same(Pico, "incomplete 9", b"HTTP/1.1 200 OK\r", Wants),
    same(Pico, "incomplete 10", b"HTTP/1.1 200 OK\r\n", Wants),
    other(Pico, "incomplete, and LF only", b"HTTP/1.1 200 OK\n", [Wants, Refused], LF),
    same(Pico, "incomplete 11", b"HTTP/1.1 200 OK\r\nA: 1\r", Wants),
    same(Pico, "incomplete 12", b"HTTP/1.1 200 OK\r\nA: 1\r\n", Wants),
    same(Pico, "no minor version", b"HTTP/1. 200 OK\r\n\r\n", Refused),
    same(Pico, "a letter in the version", b"HTTP/1.2z 200 OK\r\n\r\n", Refused),
    same(Pico, "no status", b"HTTP/1.1  OK\r\n\r\n", Refused),
    // Of its decoder of chunks, behind a head of ours; its trailers end with the empty line too.
    same(
        Pico,
        "a chunk",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n",
        Read(1),
    ),
    same(
        Pico,
        "chunks, their end missing",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n",
        Wants,
    ),
    same(
        Pico,
        "chunks and an extension",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6;comment=hi\r\nhello \r\n5\r\n\
          world\r\n0\r\n",
        Wants,
    ),
    same(
        Pico,
        "chunks and a trailer",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\
          a: b\r\nc: d\r\n\r\n",
        Read(1),
    ),
    other(
        Pico,
        "chunks with LF only",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\nhello world\n0\n\n",
        [Read(1), Refused],
        LF,
    ),
    same(Pico, "no size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\nabcdefg", Refused),
    same(
        Pico,
        "a size of 64 bits",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\nffffffffffffffff\r\n\
          abcdefg",
        Wants,
    ),
    same(
        Pico,
        "a size of 68 bits",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\nfffffffffffffffff\r\n\
          abcdefg",
        Refused,
    ),
];

fn verdict(requests: &[Request], stream: &[u8]) -> Verdict {
    let outcome = whole(requests, stream);
    match (outcome.error(), outcome.ends().len()) {
        (Some(_), _) => Refused,
        (None, 0) => Wants,
        (None, complete) => Read(complete),
    }
}

#[test]
fn each_public_vector_has_the_verdict_of_the_table() {
    for vector in VECTORS {
        let verdict = verdict(vector.requests, vector.stream);
        assert_eq!(verdict, vector.ours, "{:?}: {}", vector.of, vector.what);
        let agreed = vector.ours == vector.theirs;
        assert_eq!(agreed, vector.reason.is_empty(), "{:?}: {}", vector.of, vector.what);
    }
    for of in [Llhttp, Httparse, Pico] {
        let (own, foreign): (Vec<_>, Vec<_>) =
            VECTORS.iter().filter(|vector| vector.of == of).partition(|vector| vector.reason.is_empty());
        println!("{of:?}: {} as they have it, {} otherwise", own.len(), foreign.len());
    }
}

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
