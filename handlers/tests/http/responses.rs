//! The states of a connection's responses, rule by rule.

use handlers::http::{
    BodyLength, Fault, FramingError, MAX_INTERIM, MAX_OUTSTANDING, NotExpected, Request, ResponseEvent,
    Responses, Version, Within,
};

use crate::{Outcome, Told, whole};

const GET: &[Request] = &[Request::Other];

fn closed(at: usize, within: Within) -> Told {
    Told::Closed { at: at as u64, within }
}

fn error(outcome: &Outcome) -> (u64, &Fault) {
    let FramingError { at, fault } = outcome.error().unwrap();
    (*at, fault)
}

#[test]
fn a_body_of_known_length_ends_with_its_last_byte() {
    let outcome = whole(GET, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let [Told::Head(head), body, end] = &outcome.told[..] else { panic!("{outcome:?}") };
    assert_eq!((head.at.clone(), head.version, head.status), (0..38, Version::Http11, 200));
    assert_eq!((head.body, &head.reason[..], head.fields.len()), (BodyLength::Bytes(5), &b"OK"[..], 1));
    assert_eq!(*body, Told::Body { at: 38, content: b"hello".to_vec() });
    assert_eq!(*end, Told::End { at: 43 });
    assert_eq!((outcome.content, outcome.outstanding), (5, 0));
}

#[test]
fn a_body_of_no_bytes_ends_with_its_head() {
    let outcome = whole(GET, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert!(matches!(outcome.told[..], [Told::Head(_), Told::End { at: 38 }]));
}

#[test]
fn a_chunked_body_is_told_without_its_framing_and_ends_behind_its_trailer() {
    let stream =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nA: b\r\n\r\n";
    let outcome = whole(GET, stream);
    let [Told::Head(head), first, second, end] = &outcome.told[..] else { panic!("{outcome:?}") };
    assert_eq!((head.body, head.fields.len()), (BodyLength::Chunked, 1), "trailers are not merged");
    assert_eq!(*first, Told::Body { at: 50, content: b"abc".to_vec() });
    assert_eq!(*second, Told::Body { at: 60, content: b"de".to_vec() });
    assert_eq!(*end, Told::End { at: stream.len() as u64 });
    assert_eq!(outcome.content, 5);
}

#[test]
fn a_body_without_a_length_ends_when_the_peer_closes() {
    let outcome = whole(GET, b"HTTP/1.0 200 OK\r\n\r\nHTTP/1.0 200 OK\r\n\r\n");
    assert_eq!(
        (outcome.heads().len(), outcome.body(), outcome.ends()),
        (1, b"HTTP/1.0 200 OK\r\n\r\n".to_vec(), vec![38])
    );
    assert_eq!(whole(GET, b"HTTP/1.0 200 OK\r\n\r\n").ends(), [19]);
}

#[test]
fn a_body_in_another_coding_ends_when_the_peer_closes() {
    let outcome = whole(GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n");
    assert_eq!((outcome.body(), outcome.ends().len()), (b"0\r\n\r\n".to_vec(), 1));
}

#[test]
fn interim_responses_are_heads_before_the_final_one() {
    let stream = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
      HTTP/1.1 204 No Content\r\n\r\n";
    let outcome = whole(GET, stream);
    assert_eq!(outcome.heads().iter().map(|head| head.status).collect::<Vec<_>>(), [100, 103, 204]);
    let [first, second, last] = outcome.heads()[..] else { panic!() };
    assert_eq!(
        (first.body, second.body, last.body),
        (BodyLength::Interim, BodyLength::Interim, BodyLength::Bytes(0))
    );
    assert_eq!((first.at.end, second.at.end), (second.at.start, last.at.start));
    assert_eq!(outcome.ends(), [stream.len() as u64], "an interim response has no end of its own");
}

#[test]
fn interim_responses_before_one_final_are_limited() {
    let (interim, last) = (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n");
    let most = [interim.repeat(MAX_INTERIM), last.to_vec()].concat();
    assert_eq!(whole(GET, &most).ends().len(), 1);
    assert_eq!(whole(&[Request::Other; 2], &most.repeat(2)).ends().len(), 2, "each response has its own");
    let outcome = whole(GET, &interim.repeat(MAX_INTERIM + 1));
    assert_eq!(error(&outcome), ((interim.len() * MAX_INTERIM) as u64, &Fault::TooManyInterim));
    assert_eq!(outcome.heads().len(), MAX_INTERIM);
}

#[test]
fn switching_protocols_ends_http() {
    let stream = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nContent-Length: 3\r\n\r\nHTTP/1.1 oh";
    let outcome = whole(&[Request::Other; 3], stream);
    let [Told::Head(head), Told::Tunnel { at, bytes }] = &outcome.told[..] else { panic!("{outcome:?}") };
    assert_eq!((head.body, head.at.end, &bytes[..]), (BodyLength::Tunnel, *at, &b"HTTP/1.1 oh"[..]));
    assert_eq!(outcome.outstanding, 2, "to these no response will come");
}

#[test]
fn bytes_behind_a_101_that_nobody_asked_for_are_not_told_as_a_tunnel() {
    for head in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.0 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ] {
        let outcome = whole(GET, format!("{head}HTTP/1.1 204 No Content\r\n\r\n").as_bytes());
        assert_eq!((error(&outcome), outcome.told.len()), ((0, &Fault::Switching), 1));
    }
}

#[test]
fn a_success_of_connect_opens_a_tunnel_and_a_failure_is_a_response() {
    let tunnel =
        whole(&[Request::Connect], b"HTTP/1.1 200 Yes\r\nTransfer-Encoding: chunked\r\n\r\n\x00\xff");
    assert!(matches!(&tunnel.told[..], [Told::Head(_), Told::Tunnel { bytes, .. }] if bytes == b"\x00\xff"));
    let refused = whole(&[Request::Connect], b"HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno");
    assert_eq!((refused.body(), refused.ends().len()), (b"no".to_vec(), 1));
}

#[test]
fn pipelined_responses_are_each_read_for_their_own_request() {
    let counted = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let stream = [
        &counted[..],
        counted,
        b"hello",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        counted,
        b"again",
    ]
    .concat();
    let outcome = whole(&[Request::Head, Request::Other, Request::Other, Request::Other], &stream);
    assert_eq!(outcome.ends(), [38, 81, 81 + 48, stream.len() as u64]);
    assert_eq!((outcome.body(), outcome.outstanding), (b"helloagain".to_vec(), 0));
    assert_eq!(outcome.content, 5, "content is counted for each of them");
}

#[test]
fn a_request_may_be_told_of_when_the_one_before_has_its_response() {
    let mut responses = Responses::new();
    for turn in 1..=3 {
        responses.expect(Request::Other).unwrap();
        let mut input = &b"HTTP/1.1 204 No Content\r\n\r\n"[..];
        while responses.advance(&mut input).unwrap().is_some() {}
        assert_eq!((responses.position(), responses.outstanding()), (27 * turn, 0));
    }
    assert_eq!(responses.close(), None);
}

#[test]
fn bytes_behind_the_last_response_due_are_refused() {
    let outcome = whole(GET, b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(
        (error(&outcome), outcome.ends()),
        ((27, &Fault::Unasked), vec![27]),
        "what was told still holds"
    );
    assert_eq!(error(&whole(&[], b"H")), (0, &Fault::Unasked));
}

#[test]
fn a_close_within_a_response_says_in_the_midst_of_what() {
    for (stream, within) in [
        (&b""[..], Within::Nothing),
        (b"HTTP/1.1 100 Continue\r\n\r\n", Within::Nothing),
        (b"H", Within::Head),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r", Within::Head),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Within::Body { missing: Some(5) }),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", Within::Body { missing: Some(1) }),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Within::Body { missing: None }),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r", Within::Body { missing: None }),
    ] {
        assert_eq!(whole(GET, stream).told.last(), Some(&closed(stream.len(), within)), "{stream:?}");
    }
}

#[test]
fn a_close_ends_one_response_and_takes_the_next_ones_away() {
    let outcome = whole(&[Request::Other; 3], b"HTTP/1.1 200 OK\r\n\r\nbody");
    let [Told::Head(_), Told::Body { .. }, Told::End { at: 23 }, last] = &outcome.told[..] else {
        panic!("{outcome:?}")
    };
    assert_eq!(*last, closed(23, Within::Nothing));
    assert_eq!(outcome.outstanding, 2);
}

#[test]
fn a_close_ends_a_response_whose_end_was_not_asked_for() {
    let mut responses = Responses::new();
    responses.expect(Request::Other).unwrap();
    let mut input = &b"HTTP/1.1 204 No Content\r\n\r\n"[..];
    assert!(matches!(responses.advance(&mut input), Ok(Some(ResponseEvent::Head(_)))));
    assert_eq!((responses.close(), responses.close()), (Some(ResponseEvent::End { at: 27 }), None));
}

#[test]
fn a_close_with_no_request_due_says_nothing() {
    let mut responses = Responses::new();
    assert_eq!((responses.close(), responses.close()), (None, None));
    assert!(matches!(
        responses.advance(&mut &b"H"[..]),
        Err(FramingError { at: 0, fault: Fault::AfterLast })
    ));
}

#[test]
fn behind_the_last_response_of_a_connection_nothing_may_come() {
    for last in [
        &b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let outcome = whole(&[Request::Other; 2], last);
        let ended = [Told::End { at: last.len() as u64 }, closed(last.len(), Within::Nothing)];
        assert!(outcome.told.ends_with(&ended), "{outcome:?}");
        assert_eq!(outcome.outstanding, 1, "the other request has no response");
        assert_eq!(whole(GET, last).told.last(), Some(&ended[0]), "nobody waits for more");

        let more = [last, b"HTTP/1.1 204 No Content\r\n\r\n"].concat();
        let outcome = whole(&[Request::Other; 2], &more);
        assert_eq!(error(&outcome), (last.len() as u64, &Fault::AfterLast));
        assert_eq!((outcome.heads().len(), outcome.ends().len(), outcome.outstanding), (1, 1, 1));
    }
}

#[test]
fn an_interim_response_does_not_say_whether_the_connection_persists() {
    let stream = b"HTTP/1.1 103 Early Hints\r\nConnection: close\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n\
      HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    let outcome = whole(&[Request::Other; 3], stream);
    assert_eq!((outcome.error(), outcome.ends().len()), (None, 3));
}

#[test]
fn an_error_stays_and_what_was_counted_remains() {
    let outcome = whole(GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n");
    assert_eq!(error(&outcome), (55, &Fault::ChunkSize { found: b'x' }));
    assert_eq!((outcome.position, outcome.content, outcome.body()), (55, 3, b"abc".to_vec()));
    assert_eq!((outcome.outstanding, outcome.told.len()), (1, 3), "and the close says nothing more");
}

#[test]
fn a_head_that_leaves_the_length_in_doubt_is_not_told() {
    let stream = b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
      Content-Length: 5\r\n\r\nhello";
    let outcome = whole(&[Request::Other; 2], stream);
    assert_eq!((error(&outcome), outcome.heads().len()), ((27, &Fault::EncodingAndLength), 1));
}

#[test]
fn a_length_of_63_bits_is_counted_down_without_being_kept() {
    let stream = b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\nabc";
    let missing = Some(i64::MAX.unsigned_abs() - 3);
    assert_eq!(whole(GET, stream).told.last(), Some(&closed(stream.len(), Within::Body { missing })));
}

#[test]
fn requests_without_a_response_are_limited() {
    let mut responses = Responses::new();
    for _ in 0..MAX_OUTSTANDING {
        assert_eq!(responses.expect(Request::Other), Ok(()));
    }
    assert_eq!(responses.expect(Request::Head), Err(NotExpected::TooManyOutstanding));
    assert_eq!(responses.outstanding(), MAX_OUTSTANDING);
    assert!(NotExpected::TooManyOutstanding.to_string().contains("256"));
}

#[test]
fn after_one_request_too_many_none_is_taken_any_more() {
    let mut responses = Responses::new();
    for _ in 0..MAX_OUTSTANDING {
        responses.expect(Request::Other).unwrap();
    }
    assert_eq!(responses.expect(Request::Head), Err(NotExpected::TooManyOutstanding));
    let empty = b"HTTP/1.1 204 No Content\r\n\r\n";
    let mut input = &empty[..];
    while responses.advance(&mut input).unwrap().is_some() {}
    assert_eq!(responses.outstanding(), MAX_OUTSTANDING - 1, "there is room");
    assert_eq!(
        responses.expect(Request::Other),
        Err(NotExpected::TooManyOutstanding),
        "but who is next is not known"
    );

    let others = empty.repeat(MAX_OUTSTANDING);
    let (mut input, at) = (&others[..], others.len() as u64);
    let error = loop {
        match responses.advance(&mut input) {
            Ok(event) => assert!(event.is_some(), "bytes are left"),
            Err(error) => break error,
        }
    };
    assert_eq!(error, FramingError { at, fault: Fault::Unasked });
}

/// A connection with two requests whose stream so far is this one, all events of it taken.
fn after(mut input: &[u8]) -> Responses {
    let mut responses = Responses::new();
    for _ in 0..2 {
        responses.expect(Request::Other).unwrap();
    }
    while responses.advance(&mut input).unwrap().is_some() {}
    responses
}

#[test]
fn after_a_close_no_byte_is_a_response() {
    let next = &b"HTTP/1.1 204 No Content\r\n\r\n"[..];
    for stream in [
        &b""[..],
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the close",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 20",
    ] {
        // Whether or not the close has said all that it has to.
        for calls in 1..=3 {
            let mut responses = after(stream);
            for _ in 0..calls {
                responses.close();
            }
            assert_eq!(responses.advance(&mut &b""[..]), Ok(None));
            let (mut input, at) = (next, stream.len() as u64);
            let error = FramingError { at, fault: Fault::AfterLast };
            assert_eq!(responses.advance(&mut input), Err(error), "{stream:?} and {calls} calls");
            assert_eq!((input, responses.position()), (next, at), "nothing is taken");
        }
    }
}

#[test]
fn a_request_that_can_have_no_response_is_refused() {
    let mut tunnel = after(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
    assert_eq!(tunnel.expect(Request::Other), Err(NotExpected::Over));
    let mut last = after(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    assert_eq!(last.expect(Request::Other), Err(NotExpected::Over));
    for stream in [&b""[..], b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 20"] {
        let mut closed = after(stream);
        closed.close();
        let outstanding = closed.outstanding();
        assert_eq!(closed.expect(Request::Other), Err(NotExpected::Over), "{stream:?}");
        assert_eq!(closed.outstanding(), outstanding);
    }
    let mut failed = Responses::new();
    assert!(failed.advance(&mut &b"x"[..]).is_err());
    assert_eq!((failed.close(), failed.expect(Request::Other)), (None, Err(NotExpected::Over)));
    assert!(NotExpected::Over.to_string().contains("another connection"));
}
