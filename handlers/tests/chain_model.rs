//! Whatever a plan says and whatever happens, in any order and at any time: what a chain promises holds.

use core::fmt::Write as _;
use core::time::Duration;
use std::sync::Arc;

use handlers::chain::{Chain, Decision, Outcome, What};
use handlers::condition::Known;
use handlers::{Event, Plan};
use proptest::prelude::*;

/// Something that happens to a chain.
#[derive(Clone, Debug)]
enum Step {
    Event {
        event: Event,
        status: u16,
        body: &'static [u8],
        after_ms: u64,
    },
    /// Time passes up to when the chain wants to be asked.
    Wait,
    /// It is asked without need.
    Ask {
        after_ms: u64,
    },
}

fn condition() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        prop_oneof![Just("head"), Just("body"), Just("end"), Just("closed"), Just("time-out"), Just("error")]
            .prop_map(|event| format!("event = \"{event}\"")),
        prop_oneof![Just("100"), Just("200"), Just("206"), Just("302"), Just("503"), Just("\"5xx\"")]
            .prop_map(|status| format!("status = {status}")),
        (0_u64..20).prop_map(|seconds| format!("elapsed = \"{seconds}s\"")),
        (0_u64..20).prop_map(|bytes| format!("bytes = {bytes}")),
        Just("body = { contains = \"done\" }".to_owned()),
        Just("json = { pointer = \"/a\", equals = 1 }".to_owned()),
        Just("header = { location = { present = true } }".to_owned()),
    ]
}

fn action() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("[\"ignore\"]"),
        Just("[\"discard\", { log = \"a\" }]"),
        Just("[\"buffer\", { wake = \"end\" }, { alert = \"b\" }]"),
        Just("[{ wake = { bytes = 9 } }]"),
        Just("[{ wake = \"first-frame\" }]"),
        Just("[\"wake\", { log = \"c\" }]"),
        Just("[{ log = \"d\" }, { retry = { after = \"1s\" } }]"),
        Just("[{ retry = { after = \"500ms\", times = 2 } }]"),
        Just("[\"follow\"]"),
        Just("[\"fail\"]"),
        Just("[{ alert = \"e\" }]"),
        Just("[\"close\"]"),
    ]
}

prop_compose! {
    fn plan()(
        wait in 1_u64..40,
        bytes in 1_u64..100,
        retries in 1_u32..5,
        redirects in 1_u32..4,
        handlers in prop::collection::vec((condition(), condition(), action()), 0..6),
    ) -> Plan {
        let mut text = format!(
            "max_wait = \"{wait}s\"\nmax_bytes = {bytes}\nmax_retries = {retries}\nmax_redirects = {redirects}\n"
        );
        for (first, second, then) in handlers {
            let both = if first.split('=').next() == second.split('=').next() || second.is_empty() {
                first
            } else if first.is_empty() {
                second
            } else {
                format!("{first}, {second}")
            };
            let _ = write!(text, "[[handler]]\nwhen = {{ {both} }}\nthen = {then}\n");
        }
        // A few pairs contradict each other; what is left of them is a plan without handlers.
        Plan::from_toml(&text).unwrap_or_else(|_| Plan::from_toml(text.split("[[").next().unwrap_or("")).expect("a plan"))
    }
}

fn step() -> impl Strategy<Value = Step> {
    let event = prop::sample::select(Event::ALL);
    let status = prop::sample::select(&[100_u16, 200, 206, 302, 404, 503, 999][..]);
    let body = prop::sample::select(BODIES);
    prop_oneof![
        5 => (event, status, body, 0_u64..4000)
            .prop_map(|(event, status, body, after_ms)| Step::Event { event, status, body, after_ms }),
        2 => Just(Step::Wait),
        1 => (0_u64..9000).prop_map(|after_ms| Step::Ask { after_ms }),
    ]
}

const BODIES: &[&[u8]] = &[b"", b"do", b"ne", b"{\"a\":1}", b"0123456789"];

/// What was decided, and whether that was allowed.
#[derive(Default)]
struct Model {
    retries: u32,
    redirects: u32,
    sends: u32,
    paused: Option<Duration>,
    over: bool,
}

impl Model {
    fn judge(&mut self, plan: &Plan, now: Duration, decisions: &[Decision]) -> Result<(), TestCaseError> {
        for Decision { what, .. } in decisions {
            let tells = matches!(what, What::Alert(_) | What::Log(_));
            prop_assert!(!self.over || tells, "{what:?} after the last decision");
            match what {
                What::Retry { at } => {
                    self.retries += 1;
                    prop_assert!(*at > now && *at < plan.max_wait, "again at {at:?}, now {now:?}");
                    self.paused = Some(*at);
                }
                What::Send => {
                    self.sends += 1;
                    prop_assert!(self.paused.take().is_some_and(|at| at <= now) && now < plan.max_wait);
                }
                What::Follow => self.redirects += 1,
                What::Wake | What::Fail(_) | What::Close => self.over = true,
                What::Ignore | What::Discard | What::Buffer | What::Respond(_) => {
                    prop_assert!(self.paused.is_none() || now >= plan.max_wait);
                }
                What::Alert(_) | What::Log(_) => {}
            }
        }
        let any = |is: fn(&What) -> bool| decisions.iter().any(|Decision { what, .. }| is(what));
        let asks_again = any(|what| matches!(what, What::Retry { .. } | What::Follow));
        let ends = any(|what| matches!(what, What::Wake | What::Fail(_)));
        prop_assert!(!(asks_again && ends), "another request, and the guest woken: {decisions:?}");
        prop_assert!(self.retries <= plan.max_retries && self.redirects <= plan.max_redirects);
        prop_assert!(self.sends <= self.retries);
        prop_assert!(decisions.len() <= 16 * (plan.handlers.len() + 2), "{} at once", decisions.len());
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_chain_keeps_its_budgets_and_its_times_and_ends_once(
        plan in plan(),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let plan = Arc::new(plan);
        let mut chain = Chain::new(Arc::clone(&plan));
        let mut model = Model::default();
        let (mut now, mut body, mut status) = (Duration::ZERO, Vec::new(), None);
        let mut run = |chain: &mut Chain, now: Duration, event: Option<Event>, body: &[u8], status| {
            let was_over = chain.outcome().is_some();
            let fields = [("Location", "/there")];
            let bytes = body.len() as u64;
            let known = Known { status, fields: Some(&fields), body, bytes, stored: bytes, length: None };
            let mut twin = chain.clone();
            let decisions = match event {
                Some(event) => chain.handle_event(now, event, &known),
                None => chain.handle_timeout(now, &known),
            }
            .to_vec();
            let again = match event {
                Some(event) => twin.handle_event(now, event, &known),
                None => twin.handle_timeout(now, &known),
            };
            prop_assert_eq!(&decisions, again, "equal calls");
            prop_assert!(!was_over || decisions.is_empty(), "{:?} when it was over", decisions);
            model.judge(&plan, now, &decisions)?;
            prop_assert_eq!(model.over, chain.outcome().is_some());
            let follows = decisions.iter().any(|decision| decision.what == What::Follow);
            let is_interim = event == Some(Event::End) && status.is_some_and(|code| (100..200).contains(&code));
            if event.is_some() && bytes >= plan.max_bytes && !is_interim {
                prop_assert!(model.over || model.paused.is_some() || follows, "beyond max_bytes");
            }
            if event.is_none() && now >= plan.max_wait {
                prop_assert!(model.over, "beyond max_wait");
            }
            let due = chain.poll_timeout();
            prop_assert_eq!(due.is_none(), model.over);
            prop_assert!(due.is_none_or(|due| due >= now && due <= plan.max_wait.max(now)), "{:?} at {:?}", due, now);
            Ok(())
        };
        for step in steps {
            match step {
                Step::Event { event, status: code, body: more, after_ms } => {
                    now += Duration::from_millis(after_ms);
                    if event == Event::Head {
                        (status, body) = (Some(code), Vec::new());
                    }
                    body.extend_from_slice(more);
                    run(&mut chain, now, Some(event), &body, status)?;
                }
                Step::Wait => {
                    now = chain.poll_timeout().unwrap_or(now);
                    run(&mut chain, now, None, &body, status)?;
                }
                Step::Ask { after_ms } => {
                    now += Duration::from_millis(after_ms);
                    run(&mut chain, now, None, &body, status)?;
                }
            }
        }
        // Left to itself it ends, after a bounded number of calls.
        for _ in 0..200 {
            let Some(due) = chain.poll_timeout() else { break };
            now = due;
            run(&mut chain, now, None, &body, status)?;
        }
        prop_assert!(matches!(
            chain.outcome(),
            Some(Outcome::Woken | Outcome::Failed | Outcome::Closed)
        ));
    }

    #[test]
    fn no_text_panics_the_reader(text in "(?s).{0,200}") {
        for read in [Plan::from_toml(&text), Plan::from_json(&text)] {
            if let Err(why) = read {
                prop_assert!(!why.problems.is_empty() && !why.to_string().is_empty());
            }
        }
    }
}
