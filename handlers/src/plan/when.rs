//! Reads a condition.

use super::section::Section;
use super::tree::Tree;
use super::{
    DEFAULT_WITHIN, Framing, MAX_BYTES, MAX_CHOICES, MAX_HEADERS, MAX_JSON_TESTS, MAX_NAME, MAX_TEXT,
    MAX_WITHIN, read, value,
};
use crate::condition::{Contains, HeaderTest, JsonTest, JsonValueTest, Range, Status, ValueTest, When};
use crate::pointer::{MAX_POINTER, Pointer};
use crate::{Event, StatusClass};

/// Reads the table `when`.
pub(super) fn read(section: &mut Section<'_>, framing: Framing) -> When {
    let mut when = When {
        events: section.one_or_more("event", MAX_CHOICES, value::word),
        status: section.one_or_more("status", MAX_CHOICES, status),
        headers: section.table("header", headers).unwrap_or_default(),
        ..When::default()
    };
    section.table("body", |section| body(section, &mut when));
    when.json = json(section);
    when.bytes = range(section, "bytes", &value::count(0, MAX_BYTES));
    when.length = range(section, "length", &value::count(0, MAX_BYTES));
    when.elapsed = range(section, "elapsed", &read::millis);
    when.silence = range(section, "silence", &read::millis);
    fits(section, framing, &when);
    when
}

/// How many conditions these are, for the limit of a plan.
pub(super) fn weight(when: &When) -> usize {
    let present = [
        !when.events.is_empty(),
        !when.status.is_empty(),
        when.body_prefix.is_some(),
        when.contains.is_some(),
        when.bytes.is_some(),
        when.length.is_some(),
        when.elapsed.is_some(),
        when.silence.is_some(),
    ];
    present.into_iter().filter(|present| *present).count() + when.headers.len() + when.json.len()
}

/// Refuses what the framing does not have.
fn fits(section: &mut Section<'_>, framing: Framing, when: &When) {
    let is_http = framing == Framing::Http;
    for (key, there) in [("status", !when.status.is_empty()), ("header", !when.headers.is_empty())] {
        if there && !is_http {
            section.wrong_at(key, format!("framing {framing} has none, only http has"));
        }
    }
    for (key, there) in [("length", when.length.is_some()), ("silence", when.silence.is_some())] {
        if there && is_http {
            section.wrong_at(key, "framing http has none: wanted `bytes`, `elapsed` or another framing");
        }
    }
    if !when.json.is_empty() && !when.events.is_empty() && !when.events.contains(&Event::End) {
        section.wrong_at("json", "holds only at the event end, which `event` leaves out");
    }
}

fn status(tree: &Tree) -> Result<Status, String> {
    match tree {
        Tree::Integer(_) => value::small_count(100, 599)(tree)
            .map(|code| Status::Code(u16::try_from(code).unwrap_or_default())),
        Tree::Text(text) => text.parse::<StatusClass>().map(Status::Class).map_err(|unknown| {
            value::wanted(&format!("a status code or one of {}", unknown.known.join(", ")), tree)
        }),
        _ => Err(value::wanted("a status code or a class, as \"4xx\"", tree)),
    }
}

fn headers(section: &mut Section<'_>) -> Vec<HeaderTest> {
    let mut tests = Vec::new();
    let rest = section.rest();
    if rest.len() > MAX_HEADERS {
        section.wrong(format!("wanted at most {MAX_HEADERS} headers, found {}", rest.len()));
    }
    for (name, tree) in rest.into_iter().take(MAX_HEADERS) {
        if name.len() > MAX_NAME || !value::is_field_name(&name) {
            section.wrong(value::wanted("the name of a header", &Tree::Text(name)));
            continue;
        }
        let value = match tree {
            Tree::Text(_) => match value::line(MAX_TEXT)(&tree) {
                Ok(text) => Some(ValueTest::Equals(text)),
                Err(why) => {
                    section.wrong_at(&name, why);
                    None
                }
            },
            Tree::Table(_) => section.child(&name, tree, header).flatten(),
            other => {
                section.wrong_at(&name, value::wanted("a text or a table", &other));
                None
            }
        };
        tests.extend(value.map(|value| HeaderTest { name, value }));
    }
    tests
}

fn header(section: &mut Section<'_>) -> Option<ValueTest> {
    exactly_one(section, &["present", "equals", "contains", "prefix"]);
    let text = value::line(MAX_TEXT);
    let tests = [
        section.take("present", value::flag).map(ValueTest::Present),
        section.take("equals", &text).map(ValueTest::Equals),
        section.take("contains", &text).map(ValueTest::Contains),
        section.take("prefix", &text).map(ValueTest::Prefix),
    ];
    tests.into_iter().flatten().next()
}

fn body(section: &mut Section<'_>, when: &mut When) {
    if section.count(&["prefix", "prefix_hex"]) == 2 {
        section.wrong("wanted prefix or prefix_hex, found both");
    }
    if section.count(&["prefix", "prefix_hex", "contains"]) == 0 {
        section.wrong("wanted prefix, prefix_hex or contains");
    }
    let has_contains = section.count(&["contains"]) > 0;
    let text = value::text(MAX_TEXT);
    let prefix = section.take("prefix", &text).map(String::into_bytes);
    let hex = section.take("prefix_hex", value::hex(MAX_TEXT));
    when.body_prefix = prefix.or(hex);
    let contains = section.take("contains", &text).map(String::into_bytes);
    let within = section.take("within", value::count(1, MAX_WITHIN));
    if within.is_some() && !has_contains {
        section.wrong("wanted `contains` with `within`");
    }
    let within = usize::try_from(within.unwrap_or(DEFAULT_WITHIN)).unwrap_or(usize::MAX);
    if contains.as_ref().is_some_and(|text| text.len() > within) {
        section.wrong("wanted `within` at least as long as the text that it is to hold");
    }
    when.contains = contains.map(|text| Contains { text, within });
}

fn json(section: &mut Section<'_>) -> Vec<JsonTest> {
    let entries = match section.remove("json") {
        None => return Vec::new(),
        Some(Tree::List(entries)) => entries,
        Some(single) => vec![single],
    };
    if entries.is_empty() || entries.len() > MAX_JSON_TESTS {
        section.wrong_at("json", format!("wanted 1 to {MAX_JSON_TESTS} entries, found {}", entries.len()));
    }
    let read = |entry| section.child("json", entry, json_test).flatten();
    entries.into_iter().take(MAX_JSON_TESTS).filter_map(read).collect()
}

fn json_test(section: &mut Section<'_>) -> Option<JsonTest> {
    exactly_one(section, &["equals", "not", "less", "greater", "exists"]);
    let pointer = section.require("pointer", |tree| match tree {
        Tree::Text(text) => Pointer::parse(text),
        _ => Err(value::wanted(&format!("a JSON pointer of at most {MAX_POINTER} bytes"), tree)),
    });
    let scalar = value::scalar(MAX_TEXT);
    let tests = [
        section.take("equals", &scalar).map(JsonValueTest::Equals),
        section.take("not", &scalar).map(JsonValueTest::Not),
        section.take("less", value::number).map(JsonValueTest::Less),
        section.take("greater", value::number).map(JsonValueTest::Greater),
        section.take("exists", value::flag).map(JsonValueTest::Exists),
    ];
    let value = tests.into_iter().flatten().next()?;
    Some(JsonTest { pointer: pointer?, value })
}

/// Refuses none or several of `keys`.
fn exactly_one(section: &mut Section<'_>, keys: &[&str]) {
    let count = section.count(keys);
    if count != 1 {
        section.wrong(format!("wanted one of {}, found {count} of them", keys.join(", ")));
    }
}

/// A number, from which on; or a table with `at_least` and `below`.
fn range(
    section: &mut Section<'_>,
    key: &'static str,
    read: &dyn Fn(&Tree) -> Result<u64, String>,
) -> Option<Range> {
    match section.remove(key)? {
        tree @ Tree::Table(_) => section.child(key, tree, |section| {
            if section.count(&["at_least", "below"]) == 0 {
                section.wrong("wanted at_least, below or both");
            }
            let at_least = section.take("at_least", read);
            let below = section.take("below", read);
            let at_least = at_least.unwrap_or(0);
            if below.is_some_and(|below| below <= at_least) {
                section.wrong("wanted `below` above `at_least`: nothing is between them");
            }
            Range { at_least, below }
        }),
        single => match read(&single) {
            Ok(at_least) => Some(Range { at_least, below: None }),
            Err(why) => {
                section.wrong_at(key, why);
                None
            }
        },
    }
}
