//! Each mistake in a plan is refused, with its place, what was found and what was wanted: `plan-refusals.txt` has
//! plans, each followed by what is said of it.

#![allow(clippy::unwrap_used, reason = "a plan that is not refused fails with its text")]

use handlers::plan::{MAX_PLAN, MAX_PROBLEMS, Plan};

fn refusal(text: &str) -> String {
    match Plan::from_toml(text) {
        Ok(plan) => panic!("{text}\nis {plan:?}"),
        Err(why) => why.to_string(),
    }
}

#[test]
fn each_mistake_in_a_plan_has_its_own_text() {
    let mut count = 0;
    for block in include_str!("plan-refusals.txt").split_terminator("\n\n") {
        let said = |line: &&str| line.starts_with("> ");
        let plan: Vec<&str> = block.lines().filter(|line| !said(line)).collect();
        let text: Vec<&str> = block.lines().filter(said).map(|line| &line[2..]).collect();
        let plan = plan.join("\n");
        assert_eq!(refusal(&plan), text.join("\n"), "{plan}");
        count += 1;
    }
    assert_eq!(count, 94);
}

#[test]
fn what_is_no_json_is_refused_at_its_line() {
    for (text, why) in [
        ("", "line 1: EOF while parsing a value"),
        ("{\n\"max_wait\": }", "line 2: expected value"),
        ("{} {}", "line 1: trailing characters"),
        ("{\n\"max_wait\": \"1s\",\n\"max_wait\": \"2s\"}", "line 3: key `max_wait` is there twice"),
        ("[]", "the plan: wanted a table, found a list"),
        ("null", "the plan: wanted a table, found null"),
        (
            "{\"max_bytes\": 18446744073709551615}",
            "max_bytes: wanted a whole number from 1 to 1073741824, found 18446744073709552000",
        ),
    ] {
        assert_eq!(Plan::from_json(text).unwrap_err().to_string(), why, "{text}");
    }
    let deep = "[".repeat(60_000);
    assert_eq!(Plan::from_json(&deep).unwrap_err().to_string(), "line 1: recursion limit exceeded");
    assert!(Plan::from_toml(&format!("a = {deep}")).is_err());
}

#[test]
fn everything_that_is_wrong_is_told_at_once_up_to_a_limit() {
    let text = refusal("max_wait = 1\nmax_bytes = 0\n[[handler]]\nthen = \"sleep\"");
    let places: Vec<&str> = text.lines().map(|line| line.split_once(": ").unwrap().0).collect();
    assert_eq!(places, ["max_wait", "max_bytes", "handler 1, then 1"]);
    let many = "[[handler]]\n".repeat(30);
    assert_eq!(refusal(&many).lines().count(), MAX_PROBLEMS);
}

#[test]
fn a_plan_beyond_a_limit_is_refused() {
    let handlers = "[[handler]]\nthen = \"wake\"\n";
    assert!(Plan::from_toml(&handlers.repeat(64)).is_ok());
    assert_eq!(refusal(&handlers.repeat(65)), "handler: wanted at most 64 handlers, found 65");

    let long = format!("{}{}", "#".repeat(MAX_PLAN), "\n");
    assert_eq!(refusal(&long), "the plan: wanted a text of at most 65536 bytes, found 65537");

    let steps = |count: usize| format!("[[handler]]\nthen = [{}]", "{ log = \"a\" },".repeat(count));
    assert!(Plan::from_toml(&steps(16)).is_ok());
    assert_eq!(refusal(&steps(17)), "handler 1, then: wanted 1 to 16 actions, found 17");

    let headers = |count: usize| {
        let tests: String = (0..count).map(|n| format!("h{n} = \"1\",")).collect();
        format!("[[handler]]\nthen = \"wake\"\nwhen = {{ header = {{ {tests} }} }}\n")
    };
    assert_eq!(refusal(&headers(17)), "handler 1, when, header: wanted at most 16 headers, found 17");
    assert!(Plan::from_toml(&headers(16).repeat(8)).is_ok());
    assert_eq!(refusal(&headers(16).repeat(9)), "handler: wanted at most 128 conditions in all, found 144");

    let text = |length: usize| format!("[[handler]]\nthen = {{ log = \"{}\" }}", "é".repeat(length));
    assert!(Plan::from_toml(&text(128)).is_ok());
    assert_eq!(
        refusal(&text(129)),
        "handler 1, then 1, log: wanted a text of 1 to 256 bytes, found one of 258"
    );
    let answer =
        format!("[[handler]]\nthen = {{ respond = {{ body = \"{}\" }} }}", "a".repeat(16 * 1024 + 1));
    assert_eq!(
        refusal(&answer),
        "handler 1, then 1, respond, body: wanted a text of at most 16384 bytes, found one of 16385"
    );
}
