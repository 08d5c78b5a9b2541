//! The JSON Schema of plans (draft 2020-12), made from the words and limits that the reader goes by.
//!
//! Published as `docs/schema/handling-plan.json`; a test holds file, schema and reader equal. What a schema cannot
//! say (what contradicts what, what a framing lacks, limits over all handlers) the reader alone refuses.

use serde_json::{Value, json};

use super::{
    Framing, MAX_ANSWER, MAX_BYTES, MAX_CHOICES, MAX_HANDLERS, MAX_HEADERS, MAX_JSON_TESTS, MAX_MEMBERS,
    MAX_NAME, MAX_REDIRECTS, MAX_RETRIES, MAX_STEPS, MAX_TEXT, MAX_WITHIN, then,
};
use crate::pointer::MAX_POINTER;
use crate::{Action, Event, StatusClass};

/// The schema.
#[must_use]
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Handling plan of a listener stub",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "framing": { "enum": words(Framing::ALL, Framing::word), "default": "http" },
            "max_wait": { "$ref": "#/$defs/duration", "default": "1h" },
            "max_retries": whole(0, MAX_RETRIES),
            "max_redirects": whole(0, MAX_REDIRECTS),
            "max_bytes": whole(1, MAX_BYTES),
            "group": { "$ref": "#/$defs/group" },
            "handler": list("#/$defs/handler", 0, MAX_HANDLERS),
        },
        "$defs": {
            "duration": { "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" },
            "name": line(MAX_NAME),
            "line": line(MAX_TEXT),
            "group": object(&["name"], json!({
                "name": { "$ref": "#/$defs/name" },
                "wake": { "anyOf": [{ "enum": ["any", "all"] }, whole(1, MAX_MEMBERS)] },
            })),
            "handler": object(&["then"], json!({
                "name": { "$ref": "#/$defs/name" },
                "when": { "$ref": "#/$defs/when" },
                "then": one_or_more("#/$defs/step", MAX_STEPS),
            })),
            "when": when(),
            "event": { "enum": words(Event::ALL, Event::word) },
            "status": {
                "anyOf": [whole(100, 599), { "enum": words(StatusClass::ALL, StatusClass::word) }]
            },
            "header": one_of(json!({
                "present": { "type": "boolean" },
                "equals": { "$ref": "#/$defs/line" },
                "contains": { "$ref": "#/$defs/line" },
                "prefix": { "$ref": "#/$defs/line" },
            })),
            "body": body(),
            "json": json_test(),
            "sizes": range(&whole(0, MAX_BYTES)),
            "times": range(&json!({ "$ref": "#/$defs/duration" })),
            "step": { "anyOf": [{ "enum": words(&then::WORDS, Action::word) }, with_argument()] },
        },
    })
}

fn when() -> Value {
    object(
        &[],
        json!({
            "event": one_or_more("#/$defs/event", MAX_CHOICES),
            "status": one_or_more("#/$defs/status", MAX_CHOICES),
            "header": fields(&json!({ "anyOf": [{ "$ref": "#/$defs/line" }, { "$ref": "#/$defs/header" }] })),
            "body": { "$ref": "#/$defs/body" },
            "json": one_or_more("#/$defs/json", MAX_JSON_TESTS),
            "bytes": { "$ref": "#/$defs/sizes" },
            "length": { "$ref": "#/$defs/sizes" },
            "elapsed": { "$ref": "#/$defs/times" },
            "silence": { "$ref": "#/$defs/times" },
        }),
    )
}

fn body() -> Value {
    object(
        &[],
        json!({
            "prefix": text(1, MAX_TEXT),
            "prefix_hex": { "type": "string", "pattern": "^ *([0-9A-Fa-f] *[0-9A-Fa-f] *)+$" },
            "contains": text(1, MAX_TEXT),
            "within": whole(1, MAX_WITHIN),
        }),
    )
}

fn json_test() -> Value {
    let scalar = json!({ "type": ["string", "number", "boolean", "null"], "maxLength": MAX_TEXT });
    let mut test = object(
        &["pointer"],
        json!({
            "pointer": text(0, MAX_POINTER),
            "equals": scalar,
            "not": scalar,
            "less": { "type": "number" },
            "greater": { "type": "number" },
            "exists": { "type": "boolean" },
        }),
    );
    set(&mut test, "minProperties", json!(2));
    set(&mut test, "maxProperties", json!(2));
    test
}

fn with_argument() -> Value {
    let status = |least| whole(least, 599);
    one_of(json!({
        "wake": { "anyOf": [
            { "enum": ["now", "end", "first-frame"] },
            object(&["bytes"], json!({ "bytes": whole(1, MAX_BYTES) })),
        ] },
        "retry": object(&[], json!({
            "after": { "$ref": "#/$defs/duration" },
            "factor": whole(1, 10),
            "at_most": { "$ref": "#/$defs/duration" },
            "times": whole(1, MAX_RETRIES),
        })),
        "respond": object(&[], json!({
            "status": status(200),
            "header": fields(&json!({ "$ref": "#/$defs/line" })),
            "body": text(0, MAX_ANSWER),
        })),
        "fail": object(&[], json!({ "status": status(400), "reason": { "$ref": "#/$defs/line" } })),
        "alert": { "$ref": "#/$defs/line" },
        "log": { "$ref": "#/$defs/line" },
    }))
}

fn words<T: Copy>(all: &[T], word: impl Fn(T) -> &'static str) -> Vec<&'static str> {
    all.iter().map(|value| word(*value)).collect()
}

fn whole(least: u64, most: u64) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": most })
}

fn text(least: usize, most: usize) -> Value {
    json!({ "type": "string", "minLength": least, "maxLength": most })
}

/// A text without control characters.
fn line(most: usize) -> Value {
    let mut line = text(1, most);
    set(&mut line, "pattern", json!("^[^\\u0000-\\u001f\\u007f-\\u009f]+$"));
    line
}

fn list(of: &str, least: usize, most: usize) -> Value {
    json!({ "type": "array", "items": { "$ref": of }, "minItems": least, "maxItems": most })
}

fn one_or_more(of: &str, most: usize) -> Value {
    json!({ "anyOf": [{ "$ref": of }, list(of, 1, most)] })
}

fn object(required: &[&str], properties: Value) -> Value {
    let mut object = json!({ "type": "object", "additionalProperties": false, "required": required });
    set(&mut object, "properties", properties);
    object
}

/// An object with exactly one of these properties.
fn one_of(properties: Value) -> Value {
    let mut one = object(&[], properties);
    set(&mut one, "minProperties", json!(1));
    set(&mut one, "maxProperties", json!(1));
    one
}

/// An object with names of fields for keys.
fn fields(value: &Value) -> Value {
    json!({
        "type": "object",
        "propertyNames": { "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", "maxLength": MAX_NAME },
        "maxProperties": MAX_HEADERS,
        "additionalProperties": value,
    })
}

fn range(of: &Value) -> Value {
    let mut table = object(&[], json!({ "at_least": of, "below": of }));
    set(&mut table, "minProperties", json!(1));
    json!({ "anyOf": [of, table] })
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(members) = object {
        members.insert(key.to_owned(), value);
    }
}
