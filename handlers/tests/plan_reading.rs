//! What a plan says is what is read, from TOML as from JSON.

#![allow(clippy::unwrap_used, reason = "a plan that cannot be read fails with the reason")]

use core::time::Duration;
use std::sync::Arc;

use handlers::condition::{Contains, HeaderTest, JsonTest, JsonValueTest, Range, Status, ValueTest, When};
use handlers::plan::{Framing, GroupRule, GroupWake, Handler, Plan};
use handlers::pointer::{Pointer, Scalar};
use handlers::step::{Answer, Backoff, Failure, Step, WakeAt};
use handlers::{Event, StatusClass};

const TOML: &str = r#"
framing = "http"
max_wait = "2h"
max_retries = 5
max_redirects = 3
max_bytes = 4096

[group]
name = "pages"
wake = 2

[[handler]]
name = "all of them"
then = ["buffer", { wake = { bytes = 10 } }, { alert = "look" }, { log = "seen" }]
[handler.when]
event = ["head", "end"]
status = [200, "5xx"]
body = { prefix_hex = "7B 22", contains = "done", within = 100 }
bytes = 10
elapsed = { at_least = "1s", below = "1m" }
[handler.when.header]
etag = "1"
age = { present = false }
vary = { contains = "a" }
link = { prefix = "<" }
[[handler.when.json]]
pointer = "/state"
equals = "done"
[[handler.when.json]]
pointer = "/left"
less = 1

[[handler]]
when.event = "closed"
when.body.prefix = "{"
then = ["discard", { retry = { after = "2s", factor = 3, at_most = "1m", times = 4 } }]

[[handler]]
when = { bytes = { below = 7 } }
then = [{ respond = { status = 503, header = { Retry-After = "5" }, body = "later" } }]

[[handler]]
then = { fail = { status = 402, reason = "declined" } }
"#;

const JSON: &str = r#"{
  "framing": "http", "max_wait": "120m", "max_retries": 5, "max_redirects": 3, "max_bytes": 4096,
  "group": { "name": "pages", "wake": 2 },
  "handler": [
    { "name": "all of them",
      "when": {
        "event": ["head", "end"], "status": [200, "5xx"],
        "header": { "etag": "1", "age": { "present": false }, "vary": { "contains": "a" }, "link": { "prefix": "<" } },
        "body": { "prefix_hex": "7b22", "contains": "done", "within": 100 },
        "json": [{ "pointer": "/state", "equals": "done" }, { "pointer": "/left", "less": 1.0 }],
        "bytes": { "at_least": 10 }, "elapsed": { "at_least": "1000ms", "below": "60s" } },
      "then": ["buffer", { "wake": { "bytes": 10 } }, { "alert": "look" }, { "log": "seen" }] },
    { "when": { "event": ["closed"], "body": { "prefix": "{" } },
      "then": ["discard", { "retry": { "after": "2s", "factor": 3, "at_most": "60s", "times": 4 } }] },
    { "when": { "bytes": { "below": 7 } },
      "then": { "respond": { "status": 503, "header": { "Retry-After": "5" }, "body": "later" } } },
    { "then": [{ "fail": { "status": 402, "reason": "declined" } }] }
  ]
}"#;

fn handler(text: &str) -> Handler {
    let text = format!("max_retries = 1\nmax_redirects = 1\n[[handler]]\n{text}");
    Plan::from_toml(&text).unwrap_or_else(|why| panic!("{text}: {why}")).handlers.remove(0)
}

fn steps(then: &str) -> Vec<Step> {
    handler(&format!("then = {then}")).then
}

fn when(when: &str) -> When {
    handler(&format!("then = \"wake\"\nwhen = {{ {when} }}")).when
}

#[test]
fn toml_and_json_give_equal_plans() {
    assert_eq!(Plan::from_toml(TOML).unwrap(), Plan::from_json(JSON).unwrap());
}

#[test]
fn a_whole_plan_is_read() {
    let plan = Plan::from_toml(TOML).unwrap();
    assert_eq!((plan.framing, plan.max_wait), (Framing::Http, Duration::from_secs(7200)));
    assert_eq!((plan.max_retries, plan.max_redirects, plan.max_bytes), (5, 3, 4096));
    assert_eq!(plan.group, Some(GroupRule { name: "pages".into(), wake: GroupWake::Count(2) }));
    let header = |name: &str, value| HeaderTest { name: name.to_owned(), value };
    let json = |pointer, value| JsonTest { pointer: Pointer::parse(pointer).unwrap(), value };
    let wanted = When {
        events: vec![Event::Head, Event::End],
        status: vec![Status::Code(200), Status::Class(StatusClass::ServerError)],
        headers: vec![
            header("age", ValueTest::Present(false)),
            header("etag", ValueTest::Equals("1".to_owned())),
            header("link", ValueTest::Prefix("<".to_owned())),
            header("vary", ValueTest::Contains("a".to_owned())),
        ],
        body_prefix: Some(b"{\"".to_vec()),
        contains: Some(Contains { text: b"done".to_vec(), within: 100 }),
        json: vec![
            json("/state", JsonValueTest::Equals(Scalar::Text("done".to_owned()))),
            json("/left", JsonValueTest::Less(1.0)),
        ],
        bytes: Some(Range { at_least: 10, below: None }),
        length: None,
        elapsed: Some(Range { at_least: 1000, below: Some(60_000) }),
        silence: None,
    };
    let first = plan.handlers.first().unwrap();
    assert_eq!((&first.name, &first.when), (&Some(Arc::from("all of them")), &wanted));
    let places: Vec<String> = (0..2).map(|index| plan.place_of(index)).collect();
    assert_eq!(places, ["handler 1 \"all of them\"", "handler 2"]);
}

#[test]
fn an_empty_plan_has_the_defaults() {
    for framing in Framing::ALL {
        let text = format!("framing = \"{framing}\"");
        assert_eq!(Plan::from_toml(&text).unwrap(), Plan::default_for(*framing));
    }
    let plan = Plan::from_json("{}").unwrap();
    assert_eq!(plan, Plan::default_for(Framing::Http));
    assert_eq!((plan.max_wait, plan.max_bytes), (Duration::from_secs(3600), 16 << 20));
    assert_eq!((plan.max_retries, plan.max_redirects, plan.group), (0, 0, None));
}

#[test]
fn each_action_is_read_with_its_arguments() {
    let second = Duration::from_secs(1);
    let backoff = Backoff { after: second, factor: 2, at_most: 60 * second, times: None };
    let failure = |status, reason: &str| Step::Fail(Failure { status: Some(status), reason: reason.into() });
    let answer = |status, headers, body: &str| {
        Step::Respond(Arc::new(Answer { status, headers, body: body.to_owned() }))
    };
    for (then, step) in [
        ("\"ignore\"", Step::Ignore),
        ("\"discard\"", Step::Discard),
        ("\"buffer\"", Step::Buffer),
        ("\"wake\"", Step::Wake(WakeAt::Now)),
        ("{ wake = \"now\" }", Step::Wake(WakeAt::Now)),
        ("{ wake = \"end\" }", Step::Wake(WakeAt::End)),
        ("{ wake = \"first-frame\" }", Step::Wake(WakeAt::FirstFrame)),
        ("{ wake = { bytes = 9 } }", Step::Wake(WakeAt::Bytes(9))),
        ("\"retry\"", Step::Retry(backoff)),
        ("{ retry = {} }", Step::Retry(backoff)),
        ("{ retry = { after = \"90s\" } }", {
            Step::Retry(Backoff { after: 90 * second, at_most: 90 * second, ..backoff })
        }),
        ("{ retry = { factor = 1, times = 3 } }", {
            Step::Retry(Backoff { factor: 1, times: Some(3), ..backoff })
        }),
        ("\"follow\"", Step::Follow),
        ("{ respond = {} }", answer(200, Vec::new(), "")),
        ("{ respond = { status = 204, header = { a = \"b\" }, body = \"c\" } }", {
            answer(204, vec![("a".to_owned(), "b".to_owned())], "c")
        }),
        ("\"fail\"", failure(502, "")),
        ("{ fail = { status = 402, reason = \"no\" } }", failure(402, "no")),
        ("{ alert = \"a\" }", Step::Alert("a".into())),
        ("{ log = \"b\" }", Step::Log("b".into())),
        ("\"close\"", Step::Close),
    ] {
        let wanted = [step];
        assert_eq!(steps(then), wanted, "{then}");
        assert_eq!(steps(&format!("[{then}]")), wanted, "[{then}]");
    }
}

#[test]
fn telling_stands_before_and_after_what_ends() {
    let order = |then| steps(then).iter().map(|step| step.action().word()).collect::<Vec<_>>();
    assert_eq!(
        order("[{ log = \"a\" }, \"buffer\", { wake = \"end\" }, { alert = \"b\" }, { log = \"c\" }]"),
        ["log", "buffer", "wake", "alert", "log"]
    );
    assert_eq!(order("[\"discard\", \"retry\", { log = \"again\" }]"), ["discard", "retry", "log"]);
}

#[test]
fn each_comparison_of_json_is_read() {
    for (text, wanted) in [
        ("equals = true", JsonValueTest::Equals(Scalar::Flag(true))),
        ("not = 3", JsonValueTest::Not(Scalar::Number(3.0))),
        ("less = -1.5", JsonValueTest::Less(-1.5)),
        ("greater = 2", JsonValueTest::Greater(2.0)),
        ("exists = false", JsonValueTest::Exists(false)),
    ] {
        let when = when(&format!("json = {{ pointer = \"/a\", {text} }}"));
        assert_eq!(when.json, [JsonTest { pointer: Pointer::parse("/a").unwrap(), value: wanted }]);
    }
    let null = r#"{"handler":[{"when":{"json":{"pointer":"","equals":null}},"then":"wake"}]}"#;
    let plan = Plan::from_json(null).unwrap();
    assert_eq!(plan.handlers[0].when.json[0].value, JsonValueTest::Equals(Scalar::Null));
}

#[test]
fn length_and_silence_are_for_other_framings() {
    let text = "[[handler]]\nwhen = { length = { below = 9 }, silence = \"2s\" }\nthen = \"fail\"";
    for framing in Framing::ALL.iter().filter(|framing| **framing != Framing::Http) {
        let plan = Plan::from_toml(&format!("framing = \"{framing}\"\n{text}")).unwrap();
        let handler = &plan.handlers[0];
        assert_eq!(handler.when.length, Some(Range { at_least: 0, below: Some(9) }));
        assert_eq!(handler.when.silence, Some(Range { at_least: 2000, below: None }));
        assert_eq!(handler.then, [Step::Fail(Failure { status: None, reason: "".into() })]);
    }
}
