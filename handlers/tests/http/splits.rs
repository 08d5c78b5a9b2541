//! How a stream is cut changes nothing.

use crate::valid::VALID;
use crate::{cut, whole};

#[test]
fn a_valid_stream_is_told_the_same_whole_at_every_split_and_byte_by_byte() {
    for valid in VALID {
        let outcome = whole(valid.requests, valid.stream);
        assert_eq!(outcome.error(), None, "{}", valid.what);
        assert_eq!(outcome.ends().len(), valid.complete, "{}: {outcome:?}", valid.what);
        for at in 0..=valid.stream.len() {
            assert_eq!(cut(valid.requests, valid.stream, [at]), outcome, "{} cut at {at}", valid.what);
        }
        assert_eq!(
            cut(valid.requests, valid.stream, 0..valid.stream.len()),
            outcome,
            "{} in bytes",
            valid.what
        );
    }
}

#[test]
fn a_valid_stream_that_ends_early_is_told_the_same_as_far_as_it_goes() {
    for valid in VALID {
        let outcome = whole(valid.requests, valid.stream);
        for len in 0..valid.stream.len() {
            let part = whole(valid.requests, &valid.stream[..len]);
            assert_eq!(part.error(), None, "{} up to {len}", valid.what);
            let heads =
                outcome.heads().into_iter().filter(|head| head.at.end <= len as u64).collect::<Vec<_>>();
            assert_eq!(part.heads(), heads, "{} up to {len}", valid.what);
            assert!(outcome.body().starts_with(&part.body()), "{} up to {len}", valid.what);
        }
    }
}

#[test]
fn what_is_wrong_is_told_the_same_however_it_is_cut() {
    for valid in VALID {
        for at in 0..valid.stream.len() {
            for byte in [b'\0', b'\n', b'\r', b' ', b':', b'9', b'\xff'] {
                let mut stream = valid.stream.to_vec();
                stream[at] = byte;
                let outcome = whole(valid.requests, &stream);
                assert_eq!(
                    cut(valid.requests, &stream, 0..stream.len()),
                    outcome,
                    "{} byte {at}",
                    valid.what
                );
                assert_eq!(cut(valid.requests, &stream, [at]), outcome, "{} byte {at}", valid.what);
            }
        }
    }
}
