//! A chain with a clock and a peer that a test sets.

#![allow(dead_code, clippy::expect_used, reason = "each test takes what it needs")]

use core::time::Duration;
use std::sync::Arc;

use handlers::chain::{By, Chain, Decision, Outcome, What};
use handlers::condition::Known;
use handlers::{Event, Plan};

pub(crate) struct Scenario {
    pub(crate) chain: Chain,
    now: Duration,
    has_head: bool,
    status: Option<u16>,
    fields: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    stored: u64,
    length: Option<u64>,
}

impl Scenario {
    /// A plan in TOML begins to wait.
    pub(crate) fn of(plan: &str) -> Self {
        let plan = Plan::from_toml(plan).unwrap_or_else(|why| panic!("{plan}\n{why}"));
        Self {
            chain: Chain::new(Arc::new(plan)),
            now: Duration::ZERO,
            has_head: false,
            status: None,
            fields: Vec::new(),
            body: Vec::new(),
            stored: 0,
            length: None,
        }
    }

    /// Time goes on to `millis` without anything to do.
    pub(crate) fn at_ms(&mut self, millis: u64) -> &mut Self {
        self.now = Duration::from_millis(millis);
        self
    }

    pub(crate) fn head(&mut self, status: u16) -> Vec<String> {
        self.head_with(status, &[])
    }

    pub(crate) fn head_with(&mut self, status: u16, fields: &[(&'static str, &'static str)]) -> Vec<String> {
        self.has_head = true;
        self.status = Some(status);
        self.fields = fields.to_vec();
        self.body.clear();
        self.event(Event::Head)
    }

    /// The head of a request, which has no status.
    pub(crate) fn request(&mut self, fields: &[(&'static str, &'static str)]) -> Vec<String> {
        self.has_head = true;
        self.fields = fields.to_vec();
        self.body.clear();
        self.event(Event::Head)
    }

    pub(crate) fn body(&mut self, bytes: &[u8]) -> Vec<String> {
        self.body.extend_from_slice(bytes);
        self.stored += bytes.len() as u64;
        self.event(Event::Body)
    }

    /// So many bytes are kept for the guest in all.
    pub(crate) fn keep(&mut self, stored: u64) {
        self.stored = stored;
    }

    /// The message ends; the next one begins without a body.
    pub(crate) fn end(&mut self) -> Vec<String> {
        let said = self.event(Event::End);
        self.body.clear();
        said
    }

    /// A whole message of a framing other than HTTP.
    pub(crate) fn message(&mut self, bytes: &[u8]) -> Vec<String> {
        self.length = Some(bytes.len() as u64);
        let mut said = self.body(bytes);
        said.extend(self.end());
        said
    }

    pub(crate) fn event(&mut self, event: Event) -> Vec<String> {
        let fields = Fields(&self.fields);
        let known = known(self.has_head, self.status, &fields, &self.body, self.stored, self.length);
        said(self.chain.handle_event(self.now, event, &known))
    }

    /// Time goes on until the chain wants to be asked, and it is.
    pub(crate) fn wait(&mut self) -> Vec<String> {
        self.now = self.chain.poll_timeout().expect("it is not over");
        self.tick()
    }

    /// The chain is asked although it may not want to be.
    pub(crate) fn tick(&mut self) -> Vec<String> {
        let fields = Fields(&self.fields);
        let known = known(self.has_head, self.status, &fields, &self.body, self.stored, self.length);
        said(self.chain.handle_timeout(self.now, &known))
    }

    pub(crate) fn now_ms(&self) -> u128 {
        self.now.as_millis()
    }

    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.chain.outcome()
    }
}

#[derive(Debug)]
struct Fields<'a>(&'a [(&'static str, &'static str)]);

impl handlers::condition::Fields for Fields<'_> {
    fn any(&self, matches: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> bool {
        self.0.any(matches)
    }
}

fn known<'a>(
    head: bool,
    status: Option<u16>,
    fields: &'a dyn handlers::condition::Fields,
    body: &'a [u8],
    stored: u64,
    length: Option<u64>,
) -> Known<'a> {
    Known { status, fields: head.then_some(fields), body, bytes: body.len() as u64, stored, length }
}

/// `1: wake`, by the plan's first handler; `partial: buffer`, by a built-in one; `default: wake`.
pub(crate) fn said(decisions: &[Decision]) -> Vec<String> {
    decisions
        .iter()
        .map(|decision| {
            let by = match &decision.by {
                By::Handler(index) => (index + 1).to_string(),
                By::BuiltIn(name) => name.to_string(),
                By::Default => "default".to_owned(),
                By::MaxBytes => "max_bytes".to_owned(),
            };
            let what = match &decision.what {
                What::Ignore => "ignore".to_owned(),
                What::Discard => "discard".to_owned(),
                What::Buffer => "buffer".to_owned(),
                What::Wake => "wake".to_owned(),
                What::Retry { at } => format!("retry at {} ms", at.as_millis()),
                What::Send => "send".to_owned(),
                What::Follow => "follow".to_owned(),
                What::Respond(answer) => format!("respond {} {}", answer.status, answer.body),
                What::Fail(failure) => match failure.status {
                    Some(status) => format!("fail {status}"),
                    None => "fail".to_owned(),
                },
                What::Alert(text) => format!("alert {text}"),
                What::Log(text) => format!("log {text}"),
                What::Close => "close".to_owned(),
            };
            format!("{by}: {what}")
        })
        .collect()
}
