//! HTTP/1.1 responses: handed in at once and cut anywhere, a stream is told to be the same.

use handlers::http::{BodyLength, FramingError, Head, MAX_FIELDS, Request, ResponseEvent, Responses, Within};

use crate::input::Input;

/// A byte of what was asked, one of how often the stream is cut, two of each place, then the stream.
pub(crate) fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let requests = REQUESTS.get(usize::from(input.byte()) % REQUESTS.len()).expect("it is one of them");
    let places: Vec<usize> = (0..input.byte() % 8).map(|_| input.u16().into()).collect();
    let stream = input.rest();
    let mut cuts: Vec<usize> =
        places.into_iter().map(|place| place % stream.len().saturating_add(1)).collect();
    cuts.sort_unstable();

    let whole = told(requests, stream, &[]);
    assert_eq!(told(requests, stream, &cuts), whole, "{cuts:?}");
    let bytes: Vec<usize> = (0..stream.len()).collect();
    assert_eq!(told(requests, stream, &bytes), whole, "byte by byte");
    check(&whole, stream);
    whole.events.iter().any(|event| matches!(event, Event::End(_) | Event::Tunnel { .. }))
}

/// What may have been asked.
const REQUESTS: [&[Request]; 6] = [
    &[Request::Other],
    &[Request::Head],
    &[Request::Connect],
    &[Request::Other, Request::Other, Request::Other],
    &[Request::Head, Request::Other, Request::Connect],
    &[],
];

/// An event without its borrow. Content without framing between is one event.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Head(Head),
    Body { at: u64, len: u64 },
    End(u64),
    Tunnel { at: u64, len: u64 },
    Closed(Within),
}

#[derive(Debug, PartialEq, Eq)]
struct Told {
    events: Vec<Event>,
    /// All of it, joined.
    content: Vec<u8>,
    error: Option<FramingError>,
    /// How many bytes were taken.
    position: u64,
}

fn told(requests: &[Request], stream: &[u8], cuts: &[usize]) -> Told {
    let mut responses = Responses::new();
    for request in requests {
        responses.expect(*request).expect("there are few");
    }
    let mut told = Told { events: Vec::new(), content: Vec::new(), error: None, position: 0 };
    let mut from = 0;
    for to in cuts.iter().copied().chain([stream.len()]) {
        let mut piece = stream.get(from..to).expect("the cuts are in order");
        from = to;
        loop {
            match responses.advance(&mut piece) {
                Ok(Some(event)) => told.add(event),
                Ok(None) => {
                    assert!(piece.is_empty(), "all was taken");
                    break;
                }
                Err(error) => {
                    let first = told.error.get_or_insert_with(|| error.clone());
                    assert_eq!(*first, error, "the first error stays");
                    break;
                }
            }
        }
    }
    while let Some(event) = responses.close() {
        told.add(event);
    }
    told.position = responses.position();
    told
}

impl Told {
    fn add(&mut self, event: ResponseEvent<'_>) {
        assert_eq!(self.error, None, "nothing follows an error");
        let event = match event {
            ResponseEvent::Head(head) => Event::Head(head),
            ResponseEvent::Body { at, content } => {
                self.content.extend_from_slice(content);
                match self.events.last_mut() {
                    Some(Event::Body { at: before, len }) if *before + *len == at => {
                        *len += content.len() as u64;
                        return;
                    }
                    _ => Event::Body { at, len: content.len() as u64 },
                }
            }
            ResponseEvent::End { at } => Event::End(at),
            ResponseEvent::Tunnel { at, bytes } => match self.events.last_mut() {
                Some(Event::Tunnel { len, .. }) => {
                    *len += bytes.len() as u64;
                    return;
                }
                _ => Event::Tunnel { at, len: bytes.len() as u64 },
            },
            ResponseEvent::Closed { within, .. } => Event::Closed(within),
        };
        self.events.push(event);
    }
}

/// Events are in the order of their bytes and do not overlap, heads have no more fields than they may, and a body has the
/// length that its head says.
fn check(told: &Told, stream: &[u8]) {
    let mut reached = 0;
    let mut body = None;
    for event in &told.events {
        let (from, to) = match event {
            Event::Head(head) => {
                check_head(head, stream);
                body = Some((head.body, 0));
                (head.at.start, head.at.end)
            }
            Event::Body { at, len } => {
                let (_, so_far) = body.as_mut().expect("a body has a head");
                *so_far += len;
                (*at, at + len)
            }
            Event::End(at) => {
                let (wanted, len) = body.take().expect("what ends has a head");
                assert!(!matches!(wanted, BodyLength::Interim | BodyLength::Tunnel));
                assert!(!matches!(wanted, BodyLength::Bytes(wanted) if wanted != len), "{len} of {wanted:?}");
                (*at, *at)
            }
            Event::Tunnel { at, len } => {
                assert!(matches!(body, Some((BodyLength::Tunnel, _))));
                (*at, at + len)
            }
            Event::Closed(_) => (stream.len() as u64, stream.len() as u64),
        };
        assert!(reached <= from && from <= to && to <= told.position, "{event:?} after {reached}");
        reached = to;
    }
    assert!(told.error.is_some() || told.position == stream.len() as u64);
    assert!(
        told.error.as_ref().is_none_or(|error| error.at <= told.position && !error.to_string().is_empty())
    );
}

fn check_head(head: &Head, stream: &[u8]) {
    let [start, end] =
        [head.at.start, head.at.end].map(|at| usize::try_from(at).expect("it is in the stream"));
    let text = stream.get(start..end).expect("it is in the stream");
    assert!(text.starts_with(b"HTTP/1.") && text.ends_with(b"\r\n\r\n"));
    assert!((100..1000).contains(&head.status) && head.fields.len() <= MAX_FIELDS);
    let lines = text.split(|byte| *byte == b'\n').count();
    assert_eq!(
        lines,
        head.fields.len() + 3,
        "a line each, the status line, the empty one and what is behind it"
    );
    assert!(head.fields.iter().all(|field| !field.name.is_empty() && !field.value.contains(&b'\r')));
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let seed = |requests: u8, stream: &[u8]| [&[requests, 2, 0, 9, 0, 40][..], stream].concat();
    vec![
        seed(0, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: a\r\n\r\nhello"),
        seed(
            0,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n\
              5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nA: b\r\n\r\n",
        ),
        seed(0, b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nuntil the end"),
        seed(
            1,
            b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2, 2\r\n\r\n",
        ),
        seed(2, b"HTTP/1.1 200 Connection Established\r\n\r\n\x16\x03\x01"),
        seed(0, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05hello"),
        seed(
            0,
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
              HTTP/1.1 304 Not Modified\r\n\r\n",
        ),
        seed(
            3,
            b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno\
              HTTP/1.1 302\r\nLocation: /\r\n\r\n",
        ),
        seed(
            4,
            b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n\
              HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        seed(3, b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
        seed(0, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello"),
    ]
}
