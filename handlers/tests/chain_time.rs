//! A plan at work as time passes: repetitions, deadlines, and handlers that await a time.

mod scenario;

use handlers::Event;
use handlers::chain::Outcome;
use scenario::Scenario;

const NOTHING: [&str; 0] = [];

fn handler(when: &str, then: &str) -> String {
    format!("[[handler]]\nwhen = {{ {when} }}\nthen = {then}\n")
}

#[test]
fn a_request_is_sent_again_after_its_back_off_until_the_budget_is_spent() {
    let retry = "{ retry = { after = \"1s\", factor = 3, at_most = \"5s\" } }";
    let plan = [
        "max_retries = 3\n".to_owned(),
        handler("event = \"head\", status = \"5xx\"", retry),
        handler("event = \"head\", status = \"5xx\"", "\"fail\""),
    ];
    let mut s = Scenario::of(&plan.concat());
    let mut told = Vec::new();
    for _ in 0..3 {
        told.extend(s.head(500));
        assert_eq!(s.event(Event::End), NOTHING, "what still comes of that response means nothing");
        told.extend(s.wait());
    }
    told.extend(s.head(500));
    assert_eq!(
        told,
        [
            "1: retry at 1000 ms",
            "default: send",
            "1: retry at 4000 ms",
            "default: send",
            "1: retry at 9000 ms",
            "default: send",
            "2: fail 502"
        ]
    );
}

#[test]
fn a_handler_may_have_a_budget_of_its_own() {
    let plan = [
        "max_retries = 10\n".to_owned(),
        handler("event = \"closed\"", "{ retry = { times = 1 } }"),
        handler("event = \"error\"", "{ retry = { times = 1 } }"),
    ];
    let mut s = Scenario::of(&plan.concat());
    assert_eq!(s.event(Event::Closed), ["1: retry at 1000 ms"]);
    assert_eq!(s.wait(), ["default: send"]);
    assert_eq!(s.event(Event::Error), ["2: retry at 2000 ms"]);
    assert_eq!(s.wait(), ["default: send"]);
    assert_eq!(s.event(Event::Closed), ["default: wake"]);
}

#[test]
fn retry_after_is_kept_and_what_would_be_too_late_is_not_tried() {
    let plan = "max_wait = \"1m\"\nmax_retries = 5";
    let mut s = Scenario::of(plan);
    assert_eq!(s.head_with(503, &[("retry-after", "30")]), ["busy: retry at 30000 ms"]);
    assert_eq!(s.wait(), ["default: send"]);
    assert_eq!(s.head_with(503, &[("Retry-After", "30")]), ["server-error: wake"], "that is max_wait");

    let huge = "99999999999999999999999";
    assert_eq!(Scenario::of(plan).head_with(503, &[("Retry-After", huge)]), ["server-error: wake"]);
    let date = "Fri, 31 Dec 1999 23:59:59 GMT";
    assert_eq!(Scenario::of(plan).head_with(503, &[("Retry-After", date)]), ["busy: retry at 1000 ms"]);
}

#[test]
fn retry_after_delays_a_repetition_no_longer_than_the_plan_allows() {
    let retry = handler("event = \"head\"", "{ retry = { at_most = \"5s\" } }");
    let mut s = Scenario::of(&format!("max_wait = \"1h\"\nmax_retries = 9\n{retry}"));
    assert_eq!(s.head_with(503, &[("Retry-After", "3")]), ["1: retry at 3000 ms"]);
    assert_eq!(s.wait(), ["default: send"]);
    assert_eq!(s.head_with(503, &[("Retry-After", "3000")]), ["1: retry at 8000 ms"]);
}

#[test]
fn who_awaits_a_time_is_asked_while_a_repetition_is_awaited() {
    let plan = [
        "max_wait = \"1m\"\nmax_retries = 9\n".to_owned(),
        handler("event = \"head\"", "{ retry = { after = \"30s\" } }"),
        handler("elapsed = \"5s\"", "{ alert = \"slow\" }"),
        handler("elapsed = \"6s\"", "\"retry\""),
        handler("status = 503, elapsed = \"7s\"", "{ fail = { status = 500 } }"),
        handler("elapsed = \"40s\"", "{ fail = { status = 503 } }"),
    ];
    let mut s = Scenario::of(&plan.concat());
    assert_eq!(s.at_ms(1000).head(503), ["1: retry at 31000 ms"]);
    assert_eq!((s.wait(), s.now_ms()), (vec!["2: alert slow".to_owned()], 5000));
    assert_eq!((s.wait(), s.wait(), s.now_ms()), (vec![], vec![], 7000), "asked again already");
    assert_eq!((s.wait(), s.now_ms()), (vec!["default: send".to_owned()], 31_000));
    assert_eq!((s.wait(), s.now_ms()), (vec!["5: fail 503".to_owned()], 40_000));

    let mut s = Scenario::of(&plan.concat());
    assert_eq!(s.at_ms(20_000).head(503), ["1: retry at 50000 ms"]);
    s.at_ms(45_000);
    assert_eq!(s.tick(), ["2: alert slow", "5: fail 503"], "before it would be sent again");
}

#[test]
fn while_a_repetition_is_awaited_it_is_not_sent_early() {
    let mut s = Scenario::of(&format!("max_retries = 1\n{}", handler("event = \"error\"", "\"retry\"")));
    assert_eq!(s.at_ms(500).event(Event::Error), ["1: retry at 1500 ms"]);
    assert_eq!(s.at_ms(1499).tick(), NOTHING);
    assert_eq!(s.at_ms(1500).tick(), ["default: send"]);
    assert_eq!(s.tick(), NOTHING, "once");
}

#[test]
fn at_max_wait_it_ends_whatever_the_plan_says() {
    let mut s = Scenario::of("max_wait = \"10s\"");
    assert_eq!(s.wait(), ["time-out: fail 504"]);
    assert_eq!((s.now_ms(), s.outcome()), (10_000, Some(Outcome::Failed)));

    for then in ["\"ignore\"", "\"buffer\"", "{ wake = \"end\" }"] {
        let mut s = Scenario::of(&format!("max_wait = \"10s\"\n{}", handler("", then)));
        assert_eq!(s.wait().last().unwrap(), "default: fail 504", "{then}");
    }
    let plan =
        format!("max_wait = \"10s\"\nmax_retries = 9\n{}", handler("event = \"time-out\"", "\"retry\""));
    assert_eq!(Scenario::of(&plan).wait(), ["time-out: fail 504"], "no repetition begins after it");
    assert_eq!(Scenario::of(&plan).event(Event::Timeout), ["1: retry at 1000 ms"], "before it one may");
    assert_eq!(Scenario::of("framing = \"raw\"").wait(), ["time-out: fail"]);
}

#[test]
fn a_response_that_was_let_go_is_nobodys_at_max_wait() {
    let plan = handler("event = \"end\"", "{ retry = { after = \"5s\" } }");
    let plan =
        format!("max_wait = \"8s\"\nmax_retries = 1\n{}{plan}", handler("event = \"head\"", "\"buffer\""));
    let mut s = Scenario::of(&plan);
    assert_eq!([s.head(200), s.end()].concat(), ["1: buffer", "2: retry at 5000 ms"]);
    assert_eq!(s.at_ms(8000).tick(), ["time-out: fail 504"]);

    let known = handler("event = \"time-out\", status = 200", "{ fail = { status = 500 } }");
    let mut s = Scenario::of(&format!("{plan}{known}"));
    assert_eq!([s.head(200), s.end()].concat(), ["1: buffer", "2: retry at 5000 ms"]);
    assert_eq!(s.at_ms(8000).tick(), ["time-out: fail 504"], "its status is not known any more");
}

#[test]
fn who_asks_for_another_request_when_late_says_nothing_else() {
    let plan = [
        "max_redirects = 1\n".to_owned(),
        handler("status = 302, event = \"head\"", "\"buffer\""),
        handler("status = 302, elapsed = \"1s\"", "\"follow\""),
        handler("elapsed = \"2s\"", "\"fail\""),
    ];
    let mut s = Scenario::of(&plan.concat());
    assert_eq!(s.head_with(302, &[("Location", "/there")]), ["1: buffer"]);
    assert_eq!(s.at_ms(3000).tick(), ["2: follow"]);
    assert_eq!(s.wait(), ["3: fail 502"]);
}

#[test]
fn elapsed_is_asked_when_its_time_has_come_and_once() {
    let plan = [
        "max_wait = \"1h\"\n".to_owned(),
        handler("elapsed = \"10s\"", "{ alert = \"slow\" }"),
        handler("elapsed = \"20s\"", "[{ alert = \"too slow\" }, { fail = { status = 504 } }]"),
    ];
    let mut s = Scenario::of(&plan.concat());
    assert_eq!(s.wait(), ["1: alert slow"]);
    assert_eq!((s.now_ms(), s.tick()), (10_000, vec![]));
    assert_eq!(s.wait(), ["2: alert too slow", "2: fail 504"]);
    assert_eq!(s.now_ms(), 20_000);

    let mut late = Scenario::of(&plan.concat());
    let wanted = ["1: alert slow", "2: alert too slow", "2: fail 504"];
    assert_eq!(late.at_ms(60_000).tick(), wanted, "being asked late changes nothing");
}

#[test]
fn elapsed_needs_its_other_conditions_too() {
    let plan = handler("status = 206, elapsed = \"10s\"", "\"wake\"");
    assert_eq!(Scenario::of(&plan).wait(), NOTHING);
    let mut s = Scenario::of(&plan);
    assert_eq!(s.head(206), ["partial: buffer"]);
    assert_eq!(s.wait(), ["1: wake"]);
}

#[test]
fn silence_counts_from_the_last_byte() {
    let plan = ["framing = \"raw\"\n".to_owned(), handler("event = \"body\"", "\"buffer\"")];
    let plan = [plan.concat(), handler("silence = \"2s\"", "\"wake\"")].concat();
    let mut s = Scenario::of(&plan);
    for at in [1000, 2900, 4800] {
        assert_eq!(s.at_ms(at).tick(), NOTHING);
        assert_eq!(s.body(b"x"), ["1: buffer"]);
    }
    assert_eq!(s.wait(), ["2: wake"]);
    assert_eq!(s.now_ms(), 6800);
}

#[test]
fn each_attempt_tells_anew() {
    let then = "[{ log = \"again\" }, { retry = { factor = 1 } }]";
    let mut s = Scenario::of(&format!("max_retries = 2\n{}", handler("event = \"error\"", then)));
    let mut told = Vec::new();
    for _ in 0..2 {
        told.extend(s.event(Event::Error));
        s.wait();
    }
    assert_eq!(told, ["1: log again", "1: retry at 1000 ms", "1: log again", "1: retry at 2000 ms"]);
}
