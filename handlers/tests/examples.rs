//! The plans of docs/examples, read and run as docs/stub-api.md tells.

#![allow(clippy::unwrap_used, reason = "an example that cannot be read fails with the place")]

mod scenario;

use std::path::Path;

use handlers::Event;
use handlers::chain::Outcome;
use scenario::Scenario;

const NOTHING: [&str; 0] = [];

fn example(name: &str) -> Scenario {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/examples").join(name);
    Scenario::of(&std::fs::read_to_string(path).unwrap())
}

#[test]
fn credit_card_is_asked_again_until_it_is_paid() {
    let mut s = example("credit-card.toml");
    assert_eq!(s.head(100), ["interim: ignore"]);
    let mut told = Vec::new();
    for _ in 0..6 {
        told.extend(s.head(202));
        told.extend(s.wait());
    }
    let retries: Vec<_> = told.iter().filter(|said| said.contains("retry")).collect();
    assert_eq!(
        retries,
        [
            "1: retry at 2000 ms",
            "1: retry at 6000 ms",
            "1: retry at 14000 ms",
            "1: retry at 30000 ms",
            "1: retry at 60000 ms",
            "1: retry at 90000 ms"
        ]
    );
    assert_eq!(told.len(), 18, "discard, retry, send");
    assert_eq!(s.head(200), ["3: wake", "3: log paid"]);
    assert_eq!(s.outcome(), Some(Outcome::Woken));
}

#[test]
fn credit_card_that_is_refused_fails() {
    let mut s = example("credit-card.toml");
    assert_eq!(s.head(202), ["1: discard", "1: retry at 2000 ms"]);
    assert_eq!(s.wait(), ["default: send"]);
    assert_eq!(s.head(402), ["2: fail 402", "2: log payment refused"]);
    assert_eq!(s.outcome(), Some(Outcome::Failed));
}

#[test]
fn credit_card_that_is_never_decided_is_alerted_at_max_wait() {
    let mut s = example("credit-card.toml");
    let mut told = Vec::new();
    while s.outcome().is_none() {
        told.extend(s.head(202));
        if s.outcome().is_none() {
            told.extend(s.wait());
        }
    }
    // The repetition that would come after max_wait is none, so the guest has the last answer instead.
    assert_eq!(told.last().unwrap(), "success: wake");
    let mut silent = example("credit-card.toml");
    assert_eq!(silent.wait(), ["4: alert a payment was not decided in time", "4: fail 504"]);
    assert_eq!(silent.now_ms(), 900_000);
}

#[test]
fn long_download_wakes_the_guest_once_all_pieces_are_there() {
    let mut s = example("long-download.toml");
    assert_eq!(s.head(206), ["1: buffer"]);
    for _ in 0..1000 {
        assert_eq!(s.body(&[0; 1460]), NOTHING);
    }
    assert_eq!(s.wait(), ["3: alert a download has been running for an hour"]);
    assert_eq!(s.body(&[0; 1460]), NOTHING);
    assert_eq!(s.end(), ["1: wake", "1: log download complete"]);
}

#[test]
fn long_download_that_is_cut_off_wakes_the_guest_with_what_there_is() {
    for event in [Event::Closed, Event::Error] {
        let mut s = example("long-download.toml");
        assert_eq!(s.head(206), ["1: buffer"]);
        assert_eq!(s.body(b"a piece"), NOTHING);
        assert_eq!(s.event(event), ["2: wake", "2: log download cut off"]);

        let mut s = example("long-download.toml");
        assert_eq!(s.head(206), ["1: buffer"]);
        assert_eq!(s.wait(), ["3: alert a download has been running for an hour"]);
        assert_eq!(s.event(event), ["2: wake", "2: log download cut off"], "after the hour too");
    }
}
