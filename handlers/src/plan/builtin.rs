//! The handlers that stand behind a plan's own: what common responses get unless the plan says otherwise.

use core::time::Duration;
use std::sync::Arc;

use super::{Framing, Handler, Plan};
use crate::condition::{Status, When};
use crate::step::{Backoff, Failure, Step, WakeAt};
use crate::{Event, StatusClass};

/// How long `busy` waits before the first repetition, and at most.
const BUSY: Backoff =
    Backoff { after: Duration::from_secs(1), factor: 2, at_most: Duration::from_secs(60), times: None };

/// The built-in handlers of `plan`, in the order in which they are asked; each has a name.
#[must_use]
pub fn handlers(plan: &Plan) -> Vec<Handler> {
    let is_http = plan.framing == Framing::Http;
    let mut list = Vec::new();
    if is_http {
        let code = |codes: &[u16]| codes.iter().copied().map(Status::Code).collect::<Vec<_>>();
        let class = |class| vec![Status::Class(class)];
        let wake = || vec![Step::Wake(WakeAt::Now)];
        list.push(head("switching", code(&[101]), wake()));
        list.push(head("interim", class(StatusClass::Informational), vec![Step::Ignore]));
        list.push(head("partial", code(&[206]), vec![Step::Buffer, Step::Wake(WakeAt::End)]));
        list.push(head("success", class(StatusClass::Successful), wake()));
        if plan.max_redirects > 0 {
            list.push(head("redirect", code(&[301, 302, 303, 307, 308]), vec![Step::Follow]));
        }
        list.push(head("redirection", class(StatusClass::Redirection), wake()));
        if plan.max_retries > 0 {
            // Of all errors these two say that the request was not acted on, so repeating it does nothing twice.
            list.push(head("busy", code(&[429, 503]), vec![Step::Retry(BUSY)]));
        }
        list.push(head("client-error", class(StatusClass::ClientError), wake()));
        list.push(head("server-error", class(StatusClass::ServerError), wake()));
    }
    let failure = Failure { status: is_http.then_some(504), reason: Arc::from("no response in time") };
    let when = When { events: vec![Event::Timeout], ..When::default() };
    list.push(Handler { name: Some(Arc::from("time-out")), when, then: vec![Step::Fail(failure)] });
    list
}

fn head(name: &str, status: Vec<Status>, then: Vec<Step>) -> Handler {
    let when = When { events: vec![Event::Head], status, ..When::default() };
    Handler { name: Some(Arc::from(name)), when, then }
}
