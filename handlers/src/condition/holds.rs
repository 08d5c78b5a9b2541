//! Whether a condition holds at a moment.

use core::time::Duration;

use super::{
    Contains, Fields, HeaderTest, JsonTest, JsonValueTest, Known, MAX_JSON_BODY, Range, Status, ValueTest,
    When,
};
use crate::pointer::{Found, Pointer, Scalar};
use crate::{Event, StatusClass};

/// How far a body has been searched for a handler's text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Search {
    seen: usize,
    found: bool,
}

/// Time as conditions see it.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Since the waiting began.
    pub elapsed: Duration,
    /// Since the peer last sent anything.
    pub silence: Duration,
}

impl When {
    /// Whether it holds at `event`, or with none when only time has passed.
    #[must_use]
    pub fn holds(&self, event: Option<Event>, known: &Known<'_>, times: Times, search: &mut Search) -> bool {
        (self.events.is_empty() || event.is_some_and(|event| self.events.contains(&event)))
            && (self.status.is_empty() || known.status.is_some_and(|code| self.status_is(code)))
            && Range::holds(self.bytes, Some(known.bytes))
            && Range::holds(self.length, known.length)
            && Range::holds(self.elapsed, Some(millis(times.elapsed)))
            && Range::holds(self.silence, Some(millis(times.silence)))
            && (self.headers.is_empty() || known.fields.is_some_and(|fields| self.headers_hold(fields)))
            && self.body_prefix.as_ref().is_none_or(|prefix| known.body.starts_with(prefix))
            && self.contains.as_ref().is_none_or(|wanted| search.finds(wanted, known.body))
            && (self.json.is_empty() || event == Some(Event::End) && self.json_holds(known))
    }

    /// Whether it may hold when only time has passed.
    #[must_use]
    pub fn awaits_time(&self) -> bool {
        self.events.is_empty() && (self.elapsed.is_some() || self.silence.is_some())
    }

    fn status_is(&self, code: u16) -> bool {
        self.status.iter().any(|status| match status {
            Status::Code(wanted) => *wanted == code,
            Status::Class(class) => StatusClass::of(code) == Some(*class),
        })
    }

    fn headers_hold(&self, fields: &dyn Fields) -> bool {
        self.headers.iter().all(|header| header.holds(fields))
    }

    fn json_holds(&self, known: &Known<'_>) -> bool {
        let whole = usize::try_from(known.bytes) == Ok(known.body.len());
        whole && known.body.len() <= MAX_JSON_BODY && self.json.iter().all(|test| test.holds(known.body))
    }
}

impl HeaderTest {
    fn holds(&self, fields: &dyn Fields) -> bool {
        let there = |passes: &dyn Fn(&[u8]) -> bool| {
            fields.any(&mut |name, value| name.eq_ignore_ascii_case(self.name.as_bytes()) && passes(value))
        };
        match &self.value {
            ValueTest::Present(wanted) => there(&|_| true) == *wanted,
            ValueTest::Equals(wanted) => there(&|value| value == wanted.as_bytes()),
            ValueTest::Prefix(wanted) => there(&|value| value.starts_with(wanted.as_bytes())),
            ValueTest::Contains(wanted) => there(&|value| stands_in(wanted.as_bytes(), value)),
        }
    }
}

impl JsonTest {
    fn holds(&self, body: &[u8]) -> bool {
        let found = self.pointer.find(body);
        let number = match found {
            Some(Found::Scalar(Scalar::Number(number))) => Some(number),
            _ => None,
        };
        match &self.value {
            JsonValueTest::Equals(wanted) => {
                matches!(found, Some(Found::Scalar(scalar)) if scalar == *wanted)
            }
            JsonValueTest::Not(wanted) => {
                found.is_some_and(|found| !matches!(found, Found::Scalar(scalar) if scalar == *wanted))
            }
            JsonValueTest::Less(bound) => number.is_some_and(|number| number < *bound),
            JsonValueTest::Greater(bound) => number.is_some_and(|number| number > *bound),
            JsonValueTest::Exists(true) => found.is_some(),
            JsonValueTest::Exists(false) => found.is_none() && Pointer::whole().find(body).is_some(),
        }
    }
}

impl Range {
    fn holds(range: Option<Self>, value: Option<u64>) -> bool {
        let Some(range) = range else { return true };
        value.is_some_and(|value| value >= range.at_least && range.below.is_none_or(|below| value < below))
    }
}

impl Search {
    fn finds(&mut self, wanted: &Contains, body: &[u8]) -> bool {
        let looked_at = body.get(..wanted.within).unwrap_or(body);
        if looked_at.len() < self.seen {
            *self = Self::default();
        }
        if !self.found && looked_at.len() > self.seen {
            // What was seen may end with the text's beginning.
            let from = self.seen.saturating_sub(wanted.text.len().saturating_sub(1));
            self.found = stands_in(&wanted.text, looked_at.get(from..).unwrap_or_default());
            self.seen = looked_at.len();
        }
        self.found
    }
}

fn stands_in(text: &[u8], whole: &[u8]) -> bool {
    text.is_empty() || whole.windows(text.len()).any(|window| window == text)
}

/// Whole milliseconds.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { elapsed: Duration::from_secs(10), silence: Duration::from_secs(2) };

    fn holds(when: &When, event: Event, known: &Known<'_>) -> bool {
        when.holds(Some(event), known, TIMES, &mut Search::default())
    }

    fn head(when: &When, status: u16, fields: &dyn Fields) -> bool {
        holds(when, Event::Head, &Known { status: Some(status), fields: Some(fields), ..Known::NOTHING })
    }

    fn end(when: &When, body: &[u8]) -> bool {
        let known = Known { body, bytes: body.len() as u64, ..Known::NOTHING };
        holds(when, Event::End, &known)
    }

    #[test]
    fn an_empty_condition_always_holds() {
        assert!(Event::ALL.iter().all(|event| holds(&When::default(), *event, &Known::NOTHING)));
    }

    #[test]
    fn event_is_one_of_those_named() {
        let when = When { events: vec![Event::End, Event::Closed], ..When::default() };
        let held: Vec<_> = Event::ALL
            .iter()
            .filter(|event| holds(&when, **event, &Known::NOTHING))
            .map(|e| e.word())
            .collect();
        assert_eq!(held, ["end", "closed"]);
        assert!(!when.holds(None, &Known::NOTHING, TIMES, &mut Search::default()), "time alone is none");
    }

    #[test]
    fn status_is_a_code_or_of_a_class() {
        let status = vec![Status::Code(404), Status::Class(StatusClass::ServerError)];
        let when = When { status, ..When::default() };
        let held: Vec<u16> = (99..700).filter(|code| head(&when, *code, &[])).collect();
        assert_eq!((held.len(), held[0], held[1], held[100]), (101, 404, 500, 599));
        assert!(!holds(&when, Event::Closed, &Known::NOTHING), "without a status");
    }

    #[test]
    fn header_names_have_no_case_and_values_have() {
        let fields = [("Content-Type", "application/json; charset=utf-8"), ("x-part", "1"), ("X-Part", "2")];
        for (name, value, wanted) in [
            ("content-type", ValueTest::Present(true), true),
            ("content-type", ValueTest::Present(false), false),
            ("content-length", ValueTest::Present(true), false),
            ("content-length", ValueTest::Present(false), true),
            ("CONTENT-TYPE", ValueTest::Prefix("application/json".to_owned()), true),
            ("content-type", ValueTest::Prefix("Application/JSON".to_owned()), false),
            ("content-type", ValueTest::Contains("utf-8".to_owned()), true),
            ("content-type", ValueTest::Contains("utf-16".to_owned()), false),
            ("x-part", ValueTest::Equals("2".to_owned()), true),
            ("x-part", ValueTest::Equals("1, 2".to_owned()), false),
        ] {
            let test = HeaderTest { name: name.to_owned(), value };
            let when = When { headers: vec![test.clone()], ..When::default() };
            assert_eq!(head(&when, 200, &fields), wanted, "{test:?}");
        }
    }

    #[test]
    fn without_a_head_no_header_is_absent() {
        let test = HeaderTest { name: "etag".to_owned(), value: ValueTest::Present(false) };
        let when = When { headers: vec![test], ..When::default() };
        assert!(head(&when, 200, &[]) && !holds(&when, Event::Error, &Known::NOTHING));
    }

    #[test]
    fn body_prefix_is_bytes() {
        let when = When { body_prefix: Some(b"\x16\x03".to_vec()), ..When::default() };
        assert!(end(&when, b"\x16\x03\x01") && !end(&when, b"\x16") && !end(&when, b"GET"));
    }

    #[test]
    fn contains_looks_only_within_its_bound() {
        let contains = Some(Contains { text: b"done".to_vec(), within: 8 });
        let when = When { contains, ..When::default() };
        assert!(end(&when, b"it done.") && end(&when, b"....done"));
        assert!(!end(&when, b".....done") && !end(&when, b"don"));
    }

    #[test]
    fn contains_finds_what_comes_in_pieces() {
        let contains = Some(Contains { text: b"aab".to_vec(), within: 100 });
        let when = When { contains, ..When::default() };
        let body = b"xaaaabx";
        let mut search = Search::default();
        let found: Vec<bool> = (0..=body.len())
            .map(|upto| {
                let known = Known { body: &body[..upto], ..Known::NOTHING };
                when.holds(Some(Event::Body), &known, TIMES, &mut search)
            })
            .collect();
        assert_eq!(found, [false, false, false, false, false, false, true, true]);
        let other = Known { body: b"no", ..Known::NOTHING };
        assert!(!when.holds(Some(Event::Body), &other, TIMES, &mut search), "another message");
    }

    fn json(pointer: &str, value: JsonValueTest) -> When {
        let pointer = Pointer::parse(pointer).unwrap();
        When { json: vec![JsonTest { pointer, value }], ..When::default() }
    }

    #[test]
    fn json_compares_what_a_pointer_names() {
        let body = br#"{"state":"done","left":3,"items":[]}"#;
        let text = |text: &str| Scalar::Text(text.to_owned());
        for (pointer, value, wanted) in [
            ("/state", JsonValueTest::Equals(text("done")), true),
            ("/state", JsonValueTest::Equals(text("Done")), false),
            ("/left", JsonValueTest::Equals(Scalar::Number(3.0)), true),
            ("/state", JsonValueTest::Not(text("failed")), true),
            ("/state", JsonValueTest::Not(text("done")), false),
            ("/none", JsonValueTest::Not(text("done")), false),
            ("/items", JsonValueTest::Not(text("done")), true),
            ("/left", JsonValueTest::Less(3.5), true),
            ("/left", JsonValueTest::Less(3.0), false),
            ("/left", JsonValueTest::Greater(2.0), true),
            ("/state", JsonValueTest::Greater(2.0), false),
            ("/items", JsonValueTest::Exists(true), true),
            ("/items/0", JsonValueTest::Exists(true), false),
            ("/items/0", JsonValueTest::Exists(false), true),
            ("/left", JsonValueTest::Exists(false), false),
        ] {
            assert_eq!(end(&json(pointer, value.clone()), body), wanted, "{pointer} {value:?}");
        }
        assert!(!end(&json("/a", JsonValueTest::Exists(false)), b"no JSON"));
    }

    #[test]
    fn json_is_read_once_whole_and_within_its_bound() {
        let when = json("", JsonValueTest::Exists(true));
        let whole = Known { body: b"[]", bytes: 2, ..Known::NOTHING };
        assert!(holds(&when, Event::End, &whole) && !holds(&when, Event::Body, &whole));
        assert!(!holds(&when, Event::End, &Known { bytes: 3, ..whole }), "a part is not stored");
        let mut body = b"[]".to_vec();
        body.resize(MAX_JSON_BODY, b' ');
        assert!(end(&when, &body));
        body.push(b' ');
        assert!(!end(&when, &body));
    }

    #[test]
    fn bytes_length_elapsed_and_silence_are_in_a_range() {
        let range = |at_least, below| Some(Range { at_least, below });
        let known = Known { bytes: 100, length: Some(7), ..Known::NOTHING };
        let of = |when: When| holds(&when, Event::Body, &known);
        assert!(of(When { bytes: range(100, Some(101)), ..When::default() }));
        assert!(!of(When { bytes: range(101, None), ..When::default() }));
        assert!(!of(When { bytes: range(0, Some(100)), ..When::default() }));
        assert!(of(When { length: range(7, None), ..When::default() }));
        assert!(!holds(&When { length: range(0, None), ..When::default() }, Event::Body, &Known::NOTHING));
        assert!(of(When { elapsed: range(10_000, None), ..When::default() }));
        assert!(!of(When { elapsed: range(10_001, None), ..When::default() }));
        assert!(of(When { silence: range(2_000, None), ..When::default() }));
        assert!(!of(When { silence: range(0, Some(2_000)), ..When::default() }));
    }

    #[test]
    fn all_conditions_must_hold() {
        let when = When {
            events: vec![Event::Head],
            status: vec![Status::Code(200)],
            headers: vec![HeaderTest { name: "a".to_owned(), value: ValueTest::Present(true) }],
            ..When::default()
        };
        assert!(head(&when, 200, &[("A", "")]) && !head(&when, 200, &[]) && !head(&when, 201, &[("A", "")]));
    }
}
