//! What three public parsers are tested with, as far as it is about responses, and how each comes out here.
//!
//! A selection from llhttp, httparse 1.10 and picohttpparser, each parser as it is by default. The streams are
//! restated and shortened: fields and bytes that change no verdict are left out. Left out are also the vectors of
//! requests, those for lenient settings, pauses and callbacks, and such as show nothing that another does not. What
//! httparse says is asked of httparse itself; what the other two say is as their tests have it. A verdict that is not
//! theirs has a reason. picohttpparser and httparse read heads only: what they accept may still want a body.

mod httparse;
mod llhttp;
mod pico;

use handlers::http::Request;

use crate::whole;

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
    what: &'static str,
    requests: &'static [Request],
    stream: &'static [u8],
    theirs: Verdict,
    ours: Verdict,
    /// Why they are not the same; empty if they are.
    reason: &'static str,
}

const fn same(what: &'static str, stream: &'static [u8], verdict: Verdict) -> Vector {
    other(what, stream, [verdict, verdict], "")
}

const fn other(
    what: &'static str,
    stream: &'static [u8],
    [theirs, ours]: [Verdict; 2],
    reason: &'static str,
) -> Vector {
    Vector { what, requests: &[Request::Other], stream, theirs, ours, reason }
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
    for (of, vectors) in
        [("llhttp", llhttp::VECTORS), ("httparse", httparse::VECTORS), ("picohttpparser", pico::VECTORS)]
    {
        for vector in vectors {
            let verdict = verdict(vector.requests, vector.stream);
            assert_eq!(verdict, vector.ours, "{of}: {}", vector.what);
            let agreed = vector.ours == vector.theirs;
            assert_eq!(agreed, vector.reason.is_empty(), "{of}: {}", vector.what);
        }
        let (own, foreign): (Vec<_>, Vec<_>) = vectors.iter().partition(|vector| vector.reason.is_empty());
        println!("{of}: {} as they have it, {} otherwise", own.len(), foreign.len());
    }
}
