//! Generated responses, read by us and by hyper's client: the same head, content and end, but for what is named.

use std::collections::BTreeMap;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use handlers::http::{Fault, Request};
use http_body_util::Empty;
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBufCursor, Write};

use crate::{Outcome, Told, whole};

/// So many are compared. A debug build takes some four seconds for them.
const RESPONSES: u64 = 100_000;

/// What we refuse and hyper reads, as the module's documentation lists it: what hyper makes of it. All else is a
/// disagreement.
fn difference(fault: &Fault) -> Option<&'static str> {
    match fault {
        Fault::BareLf => Some("LF alone ends a line"),
        Fault::NotHttp { found: b'\r' | b'\n' } => Some("empty lines before the status line are skipped"),
        Fault::EncodingAndLength => Some("Transfer-Encoding wins over Content-Length"),
        Fault::Switching => Some("any 101 opens a tunnel"),
        Fault::EncodingWithoutBody { .. } | Fault::EncodingInHttp10 => {
            Some("Transfer-Encoding is ignored where there is no body")
        }
        Fault::LengthWithoutBody { .. } => Some("Content-Length is ignored where there is no body"),
        Fault::Encoding { .. } => Some("any Transfer-Encoding is read by what is behind its last comma"),
        Fault::ContentLength { found } if found.parse::<u64>().is_ok() => Some("Content-Length has 64 bits"),
        Fault::ChunkSizeTooLong => Some("a chunk's size has any number of leading zeros"),
        Fault::ChunkExtension { found: b'\r' } => Some("white space may stand behind a chunk's size"),
        Fault::ChunkExtension { .. } => Some("chunk extensions may have control characters"),
        _ => None,
    }
}

/// What a reader made of a response.
#[derive(Debug, PartialEq, Eq)]
struct Reading {
    /// Of the final response.
    head: Option<Head>,
    content: Vec<u8>,
    /// The response is complete, or a tunnel.
    complete: bool,
}

/// Status and fields, names in small letters, sorted by them.
type Head = (u16, Vec<(String, Vec<u8>)>);

fn head(status: u16, fields: impl Iterator<Item = (String, Vec<u8>)>) -> Head {
    let mut fields: Vec<_> = fields.collect();
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    (status, fields)
}

fn ours(outcome: &Outcome) -> Reading {
    let last = outcome.heads().into_iter().rfind(|head| head.status == 101 || head.status >= 200);
    let tunnel = last.is_some_and(|head| head.body == handlers::http::BodyLength::Tunnel);
    Reading {
        head: last.map(|last| {
            let fields =
                last.fields.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.clone()));
            head(last.status, fields)
        }),
        content: outcome.body(),
        complete: tunnel || outcome.told.iter().any(|told| matches!(told, Told::End { .. })),
    }
}

/// A peer that answers a request with these bytes, so many at a time, and closes.
struct Peer {
    response: Vec<u8>,
    sent: usize,
    piece: usize,
    asked: bool,
}

impl Read for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.asked {
            return Poll::Pending;
        }
        let len = self.piece.min(buffer.remaining()).min(self.response.len() - self.sent);
        buffer.put_slice(&self.response[self.sent..self.sent + len]);
        self.sent += len;
        Poll::Ready(Ok(()))
    }
}

impl Write for Peer {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.asked = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// hyper's client, driven by hand: nothing in it waits for anything but for the peer, which is never late.
fn hypers(request: Request, response: &[u8], piece: usize) -> Reading {
    let mut cx = Context::from_waker(Waker::noop());
    let peer = Peer { response: response.to_vec(), sent: 0, piece, asked: false };
    let Poll::Ready(Ok((mut sender, connection))) = pin!(http1::handshake(peer)).poll(&mut cx) else {
        panic!("there is nothing to wait for")
    };
    let asked = hyper::Request::builder();
    let asked = match request {
        Request::Head => asked.method("HEAD").uri("/"),
        Request::Connect => asked.method("CONNECT").uri("a.example:443"),
        Request::Other => asked.uri("/"),
    };
    let mut connection = pin!(connection);
    let mut answer = pin!(sender.send_request(asked.body(Empty::<Bytes>::new()).unwrap()));
    let mut open = true;
    let mut reading = Reading { head: None, content: Vec::new(), complete: false };
    let mut body = loop {
        match answer.as_mut().poll(&mut cx) {
            Poll::Ready(Ok(response)) => {
                let (parts, body) = response.into_parts();
                let fields =
                    parts.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
                reading.head = Some(head(parts.status.as_u16(), fields));
                break body;
            }
            Poll::Ready(Err(_)) => return reading,
            Poll::Pending => {
                assert!(open, "a closed connection answers nothing");
                open = connection.as_mut().poll(&mut cx).is_pending();
            }
        }
    };
    loop {
        match Pin::new(&mut body).poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => {
                reading.content.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            }
            Poll::Ready(Some(Err(_))) => return reading,
            Poll::Ready(None) => {
                reading.complete = true;
                return reading;
            }
            Poll::Pending => {
                assert!(open, "a closed connection has no more content");
                open = connection.as_mut().poll(&mut cx).is_pending();
            }
        }
    }
}

/// A generator that is the same each time (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    /// Once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn of<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}

const STATUS_LINES: &[&str] = &[
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200 OK",
    "HTTP/1.0 200 OK",
    "HTTP/1.1 206 Partial Content",
    "HTTP/1.1 404 Not Found",
    "HTTP/1.1 500",
    "HTTP/1.1 302 ",
    "HTTP/1.1 204 No Content",
    "HTTP/1.1 304 Not Modified",
    "HTTP/1.1 999 \u{e9}\t",
];
const ODD_STATUS_LINES: &[&str] = &[
    "HTTP/1.1 101 Switching Protocols",
    "HTTP/1.1 099 Low",
    "HTTP/1.1  200 OK",
    "HTTP/1.1 20 OK",
    "HTTP/1.1 2000 OK",
    "HTTP/1.1 200\tOK",
    "HTTP/2.0 200 OK",
    "HTTP/1.2 200 OK",
    "\r\nHTTP/1.1 200 OK",
    "ICY 200 OK",
    "HTTP/1.1 200 a\0b",
    " HTTP/1.1 200 OK",
];
const FIELDS: &[&str] = &[
    "Server: a",
    "Date: Sat, 21 Nov 2026 22:00:00 GMT",
    "Set-Cookie: a=1",
    "set-cookie: \tb=2, c \t",
    "Connection: close",
    "Connection: keep-alive",
    "X-Empty:",
    "X-$_.~!: \u{e9}:",
    "Content-Length-X: 7",
    "Upgrade: h2c",
];
const ODD_FIELDS: &[&str] = &[
    "Name : value",
    " folded",
    "no colon",
    ": no name",
    "a b: c",
    "X: a\u{7f}",
    "X: \u{1}",
    "Y\u{e9}: 1",
    "X: a\rb",
];
const LENGTHS: &[&str] = &[
    "+5",
    "5, 5",
    "5,5 , 05",
    "5, 6",
    "5,",
    "",
    "0x5",
    "-1",
    "5 5",
    "9223372036854775808",
    "18446744073709551616",
    "9223372036854775807",
    "00000000000000000000000005",
];
const CODINGS: &[&str] = &[
    "gzip",
    "gzip, chunked",
    "CHUNKED",
    "chunked, gzip",
    "chunked, chunked",
    "identity",
    "",
    "chunked,",
    ",chunked",
    "chunked;a",
    "xchunked",
    "\u{e9}, chunked",
    "a;b=\"c\", chunked",
    "gzip;q=1 ,\tchunked",
];
const SIZES: &[&str] = &["5", "05", "0005", "5;a=b", "5;a=\"b;c\"", "5 ;a", "5;", "5\t; a"];
const ODD_SIZES: &[&str] = &[
    "5 ",
    "00000000000000005",
    "0000000000000005",
    "5;a\u{1}b",
    "5;\n",
    "0x5",
    "-5",
    "",
    " 5",
    "5 5",
    "6",
    "4",
    "ffffffffffffffff",
    "10000000000000000",
    "5\n",
];
const TRAILERS: &[&str] = &["", "", "Digest: x\r\n", "A: 1\r\nB: 2\r\n", "Content-Length: 9\r\n"];
const ODD_TRAILERS: &[&str] = &["A : 1\r\n", "A: 1\n", " a\r\n", "A\r\n", "A: \u{1}\r\n", "\n"];

/// A response, right more often than not.
fn response(dice: &mut Dice) -> Vec<u8> {
    let end = if dice.once_in(50) { "\n" } else { "\r\n" };
    let mut text = String::new();
    while dice.once_in(8) {
        text += dice.of(&["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]);
        if dice.once_in(20) {
            text += dice.of(&[
                "HTTP/1.1 102 Processing\r\nContent-Length: 5\r\n\r\n",
                "HTTP/1.1 102 Processing\r\nTransfer-Encoding: chunked\r\n\r\n",
            ]);
        }
    }
    text += if dice.once_in(30) { dice.of(ODD_STATUS_LINES) } else { dice.of(STATUS_LINES) };
    text += end;
    for _ in 0..dice.below(5) {
        text += if dice.once_in(40) { dice.of(ODD_FIELDS) } else { dice.of(FIELDS) };
        text += end;
    }
    let content = "hello, wide world\r\n\r\n5\r\n";
    let content = &content[..dice.below(content.len() + 1)];
    let counted = |text: &mut String, length: &str| *text += &format!("Content-Length: {length}{end}");
    let coded = |text: &mut String, coding: &str| *text += &format!("Transfer-Encoding: {coding}{end}");
    match dice.below(16) {
        0 => text += end,
        1 => {
            counted(&mut text, dice.of(LENGTHS));
            text += end;
            text += "hello";
        }
        2 => {
            coded(&mut text, dice.of(CODINGS));
            text += end;
            text += "5\r\nhello\r\n0\r\n\r\n";
        }
        3 if dice.once_in(4) => {
            counted(&mut text, "5");
            coded(&mut text, "chunked");
            text += end;
            text += "5\r\nhello\r\n0\r\n\r\n";
        }
        3..=6 => {
            text += end;
            text += content;
        }
        7..=10 => {
            counted(&mut text, &content.len().to_string());
            text += end;
            text += content;
        }
        _ => {
            coded(&mut text, "chunked");
            text += end;
            for _ in 0..dice.below(4) {
                text += if dice.once_in(20) { dice.of(ODD_SIZES) } else { dice.of(SIZES) };
                text += "\r\nhello";
                text += if dice.once_in(40) { dice.of(&["\n", "", "\rx", "\r\r\n"]) } else { "\r\n" };
            }
            text += dice.of(&["0\r\n", "0\r\n", "000\r\n", "0;a=b\r\n"]);
            text += if dice.once_in(15) { dice.of(ODD_TRAILERS) } else { dice.of(TRAILERS) };
            text += "\r\n";
        }
    }
    let mut bytes = text.into_bytes();
    if dice.once_in(6) {
        for _ in 0..=dice.below(2) {
            let at = dice.below(bytes.len());
            let any = u8::try_from(dice.below(256)).unwrap();
            bytes[at] = *dice.of(&[&any, &b'\r', &b'\n', &b' ', &b':', &b'5', &b'\0', &b';', &b',']);
        }
    }
    if dice.once_in(10) {
        bytes.truncate(dice.below(bytes.len()) + 1);
    } else if dice.once_in(10) {
        bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n");
    }
    bytes
}

#[test]
fn generated_responses_are_read_as_hyper_reads_them_but_for_what_is_named() {
    let mut dice = Dice(4);
    let mut differences: BTreeMap<&str, u64> = BTreeMap::new();
    let mut complete = 0;
    for number in 0..RESPONSES {
        let request =
            *dice.of(&[&Request::Other, &Request::Other, &Request::Other, &Request::Head, &Request::Connect]);
        let response = response(&mut dice);
        let piece = if dice.once_in(2) { usize::MAX } else { 1 + dice.below(30) };
        let outcome = whole(&[request], &response);
        let (ours, hypers) = (ours(&outcome), hypers(request, &response, piece));
        complete += u64::from(ours.complete);
        if ours == hypers {
            continue;
        }
        let named = outcome.error().filter(|_| !ours.complete).and_then(|error| difference(&error.fault));
        let Some(named) = named else {
            panic!(
                "{number}: \"{}\" to {request:?}\nours: {ours:?}\nhyper's: {hypers:?}\n{:?}",
                response.escape_ascii(),
                outcome.error()
            )
        };
        assert!(ours.head.is_none() || ours.head == hypers.head, "{number}: {ours:?}, {hypers:?}");
        assert!(hypers.content.starts_with(&ours.content), "{number}: {ours:?}, {hypers:?}");
        *differences.entry(named).or_default() += 1;
    }
    println!("{RESPONSES} compared, {complete} complete; hyper reads what we refuse: {differences:#?}");
    assert!(complete > RESPONSES / 2, "most are right: {complete}");
    assert_eq!(differences.len(), 11, "each difference shows: {differences:#?}");
}
