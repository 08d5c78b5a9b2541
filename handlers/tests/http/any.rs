//! Any bytes, cut anywhere.

use handlers::http::Request;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::valid::VALID;
use crate::{cut, whole};

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let request =
        prop_oneof![3 => Just(Request::Other), 1 => Just(Request::Head), 1 => Just(Request::Connect)];
    prop::collection::vec(request, 0..5)
}

fn same(requests: &[Request], stream: &[u8], cuts: &[Index]) {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    cuts.sort_unstable();
    let outcome = whole(requests, stream);
    assert_eq!(cut(requests, stream, cuts.iter().copied()), outcome, "{cuts:?}");
}

/// What leads to each of the states in which any bytes may then come.
const BEFORE: &[&str] = &[
    "",
    "HTTP/1.1 ",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 200 OK\r\nServer: ",
    "HTTP/1.1 103 Early Hints\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: ",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: ",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
];

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        "(Content-Length|content-length): ?(0|5|12|5, ?5|-1|999999999999999999999)",
        "(Transfer-Encoding|transfer-encoding): ?(chunked|gzip|gzip, ?chunked|chunked, ?chunked)",
        "[A-Za-z-]{1,12} ?: ?[ -~]{0,20}",
        "[ -~]{0,30}",
    ]
}

fn response() -> impl Strategy<Value = String> {
    let status =
        prop_oneof!["HTTP/1\\.[01] (100|101|102|200|204|206|302|304|404|500) ?[A-Z]{0,5}", "[ -~]{0,20}"];
    let body = prop_oneof![
        "[ -~]{0,20}",
        "([0-3]\r\n[a-c]{0,3}\r\n){0,4}0\r\n\r\n",
        "(5;a=b\r\nhello\r\n){0,2}0\r\n(A: b\r\n){0,2}\r\n",
    ];
    let end = prop_oneof![9 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r")];
    (status, prop::collection::vec(line(), 0..4), end, body).prop_map(|(status, lines, end, body)| {
        [vec![status], lines, vec![String::new(), body]].concat().join(end)
    })
}

proptest! {
    #[test]
    fn random_splits_of_a_valid_stream_change_nothing(
        valid in any::<Index>(),
        cuts in prop::collection::vec(any::<Index>(), 0..12),
    ) {
        let valid = &VALID[valid.index(VALID.len())];
        same(valid.requests, valid.stream, &cuts);
    }

    #[test]
    fn random_splits_of_a_damaged_stream_change_nothing(
        requests in requests(),
        valid in any::<Index>(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        cuts in prop::collection::vec(any::<Index>(), 0..12),
    ) {
        let mut stream = VALID[valid.index(VALID.len())].stream.to_vec();
        for (at, byte) in changes {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        same(&requests, &stream, &cuts);
    }

    #[test]
    fn random_splits_of_made_up_responses_change_nothing(
        requests in requests(),
        responses in prop::collection::vec(response(), 1..4),
        cuts in prop::collection::vec(any::<Index>(), 0..12),
    ) {
        same(&requests, responses.concat().as_bytes(), &cuts);
    }

    #[test]
    fn no_input_panics(
        requests in requests(),
        before in prop::sample::select(BEFORE),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        cuts in prop::collection::vec(any::<Index>(), 0..12),
    ) {
        let requests = [&[Request::Other][..], &requests].concat();
        let stream = [before.as_bytes(), &bytes].concat();
        prop_assert!(whole(&requests, &stream).position >= before.len() as u64, "the bytes are reached");
        same(&requests, &stream, &cuts);
    }
}
