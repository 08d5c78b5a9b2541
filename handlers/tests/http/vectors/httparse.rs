//! httparse's, of the unit tests of its 1.10. What it says of each is asked of itself.

use super::Verdict::{Read, Refused, Wants};
use super::{EMPTY, LF, Vector, other, same};

pub(super) const VECTORS: &[Vector] = &[
    same("simple", b"HTTP/1.1 200 OK\r\n\r\n", Read(1)),
    other("LF only", b"HTTP/1.0 403 Forbidden\nServer: foo.bar\n\n", [Read(1), Refused], LF),
    same("an empty reason", b"HTTP/1.1 200 \r\n\r\n", Read(1)),
    same("neither space nor reason", b"HTTP/1.1 200\r\n\r\n", Read(1)),
    same("neither, with a field", b"HTTP/1.1 200\r\nFoo: bar\r\n\r\n", Read(1)),
    other(
        "a tab in the reason",
        b"HTTP/1.1 101 Switching Protocols\t\r\n\r\n",
        [Read(1), Refused],
        "101 says in Upgrade what follows (RFC 9110 15.2.2)",
    ),
    same("a tab in another reason", b"HTTP/1.1 200 Switching Protocols\t\r\n\r\n", Read(1)),
    same("other than ASCII in the reason", b"HTTP/1.1 200 X\xffZ\r\n\r\n", Read(1)),
    same("NUL in the reason", b"HTTP/1.1 200 \x00\r\n\r\n", Refused),
    same("a version only", b"HTTP/1.1", Wants),
    same("a status only", b"HTTP/1.1 200", Wants),
    same("a field and no end", b"HTTP/1.1 200 OK\r\nServer: yolo\r\n", Wants),
    other("empty lines first", b"\n\nHTTP/1.1 200 OK\n\n", [Read(1), Refused], EMPTY),
    other("LF only, no reason", b"HTTP/1.0 200\nContent-type: text/html\n\n", [Read(1), Refused], LF),
    same(
        "a space before a colon",
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Credentials : true\r\nBread: baguette\r\n\r\n",
        Refused,
    ),
    same(
        "folded from the start",
        b"HTTP/1.1 200 OK\r\nLine-Folded-Header: \r\n   \r\n hello there\r\n\r\n",
        Refused,
    ),
    same(
        "folded at the end",
        b"HTTP/1.1 200 OK\r\nLine-Folded-Header: hello there\r\n   \r\n \r\n\r\n",
        Refused,
    ),
    same(
        "folded in the middle",
        b"HTTP/1.1 200 OK\r\nLine-Folded-Header: hello  \r\n \r\n there\r\n\r\n",
        Refused,
    ),
    same("folded and empty", b"HTTP/1.1 200 OK\r\nLine-Folded-Header:   \r\n \r\n \r\n\r\n", Refused),
    same("spaces around the status", b"HTTP/1.1   200  OK\r\n\r\n", Refused),
    same("CR in the status line", b"HTTP/1.1 200\rOK\r\n\r\n", Refused),
    same("two codes", b"HTTP/1.1 99 200 OK\r\n\r\n", Refused),
    same("no name", b"HTTP/1.1 200 OK\r\n: hello\r\nBread: baguette\r\n\r\n", Refused),
    same(
        "other than ASCII in a name",
        b"HTTP/1.1 200 OK\r\nCredentials\xff  : true\r\nBread: baguette\r\n\r\n",
        Refused,
    ),
    same("no colon", b"HTTP/1.1 200 OK\r\nCredentials\r\nBread: baguette\r\n\r\n", Refused),
    same(
        "no colon, and folded",
        b"HTTP/1.1 200 OK\r\nCredentials   \r\n hello\r\nBread: baguette\r\n\r\n",
        Refused,
    ),
    same("NUL in a name", b"HTTP/1.1 200 OK\r\nCred\0entials: hello\r\nBread: baguette\r\n\r\n", Refused),
    same("CR in a name", b"HTTP/1.1 200 OK\r\nCred\rentials: hello\r\nBread: baguette\r\n\r\n", Refused),
    same(
        "NUL behind a name",
        b"HTTP/1.1 200 OK\r\nCredentials   \0: hello\r\nBread: baguette\r\n\r\n",
        Refused,
    ),
    same("NUL in a value", b"HTTP/1.1 200 OK\r\nCredentials: hell\0o\r\nBread: baguette\r\n\r\n", Refused),
    same(
        "a control character in a value",
        b"HTTP/1.1 200 OK\r\nCredentials: hell\x01o\r\nBread: baguette\r\n\r\n",
        Refused,
    ),
];

#[test]
fn httparse_says_what_the_table_has_it_say() {
    for vector in VECTORS {
        let mut fields = [httparse::EMPTY_HEADER; 8];
        let theirs = match httparse::Response::new(&mut fields).parse(vector.stream) {
            Ok(httparse::Status::Complete(_)) => Read(1),
            Ok(httparse::Status::Partial) => Wants,
            Err(_) => Refused,
        };
        assert_eq!(theirs, vector.theirs, "{}", vector.what);
    }
}
