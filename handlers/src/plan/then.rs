//! Reads what a handler does: an ordered list of actions, each a word or a table with one key.

use core::time::Duration;
use std::sync::Arc;

use super::section::Section;
use super::tree::Tree;
use super::{Framing, MAX_ANSWER, MAX_BYTES, MAX_HEADERS, MAX_NAME, MAX_RETRIES, MAX_STEPS, MAX_TEXT, value};
use crate::Action;
use crate::step::{Answer, Backoff, Failure, Step, WakeAt};

/// The words that stand alone.
pub(super) const WORDS: [Action; 8] = [
    Action::Ignore,
    Action::Discard,
    Action::Buffer,
    Action::Wake,
    Action::Retry,
    Action::Follow,
    Action::Fail,
    Action::Close,
];

/// The waiting before a repetition, unless the plan says otherwise.
const DEFAULT_BACKOFF: Backoff =
    Backoff { after: Duration::from_secs(1), factor: 2, at_most: Duration::from_secs(60), times: None };

/// What a peer that failed is told to have done, unless the plan says otherwise: 502 Bad Gateway.
const DEFAULT_FAILURE: u16 = 502;

/// Fields that frame a message; ours to write.
const FRAMING_FIELDS: [&str; 4] = ["connection", "content-length", "transfer-encoding", "date"];

/// Reads the list `then`; `None` if it is not there or a step is wrong.
pub(super) fn read(section: &mut Section<'_>, framing: Framing) -> Option<Vec<Step>> {
    let entries = match section.remove("then") {
        Some(Tree::List(entries)) => entries,
        Some(single) => vec![single],
        None => {
            section.wrong("wanted `then`");
            return None;
        }
    };
    if entries.is_empty() || entries.len() > MAX_STEPS {
        section.wrong_at("then", format!("wanted 1 to {MAX_STEPS} actions, found {}", entries.len()));
        return None;
    }
    let count = entries.len();
    let mut steps = Vec::with_capacity(count);
    for (index, entry) in entries.into_iter().enumerate() {
        let place = format!("then {}", index.saturating_add(1));
        if let Some(step) = step(section, &place, entry, framing) {
            fits(section, &place, framing, &step);
            steps.push(step);
        }
    }
    order(section, &steps);
    (steps.len() == count).then_some(steps)
}

fn step(section: &mut Section<'_>, place: &str, entry: Tree, framing: Framing) -> Option<Step> {
    let failure = || Failure { status: default_failure(framing), reason: Arc::from("") };
    if let Tree::Text(word) = &entry {
        return match word.parse::<Action>() {
            Ok(Action::Ignore) => Some(Step::Ignore),
            Ok(Action::Discard) => Some(Step::Discard),
            Ok(Action::Buffer) => Some(Step::Buffer),
            Ok(Action::Wake) => Some(Step::Wake(WakeAt::Now)),
            Ok(Action::Retry) => Some(Step::Retry(DEFAULT_BACKOFF)),
            Ok(Action::Follow) => Some(Step::Follow),
            Ok(Action::Fail) => Some(Step::Fail(failure())),
            Ok(Action::Close) => Some(Step::Close),
            Ok(action) => {
                section.wrong_at(place, format!("wanted an argument, as {{ {action} = ... }}, found none"));
                None
            }
            Err(_) => {
                let words = WORDS.map(Action::word).join(", ");
                section.wrong_at(place, value::wanted(&format!("one of {words}"), &entry));
                None
            }
        };
    }
    let Tree::Table(_) = &entry else {
        section.wrong_at(place, value::wanted("an action's word or table", &entry));
        return None;
    };
    section.child(place, entry, |section| with_argument(section, framing)).flatten()
}

fn with_argument(section: &mut Section<'_>, framing: Framing) -> Option<Step> {
    if section.unread() != 1 {
        section.wrong(format!("wanted one action, found {}", section.unread()));
    }
    let wake = match section.remove("wake") {
        Some(tree @ Tree::Table(_)) => section
            .child("wake", tree, |section| {
                section.require("bytes", value::count(1, MAX_BYTES)).map(WakeAt::Bytes)
            })
            .flatten(),
        Some(tree) => match wake_word(&tree) {
            Ok(at) => Some(at),
            Err(why) => {
                section.wrong_at("wake", why);
                None
            }
        },
        None => None,
    };
    let text = value::line(MAX_TEXT);
    let steps = [
        wake.map(Step::Wake),
        section.table("retry", retry).map(Step::Retry),
        section.table("respond", respond).flatten().map(|answer| Step::Respond(Arc::new(answer))),
        section.table("fail", |section| failure(section, framing)).map(Step::Fail),
        section.take("alert", &text).map(|text| Step::Alert(text.into())),
        section.take("log", &text).map(|text| Step::Log(text.into())),
    ];
    steps.into_iter().flatten().next()
}

fn wake_word(tree: &Tree) -> Result<WakeAt, String> {
    match tree {
        Tree::Text(word) if word == "now" => Ok(WakeAt::Now),
        Tree::Text(word) if word == "end" => Ok(WakeAt::End),
        Tree::Text(word) if word == "first-frame" => Ok(WakeAt::FirstFrame),
        _ => Err(value::wanted("now, end, first-frame or { bytes = N }", tree)),
    }
}

fn retry(section: &mut Section<'_>) -> Backoff {
    let backoff = Backoff {
        after: section.take("after", value::positive_duration).unwrap_or(DEFAULT_BACKOFF.after),
        factor: section.take("factor", value::small_count(1, 10)).unwrap_or(DEFAULT_BACKOFF.factor),
        at_most: section.take("at_most", value::positive_duration).unwrap_or(DEFAULT_BACKOFF.at_most),
        times: section.take("times", value::small_count(1, MAX_RETRIES)),
    };
    Backoff { at_most: backoff.at_most.max(backoff.after), ..backoff }
}

fn respond(section: &mut Section<'_>) -> Option<Answer> {
    let status = status_in(section, 200).unwrap_or(200);
    let headers = section.table("header", headers).unwrap_or_default();
    let body = section.take("body", |tree| match tree {
        Tree::Text(text) if text.len() <= MAX_ANSWER => Ok(text.clone()),
        Tree::Text(text) => {
            Err(format!("wanted a text of at most {MAX_ANSWER} bytes, found one of {}", text.len()))
        }
        _ => Err(value::wanted("a text", tree)),
    });
    Some(Answer { status, headers, body: body.unwrap_or_default() })
}

fn headers(section: &mut Section<'_>) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    let rest = section.rest();
    if rest.len() > MAX_HEADERS {
        section.wrong(format!("wanted at most {MAX_HEADERS} headers, found {}", rest.len()));
    }
    for (name, tree) in rest.into_iter().take(MAX_HEADERS) {
        let ours = FRAMING_FIELDS.iter().any(|field| field.eq_ignore_ascii_case(&name));
        if ours || name.len() > MAX_NAME || !value::is_field_name(&name) {
            let wanted = format!("the name of a header other than {}", FRAMING_FIELDS.join(", "));
            section.wrong(value::wanted(&wanted, &Tree::Text(name)));
            continue;
        }
        match value::line(MAX_TEXT)(&tree) {
            Ok(value) => headers.push((name, value)),
            Err(why) => section.wrong_at(&name, why),
        }
    }
    headers
}

fn failure(section: &mut Section<'_>, framing: Framing) -> Failure {
    let status = status_in(section, 400);
    if status.is_some() && framing != Framing::Http {
        section.wrong_at("status", format!("framing {framing} has none, only http has"));
    }
    let reason = section.take("reason", value::line(MAX_TEXT)).unwrap_or_default();
    Failure { status: status.or_else(|| default_failure(framing)), reason: reason.into() }
}

fn status_in(section: &mut Section<'_>, least: u64) -> Option<u16> {
    let code = section.take("status", value::small_count(least, 599))?;
    u16::try_from(code).ok()
}

fn default_failure(framing: Framing) -> Option<u16> {
    (framing == Framing::Http).then_some(DEFAULT_FAILURE)
}

/// Refuses what only HTTP has.
fn fits(section: &mut Section<'_>, place: &str, framing: Framing, step: &Step) {
    let action = step.action();
    if framing != Framing::Http && matches!(action, Action::Respond | Action::Follow | Action::Retry) {
        section.wrong_at(place, format!("framing {framing} has no {action}, only http has"));
    }
}

/// Refuses steps that contradict those before them.
fn order(section: &mut Section<'_>, steps: &[Step]) {
    let mut before: Vec<Action> = Vec::new();
    for (index, action) in steps.iter().map(Step::action).enumerate() {
        let of_bytes = |action: Action| matches!(action, Action::Ignore | Action::Discard | Action::Buffer);
        let refused = before.iter().find_map(|&earlier| {
            if action.only_tells() {
                None
            } else if earlier == action {
                Some(format!("{action} stands there already"))
            } else if earlier.ends() {
                Some(format!("after {earlier} only alert and log may stand, found {action}"))
            } else if of_bytes(earlier) && of_bytes(action) {
                Some(format!("{earlier} stands there already, and {action} contradicts it"))
            } else if earlier == Action::Ignore && action.ends() {
                Some(format!("ignore goes on waiting, and {action} does not"))
            } else {
                None
            }
        });
        if let Some(why) = refused {
            section.wrong_at(&format!("then {}", index.saturating_add(1)), why);
        }
        before.push(action);
    }
}
