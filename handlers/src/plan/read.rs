//! From the tree of a text to a checked plan.

use core::time::Duration;

use super::section::{DOCUMENT, Problems, Section};
use super::tree::Tree;
use super::{
    DEFAULT_BYTES, DEFAULT_WAIT, Framing, GroupRule, GroupWake, Handler, MAX_BYTES, MAX_CONDITIONS,
    MAX_HANDLERS, MAX_MEMBERS, MAX_NAME, MAX_REDIRECTS, MAX_RETRIES, Plan, PlanError, handler, then, value,
    when,
};
use crate::Action;

/// Reads a whole plan.
pub(super) fn plan(tree: Tree) -> Result<Plan, PlanError> {
    let mut problems = Problems::default();
    let read = Section::read(DOCUMENT.to_owned(), tree, &mut problems, document);
    problems.or(read)?.ok_or_else(|| PlanError::one(DOCUMENT, "wanted a table"))
}

fn document(section: &mut Section<'_>) -> Plan {
    let framing = section.take("framing", value::word).unwrap_or(Framing::Http);
    let max_wait = section.take("max_wait", value::positive_duration).unwrap_or(DEFAULT_WAIT);
    let max_retries = section.take("max_retries", value::small_count(0, MAX_RETRIES)).unwrap_or(0);
    let max_redirects = section.take("max_redirects", value::small_count(0, MAX_REDIRECTS)).unwrap_or(0);
    let max_bytes = section.take("max_bytes", value::count(1, MAX_BYTES)).unwrap_or(DEFAULT_BYTES);
    let group = section.table("group", group).flatten();
    let entries = match section.remove("handler") {
        None => Vec::new(),
        Some(Tree::List(entries)) => entries,
        Some(other) => {
            section.wrong_at("handler", value::wanted("a list of tables, as [[handler]]", &other));
            Vec::new()
        }
    };
    if entries.len() > MAX_HANDLERS {
        let what = format!("wanted at most {MAX_HANDLERS} handlers, found {}", entries.len());
        section.wrong_at("handler", what);
    }
    let mut plan =
        Plan { framing, max_wait, max_retries, max_redirects, max_bytes, group, handlers: Vec::new() };
    for (index, entry) in entries.into_iter().take(MAX_HANDLERS).enumerate() {
        let place = handler::place(index, name_in(&entry));
        let read = section.child(&place, entry, |section| one(section, &plan));
        plan.handlers.extend(read.flatten());
    }
    let conditions = plan.handlers.iter().map(|handler| when::weight(&handler.when)).sum::<usize>();
    if conditions > MAX_CONDITIONS {
        let what = format!("wanted at most {MAX_CONDITIONS} conditions in all, found {conditions}");
        section.wrong_at("handler", what);
    }
    plan
}

fn one(section: &mut Section<'_>, plan: &Plan) -> Option<Handler> {
    let name = section.take("name", value::line(MAX_NAME)).map(Into::into);
    let when = section.table("when", |section| when::read(section, plan.framing)).unwrap_or_default();
    let then = then::read(section, plan.framing)?;
    for (action, budget, key) in [
        (Action::Retry, plan.max_retries, "max_retries"),
        (Action::Follow, plan.max_redirects, "max_redirects"),
    ] {
        if budget == 0 && then.iter().any(|step| step.action() == action) {
            section.wrong_at("then", format!("wanted `{key}` above 0 for {action}, found 0"));
        }
    }
    Some(Handler { name, when, then })
}

/// The name that a handler has for the places of its mistakes, if it is well written.
fn name_in(entry: &Tree) -> Option<&str> {
    let Tree::Table(table) = entry else { return None };
    match table.get("name") {
        Some(Tree::Text(name)) if name.len() <= MAX_NAME && !name.chars().any(char::is_control) => Some(name),
        _ => None,
    }
}

fn group(section: &mut Section<'_>) -> Option<GroupRule> {
    let name = section.require("name", value::line(MAX_NAME));
    let wake = section.take("wake", group_wake).unwrap_or(GroupWake::Any);
    Some(GroupRule { name: name?.into(), wake })
}

fn group_wake(tree: &Tree) -> Result<GroupWake, String> {
    match tree {
        Tree::Text(word) if word == "any" => Ok(GroupWake::Any),
        Tree::Text(word) if word == "all" => Ok(GroupWake::All),
        Tree::Integer(_) => value::small_count(1, MAX_MEMBERS)(tree).map(GroupWake::Count),
        _ => Err(value::wanted(&format!("any, all or a number from 1 to {MAX_MEMBERS}"), tree)),
    }
}

/// Milliseconds of a duration.
pub(super) fn millis(tree: &Tree) -> Result<u64, String> {
    let time: Duration = value::duration(tree)?;
    u64::try_from(time.as_millis()).map_err(|_| value::wanted("a shorter duration", tree))
}
