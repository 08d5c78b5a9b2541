//! Streams that reach each limit, and by one byte or one thing more exceed it: whole and in pieces alike.

use std::ops::Range;

use handlers::http::{
    Fault, MAX_EXTENSION_BYTES, MAX_FIELDS, MAX_FIELDS_BYTES, MAX_INTERIM, MAX_STATUS_LINE, Request,
};

use crate::{cut, whole};

const HEAD: &str = "HTTP/1.1 204 No Content\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// What one more than the limit is, and a response with so many.
type Limit = (Fault, usize, fn(usize) -> String);

/// A line of fields of so many bytes with its end.
fn field(len: usize) -> String {
    format!("a:{}\r\n", "x".repeat(len - "a:\r\n".len()))
}

const LIMITS: &[Limit] = &[
    (Fault::StatusLineTooLong, MAX_STATUS_LINE, |len| {
        let line = "HTTP/1.1 204 ";
        format!("{line}{}\r\n\r\n", "x".repeat(len - line.len()))
    }),
    (Fault::FieldsTooLong, MAX_FIELDS_BYTES, |len| format!("{HEAD}{}\r\n", field(len))),
    (Fault::FieldsTooLong, MAX_FIELDS_BYTES, |len| format!("{HEAD}{}{}\r\n", field(5000), field(len - 5000))),
    (Fault::TooManyFields, MAX_FIELDS, |count| format!("{HEAD}{}\r\n", field(4).repeat(count))),
    (Fault::FieldsTooLong, MAX_FIELDS_BYTES, |len| format!("{CHUNKED}0\r\n{}\r\n", field(len))),
    (Fault::TooManyFields, MAX_FIELDS, |count| format!("{CHUNKED}0\r\n{}\r\n", field(4).repeat(count))),
    (Fault::ChunkExtensionsTooLong, MAX_EXTENSION_BYTES, |len| {
        format!("{CHUNKED}1;{}\r\nx\r\n0\r\n\r\n", "x".repeat(len - 1))
    }),
    (Fault::ChunkExtensionsTooLong, MAX_EXTENSION_BYTES, |len| {
        format!("{CHUNKED}1 ;a\r\nx\r\n0;{}\r\n\r\n", "x".repeat(len - 4))
    }),
    (Fault::TooManyInterim, MAX_INTERIM, |count| {
        format!("{}{HEAD}\r\n", "HTTP/1.1 100 Continue\r\n\r\n".repeat(count))
    }),
];

/// Cuts into pieces of this length, and one into two around each of the places.
fn cuts(len: usize, near: Range<usize>) -> Vec<Vec<usize>> {
    let mut cuts: Vec<Vec<usize>> =
        [1, 2, 3, 1000, 4096].into_iter().map(|piece| (0..len).step_by(piece).collect()).collect();
    cuts.extend(near.filter(|at| *at <= len).map(|at| vec![at]));
    cuts
}

#[test]
fn a_limit_is_the_same_however_the_stream_is_cut() {
    for (fault, limit, response) in LIMITS {
        for (size, wanted) in [(*limit, None), (limit + 1, Some(fault))] {
            let stream = response(size).into_bytes();
            let outcome = whole(&[Request::Other], &stream);
            assert_eq!(outcome.error().map(|error| &error.fault), wanted, "{size} of at most {limit}");
            assert_eq!(outcome.ends().len(), usize::from(wanted.is_none()), "{size} of at most {limit}");

            let reached = usize::try_from(outcome.position).unwrap();
            for cuts in cuts(stream.len(), reached.saturating_sub(8)..reached + 8) {
                let first = &cuts[..cuts.len().min(3)];
                let in_pieces = cut(&[Request::Other], &stream, cuts.iter().copied());
                assert_eq!(in_pieces, outcome, "{size} of at most {limit}: {fault:?}, cut at {first:?}...");
            }
        }
    }
}
