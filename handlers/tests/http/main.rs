//! HTTP/1.1 responses through the framing's public interface: what a stream is told to be, cut in any way.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails with the place")]

mod against_hyper;
mod any;
mod limits;
mod responses;
mod splits;
mod valid;
mod vectors;

use handlers::http::{FramingError, Head, Request, ResponseEvent, Responses, Within};

/// An event without its borrow. Content that is in one piece in the stream is one event, however it was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Head(Head),
    Body { at: u64, content: Vec<u8> },
    End { at: u64 },
    Tunnel { at: u64, bytes: Vec<u8> },
    Closed { at: u64, within: Within },
    Error(FramingError),
}

/// What a stream came to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    told: Vec<Told>,
    /// How many bytes were taken.
    position: u64,
    /// Of the last response.
    content: u64,
    /// How many requests have no response.
    outstanding: usize,
}

impl Outcome {
    fn heads(&self) -> Vec<&Head> {
        self.told
            .iter()
            .filter_map(|told| if let Told::Head(head) = told { Some(head) } else { None })
            .collect()
    }

    /// All content, joined.
    fn body(&self) -> Vec<u8> {
        let bodies = self
            .told
            .iter()
            .map(|told| if let Told::Body { content, .. } = told { &content[..] } else { &[] });
        bodies.collect::<Vec<_>>().concat()
    }

    fn ends(&self) -> Vec<u64> {
        self.told
            .iter()
            .filter_map(|told| if let Told::End { at } = told { Some(*at) } else { None })
            .collect()
    }

    fn error(&self) -> Option<&FramingError> {
        self.told.iter().find_map(|told| if let Told::Error(error) = told { Some(error) } else { None })
    }
}

/// Hands `stream` in, cut at these places, and closes.
fn cut(requests: &[Request], stream: &[u8], cuts: impl IntoIterator<Item = usize>) -> Outcome {
    let mut reading = Reading::new(requests);
    let mut from = 0;
    for to in cuts.into_iter().chain([stream.len()]) {
        reading.hand_in(&stream[from..to]);
        from = to;
    }
    while let Some(event) = reading.responses.close() {
        reading.tell(event);
    }
    let outcome = Outcome {
        told: reading.told,
        position: reading.responses.position(),
        content: reading.responses.content(),
        outstanding: reading.responses.outstanding(),
    };
    check(&outcome, stream);
    outcome
}

/// Hands `stream` in at once, and closes.
fn whole(requests: &[Request], stream: &[u8]) -> Outcome {
    cut(requests, stream, [])
}

struct Reading {
    responses: Responses,
    told: Vec<Told>,
}

impl Reading {
    fn new(requests: &[Request]) -> Self {
        let mut responses = Responses::new();
        for request in requests {
            responses.expect(*request).unwrap();
        }
        Self { responses, told: Vec::new() }
    }

    fn hand_in(&mut self, mut input: &[u8]) {
        loop {
            match self.responses.advance(&mut input) {
                Ok(Some(event)) => self.tell(event),
                Ok(None) => return assert!(input.is_empty(), "all was taken"),
                Err(error) => {
                    let again = input;
                    assert_eq!(self.responses.advance(&mut input), Err(error.clone()), "it stays in error");
                    assert_eq!(input, again, "and takes nothing more");
                    if self.told.last() != Some(&Told::Error(error.clone())) {
                        self.told.push(Told::Error(error));
                    }
                    return;
                }
            }
        }
    }

    fn tell(&mut self, event: ResponseEvent<'_>) {
        let told = match event {
            ResponseEvent::Head(head) => Told::Head(head),
            ResponseEvent::Body { at, content } => match self.told.last_mut() {
                Some(Told::Body { at: from, content: before }) if *from + before.len() as u64 == at => {
                    return before.extend_from_slice(content);
                }
                _ => Told::Body { at, content: content.to_vec() },
            },
            ResponseEvent::End { at } => Told::End { at },
            ResponseEvent::Tunnel { at, bytes } => match self.told.last_mut() {
                Some(Told::Tunnel { bytes: before, .. }) => return before.extend_from_slice(bytes),
                _ => Told::Tunnel { at, bytes: bytes.to_vec() },
            },
            ResponseEvent::Closed { at, within } => Told::Closed { at, within },
        };
        self.told.push(told);
    }
}

/// Whatever the stream is: offsets go up, are where the bytes are, and nothing follows an error or a close.
fn check(outcome: &Outcome, stream: &[u8]) {
    let place = |at: u64| usize::try_from(at).unwrap();
    let mut reached = 0;
    for (number, told) in outcome.told.iter().enumerate() {
        let (from, to) = match told {
            Told::Head(head) => {
                assert!(stream[place(head.at.start)..].starts_with(b"HTTP/1."));
                assert!(stream[..place(head.at.end)].ends_with(b"\r\n\r\n"));
                (head.at.start, head.at.end)
            }
            Told::Body { at, content: bytes } | Told::Tunnel { at, bytes } => {
                assert!(!bytes.is_empty() && stream[place(*at)..].starts_with(bytes));
                (*at, at + bytes.len() as u64)
            }
            Told::End { at } => (*at, *at),
            Told::Closed { at, .. } => {
                assert_eq!((place(*at), number), (stream.len(), outcome.told.len() - 1));
                (*at, *at)
            }
            Told::Error(error) => {
                assert_eq!(number, outcome.told.len() - 1);
                assert!(error.at <= outcome.position, "{error}");
                (reached, reached)
            }
        };
        assert!(reached <= from && from <= to && to <= outcome.position, "{told:?} after {reached}");
        reached = to;
    }
    let taken = place(outcome.position);
    assert!(taken == stream.len() || (outcome.error().is_some() && taken < stream.len()));
}
