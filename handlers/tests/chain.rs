//! A plan at work: which handler acts, in which order, and how it ends.

mod scenario;

use handlers::Event;
use handlers::chain::Outcome;
use scenario::Scenario;

const NOTHING: [&str; 0] = [];

fn handler(when: &str, then: &str) -> String {
    format!("[[handler]]\nwhen = {{ {when} }}\nthen = {then}\n")
}

#[test]
fn the_first_handler_that_matches_acts_alone() {
    let plan = [
        handler("event = \"end\"", "{ log = \"a\" }"),
        handler("status = \"2xx\"", "[{ log = \"b\" }, \"buffer\"]"),
        handler("status = 200", "\"wake\""),
    ];
    let mut s = Scenario::of(&plan.concat());
    assert_eq!(s.head(200), ["2: log b", "2: buffer"]);
    assert_eq!(s.outcome(), None);
}

#[test]
fn each_common_status_has_a_built_in_handler() {
    for (status, said) in [
        (100, vec!["interim: ignore"]),
        (103, vec!["interim: ignore"]),
        (101, vec!["switching: wake"]),
        (200, vec!["success: wake"]),
        (204, vec!["success: wake"]),
        (206, vec!["partial: buffer"]),
        (302, vec!["redirection: wake"]),
        (304, vec!["redirection: wake"]),
        (404, vec!["client-error: wake"]),
        (429, vec!["client-error: wake"]),
        (503, vec!["server-error: wake"]),
        (700, vec!["default: wake"]),
    ] {
        assert_eq!(Scenario::of("").head(status), said, "{status}");
    }
}

#[test]
fn with_a_budget_redirections_are_followed_and_busy_servers_asked_again() {
    let to = [("Location", "/elsewhere")];
    let mut s = Scenario::of("max_redirects = 2");
    for status in [301, 308] {
        assert_eq!(s.head_with(status, &to), ["redirect: follow"]);
    }
    assert_eq!(s.head_with(302, &to), ["redirection: wake"], "the budget is spent");
    assert_eq!(Scenario::of("max_redirects = 2").head(302), ["redirection: wake"], "nowhere to go");
    assert_eq!(Scenario::of("max_redirects = 2").head_with(304, &to), ["redirection: wake"]);

    let mut s = Scenario::of("max_retries = 2");
    assert_eq!(s.head(503), ["busy: retry at 1000 ms"]);
    assert_eq!(s.wait(), ["default: send"]);
    assert_eq!(s.head(429), ["busy: retry at 3000 ms"]);
    assert_eq!(s.wait(), ["default: send"]);
    assert_eq!(s.head(503), ["server-error: wake"]);
}

#[test]
fn a_plan_overrides_what_is_built_in() {
    let plan = [
        handler("event = \"head\", status = 100", "\"wake\""),
        handler("event = \"head\", status = 206", "{ fail = { status = 500 } }"),
        handler("event = \"head\", status = 200", "\"ignore\""),
        handler("event = \"time-out\"", "{ fail = { status = 503 } }"),
    ];
    let plan = plan.concat();
    assert_eq!(Scenario::of(&plan).head(100), ["1: wake"]);
    assert_eq!(Scenario::of(&plan).head(206), ["2: fail 500"]);
    assert_eq!(Scenario::of(&plan).head(200), ["3: ignore"]);
    assert_eq!(Scenario::of(&plan).wait(), ["4: fail 503"]);
}

#[test]
fn a_handler_that_only_tells_leaves_the_decision_to_what_is_built_in() {
    let mut s = Scenario::of(&handler("event = \"head\"", "{ log = \"head\" }"));
    assert_eq!(s.head(100), ["1: log head", "interim: ignore"]);
    assert_eq!(s.head(200), ["success: wake"], "it told once");
}

#[test]
fn without_a_handler_the_guest_wakes_as_soon_as_it_is_clear_what_came() {
    for (framing, head, body, end) in [
        ("http", true, false, true),
        ("line", false, false, true),
        ("length-prefix", false, false, true),
        ("raw", false, true, true),
        ("datagram", false, false, true),
    ] {
        for (event, wakes) in [
            (Event::Head, head),
            (Event::Body, body),
            (Event::End, end),
            (Event::Closed, true),
            (Event::Error, true),
        ] {
            let said = Scenario::of(&format!("framing = \"{framing}\"")).event(event);
            let wanted: &[&str] = if wakes { &["default: wake"] } else { &[] };
            assert_eq!(said, wanted, "{framing} {event}");
        }
    }
}

#[test]
fn after_its_last_decision_a_chain_says_nothing() {
    for (then, said, outcome) in [
        ("\"wake\"", "1: wake", Outcome::Woken),
        ("\"fail\"", "1: fail 502", Outcome::Failed),
        ("\"close\"", "1: close", Outcome::Closed),
    ] {
        let mut s = Scenario::of(&handler("status = 200", then));
        assert_eq!(s.head(200), [said]);
        assert_eq!(s.outcome(), Some(outcome));
        assert_eq!(s.chain.poll_timeout(), None);
        assert_eq!(s.body(b"more"), NOTHING);
        assert_eq!(s.event(Event::Error), NOTHING);
        assert_eq!(s.at_ms(u64::MAX).tick(), NOTHING);
    }
}

#[test]
fn actions_stand_before_and_after_a_wake_that_is_put_off() {
    let then = "[{ log = \"a\" }, \"buffer\", { wake = \"end\" }, { alert = \"b\" }, { log = \"c\" }]";
    let mut s = Scenario::of(&handler("event = \"head\"", then));
    assert_eq!(s.head(206), ["1: log a", "1: buffer"]);
    assert_eq!(s.body(b"piece"), NOTHING);
    assert_eq!(s.end(), ["1: wake", "1: alert b", "1: log c"]);
}

#[test]
fn a_wake_is_due_at_the_end_at_so_many_bytes_or_at_the_next_frame() {
    let of = |at: &str| Scenario::of(&handler("event = \"head\"", &format!("{{ wake = {at} }}")));
    let mut s = of("\"end\"");
    assert_eq!([s.head(200), s.body(b"abc")], [[""; 0]; 2]);
    assert_eq!(s.end(), ["1: wake"]);

    let mut s = of("{ bytes = 5 }");
    assert_eq!([s.head(200), s.body(b"abc")], [[""; 0]; 2]);
    assert_eq!(s.body(b"de"), ["1: wake"]);

    let mut s = of("{ bytes = 5 }");
    assert_eq!([s.head(200), s.body(b"abc")], [[""; 0]; 2]);
    assert_eq!(s.end(), ["1: wake"], "more will not come");

    let mut s = of("\"first-frame\"");
    assert_eq!(s.head(200), NOTHING);
    assert_eq!(s.body(b"a"), ["1: wake"]);
}

#[test]
fn a_pending_wake_gives_way_to_what_ends_before_it() {
    let plan = [
        handler("event = \"head\"", "[{ wake = \"end\" }, { log = \"whole\" }]"),
        handler("event = \"body\", bytes = 3", "\"close\""),
    ];
    let mut s = Scenario::of(&plan.concat());
    assert_eq!([s.head(200), s.body(b"ab")], [[""; 0]; 2]);
    assert_eq!(s.body(b"c"), ["2: close"]);

    let mut s = Scenario::of(&plan.concat());
    assert_eq!(s.head(200), NOTHING);
    assert_eq!(s.event(Event::Closed), ["1: wake", "1: log whole"], "no more will come");
}

#[test]
fn what_stands_behind_a_wake_is_told_though_its_handler_matches_again() {
    let then = "[{ log = \"a\" }, { wake = \"end\" }, { alert = \"b\" }]";
    let mut s = Scenario::of(&handler("status = 206", then));
    assert_eq!(s.head(206), ["1: log a"]);
    assert_eq!(s.body(b"piece"), NOTHING);
    assert_eq!(s.end(), ["1: wake", "1: alert b"]);
}

#[test]
fn where_nothing_follows_nobody_waits_on() {
    let put_off = handler("event = \"head\"", "{ wake = \"end\" }");
    for event in [Event::End, Event::Closed, Event::Error] {
        for then in ["ignore", "buffer", "discard"] {
            let mut s =
                Scenario::of(&handler("event = [\"end\", \"closed\", \"error\"]", &format!("\"{then}\"")));
            assert_eq!(s.event(event), [format!("1: {then}"), "default: wake".to_owned()], "{event}");
        }
        let mut s = Scenario::of(&[put_off.clone(), handler("", "\"buffer\"")].concat());
        assert_eq!(s.head(200), NOTHING);
        assert_eq!(s.event(event), ["2: buffer", "1: wake"], "{event}");
    }
}

#[test]
fn an_interim_response_has_no_end() {
    let plan = handler("", "{ wake = \"end\" }");
    let mut s = Scenario::of(&plan);
    assert_eq!([s.head(103), s.end(), s.head(200), s.body(b"x")].concat(), NOTHING);
    assert_eq!(s.end(), ["1: wake"]);
}

#[test]
fn a_second_request_does_not_find_the_first_ones_end() {
    let plan = [
        handler("event = \"end\", bytes = { below = 2 }", "{ respond = { body = \"ok\" } }"),
        handler("", "{ wake = \"end\" }"),
    ];
    let mut s = Scenario::of(&plan.concat());
    assert_eq!(s.end(), ["1: respond 200 ok"]);
    assert_eq!(s.event(Event::Head), NOTHING);
    assert_eq!([s.body(b"long"), s.end()], [vec![], vec!["2: wake".to_owned()]]);
}

#[test]
fn a_wake_at_so_many_bytes_does_not_mind_how_they_are_cut() {
    let plan = format!("framing = \"raw\"\n{}", handler("bytes = { below = 3 }", "{ wake = { bytes = 9 } }"));
    let mut s = Scenario::of(&plan);
    assert_eq!([s.body(b"ab"), s.body(b"cdef")].concat(), NOTHING);
    assert_eq!(s.body(b"ghi"), ["1: wake"]);
}

#[test]
fn what_is_kept_of_a_response_that_is_let_go_wakes_nobody() {
    let mut s = Scenario::of(
        "max_bytes = 4\nmax_redirects = 1\n[[handler]]\nwhen = { status = 302, event = \"end\" }\n\
        then = \"follow\"\n[[handler]]\nwhen = { status = 302 }\nthen = \"buffer\"",
    );
    assert_eq!(s.head_with(302, &[("Location", "/there")]), ["2: buffer"]);
    assert_eq!(s.body(b"abc"), ["2: buffer"]);
    s.keep(9);
    assert_eq!(s.end(), ["1: follow"]);
    assert_eq!(s.outcome(), None);
}

#[test]
fn a_pending_wake_gives_way_to_another_request() {
    let plan = [
        "max_redirects = 1\n".to_owned(),
        handler("event = \"head\", status = 103", "{ wake = \"first-frame\" }"),
        handler("event = \"head\", status = 302", "\"follow\""),
    ];
    let mut s = Scenario::of(&plan.concat());
    assert_eq!(s.head(103), NOTHING);
    assert_eq!(s.head_with(302, &[("Location", "/there")]), ["2: follow"]);
    assert_eq!(s.outcome(), None);
}

#[test]
fn where_nothing_follows_a_wake_is_not_put_off() {
    for at in ["\"end\"", "{ bytes = 99 }", "\"first-frame\""] {
        for event in [Event::End, Event::Closed, Event::Error] {
            let then = format!("{{ wake = {at} }}");
            assert_eq!(Scenario::of(&handler("", &then)).event(event), ["1: wake"], "{at} {event}");
        }
    }
    let mut s = Scenario::of(&format!("framing = \"line\"\n{}", handler("", "{ wake = \"first-frame\" }")));
    assert_eq!(s.end(), NOTHING, "another line may follow");
    assert_eq!(s.end(), ["1: wake"]);
}

#[test]
fn at_max_bytes_the_guest_wakes_whatever_the_plan_says() {
    let mut s = Scenario::of(&format!("max_bytes = 5\n{}", handler("", "\"buffer\"")));
    assert_eq!(s.head(206), ["1: buffer"]);
    assert_eq!(s.body(b"abcd"), ["1: buffer"]);
    assert_eq!(s.body(b"e"), ["1: buffer", "max_bytes: wake"]);
    assert_eq!(s.outcome(), Some(Outcome::Woken));
}

#[test]
fn a_line_is_a_message_and_the_next_one_is_another() {
    let plan = [
        "framing = \"line\"\n".to_owned(),
        handler("event = \"end\", body = { prefix = \"250-\" }", "\"ignore\""),
        handler("event = \"end\", body = { contains = \"later\" }", "[\"ignore\", { log = \"later\" }]"),
        handler("event = \"end\", length = { below = 3 }", "\"ignore\""),
    ];
    let mut s = Scenario::of(&plan.concat());
    assert_eq!(s.message(b"250-first"), ["1: ignore"]);
    assert_eq!(s.message(b"try later"), ["2: ignore", "2: log later"]);
    assert_eq!(s.message(b"try later"), ["2: ignore"], "told once");
    assert_eq!(s.message(b"ok"), ["3: ignore"]);
    assert_eq!(s.message(b"250 done ."), ["default: wake"], "what the line before had is forgotten");
}

#[test]
fn a_json_body_decides_at_its_end() {
    let plan = [
        handler("event = \"head\"", "\"buffer\""),
        handler("json = { pointer = \"/state\", equals = \"failed\" }", "{ fail = { status = 500 } }"),
    ];
    let mut s = Scenario::of(&plan.concat());
    assert_eq!(s.head(200), ["1: buffer"]);
    assert_eq!(s.body(b"{\"state\":"), NOTHING);
    assert_eq!(s.body(b"\"failed\"}"), NOTHING);
    assert_eq!(s.end(), ["2: fail 500"]);
}

#[test]
fn requests_are_answered_in_the_guests_place_and_the_waiting_goes_on() {
    let then = "{ respond = { status = 200, body = \"ok\" } }";
    let mut s = Scenario::of(&handler("event = \"end\"", then));
    assert_eq!(s.end(), ["1: respond 200 ok"]);
    assert_eq!(s.end(), ["1: respond 200 ok"]);
    assert_eq!(s.outcome(), None);
}

#[test]
fn a_request_has_headers_without_a_status() {
    let there = handler("event = \"head\", header = { upgrade = { present = true } }", "\"wake\"");
    let absent = handler("header = { upgrade = { present = false } }", "{ respond = { body = \"ok\" } }");
    let plan = [there, absent].concat();
    assert_eq!(Scenario::of(&plan).request(&[("Upgrade", "h2c")]), ["1: wake"]);
    assert_eq!(Scenario::of(&plan).request(&[]), ["2: respond 200 ok"]);
    assert_eq!(Scenario::of(&plan).event(Event::Error), ["default: wake"], "no head, no header is absent");
}
