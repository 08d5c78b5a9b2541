//! The text of a handling plan, then, behind a zero byte, what happens to a stub that has it. What a chain promises
//! holds whatever plan and peer do: nothing after the last decision, no time in the past, no budget exceeded, and
//! left to itself it ends.

use core::time::Duration;
use std::sync::Arc;

use handlers::chain::{Chain, Decision, What};
use handlers::condition::Known;
use handlers::plan::{MAX_HANDLERS, MAX_PROBLEMS, MAX_STEPS, MAX_WAIT};
use handlers::{Event, Plan};

use crate::input::Input;

const FIELDS: [(&str, &str); 4] =
    [("Content-Type", "application/json"), ("Location", "/next"), ("Retry-After", "3"), ("ETag", "\"1\"")];

pub(crate) fn run(data: &[u8]) -> bool {
    let (text, happens) = data.split_at(data.iter().position(|byte| *byte == 0).unwrap_or(data.len()));
    let text = String::from_utf8_lossy(text);
    let read =
        if text.trim_start().starts_with('{') { Plan::from_json(&text) } else { Plan::from_toml(&text) };
    match read {
        Ok(plan) => {
            let has_handlers = !plan.handlers.is_empty();
            check(&plan);
            happen(Arc::new(plan), &mut Input::new(happens.get(1..).unwrap_or_default()));
            has_handlers
        }
        Err(why) => {
            assert!((1..=MAX_PROBLEMS).contains(&why.problems.len()), "{why}");
            assert!(why.problems.iter().all(|problem| !problem.place.is_empty() && !problem.what.is_empty()));
            false
        }
    }
}

fn check(plan: &Plan) {
    assert!(plan.handlers.len() <= MAX_HANDLERS && plan.max_wait <= MAX_WAIT && plan.max_bytes > 0);
    for handler in &plan.handlers {
        assert!((1..=MAX_STEPS).contains(&handler.then.len()));
        let ends = handler.then.iter().filter(|step| step.action().ends()).count();
        assert!(ends <= 1, "{:?}", handler.then);
    }
}

/// A chain, and what was counted of its decisions.
struct Watched {
    chain: Chain,
    plan: Arc<Plan>,
    retries: u32,
    redirects: u32,
}

impl Watched {
    fn tell(&mut self, now: Duration, event: Option<Event>, known: &Known<'_>) {
        let was_over = self.chain.outcome().is_some();
        let decisions = match event {
            Some(event) => self.chain.handle_event(now, event, known),
            None => self.chain.handle_timeout(now, known),
        }
        .to_vec();
        assert!(!was_over || decisions.is_empty(), "{decisions:?} after the last decision");
        assert!(decisions.len() <= MAX_STEPS * (self.plan.handlers.len() + 2), "{}", decisions.len());
        let of = |wanted: fn(&What) -> bool| {
            let count = decisions.iter().filter(|Decision { what, .. }| wanted(what)).count();
            u32::try_from(count).expect("few")
        };
        self.retries += of(|what| matches!(what, What::Retry { .. }));
        self.redirects += of(|what| matches!(what, What::Follow));
        let ends = of(|what| matches!(what, What::Wake | What::Fail(_) | What::Close));
        assert_eq!(ends, u32::from(!was_over && self.chain.outcome().is_some()), "{decisions:?}");
        let asks_again = of(|what| matches!(what, What::Retry { .. } | What::Follow));
        assert!(asks_again == 0 || ends == 0, "another request, and the guest woken: {decisions:?}");
        assert!(self.retries <= self.plan.max_retries && self.redirects <= self.plan.max_redirects);
        let due = self.chain.poll_timeout();
        assert_eq!(due.is_none(), self.chain.outcome().is_some());
        assert!(due.is_none_or(|due| due >= now && due <= self.plan.max_wait.max(now)), "{due:?} at {now:?}");
    }
}

fn happen(plan: Arc<Plan>, input: &mut Input<'_>) {
    let chain = Chain::new(Arc::clone(&plan));
    let mut watched = Watched { chain, plan, retries: 0, redirects: 0 };
    let (mut now, mut status, mut body) = (Duration::ZERO, None, Vec::new());
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let what = input.byte();
        now += Duration::from_millis(u64::from(input.u16()));
        let event = Event::ALL.get(usize::from(what % 8)).copied();
        if event == Some(Event::Head) {
            status = Some(input.u16() % 700);
            body.clear();
        }
        if event == Some(Event::Body) {
            body.extend_from_slice(input.chunk());
        }
        if what % 8 == 7 {
            now = watched.chain.poll_timeout().unwrap_or(now);
        }
        watched.tell(now, event, &known(status, &body));
    }
    // Each call passes a time that was awaited, of which there are few, or spends a repetition.
    let enough =
        MAX_HANDLERS + 4 * usize::try_from(watched.plan.max_retries).expect("few") * (MAX_HANDLERS + 1);
    for _ in 0..=enough {
        let Some(due) = watched.chain.poll_timeout() else { return };
        now = due;
        watched.tell(now, None, &known(status, &body));
    }
    panic!("it does not end: {:?}", watched.chain);
}

fn known(status: Option<u16>, body: &[u8]) -> Known<'_> {
    let bytes = body.len() as u64;
    Known { status, fields: Some(&FIELDS), body, bytes, stored: bytes, length: Some(bytes) }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let payment = include_str!("../../docs/examples/credit-card.toml");
    let download = include_str!("../../docs/examples/long-download.toml");
    let asked_again = [0, 0, 100, 0, 202, 7, 0, 0, 0, 0, 100, 0, 202, 7, 0, 0, 0, 0, 100, 0, 200];
    let pieces =
        [&[0, 0, 100, 0, 206, 1, 0, 9, 0, 4][..], b"data", &[1, 0, 9, 0, 4], b"more", &[2, 0, 0]].concat();
    [
        (payment, &asked_again[..]),
        (download, &pieces),
        (LINES, &[1, 0, 1, 0, 4, b'2', b'5', b'0', b'-', 2, 0, 0, 7, 0, 0, 7, 0, 0]),
        (JSON, &[0, 0, 1, 0, 200, 1, 0, 1, 0, 7, b'{', b'"', b'a', b'"', b':', b'1', b'}', 2, 0, 0]),
    ]
    .map(|(text, happens)| [text.as_bytes(), &[0], happens].concat())
    .to_vec()
}

const LINES: &str = r#"framing = "line"
max_wait = "1m"
group = { name = "mail", wake = 2 }
[[handler]]
when = { event = "end", body = { prefix = "250-", contains = "ok", within = 64 }, length = { below = 80 } }
then = ["ignore", { log = "more" }]
[[handler]]
when = { silence = "5s", bytes = { at_least = 1, below = 9 } }
then = [{ alert = "silent" }, { wake = "first-frame" }]
"#;

const JSON: &str = r#"{"max_retries": 3, "max_redirects": 2, "handler": [
  {"when": {"event": "end", "json": [{"pointer": "/a", "less": 2}, {"pointer": "/b/0", "exists": false}]},
   "then": [{"retry": {"after": "1s", "factor": 2, "at_most": "5s", "times": 2}}]},
  {"when": {"status": ["3xx", 429], "header": {"location": {"prefix": "/"}}}, "then": "follow"},
  {"when": {"event": "head"}, "then": ["buffer", {"wake": {"bytes": 100}}, {"log": "woken"}]}]}"#;
