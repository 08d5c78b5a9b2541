//! The published schema is the code's: same keys, same words; what it accepts and refuses the reader does too.

#![allow(clippy::unwrap_used, reason = "a schema that cannot be read fails with the place")]

mod validator;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use handlers::Plan;
use handlers::plan::schema::schema;
use serde_json::{Value, json};
use validator::is_valid;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs")
}

/// With `WRITE_SCHEMA` set this writes the file instead.
#[test]
fn the_published_schema_is_the_codes() {
    let path = docs().join("schema/handling-plan.json");
    if std::env::var_os("WRITE_SCHEMA").is_some() {
        let text = serde_json::to_string_pretty(&schema()).unwrap();
        std::fs::write(&path, format!("{text}\n")).unwrap();
    }
    let published: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert!(published == schema(), "write it anew: WRITE_SCHEMA=1 cargo test -p handlers --test plan_schema");
}

/// The keys that the reader names when it finds one that it does not know, of the table that has it at `zz`.
fn known_to_the_reader(plan: &Value) -> BTreeSet<String> {
    let why = Plan::from_json(&plan.to_string()).unwrap_err();
    let unknown = |what: &str| what.strip_prefix("unknown key \"zz\": known are ").map(str::to_owned);
    let known = why.problems.iter().find_map(|problem| unknown(&problem.what)).unwrap();
    known.split(", ").map(str::to_owned).collect()
}

fn properties(pointer: &str) -> BTreeSet<String> {
    let schema = schema();
    let object = schema.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
    assert_eq!(object["additionalProperties"], json!(false), "{pointer}");
    object["properties"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn schema_and_reader_know_the_same_keys() {
    let handler = |value: Value| json!({ "handler": [value] });
    let when = |value: Value| handler(json!({ "when": value, "then": "wake" }));
    let then = |value: Value| handler(json!({ "then": [value] }));
    let zz = || json!({ "zz": 1 });
    let step = "/$defs/step/anyOf/1";
    for (pointer, plan) in [
        (String::new(), zz()),
        ("/$defs/group".to_owned(), json!({ "group": zz() })),
        ("/$defs/handler".to_owned(), handler(zz())),
        ("/$defs/when".to_owned(), when(zz())),
        ("/$defs/header".to_owned(), when(json!({ "header": { "a": zz() } }))),
        ("/$defs/body".to_owned(), when(json!({ "body": zz() }))),
        ("/$defs/json".to_owned(), when(json!({ "json": zz() }))),
        ("/$defs/sizes/anyOf/1".to_owned(), when(json!({ "bytes": zz() }))),
        ("/$defs/times/anyOf/1".to_owned(), when(json!({ "elapsed": zz() }))),
        (step.to_owned(), then(zz())),
        (format!("{step}/properties/wake/anyOf/1"), then(json!({ "wake": zz() }))),
        (format!("{step}/properties/retry"), then(json!({ "retry": zz() }))),
        (format!("{step}/properties/respond"), then(json!({ "respond": zz() }))),
        (format!("{step}/properties/fail"), then(json!({ "fail": zz() }))),
    ] {
        assert_eq!(properties(&pointer), known_to_the_reader(&plan), "{pointer}");
        assert!(!is_valid(&schema(), &plan), "{pointer}");
    }
}

#[test]
fn schema_and_reader_know_the_same_words() {
    let wake = |when: Value| json!({ "framing": "line", "handler": [{ "when": when, "then": "wake" }] });
    let http = |when: Value| json!({ "handler": [{ "when": when, "then": "wake" }] });
    let then = |step: Value| json!({ "max_retries": 1, "max_redirects": 1, "handler": [{ "then": step }] });
    type Plan = Box<dyn Fn(Value) -> Value>;
    let places: [(&str, Plan); 6] = [
        ("/properties/framing/enum", Box::new(|word| json!({ "framing": word }))),
        ("/$defs/group/properties/wake/anyOf/0/enum", {
            Box::new(|word| json!({ "group": { "name": "a", "wake": word } }))
        }),
        ("/$defs/event/enum", Box::new(move |word| wake(json!({ "event": word })))),
        ("/$defs/status/anyOf/1/enum", Box::new(move |word| http(json!({ "status": word })))),
        ("/$defs/step/anyOf/0/enum", Box::new(then)),
        ("/$defs/step/anyOf/1/properties/wake/anyOf/0/enum", {
            Box::new(move |word| then(json!({ "wake": word })))
        }),
    ];
    let schema = schema();
    let mut every: Vec<Value> = vec![json!("alert"), json!("log"), json!("respond"), json!("zz")];
    for (pointer, _) in &places {
        every.extend(schema.pointer(pointer).unwrap().as_array().unwrap().iter().cloned());
    }
    for (pointer, plan) in places {
        let words = schema.pointer(pointer).unwrap().as_array().unwrap();
        for word in &every {
            let plan = plan(word.clone());
            let read = handlers::Plan::from_json(&plan.to_string());
            assert_eq!(words.contains(word), read.is_ok(), "{pointer}: {word}: {read:?}");
            assert_eq!(words.contains(word), is_valid(&schema, &plan), "{pointer}: {word}");
        }
    }
}

#[test]
fn the_schema_accepts_each_example_and_the_reader_too() {
    let mut count = 0;
    for entry in std::fs::read_dir(docs().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let value: Value = toml::from_str(&text).unwrap();
        assert!(is_valid(&schema(), &value), "{}", path.display());
        let plan = Plan::from_toml(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        assert_eq!(Plan::from_json(&value.to_string()), Ok(plan), "{}", path.display());
        count += 1;
    }
    assert!(count >= 2);
}

/// What contradicts what a schema cannot say; all else that the reader refuses, the schema refuses.
#[test]
fn the_schema_refuses_what_is_wrong_in_itself() {
    let beyond = [
        "handler 1, when, length: framing http",
        "handler 1, when, status: framing line",
        "handler 1, then 1: framing raw",
        "handler 1, then 1, fail, status: framing raw",
        "handler 1, then: wanted `max_re",
        "handler 1, then 2: ",
        "handler 1, when, json: holds only",
        "handler 1, when, bytes: wanted `below`",
        "handler 1, when, body: wanted",
        "handler 1, then 1, respond, header: wanted the name of a header other than",
        "handler 1, when, json, pointer: wanted a JSON pointer that begins",
        "max_wait: wanted a duration longer than zero",
        "max_wait: wanted a duration of at most",
    ];
    let mut refused = 0;
    for block in include_str!("plan-refusals.txt").split_terminator("\n\n") {
        let (plan, said) = block.split_once("\n> ").unwrap();
        let Ok(value) = toml::from_str::<Value>(plan) else { continue };
        if !beyond.iter().any(|begin| said.starts_with(begin)) {
            assert!(!is_valid(&schema(), &value), "{plan}");
            refused += 1;
        }
    }
    assert!(refused >= 60, "{refused}");
}
