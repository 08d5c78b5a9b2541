//! How long a response's body is (RFC 9112 6.3).

use super::error::excerpt;
use super::field::elements;
use super::{Fault, Field, Version};

/// What of a request decides how its response is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Its method is HEAD: the response has no body.
    Head,
    /// Its method is CONNECT: a 2xx opens a tunnel.
    Connect,
    /// Any other.
    Other,
}

impl Request {
    /// That of this method; methods are case-sensitive (RFC 9110 9.1).
    #[must_use]
    pub fn of(method: &str) -> Self {
        match method {
            "HEAD" => Self::Head,
            "CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyLength {
    /// Another head: this was an interim response (1xx but 101).
    Interim,
    /// A body of so many bytes, or none.
    Bytes(u64),
    /// A body in chunks.
    Chunked,
    /// A body that lasts until the peer closes.
    UntilClose,
    /// Something that is not HTTP: after 101 with `Upgrade`, and after a 2xx to CONNECT.
    Tunnel,
}

impl BodyLength {
    /// The rules of RFC 9112 6.3, in their order.
    ///
    /// `Transfer-Encoding` beside `Content-Length` is refused, where the RFC lets the former win: it "might
    /// indicate an attempt to perform request smuggling or response splitting".
    ///
    /// A last coding other than chunked means a body until the peer closes, as the RFC says for responses: the
    /// coding changes what the content means and not where it ends, and the guest knows whether it can read it.
    ///
    /// A 101 says in `Upgrade` what follows and is of HTTP/1.1 (RFC 9110 7.8, 15.2.2). One without was not asked for,
    /// and what is behind it would be nobody's: it is refused, where it could pass for a tunnel.
    ///
    /// Refused are also fields that the RFC has no server send and others may believe: `Transfer-Encoding` in any
    /// head of HTTP/1.0 (6.1), and in 1xx and 204 that field or a `Content-Length` other than 0 (6.1, RFC 9110 8.6).
    /// In 304 and in a response to HEAD they say what GET would bring, and neither counts, nor in a response that
    /// opens a tunnel (RFC 9110 8.6, 9.3.6).
    pub(super) fn of(
        request: Request,
        version: Version,
        status: u16,
        fields: &[Field],
    ) -> Result<Self, Fault> {
        let coded = fields.iter().any(|field| field.is("transfer-encoding"));
        let counted = fields.iter().any(|field| field.is("content-length"));
        if coded && version == Version::Http10 {
            return Err(Fault::EncodingInHttp10);
        }
        let upgraded = fields.iter().any(|field| field.is("upgrade") && !field.value.is_empty());
        match (status, request) {
            (101, _) if version == Version::Http10 || !upgraded => Err(Fault::Switching),
            (101, _) | (200..=299, Request::Connect) => Ok(Self::Tunnel),
            (100..=199 | 204, _) if coded => Err(Fault::EncodingWithoutBody { status }),
            (100..=199 | 204, _) if counted && content_length(fields) != Ok(0) => {
                Err(Fault::LengthWithoutBody { status })
            }
            (100..=199, _) => Ok(Self::Interim),
            (204 | 304, _) | (_, Request::Head) => Ok(Self::Bytes(0)),
            _ if coded && counted => Err(Fault::EncodingAndLength),
            _ if coded => transfer_encoding(fields),
            _ if counted => content_length(fields).map(Self::Bytes),
            _ => Ok(Self::UntilClose),
        }
    }
}

/// By the last of all transfer codings (RFC 9112 6.1, 7).
///
/// Refused are also, because parsers disagree about them: chunked twice, which no sender may do; chunked with
/// parameters, which has none (7.1); an empty element of the list, which RFC 9110 5.6.1.2 would have ignored;
/// quoted strings, in which a comma could stand.
fn transfer_encoding(fields: &[Field]) -> Result<BodyLength, Fault> {
    let mut last_is_chunked = false;
    let mut chunked = 0_usize;
    for (value, coding) in elements(fields, "transfer-encoding") {
        let wrong = || Fault::Encoding { found: excerpt(value) };
        let (name, parameters) = match coding.iter().position(|byte| *byte == b';') {
            Some(at) => (coding.get(..at).unwrap_or_default().trim_ascii_end(), true),
            None => (coding, false),
        };
        if name.is_empty() || !name.iter().all(is_token) || coding.contains(&b'"') {
            return Err(wrong());
        }
        last_is_chunked = name.eq_ignore_ascii_case(b"chunked");
        if last_is_chunked {
            chunked = chunked.saturating_add(1);
            if parameters || chunked > 1 {
                return Err(wrong());
            }
        }
    }
    Ok(if last_is_chunked { BodyLength::Chunked } else { BodyLength::UntilClose })
}

/// The one value of all `Content-Length` fields (RFC 9110 8.6).
fn content_length(fields: &[Field]) -> Result<u64, Fault> {
    let mut length = None;
    for (value, element) in elements(fields, "content-length") {
        let digits = !element.is_empty() && element.iter().all(u8::is_ascii_digit);
        let number = str::from_utf8(element).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        let number: i64 = number.ok_or_else(|| Fault::ContentLength { found: excerpt(value) })?;
        match *length.get_or_insert(number.unsigned_abs()) {
            first if first == number.unsigned_abs() => {}
            first => return Err(Fault::ContentLengths { first, other: number.unsigned_abs() }),
        }
    }
    length.ok_or_else(|| Fault::ContentLength { found: String::new() })
}

/// RFC 9110 5.6.2.
const fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(request: Request, status: u16, fields: &[(&str, &str)]) -> Result<BodyLength, Fault> {
        versioned(Version::Http11, request, status, fields)
    }

    fn versioned(
        version: Version,
        request: Request,
        status: u16,
        fields: &[(&str, &str)],
    ) -> Result<BodyLength, Fault> {
        let field = |(name, value): &(&str, &str)| Field { name: (*name).to_owned(), value: (*value).into() };
        BodyLength::of(request, version, status, &fields.iter().map(field).collect::<Vec<_>>())
    }

    fn lengths(values: &[&str]) -> Result<BodyLength, Fault> {
        let fields: Vec<_> = values.iter().map(|value| ("Content-LENGTH", *value)).collect();
        of(Request::Other, 200, &fields)
    }

    fn codings(values: &[&str]) -> Result<BodyLength, Fault> {
        let fields: Vec<_> = values.iter().map(|value| ("transfer-Encoding", *value)).collect();
        of(Request::Other, 200, &fields)
    }

    const SMUGGLED: &[(&str, &str)] = &[("Transfer-Encoding", "chunked"), ("Content-Length", "x")];

    #[test]
    fn a_response_to_head_has_no_body_whatever_its_fields_say() {
        for status in [200, 206, 404, 500] {
            assert_eq!(of(Request::Head, status, SMUGGLED), Ok(BodyLength::Bytes(0)));
            assert_eq!(of(Request::Head, status, &[("Content-Length", "7")]), Ok(BodyLength::Bytes(0)));
        }
    }

    #[test]
    fn not_modified_has_no_body_whatever_its_fields_say() {
        for fields in [SMUGGLED, &[("Content-Length", "7")], &[]] {
            assert_eq!(of(Request::Other, 304, fields), Ok(BodyLength::Bytes(0)));
        }
        assert_eq!(of(Request::Other, 205, &[]), Ok(BodyLength::UntilClose));
    }

    #[test]
    fn no_content_and_interim_responses_with_a_body_in_their_fields_are_refused() {
        for status in [100, 102, 103, 199, 204] {
            for request in [Request::Other, Request::Head] {
                let body = if status == 204 { BodyLength::Bytes(0) } else { BodyLength::Interim };
                assert_eq!(of(request, status, &[]), Ok(body));
                assert_eq!(of(request, status, &[("Content-Length", "0")]), Ok(body), "it has none");
                for length in ["7", "x", "0, 7", ""] {
                    let fault = Fault::LengthWithoutBody { status };
                    assert_eq!(of(request, status, &[("Content-Length", length)]), Err(fault), "{length}");
                }
                let fault = Fault::EncodingWithoutBody { status };
                assert_eq!(of(request, status, SMUGGLED), Err(fault.clone()));
                assert_eq!(of(request, status, &[("Transfer-Encoding", "gzip")]), Err(fault));
            }
        }
    }

    #[test]
    fn an_interim_response_is_its_head_and_101_ends_http() {
        for status in [100, 102, 103, 199] {
            assert_eq!(of(Request::Other, status, &[]), Ok(BodyLength::Interim));
            assert_eq!(of(Request::Connect, status, &[]), Ok(BodyLength::Interim));
        }
        let upgrade = [&[("UPGRADE", "x")][..], SMUGGLED].concat();
        assert_eq!(of(Request::Head, 101, &upgrade), Ok(BodyLength::Tunnel));
    }

    #[test]
    fn a_101_that_nobody_can_have_asked_for_is_no_tunnel() {
        for request in [Request::Other, Request::Head, Request::Connect] {
            for fields in [&[][..], &[("Upgrade", "")], &[("Connection", "upgrade")]] {
                assert_eq!(of(request, 101, fields), Err(Fault::Switching), "{fields:?}");
            }
            let old = versioned(Version::Http10, request, 101, &[("Upgrade", "x")]);
            assert_eq!(old, Err(Fault::Switching));
        }
    }

    #[test]
    fn a_success_of_connect_is_a_tunnel_and_its_failure_a_response() {
        for status in [200, 204, 299] {
            assert_eq!(of(Request::Connect, status, SMUGGLED), Ok(BodyLength::Tunnel));
        }
        assert_eq!(of(Request::Connect, 407, &[("Content-Length", "3")]), Ok(BodyLength::Bytes(3)));
        assert_eq!(of(Request::Connect, 304, &[]), Ok(BodyLength::Bytes(0)));
    }

    #[test]
    fn a_method_is_known_in_capitals_only() {
        assert_eq!(Request::of("HEAD"), Request::Head);
        assert_eq!(Request::of("CONNECT"), Request::Connect);
        assert!(
            ["GET", "head", "Connect", ""].into_iter().all(|method| Request::of(method) == Request::Other)
        );
    }

    #[test]
    fn a_transfer_encoding_with_a_content_length_is_refused() {
        for fields in [SMUGGLED, &[("Content-Length", "5"), ("Transfer-Encoding", "gzip")]] {
            assert_eq!(of(Request::Other, 200, fields), Err(Fault::EncodingAndLength));
        }
    }

    #[test]
    fn a_transfer_encoding_in_http_1_0_is_refused_whatever_the_response_is() {
        let fields = &[("Transfer-Encoding", "chunked")];
        for status in [100, 101, 200, 204, 304, 404] {
            for request in [Request::Other, Request::Head, Request::Connect] {
                let found = versioned(Version::Http10, request, status, fields);
                assert_eq!(found, Err(Fault::EncodingInHttp10), "{status} to {request:?}");
            }
        }
    }

    #[test]
    fn a_body_is_chunked_if_that_is_the_last_coding() {
        for values in
            [&["chunked"][..], &["CHUNKED"], &["gzip, chunked"], &["gzip", "chunked"], &["a;b=c ,\tChunked"]]
        {
            assert_eq!(codings(values), Ok(BodyLength::Chunked), "{values:?}");
        }
    }

    #[test]
    fn a_body_with_another_last_coding_lasts_until_the_peer_closes() {
        for values in
            [&["gzip"][..], &["identity"], &["chunked, gzip"], &["chunked", "identity"], &["xchunked"]]
        {
            assert_eq!(codings(values), Ok(BodyLength::UntilClose), "{values:?}");
        }
    }

    #[test]
    fn a_transfer_encoding_that_can_be_read_in_two_ways_is_refused() {
        for values in [
            &[""][..],
            &[",chunked"],
            &["chunked,"],
            &["chunked", ""],
            &["chunked, chunked"],
            &["chunked", "gzip", "chunked"],
            &["chunked;a=b"],
            &["chunked ;"],
            &["chunked chunked"],
            &["chunked\u{b}"],
            &["\u{e9}chunked"],
            &["a;b=\"c, chunked"],
            &["a;b=\"c\", chunked"],
        ] {
            assert!(matches!(codings(values), Err(Fault::Encoding { .. })), "{values:?}");
        }
    }

    #[test]
    fn a_content_length_is_digits_and_fits_63_bits() {
        for (value, length) in
            [("0", 0), ("5", 5), ("0005", 5), ("9223372036854775807", i64::MAX.unsigned_abs())]
        {
            assert_eq!(lengths(&[value]), Ok(BodyLength::Bytes(length)));
        }
        for value in [
            "",
            "+5",
            "-5",
            "5.0",
            "0x5",
            "5 5",
            "five",
            "\u{665}",
            "9223372036854775808",
            "99999999999999999999",
        ] {
            assert_eq!(lengths(&[value]), Err(Fault::ContentLength { found: excerpt(value.as_bytes()) }));
        }
    }

    #[test]
    fn equal_content_lengths_are_one_and_different_ones_are_refused() {
        for values in [&["5, 5"][..], &["5", "5"], &["5,05", "5"]] {
            assert_eq!(lengths(values), Ok(BodyLength::Bytes(5)), "{values:?}");
        }
        for values in [&["5, 6"][..], &["5", "6"], &["5,5", "5,6"]] {
            assert_eq!(lengths(values), Err(Fault::ContentLengths { first: 5, other: 6 }), "{values:?}");
        }
        for values in [&["5,"][..], &["5,,5"], &["5", ""], &["5, x"]] {
            assert!(matches!(lengths(values), Err(Fault::ContentLength { .. })), "{values:?}");
        }
    }

    #[test]
    fn a_body_without_any_length_lasts_until_the_peer_closes() {
        assert_eq!(of(Request::Other, 200, &[("Content-Length-X", "5")]), Ok(BodyLength::UntilClose));
        assert_eq!(versioned(Version::Http10, Request::Other, 404, &[]), Ok(BodyLength::UntilClose));
    }
}
